"""Instructions per multiplication of a 512 x 128 product on the emulated boards, exact.

    python tools/run.py bench.products      writes bench/results/products.json and .md

Of 128 inputs that are reduced to 8 or 16 bits, and 512 outputs that are scaled, all included. Counted by the plugin of
tools/qemu_plugin: what eleven such products execute less what one does.
"""

import json
import subprocess
import tempfile
from pathlib import Path

from bench.equality import CORES
from bench.instruction_plugin import Plugin
from edgehmn.device.boards import Board, boards, sources

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench" / "results"
PROGRAM = ROOT / "bench" / "instructions" / "products.c"
MACS = 512 * 128
MORE = 10  # products


def executed(board: Board, bits: int, repeat: int, plugin: Plugin, work: Path) -> int:
    native, start = sources(), board.numbers["BOARD_FLASH_ADDRESS"]
    files = [PROGRAM, native / "ports" / "cortex-m" / "memory.c", *sorted((native / "src").glob("kernels*.c"))]
    names = ("fixed", "tables", "vectors", "vectors_reduce", "vectors_mve", "vectors_neon")
    files += [native / "src" / f"{name}.c" for name in names]
    include = [f"-I{native / 'src'}", f"-I{native / 'include'}", f"-I{native / 'ports' / board.folder}"]
    flags = [*board.cpu.split(), "-mthumb", "-std=gnu11", "-O2", "-ffreestanding", "-fno-math-errno", "-nostdlib"]
    flags += ["-fno-tree-loop-distribute-patterns", f"-DINPUT_BITS={bits}", f"-DREPEAT={repeat}u"]
    place = [f"-Wl,--section-start=.vectors={start:#x}", f"-Wl,-Ttext-segment={start + 0x8000:#x}", "-Wl,-e,reset"]
    program = work / "products.elf"
    subprocess.run(
        ["arm-none-eabi-gcc", *flags, *include, *place, *map(str, files), "-lgcc", "-o", str(program)], check=True
    )
    machine = ["-M", str(board.machine), "-net", "none", "-display", "none", "-semihosting"]
    command = ["qemu-system-arm", *machine, *plugin.options, "-kernel", str(program)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return plugin.counts().total()


def main() -> None:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        plugin = Plugin(work)
        for board in boards().values():
            core = CORES.get(board.cpu.split()[0].split("-")[-1].partition("+")[0])
            if board.machine and core and board.machine.startswith("mps"):
                per_mac = {}
                for bits in (8, 16):
                    one, many = (executed(board, bits, n, plugin, work) for n in (1, 1 + MORE))
                    per_mac[f"inputs of {bits} bits"] = round((many - one) / (MORE * MACS), 4)
                rows.append({"core": core, "board": board.name, "instructions per multiplication": per_mac})
                print(core, per_mac, flush=True)
    (RESULTS / "products.json").write_text(json.dumps(rows, indent=1) + "\n", "utf-8")
    lines = [
        "# Instructions per multiplication of a 512 x 128 product",
        "",
        "`python tools/run.py bench.products` writes this: reducing the input and scaling the outputs included.",
        "",
        "| core | inputs of 8 bits | inputs of 16 bits |",
        "|---|---|---|",
    ]
    for row in rows:
        cells = row["instructions per multiplication"]
        lines.append(f"| {row['core']} | {cells['inputs of 8 bits']:.3f} | {cells['inputs of 16 bits']:.3f} |")
    (RESULTS / "products.md").write_text("\n".join(lines) + "\n", "utf-8")


if __name__ == "__main__":
    main()
