"""Cycles per multiply-accumulate of cores and runtimes, from published latencies.

    cycles = sum over classes c of macs[c] * exp(base[c] - speed * log(peak / 2) + drift * round + core + core x c
                                         + family + family x c + sum over releases r up to the row's (r + r x c)
                                         + board + system) + operators * exp(base[operator])

peak: the most int8 multiply-accumulates that the core can make in a cycle. round: of MLPerf Tiny, 0 the first. A
release of a runtime is a step from the one before it: the next one is predicted from the last, not from their mean.

Each effect but the base is drawn from a normal distribution around 0, with one standard deviation for each group of
effects. The standard deviations are those under which the rows are likeliest (Laplace's approximation); effects are
their most likely values. What is not known of a core or a runtime has the group's full variance, so that the interval
of a prediction says by itself how much is known: this is where the tiers come from.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from bench.latency_rows import CLASSES, Row

Array = npt.NDArray[np.float64]
PARTS = (*CLASSES, "operator")
GROUPS = ("core", "core x class", "family", "family x class", "version", "version x class", "board", "system")
START = (0.8, 0.3, 0.5, 0.2, 0.3, 0.2, 0.2, 0.2)
NOISE = 0.12
BASE = np.log([4.0, 3.0, 3.0, 6.0, 1000.0])  # centre of what is taken of the base before any row is seen
BASE_SD = np.array([0.7, 0.5, 0.5, 0.5, 0.7])
SPEED, SPEED_SD = 0.7, 0.3
DRIFT, DRIFT_SD = -0.05, 0.1  # of the logarithm, from one round of MLPerf Tiny to the next: software becomes faster
ROUNDS = (0.5, 0.7, 1.0, 1.1, 1.2, 1.3)
NO_ROUND, NEWEST = 2, 4  # places among them: of what was published elsewhere, and of a release that is not known
UNKNOWN = " unseen"  # the end of the version of a release that is not known: the newest
N_BASE = len(PARTS) + 2
Order = dict[str, list[str]]  # the releases of each family of runtimes, the oldest first
# Multiply-accumulates in a cycle: by the vector instructions of each core.
PEAK = {
    "Cortex-M85": 8,
    "Cortex-M0+": 0.33,
    "Cortex-M4F": 2,
    "Cortex-M33": 2,
    "Cortex-M7": 4,
    "RXv2": 2,
    "RV32 P-ext": 4,
}


def release(version: str) -> tuple[float, ...]:
    """When a version came, to sort by: its round, then its numbers. What is not known comes last: it is the newest."""
    name, _, number = version.rpartition(" v")
    if not re.fullmatch(r"\d\.\d", number):
        return (float("inf"),)
    return (float(number), *(float(n) for n in re.findall(r"\d+", name)))


def age(row: Row) -> float:
    """Rounds since the first."""
    at = release(row.version)[0]
    return ROUNDS.index(at) if at in ROUNDS else NEWEST if row.version.endswith(UNKNOWN) else NO_ROUND


def release_order(rows: Iterable[Row]) -> Order:
    versions: dict[str, set[str]] = {}
    for row in rows:
        versions.setdefault(row.family, set()).add(row.version)
    return {family: sorted(names, key=lambda v: (release(v), v)) for family, names in versions.items()}


def _releases(row: Row, order: Order) -> list[str]:
    """The releases up to a row's own, each a step from the one before. One that no row has is a step from the last
    known before it, or from the oldest."""
    known = order.get(row.family, [])
    if row.version in known:
        return known[: known.index(row.version) + 1]
    return [*([v for v in known if release(v) < release(row.version)] or known[:1]), row.version]


def _effects(row: Row, part: int, order: Order) -> list[tuple[str, str]]:
    """(group, level) of the effects that act on a part of a row; on the time of an operator by itself none does."""
    if PARTS[part] == "operator":
        return []
    one = {"core": row.core, "family": row.family, "board": row.board, "system": row.system}
    steps = _releases(row, order)
    effects = [*one.items(), *(("version", v) for v in steps)]
    effects += [(f"{g} x class", f"{one[g]}|{PARTS[part]}") for g in ("core", "family")]
    return effects + [("version x class", f"{v}|{PARTS[part]}") for v in steps]


@dataclass
class Fit:
    """Most likely effects and their covariance."""

    sd: dict[str, float]
    noise: float
    index: dict[tuple[str, str], int] = field(default_factory=dict)
    mean: Array = field(default_factory=lambda: np.zeros(0))
    covariance: Array = field(default_factory=lambda: np.zeros((0, 0)))
    evidence: float = 0.0
    order: Order = field(default_factory=dict)

    def predict(self, row: Row) -> tuple[float, float]:
        """Cycles, and the standard deviation of their logarithm."""
        eta, design, unknown = self._parts(row)
        costs = _amounts(row) * np.exp(eta)
        share = costs / costs.sum()
        gradient = share @ design
        variance = gradient @ self.covariance @ gradient + self.noise**2
        for effects in unknown:  # each level that was never seen is one draw for all parts that it acts on
            variance += effects[1] ** 2 * sum(share[p] for p in effects[0]) ** 2
        return float(costs.sum()), float(np.sqrt(variance))

    def parts(self, row: Row) -> tuple[Array, Array]:
        """Logarithm of the cycles per multiply-accumulate of each part, (5,), and its covariance, (5, 5)."""
        eta, design, unknown = self._parts(row)
        covariance = design @ self.covariance @ design.T
        for places, sd in unknown:
            covariance[np.ix_(places, places)] += sd**2
        return eta, covariance

    def _parts(self, row: Row) -> tuple[Array, Array, list[tuple[list[int], float]]]:
        design = _base_design(row, len(self.mean))
        unknown: dict[tuple[str, str], list[int]] = {}
        for p in range(len(PARTS)):
            for effect in _effects(row, p, self.order):
                if effect in self.index:
                    design[p, self.index[effect]] = 1
                else:
                    unknown.setdefault(effect, []).append(p)
        return design @ self.mean, design, [(places, self.sd[e[0]]) for e, places in unknown.items()]


def _base_design(row: Row, n: int) -> Array:
    """The base's columns, (5, n)."""
    design = np.zeros((len(PARTS), n))
    design[range(len(PARTS)), range(len(PARTS))] = 1
    design[: len(CLASSES), len(PARTS)] = -np.log(PEAK[row.core] / 2)
    design[: len(CLASSES), len(PARTS) + 1] = age(row)
    return design


