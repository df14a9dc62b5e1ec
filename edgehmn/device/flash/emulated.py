"""Emulated boards whose external memory is a file of this host: that file is their flash."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from edgehmn.device.boards import Board
from edgehmn.device.emulator import Emulator, check_flash, claim, external_memory
from edgehmn.device.flash.parts import Part
from edgehmn.device.flash.programmer import Place
from edgehmn.errors import CannotWriteError, DeviceError, UsageError


class Emulated:
    """Places are files of the memory's size, made where there is none. The firmware is given to the emulator at each
    start; the image is written into the file, and learned state there is not touched."""

    ready = "name it with --port FILE"

    def __init__(self, board: Board) -> None:
        memory = external_memory(board)
        if memory is None:
            raise UsageError(f"{board.name}: this emulation keeps no flash; use 'edgehmn emulate'")
        self._board = board
        self._bytes, self._image_at = memory

    def places(self, port: str | None) -> list[Place]:
        if port is None:
            raise DeviceError(f"an emulated {self._board.name} keeps its flash in a file: {self.ready}")
        check_flash(Path(port), self._bytes)
        return [Place(port, f"emulated {self._board.name}")]

    def write(self, place: Place, parts: Sequence[Part]) -> None:
        path = Path(place.name)
        fresh = not path.exists()
        try:
            with claim(path), path.open("r+b") as f:
                f.truncate(self._bytes)
                for part in self._stored(parts):
                    f.seek(self._at(part))
                    f.write(part.data)
        except OSError as e:
            if fresh:
                path.unlink(missing_ok=True)
            raise CannotWriteError(f"{path}: cannot be written ({e.strerror}); free space or choose another") from e

    def read(self, place: Place, part: Part) -> bytes | None:
        if not self._stored([part]):
            return part.data
        with Path(place.name).open("rb") as f:
            f.seek(self._at(part))
            return f.read(len(part.data))

    @contextlib.contextmanager
    def running(self, place: Place, line: str | None) -> Iterator[str | None]:
        with Emulator(None, self._board.name, flash=Path(place.name)) as emulator:
            yield emulator.url

    def _stored(self, parts: Sequence[Part]) -> list[Part]:
        return [part for part in parts if part.name == "image"]

    def _at(self, part: Part) -> int:
        """Offset in the file."""
        return part.address - self._board.numbers["BOARD_IMAGE_ADDRESS"] + self._image_at
