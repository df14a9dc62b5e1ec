"""What a delta holds, array by array, where the core's own layout puts it. SPEC.md, "Delta"."""

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgehmn.core import CoreModel, Image, ffi, lib

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Delta:
    """The parts of a valid delta, as copies. With d = d_model: dense: int8 (n_dense, d, d); rows: int8 (slots, d), of
    both row adapters; bias: int16 (vocab_size,), or none; ngrams: uint32 (orders that are on, slots); keys: uint32
    (episodes, words); tokens: uint32 (episodes,), those that are not written yet left out of both."""

    learned: int
    writes: int
    dense: Array
    rows: Array
    bias: Array
    ngrams: Array
    keys: Array
    tokens: Array
    gains: Array  # int32: scale, bias, row[2], dense[8], ngram[4][16], share[16]

    @classmethod
    def read(cls, image: Image, delta: bytes) -> "Delta":
        """Raises InvalidFileError for what is no delta of this image."""
        CoreModel(image).load(delta)
        h = image.header
        rule = h.rule
        at = lib.ehmn_layout_delta(ffi.cast("const ehmn_image *", image.pointer))
        header = ffi.from_buffer("ehmn_delta *", delta)
        d, rows = int(h.d_model), int(rule.row_slots[0]) + int(rule.row_slots[1])
        orders = sum(order != 0 for order in rule.ngram_order)
        episodes, words = int(rule.episodes), (d + 31) // 32
        written = min(episodes, int(header.written))

        def part(kind: str, start: int, *shape: int) -> Array:
            return np.frombuffer(delta, kind, int(np.prod(shape)), start).reshape(shape).copy()

        return cls(
            learned=int(header.learned),
            writes=int(header.writes),
            dense=part("i1", at.dense, int(h.n_dense), d, d),
            rows=part("i1", at.rows, rows, d),
            bias=part("<i2", at.bias, image.vocab_size if rule.bias_step else 0),
            ngrams=part("<u4", at.ngrams, orders, int(rule.ngram_slots) if orders else 0),
            keys=part("<u4", at.keys, episodes, words)[:written],
            tokens=part("<u4", at.tokens, episodes)[:written],
            gains=part("<i4", ffi.offsetof("ehmn_delta", "gains"), ffi.sizeof("ehmn_gains") // 4),
        )


def sealed(delta: bytearray) -> bytes:
    """The delta with the CRC that belongs to its bytes."""
    header = ffi.from_buffer("ehmn_delta *", delta)
    header.crc32 = zlib.crc32(memoryview(delta)[ffi.offsetof("ehmn_delta", "image_id") :])
    return bytes(delta)
