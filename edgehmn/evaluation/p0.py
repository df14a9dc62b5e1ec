"""P0: is ordinary text predicted better while it is learned, and is no snapshot on the way worse than none?"""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from edgehmn.checkpoint import read_checkpoint
from edgehmn.evaluate import Perplexity, Progress, count_words, float_perplexity, score_stream
from edgehmn.evaluation.run import Run
from edgehmn.evaluation.statistics import interval_95, running_mean, window_sums
from edgehmn.evaluation.store import digest_of
from edgehmn.files import sha256
from edgehmn.runtime.select import open_runtime
from edgehmn.streams import FEED, FOLLOW, HiddenStream, Ids, Scores, in_nats, open_head, play, rewind

SNAPSHOT_EVERY = 10_000  # tokens
SCORED_AFTER = 5_000  # tokens that a snapshot is scored on, and length of the windows in which online meets static
CURVE = 1_000  # tokens of one point of the loss curve
PROTOCOL = 1  # to be raised when what is measured changes: parts of earlier runs are then done again

Floats = npt.NDArray[np.float64]


def p0(run: Run) -> dict[str, Any]:
    """Static, learning online (mean over seeds), frozen snapshots, and the float model if it is asked for."""
    name, text = run.sources.test_text()
    ids = run.export.encode(text)
    if run.limit(len(ids)) < len(ids):
        ids = ids[: run.limit(len(ids))]
        text = run.export.decode(ids)
    o = run.options
    settings = {"plan": "p0", "protocol": PROTOCOL, "text": digest_of(text), "runtime": o.runtime}
    if o.runtime == "tile":
        from edgehmn.evaluation.p0_tiles import p0_tiles

        return p0_tiles(run, name, text, ids, settings)
    missing = 0 if o.static_only else run.missing("p0", settings)
    result: dict[str, Any] = {"text": name, "tokens": len(ids), "runtime": o.runtime}
    with run.progress_bar("p0", _work(run, len(ids), missing)) as progress:
        if o.float_checkpoint:
            result["float"] = _float(run, settings, text, o.float_checkpoint, progress)
        stream = cache(lambda: HiddenStream.encode(run.export.image, ids, progress))
        learn: Callable[[int], dict[str, Any]]
        if o.runtime == "host":
            static = run.store.part("p0-static", settings, lambda: _nats(stream().static))
            learn = cache(lambda seed: _learn(run, stream(), seed, progress))
        else:
            scores = cache(lambda: _scores(run, ids, None, progress))
            static = run.store.part("p0-static", settings, lambda: _nats(scores()))
            learn = cache(lambda seed: online_part(scores(), _scores(run, ids, seed, progress)))
        parts = [] if o.static_only else run.per_seed("p0", settings, learn)

    def figures(total: float) -> dict[str, float]:
        return figures_of(total, ids, text)

    result["static"] = figures(static["nats"])
    return result | summary(parts, len(ids), figures) if parts else result


def _work(run: Run, n: int, seeds: int) -> int:
    """Tokens to be done, as the progress bar counts them."""
    after = _spans(n)[1]
    snapshots = 2 * after * len(_places(n)) if run.options.runtime == "host" else 0
    with_float = n if run.options.float_checkpoint else 0
    return with_float + n + seeds * (n + snapshots)


