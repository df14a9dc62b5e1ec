"""An n-gram cache: counts of what followed the last 0 to 5 tokens, interpolated from the shortest context on.

    p_k(w) = (max(c_k(w) - discount, 0) + (concentration + discount T_k) p_(k-1)(w)) / (concentration + c_k)

with c_k(w) the number of times that w followed the present k tokens, c_k their sum, T_k the number of different w
(absolute discounting with a Dirichlet prior: discount 0 is Dirichlet, concentration 0 is absolute discounting). A
context not seen before passes the shorter one on. Under the shortest lies the uniform distribution.
The mixture with the model has a weight for each length of the longest context seen and each of its counts 1, 2, 3, 4+.
"""

from collections import defaultdict, deque
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bench.baselines.cost import Cost
from bench.baselines.mixture import Buckets, Probabilities

ORDERS = 6  # contexts of 0 .. 5 tokens
COUNTS = 4  # 1, 2, 3, 4 or more
N_BUCKETS = 1 + ORDERS * COUNTS
ENTRY_BYTES = 6  # of a counted n-gram in a hash table: tag, count, token


@dataclass(frozen=True)
class Counts:
    """What the cache knew before each token but the first, for contexts of k = 0 .. 5 tokens: (n - 1, ORDERS).

    total: c_k; kinds: T_k; hits: c_k of the token that came. entries: the largest number of n-grams held.
    """

    total: npt.NDArray[np.int32]
    kinds: npt.NDArray[np.int32]
    hits: npt.NDArray[np.int32]
    entries: int


def count(ids: npt.NDArray[np.integer], window: int) -> Counts:
    """Counts over the last `window` tokens, or all of them if that is 0."""
    tokens = ids.tolist()
    n = len(tokens) - 1
    total, kinds, hits = (np.zeros((n, ORDERS), np.int32) for _ in range(3))
    tables: list[defaultdict[tuple[int, ...], dict[int, int]]] = [defaultdict(dict) for _ in range(ORDERS)]
    sums: list[defaultdict[tuple[int, ...], int]] = [defaultdict(int) for _ in range(ORDERS)]
    held: deque[int] = deque()
    entries = most = 0
    for t in range(-1, n):  # token t + 1 is scored, then counted
        token = tokens[t + 1]
        for k in range(min(ORDERS, t + 2)):
            context = tuple(tokens[t + 1 - k : t + 1])
            seen = tables[k].get(context)
            if t >= 0 and seen:
                total[t, k], kinds[t, k], hits[t, k] = sums[k][context], len(seen), seen.get(token, 0)
            row = tables[k][context]
            entries += token not in row
            row[token] = row.get(token, 0) + 1
            sums[k][context] += 1
        held.append(t + 1)
        most = max(most, entries)
        if window and len(held) > window:
            entries -= _forget(tokens, held.popleft(), tables, sums)
    return Counts(total, kinds, hits, most)


def _forget(
    tokens: list[int],
    place: int,
    tables: list[defaultdict[tuple[int, ...], dict[int, int]]],
    sums: list[defaultdict[tuple[int, ...], int]],
) -> int:
    """Take the n-grams that ended at a place out again; returns how many entries that freed."""
    freed = 0
    for k in range(min(ORDERS, place + 1)):
        context, token = tuple(tokens[place - k : place]), tokens[place]
        row = tables[k][context]
        row[token] -= 1
        sums[k][context] -= 1
        if not row[token]:
            del row[token]
            freed += 1
            if not row:
                del tables[k][context], sums[k][context]
    return freed


def ngram_p(counts: Counts, discount: float, concentration: float, vocab_size: int) -> Probabilities:
    """Probability (n - 1,) that the counts alone give to each token but the first."""
    p = np.full(len(counts.total), 1 / vocab_size)
    for k in range(ORDERS):
        c, kinds, hits = counts.total[:, k], counts.kinds[:, k], counts.hits[:, k]
        prior = (concentration + discount * kinds) * p
        p = np.where(c > 0, (np.maximum(hits - discount, 0) + prior) / (concentration + np.maximum(c, 1)), p)
    return p


def buckets(counts: Counts) -> Buckets:
    """Which weight of the mixture holds for each token: 0 if nothing was counted yet."""
    longest = (counts.total > 0).sum(1)  # contexts are nested: those seen are the shortest
    c = counts.total[np.arange(len(longest)), np.maximum(longest, 1) - 1]
    return np.where(longest > 0, 1 + (longest - 1) * COUNTS + np.minimum(c, COUNTS) - 1, 0).astype(np.int64)


def cost(counts: Counts) -> Cost:
    """Six look-ups and as many interpolations; a table entry for each n-gram, filled to three quarters."""
    return Cost(macs=3 * ORDERS, state_bytes=int(counts.entries * ENTRY_BYTES / 0.75))
