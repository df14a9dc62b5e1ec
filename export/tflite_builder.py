"""Authoring of a TFLite file, operator by operator, without TensorFlow.

Importing this module imports ai_edge_litert and flatbuffers. The operators and versions in OPERATOR_VERSIONS exist, and
are right, in LiteRT, in tflite-runtime 2.14 and in TFLM's interpreter.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import flatbuffers
import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema

SCHEMA_VERSION = 3
BUFFER_ALIGNMENT = 16  # kernels read constants where they lie in the file
# Room for all that is no constant, at least what is needed: a file that does not fit is copied into one twice as large.
GRAPH_BYTES, TENSOR_BYTES, SCALE_BYTES = 1 << 16, 512, 12
TENSOR_TYPES: dict[type[np.generic], int] = {
    np.float32: schema.TensorType.FLOAT32,
    np.int8: schema.TensorType.INT8,
    np.int16: schema.TensorType.INT16,
    np.int32: schema.TensorType.INT32,
    np.int64: schema.TensorType.INT64,
}
# A version of each operator that takes the type of its first input, in every one of these interpreters.
OPERATOR_VERSIONS: dict[tuple[str, type[np.generic]], int] = {
    ("ADD", np.float32): 1,
    ("ADD", np.int16): 5,
    ("SUB", np.int16): 5,
    ("MUL", np.int16): 4,
    ("MEAN", np.int16): 3,
    ("RSQRT", np.float32): 1,
    ("LOGISTIC", np.int16): 3,
    ("SOFTMAX", np.float32): 1,
    ("SOFTMAX", np.int16): 3,
    ("BATCH_MATMUL", np.int16): 4,
    ("FULLY_CONNECTED", np.int16): 4,
    ("QUANTIZE", np.float32): 2,
    ("QUANTIZE", np.int16): 2,
    ("DEQUANTIZE", np.int16): 3,
    ("GATHER", np.float32): 1,
    ("GATHER", np.int8): 2,
    ("RESHAPE", np.int8): 1,
    ("RESHAPE", np.int16): 1,
    ("SLICE", np.int16): 4,
    ("CONCATENATION", np.int16): 3,
}

Scale = float | npt.NDArray[np.float64] | None
Content = Callable[[], Iterable[bytes]]  # of a constant, in pieces


@dataclass(frozen=True)
class Tensor:
    """A tensor of the graph. scale: real value of one step of an integer type, an array with one for each row of a
    weight, None for a plain number."""

    index: int
    shape: tuple[int, ...]
    kind: type[np.generic]
    scale: Scale

    @property
    def step(self) -> float:
        """The one scale of an activation."""
        assert isinstance(self.scale, float)
        return self.scale


class _Buffer(schema.BufferT):
    """Constant data, aligned: the schema asks for it, the generated Python code forgets it. It is made piece by piece,
    where it belongs, when the file is written: a large model is never in memory twice."""

    def __init__(self, size: int = 0, content: Content | None = None) -> None:
        super().__init__()
        self.size, self.content = size, content

    def Pack(self, builder: Any) -> Any:
        if self.content is None:
            return super().Pack(builder)
        builder.Prep(BUFFER_ALIGNMENT, self.size)
        builder.StartVector(1, self.size, 1)
        builder.head = place = builder.head - self.size
        for piece in self.content():
            builder.Bytes[place : place + len(piece)] = piece
            place += len(piece)
        assert place == builder.head + self.size, "a constant has as many bytes as its shape says"
        data = builder.EndVector()
        schema.BufferStart(builder)
        schema.BufferAddData(builder, data)
        return schema.BufferEnd(builder)


class GraphBuilder:
    """A graph under construction."""

    def __init__(self) -> None:
        self._subgraph = schema.SubGraphT()
        self._subgraph.tensors, self._subgraph.operators = [], []
        self._subgraph.inputs, self._subgraph.outputs = [], []
        self._buffers = [_Buffer()]  # buffer 0 is empty by convention: that of every tensor that is no constant
        self._operator_codes: dict[tuple[int, int], Any] = {}
        self._n_scales = 0

    def input(self, name: str, kind: type[np.generic], shape: tuple[int, ...], scale: Scale = None) -> Tensor:
        tensor = self._tensor(shape, kind, scale)
        self._subgraph.tensors[tensor.index].name = name
        self._subgraph.inputs.append(tensor.index)
        return tensor

    def output(self, name: str, tensor: Tensor) -> None:
        self._subgraph.tensors[tensor.index].name = name
        self._subgraph.outputs.append(tensor.index)

    def constant(self, value: npt.NDArray[Any], scale: Scale = None) -> Tensor:
        return self.constant_later(value.shape, value.dtype.type, scale, lambda: [value.tobytes()])

    def constant_later(self, shape: tuple[int, ...], kind: type[np.generic], scale: Scale, content: Content) -> Tensor:
        """A constant whose bytes are asked for when the file is written."""
        tensor = self._tensor(shape, kind, scale)
        size = int(np.prod(shape, dtype=np.int64)) * np.dtype(kind).itemsize
        self._subgraph.tensors[tensor.index].buffer = self._buffer(size, content)
        return tensor

    def operator(
        self,
        name: str,
        inputs: list[Tensor],
        shape: tuple[int, ...],
        kind: type[np.generic],
        scale: Scale = None,
        options: Any = None,
    ) -> Tensor:
        """Append an operator; returns its output. Its version follows from the type of its first input."""
        operator = schema.OperatorT()
        version = OPERATOR_VERSIONS[name, inputs[0].kind]
        operator.opcodeIndex = self._operator_code(getattr(schema.BuiltinOperator, name), version)
        operator.inputs = [x.index for x in inputs]
        if options is not None:
            operator.builtinOptions = options
            kind_of_options = type(options).__name__.removesuffix("T")
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, kind_of_options)
        output = self._tensor(shape, kind, scale)
        operator.outputs = [output.index]
        self._subgraph.operators.append(operator)
        return output

    @property
    def file_bytes(self) -> int:
        """Of the file, at most."""
        constants = sum(b.size + BUFFER_ALIGNMENT for b in self._buffers)
        tensors = len(self._subgraph.tensors) * TENSOR_BYTES + self._n_scales * SCALE_BYTES
        return GRAPH_BYTES + constants + tensors

    def serialise(self, description: str, metadata: dict[str, bytes]) -> bytearray:
        """The file; the same calls give the same bytes."""
        model = schema.ModelT()
        model.version, model.description = SCHEMA_VERSION, description
        model.operatorCodes = list(self._operator_codes.values())
        model.subgraphs = [self._subgraph]
        model.metadata = []
        for name, content in metadata.items():
            entry = schema.MetadataT()
            entry.name = name
            entry.buffer = self._whole_buffer(content)
            model.metadata.append(entry)
        model.buffers = self._buffers
        builder = flatbuffers.Builder(self.file_bytes)  # large enough, so that it never grows by copying
        builder.Finish(model.Pack(builder), b"TFL3")
        file: bytearray = builder.Bytes
        del file[: builder.head]
        return file

    def _tensor(self, shape: tuple[int, ...], kind: type[np.generic], scale: Scale) -> Tensor:
        tensor = schema.TensorT()
        tensor.shape, tensor.type = list(shape), TENSOR_TYPES[kind]
        tensor.name = f"tensor.{len(self._subgraph.tensors)}"
        if scale is not None:
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.scale = np.atleast_1d(scale).astype(np.float32)
            tensor.quantization.zeroPoint = np.zeros(np.size(scale), np.int64)
            self._n_scales += np.size(scale)
        self._subgraph.tensors.append(tensor)
        return Tensor(len(self._subgraph.tensors) - 1, tuple(shape), kind, scale)

    def _whole_buffer(self, content: bytes) -> int:
        return self._buffer(len(content), lambda: [content])

    def _buffer(self, size: int, content: Content) -> int:
        self._buffers.append(_Buffer(size, content))
        return len(self._buffers) - 1

    def _operator_code(self, builtin: int, version: int) -> int:
        """Index of the (operator, version) pair in the model's table."""
        if (builtin, version) not in self._operator_codes:
            code = schema.OperatorCodeT()
            code.builtinCode, code.version = builtin, version
            code.deprecatedBuiltinCode = min(builtin, 127)  # where readers before 2020 look
            self._operator_codes[builtin, version] = code
        return list(self._operator_codes).index((builtin, version))
