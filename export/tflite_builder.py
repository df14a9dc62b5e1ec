"""Authoring of a TFLite file, operator by operator, without TensorFlow.

Importing this module imports ai_edge_litert and flatbuffers. Every operator and version here exists, and is
right, in LiteRT and in tflite-runtime 2.14. One that is not the identity on scales (`add`, `multiply`, ...)
takes float32; one that only moves values keeps the type and scale of its input.
"""

from dataclasses import dataclass
from typing import Any

import flatbuffers
import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema

SCHEMA_VERSION = 3
BUFFER_ALIGNMENT = 16  # kernels read constants where they lie in the file
TENSOR_TYPES: dict[type[np.generic], int] = {
    np.float32: schema.TensorType.FLOAT32,
    np.int8: schema.TensorType.INT8,
    np.int16: schema.TensorType.INT16,
    np.int32: schema.TensorType.INT32,
}


@dataclass(frozen=True)
class Tensor:
    """A tensor of the graph. scale: real value of one step of an integer type, None for a plain number."""

    index: int
    shape: tuple[int, ...]
    kind: type[np.generic]
    scale: float | None


class _Buffer(schema.BufferT):
    """Constant data, aligned: the schema asks for it, the generated Python code forgets it."""

    def Pack(self, builder: Any) -> Any:
        if self.data is not None:
            builder.Prep(BUFFER_ALIGNMENT, len(self.data))
        return super().Pack(builder)


