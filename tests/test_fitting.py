"""A learned state that is made to fit a board: the largest share of the tables that does, and nothing else changes."""

from dataclasses import replace

import pytest

from edgehmn.core import Image
from edgehmn.device.boards import find_board
from edgehmn.errors import DoesNotFitError, UsageError
from edgehmn.fitting import SHARES, image_for_board, with_tables
from edgehmn.image import with_rule
from edgehmn.plasticity import Rule
from edgehmn.rules import read_rule
from tests.models import TINY, tiny_image

BOARD = "netduinoplus2"
WIDE = replace(TINY, d_model=64, d_hidden=96, n_heads=8, n_kv_heads=4, n_ctx=128, vocab_size=512)


def fits(image: Image) -> bool:
    fit = find_board(BOARD).fit(image)
    return bool(fit["learns"] and fit["saves"])


def test_what_fits_stays_as_it_is() -> None:
    image = Image(tiny_image())
    assert image_for_board(image, BOARD).id == image.id


def test_the_largest_share_that_fits_is_taken() -> None:
    image = Image(tiny_image(WIDE, Rule(row_slots=(400, 400))))
    rule, found = read_rule(image), image_for_board(image, BOARD)
    assert not fits(image) and fits(found)
    share = next(s for s in SHARES if read_rule(found) == with_tables(rule, s))
    larger = SHARES[SHARES.index(share) - 1]
    assert not fits(Image(with_rule(image.bytes.tobytes(), with_tables(rule, larger))))


def test_what_can_never_learn_there_is_refused() -> None:
    image = Image(tiny_image(replace(WIDE, n_layers=6, n_ctx=256)))
    with pytest.raises(DoesNotFitError, match="smaller --context") as caught:
        image_for_board(image, BOARD)
    assert caught.value.exit_code == 6


def test_an_unknown_board_is_named() -> None:
    with pytest.raises(UsageError, match="moonboard"):
        image_for_board(Image(tiny_image()), "moonboard")
