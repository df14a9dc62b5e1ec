"""The boards for which there is firmware. A board is a folder below native/ports; every number of it stands in its
board.h, its core and its sources in board.cmake."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgehmn.core import Image, ffi, lib
from edgehmn.errors import DependencyError, DoesNotFitError, no_such

NOT_RUN = "builds, not yet run on hardware"
EMULATED = "qemu/"  # the folder of the boards that QEMU emulates, each named after its machine

SLOT_SECTORS = "BOARD_STATE_SLOT_SECTORS"
TOOLS = ("STM32FLASH", "PYOCD", "UF2", "ESPTOOL")  # board.cmake may name what each calls the board's chip


@dataclass(frozen=True)
class Board:
    """A board: what it is called, and its memory in bytes."""

    name: str  # what a --target names: the last part of the folder
    folder: str  # below native/ports
    cpu: str  # the compiler's flags for its core
    tools: dict[str, str]  # programs that write a real one, the usual first, and what they call its chip
    numbers: dict[str, int]  # the integers of its board.h, by name: addresses, sizes in bytes, frequencies in Hz
    run_by: str | None = None  # who ran its firmware on the real board, and when

    @property
    def machine(self) -> str | None:
        """QEMU's name for it; None if it is not emulated."""
        return self.name if self.folder.startswith(EMULATED) else None

    @property
    def status(self) -> str:
        """What is known of its firmware."""
        if self.run_by is not None:
            return f"run on hardware: {self.run_by}"
        return "emulated by QEMU" if self.machine else NOT_RUN

    @property
    def image_room(self) -> int:
        """Flash for an image."""
        return self.numbers["BOARD_IMAGE_BYTES"]

    @property
    def arena_room(self) -> int:
        """RAM for the model; without a staging buffer of its own, the board takes from it what the model leaves."""
        return self.numbers["BOARD_ARENA_BYTES"]

    def check_size(self, image_bytes: int) -> None:
        """Raises DoesNotFitError for an image of more bytes than there is flash for."""
        if image_bytes > self.image_room:
            raise DoesNotFitError(
                f"the image has {image_bytes:,} bytes, and {self.name} has room for {self.image_room:,}; take "
                "a smaller model, or --weights 4",
                need=image_bytes,
                have=self.image_room,
            )

    def fit(self, image: Image) -> dict[str, Any]:
        """How an image fits: bytes needed and there, whether it can learn, and whether a learned state has room on
        its way to the host and, if the board keeps states, in a slot of its flash. Raises DoesNotFitError if it cannot
        even run frozen."""
        self.check_size(len(image.bytes))
        learning, frozen = image.arena_bytes(plastic=True), image.arena_bytes(plastic=False)
        if frozen > self.arena_room:
            raise DoesNotFitError(
                f"the image needs an arena of {frozen:,} bytes, and {self.name} has {self.arena_room:,}; export it "
                "with a smaller --context",
                need=frozen,
                have=self.arena_room,
            )
        learns = learning <= self.arena_room
        record = self.record_bytes(image)
        stores = record is None or record <= self.numbers["BOARD_STATE_SECTOR_BYTES"] * self.numbers[SLOT_SECTORS]
        staging = self.numbers["BOARD_STAGING_BYTES"] or self.arena_room - learning
        return {
            "board": self.name,
            "image_bytes": len(image.bytes),
            "image_room": self.image_room,
            "arena_bytes": learning if learns else frozen,
            "arena_room": self.arena_room,
            "stack_bytes": self.numbers["BOARD_STACK_BYTES"],
            "learns": learns,
            "saves": learns and stores and image.delta_bytes() <= staging,
        }

    def record_bytes(self, image: Image) -> int | None:
        """What one learned state of an image takes of a slot of the flash; None for a board that keeps no states."""
        if "BOARD_STATE_SECTOR_BYTES" not in self.numbers:
            return None
        flash = ffi.new("ehmn_flash *")
        flash.sector_bytes, flash.slot_sectors = self.numbers["BOARD_STATE_SECTOR_BYTES"], self.numbers[SLOT_SECTORS]
        flash.unit = self.numbers["BOARD_STATE_UNIT"]
        return int(lib.ehmn_state_record_bytes(flash, image.delta_bytes()))


def sources() -> Path:
    """The folder of the C sources, as installed or in a checkout."""
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "native", package.parent / "native"):
        if (folder / "CMakeLists.txt").is_file():
            return folder
    raise DependencyError(f"{package / 'native'}: the C sources are missing; pip install --force-reinstall edgehmn")


def boards() -> dict[str, Board]:
    """All boards by their names, in the order of the names."""
    ports = sources() / "ports"
    found = [_read(header.parent, ports) for header in ports.rglob("board.h")]
    return {board.name: board for board in sorted(found, key=lambda board: board.name)}


def machines() -> list[str]:
    """The boards that can be emulated, by QEMU's names."""
    return [board.machine for board in boards().values() if board.machine is not None]


def find_board(name: str) -> Board:
    """The board of that name, or in that folder below native/ports. Raises UsageError if there is none."""
    known = boards()
    board = known.get(name.rpartition("/")[2])
    if board is None or name not in (board.name, board.folder):
        raise no_such("firmware for board", name, known, "'edgehmn targets' lists them")
    return board


def _read(folder: Path, ports: Path) -> Board:
    defined = re.findall(r"^#define (BOARD_\w+) (0x[0-9A-Fa-f]+|\d+)$", (folder / "board.h").read_text("utf-8"), re.M)
    numbers = {name: int(value, 0) for name, value in defined}
    text = (folder / "board.cmake").read_text("utf-8")
    cpu, run_by = (re.search(rf'^set\(BOARD_{name} "([^"]+)"\)', text, re.M) for name in ("CPU", "RUN_BY"))
    named = re.findall(r"^set\(BOARD_(\w+) ([^\s\"]+)\)", text, re.M)
    tools = {name.lower(): what for name, what in named if name in TOOLS}
    place = folder.relative_to(ports).as_posix()
    return Board(folder.name, place, cpu[1] if cpu else "", tools, numbers, run_by[1] if run_by else None)
