"""The boot loader that STM32 chips have in their ROM, on a serial line, by stm32flash (AN3155 of their maker)."""

import contextlib
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from edgehmn.device.flash.parts import Part
from edgehmn.device.flash.programmer import Place, program, run, serial_places, starting, time_for
from edgehmn.errors import DeviceError, FlashError

INSTALL_LINE = "sudo apt-get install stm32flash"
ASK_S = 20.0


class Stm32Flash:
    """Places are serial ports. The board must have started with BOOT0 high."""

    ready = "set BOOT0, press reset, try again"

    def __init__(self, chip: int, start: int, limit_s: float | None = None) -> None:
        """chip: the id that the boot loader must give. start: address of the firmware."""
        self._program = program("stm32flash", INSTALL_LINE)
        self._chip, self._start, self._limit_s = chip, start, limit_s

    def places(self, port: str | None) -> list[Place]:
        return serial_places(port, self._asked)

    def _asked(self, port: str) -> Place:
        try:
            said = self._run(port, [], ASK_S).decode("utf-8", "replace")
        except FlashError as e:
            raise DeviceError(f"{port}: no STM32 boot loader answers; {self.ready} ({e})") from e
        chip = re.search(r"Device ID\s*:\s*0x([0-9a-fA-F]+)(.*)", said)
        if chip is None or int(chip[1], 16) != self._chip:
            other = f"0x{chip[1]}{chip[2]}" if chip else "a chip that it does not name"
            raise DeviceError(f"{port}: is another board: {other}, not a chip 0x{self._chip:04x}")
        return Place(port, f"STM32, chip 0x{chip[1]}{chip[2]}")

    def write(self, place: Place, parts: Sequence[Part]) -> None:
        for part in parts:
            with _file(part.data) as path:
                area = f"0x{part.address:08x}:{len(part.data)}"
                self._run(place.name, ["-w", str(path), "-v", "-S", area], time_for(len(part.data), self._limit_s))

    def read(self, place: Place, part: Part) -> bytes | None:
        with _file(b"") as path:
            path.unlink()
            area = f"0x{part.address:08x}:{len(part.data)}"
            self._run(place.name, ["-r", str(path), "-S", area], time_for(len(part.data), self._limit_s))
            return path.read_bytes()[: len(part.data)] if path.is_file() else b""

    @contextlib.contextmanager
    def running(self, place: Place, line: str | None) -> Iterator[str | None]:
        with starting(place):
            self._run(place.name, ["-g", f"0x{self._start:08x}"], ASK_S)
        yield line or place.name

    def _run(self, port: str, options: list[str], timeout_s: float) -> bytes:
        mode = ["-m", "8n1"] if port.startswith("/dev/pts/") else []  # a pseudo-terminal knows no parity
        return run([self._program, *mode, *options, port], timeout_s)


@contextlib.contextmanager
def _file(data: bytes) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="edgehmn-") as folder:
        path = Path(folder) / "part.bin"
        path.write_bytes(data)
        yield path
