"""The header of a safetensors file: 8 bytes of length, JSON, then the tensors one after the other."""

from math import prod
from typing import Any

from edgehmn.checkpoint.settings import parse_object
from edgehmn.errors import InvalidFileError
from edgehmn.inspection.facts import Facts, StoredTensor, tensor_facts
from edgehmn.inspection.source import Source

MAX_HEADER_BYTES = 1 << 25
MAX_DIMENSIONS = 16
BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "U16": 16, "I16": 16, "F16": 16, "BF16": 16,
    "U32": 32, "I32": 32, "F32": 32, "U64": 64, "I64": 64, "F64": 64, "C64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip
VECTORS = {"tokens", "hidden", "static", "learning", "delta", "following"}  # of edgehmn/conformance.py


def looks_like(source: Source) -> bool:
    if source.size < 10:
        return False
    length = source.unsigned(0, 8)
    return 2 <= length <= source.size - 8 and source.read(8, 1) == b"{"


def inspect(source: Source) -> Facts:
    """Facts of a safetensors file. Raises InvalidFileError unless its header and its size agree."""
    tensors, metadata = read_header(source)
    names = {tensor.name for tensor in tensors}
    facts: Facts = {"kind": "vectors" if names == VECTORS else "safetensors", "tensors": tensor_facts(tensors)}
    if names == VECTORS:
        [tokens] = (tensor for tensor in tensors if tensor.name == "tokens")
        facts["config"] = {"tokens": tokens.parameters}
    return facts | ({"metadata": metadata} if metadata else {})


def read_header(source: Source) -> tuple[list[StoredTensor], dict[str, str]]:
    """Tensors in the order of their places, and the metadata."""
    length = source.unsigned(0, 8)
    if length > MAX_HEADER_BYTES:
        raise InvalidFileError(f"{source.name}: its header has {length} bytes, more than {MAX_HEADER_BYTES}")
    try:
        header = parse_object(source.read(8, length).decode(), source.name)
        metadata = {str(k): str(v) for k, v in header.pop("__metadata__", {}).items()}
        tensors = [_tensor(name, entry, 8 + length) for name, entry in header.items()]
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise InvalidFileError(f"{source.name}: its safetensors header is damaged ({e!r:.200})") from e
    tensors.sort(key=lambda tensor: (tensor.offset, tensor.bytes))
    at = 8 + length
    for tensor in tensors:
        if tensor.offset != at:
            raise InvalidFileError(f"{source.name}: tensor '{tensor.name:.80}' does not begin where the last one ends")
        at += tensor.bytes
    if at != source.size:
        raise InvalidFileError(f"{source.name}: its tensors end at byte {at}, the file has {source.size}")
    return tensors, metadata


def _tensor(name: str, entry: dict[str, Any], start: int) -> StoredTensor:
    dtype, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
    if dtype not in BITS or len(shape) > MAX_DIMENSIONS:
        raise ValueError(f"tensor {name:.80} has an unknown type")
    if not all(type(n) is int and 0 <= n < 1 << 48 for n in (*shape, begin, end)):
        raise ValueError(f"tensor {name:.80} has an impossible shape")
    if end - begin != (prod(shape) * BITS[dtype] + 7) // 8:
        raise ValueError(f"tensor {name:.80} has not the bytes of its type and shape")
    return StoredTensor(name, dtype, shape, start + begin, end - begin)
