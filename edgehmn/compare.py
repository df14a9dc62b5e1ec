"""How far two learned states of one image are apart: weights, memories, gains, and what each does to a text."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgehmn.core import CoreModel, Image
from edgehmn.delta import Array, Delta
from edgehmn.evaluate import Progress, no_progress, score_stream
from edgehmn.gate import guard_rise
from edgehmn.runtime.protocol import perplexity

Ids = npt.NDArray[np.int32]
ONE = 65536  # of gains


@dataclass(frozen=True)
class Weights:
    """Plastic weights of one kind, in steps of their least bit. rms: root mean square, of a state or of the difference;
    cosine: 1 if both point the same way, None if one of them is zero."""

    name: str
    n: int
    differing: int
    rms_a: float
    rms_b: float
    rms_difference: float
    cosine: float | None


@dataclass(frozen=True)
class Memory:
    """Entries of a memory of words; shared: those that both states have, wherever they lie."""

    name: str
    entries_a: int
    entries_b: int
    shared: int


def compare(image: Image, a: bytes, b: bytes) -> dict[str, Any]:
    """Two deltas: `weights`, `memories`, `gains` {name: [a, b]}, and the rise of the guard's perplexity by each, in per
    cent. Raises InvalidFileError for what is no delta of this image."""
    first, second = Delta.read(image, a), Delta.read(image, b)
    return {
        "same": a == b,
        "weights": [asdict(w) for w in _weights(first, second)],
        "memories": [asdict(m) for m in _memories(first, second)],
        "gains": _gains(image, first, second),
        "guard_rise_percent": [100 * (2 ** guard_rise(image, state) - 1) for state in (a, b)],
    }


def _weights(a: Delta, b: Delta) -> list[Weights]:
    kinds = [(f"dense adapter {i + 1}", a.dense[i], b.dense[i]) for i in range(len(a.dense))]
    kinds += [("row adapters", a.rows, b.rows), ("bias of tokens", a.bias, b.bias)]
    return [_difference(name, x, y) for name, x, y in kinds if x.size]


def _difference(name: str, a: Array, b: Array) -> Weights:
    x, y = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    lengths = float(np.linalg.norm(x) * np.linalg.norm(y))

    def rms(v: Array) -> float:
        return float(np.sqrt(np.mean(v * v)))

    return Weights(
        name=name,
        n=x.size,
        differing=int(np.count_nonzero(x != y)),
        rms_a=rms(x),
        rms_b=rms(y),
        rms_difference=rms(x - y),
        cosine=float(x @ y) / lengths if lengths else None,
    )


def _memories(a: Delta, b: Delta) -> list[Memory]:
    out = []
    for order in range(len(a.ngrams)):
        entries = [{(i, int(v) & 0x0FFFFFFF) for i, v in enumerate(d.ngrams[order]) if v} for d in (a, b)]
        out.append(Memory(f"n-grams {order + 1}", len(entries[0]), len(entries[1]), len(entries[0] & entries[1])))
    if a.keys.shape[1]:
        episodes = [{(k.tobytes(), int(t)) for k, t in zip(d.keys, d.tokens, strict=True)} for d in (a, b)]
        out.append(Memory("episodes", len(a.tokens), len(b.tokens), len(episodes[0] & episodes[1])))
    return out


def _gains(image: Image, a: Delta, b: Delta) -> dict[str, list[float]]:
    """Means over what has several: orders and counts of n-grams, similarities of episodes."""
    n = int(image.header.n_dense)
    places = {"scale": (0, 1), "bias": (1, 2), "rows": (2, 4), "dense": (4, 4 + n), "ngrams": (12, 76),
              "episodes": (76, 92)}  # fmt: skip
    return {
        name: [float(np.mean(d.gains[start:stop]) / ONE) for d in (a, b)]
        for name, (start, stop) in places.items()
        if stop > start
    }


def text_perplexities(
    image: Image, states: list[bytes | None], ids: Ids, progress: Progress = no_progress
) -> list[float]:
    """Perplexity of a text with each state, from an empty context, weights frozen and gains following; None stands for
    the frozen model."""
    out = []
    for state in states:
        model = CoreModel(image, plastic=state is not None)
        if state is not None:
            model.load(state)
        out.append(perplexity(score_stream(model, ids, learn=False, follow=state is not None, progress=progress)))
    return out
