"""A rule whose learned state fits the memory of a board: the tables that remember words get smaller, nothing else."""

from dataclasses import replace

from edgehmn.core import Image
from edgehmn.device.boards import find_board
from edgehmn.errors import DoesNotFitError
from edgehmn.image import with_rule
from edgehmn.plasticity import Rule
from edgehmn.rules import read_rule

SHARES = (1.0, 0.75, 0.5, 0.375, 0.25, 0.125, 0.0625, 0.0)  # of the slots of every table, the first that fits


def image_for_board(image: Image, board: str) -> Image:
    """The image with as large a share of its rule's tables as the board has room to learn and to save.

    Raises UsageError for a board that is not known, DoesNotFitError where even without tables it cannot learn.
    """
    target, rule = find_board(board), read_rule(image)
    for share in SHARES:
        smaller = Image(with_rule(image.bytes.tobytes(), with_tables(rule, share)))
        fit = target.fit(smaller)
        if fit["learns"] and fit["saves"]:
            return smaller
    raise DoesNotFitError(
        f"{board} has {fit['arena_room']:,} bytes; with the least of learned states the model takes "
        f"{fit['arena_bytes']:,}, and as much again as it learns to save it; try a smaller --context",
        need=fit["arena_bytes"],
        have=fit["arena_room"],
    )


def with_tables(rule: Rule, share: float) -> Rule:
    """The rule with so much of the slots of its rows, n-grams and episodes."""
    return replace(
        rule,
        row_slots=(int(share * rule.row_slots[0]), int(share * rule.row_slots[1])),
        ngram_slots=int(share * rule.ngram_slots),
        episodes=int(share * rule.episodes),
    )
