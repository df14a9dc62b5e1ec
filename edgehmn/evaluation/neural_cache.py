"""The neural cache, baseline of learning in equal bytes: what came after states like the present one comes again."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

SHARPNESSES = (2.0, 5.0, 10.0, 20.0, 40.0)  # of the softmax over cosines
WEIGHTS = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4)  # of the cache in the mixture


@dataclass(frozen=True)
class States:
    """States and what came after them. keys: int8 (n, d_model), directions of hidden vectors; tokens: int32 (n,)."""

    keys: npt.NDArray[np.int8]
    tokens: npt.NDArray[np.int32]

    @classmethod
    def of(cls, hidden: npt.NDArray[np.int16], tokens: npt.NDArray[np.int32]) -> "States":
        """From hidden vectors (n, d_model) as they come from an encoder."""
        return cls(np.round(127 * directions(hidden)).astype(np.int8), tokens)

    def then(self, later: "States", capacity: int) -> "States":
        """These and later ones; the oldest make room."""
        keys, tokens = np.concatenate([self.keys, later.keys]), np.concatenate([self.tokens, later.tokens])
        return States(keys[max(0, len(keys) - capacity) :], tokens[max(0, len(tokens) - capacity) :])


def bytes_per_state(d_model: int) -> int:
    return d_model + 2  # a token takes two bytes


def directions(hidden: npt.NDArray[np.int16]) -> Floats:
    """Centred hidden vectors of length one."""
    centred = hidden - hidden.mean(-1, keepdims=True, dtype=np.float64)
    return np.asarray(centred / (np.linalg.norm(centred, axis=-1, keepdims=True) + 1e-9))


def probabilities(
    states: States, hidden: npt.NDArray[np.int16], targets: npt.NDArray[np.int32], sharpness: float
) -> Floats:
    """What the cache gives to each target (n,) after the hidden vectors (n, d_model)."""
    logits = directions(hidden).astype(np.float32) @ (states.keys.T * np.float32(sharpness / 127))
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    hits = states.tokens[None, :] == targets[:, None]
    return np.asarray(np.where(hits, weights, 0).sum(-1) / weights.sum(-1), np.float64)


@dataclass(frozen=True)
class Mixture:
    """(1 - weight) of the model and weight of the cache."""

    sharpness: float
    weight: float

    def nats(
        self, model_nats: Floats, states: States, hidden: npt.NDArray[np.int16], targets: npt.NDArray[np.int32]
    ) -> Floats:
        """Losses (n,) of the mixture, from those of the model; of the model alone while the cache is empty."""
        if not len(states.tokens):
            return model_nats
        return _mixed(model_nats, probabilities(states, hidden, targets, self.sharpness), self.weight)


def _mixed(model_nats: Floats, p: Floats, weight: float) -> Floats:
    return np.asarray(-np.log((1 - weight) * np.exp(-model_nats) + weight * p))


Case = tuple[Floats, States, npt.NDArray[np.int16], npt.NDArray[np.int32]]  # what Mixture.nats takes


def best_mixture(cases: list[Case]) -> Mixture:
    """The mixture of least total loss on texts that nothing is measured on."""
    losses: dict[Mixture, float] = {}
    for sharpness in SHARPNESSES:
        mixed = [(nats, probabilities(s, h, targets, sharpness)) for nats, s, h, targets in cases if len(s.tokens)]
        for weight in WEIGHTS:
            total = sum(float(_mixed(model, p, weight).sum()) for model, p in mixed)
            losses[Mixture(sharpness, weight)] = total
    return min(losses, key=lambda m: losses[m])
