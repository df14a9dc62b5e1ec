"""The core's inner loops, with products of some matrices answered by tiles."""

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgehmn.core import CoreModel, ffi, lib
from edgehmn.targets.memristive.tiles import TiledMatrix

LARGEST_SUM = 2**31 - 1

Kernel = Callable[..., None]


@dataclass(frozen=True)
class _Part:
    """Weights at an address: rows first.. of what is asked of a tiled matrix."""

    end: int
    row_bytes: int
    matrix: TiledMatrix
    first: int


class Products:
    """A table of inner loops in which products of some matrices are answered by tiles. Matrices that share an input
    may lie side by side on one tiled matrix, which is then asked once for all of them."""

    def __init__(self, core: CoreModel) -> None:
        own: Any = lib.ehmn_best_kernels()[0]
        self._table: Any = ffi.new("ehmn_kernels *", own)
        self._callbacks: list[Any] = []
        self._starts: list[int] = []
        self._parts: list[_Part] = []
        # What was asked last, by which input, what came of it, and the row after those that have been handed out.
        self._last: tuple[TiledMatrix, bytes, npt.NDArray[np.int32]] | None = None
        self._next = 0
        # Steps that cells will be given after the present token: integers as they are, and as they were.
        self.pending: dict[int, tuple[npt.NDArray[np.int8], npt.NDArray[np.int8]]] = {}
        for name, kind in (("matvec_s8", np.int8), ("matvec_s16", np.int16), ("matvec_s4", np.int16)):
            kernel = self._kernel(getattr(own, name), np.dtype(kind))
            callback = ffi.callback(ffi.typeof(getattr(own, name)), kernel)
            self._callbacks.append(callback)  # alive as long as the table
            setattr(self._table, name, callback)
        lib.ehmn_use_kernels(core._model, self._table)

    def take(self, start: int, rows: int, row_bytes: int, matrix: TiledMatrix, first: int = 0) -> None:
        """Answer products of the weights at this address by outputs first.. of a tiled matrix."""
        i = bisect_right(self._starts, start)
        self._starts.insert(i, start)
        self._parts.insert(i, _Part(start + rows * row_bytes, row_bytes, matrix, first))

    def _kernel(self, own: Kernel, kind: np.dtype[Any]) -> Kernel:
        def matvec(w: Any, rows: int, cols: int, stride: int, x: Any, acc: Any) -> None:
            address = int(ffi.cast("uintptr_t", w))
            i = bisect_right(self._starts, address) - 1
            if i < 0 or address >= self._parts[i].end:
                own(w, rows, cols, stride, x, acc)
                return
            part = self._parts[i]
            row = part.first + (address - self._starts[i]) // part.row_bytes
            driven = ffi.buffer(x, cols * kind.itemsize)[:]
            last = self._last
            if last is None or last[0] is not part.matrix or row != self._next or last[1] != driven:
                last = self._last = (part.matrix, driven, self._ask(part.matrix, np.frombuffer(driven, kind)))
            self._next = row + rows
            out = np.frombuffer(ffi.buffer(acc, rows * 4), np.int32)
            out[:] = last[2][row : row + rows]

        return matvec

    def _ask(self, matrix: TiledMatrix, vector: npt.NDArray[np.integer]) -> npt.NDArray[np.int32]:
        y = np.rint(matrix.product(vector))
        if id(matrix) in self.pending:
            now, before = self.pending[id(matrix)]
            y = y + (now.astype(np.int64) - before) @ vector
        return np.minimum(np.maximum(y, -LARGEST_SUM), LARGEST_SUM).astype(np.int32)
