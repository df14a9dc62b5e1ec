"""Drives of boot loaders that take UF2 files (github.com/microsoft/uf2)."""

import contextlib
import os
import re
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

from edgehmn.device.flash.parts import Part
from edgehmn.device.flash.programmer import Place
from edgehmn.errors import DeviceError, FlashError

INFO, FILE = "INFO_UF2.TXT", "edgehmn.uf2"
MOUNTS = ("/media/*", "/media/*/*", "/run/media/*/*", "/mnt/*", "/Volumes/*")
BLOCK = struct.Struct("<IIIIIIII476sI")
MAGIC_1, MAGIC_2, MAGIC_END = 0x0A324655, 0x9E5D5157, 0x0AB16F30
FAMILY_PRESENT = 0x2000
PAYLOAD = 256


def uf2(parts: Sequence[Part], family: int) -> bytes:
    """The UF2 file that writes the parts; addresses must be multiples of 256, and the last block is filled up."""
    chunks = []
    for part in parts:
        if part.address % PAYLOAD:
            raise FlashError(f"{part.name} begins at 0x{part.address:x}, which UF2 cannot write")
        for at in range(0, len(part.data), PAYLOAD):
            chunks.append((part.address + at, part.data[at : at + PAYLOAD].ljust(PAYLOAD, b"\xff")))
    blocks = [
        BLOCK.pack(MAGIC_1, MAGIC_2, FAMILY_PRESENT, address, PAYLOAD, i, len(chunks), family, data, MAGIC_END)
        for i, (address, data) in enumerate(chunks)
    ]
    return b"".join(blocks)


class Uf2Drive:
    """Places are folders of mounted drives. Such a drive cannot be read back: once written it is gone, and the board
    runs. So what was written is proved by the board's own test alone."""

    ready = "hold BOOTSEL while plugging it in, and mount its drive"

    def __init__(self, board_id: str, family: int) -> None:
        """board_id: what the drive must call its board. family: of the chip, in the UF2 file."""
        self._board_id, self._family = board_id, family

    def places(self, port: str | None) -> list[Place]:
        if port is not None:
            said = _board_of(Path(port))
            if said != self._board_id:
                raise DeviceError(f"{port}: the drive of {said or 'no UF2 boot loader'}, not of {self._board_id}")
            return [Place(port, said)]
        return [Place(str(f), board) for f, board in drives().items() if board == self._board_id]

    def write(self, place: Place, parts: Sequence[Part]) -> None:
        data, path = uf2(parts, self._family), Path(place.name) / FILE
        try:
            with path.open("wb") as f:
                f.write(data)
                f.flush()
                with contextlib.suppress(OSError):  # the board starts as soon as it has the last block
                    os.fsync(f.fileno())
        except OSError as e:
            raise FlashError(f"{place.name}: the drive took no file ({e.strerror})") from e

    def read(self, place: Place, part: Part) -> bytes | None:
        return None

    @contextlib.contextmanager
    def running(self, place: Place, line: str | None) -> Iterator[str | None]:
        yield line


def drives() -> dict[Path, str]:
    """The drives of UF2 boot loaders that are mounted, and what each calls its board."""
    root = Path("/")
    folders = sorted({f for pattern in MOUNTS for f in root.glob(pattern[1:])})
    return {f: board for f in folders if (board := _board_of(f)) is not None}


def _board_of(folder: Path) -> str | None:
    try:
        said = re.search(r"^Board-ID:\s*(\S+)", (folder / INFO).read_text("utf-8", "replace"), re.M)
    except OSError:
        return None
    return said[1] if said else None
