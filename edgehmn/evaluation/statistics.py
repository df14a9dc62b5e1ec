"""Intervals by the bootstrap: what is drawn again is the unit that varies (a person, a window), not the token."""

from collections.abc import Sequence
from functools import cache

import numpy as np
import numpy.typing as npt

RESAMPLES = 4000
LEVEL = 0.95
LEAST_GAIN_NATS = 0.1  # per token; what is less varies from text to text by as much as itself

Floats = npt.NDArray[np.float64]


def interval_95(totals: Sequence[float] | Floats, sizes: Sequence[float] | Floats | None = None) -> list[float]:
    """Percentile interval of sum(totals) / sum(sizes) over units drawn with replacement; sizes of one by default.

    Pairs stay together, so a difference is given as the units' differences. The draws are the same in every run.
    """
    t = np.asarray(totals, np.float64)
    s = np.ones_like(t) if sizes is None else np.asarray(sizes, np.float64)
    times = _drawn(len(t))
    means = (times @ t) / (times @ s)
    tail = (1 - LEVEL) / 2
    return [float(q) for q in np.quantile(means, [tail, 1 - tail])]


@cache
def _drawn(n: int) -> Floats:
    """(RESAMPLES, n): how often each of n units is drawn in n draws with replacement."""
    return np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), RESAMPLES).astype(np.float64)


def share_of_gain(gain: float, whole: float) -> float | None:
    """What part `gain` is of the gain `whole`, in nats per token; None where there is hardly a whole."""
    return gain / whole if whole >= LEAST_GAIN_NATS else None


def window_sums(values: Floats, length: int) -> Floats:
    """Sums over consecutive windows of `length`; what is left at the end is a shorter window."""
    return np.add.reduceat(values, np.arange(0, len(values), length)) if len(values) else np.zeros(0)


def running_mean(values: Floats, length: int) -> Floats:
    """Means over every window of `length` values, (n - length + 1,); of the whole if it is shorter."""
    length = min(length, len(values))
    total = np.concatenate([[0.0], np.cumsum(values)])
    return np.asarray((total[length:] - total[:-length]) / length)
