"""ONNX encoder: embedding and every Transformer layer with int8 weights, one token per step, no torch.

Every weight matrix is int8, symmetric, one scale per output row, -128 unused. Its input is quantised to uint8
per token (DynamicQuantizeLinear) and multiplied as integers (MatMulInteger), so nothing is calibrated; norms,
RoPE, softmax, SiLU and the residual stay in float32. DESIGN.md has the measurements behind the choice.

The integer product is made of uint8 on both sides: the stored int8 weights plus 128, with 128 as their zero
point, which a runtime computes once, when it loads the file. For uint8 x int8 the kernels of x86 CPUs without
VNNI add pairs of products in a saturating int16 and are silently wrong (18 dB of signal-to-noise lost on the
reference model); onnxruntime's option against it, session.x64quantprecision, had no effect in 1.20 to 1.24.
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgehmn.checkpoint.model import Checkpoint, Config, FloatArray
from edgehmn.errors import DependencyError, UsageError
from edgehmn.files import sha256, write_bytes
from edgehmn.quantize import quantise_rows
from edgehmn.runtime.onnx import SEAL_BYTES, Interface, TensorSpec

OPSET, IR_VERSION = 11, 6  # the lowest that have DynamicQuantizeLinear


def export_encoder(checkpoint: Checkpoint, hidden_frac: int, path: Path) -> None:
    """Write the encoder of `checkpoint` to `path`; the same arguments give the same bytes.

    hidden_frac: the graph's hidden output is the real value * 2**hidden_frac, rounded half to even, saturated
    to int16. `edgehmn.runtime.onnx.Interface` describes the inputs and outputs.
    Raises UsageError where hidden_frac is outside -15..30 or the KV cache would exceed 1 GiB, CannotWriteError,
    and DependencyError where onnx is missing.
    """
    c = checkpoint.config
    try:
        interface = Interface(
            n_layers=c.n_layers,
            n_ctx=c.n_ctx,
            d_model=c.d_model,
            d_head=c.d_head,
            d_kv=c.d_kv,
            vocab_size=c.vocab_size,
            hidden_frac=hidden_frac,
            rope_theta=c.rope_theta,
        )
    except ValueError as e:
        raise UsageError(f"this model cannot be exported to ONNX: {e}") from e
    write_bytes(path, _seal(_build_model(checkpoint, interface)))


def _build_model(checkpoint: Checkpoint, interface: Interface) -> Any:
    try:
        from onnx import checker, helper
    except ImportError as e:
        raise DependencyError(f"onnx cannot be imported ({e}); pip install 'edgehmn[onnx]'") from e
    graph = _EncoderGraph(checkpoint)
    graph.build(interface.hidden_frac)
    inputs, outputs = _value_infos(interface.inputs()), _value_infos(interface.outputs())
    model = helper.make_model(
        helper.make_graph(graph.nodes, "encoder", inputs, outputs, list(graph.constants.values())),
        producer_name="edgehmn",
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    helper.set_model_props(model, interface.to_metadata() | {"sha256": "0" * SEAL_BYTES})
    checker.check_model(model, full_check=True)
    return model


def _seal(model: Any) -> bytes:
    """Serialise; the last metadata entry, which ends the file, becomes the SHA-256 of all bytes before it."""
    data: bytes = model.SerializeToString(deterministic=True)
    body, seal = data[:-SEAL_BYTES], data[-SEAL_BYTES:]
    assert seal == b"0" * SEAL_BYTES, "protobuf writes fields in order, the metadata last"
    return body + sha256(body).encode()


class _EncoderGraph:
    """Nodes and constants of the graph. Methods take and return names of tensors; a row is (1, width)."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.config: Config = checkpoint.config
        self.tensors = checkpoint.tensors
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}
        self._scope = ""

    def build(self, hidden_frac: int) -> None:
        x = self._embedding("token")
        # (2, d_head / 2): the first half of a head turns with -sin, the second with +sin
        signed_sin = self._node("Mul", "sin", self._constant("rope_sign", np.array([[-1], [1]], np.float32)))
        keys, values = [], []
        for i in range(self.config.n_layers):
            self._scope = f"layers.{i}."
            attended, key, value = self._attention(i, self._rms_norm(x, "attn_norm.weight"), signed_sin)
            x = self._node("Add", x, attended)
            x = self._node("Add", x, self._mlp(self._rms_norm(x, "mlp_norm.weight")))
            keys.append(key)
            values.append(value)
        self._scope = ""
        self._node("Concat", *keys, outputs=["key"], axis=0)
        self._node("Concat", *values, outputs=["value"], axis=0)
        self._quantised_output(x, hidden_frac)

    def _embedding(self, token: str) -> str:
        mantissa, scale = quantise_rows(self.tensors["embed"])
        row = self._node("Gather", self._constant("embed", mantissa), token)
        row_scale = self._node("Gather", self._constant("embed.scale", scale[:, None].astype(np.float32)), token)
        return self._node("Mul", self._to_float(row), row_scale)

    def _linear(self, x: str, name: str, weight: FloatArray) -> str:
        mantissa, scale = quantise_rows(weight)
        x8, x_scale, x_zero = self._nodes("DynamicQuantizeLinear", x, n_outputs=3)
        weight8 = self._offset_by_128(self._constant(name, mantissa.T, own=True))
        w_zero = self._constant("weight_zero_point", np.uint8(128))
        total = self._node("MatMulInteger", x8, weight8, x_zero, w_zero)
        rescale = self._node("Mul", x_scale, self._constant(f"{name}.scale", scale.astype(np.float32), own=True))
        return self._node("Mul", self._to_float(total), rescale)

    def _offset_by_128(self, weight: str) -> str:
        """int8 -> uint8; of constants only, so that onnxruntime folds it."""
        wide = self._node("Cast", weight, to=_tensor_type(np.int32))
        shifted = self._node("Add", wide, self._constant("weight_offset", np.int32(128)))
        return self._node("Cast", shifted, to=_tensor_type(np.uint8))

    def _rms_norm(self, x: str, name: str) -> str:
        square = self._node("Pow", x, self._constant("two", np.float32(2)))
        mean = self._node("ReduceMean", square, axes=[-1], keepdims=1)
        shifted = self._node("Add", mean, self._constant("norm_eps", np.float32(self.config.norm_eps)))
        normed = self._node("Div", x, self._node("Sqrt", shifted))
        return self._node("Mul", normed, self._constant(name, self.tensors[self._scope + name], own=True))

    def _attention(self, layer: int, x: str, signed_sin: str) -> tuple[str, str, str]:
        """Output row, and this position's key (rotated) and value as (1, d_kv).

        The cache and the position itself are scored apart and joined in the softmax only: joining the rows
        instead would copy the whole cache in every step.
        """
        c, t = self.config, self.tensors
        weights = [t[f"layers.{layer}.{name}"] for name in "qkv"]
        weights[0] = weights[0] / np.float32(np.sqrt(c.d_head))  # the scores need no further scale
        qkv = self._linear(x, "qkv", np.concatenate(weights))
        qk, value = self._split(qkv, [c.d_model + c.d_kv, c.d_kv], axis=1)
        q, k = self._split(self._rope(qk, signed_sin), [c.n_heads, c.n_kv_heads], axis=0)
        q = self._reshape(q, c.n_kv_heads, c.n_heads // c.n_kv_heads, c.d_head)

        cached_keys = self._cached_heads(f"key_cache.{layer}", [1, 2, 0])
        cached_scores = self._node("Add", self._node("MatMul", q, cached_keys), "mask")
        own_score = self._node("MatMul", q, self._reshape(k, c.n_kv_heads, c.d_head, 1))
        scores = self._node("Concat", cached_scores, own_score, axis=-1)
        weight = self._node("Softmax", scores, axis=-1)
        cached_weight, own_weight = self._split(weight, [c.n_ctx, 1], axis=2)

        cached_values = self._cached_heads(f"value_cache.{layer}", [1, 0, 2])
        cached_part = self._node("MatMul", cached_weight, cached_values)
        own_part = self._node("Mul", own_weight, self._reshape(value, c.n_kv_heads, 1, c.d_head))
        heads = self._reshape(self._node("Add", cached_part, own_part), 1, c.d_model)
        out = self._linear(heads, "o", t[f"layers.{layer}.o"])
        return out, self._reshape(k, 1, c.d_kv), value

    def _rope(self, qk: str, signed_sin: str) -> str:
        """(1, d_model + d_kv) -> (n_heads + n_kv_heads, 2, d_head / 2), rotated."""
        c = self.config
        halves = self._reshape(qk, c.n_heads + c.n_kv_heads, 2, c.d_head // 2)
        swapped = self._node("Gather", halves, self._constant("swap", np.array([1, 0], np.int64)), axis=1)
        return self._node("Add", self._node("Mul", halves, "cos"), self._node("Mul", swapped, signed_sin))

    def _cached_heads(self, cache: str, order: list[int]) -> str:
        """(n_ctx, d_kv) -> (n_ctx, n_kv_heads, d_head), transposed to `order`."""
        c = self.config
        return self._node("Transpose", self._reshape(cache, c.n_ctx, c.n_kv_heads, c.d_head), perm=order)

    def _mlp(self, x: str) -> str:
        gate, up, down = (self.tensors[self._scope + name] for name in ("gate", "up", "down"))
        both = self._linear(x, "gate_up", np.concatenate([gate, up]))
        gated, upper = self._split(both, [self.config.d_hidden] * 2, axis=1)
        silu = self._node("Mul", gated, self._node("Sigmoid", gated))
        return self._linear(self._node("Mul", silu, upper), "down", down)

    def _quantised_output(self, x: str, hidden_frac: int) -> None:
        """Not QuantizeLinear, which knows int16 only from opset 21 on."""
        row = self._reshape(x, self.config.d_model)
        scaled = self._node("Mul", row, self._constant("hidden_scale", np.float32(2.0**hidden_frac)))
        limits = np.iinfo(np.int16)
        low = self._constant("hidden_min", np.float32(limits.min))
        high = self._constant("hidden_max", np.float32(limits.max))
        clipped = self._node("Clip", self._node("Round", scaled), low, high)
        self._node("Cast", clipped, outputs=["hidden"], to=_tensor_type(np.int16))

    def _to_float(self, x: str) -> str:
        return self._node("Cast", x, to=_tensor_type(np.float32))

    def _reshape(self, x: str, *shape: int) -> str:
        name = "shape." + "x".join(map(str, shape))
        return self._node("Reshape", x, self._constant(name, np.array(shape, np.int64)))

    def _split(self, x: str, sizes: list[int], axis: int) -> list[str]:
        return self._nodes("Split", x, n_outputs=len(sizes), split=sizes, axis=axis)

    def _constant(self, name: str, value: npt.ArrayLike, own: bool = False) -> str:
        """An initialiser; shared by all layers unless it is the present layer's `own`."""
        from onnx import numpy_helper

        name = self._scope + name if own else name
        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(np.asarray(value, order="C"), name)
        return name

    def _nodes(self, op: str, *inputs: str, n_outputs: int, **attributes: Any) -> list[str]:
        stem = f"{self._scope}{op}.{len(self.nodes)}"
        outputs = [f"{stem}.{i}" for i in range(n_outputs)]
        self._node(op, *inputs, outputs=outputs, **attributes)
        return outputs

    def _node(self, op: str, *inputs: str, outputs: list[str] | None = None, **attributes: Any) -> str:
        """Append a node; returns the name of its first output."""
        from onnx import helper

        stem = f"{self._scope}{op}.{len(self.nodes)}"
        outputs = outputs or [stem]
        self.nodes.append(helper.make_node(op, inputs, outputs, name=stem, **attributes))
        return outputs[0]


def _value_infos(specs: dict[str, TensorSpec]) -> list[Any]:
    from onnx import helper

    return [helper.make_tensor_value_info(name, _tensor_type(kind), shape) for name, (kind, shape) in specs.items()]


def _tensor_type(kind: type[np.generic]) -> int:
    from onnx import helper

    out: int = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    return out
