"""How a change reaches plastic weights: as single steps of one LSB, or real.

Weights that are written in steps are whole multiples of their LSB within seven bits, held as floats.
"""

import math
from typing import Literal

import numpy as np
import numpy.typing as npt

from edgehmn.checkpoint.model import FloatArray

Write = Literal["unbiased", "sigmoid", "float"]
LARGEST = 127  # steps; a weight is an int8
RATE_LIMIT = 2.0**-4  # steps for each unit of the vector's int8 mantissas: at most eight of one weight in one token


class Writer:
    """Adds to weights in one of the three ways of `Rule.write`, and counts the steps.

    lsb: what one step is worth. beta, theta: of the paper's write probability, for "sigmoid".
    """

    def __init__(self, write: Write, lsb: float, rng: np.random.Generator, beta: float, theta: float) -> None:
        self.write, self.lsb, self.rng, self.beta, self.theta = write, lsb, rng, beta, theta
        self.steps = 0  # made so far, those that were lost at the end of the range included

    def add(self, weights: FloatArray, rate: FloatArray, vector: FloatArray) -> None:
        """weights (m, n) += outer product of rate (m,) and vector (n,), in place."""
        if self.write == "float":
            weights += np.outer(rate, vector)
        elif self.write == "unbiased":
            limit = RATE_LIMIT / mantissa_unit(vector)
            self._take(weights, draw_steps(np.clip(rate / self.lsb, -limit, limit), vector, self.rng.random()))
        else:
            wanted = np.outer(rate, vector) / self.lsb
            probability = 1 / (1 + np.exp(-self.beta * (np.abs(wanted) - self.theta)))
            drawn = self.rng.random(wanted.shape, np.float32) < probability
            self._take(weights, np.where(drawn, np.sign(wanted), 0).astype(np.float32))

    def decay(self, row: FloatArray, rate: float) -> None:
        """row (n,) -= rate row, in place. Without bias whenever it is in steps: the paper has no write rule for it."""
        if rate == 0:
            return
        if self.write == "float":
            row *= 1 - rate
        else:
            self._take(row[None], draw_steps(np.array([-rate / self.lsb]), row, self.rng.random()))

    def on_grid(self, weights: FloatArray) -> FloatArray:
        """The nearest weights that can be written."""
        if self.write == "float":
            return weights
        steps = np.clip(np.round(weights / self.lsb), -LARGEST, LARGEST)
        out: FloatArray = (steps * self.lsb).astype(np.float32)
        return out

    def _take(self, weights: FloatArray, steps: FloatArray) -> None:
        self.steps += int(np.abs(steps).sum())
        weights += steps * np.float32(self.lsb)
        np.minimum(weights, LARGEST * self.lsb, out=weights)
        np.maximum(weights, -LARGEST * self.lsb, out=weights)


def mantissa_unit(vector: FloatArray) -> float:
    """The least power of two by which every value of the vector (n,), divided and rounded, is an int8 mantissa."""
    peak = float(np.abs(vector).max())
    return 2.0 ** math.ceil(math.log2(peak / (LARGEST + 0.5))) if peak > 0 else 1.0


def draw_steps(rate: npt.NDArray[np.floating], vector: npt.NDArray[np.floating], offset: float) -> FloatArray:
    """Whole numbers (m, n) whose mean over a uniform `offset` in [0, 1) is the outer product: systematic sampling.

    rate: (m,), vector: (n,). The absolute values are laid end to end on a line; a step falls on each of the points
    offset + 0, 1, 2, ..., and belongs to the entry on whose stretch it falls.
    """
    within, starts = np.zeros(len(vector) + 1), np.empty(len(rate) + 1)
    np.cumsum(np.abs(vector), dtype=np.float64, out=within[1:])  # ends of a row's stretches
    size = np.abs(rate).astype(np.float64)
    starts[0] = -offset
    np.multiply(size, within[-1], out=starts[1:])
    starts = np.cumsum(starts)
    ends = size[:, None] * within
    ends += starts[:-1, None]
    points = np.ceil(ends, out=ends).astype(np.float32)  # on the line before each end
    steps: FloatArray = points[:, 1:] - points[:, :-1]
    steps *= np.sign(rate).astype(np.float32)[:, None]
    steps *= np.sign(vector).astype(np.float32)
    return steps
