"""How far one pulse moves a device. Weights are in shares of the device's own range, about -1..1 (0..1 one-sided);
each law is drawn once for every device (device to device) and again for every pulse (cycle to cycle)."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]  # of floats
Rng = np.random.Generator
MOST_SPREAD = 3.0  # standard deviations of a device parameter that are drawn; the rest is cut off


@dataclass
class Devices:
    """Parameters of individual devices, of one shape."""

    up: Array  # step of one up pulse at zero
    down: Array  # step of one down pulse at zero, positive
    highest: Array
    lowest: Array

    def at(self, index: Any) -> "Devices":
        """Those of some devices."""
        return Devices(self.up[index], self.down[index], self.highest[index], self.lowest[index])


class StepLaw(Protocol):
    """The shape of a step over the range."""

    def size(self, w: Array, direction: Array, devices: Devices) -> Array:
        """Mean step, signed, of one pulse in `direction` (1 or -1) at weight w."""


@dataclass(frozen=True)
class Constant:
    """The same step everywhere, up to hard bounds."""

    def size(self, w: Array, direction: Array, devices: Devices) -> Array:
        return np.where(direction > 0, devices.up, -devices.down)


@dataclass(frozen=True)
class SoftBounds:
    """A step shrinks in proportion to the room that is left."""

    def size(self, w: Array, direction: Array, devices: Devices) -> Array:
        up = devices.up * (1 - w / devices.highest)
        down = devices.down * (1 - w / np.where(devices.lowest < 0, devices.lowest, -1.0))
        return np.where(direction > 0, up, -down)


@dataclass(frozen=True)
class Exponential:
    """dw = dw_min max(0, 1 - A exp(+-gamma z)), z = 2 a w / range + b."""

    a_up: float
    a_down: float
    gamma_up: float
    gamma_down: float
    a: float
    b: float

    def size(self, w: Array, direction: Array, devices: Devices) -> Array:
        z = 2 * self.a * w / np.maximum(devices.highest - devices.lowest, 1e-3) + self.b
        up = np.maximum(1 - self.a_up * np.exp(self.gamma_up * z), 0)
        down = np.maximum(1 - self.a_down * np.exp(-self.gamma_down * z), 0)
        return np.where(direction > 0, devices.up * up, -devices.down * down)


@dataclass(frozen=True)
class Update:
    """A device as its pulses see it."""

    law: StepLaw
    step: float  # of one pulse at zero, mean over devices
    up_down: float = 0.0  # asymmetry: the up step is (1 + up_down / 2), the down step (1 - up_down / 2) of it
    highest: float = 1.0
    lowest: float = -1.0
    step_spread: float = 0.0  # between devices
    bound_spread: tuple[float, float] = (0.0, 0.0)  # between devices, of highest and lowest
    log_normal: bool = False  # the spread of steps is log-normal
    cycle: float = 0.0  # standard deviation of one step, in steps
    write_noise: float = 0.0  # what a touched weight seems to be, about what it is: standard deviation in steps
    one_sided: bool = False  # pulses only raise a conductance: down is a pulse on the other device of the pair

    def draw(self, shape: tuple[int, ...], rng: Rng) -> Devices:
        """Individual devices."""

        def spread(mean: float, share: float) -> Array:
            n = np.clip(rng.standard_normal(shape, np.float32), -MOST_SPREAD, MOST_SPREAD)
            return np.asarray(mean * np.maximum(1 + share * n, 0), np.float32)

        if self.log_normal:
            step = np.exp(self.step_spread * rng.standard_normal(shape, np.float32) - self.step_spread**2 / 2)
            step = np.asarray(self.step * step, np.float32)
        else:
            step = spread(self.step, self.step_spread)
        highest = np.maximum(spread(self.highest, self.bound_spread[0]), np.float32(1e-3))
        lowest = spread(self.lowest, self.bound_spread[1])
        return Devices(step * (1 + self.up_down / 2), step * (1 - self.up_down / 2), highest, lowest)

    def pulse(self, w: Array, direction: Array, devices: Devices, rng: Rng, share: Array | float = 1.0) -> Array:
        """The weights after one pulse each. share: of a whole pulse's width, above 0 and at most 1, to which mean and
        variance of the step are in proportion."""
        step = self.law.size(w, direction, devices) * share
        if self.cycle:
            spread = self.cycle / np.sqrt(share)
            step = step * (1 + np.asarray(spread, np.float32) * rng.standard_normal(w.shape, np.float32))
        return np.clip(w + step, devices.lowest, devices.highest)


def staircase(n: int, amplitude: float, most: int, lowest: float, highest: float) -> float:
    """Conductance after n equal pulses by NeuroSim's law: B (1 - exp(-n / A)) + lowest."""
    b = (highest - lowest) / (1 - float(np.exp(-most / amplitude)))
    return b * (1 - float(np.exp(-n / amplitude))) + lowest
