"""One search for all baselines: a hill climb over a few settings, and the log of everything that it tried."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Settings = dict[str, Any]
Axes = Mapping[str, float | tuple[Any, ...]]  # a factor to go up and down by, or all values that there are
Entry = dict[str, Any]  # {"settings": Settings, "nats": {stream: mean or None}, "mean": float or None}
TOLERANCE = 1e-3  # nats per token by which a setting must be better to be preferred


def neighbours(settings: Settings, start: Settings, axes: Axes, step: float = 1.0) -> list[Settings]:
    """Settings that differ from these in one step along one axis; `step` is the power of the factor. All values of an
    axis with a factor are start * factor ** (a multiple of step), rounded, so that no two are nearly the same."""
    out = []
    for name, axis in axes.items():
        if isinstance(axis, tuple):
            values: Sequence[Any] = [v for v in axis if v != settings[name]] if step == 1 else []
        else:
            power = step * round(math.log(settings[name] / start[name], axis) / step)
            values = [float(f"{start[name] * axis ** (power + by):.4g}") for by in (step, -step)]
        out += [settings | {name: value} for value in values]
    return out


def climb(
    evaluate: Callable[[list[Settings]], list[Entry]],
    log: list[Entry],
    start: Settings,
    axes: Axes,
    at_once: int,
    limit: int,
) -> Settings:
    """Best settings by mean loss, from `start` to where no neighbour is better, then to where none at half a step is,
    or until `limit` evaluations.

    `evaluate` takes up to `at_once` settings and returns their log entries. What is in `log` already is not evaluated
    again, so that an interrupted search goes on where it was."""
    known = {_key(e["settings"]): e for e in log}

    def score(settings: Settings) -> float:
        mean = known[_key(settings)]["mean"]
        return math.inf if mean is None else float(mean)

    def ensure(wanted: list[Settings]) -> bool:
        """Evaluate what is not known yet, unless the limit is reached."""
        missing = [s for s in wanted if _key(s) not in known]
        if missing and len(known) >= limit:
            return False
        for i in range(0, len(missing), at_once):
            entries = evaluate(missing[i : i + at_once])
            known.update((_key(e["settings"]), e) for e in entries)
        return True

    best = start
    ensure([best])
    for step in (1.0, 0.5):
        moving = True
        while moving:
            moving = False
            around = neighbours(best, start, axes, step)
            for i in range(0, len(around), at_once):
                some = around[i : i + at_once]
                if not ensure(some):
                    return best
                found = min(some, key=score)
                if score(found) < score(best) - TOLERANCE:
                    best, moving = found, True
                    break
    return best


def _key(settings: Settings) -> str:
    return json.dumps(settings, sort_keys=True)
