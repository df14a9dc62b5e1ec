"""The frozen model of SPEC.md in Python's exact integers: the image, the encoder, the final norm, the logits.

Sums of int8 weights with mantissas are taken in NumPy's int64, where they are exact: the validator bounds every row.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from operator import mul as times
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from edgehmn.core import aligned, ffi, lib
from tests.exact import (
    Vector,
    add,
    cos,
    div_round,
    exp2_neg,
    gelu,
    log2,
    mul,
    narrow,
    quantise,
    rms_normalise,
    rounded,
    sat,
    sigmoid,
    sin,
)

SCORE_BITS = 24 << 16  # log2 of the unit of the mass, Q16
LOG2_E_Q16 = 94548
NO_TOKEN = (1 << 32) - 1


def weights(data: bytes, record: Any) -> npt.NDArray[np.int64]:
    """(rows, cols); of 4 bits, two in a byte, the even column first."""
    rows, cols, at = record.rows, record.cols, record.weights_offset
    if record.weight_bits == 8:
        return np.frombuffer(data, np.int8, rows * cols, at).reshape(rows, cols).astype(np.int64)
    row_bytes = -(-cols // 2)
    packed = np.frombuffer(data, np.uint8, rows * row_bytes, at).reshape(rows, row_bytes)
    out = np.stack([packed % 16, packed // 16], -1).reshape(rows, 2 * row_bytes)[:, :cols].astype(np.int64)
    return np.where(out < 8, out, out - 16)


class Matrix:
    def __init__(self, data: bytes, record: Any) -> None:
        self.weights = weights(data, record)
        self.scale: Vector = np.frombuffer(data, "<i4", record.rows, record.scales_offset).tolist()
        self.shift, self.input_bits = record.shift, record.input_bits
        at = record.bias_offset
        self.bias: Vector = np.frombuffer(data, "<i4", record.rows, at).tolist() if at else [0] * record.rows

    def matvec(self, v: Sequence[int], frac: int, out: int) -> Vector:
        x, g, step = self._input(v, frac)
        s = self.shift + g - out
        sums = (step * (self.weights @ np.array(x, np.int64))).tolist()
        return [add(mul(a, scale, s), b) for a, scale, b in zip(sums, self.scale, self.bias, strict=True)]

    def _input(self, v: Sequence[int], frac: int) -> tuple[Vector, int, int]:
        """Mantissas, their fractional bits, and their step."""
        if self.input_bits > 8:
            return *quantise(v, frac, self.input_bits), 1
        wide, g = quantise(v, frac, 16)
        x, step = narrow(wide)
        return x, g, step

    def row(self, r: int, frac: int, count: int = 1) -> Vector:
        return [mul(count * w, self.scale[r], self.shift - frac) for w in self.weights[r].tolist()]


def exp2(v: int) -> int:
    """2^(v / 2^8) in Q24."""
    whole = max(0, -(-v // 256))
    return exp2_neg(256 * whole - v) << whole


class Prediction:
    """Logits in Q8, with what follows from them. `changed`: what episodes make of some of them; only the score knows
    of it. `top`: their level, the largest if none is given."""

    def __init__(
        self, logits: Vector, changed: Mapping[int, int] = MappingProxyType({}), top: int | None = None
    ) -> None:
        self.plain, self.logits = logits, [changed.get(i, x) for i, x in enumerate(logits)]
        self.top = max(logits) if top is None else top
        self.p = [exp2_neg(self.top - x) for x in logits]
        self.mass = sum(self.p)
        self.total = self.mass + sum(exp2(x - self.top) - self.p[i] for i, x in changed.items())

    def score(self, token: int) -> int:
        return max(0, log2(self.total) - SCORE_BITS + 256 * (self.top - self.logits[token]))

    def surprise(self, token: int) -> int:
        return max(0, log2(self.mass) - SCORE_BITS + 256 * (self.top - self.plain[token]))

    def entropy(self) -> int:
        spread = sum(p * (self.top - x) for p, x in zip(self.p, self.plain, strict=True))
        return log2(self.mass) - SCORE_BITS + 256 * spread // self.mass

    def probability(self, token: int) -> int:
        """Q16."""
        return (self.p[token] << 16) // self.mass


class Frozen:
    """An image without anything plastic. The base of the oracle."""

    def __init__(self, image: bytes) -> None:
        buffer = aligned(len(image))
        buffer[:] = np.frombuffer(image, np.uint8)
        self.buffer = buffer  # what the header's pointer points into
        h = self.header = ffi.cast("const ehmn_image *", ffi.from_buffer("uint8_t[]", buffer))
        self.frac = h.value_frac
        base = ffi.cast("uint8_t *", h)
        n, m = h.n_layers * 7, []
        records = ffi.cast("const ehmn_matrix *", base + h.matrices_offset)
        for i in range(n + 3 + (not h.tied_head) + h.positions):
            m.append(Matrix(image, records[i]))
        self.layers = [m[i : i + 7] for i in range(0, n, 7)]
        self.embedding, self.vocabulary = m[n], m[n + (not h.tied_head)]
        self.positions = m[-3] if h.positions else None
        self.preconditioner, self.topic_matrix = m[-2:]
        vectors = ffi.cast("const ehmn_vector *", base + h.vectors_offset)
        values = [np.frombuffer(image, "<i4", v.length, v.offset).tolist() for v in vectors[0 : lib.EHMN_VECTORS]]
        self.norm_gain, self.norm_bias, self.mean, self.inverse_deviation, self.rope, shifts = values
        self.norm_shifts = [shifts[i : i + h.d_model] for i in range(0, len(shifts), h.d_model)]
        self.norm_gain_shift, self.inverse_deviation_shift = vectors[0].shift, vectors[3].shift
        self.guard = ffi.cast("const ehmn_guard *", base + h.guard_offset)
        mantissas = h.guard_offset + h.n_guard * ffi.sizeof("ehmn_guard")
        self.guard_mantissas: list[Vector] = (
            np.frombuffer(image, np.int8, h.n_guard * h.d_model, mantissas).reshape(-1, h.d_model).tolist()
        )

    def reset(self, position: int = 0) -> None:
        """Forget the context; the next token stands at `position`."""
        self.open_window(position)
        self.tokens: list[int] = []

    def open_window(self, position: int = 0) -> None:
        h = self.header
        self.phases = [position * step % (1 << 32) for step in self.rope]
        self.windows: list[deque[list[tuple[Vector, int, Vector, int]]]] = [
            deque(maxlen=h.n_ctx) for _ in range(h.n_layers)
        ]
        if h.start_token != NO_TOKEN:
            self.encode_here(h.start_token)

    # -- Encoder

    def encode(self, token: int) -> Vector:
        h = self.header
        if h.window and len(self.windows[0]) == h.n_ctx:
            self.open_window()
            for earlier in self.tokens[-(h.n_ctx // 2) :]:
                self.encode_here(earlier)
        self.tokens.append(token)
        return [sat(rounded(x, self.frac - h.hidden_frac), 16) for x in self.encode_here(token)]

    def encode_here(self, token: int) -> Vector:
        """The residual after all layers."""
        f = self.frac
        residual = self.embedding.row(token, f)
        if self.positions:
            residual = list(map(add, residual, self.positions.row(len(self.windows[0]), f)))
        for i, (layer, window) in enumerate(zip(self.layers, self.windows, strict=True)):
            mixed = self._attention(layer, window, self._norm(2 * i, residual))
            residual = list(map(add, residual, layer[3].matvec(mixed, f, f)))
            gated = self._gated(layer, self._norm(2 * i + 1, residual))
            residual = list(map(add, residual, layer[6].matvec(gated, f, f)))
        self.phases = [(p + s) % (1 << 32) for p, s in zip(self.phases, self.rope, strict=True)]
        return residual

    def _norm(self, index: int, v: Vector) -> Vector:
        if self.header.norm:
            mean = div_round(sum(v), len(v))
            v = [add(x, -mean) for x in v]
        v = rms_normalise(v, self.frac, self.header.norm_eps_mantissa, self.header.norm_eps_shift)
        return [x >> shift for x, shift in zip(v, self.norm_shifts[index], strict=True)]

    def _heads(self, v: Vector) -> list[Vector]:
        size = self.header.d_model // self.header.n_heads
        return [v[i : i + size] for i in range(0, len(v), size)]

    def _rotate(self, v: Vector) -> Vector:
        if self.positions:
            return v
        half = len(v) // 2
        pairs = [(a, b, cos(p), sin(p)) for a, b, p in zip(v[:half], v[half:], self.phases, strict=True)]
        first = [sat(rounded(a * c - b * s, 15)) for a, b, c, s in pairs]
        return first + [sat(rounded(b * c + a * s, 15)) for a, b, c, s in pairs]

    def _attention(self, layer: list[Matrix], window: deque[Any], n: Vector) -> Vector:
        h, f = self.header, self.frac
        q, k, v = (self._heads(m.matvec(n, 20, f)) for m in layer[:3])
        window.append(
            [(*quantise(self._rotate(key), f, 8), *quantise(value, f, 8)) for key, value in zip(k, v, strict=True)]
        )
        out = []
        for i, query in enumerate(q):
            slots = [slot[i // (h.n_heads // h.n_kv_heads)] for slot in window]
            x, g = quantise(self._rotate(query), f, 16)
            scores = [sat(rounded(sum(map(times, x, key)), g + frac - 8)) for key, frac, _, _ in slots]
            p = [rounded(exp2_neg(max(scores) - s), 9) for s in scores]
            least = min(frac for _, _, _, frac in slots)
            w = [rounded(a, frac - least) for a, (_, _, _, frac) in zip(p, slots, strict=True)]
            mixed = [sum(map(times, w, column)) for column in zip(*(value for _, _, value, _ in slots), strict=True)]
            out += [mul(x, (1 << 45) // sum(p), 45 + least - f) for x in mixed]
        return out

    def _gated(self, layer: list[Matrix], n: Vector) -> Vector:
        f = self.frac
        if self.header.mlp:
            return [gelu(x, f) for x in layer[5].matvec(n, 20, f)]
        gate, up = (m.matvec(n, 20, f) for m in layer[4:6])
        return [mul(mul(a, sigmoid(sat(rounded(a, f - 16))), 16), b, f) for a, b in zip(gate, up, strict=True)]

    # -- Head

    def final_norm(self, hidden: Sequence[int]) -> Vector:
        h, f = self.header, self.frac
        mean = div_round(256 * sum(hidden), h.d_model) if h.final_norm else 0
        centred = [256 * x - mean for x in hidden]
        y = rms_normalise(centred, h.hidden_frac + 8, h.norm_eps_mantissa, h.norm_eps_shift)
        shift = 20 + self.norm_gain_shift - f
        return [add(mul(a, g, shift), b) for a, g, b in zip(y, self.norm_gain, self.norm_bias, strict=True)]

    def wide_logits(self, v: Vector) -> Vector:
        """The logits of the adapted output v of the final norm, before their saturation to 16 bits."""
        return self.vocabulary.matvec([mul(x, LOG2_E_Q16, 16) for x in v], self.frac, 8)
