"""One array of cells in differential pairs: what was programmed, what it has become, what pulses do to it."""

from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgehmn.targets.memristive import wires
from edgehmn.targets.memristive.presets import Cell
from edgehmn.targets.memristive.steps import Devices

Array = npt.NDArray[Any]  # of floats
Index = tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]
STUCK_LOW, STUCK_HIGH = 1, 2
UNCUT = 6.0  # standard deviations above zero from which a read is a normal number
FULL = 0.9  # of a one-sided device's range, above which its pair is taken back


@dataclass
class WriteCounts:
    """What writing did."""

    pulses: int = 0  # write pulses, of all cells
    verify_reads: int = 0  # of single cells
    programmed: int = 0  # pairs that write-verify set
    refreshed: int = 0  # pairs of one-sided devices taken back

    def since(self, start: "WriteCounts") -> "WriteCounts":
        """What was done after `start`."""
        pairs = zip(astuple(self), astuple(start), strict=True)
        return WriteCounts(*(now - before for now, before in pairs))

    def add(self, other: "WriteCounts") -> None:
        self.pulses += other.pulses
        self.verify_reads += other.verify_reads
        self.programmed += other.programmed
        self.refreshed += other.refreshed


class CellArray:
    """Weights (rows, columns) in LSB, +-top, as pairs of conductances on wires. `now_s` is set by the owner."""

    def __init__(
        self,
        weights: npt.NDArray[np.integer],
        cell: Cell,
        rng: np.random.Generator,
        *,
        top: int,
        wire_ohm: float = 0.0,
        columns: int = 256,
    ) -> None:
        """Programs all cells at time 0. columns: of a tile, whose wires these are."""
        self.cell, self.top, self.rng, self.now_s = cell, top, rng, 0.0
        self.shape = weights.shape
        self.span = (cell.g_max - cell.g_min) / (2 if cell.offset else 1)  # uS between the weights 0 and top
        self.unit = self.span / top  # of one LSB
        self.wire_ohm, self.tile_columns = wire_ohm, columns
        self.counts = WriteCounts()
        pair = (2, *self.shape)
        self.wear = np.zeros(pair, np.uint32)  # pulses of each cell
        self.stuck = self._stuck(pair)
        quiet = not np.any(cell.noise.program_sigma(np.linspace(cell.g_min, cell.g_max, 9)))
        self.g: Array = np.zeros(pair, np.float64 if quiet else np.float32)  # as programmed; without noise to the bit
        self.nu = np.zeros(pair, np.float32) if cell.noise.drifts else None
        self.written_s = np.zeros(pair, np.float64)
        self._goal: Array = np.full(pair, np.nan, self.g.dtype)  # of the last write-verify; nan: moved since by pulses
        middle = np.full(len(weights), cell.g_min + self.span, self.g.dtype)
        sigma = np.asarray(cell.noise.program_sigma(middle), self.g.dtype)
        self._reference = np.maximum(middle + sigma * rng.standard_normal(len(weights)), 0) if cell.offset else None
        self._devices: Devices | None = None
        self._kept_share: Array | None = None  # of each conductance, that wires leave
        self._persistent: Array | None = None  # what a weight is, in shares of the range; only pulsed two-sided cells
        rows, into = np.indices(self.shape)
        every = (rows.ravel(), into.ravel())
        self.program(every, weights.ravel())
        self.counts = WriteCounts()  # those of making the tile are not those of using it
        self.wear[:] = 0

    def _stuck(self, pair: tuple[int, ...]) -> npt.NDArray[np.uint8] | None:
        low, high = self.cell.stuck
        if low + high == 0:
            return None
        drawn = self.rng.random(pair)
        return np.where(drawn < low, STUCK_LOW, np.where(drawn < low + high, STUCK_HIGH, 0)).astype(np.uint8)

    # -- Writing

    def program(self, at: Index, weights: npt.NDArray[np.number]) -> None:
        """Write-verify the pairs at `at` to weights, in LSB; a weight beyond the range takes its end. Of a pair only
        the cell whose goal has moved is written, or both where neither has: that is a refresh."""
        cell, target = self.cell, np.clip(np.asarray(weights, np.float64), -self.top, self.top)
        goal = self._pair(at, target * self.unit).astype(self.g.dtype)
        if cell.levels:
            step = (cell.g_max - cell.g_min) / (cell.levels - 1)
            goal = np.round((goal - cell.g_min) / step) * step + cell.g_min
        if self.stuck is not None and self._reference is None:
            goal = self._around_stuck(at, goal)
        moved = goal != self._goal[_both(at)]
        moved |= ~moved.any(axis=0)
        sigma = np.asarray(cell.noise.program_sigma(goal), self.g.dtype)
        reached = goal + sigma * self.rng.standard_normal(goal.shape, np.float32) if sigma.any() else goal
        if self._reference is not None:
            reached[1] = self._reference[at[0]]
            moved[:] = True
        self._set(at, np.maximum(reached, 0), moved)
        self._goal[_both(at)] = goal
        if self._persistent is not None:
            self._persistent[at] = (self.g[0][at] - self.g[1][at]) / self.span
        if self._reference is not None:
            moved[1] = False  # nothing is written to what all share
        pulses = self._verify_pulses(moved.shape) * moved
        for polarity in (0, 1):
            np.add.at(self.wear[polarity], at, pulses[polarity])
        total = int(pulses.sum())
        self.counts.add(WriteCounts(total, total, len(target)))

    def _around_stuck(self, at: Index, goal: Array) -> Array:
        """Verification has shown which cells are stuck: the other of the pair takes the difference, as far as it
        can."""
        cell, mine = self.cell, self.stuck[_both(at)]  # type: ignore[index]
        held = np.where(mine == STUCK_HIGH, cell.g_max, cell.g_min).astype(goal.dtype)
        other = np.clip(held[::-1] + np.stack([goal[0] - goal[1], goal[1] - goal[0]]), cell.g_min, cell.g_max)
        return np.where((mine[::-1] > 0) & (mine == 0), other, goal)

    def _pair(self, at: Index, difference: Array) -> Array:
        """Conductances (2, n) of the pairs at `at` that differ by so many uS."""
        if self._reference is not None:
            return np.stack([self._reference[at[0]] + difference, self._reference[at[0]]])
        return np.stack([np.maximum(difference, 0), np.maximum(-difference, 0)]) + self.cell.g_min

    def _verify_pulses(self, shape: tuple[int, ...]) -> npt.NDArray[np.uint32]:
        """Pulses that each cell takes: geometric, cut off."""
        mean = self.cell.verify_pulses
        if mean <= 1:
            return np.ones(shape, np.uint32)
        return np.minimum(self.rng.geometric(1 / mean, shape), self.cell.most_verify_pulses).astype(np.uint32)

    def _set(self, at: Index, g: Array, written: npt.NDArray[np.bool_]) -> None:
        """Conductances (2, n) of the cells of pairs that were written, but for stuck ones; their ages begin anew."""
        cell, both = self.cell, _both(at)
        if self.stuck is not None:
            mine = self.stuck[both]
            g = np.where(mine == STUCK_LOW, cell.g_min, np.where(mine == STUCK_HIGH, cell.g_max, g))
        self.g[both] = np.where(written, g, self.g[both])
        if self.nu is not None:
            self.nu[both] = np.where(written, cell.noise.drift_exponent(self.g[both], self.rng), self.nu[both])
        self.written_s[both] = np.where(written, self.now_s, self.written_s[both])

    def pulse(self, at: Index, pulses: npt.NDArray[np.integer], share: Array | float = 1.0) -> None:
        """Open-loop pulses, signed, to the pairs at `at`, each of which occurs once. share: of a whole pulse's width,
        one for all or for each pair."""
        update = self.cell.update
        if self._devices is None:
            self._devices = update.draw((2, *self.shape) if update.one_sided else self.shape, self.rng)
        if update.one_sided:
            self._pulse_one_sided(at, pulses, share)
        else:
            self._pulse_two_sided(at, pulses, share)

    def _pulse_two_sided(self, at: Index, pulses: npt.NDArray[np.integer], share: Array | float) -> None:
        """In the weight domain, in which such devices were fitted: the pair's difference is one device's state."""
        update = self.cell.update
        assert self._devices is not None
        if self._persistent is None:
            self._persistent = (self.g[0] - self.g[1]) / self.span
        w, mine = self._persistent[at], self._devices.at(at)
        left, direction = np.abs(pulses), np.sign(pulses).astype(np.float32)
        for k in range(int(left.max(initial=0))):
            w = np.where(left > k, update.pulse(w, direction, mine, self.rng, share), w)
        self._persistent[at] = w
        if update.write_noise:
            w = w + np.float32(update.write_noise * update.step) * self.rng.standard_normal(w.shape, np.float32)
        self._set(at, np.maximum(self._pair(at, w * self.span), 0), np.ones((2, len(w)), bool))
        self._goal[_both(at)] = np.nan
        if self._reference is not None:
            self.wear[0][at] += left.astype(np.uint32)
        else:
            for polarity, those in ((0, direction > 0), (1, direction < 0)):
                self.wear[polarity][at] += np.where(those, left, 0).astype(np.uint32)
        self.counts.add(WriteCounts(int(left.sum())))

    def _pulse_one_sided(self, at: Index, pulses: npt.NDArray[np.integer], share: Array | float) -> None:
        """Up is a pulse on the first device of a pair, down one on the second; a full pair is written anew."""
        cell, update = self.cell, self.cell.update
        assert self._devices is not None
        span = cell.g_max - cell.g_min
        both = _both(at)
        z = (self.g[both] - cell.g_min) / span
        left = np.stack([np.maximum(pulses, 0), np.maximum(-pulses, 0)])
        mine = self._devices.at(both)
        for k in range(int(left.max(initial=0))):
            z = np.where(left > k, update.pulse(z, np.ones_like(z), mine, self.rng, share), z)
        self._set(at, z * span + cell.g_min, left > 0)
        self._goal[both] = np.where(left > 0, np.nan, self._goal[both])
        self.wear[both] += left.astype(np.uint32)
        self.counts.add(WriteCounts(int(left.sum())))
        full = (z > FULL).any(axis=0)
        if full.any():
            some = (at[0][full], at[1][full])
            self.program(some, (z[0] - z[1])[full] * self.top)
            self.counts.add(WriteCounts(refreshed=int(full.sum())))

    # -- What it has become

    def conductances(self, at: Index | None = None) -> Array:
        """(2, ...) now, without read noise."""
        both = _both(at)
        g = self.g[both]
        if self.nu is None:
            return g
        t0 = self.cell.noise.t0_s
        age = np.maximum(self.now_s - self.written_s[both], 0)
        return (g * (1 + age / t0) ** -self.nu[both]).astype(np.float32)

    def weights(self, at: Index | None = None) -> npt.NDArray[np.float64]:
        """In LSB, now: what a product sees on wires without resistance."""
        g = self.conductances(at)
        return np.asarray((g[0].astype(np.float64) - g[1]) / self.unit)

    def effective(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64] | None]:
        """What products see: weights (rows, columns) in LSB, wires included, and the variance of one read of each;
        None without read noise."""
        g, variance = self._as_read(self.conductances(), float(np.mean(self.now_s - self.written_s)))
        if self.wire_ohm:
            dropped = np.empty_like(g)
            for start in range(0, self.shape[1], self.tile_columns):
                part = slice(start, start + self.tile_columns)
                for polarity in (0, 1):
                    dropped[polarity, :, part] = wires.first_order(g[polarity, :, part], self.wire_ohm)
            self._kept_share = dropped / np.maximum(g, np.finfo(g.dtype).tiny)
            g = dropped
        return (g[0].astype(np.float64) - g[1]) / self.unit, variance

    def effective_at(self, at: Index) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64] | None]:
        """The same for single pairs, on wires that drop what they dropped when `effective` was last asked."""
        g, variance = self._as_read(self.conductances(at), float(np.mean(self.now_s - self.written_s[_both(at)])))
        if self._kept_share is not None:
            g = g * self._kept_share[_both(at)]
        return (g[0].astype(np.float64) - g[1]) / self.unit, variance

    def _as_read(self, g: Array, age_s: float) -> tuple[Array, npt.NDArray[np.float64] | None]:
        """Means (2, ...) of reads of conductances g, and the variance (...) of their differences, LSB^2; None without
        read noise. A read gives no conductance below zero."""
        sigma = np.asarray(self.cell.noise.read_sigma(g, max(age_s, 0.0)))
        if not sigma.any():
            return g, None
        mean, variance = g, sigma.astype(np.float64) ** 2
        near = sigma * UNCUT > g
        if near.any():
            mean = g.copy()
            mean[near], variance[near] = rectified(g[near].astype(np.float64), sigma[near].astype(np.float64))
        return mean, np.asarray(variance.sum(0) / self.unit**2)

    def read(self, at: Index) -> npt.NDArray[np.float64]:
        """One noisy read of single pairs, in LSB, without their drift being compensated."""
        g = self.conductances(at)
        age = float(np.mean(self.now_s - self.written_s[_both(at)])) if len(at[0]) else 0.0
        sigma = np.asarray(self.cell.noise.read_sigma(g, max(age, 0.0)), np.float32)
        if sigma.any():
            g = np.maximum(g + sigma * self.rng.standard_normal(g.shape, np.float32), 0)
        self.counts.verify_reads += 2 * len(at[0])
        return np.asarray((g[0].astype(np.float64) - g[1]) / self.unit)


def _both(at: Index | None) -> Any:
    """The index of both cells of some pairs, or of all."""
    return ... if at is None else (slice(None), *at)


def rectified(mean: npt.NDArray[np.float64], sigma: npt.NDArray[np.float64]) -> tuple[Array, Array]:
    """Mean and variance of max(0, a normal number)."""
    a = mean / sigma
    density = np.exp(-0.5 * a**2) / np.sqrt(2 * np.pi)
    # Share below zero: Abramowitz and Stegun 7.1.26, within 1e-7.
    t = 1 / (1 + 0.3275911 * np.abs(a) / np.sqrt(2))
    poly = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    tail = 0.5 * poly * np.exp(-0.5 * a**2)
    above = np.where(a >= 0, 1 - tail, tail)
    first = mean * above + sigma * density
    second = (mean**2 + sigma**2) * above + mean * sigma * density
    return first, np.maximum(second - first**2, 0)
