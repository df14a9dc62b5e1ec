"""The plastic forward pass of SPEC.md in Python's exact integers: what the adapters make of the final norm's output,
and what the memories of words add to its logits."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from operator import mul as times

from tests import oracle_state
from tests.exact import (
    Vector,
    add,
    context_hash,
    cos,
    exp2_neg,
    first_above,
    follow,
    log2,
    mul,
    quantise,
    rms_normalise,
    rounded,
    sat,
    tanh,
)
from tests.oracle_frozen import SCORE_BITS, Frozen, Prediction
from tests.oracle_state import Gains, State

MAX_RECALLED = 16
LEVEL_ABOVE = 1024


@dataclass
class Hit:
    """An n-gram slot that belongs to the context: its order's place in the rule, its count and its token."""

    o: int
    count: int
    token: int


@dataclass
class Step:
    """What learning needs to know of the prediction that it follows."""

    hidden: Vector
    x: Vector = field(default_factory=list)  # standardised, Q20
    b: list[tuple[Vector, int]] = field(default_factory=list)
    z: list[Vector] = field(default_factory=list)
    rows: list[tuple[int, int]] = field(default_factory=list)  # k - 1 and slot of each row that was read
    plain: Vector = field(default_factory=list)
    slots: list[tuple[int, int, int, int]] = field(default_factory=list)  # o, table, slot and tag of each order
    hits: list[Hit] = field(default_factory=list)
    bucket: int | None = None  # of the share that was used; None if nothing was recalled
    responsibility: dict[int, int] = field(default_factory=dict)  # of each recalled token, Q16


