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

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "native" / "src"
PROGRAM = ROOT / "bench" / "instructions" / "product.c"
MACS = 512 * 128
VECTORS = 64
DOT = ["-march=armv8.2-a+dotprod"]
AARCH64 = {"kernels": ["-DEHMN_ASK_AARCH64", "-DEHMN_I8MM"], "kernels_dot": [*DOT, "-DEHMN_I8MM"]}
AARCH64 |= {"kernels_dot_many": DOT, "kernels_mmla_many": ["-march=armv8.2-a+dotprod+i8mm"]}
X86 = {"kernels": ["-DEHMN_ASK_X86"]} | {
    f"kernels_{n}": ["-mavx2", "-mpopcnt"] for n in ("avx2", "avx2_many", "avx2_loops")
}
X86 |= {f"kernels_{n}": ["-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512vnni"] for n in ("vnni", "vnni_many")}
# Table: compiler, flags of single files, emulator.
MACHINES = {
    "neon": ("aarch64-linux-gnu-gcc", AARCH64, ["qemu-aarch64", "-cpu", "cortex-a53"]),
    "dot": ("aarch64-linux-gnu-gcc", AARCH64, ["qemu-aarch64", "-cpu", "max"]),
    "mmla": ("aarch64-linux-gnu-gcc", AARCH64, ["qemu-aarch64", "-cpu", "max"]),
    "avx2": ("gcc", X86, ["qemu-x86_64", "-cpu", "max"]),
}


def missing(table: str) -> list[str]:
    compiler, _, emulator = MACHINES[table]
    return [tool for tool in ("gcc", compiler, emulator[0]) if which(tool) is None]


def build(table: str, folder: Path) -> Path:
    compiler, of_file, _ = MACHINES[table]
    objects = []
    for source in [*sorted(SOURCE.glob("kernels*.c")), SOURCE / "fixed.c", SOURCE / "tables.c", PROGRAM]:
        objects.append(str(folder / f"{source.stem}.o"))
        flags = ["-O3", "-std=c11", f"-I{SOURCE}", f"-I{ROOT / 'native' / 'include'}", *of_file.get(source.stem, [])]
        subprocess.run([compiler, *flags, "-c", str(source), "-o", objects[-1]], check=True)
    program = folder / f"product-{table}"
    subprocess.run([compiler, "-static", *objects, "-o", str(program)], check=True)
    return program


def count(table: str, kinds: tuple[str, ...] = ("8", "16", "m")) -> dict[str, float]:
    """By bits of the inputs; m: 64 vectors at once, of 16 bits."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        program, plugin = build(table, folder), Plugin(folder)

        def run(kind: str, n: int) -> int:
            command = [*MACHINES[table][2], *plugin.options, str(program), table, kind, str(n)]
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
