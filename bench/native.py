"""The C core as native/CMakeLists.txt builds it: for programs that count or compare what it does."""

import json
import shlex
import subprocess
import tempfile
from functools import cache
from pathlib import Path

NATIVE = Path(__file__).resolve().parents[1] / "native"
AARCH64 = ("-DCMAKE_SYSTEM_NAME=Linux", "-DCMAKE_SYSTEM_PROCESSOR=aarch64")
SYSTEMS = {"gcc": (), "clang": (), "aarch64-linux-gnu-gcc": AARCH64}  # what a compiler is for; nothing: this machine


def core_library(compiler: str, folder: Path) -> Path:
    """Built in `folder`, for what SYSTEMS says of the compiler. Raises CalledProcessError."""
    _cmake("-S", str(NATIVE), "-B", str(folder), f"-DCMAKE_C_COMPILER={compiler}", *SYSTEMS[compiler])
    _cmake("--build", str(folder), "--target", "edgehmn_core")
    return next(folder.rglob("libedgehmn_core.a"))


@cache
def flags_of_files(compiler: str) -> dict[str, tuple[str, ...]]:
    """By names without .c: definitions of the core, and the processors whose instructions a file is for. Empty for a
    compiler that is none of SYSTEMS: no other has such files. Raises CalledProcessError."""
    if compiler not in SYSTEMS:
        return {}
    with tempfile.TemporaryDirectory() as build:
        options = ("-DCMAKE_EXPORT_COMPILE_COMMANDS=ON", f"-DCMAKE_C_COMPILER={compiler}", *SYSTEMS[compiler])
        _cmake("-S", str(NATIVE), "-B", build, *options)
        entries = json.loads((Path(build) / "compile_commands.json").read_text("utf-8"))
    return {
        Path(entry["file"]).stem: tuple(w for w in shlex.split(entry["command"]) if w.startswith(("-m", "-DEHMN_")))
        for entry in entries
    }


def _cmake(*words: str) -> None:
    subprocess.run(["cmake", *words], check=True, stdout=subprocess.DEVNULL)
