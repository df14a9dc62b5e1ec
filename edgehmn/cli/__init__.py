"""The command line: parse, one library call, print. Imports nothing heavy until a command runs."""

import importlib
import json
import sys
from typing import Any

import click

from edgehmn import __version__
from edgehmn.cli.output import envelope
from edgehmn.errors import EXIT_CODES, INTERRUPTED, EdgeHMNError

# Command -> module of edgehmn.cli that holds it under the same name.
COMMANDS = {
    "export": "export",
    "inspect": "export",
    "validate": "export",
    "plan": "export",
    "build": "board",
    "emulate": "board",
    "run": "learning",
    "personalise": "learning",
    "state": "state",
    "eval": "evaluation",
    "doctor": "doctor",
    "demo": "demo",
}


class LazyGroup(click.Group):
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
    "build": "compile the firmware of a board",
    "emulate": "start an emulated board with an export on it, and keep it running",
    "run": "continue a text",
    "personalise": "learn the first half of a text, score the second before and after",
    "state": "save, load and list what was learned",
    "eval": "run a part of the evaluation plan",
    "doctor": "check what this machine has, and say how to get what is missing",
    "demo": "the whole loop in one command, on an emulated board",
}


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="edgehmn")
def cli() -> None:
    """Language models that go on learning on the device they run on."""


def main(argv: list[str] | None = None) -> None:
    """Run a command and leave with its documented exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    as_json = "--json" in arguments
    command = next((a for a in arguments if not a.startswith("-")), "")
    try:
        cli.main(arguments, prog_name="edgehmn", standalone_mode=False)
        code = 0
    except click.exceptions.Exit as e:
        code = e.exit_code
    except (KeyboardInterrupt, click.exceptions.Abort):
        code = _fail(command, INTERRUPTED, "interrupted; nothing was left half-written", {}, as_json)
    except click.ClickException as e:
        code = _fail(command, 2, e.format_message() + " (see 'edgehmn --help')", {}, as_json)
    except EdgeHMNError as e:
        code = _fail(command, e.exit_code, str(e), e.detail, as_json)
    except BrokenPipeError:
        code = 0
    except Exception as e:
        if "-v" in arguments or "--verbose" in arguments:
            raise
        message = f"{type(e).__name__}: {e} (this is a fault of edgehmn; run again with -v for the traceback)"
        code = _fail(command, 1, message, {}, as_json)
    sys.exit(code)


def _fail(command: str, code: int, message: str, detail: dict[str, Any], as_json: bool) -> int:
    if as_json:
        error = {"code": code, "meaning": EXIT_CODES[code], "message": message, "detail": detail}
        click.echo(json.dumps(envelope(command, error=error)))
    else:
        click.echo(f"edgehmn {command}: {message}", err=True)
    return code
