"""Random search: what CMA-ES would be if it learned nothing."""

import numpy as np

from edgehmn.tuning.search import SEEDS, SPREAD, Box, Counted, Found, Objective


def random_search(objective: Objective, box: Box, budget: int, seed: int) -> Found:
    """The best of `budget` points: the start, and others drawn around it as CMA-ES draws its first generation.

    All points are judged with the same draws.
    """
    rng = np.random.default_rng(seed)
    counted, draws = Counted(objective, budget), int(rng.integers(SEEDS))
    steps = SPREAD * rng.standard_normal((budget, len(box.start)))
    steps[0] = 0
    points = [box.clip(box.start + step) for step in steps]
    for point in points:
        counted(point, draws)
    return counted.found(points[int(np.argmin(counted.losses))])
