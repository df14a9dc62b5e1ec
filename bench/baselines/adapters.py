"""Small plastic networks on the frozen final norm's output, taught token by token in float: other learning signals
for the form that the project's own rule has, and for the paper's.

Every class runs many settings at once: row r of a batch is one stream under one setting, with weights of its own.
A learner has `forward(h (rows, d)) -> logits (rows, vocab)` and `learn(residual (rows, vocab))`, where residual is
one-hot minus softmax of those logits. Numbers of a setting are arrays (rows, 1) or (rows, 1, 1) inside.

x below is the final norm's output, centred and scaled per unit, of root mean square one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from bench.baselines.cost import Cost, head_macs
from bench.baselines.streams import Losses
from edgehmn.checkpoint import Checkpoint, Config
from edgehmn.checkpoint.model import FloatArray

Settings = Mapping[str, Any]
NORM_EPS = 1e-5
DECAY_EVERY = 16  # tokens; decay is applied in one go for so many
RUNNING_RATE = 0.01  # of the running mean and variance of surprise, for G'
GAIN_MAX = 3.0


@dataclass(frozen=True)
class Head:
    """matrix: (vocab, d); mean, inverse_deviation: (d,); preconditioner: (d, d), symmetric."""

    matrix: FloatArray
    mean: FloatArray
    inverse_deviation: FloatArray
    preconditioner: FloatArray

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> "Head":
        t = checkpoint.tensors
        return cls(checkpoint.head, t["plastic.mean"], t["plastic.inverse_deviation"], t["plastic.preconditioner"])

    def standard(self, h: FloatArray) -> tuple[FloatArray, FloatArray]:
        """x (rows, d) of h, and the factor (rows, 1) by which the centred and scaled vector was multiplied."""
        y = (h - self.mean) * self.inverse_deviation
        factor = (np.mean(y * y, -1, keepdims=True) + np.float32(NORM_EPS)) ** -0.5
        return y * factor, factor

    def standard_backward(self, dx: FloatArray, x: FloatArray, factor: FloatArray) -> FloatArray:
        out: FloatArray = factor * (dx - x * np.mean(dx * x, -1, keepdims=True)) * self.inverse_deviation
        return out


class Learner(Protocol):
    def forward(self, h: FloatArray) -> FloatArray: ...
    def learn(self, residual: FloatArray) -> None: ...


def column(settings: Sequence[Settings], name: str, extra: int = 1, default: float = 0.0) -> FloatArray:
    """One number of every setting as an array (rows, 1, ...)."""
    values = np.array([float(s.get(name, default)) for s in settings], np.float32)
    return values.reshape(-1, *[1] * extra)


def apply(weights: FloatArray, x: FloatArray) -> FloatArray:
    """Row by row: weights (rows, m, d) times x (rows, d)."""
    out: FloatArray = np.matmul(weights, x[..., None])[..., 0]
    return out


class GainedAdapter:
    """The dense adapter of the project's rule, learned by exact back-propagation, in float:

    h' = scale h + P (gain tanh(W x)),   W, gain and scale by SGD; W decays towards zero, its start
    """

    def __init__(self, head: Head, settings: Sequence[Settings], seed: int = 0) -> None:
        rows, d = len(settings), head.matrix.shape[1]
        self.head = head
        self.eta, self.decay = column(settings, "eta"), column(settings, "decay", 2)
        self.eta_gain, self.eta_scale = column(settings, "eta_gain"), column(settings, "eta_scale")
        self.weights = np.zeros((rows, d, d), np.float32)
        self.gain, self.scale = np.ones((rows, 1), np.float32), np.ones((rows, 1), np.float32)
        self.time = 0

    def forward(self, h: FloatArray) -> FloatArray:
        self.h = h
        self.x, _ = self.head.standard(h)
        self.z = np.tanh(apply(self.weights, self.x))
        adapted = self.scale * h + (self.gain * self.z) @ self.head.preconditioner
        out: FloatArray = adapted @ self.head.matrix.T
        return out

    def gradients(self, residual: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Of the log-probability: by W's activations a = W x (rows, d), by gain and by scale (rows, 1)."""
        delta = residual @ self.head.matrix
        error = delta @ self.head.preconditioner
        by_gain = np.sum(self.z * error, -1, keepdims=True)
        return self.gain * error * (1 - self.z**2), by_gain, np.sum(self.h * delta, -1, keepdims=True)

    def learn(self, residual: FloatArray) -> None:
        post, by_gain, by_scale = self.gradients(residual)
        self.weights += (self.eta * post)[..., None] * self.x[:, None]
        self.gain = np.clip(self.gain + self.eta_gain * by_gain, 0, GAIN_MAX)
        self.scale = np.clip(self.scale + self.eta_scale * by_scale, 0, GAIN_MAX)
        self.time += 1
        if self.time % DECAY_EVERY == 0:
            self.weights *= (1 - self.decay) ** DECAY_EVERY


