"""Debug probes (CMSIS-DAP, ST-Link, J-Link), by pyocd."""

import contextlib
import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from edgehmn.device.flash.parts import Part
from edgehmn.device.flash.programmer import Place, program, run, starting, time_for
from edgehmn.errors import DependencyError, DeviceError, FlashError

INSTALL_LINE = "pip install pyocd"
ASK_S = 30.0
KEEP = ["-O", "auto_unlock=false"]  # else pyocd erases a chip that is locked, or seems so, with all that it has learned
LOCKED = "not automatically unlocking"  # what it then says


class PyOcd:
    """Places are probes, by their unique ids."""

    ready = "plug its debug probe in, and see that you may use it (udev rules)"

    def __init__(self, target: str, limit_s: float | None = None) -> None:
        """target: pyocd's name of the chip."""
        self._program = program("pyocd", INSTALL_LINE)
        self._target, self._limit_s = target, limit_s

    def places(self, port: str | None) -> list[Place]:
        try:
            said = self._ask("--probes")
            probes = [(str(b["unique_id"]), str(b["info"]), b.get("target")) for b in said["boards"]]
            wrong = said.get("error") if said.get("status") else None
        except FlashError as e:
            raise DeviceError(f"pyocd cannot ask for probes ({e})", candidates=[]) from e
        except (ValueError, KeyError, TypeError, AttributeError) as e:
            raise DeviceError(f"pyocd does not say which probes there are ({e!r}); pip install --upgrade pyocd") from e
        if wrong:  # with a code of 0, and none of the probes
            raise DeviceError(f"pyocd cannot ask for probes: {wrong}", candidates=[])
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
            # Named without its folder, whose path may hold a space: no command of pyocd takes that, quoted or not.
            options = ["--connect", "halt", "--command", f"savemem 0x{part.address:x} {len(part.data)} {path.name}"]
            self._run(place, "commander", options, time_for(len(part.data), self._limit_s), path.parent)
            return path.read_bytes() if path.is_file() else b""

    @contextlib.contextmanager
    def running(self, place: Place, line: str | None) -> Iterator[str | None]:
        with starting(place):
            self._run(place, "reset", [], ASK_S)
        yield line

    def _run(
        self, place: Place, command: str, options: list[str], timeout_s: float, folder: Path | None = None
    ) -> None:
        words = [self._program, command, "--no-wait", "--probe", place.name, "--target", self._target, *KEEP]
        try:
            run([*words, *options], timeout_s, folder=folder)
        except FlashError as e:
            if self._target in str(e) and not self._knows_target():
                raise DependencyError(
                    f"pyocd does not know the chip {self._target} yet; pyocd pack install {self._target}"
                ) from e
            if LOCKED in str(e):
                raise FlashError(
                    f"{place.name}: the chip is locked, or its cable makes it look so; nothing was written. Try again. "
                    "Unlocking erases all of it, with what it has learned: "
                    f"pyocd erase --mass --target {self._target} --probe {place.name}; then flash again"
                ) from e
            raise

    def _knows_target(self) -> bool:
        """False if it surely does not."""
        try:
            names = {target["name"] for target in self._ask("--targets")["targets"]}
        except (FlashError, ValueError, KeyError, TypeError):
            return True
        return self._target in names

    def _ask(self, what: str) -> Any:
        return json.loads(run([self._program, "json", what], ASK_S))
