"""What every place that runs a model can do: the host, an emulated board, a real one."""

from dataclasses import astuple, dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edgehmn.model import LOG2_E

SCORE_FRAC = 16  # checked against EHMN_SCORE_FRAC by edgehmn.core


@dataclass(frozen=True)
class Counts:
    """What a runtime has done since it was opened.

    Multiply-accumulates cover all products of vectors; writes are single steps of plastic weights; rollbacks are the
    guard's. Instructions are counted by an emulated board only, for feeding (scoring included) and, apart, for
    learning or following.
    """

    steps: int
    learned: int
    writes: int
    macs: int
    rollbacks: int = 0
    step_instructions: int | None = None
    learn_instructions: int | None = None

    def since(self, start: "Counts") -> "Counts":
        """What was done after `start` was read."""
        pairs = zip(astuple(self), astuple(start), strict=True)
        difference: list[Any] = [None if now is None else now - before for now, before in pairs]
        return Counts(*difference)

    def plus(self, more: "Counts") -> "Counts":
        """What both did together; instructions only if both counted them."""
        pairs = zip(astuple(self), astuple(more), strict=True)
        total: list[Any] = [None if a is None or b is None else a + b for a, b in pairs]
        return Counts(*total)

    @property
    def writes_per_learned_token(self) -> float:
        return self.writes / max(1, self.learned)


class Runtime(Protocol):
    """A model that is being run. Scores are -log2 p in bits, uint32 with SCORE_FRAC fractional bits."""

    image_id: str

    def process(self, ids: npt.NDArray[np.integer], *, learn: bool, follow: bool = False) -> npt.NDArray[np.uint32]:
        """Feed tokens: each is scored against the prediction, learned if asked, and then fed. Returns the scores. With
        `follow` instead, what was learned is frozen but for its gains: see ehmn_follow."""

    def generate(self, n: int, *, temperature: float = 0.0) -> npt.NDArray[np.int32]:
        """Continue for n tokens, feeding each; temperature 0 takes the most probable token, 1 draws from the
        prediction."""

    def reset(self) -> None:
        """Forget the context; what was learned stays."""

    def forget(self, seed: int) -> None:
        """Forget all that was learned; draws start again at `seed`."""

    def save(self) -> bytes:
        """The delta: what was learned."""

    def load(self, delta: bytes) -> None:
        """Take over a delta. Raises InvalidFileError if it is damaged or belongs to another image."""

    def counts(self) -> Counts:
        """What was done since the runtime was opened."""

    def close(self) -> None:
        """Give everything back. Closing twice is allowed."""


def nats(scores: npt.NDArray[np.uint32]) -> float:
    """Sum of scores, in nats."""
    return float(scores.astype(np.uint64).sum()) / (1 << SCORE_FRAC) / LOG2_E


def perplexity(scores: npt.NDArray[np.uint32]) -> float:
    """exp(mean nats per token)."""
    return float(np.exp(nats(scores) / len(scores)))
