"""CMA-ES (Hansen and Ostermeier 2001), from the package `cma`."""

import math
from typing import Any

import numpy as np

from edgehmn.errors import DependencyError
from edgehmn.tuning.search import SEEDS, SPREAD, Box, Counted, Found, Objective

SMALLEST_GENERATION = 4


def cma_es(objective: Objective, box: Box, budget: int, seed: int) -> Found:
    """The mean of the last generation's distribution. One generation shares its draws.

    Generations are made so large that the budget holds a whole number of them; what is left over looks at the mean.
    Raises DependencyError where cma is missing.
    """
    rng = np.random.default_rng(seed)
    counted = Counted(objective, budget)
    generations = max(1, budget // int(4 + 3 * math.log(len(box.start))))
    size = max(SMALLEST_GENERATION, budget // generations)
    options = {
        "bounds": [box.low, box.high],
        "popsize": size,
        "randn": lambda *shape: rng.standard_normal(shape),
        "seed": math.nan,  # leaves NumPy's global generator alone
        "verbose": -10,  # from here on it reads no file of signals in the present folder
        "verb_log": 0,
    }
    strategy = import_cma().CMAEvolutionStrategy(box.start, SPREAD, options)
    while counted.left >= size:
        points, draws = strategy.ask(), int(rng.integers(SEEDS))
        strategy.tell(points, [counted(point, draws) for point in points])
    best = box.clip(strategy.result.xfavorite)
    while counted.left:
        counted(best, int(rng.integers(SEEDS)))
    return counted.found(best)


def import_cma() -> Any:
    try:
        import cma
    except ImportError as e:
        raise DependencyError(f"cma cannot be imported ({e}); pip install 'edgehmn[tune]'") from e
    return cma
