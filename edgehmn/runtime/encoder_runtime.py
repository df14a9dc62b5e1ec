"""Any encoder in front of the one head: a Runtime whose hidden vectors come from elsewhere."""

import numpy as np
import numpy.typing as npt

from edgehmn.core import CoreModel, Image
from edgehmn.errors import InvalidFileError
from edgehmn.runtime.encoder import Encoder
from edgehmn.runtime.protocol import Counts


class EncoderRuntime:
    """An encoder (ONNX, TFLite) with final norm, adapters, softmax and learning in the C core."""

    def __init__(self, encoder: Encoder, image: Image, *, seed: int = 0) -> None:
        """Raises InvalidFileError if the encoder was exported for another image."""
        h = image.header
        if (encoder.d_model, encoder.vocab_size, encoder.hidden_frac) != (
            h.d_model,
            h.vocab_size,
            h.hidden_frac,
        ):
            raise InvalidFileError(
                f"the encoder (d_model {encoder.d_model}, vocabulary {encoder.vocab_size}, hidden_frac "
                f"{encoder.hidden_frac}) does not belong to the image ({h.d_model}, {h.vocab_size}, {h.hidden_frac})"
            )
        self.image_id = image.id
        self._encoder, self._core = encoder, CoreModel(image, seed=seed)
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
        out = np.empty(n, np.int32)
        for i in range(n):
            out[i] = self._core.sample(temperature)
            self._feed(int(out[i]))
        return out

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
