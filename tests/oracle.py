"""SPEC.md once more, in Python's exact integers: written from the specification, not from the C core, and there to
disagree with it.

Only the places of fields are read from the C headers, through cffi. Everything is written as the specification says
it and not as one would compute it fast: the window is a queue of slots, and a drawn step is a count of points.
"""

import math
import zlib
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import mul as times
from typing import Any

import numpy as np

from edgehmn.core import aligned, ffi, lib
from tests.exact import (
    Vector,
    add,
    cos,
    div_round,
    draw,
    draw_steps,
    exp2_neg,
    first_above,
    follow,
    log2,
    mul,
    quantise,
    rms_normalise,
    rounded,
    sat,
    sigmoid,
    sin,
    tanh,
)

SCORE_BITS = 24 << 16  # log2 of the unit of the mass, Q16
LOG2_E_Q16, PI_Q13 = 94548, 25736
TOPIC_FAST, TOPIC_SLOW = 3277, 131


class Matrix:
    def __init__(self, data: bytes, record: Any) -> None:
        shape = record.rows, record.cols
        weights = np.frombuffer(data, np.int8, shape[0] * shape[1], record.weights_offset)
        self.weights: list[Vector] = weights.reshape(shape).tolist()
        self.scale: Vector = np.frombuffer(data, "<i4", record.rows, record.scales_offset).tolist()
        self.shift, self.input_bits = record.shift, record.input_bits

    def matvec(self, v: Sequence[int], frac: int, out: int) -> Vector:
        x, g = quantise(v, frac, self.input_bits)
        s = self.shift + g - out
        return [mul(sum(map(times, w, x)), scale, s) for w, scale in zip(self.weights, self.scale, strict=True)]

    def row(self, r: int, frac: int, count: int = 1) -> Vector:
        return [mul(count * w, self.scale[r], self.shift - frac) for w in self.weights[r]]


@dataclass
class Average:
    mean: int = 0
    variance: int = 0
    started: int = 0

    def standard_score(self, v: int, rho: int) -> int:
        if not self.started:
            self.mean, self.started = v, 1
        z = div_round(sat(v - self.mean) << 16, math.isqrt(self.variance << 16) + 1)
        r = 65536 - rho
        self.mean = follow(self.mean, v, r)
        d = sat(v - self.mean)
        self.variance = follow(self.variance, mul(d, d, 16), r)
        return max(-131072, min(131072, z))


@dataclass
class State:
    """What a delta holds."""

    seed: int
    weights: list[list[Vector]]  # [adapter][i][j]
    trace: list[Vector]
    slow: list[Vector]
    context: list[Vector]
    topic: list[Vector]
    gain: Vector
    learned: int = 0
    writes: int = 0
    phase: int = 0
    reward: Average = field(default_factory=Average)
    uncertainty: Average = field(default_factory=Average)
    novelty: Average = field(default_factory=Average)


# ---- The model


