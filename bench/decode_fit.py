"""Text generation: the constants of edgehmn/generation.py, fitted to published rates, and how far off they are.

log seconds = log(the parts of edgehmn.generation.token_seconds) + effect of the processor + effect of the submitter

Effects are drawn from normal distributions around 0. Of the standard deviations, of effects and of noise, those are
taken under which the rows are likeliest (Laplace's approximation), with a weak prior on each, as there are few levels.
A submitter who does not state a Jetson's power mode differs by that too. What is not in here: length of the context;
Maxwell and older GPUs.
"""

import csv
import math
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.latency_rows import BYTES_OF_WEIGHT, Decode, unread_weights
from edgehmn.generation import PARAMETERS, POWER_MODES_SD, Board, Prediction, board_of, predict, token_seconds
from edgehmn.targets.schema import load_target, target_names

Array = npt.NDArray[np.float64]
Rows = Sequence[tuple[Decode, Board]]
# Before any row is seen: efficiencies of 0.6 to 0.8, of an A72's NEON unpacking 0.6 bytes a cycle, some milliseconds. A
# GPU of 16,000 multiply-accumulates a cycle reads 64 bytes in one: a plain reader got 60 GB/s of an Orin NX at 918 MHz.
PRIOR = {
    "gpu memory": (1 / 0.8, 0.2), "gpu llama.cpp": (16000 / 64, 0.4), "gpu MLC": (16000 / 64, 0.4),
    "cpu memory": (1 / 0.6, 0.4), "cpu unpack": (1 / 0.6, 0.5), "gpu fixed": (0.005, 0.7), "cpu fixed": (0.005, 0.7),
    "Ollama fixed": (0.008, 0.7),
}  # fmt: skip
START = {
    "gpu processor": 0.2, "gpu submitter": 0.3, "gpu noise": 0.18, "cpu processor": 0.2, "cpu submitter": 0.1,
    "cpu noise": 0.08,
}  # fmt: skip
PRIOR_OF_SD = 0.5  # of the logarithm of each of these
MODE = " and power mode"  # ends the group of submitters who do not state it
STATED = re.compile(r"\d+ ?W\b")  # in the name of a board
OTHER_RUNTIME_SD = 0.5  # a runtime that is none of edgehmn.generation.RUNTIMES, by a factor of its own
FOUND = Path(__file__).resolve().parent / "published_decode.csv"
CHECKS = (("Raspberry Pi 4 and 5", ("raspberry-pi-4b", "raspberry-pi-5"), 8), ("Orin, GPU", ("orin",), 22))


@dataclass
class DecodeFit:
    """Most likely parameters and effects, their covariance, and the deviations of the groups."""

    deviations: dict[str, float]
    index: dict[str, int] = field(default_factory=dict)
    mean: Array = field(default_factory=lambda: np.zeros(0))
    covariance: Array = field(default_factory=lambda: np.zeros((0, 0)))
    evidence: float = 0.0

    def predict(self, row: Decode, board: Board) -> Prediction:
        """A submitter who is in the fit is known, with the power mode, and a mode that the row states."""
        gradient, parts = np.zeros(len(self.mean)), self._median(row, board)
        total = sum(parts.values())
        for name, seconds in parts.items():
            gradient[self.index[name]] = seconds / total
        variance, shift = self.deviations[f"{_side(board)} noise"] ** 2, 0.0
        for group, level in _effects(row, board):
            if level in self.index:
                gradient[self.index[level]] = 1.0
                shift += self.mean[self.index[level]]
            else:
                variance += _deviation(group, self.deviations) ** 2
        variance += float(gradient @ self.covariance @ gradient)
        return Prediction(total * math.exp(shift), math.sqrt(variance))

    def _median(self, row: Decode, board: Board) -> dict[str, float]:
        log = {name: float(self.mean[self.index[name]]) for name in PARAMETERS}
        return token_seconds(row.bytes, board, row.family, log)


def _side(board: Board) -> str:
    return "gpu" if board.gpu else "cpu"


