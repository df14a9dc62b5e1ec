"""edgehmn-device, which makes a board of a Linux machine: built for it, and run on this one."""

import platform
import shutil
import subprocess
import weakref
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from edgehmn.device.boards import sources
from edgehmn.device.companion import Companion
from edgehmn.device.firmware import keep, run
from edgehmn.errors import DependencyError, DeviceError, no_such

COMPILERS = {
    "x86_64": "gcc",
    "aarch64": "aarch64-linux-gnu-gcc",
    "armv7l": "arm-linux-gnueabihf-gcc",
    "riscv64": "riscv64-linux-gnu-gcc",
}
INSTALL_LINE = (
    "sudo apt-get install cmake ninja-build gcc-aarch64-linux-gnu libc6-dev-arm64-cross gcc-arm-linux-gnueabihf "
    "libc6-dev-armhf-cross gcc-riscv64-linux-gnu libc6-dev-riscv64-cross"
)


def build_server(machine: str | None = None) -> Path:
    """The program for Linux on `machine`, as `uname -m` calls it, this one's if none is named: linked statically, so
    that it runs on any distribution. Raises UsageError for an unknown machine, DependencyError where a tool is
    missing, and CannotWriteError where the cache cannot be written."""
    machine = machine or platform.machine()
    if machine not in COMPILERS:
        raise no_such("server for a machine", machine, COMPILERS)
    compiler = COMPILERS[machine] if machine != platform.machine() else "cc"
    return keep(f"edgehmn-device-{machine}", lambda folder: _build(machine, compiler, folder))


def _build(machine: str, compiler: str, folder: Path) -> Path:
    for tool in (compiler, "cmake", "ninja"):
        if shutil.which(tool) is None:
            raise DependencyError(f"{tool} is missing, edgehmn-device cannot be built; {INSTALL_LINE}")
    options = ["-G", "Ninja", "-DEHMN_SERVER=ON", f"-DCMAKE_C_COMPILER={compiler}", "-DCMAKE_EXE_LINKER_FLAGS=-static"]
    if machine != platform.machine():
        options += ["-DCMAKE_SYSTEM_NAME=Linux", f"-DCMAKE_SYSTEM_PROCESSOR={machine}"]
    run("cmake", "-S", sources(), "-B", folder, *options, install=INSTALL_LINE)
    run("cmake", "--build", folder, install=INSTALL_LINE)
    return folder / "edgehmn-device"


class Server:
    """A running edgehmn-device of this machine, answering at `url` (for `Link`) until it is closed."""

    def __init__(
        self,
        image: Path,
        *,
        state: Path | None = None,
        socket: Path | None = None,
        command: Sequence[str | Path] | None = None,
    ) -> None:
        """image: an image file. state: keeps what is stored. socket: of the file system, instead of a free port.
        command: what starts the server, instead of the one built for this machine. Raises DeviceError if it does not
        start."""
        where = ["--unix", str(socket)] if socket else ["--listen", "0"]
        kept = ["--state", str(state)] if state else []
        words = [*map(str, command or [build_server()]), str(image), *where, *kept]
        pipe = subprocess.PIPE
        program = Companion(words, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True)
        self._process = program.process
        self._stop = weakref.finalize(self, program.end, 0)
        assert self._process.stdout is not None and self._process.stderr is not None
        self.url = self._process.stdout.readline().strip()
        if not self.url:
            words_of_it = self._process.stderr.read().strip()
            raise DeviceError(f"edgehmn-device did not start: {words_of_it or 'it said nothing'}")

    @property
    def pid(self) -> int:
        return self._process.pid

    def close(self) -> None:
        """Stop it; what was stored in `state` stays. Closing twice is allowed."""
        self._stop()

    def __enter__(self) -> "Server":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
