"""The plastic head once more in real numbers, with explicit loops: from SPEC.md, "Learning", and Rule's words, sharing
nothing with `edgehmn.plasticity`, and there to disagree with it. Weights and rows are real (`write="float"`)."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from edgehmn.plasticity import HeadStatistics, Rule

Vector = list[float]
LN2 = math.log(2)


def dot(a: Any, b: Any) -> float:
    return math.fsum(x * y for x, y in zip(a, b, strict=True))


def clamp(value: float, low: float, high: float) -> float:
    return low if value < low else high if value > high else value


def scrambled(a: int) -> int:
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        a = ((a ^ (a >> shift)) * factor) & 0xFFFFFFFF
    return a ^ (a >> 16)


class Signal:
    def __init__(self, rho: float) -> None:
        self.rho, self.mean, self.variance = rho, None, 0.0

    def score(self, value: float) -> float:
        if self.mean is None:
            self.mean = value
        out = clamp((value - self.mean) / (math.sqrt(self.variance) + 2**-16), -2, 2)
        self.mean = self.rho * self.mean + (1 - self.rho) * value
        self.variance = self.rho * self.variance + (1 - self.rho) * (value - self.mean) ** 2
        return out


class PlainHead:
    """draws, follow_draws: numbers in [0, 1), one for each token learned or followed. phase, weights: as drawn."""

    def __init__(
        self,
        head: npt.NDArray[np.float32],
        statistics: HeadStatistics,
        rule: Rule,
        *,
        draws: npt.NDArray[np.float64],
        follow_draws: npt.NDArray[np.float64],
        phase: npt.NDArray[np.floating],
        weights: npt.NDArray[np.floating],
    ) -> None:
        self.head, self.rule = head.astype(float).tolist(), rule
        self.mean, self.inverse = statistics.mean.tolist(), statistics.inverse_deviation.tolist()
        self.p_matrix = statistics.preconditioner.astype(float).tolist()
        self.draws, self.follow_draws = iter(draws.tolist()), iter(follow_draws.tolist())
        self.phase, self.weights = phase.astype(float).tolist(), weights.astype(float).tolist()
        n, d, one = len(rule.rho_trace), head.shape[1], min(1.0, rule.gain_max)
        self.trace, self.slow, self.context = ([[0.0] * d for _ in range(n)] for _ in range(3))
        self.gain, self.row_gain, self.scale, self.bias_gain = [one] * n, [one, one], one, one
        self.rows = [[[0.0] * d for _ in range(slots)] for slots in rule.row_slots]
        self.bias = [0.0] * len(self.head)
        self.ngrams: dict[tuple[int, int], list[int]] = {}  # (order, slot) -> token, tag, count
        self.ngram_gain: dict[tuple[int, int], float] = {}  # (order, count)
        self.episodes: list[tuple[tuple[bool, ...], int]] = []
        self.share = [0.1] * 16
        self.drift = [[0.0] * d, [0.0] * d]
        self.signals = {name: Signal(rule.rho_average) for name in ("reward", "uncertainty", "novelty")}
        self.learned = self.written = 0
        self.reset()

    def reset(self) -> None:
        self.fed: list[int] = []

    def hashed(self, k: int) -> int | None:
        if len(self.fed) < k:
            return None
        a = 0
        for back in range(1, k + 1):
            a = scrambled((a * 0x9E3779B1 + self.fed[-back] + 1) % 2**32)
        return a

    # ---- Forward

    def forward(self, h: Vector, token: int) -> Vector:
        """Log-probabilities."""
        self.fed.append(token)
        x = [(v - m) * s for v, m, s in zip(h, self.mean, self.inverse, strict=True)]
        root = math.sqrt(dot(x, x) / len(x))
        self.x, self.plain = [v / root for v in x], h
        total = [0.0] * len(h)
        self.z = []
        for layer, rho in enumerate(self.rule.rho_trace):
            self.trace[layer] = [rho * t + (1 - rho) * v for t, v in zip(self.trace[layer], self.x, strict=True)]
            self.z.append([math.tanh(dot(w, self.trace[layer])) for w in self.weights[layer]])
            total = [t + self.gain[layer] * z for t, z in zip(total, self.z[layer], strict=True)]
        self.row: list[Vector | None] = [None, None]
        for k in (1, 2):
            c, slots = self.hashed(k), self.rule.row_slots[k - 1]
            if slots and c is not None:
                row = self.rows[k - 1][c * slots // 2**32]
                self.row[k - 1] = row
                total = [t + self.row_gain[k - 1] * r for t, r in zip(total, row, strict=True)]
        adapted = [self.scale * v + dot(p, total) for v, p in zip(h, self.p_matrix, strict=True)]
        logits = [dot(w, adapted) + self.bias_gain * b for w, b in zip(self.head, self.bias, strict=True)]
        self._ngrams(logits)
        top = max(logits)
        weight = [math.exp(v - top) for v in logits]
        mass = math.fsum(weight)
        self.q = [w / mass for w in weight]
        self.p = self._episodes(self.q)
        return [math.log(p) for p in self.p]

    def _ngrams(self, logits: Vector) -> None:
        self.place: dict[int, tuple[int, int]] = {}  # order -> slot, tag
        self.hit: dict[int, tuple[int, int]] = {}  # order -> token, count
        for order in self.rule.ngram_orders:
            c = self.hashed(order)
            if not self.rule.ngram_slots or c is None:
                continue
            self.place[order] = c * self.rule.ngram_slots // 2**32, c % 1024
            token, tag, count = self.ngrams.get((order, self.place[order][0]), [0, 0, 0])
            if count > 0 and tag == c % 1024:
                self.hit[order] = token, count
                logits[token] += self.ngram_gain.get((order, count), 0.0)

    def _episodes(self, p: Vector) -> Vector:
        self.key, self.bucket = tuple(v > 0 for v in self.x), -1
        self.part = [0.0] * len(p)  # of each token's probability that is recalled
        if not self.episodes:
            return p
        differing = [sum(a != b for a, b in zip(key, self.key, strict=True)) for key, _ in self.episodes]
        order = sorted(range(len(differing)), key=lambda i: (differing[i], i))[:16]
        similarity = [math.cos(math.pi * differing[i] / len(self.x)) for i in order]
        weights = [math.exp(self.rule.sharpness * (s - similarity[0])) for s in similarity]
        self.bucket = min(15, math.floor(16 * max(0.0, similarity[0])))
        share = self.share[self.bucket]
        recalled = [0.0] * len(p)
        for i, w in zip(order, weights, strict=True):
            recalled[self.episodes[i][1]] += w / math.fsum(weights)
        out = [(1 - share) * a + share * b for a, b in zip(p, recalled, strict=True)]
        self.part = [share * b / c for b, c in zip(recalled, out, strict=True)]
        return out

    # ---- Learning

    def follow(self, token: int) -> None:
        if self.p[token] <= 2 / 3:
            self._follow_error(token, next(self.follow_draws))
        self._follow_memories(token)

    def _follow_error(self, token: int, u: float) -> None:
        r = self.rule
        total = math.fsum(self.q)
        negatives = []
        for s in range(r.n_negatives):
            point, v, at = (s + u) / r.n_negatives * total, 0, self.q[0]
            while at <= point and v < len(self.q) - 1:
                v += 1
                at += self.q[v]
            negatives.append(v)
        self.negatives = negatives
        mean = [sum(self.head[v][j] for v in negatives) / len(negatives) for j in range(len(self.x))]
        delta = [a - b for a, b in zip(self.head[token], mean, strict=True)]
        self.error = [dot(p, delta) for p in self.p_matrix]
        for layer, z in enumerate(self.z):
            self.gain[layer] = clamp(self.gain[layer] + r.eta_gain * dot(z, self.error), 0, r.gain_max)
        for k, row in enumerate(self.row):
            if row is not None:
                self.row_gain[k] = clamp(self.row_gain[k] + r.eta_gain * dot(row, self.error), 0, r.gain_max)
        bits = (self.bias[token] - sum(self.bias[v] for v in negatives) / len(negatives)) / LN2
        self.bias_gain = clamp(self.bias_gain + r.eta_gain * bits, 0, r.gain_max)
        self.scale = clamp(self.scale + r.eta_scale * dot(self.plain, delta), 0, r.gain_max)

    def _follow_memories(self, token: int) -> None:
        r = self.rule
        for order, (guess, count) in self.hit.items():
            gain = self.ngram_gain.get((order, count), 0.0) + r.eta_ngram * ((guess == token) - self.q[guess])
            self.ngram_gain[order, count] = clamp(gain, -16 * LN2, 16 * LN2)
        if self.bucket >= 0:
            share = self.share[self.bucket]
            share = share + r.eta_episode * (self.part[token] - share)
            self.share[self.bucket] = clamp(share, 66 / 65536, 62259 / 65536)

    def learn(self, token: int) -> None:
        r = self.rule
        factor = self._factor(token)
        if self.p[token] <= 2 / 3:
            self._follow_error(token, next(self.draws))
            for layer in range(len(self.weights)):
                self._dense(layer, factor)
            for k, row in enumerate(self.row):
                if row is not None:
                    row[:] = [
                        (1 - r.decay_visit) * v + r.eta_row[k] * factor * e
                        for v, e in zip(row, self.error, strict=True)
                    ]
            if r.bias_step:
                self._bias(token)
        self._follow_memories(token)
        self._fade()
        for order, (at, tag) in self.place.items():
            old = self.ngrams.get((order, at), [0, 0, 0])
            if old[2] and old[:2] == [token, tag]:
                new = [token, tag, min(15, old[2] + 1)]
            else:
                new = [old[0], old[1], old[2] // 2] if old[2] // 2 else [token, tag, 1]
            self.ngrams[order, at] = new
        if r.episodes:
            self.episodes[self.written % r.episodes : self.written % r.episodes + 1] = [(self.key, token)]
            self.written += 1
        self.learned += 1

    def _factor(self, token: int) -> float:
        r, q = self.rule, self.q
        if r.eta_global == 0:
            return 1.0
        g = r.gamma * r.w_reward * self.signals["reward"].score(-math.log(q[token]) / LN2)
        if r.gamma < 1 and r.w_uncertainty:
            entropy = -math.fsum(v * math.log(v) for v in q if v > 0) / LN2
            g += (1 - r.gamma) * r.w_uncertainty * self.signals["uncertainty"].score(entropy)
        if r.w_novelty:
            for i, rate in enumerate((0.05, 0.002)):
                self.drift[i] = [a + rate * (b - a) for a, b in zip(self.drift[i], self.x, strict=True)]
            shift = sum((a - b) ** 2 for a, b in zip(*self.drift, strict=True)) / len(self.x)
            g += r.w_novelty * self.signals["novelty"].score(shift)
        return max(0.0, 1 + r.eta_global / r.eta_local * g)

    def _dense(self, layer: int, factor: float) -> None:
        r, d, x = self.rule, len(self.x), self.trace[layer]
        self.slow[layer] = [r.rho_slow * s + (1 - r.rho_slow) * v for s, v in zip(self.slow[layer], x, strict=True)]
        self.context[layer] = [
            r.rho_context * c + (1 - r.rho_context) * v for c, v in zip(self.context[layer], x, strict=True)
        ]
        alpha = [math.exp(r.beta_attention * v * c) for v, c in zip(x, self.context[layer], strict=True)]
        pre = [d * a / math.fsum(alpha) * (v + r.kappa * s) for a, v, s in zip(alpha, x, self.slow[layer], strict=True)]
        rates = []
        for i, z in enumerate(self.z[layer]):
            post = z if r.error == "hebbian" else self.error[i] * (1 - z * z)
            if r.phase_period:
                angle = 2 * math.pi * self.learned / r.phase_period - self.phase[layer][i]
                post *= math.pi * max(0.0, math.cos(angle))
            rates.append(r.eta_local * factor * post)
        least = r.closed_below * math.fsum(map(abs, rates)) / d
        for rate, row in zip(rates, self.weights[layer], strict=True):
            if abs(rate) >= least:
                row[:] = [w + rate * v for w, v in zip(row, pre, strict=True)]

    def _fade(self) -> None:
        r, b = self.rule, self.bias
        for weights in self.weights:
            turn = weights[self.learned % len(weights)]
            turn[:] = [w * (1 - len(weights) * r.decay) for w in turn]
        m = math.ceil(len(b) / 128)
        for v in range(m * (self.learned % 128), min(len(b), m * (self.learned % 128) + m)):
            b[v] *= 1 - 128 * r.bias_decay

    def _bias(self, token: int) -> None:
        r, b, limit = self.rule, self.bias, 32767 / 4096 * LN2
        b[token] = min(b[token] + r.bias_step, limit)
        for v in self.negatives:
            b[v] = max(b[v] - r.bias_step / len(self.negatives), -limit)
