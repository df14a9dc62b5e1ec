"""export and plan: from a checkpoint to an export, and the memory that one needs."""

from pathlib import Path
from typing import Any

import click

from edgehmn.cli.output import Outcome, Session, command, table
from edgehmn.cli.threads import one_thread_for_small
from edgehmn.cli.types import Number
from edgehmn.errors import UsageError

FORMATS = ("image", "onnx", "tflite", "c", "cmake", "arduino", "esp-idf", "zephyr", "all")


EXPORT_HELP = """Quantise the trained model CKPT into a folder.

CKPT is the word 'reference' (the model that ships), a directory of ours or of Hugging Face (Llama, Mistral, Qwen2,
GPT-2), a GGUF file or a llama2.c file. Nothing in it is executed. docs/checkpoints.md has the details."""


@command("export", EXPORT_HELP)
@click.argument("checkpoint", metavar="CKPT")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Folder to write.")
@click.option(
    "--format",
    "formats",
    type=click.Choice(FORMATS),
    multiple=True,
    default=("image",),
    show_default=True,
    help="May be given more than once; 'all' is image, onnx, tflite and c.",
)
@click.option("--context", type=click.IntRange(min=1), help="Positions in the window; by default at most 512.")
@click.option("--tokenizer", type=click.Path(path_type=Path), help="Tokenizer of a llama2.c file, if not beside it.")
@click.option(
    "--calibration", type=click.Path(path_type=Path), help="UTF-8 text to calibrate on; by default one of ours."
)
@click.option(
    "--evaluation", type=click.Path(path_type=Path), help="UTF-8 text to measure perplexity on; by default one of ours."
)
@click.option(
    "--max-ppl-increase",
    type=Number(-100),
    help="Largest allowed rise over float, in per cent; by default 1, and 2 for TFLite.",
)
@click.option("--weights", type=click.Choice(("8", "4")), default="8", show_default=True, help="Bits in the image.")
@click.option(
    "--inputs",
    type=click.Choice(("16", "8", "auto")),
    default="auto",
    show_default=True,
    help="Bits of what the image's matrices multiply; 'auto': 8 where little is lost by it.",
)
@click.option("--target", help="A board: make the learned state small enough to learn and save there.")
@click.option("--sign", type=click.Path(path_type=Path), help="Sign the export with this private Ed25519 key (PEM).")
def export_command(
    session: Session, checkpoint: str, output: Path, formats: tuple[str, ...], **options: Any
) -> Outcome:
    one_thread_for_small(checkpoint)
    from edgehmn.checkpoint import Checkpoint, read_checkpoint
    from edgehmn.export.pipeline import ALL, Settings, export_model
    from edgehmn.files import read_text
    from edgehmn.signing import SigningKey
    from edgehmn.texts import EVALUATION, shipped

    key = SigningKey(options["sign"]) if options["sign"] else None
    evaluation, calibration = options["evaluation"], options["calibration"]
    settings = Settings(
        formats=tuple(dict.fromkeys(f for chosen in formats for f in (ALL if chosen == "all" else (chosen,)))),
        evaluation_text=read_text(evaluation) if evaluation else shipped(EVALUATION),
        calibration_text=read_text(calibration) if calibration else None,
        max_increase=options["max_ppl_increase"],
        weight_bits=int(options["weights"]),
        inputs=options["inputs"],
        board=options["target"],
        key=key,
    )

    def read() -> Checkpoint:
        return read_checkpoint(checkpoint, n_ctx=options["context"], tokenizer=options["tokenizer"])

    result = export_model(read, output, settings, session.note)
    return Outcome(result.as_dict() | {"signed_by": result.signed_by}, export_text(result))


def export_text(result: Any) -> str:
    """Sizes, perplexities and losses of an export, as tables."""
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
    signed = [f"signed by {result.signed_by}"] if result.signed_by else []
    return "\n".join(
        [
            f"{result.folder}  image {result.image_id[:16]}",
            f"tokenizer {result.tokenizer}",
            *signed,
            "",
            table(files, ("file", "bytes", "sha256")),
            "",
            table(quality, ("perplexity of", "token", "word", "bits/byte", "over float")),
            "",
            noise_table(result.noise["image"]),
        ]
    )


def noise_table(rows: list[dict[str, Any]]) -> str:
    """Signal-to-noise of the image's matrices, layer by layer: the worst matrix of each, and the head."""
    layers: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        layers.setdefault(row["matrix"].rpartition(".")[0] or row["matrix"], []).append(row)
    cells = []
    for layer, own in layers.items():
        worst = min(own, key=lambda row: row["inputs_16"])
        figures = (worst["weights"], worst["inputs_16"], min(row["inputs_8"] for row in own))
        cells.append((layer, worst["matrix"].rpartition(".")[2], *(f"{figure:.1f} dB" for figure in figures)))
    return table(cells, ("matrices of", "worst", "its weights", "16-bit inputs", "8-bit inputs"))


@command("plan", "Say what memory the export OUT needs: image, arena by region, learned state.")
@click.argument("export", metavar="OUT", type=click.Path(path_type=Path))
@click.option("--arena", type=click.IntRange(min=0), help="Check that an arena of this many bytes would do.")
@click.option("--target", help="Check that a board has room for it, and how often it can store what it learned.")
@click.option(
    "--years",
    type=Number(0, 1000, min_open=True),
    default=10.0,
    show_default=True,
    help="How long its flash is to last.",
)
def plan_command(session: Session, export: Path, arena: int | None, target: str | None, years: float) -> Outcome:
    from edgehmn.core import CoreModel
    from edgehmn.exported import Export
    from edgehmn.planning import plan

    opened = Export.open(export)
    facts = plan(opened.image, target, years)
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
    for fit in facts["targets"]:
        rooms = (f"{fit['image_bytes']:,} of {fit['image_room']:,}", f"{fit['arena_bytes']:,} of {fit['arena_room']:,}")
        able = f"{'learns' if fit['learns'] else 'runs frozen'}{', saves' if fit['saves'] else ''}"
        rows += [(f"flash of {fit['board']}", rooms[0]), (f"RAM of {fit['board']}: {able}", rooms[1])]
    text = table(rows, ("memory", "bytes")) + "\n\n" + table(regions, ("region of the arena", "bytes", "share"))
    kept = [(fit, fit["write_budget"]) for fit in facts["targets"] if fit["learns"] and fit["write_budget"]]
    budgets = [budget_text(budget) for fit, budget in kept if fit["saves"] or not budget["states_per_erase"]]
    return Outcome(facts, "\n\n".join([text, *budgets]))


def budget_text(budget: dict[str, Any]) -> str:
    """How often a learned state can be stored in a board's flash."""
    if not budget["states_per_erase"]:
        return (
            f"a stored state takes {budget['record_bytes']:,} bytes and a slot of the flash has "
            f"{budget['slot_bytes']:,}: this board cannot keep one"
        )
    slots = f"2 slots of {budget['slot_bytes']:,} bytes, room for {budget['states_per_erase']} before each erase"
    if budget["saves"] is None:
        return f"{slots}; how often the flash may be erased is not known"
    return (
        f"{slots}; {budget['erase_cycles']:,} erases ({budget['source'] or 'no source given'})\n"
        f"write budget: {budget['saves']:,} saves, {budget['saves_per_day']:,.1f} a day for {budget['years']:g} years"
    )
