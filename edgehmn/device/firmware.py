"""Firmware out of the C sources that ship with the package, built once and kept in the user's cache."""

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from edgehmn.device.boards import Board, find_board, sources
from edgehmn.device.flash.parts import contents, segments
from edgehmn.errors import CannotWriteError, DependencyError
from edgehmn.files import user_folder

TOOLS = ("arm-none-eabi-gcc", "cmake", "ninja")
INSTALL_LINE = "sudo apt-get install gcc-arm-none-eabi libnewlib-arm-none-eabi cmake ninja-build"
BUILD_VARIABLES = ("CFLAGS", "CPPFLAGS", "LDFLAGS")  # a user's flags for the host would reach the board
LOG_LINES = 20  # of a failed build that go into the message


def build_firmware(name: str) -> Path:
    """The ELF file of the board of that name, built if no build of the same sources is in the cache.

    Raises UsageError for an unknown board, DependencyError where a tool is missing or cannot build it, and
    CannotWriteError where the cache cannot be written.
    """
    board = find_board(name)
    return keep(board.folder.replace("/", "-"), lambda folder: _build(board, folder))


def room_of(board: Board, elf: bytes) -> dict[str, int]:
    """Bytes of flash and RAM that a firmware takes, without model and stack, and how many its board has for it. The
    linker refuses more."""
    start = board.numbers["BOARD_RAM_ADDRESS"]
    ends = [s.address + s.memory for s in segments(elf) if s.address >= start]
    return {
        "flash_bytes": len(contents(elf, board.numbers["BOARD_FLASH_ADDRESS"])),
        "flash_room": board.numbers["BOARD_FLASH_BYTES"],
        "ram_bytes": max([start, *(end for end in ends if end <= start + board.numbers["BOARD_RAM_BYTES"])]) - start,
        "ram_room": board.numbers["BOARD_RAM_BYTES"],
    }


def keep(name: str, build: Callable[[Path], Path]) -> Path:
    """What `build` makes in the folder that it is given, from the user's cache if these sources were built before.
    Raises CannotWriteError."""
    cache = user_folder("XDG_CACHE_HOME", ".cache") / "edgehmn" / "firmware"
    kept = cache / f"{name}-{_fingerprint()}.elf"
    if not kept.is_file():
        try:
            kept.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=kept.parent, prefix="build-") as folder:
                build(Path(folder)).replace(kept)
        except OSError as e:
            raise CannotWriteError(
                f"{kept.parent}: cannot be written ({e.strerror}); set XDG_CACHE_HOME to a folder that can"
            ) from e
    return kept


def _fingerprint() -> str:
    """Changes with every byte that a build reads."""
    root, digest = sources(), hashlib.sha256()
    folders = (root / name for name in ("cmake", "include", "ports", "src"))
    for path in sorted((root / "CMakeLists.txt", *(p for f in folders for p in f.rglob("*") if p.is_file()))):
        digest.update(f"{path.relative_to(root).as_posix()}\0{path.stat().st_size}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _build(board: Board, folder: Path) -> Path:
    for tool in TOOLS:
        if shutil.which(tool) is None:
            raise DependencyError(f"{tool} is missing, firmware cannot be built; {INSTALL_LINE}")
    native = sources()
    toolchain = native / "cmake" / "arm-none-eabi.cmake"
    run(
        "cmake",
        "-S",
        native,
        "-B",
        folder,
        "-G",
        "Ninja",
        f"-DCMAKE_TOOLCHAIN_FILE={toolchain}",
        f"-DEHMN_BOARD={board.folder}",
    )
    run("cmake", "--build", folder)
    return folder / "firmware.elf"


def run(*command: str | Path, install: str = INSTALL_LINE) -> None:
    """A step of a build. Raises DependencyError, with the end of its log, if it fails."""
    environment = {name: value for name, value in os.environ.items() if name not in BUILD_VARIABLES}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        log = "\n".join(done.stdout.splitlines()[-LOG_LINES:])
        raise DependencyError(f"the C sources did not build; {install} gives tools that build it. The log ends:\n{log}")
