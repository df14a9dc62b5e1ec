"""A person who types, and a model that suggests the next word and learns each line, through lost links."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from edgehmn.core import Image
from edgehmn.errors import DeviceError, LinkLostError
from edgehmn.gate import Scores, Verdict, judge
from edgehmn.runtime.protocol import Runtime, nats

CONTEXT = 32  # tokens of what was typed before that a prediction sees
SUGGESTED = 5  # tokens that a suggestion is made of at most
KEEP_LINES = 8  # between two copies of what was learned
AGAIN_S = 60.0  # for a board to come back
PAUSE_S = 1.0

Result = TypeVar("Result")
Ids = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Line:
    """What one line cost. keys: strokes that typing it takes, one for each character and its end; saved: of those, by
    accepting each suggestion that was right, with one stroke; bits: of its tokens, before they were learned."""

    keys: int
    saved: int
    tokens: int
    bits: float


class LiveSession:
    """Lines are learned in turn. Each begins anew from the last tokens before it, so that what was learned depends on
    the lines alone: a session that lost its board, and did the lines since the last copy again, ends in the same
    delta."""

    def __init__(
        self,
        open_runtime: Callable[[], AbstractContextManager[Runtime]],
        encode: Callable[[str], Ids],
        decode: Callable[[Ids], str],
        keep: Callable[[bytes], None] = lambda delta: None,
        start: bytes | None = None,
        note: Callable[[str], None] = lambda text: None,
        gate: Image | None = None,
    ) -> None:
        """open_runtime: opens the board, and opens it again when it was lost. keep: gets a copy of what was learned
        every few lines. start: what was learned before, instead of what the runtime brings. gate: the image, if what
        was learned is to be judged at the end, and settled or refused: see edgehmn.gate."""
        self._open, self._encode, self._decode, self._keep, self._note = open_runtime, encode, decode, keep, note
        self._stack = ExitStack()
        self._runtime = self._stack.enter_context(open_runtime())
        self._gate = gate
        self.verdict: Verdict | None = None
        self._rolled_back = [0, 0]  # by the guard: of runtimes that were lost, of this one
        self._scores: list[Scores] = []
        self._kept = self._start = self._runtime.save() if start is None else start
        self._since: list[tuple[Ids, Ids]] = []  # context and tokens of the lines since the copy
        self._text: Ids = np.empty(0, np.int32)
        if start is not None:
            self._runtime.load(start)

    def suggest(self, typed: str) -> str:
        """The word that is expected after `typed`, a line so far; empty if none is."""
        return self._done(lambda runtime: self._suggest(runtime, typed))

    def line(self, text: str) -> Line:
        """Count what suggestions would have saved in a line that was typed, and learn it."""
        saved, typed = 0, ""
        for word in text.split(" "):
            if word and self.suggest(typed) == word:
                saved += len(word)  # and the space: one stroke accepts both
            typed += f"{word} "
        tokens = self._encode(f"{text}\n")
        context = self._text[-CONTEXT:]
        scores = self._done(lambda runtime: _learn(runtime, context, tokens))
        self._scores.append(scores)
        self._since.append((context, tokens))
        self._text = np.concatenate([context, tokens])
        if len(self._since) == KEEP_LINES:
            self._copy()
        return Line(len(text) + 1, saved, len(tokens), nats(scores) / float(np.log(2)))

    def close(self) -> bytes:
        """Keep the last copy, close the runtime, and return what was learned: what the gate leaves of it. A session
        without a line keeps nothing."""
        try:
            if self._since:
                self._copy()
            if self._gate is not None and self._scores:
                self._judge(self._gate)
        finally:
            self._stack.close()
        return self._kept

    def abandon(self) -> None:
        """Close the runtime and let go of what was learned since the last copy."""
        self._stack.close()

    @property
    def rollbacks(self) -> int:
        """How often the guard undid what was learned, up to the last copy."""
        return sum(self._rolled_back)

    def _judge(self, image: Image) -> None:
        verdict, state = judge(image, self._kept, np.concatenate(self._scores))
        self.verdict = replace(verdict, state="rolled back") if self.rollbacks else verdict
        state = self._start if self.verdict.refused else state
        if state != self._kept:
            self._kept = state
            self._done(lambda runtime: runtime.load(state))
            self._keep(state)

    def _copy(self) -> None:
        self._kept, self._rolled_back[1] = self._done(lambda runtime: (runtime.save(), runtime.counts().rollbacks))
        self._since.clear()
        self._keep(self._kept)

    def _suggest(self, runtime: Runtime, typed: str) -> str:
        ids = np.concatenate([self._text, self._encode(typed.rstrip(" "))])[-CONTEXT:]
        if not len(ids):
            return ""
        runtime.reset()
        runtime.process(ids, learn=False)
        words = self._decode(runtime.generate(SUGGESTED)).lstrip(" ").split()
        return words[0] if words else ""

    def _done(self, do: Callable[[Runtime], Result]) -> Result:
        """Do it, and where the link is lost, again when all that was learned is there again."""
        lost: LinkLostError | None = None
        deadline = 0.0
        while True:
            try:
                if lost is not None:
                    self._restore()
                return do(self._runtime)
            except (LinkLostError, DeviceError) as e:
                if not isinstance(e, LinkLostError) and lost is None:
                    raise
                now = time.monotonic()
                if lost is None:
                    lost = e if isinstance(e, LinkLostError) else None
                    deadline = now + AGAIN_S
                    self._note("the link was lost; waiting for the board")
                if now >= deadline:
                    raise lost or e from e
                time.sleep(PAUSE_S)

    def _restore(self) -> None:
        self._stack.close()
        self._rolled_back = [sum(self._rolled_back), 0]
        self._runtime = self._stack.enter_context(self._open())
        self._runtime.load(self._kept)
        for context, tokens in self._since:
            _learn(self._runtime, context, tokens)
        self._note(f"the board is back; {len(self._since)} lines were learned again")


def _learn(runtime: Runtime, context: Ids, tokens: Ids) -> Scores:
    runtime.reset()
    runtime.process(context, learn=False)
    return runtime.process(tokens, learn=True)
