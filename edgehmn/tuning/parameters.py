"""The parameters of a rule that can be tuned, as coordinates: strengths in log space, all others in a linear box."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgehmn.errors import UsageError, no_such
from edgehmn.plasticity import Rule
from edgehmn.tuning.search import Box, Coordinates

LARGEST_FACTOR = 10.0  # a strength stays within this factor of where it started
BOX_STEPS = 4.0  # steps of one from side to side of a linear box


@dataclass(frozen=True)
class Strength:
    """A positive parameter, searched by its logarithm. `on`: whether it does anything in a rule."""

    name: str
    on: Callable[[Rule], Any]
    below: float = np.inf  # what the image can still hold


@dataclass(frozen=True)
class Bounded:
    """A parameter that may be zero or negative, searched in the box from `low` to `high`."""

    name: str
    low: float
    high: float


def _dense(rule: Rule) -> bool:
    return bool(rule.rho_trace)


PARAMETERS: tuple[Strength | Bounded, ...] = (
    Strength("eta_local", _dense),
    Strength("eta_global", lambda r: _dense(r) or any(r.row_slots)),
    Strength("decay", _dense, below=1e-3),
    Strength("eta_gain", lambda r: _dense(r) or any(r.row_slots) or r.bias_step),
    Strength("eta_row[0]", lambda r: r.row_slots[0], below=1.0),
    Strength("eta_row[1]", lambda r: r.row_slots[1], below=1.0),
    Strength("decay_visit", lambda r: any(r.row_slots), below=0.5),
    Strength("bias_step", lambda r: True, below=4.0),
    Strength("bias_decay", lambda r: r.bias_step, below=5e-3),
    Strength("eta_ngram", lambda r: r.ngram_slots and r.ngram_orders),
    Strength("sharpness", lambda r: r.episodes),
    Strength("eta_episode", lambda r: r.episodes, below=0.9),
    Strength("eta_scale", lambda r: True, below=0.5),
    Strength("phase_period", lambda r: r.phase_period),
    Bounded("beta_attention", 0.0, 2.0),
    Bounded("kappa", 0.0, 2.0),
    Bounded("closed_below", 0.0, 2.0),
    Bounded("gamma", 0.0, 1.0),
    Bounded("w_novelty", -1.0, 1.0),
)
NAMES = tuple(p.name for p in PARAMETERS)


class Space:
    """Some parameters of a rule as coordinates; all others stay as they are."""

    def __init__(self, rule: Rule, names: Sequence[str] = ()) -> None:
        """`names` in any order; none means every strength that is switched on. Raises UsageError for a name that is no
        parameter, and for a strength that is switched off in `rule`."""
        for name in names:
            if name not in NAMES:
                raise no_such("parameter of the rule", name, NAMES)
        self.rule = rule
        self.parameters = [p for p in PARAMETERS if (p.name in names if names else _is_on(p, rule))]
        for p in self.parameters:
            if isinstance(p, Strength) and not _is_on(p, rule):
                raise UsageError(f"{p.name}: is switched off in this export, and its logarithm cannot be searched")
        if not self.parameters:
            raise UsageError("every strength of this export's rule is zero: there is nothing to tune")
        self.box = Box(*np.array([_range(p, value_of(rule, p.name)) for p in self.parameters]).T)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(p.name for p in self.parameters)

    def rule_at(self, at: Coordinates) -> Rule:
        """The rule with the parameters that stand at these coordinates (n,)."""
        rule = self.rule
        for p, coordinate in zip(self.parameters, at.tolist(), strict=True):
            rule = with_value(rule, p.name, _value(p, coordinate))
        return rule

    def values(self, rule: Rule) -> dict[str, float]:
        return {name: value_of(rule, name) for name in self.names}


def value_of(rule: Rule, name: str) -> float:
    field, index = _split(name)
    value = getattr(rule, field)
    return float(value if index is None else value[index])


def with_value(rule: Rule, name: str, value: float) -> Rule:
    field, index = _split(name)
    changed: Any = value
    if index is not None:
        changed = list(getattr(rule, field))
        changed[index] = value
        changed = tuple(changed)
    return replace(rule, **{field: changed})


def _split(name: str) -> tuple[str, int | None]:
    """eta_row[1] -> eta_row, 1."""
    found = re.fullmatch(r"(\w+)\[(\d)\]", name)
    return (found[1], int(found[2])) if found else (name, None)


def _is_on(parameter: Strength | Bounded, rule: Rule) -> bool:
    return isinstance(parameter, Strength) and bool(parameter.on(rule)) and value_of(rule, parameter.name) > 0


def _range(parameter: Strength | Bounded, value: float) -> tuple[float, float, float]:
    """Start, low and high as coordinates."""
    if isinstance(parameter, Bounded):
        scale = BOX_STEPS / (parameter.high - parameter.low)
        return value * scale, min(parameter.low, value) * scale, max(parameter.high, value) * scale
    highest = max(value, min(LARGEST_FACTOR * value, parameter.below))
    return float(np.log(value)), float(np.log(value / LARGEST_FACTOR)), float(np.log(highest))


def _value(parameter: Strength | Bounded, coordinate: float) -> float:
    if isinstance(parameter, Bounded):
        return coordinate * (parameter.high - parameter.low) / BOX_STEPS
    return float(np.exp(coordinate))
