"""Firmware out of the C sources that ship with the package, built once and kept in the user's cache."""

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from edgehmn.errors import CannotWriteError, DependencyError, UsageError

TOOLS = ("arm-none-eabi-gcc", "cmake", "ninja")
INSTALL_LINE = "sudo apt-get install gcc-arm-none-eabi libnewlib-arm-none-eabi cmake ninja-build"
BUILD_VARIABLES = ("CFLAGS", "CPPFLAGS", "LDFLAGS")  # a user's flags for the host would reach the board
LOG_LINES = 20  # of a failed build that go into the message


def boards() -> list[str]:
    """Boards for which there is a port, as the folders below native/ports: "qemu/mps2-an386"."""
    ports = sources() / "ports"
    return sorted(p.parent.relative_to(ports).as_posix() for p in ports.rglob("board.h"))


def board_numbers(board: str) -> dict[str, int]:
    """The integers of a board's board.h, by name: addresses and sizes in bytes."""
    text = (_port(board) / "board.h").read_text("utf-8")
    found = re.findall(r"^#define (BOARD_\w+) (0x[0-9A-Fa-f]+|\d+)$", text, re.M)
    return {name: int(value, 0) for name, value in found}


def build_firmware(board: str) -> Path:
    """The ELF file of a board, built if no build of the same sources is in the cache.

    Raises UsageError for an unknown board, DependencyError where a tool is missing or cannot build it, and
    CannotWriteError where the cache cannot be written.
    """
    _port(board)
    name = f"{board.replace('/', '-')}-{_fingerprint()}.elf"
    kept = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgehmn" / "firmware" / name
    if not kept.is_file():
        try:
            kept.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=kept.parent, prefix="build-") as folder:
                _build(board, Path(folder)).replace(kept)
        except OSError as e:
            raise CannotWriteError(
                f"{kept.parent}: cannot be written ({e.strerror}); set XDG_CACHE_HOME to a folder that can"
            ) from e
    return kept


def sources() -> Path:
    """The folder of the C sources, as installed or in a checkout."""
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "native", package.parent / "native"):
        if (folder / "CMakeLists.txt").is_file():
            return folder
    raise DependencyError(f"{package / 'native'}: the C sources are missing; pip install --force-reinstall edgehmn")


def _port(board: str) -> Path:
    if board not in boards():
        raise UsageError(f"no firmware for board '{board}'; there is one for {', '.join(boards())}")
    return sources() / "ports" / board


def _fingerprint() -> str:
    """Changes with every byte that a build reads."""
    root, digest = sources(), hashlib.sha256()
    folders = (root / name for name in ("cmake", "include", "ports", "src"))
    for path in sorted((root / "CMakeLists.txt", *(p for f in folders for p in f.rglob("*") if p.is_file()))):
        digest.update(f"{path.relative_to(root).as_posix()}\0{path.stat().st_size}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _build(board: str, folder: Path) -> Path:
    for tool in TOOLS:
        if shutil.which(tool) is None:
            raise DependencyError(f"{tool} is missing, firmware cannot be built; {INSTALL_LINE}")
    native = sources()
    toolchain = native / "cmake" / "arm-none-eabi.cmake"
    _run(
        "cmake",
        "-S",
        native,
        "-B",
        folder,
        "-G",
        "Ninja",
        f"-DCMAKE_TOOLCHAIN_FILE={toolchain}",
        f"-DEHMN_BOARD={board}",
    )
    _run("cmake", "--build", folder)
    return folder / "firmware.elf"


def _run(*command: str | Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in BUILD_VARIABLES}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        log = "\n".join(done.stdout.splitlines()[-LOG_LINES:])
        raise DependencyError(f"firmware did not build; {INSTALL_LINE} gives tools that build it. The log ends:\n{log}")
