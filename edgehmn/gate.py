"""The gate: what was learned may stay only if it leaves ordinary text as it was, and is worth something.

The image's guard, hidden vectors of ordinary text, says what a learned state does to such text. Learning any text
costs the guard something, and honest text too much for a limit of one per cent. So the gate does not refuse it: it
*settles* a state, by turning its gains at rest down until the guard is within the limit. Weights and memories stay, and
in use the gains follow the text: where what was learned helps, they are up again within some hundred tokens.

Three things are refused, and the state from before the text comes back: learning that the device's own guard rolled
back, weights at their limits, and a stretch of text that the model knew word for word before it was learned (one line,
one token, over and over). All of it is integer arithmetic, the same on every machine.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgehmn.banks import join, split
from edgehmn.core import CoreModel, Image, ffi
from edgehmn.delta import Delta
from edgehmn.runtime.protocol import SCORE_FRAC

LIMIT_PERCENT = 1.0  # by which perplexity of the guard may rise
STEPS = 256  # of gains, between none and as learned: ehmn_settle
MAX_SATURATED = 0.02  # share of the weights of a kind that may stand at their limit; ordinary learning: 0.0003
KNOWN_TOKENS, KNOWN_BITS = 256, 0.1  # so many tokens in a row, at so few bits each, teach nothing

Scores = npt.NDArray[np.uint32]


@dataclass(frozen=True)
class Verdict:
    """state: "ok", "settled", or why it was refused: "saturated", "one class", "rolled back". rise_percent: of the
    guard's perplexity over the frozen model's, as learned; kept_rise_percent: as kept. gains: share of the gains at
    rest that was kept. saturated: share of the weights at their limit."""

    state: str
    rise_percent: float
    kept_rise_percent: float
    gains: float
    saturated: float

    @property
    def refused(self) -> bool:
        return self.state not in ("ok", "settled")


def judge(image: Image, state: bytes, scores: Scores) -> tuple[Verdict, bytes]:
    """What to make of a state that was learned from tokens with these scores, and the state to keep, if it may be."""
    rise, full = guard_rise(image, state), saturated(image, state)
    kept, gains = settle(image, state)
    kept_rise = guard_rise(image, kept)
    reason = "settled" if gains < 1 else "ok"
    if full > MAX_SATURATED:
        reason = "saturated"
    elif one_class(scores) is not None:
        reason = "one class"
    return Verdict(reason, _percent(rise), _percent(kept_rise), gains, full), kept


def _percent(bits: float) -> float:
    return float(100 * (2**bits - 1))


def guard_rise(image: Image, state: bytes) -> float:
    """Bits by which the guard's mean loss lies above the frozen model's, in the worst bank; 0 without a guard."""
    n = max(1, int(image.header.n_guard))
    return max(_rise(image, delta) for delta in split(state)) / n / 2**SCORE_FRAC


def _rise(image: Image, delta: bytes) -> int:
    """The same, summed over the guard, in the units of scores."""
    n = int(image.header.n_guard)
    if n == 0:
        return 0
    model = CoreModel(image)
    model.load(delta)
    frozen = ffi.cast("ehmn_guard *", image.pointer + image.header.guard_offset)
    return sum(model.guard_score(i) - int(frozen[i].bits) for i in range(n))


def settle(image: Image, state: bytes) -> tuple[bytes, float]:
    """A state whose guard is within the limit, and the share of its gains at rest that it kept, of its worst bank."""
    settled = [_settle(image, delta) for delta in split(state)]
    return join([delta for delta, _ in settled]), min(kept for _, kept in settled) / STEPS


def _settle(image: Image, delta: bytes) -> tuple[bytes, int]:
    model = CoreModel(image)
    model.load(delta)
    kept = model.settle()
    return model.save() if kept < STEPS else delta, kept


def saturated(image: Image, state: bytes) -> float:
    """The share of the weights of one kind that stand at their limit, of the kind and bank where it is largest."""
    return max((share for delta in split(state) for share in _at_limit(Delta.read(image, delta))), default=0.0)


def _at_limit(delta: Delta) -> Iterator[float]:
    for values in (delta.dense, delta.rows, delta.bias):
        if values.size:
            yield float(np.mean(np.abs(values.astype(np.int32)) >= np.iinfo(values.dtype).max))


def one_class(scores: Scores) -> int | None:
    """Where the first stretch begins that had nothing to teach: KNOWN_TOKENS tokens whose scores, before each was
    learned, have a mean below KNOWN_BITS. None if there is none."""
    if len(scores) < KNOWN_TOKENS:
        return None
    sums = np.concatenate([[0], np.cumsum(scores, dtype=np.uint64)]).astype(np.int64)
    found = np.flatnonzero(sums[KNOWN_TOKENS:] - sums[:-KNOWN_TOKENS] < int(KNOWN_TOKENS * KNOWN_BITS * 2**SCORE_FRAC))
    return int(found[0]) if len(found) else None
