"""How much of each matrix's output is lost to quantisation, and how many bits its inputs need for it.

A product is compared with that of the float weights on the inputs of a calibration text: its signal-to-noise ratio, in
dB, with the weights rounded alone and with inputs of 8 and 16 bits, one scale per token, besides. So what
outliers cost is seen where it happens: a matrix whose inputs have one large value per token loses the others at 8 bits.
"""

from collections.abc import Collection
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from edgehmn.calibrate import Calibration
from edgehmn.checkpoint.model import NORM_BEFORE, Checkpoint, FloatArray
from edgehmn.folding import Folded, folded_layer
from edgehmn.model import FloatModel, row_blocks
from edgehmn.quantize import LAYER_MATRICES, Precision, quantise_rows

SAMPLE_TOKENS = 256
ENOUGH_DB = 36.0  # a matrix that keeps as much with 8-bit inputs may have them, where bits are chosen
INPUT_BITS = (8, 16)


@dataclass(frozen=True)
class Loss:
    """Of one matrix: signal-to-noise in dB with rounded weights alone, and with inputs of 8 and 16 bits besides."""

    matrix: str
    weights: float
    inputs_8: float
    inputs_16: float

    def as_dict(self) -> dict[str, float | str]:
        """For JSON, in hundredths of a dB."""
        return {k: v if isinstance(v, str) else round(v, 2) for k, v in asdict(self).items()}


def measure_losses(
    checkpoint: Checkpoint, ids: npt.NDArray[np.integer], calibration: Calibration, weight_bits: int = 8
) -> list[Loss]:
    """One Loss for each matrix of the layers and for the head, in the image's order, on the first SAMPLE_TOKENS."""
    observed = _Observed(checkpoint, calibration, weight_bits)
    observed.run(ids[:SAMPLE_TOKENS])
    layers = [f"layers.{i}.{name}" for i in range(checkpoint.config.n_layers) for name in LAYER_MATRICES]
    return [Loss(name, *observed.meter.decibels(name)) for name in (*layers, "head") if name in observed.meter.names]


def choose_precision(losses: list[Loss], weight_bits: int = 8) -> Precision:
    """8-bit inputs for each matrix that keeps ENOUGH_DB with them, 16 bits for the others."""
    sixteen = tuple((x.matrix, 16) for x in losses if x.inputs_8 < ENOUGH_DB)
    exceptions = (*sixteen, ("preconditioner", 16), ("topic", 16))
    return Precision(weight_bits, inputs=16 if weight_bits == 4 else 8, exceptions=exceptions)


class NoiseMeter:
    """What rounding costs the outputs of a product, by name of the product.

    Noise is set against signal token by token before it is averaged: the first token of some models is a thousand times
    larger than all others and would hide them.
    """

    def __init__(self) -> None:
        self._energies: dict[str, list[npt.NDArray[np.float64]]] = {}  # each (1 + kinds of rounding, tokens)

    @property
    def names(self) -> Collection[str]:
        return self._energies.keys()

    def note(self, name: str, signal: FloatArray, *errors: npt.NDArray[np.floating]) -> None:
        """Outputs (tokens, rows), and by how much each kind of rounding changes them."""
        self.add(name, self.energies(signal, *errors))

    @staticmethod
    def energies(signal: FloatArray, *errors: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
        """(1 + kinds of rounding, tokens), of any number of rows: those of a whole product are the sum of its parts."""
        return np.array([np.square(x, dtype=np.float64).sum(-1) for x in (signal, *errors)])

    def add(self, name: str, energies: npt.NDArray[np.float64]) -> None:
        self._energies.setdefault(name, []).append(energies)

    def decibels(self, *names: str) -> list[float]:
        """Signal-to-noise of each kind of rounding, of a product that is made of these; at most 300 dB."""
        parts = [np.concatenate(self._energies[name], axis=1) for name in names]
        signal, *errors = np.sum(parts, axis=0)
        ratios = [(error / np.maximum(signal, np.finfo(np.float64).tiny)).mean() for error in errors]
        return [float(-10 * np.log10(max(ratio, 1e-30))) for ratio in ratios]


class _Observed(FloatModel):
    """The float model, which also multiplies by rounded weights and inputs, and notes what differs."""

    def __init__(self, checkpoint: Checkpoint, calibration: Calibration, weight_bits: int) -> None:
        super().__init__(checkpoint)
        self.meter = NoiseMeter()
        self._checkpoint, self._calibration, self._weight_bits = checkpoint, calibration, weight_bits
        self._plain: dict[str, FloatArray] = {}
        self._folded: dict[str, Folded] = {}

    def run(self, ids: npt.NDArray[np.integer]) -> None:
        hidden = self.encode(ids, self.new_state())
        self._compare("head", self.final_norm(hidden[: len(hidden) // 4]), self.head_matrix, 8)

    def _apply_gain(self, name: str, x: FloatArray) -> FloatArray:
        """The gain and bias of a norm lie in the matrices that follow: what these multiply is the norm without them."""
        self._plain[name] = x
        return super()._apply_gain(name, x)

    def _matrix(self, name: str, x: FloatArray) -> FloatArray:
        _, layer, short = name.split(".")
        norm = NORM_BEFORE.get(short)
        if short == "q":  # the first of its layer
            i, c = int(layer), self._calibration
            self._folded = folded_layer(self._checkpoint, i, c.keys[i], c.norm_shifts[i])
        folded = self._folded[short]
        plain = self._plain[f"layers.{layer}.{norm}"] if norm else x
        factor = np.float32(1) if folded.input_factor is None else folded.input_factor
        self._compare(name, plain * factor, folded.weight, self._weight_bits)
        return super()._matrix(name, x)

    def _compare(self, name: str, x: FloatArray, weight: FloatArray, weight_bits: int) -> None:
        """A few rows of the matrix at a time, which bounds the memory of a head with many words."""
        candidates = (x, *(_rounded_inputs(x, bits) for bits in INPUT_BITS))
        parts = []
        for start, stop in row_blocks(len(weight), weight.shape[1]):
            exact = x @ weight[start:stop].T
            mantissas, scale = quantise_rows(weight[start:stop], weight_bits)
            rounded = mantissas.astype(np.float32)
            rounded *= scale.astype(np.float32)[:, None]
            parts.append(self.meter.energies(exact, *(y @ rounded.T - exact for y in candidates)))
        self.meter.add(name, np.sum(parts, axis=0))


def _rounded_inputs(x: FloatArray, bits: int) -> FloatArray:
    """x (n, inputs) with mantissas of so many bits and one scale for each token: of 16 bits a power of two."""
    limit = 2 ** (bits - 1) - 1
    largest = np.maximum(np.abs(x).max(-1, keepdims=True), np.finfo(np.float32).tiny)
    scale = largest / limit
    if bits > 8:
        scale = np.exp2(np.ceil(np.log2(scale)))
    out: FloatArray = (np.round(x / scale) * scale).astype(np.float32)
    return out
