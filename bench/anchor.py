"""Prediction beside measurement on this machine, after it was anchored.

    python tools/run.py bench.anchor OUT [OUT ...]    writes bench/results/anchor.json and anchor.md

OUT: exports, of which none was used to anchor. Both figures are processor time of one thread.
"""

import json
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from edgehmn.core import CoreModel
from edgehmn.estimate import estimate
from edgehmn.exported import Export
from edgehmn.measure.anchor import anchor_host
from edgehmn.measure.token_by_token import feed, stretches
from edgehmn.targets.schema import read_target
from edgehmn.texts import EVALUATION, shipped
from edgehmn.workload import Workload, workload_of

RESULTS = Path(__file__).resolve().parent / "results"
LIMIT = 15  # %
ROUNDS = 3


def measured_seconds(export: Export, *, learn: bool) -> float:
    """Per token of a window's length of text after the window was filled, median over the pieces of repeats."""
    n_ctx = int(export.image.header.n_ctx)
    text = export.encode(shipped(EVALUATION))
    model = CoreModel(export.image, plastic=learn)
    feed(model, np.resize(text, n_ctx + 1), learn=learn)
    new = stretches(text[n_ctx + 1 :] if len(text) > 2 * n_ctx else text, min(n_ctx, len(text) // 2))
    rounds: list[float] = []
    end = time.perf_counter() + 3
    while len(rounds) < 3 or (time.perf_counter() < end and len(rounds) < 30):
        start = time.process_time()
        part = next(new)
        feed(model, part, learn=learn)
        rounds.append((time.process_time() - start) / len(part))
        if rounds[0] * len(part) > 10:
            break
    return float(np.median(rounds))


def one_round(exports: dict[str, Export], workloads: dict[str, Workload]) -> list[dict[str, Any]]:
    """Anchor this machine anew, and measure each export right afterwards."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        profile = Path(folder) / "this.toml"
        anchor_host(profile)
        target = read_target(profile)
    for name, export in exports.items():
        e = estimate(workloads[name], target)
        for token, quantity in (("frozen", e.seconds), ("learned", e.seconds_learned)):
            assert quantity is not None
            measured = measured_seconds(export, learn=token == "learned")
            rows.append(
                {
                    "model": name, "token": token, "macs": workloads[name].macs, "predicted_ms": quantity.value * 1e3,
                    "interval_90_ms": [v * 1e3 for v in quantity.interval], "measured_ms": measured * 1e3,
                    "error_percent": 100 * (quantity.value / measured - 1),
                }
            )  # fmt: skip
            print(rows[-1], flush=True)
    return rows


def main(arguments: list[str]) -> None:
    if not arguments:
        sys.exit(__doc__)
    exports = {Path(out).name: Export.open(out) for out in arguments}
    workloads = {Path(out).name: workload_of(Path(out)) for out in arguments}
    rounds = [one_round(exports, workloads) for _ in range(ROUNDS)]
    rows = []
    for same in zip(*rounds, strict=True):
        by_error = sorted(same, key=lambda row: row["error_percent"])
        rows.append(by_error[ROUNDS // 2] | {"errors_of_rounds": [row["error_percent"] for row in by_error]})
    result = {"machine": platform.machine(), "limit_percent": LIMIT, "rounds": ROUNDS, "rows": rows}
    (RESULTS / "anchor.json").write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    (RESULTS / "anchor.md").write_text(as_markdown(rows), "utf-8")


def as_markdown(rows: list[dict[str, Any]]) -> str:
    lines = [
        "# Anchored prediction beside measurement",
        f"By `python tools/run.py bench.anchor OUT ...`; processor time of one thread; of {ROUNDS} rounds, in each of "
        f"which the machine is anchored anew, the one whose error is in the middle. Limit: {LIMIT} %.",
        "",
        "| model | token | multiply-accumulates | predicted, ms | 90 % interval | measured, ms | error, % | rounds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        low, high = r["interval_90_ms"]
        errors = ", ".join(f"{e:+.1f}" for e in r["errors_of_rounds"])
        lines.append(
            f"| {r['model']} | {r['token']} | {r['macs']:,} | {r['predicted_ms']:.3f} | {low:.3f} to {high:.3f} "
            f"| {r['measured_ms']:.3f} | {r['error_percent']:+.1f} | {errors} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main(sys.argv[1:])
