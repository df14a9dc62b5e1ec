"""replay: what was done to a model, recorded and done again to the bit."""

from pathlib import Path
from typing import Any

import click

from edgehmn.cli.learning import runtime_options
from edgehmn.cli.output import Group, Outcome, Session, command
from edgehmn.cli.types import Number

MODES = {"learn": (True, False), "follow": (False, True), "score": (False, False)}
BLOCK = 64  # tokens between two steps of the progress bar


@click.group("replay", cls=Group, help="Record what a model was taught, and reproduce it to the bit on any runtime.")
def replay_command() -> None:
    pass


@command(
    "record",
    "Run TEXT through the model of the export OUT, and keep every call in --output, tokens included.",
)
@click.argument("export", metavar="OUT", type=click.Path(path_type=Path))
@click.argument("texts", metavar="TEXT...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="The replay file, .ehmr.")
@click.option(
    "--mode",
    type=click.Choice(list(MODES)),
    default="learn",
    show_default=True,
    help="Each token of TEXT is learned, moves the gains alone, or is scored only.",
)
@click.option(
    "-n",
    "--tokens",
    type=click.IntRange(0, 100_000),
    default=0,
    show_default=True,
    help="Then continue for so many tokens.",
)
@click.option("--temperature", type=Number(0, 16), default=1.0, show_default=True, help="Of those; 0: greedy.")
@runtime_options
def record_command(
    session: Session, export: Path, texts: tuple[Path, ...], output: Path, mode: str, tokens: int, temperature: float,
    load_state: str | None, **where: Any,
) -> Outcome:  # fmt: skip
    from edgehmn import states
    from edgehmn.errors import UsageError
    from edgehmn.exported import Export
    from edgehmn.files import check_place, check_replaceable, read_texts
    from edgehmn.replay import MAGIC, Recorder
    from edgehmn.runtime.select import open_runtime

    opened = Export.open(export)
    ids = opened.encode(read_texts(texts))
    if not len(ids):
        raise UsageError("the text is empty: give some to record")
    learn, follow = MODES[mode]
    check_place(output)
    check_replaceable(output, "replay", MAGIC)
    with open_runtime(opened, **where) as runtime, session.progress("recording", len(ids)) as progress:
        recorder = Recorder(runtime, where["seed"])
        if load_state:
            states.load_into(recorder, load_state, where["banks"])
        for at in range(0, len(ids), BLOCK):
            block = ids[at : at + BLOCK]
            recorder.process(block, learn=learn, follow=follow)
            progress(len(block))
        text = opened.decode(recorder.generate(tokens, temperature=temperature)) if tokens else ""
        replay = recorder.finish()
    replay.write(output)
    result = {"path": str(output), "image_id": replay.image_id, "tokens": replay.counts(), "text": text}
    line = f"{output}  {len(ids)} tokens, delta {replay.delta_sha256[:16]}"
    return Outcome(result | {"delta_sha256": replay.delta_sha256}, line + (f"\n{text}" if text else ""))


@command("run", "Do again what the replay FILE recorded, with the model of the export OUT; it must come out the same.")
@click.argument("export", metavar="OUT", type=click.Path(path_type=Path))
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@click.option("--save-state", help="Keep what was learned: a name or a .ehmd file.")
@runtime_options
def run_command(
    session: Session, export: Path, file: Path, save_state: str | None, load_state: str | None, **where: Any
) -> Outcome:
    from edgehmn import states
    from edgehmn.errors import QualityGateError, UsageError
    from edgehmn.exported import Export
    from edgehmn.replay import Replay, again
    from edgehmn.runtime.select import open_runtime

    if load_state:
        raise UsageError("a replay holds the state that it starts from; leave --load-state out")
    if save_state:
        states.check_output(states.path_of(save_state))
    opened, replay = Export.open(export), Replay.read(file)
    with (
        open_runtime(opened, **where) as runtime,
        session.progress("replaying", sum(replay.counts().values())) as progress,
    ):
        outcome = again(replay, runtime, progress, str(file))
    result = {
        "tokens": replay.counts(),
        "delta_sha256": outcome.delta_sha256,
        "same": {"delta": outcome.same_delta, "results": outcome.same_results},
    }
    if not (outcome.same_delta and outcome.same_results):
        raise QualityGateError(f"{file}: came out differently on {where['runtime']}; compare versions", **result)
    saved = str(states.save(save_state, outcome.delta)) if save_state else None
    text = f"the same to the bit: {sum(replay.counts().values())} tokens, delta {outcome.delta_sha256[:16]}"
    return Outcome(result | {"saved": saved}, text + (f"\nlearned state: {saved}" if saved else ""))


for _command in (record_command, run_command):
    replay_command.add_command(_command)
