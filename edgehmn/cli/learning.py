"""run and personalise: a model at work, wherever it runs."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from edgehmn.cli.output import Outcome, Session, command, table
from edgehmn.cli.tiles import tile_options
from edgehmn.cli.types import Number
from edgehmn.errors import UsageError

MAX_BANKS = 16  # checked against EHMN_MAX_BANKS by a test: the core is not loaded to print help
MAX_THREADS = 64  # the same of EHMN_MAX_THREADS
PROVIDERS = ("cpu", "cuda", "tensorrt")
RUNTIMES = ("host", "onnx", "tflite", "tile", "emulator", "device")


def runtime_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Where the model runs, shared by all commands that run one."""
    function = tile_options()(function)
    for option in reversed(
        [
            click.option(
                "--runtime",
                type=click.Choice(RUNTIMES),
                default="host",
                show_default=True,
                help="What computes: the core here, onnxruntime, LiteRT, a simulated tile, or a board.",
            ),
            click.option(
                "--target",
                help="Emulated board, by default mps2-an386, or tile, by default hermes ('edgehmn targets').",
            ),
            click.option("--port", help="Device, as a pyserial URL: /dev/ttyACM0, socket://127.0.0.1:3333."),
            click.option("--host", help="Linux board, as USER@NAME for ssh, in the place of --port."),
            click.option(
                "--provider", type=click.Choice(PROVIDERS), default="cpu", show_default=True, help="Of onnxruntime."
            ),
            click.option(
                "--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True, help="Start of every draw."
            ),
            click.option(
                "--banks",
                type=click.IntRange(1, MAX_BANKS),
                default=1,
                show_default=True,
                help="Deltas, chosen by topic (host).",
            ),
            click.option(
                "--threads",
                type=click.IntRange(1, MAX_THREADS),
                default=1,
                show_default=True,
                help="For large matrices (host).",
            ),
            click.option(
                "--timeout",
                type=Number(0.1),
                default=60.0,
                show_default=True,
                help="Seconds that a board has for an answer.",
            ),
            click.option("--load-state", help="Learned state to start from: a name or a .ehmd file."),
        ]
    ):
        function = option(function)
    return function


@command("run", "Continue the text PROMPT with the model of the export OUT.")
@click.argument("export", metavar="OUT", type=click.Path(path_type=Path))
@click.argument("prompt")
@click.option("-n", "--tokens", type=click.IntRange(1, 100_000), default=64, show_default=True, help="To write.")
@click.option("--temperature", type=Number(0, 16), default=0.0, show_default=True, help="0 is greedy.")
@runtime_options
def run_command(
    session: Session, export: Path, prompt: str, tokens: int, temperature: float, load_state: str | None,
    **where: Any,
) -> Outcome:  # fmt: skip
    from edgehmn import states
    from edgehmn.exported import Export
    from edgehmn.runtime.select import open_runtime

    opened = Export.open(export)
    ids = opened.encode(prompt)
    if not len(ids):
        raise UsageError("the prompt is empty: give some text to continue")
    with open_runtime(opened, **where) as runtime:
        if load_state:
            states.load_into(runtime, load_state, where["banks"])
        began = time.perf_counter()
        runtime.process(ids, learn=False, follow=True)
        out = runtime.generate(tokens, temperature=temperature)
        seconds = time.perf_counter() - began
        counts = runtime.counts()
    if counts.rollbacks:
        from edgehmn.cli.gated import raise_if_refused

        raise_if_refused(counts.rollbacks, None, None, text=opened.decode(out))
    text = opened.decode(out)
    result: dict[str, Any] = {"text": text, "tokens": len(out)}
    cost = tile_cost(runtime)
    if cost is not None:
        result["tile"] = cost
        note = (
            f"{cost['energy_nj_per_token'] / 1e3:.2f} uJ and {cost['latency_us_per_token']:.1f} us of tiles per token "
            f"({cost['calibrated_to']})"
        )
    elif counts.step_instructions is None:
        result["tokens_per_s"] = (len(ids) + len(out)) / seconds
        place = "the device, its line included" if where["runtime"] == "device" else "this host"
        note = f"{result['tokens_per_s']:,.0f} tokens/s on {place} (measured)"
    else:
        result["instructions_per_token"] = counts.step_instructions / counts.steps
        note = f"{result['instructions_per_token']:,.0f} instructions per token (emulated)"
    session.note(note)
    return Outcome(result, prompt + text)


