"""How much longer an instruction of the plastic parts takes than one of the frozen: of the adapters and memories that
predict, and of learning.

    python tools/run.py bench.plastic_cycles OUT    writes bench/results/plastic-cycles.json and .md, and
                                                    targets/plastic_cycles.json, which estimates take it from

OUT: an export of the reference model. Needs qemu-user, the cross compiler of aarch64, and LLVM 17 or later.
Measured here, processor time of one thread against the instructions that QEMU counts of the table avx2: with the whole
model, whose weights and memories the caches of this processor may not hold, and with two of its layers, which they do.
Of rounds the median counts. Modelled by LLVM (bench/core_models.py) for this processor and for those of boards: the
cycles that instructions of a part take here, with two layers, beyond what this processor's model says of them beside
the frozen ones are of branches and caches, and taken to be as many on theirs.
"""

import json
import math
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.core_models import CORES, Block, Core, cycles
from bench.count_instructions import HALF, Program, count
from bench.instruction_plugin import Plugin
from edgehmn.checkpoint import REFERENCE, Checkpoint, read_checkpoint
from edgehmn.core import CoreModel, Image, lib
from edgehmn.estimate import COUNTS, PLASTIC_CYCLES
from edgehmn.exported import Export
from edgehmn.image import image_of
from edgehmn.measure.token_by_token import feed, stretches
from edgehmn.texts import EVALUATION, shipped

RESULTS = Path(__file__).resolve().parent / "results"
TABLES = ("reference", "rows", "avx2", "vnni")
CLOCK = Path(__file__).resolve().parent / "instructions" / "clock.c"
HERE = next(core for core in CORES if core.machine == "x86-64")
AVX2 = TABLES.index("avx2")
ROUNDS, PART, WARM = 41, 256, 32
FEW_LAYERS = 2
MODES = {"static": (False, False), "predicted": (True, False), "learned": (True, True)}  # plastic, learn
# What a token of one kind has beyond one of another.
PARTS = {"adapters": ("static", "predicted"), "learning": ("predicted", "learned"), "both": ("static", "learned")}


def seconds_per_token(image: Image, ids: npt.NDArray[np.int32], table: int) -> dict[str, float]:
    n_ctx = int(image.header.n_ctx)
    new = stretches(ids[n_ctx + 1 :], PART + WARM)
    models = {}
    for mode, (plastic, learn) in MODES.items():
        models[mode] = CoreModel(image, plastic=plastic)
        lib.ehmn_use_kernels(models[mode]._model, lib.ehmn_kernel_table(table))
        feed(models[mode], ids[: n_ctx + 1], learn=learn)
    took: dict[str, list[float]] = {mode: [] for mode in MODES}
    for _ in range(ROUNDS):
        part = next(new)
        for mode, (_, learn) in MODES.items():
            feed(models[mode], part[:WARM], learn=learn)  # after the other models have had the caches
            start = time.process_time_ns()
            feed(models[mode], part[WARM:], learn=learn)
            took[mode].append((time.process_time_ns() - start) / 1e9 / PART)
    return {mode: float(np.median(values)) for mode, values in took.items()}


def times_as_long(seconds: dict[str, float], counts: dict[str, float]) -> dict[str, float]:
    """How many times as long as one of the frozen model an instruction of each part takes."""
    frozen = seconds["static"] / counts["static"]
    return {
        part: (seconds[more] - seconds[less]) / (counts[more] - counts[less]) / frozen
        for part, (less, more) in PARTS.items()
    }


def compared(seconds: dict[str, float], counts: dict[str, float]) -> dict[str, Any]:
    """times: as times_as_long. share_of_time, share_of_instructions: of both parts in a learned token."""
    shares = {
        f"share_of_{what}": 1 - of["static"] / of["learned"]
        for what, of in (("time", seconds), ("instructions", counts))
    }
    return shares | {"times": times_as_long(seconds, counts)}


