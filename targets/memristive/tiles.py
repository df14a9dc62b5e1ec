"""A matrix on tiles: cut into blocks of inputs and slices of weights, driven through converters."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgehmn.targets.memristive.cells import CellArray, Index, WriteCounts
from edgehmn.targets.memristive.presets import Preset

GROWTH = 1.25  # of a converter's range whenever an output would clip
FIRST_BOUND = 1 / 16  # where it starts, in units of (largest input) (largest weight)
STALE = 0.05  # growth of the logarithm of an array's age after which its conductances are computed anew
PATCHES = 256  # writes of single cells between two times that a whole array is computed
SETTLED_S = 20.0  # age below which drift is not followed

Vector = npt.NDArray[Any]  # of integers or floats


@dataclass
class ReadCounts:
    """What products did. passes: of one tile, slices of inputs and weights counted apart, those included that were
    repeated with a wider range of the converters."""

    vectors: int = 0
    passes: int = 0
    repeated: int = 0


@dataclass
class _Block:
    """Inputs first..first + rows of one slice of the weights, in `copies` (down the rows, along the columns) of the
    cells, whose mean counts."""

    array: CellArray
    first: int
    rows: int
    copies: tuple[int, int]
    factor: float  # that its products are worth
    bound: float  # of the converters, in units of integer products
    weights: Vector | None = None  # what products see; None: not computed since the last write
    variance: Vector | None = None
    seen_s: float = 0.0
    compensation: float = 1.0
    patches: int = 0  # since all was computed

    def cells(self, at: Index) -> Index:
        """All copies of some weights, one after another."""
        down, along = self.copies
        if down * along == 1:
            return at
        columns = self.array.shape[1] // along
        places = [(at[0] + i * self.rows, at[1] + j * columns) for i in range(down) for j in range(along)]
        return np.concatenate([p[0] for p in places]), np.concatenate([p[1] for p in places])

    def each(self, values: Vector) -> Vector:
        """Values of some weights for all their copies."""
        return np.tile(values, self.copies[0] * self.copies[1])

    def mean_at(self, of_cells: Vector) -> Vector:
        """Of all copies, as `cells` orders them."""
        n = self.copies[0] * self.copies[1]
        return of_cells if n == 1 else of_cells.reshape(n, -1).mean(0)

    def mean(self, of_array: Vector) -> Vector:
        """(rows, columns) of what all cells of the array are."""
        down, along = self.copies
        if down * along == 1:
            return of_array
        return of_array.reshape(down, self.rows, along, -1).mean((0, 2))


class TiledMatrix:
    """Integers weights (outputs, inputs) within +-top, whose products come from tiles of one preset."""

    def __init__(
        self, weights: npt.NDArray[np.integer], preset: Preset, rng: np.random.Generator, *, top: int = 127,
        fill: bool = False,
    ) -> None:  # fmt: skip
        """Programs the weights at time 0. fill: copies of a matrix take the rows and columns of its tiles that would
        stand empty and be paid for all the same; their errors average."""
        self.preset, self.top, self.rng = preset, top, rng
        self.outputs, self.inputs = weights.shape
        self.now_s = 0.0
        self.reads = ReadCounts()
        io, cell = preset.converters, preset.cell
        self._input_top = _largest_input(preset)
        quiet = cell.noise.read_sigma(np.full(1, cell.g_max), 0.0)[0] == 0
        self._exact = quiet and not io.adc_bits
        self._dtype: type[np.floating] = np.float64 if self._exact else np.float32
        self._slices = _slice_widths(top, preset.slice_bits)
        self._blocks: list[_Block] = []
        for first in range(0, self.inputs, preset.rows):
            part = weights[:, first : first + preset.rows].T.astype(np.int64)
            for shift, most in self._slices:
                copies = (preset.rows // len(part), preset.columns // self.outputs or 1) if fill else (1, 1)
                array = CellArray(
                    np.tile(_slice(part, shift, most), copies), cell, rng, top=most, wire_ohm=preset.wire_ohm,
                    columns=preset.columns,
                )  # fmt: skip
                driven = (1 << io.dac_bits) - 1 if io.input_slices > 1 else self._input_top
                start = (io.bound or FIRST_BOUND) * driven * most
                self._blocks.append(_Block(array, first, len(part), copies, float(1 << shift), start))

    @property
    def tiles(self) -> int:
        """Tiles that the matrix takes, the last of each kind being partly empty."""
        return len(self._blocks) * -(-self.outputs // self.preset.columns)

    @property
    def arrays(self) -> list[CellArray]:
        """All cells."""
        return [b.array for b in self._blocks]

    def write_counts(self) -> WriteCounts:
        total = WriteCounts()
        for b in self._blocks:
            total.add(b.array.counts)
        return total

    def wear(self) -> npt.NDArray[np.uint32]:
        """Pulses of every cell, flat."""
        return np.concatenate([b.array.wear.ravel() for b in self._blocks])

    def advance(self, seconds: float) -> None:
        """Let time pass: conductances drift."""
        self.now_s += seconds
        for b in self._blocks:
            b.array.now_s = self.now_s

    # -- Products

    def product(self, x: npt.NDArray[np.integer | np.floating]) -> npt.NDArray[np.float64]:
        """weights @ x for integers x (..., inputs): (..., outputs). With read noise, drawn anew for every vector."""
        x = np.asarray(x)
        if self._exact and self.preset.converters.dac_bits == 0 and len(self._blocks) == 1:
            block = self._current(self._blocks[0])
            assert block.weights is not None
            self._count(x, 1)
            return np.asarray(x @ block.weights, np.float64)
        if x.ndim == 1 and self.preset.converters.input_slices == 1:
            return self._single(x)
        flat = x.reshape(-1, x.shape[-1])
        self._count(flat, len(self._blocks) * self.preset.converters.input_slices)
        levels, gain = self._convert_input(flat)
        total = np.zeros((len(flat), self.outputs))
        for block in self._blocks:
            part = levels[..., block.first : block.first + block.rows]
            total += self._block_product(self._current(block), part) * block.factor
        return (total * gain).reshape(*x.shape[:-1], self.outputs)

    def _single(self, x: Vector) -> npt.NDArray[np.float64]:
        """The product of one vector (inputs,), without the axes that several need."""
        self._count(x, len(self._blocks))
        gain = max(1.0, float(np.abs(x).max()) / self._input_top) if self.preset.converters.dac_bits else 1.0
        levels = x.astype(self._dtype) if gain == 1.0 else np.rint(x / gain).astype(self._dtype)
        total: Vector | None = None
        for block in self._blocks:
            self._current(block)
            part = levels[block.first : block.first + block.rows]
            y = part @ block.weights
            if block.variance is not None:
                spread = np.square(part) @ block.variance
                np.sqrt(spread, out=spread)
                spread *= self.rng.standard_normal(len(spread), np.float32)
                y += spread
            if self.preset.converters.adc_bits:
                y = self._convert_output(block, y)
            scaled = y * (block.factor * gain)
            total = scaled if total is None else total + scaled
        assert total is not None
        return total.astype(np.float64)

    def _count(self, x: Vector, passes: int) -> None:
        n = x.size // self.inputs
        self.reads.vectors += n
        self.reads.passes += n * passes * -(-self.outputs // self.preset.columns)

    def _convert_input(self, x: Vector) -> tuple[Vector, Vector]:
        """Levels (slices, n, inputs), what a row is driven with, and the worth (n, 1) of one level. Inputs that fit are
        driven as they are; others in shares of the vector's largest."""
        io, dtype = self.preset.converters, self._dtype
        if io.dac_bits == 0:
            return x[None].astype(dtype), np.ones((len(x), 1))
        largest = np.abs(x).max(axis=1, keepdims=True).astype(np.float64)
        gain = np.maximum(largest / self._input_top, 1.0)
        levels = np.rint(x / gain)
        if io.input_slices == 1:
            return levels[None].astype(dtype), gain
        size, sign = np.abs(levels).astype(np.int64), np.sign(levels)
        digits = [(size >> (io.dac_bits * k) & ((1 << io.dac_bits) - 1)) * sign for k in range(io.input_slices)]
        return np.stack(digits).astype(dtype), gain

    def _block_product(self, block: _Block, levels: Vector) -> Vector:
        """(n, outputs) of levels (slices, n, inputs), each slice converted by itself."""
        io = self.preset.converters
        assert block.weights is not None
        y = levels @ block.weights
        if block.variance is not None:
            spread = np.sqrt(np.square(levels) @ block.variance)
            y = y + spread * self.rng.standard_normal(y.shape, np.float32)
        if io.adc_bits:
            y = self._convert_output(block, y)
        if len(levels) == 1:
            return np.asarray(y[0])
        worth = (1 << (io.dac_bits * np.arange(len(levels)))).astype(np.float64)
        return np.asarray(np.tensordot(worth, y, 1))

    def _convert_output(self, block: _Block, y: Vector) -> Vector:
        """What the converters make of analog outputs. A range that is not given grows until nothing clips, and the pass
        is repeated."""
        io = self.preset.converters
        half = (1 << (io.adc_bits - 1)) - 1
        if not io.bound:
            highest = float(np.abs(y).max(initial=0))
            if highest > block.bound:
                self.reads.repeated += 1
                self.reads.passes += -(-self.outputs // self.preset.columns)
            while highest > block.bound:
                block.bound *= GROWTH
        step = np.float32(max(block.bound / half, 1.0 if io.input_slices > 1 else 0.0))
        y = y / step
        if io.noise:
            noise = self.rng.standard_normal(y.shape, np.float32)
            noise *= np.float32(io.noise)
            y += noise
        np.rint(y, out=y)
        np.minimum(np.maximum(y, -half, out=y), half, out=y)
        return y * step

    def converter_step(self) -> float:
        """The widest step of an output's conversion, in units of integer products of inputs that fit; 0: none."""
        io = self.preset.converters
        return max(b.bound * b.factor for b in self._blocks) / ((1 << (io.adc_bits - 1)) - 1) if io.adc_bits else 0.0

    def _current(self, block: _Block) -> _Block:
        """The block with conductances as of now."""
        older = (self.now_s + SETTLED_S) / (block.seen_s + SETTLED_S)
        if block.weights is None or (block.array.nu is not None and older > 1 + STALE):
            weights, variance = block.array.effective()
            if self.preset.cell.compensated:
                then = np.abs(block.array.g[0] - block.array.g[1]).sum()
                now = np.abs(np.subtract(*block.array.conductances())).sum()
                block.compensation = float(then) / float(now) if now else 1.0
            block.weights = np.ascontiguousarray(block.mean(weights) * block.compensation, self._dtype)
            if variance is not None:
                share = block.compensation**2 / (block.copies[0] * block.copies[1])
                block.variance = (block.mean(variance) * share).astype(self._dtype)
            block.seen_s, block.patches = self.now_s, 0
        return block

    def _patch(self, block: _Block, at: Index) -> None:
        """Some cells were written. All is computed anew only now and then: wires change little by one write."""
        if block.weights is None:
            return
        block.patches += 1
        if block.patches > PATCHES:
            block.weights = None
            return
        weights, variance = block.array.effective_at(block.cells(at))
        block.weights[at] = block.mean_at(weights) * block.compensation
        if block.variance is not None and variance is not None:
            share = block.compensation**2 / (block.copies[0] * block.copies[1])
            block.variance[at] = block.mean_at(variance) * share

    # -- Writing

    def weights(self) -> npt.NDArray[np.float64]:
        """(outputs, inputs) in LSB, as they are now, without read noise."""
        out = np.zeros((self.inputs, self.outputs))
        for b in self._blocks:
            out[b.first : b.first + b.rows] += b.mean(b.array.weights()) * b.factor
        return out.T

    def weights_at(self, outputs: npt.NDArray[np.intp], inputs: npt.NDArray[np.intp]) -> npt.NDArray[np.float64]:
        """The same of single weights."""
        out = np.zeros(len(outputs))
        for b, inside, at in self._split(outputs, inputs):
            out[inside] += b.mean_at(b.array.weights(b.cells(at))) * b.factor
        return out

    def read(self, outputs: npt.NDArray[np.intp], inputs: npt.NDArray[np.intp]) -> npt.NDArray[np.float64]:
        """One noisy read of single weights."""
        out = np.zeros(len(outputs))
        for b, inside, at in self._split(outputs, inputs):
            out[inside] += b.mean_at(b.array.read(b.cells(at))) * b.factor
        return out

    def program(
        self, outputs: npt.NDArray[np.intp], inputs: npt.NDArray[np.intp], weights: npt.NDArray[np.number]
    ) -> None:
        """Write-verify single weights, given in LSB. Sliced ones take the nearest integers."""
        for b, inside, at in self._split(outputs, inputs):
            value = weights[inside]
            if len(self._slices) > 1:
                shift, most = self._slices[self._blocks.index(b) % len(self._slices)]
                value = _slice(np.rint(value).astype(np.int64), shift, most)
            b.array.program(b.cells(at), b.each(value))
            self._patch(b, at)

    def pulse(
        self, outputs: npt.NDArray[np.intp], inputs: npt.NDArray[np.intp], pulses: npt.NDArray[np.integer],
        share: Vector | None = None,
    ) -> None:  # fmt: skip
        """Open-loop pulses, signed, to single weights. share: of a whole pulse's width, for each weight."""
        for b, inside, at in self._split(outputs, inputs):
            b.array.pulse(b.cells(at), b.each(pulses[inside]), 1.0 if share is None else b.each(share[inside]))
            self._patch(b, at)

    def _split(
        self, outputs: npt.NDArray[np.intp], inputs: npt.NDArray[np.intp]
    ) -> list[tuple[_Block, npt.NDArray[np.bool_], Index]]:
        """For each block the entries that lie in it, and where."""
        found: list[tuple[_Block, npt.NDArray[np.bool_], Index]] = []
        for b in self._blocks:
            inside = (inputs >= b.first) & (inputs < b.first + b.rows)
            if inside.any():
                found.append((b, inside, (inputs[inside] - b.first, outputs[inside])))
        return found


def _largest_input(preset: Preset) -> float:
    """That converters can drive; 1 without converters."""
    io = preset.converters
    if io.dac_bits == 0:
        return 1.0
    bits = io.dac_bits * io.input_slices if io.input_slices > 1 else io.dac_bits - 1
    return float((1 << bits) - 1)


def _slice_widths(top: int, slice_bits: int) -> list[tuple[int, int]]:
    """For each slice of a magnitude its shift and its largest digit."""
    bits = top.bit_length()
    if slice_bits == 0:
        return [(0, top)]
    return [(shift, (1 << slice_bits) - 1) for shift in range(0, bits, slice_bits)]


def _slice(weights: npt.NDArray[np.int64], shift: int, most: int) -> npt.NDArray[np.int64]:
    """One digit of each magnitude, with its sign. `most` that is no full digit leaves the weights as they are."""
    if shift == 0 and int(np.abs(weights).max(initial=0)) <= most:
        return weights
    return np.sign(weights) * (np.abs(weights) >> shift & most)
