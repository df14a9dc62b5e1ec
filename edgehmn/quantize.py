"""From float tensors to integers: int8 weights with one scale per row, and the constants of the head.

A scale is stored as mantissa * 2**-shift with one shift per matrix, so that the C core multiplies and shifts;
see SPEC.md, "Image". Norm gains and the attention's 1/sqrt(d_head) and log2(e) are folded into the rows and
columns that follow them, before rounding.
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from edgehmn.calibrate import Calibration
from edgehmn.checkpoint.model import Checkpoint, Config, FloatArray
from edgehmn.errors import UnsupportedError
from edgehmn.model import LOG2_E
from edgehmn.plasticity import Rule

WEIGHT_LIMIT = 127  # -128 never occurs: kernels may negate and pair weights
LAYER_MATRICES = ("q", "k", "v", "o", "gate", "up", "down")


@dataclass(frozen=True)
class QuantMatrix:
    """int8 weights (rows, cols) and int32 scales (rows,): real weight = weight * scale * 2**-shift."""

    weights: npt.NDArray[np.int8]
    scales: npt.NDArray[np.int32]
    shift: int
    input_bits: int  # mantissa bits of the vector it multiplies, 8 or 16

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
    matrices: list[QuantMatrix] = field(repr=False)  # layers * (q k v o gate up down), embedding, [head], P, T
    vectors: list[QuantVector] = field(repr=False)  # norm gain, norm bias, mean, inverse deviation, RoPE steps
    guard: "QuantGuard" = field(repr=False)


@dataclass(frozen=True)
class InputBits:
    """Mantissa bits of the input of each kind of matrix: 8 is faster, 16 is closer to float."""

    attention: int = 16  # q, k, v
    output: int = 16  # o
    mlp: int = 16  # gate, up
    down: int = 16
    head: int = 16
    preconditioner: int = 16

    def of_layer_matrix(self, name: str) -> int:
        return {"o": self.output, "gate": self.mlp, "up": self.mlp, "down": self.down}.get(name, self.attention)


def quantise(
    checkpoint: Checkpoint, calibration: Calibration, rule: Rule | None = None, bits: InputBits | None = None
) -> QuantModel:
    """Quantise a checkpoint with the scales and statistics that `calibrate` measured."""
    c, t = checkpoint.config, checkpoint.tensors
    rule, bits = rule or Rule(), bits or InputBits()
    matrices = []
    for i in range(c.n_layers):
        for name in LAYER_MATRICES:
            w = fold_norm(checkpoint, i, name)
            matrices.append(quantise_matrix(f"layers.{i}.{name}", w, bits.of_layer_matrix(name)))
    matrices.append(quantise_matrix("embed", t["embed"], bits.head))
    if not c.tied_head:
        matrices.append(quantise_matrix("head", t["head"], bits.head))
    statistics = calibration.statistics
    matrices.append(quantise_matrix("preconditioner", statistics.preconditioner, bits.preconditioner))
    matrices.append(quantise_matrix("topic", statistics.topic, bits.preconditioner))
    bias = t.get("final_norm.bias", np.zeros(c.d_model, np.float32))
    frequency = c.rope_theta ** (-np.arange(c.d_head // 2) / (c.d_head // 2)) / (2 * np.pi)
    steps = np.round(frequency * 2.0**32).astype(np.uint64) & 0xFFFFFFFF
    vectors = [
        quantise_vector(t["final_norm.weight"]),
        QuantVector(to_fixed(bias, calibration.value_frac), calibration.value_frac),
        QuantVector(to_fixed(statistics.mean, calibration.value_frac), calibration.value_frac),
        quantise_vector(statistics.inverse_deviation),
        QuantVector(steps.astype(np.uint32).view(np.int32), 32),
    ]
    return QuantModel(c, calibration, rule, matrices, vectors, quantise_guard(calibration))


def quantise_guard(calibration: Calibration) -> QuantGuard:
    """Guard vectors as int8 mantissas, each with a power of two of its own."""
    hidden = calibration.guard_hidden
    largest = np.maximum(np.abs(hidden).max(axis=1), 2.0**-20)
    frac = np.clip(np.floor(np.log2(WEIGHT_LIMIT / largest)), -16, 30).astype(np.int32)
    scaled = np.round(hidden * np.exp2(frac.astype(np.float64))[:, None])
    mantissas = np.clip(scaled, -WEIGHT_LIMIT, WEIGHT_LIMIT).astype(np.int8)
    return QuantGuard(mantissas, frac, calibration.guard_tokens)


def fold_norm(checkpoint: Checkpoint, layer: int, name: str) -> FloatArray:
    """A layer's matrix with the gain of the norm before it in its columns, and, for the query, with what turns
    its products with keys into base-2 logarithms."""
    t = checkpoint.tensors
    w = t[f"layers.{layer}.{name}"]
    if name in ("q", "k", "v"):
        w = w * t[f"layers.{layer}.attn_norm.weight"]
    if name in ("gate", "up"):
        w = w * t[f"layers.{layer}.mlp_norm.weight"]
    if name == "q":
        w = w * np.float32(LOG2_E / np.sqrt(checkpoint.config.d_head))
    return w


def quantise_rows(w: FloatArray) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float64]]:
    """(rows, cols) -> symmetric int8 with the largest magnitude of each row at 127, and the scale of each row,
    which is zero for a row of zeros."""
    scale = np.abs(w).max(axis=1).astype(np.float64) / WEIGHT_LIMIT
    safe = np.where(scale > 0, scale, 1.0)
    weights = np.clip(np.round(w / safe[:, None]), -WEIGHT_LIMIT, WEIGHT_LIMIT).astype(np.int8)
    return weights, scale


def quantise_matrix(name: str, w: FloatArray, input_bits: int) -> QuantMatrix:
    """int8 by row, with integer scales.

    Raises UnsupportedError if a product could leave 32 bits (rows too long for 16-bit inputs).
    """
    weights, scale = quantise_rows(w)
    limit = (2**31 - 1) // (127 if input_bits == 8 else 32767)
    if int(np.abs(weights.astype(np.int64)).sum(axis=1).max()) > limit:
        raise UnsupportedError(f"tensor '{name}': a row is too long for {input_bits}-bit inputs; use 8 bits")
    shift = mantissa_shift(float(scale.max()))
    return QuantMatrix(weights, to_fixed(scale, shift), shift, input_bits)


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
