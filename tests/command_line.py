"""Run `edgehmn` as a user does, and keep what it said."""

import contextlib
import io
import json
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from edgehmn.cli import cli, main


@dataclass(frozen=True)
class Result:
    """Exit code, standard output and standard error of a command that has ended."""

    code: int
    out: str
    err: str

    @property
    def envelope(self) -> dict[str, Any]:
        """The one JSON object that --json prints; nothing may stand beside it."""
        parsed: dict[str, Any] = json.loads(self.out, parse_constant=_no_json)
        return parsed

    @property
    def result(self) -> dict[str, Any]:
        assert self.code == 0, self
        result: dict[str, Any] = self.envelope["result"]
        return result


def _no_json(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


def edgehmn(*arguments: str | Path) -> Result:
    """A command in this process."""
    out, err, code = io.StringIO(), io.StringIO(), None
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main([str(a) for a in arguments])
        except SystemExit as e:
            code = e.code
    assert isinstance(code, int), "the command line always ends with an exit code"
    return Result(code, out.getvalue(), err.getvalue())


def texts(path: Path) -> tuple[str | Path, ...]:
    """Options that make an export calibrate and measure on one text."""
    return "--calibration", path, "--evaluation", path


def _hear_interrupts() -> None:
    """Which a shell's background jobs ignore, and all that they start."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


PIPES = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "preexec_fn": _hear_interrupts}


def program(code: str, *words: str | Path, cwd: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Python code in a process of its own that has ended. `cwd` must not be the checkout, as in `process`."""
    command = [sys.executable, "-c", code, *map(str, words)]
    pipes: dict[str, Any] = PIPES | options
    return subprocess.run(command, cwd=cwd, text=True, check=False, **pipes)


def process(*arguments: str | Path, cwd: Path, encoding: str = "utf-8", **options: Any) -> subprocess.Popen[str]:
    """A command in a process of its own. `cwd` must not be the checkout: its sources are not put together."""
    command = [sys.executable, "-m", "edgehmn", *map(str, arguments)]
    pipes: dict[str, Any] = PIPES | options
    return subprocess.Popen(command, cwd=cwd, text=True, encoding=encoding, **pipes)


def finish(running: subprocess.Popen[str]) -> Result:
    try:
        out, err = running.communicate(timeout=300)
    finally:
        running.kill()  # which does nothing to one that has ended
    return Result(running.returncode, out or "", err or "")


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def check_understood(words: list[str]) -> None:
    """A command with its arguments, as a document writes them: one that exists and takes them. Nothing is run."""
    group: click.Command | None = cli
    while isinstance(group, click.Group):
        name, *words = words
        group = group.get_command(click.Context(cli), name)
    assert group is not None, name
    group.make_context(name, words)


def commands_in(text: str) -> list[list[str]]:
    """The words behind `edgehmn` of each line that begins with it."""
    return [shlex.split(line, comments=True)[1:] for line in re.findall(r"^edgehmn .*", text, re.M)]