def _spans(n: int) -> tuple[int, int]:
    """Tokens from snapshot to snapshot, and tokens that each is scored on: less in a text that is too short."""
    return (SNAPSHOT_EVERY, SCORED_AFTER) if n >= SNAPSHOT_EVERY + SCORED_AFTER else (n // 2, n // 4)


def _places(n: int) -> range:
    """After how many tokens snapshots are taken."""
    every, after = _spans(n)
    return range(every, n - after + 1, every) if after else range(0)


def figures_of(total: float, ids: Ids, text: str) -> dict[str, float]:
    """Of so many nats of a text."""
    return _figures(Perplexity(total, len(ids), count_words(text), len(text.encode())))


def _figures(p: Perplexity) -> dict[str, float]:
    return {
        "word_perplexity": p.word, "token_perplexity": p.token, "bits_per_byte": p.bits_per_byte, "nats": p.nats,
        "words": p.words,
    }  # fmt: skip


def _float(run: Run, settings: dict[str, Any], text: str, place: str, progress: Progress) -> dict[str, float]:
    checkpoint = read_checkpoint(place)
    digest = sha256(b"".join(checkpoint.tensors[name].tobytes() for name in sorted(checkpoint.tensors)))
    return run.store.part(
        "p0-float",
        settings | {"checkpoint": digest},
        lambda: _figures(float_perplexity(checkpoint, text, progress)),
    )


def _nats(scores: Scores) -> dict[str, Any]:
    return {"nats": float(in_nats(scores).sum())}


def _scores(run: Run, ids: Ids, seed: int | None, progress: Progress) -> Scores:
    """Scores of a runtime that computes its own hidden vectors: static, or learning with a seed."""
    with open_runtime(run.export, runtime=run.options.runtime, seed=seed or 0) as runtime:
        return score_stream(runtime, ids, learn=seed is not None, progress=progress)


def _learn(run: Run, stream: HiddenStream, seed: int, progress: Progress) -> dict[str, Any]:
    """Online learning of the whole stream; its snapshots, frozen, each on the tokens that follow it."""
    image, after = run.export.image, _spans(len(stream))[1]
    learner, frozen = open_head(image, seed), open_head(image, seed)
    online = np.zeros(len(stream), np.uint32)
    at, snapshots = 0, []
    for place in (*_places(len(stream)), len(stream)):
        online[at:place] = play(learner, stream, at, place, progress=progress)
        at = place
        if place == len(stream):
            break
        state = learner.save()
        static = in_nats(stream.static[place : place + after]).mean()
        snapshot = {"tokens": place, "static": float(static)}
        for kind, mode in (("following", FOLLOW), ("still", FEED)):
            frozen.load(state)
            rewind(frozen, stream, place)
            loss = in_nats(play(frozen, stream, place, place + after, mode=mode, progress=progress)).mean()
            snapshot[kind] = float(loss - static)
        snapshots.append(snapshot)
    counts = learner.counts()
    return online_part(stream.static, online) | {
        "snapshots": snapshots,
        "writes_per_learned_token": counts.writes / max(1, counts.learned),
        "rollbacks": counts.rollbacks,
    }


def online_part(static: Scores, online: Scores) -> dict[str, Any]:
    """Totals, the curve of both losses, and the window in which learning is worth least."""
    a, b = in_nats(static), in_nats(online)
    return {
        "nats": float(b.sum()),
        "curve": {
            "tokens": CURVE,
            "static": (window_sums(a, CURVE) / _sizes(len(a), CURVE)).tolist(),
            "online": (window_sums(b, CURVE) / _sizes(len(a), CURVE)).tolist(),
        },
        "window_differences": window_sums(b - a, SCORED_AFTER).tolist(),
        "worst_window": float(running_mean(b - a, SCORED_AFTER).max()),
    }


def _sizes(n: int, length: int) -> Floats:
    """Of consecutive windows of `length` in n tokens."""
    return window_sums(np.ones(n), length)


def summary(parts: list[dict[str, Any]], n: int, figures: Callable[[float], dict[str, float]]) -> dict[str, Any]:
    """The mean over seeds, and each seed. n: tokens; figures: those of a total of nats."""
    windows = np.mean([p["window_differences"] for p in parts], axis=0)
    per_token = np.array(interval_95(windows, _sizes(n, SCORED_AFTER)))
    ratio = np.exp(per_token * n / figures(0.0)["words"])
    out: dict[str, Any] = {
        "online": figures(float(np.mean([p["nats"] for p in parts]))),
        "worst_window_nats": max(p["worst_window"] for p in parts),
        "interval_95": {"word_perplexity_ratio": ratio.tolist()},
        "seeds": [{"seed": i, "online": figures(p["nats"])} for i, p in enumerate(parts)],
        "curve": parts[0]["curve"],
    }
    if parts[0].get("snapshots"):
        out["writes_per_learned_token"] = float(np.mean([p["writes_per_learned_token"] for p in parts]))
        out["rollbacks"] = [p["rollbacks"] for p in parts]
        out["frozen"] = {kind: _frozen(parts, kind) for kind in ("following", "still")}
    return out


def _frozen(parts: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    """Loss of frozen snapshots less that of the frozen model, nats per token: over seeds and places."""
    each = np.array([[s[kind] for s in p["snapshots"]] for p in parts])
    return {
        "tokens": [s["tokens"] for s in parts[0]["snapshots"]],
        "differences": each.mean(0).tolist(),
        "mean_nats": float(each.mean()),
        "worst_nats": float(each.max()),
        "worst_percent": float(100 * np.expm1(each.max())),
        "interval_95": interval_95(each.mean(0)),
    }
