"""inspect and validate: what a file is, and whether an export still computes what it should."""

from pathlib import Path
from typing import Any

import click

from edgehmn.cli.output import Outcome, Session, command, table
from edgehmn.cli.threads import one_thread_for_small
from edgehmn.cli.tiles import tile_options
from edgehmn.errors import QualityGateError, UsageError

RUNTIMES = ("host", "onnx", "tflite", "tile", "emulator", "device")
INDENT = "  "
trust_option = click.option(
    "--trust", type=click.Path(path_type=Path), metavar="PUBLIC_KEY",
    help="Demand a valid signature by this key (PEM, or an OpenSSH line).",
)  # fmt: skip


@command(
    "inspect", "Say what FILE is: any model, checkpoint, export, learned state or firmware. Executes nothing in it."
)
@click.argument("file", type=click.Path(path_type=Path))
@trust_option
def inspect_command(session: Session, file: Path, trust: Path | None) -> Outcome:
    from edgehmn.inspection import inspect

    facts = inspect(file, trust)
    return Outcome(facts, facts_text(facts))


def facts_text(facts: dict[str, Any]) -> str:
    """What is known, a line each; lists and what belongs together under a heading."""
    width = max(len(_label(name)) for name in facts) + 2
    single = [(k, v) for k, v in facts.items() if not isinstance(v, dict | list)]
    lines = [f"{_label(k):<{width}}{_shown(v)}" for k, v in single]
    for name, value in facts.items():
        if isinstance(value, dict) and value:
            inner = max(map(len, map(_shown, value))) + 2
            lines += ["", _label(name), *(f"{INDENT}{_shown(k):<{inner}}{_shown(v)}" for k, v in value.items())]
        elif isinstance(value, list) and value:
            lines += ["", _label(name), *(INDENT + _shown(entry) for entry in value)]
    return "\n".join(lines)


def _label(name: str) -> str:
    return name.replace("_", " ")


def _shown(value: Any) -> str:
    """A value on one line, without anything that a terminal would obey."""
    if isinstance(value, dict):
        return INDENT.join(f"{k} {_shown(v)}" for k, v in value.items())
    if isinstance(value, list):
        return ", ".join(map(_shown, value))
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "-"}[value]
    text = f"{value:,}" if isinstance(value, int) else f"{value:g}" if isinstance(value, float) else str(value)
    return "".join(c if c.isprintable() else "?" for c in text)


@command("validate", "Re-open the export OUT: is it whole, and how far is each runtime from the float model?")
@click.argument("export", metavar="OUT", type=click.Path(path_type=Path))
@click.option("--runtime", "runtimes", multiple=True, type=click.Choice(RUNTIMES), help="Default: all that OUT has.")
@click.option("--target", help="Emulated board or tile, with --runtime emulator or tile.")
@click.option("--port", help="Serial port or URL, with --runtime device.")
@click.option("--checkpoint", metavar="CKPT", help="What OUT was exported from: the float model to compare with.")
@click.option("--tokenizer", type=click.Path(path_type=Path), help="Of a llama2.c file, if it does not lie beside it.")
@click.option(
    "--text", "text_file", type=click.Path(path_type=Path), help="UTF-8 text to compare on; by default one of ours."
)
@click.option("--tokens", type=click.IntRange(8, 1 << 20), default=512, show_default=True, help="Of that text.")
@tile_options(learns=False)
@trust_option
def validate_command(
    session: Session,
    export: Path,
    runtimes: tuple[str, ...],
    target: str | None,
    port: str | None,
    checkpoint: str | None,
    tokenizer: Path | None,
    text_file: Path | None,
    tokens: int,
    trust: Path | None,
    tiles: Any,
) -> Outcome:
    if checkpoint is not None:
        one_thread_for_small(checkpoint)
    from edgehmn.checkpoint import read_checkpoint
    from edgehmn.exported import Export
    from edgehmn.files import read_text
    from edgehmn.signing import verify_export
    from edgehmn.texts import EVALUATION, shipped
    from edgehmn.validation import validate

    targeted = {"emulator", "tile"} & set(runtimes)
    if (target is not None and len(targeted) != 1) or (port is not None) != ("device" in runtimes):
        raise UsageError("--target goes with --runtime emulator or tile, one of them, and --port with --runtime device")
    if tiles is not None and "tile" not in runtimes:
        raise UsageError("--cell-bits goes with --runtime tile")
    opened = Export.open(export)
    signature = verify_export(opened, trust)
    model = None if checkpoint is None else read_checkpoint(checkpoint, tokenizer=tokenizer)
    text = shipped(EVALUATION) if text_file is None else read_text(text_file)
    report = validate(opened, runtimes, model, text, tokens, session.note, target, port, tiles)
    result = report.as_dict() | {"signature": signature.as_dict()}
    shown = validation_text(report) + "\n\n" + signature.sentence()
    if not report.ok:
        raise QualityGateError(f"{export}: not as it should be\n{shown}", **result)
    return Outcome(result, shown)


def validation_text(report: Any) -> str:
    """The checks, the runtimes side by side, and the signal-to-noise ratio after each layer."""
    checks = [(c.name, "ok" if c.ok else "FAILED", f"{c.figure:g}", f"{c.limit:g}") for c in report.checks]
    parts = [table(checks, ("check", "", "figure", "limit"))] if checks else []
    rows = [
        (r.name, f"{r.perplexity:.3f}", _figure(r.rise, "+.3f"), _figure(r.top1, ".2f"), _figure(r.logit_error, ".3f"),
         _figure(r.hidden_snr, ".1f"))
        for r in report.runtimes
    ]  # fmt: skip
    heading = (f"{report.tokens} tokens", "perplexity", f"% over {report.base}", "same top-1, %", "logit error, nat",
               "hidden, dB")  # fmt: skip
    parts.append(table(rows, heading))
    if report.layers:
        layers = [(str(layer.depth), f"{layer.snr:.1f}", f"{layer.worst_snr:.1f}") for layer in report.layers]
        parts.append(table(layers, ("residual after layer", "image, dB", "worst token, dB")))
    return "\n\n".join(parts)


def _figure(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
