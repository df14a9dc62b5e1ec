"""Topic, banks and guard as SPEC.md says them, in Python's exact integers."""

from copy import deepcopy
from dataclasses import dataclass, field
from math import isqrt

from tests import oracle_state
from tests.exact import Vector, add, div_round, exp2_neg, follow, log2, mul, round_shift, rounded, sat
from tests.oracle_frozen import SCORE_BITS
from tests.oracle_learning import Learning, within
from tests.oracle_state import State

OBSERVE_EVERY, FIRST_OBSERVATION, FAST_LENGTH = 16, 48, 40
MOST_APART, MOST_WANDER = 1 << 21, 1 << 24
SETTLED, PATIENCE, MOST_CHECKS, FIRST_SPREAD, SPREAD_CHECKS, WIDE_CHECKS = 20, 6, 256, 78643, 160, 40
SNAPSHOT_EVERY = 256
FAR = 1 << 62  # beyond any distance
COUNTERS = ("seed", "learned", "writes", "phase")
WATCH_EVERY, EXCESS_LIMIT, EXCESS_RATE = 64, 1 << 20, 2048


@dataclass
class Banks:
    """n deltas, of which one is the present one, and the snapshots of that one. With one bank there are no others."""

    n: int
    stored: dict[int, State] = field(default_factory=dict)  # those that were left or loaded, by number
    present: int = 0
    snapshots: list[State] = field(default_factory=list)  # the last two since the bank was entered, the older first
    learned: int = 0  # tokens since then

    def others(self) -> dict[int, State]:
        return {i: st for i, st in sorted(self.stored.items()) if i != self.present}

    def older_snapshot(self) -> State | None:
        return self.snapshots[0] if len(self.snapshots) == 2 else None


