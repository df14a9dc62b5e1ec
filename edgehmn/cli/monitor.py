"""monitor: what a device is, and what it has done and learned, once or again and again."""

from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import click

from edgehmn.cli.output import Outcome, Session, command, table, write_stdout
from edgehmn.cli.stored import stored_result, stored_text
from edgehmn.cli.types import Number
from edgehmn.errors import UsageError

if TYPE_CHECKING:
    from edgehmn.device.wire import DeviceCounts, Identity
    from edgehmn.monitor import Change, Look

COLUMNS = "time        tokens   learned  tokens/s"


@command(
    "monitor",
    "Say what the device at --port is, and what it has done and learned. Nothing changes on it. With --every, a line "
    "for each further look says what it did in between, until Ctrl-C; the port is free between looks, and a device "
    "that is lost is waited for. With --json that takes --count, and is one object with a list of the looks.",
)
@click.option("--port", help="Device, as a pyserial URL, unix://PATH or ssh://USER@NAME.")
@click.option("--host", help="Linux board, as USER@NAME for ssh, in the place of --port.")
@click.option("--every", type=Number(0.1), help="Look again after so many seconds, and again.")
@click.option("--count", type=click.IntRange(1), help="Looks to take, with --every; without an end if not given.")
@click.option(
    "--timeout", type=Number(0.1), default=5.0, show_default=True, help="Seconds that the device has for an answer."
)
def monitor_command(
    session: Session, port: str | None, host: str | None, every: float | None, count: int | None, timeout: float
) -> Outcome:
    from edgehmn.monitor import look, watch
    from edgehmn.runtime.select import port_of

    port = port_of(port, host)
    if port is None:
        raise UsageError("say where the device is: --port, or --host for a Linux board")
    if count is not None and every is None:
        raise UsageError("--count says how many looks --every takes: give both")
    if every is None:
        now = look(port, timeout)
        return Outcome({"port": port} | _result(now), _text(port, now))
    if session.json and count is None:
        raise UsageError("--json is one object: say with --count how many looks it has to hold")
    looks = watch(partial(look, port, timeout), every, count, session.note)
    if session.json:
        taken = list(looks)
        return Outcome({"port": port, "looks": _results(taken), "missed": (count or 0) - len(taken)}, "")
    _print(port, looks)
    return Outcome({}, "")


def _print(port: str, looks: Iterator["Look"]) -> None:
    """The first look as a whole, and what changed since in each further one, for as long as somebody reads. Another
    device, or another model on it, is shown as a whole again."""
    from edgehmn.monitor import Change

    before: Look | None = None
    for now in looks:
        if before is None or now.identity != before.identity:
            text = _text(port, now) + f"\n\n{COLUMNS}"
        else:
            text = _line(before, now, Change.between(before, now))
        if not write_stdout(text):
            return
        before = now


def _line(before: "Look", now: "Look", change: "Change") -> str:
    said = ["started anew"] if change.restarted else []
    if now.stored is not None and now.stored != before.stored:
        said.append(stored_text(now.stored))
    if now.counts and before.counts and not change.restarted and now.counts.rollbacks > before.counts.rollbacks:
        said.append("rolled back by the guard")
    time = now.time.astimezone().strftime("%H:%M:%S")
    line = f"{time}  {change.tokens:>8,}  {change.learned:>8,}  {change.tokens_per_s:>8,.1f}"
    return "  ".join([line, "; ".join(said)]).rstrip()


def _text(port: str, now: "Look") -> str:
    identity, counts = now.identity, now.counts
    arena, room = f"{identity.arena_bytes:,}", f"{identity.arena_room:,}"
    rows = [("board", f"{identity.board} at {port}{', emulated' if now.emulated else ''}")]
    rows.append(("firmware", _versions(identity)))
    if counts is None:
        rows.append(("model", f"none: {now.problem}"))
        rows.append(("memory", f"{room} bytes for a model, {identity.staging_room:,} beside it for what it learns"))
    else:
        learns = "learns" if identity.plastic else "frozen, its memory is too small to learn"
        rows.append(("model", f"{identity.image_id[:16]}, {identity.vocab_size:,} tokens, {learns}"))
        staged = f"{identity.staging_room:,} beside it for a learned state of {identity.delta_bytes:,}"
        rows.append(("memory", f"arena {arena} of {room} bytes; {staged}"))
    rows.append(("flash", "none for states" if now.stored is None else stored_text(now.stored)))
    if counts is not None:
        rows.append(("fed", f"{counts.steps:,} tokens since it started"))
        rows.append(("learned", _learned(counts)))
        rows += [("speed", speed)] if (speed := _speed(now)) else []
    return table(rows, left=2)


def _versions(identity: "Identity") -> str:
    from edgehmn.core import lib

    return (
        f"protocol {int(lib.EHMN_WIRE_VERSION)}, image version {identity.image_version}, learned state version "
        f"{identity.delta_version}"
    )


def _learned(counts: "DeviceCounts") -> str:
    each = f", {counts.writes / counts.learned:,.0f} weight steps each" if counts.learned else ""
    undone = f"; rolled back by the guard: {counts.rollbacks:,}" if counts.rollbacks else ""
    return f"{counts.learned:,} of them{each}{undone}"


def _speed(now: "Look") -> str:
    """By the device's own counter; empty if it has none."""
    if now.instructions_per_token is not None:
        said = f"{now.instructions_per_token:,.0f} instructions per token (emulated)"
    elif now.seconds_per_token is not None:
        said = f"{1e3 * now.seconds_per_token:,.4g} ms per token (measured, by its own timer)"
    else:
        return ""
    return said if not now.learning_share else f"{said}; {100 * now.learning_share:.1f} % of all was learning"


def _result(now: "Look") -> dict[str, Any]:
    """What is not known is null: of a device without a model, without a timer, or that has done nothing yet."""
    from edgehmn.core import lib

    identity, counts, there = now.identity, now.counts, now.problem is None
    return {
        "time": now.time.isoformat(timespec="milliseconds"),
        "board": identity.board,
        "emulated": now.emulated,
        "protocol": int(lib.EHMN_WIRE_VERSION),
        "image_version": identity.image_version,
        "delta_version": identity.delta_version,
        "model": there,
        "problem": now.problem,
        "image_id": identity.image_id if there else None,
        "learns": identity.plastic if there else None,
        "vocab_size": identity.vocab_size if there else None,
        "arena_bytes": identity.arena_bytes if there else None,
        "delta_bytes": identity.delta_bytes if there else None,
        "arena_room": identity.arena_room,
        "staging_room": identity.staging_room,
        "stored": None if now.stored is None else stored_result(now.stored),
        "tokens": None if counts is None else counts.steps,
        "learned": None if counts is None else counts.learned,
        "writes": None if counts is None else counts.writes,
        "macs": None if counts is None else counts.macs,
        "rollbacks": None if counts is None else counts.rollbacks,
        "writes_per_learned_token": counts.writes / counts.learned if counts and counts.learned else None,
        "instructions_per_token": now.instructions_per_token,
        "ms_per_token": None if now.emulated or now.seconds_per_token is None else 1e3 * now.seconds_per_token,
        "learning_share": now.learning_share,
    }


def _results(looks: list["Look"]) -> list[dict[str, Any]]:
    """Each look, and what changed since the one before."""
    from edgehmn.monitor import Change

    changes = [Change.between(before, now) for before, now in pairwise(looks)]
    said = [None, *(asdict(change) | {"tokens_per_s": change.tokens_per_s} for change in changes)]
    return [_result(now) | {"change": change} for now, change in zip(looks, said, strict=False)]
