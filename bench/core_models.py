"""Cycles of blocks of instructions on a core, by LLVM's model of its pipelines (llvm-mca).

A block is modelled twice: run again and again, as many of its iterations at a time as the core can, which is the least
that it takes; and alone, from its first instruction to its last, which is the most. Every access to memory finds the
nearest cache, and no branch is guessed wrongly.
"""

import json
import re
import shutil
import subprocess
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

OLDEST = 17  # of LLVM, the first with a model of the Cortex-A76's pipelines, which are those of the Neoverse N1
PACKAGED = 19  # the oldest of these that Debian 12 has
ITERATIONS = 100
AT_ONCE = 200  # blocks

Block = tuple[int, int]  # address, instructions


@dataclass(frozen=True)
class Core:
    """machine: of bench.count_instructions. model: LLVM's processor. stands_for: cores of target profiles. comment: how
    one begins in its assembly."""

    name: str
    machine: str
    triple: str
    model: str
    stands_for: tuple[str, ...]
    comment: str = "//"


CORES = (
    Core("Cortex-A53", "aarch64", "aarch64-linux-gnu", "cortex-a53", ("Cortex-A53",)),
    Core("Cortex-A57 and A72", "aarch64", "aarch64-linux-gnu", "cortex-a72", ("Cortex-A57", "Cortex-A72")),
    Core("Cortex-A76 and A78", "aarch64-dotprod", "aarch64-linux-gnu", "neoverse-n1", ("Cortex-A76", "Cortex-A78AE")),
    Core("Golden Cove, with AVX2", "x86-64", "x86_64-linux-gnu", "alderlake", ("x86-64",), "#"),
)


def tool(name: str) -> str:
    """The newest of LLVM that is installed. Raises SystemExit if none is new enough."""
    for version in range(40, OLDEST - 1, -1):
        if path := shutil.which(f"{name}-{version}"):
            return path
    raise SystemExit(f"{name} of LLVM {OLDEST} or later is missing; sudo apt-get install llvm-{PACKAGED}")


def disassembled(program: Path, comment: str) -> tuple[list[int], list[str]]:
    """Addresses of a program's instructions in order, and the instructions."""
    command = [tool("llvm-objdump"), "-d", "--no-show-raw-insn", str(program)]
    return listing(subprocess.run(command, capture_output=True, text=True, check=True).stdout, comment)


def listing(text: str, comment: str) -> tuple[list[int], list[str]]:
    """Addresses and instructions of a disassembler's text, without what stands after `comment`; jumps go nowhere, since
    assemblers do not reach what is far away."""
    found = re.findall(r"^\s*([0-9a-f]+):\s+(.*)$", text, re.M)
    lines = [re.sub(rf"\s{comment}.*", "", re.sub(r"0x[0-9a-f]+ <[^>]*>", "0", line)).strip() for _, line in found]
    return [int(address, 16) for address, _ in found], lines


def cycles(core: Core, program: Path, blocks: Counter[Block]) -> tuple[float, float]:
    """Of blocks that ran so often: each run again and again, and each alone. Raises ValueError for a block that is not
    in the program, or of which the model leaves out instructions."""
    addresses, lines = disassembled(program, core.comment)
    place = {address: i for i, address in enumerate(addresses)}
    names = {f"{address:x}-{n}": (address, n) for address, n in blocks}
    if missing := [name for name, (address, _) in names.items() if address not in place]:
        raise ValueError(f"{program}: no instruction at {missing[0]}")
    total = [0.0, 0.0]
    for first in range(0, len(names), AT_ONCE):
        text = ""
        for name in list(names)[first : first + AT_ONCE]:
            at = place[names[name][0]]
            text += "\n".join([f"# LLVM-MCA-BEGIN {name}", *lines[at : at + names[name][1]], "# LLVM-MCA-END", ""])
        for i, iterations in enumerate((ITERATIONS, 1)):
            for region in _regions(core, text, iterations):
                expected = iterations * names[region["Name"]][1]
                if region["SummaryView"]["Instructions"] != expected:
                    raise ValueError(f"llvm-mca left out instructions of the block at {region['Name']}")
                took = region["SummaryView"]["TotalCycles"] / iterations
                total[i] += took * blocks[names[region["Name"]]]
    return total[0], total[1]


def _regions(core: Core, text: str, iterations: int) -> list[dict[str, Any]]:
    command = [tool("llvm-mca"), f"-mtriple={core.triple}", f"-mcpu={core.model}", f"-iterations={iterations}", "-json"]
    done = subprocess.run(command, input=text, capture_output=True, text=True)
    if done.returncode != 0:
        raise ValueError(f"llvm-mca: {done.stderr.strip().splitlines()[0]}")
    regions: list[dict[str, Any]] = json.loads(done.stdout)["CodeRegions"]
    return regions
