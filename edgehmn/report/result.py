"""The result of a profile: plain values that every form of a report is made of."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgehmn.estimate import DAY_S, Estimate, published
from edgehmn.workload import Workload

Result = dict[str, Any]


@dataclass(frozen=True)
class Use:
    """A day of a device, and its cell: nominal, nothing lost on the way."""

    per_day: float = 10_000
    learned_per_day: float = 1_000
    battery_wh: float = 10.8  # one lithium cell 18650: 3.0 Ah at 3.6 V


def profile_result(workload: Workload, estimates: Sequence[Estimate], use: Use) -> Result:
    """JSON values. Every figure is modelled, unless its target's tier says otherwise."""
    out: Result = {
        "name": workload.name,
        "per": workload.per,
        "macs": workload.macs,
        "macs_by_class": workload.by_class(),
        "weight_bytes": workload.weight_bytes,
        "use": {"per_day": use.per_day, "learned_per_day": use.learned_per_day, "battery_wh": use.battery_wh},
        "targets": [_target(workload, e, use) for e in estimates],
        "layers": _layers(estimates),
        "regions": [{"name": name, "bytes": size} for name, size in workload.regions],
    }
    if workload.learning is not None:
        learning = workload.learning
        out["learning"] = {
            "macs_predicted": learning.macs_predicted, "macs_learned": learning.macs_learned, "writes": learning.writes,
        }  # fmt: skip
    return out


def _target(workload: Workload, e: Estimate, use: Use) -> Result:
    per = workload.per
    power = e.target.power
    values: dict[str, Any] = {
        f"latency_ms_per_{per}": e.seconds.times(1e3),
        f"energy_mj_per_{per}": e.joules.times(1e3),
    }
    if e.seconds_learned is not None and e.joules_learned is not None:
        values["latency_ms_per_learned_token"] = e.seconds_learned.times(1e3)
        values["energy_mj_per_learned_token"] = e.joules_learned.times(1e3)
    if e.plasticity_share is not None and e.adapters_share is not None:
        values["plasticity_share_of_energy"] = e.plasticity_share
        values["adapters_share_of_energy"] = e.adapters_share
    learned = use.learned_per_day if e.joules_learned is not None else 0.0
    day = e.per_day(use.per_day, learned)
    return {
        "name": e.target.name, "title": e.target.title, "kind": e.target.kind, "tier": e.tier, "runtime": e.runtime,
        **{key: q.value for key, q in values.items()},
        "interval_90": {key: q.interval for key, q in values.items()},
        f"idle_energy_mj_per_{per}": e.idle_joules() * 1e3,
        f"active_energy_mj_per_{per}": (e.joules.value - e.idle_joules()) * 1e3,
        "sleep_energy_j_per_day": power.sleep_w * DAY_S,
        "energy_j_per_day": day,
        "battery_days": use.battery_wh * 3600 / day,
        "power_of": power.of,
        "memory": {
            "fits": e.memory.fits, "weights_in": e.memory.weights_in,
            "flash_need_bytes": e.memory.flash_need, "flash_have_bytes": e.memory.flash_have,
            "ram_need_bytes": e.memory.ram_need, "ram_have_bytes": e.memory.ram_have,
        },
        "published": published(workload, e.target),
        "sources": list(e.sources),
    }  # fmt: skip


def _layers(estimates: Sequence[Estimate]) -> list[Result]:
    if not estimates:
        return []
    out = []
    for i, layer in enumerate(estimates[0].layers):
        costs = {e.target.name: e.layers[i] for e in estimates}
        out.append(
            {
                "name": layer.name, "kind": layer.kind, "macs": layer.macs, "weight_bytes": layer.weight_bytes,
                "ms": {name: c.seconds * 1e3 for name, c in costs.items()},
                "bound": {name: c.bound for name, c in costs.items()},
            }
        )  # fmt: skip
    return out


def grouped_layers(result: Result, most: int = 24) -> list[Result]:
    """The layers that take longest on the first target, longest first; what is left over is one line."""
    layers = result["layers"]
    if not layers:
        return []
    first = result["targets"][0]["name"]
    ordered = sorted(layers, key=lambda layer: -layer["ms"][first])
    rest = ordered[most:]
    if len(rest) < 2:
        return list(ordered)
    together = {
        "name": f"{len(rest)} others", "kind": "", "macs": sum(r["macs"] for r in rest),
        "weight_bytes": sum(r["weight_bytes"] for r in rest),
        "ms": {name: sum(r["ms"][name] for r in rest) for name in rest[0]["ms"]},
        "bound": dict.fromkeys(rest[0]["ms"], ""),
    }  # fmt: skip
    return [*ordered[:most], together]
