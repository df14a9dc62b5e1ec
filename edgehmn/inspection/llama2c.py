"""llama2.c .bin files, model and tokenizer: neither has a magic, but a size that its numbers must come to."""

import math
import struct

from edgehmn.inspection.facts import Facts
from edgehmn.inspection.source import Source

MAGIC = 0x616B3432  # "ak42"; version 0 has none
MAX_TOKENIZER_BYTES, MAX_TOKEN_BYTES = 1 << 26, 1 << 12
HEADER_BYTES = 256  # of versions 1 and 2
NAMES = ("d_model", "d_hidden", "n_layers", "n_heads", "n_kv_heads", "vocab_size", "n_ctx")


def inspect(source: Source) -> Facts | None:
    """Facts, or None if the size of the file is not that of such a model."""
    if source.size < 28:
        return None
    if source.unsigned(0, 4) != MAGIC:
        sizes = dict(zip(NAMES, struct.unpack("<7i", source.read(0, 28)), strict=True))
        tied = sizes["vocab_size"] > 0
        sizes["vocab_size"] = abs(sizes["vocab_size"])
        if not _possible(sizes):
            return None
        rope = sizes["n_ctx"] * (sizes["d_model"] // sizes["n_heads"])  # cosines and sines, unused since
        return _facts(source, 0, sizes, tied, 28 + 4 * (sum(_parameters(sizes, tied)) + rope), "float32")
    if source.size < HEADER_BYTES:
        return None
    version, *numbers, shared, group = struct.unpack("<i7iBi", source.read(4, 37))
    sizes = dict(zip(NAMES, numbers, strict=True))
    if version not in (1, 2) or not _possible(sizes) or shared > 1:
        return None
    norms, weights = _parameters(sizes, bool(shared))
    if version == 1:
        return _facts(source, 1, sizes, bool(shared), HEADER_BYTES + 4 * (norms + weights), "float32")
    if group < 1:
        return None
    expected = HEADER_BYTES + 4 * norms + weights + weights // group * 4
    return _facts(source, 2, sizes, bool(shared), expected, "int8") if weights % group == 0 else None


def inspect_tokenizer(source: Source) -> Facts | None:
    """Facts of a tokenizer.bin (length of the longest token; for each token its score, its length, its bytes), or None
    if it is none."""
    if not 16 <= source.size <= MAX_TOKENIZER_BYTES:
        return None
    longest, at, n = source.unsigned(0, 4), 4, 0
    if not 1 <= longest <= MAX_TOKEN_BYTES:
        return None
    while at + 8 <= source.size:
        score, length = struct.unpack("<fi", source.read(at, 8))
        if not (math.isfinite(score) and 0 <= length <= longest):
            return None
        at, n = at + 8 + length, n + 1
    return {"kind": "tokenizer", "tokenizer": f"llama2.c, {n:,} tokens"} if at == source.size else None


def _possible(sizes: dict[str, int]) -> bool:
    heads, kv = sizes["n_heads"], sizes["n_kv_heads"]
    in_range = all(1 <= size <= 1 << 20 for size in sizes.values())
    return in_range and sizes["d_model"] % heads == 0 and heads % kv == 0


def _parameters(sizes: dict[str, int], tied: bool) -> tuple[int, int]:
    """Of the norms, and of the matrices."""
    d, hidden, n_layers, heads, kv, vocab, _ = (sizes[name] for name in NAMES)
    d_kv = d // heads * kv
    matrices = n_layers * (2 * d * d + 2 * d * d_kv + 3 * d * hidden) + vocab * d * (1 if tied else 2)
    return (2 * n_layers + 1) * d, matrices


def _facts(source: Source, version: int, sizes: dict[str, int], tied: bool, expected: int, dtype: str) -> Facts | None:
    if source.size != expected:
        return None
    parameters = sum(_parameters(sizes, tied))
    return {
        "kind": "llama2.c",
        "version": version,
        "architecture": "llama",
        "config": sizes | {"tied_head": int(tied)},
        "tokenizer": "in a file of its own",
        "tensors": {"parameters": parameters, "dtype": dtype},
    }
