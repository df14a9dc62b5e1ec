"""What happens at the two ends of a window: the start token, and the restart where a window does not slide.

The host does this once for every exported encoder; SPEC.md, "Window", has the rule.
"""

import numpy as np
import numpy.typing as npt

from edgehmn.errors import UsageError
from edgehmn.runtime.encoder import Encoder, Interface


class WindowedEncoder:
    """An encoder of streams without an end, around one that knows a single window.

    A window that restarts encodes up to n_ctx // 2 + 1 tokens before the one that is fed: `encoded` counts them all.
    """

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self.hidden_frac, self.d_model, self.vocab_size = encoder.hidden_frac, encoder.d_model, encoder.vocab_size
        self.encoded = 0  # positions since this object was made, those included whose hidden vectors nobody sees
        self._restarts = encoder.interface.window == "restart"
        self.reset()

    @property
    def interface(self) -> Interface:
        return self._encoder.interface

    def reset(self) -> None:
        """Forget the context: the next step is the first of a stream."""
        self._encoder.reset()
        self._filled = 0  # positions of the present window
        self._recent: list[int] = []  # tokens of the present window that were fed, the start token not among them

    def step(self, token: int) -> npt.NDArray[np.int16]:
        """Feed one token, 0..vocab_size - 1 (else UsageError, and nothing is fed); returns hidden (d_model,)."""
        if not 0 <= token < self.vocab_size:
            raise UsageError(f"token {token} is outside the vocabulary, 0..{self.vocab_size - 1}")
        if not self._restarts:
            self.encoded += 1
            return self._encoder.step(token)
        n_ctx, start = self.interface.n_ctx, self.interface.start_token
        again: list[int] = []
        if self._filled == n_ctx:
            again = self._recent[-(n_ctx // 2) :]
            self.reset()
        if self._filled == 0 and start >= 0:
            self._encode(start)
        for earlier in again:
            self._encode(earlier)
        self._recent = [*again, token] if again else [*self._recent, token]
        return self._encode(token)

    def _encode(self, token: int) -> npt.NDArray[np.int16]:
        self.encoded += 1
        self._filled += 1
        return self._encoder.step(token)
