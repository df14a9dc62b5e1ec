"""export, inspect, validate, plan: from a checkpoint to an export, and what an export is."""

from pathlib import Path
from typing import Any

import click

from edgehmn.cli.output import Outcome, Session, command, table
from edgehmn.errors import QualityGateError, UsageError

FORMATS = ("image", "onnx", "tflite", "c", "all")


@command("export", "Quantise the trained model CKPT (a directory, or the word 'reference') into a folder.")
@click.argument("checkpoint", metavar="CKPT")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Folder to write.")
@click.option("--format", "formats", type=click.Choice(FORMATS), multiple=True, default=("image",), show_default=True)
@click.option("--calibration", type=click.Path(path_type=Path), help="UTF-8 text to calibrate on.")
@click.option("--evaluation", type=click.Path(path_type=Path), help="UTF-8 text to measure perplexity on.")
@click.option("--max-ppl-increase", type=float, help="Largest allowed rise over float, in per cent.")
def export_command(
    session: Session,
    checkpoint: str,
    output: Path,
    formats: tuple[str, ...],
    calibration: Path | None,
    evaluation: Path | None,
    max_ppl_increase: float | None,
) -> Outcome:
    from edgehmn.checkpoint import read_checkpoint
    from edgehmn.export.pipeline import FORMATS as ALL
    from edgehmn.export.pipeline import export_model
    from edgehmn.files import read_text
    from edgehmn.texts import EVALUATION, shipped

    chosen = ALL if "all" in formats else formats
    result = export_model(
        read_checkpoint(checkpoint),
        output,
        chosen,
        evaluation_text=read_text(evaluation) if evaluation else shipped(EVALUATION),
        calibration_text=read_text(calibration) if calibration else None,
        max_increase=max_ppl_increase,
        report=session.note,
    )
    return Outcome(result.as_dict(), export_text(result))


def export_text(result: Any) -> str:
    """Sizes and perplexities of an export, as tables."""
    files = [(a["path"], f"{a['bytes']:,}", a["sha256"][:12]) for a in result.artefacts]
    base = result.perplexity["float"].token
    quality = [
        (
            kind,
            f"{p.token:.3f}",
            f"{p.word:.2f}",
            f"{p.bits_per_byte:.4f}",
            f"{100 * (p.token / base - 1):+.3f} %",
        )
        for kind, p in result.perplexity.items()
    ]
    return "\n".join(
        [
            f"{result.folder}  image {result.image_id[:16]}",
            "",
            table(files, ("file", "bytes", "sha256")),
            "",
            table(quality, ("perplexity of", "token", "word", "bits/byte", "over float")),
        ]
    )


@command("inspect", "Say what FILE is: an export folder, an image, a learned state.")
@click.argument("file", type=click.Path(path_type=Path))
def inspect_command(session: Session, file: Path) -> Outcome:
    from edgehmn.inspection import inspect

    facts = inspect(file)
    rows = [("kind", str(facts["kind"])), ("image_id", str(facts["image_id"]))]
    rows += [(k, str(v)) for k, v in facts["config"].items()]
    return Outcome(facts, "\n".join(f"{k:<16}{v}" for k, v in rows))


@command("validate", "Re-open the export OUT and check hashes, integer results and perplexity of each runtime.")
@click.argument("export", metavar="OUT", type=click.Path(path_type=Path))
@click.option("--runtime", "runtimes", multiple=True, type=click.Choice(["host", "onnx", "tflite", "emulator"]))
def validate_command(session: Session, export: Path, runtimes: tuple[str, ...]) -> Outcome:
    from edgehmn.exported import Export
    from edgehmn.validation import validate

    checks = validate(Export.open(export), runtimes, session.note)
    rows = [(c.name, "ok" if c.ok else "FAILED", f"{c.figure:g}", f"{c.limit:g}") for c in checks]
    text = table(rows, ("check", "", "figure", "limit"))
    result = {"ok": all(c.ok for c in checks), "checks": [c.as_dict() for c in checks]}
    if not result["ok"]:
        raise QualityGateError(f"{export}: not as it should be\n{text}", **result)
    return Outcome(result, text)


@command("plan", "Memory that the export OUT needs: image, arena by region, learned state.")
@click.argument("export", metavar="OUT", type=click.Path(path_type=Path))
@click.option("--arena", type=click.IntRange(min=0), help="Check that an arena of this many bytes would do.")
def plan_command(session: Session, export: Path, arena: int | None) -> Outcome:
    from edgehmn.core import CoreModel
    from edgehmn.exported import Export
    from edgehmn.planning import plan

    opened = Export.open(export)
    facts = plan(opened.image)
    if arena is not None:
        if arena > 1 << 31:
            raise UsageError(f"--arena {arena}: more than a 32-bit device can have")
        CoreModel(opened.image, arena_bytes=arena).close()
    rows = [
        ("image (flash)", f"{facts['image_bytes']:,}"),
        ("arena, learning", f"{facts['arena_bytes']:,}"),
        ("arena, static", f"{facts['arena_static_bytes']:,}"),
        ("learned state", f"{facts['delta_bytes']:,}"),
    ]
    regions = [
        (r["name"], f"{r['bytes']:,}", f"{100 * r['bytes'] / facts['arena_bytes']:.1f} %") for r in facts["regions"]
    ]
    text = table(rows, ("memory", "bytes")) + "\n\n" + table(regions, ("region of the arena", "bytes", "share"))
    return Outcome(facts, text)
