"""QEMU's plugin that counts the instructions of each function, exactly: built, and its counts read."""

import subprocess
from collections import Counter
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[1] / "tools" / "qemu_plugin" / "instructions.c"


class Plugin:
    """Built in a folder, where its counts land too."""

    def __init__(self, folder: Path) -> None:
        self._counts = folder / "counts"
        built = folder / "instructions.so"
        subprocess.run(["gcc", "-O2", "-shared", "-fPIC", str(SOURCE), "-o", str(built)], check=True)
        self.options = ["-plugin", f"{built},out={self._counts}"]

    def counts(self) -> Counter[str]:
        """Of the program that QEMU ran last with the options, from its start to its end."""
        lines = [line.split(maxsplit=1) for line in self._counts.read_text("utf-8").splitlines()]
        return Counter({name: int(count) for count, name in lines})
