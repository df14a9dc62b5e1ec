"""Dynamic evaluation (Krause, Kahembwe, Murray, Renals 2018, 2019): gradient descent on the stream itself.

    w <- w - eta r g + lambda c (w_0 - w)        after each segment, g the gradient of its mean loss

SGD: r = c = 1. RMS: r = 1 / (s + epsilon mean(s)), c = min(s / mean(s), 1 / lambda), s the root mean square gradient of
each weight over segments of the training text. Either may clip the norm of g. LoRA: only low-rank changes of the query
and value matrices move, by SGD.
"""

import math
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from bench.baselines.cost import Cost, attention_macs, encoder_weights, head_macs
from bench.baselines.network import Array, Network
from bench.baselines.streams import Losses
from edgehmn.checkpoint import Checkpoint, Config
from edgehmn.checkpoint.model import FloatArray
from edgehmn.model import log_softmax

Settings = Mapping[str, Any]
BLOCK = 1 << 15  # weights updated at a time, so that they stay in the processor's cache
ADAPTED = ("q", "v")  # matrices that LoRA changes


class Optimiser(Protocol):
    def learn(self, d_logits: Array) -> None:
        """One step, after a forward pass; d_logits is the gradient of the segment's mean loss by its logits."""


class Whole:
    """All weights, by SGD or, with root mean square gradients (parameters,), by Krause's RMS rule."""

    def __init__(self, network: Network, settings: Settings, rms: FloatArray | None = None) -> None:
        self.network, self.prior = network, network.weights.copy()
        self.eta, self.pull = float(settings["eta"]), float(settings["decay"])
        self.clip = float(settings.get("clip", math.inf))
        self.rate: FloatArray | None = None
        self.pulls: FloatArray | None = None
        if rms is not None:
            self.rate = (self.eta / (rms + float(settings["epsilon"]) * rms.mean())).astype(np.float32)
            self.pulls = np.minimum(self.pull * rms / rms.mean(), 1).astype(np.float32)

    def learn(self, d_logits: Array) -> None:
        self.network.backward(d_logits)
        w, g, prior = self.network.weights, self.network.gradient, self.prior
        if self.clip < math.inf:
            g *= min(1.0, self.clip / float(np.sqrt(g @ g)))
        for start in range(0, len(w), BLOCK):
            part = slice(start, start + BLOCK)
            back = prior[part] - w[part]
            back *= self.pull if self.pulls is None else self.pulls[part]
            g[part] *= self.eta if self.rate is None else self.rate[part]
            back -= g[part]
            w[part] += back


class LoRA:
    """W = W_0 + B A / sqrt(rank) for the query and value matrix of each layer. A: (rank, d), random; B: zero."""

    def __init__(self, network: Network, settings: Settings, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.network, self.rank = network, int(settings["rank"])
        self.eta, self.pull = float(settings["eta"]), float(settings["decay"])
        self.names = [f"layers.{i}.{m}" for i in range(network.config.n_layers) for m in ADAPTED]
        self.prior = {name: network.w[name].copy() for name in self.names}
        d = network.config.d_model
        self.down = {name: rng.standard_normal((self.rank, d), np.float32) * d**-0.5 for name in self.names}
        self.start = {name: a.copy() for name, a in self.down.items()}
        self.up = {name: np.zeros((len(self.prior[name]), self.rank), np.float32) for name in self.names}

    def learn(self, d_logits: Array) -> None:
        self.network.backward(d_logits, ADAPTED, rest=False)
        scale = np.float32(self.rank**-0.5)
        for name in self.names:
            a, b, g = self.down[name], self.up[name], self.network.grad[name]
            step_b, step_a = scale * (g @ a.T), scale * (b.T @ g)
            b -= self.eta * step_b + self.pull * b
            a -= self.eta * step_a + self.pull * (a - self.start[name])
            self.network.w[name][:] = self.prior[name] + scale * (b @ a)


def stream_losses(
    network: Network, optimiser: Optimiser | None, ids: npt.NDArray[np.int32], segment: int
) -> tuple[Losses, FloatArray]:
    """Nats (n,) of every token, and the final norm's outputs (n - 1, d) that predicted all but the first."""
    losses, normed = np.zeros(len(ids)), np.zeros((len(ids) - 1, network.config.d_model), np.float32)
    losses[0] = np.log(network.config.vocab_size)
    for start in range(0, len(ids) - 1, segment):
        targets = ids[start + 1 : start + 1 + segment]
        n = len(targets)
        normed[start : start + n], logits = network.forward(ids[start : start + n])
        log_p = log_softmax(logits)
        losses[start + 1 : start + 1 + n] = -log_p[np.arange(n), targets]
        if optimiser is None:
            continue
        if not np.isfinite(losses[start + 1 : start + 1 + n]).all():
            losses[start + 1 :] = np.log(network.config.vocab_size)  # diverged: the rest counts as if nothing was known
            break
        optimiser.learn(loss_gradient(log_p, targets))
    return losses, normed


def loss_gradient(log_p: Array, targets: npt.NDArray[np.integer]) -> Array:
    """Gradient of the mean loss by the logits, (n, vocab)."""
    out = np.exp(log_p)
    out[np.arange(len(targets)), targets] -= 1
    out /= len(targets)
    return out


def root_mean_square(checkpoint: Checkpoint, ids: npt.NDArray[np.int32], segment: int) -> FloatArray:
    """Root mean square of the gradient of each weight (parameters,) over segments of a text, nothing learned."""
    network, count = Network(checkpoint), 0
    square = np.zeros_like(network.weights)
    for start in range(0, len(ids) - segment, segment):
        _, logits = network.forward(ids[start : start + segment])
        network.backward(loss_gradient(log_softmax(logits), ids[start + 1 : start + 1 + segment]))
        square += network.gradient**2
        count += 1
    out: FloatArray = np.sqrt(square / count).astype(np.float32)
    return out


def whole_cost(c: Config, segment: int, rms: bool, clipped: bool = False) -> Cost:
    """Back-propagation through all layers, gradients of all weights, and one update of them per segment.

    Keys and values of earlier segments take no gradient; those of this one are about half a segment per query."""
    weights = encoder_weights(c) + head_macs(c)
    attention = attention_macs(c) + c.n_layers * c.d_model * segment
    parameters = sum(int(np.prod(s)) for s in c.tensor_shapes().values())
    update = (2 + clipped) * parameters / segment
    return Cost(2 * weights + attention + update, 4 * parameters, 8 * parameters if rms else 0, 4 * parameters)


def lora_cost(c: Config, segment: int, rank: int) -> Cost:
    """Back-propagation of activations through all layers; low-rank products forward and back, and their gradients."""
    pairs = c.n_layers * rank * (3 * c.d_model + c.d_kv)  # of A and B of both matrices
    attention = attention_macs(c) + c.n_layers * c.d_model * segment
    macs = encoder_weights(c) + head_macs(c) + attention + 3 * pairs + 2 * pairs / segment
    return Cost(macs, 4 * pairs, 0, 4 * pairs)
