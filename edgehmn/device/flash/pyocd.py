"""Debug probes (CMSIS-DAP, ST-Link, J-Link), by pyocd."""

import contextlib
import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from edgehmn.device.flash.parts import Part
from edgehmn.device.flash.programmer import Place, program, run, starting, time_for
from edgehmn.errors import DeviceError

INSTALL_LINE = "pip install pyocd"
ASK_S = 30.0


class PyOcd:
    """Places are probes, by their unique ids."""

    def __init__(self, target: str, limit_s: float | None = None) -> None:
        """target: pyocd's name of the chip."""
        self._program = program("pyocd", INSTALL_LINE)
        self._target, self._limit_s = target, limit_s

    def places(self, port: str | None) -> list[Place]:
        try:
            found = json.loads(run([self._program, "json", "--probes"], ASK_S))["boards"]
            probes = [(str(b["unique_id"]), str(b["info"]), b.get("target")) for b in found]
        except (ValueError, KeyError, TypeError) as e:
            raise DeviceError(f"pyocd does not say which probes there are ({e!r}); pip install --upgrade pyocd") from e
        # A probe of its own does not know the chip; one that is part of a board does, and must not be another's.
        return [Place(name, what) for name, what, chip in probes if chip in (None, "", "cortex_m", self._target)]

    def write(self, place: Place, parts: Sequence[Part]) -> None:
        with tempfile.TemporaryDirectory(prefix="edgehmn-") as folder:
            for part in parts:
                path = Path(folder) / f"{part.name}.bin"
                path.write_bytes(part.data)
                at = ["--base-address", f"0x{part.address:x}"]
                self._run(
                    place,
                    "load",
                    ["--no-reset", "--format", "bin", *at, str(path)],
                    time_for(len(part.data), self._limit_s),
                )

    def read(self, place: Place, part: Part) -> bytes | None:
        with tempfile.TemporaryDirectory(prefix="edgehmn-") as folder:
            path = Path(folder) / "back.bin"
            ask = f'savemem 0x{part.address:x} {len(part.data)} "{path}"'
            self._run(
                place, "commander", ["--connect", "halt", "--command", ask], time_for(len(part.data), self._limit_s)
            )
            return path.read_bytes() if path.is_file() else b""

    @contextlib.contextmanager
    def running(self, place: Place, line: str | None) -> Iterator[str | None]:
        with starting(place):
            self._run(place, "reset", [], ASK_S)
        yield line

    def _run(self, place: Place, command: str, options: list[str], timeout_s: float) -> bytes:
        words = [self._program, command, "--no-wait", "--probe", place.name, "--target", self._target]
        return run([*words, *options], timeout_s)
