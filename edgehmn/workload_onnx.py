"""The workload of an ONNX file. Shapes come from the library's shape inference; nothing is executed."""

from math import prod
from pathlib import Path
from typing import Any

from edgehmn.errors import DependencyError, InvalidFileError
from edgehmn.files import MAX_INPUT_BYTES
from edgehmn.workload import Operation, Workload, checked_macs

BITS = {1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64, 16: 16, 21: 4, 22: 4}
PRODUCTS = ("MatMul", "Gemm", "MatMulInteger", "QLinearMatMul")
CONVOLUTIONS = ("Conv", "ConvInteger", "QLinearConv", "FusedConv")
WEIGHT = {"QLinearConv": 3, "QLinearMatMul": 3}  # place of the weights among the inputs, where it is not 1
FREE = ("Constant", "Identity", "Reshape", "Squeeze", "Unsqueeze", "Shape", "Flatten", "Cast")


def onnx_workload(path: Path) -> Workload:
    """Raises InvalidFileError for a damaged file, DependencyError without the library."""
    try:
        import onnx
    except ImportError as e:
        raise DependencyError("onnx is missing, which reads this file: pip install 'edgehmn[onnx]'") from e
    size = path.stat().st_size
    if size > MAX_INPUT_BYTES:
        raise InvalidFileError(f"{path}: larger than {MAX_INPUT_BYTES} bytes")
    try:
        model = onnx.load(path, load_external_data=False)
        model = onnx.shape_inference.infer_shapes(model)
    except Exception as e:  # the library raises what protobuf and its own C++ raise
        raise InvalidFileError(f"{path}: not a sound ONNX file ({str(e)[:120]})") from e
    graph = _Graph(model.graph)
    operations = [_operation(i, node, graph, str(path)) for i, node in enumerate(model.graph.node)]
    return Workload(path.name, "inference", tuple(operations), size, graph.peak(model.graph.node))


class _Graph:
    """Shapes and bits of the tensors; a size that is not fixed counts as 1."""

    def __init__(self, graph: Any) -> None:
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.bits: dict[str, int] = {}
        self.constants: set[str] = set()
        for value in (*graph.input, *graph.output, *graph.value_info):
            kind = value.type.tensor_type
            self.shapes[value.name] = tuple(max(1, d.dim_value) for d in kind.shape.dim)
            self.bits[value.name] = BITS.get(kind.elem_type, 32)
        for tensor in graph.initializer:
            self.shapes[tensor.name] = tuple(tensor.dims)
            self.bits[tensor.name] = BITS.get(tensor.data_type, 32)
            self.constants.add(tensor.name)
        # A constant that is only changed in form, such as dequantised, is still one.
        for node in graph.node:
            inputs = [i for i in node.input if i]
            if node.op_type == "Constant" or (
                node.op_type in ("DequantizeLinear", "Transpose", "Cast") and inputs and inputs[0] in self.constants
            ):
                self.constants.update(node.output)
                if inputs:
                    self.shapes.setdefault(node.output[0], self.shapes[inputs[0]])
                    self.bits[node.output[0]] = self.bits[inputs[0]]

    def bytes(self, name: str) -> int:
        return (prod(self.shapes.get(name, (0,))) * self.bits.get(name, 32) + 7) // 8

    def peak(self, nodes: Any) -> int:
        """The most bytes of activations that are alive at once."""
        last: dict[str, int] = {name: i for i, node in enumerate(nodes) for name in (*node.input, *node.output)}
        alive: dict[str, int] = {}
        most = 0
        for i, node in enumerate(nodes):
            alive |= {n: self.bytes(n) for n in (*node.input, *node.output) if n and n not in self.constants}
            most = max(most, sum(alive.values()))
            for name in [n for n in {*node.input, *node.output} if last.get(n) == i]:
                alive.pop(name, None)
        return most


def _operation(place: int, node: Any, graph: _Graph, file: str) -> Operation:
    inputs, outputs = ([n for n in names if n] for names in (node.input, node.output))
    weights = sum(graph.bytes(n) for n in inputs if n in graph.constants)
    moved = sum(graph.bytes(n) for n in (*inputs, *outputs) if n not in graph.constants)
    kind, macs = _cost(node, graph)
    if kind == "other" and outputs and outputs[0] in graph.constants:
        macs, weights, moved = 0, 0, 0  # of a constant: its bytes are counted where it is used
    return Operation(f"{place} {node.op_type}", kind, checked_macs(macs, file), weights, moved)


def _cost(node: Any, graph: _Graph) -> tuple[str, int]:
    out = graph.shapes.get(node.output[0], ()) if node.output else ()
    at = WEIGHT.get(node.op_type, 1)
    name = node.input[at] if len(node.input) > at else ""
    weight = graph.shapes.get(name, ())
    if node.op_type in CONVOLUTIONS and len(weight) >= 3:
        window = prod(weight[2:])
        if weight[1] == 1 and len(out) > 1 and out[1] > 1 and _groups(node) > 1:
            return "depthwise", prod(out) * window
        return ("pointwise" if window == 1 else "conv"), prod(out) * weight[1] * window
    if node.op_type in PRODUCTS and len(weight) >= 1:
        depth = weight[-2] if len(weight) > 1 else weight[0]
        if node.op_type == "Gemm" and any(a.name == "transB" and a.i for a in node.attribute):
            depth = weight[-1]
        return ("fc" if name in graph.constants else "attention"), prod(out) * depth
    return "other", 0 if node.op_type in FREE else prod(out) if out else 0


def _groups(node: Any) -> int:
    return next((int(a.i) for a in node.attribute if a.name == "group"), 1)
