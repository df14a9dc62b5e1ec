"""The example of a product: in a real terminal, the keystrokes that are saved rise."""

import os
import pty
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edgehmn.core import CoreModel
from edgehmn.device.server import Server
from edgehmn.exported import Export
from edgehmn.states import load

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "predictive_text.py"
LINE = "please send the blue box to anna"
GHOST = re.compile(r"\x1b\[2m([^\x1b]*)\x1b\[0m")


class Terminal:
    """A person at a terminal who types, looks, and takes suggestions that are right."""

    def __init__(self, master: int) -> None:
        self.master, self.seen = master, ""

    def until(self, pattern: str) -> str:
        """Read until something matches; returns what came, the match included."""
        deadline = time.monotonic() + 60
        while (found := re.search(pattern, self.seen)) is None:
            assert time.monotonic() < deadline, f"{pattern!r} does not come: {self.seen[-300:]!r}"
            try:
                self.seen += os.read(self.master, 4096).decode()
            except OSError as e:
                raise AssertionError(f"{pattern!r} does not come, the program has ended: {self.seen[-600:]}") from e
        came, self.seen = self.seen[: found.end()], self.seen[found.end() :]
        return came

    def press(self, key: str, line: str) -> str:
        """Press a key, and look until the line is shown again; returns what came, which ends in the suggestion."""
        os.write(self.master, key.encode())
        shown = re.escape(f"\r\x1b[K> {line}") + r"\x1b\[2m[^\x1b]*\x1b\[0m"
        return self.until(shown)

    def type(self, line: str, came: str) -> str:
        """Type a line with as few keys as can be; returns what came after its end. came: the suggestion so far."""
        typed = ""
        while typed not in (line, f"{line} "):
            ghost = GHOST.findall(came)[-1]
            if ghost and f"{line} ".startswith(f"{typed}{ghost} "):
                typed += f"{ghost} "
                came = self.press("\t", typed)
            else:
                typed += line[len(typed)]
                came = self.press(typed[-1], typed)
        return self.press("\r", "")


@contextmanager
def terminal(*arguments: str | Path) -> Iterator[tuple[Terminal, "subprocess.Popen[bytes]"]]:
    master, slave = pty.openpty()
    command = [sys.executable, str(EXAMPLE), *map(str, arguments)]
    running = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, cwd="/", close_fds=True)
    os.close(slave)
    try:
        yield Terminal(master), running
    finally:
        running.kill()
        running.wait()
        os.close(master)


@pytest.mark.parametrize("where", ["host", "device"])
def test_saved_keystrokes_rise(reference_export: Path, tmp_path: Path, where: str) -> None:
    state = tmp_path / "typed.ehmd"
    options: list[str | Path] = ["--save-state", state]
    with Server(reference_export / "model.ehmn") as server:
        if where == "device":
            options += ["--runtime", "device", "--port", server.url]
        with terminal(reference_export, *options) as (screen, running):
            came, took = screen.until(r"> \x1b\[2m[^\x1b]*\x1b\[0m"), []
            for _ in range(4):
                came = screen.type(LINE, came)
                [keys] = re.findall(rf"(\d+) keys for {len(LINE) + 1}; saved", came)
                took.append(int(keys))
            os.write(screen.master, b"\x04")
            said = screen.until(r"4 lines: .* of the last 4\r\n")
            assert running.wait(30) == 0
    assert took[0] > 2 * took[-1] and sorted(took, reverse=True) == took, took
    saved = re.search(r"(\d+) % of the keystrokes saved", said)
    assert saved and int(saved[1]) == round(100 * (1 - sum(took) / (4 * (len(LINE) + 1))))
    assert load(str(state)) != CoreModel(Export.open(reference_export).image).save()


def test_it_says_what_is_wrong(tiny_export: Path, tmp_path: Path) -> None:
    piped = subprocess.run([sys.executable, str(EXAMPLE), str(tiny_export)], stdin=subprocess.DEVNULL,
                           capture_output=True, text=True, cwd="/")  # fmt: skip
    assert piped.returncode == 2 and "no terminal" in piped.stderr
    with terminal(tmp_path / "nothing") as (screen, running):
        screen.until("no such folder")
        assert running.wait(30) == 2
