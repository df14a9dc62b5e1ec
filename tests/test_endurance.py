"""The write budget of a board: what the flash's own code stores until it is worn out, no more and no less."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from edgehmn.core import Image
from edgehmn.device.boards import boards, find_board
from edgehmn.device.endurance import CYCLES, source_of, write_budget
from edgehmn.errors import UsageError
from tests.command_line import Result
from tests.models import BUSY, SMALL, opened, tiny_image
from tests.test_state_slots import OK, Flash, confirm, store

Cli = Callable[..., Result]


@pytest.fixture(scope="module")
def image() -> Image:
    return opened(tiny_image(SMALL, BUSY))


def small_slot(numbers: dict[str, int]) -> dict[str, int]:
    """Too small for any state."""
    return numbers | {"BOARD_STATE_SECTOR_BYTES": 256}


def test_so_many_states_can_be_stored_before_a_sector_is_worn_out(image: Image) -> None:
    """Counted by storing with the flash's own code until a sector has had more erases than it may."""
    board, cycles = find_board("mps2-an386"), 3
    shape = {"BOARD_STATE_SECTOR_BYTES": 8192, "BOARD_STATE_SLOT_SECTORS": 2, "BOARD_STATE_UNIT": 32}
    budget = write_budget(replace(board, numbers=board.numbers | shape | {CYCLES: cycles}), image, 2.5)
    assert budget is not None and budget.saves_per_day is not None and budget.states_per_erase > 1
    flash, stored = Flash(8192, 2, 32), 0
    while True:
        assert (store(flash, bytes(image.delta_bytes())), confirm(flash)) == (OK, OK)
        if max(flash.erased) > cycles:
            break
        stored += 1
    blank = 2 * budget.states_per_erase  # what the flash took before its first erase
    assert stored == budget.saves + blank
    assert budget.saves_per_day == pytest.approx(budget.saves / (2.5 * 365.25))


def test_what_a_board_does_not_say_is_not_made_up(image: Image) -> None:
    board = find_board("mps2-an386")
    silent = replace(board, numbers={k: v for k, v in board.numbers.items() if k != CYCLES})
    budget = write_budget(silent, image)
    assert budget is not None and budget.states_per_erase > 0
    assert (budget.erase_cycles, budget.saves, budget.saves_per_day) == (None, None, None)
    assert write_budget(replace(board, numbers={}), image) is None
    small = write_budget(replace(board, numbers=small_slot(board.numbers)), image)
    assert small is not None and (small.states_per_erase, small.saves) == (0, 0)
    assert board.fit(image)["saves"] and not replace(board, numbers=small_slot(board.numbers)).fit(image)["saves"]
    for years in (0.0, -1.0, float("nan")):
        with pytest.raises(UsageError):
            write_budget(board, image, years)


def test_every_number_has_a_source() -> None:
    for board in boards().values():
        if CYCLES in board.numbers:
            source = source_of(board, CYCLES) or ""
            assert "data sheet" in source or "product specification" in source, board.name
    assert source_of(find_board("mps2-an386"), "BOARD_NAME") is None


def test_plan_tells_it(run_cli: Cli, tiny_export: Path) -> None:
    [fit] = run_cli("plan", tiny_export, "--target", "mps2-an386", "--years", "5", "--json").result["targets"]
    budget = fit["write_budget"]
    assert (budget["erase_cycles"], budget["years"], budget["sector_bytes"]) == (10_000, 5, 131_072)
    assert budget["saves"] == 20_000 * budget["states_per_erase"]
    said = run_cli("plan", tiny_export, "--target", "mps2-an386").out
    assert "write budget:" in said and "a day for 10 years" in said and "DS12110" in said
    assert run_cli("plan", tiny_export, "--target", "mps2-an386", "--years", "0").code == 2
    assert "write budget" not in run_cli("plan", tiny_export).out
