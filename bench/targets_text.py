"""bench/results/targets.md."""

from collections.abc import Iterable
from typing import Any

from edgehmn.estimate import SPREADS

LIMITS = {"zero_shot": (19, 50), "anchored": (14, 35)}
LABELS = {"zero_shot": "unseen {}", "anchored": "anchored by one workload"}
WORST = 25  # %: rows that are off by more are listed


def as_markdown(r: dict[str, Any]) -> str:
    parts = [*_networks(r), *_energy(r["energy"]), *_decode(r["decode"]), *_found(r["found"]), *_groups(r["zero_shot"])]
    return "\n".join(parts) + "\n"


def _table(header: Iterable[str], rows: Iterable[Iterable[Any]]) -> list[str]:
    head = list(header)
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return [*lines, *("| " + " | ".join(str(cell) for cell in row) + " |" for row in rows), ""]


def _networks(r: dict[str, Any]) -> list[str]:
    rows = []
    for kind, (median, p90) in LIMITS.items():
        for key, e in r[kind].items():
            rows.append(_line(LABELS[kind].format(key), e, (median, p90)))
    extra = [(f"rounds after v{e['up_to']}, by those up to it", e, (19, 50)) for e in r["rounds"]]
    found = {k: v for k, v in r["found"].items() if k in ("all", "cores of the fit")}
    extra += [(f"rounds v1.2 and v1.3, in no fit: {k}", e, (19, 50)) for k, e in found.items()]
    rows += [_line(*line) for line in extra]
    header = ["", "n", "median", "limit", "90th percentile", "limit", "inside the 90 % interval", "limit"]
    header += ["inside, each board counted once", "deviations that hold 90 %"]
    return [
        "# Target profiles against published measurements",
        "By `python tools/run.py bench.targets check DATA`. Errors in %; no fit had seen what is left out.",
        "",
        f"Microcontrollers, int8 networks ({r['rows']} rows fitted; an interval reaches {SPREADS} deviations):",
        "",
        *_table(header, rows),
    ]


def _line(label: str, e: dict[str, Any], limits: tuple[int, int]) -> list[Any]:
    keys = ("median_percent", "p90_percent", "inside_90_percent", "inside_90_percent_of_boards")
    half, most, inside, boards = (f"{e[q]:.1f}" for q in keys)
    row = [label, e["n"], half, limits[0], most, limits[1], inside, 85, boards]
    return [*row, f"{e['spreads_that_hold_90_percent']:.2f}"]


def _energy(e: dict[str, Any]) -> list[str]:
    labels = {
        "given_latency": "given latency: power of the other workloads of that system",
        "unseen_submitter": "unseen submitter: power of the board's systems by others",
        "profile": "power in the board's profile (these rows are its source)",
    }
    rows = [
        [label, e[k]["n"], *(f"{e[k][f'{q}_percent']:.1f}" for q in ("mean", "median", "p90", "inside_90"))]
        for k, label in labels.items()
    ]
    return [
        "Energy of microcontrollers, the time being given (limit 8 for the first):",
        "",
        *_table(("", "n", "mean", "median", "90th percentile", "inside the 90 % interval"), rows),
        f"Power spreads by {100 * e['deviation_of_workloads']:.0f} % over the workloads of a system, and by "
        f"{100 * e['deviation_of_systems']:.0f} % over the systems of a board.",
        "",
    ]


def _decode(d: dict[str, Any]) -> list[str]:
    rows = []
    for b in d["boards"]:
        mean, inside = f"{b['mean_percent']:.1f}", f"{b['inside_90_percent']:.0f}"
        rows.append([b["boards"], b["left_out"], b["n"], mean, b["limit"] or "", inside])
    out = ["Text generation (`processor`: all boards with the same chip):", ""]
    out += _table(("boards", "left out", "n", "mean", "limit", "inside the 90 % interval"), rows)
    people: dict[str, list[float]] = {}
    for r in d["rows"]:
        people.setdefault(f"{r['by']}, {'GPU' if r['gpu'] else 'CPU'}", []).append(abs(r["error_percent"]))
    out += ["By submitter, with the board left out:", ""]
    out += _table(("", "n", "mean"), ([who, len(e), f"{sum(e) / len(e):.1f}"] for who, e in sorted(people.items())))
    orin = [r for r in d["rows"] if r["gpu"]]
    out += ["Orin GPUs with the board left out, without the rows of one submitter:", ""]
    rows = []
    for who in sorted({r["by"] for r in orin}):
        rest = [abs(r["error_percent"]) for r in orin if r["by"] != who]
        rows.append([f"without {who}", len(rest), f"{sum(rest) / len(rest):.1f}"])
    out += _table(("", "n", "mean"), rows)
    off = [r for r in d["rows"] if abs(r["error_percent"]) > WORST]
    out += [f"Its rows that are off by more than {WORST} % with their board left out (tokens per second):", ""]
    columns = ("board", "runtime", "workload", "by", "tokens_per_s", "predicted", "inside")
    names = ("board", "runtime", "model", "by", "published", "predicted", "inside")
    out += _table(names, ([r[k] for k in columns] for r in off))
    found = d["found"]
    out += ["Rows published elsewhere, bench/published_decode.csv, in no fit (tokens per second):", ""]
    rows = []
    for batch in sorted({r["batch"] for r in found}):
        some = [r for r in found if r["batch"] == batch]
        mean, inside = (sum(abs(r["error_percent"]) for r in some), 100 * sum(r["inside"] for r in some))
        rows.append([batch, len(some), f"{mean / len(some):.1f}", f"{inside / len(some):.0f}"])
    out += _table(("batch", "n", "mean", "inside the 90 % interval"), rows)
    return out + _table((*names, "source"), ([r[k] for k in (*columns, "source")] for r in found))


def _found(found: dict[str, Any]) -> list[str]:
    e = found["energy"]["given_latency"]
    rows = []
    for r in found["rows"]:
        error = f"{100 * (r['predicted_ms'] / r['published_ms'] - 1):+.0f}"
        times = (f"{r[k]:.4g}" for k in ("published_ms", "predicted_ms"))
        rows.append([r["board"], r["core"], r["runtime"], r["workload"], r["submission"], *times, error, r["inside"]])
    power = found["energy"]["profile"]
    return [
        "Rounds v1.2 and v1.3 of MLPerf Tiny, bench/published_networks.csv, in no fit (milliseconds, error in %). "
        f"Their energy given latency, by the other workloads: {e['n']} rows, mean {e['mean_percent']:.1f} %, 90th "
        f"percentile {e['p90_percent']:.1f} %, {e['inside_90_percent']:.0f} % inside; by the power of the board's "
        f"profile: {power['n']} rows, mean {power['mean_percent']:.1f} %, {power['inside_90_percent']:.0f} % inside:",
        "",
        *_table(("board", "core", "runtime", "network", "system", "published", "predicted", "error", "inside"), rows),
    ]


def _groups(zero_shot: dict[str, Any]) -> list[str]:
    out = []
    for key, e in zero_shot.items():
        rows = [
            [name, g["n"], *(f"{g[f'{q}_percent']:.1f}" for q in ("median", "p90")), f"{g['inside_90_percent']:.0f}"]
            for name, g in e["groups"].items()
        ]
        out += [
            f"Microcontrollers, by {key}, core and runtime:",
            "",
            *_table(("", "n", "median", "90th percentile", "inside"), rows),
        ]
    return out
