"""A layer's matrices as an image holds them: what may be moved from one to the next without changing the function is
moved to where it is rounded best.

The gain and bias of a norm go into the matrices that follow it, as does what its channels are shifted down by: so all
are about as large, where a few channels would take the range of 8-bit inputs from the others. The query also carries
1/sqrt(d_head) and log2(e). Then channels are equalised. A channel that one matrix makes and the next one reads may be
multiplied by a number at the one and divided by it at the other: rows have scales of their own and lose nothing by it,
columns and the int8 cache share one. So the columns of o and down get equal largest weights, at the cost of the rows of
v and up, and the channels of a key equal power, at the cost of the query's rows, whose mantissas are wider; then a
head's keys are scaled to fill the range of their mantissas. (Nagel et al., 2019, "Data-free quantization through weight
equalization and bias correction", section 4.1, do so with the ranges of two convolutions.)
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from edgehmn.checkpoint.model import LAYER_NORMS, NORM_BEFORE, Checkpoint, Config, FloatArray

LOG2_E = float(np.log2(np.e))
OUTSTANDING = 3.0  # times the mean of the largest weights of all columns
FILLING_STEPS = 16  # factors that are tried between one and two
LEAST_KEY = 1e-30
LARGEST_FACTOR = 256.0  # by which a channel is multiplied or divided at most


@dataclass(frozen=True)
class Folded:
    """weight (rows, cols), bias (rows,) or None. input_factor (cols,): what the channels of its input are multiplied
    by, compared with those of the float model; None: nothing."""

    weight: FloatArray
    bias: FloatArray | None
    input_factor: FloatArray | None = None

    def rows_times(self, factor: FloatArray) -> "Folded":
        bias = None if self.bias is None else self.bias * factor
        return replace(self, weight=self.weight * factor[:, None], bias=bias)

    def columns_over(self, factor: FloatArray) -> "Folded":
        return replace(self, weight=self.weight / factor, input_factor=factor)


def folded_layer(
    checkpoint: Checkpoint,
    layer: int,
    keys: FloatArray | None = None,
    norm_shifts: npt.NDArray[np.int32] | None = None,
) -> dict[str, Folded]:
    """The matrices of a layer by name (q, k, v, o, gate, up, down); a GELU has no gate. keys (n, d_kv): of the float
    model, on some text; with them every head's keys are scaled to fill their 8 bits. norm_shifts (2, d_model): bits by
    which the channels of the two norms are shifted down."""
    c = checkpoint.config
    out = {name: _after_norm(checkpoint, layer, name, norm_shifts) for name in c.layer_matrix_shapes()}
    out["q"] = out["q"].rows_times(np.full(c.d_model, LOG2_E / np.sqrt(c.d_head), np.float32))

    factor = _key_factors(c, out["k"])
    if keys is not None:
        factor = factor * _filling_factors(c, keys * factor)
    out["k"] = out["k"].rows_times(factor)
    out["q"] = out["q"].rows_times(np.reciprocal(_for_queries(c, factor)))

    factor = _column_factors(np.abs(out["o"].weight).max(0).reshape(c.n_kv_heads, -1, c.d_head).max(1).ravel())
    out["v"] = out["v"].rows_times(factor)
    out["o"] = out["o"].columns_over(_for_queries(c, factor))

    if c.mlp == "swiglu":  # a GELU is not proportional to its input
        factor = _column_factors(np.abs(out["down"].weight).max(0))
        out["up"] = out["up"].rows_times(factor)
        out["down"] = out["down"].columns_over(factor)
    return out


def _after_norm(checkpoint: Checkpoint, layer: int, name: str, shifts: npt.NDArray[np.int32] | None) -> Folded:
    t, full_name = checkpoint.tensors, f"layers.{layer}.{name}"
    w, bias = t[full_name], t.get(f"{full_name}.bias")
    norm = NORM_BEFORE.get(name)
    if norm is None:
        return Folded(w, bias)
    before = t.get(f"layers.{layer}.{norm}.bias")
    if before is not None:
        bias = w @ before + (0 if bias is None else bias)
    out = Folded(w * t[f"layers.{layer}.{norm}.weight"], bias)
    if shifts is None:
        return out
    return out.columns_over(np.exp2(-shifts[LAYER_NORMS.index(norm)]).astype(np.float32))


def _key_factors(c: Config, k: Folded) -> FloatArray:
    """(d_kv,): equal power in all channels of a key, for inputs of power one; RoPE mixes the two of a pair, which get
    one factor."""
    power: FloatArray = np.square(k.weight).sum(1) + (0 if k.bias is None else np.square(k.bias))
    power = power.reshape(c.n_kv_heads, c.d_head)
    if c.positions == "rope":
        pairs = power.reshape(c.n_kv_heads, 2, c.d_head // 2)
        power = np.broadcast_to(pairs.mean(1, keepdims=True), pairs.shape).reshape(power.shape)
    return _bounded(np.sqrt(power.mean(1, keepdims=True)), np.sqrt(power)).ravel()


def _filling_factors(c: Config, keys: FloatArray) -> FloatArray:
    """(d_kv,): what makes a head's keys (n, d_kv) fit best below a power of two. A key has one exponent and mantissas
    up to 127, so that up to half of them is lost where its largest value lies just above a power of two."""
    largest = np.abs(keys).reshape(len(keys), c.n_kv_heads, c.d_head).max(-1)
    candidates = np.exp2(np.arange(FILLING_STEPS) / FILLING_STEPS)[:, None, None]
    noise = np.exp2(np.ceil(np.log2(np.maximum(largest * candidates, LEAST_KEY) / 127))) / candidates
    best = np.square(noise).mean(1).argmin(0)
    return np.repeat(candidates.ravel()[best], c.d_head).astype(np.float32)


def _column_factors(largest: FloatArray) -> FloatArray:
    """By which columns are divided whose largest weights these are. Where one of them stands out, none is: such a
    column reads one of the few very large values of a first token (SmolLM2), which needs the mantissas' range."""
    factor = _bounded(largest, largest.mean())
    return factor if factor.max() <= OUTSTANDING else np.ones_like(factor)


def _bounded(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    with np.errstate(divide="ignore", invalid="ignore"):
        factor = np.nan_to_num(numerator / denominator, nan=1.0, posinf=LARGEST_FACTOR)
    out: FloatArray = np.clip(factor, 1 / LARGEST_FACTOR, LARGEST_FACTOR).astype(np.float32)
    return out


def _for_queries(c: Config, factor: FloatArray) -> FloatArray:
    """(d_kv,) of key heads -> (d_model,): each query head has that of the key head it looks at."""
    return np.repeat(factor.reshape(c.n_kv_heads, c.d_head), c.n_heads // c.n_kv_heads, axis=0).ravel()
