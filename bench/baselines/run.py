"""Tune every baseline on four validation streams, then run it on the streams that are reported.

    python bench/baselines/run.py --data DIR [--only NAME ...] [--skip-final]

DIR holds wikitext-2/{train,valid,test}.txt, ag-news/test.txt and persona-chat/*.txt; the code is that of the running
interpreter's standard library. One setting for all streams, chosen by the mean loss over the four, by hill climbing.
The log of every setting tried, the choice, the final figures and the cost land in bench/results/baselines.json, beside
the methods there that were not asked for; a run that was interrupted goes on. NumPy alone, one process, two hours or so
on one core for everything. Set OPENBLAS_NUM_THREADS=1.
"""

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[2]))  # it was started as a script

from bench.baselines import streams as texts
from bench.baselines.cost import static_macs
from bench.baselines.methods import METHODS, TRAINING_TOKENS, Method, Workplace
from bench.baselines.streams import Losses, Stream
from bench.baselines.tuning import Entry, Settings, climb
from bench.kept import begun, finish_beside, keep, of_same
from edgehmn.checkpoint import REFERENCE, read_checkpoint
from edgehmn.errors import EdgeHMNError
from edgehmn.evaluation.report import table as markdown_table

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "bench" / "results" / "baselines.json"


class Results:
    """What this run, and the one that it goes on with, has found."""

    def __init__(self, path: Path, model: str) -> None:
        self.path, self.key = path, {"model": model}
        self.content: dict[str, Any] = {"methods": {}} | begun(path, self.key)

    def chosen(self) -> dict[str, Settings]:
        """The settings of the methods that are tuned, those of earlier runs included."""
        methods = of_same(self.path, self.key).get("methods", {}) | self.content["methods"]
        return {name: entry["chosen"] for name, entry in methods.items() if "chosen" in entry}

    def of(self, name: str, statistics: str | None = None) -> dict[str, Any]:
        """What is known of a method. What was found with other statistics of the head counts as an earlier log."""
        methods = self.content["methods"]
        if name not in methods or (statistics and methods[name].get("statistics") != statistics):
            old = methods.get(name, {"log": []})
            earlier = old.get("earlier", []) + old["log"]
            methods[name] = {"log": []} | ({"statistics": statistics, "earlier": earlier} if statistics else {})
        entry: dict[str, Any] = methods[name]
        return entry

    def save(self) -> None:
        keep(self.path, self.content)

    def finish(self) -> None:
        self.content = finish_beside(self.path, self.key, self.content, "methods")


def tune(name: str, method: Method, workplace: Workplace, streams: list[Stream], results: Results) -> Settings:
    """The settings of a method, by search where they are not known yet."""
    used = texts.fingerprint(workplace.checkpoint, texts.STATISTICS) if method.statistics else None
    entry = results.of(name, used)
    if "chosen" in entry:
        return dict(entry["chosen"])

    def evaluate(settings: list[Settings]) -> list[Entry]:
        full = [method.complete(workplace, streams, s) for s in settings]
        losses = method.losses(workplace, streams, full)
        entries = [log_entry(s, streams, found) for s, found in zip(settings, losses, strict=True)]
        for e in entries:
            print(f"  {name} {e['mean']} {json.dumps(e['settings'])} {list(e['nats'].values())}", flush=True)
        entry["log"] += entries
        results.save()
        return entries

    start = method.start
    if method.after:
        taken = workplace.chosen[method.after]
        start = start | {k: v for k, v in taken.items() if k not in ("weights", "rate")}
    best = climb(evaluate, entry["log"], start, method.axes, method.at_once, method.limit)
    entry["chosen"] = method.complete(workplace, streams, best)
    found = next(e for e in entry["log"] if e["settings"] == best)
    entry["tuning"] = found["nats"] | {"mean": found["mean"]}
    results.save()
    return dict(entry["chosen"])


def log_entry(settings: Settings, streams: list[Stream], losses: list[Losses]) -> Entry:
    """Mean nats by stream and over all of them; null where the weights left the range of a float."""
    means = [float(x.mean()) for x in losses]
    nats = {s.name: round(m, 5) if math.isfinite(m) else None for s, m in zip(streams, means, strict=True)}
    mean = float(np.mean(means))
    return {"settings": settings, "nats": nats, "mean": round(mean, 5) if math.isfinite(mean) else None}


