"""Where an image falls apart: the residual after each layer, of the integers against the float model.

An image that is cut to its first layers is an image like any other, whose hidden vectors are the residual after those
layers: the ordinary core computes them, with nothing built in for the purpose.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edgehmn.checkpoint.model import Checkpoint, FloatArray
from edgehmn.core import CoreModel, Image, ffi, lib
from edgehmn.image import reseal
from edgehmn.model import FloatModel

MAX_DEPTHS = 12  # that are looked at: of a deeper model every so many layers
HEADROOM = 2.0  # how far the integers may go beyond the float model before they saturate
MAX_HIDDEN_FRAC = 14


@dataclass(frozen=True)
class LayerNoise:
    """Signal-to-noise ratio, in dB, of the residual after `depth` layers: of all tokens together, and of the worst."""

    depth: int
    snr: float
    worst_snr: float

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def layer_noise(checkpoint: Checkpoint, image: Image, ids: npt.NDArray[np.int32]) -> list[LayerNoise]:
    """The image against the float model, over a text of tokens ids (n,), after every layer (of MAX_DEPTHS of them)."""
    n_layers, out = int(image.header.n_layers), []
    for depth in np.unique(np.linspace(1, n_layers, min(n_layers, MAX_DEPTHS)).round().astype(int)).tolist():
        model = FloatModel(replace(checkpoint, config=replace(checkpoint.config, n_layers=depth)))
        wanted = model.encode(ids, model.new_state())
        found = residuals(first_layers(image, depth), ids, np.abs(wanted).max(axis=1))
        worst = min(snr(a, b) for a, b in zip(wanted, found, strict=True))
        out.append(LayerNoise(depth, snr(wanted, found), worst))
    return out


def snr(wanted: FloatArray, found: FloatArray) -> float:
    """In dB: the energy of what is wanted over that of the difference; at most 200."""
    signal = float(np.square(wanted, dtype=np.float64).sum())
    noise = float(np.square(wanted - found, dtype=np.float64).sum())
    return 10 * float(np.log10(max(signal, 1e-20) / max(noise, 1e-20 * signal, 1e-40)))


def first_layers(image: Image, depth: int) -> Image:
    """The image of a model of the first `depth` layers, 1..n_layers, with the same head. It has no identity of its
    own (an id of zeros).

    Every section begins at a multiple of 16, directly after the one before, and so does what is left of them.
    """
    data = bytearray(image.bytes.tobytes())
    header = ffi.cast("ehmn_image *", ffi.from_buffer(data))
    per_layer = int(lib.EHMN_MATRICES_PER_LAYER)
    kept, all_layers = per_layer * depth, per_layer * int(header.n_layers)
    record = ffi.sizeof("ehmn_matrix")
    n = (header.vectors_offset - header.matrices_offset) // record
    matrices = list(ffi.cast("ehmn_matrix *", ffi.from_buffer(data) + header.matrices_offset)[0:n])
    vectors = ffi.cast("ehmn_vector *", ffi.from_buffer(data) + header.vectors_offset)[0 : lib.EHMN_VECTORS]
    table = slice(header.matrices_offset + record * kept, header.matrices_offset + record * all_layers)
    weights = slice(matrices[kept].weights_offset, matrices[all_layers].weights_offset)
    in_table, in_all = table.stop - table.start, table.stop - table.start + weights.stop - weights.start
    for moved, less in ((matrices[:kept], in_table), (matrices[all_layers:], in_all)):
        for matrix in moved:
            matrix.weights_offset -= less
            matrix.scales_offset -= less
            matrix.bias_offset -= less if matrix.bias_offset else 0  # 0: it has none
    for vector in vectors:
        vector.offset -= in_all
    norms = vectors[lib.EHMN_VECTOR_NORM_SHIFTS]  # the last section before the guard
    norms.length = 2 * depth * header.d_model
    end = norms.offset + in_all + 4 * norms.length  # in the whole image
    shifts, padding = slice(end, header.guard_offset), -end % lib.EHMN_ALIGN
    in_all += shifts.stop - shifts.start - padding
    header.vectors_offset -= in_table
    header.guard_offset -= in_all
    header.tokenizer_offset -= in_all
    header.n_layers, header.bytes = depth, len(data) - in_all
    header.id = [0] * len(header.id)
    return Image(
        reseal(
            bytearray(bytes(data[: table.start]) + data[table.stop : weights.start])
            + data[weights.stop : shifts.start]
            + bytes(padding)
            + data[shifts.stop :]
        )
    )


def residuals(image: Image, ids: npt.NDArray[np.int32], largest: FloatArray) -> FloatArray:
    """Hidden vectors (n, d_model) of a text, each with as many fractional bits as its expected `largest` magnitude (n,)
    leaves it. The core reads hidden_frac at every step, so it may differ from token to token."""
    model = CoreModel(image, plastic=False)
    room = np.log2(32767 / (HEADROOM * np.maximum(largest, 2.0**-20)))
    out = np.empty((len(ids), int(image.header.d_model)), np.float32)
    for i, (token, frac) in enumerate(zip(ids.tolist(), np.clip(np.floor(room), 0, MAX_HIDDEN_FRAC), strict=True)):
        image.header.hidden_frac = int(frac)
        out[i] = model.encode(token) * np.float32(2.0**-frac)
    return out
