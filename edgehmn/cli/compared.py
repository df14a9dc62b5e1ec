"""state diff: how far two learned states are apart."""

from pathlib import Path
from typing import Any

import click

from edgehmn.cli.output import Outcome, Session, command, table


@command(
    "diff",
    "Say how far the states A and B are apart, names or .ehmd files. With --image, the export that they were learned "
    "with, also which weights and memories differ, and what each does to the guard; with --text, to a text too.",
)
@click.argument("a")
@click.argument("b")
@click.option("--image", "export", metavar="OUT", type=click.Path(path_type=Path), help="The export.")
@click.option("--text", type=click.Path(path_type=Path), help="A text to score with each, weights frozen.")
def diff_command(session: Session, a: str, b: str, export: Path | None, text: Path | None) -> Outcome:
    from edgehmn import states
    from edgehmn.errors import InvalidFileError, UsageError

    if text is not None and export is None:
        raise UsageError("--text needs the model to score it with: name its export with --image OUT")
    found = [(name, states.load(name)) for name in (a, b)]
    first, second = (states.describe(name, state) for name, state in found)
    if first.image_id != second.image_id:
        raise InvalidFileError(
            f"{a} was learned with image {first.image_id[:16]}, {b} with {second.image_id[:16]}: they have nothing in "
            "common that could be compared"
        )
    result: dict[str, Any] = {
        "image_id": first.image_id,
        "states": [{"name": s.name, "learned": s.learned, "banks": s.banks, "bytes": s.bytes} for s in (first, second)],
        "same": found[0][1] == found[1][1],
    }
    if export is not None:
        result |= _by_image(session, export, text, found)
    return Outcome(result, _text(result))


def _by_image(session: Session, export: Path, text: Path | None, found: list[tuple[str, bytes]]) -> dict[str, Any]:
    """The banks in their order, and the text. found: names and states."""
    from edgehmn import states
    from edgehmn.banks import split
    from edgehmn.compare import compare, text_perplexities
    from edgehmn.errors import UsageError
    from edgehmn.exported import Export
    from edgehmn.files import read_text

    opened = Export.open(export)
    for name, state in found:
        states.check_image(name, states.describe(name, state).image_id, opened.image.id)
    both = [state for _, state in found]
    banks = [compare(opened.image, a, b) for a, b in zip(split(both[0]), split(both[1]), strict=False)]
    if text is None:
        return {"banks": banks}
    ids = opened.encode(read_text(text))
    if len(ids) < 2:
        raise UsageError(f"{text}: too short to be scored")
    with session.progress("scoring", 3 * len(ids)) as progress:
        present = [split(state)[0] for state in both]
        scored = text_perplexities(opened.image, [None, *present], ids, progress)
    return {"banks": banks, "text": dict(zip(("frozen", "a", "b"), ({"perplexity": p} for p in scored), strict=True))}


def _text(result: dict[str, Any]) -> str:
    learned = " and ".join(
        f"{s['learned']:,} tokens" + (f" in {s['banks']} banks" if s["banks"] > 1 else "") for s in result["states"]
    )
    parts = [f"learned: {learned}; {'the same to the bit' if result['same'] else 'different'}"]
    rows: list[tuple[str, ...]]
    for number, bank in enumerate(result.get("banks", [])):
        if len(result["banks"]) > 1:
            parts.append(f"\nbank {number}")
        parts += [_weights(bank), _memories(bank)]
        rows = [(name, f"{a:.3f}", f"{b:.3f}") for name, (a, b) in bank["gains"].items()]
        rows.append(("guard, rise in %", *(f"{rise:+.2f}" for rise in bank["guard_rise_percent"])))
        parts.append(table(rows, ("gain at rest", "A", "B")))
    if "text" in result:
        rows = [(name, f"{value['perplexity']:.3f}") for name, value in result["text"].items()]
        parts.append(table(rows, ("the text with", "perplexity")))
    return "\n\n".join(parts)


def _weights(bank: dict[str, Any]) -> str:
    rows = []
    for w in bank["weights"]:
        cosine = "-" if w["cosine"] is None else f"{w['cosine']:.3f}"
        sizes = [f"{w[key]:.3f}" for key in ("rms_a", "rms_b", "rms_difference")]
        rows.append((w["name"], f"{100 * w['differing'] / w['n']:.1f} %", *sizes, cosine))
    return table(rows, ("weights, in least bits", "differ", "rms A", "rms B", "rms A - B", "cosine"))


def _memories(bank: dict[str, Any]) -> str:
    rows = [(m["name"], f"{m['entries_a']:,}", f"{m['entries_b']:,}", f"{m['shared']:,}") for m in bank["memories"]]
    return table(rows, ("memory, entries", "A", "B", "shared"))
