"""The workload of a TFLite file, from its first graph."""

from collections.abc import Sequence
from math import prod

from edgehmn.errors import InvalidFileError
from edgehmn.inspection.source import Source
from edgehmn.inspection.tflite import MAX_ENTRIES, MODEL, SUBGRAPH, TENSOR, _Reader
from edgehmn.workload import Operation, Workload, checked_macs

# Operators by their number in TFLite's schema; the others are taken element by element.
CONV_2D, DEPTHWISE_CONV_2D, FULLY_CONNECTED, BATCH_MATMUL = 3, 4, 9, 126
FREE = {22: "RESHAPE", 43: "SQUEEZE", 70: "EXPAND_DIMS", 77: "SHAPE"}  # move no element, or are folded away
NAMES = {
    0: "ADD", 1: "AVERAGE_POOL_2D", 2: "CONCATENATION", 6: "DEQUANTIZE", 14: "LOGISTIC", 17: "MAX_POOL_2D", 18: "MUL",
    19: "RELU", 25: "SOFTMAX", 28: "TANH", 34: "PAD", 36: "GATHER", 39: "TRANSPOSE", 40: "MEAN", 41: "SUB",
    45: "STRIDED_SLICE", 76: "RSQRT", 114: "QUANTIZE", 129: "CALL_ONCE", 142: "VAR_HANDLE", 143: "READ_VARIABLE",
    144: "ASSIGN_VARIABLE",
}  # fmt: skip
NAMES |= FREE | {3: "CONV_2D", 4: "DEPTHWISE_CONV_2D", 9: "FULLY_CONNECTED", 126: "BATCH_MATMUL"}
INPUTS, OUTPUTS = 1, 2  # fields of an operator


def tflite_workload(source: Source, name: str) -> Workload:
    """Raises InvalidFileError."""
    reader = _Reader(source)
    root = reader.root()
    codes = [
        max(reader.scalar(code, 0, 1), reader.scalar(code, 3, 4))
        for code in reader.tables(root, MODEL["operator_codes"])
    ]
    graphs = list(reader.tables(root, MODEL["subgraphs"]))
    if not graphs:
        raise InvalidFileError(f"{source.name}: a TFLite file without a graph; it is damaged")
    tensors = _Tensors(reader, root, graphs[0])
    operations, lifetimes = [], _Lifetimes(tensors)
    for place, operator in enumerate(reader.tables(graphs[0], SUBGRAPH["operators"])):
        index = reader.scalar(operator, 0, 4)
        if index >= len(codes):
            raise InvalidFileError(f"{source.name}: an operator without a code; it is damaged")
        inputs, outputs = (tensors.of(operator, field) for field in (INPUTS, OUTPUTS))
        operations.append(_operation(codes[index], place, inputs, outputs, tensors))
        lifetimes.use(place, [*inputs, *outputs])
    return Workload(name, "inference", tuple(operations), source.size, lifetimes.peak())


def _operation(code: int, place: int, inputs: Sequence[int], outputs: Sequence[int], tensors: "_Tensors") -> Operation:
    shapes = [tensors.shapes[i] for i in inputs]
    out = tensors.shapes[outputs[0]] if outputs else ()
    weights = sum(tensors.constant[i] for i in inputs)
    moved = sum(tensors.sizes[i] for i in (*inputs, *outputs) if not tensors.constant[i])
    kind, macs = _cost(code, shapes, out)
    label = f"{place} {NAMES.get(code, f'builtin {code}')}"
    return Operation(label, kind, checked_macs(macs, tensors.reader.source.name), weights, moved)


def _cost(code: int, shapes: list[tuple[int, ...]], out: tuple[int, ...]) -> tuple[str, int]:
    """Class and multiply-accumulates. A filter is (out, height, width, in), of a depthwise one (1, height, width,
    channels)."""
    weight = shapes[1] if len(shapes) > 1 else ()
    if code == CONV_2D and len(weight) == 4:
        kind = "pointwise" if weight[1:3] == (1, 1) else "conv"
        return kind, prod(out) * prod(weight[1:])
    if code == DEPTHWISE_CONV_2D and len(weight) == 4:
        return "depthwise", prod(out) * prod(weight[1:3])
    if code == FULLY_CONNECTED and weight:
        return "fc", prod(out) * weight[-1]
    if code == BATCH_MATMUL and shapes and shapes[0]:
        return "attention", prod(out) * shapes[0][-1]
    return "other", 0 if code in FREE else prod(out)


class _Tensors:
    """Of the tensors of a graph: shapes, bytes, and bytes of those that are constants."""

    def __init__(self, reader: _Reader, root: int, graph: int) -> None:
        self.reader = reader
        buffers = [reader.vector(table, 0, 1)[1] for table in reader.tables(root, MODEL["buffers"])]
        self.shapes: list[tuple[int, ...]] = []
        self.sizes: list[int] = []
        self.constant: list[int] = []
        for table in reader.tables(graph, SUBGRAPH["tensors"]):
            index = reader.scalar(table, TENSOR["buffer"], 4)
            if index >= len(buffers):
                raise InvalidFileError(f"{reader.source.name}: a tensor without a buffer; it is damaged")
            shape = tuple(1 if n >= 1 << 31 else n for n in reader.shape(table))  # -1: not fixed
            self.shapes.append(shape)
            self.sizes.append((prod(shape) * reader.type_of(table)[1] + 7) // 8)
            self.constant.append(buffers[index])

    def of(self, operator: int, field: int) -> list[int]:
        """The tensors of an operator; those that it leaves out (-1) are passed over."""
        at, n = self.reader.vector(operator, field, 4)
        if n > MAX_ENTRIES:
            raise InvalidFileError(f"{self.reader.source.name}: an operator of {n} tensors; it is damaged")
        found = [self.reader.source.unsigned(at + 4 * i, 4) for i in range(n)]
        found = [i for i in found if i != 0xFFFFFFFF]
        if any(i >= len(self.shapes) for i in found):
            raise InvalidFileError(f"{self.reader.source.name}: an operator uses no tensor; it is damaged")
        return found


class _Lifetimes:
    """The most bytes of activations that are alive at once: the least that an arena can be."""

    def __init__(self, tensors: _Tensors) -> None:
        self.tensors, self.spans = tensors, dict[int, list[int]]()

    def use(self, place: int, indices: list[int]) -> None:
        for i in indices:
            if not self.tensors.constant[i]:
                self.spans.setdefault(i, [place, place])[1] = place

    def peak(self) -> int:
        changes: dict[int, int] = {}
        for i, (first, last) in self.spans.items():
            changes[first] = changes.get(first, 0) + self.tensors.sizes[i]
            changes[last + 1] = changes.get(last + 1, 0) - self.tensors.sizes[i]
        alive = peak = 0
        for place in sorted(changes):
            alive += changes[place]
            peak = max(peak, alive)
        return peak
