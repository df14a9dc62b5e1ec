"""The core and the oracle, side by side through the same calls, compared bit for bit after each."""

from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Any

from edgehmn.core import CoreModel
from tests import oracle_state
from tests.models import logits, opened
from tests.oracle import Oracle

HOWS = ("learn", "follow", "none")


def differing_fields(header: Any, a: bytes, b: bytes) -> dict[str, tuple[Any, Any]]:
    """Name and both values of whatever differs in two deltas of an image; else the place of the first other byte."""
    one, other = oracle_state.load(header, a), oracle_state.load(header, b)
    both = {f.name: (getattr(one, f.name), getattr(other, f.name)) for f in fields(one)}
    named = {name: pair for name, pair in both.items() if pair[0] != pair[1]}
    return named or {f"byte {i}": (x, y) for i, (x, y) in enumerate(zip(a, b, strict=True)) if x != y and i >= 16}


class Pair:
    """`core` and `oracle` of one image. Every method does the same to both and compares what can be seen of them."""

    def __init__(self, image: bytes, seed: int = 7, *, banks: int = 1) -> None:
        self.core = CoreModel(opened(image), seed=seed, banks=banks)
        self.oracle = Oracle(image, seed, banks=banks)
        self.n_banks, self.taken_in = banks, 0
        self.compare("at first")

    def compare(self, when: str) -> None:
        ours, expected = self.core.save(), self.oracle.save()
        if ours != expected:
            raise AssertionError(f"{when}: {differing_fields(self.oracle.header, ours, expected)}")

    def take(self, token: int, how: str = "learn") -> None:
        """Score a token, learn or follow it, and feed it."""
        when = f"token {self.taken_in}, to {how}"
        assert self.core.score(token) == self.oracle.score(token), f"score of {when}"
        if how != "none":
            for model in (self.core, self.oracle):
                getattr(model, how)(token)
            self.compare(f"after {when}")
        self.step(token)
        self.taken_in += 1

    def step(self, token: int) -> None:
        self.core.step(token)
        self.oracle.step(token)
        assert logits(self.core) == self.oracle.logits, f"logits after token {self.taken_in}"

    def take_all(self, ids: Iterable[int], how: str | Sequence[str] = "learn") -> "Pair":
        """Take in tokens in one manner, or in several in turn."""
        turns = [how] if isinstance(how, str) else how
        for i, token in enumerate(ids):
            self.take(int(token), turns[i % len(turns)])
        self.compare_banks()
        return self

    def compare_banks(self) -> None:
        topic = self.core.topic()
        assert topic.bank == self.oracle.banks.present
        assert (topic.changes, round(topic.distance * 65536)) == (self.oracle.changes, self.oracle.distance)
        for bank in range(self.n_banks):
            ours, expected = self.core.save_bank(bank), self.oracle.save_bank(bank)
            assert (ours is None) == (expected is None), f"whether bank {bank} holds something"
            if ours and expected and ours != expected:
                raise AssertionError(f"bank {bank}: {differing_fields(self.oracle.header, ours, expected)}")
        assert topic.banks == sum(self.core.save_bank(bank) is not None for bank in range(self.n_banks))
        assert self.core.counts().rollbacks == self.oracle.rollbacks

    def reset(self) -> None:
        self.core.reset()
        self.oracle.reset()

    def load(self, delta: bytes) -> None:
        self.core.load(delta)
        self.oracle.load(delta)
        self.compare("after loading")

    def forget(self, seed: int) -> None:
        self.core.forget(seed)
        self.oracle.forget(seed)
        self.compare("after forgetting")

    def load_bank(self, bank: int, delta: bytes) -> None:
        self.core.load_bank(bank, delta)
        self.oracle.load_bank(bank, delta)

    def sample(self, temperature: int) -> int:
        """temperature: Q8."""
        token = self.oracle.sample(temperature)
        assert self.core.sample(temperature / 256) == token, f"sample after token {self.taken_in}"
        return token
