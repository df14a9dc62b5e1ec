"""Conformance vectors: what any runtime of an image must compute, recorded by the C core at export.

A safetensors file: tokens int32[n]; hidden int16[n, d_model], the encoder's output for each; static uint32[n] and
learning uint32[n], the scores of a fresh model without and with learning (seed 0); delta uint8[...], what was learned;
following uint32[n], the scores after a reset with that delta frozen and its gains following.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgehmn.core import CoreModel, Image
from edgehmn.errors import InvalidFileError
from edgehmn.files import read_bytes, write_bytes

LENGTH = 192  # tokens: more than the reference model's window, so that it slides

Vectors = dict[str, npt.NDArray[np.generic]]


def record_vectors(image: Image, ids: npt.NDArray[np.int32]) -> Vectors:
    tokens = ids[:LENGTH].astype(np.int32)
    encoder = CoreModel(image, plastic=False)
    hidden = np.stack([encoder.encode(t) for t in tokens.tolist()])
    learner = CoreModel(image)
    learning = learner.process(tokens, learn=True)
    delta = learner.save()
    learner.reset()
    return {
        "tokens": tokens,
        "hidden": hidden,
        "static": CoreModel(image).process(tokens, learn=False),
        "learning": learning,
        "delta": np.frombuffer(delta, np.uint8),
        "following": learner.process(tokens, learn=False, follow=True),
    }


def write_vectors(vectors: Vectors, path: Path) -> None:
    import safetensors.numpy

    write_bytes(path, safetensors.numpy.save(vectors))


def read_vectors(path: Path, image: Image) -> Vectors:
    """Raises InvalidFileError unless the file holds exactly what `record_vectors` writes for this image."""
    import safetensors
    import safetensors.numpy

    try:
        vectors: Vectors = safetensors.numpy.load(read_bytes(path))
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError) as e:
        raise InvalidFileError(f"{path}: not a file of conformance vectors ({e})") from e
    n = vectors["tokens"].size if "tokens" in vectors else 0
    expected = {
        "tokens": (np.int32, (n,)),
        "hidden": (np.int16, (n, int(image.header.d_model))),
        "static": (np.uint32, (n,)),
        "learning": (np.uint32, (n,)),
        "delta": (np.uint8, (image.delta_bytes(),)),
        "following": (np.uint32, (n,)),
    }
    if n == 0 or {k: (v.dtype.type, v.shape) for k, v in vectors.items()} != expected:
        raise InvalidFileError(f"{path}: not the conformance vectors of this image")
    tokens = vectors["tokens"]
    if not 0 <= int(tokens.min()) <= int(tokens.max()) < image.vocab_size:
        raise InvalidFileError(f"{path}: has tokens outside the image's vocabulary")
    return vectors
