"""What an exported ONNX file may hold, checked before onnxruntime sees a byte of it.

ONNX can name other files, carry functions and subgraphs, and call operators of anyone. What edgehmn writes does
none of that, so the reader knows every field that may occur, and refuses the rest: external data above all.
"""

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from edgehmn.errors import UnsupportedError

FORMAT = "edgehmn-encoder-2"  # value of the metadata entry "format"; a change of the interface changes it
OPSET, IR_VERSION = 11, 6  # the lowest that have DynamicQuantizeLinear
SEAL_BYTES = 64  # the file ends in the SHA-256, in hexadecimal, of all bytes before it
ITEM_BYTES = {1: 4, 2: 1, 3: 1, 5: 2, 6: 4, 7: 8}  # by TensorProto.DataType: float, uint8, int8, int16, int32, int64
INT64 = 7
MAX_SHAPE_BYTES = 64  # of an int64 constant that may be a shape
MAX_RANK = 8
MAX_NAMES = 1 << 17  # nodes or constants of a graph; with 1,024 layers it has two thirds of that
MAX_TEXT_BYTES = 1 << 16  # of a node or of a metadata entry
# Fields of the messages by number: the message that it holds, or its wire type.
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
MESSAGES: dict[str, dict[int, str | int]] = {
    "model": {1: VARINT, 2: BYTES, 7: "graph", 8: "opset", 14: "metadata"},
    "graph": {1: "node", 2: BYTES, 5: "tensor", 11: BYTES, 12: BYTES},
    "node": {1: BYTES, 2: BYTES, 3: BYTES, 4: BYTES, 5: "attribute"},
    "attribute": {1: BYTES, 2: FIXED32, 3: VARINT, 8: VARINT, 20: VARINT},
    "tensor": {1: VARINT, 2: VARINT, 8: BYTES, 9: BYTES},
    "opset": {1: BYTES, 2: VARINT},
    "metadata": {1: BYTES, 2: BYTES},
}


@dataclass(frozen=True)
class Node:
    """An operator of the graph. integers: its attributes, those that hold integers, as lists."""

    op: str
    name: str
    inputs: list[str]
    outputs: list[str]
    integers: dict[str, list[int]]

    def axis(self, rank: int) -> int:
        """The axis that it works on, counted from the first; ValueError where a tensor of that rank has none such."""
        axis = self.integers.get("axis", [0])[0]
        if not -rank <= axis < rank:
            raise ValueError(f"its node '{self.name:.60}' works on axis {axis} of {rank}")
        return axis % rank


@dataclass(frozen=True)
class Contents:
    """interface: what the metadata say. shapes: of all constants. integers: the values of those of a few int64."""

    interface: dict[str, Any]
    nodes: list[Node]
    shapes: dict[str, tuple[int, ...]]
    integers: dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class _Field:
    number: int
    value: Any  # int, or the bytes


def read_contents(data: bytes) -> Contents:
    """Check and take apart a whole file.

    Raises ValueError for anything that edgehmn does not write, and UnsupportedError for another version of ONNX.
    """
    metadata: dict[str, str] = {}
    contents = Contents({}, [], {}, {})
    version = opset = 0
    for field in _fields(memoryview(data), "model"):
        if field.number == 1:
            version = field.value
        elif field.number == 7:
            _read_graph(field.value, contents)
        elif field.number == 8:
            opset = {f.number: f.value for f in _fields(field.value, "opset")}.get(2, 0)
        elif field.number == 14:
            entry = {f.number: _text(f) for f in _fields(_short(field.value), "metadata")}
            metadata[entry.get(1, "")] = entry.get(2, "")
    if (version, opset) != (IR_VERSION, OPSET):
        raise UnsupportedError(
            f"it is of IR version {version} and opset {opset}, this edgehmn reads {IR_VERSION} and {OPSET}"
        )
    if metadata.get("format") != FORMAT:
        raise ValueError(f"its metadata does not say '{FORMAT}'")
    contents.interface.update(_read_interface(metadata.get("interface", "")))
    return contents


