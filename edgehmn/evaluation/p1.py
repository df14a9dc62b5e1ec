"""P1: what a person's first turns are worth for the next ones, over what other people's turns have taught already."""

from typing import Any

import numpy as np
import numpy.typing as npt

from edgehmn.errors import UsageError
from edgehmn.evaluation.chats import Chat, ChatTokenizer, Reading, readings
from edgehmn.evaluation.continuations import Bleu, bleu
from edgehmn.evaluation.people import BIN, People, measure
from edgehmn.evaluation.run import Run
from edgehmn.evaluation.statistics import interval_95
from edgehmn.evaluation.store import digest_of

TURNS = (0, 2, 4, 6, 8)
PROTOCOL = 2

Floats = npt.NDArray[np.float64]


def p1(run: Run) -> dict[str, Any]:
    """Both readings of "own turns"; the figures at the top are of the one that comes nearest to eight turns."""
    metric = Bleu() if run.options.bleu else None
    tokenizer = ChatTokenizer(run.export)
    chats, digest = _chats(run, tokenizer)
    asked = readings(chats, TURNS)
    if not asked:
        raise UsageError("persona-chat: its dialogues are too short: three turns of each side are needed")
    settings = {"plan": "p1", "protocol": PROTOCOL, "text": digest, "dialogues": len(chats)}
    headline = max(asked, key=lambda r: (r.turns[-1], r.name == "own"))
    counted = People(run.export, chats, lambda _: None)
    count = min(run.options.bleu, len(counted.measured))
    missing = sum(run.missing(f"p1-{r.name}", settings | {"turns": r.turns}) for r in asked)
    encoded = 2 * counted.n_others + len(counted.measured)
    work = encoded + missing * len(counted.measured) + count
    summaries: dict[str, Any] = {}
    out: dict[str, Any] = {}
    with run.progress_bar("p1", work) as progress:
        people = People(run.export, chats, progress)
        for r in asked:
            summaries[r.name] = _summary(r, _parts(run, people, r, settings))
        if metric is not None:
            of = settings | {"reading": headline.name, "turns": headline.turns, "people": count}
            out["bleu"] = run.store.part("p1-bleu", of, lambda: bleu(people, headline, count, tokenizer, metric))
    best = summaries[headline.name]
    keys = ("gain_nats", "forgetting_nats", "recovery_tokens", "seeds", "interval_95")
    top = {k: best[k] for k in keys}
    return top | {"headline": headline.name, "others": counted.n_others, "readings": summaries} | out


def _chats(run: Run, tokenizer: ChatTokenizer) -> tuple[list[Chat], str]:
    """As many dialogues as the limit of tokens allows, and a digest of them."""
    chats: list[Chat] = []
    dialogues = run.sources.dialogues()
    left = run.options.tokens
    for dialogue in dialogues:
        chat = tokenizer.chat(dialogue)
        if left is not None:
            left -= len(chat.ids)
            if left < 0:
                break
        chats.append(chat)
    if len(chats) < 8:
        raise UsageError(f"persona-chat: {len(chats)} dialogues within the limit of tokens; at least 8 are needed")
    return chats, digest_of(repr(dialogues[: len(chats)]))


def _parts(run: Run, people: People, reading: Reading, settings: dict[str, Any]) -> list[dict[str, Any]]:
    of = settings | {"turns": reading.turns}
    return run.per_seed(f"p1-{reading.name}", of, lambda seed: measure(people, reading, seed))


def _summary(reading: Reading, parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over seeds; intervals over people."""
    total = {key: np.mean([p["people"][key] for p in parts], axis=0) for key in parts[0]["people"]}
    tokens, others, after = total["tokens"], total["frozen 0"], total[f"frozen {reading.turns[-1]}"]
    last = reading.turns[-1]
    best_cache = min((f"cache {last}", f"others and cache {last}"), key=lambda k: total[k].sum())
    seeds = [
        {"seed": i, "gain_nats": float(-_mean(p["people"][f"frozen {last}"], p["people"]["frozen 0"], tokens))}
        for i, p in enumerate(parts)
    ]
    return {
        "turns": list(reading.turns),
        "people": len(tokens),
        "scored_tokens": int(tokens.sum()),
        "gain_nats": float(-_mean(after, others, tokens)),
        "forgetting_nats": float(np.mean([p["forgotten"] for p in parts])),
        "recovery_tokens": _ahead(np.mean([p["curve"] for p in parts], axis=0)),
        "interval_95": {
            "gain_nats": interval_95(others - after, tokens),
            "gain_over_stranger_nats": interval_95(total["stranger"] - after, tokens),
            "gain_over_cache_nats": interval_95(total[best_cache] - after, tokens),
        },
        "seeds": seeds,
        "static": {"perplexity": _perplexity(total["static"], tokens)},
        "others": {"perplexity": _perplexity(others, tokens)},
        "frozen": [_against(n, total[f"frozen {n}"], others, tokens) for n in reading.turns],
        "online": _against(last, total["online"], others, tokens),
        "stranger": _against(last, total["stranger"], others, tokens),
        "cache": [_against(n, total[f"cache {n}"], others, tokens) for n in reading.turns],
        "others_and_cache": [_against(n, total[f"others and cache {n}"], others, tokens) for n in reading.turns],
        "cache_constants": parts[0]["caches"],
        "accuracy": {
            k: float(total[f"right {k}"].sum() / total["words"].sum()) for k in ("static", "others", "frozen")
        },
    }


def _mean(a: Any, b: Any, tokens: Floats) -> float:
    """Mean difference a - b per token of nats per person."""
    return float((np.asarray(a) - np.asarray(b)).sum() / tokens.sum())


def _perplexity(nats: Floats, tokens: Floats) -> float:
    return float(np.exp(nats.sum() / tokens.sum()))


def _against(n: int, nats: Floats, others: Floats, tokens: Floats) -> dict[str, Any]:
    """Perplexity after n turns, and its change over the others' delta in per cent."""
    change = 100 * np.expm1([_mean(nats, others, tokens), *interval_95(nats - others, tokens)])
    return {
        "n": n,
        "perplexity": _perplexity(nats, tokens),
        "change_percent": float(change[0]),
        "interval_95": change[1:].tolist(),
    }


def _ahead(curve: Floats) -> int | None:
    """Own tokens after which learning is ahead of the others' delta and stays there; None if it never does.

    curve: (bins, 3), tokens, loss by others, loss online. Bins that few people reach do not count."""
    seen = curve[curve[:, 0] >= curve[:, 0].max() / 4]
    behind = np.flatnonzero(seen[:, 2] >= seen[:, 1])
    first = int(behind[-1]) + 1 if len(behind) else 0
    return first * BIN if first < len(seen) else None
