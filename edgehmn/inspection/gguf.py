"""The head of a GGUF file: key-value pairs, then names, shapes and types of the tensors."""

import struct
from math import prod
from typing import Any

from edgehmn.errors import InvalidFileError
from edgehmn.inspection.facts import Facts, StoredTensor, known, tensor_facts
from edgehmn.inspection.source import Source

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MAX_HEAD_BYTES = 1 << 26  # of everything before the tensors' data
MAX_ENTRIES = 1 << 16  # pairs, or tensors
MAX_NAME_BYTES = 1 << 16
LONGEST_KEPT = 200  # characters of a value that are kept
ARRAY, STRING = 9, 8
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
# Tensor types by number: name, weights in a block, bytes of a block.
TYPES = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 9: ("Q8_1", 32, 40), 10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210), 15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98), 19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82), 23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1), 25: ("I16", 1, 2), 26: ("I32", 1, 4), 27: ("I64", 1, 8), 28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56), 30: ("BF16", 1, 2), 34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66), 39: ("MXFP4", 32, 17),
    40: ("NVFP4", 64, 36), 41: ("Q1_0", 128, 18),
}  # fmt: skip
SIZES = {  # key below the architecture's name -> ours
    "block_count": "n_layers", "embedding_length": "d_model", "feed_forward_length": "d_hidden",
    "attention.head_count": "n_heads", "attention.head_count_kv": "n_kv_heads", "context_length": "n_ctx",
    "rope.freq_base": "rope_theta",
}  # fmt: skip


def read_head(source: Source) -> tuple[int, Facts, list[StoredTensor]]:
    """Version, pairs and tensors. Raises InvalidFileError for a damaged head, or tensors that lie beyond the end."""
    head = _Head(source)
    version = head.integer(4)
    if version not in VERSIONS:
        raise InvalidFileError(f"{source.name}: GGUF version {version}; known are {VERSIONS}")
    n_tensors, n_pairs = head.integer(8), head.integer(8)
    if max(n_tensors, n_pairs) > MAX_ENTRIES:
        raise InvalidFileError(f"{source.name}: says that it has {n_tensors} tensors and {n_pairs} keys; it is damaged")
    pairs: Facts = {}
    for _ in range(n_pairs):
        key = head.string()
        if key in pairs:
            raise InvalidFileError(f"{source.name}: key '{key:.80}' occurs twice")
        pairs[key] = head.value(head.integer(4))
    declared = [_declared(head) for _ in range(n_tensors)]
    return version, pairs, _placed(head, declared, pairs)


def sizes(pairs: Facts) -> Facts:
    """Those of SIZES, by our names; None where the file does not say one."""
    architecture = pairs.get("general.architecture")
    return {ours: pairs.get(f"{architecture}.{key}") for key, ours in SIZES.items()}


def inspect(source: Source) -> Facts:
    """Facts of a GGUF file. Raises InvalidFileError as read_head."""
    version, pairs, tensors = read_head(source)
    names = {tensor.name for tensor in tensors}
    vocabulary = pairs.get("tokenizer.ggml.tokens")
    return known(
        {
            "kind": "gguf",
            "version": version,
            "architecture": pairs.get("general.architecture"),
            "name": pairs.get("general.name"),
            "config": known(sizes(pairs) | {"vocab_size": vocabulary, "tied_head": int("output.weight" not in names)}),
            "tokenizer": pairs.get("tokenizer.ggml.model"),
            "tensors": tensor_facts(tensors),
        }
    )


class _Head:
    """Reads the head from its beginning on."""

    def __init__(self, source: Source) -> None:
        self.source, self.at = source, len(MAGIC)

    def take(self, n: int) -> bytes:
        data = self.source.read(self.at, n)
        self.skip(n)
        return data

    def skip(self, n: int) -> None:
        self.source.require(self.at, n)
        self.at += n
        if self.at > MAX_HEAD_BYTES:
            raise InvalidFileError(f"{self.source.name}: its head has more than {MAX_HEAD_BYTES} bytes; it is damaged")

    def integer(self, n: int) -> int:
        return int.from_bytes(self.take(n), "little")

    def string(self) -> str:
        n = self.integer(8)
        if n > MAX_NAME_BYTES:
            raise InvalidFileError(f"{self.source.name}: a name in it has {n} bytes; it is damaged")
        return self.take(n).decode("utf-8", "replace")

    def value(self, kind: int) -> Any:
        """A scalar, a string (its beginning), or the length of an array."""
        if kind in SCALARS:
            return struct.unpack(f"<{SCALARS[kind]}", self.take(struct.calcsize(f"<{SCALARS[kind]}")))[0]
        if kind == STRING:
            n = self.integer(8)
            self.source.require(self.at, n)
            kept = self.source.read(self.at, min(n, LONGEST_KEPT)).decode("utf-8", "replace")
            self.skip(n)
            return kept
        if kind != ARRAY:
            raise InvalidFileError(f"{self.source.name}: a value of unknown type {kind}; it is damaged")
        inner, n = self.integer(4), self.integer(8)
        if inner in SCALARS:
            self.skip(n * struct.calcsize(f"<{SCALARS[inner]}"))
        elif inner == STRING:
            for _ in range(n):  # each takes 8 bytes at least: the head's limit bounds them
                self.skip(self.integer(8))
        else:
            raise InvalidFileError(f"{self.source.name}: an array of unknown type {inner}; it is damaged")
        return n


def _declared(head: _Head) -> tuple[str, tuple[int, ...], int, int]:
    """Name, shape (rows first), type and offset within the data."""
    name, n = head.string(), head.integer(4)
    if n > 8:
        raise InvalidFileError(f"{head.source.name}: tensor '{name:.80}' has {n} dimensions; it is damaged")
    return name, tuple(head.integer(8) for _ in range(n))[::-1], head.integer(4), head.integer(8)


def _placed(
    head: _Head, declared: list[tuple[str, tuple[int, ...], int, int]], pairs: dict[str, Any]
) -> list[StoredTensor]:
    """The tensors where they lie in the file."""
    alignment = pairs.get("general.alignment", 32)
    if type(alignment) is not int or not 1 <= alignment <= 1 << 16:
        raise InvalidFileError(f"{head.source.name}: general.alignment is {alignment!r:.40}")
    start, out = -(-head.at // alignment) * alignment, []
    for name, shape, number, offset in declared:
        if number not in TYPES:
            raise InvalidFileError(f"{head.source.name}: tensor '{name:.80}' is of unknown type {number}")
        dtype, block, block_bytes = TYPES[number]
        if prod(shape) % block:
            raise InvalidFileError(f"{head.source.name}: tensor '{name:.80}' is not made of whole blocks")
        tensor = StoredTensor(name, dtype, shape, start + offset, prod(shape) // block * block_bytes)
        head.source.require(tensor.offset, tensor.bytes)
        out.append(tensor)
    if len({tensor.name for tensor in out}) != len(out):
        raise InvalidFileError(f"{head.source.name}: the name of a tensor occurs twice")
    return out
