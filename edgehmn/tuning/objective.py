"""What tuning lowers: mean nats per token of streams that are learned online, each by a fresh head of the C core.

The encoder is frozen, so every stream goes through it once; an evaluation runs head and learning alone.
"""

from collections.abc import Callable, Sequence

import numpy as np

from edgehmn.core import CoreModel, Image, ffi
from edgehmn.plasticity import Rule
from edgehmn.runtime.protocol import nats
from edgehmn.streams import HiddenStream, open_head, play


def online_loss(image: Image, stream: HiddenStream, seed: int, *, stability: float = 0.0) -> float:
    """Mean nats per token, every token scored before it is learned, from a delta that is new at `seed`.

    stability: weight of the mean square of what the dense weights have become, which began at zero.
    """
    model = open_head(image, seed)
    loss = nats(play(model, stream)) / len(stream)
    return loss + stability * mean_square_of_dense_weights(model) if stability else loss


def mean_square_of_dense_weights(model: CoreModel) -> float:
    """Over all dense weights of what the model has learned, in real units; 0 if it has none."""
    header = model.image.header
    n = int(header.n_dense) * int(header.d_model) ** 2
    weights = np.frombuffer(model.save(), np.int8, n, ffi.sizeof("ehmn_delta")).astype(np.float64)
    return float(np.mean(weights**2)) * 4.0 ** -int(header.rule.weight_frac) if n else 0.0


class OnlineLoss:
    """The mean of `online_loss` over streams, as a function of the rule and of the seed of all draws."""

    def __init__(
        self, with_rule: Callable[[Rule], Image], streams: Sequence[HiddenStream], stability: float = 0.0
    ) -> None:
        self.with_rule, self.streams, self.stability = with_rule, streams, stability

    def __call__(self, rule: Rule, seed: int) -> float:
        image = self.with_rule(rule)
        losses = [online_loss(image, s, seed, stability=self.stability) for s in self.streams]
        return float(np.mean(losses))
