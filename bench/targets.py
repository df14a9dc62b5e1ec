"""Fits the target profiles to published measurements, and shows how far off they are.

    python tools/run.py bench.targets fit DATA      writes targets/fitted.json from DATA/measurements.csv
    python tools/run.py bench.targets check DATA    writes bench/results/targets.json and .md: errors, cross-validated
    python tools/run.py bench.targets counts OUT    writes cortex-m4 and cortex-m55 of targets/counts.json, counted
                                                    on emulated boards; OUT: an export of the reference model

DATA: the folder of measurements.csv. Errors are of predictions by a fit that has not seen the board, or the submitter,
of the row; never by random rows.
"""

import json
import math
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.decode_fit import check_decode, fit_decode
from bench.energy_fit import check_energy, check_found, measured, system
from bench.latency_fit import UNKNOWN, Fit, fit, fit_all, left_out, release
from bench.latency_rows import CLASSES, MICROCONTROLLERS, Row, read_rows
from bench.targets_text import as_markdown
from edgehmn.estimate import SPREADS, least_relative_error
from edgehmn.evaluation.p3 import EMULATED, count_on_board
from edgehmn.exported import Export
from edgehmn.files import sha256
from edgehmn.targets.schema import load_target, target_names
from edgehmn.texts import EVALUATION, shipped
from edgehmn.workload_export import count_learning

ROOT = Path(__file__).resolve().parents[1]
FITTED = ROOT / "targets" / "fitted.json"
COUNTS = ROOT / "targets" / "counts.json"
COUNTED_ON = {"cortex-m4": "mps2-an386", "cortex-m55": "mps3-an547"}
RESULTS = ROOT / "bench" / "results"
FOUND = ROOT / "bench" / "published_networks.csv"
LAST_ROUNDS = (0.7, 1.0)


def training_rows(rows: Sequence[Row]) -> list[Row]:
    """Those on cores of microcontrollers, with kernels that somebody made fast."""
    return [r for r in rows if (r.official or r.core in MICROCONTROLLERS) and r.family != "reference kernels"]


def write_fit(data: Path) -> None:
    path = data / "measurements.csv"
    rows, decodes = read_rows(path)
    used = training_rows(rows)
    fitted = fit_all(used)
    out = {
        "measurements_sha256": sha256(path.read_bytes()),
        "rows": len(used),
        "deviations": {k: round(v, 4) for k, v in fitted.sd.items()} | {"noise": round(fitted.noise, 4)},
        "classes": [*CLASSES, "operator"],
        "networks": _networks(fitted, used),
        "decode": fit_decode(decodes),
        "power": _powers(used),
        "published": _published(rows),
    }
    FITTED.write_text(_lines(out), "utf-8")
    print(f"{FITTED}: {len(used)} rows")


