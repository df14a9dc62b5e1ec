"""The float meaning of the encoder and the head, in NumPy: what every other runtime is measured against."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgehmn.checkpoint.model import Checkpoint, FloatArray

LOG2_E = float(np.log2(np.e))
CHUNK = 256  # tokens that the encoder takes in one matrix product; changes speed, not meaning


@dataclass
class EncoderState:
    """Keys and values of the last n_ctx - 1 positions, and how many positions have passed.

    keys, values: (n_layers, n_kv_heads, at most n_ctx - 1, d_head); keys are already rotated.
    """

    keys: FloatArray
    values: FloatArray
    position: int = 0


class FloatModel:
    """Llama-family encoder with a sliding window, final norm and head. Stateless; the state is passed in."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.config = checkpoint.config
        self.tensors = checkpoint.tensors
        self.head_matrix = checkpoint.head
        half = self.config.d_head // 2
        self._rope_frequency = self.config.rope_theta ** (-np.arange(half) / half)

    def new_state(self) -> EncoderState:
        c = self.config
        empty = np.zeros((c.n_layers, c.n_kv_heads, 0, c.d_head), np.float32)
        return EncoderState(empty, empty.copy())

    def encode(self, ids: npt.NDArray[np.integer], state: EncoderState) -> FloatArray:
        """Hidden vectors (len(ids), d_model) before the final norm; advances `state`."""
        parts = [self._encode_chunk(ids[i : i + CHUNK], state) for i in range(0, len(ids), CHUNK)]
        return np.concatenate(parts) if parts else np.zeros((0, self.config.d_model), np.float32)

    def _encode_chunk(self, ids: npt.NDArray[np.integer], state: EncoderState) -> FloatArray:
        c, t = self.config, self.tensors
        x = t["embed"][ids]
        phase = np.arange(state.position, state.position + len(ids))[:, None] * self._rope_frequency
        cos, sin = np.cos(phase).astype(np.float32), np.sin(phase).astype(np.float32)
        keys, values = [], []
        for i in range(c.n_layers):
            y = rms_norm(x, c.norm_eps) * t[f"layers.{i}.attn_norm.weight"]
            q = rotate(self._heads(y @ t[f"layers.{i}.q"].T, c.n_heads), cos, sin)
            k = rotate(self._heads(y @ t[f"layers.{i}.k"].T, c.n_kv_heads), cos, sin)
            v = self._heads(y @ t[f"layers.{i}.v"].T, c.n_kv_heads)
            k = np.concatenate([state.keys[i], k], axis=1)
            v = np.concatenate([state.values[i], v], axis=1)
            x = x + sliding_attention(q, k, v, c.n_ctx) @ t[f"layers.{i}.o"].T
            y = rms_norm(x, c.norm_eps) * t[f"layers.{i}.mlp_norm.weight"]
            gated = silu(y @ t[f"layers.{i}.gate"].T) * (y @ t[f"layers.{i}.up"].T)
            x = x + gated @ t[f"layers.{i}.down"].T
            keep = max(0, k.shape[1] - (c.n_ctx - 1))
            keys.append(k[:, keep:])
            values.append(v[:, keep:])
        state.keys, state.values = np.stack(keys), np.stack(values)
        state.position += len(ids)
        return x

    def _heads(self, x: npt.NDArray[Any], n: int) -> FloatArray:
        """(tokens, n * d_head) -> (n, tokens, d_head)."""
        return x.reshape(len(x), n, self.config.d_head).transpose(1, 0, 2)

    def final_norm(self, hidden: FloatArray) -> FloatArray:
        """The head's own norm: LayerNorm or RMSNorm of the hidden vectors."""
        c, t = self.config, self.tensors
        if c.final_norm == "layernorm":
            hidden = hidden - hidden.mean(-1, keepdims=True)
            return rms_norm(hidden, c.norm_eps) * t["final_norm.weight"] + t["final_norm.bias"]
        return rms_norm(hidden, c.norm_eps) * t["final_norm.weight"]

    def logits(self, normed: FloatArray) -> FloatArray:
        return normed @ self.head_matrix.T


def rms_norm(x: FloatArray, eps: float) -> FloatArray:
    out: FloatArray = x / np.sqrt(np.mean(np.square(x), -1, keepdims=True) + np.float32(eps))
    return out


def silu(x: npt.NDArray[Any]) -> FloatArray:
    out: FloatArray = x / (1 + np.exp(-x))
    return out


def rotate(x: FloatArray, cos: FloatArray, sin: FloatArray) -> FloatArray:
    """RoPE on the pairs (i, i + d_head / 2). x: (heads, tokens, d_head); cos, sin: (tokens, d_head / 2)."""
    a, b = np.split(x, 2, axis=-1)
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1)


def sliding_attention(q: FloatArray, k: FloatArray, v: FloatArray, n_ctx: int) -> FloatArray:
    """Each query sees itself and the n_ctx - 1 keys before it; the last query and last key coincide.

    q: (heads, n, d_head); k, v: (kv_heads, m, d_head), m >= n. Returns (n, heads * d_head).
    """
    heads, n, d_head = q.shape
    m = k.shape[1]
    group = heads // k.shape[0]
    if group > 1:
        k, v = np.repeat(k, group, axis=0), np.repeat(v, group, axis=0)
    distance = (np.arange(n)[:, None] + (m - n)) - np.arange(m)[None]
    bias = np.where((distance >= 0) & (distance < n_ctx), np.float32(0), np.float32(-np.inf))
    scores = q @ k.transpose(0, 2, 1) / np.float32(np.sqrt(d_head)) + bias
    scores -= scores.max(-1, keepdims=True)
    weights = np.exp(scores)
    weights /= weights.sum(-1, keepdims=True)
    out: FloatArray = (weights @ v).transpose(1, 0, 2).reshape(n, heads * d_head)
    return out


def log_softmax(logits: FloatArray) -> FloatArray:
    """Natural logarithm of the softmax over the last axis."""
    shifted = logits - logits.max(-1, keepdims=True)
    out: FloatArray = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return out