class GraphBuilder:
    """A graph under construction; methods append an operator and return its output."""

    def __init__(self) -> None:
        self._subgraph = schema.SubGraphT()
        self._subgraph.tensors, self._subgraph.operators = [], []
        self._subgraph.inputs, self._subgraph.outputs = [], []
        self._buffers = [_Buffer()]  # buffer 0 is empty by convention: that of every tensor that is no constant
        self._operator_codes: dict[tuple[int, int], Any] = {}

    # --- tensors ---

    def input(self, name: str, kind: type[np.generic], shape: tuple[int, ...], scale: float | None = None) -> Tensor:
        tensor = self._tensor(shape, kind, scale)
        self._subgraph.tensors[tensor.index].name = name
        self._subgraph.inputs.append(tensor.index)
        return tensor

    def output(self, name: str, tensor: Tensor) -> None:
        self._subgraph.tensors[tensor.index].name = name
        self._subgraph.outputs.append(tensor.index)

    def constant(self, value: npt.NDArray[Any], scale: float | None = None) -> Tensor:
        tensor = self._tensor(value.shape, value.dtype.type, scale)
        self._subgraph.tensors[tensor.index].buffer = self._buffer(value.tobytes())
        return tensor

    # --- operators on float32 ---

    def add(self, a: Tensor, b: Tensor) -> Tensor:
        return self._elementwise("ADD", schema.AddOptionsT(), a, b)

    def subtract(self, a: Tensor, b: Tensor) -> Tensor:
        return self._elementwise("SUB", schema.SubOptionsT(), a, b)

    def multiply(self, a: Tensor, b: Tensor) -> Tensor:
        return self._elementwise("MUL", schema.MulOptionsT(), a, b)

    def rsqrt(self, x: Tensor) -> Tensor:
        return self._elementwise("RSQRT", None, x)

    def logistic(self, x: Tensor) -> Tensor:
        return self._elementwise("LOGISTIC", None, x)

    def softmax(self, x: Tensor) -> Tensor:
        options = schema.SoftmaxOptionsT()
        options.beta = 1.0
        return self._elementwise("SOFTMAX", options, x)

    def mean(self, x: Tensor) -> Tensor:
        """Over the last axis, which stays with length 1."""
        options = schema.ReducerOptionsT()
        options.keepDims = True
        axis = self.constant(np.array([len(x.shape) - 1], np.int32))
        return self._operator("MEAN", options, [x, axis], (*x.shape[:-1], 1))

    def batch_matmul(self, a: Tensor, b: Tensor, *, transpose_b: bool = False) -> Tensor:
        """(n, i, j) x (n, j, k), or (n, k, j) with transpose_b -> (n, i, k)."""
        options = schema.BatchMatMulOptionsT()
        options.adjY = transpose_b
        width = b.shape[1 if transpose_b else 2]
        return self._operator("BATCH_MATMUL", options, [a, b], (*a.shape[:2], width))

    def fully_connected(self, x: Tensor, weight: Tensor) -> Tensor:
        """float32 (1, inputs) x int8 (outputs, inputs) -> float32 (1, outputs).

        The kernel quantises x to int8 by its own largest value and sums in integers. The weight must have one
        scale for all rows: tflite-runtime 2.14 takes scales by row here, and ignores all but the first.
        """
        options = schema.FullyConnectedOptionsT()
        return self._operator("FULLY_CONNECTED", options, [x, weight, None], (1, weight.shape[0]), version=3)

    # --- operators that change the type ---

    def quantize(self, x: Tensor, kind: type[np.generic], scale: float) -> Tensor:
        version = 2 if kind is np.int16 else 1
        return self._operator("QUANTIZE", schema.QuantizeOptionsT(), [x], x.shape, kind, scale, version)

    def dequantize(self, x: Tensor) -> Tensor:
        return self._operator("DEQUANTIZE", schema.DequantizeOptionsT(), [x], x.shape, version=2)

    # --- operators that move values ---

    def gather(self, table: Tensor, row: Tensor) -> Tensor:
        """(rows, width), int32 (1,) -> (1, width)."""
        return self._moved("GATHER", schema.GatherOptionsT(), [table, row], (1, table.shape[1]))

    def reshape(self, x: Tensor, *shape: int) -> Tensor:
        options = schema.ReshapeOptionsT()
        options.newShape = list(shape)
        return self._operator("RESHAPE", options, [x, self.constant(np.array(shape, np.int32))], shape, x.kind, x.scale)

    def slice(self, x: Tensor, axis: int, begin: int, size: int) -> Tensor:
        """Entries begin..begin + size - 1 along one axis."""
        begins, shape = [0] * len(x.shape), list(x.shape)
        begins[axis], shape[axis] = begin, size
        bounds = [self.constant(np.array(bound, np.int32)) for bound in (begins, shape)]
        return self._moved("SLICE", schema.SliceOptionsT(), [x, *bounds], tuple(shape))

    def concatenate(self, parts: list[Tensor], axis: int) -> Tensor:
        options = schema.ConcatenationOptionsT()
        options.axis = axis
        shape = list(parts[0].shape)
        shape[axis] = sum(part.shape[axis] for part in parts)
        return self._moved("CONCATENATION", options, parts, tuple(shape))

    # --- the file ---

    def serialise(self, description: str, metadata: dict[str, bytes]) -> bytes:
        """The file; the same calls give the same bytes."""
        model = schema.ModelT()
        model.version, model.description = SCHEMA_VERSION, description
        model.operatorCodes = list(self._operator_codes.values())
        model.subgraphs = [self._subgraph]
        model.metadata = []
        for name, content in metadata.items():
            entry = schema.MetadataT()
            entry.name, entry.buffer = name, self._buffer(content)
            model.metadata.append(entry)
        model.buffers = self._buffers
        builder = flatbuffers.Builder(1 << 20)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    def _tensor(self, shape: tuple[int, ...], kind: type[np.generic], scale: float | None) -> Tensor:
        tensor = schema.TensorT()
        tensor.shape, tensor.type = list(shape), TENSOR_TYPES[kind]
        tensor.name = f"tensor.{len(self._subgraph.tensors)}"
        if scale is not None:
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.scale = np.array([scale], np.float32)
            tensor.quantization.zeroPoint = np.zeros(1, np.int64)
        self._subgraph.tensors.append(tensor)
        return Tensor(len(self._subgraph.tensors) - 1, tuple(shape), kind, scale)

    def _buffer(self, content: bytes) -> int:
        buffer = _Buffer()
        buffer.data = np.frombuffer(content, np.uint8)
        self._buffers.append(buffer)
        return len(self._buffers) - 1

    def _elementwise(self, name: str, options: Any, *inputs: Tensor) -> Tensor:
        shape = np.broadcast_shapes(*(x.shape for x in inputs))
        return self._operator(name, options, list(inputs), shape)

    def _moved(self, name: str, options: Any, inputs: list[Tensor], shape: tuple[int, ...]) -> Tensor:
        kind = inputs[0].kind
        version = 2 if kind is np.int8 else 1
        return self._operator(name, options, inputs, shape, kind, inputs[0].scale, version)

    def _operator(
        self,
        name: str,
        options: Any,
        inputs: list[Tensor | None] | list[Tensor],
        shape: tuple[int, ...],
        kind: type[np.generic] = np.float32,
        scale: float | None = None,
        version: int = 1,
    ) -> Tensor:
        """Append an operator; None stands for an optional input that is absent."""
        operator = schema.OperatorT()
        operator.opcodeIndex = self._operator_code(getattr(schema.BuiltinOperator, name), version)
        operator.inputs = [-1 if x is None else x.index for x in inputs]
        if options is not None:
            operator.builtinOptions = options
            kind_of_options = type(options).__name__.removesuffix("T")
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, kind_of_options)
        output = self._tensor(shape, kind, scale)
        operator.outputs = [output.index]
        self._subgraph.operators.append(operator)
        return output

    def _operator_code(self, builtin: int, version: int) -> int:
        """Index of the (operator, version) pair in the model's table."""
        if (builtin, version) not in self._operator_codes:
            code = schema.OperatorCodeT()
            code.builtinCode, code.version = builtin, version
            code.deprecatedBuiltinCode = min(builtin, 127)  # where readers before 2020 look
            self._operator_codes[builtin, version] = code
        return list(self._operator_codes).index((builtin, version))