class Stack:
    """The paper's adapters, one after the other: h <- h + tanh(W x(h)), without preconditioner, gain or scale.

    signal "backprop": exact gradient through the stack; "hebbian": the literal rule, post = tanh(W x), with
    dw = (eta + eta_global G') post pre - decay w, G' the surprise in running standard deviations; "random": direct
    feedback alignment, each layer's error is a fixed random matrix times (one-hot minus softmax).
    """

    def __init__(self, head: Head, settings: Sequence[Settings], layers: int, signal: str, seed: int = 0) -> None:
        rows, d = len(settings), head.matrix.shape[1]
        rng = np.random.default_rng(seed)
        self.head, self.signal = head, signal
        self.eta, self.eta_global = column(settings, "eta"), column(settings, "eta_global")
        self.decay = column(settings, "decay", 2)
        start = rng.standard_normal((layers, 1, d, d), np.float32) * column(settings, "initial", 2)
        self.weights = list(np.broadcast_to(start, (layers, rows, d, d)).copy())
        if signal == "random":  # as large as the true feedback, E^T
            size = np.sqrt(np.mean(head.matrix**2))
            self.feedback = size * rng.standard_normal((layers, len(head.matrix), d), np.float32)
        self.surprise = np.stack([np.zeros((rows, 1)), np.ones((rows, 1))])  # running mean and variance
        self.time = 0

    def forward(self, h: FloatArray) -> FloatArray:
        self.tape = []
        for weights in self.weights:
            x, factor = self.head.standard(h)
            z = np.tanh(apply(weights, x))
            self.tape.append((x, factor, z))
            h = h + z
        out: FloatArray = h @ self.head.matrix.T
        return out

    def gradients(self, residual: FloatArray) -> list[FloatArray]:
        """Of the log-probability, by the activations W x of each layer: (rows, d) each."""
        delta, out = residual @ self.head.matrix, []
        for weights, (x, factor, z) in zip(self.weights[::-1], self.tape[::-1], strict=True):
            post = delta * (1 - z**2)
            out.append(post)
            back = apply(weights.transpose(0, 2, 1), post)
            delta = delta + self.head.standard_backward(back, x, factor)
        return out[::-1]

    def learn(self, residual: FloatArray) -> None:
        rate: npt.NDArray[np.floating] = self.eta
        if self.signal == "backprop":
            posts = self.gradients(residual)
        elif self.signal == "random":
            posts = [(residual @ b) * (1 - t[2] ** 2) for b, t in zip(self.feedback, self.tape, strict=True)]
        else:
            posts = [t[2] for t in self.tape]
            rate = np.maximum(0, self.eta + self.eta_global * self._modulator(residual)).astype(np.float32)
        self.time += 1
        for weights, post, (x, _, _) in zip(self.weights, posts, self.tape, strict=True):
            weights += (rate * post)[..., None] * x[:, None]
            if self.time % DECAY_EVERY == 0:
                weights *= (1 - self.decay) ** DECAY_EVERY

    def _modulator(self, residual: FloatArray) -> npt.NDArray[np.float64]:
        """G': surprise in running standard deviations, clipped to two."""
        surprise = -np.log(np.maximum(1 - residual.max(-1, keepdims=True), 1e-12))
        mean, variance = self.surprise
        score = np.clip((surprise - mean) / np.sqrt(variance + 1e-6), -2, 2)
        mean += RUNNING_RATE * (surprise - mean)
        variance += RUNNING_RATE * ((surprise - mean) ** 2 - variance)
        return np.asarray(score)


