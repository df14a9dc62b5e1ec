"""What a delta holds, and the bytes that it is stored as: SPEC.md, "Delta"."""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import isqrt
from typing import Any

import numpy as np

from edgehmn.core import ffi, lib
from tests.exact import Vector, div_round, follow, mul, sat

FRESH_SHARE = 6554
AVERAGES = ("reward", "uncertainty", "novelty")
SCALARS = ("seed", "learned", "writes", "phase", "written", "checks", "age", "guard_excess", "spread")
FREE, TOKEN_BITS, TAG_BITS = (0, 0, 0), 18, 10


@dataclass
class Average:
    mean: int = 0
    variance: int = 0
    started: int = 0

    def standard_score(self, v: int, rho: int) -> int:
        if not self.started:
            self.mean, self.started = v, 1
        z = div_round(sat(v - self.mean) << 16, isqrt(self.variance << 16) + 1)
        r = 65536 - rho
        self.mean = follow(self.mean, v, r)
        d = sat(v - self.mean)
        self.variance = follow(self.variance, mul(d, d, 16), r)
        return max(-131072, min(131072, z))


@dataclass
class Gains:
    """What each mechanism is worth in the present text."""

    scale: int
    bias: int
    row: Vector
    dense: Vector
    ngram: list[Vector]  # [o][count]
    share: Vector


@dataclass
class State:
    """All of the plastic state. Keys are sets of bits, slots of n-grams (token, tag, count)."""

    seed: int
    dense: list[list[Vector]]  # [adapter][i][j]
    rows: list[list[Vector]]  # [k - 1][slot]
    bias: Vector
    ngrams: list[list[tuple[int, int, int]]]  # [order that is on][slot]
    keys: Vector
    tokens: Vector
    trace: list[Vector]
    slow: list[Vector]
    context: list[Vector]
    topic: list[Vector]
    centre: Vector
    wander: Vector
    gains: Gains
    learned: int = 0
    writes: int = 0
    phase: int = 0
    written: int = 0
    checks: int = 0
    age: int = 0
    guard_excess: int = 0
    spread: int = 0
    reward: Average = field(default_factory=Average)
    uncertainty: Average = field(default_factory=Average)
    novelty: Average = field(default_factory=Average)


def fresh(header: Any, seed: int) -> State:
    """The state of a model that has learned nothing."""
    rule, n, d = header.rule, header.n_dense, header.d_model

    def zeros(rows: int) -> list[Vector]:
        return [[0] * d for _ in range(rows)]

    one = min(65536, rule.gain_max)
    return State(
        seed=seed,
        dense=[zeros(d) for _ in range(n)],
        rows=[zeros(slots) for slots in rule.row_slots],
        bias=[0] * (header.vocab_size if rule.bias_step else 0),
        ngrams=[[FREE] * rule.ngram_slots for order in rule.ngram_order if order],
        keys=[0] * rule.episodes,
        tokens=[0] * rule.episodes,
        trace=zeros(n),
        slow=zeros(n),
        context=zeros(n),
        topic=zeros(2),
        centre=[0] * d,
        wander=[0] * d,
        gains=Gains(one, one, [one, one], [one] * n, [[0] * 16 for _ in range(4)], [FRESH_SHARE] * 16),
    )


# ---- Bytes


def _pack(slot: tuple[int, int, int]) -> int:
    token, tag, count = slot
    return token | tag << TOKEN_BITS | count << TOKEN_BITS + TAG_BITS


def _unpack(word: int) -> tuple[int, int, int]:
    rest, token = divmod(word, 1 << TOKEN_BITS)
    count, tag = divmod(rest, 1 << TAG_BITS)
    return token, tag, count


def _arrays(st: State, d_model: int) -> Iterator[bytes]:
    key_bytes = (d_model + 31) // 32 * 4
    yield np.array(st.dense, np.int8).tobytes()
    yield np.array(st.rows[0] + st.rows[1], np.int8).tobytes()
    yield np.array(st.bias, "<i2").tobytes()
    yield np.array([_pack(slot) for table in st.ngrams for slot in table], "<u4").tobytes()
    yield b"".join(key.to_bytes(key_bytes, "little") for key in st.keys)
    yield np.array(st.tokens, "<u4").tobytes()
    yield np.array([*st.trace, *st.slow, *st.context, *st.topic, st.centre, st.wander], "<i4").tobytes()


def save(header: Any, st: State) -> bytes:
    h = ffi.new("ehmn_delta *")
    h.magic, h.version = lib.EHMN_DELTA_MAGIC, lib.EHMN_DELTA_VERSION
    h.image_id = list(bytes(header.id))
    for name in SCALARS:
        setattr(h, name, getattr(st, name))
    for name in AVERAGES:
        average, out = getattr(st, name), getattr(h, name)
        out.mean, out.variance, out.started = average.mean, average.variance, average.started
    for name in ("scale", "bias", "row", "ngram", "share"):
        setattr(h.gains, name, getattr(st.gains, name))
    h.gains.dense[0 : len(st.gains.dense)] = st.gains.dense
    arrays = b"".join(a + bytes(-len(a) % 4) for a in _arrays(st, header.d_model))
    h.bytes = ffi.sizeof("ehmn_delta") + len(arrays)
    h.crc32 = zlib.crc32(ffi.buffer(h)[16:] + arrays)
    return bytes(ffi.buffer(h)[:]) + arrays


class _Reader:
    """Takes one array after another, each at the next multiple of 4."""

    def __init__(self, data: bytes, at: int) -> None:
        self.data, self.at = data, at

    def take(self, dtype: str, *shape: int) -> Any:
        size = int(np.prod(shape))
        out = np.frombuffer(self.data, dtype, size, self.at).reshape(shape).tolist()
        self.at += -(-size * np.dtype(dtype).itemsize // 4) * 4
        return out


def load(header: Any, delta: bytes) -> State:
    """The state that a sound delta holds."""
    rule, n, d = header.rule, header.n_dense, header.d_model
    h, at = ffi.new("ehmn_delta *"), ffi.sizeof("ehmn_delta")
    ffi.buffer(h)[:] = delta[:at]
    st, read = fresh(header, 0), _Reader(delta, at)
    for name in SCALARS:
        setattr(st, name, int(getattr(h, name)))
    for name in AVERAGES:
        average = getattr(h, name)
        setattr(st, name, Average(average.mean, average.variance, average.started))
    g = h.gains
    st.gains = Gains(g.scale, g.bias, list(g.row), list(g.dense)[:n], [list(x) for x in g.ngram], list(g.share))
    st.dense = read.take("i1", n, d, d)
    rows = read.take("i1", sum(rule.row_slots), d)
    st.rows = [rows[: rule.row_slots[0]], rows[rule.row_slots[0] :]]
    st.bias = read.take("<i2", len(st.bias))
    st.ngrams = [[_unpack(word) for word in table] for table in read.take("<u4", len(st.ngrams), rule.ngram_slots)]
    keys = read.take("<u4", rule.episodes, (d + 31) // 32)
    st.keys = [sum(word << 32 * i for i, word in enumerate(words)) for words in keys]
    st.tokens = read.take("<u4", rule.episodes)
    st.trace, st.slow, st.context = (read.take("<i4", n, d) for _ in range(3))
    st.topic, st.centre, st.wander = read.take("<i4", 2, d), read.take("<i4", d), read.take("<i4", d)
    assert read.at == len(delta)
    return st
