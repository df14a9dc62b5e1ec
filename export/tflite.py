"""TFLite encoder: embedding and every Transformer layer with int8 weights, one token per step, no TensorFlow.

Every weight matrix is int8, symmetric, one scale per output row, -128 unused; the gain of the norm before it
is folded into its columns. Its input is quantised to int8 per token by the kernel, and multiplied as integers.
The scales of the rows follow as a product of their own, because tflite-runtime is silently wrong with scales
by row. Norms, RoPE, softmax, SiLU and the residual stay in float32. The KV cache is int8 with calibrated
ranges. DESIGN.md has the measurements behind the choice.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from edgehmn.checkpoint.model import Checkpoint, FloatArray
from edgehmn.errors import DependencyError, UnsupportedError, UsageError
from edgehmn.files import write_bytes
from edgehmn.model import FloatModel
from edgehmn.quantize import quantise_rows
from edgehmn.runtime.tflite import CACHE_SCALE, HIDDEN_FRAC_RANGE, METADATA_NAME, Interface, seal

if TYPE_CHECKING:
    from edgehmn.export.tflite_builder import GraphBuilder, Tensor

CACHE_HEADROOM = 1.25  # how far a key or value may go beyond the calibration text before it saturates


@dataclass(frozen=True)
class CacheRange:
    """Largest magnitudes that the int8 KV cache can hold.

    key: (n_layers, n_kv_heads, d_head / 2), of both members of each RoPE pair. value: (n_layers,).
    """

    key: FloatArray
    value: FloatArray


def export_encoder(
    checkpoint: Checkpoint, calibration_ids: npt.NDArray[np.int32], hidden_frac: int, path: Path
) -> None:
    """Write the encoder of `checkpoint` to `path`; the same arguments give the same bytes.

    calibration_ids: tokens of ordinary text, a few thousand, from which the ranges of the KV cache are taken.
    hidden_frac: the graph's hidden output is the real value * 2**hidden_frac, rounded to the nearest, saturated
    to int16; -15..30. `edgehmn.runtime.tflite.Interface` describes the inputs and outputs.

    Raises UsageError for arguments out of range, UnsupportedError for a window of one position or a KV cache
    beyond its limit, DependencyError without ai-edge-litert, CannotWriteError.
    """
    c = checkpoint.config
    if hidden_frac not in HIDDEN_FRAC_RANGE:
        raise UsageError(f"hidden_frac {hidden_frac} is outside {HIDDEN_FRAC_RANGE[0]}..{HIDDEN_FRAC_RANGE[-1]}")
    interface = Interface(
        n_layers=c.n_layers,
        n_ctx=c.n_ctx,
        d_model=c.d_model,
        d_head=c.d_head,
        n_kv_heads=c.n_kv_heads,
        vocab_size=c.vocab_size,
        hidden_frac=hidden_frac,
        rope_theta=float(c.rope_theta),
    )
    try:
        interface.check()
    except ValueError as e:
        raise UnsupportedError(f"no TFLite encoder of this model: {e}; choose another n_ctx") from e
    try:
        from edgehmn.export.tflite_builder import GraphBuilder
    except ImportError as e:
        raise DependencyError(f"ai-edge-litert cannot be imported ({e}); pip install 'edgehmn[tflite]'") from e
    graph = GraphBuilder()
    _EncoderGraph(graph, checkpoint, measure_cache_range(checkpoint, calibration_ids)).build(interface)
    data = graph.serialise("edgehmn encoder", {METADATA_NAME: interface.to_metadata()})
    write_bytes(path, seal(data))


def measure_cache_range(checkpoint: Checkpoint, ids: npt.NDArray[np.int32]) -> CacheRange:
    """Run the float model over `ids`, one window after the other, and measure; 1 for what is always zero."""
    c = checkpoint.config
    if len(ids) == 0 or min(ids) < 0 or max(ids) >= c.vocab_size:
        raise UsageError(f"calibration_ids must be at least one token, all in 0..{c.vocab_size - 1}")
    model = FloatModel(checkpoint)
    state = model.new_state()
    key = np.zeros((c.n_layers, c.n_kv_heads, c.d_head // 2), np.float32)
    value = np.zeros(c.n_layers, np.float32)
    for start in range(0, len(ids), c.n_ctx - 1):  # as many positions as the state keeps
        model.encode(ids[start : start + c.n_ctx - 1], state)
        pairs = np.abs(state.keys).reshape(*state.keys.shape[:-1], 2, c.d_head // 2)
        key = np.maximum(key, pairs.max(axis=(2, 3)))
        value = np.maximum(value, np.abs(state.values).max(axis=(1, 2, 3)))
    one, headroom = np.float32(1), np.float32(CACHE_HEADROOM)
    return CacheRange(np.where(key > 0, headroom * key, one), np.where(value > 0, headroom * value, one))


class _EncoderGraph:
    """The encoder, written into a graph. A row is a float32 tensor (1, width)."""

    def __init__(self, graph: "GraphBuilder", checkpoint: Checkpoint, cache_range: CacheRange) -> None:
        self.graph, self.config, self.tensors = graph, checkpoint.config, checkpoint.tensors
        self.cache_range = cache_range

    def build(self, interface: Interface) -> None:
        g = self.graph
        scales = {"cache": CACHE_SCALE}
        self.inputs = {
            name: g.input(name, kind, shape, scales.get(name)) for name, (kind, shape) in interface.inputs().items()
        }
        self.norm_eps = g.constant(np.array([[self.config.norm_eps]], np.float32))
        x = self._embedding(self.inputs["token"])
        slot = []
        for i in range(self.config.n_layers):
            attended, key, value = self._attention(i, self._rms_norm(x))
            slot += [key, value]
            x = g.add(x, attended)
            x = g.add(x, self._mlp(i, self._rms_norm(x)))
        g.output("hidden", g.quantize(x, np.int16, 2.0**-interface.hidden_frac))
        g.output("slot", g.concatenate(slot, axis=0))

    def _embedding(self, token: "Tensor") -> "Tensor":
        g = self.graph
        mantissa, scale = quantise_rows(self.tensors["embed"])
        row = g.dequantize(g.gather(g.constant(mantissa, 1.0), token))
        return g.multiply(row, g.gather(g.constant(scale[:, None].astype(np.float32)), token))

    def _rms_norm(self, x: "Tensor") -> "Tensor":
        """Without its gain, which is in the next matrix."""
        g = self.graph
        return g.multiply(x, g.rsqrt(g.add(g.mean(g.multiply(x, x)), self.norm_eps)))

    def _linear(self, x: "Tensor", weight: FloatArray, factor: FloatArray | float = 1.0) -> "Tensor":
        """weight (outputs, inputs) times x; output i is then multiplied by factor[i]."""
        g = self.graph
        mantissa, scale = quantise_rows(weight)
        row = g.fully_connected(x, g.constant(mantissa, 1.0))
        return g.multiply(row, g.constant((scale * factor)[None].astype(np.float32)))

    def _attention(self, layer: int, x: "Tensor") -> tuple["Tensor", "Tensor", "Tensor"]:
        """The output row, and this position's key (rotated) and value as they belong in the cache."""
        g, c = self.graph, self.config
        q, k, v = self._query_key_value(layer, x)
        shape = (c.n_kv_heads, 1, c.d_head)
        key = g.quantize(g.reshape(k, *shape), np.int8, CACHE_SCALE)
        value = g.quantize(g.reshape(v, *shape), np.int8, CACHE_SCALE)
        keys, values = self._window(2 * layer, key), self._window(2 * layer + 1, value)
        q = g.reshape(q, c.n_kv_heads, c.n_heads // c.n_kv_heads, c.d_head)
        scores = g.add(g.batch_matmul(q, keys, transpose_b=True), self.inputs["mask"])
        heads = g.reshape(g.batch_matmul(g.softmax(scores), values), 1, c.d_model)
        out = self._linear(heads, self.tensors[f"layers.{layer}.o"], self.cache_range.value[layer])
        return out, key, value

    def _query_key_value(self, layer: int, x: "Tensor") -> tuple["Tensor", "Tensor", "Tensor"]:
        """Rotated queries (n_heads, d_head) and keys (n_kv_heads, d_head), and the value row.

        Keys and values are divided by their ranges, queries multiplied by those of the keys they meet and
        divided by sqrt(d_head). The matrix gives the first halves of all heads, then the second halves, so
        that RoPE turns all pairs at once.
        """
        g, c = self.graph, self.config
        q, k, v = (
            self.tensors[f"layers.{layer}.{name}"] * self.tensors[f"layers.{layer}.attn_norm.weight"] for name in "qkv"
        )
        halves = np.concatenate([q, k]).reshape(c.n_heads + c.n_kv_heads, 2, c.d_head // 2, c.d_model)
        weight = np.concatenate([*halves.swapaxes(0, 1).reshape(2, -1, c.d_model), v])
        key_range = self.cache_range.key[layer]
        q_factor = np.repeat(key_range, c.n_heads // c.n_kv_heads, axis=0) / np.sqrt(c.d_head)
        half_factor = np.concatenate([q_factor, 1 / key_range]).ravel()
        v_factor = np.full(c.d_kv, 1 / self.cache_range.value[layer])
        row = self._linear(x, weight, np.concatenate([half_factor, half_factor, v_factor]))
        width = len(half_factor)
        first, second = (
            g.reshape(g.slice(row, 1, i * width, width), c.n_heads + c.n_kv_heads, c.d_head // 2) for i in range(2)
        )
        cos, sin = self.inputs["cos"], self.inputs["sin"]
        rotated_first = g.subtract(g.multiply(first, cos), g.multiply(second, sin))
        rotated_second = g.add(g.multiply(second, cos), g.multiply(first, sin))
        rotated = g.concatenate([rotated_first, rotated_second], axis=1)
        queries, keys = g.slice(rotated, 0, 0, c.n_heads), g.slice(rotated, 0, c.n_heads, c.n_kv_heads)
        return queries, keys, g.slice(row, 1, 2 * width, c.d_kv)

    def _window(self, block: int, newest: "Tensor") -> "Tensor":
        """One layer's keys or values, those of the cache and the newest: (n_kv_heads, n_ctx, d_head)."""
        g, n = self.graph, self.config.n_kv_heads
        cached = g.slice(self.inputs["cache"], 0, block * n, n)
        return g.dequantize(g.concatenate([cached, newest], axis=1))

    def _mlp(self, layer: int, x: "Tensor") -> "Tensor":
        g, t, width = self.graph, self.tensors, self.config.d_hidden
        gate_up = np.concatenate([t[f"layers.{layer}.{name}"] for name in ("gate", "up")])
        both = self._linear(x, gate_up * t[f"layers.{layer}.mlp_norm.weight"])
        gate, up = g.slice(both, 1, 0, width), g.slice(both, 1, width, width)
        gated = g.multiply(g.multiply(gate, g.logistic(gate)), up)
        return self._linear(gated, t[f"layers.{layer}.down"])
