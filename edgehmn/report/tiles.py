"""Simulated tiles in a profile: the same columns as boards have, and what only cells have."""

from collections.abc import Sequence
from typing import Any

from edgehmn.estimate import DAY_S
from edgehmn.estimate_tiles import KIND, TileProfile
from edgehmn.report.result import Result, Use
from edgehmn.workload import Workload

HEADER = (
    "tile", "mapping", "writes", "tiles", "ADCs' share", "pulses per learned token", "most worn cell lasts", "is",
)  # fmt: skip


def add_tiles(result: Result, workload: Workload, profiles: Sequence[TileProfile], use: Use) -> None:
    """Append tiles to the targets and layers of a profile."""
    if profiles and not result["layers"]:
        result["layers"] = [
            {"name": o.name, "kind": o.kind, "macs": o.macs, "weight_bytes": o.weight_bytes, "ms": {}, "bound": {}}
            for o in workload.operations
        ]
    for p in profiles:
        result["targets"].append(_target(workload, p, use))
        for layer, ms in zip(result["layers"], p.ms, strict=True):
            layer["ms"][p.preset.name], layer["bound"][p.preset.name] = ms, "compute"


def _target(workload: Workload, p: TileProfile, use: Use) -> Result:
    cost = p.cost
    values = {
        "latency_ms_per_token": cost.latency_us_per_token / 1e3, "energy_mj_per_token": cost.energy_nj_per_token / 1e6,
    }  # fmt: skip
    joules = use.per_day * cost.energy_nj_per_token * 1e-9
    busy = use.per_day * cost.latency_us_per_token * 1e-6
    if p.learns:
        values["latency_ms_per_learned_token"] = cost.latency_us_per_learned_token / 1e3
        values["energy_mj_per_learned_token"] = cost.energy_nj_per_learned_token / 1e6
        values["plasticity_share_of_energy"] = cost.plasticity_share_of_energy
        joules += use.learned_per_day * (cost.energy_nj_per_learned_token - cost.energy_nj_per_token) * 1e-9
        busy += use.learned_per_day * (cost.latency_us_per_learned_token - cost.latency_us_per_token) * 1e-6
    joules = joules if busy <= DAY_S else float("inf")
    return {
        "name": p.preset.name, "title": f"simulated memristive tiles, {p.preset.rows} x {p.preset.columns}",
        "kind": KIND, "tier": cost.calibrated_to, "runtime": "tile", **values,
        "interval_90": {k: [v / p.factor, min(v * p.factor, 1.0 if "share" in k else v * p.factor)]
                        for k, v in values.items()},
        "idle_energy_mj_per_token": 0.0, "active_energy_mj_per_token": values["energy_mj_per_token"],
        "sleep_energy_j_per_day": 0.0, "energy_j_per_day": joules,
        "battery_days": float("inf"),  # not known: nobody says what a tile takes while idle
        "power_of": "tiles and the digital unit beside them; no idle power",
        "memory": {
            "fits": not p.preset.chip_tiles or p.tiles <= p.preset.chip_tiles, "weights_in": f"{p.tiles} tiles",
            "flash_need_bytes": 0, "flash_have_bytes": 0, "ram_need_bytes": workload.ram_learning_bytes,
            "ram_have_bytes": 0,
        },
        "tile": {
            "mapping": p.setup.mapping, "writes": p.setup.writes if p.cost.pulses_per_learned_token else "-",
            "tiles": p.tiles, "chip_tiles": p.preset.chip_tiles, "counted_tokens": p.counted,
            "adc_share_of_energy": cost.adc_share_of_energy,
            "pulses_per_learned_token": cost.pulses_per_learned_token,
            "years_to_first_worn_cell": cost.years_to_first_worn_cell,
            "learned_per_day": use.learned_per_day,
        },
        "published": [],
        "sources": [
            f"devices and energies: {p.preset.source}",
            f"simulated, calibrated to {p.preset.calibrated_to}; the interval is a factor of {p.factor:g} by judgement",
            f"counted over {p.counted} tokens; years: the cell that was written most, at "
            f"{use.learned_per_day:,.0f} learned tokens a day",
        ],
    }  # fmt: skip


def tile_rows(result: Result) -> list[tuple[str, ...]]:
    """Cells under HEADER, a line for each tile among the targets."""
    return [
        (
            t["name"], t["tile"]["mapping"], t["tile"]["writes"], tiles_needed(t),
            f"{100 * t['tile']['adc_share_of_energy']:.0f} %", f"{t['tile']['pulses_per_learned_token']:,.0f}",
            lasting(t), t["tier"],
        )
        for t in result["targets"]
        if "tile" in t
    ]  # fmt: skip


def tiles_needed(t: dict[str, Any]) -> str:
    have = t["tile"]["chip_tiles"]
    return f"{t['tile']['tiles']}" + (f" of {have} of a chip" if have else "")


def lasting(t: dict[str, Any]) -> str:
    """How long the cell lasts that is written most, at the use that was asked for."""
    years, per_day = t["tile"]["years_to_first_worn_cell"], t["tile"]["learned_per_day"]
    if years == float("inf") or not per_day:
        return "nothing is written"
    return f"{years:,.1f} years at {per_day:,.0f} learned tokens a day"


def tile_text(t: dict[str, Any]) -> str:
    """The lines of a tile that a board has not."""
    tile = t["tile"]
    lines = [
        f"  {'tiles':<18} {tiles_needed(t)}; mapping {tile['mapping']}, writes {tile['writes']}",
        f"  {'converters':<18} {100 * tile['adc_share_of_energy']:.0f} % of a token's energy",
        f"  {'wear':<18} {tile['pulses_per_learned_token']:,.0f} pulses per learned token; {lasting(t)}",
    ]
    return "\n".join(lines)
