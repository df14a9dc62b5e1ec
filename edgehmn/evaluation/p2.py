"""P2: what learning a second kind of text takes from the first, and what is still there when either returns."""

from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from edgehmn.evaluation.run import Run
from edgehmn.evaluation.sequences import (
    LENGTH,
    VISIT_EDGES,
    WINDOWS,
    Kinds,
    Streams,
    encoded_tokens,
    find_kinds,
    learn_sequence,
    played_tokens,
)
from edgehmn.evaluation.statistics import interval_95, share_of_gain
from edgehmn.files import sha256

PROTOCOL = 2
FALSE_ALARMS_PER = 20_000  # tokens

Floats = npt.NDArray[np.float64]


def p2(run: Run) -> dict[str, Any]:
    """Every sequence with one bank and with several; the figures at the top are the tuned sequence's, with several."""
    step = 2 * WINDOWS  # a held-out part has half the windows of a visit
    length = max(step, min(LENGTH, (run.options.tokens or 5 * LENGTH) // 5) // step * step)
    out: dict[str, Any] = {}
    for kinds in find_kinds(run.sources, run.export.encode, length, run.note):
        out[kinds.name] = _sequence(run, kinds, length)
    banks = str(run.options.banks)
    best = next(iter(out.values()))["banks"][banks]
    keys = ("gain_nats", "forgetting_nats", "recovery_tokens", "seeds", "interval_95")
    return {k: best[k] for k in keys} | {"visit_tokens": length, "sequences": out}


def _sequence(run: Run, kinds: Kinds, length: int) -> dict[str, Any]:
    settings = {"plan": "p2", "protocol": PROTOCOL, "text": sha256(kinds.a.tobytes() + kinds.b.tobytes())[:16]}
    asked = sorted({1, run.options.banks})
    missing = {b: run.missing(f"p2-{kinds.name}-{b}", settings | {"banks": b}) for b in asked}
    work = sum(missing.values()) * played_tokens(length) + (encoded_tokens(length) if any(missing.values()) else 0)
    with run.progress_bar(f"p2 {kinds.name}", work) as progress:
        streams = Streams(run.export.image, kinds, length, progress)

        def parts_with(banks: int) -> list[dict[str, Any]]:
            of = settings | {"banks": banks}
            return run.per_seed(f"p2-{kinds.name}-{banks}", of, lambda seed: learn_sequence(streams, seed, banks))

        parts = {b: parts_with(b) for b in asked}
    yardstick = _mean(parts[1], "uninterrupted_b"), _mean(parts[1], "uninterrupted_a")
    return {
        "tuned": kinds.tuned,
        "static": _mean(parts[1], "static").tolist(),
        "banks": {str(b): _summary(parts[b], length, *yardstick) for b in asked},
    }


def _mean(parts: list[dict[str, Any]], key: str) -> Floats:
    return np.mean([p[key] for p in parts], axis=0, dtype=np.float64)


def _summary(parts: list[dict[str, Any]], length: int, whole_b: Floats, whole_a: Floats) -> dict[str, Any]:
    """Means over seeds; intervals over windows. whole_b, whole_a: gains of uninterrupted learning, with one bank."""
    static, online = (_visits(_mean(parts, key)) for key in ("static", "online"))
    frozen, held_out = _mean(parts, "frozen"), _mean(parts, "held_out_static")
    per_window = length // WINDOWS
    rise = (frozen[1, 0] - frozen[0, 0]) / per_window
    gain = (static[1] - online[1]) / per_window
    losses = frozen.sum(-1) / (length // 2)
    return {
        "gain_nats": float(gain.mean()),
        "forgetting_nats": float(rise.sum() * per_window / (length // 2)),
        "recovery_tokens": float(np.mean([p["recovery_a"] for p in parts])),
        "interval_95": {"gain_nats": interval_95(gain), "forgetting_nats": interval_95(rise)},
        "seeds": [_seed(i, p, length) for i, p in enumerate(parts)],
        "frozen_loss": {
            "static": {"a": float(held_out[0].sum() / (length // 2)), "b": float(held_out[1].sum() / (length // 2))},
            "after_each_visit": [{"a": float(a), "b": float(b)} for a, b in losses],
        },
        "backward_transfer_nats": float(np.mean([losses[i, i % 2] - losses[3, i % 2] for i in range(3)])),
        "a_returns": _return(static[2] - online[2], _visits(whole_a)[1], length),
        "b_returns": _return(static[3] - online[3], _visits(whole_b)[1], length),
        "online": [float(x) for x in _mean(parts, "online")],
        "topics": _topics(parts, length),
    }


def _visits(windows: Floats) -> Floats:
    """(visits, windows of a visit)"""
    return windows.reshape(-1, WINDOWS)


def _seed(seed: int, part: dict[str, Any], length: int) -> dict[str, Any]:
    static, online = (_visits(np.array(part[key])) for key in ("static", "online"))
    return {
        "seed": seed,
        "gain_nats": float((static[1] - online[1]).sum() / length),
        "forgetting_nats": float((np.array(part["frozen"][1][0]) - part["frozen"][0][0]).sum() / (length // 2)),
        "recovery_tokens": part["recovery_a"],
    }


def _return(gain: Floats, whole: Floats, length: int) -> list[dict[str, Any]]:
    """Gain on a text that returns, in windows of the visit, and its share of the uninterrupted gain on it, None where
    that is next to nothing."""
    edges = [round(e * WINDOWS) for e in VISIT_EDGES]
    out = []
    for start, stop in pairwise(edges):
        tokens = (stop - start) * (length // WINDOWS)
        a, b = (float(x[start:stop].sum() / tokens) for x in (gain, whole))
        out.append(
            {
                "tokens": [start * (length // WINDOWS), stop * (length // WINDOWS)],
                "gain_nats": a,
                "uninterrupted_gain_nats": b,
                "share": share_of_gain(a, b),
            }
        )
    return out


def _topics(parts: list[dict[str, Any]], length: int) -> dict[str, Any]:
    """Delays of each change of topic, by seed; None where it was not noticed. Any other change is a false alarm."""
    delays, false = [], 0
    for part in parts:
        changes = part["changes"]
        noticed = [
            next((c - k * length for c in changes if k * length < c <= (k + 1) * length), None) for k in (1, 2, 3)
        ]
        delays.append(noticed)
        false += len(changes) - sum(d is not None for d in noticed)
    single = sum(len(p["changes_a"]) + len(p["changes_b"]) for p in parts)
    tokens = 4 * length * len(parts)
    return {
        "delays_tokens": delays,
        "bank_after_each_visit": [p["bank"] for p in parts],
        "false_alarms_in_sequence_per_20000": FALSE_ALARMS_PER * false / tokens,
        "false_alarms_of_one_topic_per_20000": FALSE_ALARMS_PER * single / tokens,
    }
