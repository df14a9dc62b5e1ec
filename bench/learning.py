"""The figures of the README: perplexity of every artefact, and the evaluation plan. `make eval` runs this.

    python bench/learning.py --data DIR [--jobs N]

DIR holds wikitext-2/test.txt and valid.txt, ag-news/test.txt, persona-chat/*.txt and text-open/gutenberg*.txt
(`edgehmn eval --help` says how to get them); the Python files are those of the running interpreter's standard library.
A run that was interrupted goes on. When all is measured, bench/results/learning.json is written, and from it the table
of the README and bench/results/evaluation.md.
"""

import argparse
import json
import shutil
import sys
import sysconfig
import textwrap
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1]))  # it was started as a script

from bench.kept import begun, finish, keep
from edgehmn.checkpoint import REFERENCE, read_checkpoint
from edgehmn.core import CoreModel
from edgehmn.evaluate import Perplexity, Progress, float_perplexity, no_progress, text_perplexity
from edgehmn.evaluation.plan import PARTS
from edgehmn.evaluation.report import markdown, percent
from edgehmn.evaluation.run import Options, Run
from edgehmn.evaluation.sources import Sources
from edgehmn.evaluation.store import Store
from edgehmn.excerpts import excerpts
from edgehmn.export.pipeline import Settings, export_model
from edgehmn.exported import Export, encoder_runtime
from edgehmn.files import read_text
from edgehmn.learn import personalise
from edgehmn.texts import EVALUATION, PERSONAL, shipped

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results" / "learning.json"
EXPORT = ROOT / "build" / "bench" / "ref"
PLAN = ROOT / "build" / "bench" / "plan"
BEGIN, END = "<!-- learning.json -->", "<!-- end -->"
EXCERPTS = 20


def wikitext(data: Path) -> str:
    return read_text(data / "wikitext-2" / "test.txt")


def figures(p: Perplexity) -> dict[str, Any]:
    return p.as_dict()


def run_float(data: Path) -> dict[str, Any]:
    return figures(float_perplexity(read_checkpoint(REFERENCE), wikitext(data)))


def run_image(data: Path) -> dict[str, Any]:
    export = Export.open(EXPORT)
    return figures(text_perplexity(CoreModel(export.image, plastic=False), export.encode, wikitext(data)))


def run_plan(data: Path, part: str) -> dict[str, Any]:
    """One part of the evaluation plan, as `edgehmn eval` runs it."""
    export = Export.open(EXPORT)

    @contextmanager
    def silent(_: str, __: int) -> Iterator[Progress]:
        yield no_progress

    run = Run(export, Sources((data,)), Options(), Store(PLAN, export.image), silent, print)
    return PARTS[part](run)


def run_encoder(data: Path, kind: str) -> dict[str, Any]:
    export = Export.open(EXPORT)
    return figures(text_perplexity(encoder_runtime(kind, EXPORT, export.image), export.encode, wikitext(data)))


def run_excerpts(data: Path) -> dict[str, Any]:
    export = Export.open(EXPORT)
    places = (data / "ag-news", data / "persona-chat", Path(sysconfig.get_paths()["stdlib"]))
    rows = []
    for name, ids in excerpts(places, export.encode, EXCERPTS):
        p = personalise(CoreModel(export.image), ids)
        rows.append(
            {"name": name, "before": p.before, "unigram_cache": p.unigram_cache, "after": p.after, "fall": p.fall}
        )
    return {"rows": rows, "median_fall": median(r["fall"] for r in rows), "least_fall": min(r["fall"] for r in rows)}


def run_personal(data: Path) -> dict[str, Any]:
    export = Export.open(EXPORT)
    p = personalise(CoreModel(export.image), export.encode(shipped(PERSONAL)))
    return {"before": p.before, "unigram_cache": p.unigram_cache, "after": p.after, "fall": p.fall}


JOBS: dict[str, tuple[Callable[..., dict[str, Any]], tuple[Any, ...]]] = {
    "p0": (run_plan, ("p0",)),
    "p1": (run_plan, ("p1",)),
    "p2": (run_plan, ("p2",)),
    "float": (run_float, ()),
    "p3": (run_plan, ("p3",)),
    "image": (run_image, ()),
    "onnx": (run_encoder, ("onnx",)),
    "tflite": (run_encoder, ("tflite",)),
    "excerpts": (run_excerpts, ()),
    "personal": (run_personal, ()),
}


