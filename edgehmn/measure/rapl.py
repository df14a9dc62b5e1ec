"""x86: RAPL's counters of energy through powercap."""

from pathlib import Path

from edgehmn.errors import DeviceError
from edgehmn.measure.sampling import Description

POWERCAP = Path("/sys/class/powercap")


class Rapl:
    """The packages of this machine. Zones below a package are inside it, and not added."""

    counts = True

    def __init__(self, powercap: Path = POWERCAP) -> None:
        """Raises DeviceError where there is none, or it may not be read."""
        zones = sorted(p for p in powercap.glob("*-rapl/*-rapl:*") if p.name.count(":") == 1)
        zones = zones or sorted(p for p in powercap.glob("*-rapl:*") if p.name.count(":") == 1)
        self.zones = [z for z in zones if _text(z / "name").startswith("package")]
        if not self.zones:
            raise DeviceError("no RAPL: no package below /sys/class/powercap (virtual machines and containers hide it)")
        self.ranges = [_joules(z / "max_energy_range_uj") for z in self.zones]
        self._last = [_joules(z / "energy_uj") for z in self.zones]
        self._sum = 0.0
        names = " + ".join(_text(z / "name") for z in self.zones)
        self.description = Description("RAPL counters through powercap", names, "memory, disks, fans, supply", 10.0)

    def read(self) -> float:
        """Joules since this was opened; each counter may have started again once between two readings."""
        for i, zone in enumerate(self.zones):
            now = _joules(zone / "energy_uj")
            if not 0 <= now <= self.ranges[i]:
                raise DeviceError(f"{zone}: {now:g} J is beyond its range of {self.ranges[i]:g} J")
            self._sum += now - self._last[i] if now >= self._last[i] else now - self._last[i] + self.ranges[i]
            self._last[i] = now
        return self._sum


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8").strip()
    except OSError:
        return ""


def _joules(path: Path) -> float:
    try:
        return int(path.read_text("utf-8")) / 1e6
    except PermissionError as e:
        raise DeviceError(f"{path}: may not be read; only root may: run with sudo, or chmod a+r it") from e
    except (OSError, ValueError) as e:
        raise DeviceError(f"{path}: no reading ({e})") from e
