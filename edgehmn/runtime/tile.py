"""The Runtime of a simulated memristive target: the C core with the products of its matrices taken from tiles.

The core takes its inner loops from a table. Here that table is a copy whose products of the model's matrices and of the
plastic weights go to tiles; all other arithmetic is the core's own. So tiles that compute exactly give the core's own
bits. Everything is simulated.
"""

from bisect import bisect_right
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from edgehmn.core import CoreModel, Image, ffi, lib
from edgehmn.errors import UsageError
from edgehmn.runtime.protocol import Counts
from edgehmn.targets.memristive.cells import WriteCounts
from edgehmn.targets.memristive.energy import TileCost, TileUse, price
from edgehmn.targets.memristive.presets import Preset, preset
from edgehmn.targets.memristive.tiles import TiledMatrix
from edgehmn.targets.memristive.writes import Scheme, scheme

MAPPINGS = ("all", "encoder", "adapters")  # what lies on tiles; the head counts as part of the encoder
LARGEST = 127
LARGEST_OF_4_BITS = 7
LARGEST_SUM = 2**31 - 1
MATRICES_PER_LAYER = 7
SERIAL_PER_LAYER = 4  # q, k, v together; o; gate and up; down

Kernel = Callable[..., None]


class TileRuntime:
    """An image whose matrices lie on simulated tiles. Scores, learning and the delta are those of CoreModel."""

    def __init__(
        self,
        image: Image,
        target: str | Preset = "hermes",
        *,
        mapping: str = "all",
        writes: str = "verify",
        threshold: float | None = None,
        seed: int = 0,
        seconds_per_token: float = 0.1,
        age_s: float = 3600.0,
    ) -> None:
        """target: a preset or its name. writes: one of SCHEMES; threshold: see there. seed: of draws and of devices.
        age_s: since the frozen matrices were programmed. Raises UsageError for names that are not known."""
        if mapping not in MAPPINGS:
            raise UsageError(f"no mapping is called '{mapping:.40}': there are {', '.join(MAPPINGS)}")
        self.image, self.image_id = image, image.id
        self.preset = preset(target) if isinstance(target, str) else target
        self.seconds_per_token = seconds_per_token
        self._writes, self._threshold, self._seed = writes, threshold, seed
        self._core = CoreModel(image, seed=seed)
        self._products = _Products(self._core)
        self._rng = np.random.default_rng([seed, 1])
        self._frozen: list[TiledMatrix] = []
        if mapping != "adapters":
            self._map_frozen(age_s)
        self._plastic = _PlasticWeights(self) if mapping != "encoder" else None

    def _map_frozen(self, age_s: float) -> None:
        h, data = self.image.header, self.image.bytes
        records = ffi.cast("const ehmn_matrix *", self.image.pointer + h.matrices_offset)
        n = int(h.n_layers) * MATRICES_PER_LAYER
        for i in [*range(n), n + (not h.tied_head)]:
            record = records[i]
            if record.rows == 0:
                continue
            top = LARGEST if record.weight_bits == 8 else LARGEST_OF_4_BITS
            matrix = TiledMatrix(_weights(data, record), self.preset, self._rng, top=top)
            matrix.advance(age_s)
            self._frozen.append(matrix)
            start = int(ffi.cast("uintptr_t", self.image.pointer)) + record.weights_offset
            self._products.take(start, record.rows, _row_bytes(record), matrix)

    @property
    def core(self) -> CoreModel:
        """The model whose products the tiles take, as long as this runtime is kept. Plastic weights follow what is
        learned only through `process`."""
        return self._core

    def process(self, ids: npt.NDArray[np.integer], *, learn: bool, follow: bool = False) -> npt.NDArray[np.uint32]:
        scores = np.empty(len(ids), np.uint32)
        for i, token in enumerate(ids.tolist()):
            scores[i] = self._core.score(token)
            self._attend(token, learn=learn, follow=follow)
            self._feed(token)
        return scores

    def _attend(self, token: int, *, learn: bool, follow: bool) -> None:
        if not learn or self._plastic is None:
            self._core.attend(token, learn=learn, follow=follow)
            return
        self._plastic.before_learning()
        self._core.learn(token)
        self._plastic.after_learning()

    def _feed(self, token: int) -> None:
        if self._plastic is None:
            self._core.step(token)
        else:
            self._plastic.before_step(token)
            self._core.step(token)
            self._plastic.after_step()
        self.advance(self.seconds_per_token)

    def advance(self, seconds: float) -> None:
        """Let time pass, as in a pause: conductances drift."""
        for matrix in self.matrices:
            matrix.advance(seconds)

    @property
    def matrices(self) -> list[TiledMatrix]:
        """Everything that lies on tiles, the frozen matrices first."""
        return self._frozen + (self._plastic.matrices if self._plastic else [])

    @property
    def tiles(self) -> int:
        return sum(m.tiles for m in self.matrices)

    def generate(self, n: int, *, temperature: float = 0.0) -> npt.NDArray[np.int32]:
        out = np.empty(n, np.int32)
        for i in range(n):
            out[i] = self._core.sample(temperature)
            self._feed(int(out[i]))
        return out

    def reset(self) -> None:
        self._core.reset()
        if self._plastic:
            self._plastic.forget_context()

    def forget(self, seed: int) -> None:
        self._core.forget(seed)
        if self._plastic:
            self._plastic.reprogram()

    def save(self) -> bytes:
        return self._core.save()

    def load(self, delta: bytes) -> None:
        self._core.load(delta)
        if self._plastic:
            self._plastic.reprogram()

    def counts(self) -> Counts:
        return self._core.counts()

    def use(self) -> TileUse:
        """What was done on tiles since the runtime was opened."""
        counts, h = self._core.counts(), self.image.header
        writes, wear = WriteCounts(), np.zeros(0, np.uint32)
        if self._plastic:
            for matrix in self._plastic.matrices:
                writes.add(matrix.write_counts())
            wear = np.concatenate([m.wear() for m in self._plastic.matrices])
        on_tiles = sum(m.reads.vectors * m.inputs * m.outputs for m in self._frozen)
        on_tiles += sum(m.reads.vectors * m.inputs * m.outputs for m in self._plastic.dense) if self._plastic else 0
        d, learned = int(h.d_model), counts.learned
        # Learning: P once (d^2), the rows of the negatives and of the token, gains; the rest of the digital work is
        # the forward pass.
        learning = learned * (d * d + (int(h.rule.n_negatives) + 1) * d + 8 * d)
        serial = int(h.n_layers) * SERIAL_PER_LAYER + 1 if self._frozen else 0
        serial = (serial + (2 if self._plastic else 0)) * self.preset.converters.input_slices
        return TileUse(
            tokens=counts.steps,
            learned=learned,
            passes=sum(m.reads.passes for m in self.matrices),
            serial_passes=serial * counts.steps,
            digital_macs=max(0, counts.macs - on_tiles - learning),
            digital_learning_macs=learning,
            writes=writes,
            wear=wear,
        )

    def cost(self, tokens_per_day: float = 20_000.0) -> TileCost:
        """Simulated energy, latency and wear of what was done since the runtime was opened."""
        return price(self.use(), self.preset, tokens_per_day)

    def close(self) -> None:
        """Nothing is held that the garbage collector does not give back."""


