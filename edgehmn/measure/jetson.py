"""Jetson: the INA3221 through hwmon or iio, and lines of tegrastats."""

import contextlib
import re
import select
import subprocess
from dataclasses import dataclass
from pathlib import Path

from edgehmn.errors import DeviceError
from edgehmn.measure.sampling import Description, plausible

DRIVERS = Path("/sys/bus/i2c/drivers")
# Rails that hold all others of a module; where there is none of these, the rails are added.
TOTALS = ("VDD_IN", "POM_5V_IN", "VIN_SYS_5V0_TOTAL")
RAIL = re.compile(r"(?:VDD|POM|VIN|VDDQ)_[A-Z0-9_]+|GPU|CPU|SOC|CV|VDDRQ|SYS5V")
READING = re.compile(r"(?<!\S)([A-Z][A-Z0-9_]*) (\d+)(mW)?(?:/(\d+)(mW)?)?(?=\s|$)")
SKIPPED = re.compile(r"\bNC\b|sum of shunt", re.IGNORECASE)
EVERY_MS = 100  # between lines of tegrastats
PATIENCE_S = 5.0
MODULE = "the carrier board, and its supply's losses"


def parse_tegrastats(line: str) -> dict[str, float]:
    """Watts at this moment of each rail in a line of tegrastats: `NAME 933/933`, `NAME 933mW/933mW` or `NAME 933mW`."""
    rails = {}
    for match in READING.finditer(line):
        name, now, unit, mean, _ = match.groups()
        if RAIL.fullmatch(name) and (unit or mean is not None):
            rails[name] = plausible(int(now) / 1000, name)
    if not rails:
        raise DeviceError("tegrastats: a line without any rail of power; this module shows none, or needs sudo")
    return rails


def total(rails: dict[str, float]) -> tuple[str, float]:
    """Name and watts of the whole module. Rails below a total are inside it, and not added."""
    for name in TOTALS:
        if name in rails:
            return name, rails[name]
    if not rails:
        raise DeviceError("no rail of power was found")
    return "sum of " + ", ".join(sorted(rails)), sum(rails.values())


@dataclass(frozen=True)
class Channel:
    """One rail of an INA3221. Where `power` is None, watts are volts times amperes."""

    label: str
    volts: Path | None
    amperes: Path | None
    power: Path | None

    def watts(self) -> float:
        """Files hold millivolts, milliamperes and milliwatts."""
        if self.power is not None:
            return plausible(_number(self.power) / 1000, self.label)
        assert self.volts is not None and self.amperes is not None
        return plausible(_number(self.volts) * _number(self.amperes) / 1e6, self.label)


def channels(drivers: Path = DRIVERS) -> list[Channel]:
    """The rails of all INA3221 of this machine, by their labels: the numbers of hwmon move between boots."""
    found = []
    for chip in sorted(drivers.glob("ina3221*/*-00*")):
        for label in sorted(chip.glob("hwmon/hwmon*/in*_label")):
            n = label.name[2:-6]
            amperes = label.with_name(f"curr{n}_input")
            if n.isdigit() and int(n) <= 3 and amperes.exists():
                found.append(Channel(_text(label), label.with_name(f"in{n}_input"), amperes, None))
        for label in sorted(chip.glob("iio:device*/rail_name_*")):
            n = label.name.rpartition("_")[2]
            power = label.with_name(f"in_power{n}_input")
            if power.exists():
                found.append(Channel(_text(label), None, None, power))
    return [c for c in found if c.label and not SKIPPED.search(c.label)]


class Ina3221:
    """The total of a Jetson, from its own sensors."""

    counts = False

    def __init__(self, drivers: Path = DRIVERS) -> None:
        """Raises DeviceError where there is none."""
        self.channels = channels(drivers)
        if not self.channels:
            raise DeviceError("no INA3221: this is no Jetson, or its files cannot be read")
        whole = [c for name in TOTALS for c in self.channels if c.label == name]
        self.used = whole[:1] or self.channels
        rail = " + ".join(c.label for c in self.used)
        self.description = Description("INA3221 through sysfs", rail, _leaves_out(bool(whole)), 20.0)

    def read(self) -> float:
        return sum(c.watts() for c in self.used)


class Tegrastats:
    """The total of a Jetson, from the lines of NVIDIA's program."""

    counts = False

    def __init__(self, command: str = "tegrastats") -> None:
        """Raises DeviceError where there is none, or its first line has no power."""
        try:
            self._process = subprocess.Popen(
                [command, "--interval", str(EVERY_MS)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0
            )
        except OSError as e:
            raise DeviceError(f"no tegrastats: this is no Jetson ({e.strerror})") from e
        self._rest = b""
        try:
            name, _ = total(parse_tegrastats(self._line()))
        except DeviceError:
            self.close()
            raise
        # Lines come when they come: asking more often than that makes each reading a fresh one.
        rate = 2 * 1000 / EVERY_MS
        leaves_out = _leaves_out(not name.startswith("sum of"))
        self.description = Description(f"tegrastats, a line every {EVERY_MS} ms", name, leaves_out, rate)

    def read(self) -> float:
        return total(parse_tegrastats(self._line()))[1]

    def _line(self) -> str:
        """The newest whole line that was not read yet. Raises DeviceError if none comes."""
        out = self._process.stdout
        assert out is not None
        while b"\n" not in self._rest or select.select([out], [], [], 0)[0]:
            data = out.read(1 << 16) if select.select([out], [], [], PATIENCE_S)[0] else b""
            if not data:
                raise DeviceError("tegrastats: no line came; run it by hand: it may need sudo")
            self._rest += data
        *lines, self._rest = self._rest.split(b"\n")
        return lines[-1].decode("utf-8", "replace")

    def close(self) -> None:
        self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=PATIENCE_S)
        if self._process.stdout is not None:
            self._process.stdout.close()


def _leaves_out(whole: bool) -> str:
    return MODULE if whole else MODULE + ", which can be as much again: there is no rail of the whole"


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8").strip()
    except OSError:
        return ""


def _number(path: Path) -> float:
    try:
        return float(path.read_text("utf-8").strip())
    except (OSError, ValueError) as e:
        raise DeviceError(f"{path}: no reading ({e})") from e
