"""How fast a token is: the C core beside the runtimes that a user would take instead.

    python bench/speed.py [--rounds 15] [--tokens 256]

The reference model is exported once, and everybody encodes the same tokens, one at a time and on one thread, with a
full context. Rounds alternate between the subjects, so that what else the machine does falls on all of them; a ratio is
that of one round, of which the median and the quartiles are shown. Peers run the encoder of the export and the core's
own head, and do not learn. Beside them stands the time to read the weights once, and what each table of kernels takes.
The instructions of the emulated boards are those of tests/budget.json. Results land in bench/results/speed.json and
speed.md.
"""

import argparse
import contextlib
import io
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgehmn.calibrate import calibration_ids
from edgehmn.checkpoint import REFERENCE, read_checkpoint
from edgehmn.core import CoreModel, Image, ffi, lib
from edgehmn.errors import DependencyError
from edgehmn.evaluation.report import table as markdown_table
from edgehmn.exported import Export, encoder_runtime

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"
WORK = ROOT / "build" / "bench" / "speed"
BUDGET = ROOT / "tests" / "budget.json"
BASE = "core, learning"
PEERS = {"onnx": "onnxruntime int8", "tflite": "LiteRT with XNNPACK"}

Ids = npt.NDArray[np.int32]
Subject = Callable[[Ids], None]


def exported() -> Export:
    from edgehmn.cli import main

    if not (WORK / "model.ehmn").exists():
        WORK.parent.mkdir(parents=True, exist_ok=True)
        arguments = ["export", REFERENCE, "-o", str(WORK), "--format", "all", "--json"]
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                main(arguments)
        except SystemExit as e:
            if e.code:
                raise
    return Export.open(WORK)


def core(image: Image, kernels: Any, learn: bool) -> Subject:
    model = CoreModel(image, plastic=learn)
    lib.ehmn_use_kernels(model._model, kernels)
    return lambda ids: void(model.process(ids, learn=learn))


def core_encoder(image: Image) -> Subject:
    model = CoreModel(image, plastic=False)

    def run(ids: Ids) -> None:
        for token in ids.tolist():
            model.encode(token)

    return run


def peer(kind: str, image: Image) -> Subject:
    runtime = encoder_runtime(kind, WORK, image)
    return lambda ids: void(runtime.process(ids, learn=False))


def void(_: object) -> None:
    """Nothing."""


def reading(image: Image, tokens: int) -> Subject:
    """Reads the bytes of the image's weights, once for each token."""
    words = np.frombuffer(image.bytes[: len(image.bytes) // 8 * 8], np.uint64)

    def run(ids: Ids) -> None:
        for _ in range(tokens):
            words.max()

    return run


def subjects(image: Image, tokens: int) -> dict[str, Subject]:
    out: dict[str, Subject] = {}
    best = lib.ehmn_best_kernels()
    out[BASE] = core(image, best, learn=True)
    out["core, static"] = core(image, best, learn=False)
    out["core, encoder alone"] = core_encoder(image)
    index = 0
    while (kernels := lib.ehmn_kernel_table(index)) != best:
        out[f"core, learning, kernels {ffi.string(kernels.name).decode()}"] = core(image, kernels, learn=True)
        index += 1
    for kind, name in PEERS.items():
        try:
            out[name] = peer(kind, image)
        except DependencyError as e:
            print(f"{name}: left out, {e}")
    out["the weights read once"] = reading(image, tokens)
    return out


def measure(subject: dict[str, Subject], ids: Ids, tokens: int, rounds: int) -> dict[str, list[float]]:
    """Microseconds per token of each subject in each round."""
    times: dict[str, list[float]] = {name: [] for name in subject}
    for run in subject.values():
        run(ids[:128])
    for r in range(rounds):
        part = ids[128 + r * tokens % (len(ids) - 128 - tokens) :][:tokens]
        for name, run in subject.items():
            start = time.perf_counter()
            run(part)
            times[name].append((time.perf_counter() - start) / tokens * 1e6)
    return times


def summary(times: dict[str, list[float]]) -> dict[str, Any]:
    base = np.array(times[BASE])
    out = {}
    for name, series in times.items():
        low, middle, high = np.percentile(np.array(series) / base, (25, 50, 75))
        out[name] = {"us": float(np.median(series)), "ratio": float(middle), "quartiles": [float(low), float(high)]}
    return out


def machine() -> dict[str, Any]:
    model = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "processor": model[0].split(": ")[1] if model else platform.processor(),
        "cores": os.cpu_count(),
        "kernels": ffi.string(lib.ehmn_best_kernels().name).decode(),
        "load": round(os.getloadavg()[0], 1),
    }


def tables(result: dict[str, Any]) -> str:
    rows = [
        [name, f"{r['us']:.0f}", f"{r['ratio']:.2f}", f"{r['quartiles'][0]:.2f} to {r['quartiles'][1]:.2f}"]
        for name, r in result["subjects"].items()
    ]
    text = markdown_table(["one token, one thread", "µs", f"times {BASE}", "quartiles"], rows)
    m = result["machine"]
    text += f"\n\n{m['processor']}, {m['cores']} cores, load {m['load']} at the start; {result['rounds']} rounds of "
    text += f"{result['tokens']} tokens.\n"
    boards = {name: b for name, b in json.loads(BUDGET.read_text("utf-8")).items() if isinstance(b, dict)}
    what = list(next(iter(boards.values())))
    rows = [[w, *(f"{b[w]:,}" for b in boards.values())] for w in what]
    return text + "\n" + markdown_table(["emulated board, exact", *boards], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--tokens", type=int, default=256)
    args = parser.parse_args()
    image = exported().image
    ids = calibration_ids(read_checkpoint(REFERENCE)).astype(np.int32)
    times = measure(subjects(image, args.tokens), ids, args.tokens, args.rounds)
    result = {"machine": machine(), "rounds": args.rounds, "tokens": args.tokens, "subjects": summary(times)}
    (RESULTS / "speed.json").write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    text = f"# Speed\n\n{tables(result)}\n"
    (RESULTS / "speed.md").write_text(text, "utf-8")
    print(text)


if __name__ == "__main__":
    main()
