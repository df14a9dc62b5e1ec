"""On-device personalisation: learn the first part of a text, measure on the rest what it was worth."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgehmn.errors import UsageError
from edgehmn.evaluate import Progress, no_progress, score_stream
from edgehmn.model import LOG2_E
from edgehmn.runtime.protocol import SCORE_FRAC, Counts, Runtime, perplexity

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
    delta: bytes  # what was learned: the state of all banks

    @property
    def fall(self) -> float:
        """Share by which the perplexity of the second part fell."""
        return 1 - self.after / self.before


def personalise(runtime: Runtime, ids: npt.NDArray[np.int32], *, progress: Progress = no_progress) -> Personalisation:
    """Learn the first half of `ids`, score the second before and after. The runtime keeps what it learned and is
    left with an empty context. Progress counts len(ids) + len(second half) tokens."""
    half = len(ids) // 2
    if half < 2:
        raise UsageError(f"a text of {len(ids)} tokens is too short: at least 4 are needed to learn and to score")
    first, second = ids[:half], ids[half:]
    runtime.reset()
    before = score_stream(runtime, second, learn=False, follow=True, progress=progress)
    runtime.reset()
    start = runtime.counts()
    online = score_stream(runtime, first, learn=True, progress=progress)
    learning = runtime.counts().since(start)
    runtime.reset()
    delta = runtime.save()
    after = score_stream(runtime, second, learn=False, follow=True, progress=progress)
    runtime.reset()
    return Personalisation(
        tokens=len(ids),
        before=perplexity(before),
        after=perplexity(after),
        online=perplexity(online),
        unigram_cache=cached_perplexity(before, first, second),
        learning=learning,
        delta=delta,
    )


def cached_perplexity(
    scores: npt.NDArray[np.uint32], seen: npt.NDArray[np.int32], scored: npt.NDArray[np.int32]
) -> float:
    """Perplexity of `scored`, whose model scores are given, mixed with the unigram counts of `seen`."""
    p_model = np.exp2(-(scores / 2.0**SCORE_FRAC))
    counts = np.bincount(seen, minlength=int(max(seen.max(), scored.max())) + 1)
    p_cache = counts[scored] / len(seen)
    bits = [-np.log2((1 - w) * p_model + w * p_cache).mean() for w in MIXTURES]
    return float(np.exp(min(bits) / LOG2_E))
