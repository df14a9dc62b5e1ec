"""The frozen model of SPEC.md in Python's exact integers: the image, the encoder, the final norm, the logits.

Sums of int8 weights with mantissas are taken in NumPy's int64, where they are exact: the validator bounds every row.
"""

from collections import deque
from collections.abc import Sequence
from operator import mul as times
from typing import Any

import numpy as np

from edgehmn.core import aligned, ffi
from tests.exact import (
    Vector,
    add,
    cos,
    div_round,
    exp2_neg,
    log2,
    mul,
    quantise,
    rms_normalise,
    rounded,
    sat,
    sigmoid,
    sin,
)

SCORE_BITS = 24 << 16  # log2 of the unit of the mass, Q16
LOG2_E_Q16 = 94548


class Matrix:
    def __init__(self, data: bytes, record: Any) -> None:
        shape = record.rows, record.cols
        weights = np.frombuffer(data, np.int8, shape[0] * shape[1], record.weights_offset)
        self.weights = weights.reshape(shape).astype(np.int64)
        self.scale: Vector = np.frombuffer(data, "<i4", record.rows, record.scales_offset).tolist()
        self.shift, self.input_bits = record.shift, record.input_bits

    def matvec(self, v: Sequence[int], frac: int, out: int) -> Vector:
        x, g = quantise(v, frac, self.input_bits)
        s = self.shift + g - out
        sums = (self.weights @ np.array(x, np.int64)).tolist()
        return [mul(a, scale, s) for a, scale in zip(sums, self.scale, strict=True)]

    def row(self, r: int, frac: int, count: int = 1) -> Vector:
        return [mul(count * w, self.scale[r], self.shift - frac) for w in self.weights[r].tolist()]


class Prediction:
    """Logits in Q8, with what follows from them."""

    def __init__(self, logits: Vector) -> None:
        self.logits = logits
        self.top = max(logits)
        self.p = [exp2_neg(self.top - x) for x in logits]
        self.mass = sum(self.p)

    def score(self, token: int) -> int:
        return log2(self.mass) - SCORE_BITS + 256 * (self.top - self.logits[token])

    def entropy(self) -> int:
        spread = sum(p * (self.top - x) for p, x in zip(self.p, self.logits, strict=True))
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
        for i in range(n + 3 + (not h.tied_head)):
            m.append(Matrix(image, records[i]))
        self.layers = [m[i : i + 7] for i in range(0, n, 7)]
        self.embedding, (self.vocabulary, self.preconditioner, self.topic_matrix) = m[n], m[-3:]
        vectors = ffi.cast("const ehmn_vector *", base + h.vectors_offset)
        values = [np.frombuffer(image, "<i4", v.length, v.offset).tolist() for v in vectors[0:5]]
        self.norm_gain, self.norm_bias, self.mean, self.inverse_deviation, self.rope = values
        self.norm_gain_shift, self.inverse_deviation_shift = vectors[0].shift, vectors[3].shift
        self.guard = ffi.cast("const ehmn_guard *", base + h.guard_offset)
        mantissas = h.guard_offset + h.n_guard * ffi.sizeof("ehmn_guard")
        self.guard_mantissas: list[Vector] = (
            np.frombuffer(image, np.int8, h.n_guard * h.d_model, mantissas).reshape(-1, h.d_model).tolist()
        )

    def reset(self, position: int = 0) -> None:
        """Forget the context; the next token stands at `position`."""
        h = self.header
        self.phases = [position * step % (1 << 32) for step in self.rope]
        self.windows: list[deque[list[tuple[Vector, int, Vector, int]]]] = [
            deque(maxlen=h.n_ctx) for _ in range(h.n_layers)
        ]

    # -- Encoder

    def encode(self, token: int) -> Vector:
        h, f = self.header, self.frac
        residual = self.embedding.row(token, f)
        for layer, window in zip(self.layers, self.windows, strict=True):
            mixed = self._attention(layer, window, self._norm(residual))
            residual = list(map(add, residual, layer[3].matvec(mixed, f, f)))
            gated = self._gated(layer, self._norm(residual))
            residual = list(map(add, residual, layer[6].matvec(gated, f, f)))
        self.phases = [(p + s) % (1 << 32) for p, s in zip(self.phases, self.rope, strict=True)]
        return [sat(rounded(x, f - h.hidden_frac), 16) for x in residual]

    def _norm(self, v: Vector) -> Vector:
        return rms_normalise(v, self.frac, self.header.norm_eps_mantissa, self.header.norm_eps_shift)

    def _heads(self, v: Vector) -> list[Vector]:
        size = self.header.d_model // self.header.n_heads
        return [v[i : i + size] for i in range(0, len(v), size)]

    def _rotate(self, v: Vector) -> Vector:
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
