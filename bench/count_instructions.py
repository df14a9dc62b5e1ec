"""Instructions per token of a model on Linux boards, counted under QEMU's user emulation.

    python tools/run.py bench.count_instructions OUT    writes aarch64, aarch64-dotprod and x86-64 into counts.json
    python tools/run.py bench.count_instructions OUT --prompts    shows them, prompts and aarch64-i8mm; writes nothing

OUT: an export of the reference model. Needs qemu-user and, for aarch64, its cross compiler.
Per token of the second half of 2 x 300 tokens, the first of which fill the window; what runs before and between is
subtracted.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.instruction_plugin import Plugin
from bench.native import NATIVE, core_library
from edgehmn.evaluation.p3 import EMULATED
from edgehmn.exported import Export
from edgehmn.texts import EVALUATION, shipped
from edgehmn.workload_export import count_learning

ROOT = Path(__file__).resolve().parents[1]
COUNTS = ROOT / "targets" / "counts.json"
PROGRAM = ROOT / "bench" / "instructions" / "run.c"
HALF = EMULATED  # tokens: the same that are counted on emulated boards
ARM, ARM_EMULATOR = "aarch64-linux-gnu-gcc", "qemu-aarch64"
# Compiler, emulator and its processor: what a processor cannot do, the core does not choose.
MACHINES = {
    "aarch64": (ARM, ARM_EMULATOR, "cortex-a72"), "aarch64-dotprod": (ARM, ARM_EMULATOR, "cortex-a76"),
    "x86-64": ("gcc", "qemu-x86_64", "max"),
    "aarch64-i8mm": (ARM, ARM_EMULATOR, "max"),
}  # fmt: skip
ONLY_PROMPTS = ("aarch64-i8mm",)  # one token costs what it does on the machine before it
PROMPT = 64  # tokens at once


@dataclass(frozen=True)
class Program:
    """bench/instructions/run.c for one of MACHINES, and what counts what it executes."""

    machine: str
    path: Path
    plugin: Plugin

    @staticmethod
    def build(machine: str, work: Path) -> "Program":
        compiler = MACHINES[machine][0]
        path = work / f"run-{machine}"
        sources = [str(PROGRAM), str(core_library(compiler, work / machine)), f"-I{NATIVE / 'include'}"]
        subprocess.run([compiler, "-std=c11", "-O2", "-static", *sources, "-o", str(path)], check=True)
        return Program(machine, path, Plugin(work))

    def run(self, image: Path, ids: Path, n: int, mode: str) -> Counter[str]:
        """Instructions of each function, from the program's start to its end."""
        _, emulator, processor = MACHINES[self.machine]
        command = [emulator, "-cpu", processor, *self.plugin.options, *map(str, (self.path, image, ids, n)), mode]
        subprocess.run(command, capture_output=True, check=True, timeout=600)
        return self.plugin.counts()


def missing_tools(machine: str) -> str:
    return ", ".join(tool for tool in MACHINES[machine][:2] if shutil.which(tool) is None)


def count(machine: str, image: Path, ids: Path, work: Path, prompts: bool = False) -> dict[str, float]:
    """Per token; if asked, of prompts too."""
    program = Program.build(machine, work)

    def run(n: int, mode: str) -> int:
        return program.run(image, ids, n, mode).total()

    before = run(HALF, f"l{HALF}")
    prompt = {}
    if prompts:
        prompt = {"prompt": (run(4 * PROMPT, f"m{PROMPT}") - run(2 * PROMPT, f"m{PROMPT}")) / (2 * PROMPT)}
    return prompt | {
        "static": (run(2 * HALF, f"s{HALF}") - run(HALF, f"s{HALF}")) / HALF,
        "predicted": (run(2 * HALF, f"p{HALF}") - before) / HALF,
        "learned": (run(2 * HALF, f"l{HALF}") - before) / HALF,
    }


def show_prompts(image: Path, ids: Path, work: Path) -> None:
    for machine in MACHINES:
        if missing := missing_tools(machine):
            print(f"{machine}: not counted here: {missing} is missing")
            continue
        n = count(machine, image, ids, work, prompts=True)
        more = f"learning adds {100 * (n['learned'] / n['static'] - 1):.0f} %"
        more += f", a token of a prompt costs {n['static'] / n['prompt']:.2f} times less"
        print(f"{machine}: " + ", ".join(f"{k} {v:,.0f}" for k, v in n.items()) + f"; {more}")


def main(arguments: list[str]) -> None:
    if len(arguments) not in (1, 2) or arguments[1:] not in ([], ["--prompts"]):
        sys.exit(__doc__)
    export = Export.open(arguments[0])
    tokens = export.encode(shipped(EVALUATION))[: 2 * HALF]
    macs, learning = count_learning(export.image, tokens)
    predicted = macs + learning.macs_predicted
    counts: dict[str, Any] = json.loads(COUNTS.read_text("utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        ids = work / "ids"
        ids.write_bytes(np.asarray(tokens, "<u4").tobytes())
        if arguments[1:]:
            show_prompts(export.folder / "model.ehmn", ids, work)
            return
        for machine, tools in MACHINES.items():
            if machine in ONLY_PROMPTS:
                continue
            if missing := missing_tools(machine):
                print(f"{machine}: not counted here: {missing} is missing")
                continue
            counts[machine] = {
                "instructions_per_token": count(machine, export.folder / "model.ehmn", ids, work),
                "macs_per_token": {
                    "static": macs,
                    "predicted": predicted,
                    "learned": predicted + learning.macs_learned,
                },
                "writes_per_learned_token": learning.writes,
                "kernels": f"those that a {tools[2]} can run",
                "source": f"bench/count_instructions.py: counted under {tools[1]} as {tools[2]}",
            }
            print(machine, counts[machine]["instructions_per_token"])
            COUNTS.write_text(json.dumps(counts, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