def _read_interface(text: str) -> dict[str, Any]:
    try:
        interface = json.loads(text)
    except RecursionError as e:
        raise ValueError("its metadata is nested too deeply") from e
    if not isinstance(interface, dict):
        raise ValueError("its metadata describes no encoder")
    return interface


def _read_graph(data: memoryview, contents: Contents) -> None:
    for field in _fields(data, "graph"):
        if field.number == 1:
            contents.nodes.append(_read_node(_short(field.value)))
        elif field.number == 5:
            _read_tensor(field.value, contents)
        if max(len(contents.nodes), len(contents.shapes)) > MAX_NAMES:
            raise ValueError(f"it has more than {MAX_NAMES} nodes or constants")


def _read_node(data: memoryview) -> Node:
    node = Node("", "", [], [], {})
    texts = {3: "", 4: ""}
    for field in _fields(data, "node"):
        if field.number == 5:
            name, values = _read_attribute(field.value)
            node.integers[name] = values
        elif field.number in texts:
            texts[field.number] = _text(field)
        else:
            (node.inputs if field.number == 1 else node.outputs).append(_text(field))
    return replace(node, name=texts[3], op=texts[4])


def _read_attribute(data: memoryview) -> tuple[str, list[int]]:
    name, values = "", []
    for field in _fields(data, "attribute"):
        if field.number == 1:
            name = _text(field)
        elif field.number in (3, 8):  # one integer, or one of several; negative ones are of 64 bits
            values.append(field.value - (1 << 64) if field.value >> 63 else field.value)
    return name, values


def _read_tensor(data: memoryview, contents: Contents) -> None:
    dims, kind, name, raw = [], 0, "", memoryview(b"")
    for field in _fields(data, "tensor"):
        if field.number == 1:
            dims.append(field.value)
            if len(dims) > MAX_RANK:
                raise ValueError(f"a tensor has more than {MAX_RANK} dimensions")
        elif field.number == 2:
            kind = field.value
        elif field.number == 8:
            name = _text(field)
        else:
            raw = field.value
    if kind not in ITEM_BYTES or prod(dims) * ITEM_BYTES[kind] != len(raw):
        raise ValueError(f"the bytes of its tensor '{name:.60}' are not what its type and shape say")
    contents.shapes[name] = tuple(dims)
    if kind == INT64 and len(raw) <= MAX_SHAPE_BYTES:
        contents.integers[name] = struct.unpack(f"<{len(raw) // 8}q", raw)


def _short(data: memoryview) -> memoryview:
    """The bytes of a message that becomes Python objects, and would fill the memory if it were large."""
    if len(data) > MAX_TEXT_BYTES:
        raise ValueError(f"a node or an entry of its metadata has more than {MAX_TEXT_BYTES} bytes")
    return data


def _text(field: _Field) -> str:
    return bytes(field.value).decode()


def _fields(data: memoryview, message: str) -> Iterator[_Field]:
    """The fields of a message, none of them unknown."""
    known, at = MESSAGES[message], 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        expected = known.get(number)
        if expected is None:
            raise ValueError(f"field {number} of its {message} is none that edgehmn writes")
        if wire != (BYTES if isinstance(expected, str) else expected):
            raise ValueError(f"field {number} of its {message} is of a wrong type")
        if wire == VARINT:
            value, at = _varint(data, at)
            yield _Field(number, value)
            continue
        size = 4
        if wire == BYTES:
            size, at = _varint(data, at)
        if size > len(data) - at:
            raise ValueError(f"field {number} of its {message} is cut off")
        yield _Field(number, data[at : at + size])
        at += size


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """The number at a place of the data, and the place after it."""
    value = 0
    for i in range(10):
        if at + i >= len(data):
            break
        byte = data[at + i]
        value |= (byte & 0x7F) << 7 * i
        if byte < 0x80:
            return value, at + i + 1
    raise ValueError("a number is cut off")
