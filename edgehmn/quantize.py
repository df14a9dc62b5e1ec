"""From float tensors to integers: int8 weights with one scale per row, and the constants of the head.

A scale is stored as mantissa * 2**-shift with one shift per matrix, so that the C core multiplies and shifts;
see SPEC.md, "Image". edgehmn.folding says what the matrices of a layer are before they are rounded.
"""

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from edgehmn.calibrate import Calibration
from edgehmn.checkpoint.model import LAYER_NORMS, NORM_BEFORE, Checkpoint, Config, FloatArray
from edgehmn.core import lib
from edgehmn.errors import UnsupportedError
from edgehmn.folding import Folded, folded_layer
from edgehmn.plasticity import Rule

WEIGHT_LIMIT = 127  # -128 never occurs: kernels may negate and pair weights
WEIGHT_LIMITS = {8: WEIGHT_LIMIT, 4: 7}  # by bits
BLOCK_VALUES = 1 << 20  # weights that are rounded at a time: bounds the memory for it, changes nothing
LAYER_MATRICES = ("q", "k", "v", "o", "gate", "up", "down")


@dataclass(frozen=True)
class QuantMatrix:
    """int8 weights (rows, cols), int32 scales (rows,): real weight = weight * scale * 2**-shift. bias (rows,), at the
    value_frac of the model, is added to the product."""

    weights: npt.NDArray[np.int8]
    scales: npt.NDArray[np.int32]
    shift: int
    input_bits: int  # mantissa bits of the vector it multiplies, 8..16
    weight_bits: int = 8  # or 4: every weight lies within -7..7
    bias: npt.NDArray[np.int32] | None = None

    def real(self) -> FloatArray:
        out: FloatArray = (self.weights * (self.scales * 2.0**-self.shift)[:, None]).astype(np.float32)
        return out


@dataclass(frozen=True)
class QuantVector:
    """int32 values (n,): real value = value * 2**-shift."""

    values: npt.NDArray[np.int32]
    shift: int


@dataclass(frozen=True)
class QuantGuard:
    """Hidden vectors that the guard watches: value = mantissa * 2**-frac, mantissas (n, d_model), frac (n,), and tokens
    (n,) that came after them."""

    mantissas: npt.NDArray[np.int8]
    frac: npt.NDArray[np.int32]
    tokens: npt.NDArray[np.int32]


@dataclass(frozen=True)
class QuantModel:
    """Everything that an image holds, in its canonical order."""

    config: Config
    calibration: Calibration
    rule: Rule
    matrices: list[QuantMatrix] = field(repr=False)  # layers * (q k v o gate up down), embedding, [head],
    # [positions], P, T; a gate without rows where the MLP has none
    # norm gain, norm bias, mean, inverse deviation, RoPE steps, norm shifts
    vectors: list[QuantVector] = field(repr=False)
    guard: "QuantGuard" = field(repr=False)
    tokenizer: bytes = field(default=b"", repr=False)  # the image's section; empty: it has none


@dataclass(frozen=True)
class Precision:
    """Bits of the weights of the layers, and mantissa bits of what each matrix multiplies: `inputs` unless `exceptions`
    names the matrix, as in "layers.0.down". A row that is too long for so many gets as many as its sums allow."""

    weights: int = 8
    inputs: int = 16
    exceptions: tuple[tuple[str, int], ...] = ()

    def input_bits(self, name: str) -> int:
        return dict(self.exceptions).get(name, self.inputs)


def quantise(
    checkpoint: Checkpoint,
    calibration: Calibration,
    rule: Rule | None = None,
    precision: Precision | None = None,
    tokenizer: bytes = b"",
) -> QuantModel:
    """Quantise a checkpoint with the scales and statistics that `calibrate` measured."""
    c, t = checkpoint.config, checkpoint.tensors
    precision = precision or Precision()
    shifts = norm_shifts(calibration, precision, c.n_layers)
    calibration = replace(calibration, norm_shifts=shifts)
    matrices: list[QuantMatrix] = []
    for i in range(c.n_layers):
        matrices += quantise_layer(checkpoint, i, calibration, precision)
    statistics = calibration.statistics
    others = {"embed": t["embed"]}
    if not c.tied_head:
        others["head"] = t["head"]
    if c.positions == "learned":
        others["positions"] = t["positions"]
    others |= {"preconditioner": statistics.preconditioner, "topic": statistics.topic}
    matrices += [quantise_matrix(name, w, precision.input_bits(name)) for name, w in others.items()]
    bias = t.get("final_norm.bias", np.zeros(c.d_model, np.float32))
    steps = np.round(c.rope_frequency() / (2 * np.pi) * 2.0**32).astype(np.uint64) & 0xFFFFFFFF
    vectors = [
        quantise_vector(t["final_norm.weight"]),
        QuantVector(to_fixed(bias, calibration.value_frac), calibration.value_frac),
        QuantVector(to_fixed(statistics.mean, calibration.value_frac), calibration.value_frac),
        quantise_vector(statistics.inverse_deviation),
        QuantVector(steps.astype(np.uint32).view(np.int32), 32),
        QuantVector(shifts.ravel(), 0),
    ]
    return QuantModel(c, calibration, rule or Rule(), matrices, vectors, quantise_guard(calibration), tokenizer)