class _Products:
    """A table of inner loops in which products of some matrices are answered by tiles."""

    def __init__(self, core: CoreModel) -> None:
        own: Any = lib.ehmn_best_kernels()[0]
        self._table: Any = ffi.new("ehmn_kernels *", own)
        self._callbacks: list[Any] = []
        self._starts: list[int] = []
        self._ranges: list[tuple[int, int, TiledMatrix]] = []  # end, bytes of a row, matrix
        self._last: tuple[TiledMatrix, npt.NDArray[np.int32]] | None = None
        # Steps that cells will be given after the present token: integers as they are, and as they were.
        self.pending: dict[int, tuple[npt.NDArray[np.int8], npt.NDArray[np.int8]]] = {}
        for name, kind in (("matvec_s8", np.int8), ("matvec_s16", np.int16), ("matvec_s4", np.int16)):
            kernel = self._kernel(getattr(own, name), np.dtype(kind))
            callback = ffi.callback(ffi.typeof(getattr(own, name)), kernel)
            self._callbacks.append(callback)  # alive as long as the table
            setattr(self._table, name, callback)
        lib.ehmn_use_kernels(core._model, self._table)

    def take(self, start: int, rows: int, row_bytes: int, matrix: TiledMatrix) -> None:
        """Answer products of the weights at this address."""
        i = bisect_right(self._starts, start)
        self._starts.insert(i, start)
        self._ranges.insert(i, (start + rows * row_bytes, row_bytes, matrix))

    def _kernel(self, own: Kernel, kind: np.dtype[Any]) -> Kernel:
        def matvec(w: Any, rows: int, cols: int, stride: int, x: Any, acc: Any) -> None:
            address = int(ffi.cast("uintptr_t", w))
            i = bisect_right(self._starts, address) - 1
            if i < 0 or address >= self._ranges[i][0]:
                own(w, rows, cols, stride, x, acc)
                return
            _, row_bytes, matrix = self._ranges[i]
            first = (address - self._starts[i]) // row_bytes
            if first == 0 or self._last is None or self._last[0] is not matrix:
                vector = np.frombuffer(ffi.buffer(x, cols * kind.itemsize), kind)
                y = np.rint(matrix.product(vector))
                if id(matrix) in self.pending:
                    now, before = self.pending[id(matrix)]
                    y = y + (now.astype(np.int64) - before) @ vector
                self._last = (matrix, np.clip(y, -LARGEST_SUM, LARGEST_SUM).astype(np.int32))
            out = np.frombuffer(ffi.buffer(acc, rows * 4), np.int32)
            out[:] = self._last[1][first : first + rows]

        return matvec


