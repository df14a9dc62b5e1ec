"""The plastic weights of an image on tiles."""

import numpy as np
import numpy.typing as npt

from edgehmn.core import CoreModel, ffi, lib
from edgehmn.runtime.tile_products import Products
from edgehmn.targets.memristive.mapping import TileSetup
from edgehmn.targets.memristive.presets import Preset
from edgehmn.targets.memristive.tiles import TiledMatrix
from edgehmn.targets.memristive.writes import Scheme, scheme

LARGEST = 127


class PlasticWeights:
    """The dense adapters and the rows of an image on tiles, in step with the integers in the core's delta."""

    def __init__(
        self, core: CoreModel, products: Products, preset: Preset, setup: TileSetup, rng: np.random.Generator
    ) -> None:
        self._core, h = core, core.image.header
        self._products, self._setup, self._rng = products, setup, rng
        d, n_dense, slots = int(h.d_model), int(h.n_dense), list(h.rule.row_slots)
        self._slots = slots
        delta = _delta(self._core)
        start = ffi.sizeof("ehmn_delta")
        self._header = ffi.cast("ehmn_delta *", ffi.from_buffer(delta))
        self.dense_integers = delta[start : start + n_dense * d * d].view(np.int8).reshape(n_dense, d, d)
        start += -(-n_dense * d * d // 4) * 4
        self.row_integers = delta[start : start + sum(slots) * d].view(np.int8).reshape(sum(slots), d)
        self._d = d
        address = self.dense_integers.ctypes.data

        def tiled(inputs: int) -> TiledMatrix:
            return TiledMatrix(np.zeros((d, inputs), np.int64), preset, rng, fill=setup.fill)

        self.dense = [tiled(d) for _ in range(n_dense)]
        for k, matrix in enumerate(self.dense):
            products.take(address + k * d * d, d, d, matrix)
        self.rows = tiled(sum(slots)) if sum(slots) else None
        self.matrices = self.dense + ([self.rows] if self.rows else [])
        self._schemes: list[Scheme] = []
        self._open_schemes()
        self._history: list[int] = []
        self._read: list[int] = []  # rows that the present prediction read
        self._kept = np.zeros((0, d), np.int8)
        self._before: list[npt.NDArray[np.int8]] = []
        self._rollbacks = 0

    def _open_schemes(self) -> None:
        self._schemes = [scheme(self._setup.writes, m, self._rng, self._setup.threshold) for m in self.matrices]

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
                writer.written[:] = integers  # type: ignore[attr-defined]
                writer.ahead[:] = 0  # type: ignore[attr-defined]

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
            self._products.pending[id(matrix)] = (integers, before)

    def after_learning(self) -> None:
        """Give the cells the steps that were drawn."""
        self._products.pending.clear()
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
