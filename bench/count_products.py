"""Instructions per multiplication of a 512 x 128 product, the split of the inputs and the rounding included.

    python tools/run.py bench.count_products

For the tables of the processors that QEMU's user emulation runs here; exact, and the same in every run.
"""

import subprocess
import sys
import tempfile
from pathlib import Path
from shutil import which

from bench.instruction_plugin import Plugin
from bench.native import NATIVE, core_library

PROGRAM = Path(__file__).resolve().parent / "instructions" / "product.c"
MACS = 512 * 128
VECTORS = 64
# Table: compiler, emulator.
MACHINES = {
    "neon": ("aarch64-linux-gnu-gcc", ["qemu-aarch64", "-cpu", "cortex-a53"]),
    "dot": ("aarch64-linux-gnu-gcc", ["qemu-aarch64", "-cpu", "max"]),
    "mmla": ("aarch64-linux-gnu-gcc", ["qemu-aarch64", "-cpu", "max"]),
    "avx2": ("gcc", ["qemu-x86_64", "-cpu", "max"]),
}


def missing(table: str) -> list[str]:
    compiler, emulator = MACHINES[table]
    return [tool for tool in ("gcc", "cmake", compiler, emulator[0]) if which(tool) is None]


def build(table: str, folder: Path) -> Path:
    compiler, _ = MACHINES[table]
    sources = [str(PROGRAM), str(core_library(compiler, folder / "core"))]
    include = [f"-I{NATIVE / 'src'}", f"-I{NATIVE / 'include'}"]
    program = folder / f"product-{table}"
    subprocess.run([compiler, "-O3", "-std=c11", "-static", *include, *sources, "-o", str(program)], check=True)
    return program


def count(table: str, kinds: tuple[str, ...] = ("8", "16", "m")) -> dict[str, float]:
    """By bits of the inputs; m: 64 vectors at once, of 16 bits."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        program, plugin = build(table, folder), Plugin(folder)

        def run(kind: str, n: int) -> int:
            command = [*MACHINES[table][1], *plugin.options, str(program), table, kind, str(n)]
            subprocess.run(command, check=True, capture_output=True, timeout=300)
            return plugin.counts().total()

        return {k: (run(k, 3) - run(k, 1)) / 2 / MACS / (VECTORS if k == "m" else 1) for k in kinds}


def main() -> None:
    for table in MACHINES:
        if absent := missing(table):
            print(f"{table}: not counted here: {', '.join(absent)} missing")
            continue
        kinds = count(table)
        print(
            f"{table}: " + ", ".join(f"{'64 vectors' if k == 'm' else k + ' bits'} {v:.3f}" for k, v in kinds.items())
        )


if __name__ == "__main__":
    sys.exit(main())