class Plastic(Frozen):
    """The head with adapters and memories of words."""

    def __init__(self, image: bytes, seed: int) -> None:
        super().__init__(image)
        self.state: State = oracle_state.fresh(self.header, seed)
        self.reset()

    def reset(self, position: int = 0) -> None:
        super().reset(position)
        self.history: Vector = []  # tokens fed, the newest first
        self.copied: Gains | None = None  # the gains that following moves, while it lasts

    @property
    def gains(self) -> Gains:
        return self.copied or self.state.gains

    def adapt(self, h: Vector, step: Step) -> Vector:
        """The adapted output of the final norm."""
        rule, st = self.header.rule, self.state
        step.x = self.standardised(h)
        total = [0] * len(h)
        for layer, trace in enumerate(st.trace):
            st.trace[layer] = [follow(t, x, 65536 - rule.rho_trace[layer]) for t, x in zip(trace, step.x, strict=True)]
            b, z = self.dense(layer, st.trace[layer])
            total = [add(a, mul(y, self.gains.dense[layer], 15)) for a, y in zip(total, z, strict=True)]
            step.b.append(b)
            step.z.append(z)
        for k in (0, 1):
            if rule.row_slots[k] and len(self.history) > k:
                slot = self.slot(k + 1, rule.row_slots[k])
                row = st.rows[k][slot]
                total = [add(a, mul(r, self.gains.row[k], rule.row_frac)) for a, r in zip(total, row, strict=True)]
                step.rows.append((k, slot))
        step.plain = h
        return self.scaled(h, total)

    def standardised(self, h: Vector) -> Vector:
        shift = self.inverse_deviation_shift
        apart = zip(h, self.mean, self.inverse_deviation, strict=True)
        return rms_normalise([mul(sat(a - b), c, shift) for a, b, c in apart], self.frac, 0, 0)

    def dense(self, layer: int, trace: Vector) -> tuple[tuple[Vector, int], Vector]:
        """Mantissas that a dense adapter reads, with their fractional bits, and its outputs z."""
        b, g = quantise(trace, 20, 8)
        shift = self.header.rule.weight_frac + g - 16
        return (b, g), [tanh(sat(rounded(sum(map(times, w, b)), shift))) for w in self.state.dense[layer]]

    def scaled(self, h: Vector, total: Vector) -> Vector:
        added = self.preconditioner.matvec(total, 16, self.frac)
        return [add(mul(a, self.gains.scale, 16), b) for a, b in zip(h, added, strict=True)]

    def biased(self, logits: Vector) -> Vector:
        st = self.state
        if self.header.rule.bias_step:
            logits = [a + mul(b, self.gains.bias, 20) for a, b in zip(logits, st.bias, strict=True)]
        return [sat(x, 16) for x in logits]

    # -- Contexts

    def slot(self, k: int, n: int) -> int:
        return context_hash(self.history[:k]) * n >> 32

    def orders(self) -> Iterator[tuple[int, int, int]]:
        """(o, index of its table, tokens of context) of each order that is on."""
        rule = self.header.rule
        if rule.ngram_slots:
            on = [(o, k) for o, k in enumerate(rule.ngram_order) if k]
            yield from ((o, table, k) for table, (o, k) in enumerate(on))

    # -- Memories of words

    def recall_ngrams(self, logits: Vector, step: Step) -> int:
        """The level of the logits afterwards."""
        st, level = self.state, max(logits)
        for o, table, k in self.orders():
            if len(self.history) < k:
                continue
            slot, tag = self.slot(k, self.header.rule.ngram_slots), context_hash(self.history[:k]) % 1024
            step.slots.append((o, table, slot, tag))
            token, its_tag, count = st.ngrams[table][slot]
            if count and its_tag == tag:
                before = logits[token]
                logits[token] = sat(logits[token] + rounded(self.gains.ngram[o][count], 8), 16)
                step.hits.append(Hit(o, count, token))
                if logits[token] > level or before >= level - LEVEL_ABOVE > logits[token]:
                    level = max(logits)
        return level

    def key(self, x: Vector) -> int:
        return sum(1 << j for j, v in enumerate(x) if v > 0)

    def recall_episodes(self, logits: Vector, level: int, step: Step) -> dict[int, int]:
        """The logits of the recalled tokens."""
        rule, st = self.header.rule, self.state
        n = min(rule.episodes, st.written)
        if n == 0:
            return {}
        key = self.key(step.x)
        apart = sorted(((key ^ st.keys[i]).bit_count(), i) for i in range(n))[: min(MAX_RECALLED, n)]
        near = [cos((hamming << 31) // self.header.d_model) for hamming, _ in apart]
        e = [mul(32768 - similarity, rule.sharpness, 15) for similarity in near]
        w = [exp2_neg(x - e[0]) for x in e]
        step.bucket = max(0, near[0]) >> 11
        share = self.gains.share[step.bucket]
        odds = (share << 16) // (65536 - share)
        before = Prediction(logits, top=level)
        extra = (before.mass >> 8) * odds >> 8
        weights: dict[int, int] = {}
        changed: dict[int, int] = {}
        for weight, (_, i) in zip(w, apart, strict=True):
            weights[st.tokens[i]] = weights.get(st.tokens[i], 0) + weight
        for token, c in weights.items():
            its = (extra >> 8) * ((c << 16) // sum(w)) >> 8
            both = before.p[token] + its
            step.responsibility[token] = (its << 16) // both if both else 0
            if both:
                changed[token] = sat(before.top + rounded(log2(both) - SCORE_BITS, 8), 16)
        return changed

    def predict(self, hidden: Sequence[int]) -> tuple[Prediction, Step]:
        step = Step(list(hidden))
        h = self.adapt(self.final_norm(hidden), step)
        logits = self.biased(self.wide_logits(h))
        level = self.recall_ngrams(logits, step)
        return Prediction(logits, self.recall_episodes(logits, level, step), level), step

    # -- What learning reads of a prediction

    def negatives(self, prediction: Prediction, u: int) -> Vector:
        """u: an offset of 16 bits."""
        n = self.header.rule.n_negatives
        step = prediction.mass // n
        return [first_above(prediction.p, (step * u >> 16) + s * step) for s in range(n)]
