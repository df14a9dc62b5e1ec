"""The boot loader that ESP32 chips have in their ROM, by esptool."""

import contextlib
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from edgehmn.device.flash.parts import Part
from edgehmn.device.flash.programmer import Place, program, run, serial_places, starting, time_for
from edgehmn.errors import DeviceError, FlashError

INSTALL_LINE = "pip install esptool"
ASK_S = 60.0


class EspTool:
    """Places are serial ports. A chip that does not take esptool's stub is written by the loader in its ROM."""

    ready = "hold BOOT, press reset, try again"

    def __init__(self, chip: str, limit_s: float | None = None) -> None:
        """chip: as esptool prints it, such as ESP32-S3."""
        self._program = program("esptool", INSTALL_LINE)
        self._chip, self._limit_s = chip, limit_s
        self._stub = True

    def places(self, port: str | None) -> list[Place]:
        return serial_places(port, self._asked)

    def _asked(self, port: str) -> Place:
        try:
            said = self._chip_id(port).decode("utf-8", "replace")
        except FlashError as e:
            raise DeviceError(f"{port}: no ESP boot loader answers; {self.ready} ({e})") from e
        chip = re.search(r"(?:Detecting chip type\.*|Chip type:|Chip is)\s*(ESP32[\w-]*|ESP8266\w*)", said)
        if chip is None or chip[1] != self._chip:
            raise DeviceError(f"{port}: is another board: {chip[1] if chip else 'no chip named'}, not {self._chip}")
        return Place(port, chip[1])

    def _chip_id(self, port: str) -> bytes:
        try:
            return self._run(port, ["chip-id"], ASK_S)
        except FlashError as e:
            if not self._stub or "stub" not in str(e).lower():
                raise
            self._stub = False
            return self._run(port, ["chip-id"], ASK_S)

    def write(self, place: Place, parts: Sequence[Part]) -> None:
        with tempfile.TemporaryDirectory(prefix="edgehmn-") as folder:
            words = ["write-flash"]
            for part in parts:
                path = Path(folder) / f"{part.name}.bin"
                path.write_bytes(part.data)
                words += [f"0x{part.address:x}", str(path)]
            size = sum(len(part.data) for part in parts)
            self._run(place.name, words, time_for(size, self._limit_s), after="no-reset")

    def read(self, place: Place, part: Part) -> bytes | None:
        with tempfile.TemporaryDirectory(prefix="edgehmn-") as folder:
            path = Path(folder) / "back.bin"
            words = ["read-flash", f"0x{part.address:x}", str(len(part.data)), str(path)]
            self._run(place.name, words, time_for(len(part.data), self._limit_s), after="no-reset")
            return path.read_bytes() if path.is_file() else b""

    @contextlib.contextmanager
    def running(self, place: Place, line: str | None) -> Iterator[str | None]:
        with starting(place):
            self._run(place.name, ["run"], ASK_S)
        yield line or place.name

    def _run(self, port: str, words: list[str], timeout_s: float, after: str = "hard-reset") -> bytes:
        loader = [] if self._stub else ["--no-stub"]
        return run([self._program, "--port", port, *loader, "--after", after, *words], timeout_s)
