"""The encoder as a sequence of operations, written once and run twice: by NumPy on the calibration text, to measure the
range of every value (tflite_float.py), and into a TFLite graph of int16 (tflite_int16.py).

One token per step. A row is (1, width); heads are (heads, 1 or more, d_head).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np

from edgehmn.checkpoint.model import Checkpoint, FloatArray

BLOCK_ROWS = 1024  # of a matrix that are in memory as float a second time

# GELU in its tanh form is x * sigmoid(GELU_LINEAR * x + GELU_CUBIC * x**3). With y = GELU_GAIN * x, that is
# y / GELU_GAIN * sigmoid(y * (y * y + GELU_OFFSET)); the matrices before and after take the gain.
GELU_LINEAR = 2 * np.sqrt(2 / np.pi)
GELU_CUBIC = GELU_LINEAR * 0.044715
GELU_GAIN = float(GELU_CUBIC ** (1 / 3))
GELU_OFFSET = float(GELU_LINEAR / GELU_GAIN)
SIGMOID_LIMIT = 14.0  # beyond it the sigmoid is 0 or 1 to within 15 bits: a value may saturate there
GELU_SQUARE_LIMIT = 4.0  # of y * y: then y * (y * y + GELU_OFFSET) is beyond SIGMOID_LIMIT

T = TypeVar("T")


@dataclass(frozen=True)
class Matrix:
    """Weights (outputs, inputs): parts laid one below the other, each times its factor, columns times `columns`."""

    parts: tuple[tuple[FloatArray, float], ...]
    columns: FloatArray | None = None  # (inputs,)

    @property
    def shape(self) -> tuple[int, int]:
        return sum(len(w) for w, _ in self.parts), self.parts[0][0].shape[1]

    def blocks(self) -> Iterator[FloatArray]:
        """The matrix, at most BLOCK_ROWS rows at a time."""
        for w, factor in self.parts:
            for start in range(0, len(w), BLOCK_ROWS):
                block = w[start : start + BLOCK_ROWS] * np.float32(factor)
                yield block if self.columns is None else block * self.columns

    def times(self, x: FloatArray) -> FloatArray:
        """x (..., inputs) -> (..., outputs)."""
        rows = x.reshape(-1, x.shape[-1])  # one product, where more axes would be many
        rows = rows if self.columns is None else rows * self.columns
        out = np.concatenate([rows @ w.T * np.float32(factor) for w, factor in self.parts], axis=-1)
        return out.reshape(*x.shape[:-1], -1)


class Operations(Protocol[T]):
    """What the encoder is made of."""

    def embed(self, table: Matrix, index_name: str) -> T:
        """Row of `table` that the input of that name tells, (1, width)."""

    def linear(self, x: T, weight: Matrix) -> T:
        """(1, inputs) -> (1, outputs)."""

    def add(self, a: T, b: T) -> T: ...

    def add_constant(self, x: T, value: FloatArray) -> T: ...

    def multiply(self, a: T, b: T, *, limit: float = np.inf) -> T:
        """Saturates at `limit`, where what comes after cannot tell the difference."""

    def multiply_by_input(self, x: T, name: str) -> T:
        """By the input of that name, all within -1..1."""

    def subtract_mean(self, x: T) -> T:
        """Of a row."""

    def unit(self, x: T, eps: float) -> T:
        """A row x / sqrt(x . x + eps)."""

    def logistic(self, x: T) -> T: ...

    def matmul(self, a: T, b: T) -> T:
        """a times b transposed: (..., i, j) x (..., k, j) -> (..., i, k)."""

    def softmax(self, scores: T) -> T:
        """(heads, queries, n_ctx) over the filled positions of the window."""

    def window(self, name: str, newest: T, axis: int) -> T:
        """What the cache of that name holds of the positions before, with the present one put behind them along an
        axis: (heads, 1, d_head) -> (heads, n_ctx, d_head), or (heads, d_head, 1) -> (heads, d_head, n_ctx)."""

    def reshape(self, x: T, *shape: int) -> T: ...

    def slice(self, x: T, axis: int, begin: int, size: int) -> T: ...

    def concatenate(self, parts: list[T], axis: int) -> T: ...


def encode(ops: Operations[T], checkpoint: Checkpoint) -> T:
    """One step; returns the hidden row."""
    c, t = checkpoint.config, checkpoint.tensors
    x = ops.embed(Matrix(((t["embed"], 1.0),)), "token")
    if c.positions == "learned":
        x = ops.add(x, ops.embed(Matrix(((t["positions"], 1.0),)), "position"))
    for i in range(c.n_layers):
        layer = _Layer(ops, checkpoint, i)
        x = ops.add(x, layer.attention(x))
        x = ops.add(x, layer.mlp(x))
    return x


class _Layer(Generic[T]):
    """One layer. The gain of a norm goes into the columns of the matrices behind it, its bias into their biases."""

    def __init__(self, ops: Operations[T], checkpoint: Checkpoint, index: int) -> None:
        self.ops, self.config = ops, checkpoint.config
        prefix = f"layers.{index}."
        self.index = index
        self.tensors = {k.removeprefix(prefix): v for k, v in checkpoint.tensors.items() if k.startswith(prefix)}

    def attention(self, x: T) -> T:
        c, ops = self.config, self.ops
        normed = self._norm(x)
        root = c.d_head**-0.25  # of 1 / sqrt(d_head), for queries and keys each
        turned = self._rotate(self._linear(normed, {"q": root, "k": root}, "attn_norm"))
        queries = ops.reshape(ops.slice(turned, 0, 0, c.n_heads), c.n_kv_heads, c.n_heads // c.n_kv_heads, c.d_head)
        key = ops.reshape(ops.slice(turned, 0, c.n_heads, c.n_kv_heads), c.n_kv_heads, 1, c.d_head)
        value = ops.reshape(self._linear(normed, {"v": 1.0}, "attn_norm"), c.n_kv_heads, c.d_head, 1)
        keys, values = ops.window(f"keys.{self.index}", key, 1), ops.window(f"values.{self.index}", value, 2)
        weights = ops.softmax(ops.matmul(queries, keys))
        return self._linear(ops.reshape(ops.matmul(weights, values), 1, c.d_model), {"o": 1.0})

    def mlp(self, x: T) -> T:
        ops, width = self.ops, self.config.d_hidden
        normed = self._norm(x)
        if self.config.mlp == "swiglu":
            both = self._linear(normed, {"gate": 1.0, "up": 1.0}, "mlp_norm")
            gate, up = ops.slice(both, 1, 0, width), ops.slice(both, 1, width, width)
            return self._linear(ops.multiply(ops.multiply(gate, ops.logistic(gate)), up), {"down": 1.0})
        y = self._linear(normed, {"up": GELU_GAIN}, "mlp_norm")
        square = ops.multiply(y, y, limit=GELU_SQUARE_LIMIT)
        offset = np.full((1, 1), GELU_OFFSET, np.float32)
        sigmoid = ops.logistic(ops.multiply(y, ops.add_constant(square, offset), limit=SIGMOID_LIMIT))
        return self._linear(ops.multiply(y, sigmoid), {"down": 1.0}, columns=np.full(width, 1 / GELU_GAIN, np.float32))

    def _norm(self, x: T) -> T:
        """A row of length one; `_linear` gives it its gain."""
        if self.config.norm == "layernorm":
            x = self.ops.subtract_mean(x)
        return self.ops.unit(x, self.config.d_model * self.config.norm_eps)

    def _linear(self, x: T, factors: dict[str, float], norm: str | None = None, columns: FloatArray | None = None) -> T:
        """The matrices of those names, one below the other, each with its bias and all times its factor. Their columns
        take the gain of the norm that x comes from, or are multiplied by `columns`."""
        t = self.tensors
        if norm is not None:
            columns = t[f"{norm}.weight"] * np.float32(np.sqrt(self.config.d_model))
        row = self.ops.linear(x, Matrix(tuple((t[name], factor) for name, factor in factors.items()), columns))
        bias = np.concatenate([factor * self._bias(name, norm) for name, factor in factors.items()])
        return self.ops.add_constant(row, bias[None].astype(np.float32)) if bias.any() else row

    def _bias(self, name: str, norm: str | None) -> FloatArray:
        w = self.tensors[name]
        bias = self.tensors.get(f"{name}.bias", np.zeros(len(w), np.float32))
        norm_bias = self.tensors.get(f"{norm}.bias")
        return bias if norm_bias is None else bias + w @ norm_bias

    def _rotate(self, row: T) -> T:
        """(1, (n_heads + n_kv_heads) * d_head) -> (n_heads + n_kv_heads, d_head), turned by RoPE."""
        c, ops = self.config, self.ops
        x = ops.reshape(row, c.n_heads + c.n_kv_heads, c.d_head)
        if c.positions == "learned":
            return x
        half = c.d_head // 2
        swapped = ops.concatenate([ops.slice(x, 1, half, half), ops.slice(x, 1, 0, half)], 1)
        return ops.add(ops.multiply_by_input(x, "cos"), ops.multiply_by_input(swapped, "sin"))
