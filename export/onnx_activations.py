"""How much each product of the ONNX encoder loses to int8, and which of them need finer inputs: measured, per product.

What decides is the signal-to-noise ratio of the product's output, see edgehmn.precision.
"""

from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from edgehmn.checkpoint.model import Checkpoint, FloatArray
from edgehmn.errors import UsageError
from edgehmn.export.onnx import RESIDUE_STEPS, products
from edgehmn.model import FloatModel
from edgehmn.precision import NoiseMeter
from edgehmn.quantize import WEIGHT_LIMIT, quantise_rows

MEASURED_TOKENS = 256  # their mean is stable to some tenths of a decibel
INT8_LEAST_DB = 38.0  # above it, int8 inputs cost no perplexity that could be measured; see DESIGN.md


@dataclass(frozen=True)
class ProductNoise:
    """Signal-to-quantisation-noise ratios of one product, in decibels: of its int8 weights alone, and of its inputs
    alone in int8 and in int16. activation: what was chosen."""

    name: str
    weights_db: float
    int8_db: float
    int16_db: float
    activation: str

    def as_dict(self) -> dict[str, float | str]:
        """For JSON, in hundredths of a dB."""
        return {k: v if isinstance(v, str) else round(v, 2) for k, v in asdict(self).items()}


def choose_activations(
    checkpoint: Checkpoint, ids: npt.NDArray[np.integer], least_db: float = INT8_LEAST_DB
) -> tuple[dict[str, str], list[ProductNoise]]:
    """What `export_encoder` takes as its activations, and the table behind it, in the order of the products.

    ids: of ordinary text; the first MEASURED_TOKENS are used. Inputs are int8 where that leaves at least `least_db`,
    else int16. Raises UsageError where there are no ids, or one is outside the vocabulary.
    """
    vocab_size = checkpoint.config.vocab_size
    ids = np.asarray(ids)[:MEASURED_TOKENS]
    if len(ids) == 0 or ids.min() < 0 or ids.max() >= vocab_size:
        raise UsageError(f"at least one token is needed to measure activations, and all in 0..{vocab_size - 1}")
    model = _MeasuredModel(checkpoint)
    model.encode(ids, model.new_state())
    table = []
    for name, parts in products(checkpoint.config).items():
        weights, int8, int16 = model.meter.decibels(*parts)
        table.append(ProductNoise(name, weights, int8, int16, "int8" if int8 >= least_db else "int16"))
    return {row.name: row.activation for row in table}, table


class _MeasuredModel(FloatModel):
    """The float model, which notes what quantising each matrix and its inputs would have cost."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__(checkpoint)
        self.meter = NoiseMeter()

    def _matrix(self, name: str, x: FloatArray) -> FloatArray:
        out, weight = super()._matrix(name, x), self.tensors[name]
        signal = out - self.tensors.get(f"{name}.bias", np.float32(0))
        mantissas, scale = quantise_rows(weight)
        weight_error = (mantissas * scale[:, None] - weight).astype(np.float32)
        noise = (x @ weight_error.T, (int8_rows(x) - x) @ weight.T, (int16_rows(x) - x) @ weight.T)
        self.meter.note(name, signal, *noise)
        return out


def int8_rows(x: FloatArray) -> FloatArray:
    """Each row as DynamicQuantizeLinear sees it: uint8, of a range that holds zero."""
    low, high = np.minimum(x.min(-1, keepdims=True), 0), np.maximum(x.max(-1, keepdims=True), 0)
    scale = np.maximum((high - low) / np.float32(255), np.finfo(np.float32).tiny)
    zero = np.round(-low / scale)
    out: FloatArray = (np.clip(np.round(x / scale) + zero, 0, 255) - zero) * scale
    return out


def int16_rows(x: FloatArray) -> FloatArray:
    """Each row as the sum of two rows of int8, see `edgehmn.export.onnx`."""
    scale = np.maximum(np.abs(x).max(-1, keepdims=True) / np.float32(WEIGHT_LIMIT), np.finfo(np.float32).tiny)
    first = np.round(x / scale)
    second = np.round((x / scale - first) * RESIDUE_STEPS) / np.float32(RESIDUE_STEPS)
    out: FloatArray = (first + second) * scale
    return out
