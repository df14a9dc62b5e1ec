"""Energy of microcontrollers: power hardly depends on the network, but on board, supply and system."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from bench.latency_rows import MICROCONTROLLERS, Row
from edgehmn.estimate import SPREADS
from edgehmn.targets.schema import Target, load_target, target_names

LOW_VOLTAGE = 2.5  # parts with a regulator take about the same current above and below; so the power is another
LEAST_SD = 0.03
Key = Callable[[Row], Any]


def measured(rows: Iterable[Row]) -> list[Row]:
    return [r for r in rows if r.power_w and r.core in MICROCONTROLLERS]


def system(row: Row) -> tuple[str, ...]:
    """One board, built one way: what the power of another network is taken from."""
    return row.board, row.version, row.supply, row.submitter, row.submission


def check_found(rows: Sequence[Row], known: Sequence[Row]) -> dict[str, Any]:
    """The same of rows that nothing was taken from; how far power spreads is that of the known ones."""
    found, spread = measured(rows), spreads(measured(known))
    return {
        "given_latency": _errors(_from_others(found, system, lambda r: r.workload, spread)),
        "profile": _errors(_by_profile(found)),
    }


def board(row: Row) -> tuple[str, bool]:
    return row.board, high_voltage(row)


def high_voltage(row: Row) -> bool:
    """A supply that is not stated counts as low: those rows lie among the ones of 1.8 V."""
    return bool(row.supply) and float(row.supply) > LOW_VOLTAGE


def check_energy(rows: Sequence[Row]) -> dict[str, Any]:
    """Errors of energy from the measured time and a power that has not seen the row."""
    known = measured(rows)
    workloads, systems = spreads(known)
    return {
        "given_latency": _errors(_from_others(known, system, lambda r: r.workload)),
        "unseen_submitter": _errors(_from_others(known, board, lambda r: r.submitter)),
        "profile": _errors(_by_profile(known)),
        "deviation_of_workloads": workloads,
        "deviation_of_systems": systems,
    }


def spreads(rows: Sequence[Row]) -> tuple[float, float]:
    """Standard deviations of the logarithm of power: of workloads on one system, and of systems on one board."""
    systems: dict[Any, list[float]] = defaultdict(list)
    means: dict[Any, list[float]] = defaultdict(list)
    for r in rows:
        systems[board(r), system(r)].append(math.log(r.power_w or 1.0))
    for (where, _), logs in systems.items():
        means[where].append(float(np.mean(logs)))
    return _pooled(systems.values()), _pooled(means.values())


def _pooled(groups: Iterable[Sequence[float]]) -> float:
    kept = [np.array(g) - np.mean(g) for g in groups if len(g) > 1]
    return max(LEAST_SD, math.sqrt(sum(float(g @ g) for g in kept) / max(1, sum(len(g) - 1 for g in kept))))


def _from_others(
    rows: Sequence[Row], same: Key, other: Key, spread: tuple[float, float] | None = None
) -> list[tuple[float, bool]]:
    """Of each row, error and whether it is inside, by the median of the rows that have the same of one key and another
    of the second. spread: how far rows do; None: it is taken from other submitters."""
    out = []
    for r in rows:
        powers = [q.power_w or 0.0 for q in rows if same(q) == same(r) and other(q) != other(r)]
        if powers and r.power_w:
            workloads, systems = spread or spreads([q for q in rows if q.submitter != r.submitter])
            deviation = workloads if same is system else math.hypot(workloads, systems)
            reach = SPREADS * deviation * math.sqrt(1 + 1 / len(powers))
            out.append(_error(float(np.median(powers)), r.power_w, reach))
    return out


def _by_profile(rows: Sequence[Row]) -> list[tuple[float, bool]]:
    """By the power that the board's profile has; rows at another supply are another board's."""
    targets: dict[str, Target] = {name: t for t in map(load_target, target_names()) for name in t.measured_as}
    out = []
    for r in rows:
        power = targets[r.board].power if r.board in targets else None
        if power is not None and r.power_w and high_voltage(r) == (" 3" in power.of):
            out.append(_error(power.active_w, r.power_w, math.log(power.interval_factor)))
    return out


def _error(predicted: float, true: float, reach: float) -> tuple[float, bool]:
    return abs(predicted / true - 1), abs(math.log(predicted / true)) <= reach


def _errors(pairs: Sequence[tuple[float, bool]]) -> dict[str, Any]:
    errors = [e for e, _ in pairs]
    return {
        "n": len(pairs),
        "mean_percent": 100 * float(np.mean(errors)),
        "median_percent": 100 * float(np.median(errors)),
        "p90_percent": 100 * float(np.quantile(errors, 0.9)),
        "inside_90_percent": 100 * float(np.mean([inside for _, inside in pairs])),
    }
