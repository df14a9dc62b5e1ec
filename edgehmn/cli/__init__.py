"""The command line: parse, one library call, print. Imports nothing heavy until a command runs."""

import errno
import importlib
import io
import re
import signal
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import click

from edgehmn import __version__
from edgehmn.cli.output import Group, drop_broken_outputs, envelope, say, write_stdout
from edgehmn.errors import (
    EXIT_CODES,
    INTERRUPTED,
    CannotWriteError,
    DependencyError,
    DoesNotFitError,
    EdgeHMNError,
    InvalidFileError,
    UsageError,
)

# Command -> module of edgehmn.cli that holds it under the same name.
COMMANDS = {
    "export": "export",
    "inspect": "checking",
    "validate": "checking",
    "plan": "export",
    "profile": "profile",
    "targets": "profile",
    "build": "board",
    "flash": "flash",
    "emulate": "board",
    "monitor": "monitor",
    "run": "learning",
    "personalise": "learning",
    "state": "state",
    "replay": "replay",
    "tune": "tuning",
    "eval": "evaluation",
    "doctor": "doctor",
    "demo": "demo",
}


class LazyGroup(Group):
    """A group whose commands are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module = importlib.import_module(f"edgehmn.cli.{COMMANDS[name]}")
        command: click.Command = getattr(module, f"{name}_command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(HELP.items()))

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(code), meaning) for code, meaning in EXIT_CODES.items()])


HELP = {
    "export": "quantise a trained model: image, ONNX, TFLite, C array, each measured",
    "inspect": "say what a file or an export is",
    "validate": "re-open an export and prove that it still computes what it should",
    "plan": "memory that an export needs, region by region",
    "profile": "what a token costs on a board: time, energy, memory, layer by layer",
    "targets": "the boards whose costs can be estimated, and what is known of each",
    "build": "compile the firmware of a board",
    "flash": "write a board, read it back, and let it prove itself",
    "emulate": "start an emulated board with an export on it, and keep it running",
    "monitor": "what is on a board, and what it has done and learned",
    "run": "continue a text",
    "personalise": "learn the first half of a text, score the second before and after",
    "state": "save, load, list and compare what was learned",
    "replay": "record what a model was taught, and reproduce it to the bit",
    "tune": "search for the rule's parameters that learn a text best",
    "eval": "run a part of the evaluation plan",
    "doctor": "check what this machine has, and say how to get what is missing",
    "demo": "the whole loop in one command, on an emulated board",
}


@click.group(
    cls=LazyGroup,
    help="Language models that go on learning on the device they run on.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, prog_name="edgehmn")
def cli() -> None:
    pass


def main(argv: list[str] | None = None, early: Sequence[int] = ()) -> None:
    """Run a command and leave with its documented exit code. Without argv it is that of this process. early: signals
    that came before, and asked for its end."""
    arguments = sys.argv[1:] if argv is None else argv
    stdout = sys.stdout
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    try:
        if argv is None:
            _take_over_process(early)
        _refuse_empty(arguments, options)
        code = cli.main(arguments, prog_name="edgehmn", standalone_mode=False) or 0
    except (KeyboardInterrupt, click.exceptions.Abort):
        if argv is None:
            _give_process_back()
        code = _fail(options, INTERRUPTED, "interrupted; nothing was left half-written")
    except SystemExit:
        if sys.stdout is stdout:
            raise
        code = 0  # click replaces it where the reader of a help has gone: as in write_stdout, no error
    except click.exceptions.NoArgsIsHelpError as e:
        e.show()
        code = UsageError.exit_code
    except click.ClickException as e:
        ctx = getattr(e, "ctx", None)
        command = ctx.command_path if ctx else " ".join(["edgehmn", *(a for a in options[:1] if a in COMMANDS)])
        code = _fail(options, UsageError.exit_code, f"{e.format_message()} (see '{command} --help')")
    except EdgeHMNError as e:
        code = _fail(options, e.exit_code, str(e), e.detail)
    except Exception as e:
        if "-v" in options or "--verbose" in options:
            traceback.print_exc()
        code = _fail(options, *_unforeseen(e))
    if argv is None:
        _give_process_back()
    drop_broken_outputs()
    sys.exit(code)


def _refuse_empty(arguments: list[str], options: list[str]) -> None:
    """What a shell makes of a variable that is not set would be the present folder, or no state at all."""
    for before, argument in zip(["edgehmn", *arguments], arguments, strict=False):
        if argument == "" or (argument in options and re.fullmatch("--[a-z-]+=", argument)):
            where = argument or f"the argument after {before}"
            raise UsageError(f"{where} is empty: is a variable of the shell not set?")


def _take_over_process(early: Sequence[int]) -> None:
    """What is right for a process of our own: to be ended like Ctrl-C, also by a terminal that is closed, and to print
    what a terminal cannot show. Raises KeyboardInterrupt if its end was asked for already."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    for number in _ends():
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup does
            signal.signal(number, signal.default_int_handler)
    if early:
        raise KeyboardInterrupt


def _give_process_back() -> None:
    """All is said, or the end of the work was asked for: who asks again wants no more than the end."""
    for number in _ends():
        if signal.getsignal(number) == signal.default_int_handler:
            signal.signal(number, signal.SIG_DFL)


def _ends() -> list[int]:
    """Signals that ask for the end of a process, those that this system has."""
    return [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


def _unforeseen(e: Exception) -> tuple[int, str]:
    """Exit code and message of an error that no module has put into words."""
    if isinstance(e, OSError) and e.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
        return CannotWriteError.exit_code, f"{e.filename or 'standard output'}: cannot be written ({e.strerror})"
    if isinstance(e, OSError) and e.filename is not None:
        return InvalidFileError.exit_code, f"{e.filename}: cannot be read ({e.strerror})"
    if isinstance(e, MemoryError):
        why = f" ({e})" if str(e) else ""
        return (
            DoesNotFitError.exit_code,
            f"not so much memory is free here{why}; end other programs",
        )
    if isinstance(e, ModuleNotFoundError) and (e.name or "").startswith("edgehmn."):
        hint = "pip install . in a checkout, then the command 'edgehmn', or Python in another folder"
        return DependencyError.exit_code, f"{e.name} is missing: these are sources that are not installed; {hint}"
    hint = "this is a fault of edgehmn; run again with -v for the traceback"
    return EdgeHMNError.exit_code, f"{type(e).__name__}: {e} ({hint})"


def _fail(options: list[str], code: int, message: str, detail: dict[str, Any] | None = None) -> int:
    """Say what went wrong; returns the exit code."""
    command = next((a for a in options if not a.startswith("-")), "")
    line = f"edgehmn {command}".rstrip() + f": {message}"
    if "--json" in options:
        error = {"code": code, "meaning": EXIT_CODES[code], "message": message, "detail": detail or {}}
        try:
            write_stdout(envelope(command, error=error))
        except CannotWriteError as e:
            say(line if str(e) in line else f"{line}; {e}")
    else:
        say(line)
    return code
