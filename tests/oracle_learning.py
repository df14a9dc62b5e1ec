"""Learning and following as SPEC.md says them, in Python's exact integers: everything that a delta keeps of a token."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from operator import mul as times

from tests.exact import (
    Vector,
    add,
    cos,
    draw,
    draw_steps,
    exp2_neg,
    follow,
    mul,
    quantise,
    rounded,
    sat,
)
from tests.oracle_frozen import Prediction
from tests.oracle_memories import Plastic, Step

PI_Q13 = 25736
FORESEEN = 38336
NOVELTY_FAST, NOVELTY_SLOW = 3277, 131
RATE_LIMIT = NGRAM_GAIN_LIMIT = 1 << 20
LEAST_SHARE, MOST_SHARE = 66, 62259
ROW_DECAY, ROW_ERROR, FOLLOWING, PHASES = 66, 68, 71, 72  # streams, those of rows for the first of the two
BIAS_TURNS = 128
MAX_WRITTEN = 1 << 31


def within(v: int, low: int, high: int) -> int:
    return max(low, min(high, v))


@dataclass
class Manner:
    """How a token is taken in: `writes` is learning, without it following; `decays`: the weights fade, by `factor`."""

    writes: bool
    decays: bool
    factor: int = 1


class Learning(Plastic):
    """The head that learns."""

    prediction: Prediction | None
    taken: Step  # of the prediction
    followed: int

    def __init__(self, image: bytes, seed: int) -> None:
        super().__init__(image, seed)
        self.updates: list[tuple[Vector, Vector]] = []  # of the last token learned, of each adapter: rates, presynaptic
        self.row_updates: list[tuple[int, Vector]] = []  # of each row that was read

    def take_in(self, token: int, manner: Manner) -> None:
        """Steps 1 to 9 of learning."""
        assert self.prediction is not None
        st = self.state
        stream, counter = (0, st.learned) if manner.writes else (FOLLOWING, self.followed)
        rate, row_rates = self._rates(token) if manner.writes else (0, [0, 0])
        self.updates, self.row_updates = [], []
        if self.prediction.score(token) >= FORESEEN:
            negatives = self.negatives(self.prediction, draw(st.seed, stream, counter) >> 16)
            delta = self._delta(token, negatives)
            error = self.preconditioner.matvec(delta, self._delta_frac(), 20)
            self._move_gains(delta, error)
            if self.header.rule.bias_step:
                self._teach_bias(token, negatives, manner)
            if manner.writes:
                self._teach_dense(error, rate)
                self._teach_rows(error, row_rates)
        self._teach_ngrams(token, manner)
        self._teach_episodes(token, manner)
        if manner.decays:
            self._fade(manner.factor)
        if not manner.writes:
            self.followed += 1

    def _delta_frac(self) -> int:
        return int(self.frac + self.header.rule.n_negatives.bit_length() - 1)

    def _delta(self, token: int, negatives: Vector) -> Vector:
        """The error before the preconditioner."""
        n, f = self.header.rule.n_negatives, self.frac
        delta = self.vocabulary.row(token, f, n)
        for k, count in runs(negatives):
            delta = list(map(add, delta, self.vocabulary.row(k, f, -count)))
        return delta

    # -- Rate

    def _rates(self, token: int) -> tuple[int, Vector]:
        """The rate of the dense adapters and those of the rows, Q24."""
        rule = self.header.rule
        factor = self._factor(token)
        if factor is None:
            return rule.eta_local, list(rule.eta_row)
        return mul(rule.eta_local, factor, 16), [mul(eta, factor, 16) for eta in rule.eta_row]

    def _factor(self, token: int) -> int | None:
        """Q16; None if nothing modulates the rates."""
        rule, st, prediction = self.header.rule, self.state, self.prediction
        if rule.eta_global == 0:
            return None
        assert prediction is not None
        g = rule.w_reward * st.reward.standard_score(prediction.surprise(token), rule.rho_average)
        if rule.w_uncertainty:
            g += rule.w_uncertainty * st.uncertainty.standard_score(prediction.entropy(), rule.rho_average)
        if rule.w_novelty:
            g += rule.w_novelty * st.novelty.standard_score(self._shift(), rule.rho_average)
        return max(0, add(65536, mul(rule.eta_global, sat(rounded(g, 16)), 16)))

    def _shift(self) -> int:
        topic = self.state.topic
        for k, rate in enumerate((NOVELTY_FAST, NOVELTY_SLOW)):
            topic[k] = [follow(m, x, rate) for m, x in zip(topic[k], self.taken.x, strict=True)]
        apart = [abs(sat(rounded(a - b, 4))) for a, b in zip(*topic, strict=True)]
        return sat(sum(a * a >> 8 for a in apart) // len(apart))

    def _moved_gain(self, gain: int, change: int) -> int:
        rule = self.header.rule
        return within(add(gain, mul(sat(change), rule.eta_gain, 16)), 0, rule.gain_max)

    def _move_gains(self, delta: Vector, error: Vector) -> None:
        rule, st, gains, frac = self.header.rule, self.state, self.gains, self._delta_frac()
        for layer, z in enumerate(self.taken.z):
            gains.dense[layer] = self._moved_gain(gains.dense[layer], rounded(sum(map(times, z, error)), 19))
        for k, slot in self.taken.rows:
            change = rounded(sum(map(times, st.rows[k][slot], error)), rule.row_frac + 4)
            gains.row[k] = self._moved_gain(gains.row[k], change)
        total = sat(sum(mul(a, b, frac) for a, b in zip(self.taken.plain, delta, strict=True)))
        gains.scale = within(add(gains.scale, mul(total, rule.eta_scale, self.frac + 8)), 0, rule.gain_max)

    # -- Dense adapters

    def _teach_dense(self, error: Vector, rate: int) -> None:
        st = self.state
        for layer, adapter in enumerate(st.dense):
            pre, g = self._presynaptic(layer)
            rates = self._open([self._unit_rate(layer, i, e, rate, g) for i, e in enumerate(error)])
            self.updates.append((rates, pre))
            steps = draw_steps(rates, pre, draw(st.seed, 1 + layer, st.learned) >> 8)
            for weights, row in zip(adapter, steps, strict=True):
                self._take(weights, row)

    def _fade(self, factor: int) -> None:
        """The decay of dense weights and biases."""
        rule, st, bias = self.header.rule, self.state, self.state.bias
        for layer, adapter in enumerate(st.dense):
            turn = adapter[st.learned % self.header.d_model]
            self._take_from_line(turn, -min(rule.decay_row * factor, (1 << 24) - 1), turn, 33 + layer)
        decay = min(rule.bias_decay * factor, 65535)
        m = -(-len(bias) // BIAS_TURNS)
        first = m * (st.learned % BIAS_TURNS)
        for v in range(first, min(first + m, len(bias))):
            bias[v] -= rounded(bias[v] * decay, 16)

    def _presynaptic(self, layer: int) -> tuple[Vector, int]:
        rule, st = self.header.rule, self.state
        if rule.kappa == 0 and rule.beta_attention == 0:
            return self.taken.b[layer]
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
        cosine = cos(self.state.phase - fixed_phase(rule.phase_seed, layer, i))
        return mul(cosine, PI_Q13, 13) if cosine > 0 else 0

    def _unit_rate(self, layer: int, i: int, error: int, rate: int, g: int) -> int:
        post = mul(mul(error, 32768 - (self.taken.z[layer][i] ** 2 >> 15), 15), self._gate(layer, i), 15)
        return within(mul(post, rate, 20 - self.header.rule.weight_frac + g), -RATE_LIMIT, RATE_LIMIT)

    def _open(self, rates: Vector) -> Vector:
        """Those below closed_below times the mean are zero."""
        least = sum(map(abs, rates)) * self.header.rule.closed_below // len(rates) >> 16
        return [0 if abs(r) < least else r for r in rates]

    def _take(self, weights: Vector, steps: Vector) -> None:
        weights[:] = [within(w + s, -127, 127) for w, s in zip(weights, steps, strict=True)]
        self.state.writes = (self.state.writes + sum(map(abs, steps))) % (1 << 64)

    def _take_from_line(self, weights: Vector, rate: int, pre: Vector, stream: int) -> None:
        """The steps of one row of weights."""
        st = self.state
        self._take(weights, draw_steps([rate], pre, draw(st.seed, stream, st.learned) >> 8)[0])

    # -- Rows

    def _teach_rows(self, error: Vector, rates: Vector) -> None:
        rule, st = self.header.rule, self.state
        for k, slot in self.taken.rows:
            r = st.rows[k][slot]
            self._take_from_line(r, -rule.decay_visit, r, ROW_DECAY + k)
            pre, g = quantise(error, 20, 8)
            rate = within(mul(rates[k], 1, g - rule.row_frac), -RATE_LIMIT, RATE_LIMIT)
            self.row_updates.append((rate, pre))
            self._take_from_line(r, rate, pre, ROW_ERROR + k)

    # -- Bias

    def _teach_bias(self, token: int, negatives: Vector, manner: Manner) -> None:
        rule, st = self.header.rule, self.state
        n, bias = rule.n_negatives, st.bias
        log_n = n.bit_length() - 1
        self.gains.bias = self._moved_gain(
            self.gains.bias, rounded(n * bias[token] - sum(bias[k] for k in negatives), log_n - 4)
        )
        if manner.writes:
            bias[token] = sat(bias[token] + rule.bias_step, 16)
            for k, count in runs(negatives):
                bias[k] = sat(bias[k] + rounded(-count * rule.bias_step, log_n), 16)

    # -- n-grams

    def _teach_ngrams(self, token: int, manner: Manner) -> None:
        rule, st, prediction = self.header.rule, self.state, self.prediction
        assert prediction is not None
        hits = {hit.o: hit for hit in self.taken.hits}
        for o, table, slot, tag in self.taken.slots:
            if o in hits:
                count, its = hits[o].count, hits[o].token
                surprise = (65536 if its == token else 0) - prediction.probability(its)
                gain = add(self.gains.ngram[o][count], mul(surprise, rule.eta_ngram, 16))
                self.gains.ngram[o][count] = within(gain, -NGRAM_GAIN_LIMIT, NGRAM_GAIN_LIMIT)
            if manner.writes:
                st.ngrams[table][slot] = self._counted(st.ngrams[table][slot], token, tag)

    @staticmethod
    def _counted(slot: tuple[int, int, int], token: int, tag: int) -> tuple[int, int, int]:
        its, its_tag, count = slot
        if count and (its, its_tag) == (token, tag):
            return its, its_tag, min(15, count + 1)
        return (its, its_tag, count // 2) if count // 2 else (token, tag, 1)

    # -- Episodes

    def _teach_episodes(self, token: int, manner: Manner) -> None:
        rule, st, taken = self.header.rule, self.state, self.taken
        if taken.bucket is not None:
            share = follow(self.gains.share[taken.bucket], taken.responsibility.get(token, 0), rule.eta_episode)
            self.gains.share[taken.bucket] = within(share, LEAST_SHARE, MOST_SHARE)
        if rule.episodes and manner.writes:
            place = st.written % rule.episodes
            st.keys[place], st.tokens[place] = self.key(taken.x), token
            st.written += 1
            if st.written >= MAX_WRITTEN:
                st.written = rule.episodes + st.written % rule.episodes


@cache
def fixed_phase(seed: int, layer: int, i: int) -> int:
    """The phase of a unit, one of sixteen, in turns * 2**32."""
    return draw(seed, PHASES + layer, i) & 0xF0000000


def runs(negatives: Vector) -> Iterator[tuple[int, int]]:
    """Token and length of each run of equal consecutive negatives."""
    return ((token, len(list(group))) for token, group in groupby(negatives))
