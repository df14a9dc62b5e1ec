"""The encoder as a TFLite graph: int16 activations, int8 weights with one scale per row, 64-bit sums where 32 bits
could overflow.

Float are only scalars: the scale of an embedding's row, and the reciprocal root of each norm, since TFLite's int16
RSQRT is wrong or missing; and, in windows beyond MAX_INT16_SOFTMAX, the softmax. Scales are static, symmetric and
without clipping: the largest magnitude on the calibration text, times HEADROOM.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema

from edgehmn.checkpoint.model import FloatArray
from edgehmn.export.tflite_builder import GraphBuilder, Tensor
from edgehmn.export.tflite_encoder import Matrix
from edgehmn.quantize import WEIGHT_LIMIT, quantise_rows
from edgehmn.runtime.tflite import ANGLE_SCALE, MASK_SCALE, Interface

LIMIT = 32767  # of an int16; -32768 is left to the mask
HEADROOM = 2.0  # how far a value may go beyond the calibration text before it saturates
UNIT_SCALE = 1 / 32768  # of what a kernel gives between 0 and 1, prescribed by TFLite
ACCUMULATOR_LIMIT = 2**31 - 1  # kernels of FULLY_CONNECTED add in 32 bits where there is no 64-bit bias
# An int16 SOFTMAX ends at exp(-10): every position that lies further below the best counts for so much. With one
# position far above 511 others it gives 0.970 for 1. On text of stories260K that costs 1.5 dB, and no perplexity that
# is measurable.
MAX_INT16_SOFTMAX = 512
MASK_MARGIN = 16.0  # how far the score of an unfilled position lies below the least of the others, at least
MAX_ADD_RATIO = 2.0**12  # of an input's scale to the sum's: kernels abort at 2**14
MAX_QUANTISED = 2.0**30  # QUANTIZE rounds to 32 bits before it saturates
MAX_RESCALE = 2.0**14  # in one QUANTIZE: at 2**16 kernels wrap


class Int16Operations:
    """`Operations` on the tensors of a graph. ranges: those that `measure_ranges` found."""

    def __init__(self, graph: GraphBuilder, interface: Interface, ranges: list[float]) -> None:
        self._graph, self._interface, self._ranges = graph, interface, iter(ranges)
        scales = {"mask": MASK_SCALE, "cos": ANGLE_SCALE, "sin": ANGLE_SCALE}
        self._inputs = {
            name: graph.input(name, kind, shape, scales.get(name))
            for name, (kind, shape) in interface.step_inputs().items()
        }
        self._slots: dict[str, Tensor] = {}

    def finish(self, hidden: Tensor) -> None:
        """Name the outputs, in the order of the interface."""
        assert next(self._ranges, None) is None, "the graph has the values that were measured"
        self._graph.output("hidden", self._requantise(hidden, 2.0**-self._interface.hidden_frac))
        for name, slot in self._slots.items():
            self._graph.output(name, slot)

    # --- operations ---

    def embed(self, table: Matrix, index_name: str) -> Tensor:
        """The row's mantissas are the weights that its scale, an activation, is multiplied by."""
        g, (rows, width) = self._graph, table.shape
        scale = np.concatenate([_row_scales(b) for b in table.blocks()])
        index, kept = self._inputs[index_name], schema.GatherOptionsT()
        mantissas = g.constant_later((rows, width), np.int8, 1.0, lambda: _mantissas(table))
        row = self.reshape(g.operator("GATHER", [mantissas, index], (1, width), np.int8, 1.0, kept), width, 1)
        scales = g.constant(scale[:, None].astype(np.float32))
        factor = g.operator("GATHER", [scales, index], (1, 1), np.float32, None, kept)
        factor = self._quantise(factor, float(scale.max()) / LIMIT or 1.0)
        return self._fully_connected(factor, row, factor.step * WEIGHT_LIMIT)  # the largest of all rows

    def linear(self, x: Tensor, weight: Matrix) -> Tensor:
        g, (rows, columns) = self._graph, weight.shape
        scale = np.concatenate([_row_scales(b) for b in weight.blocks()])
        # The sum of a row's magnitudes, rounding included, bounds its accumulator.
        sums = np.concatenate([np.abs(b).sum(axis=1, dtype=np.float64) for b in weight.blocks()])
        largest = float((np.divide(sums, scale, where=scale > 0, out=np.zeros(rows)) + columns / 2).max())
        scale[scale == 0] = scale.max() or 1.0  # of a row of zeros
        mantissas = g.constant_later((rows, columns), np.int8, scale, lambda: _mantissas(weight))
        out = max(self._next_scale(), x.step * float(scale.max()))
        return self._fully_connected(x, mantissas, out, wide=largest * (LIMIT + 1) > ACCUMULATOR_LIMIT)

    def add(self, a: Tensor, b: Tensor) -> Tensor:
        return self._sum(a, b, self._next_scale())

    def add_constant(self, x: Tensor, value: FloatArray) -> Tensor:
        return self._sum(x, self._constant(value), self._next_scale())

    def multiply(self, a: Tensor, b: Tensor, *, limit: float = np.inf) -> Tensor:
        scale = max(self._next_scale(limit), a.step * b.step)
        return self._graph.operator("MUL", [a, b], _broadcast(a, b), np.int16, scale, schema.MulOptionsT())

    def multiply_by_input(self, x: Tensor, name: str) -> Tensor:
        return self.multiply(x, self._inputs[name])

    def subtract_mean(self, x: Tensor) -> Tensor:
        options = schema.ReducerOptionsT()
        options.keepDims = True
        axis = self._graph.constant(np.array([1], np.int32))
        mean = self._graph.operator("MEAN", [x, axis], (1, 1), np.int16, self._next_scale(), options)
        options = schema.SubOptionsT()
        options.potScaleInt16 = False
        scale = _sum_scale(x, mean, self._next_scale())
        return self._graph.operator("SUB", [x, mean], x.shape, np.int16, scale, options)

    def unit(self, x: Tensor, eps: float) -> Tensor:
        g = self._graph
        square = self.matmul(x, x)
        value = g.operator("DEQUANTIZE", [square], (1, 1), np.float32, None, schema.DequantizeOptionsT())
        scale = self._next_scale()
        least = g.constant(np.full((1, 1), max(eps, (scale * MAX_QUANTISED) ** -2), np.float32))
        value = g.operator("ADD", [value, least], (1, 1), np.float32, None, schema.AddOptionsT())
        root = g.operator("RSQRT", [value], (1, 1), np.float32)
        return self.multiply(x, self._quantise(root, scale))

    def logistic(self, x: Tensor) -> Tensor:
        return self._graph.operator("LOGISTIC", [x], x.shape, np.int16, UNIT_SCALE)

    def matmul(self, a: Tensor, b: Tensor) -> Tensor:
        options = schema.BatchMatMulOptionsT()
        options.adjY = True  # as kernels want it: without, they keep a transposed copy of b
        shape = (*a.shape[:-1], b.shape[-2])
        scale = max(self._next_scale(), a.step * b.step)
        return self._graph.operator("BATCH_MATMUL", [a, b], shape, np.int16, scale, options)

    def softmax(self, scores: Tensor) -> Tensor:
        g, options = self._graph, schema.SoftmaxOptionsT()
        options.beta = 1.0
        masked = self._sum(scores, self._inputs["mask"], scores.step + MASK_MARGIN / LIMIT)
        if self._interface.n_ctx <= MAX_INT16_SOFTMAX:
            return g.operator("SOFTMAX", [masked], masked.shape, np.int16, UNIT_SCALE, options)
        real = g.operator("DEQUANTIZE", [masked], masked.shape, np.float32, None, schema.DequantizeOptionsT())
        return self._quantise(g.operator("SOFTMAX", [real], masked.shape, np.float32, None, options), UNIT_SCALE)

    def window(self, name: str, newest: Tensor, axis: int) -> Tensor:
        kind, shape = self._interface.cache_inputs()[name]
        cached = self._graph.input(name, kind, shape, newest.scale)
        self._slots[f"new_{name}"] = newest
        return self.concatenate([cached, newest], axis)

    def reshape(self, x: Tensor, *shape: int) -> Tensor:
        options = schema.ReshapeOptionsT()
        options.newShape = list(shape)
        target = self._graph.constant(np.array(shape, np.int32))
        return self._graph.operator("RESHAPE", [x, target], shape, x.kind, x.scale, options)

    def slice(self, x: Tensor, axis: int, begin: int, size: int) -> Tensor:
        begins, shape = [0] * len(x.shape), list(x.shape)
        begins[axis], shape[axis] = begin, size
        bounds = [self._graph.constant(np.array(bound, np.int32)) for bound in (begins, shape)]
        return self._graph.operator("SLICE", [x, *bounds], tuple(shape), x.kind, x.scale, schema.SliceOptionsT())

    def concatenate(self, parts: list[Tensor], axis: int) -> Tensor:
        assert all(part.scale == parts[0].scale for part in parts), "kernels move values as they are"
        options = schema.ConcatenationOptionsT()
        options.axis = axis
        shape = list(parts[0].shape)
        shape[axis] = sum(part.shape[axis] for part in parts)
        return self._graph.operator("CONCATENATION", parts, tuple(shape), np.int16, parts[0].scale, options)

    # --- what they share ---

    def _next_scale(self, limit: float = np.inf) -> float:
        """Of the next value that was measured."""
        return min(HEADROOM * next(self._ranges), limit) / LIMIT

    def _constant(self, value: FloatArray) -> Tensor:
        scale = float(np.abs(value).max()) / LIMIT or 1.0
        return self._graph.constant(np.round(value / scale).astype(np.int16), scale)

    def _sum(self, a: Tensor, b: Tensor, scale: float) -> Tensor:
        options = schema.AddOptionsT()
        options.potScaleInt16 = False
        return self._graph.operator("ADD", [a, b], _broadcast(a, b), np.int16, _sum_scale(a, b, scale), options)

    def _fully_connected(self, x: Tensor, weight: Tensor, scale: float, *, wide: bool = False) -> Tensor:
        """wide: adds in 64 bits, which a bias of zeros makes the kernels do. It is slower."""
        g, inputs, rows = self._graph, [x, weight], weight.shape[0]
        if wide:
            inputs.append(g.constant(np.zeros(rows, np.int64), x.step * np.asarray(weight.scale)))
        return g.operator("FULLY_CONNECTED", inputs, (1, rows), np.int16, scale, schema.FullyConnectedOptionsT())

    def _quantise(self, x: Tensor, scale: float) -> Tensor:
        return self._graph.operator("QUANTIZE", [x], x.shape, np.int16, scale, schema.QuantizeOptionsT())

    def _requantise(self, x: Tensor, scale: float) -> Tensor:
        """int16 at another scale, saturated, in as many steps as its kernel needs to stay within 32 bits."""
        while x.step > scale * MAX_RESCALE:
            x = self._quantise(x, x.step / MAX_RESCALE)
        return self._quantise(x, scale)


def _broadcast(a: Tensor, b: Tensor) -> tuple[int, ...]:
    return np.broadcast_shapes(a.shape, b.shape)


def _sum_scale(a: Tensor, b: Tensor, scale: float) -> float:
    return max(scale, a.step / MAX_ADD_RATIO, b.step / MAX_ADD_RATIO)


def _row_scales(block: FloatArray) -> npt.NDArray[np.float64]:
    scales: npt.NDArray[np.float64] = np.abs(block).max(axis=1).astype(np.float64) / WEIGHT_LIMIT
    return scales


def _mantissas(weight: Matrix) -> Iterator[bytes]:
    for block in weight.blocks():
        yield quantise_rows(block)[0].tobytes()
