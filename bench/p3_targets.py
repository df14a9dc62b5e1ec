"""P3 by the profiles: plasticity's share of the energy of a learned token, on every target.

    python tools/run.py bench.p3_targets OUT    writes bench/results/p3-targets.json and .md

OUT: an export of the reference model. Run it again after targets/counts.json has changed.
"""

import json
import sys
from pathlib import Path
from typing import Any

from edgehmn.estimate import COUNTS, estimate, plastic_cycles
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
        assert e.share is not None and e.joules_learned is not None and e.seconds_learned is not None
        centre, factor = plastic_cycles(target)
        rows.append(
            {
                "target": target.name, "share": e.share.value, "interval_90": e.share.interval,
                "mj_per_learned_token": e.joules_learned.value * 1e3,
                "interval_90_mj": [v * 1e3 for v in e.joules_learned.interval],
                "ms_per_learned_token": e.seconds_learned.value * 1e3,
                "memory_bound": sum(layer.seconds for layer in e.layers if layer.bound == "memory")
                / sum(layer.seconds for layer in e.layers),
                "counted_on": target.own_core.instructions, "plastic_times": centre, "plastic_factor": factor,
                "fits": e.memory.fits, "required": target.name in REQUIRED, "holds": e.share.high <= LIMIT,
            }
        )  # fmt: skip
    return sorted(rows, key=lambda r: (not r["required"], r["target"]))


def as_markdown(rows: list[dict[str, Any]]) -> str:
    header = (
        "target",
        "share, %",
        "90 % interval",
        "holds",
        "mJ per learned token",
        "ms",
        "instructions of",
        "plastic",
    )
    header += ("waits", "fits")
    lines = [
        "# Plasticity's share of the energy of a learned token",
        "By `python tools/run.py bench.p3_targets OUT` with the reference model: estimates from instructions counted "
        f"on emulated processors. The limit of {100 * LIMIT:.0f} % is for the upper end of the interval on the first "
        f"{len(REQUIRED)}.",
        "",
        "What slows both parts alike (clock, power, cycles per instruction) leaves the share as it is. Its interval is "
        "of what does not: how many times as long as one of the frozen parts an instruction of the plastic ones takes "
        "(`plastic`), and the memory that only one part waits for (`waits`: share of the frozen time).",
        "",
        "| " + " | ".join(header) + " |",
        "|" + "---|" * len(header),
    ]
    for r in rows:
        low, high = (100 * v for v in r["interval_90"])
        least, most = r["interval_90_mj"]
        cells = [
            r["target"], f"{100 * r['share']:.1f}", f"{low:.1f} to {high:.1f}", "yes" if r["holds"] else "no",
            f"{r['mj_per_learned_token']:.3g} ({least:.2g} to {most:.2g})", f"{r['ms_per_learned_token']:.3g}",
            r["counted_on"], f"{r['plastic_times']:g} within {r['plastic_factor']:g}", f"{r['memory_bound']:.2f}",
            "yes" if r["fits"] else "no",
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> None:
    if len(arguments) != 1:
        sys.exit(__doc__)
    rows = share_rows(Path(arguments[0]))
    (RESULTS / "p3-targets.json").write_text(
        json.dumps({"counts_sha256": sha256(COUNTS.read_bytes()), "rows": rows}, indent=1) + "\n", "utf-8"
    )
    (RESULTS / "p3-targets.md").write_text(as_markdown(rows), "utf-8")
    print(as_markdown(rows))


if __name__ == "__main__":
    main(sys.argv[1:])
