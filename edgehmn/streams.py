"""Streams of tokens whose hidden vectors are computed once, so that learning can be repeated at the cost of the head.

The encoder is frozen: what it computes depends neither on seeds nor on what is learned.
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np
import numpy.typing as npt

from edgehmn.core import CoreModel, Image, lib
from edgehmn.evaluate import Progress, no_progress
from edgehmn.model import LOG2_E
from edgehmn.runtime.protocol import SCORE_FRAC

Ids = npt.NDArray[np.int32]
Scores = npt.NDArray[np.uint32]

FEED, FOLLOW, LEARN = 0, 1, 2  # what a token does beside being fed: nothing, move the gains, teach everything
HISTORY = lib.EHMN_MAX_ORDER  # tokens that the head looks back at
BLOCK = 512  # tokens between two calls of Progress


@dataclass(frozen=True)
class HiddenStream:
    """A text as the head of an image sees it. ids: (n,); hidden: int16 (n, d_model), after each token, from an empty
    context."""

    image: Image = field(repr=False)
    ids: Ids
    hidden: npt.NDArray[np.int16]

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def encode(cls, image: Image, ids: Ids, progress: Progress = no_progress) -> "HiddenStream":
        model = CoreModel(image, plastic=False)
        hidden = np.empty((len(ids), int(image.header.d_model)), np.int16)
        for i, token in enumerate(ids.tolist()):
            hidden[i] = model.encode(token)
            if i % BLOCK == BLOCK - 1:
                progress(BLOCK)
        progress(len(ids) % BLOCK)
        return cls(image, ids, hidden)

    @property
    def static(self) -> Scores:
        """(n,), of the frozen model: see edgehmn.runtime.protocol."""
        return self._frozen[0]

    @property
    def greedy(self) -> Ids:
        """(n,), the frozen model's most probable token at each place, -1 at the first."""
        return self._frozen[1]

    @cached_property
    def _frozen(self) -> tuple[Scores, Ids]:
        greedy = np.full(len(self), -1, np.int32)
        return play(CoreModel(self.image, plastic=False), self, mode=FEED, greedy=greedy), greedy


def in_nats(scores: Scores) -> npt.NDArray[np.float64]:
    """Scores as natural logarithms."""
    return scores / (LOG2_E * 2.0**SCORE_FRAC)


def open_head(image: Image, seed: int = 0, banks: int = 1) -> CoreModel:
    """A model that is given hidden vectors, with nothing learned."""
    return CoreModel(image, seed=seed, banks=banks)


class Head(Protocol):
    """What is given hidden vectors: see CoreModel."""

    def score(self, token: int) -> int: ...

    def sample(self, temperature: float = 0.0) -> int: ...

    def attend(self, token: int, *, learn: bool, follow: bool) -> None: ...

    def head(self, token: int, hidden: npt.NDArray[np.int16]) -> None: ...


def play(
    head: Head,
    stream: HiddenStream,
    start: int = 0,
    stop: int | None = None,
    *,
    mode: int | npt.NDArray[np.integer] = LEARN,
    greedy: Ids | None = None,
    progress: Progress = no_progress,
) -> Scores:
    """Give tokens start..stop to a head: each is scored, then does what `mode` says, one for all or (n,) of the whole
    stream, then is fed. Goes on from where the head stands: see `rewind`. greedy: (n,), where the most probable tokens
    are put."""
    stop = len(stream) if stop is None else stop
    modes = np.broadcast_to(np.asarray(mode), len(stream))[start:stop].tolist()
    scores = np.empty(stop - start, np.uint32)
    for i, (token, what) in enumerate(zip(stream.ids[start:stop].tolist(), modes, strict=True)):
        scores[i] = head.score(token)
        if greedy is not None and start + i:
            greedy[start + i] = head.sample()
        head.attend(token, learn=what == LEARN, follow=what == FOLLOW)
        head.head(token, stream.hidden[start + i])
        if i % BLOCK == BLOCK - 1:
            progress(BLOCK)
    progress((stop - start) % BLOCK)
    return scores


def rewind(head: CoreModel, stream: HiddenStream, start: int = 0) -> None:
    """Put a head before token `start` of a stream, as if it had been fed all that comes before, and scored nothing."""
    head.reset()
    for i in range(max(0, start - HISTORY), start):
        head.head(int(stream.ids[i]), stream.hidden[i])


def twin_of(head: CoreModel, banks: int) -> CoreModel:
    """Another head that has learned the same in as many banks, with an empty context. The present bank is its first."""
    present = head.topic().bank
    twin = open_head(head.image, banks=banks)
    twin.load(head.save())
    others = [bank for bank in range(banks) if bank != present]
    for place, bank in enumerate(others, start=1):
        delta = head.save_bank(bank)
        if delta is not None:
            twin.load_bank(place, delta)
    return twin
