"""How every command speaks: text or one JSON envelope on stdout, progress and notes on stderr."""

import contextlib
import functools
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import click

from edgehmn import __version__
from edgehmn.errors import CannotWriteError, EdgeHMNError, no_such

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
            say(message)

    @contextlib.contextmanager
    def progress(self, label: str, total: int) -> Iterator[Callable[[int], None]]:
        """A progress bar with the time left; yields what to call with each number of tokens done."""
        if not self.progress_bars or self.quiet or self.json or sys.stderr is None or not sys.stderr.isatty():
            yield lambda _: None
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(label, total=total)
            yield lambda n: bar.update(task, advance=n)


def envelope(command: str, result: dict[str, Any] | None = None, error: dict[str, Any] | None = None) -> str:
    """The one form of every JSON answer. A figure that is no number, or infinite, is null."""
    answer = {
        "edgehmn": __version__,
        "schema": SCHEMA,
        "command": command,
        "status": "error" if error else "ok",
        "error": error,
        "result": result or {},
    }
    return json.dumps(_finite(answer), allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def say(message: str) -> None:
    """A line to stderr, which is lost where nobody reads it: it ends no work. A name in it moves no cursor."""
    with contextlib.suppress(OSError):
        click.echo("".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in message), err=True)


def write_stdout(text: str) -> bool:
    """Print a line; returns whether it has a reader. That he has gone, as `head` does, is no error; a full disk is
    CannotWriteError."""
    if sys.stdout is None:  # `>&-`
        raise CannotWriteError("standard output: is closed")
    try:
        click.echo(text)
        sys.stdout.flush()
        return True
    except BrokenPipeError:
        return False
    except OSError as e:
        raise CannotWriteError(f"standard output: cannot be written ({e.strerror})") from e


def drop_broken_outputs() -> None:
    """Let go of output that cannot be printed, else Python complains about it when it ends."""
    for stream in filter(None, (sys.stdout, sys.stderr)):
        try:
            stream.flush()
        except OSError:
            with contextlib.suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def command(name: str, help: str) -> Callable[[Callable[..., Outcome]], click.Command]:
    """A click command with the shared options, whose function takes a Session and returns an Outcome."""

    def decorate(function: Callable[..., Outcome]) -> click.Command:
        @click.command(name, cls=Command, help=help)
        @click.option("--json", "json_", is_flag=True, help="One JSON object on stdout, nothing else.")
        @click.option("-q", "--quiet", is_flag=True, help="No notes and no progress.")
        @click.option("-v", "--verbose", is_flag=True, help="Tracebacks, and what libraries log.")
        @click.option("--no-progress", is_flag=True, help="No progress bars.")
        @functools.wraps(function)
        def wrapped(json_: bool, quiet: bool, verbose: bool, no_progress: bool, **options: Any) -> None:
            session = Session(json_, quiet, verbose, not no_progress)
            if verbose:
                _show_log()
            try:
                outcome = function(session, **options)
            except BrokenPipeError as e:  # which click would take for a reader of ours that has gone
                raise EdgeHMNError(f"a program that this one talked to has ended ({e})") from e
            if json_:
                write_stdout(envelope(invoked_command(), outcome.result))
            elif outcome.text:
                write_stdout(outcome.text)
            if outcome.then is not None:
                outcome.then()

        return wrapped

    return decorate


def _show_log() -> None:
    """What modules of edgehmn log goes to stderr."""
    import logging

    log = logging.getLogger("edgehmn")
    log.setLevel(logging.INFO)
    if not log.handlers:
        log.addHandler(logging.StreamHandler())


class Command(click.Command):
    """A command that takes an option once, but for flags and those that may be given several times: of two values, one
    would be dropped without a word."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        _, _, given = self.make_parser(ctx).parse_args(args=list(args))
        for option in given:
            if isinstance(option, click.Option) and not (option.multiple or option.is_flag) and given.count(option) > 1:
                raise click.UsageError(f"{max(option.opts, key=len)} is given twice: which of them is meant?", ctx)
        return super().parse_args(ctx, args)


class Group(click.Group):
    """A group of commands that are listed with the whole first sentence of their help."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        known = self.list_commands(ctx)
        if args[0] not in known and not args[0].startswith("-"):
            raise no_such("command", args[0], known, f"'{ctx.command_path} --help' lists them")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, c.get_short_help_str(limit=1000)) for name, c in sorted(self.commands.items())])


def invoked_command() -> str:
    """The first word after `edgehmn` of the command that is running."""
    return click.get_current_context().find_root().invoked_subcommand or ""


def table(rows: Sequence[tuple[str, ...]], header: tuple[str, ...] | None = None, left: int = 1) -> str:
    """The first `left` columns left-aligned, the others right-aligned; plain text, so that it can be piped."""
    lines = [*([header] if header else []), *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]

    def draw(line: tuple[str, ...]) -> str:
        cells = [c.ljust(w) if i < left else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True))]
        return "  ".join(cells).rstrip()

    return "\n".join(draw(line) for line in lines)
