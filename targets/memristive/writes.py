"""From the steps that the rule draws to what cells are given. A step is one LSB of a weight."""

from typing import Protocol

import numpy as np
import numpy.typing as npt

from edgehmn.errors import UsageError
from edgehmn.targets.memristive.tiles import TiledMatrix

Steps = npt.NDArray[np.integer]
SCHEMES = ("pulse", "noise", "threshold", "accumulate", "verify")
OPEN_LOOP = SCHEMES[:4]  # they send pulses without looking at what comes of them
THRESHOLDS = SCHEMES[2:]  # that wait for a number of steps
ROUNDING = 1e-9  # by which a number of pulses may exceed a whole one


class Scheme(Protocol):
    """How a matrix of plastic weights follows its steps. master: the integers in digital memory stay the truth, and
    cells follow them; otherwise the cells are the truth, and what is needed of it is read."""

    master: bool

    def write(self, steps: Steps) -> None:
        """Steps (outputs, inputs) of one token."""


class Pulses:
    """Every step becomes pulses at once, open loop. A device whose pulse is larger than one step gets a pulse with the
    probability that makes the mean right, so that its granularity is the rounding. least: steps of one token at one
    weight below which nothing is written."""

    master = False

    def __init__(self, matrix: TiledMatrix, rng: np.random.Generator, least: int = 1) -> None:
        self.matrix, self.rng, self.least = matrix, rng, least
        self.pulse_lsb = matrix.preset.cell.update.step * matrix.top

    def write(self, steps: Steps) -> None:
        at = np.nonzero(np.abs(steps) >= self.least)
        if len(at[0]):
            send(self.matrix, at, steps[at] / self.pulse_lsb, self.rng)


class Noise:
    """Every step becomes one pulse, or as few as it takes, of just the width that moves a device by it on average: no
    number is drawn, the device's own noise from cycle to cycle is the rounding."""

    master = False

    def __init__(self, matrix: TiledMatrix) -> None:
        self.matrix = matrix
        self.pulse_lsb = matrix.preset.cell.update.step * matrix.top

    def write(self, steps: Steps) -> None:
        at = np.nonzero(steps)
        if len(at[0]):
            size = np.abs(steps[at]) / self.pulse_lsb
            pulses = np.ceil(size - ROUNDING)
            signed = (pulses * np.sign(steps[at])).astype(np.int64)
            self.matrix.pulse(at[0], at[1], signed, np.minimum(size / pulses, 1).astype(np.float32))


class Accumulate:
    """Steps wait in digital memory, a few bits for each weight, until they amount to `threshold`; then they are sent as
    open-loop pulses (mixed-precision in-memory computing)."""

    master = False

    def __init__(self, matrix: TiledMatrix, rng: np.random.Generator, threshold: float = 4.0) -> None:
        self.matrix, self.rng = matrix, rng
        self.pulse_lsb = matrix.preset.cell.update.step * matrix.top
        self.threshold = max(threshold, self.pulse_lsb)
        self.waiting = np.zeros((matrix.outputs, matrix.inputs), np.float32)

    def write(self, steps: Steps) -> None:
        self.waiting += steps
        at = np.nonzero(np.abs(self.waiting) >= self.threshold)
        if len(at[0]):
            pulses = np.trunc(self.waiting[at] / self.pulse_lsb)
            self.waiting[at] -= pulses * np.float32(self.pulse_lsb)
            self.matrix.pulse(at[0], at[1], pulses.astype(np.int64))


class Verify:
    """The integers stay in digital memory; a cell is set anew by write-verify when they have moved by `threshold` since
    it was set. Errors of writing do not add up."""

    master = True

    def __init__(self, matrix: TiledMatrix, rng: np.random.Generator, threshold: float = 6.0) -> None:
        self.matrix, self.threshold = matrix, threshold
        self.written = np.zeros((matrix.outputs, matrix.inputs), np.int32)
        self.ahead = np.zeros((matrix.outputs, matrix.inputs), np.int32)  # of it, the integers in digital memory

    def write(self, steps: Steps) -> None:
        self.ahead += steps
        at = np.nonzero(np.abs(self.ahead) >= self.threshold)
        if len(at[0]):
            self.written[at] += self.ahead[at]
            self.ahead[at] = 0
            self.matrix.program(at[0], at[1], self.written[at])


def send(
    matrix: TiledMatrix, at: tuple[npt.NDArray[np.intp], ...], expected: npt.NDArray[np.floating],
    rng: np.random.Generator,
) -> None:  # fmt: skip
    """Pulses whose numbers have the expected mean."""
    size = np.abs(expected)
    whole = np.floor(size)
    pulses = ((whole + (rng.random(len(size)) < size - whole)) * np.sign(expected)).astype(np.int64)
    some = pulses != 0
    if some.any():
        matrix.pulse(at[0][some], at[1][some], pulses[some])


def scheme(name: str, matrix: TiledMatrix, rng: np.random.Generator, threshold: float | None = None) -> Scheme:
    """By name, one of SCHEMES. threshold: in steps. Raises UsageError for another name."""
    if name == "pulse":
        return Pulses(matrix, rng)
    if name == "noise":
        return Noise(matrix)
    if name == "threshold":
        return Pulses(matrix, rng, least=2 if threshold is None else max(1, round(threshold)))
    if name == "accumulate":
        return Accumulate(matrix, rng, 4.0 if threshold is None else threshold)
    if name == "verify":
        return Verify(matrix, rng, 6.0 if threshold is None else threshold)
    raise UsageError(f"no write scheme is called '{name:.40}': there are {', '.join(SCHEMES)}")