def _effects(row: Decode, board: Board) -> list[tuple[str, str]]:
    """(group of the deviation, level)."""
    side = _side(board)
    mode = MODE if board.gpu and not STATED.search(row.board) else ""
    out = [(f"{side} processor", board.processor), (f"{side} submitter{mode}", f"{side} by {row.submitter}{mode}")]
    return out + ([("runtime", f"runtime {row.family}")] if row.family.startswith("other") else [])


def _deviation(group: str, deviations: dict[str, float]) -> float:
    own = deviations.get(group.removesuffix(MODE), OTHER_RUNTIME_SD)
    return math.hypot(own, POWER_MODES_SD) if group.endswith(MODE) else own


def placed(rows: Sequence[Decode]) -> list[tuple[Decode, Board]]:
    """The rows that a profile with a peak bandwidth holds among its measured_as, each with its board."""
    boards = defaultdict(list)
    for target in map(load_target, target_names()):
        board = board_of(target)
        for name in target.measured_as if board else ():
            boards[name].append(board)
    out = []
    for row in rows:
        out += [(row, b) for b in boards[row.board] if b is not None and b.gpu == ("GPU" in row.core)]
    return out


def fit(rows: Rows, deviations: dict[str, float], start: DecodeFit | None = None) -> DecodeFit:
    """Parameters and effects by Gauss-Newton steps."""
    levels = sorted({e for row, board in rows for e in _effects(row, board)}, key=lambda e: e[1])
    out = DecodeFit(deviations, {name: i for i, name in enumerate([*PARAMETERS, *(level for _, level in levels)])})
    prior = np.array([math.log(PRIOR[name][0]) for name in PARAMETERS] + [0.0] * len(levels))
    spreads = [PRIOR[name][1] for name in PARAMETERS]
    spreads += [_deviation(group, deviations) for group, _ in levels]
    precision = np.array(spreads) ** -2
    weight = np.array([deviations[f"{_side(board)} noise"] ** -2 for _, board in rows])
    same = start is not None and start.index == out.index
    out.mean = start.mean.copy() if start is not None and same else prior.copy()
    for _ in range(60):
        jacobian, residual = np.zeros((len(rows), len(prior))), np.zeros(len(rows))
        for i, (row, board) in enumerate(rows):
            parts = out._median(row, board)
            total = sum(parts.values())
            for name, seconds in parts.items():
                jacobian[i, out.index[name]] = seconds / total
            for _, level in _effects(row, board):
                jacobian[i, out.index[level]] = 1.0
            shift = sum(out.mean[out.index[level]] for _, level in _effects(row, board))
            residual[i] = math.log(row.seconds / total) - shift
        normal = (jacobian.T * weight) @ jacobian + np.diag(precision)
        step = np.linalg.solve(normal, (jacobian.T * weight) @ residual - precision * (out.mean - prior))
        out.mean = out.mean + 0.8 * step
        if np.abs(step).max() < 1e-5:
            break
    out.covariance = np.linalg.inv(normal)
    determinants = np.log(precision).sum() + np.log(weight).sum() - np.linalg.slogdet(normal)[1]
    loss = weight @ residual**2 + precision @ (out.mean - prior) ** 2
    loss += sum((math.log(v / START[g]) / PRIOR_OF_SD) ** 2 for g, v in deviations.items())
    out.evidence = float(0.5 * (determinants - loss))
    return out


def fit_all(rows: Rows, start: DecodeFit | None = None) -> DecodeFit:
    """Deviations too: each in turn is moved to where the evidence is highest."""
    best = fit(rows, dict(start.deviations if start else START), start)
    for factor in (1.4, 1.15) if start is None else (1.15,):
        for group in START:
            for direction in (factor, 1 / factor):
                while True:
                    tried = fit(rows, best.deviations | {group: best.deviations[group] * direction}, best)
                    if tried.evidence <= best.evidence + 1e-3:
                        break
                    best = tried
    return best


