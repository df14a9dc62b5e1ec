"""Sequences A, B, A, B of two kinds of text, and what one learner does on them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from edgehmn.core import CoreModel, Image
from edgehmn.errors import UsageError
from edgehmn.evaluate import Progress, no_progress
from edgehmn.evaluation.people import FIRST_MEASURED
from edgehmn.evaluation.sources import Dialogue, Sources
from edgehmn.evaluation.statistics import running_mean, window_sums
from edgehmn.streams import FOLLOW, LEARN, HiddenStream, Ids, in_nats, open_head, play, twin_of

LENGTH = 10_000  # tokens of a visit
WINDOWS = 40  # of a visit: what intervals are drawn over, and the resolution of curves
VISIT_EDGES = (0.0, 0.05, 0.15, 1.0)  # of a visit: the first 500 tokens of 10,000, the next 1,000, the rest
RECOVERED_NATS = 0.05  # per token, by which the gain of a returning text may still lack
LOOK = 5  # tokens between two looks at the topic
CHARACTERS_PER_TOKEN = 8  # more than any text has

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Kinds:
    """Two kinds of text, as tokens (at least 2.5 visits each), and whether anything was tuned on them."""

    name: str
    tuned: bool
    a: Ids
    b: Ids


def find_kinds(sources: Sources, encode: Callable[[str], Ids], length: int, note: Callable[[str], None]) -> list[Kinds]:
    """The tuned sequence, news and code; and as many of two others as there are texts for, in visits of `length`."""
    characters = CHARACTERS_PER_TOKEN * needed(length)

    def tokens(name: str, text: str) -> Ids:
        ids = encode(text[:characters])[: needed(length)]
        if len(ids) < needed(length):
            raise UsageError(f"p2, {name}: a text of {len(ids)} tokens is too short, {needed(length)} are needed")
        return ids

    out = [Kinds("news-code", True, tokens("news", sources.news()), tokens("code", sources.code(characters, 0)))]
    if sources.has("persona-chat") and sources.has("wikitext-2 valid"):
        a, b = tokens("chat", _talk(sources.dialogues())), tokens("wikipedia", sources.wikitext("valid"))
        out.append(Kinds("chat-wikipedia", False, a, b))
    else:
        note("p2: chat-wikipedia is not run: it needs persona-chat/*.txt and wikitext-2/valid.txt in --data")
    if sources.has("books"):
        a, b = tokens("books", sources.books()), tokens("code", sources.code(characters, 1))
        out.append(Kinds("books-code", False, a, b))
    else:
        note("p2: books-code is not run: it needs text-open/gutenberg*.txt in --data")
    return out


def needed(length: int) -> int:
    """Tokens of each kind: two visits and, between them, half a visit that is held out."""
    return 2 * length + length // 2


def _talk(dialogues: list[Dialogue]) -> str:
    chosen = dialogues[min(FIRST_MEASURED, len(dialogues) // 2) :]
    return "\n".join("".join(f"{t.side}: {t.text}\n" for t in dialogue) for dialogue in chosen)


@dataclass(frozen=True)
class Streams:
    """What is played: A B A B as one stream without marks; A A and B B uninterrupted; held-out parts of both."""

    image: Image
    kinds: Kinds
    length: int
    progress: Progress = no_progress

    @cached_property
    def sequence(self) -> HiddenStream:
        (a1, a2), (b1, b2) = self._visits(self.kinds.a), self._visits(self.kinds.b)
        return self._encode(np.concatenate([a1, b1, a2, b2]))

    @cached_property
    def uninterrupted(self) -> tuple[HiddenStream, HiddenStream]:
        a, b = (np.concatenate(self._visits(ids)) for ids in (self.kinds.a, self.kinds.b))
        return self._encode(a), self._encode(b)

    @cached_property
    def held_out(self) -> tuple[HiddenStream, HiddenStream]:
        middle = slice(self.length, self.length + self.length // 2)
        return self._encode(self.kinds.a[middle]), self._encode(self.kinds.b[middle])

    def _visits(self, ids: Ids) -> tuple[Ids, Ids]:
        return ids[: self.length], ids[len(ids) - self.length :]

    def _encode(self, ids: Ids) -> HiddenStream:
        return HiddenStream.encode(self.image, ids, self.progress)


def encoded_tokens(length: int) -> int:
    """Tokens that a `Streams` encodes."""
    return 9 * length


def played_tokens(length: int) -> int:
    """Tokens that `learn_sequence` plays."""
    return 12 * length


def learn_sequence(streams: Streams, seed: int, banks: int) -> dict[str, Any]:
    """One learner. Losses are sums over windows of a fortieth of a visit; `frozen` are those of the held-out parts of
    A and B after each visit, weights frozen; `changes` are the places at which another topic was entered, `bank` the
    one present after each visit."""
    length, progress = streams.length, streams.progress
    learner = open_head(streams.image, seed, banks)
    online, changes, present, after = [], [], [], []
    for visit in range(4):
        scores, places = _learn(learner, streams.sequence, visit * length, (visit + 1) * length, progress)
        online.append(scores)
        changes += places
        present.append(learner.topic().bank)
        losses = []
        for held_out in streams.held_out:
            frozen = play(twin_of(learner, banks), held_out, mode=FOLLOW, progress=progress)
            losses.append(_windows(in_nats(frozen), length))
        after.append(losses)
    sequence = streams.sequence
    gains = in_nats(sequence.static) - np.concatenate(online)
    out = {
        "static": _windows(in_nats(sequence.static), length),
        "online": _windows(np.concatenate(online), length),
        "held_out_static": [_windows(in_nats(h.static), length) for h in streams.held_out],
        "frozen": after,
        "changes": changes,
        "bank": present,
    }
    for name, stream, returns in zip("ab", streams.uninterrupted, (2, 3), strict=True):
        scores, places = _learn(open_head(streams.image, seed, banks), stream, 0, 2 * length, progress)
        plain = in_nats(stream.static) - scores
        out[f"uninterrupted_{name}"] = _windows(plain, length)
        out[f"changes_{name}"] = places
        lack = plain[length:] - gains[returns * length : (returns + 1) * length]
        out[f"recovery_{name}"] = _recovery(lack, length // WINDOWS)
    return out


def _learn(
    head: CoreModel, stream: HiddenStream, start: int, stop: int, progress: Progress
) -> tuple[Floats, list[int]]:
    """Losses (stop - start,) of a stream that is learned, and the places at which another topic was entered."""
    scores, places = np.zeros(stop - start, np.uint32), []
    for at in range(start, stop, LOOK):
        before, end = head.topic().changes, min(at + LOOK, stop)
        scores[at - start : end - start] = play(head, stream, at, end, mode=LEARN)
        places += [end] * (head.topic().changes - before)
        progress(end - at)
    return in_nats(scores), places


def _windows(values: Floats, length: int) -> list[float]:
    return window_sums(values, max(1, length // WINDOWS)).tolist()


def _recovery(lack: Floats, window: int) -> int:
    """Tokens until the gain lacks at most RECOVERED_NATS, in the mean over the next `window`; the length if never."""
    recovered = np.flatnonzero(running_mean(lack, max(1, window)) <= RECOVERED_NATS)
    return int(recovered[0]) if len(recovered) else len(lack)
