"""state: what was learned, as named files on the host."""

from pathlib import Path

import click

from edgehmn.cli.compared import diff_command
from edgehmn.cli.output import Group, Outcome, Session, command, table
from edgehmn.cli.settled import settle_command
from edgehmn.cli.stored import stored_commands


@click.group("state", cls=Group, help="Save, load, list and compare what was learned.")
def state_command() -> None:
    pass


def _row(state: object) -> dict[str, object]:
    from edgehmn.states import State

    assert isinstance(state, State)
    return {
        "name": state.name, "image_id": state.image_id, "confirmed": True, "bytes": state.bytes,
        "learned": state.learned, "banks": state.banks,
    }  # fmt: skip


def _amount(state: object) -> str:
    from edgehmn.states import State

    assert isinstance(state, State)
    banks = f" in {state.banks} banks" if state.banks > 1 else ""
    return f"{state.learned} tokens learned{banks}, {state.bytes:,} bytes"


@command("save", "Fetch what the device at --port has learned, or take the file --from, and keep it as NAME.")
@click.argument("name")
@click.option("--port", help="Device, as a pyserial URL, unix://PATH or ssh://USER@NAME.")
@click.option("--from", "source", type=click.Path(path_type=Path), help="A .ehmd file.")
def save_command(session: Session, name: str, port: str | None, source: Path | None) -> Outcome:
    from edgehmn import states
    from edgehmn.errors import UsageError
    from edgehmn.files import read_bytes

    if (port is None) == (source is None):
        raise UsageError("say where the state comes from: either --port or --from")
    if port is None:
        assert source is not None
        delta = read_bytes(source)
    else:
        from edgehmn.runtime.select import open_device

        with open_device(port) as runtime:
            delta = runtime.save()
    states.describe(str(port or source), delta)  # what is wrong with it is said of where it comes from
    path = states.save(name, delta)
    state = states.describe(name, delta)
    return Outcome({"states": [_row(state)]}, f"{path}  {_amount(state)}")


@command("load", "Give the state NAME to the device at --port, or write it to the file --to.")
@click.argument("name")
@click.option("--port", help="Device, as a pyserial URL, unix://PATH or ssh://USER@NAME.")
@click.option("--to", "target", type=click.Path(path_type=Path), help="A .ehmd file.")
def load_command(session: Session, name: str, port: str | None, target: Path | None) -> Outcome:
    from edgehmn import states
    from edgehmn.errors import UsageError
    from edgehmn.files import write_bytes

    if (port is None) == (target is None):
        raise UsageError("say where the state goes: either --port or --to")
    delta = states.load(name)
    if port is None:
        assert target is not None
        states.check_output(target)
        write_bytes(target, delta)
    else:
        from edgehmn.runtime.select import open_device

        with open_device(port) as runtime:
            states.load_into(runtime, name)
    state = states.describe(name, delta)
    return Outcome({"states": [_row(state)]}, f"loaded {state.learned} learned tokens into {port or target}")


@command("list", "List the states that are kept on this host.")
def list_command(session: Session) -> Outcome:
    from edgehmn import states

    known = states.list_states(session.note)
    rows = [(s.name, f"{s.learned:,}", str(s.banks), f"{s.bytes:,}", s.image_id[:16]) for s in known]
    text = table(rows, ("state", "learned", "banks", "bytes", "image")) if rows else f"no states in {states.folder()}"
    return Outcome({"states": [_row(s) for s in known]}, text)


for _command in (save_command, load_command, list_command, diff_command, settle_command, *stored_commands()):
    state_command.add_command(_command)
