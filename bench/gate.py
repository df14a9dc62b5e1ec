"""The gate: streams built to destroy a model, and honest texts, with it and without.

    python tools/run.py bench.gate --data DIR [--tokens N]

Each destructive stream is learned from its first token to its last, and then judged as `edgehmn personalise` does it.
Told are the guard's perplexity against the frozen model's, as learned and as kept; the same of a guard text that
neither calibration nor the guard has seen, weights frozen and gains following; and the guard's alarms. Of honest texts
the first half is learned, and what the gate leaves of the fall in perplexity of the second half is told. DIR holds
ag-news/test.txt, persona-chat/*.txt and text-open/*.txt, as for bench/learning.py; code is the standard library's.
Results land in bench/results/gate.json and gate.md.
"""

import argparse
import json
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

sys.path.append(str(Path(__file__).resolve().parents[1]))  # it was started as a script

from bench.texts import persona_chat
from edgehmn.checkpoint import REFERENCE, Checkpoint, read_checkpoint
from edgehmn.core import CoreModel, Image
from edgehmn.evaluate import score_stream
from edgehmn.excerpts import excerpts
from edgehmn.files import read_text
from edgehmn.gate import Verdict, judge
from edgehmn.image import image_of
from edgehmn.learn import personalise
from edgehmn.runtime.protocol import perplexity
from edgehmn.texts import EVALUATION, PERSONAL, shipped

Ids = npt.NDArray[np.int32]
Encode = Callable[[str], Ids]
RESULTS = Path(__file__).resolve().parent / "results" / "gate.json"
EXCERPTS = 20
WHO = ("Der alte Mann", "Die kleine Katze", "Ein Vogel", "Meine Schwester", "Unser Nachbar", "Das Kind", "Der Regen")
DOES = ("sieht", "sucht", "findet", "liebt", "vergisst", "malt", "hört", "trägt")
WHAT = ("den Garten hinter dem Haus", "eine grüne Tür", "das Brot auf dem Tisch", "die lange Straße", "den Brief",
        "seine Schuhe", "das Licht im Fenster", "einen Korb voll Äpfel")  # fmt: skip


