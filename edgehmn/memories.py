"""What the plastic head remembers of words, in NumPy: rows by context, a bias, n-grams, episodes.

Each memory answers to the present context, and has two ways to learn that a token came: `follow` moves its gains
alone, `learn` writes. SPEC.md, "Learning", says the same in integers, with n-gram gains and biases in bits; here they
are in nats.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edgehmn.checkpoint.model import FloatArray
from edgehmn.model import LOG2_E
from edgehmn.writes import Writer

Ids = npt.NDArray[np.int64]
WORD = 2**32
TAGS = 2**10
COUNTS = 16
NGRAM_LIMIT = 16 / LOG2_E  # nats, of a gain: 16 bits
BIAS_LIMIT = 32767 / 4096 / LOG2_E  # nats: int16 at 12 fractional bits
BIAS_TURN = 128  # tokens in which the decay goes once round the vocabulary
RECALLED = 16
BUCKETS = 16  # of similarity
FIRST_SHARE = 0.1
SHARES = 66 / 65536, 62259 / 65536  # least and largest


def mix(a: int) -> int:
    """Each bit of a 32-bit number goes into all bits of the result."""
    a ^= a >> 16
    a = a * 0x7FEB352D % WORD
    a ^= a >> 15
    a = a * 0x846CA68B % WORD
    return a ^ a >> 16


def contexts(history: Sequence[int]) -> list[int]:
    """context(1), context(2), ...: 32-bit hashes of the last one, two, ... tokens. history: the newest first."""
    out, a = [], 0
    for token in history:
        a = mix((a * 0x9E3779B1 + token + 1) % WORD)
        out.append(a)
    return out


def slot(context: int, n: int) -> int:
    """Where a context lies in a table of n."""
    return context * n // WORD


class Rows:
    """The adapter whose input is the last `order` tokens, hashed: one row for each, added before the preconditioner."""

    def __init__(self, order: int, slots: int, d: int, eta: float, gain: float) -> None:
        self.order, self.eta, self.gain = order, eta, gain
        self.values = np.zeros((slots, d), np.float32)
        self.row: FloatArray | None = None  # of the present context, a view

    def find(self, found: list[int]) -> None:
        at = slot(found[self.order - 1], len(self.values)) if len(found) >= self.order else None
        self.row = None if at is None else self.values[at]

    def follow(self, error: FloatArray, eta_gain: float, gain_max: float) -> None:
        if self.row is not None:
            self.gain = min(max(self.gain + eta_gain * float(self.row @ error), 0.0), gain_max)

    def learn(self, error: FloatArray, factor: float, decay: float, writer: Writer) -> None:
        """error: (d,), after the preconditioner; factor: of the rate, by G'."""
        if self.row is not None:
            writer.decay(self.row, decay)
            writer.add(self.row[None], np.array([self.eta * factor], np.float32), error)