class Oracle:
    """An image, as SPEC.md says that it behaves. Scores are Q16, logits Q8."""

    def __init__(self, image: bytes, seed: int = 0, *, plastic: bool = True) -> None:
        buffer = aligned(len(image))
        buffer[:] = np.frombuffer(image, np.uint8)
        self.buffer = buffer  # what the header's pointer points into
        h = self.header = ffi.cast("const ehmn_image *", ffi.from_buffer("uint8_t[]", buffer))
        self.frac, self.plastic, self.sampled = h.value_frac, plastic, 0
        base = ffi.cast("uint8_t *", h)
        n = h.n_layers * 7
        records = ffi.cast("const ehmn_matrix *", base + h.matrices_offset)
        m = [Matrix(image, records[i]) for i in range(n + 2 + (not h.tied_head))]
        self.layers = [m[i : i + 7] for i in range(0, n, 7)]
        self.embedding, self.vocabulary, self.preconditioner = m[n], m[-2], m[-1]
        vectors = ffi.cast("const ehmn_vector *", base + h.vectors_offset)
        values = [np.frombuffer(image, "<i4", v.length, v.offset).tolist() for v in vectors[0:5]]
        self.norm_gain, self.norm_bias, self.mean, self.inverse_deviation, self.rope = values
        self.norm_gain_shift, self.inverse_deviation_shift = vectors[0].shift, vectors[3].shift
        self.state = self._untaught(seed)
        self.updates: list[tuple[Vector, Vector]] = []  # of the last token learned, of each adapter: rates, presynaptic
        self.reset()

    def _untaught(self, seed: int) -> State:
        n, d = self.header.n_adapters, self.header.d_model

        def zeros(rows: int) -> list[Vector]:
            return [[0] * d for _ in range(rows)]

        gain = [min(65536, self.header.rule.gain_max)] * n
        return State(seed, [zeros(d) for _ in range(n)], zeros(n), zeros(n), zeros(n), zeros(2), gain)

    def reset(self, position: int = 0) -> None:
        """Forget the context; the next token stands at `position`."""
        h = self.header
        self.phases = [position * step % (1 << 32) for step in self.rope]
        self.windows: list[deque[list[tuple[Vector, int, Vector, int]]]] = [
            deque(maxlen=h.n_ctx) for _ in range(h.n_layers)
        ]
        self.logits: Vector | None = None

    # -- Forward pass

    def step(self, token: int) -> None:
        self.head(self.encode(token))

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

    def head(self, hidden: Sequence[int]) -> None:
        h, f = self.header, self.frac
        mean = div_round(256 * sum(hidden), h.d_model) if h.final_norm else 0
        centred = [256 * x - mean for x in hidden]
        y = rms_normalise(centred, h.hidden_frac + 8, h.norm_eps_mantissa, h.norm_eps_shift)
        shift = 20 + self.norm_gain_shift - f
        v = [add(mul(a, g, shift), b) for a, g, b in zip(y, self.norm_gain, self.norm_bias, strict=True)]
        if self.plastic:
            v = self._adapt(v)
        v = [mul(x, LOG2_E_Q16, 16) for x in v]
        self.logits = [sat(x, 16) for x in self.vocabulary.matvec(v, f, 8)]
        self.top = max(self.logits)
        self.p = [exp2_neg(self.top - x) for x in self.logits]
        self.mass = sum(self.p)

    def score(self, token: int) -> int:
        if self.logits is None:
            return log2(self.header.vocab_size)
        return log2(self.mass) - SCORE_BITS + 256 * (self.top - self.logits[token])

    def entropy(self) -> int:
        assert self.logits is not None
        spread = sum(p * (self.top - x) for p, x in zip(self.p, self.logits, strict=True))
        return log2(self.mass) - SCORE_BITS + 256 * spread // self.mass

    def sample(self, temperature: int) -> int:
        """temperature: Q8."""
        assert self.logits is not None
        if temperature == 0:
            return self.logits.index(self.top)
        p = [exp2_neg(256 * (self.top - x) // temperature) for x in self.logits]
        r = draw(self.state.seed, 65, self.sampled)
        self.sampled += 1
        high, low = divmod(sum(p), 1 << 16)
        return first_above(p, (high * r >> 16) + (low * r >> 32))

    # -- Learning

    def _adapt(self, h: Vector) -> Vector:
        rule, st, f = self.header.rule, self.state, self.frac
        scaled = [
            mul(sat(a - b), c, self.inverse_deviation_shift)
            for a, b, c in zip(h, self.mean, self.inverse_deviation, strict=True)
        ]
        self.x = rms_normalise(scaled, f, 0, 0)
        total = [0] * len(h)
        self.b, self.z = [], []
        for layer, weights in enumerate(st.weights):
            st.trace[layer] = [
                follow(t, x, 65536 - rule.rho_trace[layer]) for t, x in zip(st.trace[layer], self.x, strict=True)
            ]
            b, g = quantise(st.trace[layer], 20, 8)
            z = [tanh(sat(rounded(sum(map(times, w, b)), rule.weight_frac + g - 16))) for w in weights]
            total = [add(a, mul(x, st.gain[layer], 15)) for a, x in zip(total, z, strict=True)]
            self.b.append((b, g))
            self.z.append(z)
        return list(map(add, h, self.preconditioner.matvec(total, 16, f)))

    def learn(self, token: int) -> None:
        if self.logits is None:
            return
        st, rule = self.state, self.header.rule
        error = self._error(token)
        rate = self._rate(token)
        self.updates = []
        for layer in range(len(st.weights)):
            pre, g = self._presynaptic(layer)
            rates = [self._row_rate(layer, i, e, rate, g) for i, e in enumerate(error)]
            self.updates.append((rates, pre))
            self._write(layer, rates, pre)
            change = sat(rounded(sum(map(times, self.z[layer], error)), 19))
            st.gain[layer] = max(0, min(rule.gain_max, add(st.gain[layer], mul(change, rule.eta_gain, 16))))
        st.phase = (st.phase + rule.phase_step) % (1 << 32)
        st.learned = (st.learned + 1) % (1 << 64)

    def negatives(self) -> Vector:
        n = self.header.rule.n_negatives
        u = draw(self.state.seed, 0, self.state.learned) >> 16
        step = self.mass // n
        return [first_above(self.p, (step * u >> 16) + s * step) for s in range(n)]

    def _error(self, token: int) -> Vector:
        n, f = self.header.rule.n_negatives, self.frac
        negatives = self.negatives()
        delta = self.vocabulary.row(token, f, n)
        for k in dict.fromkeys(negatives):
            delta = list(map(add, delta, self.vocabulary.row(k, f, -negatives.count(k))))
        return self.preconditioner.matvec(delta, f + n.bit_length() - 1, 20)

    def _rate(self, token: int) -> int:
        rule, st = self.header.rule, self.state
        if rule.eta_global == 0:
            return int(rule.eta_local)
        g = rule.w_reward * st.reward.standard_score(self.score(token), rule.rho_average)
        if rule.w_uncertainty:
            g += rule.w_uncertainty * st.uncertainty.standard_score(self.entropy(), rule.rho_average)
        if rule.w_novelty:
            g += rule.w_novelty * st.novelty.standard_score(self._topic_shift(), rule.rho_average)
        return max(0, add(rule.eta_local, mul(rule.eta_global, sat(rounded(g, 16)), 16)))

    def _topic_shift(self) -> int:
        topic = self.state.topic
        for k, rate in enumerate((TOPIC_FAST, TOPIC_SLOW)):
            topic[k] = [follow(m, x, rate) for m, x in zip(topic[k], self.x, strict=True)]
        apart = [abs(sat(rounded(a - b, 4))) for a, b in zip(*topic, strict=True)]
        return sat(sum(a * a >> 16 for a in apart) // len(apart))

    def _presynaptic(self, layer: int) -> tuple[Vector, int]:
        rule, st = self.header.rule, self.state
        if rule.kappa == 0 and rule.beta_attention == 0:
            return self.b[layer]
        trace = st.trace[layer]
        st.slow[layer] = [follow(a, b, 65536 - rule.rho_slow) for a, b in zip(st.slow[layer], trace, strict=True)]
        st.context[layer] = [
            follow(a, b, 65536 - rule.rho_context) for a, b in zip(st.context[layer], trace, strict=True)
        ]
        y = [add(a, mul(b, rule.kappa, 16)) for a, b in zip(trace, st.slow[layer], strict=True)]
        if rule.beta_attention:
            m = [mul(mul(a, c, 20), rule.beta_attention, 28) for a, c in zip(trace, st.context[layer], strict=True)]
            a = [exp2_neg(max(m) - x) for x in m]
            y = [mul(v, (len(y) * x << 16) // sum(a), 16) for v, x in zip(y, a, strict=True)]
        return quantise(y, 20, 8)

    def _gate(self, layer: int, i: int) -> int:
        rule = self.header.rule
        if rule.phase_step == 0:
            return 1 << 15
        cosine = cos(self.state.phase - (draw(rule.phase_seed, 66 + layer, i) & 0xF0000000))
        return mul(cosine, PI_Q13, 13) if cosine > 0 else 0

    def _row_rate(self, layer: int, i: int, error: int, rate: int, g: int) -> int:
        post = mul(mul(error, 32768 - (self.z[layer][i] ** 2 >> 15), 15), self._gate(layer, i), 15)
        return max(-(1 << 20), min(1 << 20, mul(post, rate, 20 - self.header.rule.weight_frac + g)))

    def _write(self, layer: int, rates: Vector, pre: Vector) -> None:
        st = self.state
        weights = st.weights[layer]
        steps = draw_steps(rates, pre, draw(st.seed, 1 + layer, st.learned) >> 8)
        for i, row in enumerate(steps):
            self._take(weights[i], row)
        turn = weights[st.learned % len(weights)]
        self._take(turn, draw_steps([-self.header.rule.decay_row], turn, draw(st.seed, 33 + layer, st.learned) >> 8)[0])

    def _take(self, weights: Vector, steps: Vector) -> None:
        weights[:] = [max(-127, min(127, w + s)) for w, s in zip(weights, steps, strict=True)]
        self.state.writes = (self.state.writes + sum(map(abs, steps))) % (1 << 64)

    # -- Delta

    def save(self) -> bytes:
        st = self.state
        h = ffi.new("ehmn_delta *")
        h.magic, h.version = lib.EHMN_DELTA_MAGIC, lib.EHMN_DELTA_VERSION
        h.image_id = list(bytes(self.header.id))
        h.seed, h.learned, h.writes, h.phase = st.seed, st.learned, st.writes, st.phase
        for name in ("reward", "uncertainty", "novelty"):
            average, out = getattr(st, name), getattr(h, name)
            out.mean, out.variance, out.started = average.mean, average.variance, average.started
        h.gain[0 : len(st.gain)] = st.gain
        arrays = np.array(st.weights, np.int8).tobytes()
        arrays += bytes(-len(arrays) % 4)
        arrays += np.array([*st.trace, *st.slow, *st.context, *st.topic], "<i4").tobytes()
        h.bytes = ffi.sizeof("ehmn_delta") + len(arrays)
        h.crc32 = zlib.crc32(ffi.buffer(h)[16:] + arrays)
        return bytes(ffi.buffer(h)[:]) + arrays

    def load(self, delta: bytes) -> None:
        """Take over a sound delta."""
        n, d = self.header.n_adapters, self.header.d_model
        h = ffi.new("ehmn_delta *")
        at = ffi.sizeof("ehmn_delta")
        ffi.buffer(h)[:] = delta[:at]
        weights = np.frombuffer(delta, np.int8, n * d * d, at).reshape(n, d, d).tolist()
        rest = np.frombuffer(delta[len(delta) - 4 * d * (3 * n + 2) :], "<i4").reshape(-1, d).tolist()
        averages = [Average(a.mean, a.variance, a.started) for a in (h.reward, h.uncertainty, h.novelty)]
        arrays = rest[:n], rest[n : 2 * n], rest[2 * n : 3 * n], rest[3 * n :]
        self.state = State(h.seed, weights, *arrays, list(h.gain)[:n], h.learned, h.writes, h.phase, *averages)