def readme_table(results: dict[str, Any]) -> str:
    """Markdown: perplexity of each artefact on WikiText-2 test, and what learning changes."""
    base, static = results["float"], results["image"]
    lines = ["| WikiText-2 test, streamed once | word perplexity | bits/byte | against |", "|---|---|---|---|"]
    names = {"float": "float (NumPy)", "image": "int8 image, C core", "onnx": "int8 ONNX", "tflite": "int8 TFLite"}
    for key, label in names.items():
        r = results[key]
        rise = 100 * (r["word"] / base["word"] - 1)
        lines.append(f"| {label} | {r['word']:.2f} | {r['bits_per_byte']:.4f} | {rise:+.3f} % float |")
    online = results["p0"]["online"]
    change = 100 * (online["word_perplexity"] / static["word"] - 1)
    lines.append(
        f"| **int8 image, learning online** | **{online['word_perplexity']:.2f}** | {online['bits_per_byte']:.4f} | "
        f"**{change:+.1f} %** static |"
    )
    e, p = results["excerpts"], results["personal"]
    lines += [
        "",
        f"First half of a text learned, second half scored with the weights frozen: over {len(e['rows'])} fixed "
        "excerpts of 2,000 tokens (AG News, Persona-Chat, Python standard library) perplexity falls by "
        f"{100 * e['median_fall']:.0f} % in the median and {100 * e['least_fall']:.0f} % at least; on the diary of the "
        f"demonstration from {p['before']:.1f} to {p['after']:.1f} (a unigram cache of the same half reaches "
        f"{p['unigram_cache']:.1f}).",
        "",
        *plan_lines(results),
    ]
    return "\n".join(line if line.startswith("|") else wrapped(line) for line in lines)


def wrapped(line: str) -> str:
    """A paragraph or an item of a list, at the width of the documents."""
    after = "  " if line.startswith("- ") else ""
    return textwrap.fill(line, 120, subsequent_indent=after, break_long_words=False, break_on_hyphens=False)


def plan_lines(results: dict[str, Any]) -> list[str]:
    """The evaluation plan in a few lines; bench/results/evaluation.md has its tables."""
    frozen, own, p3 = results["p0"]["frozen"]["following"], results["p1"]["readings"]["own"], results["p3"]
    after, ahead = own["frozen"][-1], own["interval_95"]["gain_nats"]
    lines = [
        f"- **P0, frozen**: {len(frozen['tokens'])} snapshots of that stream, each frozen (its gains follow) and "
        f"scored on the next 5,000 tokens: {frozen['mean_nats']:+.3f} nat per token against static in the mean, "
        f"{frozen['worst_nats']:+.3f} at worst.",
        f"- **P1, Persona-Chat**: after {after['n']} own turns of an unseen person, perplexity of the next turns "
        f"{after['change_percent']:+.1f} % against what was learned of other people (gain {own['gain_nats']:.3f} nat, "
        f"in 95 % {ahead[0]:.3f} to {ahead[1]:.3f}; {own['people']} people).",
    ]
    for name, sequence in results["p2"]["sequences"].items():
        r = sequence["banks"][max(sequence["banks"], key=int)]
        again = [w["share"] for w in r["b_returns"]]
        lines.append(
            f"- **P2, {name}**{'' if sequence['tuned'] else ' (untuned)'}, there and back, 4 banks: gain on the second "
            f"text {r['gain_nats']:.2f} nat, forgetting F {r['forgetting_nats']:+.3f} nat; when it returns, "
            + ", ".join(map(percent, again))
            + " of the uninterrupted gain in its first 500 tokens, the next 1,000, and the rest."
        )
    lines.append(
        f"- **P3, cost**: {p3['macs_added_percent']:+.1f} % multiply-accumulates over static; on the emulated "
        f"Cortex-M4 plasticity takes {100 * p3['emulated']['plasticity_share']:.1f} % of the instructions of a learned "
        f"token, adapters and memories that predict {100 * p3['emulated']['adapters_share']:.1f} %; "
        f"{p3['writes_per_learned_token']:,.0f} weight steps per token."
    )
    return lines


def rewrite_readme(results: dict[str, Any]) -> None:
    readme = ROOT / "README.md"
    text = readme.read_text("utf-8")
    head, rest = text.split(BEGIN)
    readme.write_text(f"{head}{BEGIN}\n{readme_table(results)}\n{END}{rest.split(END, 1)[1]}", "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time (default: %(default)s)")
    args = parser.parse_args()
    if not args.data.is_dir():
        parser.error(f"{args.data}: no such folder; name that of the texts with --data")
    settings = Settings(formats=("image", "onnx", "tflite"), evaluation_text=shipped(EVALUATION))
    made = export_model(lambda: read_checkpoint(REFERENCE), EXPORT, settings)
    results = begun(RESULTS, {"image_id": made.image_id})
    with ProcessPoolExecutor(args.jobs) as pool:
        running = {pool.submit(f, args.data, *a): name for name, (f, a) in JOBS.items() if name not in results}
        for done in as_completed(running):
            results[running[done]] = done.result()
            keep(RESULTS, results)
            print(f"{running[done]} done", flush=True)
    finish(RESULTS, results, sort_keys=True)
    results = json.loads(RESULTS.read_text("utf-8"))  # in the order in which they are kept, whoever was done first
    shutil.rmtree(PLAN, ignore_errors=True)
    rewrite_readme(results)
    plan = {part: results[part] for part in ("p0", "p1", "p2", "p3")}
    RESULTS.with_name("evaluation.md").write_text(f"# The evaluation plan\n\n{markdown(plan)}\n", "utf-8")
    print(readme_table(results))


if __name__ == "__main__":
    main()
