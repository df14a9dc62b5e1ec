"""NVML, and meters outside of the machine, each by its own library."""

import contextlib
import importlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from edgehmn.errors import DependencyError, DeviceError
from edgehmn.measure.sampling import Description, plausible

HWMON = Path("/sys/class/hwmon")
CHIPS = ("ina219", "ina226", "ina2xx", "ina260")
WINDOW_S = 0.05  # of one reading of a Joulescope


class Nvml:
    """An NVIDIA graphics card: its counter of energy, or where it has none its power, which on many cards is the mean
    of the last second. The library being there does not mean that the card tells either."""

    def __init__(self, library: Any = None, card: int = 0) -> None:
        """library: pynvml, or something like it."""
        nvml = library or _library("pynvml", "nvidia-ml-py")
        self._nvml = nvml
        try:
            nvml.nvmlInit()
            cards = int(nvml.nvmlDeviceGetCount())
            if card >= cards:
                raise ValueError(f"there are {cards} cards, from 0 on")
            self._card = nvml.nvmlDeviceGetHandleByIndex(card)
            self.counts = self._has_counter()
            if not self.counts:
                nvml.nvmlDeviceGetPowerUsage(self._card)
        except Exception as e:  # the library's own class, which is not there without it
            raise DeviceError(f"NVML: this card's power is not available ({e})") from e
        method = "NVML, counter of energy" if self.counts else "NVML, power"
        self.description = Description(method, f"card {card}", "the machine around the card", 20.0)

    def _has_counter(self) -> bool:
        try:
            self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._card)
        except Exception:  # before Volta, or an older driver or library
            return False
        return True

    def read(self) -> float:
        """Joules since the driver was loaded, or watts."""
        with _own_errors("NVML"):
            if self.counts:
                return float(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._card)) / 1000
            milliwatts = self._nvml.nvmlDeviceGetPowerUsage(self._card)
        return plausible(milliwatts / 1000, "NVML")


class Ina2xx:
    """An INA219 or INA226 that the kernel drives: microwatts in power1_input."""

    counts = False

    def __init__(self, hwmon: Path = HWMON, only: str = "") -> None:
        """only: the name of its folder, such as hwmon3, where there are several."""
        chips = [p for p in sorted(hwmon.glob("hwmon*")) if _text(p / "name") in CHIPS and only in ("", p.name)]
        if len(chips) != 1:
            several = f"; give one: --meter ina2xx:{chips[0].name}" if chips else ""
            raise DeviceError(f"{len(chips)} INA219 or INA226 below {hwmon}; exactly one is needed{several}")
        self._chip = chips[0]
        self.description = Description(
            f"{_text(self._chip / 'name')} through hwmon", "the wire it is in", "nothing after it", 20.0
        )

    def read(self) -> float:
        try:
            return plausible(int(_text(self._chip / "power1_input")) / 1e6, str(self._chip))
        except ValueError as e:
            raise DeviceError(f"{self._chip / 'power1_input'}: no reading") from e


class Ina219Bus:
    """An INA219 on the I2C bus of this machine, by the library pi-ina219."""

    counts = False

    def __init__(self, shunt_ohms: float = 0.1, library: Any = None) -> None:
        library = library or _library("ina219", "pi-ina219")
        try:
            self._chip = library.INA219(shunt_ohms)
            self._chip.configure()
        except Exception as e:
            raise DeviceError(f"INA219: not found on the I2C bus ({e})") from e
        self.description = Description("INA219 over I2C", "the wire it is in", "nothing after it", 20.0)

    def read(self) -> float:
        with _own_errors("INA219"):  # such as a current beyond its range
            milliwatts = float(self._chip.power())
        return plausible(milliwatts / 1000, "INA219")


class Ppk2:
    """A Nordic PPK2 in front of a board, as ampere meter; microamperes times its volts."""

    counts = False

    def __init__(self, port: str, volts: float, library: Any = None) -> None:
        library = library or _library("ppk2_api.ppk2_api", "ppk2-api").PPK2_API
        self._volts = volts
        try:
            self._meter = library(port)
            self._meter.get_modifiers()
            self._meter.use_ampere_meter()
            self._meter.set_source_voltage(round(1000 * volts))  # by which readings are corrected; it feeds nothing
            self._meter.toggle_DUT_power("ON")
            self._meter.start_measuring()
        except Exception as e:
            raise DeviceError(f"{port}: no PPK2 answers ({e})") from e
        self.description = Description(
            "PPK2, ampere meter, 100,000 samples a second", "the board's supply", "nothing", 20.0
        )

    def read(self) -> float:
        with _own_errors("PPK2"):
            data = self._meter.get_data()
            samples = self._meter.get_samples(data) if data else []
        if isinstance(samples, tuple):  # later releases give the digital pins too
            samples = samples[0]
        return mean_microamperes(samples) * 1e-6 * self._volts

    def close(self) -> None:
        """The board stays powered."""
        self._meter.stop_measuring()


def mean_microamperes(samples: Sequence[float]) -> float:
    """Raises DeviceError for none, or more than the meter can measure."""
    if not len(samples):
        raise DeviceError("PPK2: no samples arrived")
    mean = sum(samples) / len(samples)
    if not -1000 <= mean <= 1.2e6:
        raise DeviceError(f"PPK2: {mean:g} uA is beyond its ampere")
    return max(0.0, mean)


class Joulescope:
    """A Joulescope, by its library."""

    counts = False

    def __init__(self, library: Any = None) -> None:
        library = library or _library("joulescope", "joulescope")
        try:
            self._device = library.scan_require_one(config="auto")
            self._device.open()
        except Exception as e:
            raise DeviceError(f"Joulescope: not found ({e})") from e
        self.description = Description(
            f"Joulescope, means of {1000 * WINDOW_S:g} ms", "the board's supply", "nothing", 20.0
        )

    def read(self) -> float:
        with _own_errors("Joulescope"):
            data = self._device.read(contiguous_duration=WINDOW_S)
        if data is None or not len(data):
            raise DeviceError("Joulescope: no samples arrived")
        watts = [w for w in (float(i) * float(v) for i, v in data) if w == w]  # it marks what it missed as no number
        if 2 * len(watts) < len(data):
            raise DeviceError(f"Joulescope: {len(data) - len(watts)} of {len(data)} samples were lost")
        return plausible(sum(watts) / len(watts), "Joulescope")

    def close(self) -> None:
        self._device.close()


@contextlib.contextmanager
def _own_errors(meter: str) -> Iterator[None]:
    """Whatever a meter's library raises, as a DeviceError: its classes are not there without it."""
    try:
        yield
    except Exception as e:
        raise DeviceError(f"{meter}: no reading ({type(e).__name__}: {e})") from e


def _library(module: str, package: str) -> Any:
    """Raises DependencyError."""
    try:
        return importlib.import_module(module)
    except ImportError as e:
        raise DependencyError(f"{package} is missing, which reads this meter: pip install {package}") from e


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8").strip()
    except OSError:
        return ""
