"""The neural cache: past states like the present one, and the token that followed each (Grave, Joulin, Usunier 2017).

p_cache(w) is proportional to the sum of exp(theta h_t . h_i) over the last `states` positions i with next token w
p = (1 - lambda) p_model + lambda p_cache
"""

import numpy as np

from bench.baselines.cost import Cost
from bench.baselines.mixture import Probabilities
from edgehmn.checkpoint import Config
from edgehmn.checkpoint.model import FloatArray
from edgehmn.model import rms_norm

BLOCK = 256  # tokens at a time; changes speed, not meaning
STATES = 2000


def keys_of(normed: FloatArray, kind: str, mean: FloatArray, inverse_deviation: FloatArray) -> FloatArray:
    """What is stored and compared, (n, d), rounded to float16 and scaled so that a state's dot product with itself
    is about one. "normed" is the final norm's output, as in the paper; "standard" is that centred and scaled per
    unit, as the input of the plastic adapters is."""
    x = normed if kind == "normed" else rms_norm((normed - mean) * inverse_deviation, 1e-5)
    out: FloatArray = (x / np.sqrt(normed.shape[1])).astype(np.float16).astype(np.float32)
    return out


def cache_p(keys: FloatArray, ids: np.ndarray, theta: float, states: int = STATES) -> Probabilities:
    """Probability (n - 1,) that the cache alone gives to each token but the first; zero while it is empty.

    keys: (n, d); key i is compared before token i + 1 is scored and stored with that token once it has come.
    """
    n = len(ids) - 1
    out = np.zeros(n)
    for start in range(0, n, BLOCK):
        stop = min(start + BLOCK, n)
        first = max(0, start - states)
        if stop == first + 1:
            continue
        score = np.float32(theta) * (keys[start:stop] @ keys[first : stop - 1].T)
        distance = np.arange(start, stop)[:, None] - np.arange(first, stop - 1)[None]
        score[(distance < 1) | (distance > states)] = -np.inf
        largest = score.max(-1, keepdims=True)
        weight = np.exp(score - np.where(np.isfinite(largest), largest, 0))
        same = ids[start + 1 : stop + 1, None] == ids[None, first + 1 : stop]
        total = weight.sum(-1)
        hit = np.where(same, weight, 0).sum(-1)
        out[start:stop] = np.where(total > 0, hit / np.maximum(total, 1e-30), 0)
    return out


def cost(c: Config, states: int = STATES) -> Cost:
    """A dot product with each state, and its weight into the sum. States are float16, tokens two bytes."""
    return Cost(macs=states * (c.d_model + 1), state_bytes=states * (2 * c.d_model + 2))
