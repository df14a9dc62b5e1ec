"""A text fed as a device generates and learns it: one token after the other, not many at once as a prompt."""

import itertools
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from edgehmn.core import CoreModel, check, ffi, lib


def stretches(ids: npt.NDArray[np.integer], n: int) -> Iterator[npt.NDArray[np.integer]]:
    """n tokens of a text, the next n, and so on, from its beginning again where it ends. What is timed while it learns
    must be new to it: tokens that are foreseen cost little."""
    pieces = [ids[i : i + n] for i in range(0, max(1, len(ids) - n + 1), n)]
    return itertools.cycle(pieces)


def feed(model: CoreModel, ids: npt.NDArray[np.integer], *, learn: bool) -> None:
    """Score, learn if asked, and feed each token. Raises UsageError for one outside the vocabulary."""
    tokens = np.ascontiguousarray(ids, np.uint32)
    scores = np.empty(len(tokens), np.uint32)
    how = lib.EHMN_LEARN if learn else lib.EHMN_FEED
    buffers = (ffi.from_buffer("uint32_t[]", tokens), ffi.from_buffer("uint32_t[]", scores))
    check(lib.ehmn_process(model._model, buffers[0], len(tokens), how, buffers[1], ffi.NULL, 0), "process")
