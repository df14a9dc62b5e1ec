"""Simultaneous perturbation stochastic approximation, as Spall (IEEE Trans. AES 34(3), 1998) advises to set it.

All coordinates are perturbed at once by a random sign each, and two losses give a slope for all of them. Both losses
share their draws (common random numbers): the noise that they have in common is not in their difference.
"""

from dataclasses import dataclass

import numpy as np

from edgehmn.tuning.search import SEEDS, Box, Coordinates, Counted, Found, Objective

STEP_EXPONENT, PERTURBATION_EXPONENT = 0.602, 0.101  # Spall's, for few iterations


@dataclass(frozen=True)
class Gains:
    """Settings of SPSA, in coordinates."""

    perturbation: float = 0.3  # c of c_k = c / (k + 1)^0.101
    step_limit: float = 0.2  # of every coordinate, in one iteration
    delay: float = 0.1  # A of a_k = a / (A + k + 1)^0.602, as a share of the iterations
    pairs_at_start: int = 3  # whose mean slope makes the first step and sets a
    averaged: float = 1 / 3  # share of the iterates, the last ones, whose mean is the result
    block: float = 3.0  # standard deviations of the loss, which few pairs tell roughly, by which a step may raise it


def spsa(
    objective: Objective,
    box: Box,
    budget: int,
    seed: int,
    *,
    first_step: Coordinates,
    gains: Gains | None = None,
    common_random_numbers: bool = True,
) -> Found:
    """Descend from the start of `box`.

    first_step: (n,), the mean length of the first step in each coordinate, which is its meta-rate: a is chosen so.
    A step that raises the loss, as the mean of the next pair shows, is taken back, at no evaluation of its own.
    An odd evaluation that no pair can use looks at the start first.
    """
    gains = gains or Gains()
    rng, counted = np.random.default_rng(seed), Counted(objective, budget)
    slopes = _Slopes(counted, box, rng, common_random_numbers)
    if budget % 2:
        counted(box.start, slopes.draws())
    at_start = min(gains.pairs_at_start, budget // 2)
    if not at_start:
        return counted.found(box.start)
    iterations = budget // 2 - at_start + 1
    delay = gains.delay * iterations
    here = kept = box.start
    iterates: list[Coordinates] = []
    level, noise, rate = np.inf, np.inf, np.zeros_like(here)
    for k in range(iterations):
        c = gains.perturbation / (k + 1) ** PERTURBATION_EXPONENT
        slope, levels = slopes.measure(here, c, at_start if k == 0 else 1)
        if k == 0:
            rate = first_step * (delay + 1) ** STEP_EXPONENT / max(float(np.abs(slope).mean()), 1e-12)
            noise = float(np.std(levels, ddof=1)) if at_start > 1 else np.inf
        elif here is not kept and np.mean(levels) > level + gains.block * noise:
            here = iterates[-1] = kept
            continue
        kept, level = here, float(np.mean(levels))
        step = rate / (delay + k + 1) ** STEP_EXPONENT * slope
        here = box.clip(here - np.clip(step, -gains.step_limit, gains.step_limit))
        iterates.append(here)
    last = max(1, round(gains.averaged * len(iterates)))
    return counted.found(box.clip(np.mean(iterates[-last:], axis=0)))


class _Slopes:
    """Slopes of an objective by simultaneous perturbation."""

    def __init__(self, objective: Objective, box: Box, rng: np.random.Generator, common: bool) -> None:
        self.objective, self.box, self.rng, self.common = objective, box, rng, common

    def draws(self) -> int:
        return int(self.rng.integers(SEEDS))

    def measure(self, here: Coordinates, c: float, pairs: int) -> tuple[Coordinates, list[float]]:
        """The mean slope (n,) over `pairs` perturbations of size c, and the mean loss of each pair."""
        found = [self._pair(here, c) for _ in range(pairs)]
        return np.mean([slope for slope, _ in found], axis=0), [level for _, level in found]

    def _pair(self, here: Coordinates, c: float) -> tuple[Coordinates, float]:
        signs = self.rng.choice([-1.0, 1.0], len(here))
        above, below = self.box.clip(here + c * signs), self.box.clip(here - c * signs)
        seed = self.draws()
        upper = self.objective(above, seed)
        lower = self.objective(below, seed if self.common else self.draws())
        return (upper - lower) / (above - below), (upper + lower) / 2
