"""Bytes of code of a board's firmware by source file, from the linker's map.

    python tools/run.py bench.code_size BOARD

The core is what opens an image, predicts, learns and keeps what was learned in a delta. Beside it stand the tokenizer,
what serves a host and keeps states in flash, and the functions of the compiler's library.
"""

import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from edgehmn.device.boards import find_board, sources

TOKENIZER = ("tokenizer", "unicode")
SERVER = ("device", "wire", "state", "main", "startup", "memory", "division", "peripherals", "flash")
SECTION = re.compile(r"^ \.text(?:\.\S+)?\s+0x[0-9a-f]+\s+(0x[0-9a-f]+)\s+(\S+)$", re.M)


def code_of_files(board: str, folder: Path) -> Counter[str]:
    native, target = sources(), find_board(board)
    link_map = folder / "map"
    toolchain = native / "cmake" / "arm-none-eabi.cmake"
    settings = ["-G", "Ninja", f"-DCMAKE_TOOLCHAIN_FILE={toolchain}", f"-DEHMN_BOARD={target.folder}"]
    environment = {**os.environ, "LDFLAGS": f"-Wl,-Map={link_map}"}
    for command in (["cmake", "-S", str(native), "-B", str(folder), *settings], ["cmake", "--build", str(folder)]):
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    text = link_map.read_text("utf-8").split("Linker script and memory map")[1]
    found: Counter[str] = Counter()
    for size, path in SECTION.findall(text):
        member = re.search(r"\(([^)]+)\)$", path)
        found[(member[1] if member else Path(path).name).split(".")[0]] += int(size, 16)
    return found


def part(name: str) -> str:
    if name.startswith(TOKENIZER):
        return "tokenizer"
    return "server" if name.startswith(SERVER) else "compiler's library" if name.startswith("_") else "core"


def main(arguments: list[str]) -> None:
    if len(arguments) != 1:
        sys.exit(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        found = code_of_files(arguments[0], Path(folder))
    parts: Counter[str] = Counter()
    for name, size in found.most_common():
        if size:
            print(f"{size:8,} {name} ({part(name)})")
            parts[part(name)] += size
    for name, size in parts.most_common():
        print(f"{size:8,} all of the {name}")


if __name__ == "__main__":
    main(sys.argv[1:])
