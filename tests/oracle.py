"""SPEC.md once more, in Python's exact integers: written from the specification, not from the C core, and there to
disagree with it.

Only the places of fields are read from the C headers, through cffi. Everything is written as the specification says
it and not as one would compute it fast: the window is a queue of slots, and a drawn step is a count of points.
"""

from collections.abc import Sequence
from copy import deepcopy

from tests import oracle_state
from tests.exact import Vector, draw, exp2_neg, first_above, log2, sat
from tests.oracle_frozen import Prediction
from tests.oracle_learning import Manner
from tests.oracle_topic import Banks, Topical

SAMPLES = 70  # the stream of draws
HARM_FACTOR = 8


class Oracle(Topical):
    """An image, as SPEC.md says that it behaves. Scores are Q16, logits Q8. `banks`: as many as are lent to it."""

    def __init__(self, image: bytes, seed: int = 0, *, plastic: bool = True, banks: int = 1) -> None:
        self.plastic = plastic
        super().__init__(image, seed)
        self.changes = self.distance = self.rollbacks = 0
        self.banks = Banks(banks)

    def reset(self, position: int = 0) -> None:
        """Forget the context; the next token stands at `position`."""
        super().reset(position)
        self.prediction: Prediction | None = None
        self.sampled = self.followed = 0

    @property
    def logits(self) -> Vector | None:
        return self.prediction.logits if self.prediction else None

    def step(self, token: int) -> None:
        self.head(token, self.encode(token))

    def head(self, token: int, hidden: Sequence[int]) -> None:
        """Predict from the hidden vector that came of feeding `token`."""
        self.history = [token, *self.history[:7]]
        if self.plastic:
            self.prediction, self.taken = self.predict(hidden)
        else:
            self.prediction = Prediction([sat(x, 16) for x in self.wide_logits(self.final_norm(hidden))])

    def score(self, token: int) -> int:
        return self.prediction.score(token) if self.prediction else log2(self.header.vocab_size)

    def sample(self, temperature: int) -> int:
        """temperature: Q8."""
        assert self.prediction is not None
        logits = self.prediction.logits
        top = max(logits)
        if temperature == 0:
            return logits.index(top)
        p = [exp2_neg(256 * (top - x) // temperature) for x in logits]
        r = draw(self.state.seed, SAMPLES, self.sampled)
        self.sampled += 1
        high, low = divmod(sum(p), 1 << 16)
        return first_above(p, (high * r >> 16) + (low * r >> 32))

    # -- Learning

    def learn(self, token: int) -> None:
        """Where the guard forbids to write, only the gains of the delta move, and the weights decay."""
        if self.prediction is None:
            return
        self.copied = None
        harm, rule = self.harm(), self.header.rule
        self.take_in(token, Manner(writes=harm < 2, decays=True, factor=HARM_FACTOR if harm else 1))
        st = self.state
        st.phase = (st.phase + rule.phase_step) % (1 << 32)
        st.learned = (st.learned + 1) % (1 << 64)
        st.age = min(st.age + 1, (1 << 32) - 1)
        self.watch()
        self.take_snapshot()
        self.observe_topic(learning=True)

    def follow(self, token: int) -> None:
        """Learning without writing: a copy of the gains alone moves."""
        if self.prediction is None:
            return
        self.copied = self.copied or deepcopy(self.state.gains)
        self.take_in(token, Manner(writes=False, decays=False))
        self.observe_topic(learning=False)

    # -- Delta

    def save(self) -> bytes:
        return oracle_state.save(self.header, self.state)

    def load(self, delta: bytes) -> None:
        """Take over a sound delta as the present bank."""
        self.state = oracle_state.load(self.header, delta)
        self._changed()

    def forget(self, seed: int) -> None:
        """Begin anew, in every bank."""
        self.state = oracle_state.fresh(self.header, seed)
        self._changed()
        self.banks = Banks(self.banks.n)

    def _changed(self) -> None:
        """What a caller's change of the delta ends."""
        self.sampled = self.followed = self.strange = 0
        self.copied = None
        self.banks.snapshots, self.banks.learned = [], 0

    def save_bank(self, bank: int) -> bytes | None:
        """The delta of a bank, None if it holds nothing."""
        if bank == self.banks.present:
            return self.save()
        stored = self.banks.others().get(bank)
        return oracle_state.save(self.header, stored) if stored else None

    def load_bank(self, bank: int, delta: bytes) -> None:
        if bank == self.banks.present:
            self.load(delta)
        else:
            self.banks.stored[bank] = oracle_state.load(self.header, delta)
