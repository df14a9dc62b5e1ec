"""QEMU's plugin that counts the instructions of each function, exactly: built, and its counts read."""

import subprocess
from collections import Counter
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[1] / "tools" / "qemu_plugin" / "instructions.c"


class Plugin:
    """Built in a folder, where its counts land too. blocks: those of each block of instructions are counted as well."""

    def __init__(self, folder: Path, *, blocks: bool = False) -> None:
        self._counts, self._blocks = folder / "counts", folder / "blocks"
        built = folder / "instructions.so"
        subprocess.run(["gcc", "-O2", "-shared", "-fPIC", str(SOURCE), "-o", str(built)], check=True)
        self.options = ["-plugin", f"{built},out={self._counts}" + (f",blocks={self._blocks}" if blocks else "")]

    def counts(self) -> Counter[str]:
        """Of the program that QEMU ran last with the options, from its start to its end."""
        lines = [line.split(maxsplit=1) for line in self._counts.read_text("utf-8").splitlines()]
        return Counter({name: int(count) for count, name in lines})

    def blocks(self) -> Counter[tuple[int, int]]:
        """How often each block ran, by its address and the number of its instructions."""
        lines = [line.split() for line in self._blocks.read_text("utf-8").splitlines()]
        return Counter({(int(address, 16), int(n)): int(count) for count, address, n in lines})
