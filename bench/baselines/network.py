"""The whole Llama-family network in one flat vector of weights: forward pass in segments, and its exact gradient.

Keys and values of earlier segments are kept and taken as constants, so the gradient is truncated at the segment;
the sliding window and everything else mean what `edgehmn.model.FloatModel` means.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgehmn.checkpoint import Checkpoint

Array = npt.NDArray[Any]  # of the network's dtype
MATRICES = ("q", "k", "v", "o", "gate", "up", "down")


class Network:
    """weights: (parameters,) flat; `w[name]` is a view into it, `grad[name]` the like of `gradient`.

    `forward(ids)` advances the stream and gives final-norm outputs and logits; `backward(d_logits)` then fills
    `gradient` with the derivative of sum(logits * d_logits) by every weight.
    """

    def __init__(self, checkpoint: Checkpoint, dtype: npt.DTypeLike = np.float32) -> None:
        self.config, self.dtype = checkpoint.config, np.dtype(dtype)
        shapes = self.config.tensor_shapes()
        self.weights = np.concatenate([checkpoint.tensors[name].ravel() for name in shapes]).astype(dtype)
        self.gradient = np.zeros_like(self.weights)
        self.w, self.grad = _views(self.weights, shapes), _views(self.gradient, shapes)
        half = self.config.d_head // 2
        self._frequency = self.config.rope_theta ** (-np.arange(half) / half)
        self._head = "embed" if self.config.tied_head else "head"
        self.reset()

    def reset(self) -> None:
        """Forget the context, not the weights."""
        c = self.config
        self.position = 0
        self.keys = [np.zeros((c.n_kv_heads, 0, c.d_head), self.dtype) for _ in range(c.n_layers)]
        self.values = [k.copy() for k in self.keys]

    def forward(self, ids: npt.NDArray[np.integer]) -> tuple[Array, Array]:
        """Final norm's output (n, d_model) and logits (n, vocab) after each of n tokens."""
        self.ids = ids
        self.tape: list[Any] = []  # of each layer, what `_layer_backward` needs
        phase = np.arange(self.position, self.position + len(ids))[:, None] * self._frequency
        self.cos, self.sin = np.cos(phase).astype(self.dtype), np.sin(phase).astype(self.dtype)
        x = self.w["embed"][ids]
        for i in range(self.config.n_layers):
            x = self._layer(i, x)
        c, w = self.config, self.w
        self.last = _norm(x, c.norm_eps, c.final_norm == "layernorm")
        self.normed = self.last[0] * w["final_norm.weight"] + w.get("final_norm.bias", 0)
        self.position += len(ids)
        return self.normed, self.normed @ w[self._head].T

    def _layer(self, i: int, x: Array) -> Array:
        c, w = self.config, {name: self.w[f"layers.{i}.{name}"] for name in MATRICES}
        first = _norm(x, c.norm_eps)
        y = first[0] * self.w[f"layers.{i}.attn_norm.weight"]
        q = _rotate(self._split(y @ w["q"].T), self.cos, self.sin)
        k = _rotate(self._split(y @ w["k"].T), self.cos, self.sin)
        k = np.concatenate([self.keys[i], k], axis=1)
        v = np.concatenate([self.values[i], self._split(y @ w["v"].T)], axis=1)
        p, seen = self._attend(q, k, v)
        x = x + seen @ w["o"].T
        second = _norm(x, c.norm_eps)
        u = second[0] * self.w[f"layers.{i}.mlp_norm.weight"]
        gate, up = u @ w["gate"].T, u @ w["up"].T
        open_ = 1 / (1 + np.exp(-gate))
        self.tape.append((first, y, q, k, v, p, seen, second, u, gate, up, open_))
        keep = max(0, k.shape[1] - (c.n_ctx - 1))
        self.keys[i], self.values[i] = k[:, keep:], v[:, keep:]
        return x + (gate * open_ * up) @ w["down"].T

    def _attend(self, q: Array, k: Array, v: Array) -> tuple[Array, Array]:
        """Attention weights (heads, n, m), and what they see (n, heads * d_head)."""
        n, m, k, v = q.shape[1], k.shape[1], self._repeat(k), self._repeat(v)
        distance = (np.arange(n)[:, None] + (m - n)) - np.arange(m)[None]
        hidden = (distance < 0) | (distance >= self.config.n_ctx)
        score = q @ k.transpose(0, 2, 1) * self.dtype.type(self.config.d_head**-0.5)
        score[:, hidden] = -np.inf
        score -= score.max(-1, keepdims=True)
        p = np.exp(score, out=score)
        p /= p.sum(-1, keepdims=True)
        return p, self._join(p @ v)

    def backward(self, d_logits: Array, layer_matrices: Sequence[str] = MATRICES, rest: bool = True) -> None:
        """Gradients of the named matrices of all layers and, with `rest`, of embedding, head and norms."""
        g, w, c = self.grad, self.w, self.config
        if rest:
            g["embed"][:] = 0
            g[self._head][:] = d_logits.T @ self.normed
        dx = d_logits @ w[self._head]
        if rest:
            g["final_norm.weight"][:] = (dx * self.last[0]).sum(0)
            if "final_norm.bias" in g:
                g["final_norm.bias"][:] = dx.sum(0)
        dx = _norm_backward(dx * w["final_norm.weight"], self.last, c.final_norm == "layernorm")
        for i in reversed(range(c.n_layers)):
            dx = self._layer_backward(i, dx, layer_matrices, rest)
        if rest:
            np.add.at(g["embed"], self.ids, dx)

    def _layer_backward(self, i: int, dx: Array, matrices: Sequence[str], rest: bool) -> Array:
        w = {name: self.w[f"layers.{i}.{name}"] for name in MATRICES}
        first, y, q, k, v, p, seen, second, u, gate, up, open_ = self.tape[i]
        pairs = {"down": (dx, gate * open_ * up)}
        product = dx @ w["down"]
        d_up = product * gate * open_
        d_gate = product * up * open_ * (1 + gate * (1 - open_))
        pairs |= {"gate": (d_gate, u), "up": (d_up, u)}
        dx = dx + self._through_norm(i, "mlp_norm", d_gate @ w["gate"] + d_up @ w["up"], second, rest)
        pairs["o"] = (dx, seen)
        dq, dk, dv = self._attend_backward(self._split(dx @ w["o"]), q, k, v, p)
        pairs |= {"q": (dq, y), "k": (dk, y), "v": (dv, y)}
        dy = dq @ w["q"] + dk @ w["k"] + dv @ w["v"]
        for name in matrices:
            np.matmul(pairs[name][0].T, pairs[name][1], out=self.grad[f"layers.{i}.{name}"])
        return dx + self._through_norm(i, "attn_norm", dy, first, rest)

    def _through_norm(self, i: int, name: str, dy: Array, norm: tuple[Array, Array], rest: bool) -> Array:
        full = f"layers.{i}.{name}.weight"
        if rest:
            self.grad[full][:] = (dy * norm[0]).sum(0)
        return _norm_backward(dy * self.w[full], norm)

    def _attend_backward(self, d_seen: Array, q: Array, k: Array, v: Array, p: Array) -> tuple[Array, Array, Array]:
        """Gradients (n, heads * d_head) by queries, and by keys and values of this segment, before rotation."""
        n, heads = q.shape[1], self.config.n_kv_heads
        dp = d_seen @ self._repeat(v).transpose(0, 2, 1)
        ds = p * (dp - (dp * p).sum(-1, keepdims=True)) * self.dtype.type(self.config.d_head**-0.5)
        dq = ds @ self._repeat(k)
        own = ds[:, :, -n:].transpose(0, 2, 1) @ q
        dv = p[:, :, -n:].transpose(0, 2, 1) @ d_seen
        dk, dv = (a.reshape(heads, -1, n, a.shape[-1]).sum(1) for a in (own, dv))
        back = self._join(_rotate(dq, self.cos, -self.sin)), self._join(_rotate(dk, self.cos, -self.sin))
        return *back, self._join(dv)

    def _split(self, x: Array) -> Array:
        """(n, heads * d_head) -> (heads, n, d_head)."""
        return x.reshape(len(x), -1, self.config.d_head).transpose(1, 0, 2)

    def _join(self, x: Array) -> Array:
        return x.transpose(1, 0, 2).reshape(x.shape[1], -1)

    def _repeat(self, x: Array) -> Array:
        group = self.config.n_heads // self.config.n_kv_heads
        return np.repeat(x, group, axis=0) if group > 1 else x


