"""tune: search for the rule's parameters that learn a text best."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from edgehmn.cli.output import Outcome, Session, command, table
from edgehmn.cli.types import Number
from edgehmn.errors import UsageError

METHODS = {"spsa": "spsa", "random": "random_search", "cma": "cma"}
LABELS = {"start": "start", "spsa": "SPSA", "random_search": "random search", "cma": "CMA-ES"}


@command(
    "tune",
    "Search for the parameters of the plasticity rule with which the model of the export OUT learns the texts in "
    "--data best, and write them into a new export. The first half of each text is tuned on, the second shows whether "
    "it carries over. Never tune on a text on which you mean to test.",
)
@click.argument("export", metavar="OUT", type=click.Path(path_type=Path))
@click.option(
    "--data",
    "paths",
    required=True,
    multiple=True,
    type=click.Path(path_type=Path),
    help="UTF-8 text; may be repeated.",
)
@click.option("--tokens", type=click.IntRange(min=32), default=4000, show_default=True, help="Of each text.")
@click.option("--budget", type=click.IntRange(min=1), default=60, show_default=True, help="Evaluations of a method.")
@click.option(
    "--method", "methods", type=click.Choice([*METHODS, "all"]), multiple=True, default=("spsa", "random"),
    show_default=True, help="May be given more than once; the best rule is kept.",
)  # fmt: skip
@click.option("--parameters", metavar="NAME,...", help="Default: every strength that is switched on.")
@click.option(
    "--meta-rates", type=(Number(0, 1), Number(0, 1)), default=(0.1, 0.1), show_default=True,
    metavar="LOCAL GLOBAL", help="First step of SPSA for eta_local and for eta_global, as a share of each.",
)  # fmt: skip
@click.option(
    "--stability", type=Number(0, 1e6), default=0.0, show_default=True,
    help="Weight of the mean square of the dense weights in the loss; the paper has 0.01.",
)  # fmt: skip
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True, help="Start of every draw.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Folder to write the tuned export to.")
@click.option("--sign", type=click.Path(path_type=Path), help="Sign what -o writes with this Ed25519 key (PEM).")
def tune_command(
    session: Session, export: Path, paths: tuple[Path, ...], tokens: int, methods: tuple[str, ...],
    parameters: str | None, output: Path | None, sign: Path | None, **options: Any,
) -> Outcome:  # fmt: skip
    from edgehmn.core import Image
    from edgehmn.exported import Export
    from edgehmn.image import with_rule
    from edgehmn.rules import read_rule
    from edgehmn.signing import SigningKey, sign_export
    from edgehmn.tuning.evolution import import_cma
    from edgehmn.tuning.parameters import Space
    from edgehmn.tuning.tune import Settings, encode_texts, evaluations, read_halves, tune
    from edgehmn.tuning.written import write_tuned

    if sign and output is None:
        raise UsageError("--sign: nothing is written without -o FOLDER")
    key = SigningKey(sign) if sign else None
    opened = Export.open(export)
    chosen = tuple(METHODS.values()) if "all" in methods else tuple(dict.fromkeys(METHODS[m] for m in methods))
    if "cma" in chosen:
        import_cma()  # if it is missing, say so before the work and not after it
    space = Space(read_rule(opened.image), _names(parameters))
    settings = Settings(chosen, **options)
    texts = [read_halves(path, opened.encode, tokens) for path in paths]
    with _folder(output) as work:
        with session.progress("encoding", sum(len(t.tuned) + len(t.held_out) for t in texts)) as progress:
            streams = encode_texts(opened.image, texts, progress)
        with session.progress("tuning", evaluations(settings)) as progress:
            tuning = tune(opened.image, space, texts, streams, settings, progress)
        image = Image(with_rule(opened.image.bytes.tobytes(), tuning.chosen.rule))
        result = tuning.as_dict() | {"start_image_id": opened.image.id, "image_id": image.id}
        text = tuning_text(tuning)
        if work is not None:
            artefacts = write_tuned(opened, image, result, work)
            signed_by = sign_export(work, key) if key else None
            result = result | {"output": str(output), "artefacts": artefacts, "signed_by": signed_by}
            text += f"\n\n{output}  image {image.id[:16]}{_signed(opened, signed_by)}"
    return Outcome(result, text)


def tuning_text(tuning: Any) -> str:
    """Losses of every candidate, parameters before and after, and what was tuned on."""
    candidates = {"start": tuning.start} | tuning.found
    losses = [(LABELS[k], f"{c.loss:.4f}", f"{c.held_out:.4f}") for k, c in candidates.items()]
    before, after = tuning.space.values(tuning.start.rule), tuning.space.values(tuning.chosen.rule)
    values = [(name, f"{before[name]:.4g}", f"{after[name]:.4g}") for name in before]
    files = [
        f"tuned on {len(t.tuned):,} tokens of {t.name} (SHA-256 {t.sha256[:16]}), the next {len(t.held_out):,} held out"
        for t in tuning.texts
    ]
    best = "nothing better than the start was found" if tuning.best == "start" else f"best: {LABELS[tuning.best]}"
    if tuning.chosen.held_out > tuning.start.held_out:
        best += "; it does NOT carry over to the held-out halves: tune on more text, or keep the start"
    return "\n".join(
        [
            table(losses, ("nats per token, online", "tuned on", "held out")),
            "",
            f"{best} ({tuning.settings.budget} evaluations of each method)",
            "",
            table(values, ("parameter", "start", "best")),
            "",
            *files,
        ]
    )


def _signed(start: Any, signed_by: str | None) -> str:
    """By whom the new export is signed; that it is not, where the one that was tuned is."""
    from edgehmn.exported import SIGNATURE

    if signed_by:
        return f"\nsigned by {signed_by}"
    if (start.folder / SIGNATURE).exists():
        return "\nnot signed, unlike the export that was tuned: --sign KEY signs it"
    return ""


def _names(parameters: str | None) -> tuple[str, ...]:
    """The names of --parameters. Raises UsageError if it is given and holds none."""
    if parameters is None:
        return ()
    names = tuple(name.strip() for name in parameters.split(",") if name.strip())
    if not names:
        raise UsageError("--parameters: name at least one parameter")
    return names


@contextlib.contextmanager
def _folder(output: Path | None) -> Iterator[Path | None]:
    """The folder in which a new export is put together, if one is wanted; a place that cannot be written is found out
    before the work begins."""
    from edgehmn.exported import holds_only_an_export
    from edgehmn.files import new_folder

    if output is None:
        yield None
        return
    with new_folder(output, holds_only_an_export) as work:
        yield work
