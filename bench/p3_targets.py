"""P3 by the profiles: shares of plasticity, and of adapters that predict, in the energy of a learned token, on every
target.

    python tools/run.py bench.p3_targets OUT    writes bench/results/p3-targets.json and .md

OUT: an export of the reference model. Run it again after targets/counts.json or plastic_cycles.json has changed.
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgehmn.estimate import COUNTS, PLASTIC_CYCLES, estimate, plastic_cycles
from edgehmn.files import sha256
from edgehmn.targets.schema import load_target, target_names
from edgehmn.workload import workload_of

RESULTS = Path(__file__).resolve().parent / "results"
LIMIT = 0.10
REQUIRED = ("raspberry-pi-4b", "raspberry-pi-5", "jetson-orin-nano", "stm32h743", "rp2350")


def share_rows(out: Path) -> list[dict[str, Any]]:
    workload = workload_of(out)
    rows: list[dict[str, Any]] = []
    for target in map(load_target, target_names()):
        if target.own_core.instructions == "none":
            continue
        e = estimate(workload, target)
        shares = {"plasticity": e.plasticity_share, "adapters": e.adapters_share}
        assert e.joules_learned is not None and e.seconds_learned is not None
        rows.append(
            {
                "target": target.name,
                **{part: {"share": q.value, "interval_90": q.interval} for part, q in shares.items() if q is not None},
                "mj_per_learned_token": e.joules_learned.value * 1e3,
                "interval_90_mj": [v * 1e3 for v in e.joules_learned.interval],
                "ms_per_learned_token": e.seconds_learned.value * 1e3,
                "memory_bound": sum(layer.seconds for layer in e.layers if layer.bound == "memory")
                / sum(layer.seconds for layer in e.layers),
                "counted_on": target.own_core.instructions, "cycles": asdict(plastic_cycles(target)),
                "fits": e.memory.fits, "required": target.name in REQUIRED,
                "holds": e.plasticity_share is not None and e.plasticity_share.high <= LIMIT,
            }
        )  # fmt: skip
    return sorted(rows, key=lambda r: (not r["required"], r["target"]))


def percent(part: dict[str, Any]) -> str:
    low, high = part["interval_90"]
    return f"{100 * part['share']:.1f} ({100 * low:.1f} to {100 * high:.1f})"


def as_markdown(rows: list[dict[str, Any]]) -> str:
    header = (
        "target", "plasticity, %", "holds", "adapters, %", "mJ per learned token", "ms", "instructions of",
        "times as long: adapters", "learning", "within", "waits", "fits",
    )  # fmt: skip
    lines = [
        "# Plasticity's share of the energy of a learned token",
        "By `python tools/run.py bench.p3_targets OUT` with the reference model: estimates from instructions counted "
        f"on emulated processors, with 90 % intervals. The limit of {100 * LIMIT:.0f} % is for the upper end of the "
        f"interval of plasticity on the first {len(REQUIRED)}.",
        "",
        "Plasticity is what a learned token has beyond one that is only predicted with what was learned: the sparse "
        "updates, and what decides on them. Adapters: what they and the memories add to a prediction of the frozen "
        "model, which a device pays for whether it goes on learning or not.",
        "",
        "What slows all parts alike (clock, power, cycles per instruction) leaves the shares as they are. Their "
        "intervals are of what does not: how many times as long as one of the frozen parts an instruction of the "
        "others takes, and the memory that only one part waits for (`waits`: share of the frozen time).",
        "",
        "| " + " | ".join(header) + " |",
        "|" + "---|" * len(header),
    ]
    for r in rows:
        least, most = r["interval_90_mj"]
        cycles = r["cycles"]
        cells = [
            r["target"], percent(r["plasticity"]), "yes" if r["holds"] else "no", percent(r["adapters"]),
            f"{r['mj_per_learned_token']:.3g} ({least:.2g} to {most:.2g})", f"{r['ms_per_learned_token']:.3g}",
            r["counted_on"], f"{cycles['adapters']:g}", f"{cycles['learning']:g}", f"{cycles['factor']:g}",
            f"{r['memory_bound']:.2f}", "yes" if r["fits"] else "no",
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> None:
    if len(arguments) != 1:
        sys.exit(__doc__)
    rows = share_rows(Path(arguments[0]))
    inputs = {f"{path.stem}_sha256": sha256(path.read_bytes()) for path in (COUNTS, PLASTIC_CYCLES)}
    (RESULTS / "p3-targets.json").write_text(json.dumps(inputs | {"rows": rows}, indent=1) + "\n", "utf-8")
    (RESULTS / "p3-targets.md").write_text(as_markdown(rows), "utf-8")
    print(as_markdown(rows))


if __name__ == "__main__":
    main(sys.argv[1:])
