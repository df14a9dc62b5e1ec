"""What every search method takes and gives: a box of coordinates, a loss that is drawn by a seed, a budget."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Coordinates = npt.NDArray[np.float64]  # (n,), each scaled so that a step of one is a large change
Objective = Callable[[Coordinates, int], float]  # (coordinates, seed of every draw) -> loss; equal seeds, equal draws

SPREAD = 0.3  # standard deviation with which random search and CMA-ES begin, around the start
SEEDS = 2**31  # seeds of draws lie below


@dataclass(frozen=True)
class Box:
    """Where to start and where not to leave: (n,) each, low <= start <= high, low < high."""

    start: Coordinates
    low: Coordinates
    high: Coordinates

    def clip(self, at: Coordinates) -> Coordinates:
        return np.clip(at, self.low, self.high)


@dataclass(frozen=True)
class Found:
    """What a search recommends, and the loss of every evaluation in order."""

    best: Coordinates
    losses: tuple[float, ...]


class Counted:
    """An objective that keeps its losses and refuses to be called more often than `budget` times."""

    def __init__(self, objective: Objective, budget: int) -> None:
        self.objective, self.budget = objective, budget
        self.losses: list[float] = []

    @property
    def left(self) -> int:
        return self.budget - len(self.losses)

    def __call__(self, at: Coordinates, seed: int) -> float:
        assert self.left > 0, "a search method has overdrawn its budget"
        self.losses.append(self.objective(at, seed))
        return self.losses[-1]

    def found(self, best: Coordinates) -> Found:
        return Found(best, tuple(self.losses))
