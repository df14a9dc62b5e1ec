"""How every command speaks: text or one JSON envelope on stdout, progress and notes on stderr."""

import contextlib
import functools
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import click

from edgehmn import __version__

SCHEMA = 1


@dataclass(frozen=True)
class Outcome:
    """What a command hands over to be printed: `result` for JSON, `text` for people. `then` runs afterwards."""

    result: dict[str, Any]
    text: str
    then: Callable[[], None] | None = None


@dataclass(frozen=True)
class Session:
    """The options that all commands share."""

    json: bool
    quiet: bool
    verbose: bool
    progress_bars: bool

    def note(self, message: str) -> None:
        """A line about what is being done, to stderr."""
        if not self.quiet and not self.json:
            click.echo(message, err=True)

    @contextlib.contextmanager
    def progress(self, label: str, total: int) -> Iterator[Callable[[int], None]]:
        """A progress bar with the time left; yields what to call with each number of tokens done."""
        if not self.progress_bars or self.quiet or self.json or not sys.stderr.isatty():
            yield lambda _: None
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(label, total=total)
            yield lambda n: bar.update(task, advance=n)


def envelope(command: str, result: dict[str, Any] | None = None, error: dict[str, Any] | None = None) -> dict[str, Any]:
    """The one form of every JSON answer."""
    return {
        "edgehmn": __version__,
        "schema": SCHEMA,
        "command": command,
        "status": "error" if error else "ok",
        "error": error,
        "result": result or {},
    }


def command(name: str, help: str) -> Callable[[Callable[..., Outcome]], click.Command]:
    """A click command with the shared options, whose function takes a Session and returns an Outcome."""

    def decorate(function: Callable[..., Outcome]) -> click.Command:
        @click.command(name, help=help)
        @click.option("--json", "json_", is_flag=True, help="One JSON object on stdout, nothing else.")
        @click.option("-q", "--quiet", is_flag=True, help="No notes and no progress.")
        @click.option("-v", "--verbose", is_flag=True, help="Tracebacks of internal errors.")
        @click.option("--no-progress", is_flag=True, help="No progress bars.")
        @functools.wraps(function)
        def wrapped(json_: bool, quiet: bool, verbose: bool, no_progress: bool, **options: Any) -> None:
            session = Session(json_, quiet, verbose, not no_progress)
            outcome = function(session, **options)
            if json_:
                click.echo(json.dumps(envelope(name, outcome.result)))
            elif outcome.text:
                click.echo(outcome.text)
            if outcome.then is not None:
                outcome.then()

        return wrapped

    return decorate


def table(rows: list[tuple[str, ...]], header: tuple[str, ...] | None = None) -> str:
    """Left-aligned first column, right-aligned others; plain text, so that it can be piped."""
    lines = ([header] if header else []) + rows
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]

    def draw(line: tuple[str, ...]) -> str:
        cells = [line[0].ljust(widths[0])] + [c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True)]
        return "  ".join(cells).rstrip()

    return "\n".join(draw(line) for line in lines)