def _lines(values: dict[str, Any]) -> str:
    """JSON with one line for each entry of a list."""
    parts = []
    for key, value in values.items():
        text = json.dumps(value)
        if isinstance(value, list) and value and isinstance(value[0], dict):
            text = "[\n  " + ",\n  ".join(json.dumps(v) for v in value) + "\n ]"
        parts.append(f" {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _networks(fitted: Fit, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Of each target with a core that was fitted: for each runtime, and for one that is not known."""
    out = []
    cores = {r.core for r in rows}
    runtimes = sorted({(r.family, r.version) for r in rows if r.core in MICROCONTROLLERS})
    for target in map(load_target, target_names()):
        if target.core.name not in cores:
            continue
        board = target.measured_as[0] if target.measured_as else f"unseen {target.name}"
        for family, version in [("", ""), *((f, "") for f in sorted({f for f, _ in runtimes})), *runtimes]:
            row = _probe(target.core.name, board, family, version)
            eta, covariance = fitted.parts(row)
            seen = any(r.core == row.core and r.family == family and version in ("", r.version) for r in rows)
            out.append(
                {
                    "target": target.name, "runtime": version or family, "seen_on_core": seen,
                    "log_cycles": np.round(eta, 4).tolist(), "covariance": np.round(covariance, 5).tolist(),
                }
            )  # fmt: skip
    return out


def _probe(core: str, board: str, family: str, version: str) -> Row:
    family = family or "unseen"
    return Row(
        board, core, family, version or family + UNKNOWN, "", "", 1, (1, 1, 1, 1), 1, 1, False, None, "", "", None, 1
    )


def _powers(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Median power of each system."""
    groups: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    for r in measured(rows):
        groups[system(r)].append(r)
    return [
        {
            "board": g[0].board, "supply_v": g[0].supply, "runtime": g[0].runtime, "submission": g[0].submission,
            "watts": round(float(np.median([r.power_w or 0.0 for r in g])), 6), "n": len(g),
        }
        for _, g in sorted(groups.items())
    ]  # fmt: skip


def _published(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """What was published of the networks of MLPerf Tiny on boards of ours, to stand beside predictions."""
    boards = {name: t.name for t in map(load_target, target_names()) for name in t.measured_as}
    return [
        {
            "target": boards[r.board], "workload": r.workload, "macs": [int(m) for m in r.macs], "runtime": r.version,
            "latency_ms": round(r.latency_s * 1e3, 4), "energy_mj": r.energy_mj,
        }
        for r in rows if r.official and r.board in boards
    ]  # fmt: skip


def check(data: Path) -> None:
    rows, decodes = read_rows(data / "measurements.csv")
    used = training_rows(rows)
    start = fit_all(used)
    results: dict[str, Any] = {"rows": len(used), "zero_shot": {}, "anchored": {}}
    for key in ("board", "submitter"):
        zero, anchored = [], []
        for kept, out, fitted in left_out(used, key, start):
            out = [r for r in out if r.core in MICROCONTROLLERS and r.official]
            zero += [(r, *fitted.predict(r)) for r in out]
            anchored += list(_anchored(kept, out, fitted)) if key == "board" else []
        results["zero_shot"][key] = _errors(zero) | {"groups": _by_group(zero, key)}
        if anchored:
            results["anchored"][key] = _errors(anchored)
    results["rounds"] = [_later_rounds(used, last) for last in LAST_ROUNDS]
    results["found"] = _found(start, rows)
    results["energy"] = check_energy(rows)
    results["decode"] = check_decode(decodes)
    (RESULTS / "targets.json").write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    text = as_markdown(results)
    (RESULTS / "targets.md").write_text(text, "utf-8")
    print(text)


def _later_rounds(rows: Sequence[Row], last: float) -> dict[str, Any]:
    """The later rounds, predicted by a fit of those up to one: as somebody then would have."""

    def later(row: Row) -> bool:
        return row.official and release(row.version)[0] > last

    fitted = fit_all([r for r in rows if not later(r)])
    return {"up_to": last} | _errors([(r, *fitted.predict(r)) for r in rows if later(r) and r.core in MICROCONTROLLERS])


def _found(fitted: Fit, known: Sequence[Row]) -> dict[str, Any]:
    """Rounds that are not in the measurements: no fit has seen them."""
    rows, _ = read_rows(FOUND)
    predicted = [(r, *fitted.predict(r)) for r in rows]
    lines = [
        {
            "board": r.board, "core": r.core, "runtime": r.version, "workload": r.workload, "submission": r.submission,
            "published_ms": r.latency_s * 1e3, "predicted_ms": least_relative_error(c, sd) / r.clock_hz * 1e3,
            "inside": abs(math.log(r.cycles / c)) <= SPREADS * sd,
        }
        for r, c, sd in predicted
    ]  # fmt: skip
    return {
        "all": _errors(predicted),
        "cores of the fit": _errors([p for p in predicted if p[0].core in MICROCONTROLLERS]),
        "energy": check_found(rows, known),
        "rows": lines,
    }


def _anchored(kept: list[Row], out: list[Row], fitted: Fit) -> Iterable[tuple[Row, float, float]]:
    """Each workload of a system by a fit that has seen one other workload of that system."""
    for anchor in out:
        seen = fit([*kept, anchor], fitted.sd, fitted.noise)
        for r in out:
            if r.system == anchor.system and r.workload != anchor.workload:
                yield (r, *seen.predict(r))


def _errors(predicted: Sequence[tuple[Row, float, float]]) -> dict[str, Any]:
    error = [abs(least_relative_error(cycles, sd) / r.cycles - 1) for r, cycles, sd in predicted]
    off = np.array([abs(math.log(r.cycles / cycles)) / sd for r, cycles, sd in predicted])
    boards = np.array([r.board for r, _, _ in predicted])
    by_board = [np.mean(off[boards == b] <= SPREADS) for b in set(boards)]
    return {
        "n": len(error),
        "median_percent": 100 * float(np.median(error)),
        "p90_percent": 100 * float(np.quantile(error, 0.9)),
        "mean_percent": 100 * float(np.mean(error)),
        "inside_90_percent": 100 * float(np.mean(off <= SPREADS)),
        "inside_90_percent_of_boards": 100 * float(np.mean(by_board)),
        "spreads_that_hold_90_percent": float(np.quantile(off, 0.9)),
    }


def _by_group(predicted: Sequence[tuple[Row, float, float]], key: str) -> dict[str, Any]:
    groups: dict[str, list[tuple[Row, float, float]]] = defaultdict(list)
    for p in predicted:
        groups[f"{getattr(p[0], key)}, {p[0].core}, {p[0].family}"].append(p)
    return {name: _errors(group) for name, group in sorted(groups.items())}


def write_counts(folder: Path) -> None:
    """Instructions per token of the reference model on emulated boards, as its evaluation counts them, beside what the
    core counts over the same tokens."""
    export = Export.open(folder)
    ids = export.encode(shipped(EVALUATION))[: 2 * EMULATED]
    macs, learning = count_learning(export.image, ids)
    predicted = macs + learning.macs_predicted
    known = json.loads(COUNTS.read_text("utf-8")) if COUNTS.exists() else {}
    for core, board in COUNTED_ON.items():
        known[core] = {
            "instructions_per_token": count_on_board(export.image, ids, board)["instructions_per_token"],
            "macs_per_token": {"static": macs, "predicted": predicted, "learned": predicted + learning.macs_learned},
            "writes_per_learned_token": learning.writes,
            "kernels": "those of the board's firmware",
            "source": f"bench.targets counts: counted on the emulated {board}",
        }
    COUNTS.write_text(json.dumps(known, indent=1) + "\n", "utf-8")
    print(COUNTS)


def main(arguments: list[str]) -> None:
    if len(arguments) == 2 and arguments[0] in ("fit", "check"):
        {"fit": write_fit, "check": check}[arguments[0]](Path(arguments[1]))
    elif len(arguments) == 2 and arguments[0] == "counts":
        write_counts(Path(arguments[1]))
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
