"""eval: the parts of the evaluation plan."""

from pathlib import Path
from typing import Any

import click

from edgehmn.cli.output import Outcome, Session, command, table
from edgehmn.errors import UsageError

PLANS = ("p0", "excerpts")


@command(
    "eval",
    "Run PLAN on the files in --data. p0: WikiText-2 test (test.txt), static and learning online. excerpts: fixed "
    "excerpts of 2,000 tokens of every .txt and .py file in DIR, the first half learned, the second scored frozen.",
)
@click.argument("plan", type=click.Choice(PLANS))
@click.option("--model", "export", required=True, type=click.Path(path_type=Path), help="An export folder.")
@click.option("--data", required=True, multiple=True, type=click.Path(path_type=Path), help="Folder or file.")
@click.option("--runtime", type=click.Choice(["host", "onnx", "tflite"]), default="host", show_default=True)
@click.option("--static-only", is_flag=True, help="p0 without learning.")
@click.option("--float", "with_float", metavar="CKPT", help="Also run the float model of this checkpoint.")
@click.option("--excerpts", "count", type=click.IntRange(1, 1000), default=20, show_default=True)
def eval_command(session: Session, plan: str, export: Path, data: tuple[Path, ...], **options: Any) -> Outcome:
    from edgehmn.exported import Export

    opened = Export.open(export)
    if plan == "p0":
        return _p0(session, opened, data, **options)
    if options["static_only"] or options["with_float"] or options["runtime"] != "host":
        raise UsageError("excerpts are learned on the host: --static-only, --float and --runtime go with p0")
    return _excerpts(session, opened, data, options["count"])


def _p0(
    session: Session, export: Any, data: tuple[Path, ...], *, runtime: str, static_only: bool,
    with_float: str | None, count: int,
) -> Outcome:  # fmt: skip
    from edgehmn.checkpoint import read_checkpoint
    from edgehmn.evaluate import float_perplexity, text_perplexity
    from edgehmn.files import read_text
    from edgehmn.runtime.select import open_runtime

    if len(data) > 1:
        raise UsageError("p0 reads one text: give one --data")
    path = data[0] / "test.txt" if data[0].is_dir() else data[0]
    text = read_text(path)
    if not text.strip():
        raise UsageError(f"{path}: is empty; perplexity cannot be measured on it")
    total = len(export.encode(text))
    result: dict[str, Any] = {"text": path.name, "tokens": total, "runtime": runtime}
    if with_float:
        with session.progress("float", total) as progress:
            result["float"] = _figures(float_perplexity(read_checkpoint(with_float), text, progress))
    for name, learn in (("static", False), ("online", True)):
        if not (learn and static_only):
            with open_runtime(export, runtime=runtime) as model, session.progress(name, total) as progress:
                result[name] = _figures(text_perplexity(model, export.encode, text, learn=learn, progress=progress))
    kinds = [k for k in ("float", "static", "online") if k in result]
    rows = [
        (k, *(f"{result[k][f]:.4f}" for f in ("token_perplexity", "word_perplexity", "bits_per_byte"))) for k in kinds
    ]
    head = f"{path.name}: {total:,} tokens, {result['static']['words']:,} words, streamed once from an empty context"
    return Outcome(result, head + "\n" + table(rows, ("", "token", "word", "bits/byte")))


def _figures(p: Any) -> dict[str, float]:
    return {
        "word_perplexity": p.word, "token_perplexity": p.token, "bits_per_byte": p.bits_per_byte, "nats": p.nats,
        "words": p.words,
    }  # fmt: skip


def _excerpts(session: Session, export: Any, data: tuple[Path, ...], count: int) -> Outcome:
    import statistics

    from edgehmn.core import CoreModel
    from edgehmn.excerpts import excerpts
    from edgehmn.learn import personalise

    chosen = excerpts(data, export.encode, count)
    if not chosen:
        raise UsageError("no .txt or .py file in --data is long enough for an excerpt of 2,000 tokens")
    rows, falls = [], []
    with session.progress("excerpts", len(chosen)) as progress:
        for name, ids in chosen:
            p = personalise(CoreModel(export.image), ids)
            falls.append(p.fall)
            rows.append((name, f"{p.before:.2f}", f"{p.unigram_cache:.2f}", f"{p.after:.2f}", f"{100 * p.fall:.1f} %"))
            progress(1)
    median = statistics.median(falls)
    result = {
        "excerpts": [{"name": r[0], "fall": f} for r, f in zip(rows, falls, strict=True)],
        "median_fall": median,
    }
    text = table(rows, ("excerpt", "before", "cache", "after", "fall"))
    return Outcome(result, f"{text}\nmedian fall of perplexity: {100 * median:.1f} %, least {100 * min(falls):.1f} %")
