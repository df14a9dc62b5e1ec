"""Any encoder in front of the one head: a Runtime whose hidden vectors come from elsewhere."""

import numpy as np
import numpy.typing as npt

from edgehmn.banks import open_core
from edgehmn.checkpoint.model import WINDOWS
from edgehmn.core import Image, lib
from edgehmn.errors import InvalidFileError
from edgehmn.runtime.encoder import Encoder
from edgehmn.runtime.protocol import Counts
from edgehmn.runtime.window import WindowedEncoder


class EncoderRuntime:
    """An encoder (ONNX, TFLite) with final norm, adapters, softmax and learning in the C core."""

    def __init__(self, encoder: Encoder, image: Image, *, seed: int = 0, banks: int = 1) -> None:
        """Raises InvalidFileError if the encoder was exported for another image."""
        h, i = image.header, encoder.interface
        start = -1 if h.start_token == lib.EHMN_NO_TOKEN else int(h.start_token)
        of_image: dict[str, object] = {
            name: int(getattr(h, name)) for name in ("d_model", "vocab_size", "n_ctx", "hidden_frac")
        }
        of_image |= {"window": WINDOWS[h.window], "start_token": start}
        differing = [f"{k} {getattr(i, k)} instead of {v}" for k, v in of_image.items() if getattr(i, k) != v]
        if differing:
            raise InvalidFileError(f"the encoder does not belong to the image: {', '.join(differing)}")
        self.image_id = image.id
        self._encoder, self._core = WindowedEncoder(encoder), open_core(image, seed, banks)
        self._steps = 0

    def process(self, ids: npt.NDArray[np.integer], *, learn: bool, follow: bool = False) -> npt.NDArray[np.uint32]:
        scores = np.empty(len(ids), np.uint32)
        for i, token in enumerate(ids.tolist()):
            scores[i] = self._core.score(token)
            self._core.attend(token, learn=learn, follow=follow)
            self._feed(token)
        return scores

    def _feed(self, token: int) -> None:
        self._core.head(token, self._encoder.step(token))
        self._steps += 1

    def generate(self, n: int, *, temperature: float = 0.0) -> npt.NDArray[np.int32]:
        return self._core.generate(n, temperature=temperature, feed=self._feed)

    def reset(self) -> None:
        self._encoder.reset()
        self._core.reset()

    def forget(self, seed: int) -> None:
        self._core.forget(seed)

    def save(self) -> bytes:
        return self._core.save()

    def load(self, delta: bytes) -> None:
        self._core.load(delta)

    def counts(self) -> Counts:
        c = self._core.counts()
        return Counts(steps=self._steps, learned=c.learned, writes=c.writes, macs=c.macs, rollbacks=c.rollbacks)

    def close(self) -> None:
        """Nothing is held that the garbage collector does not give back."""
