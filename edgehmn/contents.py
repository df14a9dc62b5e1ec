"""What the files of an export hold: weights as integers, each once."""

import hashlib
import re
from collections.abc import Iterable
from contextlib import ExitStack

import numpy as np

from edgehmn.core import Image, ffi
from edgehmn.exported import Export
from edgehmn.files import read_bytes
from edgehmn.inspection import onnx, tflite
from edgehmn.inspection.facts import StoredTensor
from edgehmn.inspection.source import PIECE, Source, opened

LEAST_BYTES = 64  # of a tensor of which a second copy would matter
INCLUDES = b'.incbin \\"model.ehmn\\"'  # in a C source that has no array
READERS = {"onnx": onnx.stored_tensors, "tflite": tflite.stored_tensors}


def encoder_checks(kind: str, export: Export) -> dict[str, int]:
    """Numbers of things that should not be in the encoder's file, of `kind` "onnx" or "tflite": a matrix of floats, the
    same matrix twice, a head. Raises UsageError if there is no such file, InvalidFileError for a damaged one."""
    h = export.image.header
    with ExitStack() as stack:
        source = stack.enter_context(opened(export.folder / f"encoder.{kind}"))
        matrices = [t for t in READERS[kind](source) if sum(n > 1 for n in t.shape) > 1]
        as_large = sum(t.parameters == h.vocab_size * h.d_model for t in matrices)
        return {
            "matrices of floats": sum(t.dtype.startswith(("float", "bfloat")) for t in matrices if _large(t)),
            "matrices stored twice": _repeated(_digest(source, t) for t in matrices if _large(t)),
            "heads beside the embedding": max(0, as_large - 1),
        }


def image_checks(image: Image) -> dict[str, int]:
    """The same of an image, whose types and shapes the core has checked."""
    header = image.header
    n = (header.vectors_offset - header.matrices_offset) // ffi.sizeof("ehmn_matrix")
    digests = []
    for m in ffi.cast("ehmn_matrix *", image.pointer + header.matrices_offset)[0:n]:
        size = m.rows * (m.cols if m.weight_bits == 8 else (m.cols + 1) // 2)
        weights = image.bytes[m.weights_offset : m.weights_offset + size]
        if size >= LEAST_BYTES and np.ptp(weights):
            scales = image.bytes[m.scales_offset : m.scales_offset + 4 * m.rows]
            digests.append(hashlib.sha256(weights.tobytes() + scales.tobytes()).hexdigest())
    return {"matrices stored twice": _repeated(digests)}


def c_array_check(export: Export) -> dict[str, int]:
    """Whether the C array, if there is one, is the image: 0 or 1 under its name. That of a large image has no numbers,
    but includes the file."""
    path = export.folder / "edgehmn_model.c"
    if not path.exists():
        return {}
    source = read_bytes(path)
    if INCLUDES in source and b"= {" not in source:
        return {"C arrays that are another image": 0}
    body = source.partition(b"= {")[2].partition(b"}")[0]
    same = re.fullmatch(rb"[\d,\s]*", body) is not None
    if same:
        numbers = np.array(body.replace(b",", b" ").split(), dtype=np.int64)
        same = np.array_equal(numbers, export.image.bytes)
    return {"C arrays that are another image": int(not same)}


def _large(tensor: StoredTensor) -> bool:
    return tensor.bytes >= LEAST_BYTES


def _digest(source: Source, tensor: StoredTensor) -> str:
    """Of a tensor's bytes; of one that is the same byte throughout, its name: zeros may stand in several places."""
    digest, first, same = hashlib.sha256(), b"", True
    for at in range(tensor.offset, tensor.offset + tensor.bytes, PIECE):
        data = source.read(at, min(PIECE, tensor.offset + tensor.bytes - at))
        first = first or data[:1]
        same = same and data.count(first) == len(data)
        digest.update(data)
    return tensor.name if same else digest.hexdigest()


def _repeated(digests: Iterable[str]) -> int:
    found = list(digests)
    return len(found) - len(set(found))