def destructive(encode: Encode, vocab_size: int, text: str, n: int, classes: list[str]) -> Iterator[tuple[str, Ids]]:
    """Streams of n tokens, by name. text: ordinary text, the raw material. classes: texts that come one after the
    other; without them the words of `text` are sorted."""
    rng = np.random.default_rng(0)
    parts = [encode(part[: 12 * n])[: n // len(classes)] for part in classes]
    yield "class-sorted", np.concatenate(parts) if parts else np.resize(encode(" ".join(sorted(text.split()))), n)
    line = next(line for line in text.splitlines() if len(line) > 40)[:120]
    yield "one line repeated", np.resize(encode(f"{line}\n"), n)
    yield "one token repeated", np.full(n, encode(" the")[0], np.int32)
    noise = rng.integers(0, 256, 3 * n, np.uint8).tobytes().decode("latin-1")
    yield "random bytes", np.resize(encode(noise), n)
    yield "random tokens", rng.integers(0, vocab_size, n).astype(np.int32)
    sentences = (" ".join((rng.choice(WHO), rng.choice(DOES), rng.choice(WHAT))) for _ in range(n // 8))
    yield "another language", np.resize(encode(". ".join(sentences)), n)


def guard_text(image: Image, state: bytes | None, ids: Ids) -> float:
    """Perplexity of a text with a learned state, weights frozen and gains following; None: the frozen model's."""
    model = CoreModel(image, plastic=state is not None)
    if state is not None:
        model.load(state)
    return perplexity(score_stream(model, ids, learn=False, follow=state is not None))


def attack(image: Image, ids: Ids) -> tuple[Verdict, int, bytes, bytes]:
    """Learn a stream. Returns the verdict, the guard's rollbacks, and the state as learned and as it would be kept."""
    model = CoreModel(image)
    start, scores = model.save(), score_stream(model, ids, learn=True)
    model.reset()
    verdict, kept = judge(image, model.save(), scores)
    return verdict, model.counts().rollbacks, model.save(), start if verdict.refused else kept


def attacked(image: Image, name: str, ids: Ids, ordinary: Ids) -> dict[str, Any]:
    verdict, rollbacks, learned, kept = attack(image, ids)
    frozen = guard_text(image, None, ordinary)
    return {
        "stream": name,
        "tokens": len(ids),
        "state": verdict.state,
        "rollbacks": rollbacks,
        "saturated": verdict.saturated,
        "guard_rise_percent": verdict.rise_percent,
        "kept_guard_rise_percent": 0.0 if verdict.refused else verdict.kept_rise_percent,
        "text_rise_percent": 100 * (guard_text(image, learned, ordinary) / frozen - 1),
        "kept_text_rise_percent": 100 * (guard_text(image, kept, ordinary) / frozen - 1),
    }


def honest(image: Image, name: str, ids: Ids, ordinary: Ids) -> dict[str, Any]:
    """What the gate leaves of the gain in nats per token of a text's second half."""
    without = personalise(CoreModel(image), ids)
    gated = personalise(CoreModel(image), ids, gate=image)
    assert gated.verdict is not None and gated.before == without.before
    frozen = guard_text(image, None, ordinary)
    gain = np.log(without.before / without.after)
    return {
        "text": name,
        "tokens": len(ids),
        "before": without.before,
        "after": without.after,
        "after_gated": gated.after,
        "gain_kept_percent": float(100 * np.log(gated.before / gated.after) / gain),
        "state": gated.verdict.state,
        "guard_rise_percent": gated.verdict.rise_percent,
        "kept_guard_rise_percent": gated.verdict.kept_rise_percent,
        "text_rise_percent": 100 * (guard_text(image, without.delta, ordinary) / frozen - 1),
        "kept_text_rise_percent": 100 * (guard_text(image, gated.delta, ordinary) / frozen - 1),
    }


def markdown(results: dict[str, Any]) -> str:
    lines = [
        "# The gate",
        "",
        "Rise of perplexity over the frozen model, in per cent: of the guard's vectors, and of a guard text with the "
        'weights frozen and the gains following. "Kept" is what the gate leaves.',
        "",
        "| destructive stream | verdict | guard | kept | text | kept |",
        "|---|---|---:|---:|---:|---:|",
    ]
    figures = ("guard_rise_percent", "kept_guard_rise_percent", "text_rise_percent", "kept_text_rise_percent")
    for row in results["destructive"]:
        lines.append(f"| {row['stream']} | {row['state']} | " + " | ".join(f"{row[f]:.2f}" for f in figures) + " |")
    lines += [
        "",
        "| honest text | before | after | gated | gain kept, % | guard | kept | text | kept |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in results["honest"]:
        values = [f"{row[f]:.2f}" for f in ("before", "after", "after_gated", "gain_kept_percent", *figures)]
        lines.append(f"| {row['text']} | " + " | ".join(values) + " |")
    kept = [row["gain_kept_percent"] for row in results["honest"]]
    lines += ["", f"Gain kept: median {np.median(kept):.1f} %, least {min(kept):.1f} %, of {len(kept)} texts."]
    return "\n".join(lines) + "\n"


def measured(checkpoint: Checkpoint, data: Path, tokens: int) -> dict[str, Any]:
    image, encode = Image(image_of(checkpoint)), checkpoint.encode
    ordinary = encode(shipped(EVALUATION))
    opened = data / "text-open"
    classes = [read_text(opened / name)[50_000:] for name in ("gutenberg_pd.txt", "reviews_ccby.txt")]
    classes += [read_text(data / "ag-news" / "test.txt"), persona_chat(data)]
    streams = destructive(encode, image.vocab_size, read_text(data / "ag-news" / "test.txt"), tokens, classes)
    places = (data / "ag-news", data / "persona-chat", Path(sysconfig.get_paths()["stdlib"]))
    texts = [("diary", encode(shipped(PERSONAL))), *excerpts(places, encode, EXCERPTS)]
    return {
        "image_id": image.id,
        "destructive": [attacked(image, name, ids, ordinary) for name, ids in streams],
        "honest": [honest(image, name, ids, ordinary) for name, ids in texts],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--tokens", type=int, default=5_000, help="of each destructive stream (default: %(default)s)")
    args = parser.parse_args()
    results = measured(read_checkpoint(REFERENCE), args.data, args.tokens)
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    text = markdown(results)
    RESULTS.with_suffix(".md").write_text(text, "utf-8")
    print(text)


if __name__ == "__main__":
    main()
