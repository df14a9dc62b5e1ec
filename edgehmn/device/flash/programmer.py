"""What all ways of writing a board have in common, and running the programs that do it."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from edgehmn.device.flash.parts import Part
from edgehmn.errors import DependencyError, DeviceError, FlashError, ManualStepError

LAST_LINES = 4  # of what a program said that go into a message
LEAST_S, SLOWEST = 60.0, 2000.0  # how long a program may take: so many seconds, and one for each so many bytes


@dataclass(frozen=True)
class Place:
    """Something that may be written: a probe, a port, a drive, a machine."""

    name: str  # what --port takes
    what: str  # for people


class Programmer(Protocol):
    """A way to write one kind of board."""

    ready: str  # what makes a board show itself

    def places(self, port: str | None) -> list[Place]:
        """The boards of this kind that are there, each asked what it is. port: only what is there. Raises DeviceError
        if that is another kind of board."""

    def write(self, place: Place, parts: Sequence[Part]) -> None:
        """Raises FlashError."""

    def read(self, place: Place, part: Part) -> bytes | None:
        """What stands now where the part was written, by the board's own word; None if this way cannot read."""

    def running(self, place: Place, line: str | None) -> "AbstractContextManager[str | None]":
        """Let the board run what was written; yields where it answers (for `Link`), None if that is not known. line:
        its serial line if that is not the place itself."""


def choose(places: Sequence[Place], port: str | None, ready: str) -> Place:
    """The one place to write. ready: of its programmer. Raises DeviceError, with the list, if it is not plain which one
    that is."""
    found = [place for place in places if port in (None, place.name)]
    if len(found) == 1:
        return found[0]
    lines = "".join(f"\n  {place.name}  {place.what}" for place in places)
    if not places:
        where = f" at {port}" if port else ""
        raise DeviceError(f"no board of this kind is connected{where}; {ready}", candidates=[])
    said = f"{port} is none of these" if port else "several boards are connected; name one with --port"
    raise DeviceError(f"{said}:{lines}", candidates=[place.name for place in places])


def serial_places(port: str | None, ask: Callable[[str], Place]) -> list[Place]:
    """The places among serial ports: `port` alone if it is given, else all that answer. ask: what is at a port; raises
    DeviceError, which is passed on for the one that was given."""
    if port is not None:
        return [ask(port)]
    from serial.tools import list_ports

    found = []
    for info in list_ports.comports():
        with suppress(DeviceError):
            found.append(ask(info.device))
    return found


def time_for(size: int, limit_s: float | None) -> float:
    """Seconds that a program may take for so many bytes: twice what a line of 115,200 baud needs, written and
    verified, or the limit that somebody gave."""
    return LEAST_S + size / SLOWEST if limit_s is None else limit_s


def find_program(name: str) -> str | None:
    """Where a program is: on the PATH, or beside this Python, as in a virtual environment that is not activated."""
    return shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))


def program(name: str, install: str) -> str:
    """The path of a program. Raises DependencyError."""
    path = find_program(name)
    if path is None:
        raise DependencyError(f"{name} is missing; {install}")
    return path


def run(words: Sequence[str | Path], timeout_s: float, stdin: bytes = b"", folder: Path | None = None) -> bytes:
    """Run a program to its end, in `folder` if it is given, and return its standard output. Nothing but a code of 0 is
    success, and that is believed only after reading back. Raises FlashError, also if it does not end in time: it and
    its children are then killed."""
    name = Path(words[0]).name
    try:
        process = subprocess.Popen(
            [str(w) for w in words],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
            cwd=folder,
        )  # fmt: skip
    except OSError as e:
        raise DependencyError(f"{words[0]}: cannot be run ({e.strerror})") from e
    try:
        out, err = process.communicate(stdin, timeout=timeout_s)
    except subprocess.TimeoutExpired:
        raise FlashError(f"{name} did not end in {timeout_s:g} s and was stopped; check cable and board") from None
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    if process.returncode != 0:
        said = last_lines(out + b"\n" + err)
        raise FlashError(f"{name} ended with code {process.returncode}: {said}", code=process.returncode)
    return out


@contextmanager
def starting(place: Place) -> Iterator[None]:
    """A program that is to start a board which holds what was written; where it fails, a hand can do it. Raises
    ManualStepError."""
    try:
        yield
    except FlashError as e:
        raise ManualStepError(
            f"{place.name}: all is written and read back, but the board was not started ({e}); press reset, and run "
            "'edgehmn validate' with --runtime device and its port"
        ) from e


def last_lines(out: bytes) -> str:
    lines = [line for line in out.decode("utf-8", "replace").splitlines() if line.strip()]
    return " | ".join(lines[-LAST_LINES:]) or "it said nothing"