def _views(flat: Array, shapes: dict[str, tuple[int, ...]]) -> dict[str, Array]:
    views, start = {}, 0
    for name, shape in shapes.items():
        size = int(np.prod(shape))
        views[name] = flat[start : start + size].reshape(shape)
        start += size
    return views


def _rotate(x: Array, cos: Array, sin: Array) -> Array:
    """RoPE on the pairs (i, i + d_head / 2), as `edgehmn.model.rotate` does it, with fewer calls."""
    half, out = cos.shape[-1], np.empty_like(x)
    a, b = x[..., :half], x[..., half:]
    np.subtract(a * cos, b * sin, out=out[..., :half])
    np.add(b * cos, a * sin, out=out[..., half:])
    return out


def _norm(x: Array, eps: float, centred: bool = False) -> tuple[Array, Array]:
    """The normalised rows of x, and the factor (n, 1) that normalised them."""
    if centred:
        x = x - x.mean(-1, keepdims=True)
    factor = 1 / np.sqrt(_mean_product(x, x) + x.dtype.type(eps))
    return x * factor, factor


def _norm_backward(dy: Array, norm: tuple[Array, Array], centred: bool = False) -> Array:
    y, factor = norm
    dx: Array = factor * (dy - y * _mean_product(dy, y))
    return dx - dx.mean(-1, keepdims=True) if centred else dx


def _mean_product(a: Array, b: Array) -> Array:
    """Mean over the last axis of a b, which is kept."""
    return np.einsum("nd,nd->n", a, b)[:, None] / a.dtype.type(a.shape[-1])