def norm_shifts(calibration: Calibration, precision: Precision, n_layers: int) -> npt.NDArray[np.int32]:
    """(n_layers, 2, d_model): those of norms that a matrix with 8-bit inputs reads; the others need none, and the
    weights of their matrices are rounded best without."""
    out = calibration.norm_shifts[:n_layers].copy()
    for layer in range(n_layers):
        for norm, name in enumerate(LAYER_NORMS):
            readers = [m for m, before in NORM_BEFORE.items() if before == name]
            if all(precision.input_bits(f"layers.{layer}.{m}") > 8 for m in readers):
                out[layer, norm] = 0
    return out


def quantise_layer(
    checkpoint: Checkpoint, layer: int, calibration: Calibration, precision: Precision
) -> list[QuantMatrix]:
    """Seven matrices; a gate that the model has not is (0, d_model)."""
    out, folded = [], folded_layer(checkpoint, layer, calibration.keys[layer], calibration.norm_shifts[layer])
    no_gate = Folded(np.zeros((0, checkpoint.config.d_model), np.float32), None)
    for name in LAYER_MATRICES:
        full_name, f = f"layers.{layer}.{name}", folded.get(name, no_gate)
        matrix = quantise_matrix(full_name, f.weight, precision.input_bits(full_name), precision.weights)
        out.append(matrix if f.bias is None else replace(matrix, bias=to_fixed(f.bias, calibration.value_frac)))
    return out


def quantise_guard(calibration: Calibration) -> QuantGuard:
    """Guard vectors as int8 mantissas, each with a power of two of its own."""
    hidden = calibration.guard_hidden
    largest = np.maximum(np.abs(hidden).max(axis=1), 2.0**-20)
    frac = np.clip(np.floor(np.log2(WEIGHT_LIMIT / largest)), -16, 30).astype(np.int32)
    scaled = np.round(hidden * np.exp2(frac.astype(np.float64))[:, None])
    mantissas = np.clip(scaled, -WEIGHT_LIMIT, WEIGHT_LIMIT).astype(np.int8)
    return QuantGuard(mantissas, frac, calibration.guard_tokens)


def quantise_rows(w: FloatArray, bits: int = 8) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float64]]:
    """(rows, cols) -> symmetric integers of 8 or 4 bits, and the scale of each row, which is zero for a row of zeros.
    With 8 bits the largest magnitude of a row becomes 127; with 4, the scale is the one that loses least of the row."""
    weights, scales = np.empty(w.shape, np.int8), np.empty(len(w))
    step = max(1, BLOCK_VALUES // max(1, w.shape[1]))
    for start in range(0, len(w), step):
        block = slice(start, start + step)
        weights[block], scales[block] = _quantise_block(w[block], bits)
    return weights, scales


def _quantise_block(w: FloatArray, bits: int) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float64]]:
    limit = WEIGHT_LIMITS[bits]
    largest = np.abs(w).max(axis=1, initial=0).astype(np.float64)
    if bits == 8:
        return _rounded_rows(w, largest / limit, limit), largest / limit
    best, least = largest / limit, np.full(len(w), np.inf)
    for share in np.linspace(0.5, 1.0, 21):  # clipping a few of the largest leaves finer steps to the others
        scale = share * largest / limit
        error = np.square(w - _rounded_rows(w, scale, limit) * scale[:, None]).sum(axis=1)
        best, least = np.where(error < least, scale, best), np.minimum(error, least)
    return _rounded_rows(w, best, limit), best


def _rounded_rows(w: FloatArray, scale: npt.NDArray[np.float64], limit: int) -> npt.NDArray[np.int8]:
    safe = np.where(scale > 0, scale, 1.0)
    return np.clip(np.round(w / safe[:, None]), -limit, limit).astype(np.int8)


def quantise_matrix(name: str, w: FloatArray, input_bits: int, weight_bits: int = 8) -> QuantMatrix:
    """Weights by row, with integer scales. Inputs have other bits than asked, fewer if possible, where a row's sum
    could leave 32 bits (with 8 bits it is multiplied by a step).

    Raises UnsupportedError if it could with all.
    """
    weights, scale = quantise_rows(w, weight_bits)
    longest = int(np.abs(weights).sum(axis=1, dtype=np.int32).max(initial=0))
    least = 9 if weight_bits == 4 else 8
    fitting = [bits for bits in range(least, 17) if longest * largest_input(bits) < 2**31]
    if not fitting:
        raise UnsupportedError(f"tensor '{name}': a row is too long for inputs of any width")
    bits = max((bits for bits in fitting if bits <= input_bits), default=fitting[-1])
    shift = mantissa_shift(float(scale.max(initial=0)))
    return QuantMatrix(weights, to_fixed(scale, shift), shift, bits, weight_bits)


def largest_input(bits: int) -> int:
    """Of a matrix with inputs of so many bits: its mantissas times their step."""
    return 127 * int(lib.EHMN_MAX_STEP) if bits == 8 else int(2 ** (bits - 1)) - 1


def quantise_vector(v: FloatArray) -> QuantVector:
    shift = mantissa_shift(float(np.abs(v).max()))
    return QuantVector(to_fixed(v, shift), shift)


def mantissa_shift(largest: float) -> int:
    """The shift, 0..62, at which a value has as many bits as fit below 2**31."""
    return int(np.clip(30 - np.floor(np.log2(largest)), 0, 62)) if largest > 0 else 30


def to_fixed(v: npt.ArrayLike, frac: int) -> npt.NDArray[np.int32]:
    """Nearest int32 at `frac` fractional bits, saturated."""
    scaled = np.round(np.asarray(v, np.float64) * 2.0**frac)
    return np.clip(scaled, -(2**31 - 1), 2**31 - 1).astype(np.int32)
