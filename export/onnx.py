"""ONNX encoder: embedding and every Transformer layer with int8 weights, one token per step, no torch.

Every weight matrix is int8, symmetric, one scale per output row, -128 unused, and multiplied as integers
(MatMulInteger). Its input is quantised per token, so nothing is calibrated, in one of two ways (ACTIVATIONS):

- int8: to uint8 (DynamicQuantizeLinear);
- int16: to two rows of int8, the second of which holds what the first left over in steps 254 times finer. One product
  of both rows reads the weights once, so it costs little more than one row, and a fifth of a product in float32.

Norms, RoPE, softmax, the MLP's function and the residual stay in float32. DESIGN.md has the measurements behind the
choice.

The integer product is made of uint8 on both sides: int8 weights are stored plus 128, and 128 is their zero point. For
uint8 x int8 the kernels of x86 CPUs without VNNI add pairs of products in a saturating int16 and are silently wrong
(18 dB of signal-to-noise lost on the reference model); onnxruntime's option against it, session.x64quantprecision, had
no effect in 1.20 to 1.24. A graph that adds the 128 itself loads in four times the memory.
"""

import json
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from edgehmn.checkpoint.model import Checkpoint, Config, FloatArray
from edgehmn.errors import DependencyError, UsageError
from edgehmn.files import write_bytes
from edgehmn.quantize import WEIGHT_LIMIT
from edgehmn.runtime.onnx import OnnxInterface
from edgehmn.runtime.onnx_file import FORMAT

if TYPE_CHECKING:
    from edgehmn.export.onnx_builder import GraphBuilder

ACTIVATIONS = ("int8", "int16")
ZERO_POINT = 128  # of int8 numbers that are stored as uint8
ROWS = 64  # of a matrix that are quantised at once
RESIDUE_STEPS = 254  # of the second int8 row of an int16 input, in one step of the first
POSITION_LIMIT = 32767  # learned positions are few, and have outliers: int16, one scale per row
GELU_SCALE, GELU_CUBE = 2 * np.sqrt(2 / np.pi), 0.044715  # x sigmoid(2 u) = x (1 + tanh(u)) / 2


def export_encoder(
    checkpoint: Checkpoint, hidden_frac: int, path: Path, activations: Mapping[str, str] | None = None
) -> None:
    """Write the encoder of `checkpoint` to `path`; the same arguments give the same bytes.

    hidden_frac: the graph's hidden output is the real value * 2**hidden_frac, rounded half to even, saturated
    to int16. activations: how the input of each product is quantised, one of ACTIVATIONS, by the names that
    `products` gives; int16 where nothing is said. `edgehmn.runtime.onnx.OnnxInterface` describes the tensors.
    Beside the checkpoint and the file (a quarter of its float32 size) a few megabytes of memory are needed.
    Raises UsageError where hidden_frac is outside -15..30, the KV cache would exceed 1 GiB or the file what a reader
    takes, CannotWriteError, and DependencyError where onnx is missing.
    """
    try:
        interface = OnnxInterface.of(checkpoint.config, hidden_frac)
    except ValueError as e:
        raise UsageError(f"this model cannot be exported to ONNX: {e}") from e
    kinds = dict.fromkeys(products(checkpoint.config), "int16") | dict(activations or {})
    for name, kind in kinds.items():
        if name not in products(checkpoint.config) or kind not in ACTIVATIONS:
            raise UsageError(f"activations of '{name}' cannot be '{kind}'; choose one of {', '.join(ACTIVATIONS)}")
    try:
        import_module("onnx")
    except ImportError as e:
        raise DependencyError(f"onnx cannot be imported ({e}); pip install 'edgehmn[onnx]'") from e
    from edgehmn.export.onnx_builder import GraphBuilder

    graph = GraphBuilder()
    _EncoderGraph(graph, checkpoint, kinds).build(hidden_frac)
    metadata = {"format": FORMAT, "interface": json.dumps(interface.as_dict(), sort_keys=True)}
    data = graph.serialise(interface.inputs(), interface.outputs(), metadata)
    write_bytes(path, data)


