"""eval: the parts of the evaluation plan."""

from pathlib import Path
from typing import Any

import click

from edgehmn.cli.output import Outcome, Session, command, table
from edgehmn.cli.threads import one_thread_for_small
from edgehmn.cli.tiles import tile_options
from edgehmn.errors import UsageError

PARTS = ("p0", "p1", "p2", "p3")
PLANS = (*PARTS, "all", "excerpts")
HELP = """Run PLAN with the model of an export.

\b
p0        WikiText-2 test: static, learning online, frozen snapshots
p1        Persona-Chat, person by person: what own turns are worth
p2        news, code, news, code, and two other such sequences:
          gain, forgetting, what is there when a text returns
p3        operations, writes, bytes, instructions, modelled energy
all       the four
excerpts  fixed excerpts of 2,000 tokens of every .txt and .py file in
          --data: the first half learned, the second scored frozen

\b
Where the texts come from (p3 needs none); --data DIR holds
  wikitext-2/test.txt, valid.txt
      WikiText-2, word level: configuration wikitext-2-v1 of the data
      set "wikitext" on the Hugging Face hub; also wiki.test.tokens
      and wiki.valid.tokens. p0 also takes DIR/test.txt, or a file
  persona-chat/*.txt
      Persona-Chat: valid_self_original.txt of the task "convai2" of
      ParlAI; or lines "them: ..." and "you: ..."
  ag-news/test.csv
      AG News, of the data set "ag_news" on the same hub, saved as
      class, title, description; or test.txt, articles apart by an
      empty line
  text-open/gutenberg*.txt
      any plain books
Code is --code DIR, or else the standard library of this Python.

With --output FOLDER, results.json, table.md and plots are written, and
finished parts are kept: an interrupted run goes on where it was."""


@command("eval", HELP)
@click.argument("plan", type=click.Choice(PLANS))
@click.option("--model", "export", required=True, type=click.Path(path_type=Path), help="An export folder.")
@click.option("--data", multiple=True, type=click.Path(path_type=Path), help="Folder or file; may be repeated.")
@click.option("--code", type=click.Path(path_type=Path), help="Folder with .py files, for p2.")
@click.option(
    "--seeds", type=click.IntRange(1, 100), default=3, show_default=True, help="Runs that differ in what is drawn."
)
@click.option("--tokens", type=click.IntRange(100), help="A short run: at most so many tokens of each text.")
@click.option("--banks", type=click.IntRange(2, 16), default=4, show_default=True, help="Of p2, beside one.")
@click.option("--bleu", type=click.IntRange(0), default=50, show_default=True, help="People of p1 with BLEU.")
@click.option("--output", type=click.Path(path_type=Path), help="Folder for results and finished parts.")
@click.option(
    "--runtime",
    type=click.Choice(["host", "onnx", "tflite", "tile"]),
    default="host",
    show_default=True,
    help="What computes p0.",
)
@click.option("--target", help="Memristive tile, with --runtime tile: neurram, ...; by default hermes.")
@tile_options()
@click.option("--jobs", type=click.IntRange(1, 64), default=1, show_default=True, help="Seeds of a tile at once.")
@click.option("--static-only", is_flag=True, help="p0 without learning.")
@click.option("--float", "with_float", metavar="CKPT", help="p0 also by the float model of this checkpoint.")
@click.option("--excerpts", "count", type=click.IntRange(1, 1000), default=20, show_default=True, help="Of all --data.")
def eval_command(session: Session, plan: str, export: Path, data: tuple[Path, ...], **options: Any) -> Outcome:
    if options["runtime"] != "tile" and (options["target"] or options["tiles"]):
        raise UsageError("--target, --mapping, --cell-bits, --writes and --write-threshold go with --runtime tile")
    if options["runtime"] == "tile" and options["with_float"]:
        raise UsageError("--float does not go with --runtime tile, beside which the digital core stands")
    if plan != "p0" and (options["static_only"] or options["with_float"] or options["runtime"] != "host"):
        raise UsageError("--static-only, --float and --runtime go with p0; all else is learned on the host")
    if options["with_float"] is not None:
        one_thread_for_small(options["with_float"])
    from edgehmn.exported import Export

    opened = Export.open(export)
    if plan == "excerpts":
        return _excerpts(session, opened, data, options["count"])
    return _parts(session, opened, PARTS if plan == "all" else (plan,), data, **options)


def _parts(
    session: Session, export: Any, names: tuple[str, ...], data: tuple[Path, ...], *, code: Path | None, seeds: int,
    tokens: int | None, banks: int, bleu: int, output: Path | None, runtime: str, static_only: bool,
    with_float: str | None, count: int, target: str | None, tiles: Any,
    jobs: int,
) -> Outcome:  # fmt: skip
    from edgehmn.evaluation.plan import check_output, evaluate, write
    from edgehmn.evaluation.report import markdown
    from edgehmn.evaluation.run import Options, Run
    from edgehmn.evaluation.sources import Sources
    from edgehmn.evaluation.store import Store

    asked = Options(seeds, tokens, banks, bleu, runtime, static_only, with_float, target, tiles, jobs)
    if output is not None:
        check_output(output)
    store = Store(output, export.image)
    run = Run(export, Sources(data, code), asked, store, session.progress, session.note)
    results = evaluate(run, names)
    text = markdown(results)
    if output is not None:
        paths = write(results, export.image.id, output, session.note)
        text += "\n\n" + "\n".join(map(str, paths))
    return Outcome(results[names[0]] | results if len(names) == 1 else results, text)


def _excerpts(session: Session, export: Any, data: tuple[Path, ...], count: int) -> Outcome:
    import statistics

    from edgehmn.core import CoreModel
    from edgehmn.excerpts import excerpts
    from edgehmn.learn import personalise

    if not data:
        raise UsageError("no --data given: name files or folders with text")
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
