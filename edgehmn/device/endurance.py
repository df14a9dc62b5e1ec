"""How often a board can store what it learned before its flash is worn out."""

import re
from dataclasses import asdict, dataclass
from typing import Any

from edgehmn.core import Image
from edgehmn.device.boards import SLOT_SECTORS, Board, sources
from edgehmn.errors import UsageError

SLOTS = 2
DAYS_PER_YEAR = 365.25
YEARS = 10.0  # that a board is to last
CYCLES = "BOARD_STATE_ERASE_CYCLES"


@dataclass(frozen=True)
class WriteBudget:
    """erase_cycles: that a sector endures at least, by `source`, None if the board does not say; states_per_erase: that
    one slot takes before it is erased, 0 if not even one fits; saves: in the whole life of the flash; saves_per_day:
    for so many years, stored states of one size being confirmed each time."""

    sector_bytes: int
    slot_bytes: int
    record_bytes: int
    states_per_erase: int
    erase_cycles: int | None
    source: str | None
    saves: int | None
    years: float
    saves_per_day: float | None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def write_budget(board: Board, image: Image, years: float = YEARS) -> WriteBudget | None:
    """None for a board that keeps no states. Both slots wear alike: each store goes behind the last one, and the other
    slot is erased when there is no room. Raises UsageError unless years is positive."""
    if not years > 0:
        raise UsageError(f"{years:g} years: must be more than none")
    numbers, record = board.numbers, board.record_bytes(image)
    if record is None:
        return None
    sector, sectors = numbers["BOARD_STATE_SECTOR_BYTES"], numbers[SLOT_SECTORS]
    each, cycles = sector * sectors // record, numbers.get(CYCLES)
    saves = None if cycles is None else SLOTS * cycles * each
    return WriteBudget(
        sector_bytes=sector,
        slot_bytes=sector * sectors,
        record_bytes=record,
        states_per_erase=each,
        erase_cycles=cycles,
        source=source_of(board, CYCLES),
        saves=saves,
        years=years,
        saves_per_day=None if saves is None else saves / (years * DAYS_PER_YEAR),
    )


def source_of(board: Board, name: str) -> str | None:
    """Where a number of a board comes from: the comment of its board.h that begins with the number's name."""
    text = (sources() / "ports" / board.folder / "board.h").read_text("utf-8")
    found = re.search(rf"/\* {name}: (.*?) \*/", text, re.S)
    return " ".join(found[1].replace("\n *", " ").split()) if found else None
