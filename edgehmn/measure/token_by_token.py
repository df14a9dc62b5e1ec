"""A text fed as a device generates and learns it: one token after the other, not many at once as a prompt."""

import numpy as np
import numpy.typing as npt

from edgehmn.core import CoreModel, check, ffi, lib


def feed(model: CoreModel, ids: npt.NDArray[np.integer], *, learn: bool) -> None:
    """Score, learn if asked, and feed each token. Raises UsageError for one outside the vocabulary."""
    tokens = np.ascontiguousarray(ids, np.uint32)
    scores = np.empty(len(tokens), np.uint32)
    how = lib.EHMN_LEARN if learn else lib.EHMN_FEED
    buffers = (ffi.from_buffer("uint32_t[]", tokens), ffi.from_buffer("uint32_t[]", scores))
    check(lib.ehmn_process(model._model, buffers[0], len(tokens), how, buffers[1], ffi.NULL, 0), "process")
