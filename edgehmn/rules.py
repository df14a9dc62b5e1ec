"""The rule as integers: how a `Rule` stands in an image, and the rule of an image as a `Rule` again."""

from typing import Any

import numpy as np

from edgehmn.core import Image, lib
from edgehmn.errors import UsageError
from edgehmn.plasticity import Rule
from edgehmn.quantize import to_fixed

BITS = float(np.log2(np.e))  # in one nat
USUAL = Rule()

# Real parameters that stand in a field of their own: fractional bits, and units of the field in one of the parameter.
REAL = {
    "eta_local": (24, 1.0),
    "decay_visit": (24, 1.0),
    "eta_scale": (24, 1.0),
    "w_novelty": (16, 1.0),
    "kappa": (16, 1.0),
    "rho_slow": (16, 1.0),
    "beta_attention": (16, BITS),
    "rho_context": (16, 1.0),
    "eta_gain": (16, 1.0),
    "gain_max": (16, 1.0),
    "rho_average": (16, 1.0),
    "bias_decay": (16, 128.0),
    "eta_ngram": (16, BITS),
    "eta_episode": (16, 1.0),
    "topic_limit": (16, 1.0),
    "topic_margin": (16, 1.0),
    "guard_limit": (16, 1.0),
    "closed_below": (16, 1.0),
    "bias_step": (12, BITS),
    "sharpness": (8, BITS),
}
WHOLE = ("weight_frac", "n_negatives", "row_frac", "ngram_slots", "episodes")


def write_rule(out: Any, r: Rule, d_model: int) -> None:
    """Write a rule as integers into an ehmn_rule. Raises UsageError if it has more of something than an image holds."""
    if len(r.rho_trace) > lib.EHMN_MAX_DENSE or len(r.ngram_orders) > lib.EHMN_NGRAM_ORDERS:
        limits = f"{lib.EHMN_MAX_DENSE} dense adapters (rho_trace) and {lib.EHMN_NGRAM_ORDERS} ngram_orders"
        raise UsageError(f"a rule has at most {limits}")
    for name, (frac, units) in REAL.items():
        setattr(out, name, int(to_fixed(getattr(r, name) * units, frac)))
    for name in WHOLE:
        setattr(out, name, getattr(r, name))
    out.eta_global = int(to_fixed(r.eta_global / r.eta_local if r.eta_local else 0.0, 16))
    out.w_reward = int(to_fixed(r.gamma * r.w_reward, 16))
    out.w_uncertainty = int(to_fixed((1 - r.gamma) * r.w_uncertainty, 16))
    out.decay_row = int(to_fixed(r.decay * d_model, 24))
    out.rho_trace = [int(to_fixed(rho, 16)) for rho in _filled(r.rho_trace, lib.EHMN_MAX_DENSE)]
    out.ngram_order = _filled(r.ngram_orders, lib.EHMN_NGRAM_ORDERS)
    out.row_slots = list(r.row_slots)
    out.eta_row = [int(to_fixed(eta, 24)) for eta in r.eta_row]
    out.phase_step = round(2**32 / r.phase_period) if r.phase_period else 0
    out.phase_seed = 1


def _filled(values: tuple[Any, ...], n: int) -> list[Any]:
    """With zeros behind them, n in all."""
    return [*values, *[0] * (n - len(values))]


def read_rule(image: Image) -> Rule:
    """What `write_rule` would have to be given to make the rule of this image, to the bit.

    The integers of an image leave gamma open, which is only a factor of two weights: it is chosen so that w_reward and,
    if uncertainty plays no part, w_uncertainty have their usual values.
    """
    r = image.header.rule
    fields: dict[str, Any] = {name: getattr(r, name) * 2.0**-frac / units for name, (frac, units) in REAL.items()}
    fields |= {name: int(getattr(r, name)) for name in WHOLE}
    fields |= {
        "eta_global": r.eta_global * 2.0**-16 * fields["eta_local"],
        "decay": r.decay_row * 2.0**-24 / int(image.header.d_model),
        "phase_period": 2.0**32 / r.phase_step if r.phase_step else 0,
        "rho_trace": tuple(r.rho_trace[i] * 2.0**-16 for i in range(image.header.n_dense)),
        "row_slots": tuple(r.row_slots),
        "eta_row": tuple(eta * 2.0**-24 for eta in r.eta_row),
        "ngram_orders": tuple(r.ngram_order),
    }
    fields |= _weights(r.w_reward * 2.0**-16, r.w_uncertainty * 2.0**-16)
    return Rule(**fields)


def _weights(reward: float, uncertainty: float) -> dict[str, Any]:
    """gamma, w_reward and w_uncertainty out of gamma w_reward and (1 - gamma) w_uncertainty."""
    gamma = reward / USUAL.w_reward
    if gamma == 1 and uncertainty == 0:
        return {"gamma": 1.0, "w_reward": USUAL.w_reward, "w_uncertainty": USUAL.w_uncertainty}
    if 0 <= gamma < 1:
        return {"gamma": gamma, "w_reward": USUAL.w_reward, "w_uncertainty": uncertainty / (1 - gamma)}
    return {"gamma": 0.5, "w_reward": 2 * reward, "w_uncertainty": 2 * uncertainty}