class Readout:
    """Random feedback where it can align: h' = h + U tanh(W x). U, behind the hidden layer, starts at zero and learns
    by its exact, local gradient; W starts random and learns by direct feedback alignment."""

    def __init__(self, head: Head, settings: Sequence[Settings], seed: int = 0) -> None:
        rows, d = len(settings), head.matrix.shape[1]
        rng = np.random.default_rng(seed)
        self.head = head
        self.eta, self.eta_readout = column(settings, "eta"), column(settings, "eta_readout")
        self.decay = column(settings, "decay", 2)
        self.hidden = rng.standard_normal((1, d, d), np.float32) * column(settings, "initial", 2)
        self.readout = np.zeros((rows, d, d), np.float32)
        size = np.sqrt(np.mean(head.matrix**2))
        self.feedback = size * rng.standard_normal(head.matrix.shape, np.float32)
        self.start = self.hidden.copy()
        self.time = 0

    def forward(self, h: FloatArray) -> FloatArray:
        self.x, _ = self.head.standard(h)
        self.z = np.tanh(apply(self.hidden, self.x))
        adapted: FloatArray = h + apply(self.readout, self.z)
        return adapted @ self.head.matrix.T

    def learn(self, residual: FloatArray) -> None:
        delta = residual @ self.head.matrix
        post = (residual @ self.feedback) * (1 - self.z**2)
        self.readout += (self.eta_readout * delta)[..., None] * self.z[:, None]
        self.hidden += (self.eta * post)[..., None] * self.x[:, None]
        self.time += 1
        if self.time % DECAY_EVERY == 0:
            keep = (1 - self.decay) ** DECAY_EVERY
            self.readout *= keep
            self.hidden += (1 - keep) * (self.start - self.hidden)


class PlasticHead:
    """The output matrix itself, by its exact gradient, which needs no back-propagation; decays towards the prior."""

    def __init__(self, head: Head, settings: Sequence[Settings], seed: int = 0) -> None:
        self.head = head
        self.eta, self.decay = column(settings, "eta", 2), column(settings, "decay", 2)
        self.change = np.zeros((len(settings), *head.matrix.shape), np.float32)
        self.time = 0

    def forward(self, h: FloatArray) -> FloatArray:
        self.h = h
        out: FloatArray = h @ self.head.matrix.T + apply(self.change, h)
        return out

    def learn(self, residual: FloatArray) -> None:
        for change, eta, error, h in zip(self.change, self.eta, residual, self.h, strict=True):
            change += np.outer(eta[0, 0] * error, h)
        self.time += 1
        if self.time % DECAY_EVERY == 0:
            self.change *= (1 - self.decay) ** DECAY_EVERY


def stream_losses(learner: Learner, normed: Sequence[FloatArray], ids: Sequence[npt.NDArray[np.int32]]) -> list[Losses]:
    """Nats (n,) of every token of each row's stream. normed: (n, d) of each row; all rows end with the longest."""
    rows, longest = len(ids), max(map(len, ids))
    inputs = np.zeros((longest - 1, rows, normed[0].shape[1]), np.float32)
    targets = np.zeros((longest - 1, rows), np.int64)
    for r in range(rows):
        inputs[: len(ids[r]) - 1, r], targets[: len(ids[r]) - 1, r] = normed[r][: len(ids[r]) - 1], ids[r][1:]
    out, row = np.zeros((longest, rows)), np.arange(rows)
    for t in range(longest - 1):
        logits = learner.forward(inputs[t])
        logits -= logits.max(-1, keepdims=True)
        chosen = logits[row, targets[t]]
        p = np.exp(logits, out=logits)
        total = p.sum(-1, keepdims=True)
        out[t + 1] = np.log(total[:, 0]) - chosen
        p *= -1 / total
        p[row, targets[t]] += 1
        learner.learn(p)
    out[0] = np.log(logits.shape[1])
    return [out[: len(ids[r]), r] for r in range(rows)]


def adapter_cost(c: Config, form: str, layers: int = 1) -> Cost:
    """Of a learner: "gained", "backprop", "hebbian" or "random" (a `Stack` of so many layers), "readout", "head".

    An exact error needs the softmax's expectation of the embeddings: as many MACs as the head."""
    square, head, float_bytes = c.d_model**2, head_macs(c), 4
    pair = (2 + 1 / DECAY_EVERY) * square  # forward product, outer product, decay
    matrix = float_bytes * square
    if form == "gained":  # and P twice
        return Cost(head + pair + 2 * square, matrix + 2 * float_bytes, matrix)
    if form == "backprop":
        return Cost(head + layers * pair + (layers - 1) * square, layers * matrix)
    if form == "hebbian":
        return Cost(layers * pair, layers * matrix + 2 * float_bytes)
    if form == "random":
        return Cost(layers * (head + pair), layers * matrix, layers * float_bytes * head)
    if form == "readout":
        return Cost(2 * head + 2 * pair, 2 * matrix, matrix + float_bytes * head)
    return Cost((1 + 1 / DECAY_EVERY) * head, float_bytes * head)
