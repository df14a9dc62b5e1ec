"""personalise with '-': standard input, line by line, suggested, counted and learned."""

import contextlib
import io
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from edgehmn.cli.output import Outcome, Session
from edgehmn.errors import InvalidFileError, LinkLostError, UsageError

PARTS = 3  # of the lines, for how the figures move


def personalise_live(
    session: Session, export: Path, save_state: str | None, load_state: str | None, gate: bool, where: dict[str, Any]
) -> Outcome:
    """Learn standard input line by line until it ends. What was learned goes to `save_state` every few lines."""
    from edgehmn import states
    from edgehmn.cli.gated import check_save_state, gate_result, raise_if_refused
    from edgehmn.exported import Export
    from edgehmn.files import sha256
    from edgehmn.live import LiveSession
    from edgehmn.runtime.select import open_runtime

    if save_state:
        check_save_state(session, save_state, load_state)
    opened = Export.open(export)
    start = None if load_state is None else states.load_for(opened.image.id, load_state, where["banks"])

    def keep(delta: bytes) -> None:
        if save_state:
            states.save(save_state, delta)

    live = LiveSession(
        lambda: open_runtime(opened, **where),
        opened.encode,
        opened.decode,
        keep=keep,
        start=start,
        note=session.note,
        gate=opened.image if gate and where["runtime"] != "tile" else None,
    )
    done = []
    try:
        for text in _lines():
            line = live.line(text)
            done.append(line)
            keys, saved = sum(d.keys for d in done), sum(d.saved for d in done)
            following = live.suggest("")
            session.note(
                f"{line.saved} of {line.keys} keys saved, {100 * saved / keys:.1f} % so far; next: {following or '...'}"
            )
    except LinkLostError:
        live.abandon()
        raise
    except BaseException:
        live.close()
        raise
    delta = live.close()
    if not done:
        raise UsageError("standard input is empty: type lines, or give files")
    n = len(done)
    ends = [n * i // PARTS for i in range(PARTS + 1)] if n >= PARTS else [0, n]
    rows = [
        {
            "lines": len(part),
            "keystrokes_saved_percent": 100 * sum(d.saved for d in part) / sum(d.keys for d in part),
            "perplexity": 2 ** (sum(d.bits for d in part) / sum(d.tokens for d in part)),
        }
        for part in (done[a:b] for a, b in pairwise(ends))
    ]
    result: dict[str, Any] = {"lines": n, "tokens": sum(d.tokens for d in done), "parts": rows}
    result |= {"delta_sha256": sha256(delta), "gate": gate_result(live.rollbacks, live.verdict)}
    raise_if_refused(live.rollbacks, live.verdict, save_state, **result)
    said = [
        f"{f'line {b}' if b == a + 1 else f'lines {a + 1} to {b}'}: {r['keystrokes_saved_percent']:.1f} % of the keys "
        f"saved, perplexity {r['perplexity']:.1f}"
        for (a, b), r in zip(pairwise(ends), rows, strict=True)
    ]
    return Outcome(result | {"saved": save_state}, "\n".join(said))


def _lines() -> Iterator[str]:
    """Lines of standard input, empty ones left out; Ctrl-C ends it like its end. Raises InvalidFileError,
    and UsageError if it is closed."""
    if sys.stdin is None:  # `<&-`
        raise UsageError("standard input is closed: type lines, or give files")
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="strict")  # some locales let through what is no text
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            try:
                text = sys.stdin.readline()
            except UnicodeDecodeError as e:
                raise InvalidFileError(f"standard input: not UTF-8 text ({e.reason}); convert it first") from e
            if not text:
                return
            if text.strip():
                yield text.rstrip("\r\n")
