"""state settle: the gate for what was learned elsewhere, on a device by itself or without the gate."""

from pathlib import Path

import click

from edgehmn.cli.output import Outcome, Session, command


@command(
    "settle",
    "Judge what the device at --port has learned, or the state --name, as personalise does: where ordinary text would "
    "suffer, its gains at rest are turned down until it does not. OUT is the export that it was learned with.",
)
@click.argument("export", metavar="OUT", type=click.Path(path_type=Path))
@click.option("--port", help="Device, as a pyserial URL, unix://PATH or ssh://USER@NAME.")
@click.option("--name", help="A state, by name or .ehmd file; it is replaced.")
def settle_command(session: Session, export: Path, port: str | None, name: str | None) -> Outcome:
    from contextlib import ExitStack

    import numpy as np

    from edgehmn import states
    from edgehmn.cli.gated import gate_result, gate_sentence
    from edgehmn.errors import LearningDivergedError, UsageError
    from edgehmn.exported import Export
    from edgehmn.gate import judge
    from edgehmn.runtime.select import open_runtime

    if (port is None) == (name is None):
        raise UsageError("say what is to be settled: either --port or --name")
    opened = Export.open(export)
    image = opened.image
    with ExitStack() as stack:
        device = None
        if port is not None:
            device = stack.enter_context(open_runtime(opened, runtime="device", port=port))
        state = states.load(str(name)) if device is None else device.save()
        states.check_image(str(name or port), states.describe(str(name or port), state).image_id, image.id)
        verdict, kept = judge(image, state, np.empty(0, np.uint32))
        result = gate_result(0, verdict)
        if verdict.refused:
            raise LearningDivergedError(
                f"{verdict.saturated:.1%} of the weights of a kind stand at their limit: go back to an earlier state "
                "(it is left as it is)", **result,
            )  # fmt: skip
        if kept != state and device is not None:
            device.load(kept)
        elif kept != state:
            states.save(str(name), kept)
    how = "stays as it is" if kept == state else "was settled"
    return Outcome(result, f"{name or port} {how}; {gate_sentence(verdict)}")
