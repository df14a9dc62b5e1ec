"""The float meaning of the encoder and the head, in NumPy: what every other runtime is measured against."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgehmn.checkpoint.model import Checkpoint, FloatArray

LOG2_E = float(np.log2(np.e))
CHUNK = 256  # tokens that the encoder takes in one matrix product; changes speed, not meaning
BLOCK_VALUES = 1 << 22  # logits that are held at a time: 16 MB

Ids = npt.NDArray[np.int64]


@dataclass
class EncoderState:
    """The window of an encoder, and how far it is filled.

    keys, values: (n_layers, n_kv_heads, positions that are kept, d_head); keys are already rotated. A sliding window
    keeps at most n_ctx - 1 positions, one that restarts at most n_ctx.
    position: of the next token; recent: the last tokens that were fed, at most n_ctx // 2, for a restart;
    largest: magnitude of the residual so far, inside the layers and for the start token too.
    """

    keys: FloatArray
    values: FloatArray
    recent: Ids
    position: int = 0
    largest: float = 0.0


class FloatModel:
    """Encoder of either family, final norm and head. Stateless; the state is passed in."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.config = checkpoint.config
        self.tensors = checkpoint.tensors
        self.head_matrix = checkpoint.head
        self._rope_frequency = self.config.rope_frequency()

    def new_state(self) -> EncoderState:
        return EncoderState(self._empty(), self._empty(), np.zeros(0, np.int64))

    def _empty(self) -> FloatArray:
        c = self.config
        return np.zeros((c.n_layers, c.n_kv_heads, 0, c.d_head), np.float32)

    def encode(self, ids: npt.NDArray[np.integer], state: EncoderState) -> FloatArray:
        """Hidden vectors (len(ids), d_model) before the final norm; advances `state`."""
        parts, done = [np.zeros((0, self.config.d_model), np.float32)], 0
        while done < len(ids):
            first = self._first_tokens(state)
            room = CHUNK if self.config.window == "sliding" else self.config.n_ctx - state.position - len(first)
            chunk = np.asarray(ids[done : done + min(CHUNK, room)], np.int64)
            parts.append(self._encode_chunk(np.concatenate([first, chunk]), state)[len(first) :])
            half = self.config.n_ctx // 2
            state.recent = np.concatenate([state.recent, chunk])[-half:] if half else chunk[:0]
            done += len(chunk)
        return np.concatenate(parts)

    def _first_tokens(self, state: EncoderState) -> Ids:
        """What is encoded again, or unseen, before the next token; a window that is full is emptied."""
        c, nothing = self.config, np.zeros(0, np.int64)
        if c.window == "sliding" or 0 < state.position < c.n_ctx:
            return nothing
        again = state.recent if state.position else nothing
        state.keys, state.values, state.position = self._empty(), self._empty(), 0
        return np.concatenate([[c.start_token], again]).astype(np.int64) if c.start_token >= 0 else again

    def _encode_chunk(self, ids: Ids, state: EncoderState) -> FloatArray:
        c, t = self.config, self.tensors
        x = t["embed"][ids]
        if c.positions == "learned":
            x = x + t["positions"][state.position : state.position + len(ids)]
        phase = np.arange(state.position, state.position + len(ids))[:, None] * self._rope_frequency
        turn = np.cos(phase).astype(np.float32), np.sin(phase).astype(np.float32)
        largest = [np.abs(x).max()]
        kept = min(state.keys.shape[2] + len(ids), c.n_ctx - 1 if c.window == "sliding" else c.n_ctx)
        keys, values = (np.empty((c.n_layers, c.n_kv_heads, kept, c.d_head), np.float32) for _ in range(2))
        for i in range(c.n_layers):
            attended, k, v = self._attention(i, self._norm(f"layers.{i}.attn_norm", x), turn, state)
            x = x + attended
            largest.append(np.abs(x).max())
            x = x + self._mlp(i, self._norm(f"layers.{i}.mlp_norm", x))
            largest.append(np.abs(x).max())
            keys[i], values[i] = k[:, k.shape[1] - kept :], v[:, v.shape[1] - kept :]
        state.keys, state.values = keys, values
        state.position += len(ids)
        state.largest = float(np.max([state.largest, *largest]))  # NaN stays
        return x

    def _attention(
        self, i: int, y: FloatArray, turn: tuple[FloatArray, FloatArray], state: EncoderState
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """What layer i adds for normed inputs y (n, d_model), and the keys and values of its window with theirs."""
        c = self.config
        q = self._heads(self._matrix(f"layers.{i}.q", y), c.n_heads)
        k = self._heads(self._matrix(f"layers.{i}.k", y), c.n_kv_heads)
        v = self._heads(self._matrix(f"layers.{i}.v", y), c.n_kv_heads)
        if c.positions == "rope":
            q, k = rotate(q, *turn), rotate(k, *turn)
        k = np.concatenate([state.keys[i], k], axis=1)
        v = np.concatenate([state.values[i], v], axis=1)
        return self._matrix(f"layers.{i}.o", sliding_attention(q, k, v, c.n_ctx)), k, v

    def _mlp(self, i: int, y: FloatArray) -> FloatArray:
        up = self._matrix(f"layers.{i}.up", y)
        inner = gelu(up) if self.config.mlp == "gelu" else silu(self._matrix(f"layers.{i}.gate", y)) * up
        return self._matrix(f"layers.{i}.down", inner)

    def _matrix(self, name: str, x: FloatArray) -> FloatArray:
        """(n, inputs) -> (n, outputs), with the bias where there is one."""
        out: FloatArray = x @ self.tensors[name].T
        bias = self.tensors.get(f"{name}.bias")
        return out if bias is None else out + bias

    def _norm(self, name: str, x: FloatArray) -> FloatArray:
        """A norm of the layers."""
        return self._normalise(name, x, self.config.norm)

    def _heads(self, x: npt.NDArray[Any], n: int) -> FloatArray:
        """(tokens, n * d_head) -> (n, tokens, d_head)."""
        return x.reshape(len(x), n, self.config.d_head).transpose(1, 0, 2)

    def _normalise(self, name: str, x: FloatArray, kind: str) -> FloatArray:
        if kind == "layernorm":
            x = x - x.mean(-1, keepdims=True)
        return self._apply_gain(name, rms_norm(x, self.config.norm_eps))

    def _apply_gain(self, name: str, x: FloatArray) -> FloatArray:
        """The gain and bias of a norm, on what it has normalised."""
        out: FloatArray = x * self.tensors[f"{name}.weight"]
        bias = self.tensors.get(f"{name}.bias")
        return out if bias is None else out + bias

    def final_norm(self, hidden: FloatArray) -> FloatArray:
        """The head's own norm: LayerNorm or RMSNorm of the hidden vectors."""
        return self._normalise("final_norm", hidden, self.config.final_norm)

    def logits(self, normed: FloatArray) -> FloatArray:
        return normed @ self.head_matrix.T

    def log_p(self, hidden: FloatArray, targets: npt.NDArray[np.integer]) -> FloatArray:
        """Natural log-probability (n,) of the token that follows each hidden vector (n, d_model), in little memory."""
        parts = [np.zeros(0, np.float32)]
        for start, stop in row_blocks(len(hidden), self.config.vocab_size):
            scores = self.logits(self.final_norm(hidden[start:stop]))
            scores -= scores.max(-1, keepdims=True)
            found = scores[np.arange(stop - start), targets[start:stop]]
            parts.append(found - np.log(np.exp(scores, out=scores).sum(-1)))
        return np.concatenate(parts)


def row_blocks(rows: int, columns: int) -> Iterator[tuple[int, int]]:
    """(start, stop) of runs of rows with at most BLOCK_VALUES values in them: what is computed at a time."""
    step = max(1, BLOCK_VALUES // columns)
    for start in range(0, rows, step):
        yield start, min(rows, start + step)


def rms_norm(x: FloatArray, eps: float) -> FloatArray:
    out: FloatArray = x / np.sqrt(np.mean(np.square(x), -1, keepdims=True) + np.float32(eps))
    return out


def silu(x: npt.NDArray[Any]) -> FloatArray:
    with np.errstate(over="ignore"):  # far below zero the quotient is zero
        out: FloatArray = x / (1 + np.exp(-x))
    return out


def gelu(x: npt.NDArray[Any]) -> FloatArray:
    """In its tanh form, which GPT-2 has."""
    inner = np.float32(np.sqrt(2 / np.pi)) * (x + np.float32(0.044715) * x * x * x)
    out: FloatArray = np.float32(0.5) * x * (1 + np.tanh(inner))
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
