"""The arithmetic and the draws of SPEC.md in Python's exact integers, written as the specification says them."""

import math
from collections.abc import Iterable, Sequence
from functools import cache

Vector = list[int]

STEP = 1 << 24  # the distance of two points on the line of expected steps


def rounded(v: int, s: int) -> int:
    """round(v / 2**s): to the nearest, halves towards plus infinity."""
    if s > 62:
        return 0
    return v << -s if s <= 0 else (v + (1 << (s - 1))) >> s


def sat(v: int, bits: int = 32) -> int:
    limit = (1 << (bits - 1)) - 1
    return limit if v > limit else -limit if v < -limit else v


def round_shift(v: int, s: int) -> int:
    return sat(rounded(v, s))


def mul(a: int, b: int, s: int) -> int:
    return sat(rounded(a * b, s))


def add(a: int, b: int) -> int:
    return sat(a + b)


def div_round(a: int, b: int) -> int:
    return (a + b // 2) // b


def follow(mean: int, value: int, rate: int) -> int:
    return add(mean, sat(rounded(sat(value - mean) * rate, 16)))


def entry(x: float, limit: int = 1 << 30) -> int:
    """A table's entry. No value lies so near a half that a double could round it the wrong way."""
    assert x == math.floor(x) or abs(x - math.floor(x) - 0.5) > 1e-6
    return min(limit, math.floor(x + 0.5))


EXP2 = [entry(32768 * 2 ** (i / 256)) - 32768 for i in range(256)]
LOG2 = [entry(65536 * math.log2(1 + i / 256)) for i in range(257)]
SIGMOID = [entry(65536 / (1 + math.exp(-i / 32)), 65535) for i in range(513)]
SINE = [entry(32768 * math.sin(math.pi / 2 * i / 256), 32767) for i in range(257)]


@cache
def exp2_neg(x: int) -> int:
    """2**-(x / 256), Q24."""
    if x > 6400:
        return 0
    w = -(-x // 256)
    return rounded((32768 + EXP2[256 * w - x]) << 9, w)


def log2(v: int) -> int:
    """Q16."""
    n = v.bit_length() - 1
    f = (v >> (n - 16) if n >= 16 else v << (16 - n)) & 0xFFFF
    i = f >> 8
    return (n << 16) + LOG2[i] + rounded((LOG2[i + 1] - LOG2[i]) * (f & 255), 8)


def sigmoid(x: int) -> int:
    """x in Q16, result in Q16."""
    a, y = abs(x), 65535
    if a < 16 << 16:
        i = a >> 11
        y = SIGMOID[i] + rounded((SIGMOID[i + 1] - SIGMOID[i]) * (a & 2047), 11)
    return 65536 - y if x < 0 else y


def tanh(x: int) -> int:
    """x in Q16, result in Q15."""
    return sat(sigmoid(sat(2 * x)) - 32768, 16)


def gelu(x: int, frac: int) -> int:
    """x and the result with `frac` fractional bits."""
    t = min(max(sat(rounded(x, frac - 16)), -8 << 16), 8 << 16)
    cubic = 65536 + (((t * t >> 16) * 2930) >> 16)
    return mul(x, sigmoid(mul(sat(rounded(t * cubic, 16)), 104581, 16)), 16)


def sin(phase: int) -> int:
    """phase in turns * 2**32, result in Q15."""
    quarter, p = divmod(phase % (1 << 32), 1 << 30)
    if quarter % 2:
        p = (1 << 30) - p
    i, f = p >> 22, (p >> 6) & 0xFFFF
    y = SINE[i] + (rounded((SINE[i + 1] - SINE[i]) * f, 16) if f else 0)
    return -y if quarter >= 2 else y


def cos(phase: int) -> int:
    return sin(phase + (1 << 30))


def mix(a: int) -> int:
    """Spreads 32 bits."""
    a ^= a >> 16
    a = a * 0x7FEB352D % (1 << 32)
    a ^= a >> 15
    a = a * 0x846CA68B % (1 << 32)
    return a ^ a >> 16


def context_hash(newest_first: Iterable[int]) -> int:
    """32 bits of a context, from its tokens."""
    a = 0
    for token in newest_first:
        a = mix((a * 0x9E3779B1 + token + 1) % (1 << 32))
    return a


def quantise(v: Sequence[int], frac: int, bits: int) -> tuple[Vector, int]:
    """Mantissas of `bits` bits with one exponent, and their fractional bits."""
    largest, s = max(map(abs, v)), 0
    if largest:
        s = largest.bit_length() - bits  # at which the largest still has one bit too many
        while rounded(largest, s) > (1 << (bits - 1)) - 1:
            s += 1
    return [rounded(x, s) for x in v], frac - s


def narrow(v: Sequence[int]) -> tuple[Vector, int]:
    """Mantissas of 16 bits in steps that leave at most 127 of them, and the step."""
    step = -(-max(map(abs, v)) // 127) or 1
    return [(x * (2**22 // step) + 2**21) >> 22 for x in v], step


def rms_normalise(v: Sequence[int], frac: int, eps: int, eps_shift: int) -> Vector:
    """v / sqrt(mean(v**2) + eps), Q20; n eps = eps * 2**-eps_shift."""
    q, g = quantise(v, frac, 16)
    if eps_shift >= 2 * g:
        e = sat(rounded(eps, eps_shift - 2 * g))
    else:
        e = eps << (2 * g - eps_shift)
        e = e if e.bit_length() <= 61 else 1 << 61
    total = sum(x * x for x in q) + e or 1
    k = (62 - total.bit_length()) // 2
    root = math.isqrt(total << 2 * k)
    factor = sat((math.isqrt(len(v) << 32) << 30) // root)
    return [mul(x, factor, 46 - k - 20) for x in q]


# ---- Draws: Philox4x32-10, section 3 of Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3"


def philox(counter: Iterable[int], key: Iterable[int]) -> tuple[int, int, int, int]:
    """Ten rounds on the words L0 R0 L1 R1 with the multipliers and the Weyl constants of the paper."""
    (r0, l0, r1, l1), (k0, k1) = counter, key
    for _ in range(10):
        high0, low0 = divmod(r0 * 0xD2511F53, 1 << 32)
        high1, low1 = divmod(r1 * 0xCD9E8D57, 1 << 32)
        r0, l0, r1, l1 = high1 ^ l0 ^ k0, low1, high0 ^ l1 ^ k1, low0
        k0, k1 = (k0 + 0x9E3779B9) % (1 << 32), (k1 + 0xBB67AE85) % (1 << 32)
    return r0, l0, r1, l1


def draw(seed: int, stream: int, counter: int) -> int:
    """The first of the four words."""
    low = (1 << 32) - 1
    return philox((counter & low, counter >> 32, stream, 0), (seed & low, seed >> 32))[0]


def points_before(end: int, u: int) -> int:
    """How many of the points u, u + STEP, u + 2 STEP, ... lie below `end`."""
    return -((u - end) // STEP) if end > u else 0


def draw_steps(rates: Sequence[int], pre: Sequence[int], u: int) -> list[Vector]:
    """Signed steps of all weights (len(rates), len(pre)): the rows' stretches laid end to end on one line."""
    out, end, before = [], 0, 0
    for rate in rates:
        row = []
        for x in pre:
            end += abs(rate * x)
            now = points_before(end, u)
            row.append(now - before if rate * x > 0 else before - now)
            before = now
        out.append(row)
    return out


def first_above(p: Sequence[int], point: int) -> int:
    """The first index whose cumulative sum exceeds `point`; the last one if none does."""
    total = 0
    for k, x in enumerate(p):
        total += x
        if total > point:
            return k
    return len(p) - 1
