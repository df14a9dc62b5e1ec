"""The figures of the README: perplexity of every artefact, and what learning is worth. `make eval` runs this.

    python bench/learning.py --data DIR [--jobs N]

DIR holds wikitext-2/test.txt, ag-news/test.txt and persona-chat/*.txt; the Python files are those of the running
interpreter's standard library. Results land in bench/results/learning.json, finished parts at once, so that a run that
was interrupted goes on; the table of the README is rewritten from it.
"""

import argparse
import json
import sysconfig
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from statistics import median
from typing import Any

from edgehmn.checkpoint import REFERENCE, read_checkpoint
from edgehmn.core import CoreModel
from edgehmn.evaluate import Perplexity, float_perplexity, text_perplexity
from edgehmn.excerpts import excerpts
from edgehmn.export.pipeline import export_model
from edgehmn.exported import Export, encoder_runtime
from edgehmn.learn import personalise
from edgehmn.texts import EVALUATION, PERSONAL, shipped

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results" / "learning.json"
EXPORT = ROOT / "build" / "bench" / "ref"
BEGIN, END = "<!-- learning.json -->", "<!-- end -->"
EXCERPTS = 20


def wikitext(data: Path) -> str:
    return (data / "wikitext-2" / "test.txt").read_text("utf-8")


def figures(p: Perplexity) -> dict[str, Any]:
    return p.as_dict()


def run_float(data: Path) -> dict[str, Any]:
    return figures(float_perplexity(read_checkpoint(REFERENCE), wikitext(data)))


def run_core(data: Path, learn: bool) -> dict[str, Any]:
    export = Export.open(EXPORT)
    model = CoreModel(export.image, plastic=learn)
    result = figures(text_perplexity(model, export.encode, wikitext(data), learn=learn))
    counts = model.counts()
    return result | {"writes_per_token": counts.writes / counts.steps, "macs_per_token": counts.macs / counts.steps}


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


PARTS: dict[str, tuple[Callable[..., dict[str, Any]], tuple[Any, ...]]] = {
    "online": (run_core, (True,)),
    "float": (run_float, ()),
    "image": (run_core, (False,)),
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
    online = results["online"]
    change = 100 * (online["word"] / static["word"] - 1)
    lines.append(
        f"| **int8 image, learning online** | **{online['word']:.2f}** | {online['bits_per_byte']:.4f} | "
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
    ]
    return "\n".join(lines)


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
    formats = ("image", "onnx", "tflite")
    made = export_model(read_checkpoint(REFERENCE), EXPORT, formats, evaluation_text=shipped(EVALUATION))
    results: dict[str, Any] = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {}
    if results.get("image_id") != made.image_id:
        results = {"image_id": made.image_id}
    with ProcessPoolExecutor(args.jobs) as pool:
        running = {pool.submit(f, args.data, *a): name for name, (f, a) in PARTS.items() if name not in results}
        for done in as_completed(running):
            results[running[done]] = done.result()
            RESULTS.parent.mkdir(parents=True, exist_ok=True)
            RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n", "utf-8")
            print(f"{running[done]} done", flush=True)
    rewrite_readme(results)
    print(readme_table(results))


if __name__ == "__main__":
    main()
