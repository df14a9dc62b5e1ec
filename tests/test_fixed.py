"""The core's fixed-point functions against the exact oracle, and both against real mathematics."""

import math
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgehmn.core import ffi, lib
from tests import exact

ROOT = Path(__file__).parent.parent
INT32_MAX = 2**31 - 1
EDGES_32 = sorted(
    {s * (2**k + o) for k in range(32) for o in (-1, 0, 1) for s in (-1, 1)} - {2**31, 2**31 + 1, -(2**31) - 1}
)
thorough = settings(max_examples=120, deadline=None, database=None)
int32 = st.one_of(st.sampled_from(EDGES_32), st.integers(-(2**31), INT32_MAX))
int62 = st.one_of(st.builds(lambda k, o: o + 2**k, st.integers(0, 61), st.integers(-2, 2)), st.integers(0, 2**62))
# Vectors whose magnitudes differ as those of activations do: many small values beside few large ones.
vectors = st.integers(0, 31).flatmap(
    lambda bits: st.lists(st.one_of(st.integers(-(2**bits), min(2**bits, INT32_MAX)), int32), min_size=1, max_size=40)
)


def test_the_sample_of_extremes_has_the_extremes() -> None:
    assert EDGES_32[0] == -(2**31) and EDGES_32[-1] == INT32_MAX and {0, 1, -1} <= set(EDGES_32)


def test_round_shift_at_every_shift() -> None:
    for shift in (*range(-66, 70), 1000, -1000):
        values = {*EDGES_32, 2**62, 2**62 - 1, 2**31 - 1, 2**31, 2**32, 3, 5, 7}
        if 0 < shift < 62:
            half = 1 << (shift - 1)
            values |= {half - 1, half, half + 1, 3 * half, 3 * half - 1}
        for v in sorted(values | {-v for v in values}):
            assert lib.ehmn_round_shift(v, shift) == exact.round_shift(v, shift), (v, shift)


def test_halves_go_up() -> None:
    assert [lib.ehmn_round_shift(v, 1) for v in (-3, -1, 1, 3)] == [-1, 0, 1, 2]
    assert [lib.ehmn_round_shift(v, 2) for v in (-6, -2, 2, 6)] == [-1, 0, 1, 2]


@thorough
@given(v=int62, negative=st.booleans(), shift=st.integers(-40, 70))
def test_round_shift(v: int, negative: bool, shift: int) -> None:
    v = -v if negative else v
    assert lib.ehmn_round_shift(v, shift) == exact.round_shift(v, shift)


@thorough
@given(a=int32, b=int32, shift=st.integers(-40, 70))
def test_mul(a: int, b: int, shift: int) -> None:
    assert lib.ehmn_mul(a, b, shift) == exact.mul(a, b, shift)


@thorough
@given(a=int62, negative=st.booleans(), b=st.integers(1, 2**40))
def test_div_round(a: int, negative: bool, b: int) -> None:
    a = -a if negative else a
    assert lib.ehmn_div_round(a, b) == exact.div_round(a, b)


def test_exp2_neg_everywhere() -> None:
    for x in [*range(7001), 2**16, 2**31, 2**32 - 1, 2**32 - 255, 2**32 - 256]:
        y = lib.ehmn_exp2_neg(x)
        assert y == exact.exp2_neg(x), x
        assert abs(y - 2 ** (24 - x / 256)) <= 0.6 + 2 ** (8 - x / 256), x
    assert lib.ehmn_exp2_neg(0) == 2**24 and lib.ehmn_exp2_neg(6400) == 1 and lib.ehmn_exp2_neg(6401) == 0


@thorough
@given(
    v=st.one_of(
        st.builds(lambda k, o: max(1, 2**k + o), st.integers(0, 63), st.integers(-2, 2)), st.integers(1, 2**64 - 1)
    )
)
def test_log2(v: int) -> None:
    y = lib.ehmn_log2(v)
    assert y == exact.log2(v)
    assert abs(y - 65536 * math.log2(v)) <= 2.5
    assert lib.ehmn_bit_length(v) == v.bit_length()


def test_bit_length_of_nothing() -> None:
    assert lib.ehmn_bit_length(0) == 0


def test_sigmoid_and_tanh_at_extremes() -> None:
    for x in EDGES_32:
        assert lib.ehmn_sigmoid(x) == exact.sigmoid(x), x
        assert lib.ehmn_tanh(x) == exact.tanh(x), x