@command(
    "personalise",
    "Learn the first half of TEXT with the model of OUT, and score the second half before and after. Several "
    "files are one text, in the order given, as are the .txt and .md files of a folder. '-' is standard input, learned "
    "line by line as it is typed. With --save-state, one that was interrupted goes on when it is started again.",
)
@click.argument("export", metavar="OUT", type=click.Path(path_type=Path))
@click.argument("texts", metavar="TEXT...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--save-state", help="Keep what was learned: a name or a .ehmd file.")
@click.option("--gate/--no-gate", default=True, help="Keep it only if ordinary text stays as it was (the default).")
@click.option("--dry-run", is_flag=True, help="Open all that is needed and say what would be done; learn nothing.")
@runtime_options
def personalise_command(
    session: Session, export: Path, texts: tuple[Path, ...], save_state: str | None, gate: bool, dry_run: bool,
    load_state: str | None, **where: Any,
) -> Outcome:  # fmt: skip
    if Path("-") in texts:
        if len(texts) > 1:
            raise UsageError("'-' is standard input, learned as it is typed: it goes alone")
        if dry_run:
            raise UsageError("--dry-run goes with files: what will be typed is not known before")
        from edgehmn import states
        from edgehmn.cli.live import personalise_live
        from edgehmn.files import alone_at

        with alone_at(states.path_of(save_state) if save_state else None):
            return personalise_live(session, export, save_state, load_state, gate, where)
    from edgehmn import states
    from edgehmn.cli.gated import (
        check_save_state,
        dry_personalisation,
        gate_sentence,
        keeper_of,
        personalisation_result,
        raise_if_refused,
        telling_how_to_go_on,
    )
    from edgehmn.exported import Export
    from edgehmn.files import alone_at, read_texts
    from edgehmn.learn import personalise
    from edgehmn.runtime.select import open_runtime

    if save_state:
        check_save_state(session, save_state, load_state)
    opened = Export.open(export)
    ids = opened.encode(read_texts(texts))
    keeper = keeper_of(save_state, opened.image.id, ids, load_state, where)
    with (
        alone_at(None if keeper is None else keeper.output),
        open_runtime(opened, **where) as runtime,
        session.progress("personalising", len(ids) * 3 // 2) as progress,
        telling_how_to_go_on(session, keeper),
    ):
        if load_state and (keeper is None or keeper.read() is None):
            states.load_into(runtime, load_state, where["banks"])
        if dry_run:
            return dry_personalisation(ids, where["runtime"], keeper)
        outcome = personalise(
            runtime,
            ids,
            progress=progress,
            gate=opened.image if gate and where["runtime"] != "tile" else None,
            keeper=keeper,
            banks=where["banks"],
        )
        cost = tile_cost(runtime)
        refused = outcome.verdict is not None and outcome.verdict.refused
        saved = str(states.save(save_state, outcome.delta)) if save_state and not refused else None
        if keeper is not None:
            keeper.remove()
    result = personalisation_result(outcome, where["banks"]) | ({} if cost is None else {"tile": cost})
    raise_if_refused(outcome.learning.rollbacks, outcome.verdict, saved, **result)
    text = f"{personalisation_text(outcome)}\n{gate_sentence(outcome.verdict)}" + (
        f"\nlearned state: {saved}" if saved else ""
    )
    return Outcome(result | {"saved": saved}, text)


def tile_cost(runtime: Any) -> dict[str, Any] | None:
    """What a simulated memristive tile would have spent, None for any other runtime."""
    cost: Any = getattr(runtime, "cost", None)  # no other runtime has one
    return None if cost is None else dict(cost().as_dict())


def personalisation_text(outcome: Any) -> str:
    """What a personalisation was worth, as a table."""
    rows = [
        ("before learning", f"{outcome.before:.3f}"),
        ("with a unigram cache of the first half", f"{outcome.unigram_cache:.3f}"),
        ("after learning the first half", f"{outcome.after:.3f}"),
    ]
    went = f"{'fell' if outcome.fall >= 0 else 'rose'} by {100 * abs(outcome.fall):.1f} %"
    return (
        table(rows, ("second half, weights frozen", "perplexity"))
        + f"\n\nperplexity {went}; {outcome.tokens} tokens, "
        + f"{outcome.learning.writes_per_learned_token:,.0f} weight steps per learned token"
    )
