"""On-device personalisation: learn the first part of a text, measure on the rest what it was worth."""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from edgehmn.core import Image
from edgehmn.errors import UsageError
from edgehmn.evaluate import Progress, no_progress, score_stream
from edgehmn.gate import Verdict, judge
from edgehmn.model import LOG2_E
from edgehmn.resume import Keeper, Reached
from edgehmn.runtime.protocol import SCORE_FRAC, Counts, Runtime, perplexity

SECTION = 1024  # tokens that are learned in one go: what an interruption costs at most
CONTEXT = 64  # tokens before it that a section sees
Ids = npt.NDArray[np.int32]

MIXTURES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5)  # weights of the cache that are tried; the best one counts


@dataclass(frozen=True)
class Personalisation:
    """Token perplexities. before, after: second part, weights frozen and the gains following, each from an empty
    context. online: first part, each token scored before it was learned. unigram_cache: second part, the model before
    learning mixed with the token counts of the first part, by the weight that is best in hindsight."""

    tokens: int
    before: float
    after: float
    online: float
    unigram_cache: float
    learning: Counts  # of the first part
    delta: bytes  # what was learned: the state of all banks; what was there before, if that was refused
    verdict: Verdict | None = None  # of the gate

    @property
    def fall(self) -> float:
        """Share by which the perplexity of the second part fell."""
        return 1 - self.after / self.before


def personalise(
    runtime: Runtime,
    ids: npt.NDArray[np.int32],
    *,
    progress: Progress = no_progress,
    gate: Image | None = None,
    keeper: Keeper | None = None,
    banks: int = 1,
) -> Personalisation:
    """Learn the first half of `ids`, score the second before and after. The runtime keeps what it learned and is
    left with an empty context. Progress counts len(ids) + len(second half) tokens.

    gate: the runtime's image; what was learned is then judged, settled or refused, see edgehmn.gate. keeper: keeps how
    far this has come, and brings what an interrupted one reached; the end is the same to the bit. Who has put the state
    where it belongs removes what it keeps. banks: of the runtime.
    """
    half = learned_part(ids)
    first, second = ids[:half], ids[half:]
    reached = _begin(runtime, second, progress, gate is not None, keeper)
    reached = _learn(runtime, first, reached, progress, keeper, banks)
    delta, verdict = reached.delta, None
    if gate is not None:
        verdict, delta = _judged(gate, reached)
        if delta != reached.delta:
            runtime.load(delta)
    after = score_stream(runtime, second, learn=False, follow=True, progress=progress)
    runtime.reset()
    return Personalisation(
        tokens=len(ids),
        before=perplexity(reached.before),
        after=perplexity(after),
        online=perplexity(reached.online),
        unigram_cache=cached_perplexity(reached.before, first, second),
        learning=reached.learning,
        delta=delta,
        verdict=verdict,
    )


def learned_part(ids: Ids) -> int:
    """How many tokens of a text are learned: the first half. Raises UsageError for a text that is too short."""
    if len(ids) < 4:
        raise UsageError(f"a text of {len(ids)} tokens is too short: at least 4 are needed to learn and to score")
    return len(ids) // 2


def _begin(runtime: Runtime, second: Ids, progress: Progress, gated: bool, keeper: Keeper | None) -> Reached:
    """Score the second half with nothing learned, or take up what an interrupted personalisation reached."""
    reached = None if keeper is None else keeper.read()
    if reached is not None:
        progress(len(reached.before) + len(reached.online))
        runtime.load(reached.delta)
        runtime.reset()
        return reached
    runtime.reset()
    before = score_stream(runtime, second, learn=False, follow=True, progress=progress)
    runtime.reset()
    start = b"" if keeper is None and not gated else runtime.save()
    reached = Reached(before, np.empty(0, np.uint32), start, start, Counts(0, 0, 0, 0, 0, 0, 0))
    if keeper is not None:
        keeper.write(reached)
    return reached


def _learn(
    runtime: Runtime, first: Ids, reached: Reached, progress: Progress, keeper: Keeper | None, banks: int
) -> Reached:
    """Learn the rest of the first half, section by section. Each section begins with a reset and the last tokens before
    it, so that it depends on the state and the text alone; a state of several banks is loaded again, as it is after an
    interruption, because banks hold more than their state."""
    for at in range(len(reached.online), len(first), SECTION):
        if at and banks > 1:
            runtime.load(reached.delta)
        runtime.reset()
        began = runtime.counts()
        runtime.process(first[max(0, at - CONTEXT) : at], learn=False)
        online = score_stream(runtime, first[at : at + SECTION], learn=True, progress=progress)
        learning = reached.learning.plus(runtime.counts().since(began))
        runtime.reset()
        last = at + SECTION >= len(first)
        delta = runtime.save() if last or keeper is not None or banks > 1 else b""
        reached = replace(reached, online=np.concatenate([reached.online, online]), delta=delta, learning=learning)
        if keeper is not None:
            keeper.write(reached)
    return reached


def _judged(image: Image, reached: Reached) -> tuple[Verdict, bytes]:
    """The verdict, and the state that stays: settled, or that from before the text."""
    verdict, delta = judge(image, reached.delta, reached.online)
    if reached.learning.rollbacks:
        verdict = replace(verdict, state="rolled back")
    return verdict, reached.start if verdict.refused else delta


def cached_perplexity(
    scores: npt.NDArray[np.uint32], seen: npt.NDArray[np.int32], scored: npt.NDArray[np.int32]
) -> float:
    """Perplexity of `scored`, whose model scores are given, mixed with the unigram counts of `seen`."""
    p_model = np.exp2(-(scores / 2.0**SCORE_FRAC))
    counts = np.bincount(seen, minlength=int(max(seen.max(), scored.max())) + 1)
    p_cache = counts[scored] / len(seen)
    bits = [-np.log2((1 - w) * p_model + w * p_cache).mean() for w in MIXTURES]
    return float(np.exp(min(bits) / LOG2_E))