class Topical(Learning):
    """The head that learns, with an eye on its topic and on harm."""

    banks: Banks
    changes: int  # of topic
    distance: int  # Q16, of the last look at the topic from the centre
    rollbacks: int

    def reset(self, position: int = 0) -> None:
        super().reset(position)
        self.fast: Vector = [0] * self.header.d_model
        self.seen = self.strange = 0

    # -- Topic

    def observe_topic(self, *, learning: bool) -> None:
        if self.header.rule.topic_limit == 0:
            return
        self.seen += 1
        rate = 65536 // min(self.seen, FAST_LENGTH)
        self.fast = [follow(m, x, rate) for m, x in zip(self.fast, self.taken.x, strict=True)]
        if self.seen % OBSERVE_EVERY == 0 and self.seen >= FIRST_OBSERVATION:
            self._place(self.topic_matrix.matvec(self.fast, 20, 12), learning=learning)

    def _place(self, y: Vector, *, learning: bool) -> None:
        st, rule = self.state, self.header.rule
        if st.checks == 0:
            if learning:
                self._centre(y)
            return
        here = Place(st, y)
        reach = self._reach(st)
        self.distance = here.distance
        others = self.banks.others().items()
        away, bank = min(((Place(o, y).distance, i) for i, o in others if o.checks), default=(FAR, 0))
        if away < FAR and away < self._reach(self.banks.stored[bank]) and away + rule.topic_margin < here.distance:
            self._enter(bank)
        elif learning:
            self.strange = self.strange + 1 if here.distance > reach and st.checks >= SETTLED else 0
            if self.strange >= (PATIENCE if away < here.distance else 1):
                self._begin(y)
            elif st.checks < SETTLED or 8 * here.distance <= 5 * reach:
                self._learn_place(y, here, reach)

    def _reach(self, st: State) -> int:
        base = max(23 * st.spread // 8, self.header.rule.topic_limit)
        return sat(base + 7 * base * WIDE_CHECKS // (8 * (WIDE_CHECKS + st.checks)))

    def _centre(self, y: Vector) -> None:
        st = self.state
        st.centre, st.wander, st.checks, st.spread = y, [0] * len(y), 1, FIRST_SPREAD

    def _learn_place(self, y: Vector, here: "Place", reach: int) -> None:
        st = self.state
        total = mean_square(here.square, len(y))
        along = div_round(here.along * st.spread, total) if total > st.spread else here.along
        rate = 65536 // max(2, st.checks) if here.length else 65536
        parts = [within(round_shift(along * e, 12), -MOST_WANDER, MOST_WANDER) for e in here.apart]
        st.wander = [follow(w, part, rate) for w, part in zip(here.wander, parts, strict=True)]
        st.checks = min(st.checks + 1, MOST_CHECKS)
        st.centre = [follow(c, v, 65536 // st.checks) for c, v in zip(st.centre, y, strict=True)]
        st.spread = follow(st.spread, min(here.distance, reach), 65536 // (SPREAD_CHECKS + st.checks))

    # -- Banks

    def _begin(self, y: Vector) -> None:
        """The topic is new."""
        banks = self.banks
        if banks.n > 1:
            unused = [i for i in range(banks.n) if i != banks.present and i not in banks.stored]
            self._leave(unused[0] if unused else min(banks.others(), key=lambda i: banks.stored[i].age))
        self.changes += 1
        self._centre(y)
        self.strange = self.state.age = 0

    def _enter(self, bank: int) -> None:
        before = self.state
        self._leave(bank)
        self.state = going_on(self.banks.stored[bank], before, (*COUNTERS, *oracle_state.AVERAGES))
        self.changes += 1
        self.strange = 0
        self.copied = None

    def _leave(self, entered: int) -> None:
        """Store the present bank, of which nothing is kept that is newer than a snapshot if two were taken."""
        banks = self.banks
        banks.stored[banks.present] = deepcopy(banks.older_snapshot() or self.state)
        banks.present, banks.snapshots, banks.learned = entered, [], 0

    def take_snapshot(self) -> None:
        """After a token was learned."""
        banks = self.banks
        banks.learned += 1
        if banks.n > 1 and banks.learned % SNAPSHOT_EVERY == 0:
            banks.snapshots = [*banks.snapshots, deepcopy(self.state)][-2:]

    # -- Guard

    def harm(self) -> int:
        """How many of the limits (once, twice, four times guard_limit) guard_excess exceeds."""
        limit = self.header.rule.guard_limit
        return sum(self.state.guard_excess > limit * k for k in (1, 2, 4)) if limit else 0

    def watch(self) -> None:
        """When the present token is counted as learned."""
        st, h = self.state, self.header
        if not (h.rule.guard_limit and h.n_guard) or st.learned % WATCH_EVERY:
            return
        i = (st.learned // WATCH_EVERY - 1) % h.n_guard
        excess = within(self.guard_score(i) - self.guard[i].bits, -EXCESS_LIMIT, EXCESS_LIMIT)
        st.guard_excess = follow(st.guard_excess, excess, EXCESS_RATE)
        if self.harm() == 3:
            old = self.banks.older_snapshot() or oracle_state.fresh(h, st.seed)
            self.state = going_on(old, st, COUNTERS)
            self.state.guard_excess = 0
            self.rollbacks += 1

    def guard_score(self, i: int) -> int:
        """Score of the token of guard vector i by the present state, Q16 bits."""
        guard = self.guard[i]
        hidden = [sat(rounded(m, guard.frac - self.header.hidden_frac), 16) for m in self.guard_mantissas[i]]
        h = self.final_norm(hidden)
        x, total = self.standardised(h), [0] * len(h)
        for layer, gain in enumerate(self.gains.dense):
            _, z = self.dense(layer, x)
            total = [add(a, mul(y, gain, 15)) for a, y in zip(total, z, strict=True)]
        logits = self.biased(self.wide_logits(self.scaled(h, total)))
        level, mass = -32767, 0
        for first in range(0, len(logits), self.guard_block()):
            block = logits[first : first + self.guard_block()]
            if max(block) > level:
                mass = (mass >> 8) * exp2_neg(max(block) - level) >> 16
                level = max(block)
            mass += sum(exp2_neg(level - x) for x in block)
        return max(0, log2(mass) - SCORE_BITS + 256 * (level - logits[guard.token]))

    def guard_block(self) -> int:
        """Tokens whose logits are made at a time."""
        h = self.header
        return int(max(h.d_model + 2 * (h.d_model // h.n_heads) * h.n_kv_heads, 2 * h.d_hidden) // 3 * 2)


def going_on(old: State, before: State, names: tuple[str, ...]) -> State:
    """A copy of an old state in which some things are as they were just before."""
    out = deepcopy(old)
    for name in names:
        setattr(out, name, getattr(before, name))
    return out


class Place:
    """Where y lies as seen from a topic."""

    def __init__(self, st: State, y: Vector) -> None:
        self.apart = [within(sat(a - b), -MOST_APART, MOST_APART) for a, b in zip(y, st.centre, strict=True)]
        self.wander = [within(w, -MOST_WANDER, MOST_WANDER) for w in st.wander]
        self.square = sum(e * e for e in self.apart)
        self.length = isqrt(sum(w * w for w in self.wander))
        product = sum(e * w for e, w in zip(self.apart, self.wander, strict=True))
        self.along = div_round(product, self.length) if self.length else isqrt(self.square)
        self.distance = mean_square(self.square - (self.along**2 if self.length else 0), len(y))


def mean_square(total: int, n: int) -> int:
    """Q16 of a sum of squares in Q24."""
    return sat((total >> 8) // n) if total > 0 else 0