def fit_decode(rows: Sequence[Decode]) -> dict[str, Any]:
    """What edgehmn.generation.predict takes: without the submitters."""
    known = placed(rows)
    best = fit_all(known)
    names = [*PARAMETERS, *sorted({board.processor for _, board in known})]
    places = [best.index[name] for name in names]
    covariance = np.round(best.covariance[np.ix_(places, places)], 5)
    return {
        "rows": len(known), "deviations": {k: round(v, 4) for k, v in best.deviations.items()}, "names": names,
        "mean": np.round(best.mean[places], 4).tolist(), "covariance": covariance.tolist(),
    }  # fmt: skip


# How far off


def check_decode(rows: Sequence[Decode]) -> dict[str, Any]:
    """Errors by what is left out ("boards"), of each row with its board left out ("rows"), and of FOUND ("found")."""
    known = placed(rows)
    start = fit_all(known)
    out: list[dict[str, Any]] = []
    by_row: list[dict[str, Any]] = []
    for key in ("workload", "board", "submitter", "processor"):
        predicted = list(_left_out(known, key, start))
        for label, marks, limit in CHECKS:
            mine = [p for p in predicted if any(m in p[1].name for m in marks) and p[1].gpu == ("orin" in marks)]
            out.append(
                {"boards": label, "left_out": key, "limit": limit if key in ("board", "submitter") else None}
                | _errors(mine)
            )
        out.append({"boards": "all of these", "left_out": key, "limit": None} | _errors(predicted))
        if key == "board":
            by_row = [_line(row, board, p) for row, board, p in predicted]
    return {"boards": out, "rows": by_row, "found": _found(fit_decode(rows))}


def _left_out(known: Rows, key: str, start: DecodeFit) -> Iterator[tuple[Decode, Board, Prediction]]:
    """Each row, predicted by a fit without those that have the same of `key`; "workload": without it alone."""
    level: list[Any] = [
        i if key == "workload" else board.name if key == "processor" else getattr(row, key)
        for i, (row, board) in enumerate(known)
    ]
    for one in dict.fromkeys(level):
        fitted = fit_all([k for k, v in zip(known, level, strict=True) if v != one], start)
        for (row, board), v in zip(known, level, strict=True):
            if v == one:
                yield row, board, fitted.predict(row, board)


def _line(row: Decode, board: Board, p: Prediction) -> dict[str, Any]:
    low, high = p.interval
    return {
        "board": row.board, "gpu": board.gpu, "runtime": row.family, "workload": row.workload, "by": row.submitter,
        "tokens_per_s": round(1 / row.seconds, 3), "predicted": round(1 / p.median, 3),
        "error_percent": round(100 * (p.median / row.seconds - 1), 1), "inside": low <= row.seconds <= high,
    }  # fmt: skip


def _errors(predicted: Sequence[tuple[Decode, Board, Prediction]]) -> dict[str, Any]:
    lines = [_line(*p) for p in predicted]
    return {
        "n": len(lines),
        "mean_percent": float(np.mean([abs(line["error_percent"]) for line in lines])),
        "inside_90_percent": 100 * float(np.mean([line["inside"] for line in lines])),
    }


def _found(fitted: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows published elsewhere, as the product predicts them: by whoever, in whichever power mode.

    Batch 1 was known when the first model was chosen; batch 2 was found before the next was, with its GPUs by clock."""
    out = []
    with FOUND.open(encoding="utf-8", newline="") as f:
        for line in csv.DictReader(f):
            target = load_target(line["target"])
            board = board_of(target)
            assert board is not None
            read = float(line["bytes"]) - unread_weights(line["workload"]) * BYTES_OF_WEIGHT
            row = Decode(
                target.name, "", line["runtime"], line["runtime"], line["submitter"], line["workload"], read,
                1 / float(line["tokens_per_s"]),
            )  # fmt: skip
            found = _line(row, board, predict(read, board, line["runtime"], fitted))
            out.append(found | {k: line[k] for k in ("source", "batch")})
    return out