def finish(name: str, method: Method, workplace: Workplace, stream: Stream, results: Results, out: Path) -> None:
    """Figures and cost of a tuned method on a stream that is reported; the loss of each token goes to `out`."""
    final = results.of(name).setdefault("final", {})
    if stream.name in final:
        return
    settings = workplace.chosen[name]
    [[losses]] = method.losses(workplace, [stream], [settings])
    cost = method.cost(workplace, settings, stream)
    base = float(-stream.log_p.sum() + np.log(workplace.checkpoint.config.vocab_size)) / stream.words
    p = stream.perplexity(losses)
    final[stream.name] = {
        "nats_per_token": p.nats / p.tokens,
        "token_perplexity": p.token,
        "word_perplexity": p.word,
        "word_change_percent": 100 * (math.exp(p.nats / p.words - base) - 1),
        "macs_added": cost.macs,
        "macs_added_percent": 100 * cost.macs / static_macs(workplace.checkpoint.config),
        "state_bytes": cost.state_bytes,
        "constant_bytes": cost.constant_bytes,
        "work_bytes": cost.work_bytes,
    }
    np.save(out / f"losses-{name}-{stream.name}.npy", losses.astype(np.float32))
    results.save()
    f = final[stream.name]
    print(f"{name} {stream.name} {f['nats_per_token']:.4f} word {f['word_change_percent']:+.1f} %", flush=True)


def table(results: Results) -> str:
    """Markdown: nats per token on every stream, word perplexity of the first, and what it cost there."""
    names = list(results.content["final_streams"])
    head = ["method", *names, "word perplexity", "MACs added", "state bytes"]
    rows = []
    for method, entry in results.content["methods"].items():
        final = entry.get("final", {})
        if names[0] in final:
            cells = [f"{final[n]['nats_per_token']:.4f}" if n in final else "" for n in names]
            first = final[names[0]]
            cost = [
                f"{first['word_perplexity']:.1f}",
                f"{first['macs_added_percent']:.1f} %",
                f"{first['state_bytes']:,}",
            ]
            rows.append([method, *cells, *cost])
    return markdown_table(head, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with wikitext-2, ag-news and persona-chat")
    parser.add_argument(
        "--only", nargs="+", choices=METHODS, default=list(METHODS), metavar="NAME", help="of " + ", ".join(METHODS)
    )
    parser.add_argument(
        "--scratch",
        type=Path,
        default=ROOT / "build" / "bench" / "baselines",
        help="for long intermediate results (default: %(default)s)",
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="default: %(default)s")
    parser.add_argument("--skip-final", action="store_true", help="tune only")
    args = parser.parse_args()
    try:
        run(args)
    except EdgeHMNError as e:
        print(f"error: {e}", file=sys.stderr)
        sys.exit(e.exit_code)


def run(args: argparse.Namespace) -> None:
    checkpoint = read_checkpoint(REFERENCE)
    model = texts.fingerprint(checkpoint)
    scratch = args.scratch / model[:12]
    scratch.mkdir(parents=True, exist_ok=True)
    results = Results(args.results, model)
    workplace = Workplace(checkpoint, scratch, lambda: texts.training_ids(args.data, checkpoint, TRAINING_TOKENS))
    workplace.chosen = results.chosen()
    tuning = [texts.prepare(n, ids, checkpoint, scratch) for n, ids in texts.tuning_ids(args.data, checkpoint).items()]
    describe(results, tuning, "tuning_streams")
    for name in args.only:
        workplace.chosen[name] = tune(name, METHODS[name], workplace, tuning, results)
        print(f"{name} tuned: {results.of(name)['tuning']}", flush=True)
    if args.skip_final:
        results.finish()
        return
    workplace.memory.clear()
    final = [texts.prepare(n, ids, checkpoint, scratch) for n, ids in texts.final_ids(args.data, checkpoint).items()]
    describe(results, final, "final_streams")
    for stream in final:
        for name in args.only:
            if stream.name != texts.WHOLE or not METHODS[name].slow:
                finish(name, METHODS[name], workplace, stream, results, scratch)
        workplace.memory.clear()
    results.finish()
    print(table(results))


def describe(results: Results, streams: list[Stream], key: str) -> None:
    results.content["python"] = sys.version.split()[0]  # whose standard library the code is
    results.content[key] = {s.name: {"tokens": len(s.ids), "words": s.words, "bytes": s.bytes} for s in streams}
    results.save()


if __name__ == "__main__":
    main()