def _amounts(row: Row) -> Array:
    return np.array([*row.macs, row.operators], float)


def fit(rows: Sequence[Row], sd: dict[str, float], noise: float, start: "Fit | None" = None) -> Fit:
    """Effects by Gauss-Newton steps on the logarithm of cycles."""
    order = release_order(rows)
    effects = sorted({e for row in rows for p in range(len(PARTS)) for e in _effects(row, p, order)})
    out = Fit(dict(sd), noise, {e: N_BASE + i for i, e in enumerate(effects)}, order=order)
    n = N_BASE + len(effects)
    prior = np.concatenate([BASE, [SPEED, DRIFT], np.zeros(len(effects))])
    precision = np.concatenate([BASE_SD**-2.0, [SPEED_SD**-2.0, DRIFT_SD**-2.0], [sd[e[0]] ** -2.0 for e in effects]])
    design = np.zeros((len(rows), len(PARTS), n))
    for i, row in enumerate(rows):
        design[i] = _base_design(row, n)
        for p in range(len(PARTS)):
            for e in _effects(row, p, order):
                design[i, p, out.index[e]] = 1
    amounts, y = np.array([_amounts(r) for r in rows]), np.log([r.cycles for r in rows])
    mean = prior.copy()
    if start is not None and start.index == out.index:
        mean = start.mean.copy()
    loss, costs = _loss(mean, prior, precision, design, amounts, y, noise)
    for _ in range(40):
        jacobian = np.einsum("ip,ipn->in", costs / costs.sum(1)[:, None], design)
        normal = jacobian.T @ jacobian / noise**2 + np.diag(precision)
        gradient = jacobian.T @ (y - np.log(costs.sum(1))) / noise**2 - precision * (mean - prior)
        step = np.linalg.solve(normal, gradient)
        for _ in range(12):  # shorter until it helps
            better, costs_there = _loss(mean + step, prior, precision, design, amounts, y, noise)
            if better <= loss:
                break
            step = step / 2
        change, mean, costs = loss - better, mean + step, costs_there
        loss = better
        if change < 1e-5:
            break
    out.mean, out.covariance = mean, np.linalg.inv(normal)
    determinants = np.log(precision).sum() - np.linalg.slogdet(normal)[1]
    out.evidence = float(-loss - len(rows) * np.log(noise) + 0.5 * determinants)
    return out


def _loss(
    mean: Array, prior: Array, precision: Array, design: Array, amounts: Array, y: Array, noise: float
) -> tuple[float, Array]:
    """Minus the logarithm of the posterior, up to a constant, and the cycles of each part of each row."""
    costs = amounts * np.exp(np.clip(design @ mean, -40, 40))
    residual = y - np.log(costs.sum(1))
    return float(0.5 * (residual @ residual) / noise**2 + 0.5 * precision @ (mean - prior) ** 2), costs


def fit_all(rows: Sequence[Row], sweeps: int = 3, start: Fit | None = None) -> Fit:
    """Effects and standard deviations: each in turn is moved to where the evidence is highest."""
    sd = dict(start.sd) if start else dict(zip(GROUPS, START, strict=True))
    noise = start.noise if start else NOISE
    best = fit(rows, sd, noise, start)
    for sweep in range(sweeps):
        factor = (1.6, 1.25, 1.12)[min(sweep, 2)]
        for name in (*GROUPS, "noise"):
            for direction in (factor, 1 / factor):
                while True:
                    value = (noise if name == "noise" else sd[name]) * direction
                    if not 0.02 <= value <= 2.0:
                        break
                    tried = fit(
                        rows, sd if name == "noise" else sd | {name: value}, value if name == "noise" else noise, best
                    )
                    if tried.evidence <= best.evidence + 1e-3:
                        break
                    best = tried
                    sd, noise = dict(tried.sd), tried.noise
    return best


def left_out(rows: Sequence[Row], key: str, start: Fit) -> Iterable[tuple[list[Row], list[Row], Fit]]:
    """For each level of `key` ("board", "submitter"): rows kept, rows left out, and the fit of the rows kept."""
    for level in sorted({getattr(r, key) for r in rows}):
        kept = [r for r in rows if getattr(r, key) != level]
        yield kept, [r for r in rows if getattr(r, key) == level], fit_all(kept, sweeps=1, start=start)
