"""The one perplexity protocol: the whole text streamed once from an empty context, every token scored before
it is fed (and learned), total negative log-likelihood over tokens, words and bytes.

The first token, for which there is no context, scores log(vocab_size). Words are counted as in WikiText: the
words of each line and its end.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from edgehmn.checkpoint.model import Checkpoint
from edgehmn.model import CHUNK, LOG2_E, FloatModel
from edgehmn.runtime.protocol import Runtime, nats

Progress = Callable[[int], None]  # told how many tokens more are done
MAX_EXPONENT = 709.0  # of exp in float64
BLOCK = 64  # tokens between two calls of Progress


@dataclass(frozen=True)
class Perplexity:
    """Total negative log-likelihood of a text, and what it is divided by."""

    nats: float
    tokens: int
    words: int
    bytes: int

    @property
    def token(self) -> float:
        return _exp(self.nats / self.tokens)

    @property
    def word(self) -> float:
        return _exp(self.nats / self.words)

    @property
    def bits_per_byte(self) -> float:
        return self.nats * LOG2_E / self.bytes

    def summary(self) -> dict[str, float]:
        """The keys that every JSON result uses."""
        return {"token": self.token, "word": self.word, "bits_per_byte": self.bits_per_byte}

    def as_dict(self) -> dict[str, float]:
        return self.summary() | asdict(self)


def _exp(x: float) -> float:
    """exp, infinite where it leaves the range of a float: words of a text without spaces have no finite perplexity."""
    return math.exp(x) if x < MAX_EXPONENT else math.inf


def count_words(text: str) -> int:
    return len(text.split()) + text.count("\n")


def no_progress(_: int) -> None:
    """For those who do not want to know."""


def score_stream(
    runtime: Runtime,
    ids: npt.NDArray[np.int32],
    *,
    learn: bool,
    follow: bool = False,
    progress: Progress = no_progress,
) -> npt.NDArray[np.uint32]:
    """Scores of all tokens, block by block, so that progress can be shown. learn, follow: see Runtime.process."""
    parts = []
    for start in range(0, len(ids), BLOCK):
        parts.append(runtime.process(ids[start : start + BLOCK], learn=learn, follow=follow))
        progress(len(parts[-1]))
    return np.concatenate(parts) if parts else np.zeros(0, np.uint32)


def text_perplexity(
    runtime: Runtime,
    checkpoint_encode: Callable[[str], npt.NDArray[np.int32]],
    text: str,
    *,
    learn: bool = False,
    progress: Progress = no_progress,
) -> Perplexity:
    """Perplexity of `text` on a runtime whose context is empty."""
    ids = checkpoint_encode(text)
    scores = score_stream(runtime, ids, learn=learn, progress=progress)
    return Perplexity(nats(scores), len(ids), count_words(text), len(text.encode()))


def float_perplexity(checkpoint: Checkpoint, text: str, progress: Progress = no_progress) -> Perplexity:
    """The same for the float model, static."""
    ids = checkpoint.encode(text)
    model = FloatModel(checkpoint)
    state = model.new_state()
    total = float(np.log(checkpoint.config.vocab_size))
    for start in range(0, len(ids), CHUNK):
        hidden = model.encode(ids[start : start + CHUNK], state)
        targets = ids[start + 1 : start + 1 + len(hidden)]
        total -= float(model.log_p(hidden[: len(targets)], targets).sum(dtype=np.float64))
        progress(len(hidden))
    return Perplexity(total, len(ids), count_words(text), len(text.encode()))
