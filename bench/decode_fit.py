"""Text generation: seconds per token = bytes of the model / (efficiency x theoretical bandwidth) + a fixed time."""

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from bench.latency_rows import Decode
from edgehmn.estimate import SPREADS

# Theoretical bandwidth in bytes/s by what a board's name holds, the first that matches.
BANDWIDTH = {
    "Raspberry Pi 5": 17.1e9, "Raspberry Pi 4": 12.8e9, "Super": 102.4e9, "Orin NX": 102.4e9, "Orin Nano": 68.3e9,
    "Jetson Nano": 25.6e9, "Zero 2": 3.2e9,
}  # fmt: skip
FIXED_SD = 0.02  # seconds, around 0
NOISE = 0.15
LEAST_SD = 0.06
UNKNOWN_SD = 0.35  # of a board whose efficiency nobody has measured
CHECKS = (("Raspberry Pi 4 and 5", "Raspberry Pi", 8), ("Orin, GPU", "Orin", 22))

Line = tuple[float, float, float]  # seconds per byte at 1 byte/s of theoretical bandwidth, fixed seconds, deviation


def bandwidth(board: str) -> float | None:
    return next((v for k, v in BANDWIDTH.items() if k in board), None)


def family(row: Decode) -> str:
    if row.runtime.startswith("Ollama") and "GPU" in row.core:
        return "Ollama"
    return row.runtime if row.runtime == "MLC" else "llama.cpp"


def line(rows: Sequence[Decode]) -> Line:
    """Least squares on relative errors; the fixed time is not negative."""
    x = np.array([r.bytes / (bandwidth(r.board) or 1) for r in rows])
    t = np.array([r.seconds for r in rows])
    a, b = float(np.median(t / x)), 0.0
    if len(rows) >= 3:
        design = np.vstack([np.stack([x / t, 1 / t], 1) / NOISE, [0, 1 / FIXED_SD]])
        a, b = np.linalg.lstsq(design, np.append(np.ones(len(t)) / NOISE, 0.0), rcond=None)[0].tolist()
        if b < 0 or a <= 0:
            a, b = float((x / t).sum() / ((x / t) ** 2).sum()), 0.0
    residual = np.log(t / (a * x + b))
    spread = float(np.sqrt((residual @ residual + 2 * 0.15**2) / (len(rows) + 1)))
    return a, b, max(LEAST_SD, spread * math.sqrt(1 + 2 / len(rows)))


def fit_decode(rows: Sequence[Decode]) -> list[dict[str, Any]]:
    groups: dict[tuple[str, str, str], list[Decode]] = defaultdict(list)
    for r in rows:
        if bandwidth(r.board) is not None:
            groups[r.board, r.core, family(r)].append(r)
    out = []
    for (board, core, runtime), group in sorted(groups.items()):
        a, b, sd = line(group)
        out.append(
            {
                "board": board, "core": core, "runtime": runtime, "n": len(group),
                "bytes_per_s": round((bandwidth(board) or 1) / a), "fixed_s": round(b, 5), "deviation": round(sd, 4),
            }
        )  # fmt: skip
    return out


def check_decode(rows: Sequence[Decode]) -> list[dict[str, Any]]:
    out = []
    for label, mark, limit in CHECKS:
        mine = [r for r in rows if mark in r.board and (mark != "Orin" or "GPU" in r.core) and bandwidth(r.board)]
        mine = [r for r in mine if "Zero" not in r.board]
        for key in ("workload", "board", "submitter"):
            out.append({"boards": label, "left_out": key, "limit": limit} | _check(mine, key))
    return out


def _check(rows: Sequence[Decode], key: str) -> dict[str, Any]:
    errors, inside = [], []
    for r in rows:
        same = [q for q in rows if (q is not r if key == "workload" else getattr(q, key) != getattr(r, key))]
        known, sd = _nearest(r, same)
        if not known:
            continue
        a, b, deviation = line(known)
        predicted = a * r.bytes / (bandwidth(r.board) or 1) + b
        errors.append(abs(predicted / r.seconds - 1))
        inside.append(abs(math.log(r.seconds / predicted)) <= SPREADS * max(sd, deviation))
    return {
        "n": len(errors),
        "mean_percent": 100 * float(np.mean(errors)),
        "inside_90_percent": 100 * float(np.mean(inside)),
    }


def _nearest(row: Decode, rows: Sequence[Decode]) -> tuple[list[Decode], float]:
    """The rows that know most about one: same board and runtime, same chip and runtime, same runtime; and the least
    deviation that a prediction from them has."""
    chip = next(k for k in BANDWIDTH if k in row.board)
    for known, sd in (
        ([r for r in rows if r.board == row.board and family(r) == family(row)], 0.0),
        ([r for r in rows if chip in r.board and family(r) == family(row)], 0.1),
        ([r for r in rows if family(r) == family(row) and ("GPU" in r.core) == ("GPU" in row.core)], UNKNOWN_SD),
        (list(rows), 2 * UNKNOWN_SD),
    ):
        if known:
            return known, sd
    return [], 0.0