def test_sigmoid_and_tanh_everywhere() -> None:
    before = -1
    for x in range(-(17 << 16), 17 << 16, 331):
        y, t = lib.ehmn_sigmoid(x), lib.ehmn_tanh(x)
        assert y == exact.sigmoid(x) and t == exact.tanh(x)
        assert abs(y - 65536 / (1 + math.exp(-x / 65536))) <= 2
        assert abs(t - 32768 * math.tanh(x / 65536)) <= 2
        assert y >= before and abs(t) <= 32767, "monotonous and within its range"
        before = y


@pytest.mark.parametrize("frac", [8, 12, 16])
def test_gelu(frac: int) -> None:
    """Within two LSB of 16 bits and what the gate's last bit is worth."""
    edges = [x for x in EDGES_32 if x > -(2**31)]
    for x in [*range(-(12 << frac), 12 << frac, max(1, (24 << frac) // 4001)), *edges]:
        y = lib.ehmn_gelu(x, frac)
        assert y == exact.gelu(x, frac), x
        real = x / 2**frac
        gate = 0.5 * (1 + math.tanh(math.sqrt(2 / math.pi) * (real + 0.044715 * real**3)))
        assert abs(y / 2**frac - real * gate) <= 0.5 / 2**frac + (2 + 4 * abs(real)) / 65536, real


def test_sine_at_every_table_entry_and_between() -> None:
    rng = np.random.default_rng(0)
    near = [(i << 22) + o for i in range(1025) for o in (-65, -64, -63, -1, 0, 1, 63, 64)]
    for phase in [*near, *rng.integers(0, 2**32, 4000).tolist()]:
        phase %= 1 << 32
        y = lib.ehmn_sin(phase)
        assert y == exact.sin(phase), phase
        assert abs(y - 32768 * math.sin(2 * math.pi * phase / 2**32)) <= 2 and abs(y) <= 32767


@thorough
@given(
    v=st.one_of(
        st.builds(lambda r, o: max(0, r * r + o), st.integers(0, 2**32 - 1), st.integers(-1, 1)),
        st.integers(0, 2**64 - 1),
    )
)
def test_isqrt(v: int) -> None:
    assert lib.ehmn_isqrt(v) == math.isqrt(v)


def quantised_by_core(v: list[int], frac: int, bits: int) -> tuple[list[int], int]:
    if bits == 8:
        out = ffi.new("int8_t[]", len(v) + 1)
        frac = lib.ehmn_quantise8(ffi.new("int32_t[]", v), len(v), frac, out)
    else:
        out = ffi.new("int16_t[]", len(v) + 1)
        frac = lib.ehmn_quantise16(ffi.new("int32_t[]", v), len(v), frac, bits, out)
    assert out[len(v)] == 0, "nothing is written behind the vector"
    return list(out)[: len(v)], frac


@pytest.mark.parametrize("bits", [8, 9, 13, 16])
@thorough
@given(v=vectors, frac=st.integers(0, 40))
def test_quantise(bits: int, v: list[int], frac: int) -> None:
    q, g = quantised_by_core(v, frac, bits)
    assert (q, g) == exact.quantise(v, frac, bits)
    limit = 2 ** (bits - 1) - 1
    assert max(map(abs, q)) <= limit, "-128 does not occur"
    assert not any(v) or max(map(abs, q)) >= limit // 2, "as tight as a power of two can be"


@thorough
@given(v=vectors)
def test_narrow(v: list[int]) -> None:
    wide = exact.quantise(v, 0, 16)[0]
    out = ffi.new("int8_t[]", len(wide) + 1)
    step = lib.ehmn_narrow(ffi.new("int16_t[]", wide), len(wide), out)
    assert out[len(wide)] == 0, "nothing is written behind the vector"
    assert (list(out)[: len(wide)], step) == exact.narrow(wide)
    assert max(map(abs, out)) <= 127 and step <= lib.EHMN_MAX_STEP
    assert all(abs(x - step * y) <= 0.51 * step for x, y in zip(wide, out, strict=False))


@pytest.mark.parametrize("n", [1, 7, 8, 15, 16, 17, 33])
def test_narrow_at_every_step(n: int) -> None:
    for largest in range(16384, 32768, 61):
        wide = [largest, -largest, *range(-largest // 2, largest // 2, 777)][:n]
        out = ffi.new("int8_t[]", n)
        step = lib.ehmn_narrow(ffi.new("int16_t[]", wide), len(wide), out)
        assert (list(out)[: len(wide)], step) == exact.narrow(wide)
        v = ffi.new("int32_t[]", [x * (65000 // step) for x in out])
        lib.ehmn_multiply_all(v, n, step)
        assert list(v) == [x * (65000 // step) * step for x in out]


@pytest.mark.parametrize("bits", [8, 9, 13, 16])
def test_quantise_extremes(bits: int) -> None:
    for v in EDGES_32:
        for vector in ([v], [v, 1], [v, -(2**31)], [0, v]):
            assert quantised_by_core(vector, 16, bits) == exact.quantise(vector, 16, bits), vector


def normalised_by_core(v: list[int], frac: int, eps: int, eps_shift: int) -> list[int]:
    out = ffi.new("int32_t[]", [*v, 77])
    lib.ehmn_rms_normalise(out, len(v), frac, eps, eps_shift, out)  # in place, as the core does it
    assert out[len(v)] == 77
    return list(out)[: len(v)]


# frac reaches from that of a vector in the residual (8) to that of a hidden vector with eight more bits (22).
@example(v=[1, 0], frac=22, eps=0, eps_shift=0)
@thorough
@given(
    v=vectors,
    frac=st.integers(0, 22),
    eps=st.one_of(st.just(0), st.integers(0, INT32_MAX)),
    eps_shift=st.integers(0, 62),
)
def test_rms_normalise(v: list[int], frac: int, eps: int, eps_shift: int) -> None:
    assert normalised_by_core(v, frac, eps, eps_shift) == exact.rms_normalise(v, frac, eps, eps_shift)


def test_rms_normalise_of_nothing_is_nothing() -> None:
    for n in (1, 2, 4096):
        assert normalised_by_core([0] * n, 16, 0, 0) == [0] * n


@pytest.mark.parametrize("n", [2, 24, 127, 4096])
def test_rms_normalise_is_accurate(n: int) -> None:
    rng = np.random.default_rng(n)
    for scale in (2e2, 2e4, 2e6, 2e8):
        v = np.round(rng.normal(size=n) * scale).clip(-INT32_MAX, INT32_MAX)
        eps, frac = 1e-5, 16
        out = np.array(normalised_by_core(v.astype(int).tolist(), frac, round(n * eps * 2**35), 35)) / 2.0**20
        x = v / 2.0**frac
        exactly = x / np.sqrt(np.mean(x * x) + eps)
        assert np.abs(out - exactly).max() <= 4e-5 * np.abs(exactly).max()


KNOWN_ANSWERS = [  # of Random123 for philox4x32-10: counter, key, result
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((2**32 - 1,) * 4, (2**32 - 1,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "result"), KNOWN_ANSWERS)
def test_philox_gives_the_published_answers(
    counter: tuple[int, ...], key: tuple[int, ...], result: tuple[int, ...]
) -> None:
    assert exact.philox(counter, key) == result


def drawn_by_core(seed: int, stream: int, counter: int) -> tuple[int, ...]:
    out = ffi.new("uint32_t[4]")
    lib.ehmn_random(seed, stream, counter, out)
    return tuple(out)


def test_draws_of_the_core_give_the_published_answer() -> None:
    assert drawn_by_core(0, 0, 0) == KNOWN_ANSWERS[0][2]


@thorough
@given(seed=st.integers(0, 2**64 - 1), stream=st.integers(0, 2**32 - 1), counter=st.integers(0, 2**64 - 1))
def test_draws(seed: int, stream: int, counter: int) -> None:
    low = 2**32 - 1
    words = exact.philox((counter & low, counter >> 32, stream, 0), (seed & low, seed >> 32))
    assert drawn_by_core(seed, stream, counter) == words
    assert exact.draw(seed, stream, counter) == words[0]


def test_tables_are_what_their_generator_makes() -> None:
    command = [sys.executable, str(ROOT / "tools" / "make_tables.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@thorough
@given(first=st.binary(max_size=60), second=st.binary(max_size=60))
def test_crc_is_that_of_zlib(first: bytes, second: bytes) -> None:
    assert lib.ehmn_crc32(0, first, len(first)) == zlib.crc32(first)
    assert lib.ehmn_crc32(zlib.crc32(first), second, len(second)) == zlib.crc32(first + second)