def products(config: Config) -> dict[str, tuple[str, ...]]:
    """The matrix products of the encoder, in their order: name, and the checkpoint's matrices that share an input and
    are multiplied as one."""
    mlp = ("gate", "up") if config.mlp == "swiglu" else ("up",)
    parts = {"qkv": ("q", "k", "v"), "o": ("o",), "_".join(mlp): mlp, "down": ("down",)}
    return {
        f"layers.{i}.{product}": tuple(f"layers.{i}.{name}" for name in names)
        for i in range(config.n_layers)
        for product, names in parts.items()
    }


class _EncoderGraph:
    """The encoder, written into a graph. A row is a float32 tensor (1, width)."""

    def __init__(self, graph: "GraphBuilder", checkpoint: Checkpoint, activations: Mapping[str, str]) -> None:
        self.graph, self.activations = graph, activations
        self.config, self.tensors = checkpoint.config, checkpoint.tensors
        self.products = products(self.config)

    def build(self, hidden_frac: int) -> None:
        g, c = self.graph, self.config
        x = self._quantised_row("embed", "token", WEIGHT_LIMIT)
        signed_sin = ""
        if c.positions == "learned":
            x = g.node("Add", x, self._quantised_row("positions", "position", POSITION_LIMIT))
        else:  # (2, d_head / 2): the first half of a head turns with -sin, the second with +sin
            signed_sin = g.node("Mul", "sin", g.constant("rope_sign", np.array([[-1], [1]], np.float32)))
        keys, values = [], []
        for i in range(c.n_layers):
            g.scope = f"layers.{i}."
            attended, key, value = self._attention(i, self._norm(x, "attn_norm"), signed_sin)
            x = g.node("Add", x, attended)
            x = g.node("Add", x, self._mlp(self._norm(x, "mlp_norm")))
            keys.append(key)
            values.append(value)
        g.scope = ""
        g.node("Concat", *keys, output="key", axis=0)
        g.node("Concat", *values, output="value", axis=0)
        self._quantised_output(x, hidden_frac)

    def _quantised_row(self, name: str, index: str, limit: int) -> str:
        """A row of a table whose rows have a scale each, and whose numbers reach to `limit`."""
        g, table = self.graph, self.tensors[name]
        kind: type[np.generic] = np.int8 if limit == WEIGHT_LIMIT else np.int16
        scale = _row_scales(table, limit)

        def fill(out: npt.NDArray[np.integer]) -> None:
            for rows in _blocks(len(table)):
                out[rows] = _mantissas(table[rows], scale[rows], limit)

        row = g.node("Gather", g.weight(name, table.shape, kind, fill), index)
        row_scale = g.node("Gather", g.constant(f"{name}.scale", scale[:, None].astype(np.float32)), index)
        return g.node("Mul", g.cast(row, np.float32), row_scale)

    def _linear(self, x: str, product: str, factors: Mapping[str, float] | None = None) -> str:
        """Product of a row with a matrix, and its bias. factors: by which the rows of a part are multiplied."""
        g = self.graph
        name = g.scope + product
        scales, biases = [], []
        for part in self.products[name]:
            factor = (factors or {}).get(part, 1.0)
            scales.append(factor * _row_scales(self.tensors[part], WEIGHT_LIMIT))
            bias = self.tensors.get(f"{part}.bias")
            biases.append(np.zeros(len(scales[-1])) if bias is None else factor * bias)
        scale, bias = np.concatenate(scales).astype(np.float32), np.concatenate(biases).astype(np.float32)
        weight = self._uint8_weight(product)
        kind = self.activations[name]
        total, x_scale = self._product_of_int8(x, weight) if kind == "int8" else self._product_of_int16(x, weight)
        y = g.node("Mul", total, g.node("Mul", x_scale, g.constant(f"{product}.scale", scale, own=True)))
        return g.node("Add", y, g.constant(f"{product}.bias", bias, own=True)) if bias.any() else y

    def _uint8_weight(self, product: str) -> str:
        """(inputs, outputs) of all parts, as int8 plus ZERO_POINT."""
        g = self.graph
        parts = [self.tensors[part] for part in self.products[g.scope + product]]

        def fill(out: npt.NDArray[np.uint8]) -> None:
            column = 0
            for part in parts:
                scale = _row_scales(part, WEIGHT_LIMIT)
                for rows in _blocks(len(part)):
                    mantissas = _mantissas(part[rows], scale[rows], WEIGHT_LIMIT)
                    out[:, column : column + len(mantissas)] = mantissas.T + ZERO_POINT
                    column += len(mantissas)

        shape = (parts[0].shape[1], sum(len(part) for part in parts))
        return g.weight(product, shape, np.uint8, fill)

    def _product_of_int8(self, x: str, weight: str) -> tuple[str, str]:
        """The product, in units of the input's scale, and that scale."""
        g = self.graph
        x8, x_scale, x_zero = g.nodes("DynamicQuantizeLinear", x, n_outputs=3)
        total = g.node("MatMulInteger", x8, weight, x_zero, g.constant("zero_point", np.uint8(ZERO_POINT)))
        return g.cast(total, np.float32), x_scale

    def _product_of_int16(self, x: str, weight: str) -> tuple[str, str]:
        """The same, from two rows of int8."""
        g = self.graph
        largest = g.node("ReduceMax", g.node("Abs", x), axes=[-1], keepdims=1)
        x_scale = g.node("Mul", g.node("Add", largest, g.scalar(1e-30)), g.scalar(1 / WEIGHT_LIMIT))  # never zero
        scaled = g.node("Div", x, x_scale)
        first = g.node("Round", scaled)
        second = g.node("Round", g.node("Mul", g.node("Sub", scaled, first), g.scalar(RESIDUE_STEPS)))
        rows = g.node("Add", g.node("Concat", first, second, axis=0), g.scalar(ZERO_POINT))
        zero = g.constant("zero_point", np.uint8(ZERO_POINT))
        total = g.cast(g.node("MatMulInteger", g.cast(rows, np.uint8), weight, zero, zero), np.float32)
        units = g.constant("row_units", np.array([[1, 1 / RESIDUE_STEPS]], np.float32))
        return g.node("MatMul", units, total), x_scale

    def _norm(self, x: str, name: str) -> str:
        """RMSNorm or LayerNorm, with gain and bias."""
        g, c = self.graph, self.config
        if c.norm == "layernorm":
            x = g.node("Sub", x, g.node("ReduceMean", x, axes=[-1], keepdims=1))
        mean = g.node("ReduceMean", g.node("Mul", x, x), axes=[-1], keepdims=1)
        x = g.node("Div", x, g.node("Sqrt", g.node("Add", mean, g.scalar(c.norm_eps))))
        x = g.node("Mul", x, g.constant(f"{name}.weight", self.tensors[f"{g.scope}{name}.weight"], own=True))
        bias = self.tensors.get(f"{g.scope}{name}.bias")
        return x if bias is None else g.node("Add", x, g.constant(f"{name}.bias", bias, own=True))

    def _attention(self, layer: int, x: str, signed_sin: str) -> tuple[str, str, str]:
        """Output row, and this position's key (rotated) and value as (1, d_kv).

        The cache and the position itself are scored apart and joined in the softmax only: joining the rows
        instead would copy the whole cache in every step.
        """
        g, c = self.graph, self.config
        query = {f"layers.{layer}.q": float(1 / np.sqrt(c.d_head))}  # the scores need no further scale
        qk, value = g.split(self._linear(x, "qkv", query), [c.d_model + c.d_kv, c.d_kv], axis=1)
        heads = self._rope(qk, signed_sin) if signed_sin else g.reshape(qk, c.n_heads + c.n_kv_heads, c.d_head)
        q, k = g.split(heads, [c.n_heads, c.n_kv_heads], axis=0)
        q = g.reshape(q, c.n_kv_heads, c.n_heads // c.n_kv_heads, c.d_head)

        cached_scores = g.node("Add", g.node("MatMul", q, f"key_cache.{layer}"), "mask")
        own_score = g.node("MatMul", q, g.reshape(k, c.n_kv_heads, c.d_head, 1))
        scores = g.node("Concat", cached_scores, own_score, axis=-1)
        weight = g.node("Softmax", scores, axis=-1)
        cached_weight, own_weight = g.split(weight, [c.n_ctx, 1], axis=2)

        cached_part = g.node("MatMul", cached_weight, f"value_cache.{layer}")
        own_part = g.node("Mul", own_weight, g.reshape(value, c.n_kv_heads, 1, c.d_head))
        attended = g.reshape(g.node("Add", cached_part, own_part), 1, c.d_model)
        return self._linear(attended, "o"), g.reshape(k, 1, c.d_kv), value

    def _rope(self, qk: str, signed_sin: str) -> str:
        """(1, d_model + d_kv) -> (n_heads + n_kv_heads, 2, d_head / 2), rotated."""
        g, c = self.graph, self.config
        halves = g.reshape(qk, c.n_heads + c.n_kv_heads, 2, c.d_head // 2)
        swapped = g.node("Gather", halves, g.constant("swap", np.array([1, 0], np.int64)), axis=1)
        return g.node("Add", g.node("Mul", halves, "cos"), g.node("Mul", swapped, signed_sin))

    def _mlp(self, x: str) -> str:
        g = self.graph
        if self.config.mlp == "gelu":
            return self._linear(self._gelu(self._linear(x, "up")), "down")
        gate, up = g.split(self._linear(x, "gate_up"), [self.config.d_hidden] * 2, axis=1)
        silu = g.node("Mul", gate, g.node("Sigmoid", gate))
        return self._linear(g.node("Mul", silu, up), "down")

    def _gelu(self, x: str) -> str:
        """In its tanh form."""
        g = self.graph
        square = g.node("Mul", g.node("Mul", x, x), g.scalar(float(GELU_SCALE * GELU_CUBE)))
        argument = g.node("Mul", x, g.node("Add", square, g.scalar(float(GELU_SCALE))))
        return g.node("Mul", x, g.node("Sigmoid", argument))

    def _quantised_output(self, x: str, hidden_frac: int) -> None:
        """Not QuantizeLinear, which knows int16 only from opset 21 on."""
        g, limits = self.graph, np.iinfo(np.int16)
        scaled = g.node("Mul", g.reshape(x, self.config.d_model), g.scalar(2.0**hidden_frac))
        clipped = g.node("Clip", g.node("Round", scaled), g.scalar(limits.min), g.scalar(limits.max))
        g.cast(clipped, np.int16, output="hidden")


def _blocks(n_rows: int) -> Iterator[slice]:
    """All rows of a matrix, a few at a time, which bounds the memory that this takes."""
    return (slice(i, i + ROWS) for i in range(0, n_rows, ROWS))


def _row_scales(w: FloatArray, limit: int) -> npt.NDArray[np.float64]:
    """Of each row: its largest magnitude comes to `limit`."""
    largest = np.maximum(w.max(axis=1), -w.min(axis=1))
    out: npt.NDArray[np.float64] = largest.astype(np.float64) / limit
    return out


def _mantissas(w: FloatArray, scale: npt.NDArray[np.float64], limit: int) -> FloatArray:
    """(rows, cols) in units of each row's scale, rounded half to even, -limit..limit; 0 where the scale is."""
    safe = np.where(scale > 0, scale, 1.0)[:, None]
    out: FloatArray = np.clip(np.round(w / safe), -limit, limit)
    return out
