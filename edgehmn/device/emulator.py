"""Boards emulated by QEMU, running the firmware of edgehmn."""

import fcntl
import shutil
import signal
import socket
import subprocess
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from edgehmn.device.boards import Board, find_board, machines
from edgehmn.device.companion import Companion
from edgehmn.device.firmware import build_firmware
from edgehmn.errors import CannotWriteError, DependencyError, DeviceError, EdgeHMNError, UsageError
from edgehmn.files import check_place

QEMU = "qemu-system-arm"
INSTALL_LINE = "sudo apt-get install qemu-system-arm"
GRACE_S = 1.0  # for QEMU to end after its line was lost, or when it is told to
# Machines (by how their names begin) whose external memory, where image and state lie, can be a file of this host: its
# bytes, and at which of them the image's region begins. Of a large one only what is written takes room on the disk.
EXTERNAL_MEMORY = {"mps2-": (1 << 24, 0), "mps3-an547": (1 << 31, 1 << 28)}
INSTRUCTIONS_PER_SECOND = 10**9  # of virtual time, by `-icount shift=0`: one instruction takes 2**0 ns


class Emulator:
    """A running emulated board with an image in its memory, answering at `url` (for `Link`) until it is closed.

    Time on the board is the count of its instructions, so what it measures is the same in every run. An
    emulator that is not closed ends with the Python process, even one that is killed.
    """

    def __init__(
        self,
        image: bytes | None,
        board: str = "mps2-an386",
        *,
        flash: Path | None = None,
        options: Sequence[str] = (),
    ) -> None:
        """Build the firmware if needed, and start it. Without an image the board says that it has none. flash: a file
        that keeps the board's external memory, image and learned state included, from one start to the next; without it
        what the board stores lives as long as the emulator. options: further ones of QEMU, such as a plugin.

        Raises DependencyError where QEMU or a build tool is missing, UsageError for an unknown board or one without
        such a memory, DeviceError for a file that is none or another board's, DoesNotFitError for an image too large
        for it, and CannotWriteError where there is no room for files.
        """
        target, (program, firmware) = find_board(board), needs_of(board)
        if image is not None:
            target.check_size(len(image))
        machine = _machine(target, flash)
        self._folder, self._flash = _folder_with(image), flash
        claimed = None if flash is None else claim(flash)
        self._log = Path(self._folder.name) / "qemu.log"
        arguments = [*machine, "-kernel", str(firmware), "-icount", "shift=0"]
        arguments += ["-nodefaults", "-display", "none", "-serial", "chardev:host", *options]
        if image is not None:
            address = target.numbers["BOARD_IMAGE_ADDRESS"]
            arguments += ["-device", f"loader,file=image,addr={address:#x},force-raw=on"]
        with socket.create_server(("127.0.0.1", 0)) as server, self._log.open("wb") as log:
            self.url = f"socket://127.0.0.1:{server.getsockname()[1]}"
            chardev = f"socket,id=host,fd={server.fileno()},server=on,wait=off,nodelay=on"
            qemu = Companion(
                [program, *arguments, "-chardev", chardev],
                cwd=self._folder.name, pass_fds=[server.fileno()], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        self._process = qemu.process
        self._stop = weakref.finalize(self, _stop, qemu, self._folder, claimed)

    def failure(self) -> EdgeHMNError | None:
        """How QEMU ended by itself, with its last words; None if it runs. Only before `close`."""
        try:
            code = self._process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            return None
        if code == -signal.SIGBUS and self._flash is not None:  # it writes to the file as to memory
            return CannotWriteError(f"{self._flash}: there is no room for what the board stores; free space")
        words = self._log.read_text("utf-8", "replace").strip()
        return DeviceError(f"{QEMU} ended with code {code}: {words or 'it said nothing'}")

    def close(self) -> None:
        """Stop the board; what it learned since the last save is gone. Closing twice is allowed."""
        self._stop()

    def __enter__(self) -> "Emulator":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def needs_of(board: str) -> tuple[str, Path]:
    """QEMU and the firmware, which is built if needed. Raises DependencyError, UsageError and CannotWriteError as
    Emulator says."""
    if find_board(board).machine is None:
        raise UsageError(f"{board} cannot be emulated; these can: {', '.join(machines())}")
    program = shutil.which(QEMU)
    if program is None:
        raise DependencyError(f"{QEMU} is missing, no board can be emulated; {INSTALL_LINE}")
    return program, build_firmware(board)


def external_memory(board: Board) -> tuple[int, int] | None:
    """Bytes of the board's external memory that a file can be, and where in it the image's region begins; None if it is
    not emulated with such a memory."""
    machine = board.machine or ""
    return next((memory for name, memory in EXTERNAL_MEMORY.items() if machine.startswith(name)), None)


def check_flash(path: Path, size: int) -> None:
    """Raises DeviceError for anything but external memory of so many bytes. What is not there, or empty, will be
    made."""
    if path.exists() and not (path.is_file() and path.stat().st_size in (0, size)):
        raise DeviceError(f"{path}: no flash of an emulated board (a file of {size:,} bytes); choose another name")


def claim(flash: Path) -> BinaryIO:
    """The file of an emulated flash, made where there is none, for one board or one that writes it until it is closed.
    Raises DeviceError if somebody else has it, and CannotWriteError."""
    check_place(flash)
    try:
        flash.parent.mkdir(parents=True, exist_ok=True)
        file = flash.open("ab")
    except OSError as e:
        raise CannotWriteError(f"{flash}: cannot be written ({e.strerror}); choose another") from e
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise DeviceError(f"{flash}: is the flash of an emulated board that runs; stop that one first") from None
    except OSError:
        return file  # on a file system that has no locks
    return file


def _machine(board: Board, flash: Path | None) -> list[str]:
    """QEMU's options for the machine. Raises as Emulator says."""
    assert board.machine is not None
    if flash is None:
        return ["-M", board.machine]
    memory = external_memory(board)
    if memory is None:
        raise UsageError(f"{board.name}: this emulation cannot write its flash; save what was learned on this host")
    if "," in str(flash):
        raise UsageError(f"{flash}: QEMU takes no file name with a comma; choose another")
    check_flash(flash, memory[0])
    backend = f"memory-backend-file,id=external,size={memory[0]},mem-path={flash.absolute()},share=on"
    return ["-M", f"{board.machine},memory-backend=external", "-object", backend]


def _folder_with(image: bytes | None) -> "tempfile.TemporaryDirectory[str]":
    """A temporary folder with the image in the file `image`."""
    try:
        folder = tempfile.TemporaryDirectory(prefix="edgehmn-")
        (Path(folder.name) / "image").write_bytes(image or b"")
    except OSError as e:
        raise CannotWriteError(f"{tempfile.gettempdir()}: cannot be written ({e.strerror}); set TMPDIR") from e
    return folder


def _stop(qemu: Companion, folder: "tempfile.TemporaryDirectory[str]", claimed: BinaryIO | None) -> None:
    qemu.end(GRACE_S)  # not killed at once: plugins write what they counted when QEMU ends
    folder.cleanup()
    if claimed is not None:
        claimed.close()
