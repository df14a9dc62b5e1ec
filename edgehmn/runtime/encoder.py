"""The one contract between any encoder and the one head: a hidden vector of int16 at a declared scale."""

from typing import Protocol

import numpy as np
import numpy.typing as npt


class Encoder(Protocol):
    """Turns a stream of tokens into hidden vectors, one step per token, with a window that slides for ever.

    A hidden vector is the encoder's output before the final norm, as int16 mantissas: its real value is
    mantissa * 2**-hidden_frac. The head (the C core) owns the final norm, adapters, softmax and learning.
    """

    hidden_frac: int
    d_model: int
    vocab_size: int

    def reset(self) -> None:
        """Forget the context: the next step is the first of a stream."""

    def step(self, token: int) -> npt.NDArray[np.int16]:
        """Feed one token; returns the hidden vector (d_model,) that predicts the next one."""
