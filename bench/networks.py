"""The networks of MLPerf Tiny on the boards that they were published for: predicted beside published.

    python tools/run.py bench.networks DATA    writes bench/results/networks.json and .md

DATA: the folder with tflite-mlperf-tiny/ and measurements.csv. What is published for these boards is in the fit; the
errors of boards and submitters that are not are in bench/results/targets.md.
"""

import csv
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from edgehmn.estimate import estimate, published
from edgehmn.targets.schema import load_target
from edgehmn.workload import workload_of

RESULTS = Path(__file__).resolve().parent / "results"
NETWORKS = {
    "ad01_int8": "MLPerfTiny-AD", "kws_ref_model": "MLPerfTiny-KWS", "pretrainedResnet_quant": "MLPerfTiny-IC",
    "vww_96_int8": "MLPerfTiny-VWW", "str_ww_ref_model": "",
}  # fmt: skip
TARGETS = ("stm32l4r5", "stm32h7a3", "stm32u575", "stm32f746")


def network_rows(data: Path) -> list[dict[str, Any]]:
    """One row for each network, target and runtime that was published there; runtime "": whichever."""
    sizes = _published_sizes(data / "measurements.csv")
    rows: list[dict[str, Any]] = []
    for name, workload_name in NETWORKS.items():
        workload = workload_of(data / "tflite-mlperf-tiny" / f"{name}.tflite")
        macs, size = sizes.get(workload_name, (None, None))
        for target in map(load_target, TARGETS):
            known = published(workload, target)
            for runtime in ["", *sorted({p["runtime"] for p in known})]:
                e = estimate(workload, target, runtime or None)
                latencies = sorted(p["latency_ms"] for p in known if runtime in ("", p["runtime"]))
                rows.append(
                    {
                        "network": name, "macs": workload.macs, "published_macs": macs,
                        "weight_bytes": workload.weight_bytes, "published_bytes": size, "target": target.name,
                        "runtime": runtime, "predicted_ms": e.seconds.value * 1e3,
                        "interval_90_ms": [v * 1e3 for v in e.seconds.interval], "published_ms": latencies,
                    }
                )  # fmt: skip
    return rows


def _published_sizes(path: Path) -> dict[str, tuple[int, int]]:
    """Multiply-accumulates and parameter bytes, by the workload's short name."""
    with path.open(encoding="utf-8", newline="") as f:
        lines = [line for line in csv.DictReader(f) if line["workload"].startswith("MLPerfTiny") and line["MACs"]]
    return {line["workload"].split()[0]: (int(float(line["MACs"])), int(float(line["param_bytes"]))) for line in lines}


def as_markdown(rows: list[dict[str, Any]]) -> str:
    lines = [
        "# Networks of MLPerf Tiny, predicted beside published",
        "By `python tools/run.py bench.networks DATA`. What is published for these boards is in the fit. A line "
        "without a runtime is about one that is not known, and has all that is published beside it.",
        "",
        "| network | MAC | published | weight bytes | published | target | runtime | predicted, ms | 90 % interval "
        "| published, ms | inside |",
        "|" + "---|" * 11,
    ]
    for r in rows:
        low, high = r["interval_90_ms"]
        known = r["published_ms"]
        beside = f"{known[0]:.4g} to {known[-1]:.4g} ({len(known)})" if len(known) > 1 else "".join(map(str, known))
        inside = f"{sum(low <= v <= high for v in known)} of {len(known)}" if known else ""
        cells = [
            r["network"], f"{r['macs']:,}", f"{r['published_macs']:,}" if r["published_macs"] else "",
            f"{r['weight_bytes']:,}", f"{r['published_bytes']:,}" if r["published_bytes"] else "", r["target"],
            r["runtime"], f"{r['predicted_ms']:.4g}", f"{low:.4g} to {high:.4g}", beside, inside,
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    named = [(v, r) for r in rows if r["runtime"] for v in r["published_ms"]]
    errors = [abs(r["predicted_ms"] / v - 1) for v, r in named]
    held = [r["interval_90_ms"][0] <= v <= r["interval_90_ms"][1] for v, r in named]
    lines += [
        "",
        f"Of a named runtime: {len(errors)} published figures, median error {100 * np.median(errors):.1f} %, 90th "
        f"percentile {100 * np.quantile(errors, 0.9):.1f} %, {100 * np.mean(held):.0f} % inside.",
    ]
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> None:
    if len(arguments) != 1:
        sys.exit(__doc__)
    rows = network_rows(Path(arguments[0]))
    (RESULTS / "networks.json").write_text(json.dumps(rows, indent=1) + "\n", "utf-8")
    (RESULTS / "networks.md").write_text(as_markdown(rows), "utf-8")
    print(as_markdown(rows))


if __name__ == "__main__":
    main(sys.argv[1:])
