"""Mixtures of several predictions of the same token: weights by bucket, fixed or following what each proves worth.

Only the probability that each component gave to the token that came is needed:
components: (n, k); bucket: (n,) small integers, known before the token.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Probabilities = npt.NDArray[np.float64]
Buckets = npt.NDArray[np.int64]
LEAST = 1e-4  # no component's weight falls below this share


@dataclass(frozen=True)
class Parts:
    """One stream. components: (n, k) probabilities of what came; bucket: (n,)."""

    components: Probabilities
    bucket: Buckets


def fit(streams: list[Parts], n_buckets: int, rounds: int = 60) -> Probabilities:
    """Weights (n_buckets, k), rows of sum one, that maximise the likelihood of all streams together (EM)."""
    components = np.concatenate([s.components for s in streams])
    bucket = np.concatenate([s.bucket for s in streams])
    k = components.shape[1]
    weights = np.full((n_buckets, k), 1 / k)
    count = np.bincount(bucket, minlength=n_buckets)
    for _ in range(rounds):
        joint = weights[bucket] * components
        joint /= joint.sum(1, keepdims=True)
        for j in range(k):
            share = np.bincount(bucket, joint[:, j], n_buckets)
            weights[:, j] = np.where(count > 0, share / np.maximum(count, 1), 1 / k)
        weights = np.maximum(weights, LEAST)
        weights /= weights.sum(1, keepdims=True)
    return weights


def log_p(parts: Parts, weights: Probabilities, rate: float = 0.0) -> Probabilities:
    """Log-probability (n,) of each token. With a rate, the weights of the token's bucket move towards the
    responsibilities by that share of the way after each token; they begin as given."""
    if rate == 0:
        fixed: Probabilities = np.log(np.einsum("nk,nk->n", weights[parts.bucket], parts.components))
        return fixed
    rows = [row.copy() for row in weights]
    out = np.zeros(len(parts.components))
    for t, (p, b) in enumerate(zip(parts.components, parts.bucket.tolist(), strict=True)):
        joint = rows[b] * p
        total = joint.sum()
        out[t] = total
        row = rows[b] + rate * (joint / total - rows[b])
        rows[b] = np.maximum(row, LEAST) / np.maximum(row, LEAST).sum()
    return np.log(out)