@dataclass(frozen=True)
class Modelled:
    """Cycles per instruction of the frozen model, and how many times as many those of each part take: of blocks run
    again and again, and of each alone."""

    core: str
    cycles: tuple[float, float]
    times: dict[str, tuple[float, float]]

    def middle(self, part: str) -> float:
        return math.sqrt(self.times[part][0] * self.times[part][1])

    def times_with(self, few: dict[str, Any], part: str) -> float:
        """The same with caches and branches: as measured here, or where they cost as many cycles as here."""
        if self.core == HERE.name:
            return float(few["times"][part])
        return self.middle(part) + float(few["cycles_beyond_model"][part]) / self.cycles[0]


def modelled(core: Core, image: Path, ids: Path, work: Path) -> Modelled:
    program = replace(Program.build(core.machine, work), plugin=Plugin(work, blocks=True))

    def token(mode: str) -> tuple[int, tuple[float, float]]:
        """Instructions and cycles."""
        ran: list[Counter[Block]] = []
        for n in (HALF, 2 * HALF):
            program.run(image, ids, n, f"{mode}{HALF}")
            ran.append(program.plugin.blocks())
        ran[1].subtract(ran[0])
        blocks = Counter({block: k for block, k in ran[1].items() if k != 0})
        return sum(n * k for (_, n), k in blocks.items()), cycles(core, program.path, blocks)

    tokens = {mode: token(mode[0]) for mode in MODES}
    counts = {mode: float(n) for mode, (n, _) in tokens.items()}
    again, alone = ({mode: c[i] for mode, (_, c) in tokens.items()} for i in (0, 1))
    per = (again["static"] / counts["static"], alone["static"] / counts["static"])
    times = zip(times_as_long(again, counts).items(), times_as_long(alone, counts).values(), strict=True)
    return Modelled(core.name, per, {part: (a, b) for (part, a), b in times})


def nanoseconds_per_cycle(work: Path) -> float:
    """Of this processor."""
    program = work / "clock"
    subprocess.run(["gcc", "-O2", str(CLOCK), "-o", str(program)], check=True)
    return float(subprocess.run([str(program)], capture_output=True, text=True, check=True).stdout)


def few_layers(checkpoint: Checkpoint) -> Image:
    """The first layers of a model, with its head."""
    kept = {
        name: t
        for name, t in checkpoint.tensors.items()
        if not name.startswith("layers.") or int(name.split(".")[1]) < FEW_LAYERS
    }
    config = replace(checkpoint.config, n_layers=FEW_LAYERS)
    return Image(image_of(replace(checkpoint, config=config, tensors=kept)))


def within_caches(ids: npt.NDArray[np.int32], file: Path, work: Path) -> dict[str, Any]:
    """`compared` of two layers with the table avx2."""
    image = few_layers(read_checkpoint(REFERENCE))
    path = work / "few.ehmn"
    path.write_bytes(image.bytes.tobytes())
    counts = count("x86-64", path, file, work)
    seconds = seconds_per_token(image, ids, AVX2)
    cycles = seconds["static"] * 1e9 / nanoseconds_per_cycle(work) / counts["static"]
    found = {"layers": FEW_LAYERS, "seconds": seconds, "instructions": counts, "cycles_per_frozen_instruction": cycles}
    return found | compared(seconds, counts)


