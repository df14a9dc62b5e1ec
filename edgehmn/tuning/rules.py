"""The rule that stands in an image, as a `Rule` again."""

import dataclasses
from typing import Any

import numpy as np

from edgehmn.core import Image
from edgehmn.plasticity import Rule

BIT = float(np.log(2))  # one bit, in nats
USUAL = Rule()


def read_rule(image: Image) -> Rule:
    """What `edgehmn.image.with_rule` would have to be given to make the rule of this image, to the bit.

    The integers of an image leave gamma open, which is only a factor of two weights: it is chosen so that w_reward and,
    if uncertainty plays no part, w_uncertainty have their usual values.
    """
    r = image.header.rule
    usual = dataclasses.asdict(USUAL)
    fields: dict[str, Any] = {name: _as_it_is(r, name, value) for name, value in usual.items() if hasattr(r, name)}
    eta_local = r.eta_local * 2.0**-24
    fields |= {
        "eta_local": eta_local,
        "eta_global": r.eta_global * 2.0**-16 * eta_local,
        "decay": r.decay_row * 2.0**-24 / int(image.header.d_model),
        "decay_visit": r.decay_visit * 2.0**-24,
        "eta_scale": r.eta_scale * 2.0**-24,
        "beta_attention": r.beta_attention * 2.0**-16 * BIT,
        "bias_decay": r.bias_decay * 2.0**-16 / 128,
        "eta_ngram": r.eta_ngram * 2.0**-16 * BIT,
        "bias_step": r.bias_step * 2.0**-12 * BIT,
        "sharpness": r.sharpness * 2.0**-8 * BIT,
        "phase_period": 2.0**32 / r.phase_step if r.phase_step else 0,
        "rho_trace": tuple(r.rho_trace[i] * 2.0**-16 for i in range(image.header.n_dense)),
        "row_slots": tuple(r.row_slots),
        "eta_row": tuple(eta * 2.0**-24 for eta in r.eta_row),
        "ngram_orders": tuple(r.ngram_order),
    }
    fields |= _weights(r.w_reward * 2.0**-16, r.w_uncertainty * 2.0**-16)
    return Rule(**fields)


def _as_it_is(r: Any, name: str, usual: Any) -> Any:
    """A field that has the same name in an image: a whole number, or a real one at 2^-16, unless said otherwise."""
    return getattr(r, name) * 2.0**-16 if isinstance(usual, float) else getattr(r, name)


def _weights(reward: float, uncertainty: float) -> dict[str, Any]:
    """gamma, w_reward and w_uncertainty out of gamma w_reward and (1 - gamma) w_uncertainty."""
    gamma = reward / USUAL.w_reward
    if gamma == 1 and uncertainty == 0:
        return {"gamma": 1.0, "w_reward": USUAL.w_reward, "w_uncertainty": USUAL.w_uncertainty}
    if 0 <= gamma < 1:
        return {"gamma": gamma, "w_reward": USUAL.w_reward, "w_uncertainty": uncertainty / (1 - gamma)}
    return {"gamma": 0.5, "w_reward": 2 * reward, "w_uncertainty": 2 * uncertainty}