class _PlasticWeights:
    """The dense adapters and the rows of an image on tiles, in step with the integers in the core's delta."""

    def __init__(self, runtime: TileRuntime) -> None:
        self._core, h = runtime._core, runtime.image.header
        self._rng = np.random.default_rng([runtime._seed, 2])
        d, n_dense, slots = int(h.d_model), int(h.n_dense), list(h.rule.row_slots)
        self._slots = slots
        delta = _delta(self._core)
        start = ffi.sizeof("ehmn_delta")
        self._header = ffi.cast("ehmn_delta *", ffi.from_buffer(delta))
        self.dense_integers = delta[start : start + n_dense * d * d].view(np.int8).reshape(n_dense, d, d)
        start += -(-n_dense * d * d // 4) * 4
        self.row_integers = delta[start : start + sum(slots) * d].view(np.int8).reshape(sum(slots), d)
        self._d, self._runtime = d, runtime
        address = self.dense_integers.ctypes.data
        self.dense = [TiledMatrix(np.zeros((d, d), np.int64), runtime.preset, self._rng) for _ in range(n_dense)]
        for k, matrix in enumerate(self.dense):
            runtime._products.take(address + k * d * d, d, d, matrix)
        self.rows = TiledMatrix(np.zeros((d, sum(slots)), np.int64), runtime.preset, self._rng) if sum(slots) else None
        self.matrices = self.dense + ([self.rows] if self.rows else [])
        self._schemes: list[Scheme] = []
        self._open_schemes()
        self._history: list[int] = []
        self._read: list[int] = []  # rows that the present prediction read
        self._kept = np.zeros((0, d), np.int8)
        self._before: list[npt.NDArray[np.int8]] = []
        self._rollbacks = 0

    def _open_schemes(self) -> None:
        r = self._runtime
        self._schemes = [scheme(r._writes, m, self._rng, r._threshold) for m in self.matrices]

    def forget_context(self) -> None:
        self._history, self._read = [], []

    def reprogram(self) -> None:
        """Write-verify everything that differs from the integers of the delta: they have been exchanged."""
        self._history, self._read = [], []
        self._open_schemes()
        for matrix, integers, writer in zip(self.matrices, self._integers(), self._schemes, strict=True):
            at = np.nonzero(np.rint(matrix.weights()).astype(np.int64) != integers)
            if len(at[0]):
                matrix.program(at[0], at[1], integers[at])
            if writer.master:
                writer.wanted[:] = writer.written[:] = integers  # type: ignore[attr-defined]

    def _integers(self) -> list[npt.NDArray[np.int8]]:
        """Views of the delta, as matrices (outputs, inputs)."""
        return [*self.dense_integers, *([self.row_integers.T] if self.rows else [])]

    def before_step(self, token: int) -> None:
        """Put what a read of the rows gives into the place where the core looks for them."""
        self._history = [token, *self._history[:1]]
        self._read = []
        for k, slots in enumerate(self._slots):
            if slots and len(self._history) > k:
                row = context_hash(self._history[: k + 1]) * slots >> 32
                self._read.append(row + (self._slots[0] if k else 0))
        self._kept = self.row_integers[self._read]
        if self.rows is None or not self._read:
            return
        lines = np.zeros((len(self._read), self.rows.inputs), np.int64)
        lines[np.arange(len(self._read)), self._read] = LARGEST
        seen = np.rint(self.rows.product(lines) / LARGEST)
        self.row_integers[self._read] = np.clip(seen, -LARGEST, LARGEST).astype(np.int8)

    def after_step(self) -> None:
        """Where the integers are the truth, they come back."""
        if self._read and self._schemes[-1].master:
            self.row_integers[self._read] = self._kept

    def before_learning(self) -> None:
        """Note where the integers stand; the row that decays is what a read of it gives, unless integers are the
        truth."""
        turn = int(self._header.learned) % self._d
        for matrix, integers, writer in zip(self.dense, self.dense_integers, self._schemes, strict=False):
            if not writer.master:
                every = np.arange(self._d)
                seen = np.rint(matrix.read(np.full(self._d, turn), every))
                integers[turn] = np.clip(seen, -LARGEST, LARGEST).astype(np.int8)
        self._before = [i.copy() for i in self.dense_integers] + ([self.row_integers[self._read]] if self.rows else [])
        self._rollbacks = self._core.counts().rollbacks
        # The guard looks at the adapters as soon as they are written, before cells are.
        for matrix, integers, before in zip(self.dense, self.dense_integers, self._before, strict=False):
            self._runtime._products.pending[id(matrix)] = (integers, before)

    def after_learning(self) -> None:
        """Give the cells the steps that were drawn."""
        self._runtime._products.pending.clear()
        if self._core.counts().rollbacks != self._rollbacks:
            self.reprogram()
            return
        for k, (matrix, writer) in enumerate(zip(self.dense, self._schemes, strict=False)):
            steps = self.dense_integers[k].astype(np.int64) - self._before[k]
            if steps.any():
                writer.write(steps)
                if not writer.master:
                    self._follow(matrix, self.dense_integers[k], np.nonzero(steps))
        if self.rows is None or not self._read:
            return
        steps = np.zeros((self._d, self.rows.inputs), np.int64)
        for row, before in zip(self._read, self._before[-1], strict=True):
            steps[:, row] = self.row_integers[row].astype(np.int64) - before
        if steps.any():
            self._schemes[-1].write(steps)
            if not self._schemes[-1].master:
                self._follow(self.rows, self.row_integers.T, np.nonzero(steps))

    def _follow(
        self, matrix: TiledMatrix, integers: npt.NDArray[np.int8], at: tuple[npt.NDArray[np.intp], ...]
    ) -> None:
        """The delta says what the written cells have become; nothing of the rule looks at it before it is read anew."""
        integers[at] = np.clip(np.rint(matrix.weights_at(at[0], at[1])), -LARGEST, LARGEST).astype(np.int8)


def context_hash(newest_first: list[int]) -> int:
    """32 bits of the tokens of a context: SPEC.md, "Contexts"."""
    a, mask = 0, 2**32 - 1
    for token in newest_first:
        a = (a * 0x9E3779B1 + token + 1) & mask
        a = ((a ^ a >> 16) * 0x7FEB352D) & mask
        a = ((a ^ a >> 15) * 0x846CA68B) & mask
        a ^= a >> 16
    return a


def _delta(core: CoreModel) -> npt.NDArray[np.uint8]:
    """The delta where it lies in the arena."""
    layout = lib.ehmn_layout_arena(ffi.cast("const ehmn_image *", core.image.pointer), lib.EHMN_PLASTIC)
    start = int(layout.delta)
    return core._arena[start : start + core.image.delta_bytes()]


def _row_bytes(record: Any) -> int:
    return int(record.cols) if record.weight_bits == 8 else -(-int(record.cols) // 2)


def _weights(data: npt.NDArray[np.uint8], record: Any) -> npt.NDArray[np.int64]:
    """The integers (rows, cols) of a matrix of an image."""
    rows, cols, at, size = int(record.rows), int(record.cols), int(record.weights_offset), _row_bytes(record)
    raw = data[at : at + rows * size].reshape(rows, size)
    if record.weight_bits == 8:
        return raw.view(np.int8).astype(np.int64)
    both = np.stack([raw & 15, raw >> 4], -1).reshape(rows, 2 * size)[:, :cols].astype(np.int64)
    return np.where(both < 8, both, both - 16)
