"""What a programmed conductance does: programming error, drift, read noise, as published fits. Conductances in uS,
times in seconds; every method takes and returns arrays of one shape."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]  # of floats
LEAST_SHARE = 1e-7  # of g_max, below which a logarithm of a conductance is not taken


class NoiseModel(Protocol):
    """Statistics of one kind of cell."""

    @property
    def drifts(self) -> bool:
        """Whether conductances fall with time."""

    @property
    def t0_s(self) -> float:
        """Age at which a programmed conductance is first read: drift counts from there."""

    def program_sigma(self, g: Array) -> Array:
        """Standard deviation of the conductance reached, for targets g."""

    def drift_exponent(self, g: Array, rng: np.random.Generator) -> Array:
        """nu of each cell: conductance falls as ((age + t0) / t0)^-nu."""

    def read_sigma(self, g: Array, age_s: float) -> Array:
        """Standard deviation of one read of cells programmed to g, `age_s` ago, without their drift."""


@dataclass(frozen=True)
class Polynomial:
    """ReRAM: sigma is a polynomial of g / reference, lowest power first; no power-law drift; white read noise."""

    coefficients: tuple[float, ...] = ()
    reference: float = 1.0
    read_white: float = 0.0  # standard deviation of a read as a share of g
    read_floor: float = 0.0  # the same in uS, whatever g is
    t0_s: float = 1.0
    drifts: bool = False

    def program_sigma(self, g: Array) -> Array:
        return np.maximum(_polynomial(self.coefficients, g / self.reference), 0)

    def drift_exponent(self, g: Array, rng: np.random.Generator) -> Array:
        return np.zeros_like(g)

    def read_sigma(self, g: Array, age_s: float) -> Array:
        return np.hypot(self.read_white * g, self.read_floor)


@dataclass(frozen=True)
class Pcm:
    """PCM by Nandakumar et al. (ICECS 2019), fitted at g_max = 25 uS."""

    g_max: float = 25.0
    t0_s: float = 20.0
    t_read_s: float = 250e-9
    drifts: bool = True

    def program_sigma(self, g: Array) -> Array:
        sigma = _polynomial((0.26348, 1.9650, -1.1731), g / self.g_max) * (self.g_max / 25.0)
        return np.maximum(sigma, 0)

    def drift_exponent(self, g: Array, rng: np.random.Generator) -> Array:
        log = np.log(np.maximum(g / self.g_max, LEAST_SHARE))
        mean = np.clip(-0.0155 * log + 0.0244, 0.049, 0.1)
        spread = np.clip(-0.0125 * log - 0.0059, 0.008, 0.045)
        return np.abs(mean + spread * rng.standard_normal(g.shape))

    def read_sigma(self, g: Array, age_s: float) -> Array:
        q = np.minimum(0.2, 0.0088 / np.maximum((g / self.g_max) ** 0.65, 1e-3))
        age = age_s + self.t0_s
        return g * q * np.sqrt(np.log((age + self.t_read_s) / (2 * self.t_read_s)))


@dataclass(frozen=True)
class Hermes:
    """PCM of the HERMES chip, two devices for each polarity (Le Gallo et al. 2023; the fit of aihwkit)."""

    g_max: float = 20.7
    t0_s: float = 300.0
    t_read_s: float = 512e-9
    drifts: bool = True

    def program_sigma(self, g: Array) -> Array:
        sigma = _polynomial((0.16603222, 4.71806468, -8.48101252, 4.68961419), g / self.g_max) * (self.g_max / 20.7)
        return np.maximum(sigma, 0)

    def drift_exponent(self, g: Array, rng: np.random.Generator) -> Array:
        x = np.maximum(g / self.g_max, LEAST_SHARE)
        log = np.log(x)
        mean = np.where(x < 0.0945, np.clip(-0.0387 * log - 0.0182, 0.072, 0.13), -0.0436 * x**2 - 0.0126 * x + 0.0736)
        spread = np.where(
            x < 0.3055, np.clip(-0.0117 * log - 0.0057, 0.0091, 0.04), -0.0118 * x**2 + 0.0093 * x + 0.0073
        )
        return np.abs(mean + spread * rng.standard_normal(g.shape))

    def read_sigma(self, g: Array, age_s: float) -> Array:
        x = np.maximum(g / self.g_max, LEAST_SHARE)
        low = np.clip(-0.0117 * np.log(x) - 0.0069, 0.015, 0.04)
        q = np.where(x < 0.16, low, _polynomial((0.0123, 0.0211, -0.0280, 0.0069), x))
        age = age_s + self.t0_s
        return g * q * np.sqrt(np.log((age + self.t_read_s) / (2 * self.t_read_s)))


def _polynomial(coefficients: tuple[float, ...], x: Array) -> Array:
    out = np.zeros_like(x)
    for c in reversed(coefficients):
        out = out * x + x.dtype.type(c)
    return out