def as_markdown(rows: list[dict[str, Any]], few: dict[str, Any], models: list[Modelled]) -> str:
    lines = [
        "# Instructions of the plastic parts beside those of the frozen",
        "By `python tools/run.py bench.plastic_cycles OUT`, on an x86-64 processor. The instructions are those of the "
        "table avx2; the times of the others show how the share grows as the frozen part gets faster. Adapters: what "
        "predicting by what was learned has beyond the frozen model; learning: what a learned token has beyond that.",
        "",
        "| kernels | µs static | µs predicted | µs learned | share of time, % | share of instructions, % "
        f"| {' | '.join(f'times as long: {part}' for part in PARTS)} |",
        "|" + "---|" * (6 + len(PARTS)),
    ]
    for r in [*rows, few | {"kernels": f"avx2, {few['layers']} layers, within the caches"}]:
        seconds = " | ".join(f"{1e6 * r['seconds'][mode]:.0f}" for mode in MODES)
        shares = " | ".join(f"{100 * r[k]:.1f}" for k in ("share_of_time", "share_of_instructions"))
        times = " | ".join(f"{r['times'][part]:.2f}" for part in PARTS)
        lines.append(f"| {r['kernels']} | {seconds} | {shares} | {times} |")
    beyond = " and ".join(
        f"{few['cycles_beyond_model'][part]:.2f} for one of {part}" for part in ("adapters", "learning")
    )
    lines += [
        "",
        "By LLVM's model of a core, of blocks of instructions that run again and again, and of each alone (llvm-mca, "
        "without caches and wrong guesses of branches). What those cost is taken to be as many cycles on each as are "
        f"measured here within the caches beyond the model of this processor: {beyond}; a frozen instruction takes "
        f"{few['cycles_per_frozen_instruction']:.2f} here.",
        "",
        "| core | cycles per frozen instruction "
        + "".join(f"| {part}, times as long | with caches and branches " for part in PARTS)
        + "|",
        "|" + "---|" * (2 + 2 * len(PARTS)),
    ]
    for m in models:
        cells = [m.core, f"{m.cycles[0]:.2f} to {m.cycles[1]:.2f}"]
        for part, (a, b) in m.times.items():
            cells += [f"{a:.2f} to {b:.2f}", f"{m.times_with(few, part):.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def of_targets(models: list[Modelled], few: dict[str, Any]) -> dict[str, Any]:
    """What targets/plastic_cycles.json says: times by names of cores, and of those that have no model here the
    geometric means."""

    def times(part: str, *of: Modelled) -> float:
        return round(math.exp(sum(math.log(m.times_with(few, part)) for m in of) / len(of)), 2)

    parts = ("adapters", "learning")
    stands_for = {core.name: core.stands_for for core in CORES}
    return {
        "source": "bench.plastic_cycles: bench/results/plastic-cycles.md",
        "cores": {name: {part: times(part, m) for part in parts} for m in models for name in stands_for[m.core]},
        "others": {part: times(part, *models) for part in parts},
    }


def main(arguments: list[str]) -> None:
    if len(arguments) != 1:
        sys.exit(__doc__)
    export = Export.open(arguments[0])
    ids = export.encode(shipped(EVALUATION))
    of_model = json.loads(COUNTS.read_text("utf-8"))["x86-64"]["instructions_per_token"]
    rows: list[dict[str, Any]] = []
    for table, name in enumerate(TABLES):
        if lib.ehmn_kernel_table(table):
            seconds = seconds_per_token(export.image, ids, table)
            rows.append({"kernels": name, "seconds": seconds} | compared(seconds, of_model))
            print(rows[-1])
    with tempfile.TemporaryDirectory() as name:
        work, file = Path(name), Path(name) / "ids"
        file.write_bytes(ids[: 2 * HALF].astype("<u4").tobytes())
        few = within_caches(ids, file, work)
        models = [modelled(core, export.folder / "model.ehmn", file, work) for core in CORES]
    here = next(m for m in models if m.core == HERE.name)
    few["cycles_beyond_model"] = {
        part: max(0.0, few["times"][part] - here.middle(part)) * few["cycles_per_frozen_instruction"] for part in PARTS
    }
    cores = [
        asdict(m) | {"times_with_caches_and_branches": {part: m.times_with(few, part) for part in PARTS}}
        for m in models
    ]
    result = {"rows": rows, "within_caches": few, "models": cores}
    PLASTIC_CYCLES.write_text(json.dumps(of_targets(models, few), indent=1) + "\n", "utf-8")
    (RESULTS / "plastic-cycles.json").write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    text = as_markdown(rows, few, models)
    (RESULTS / "plastic-cycles.md").write_text(text, "utf-8")
    print(text)


if __name__ == "__main__":
    main(sys.argv[1:])