class Bias:
    """Nats for each token, whatever the context: how much oftener it comes than is predicted."""

    def __init__(self, vocab: int, step: float, decay: float, gain: float) -> None:
        self.step, self.decay, self.gain = step, decay, gain
        self.values = np.zeros(vocab, np.float32)

    def follow(self, token: int, negatives: Ids, eta_gain: float, gain_max: float) -> None:
        """The gain follows the gradient in bits, as in the core: in nats it moves log2(e) times as much."""
        gained = float(self.values[token]) - float(self.values[negatives].mean())
        self.gain = min(max(self.gain + eta_gain * LOG2_E * gained, 0.0), gain_max)

    def learn(self, token: int, negatives: Ids) -> None:
        b = self.values
        b[token] = min(b[token] + self.step, BIAS_LIMIT)
        np.subtract.at(b, negatives, np.float32(self.step / len(negatives)))
        b[negatives] = np.maximum(b[negatives], -BIAS_LIMIT)

    def fade(self, time: int) -> None:
        """The decay of one token: that of a part of all biases, whose turn it is."""
        size = -(-len(self.values) // BIAS_TURN)
        start = time % BIAS_TURN * size
        self.values[start : start + size] *= 1 - BIAS_TURN * self.decay


class NGrams:
    """What came after the last `order` tokens: one token for each slot, and how often it was right."""

    def __init__(self, order: int, slots: int) -> None:
        self.order = order
        self.tokens, self.tags, self.counts = [0] * slots, [0] * slots, [0] * slots
        self.gains = [0.0] * COUNTS  # nats, by count
        self.at: int | None = None  # slot of the present context
        self.tag = 0
        self.hit = False

    def find(self, found: list[int]) -> None:
        self.at, self.hit = None, False
        if len(found) >= self.order:
            context = found[self.order - 1]
            self.at, self.tag = slot(context, len(self.tokens)), context % TAGS
            self.hit = self.counts[self.at] > 0 and self.tags[self.at] == self.tag

    def add(self, logits: FloatArray) -> None:
        if self.hit and self.at is not None:
            logits[self.tokens[self.at]] += self.gains[self.counts[self.at]]

    def follow(self, token: int, p: FloatArray, eta: float) -> None:
        """p: (vocab,), the prediction that the n-grams are part of."""
        if self.hit and self.at is not None:
            guess, count = self.tokens[self.at], self.counts[self.at]
            gain = self.gains[count] + eta * ((guess == token) - float(p[guess]))
            self.gains[count] = min(max(gain, -NGRAM_LIMIT), NGRAM_LIMIT)

    def learn(self, token: int) -> None:
        at = self.at
        if at is None:
            return
        count = self.counts[at]
        if count > 0 and self.tags[at] == self.tag and self.tokens[at] == token:
            self.counts[at] = min(COUNTS - 1, count + 1)
        elif count > 1:
            self.counts[at] = count // 2
        else:
            self.tokens[at], self.tags[at], self.counts[at] = token, self.tag, 1


class Episodes:
    """Past states, by the signs of the standardised input, and the token that came then.

    A prediction recalls the RECALLED states that differ in the fewest signs. What came then gets a share of the
    probability, learned for each similarity of the nearest.
    """

    def __init__(self, n: int, d: int, sharpness: float) -> None:
        self.sharpness = sharpness
        self.keys = np.zeros((n, d), np.float32)  # 1 or -1
        self.tokens = np.zeros(n, np.int64)
        self.share = [FIRST_SHARE] * BUCKETS
        self.written = 0
        self.key = self.keys[0]  # of the present state
        self.bucket: int | None = None  # of similarity; None if nothing was recalled
        self.responsibility: dict[int, float] = {}  # share of each recalled token's probability that is from here

    def recall(self, x: FloatArray, p: FloatArray, mass: float) -> float:
        """Add to p (vocab,), whose sum is `mass`, in place; returns the sum after it. x: (d,)."""
        d, n = len(x), min(len(self.keys), self.written)
        self.key = np.where(x > 0, np.float32(1), np.float32(-1))
        self.bucket, self.responsibility = None, {}
        if n == 0:
            return mass
        index, differing = self._nearest(n)
        similarity = np.cos(np.pi / d * differing)
        weight = np.exp(self.sharpness * (similarity - similarity[0]))
        weight /= weight.sum()
        self.bucket = min(BUCKETS - 1, int(max(0.0, similarity[0]) * BUCKETS))
        share = self.share[self.bucket]
        extra = mass * share / (1 - share)
        added: dict[int, float] = {}
        for token, w in zip(self.tokens[index].tolist(), weight.tolist(), strict=True):
            added[token] = added.get(token, 0.0) + extra * w
        for token, more in added.items():
            new = float(p[token]) + more
            p[token] = new
            self.responsibility[token] = more / new if new > 0 else 0.0
        return mass + extra

    def _nearest(self, n: int) -> tuple[Ids, Ids]:
        """The nearest of the first n episodes and in how many signs they differ; of equals, the first."""
        differing = (len(self.key) - self.keys[:n] @ self.key) * np.float32(0.5)
        rank = differing.astype(np.int64) * n + np.arange(n)
        k = min(RECALLED, n)
        best = np.sort(np.partition(rank, k - 1)[:k])
        return best % n, best // n

    def follow(self, token: int, eta: float) -> None:
        if self.bucket is not None:
            share = self.share[self.bucket]
            share += eta * (self.responsibility.get(token, 0.0) - share)
            self.share[self.bucket] = min(max(share, SHARES[0]), SHARES[1])

    def learn(self, token: int) -> None:
        at = self.written % len(self.keys)
        self.keys[at], self.tokens[at] = self.key, token
        self.written += 1
