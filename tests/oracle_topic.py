"""Topic, banks and guard as SPEC.md says them, in Python's exact integers."""

from copy import deepcopy
from dataclasses import dataclass, field

from tests import oracle_state
from tests.exact import Vector, add, follow, mul, rounded, sat
from tests.oracle_frozen import Prediction
from tests.oracle_learning import Learning, within
from tests.oracle_state import State

OBSERVE_EVERY, FIRST_OBSERVATION, FAST_UNTIL, FAST_RATE = 16, 48, 64, 1024
SETTLED, MOST_CHECKS, STRANGE_ENOUGH, FAMILIAR_ENOUGH = 20, 128, 3, 2
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
        self.seen = self.strange = self.familiar = 0

    # -- Topic

    def observe_topic(self, *, learning: bool) -> None:
        if self.header.rule.topic_limit == 0:
            return
        self.seen += 1
        rate = 65536 // self.seen if self.seen < FAST_UNTIL else FAST_RATE
        self.fast = [follow(m, x, rate) for m, x in zip(self.fast, self.taken.x, strict=True)]
        if self.seen % OBSERVE_EVERY == 0 and self.seen >= FIRST_OBSERVATION:
            self._place(self.topic_matrix.matvec(self.fast, 20, 12), learning=learning)

    def _place(self, y: Vector, *, learning: bool) -> None:
        st, rule = self.state, self.header.rule
        if st.checks == 0:
            if learning:
                st.centre, st.checks = y, 1
            return
        d = self.distance = distance(y, st.centre)
        known, bank = self._nearest_other(y)
        self.familiar = self.familiar + 1 if known < rule.topic_limit and known + rule.topic_margin < d else 0
        if self.familiar == FAMILIAR_ENOUGH:
            self._enter(bank)
        elif learning:
            strange = d > rule.topic_limit and st.checks >= SETTLED
            self.strange = self.strange + 1 if strange else 0
            if self.strange == STRANGE_ENOUGH:
                self._begin(y)
            elif not strange:
                st.checks = min(st.checks + 1, MOST_CHECKS)
                st.centre = [follow(c, v, 65536 // st.checks) for c, v in zip(st.centre, y, strict=True)]

    def _nearest_other(self, y: Vector) -> tuple[int, int]:
        """Distance and number of the nearest of the other banks that have a centre."""
        others = self.banks.others().items()
        return min(((distance(y, st.centre), i) for i, st in others if st.checks), default=(FAR, 0))

    # -- Banks

    def _begin(self, y: Vector) -> None:
        """The topic is new."""
        banks = self.banks
        if banks.n > 1:
            unused = [i for i in range(banks.n) if i != banks.present and i not in banks.stored]
            self._leave(unused[0] if unused else min(banks.others(), key=lambda i: banks.stored[i].age))
        self.changes += 1
        self.strange = self.familiar = 0
        self.state.centre, self.state.checks, self.state.age = y, 1, 0

    def _enter(self, bank: int) -> None:
        before = self.state
        self._leave(bank)
        self.state = going_on(self.banks.stored[bank], before, (*COUNTERS, *oracle_state.AVERAGES))
        self.changes += 1
        self.strange = self.familiar = 0
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
        return Prediction(self.biased(self.wide_logits(self.scaled(h, total)))).score(guard.token)


def going_on(old: State, before: State, names: tuple[str, ...]) -> State:
    """A copy of an old state in which some things are as they were just before."""
    out = deepcopy(old)
    for name in names:
        setattr(out, name, getattr(before, name))
    return out


def distance(y: Vector, centre: Vector) -> int:
    """Mean squared distance, Q16."""
    apart = [sat(a - b) for a, b in zip(y, centre, strict=True)]
    return sat(sum(a * a >> 8 for a in apart) // len(y))
