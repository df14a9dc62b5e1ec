"""An ONNX model, node by node, and its bytes, made without a second copy of its weights.

The protobuf library would hold every weight several times: in the message, in its serialisation, and again in the
checker. Here each is written once, into the place in the file where it belongs. Protobuf makes that easy: a message
inside a message is its number, its length and its bytes.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, TensorProto, checker, helper, numpy_helper

from edgehmn.errors import UsageError
from edgehmn.files import MAX_INPUT_BYTES
from edgehmn.runtime.encoder import TensorSpec
from edgehmn.runtime.onnx_file import BYTES, IR_VERSION, OPSET, SEAL_BYTES
from edgehmn.runtime.onnx_shapes import RULES

# Field numbers of protobuf messages.
MODEL_GRAPH, GRAPH_INITIALIZER, TENSOR_RAW_DATA = 7, 5, 9

Fill = Callable[[npt.NDArray[Any]], None]  # writes a weight into the array that it is given


@dataclass(frozen=True)
class _Weight:
    """A large constant, still to be made."""

    shape: tuple[int, ...]
    kind: type[np.generic]
    fill: Fill

    @property
    def n_bytes(self) -> int:
        return prod(self.shape) * np.dtype(self.kind).itemsize


class GraphBuilder:
    """Nodes and constants of one graph. Methods take and return names of tensors.

    scope: goes before the names of nodes and of a layer's `own` constants.
    """

    def __init__(self) -> None:
        self.scope = ""
        self._nodes: list[Any] = []
        self._constants: dict[str, Any] = {}
        self._weights: dict[str, _Weight] = {}

    def node(self, op: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """Append a node; returns the name of its output."""
        return self._append(op, inputs, [output or f"{self.scope}{op}.{len(self._nodes)}"], attributes)[0]

    def nodes(self, op: str, *inputs: str, n_outputs: int, **attributes: Any) -> list[str]:
        """Append a node with several outputs; returns their names."""
        stem = f"{self.scope}{op}.{len(self._nodes)}"
        return self._append(op, inputs, [f"{stem}.{i}" for i in range(n_outputs)], attributes)

    def _append(self, op: str, inputs: tuple[str, ...], outputs: list[str], attributes: dict[str, Any]) -> list[str]:
        assert op in RULES, f"the reader must know {op}"
        name = f"{self.scope}{op}.{len(self._nodes)}"
        self._nodes.append(helper.make_node(op, inputs, outputs, name=name, **attributes))
        return outputs

    def constant(self, name: str, value: npt.ArrayLike, own: bool = False) -> str:
        """A small constant; shared by all layers unless it is the present layer's `own`."""
        name = self.scope + name if own else name
        if name not in self._constants:
            self._constants[name] = numpy_helper.from_array(np.asarray(value, order="C"), name)
        return name

    def scalar(self, value: float) -> str:
        """A float32 constant, named by its value."""
        return self.constant(f"float.{value!r}", np.float32(value))

    def weight(self, name: str, shape: tuple[int, ...], kind: type[np.generic], fill: Fill) -> str:
        """A large constant of the present layer, made by `fill` when the file is written."""
        name = self.scope + name
        self._weights[name] = _Weight(shape, kind, fill)
        return name

    def cast(self, x: str, kind: type[np.generic], output: str | None = None) -> str:
        return self.node("Cast", x, output=output, to=tensor_type(kind))

    def reshape(self, x: str, *shape: int) -> str:
        return self.node("Reshape", x, self.constant("shape." + "x".join(map(str, shape)), np.array(shape, np.int64)))

    def split(self, x: str, sizes: list[int], axis: int) -> list[str]:
        """Parts of these sizes; one part is the whole."""
        return self.nodes("Split", x, n_outputs=len(sizes), split=sizes, axis=axis) if len(sizes) > 1 else [x]

    def serialise(
        self, inputs: dict[str, TensorSpec], outputs: dict[str, TensorSpec], metadata: dict[str, str]
    ) -> bytearray:
        """The whole file, sealed: its last bytes are the SHA-256 of all before them.

        Raises UsageError where it would be larger than a reader takes.
        """
        self._check(inputs, outputs)
        graph = helper.make_graph(self._nodes, "encoder", [], []).SerializeToString(deterministic=True)
        ends = helper.make_graph([], "", _value_infos(inputs), _value_infos(outputs), list(self._constants.values()))
        ends.ClearField("name")
        tail = ends.SerializeToString(deterministic=True)
        headers = {name: _tensor_header(name, weight) for name, weight in self._weights.items()}
        weights_size = sum(len(header) + self._weights[name].n_bytes for name, header in headers.items())
        model = ModelProto(ir_version=IR_VERSION, producer_name="edgehmn").SerializeToString()
        model += _length_delimited(MODEL_GRAPH, len(graph) + weights_size + len(tail)) + graph
        seal = _model_end(metadata)
        size = len(model) + weights_size + len(tail) + len(seal)
        if size > MAX_INPUT_BYTES:
            raise UsageError(
                f"the ONNX file would have {size} bytes, and the limit is {MAX_INPUT_BYTES}: this model is too large "
                "for this format; leave it out"
            )
        out = bytearray(size)
        at = _put(out, 0, model)
        for name, header in headers.items():
            at = _put(out, at, header)
            weight = self._weights[name]
            items = np.frombuffer(out, weight.kind, prod(weight.shape), at)
            weight.fill(items.reshape(weight.shape))
            at += weight.n_bytes
        _put(out, _put(out, at, tail), seal)
        digest = hashlib.sha256(memoryview(out)[:-SEAL_BYTES]).hexdigest()
        out[-SEAL_BYTES:] = digest.encode()
        return out

    def _check(self, inputs: dict[str, TensorSpec], outputs: dict[str, TensorSpec]) -> None:
        """Types and shapes of every node. The weights are inputs here: only their types and shapes matter."""
        weights = {name: (weight.kind, weight.shape) for name, weight in self._weights.items()}
        graph = helper.make_graph(
            self._nodes,
            "encoder",
            _value_infos(inputs | weights),
            _value_infos(outputs),
            list(self._constants.values()),
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
        checker.check_model(model, full_check=True)


def tensor_type(kind: type[np.generic]) -> int:
    """ONNX's number of an element type."""
    out: int = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    return out


def _value_infos(specs: dict[str, TensorSpec]) -> list[Any]:
    return [helper.make_tensor_value_info(name, tensor_type(kind), shape) for name, (kind, shape) in specs.items()]


def _model_end(metadata: dict[str, str]) -> bytes:
    """What comes after the graph: opset and metadata, room for the seal last."""
    end = ModelProto(opset_import=[helper.make_opsetid("", OPSET)])
    helper.set_model_props(end, metadata | {"sha256": "0" * SEAL_BYTES})
    data: bytes = end.SerializeToString(deterministic=True)
    assert data.endswith(b"0" * SEAL_BYTES), "protobuf writes fields in order, the metadata last"
    return data


def _tensor_header(name: str, weight: _Weight) -> bytes:
    """An initialiser of the graph, up to its raw data."""
    tensor = TensorProto(dims=weight.shape, data_type=tensor_type(weight.kind), name=name).SerializeToString()
    raw = _length_delimited(TENSOR_RAW_DATA, weight.n_bytes)
    return _length_delimited(GRAPH_INITIALIZER, len(tensor) + len(raw) + weight.n_bytes) + bytes(tensor) + raw


def _length_delimited(number: int, length: int) -> bytes:
    """Number, wire type and length of a field whose bytes follow."""
    return _varint(number << 3 | BYTES) + _varint(length)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _put(out: bytearray, at: int, data: bytes) -> int:
    out[at : at + len(data)] = data
    return at + len(data)
