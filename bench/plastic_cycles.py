"""How much longer an instruction of the plastic parts takes than one of the frozen, on this machine.

    python tools/run.py bench.plastic_cycles OUT    writes bench/results/plastic-cycles.json and .md

OUT: an export of the reference model. Processor time of one thread against the instructions of targets/counts.json,
which were counted for the table avx2: that line compares like with like. Of rounds the median counts.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from edgehmn.core import CoreModel, lib
from edgehmn.estimate import COUNTS, VECTOR
from edgehmn.exported import Export
from edgehmn.measure.token_by_token import feed, stretches
from edgehmn.texts import EVALUATION, shipped

RESULTS = Path(__file__).resolve().parent / "results"
TABLES = ("reference", "rows", "avx2", "vnni")
ROUNDS = 25
MODES = {"static": (False, False), "predicted": (True, False), "learned": (True, True)}  # plastic, learn


def seconds_per_token(export: Export, table: int) -> dict[str, float]:
    n_ctx = int(export.image.header.n_ctx)
    ids = export.encode(shipped(EVALUATION))
    new = stretches(ids[n_ctx + 1 :], n_ctx)
    models = {}
    for mode, (plastic, learn) in MODES.items():
        models[mode] = CoreModel(export.image, plastic=plastic)
        lib.ehmn_use_kernels(models[mode]._model, lib.ehmn_kernel_table(table))
        feed(models[mode], ids[: n_ctx + 1], learn=learn)
    took: dict[str, list[float]] = {mode: [] for mode in MODES}
    for _ in range(ROUNDS):
        part = next(new)
        for mode, (_, learn) in MODES.items():
            start = time.process_time_ns()
            feed(models[mode], part, learn=learn)
            took[mode].append((time.process_time_ns() - start) / 1e9 / len(part))
    return {mode: float(np.median(values)) for mode, values in took.items()}


def compared(seconds: dict[str, float], counts: dict[str, float]) -> dict[str, float]:
    """share_of_time, share_of_instructions: of the plastic parts in a learned token; times: how much longer they take
    than their instructions say."""
    ratio, counted = (v["learned"] / v["static"] - 1 for v in (seconds, counts))
    shares = {"share_of_time": ratio / (1 + ratio), "share_of_instructions": counted / (1 + counted)}
    return shares | {"times": ratio / counted}


def main(arguments: list[str]) -> None:
    if len(arguments) != 1:
        sys.exit(__doc__)
    export = Export.open(arguments[0])
    counts = json.loads(COUNTS.read_text("utf-8"))["x86-64"]["instructions_per_token"]
    rows: list[dict[str, Any]] = []
    for table, name in enumerate(TABLES):
        if lib.ehmn_kernel_table(table):
            seconds = seconds_per_token(export, table)
            rows.append({"kernels": name, "seconds": seconds} | compared(seconds, counts))
            print(rows[-1])
    (RESULTS / "plastic-cycles.json").write_text(json.dumps({"rows": rows}, indent=1) + "\n", "utf-8")
    lines = [
        "# Instructions of the plastic parts beside those of the frozen",
        "By `python tools/run.py bench.plastic_cycles OUT`, on an x86-64 processor. The profiles of boards with vector"
        f" units take {VECTOR[0]} times, within a factor of {VECTOR[1]}. The instructions are those of the table avx2; "
        "the times of the others show how the share grows as the frozen part gets faster.",
        "",
        "| kernels | µs static | µs learned | share of time, % | share of instructions, % | times as long |",
        "|---|---|---|---|---|---|",
    ]
    for r in rows:
        static, learned = (f"{1e6 * r['seconds'][k]:.0f}" for k in ("static", "learned"))
        shares = " | ".join(f"{100 * r[k]:.1f}" for k in ("share_of_time", "share_of_instructions"))
        lines.append(f"| {r['kernels']} | {static} | {learned} | {shares} | {r['times']:.2f} |")
    (RESULTS / "plastic-cycles.md").write_text("\n".join(lines) + "\n", "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
