"""What a personalisation came to: kept, refused by the gate, or interrupted with a way to go on."""

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from edgehmn.banks import split
from edgehmn.cli.output import Outcome, Session
from edgehmn.errors import CannotWriteError, InvalidFileError, LearningDivergedError, LinkLostError
from edgehmn.files import read_bytes, sha256
from edgehmn.gate import KNOWN_TOKENS, Verdict
from edgehmn.learn import CONTEXT, SECTION, Personalisation, learned_part
from edgehmn.resume import Keeper

REASONS = {
    "rolled back": "learning made the model worse on ordinary text and was rolled back {rollbacks} times",
    "saturated": "{saturated:.1%} of the weights of a kind stand at their limit",
    "one class": f"the text has a stretch of {KNOWN_TOKENS} tokens that teaches nothing, one line over and over",
}


def raise_if_refused(rollbacks: int, verdict: Verdict | None, saved: str | None, **result: Any) -> None:
    """Raises LearningDivergedError if the gate, or the guard of the device, refused what was learned."""
    reason = verdict.state if verdict is not None and verdict.refused else "rolled back" if rollbacks else None
    if reason is None:
        return
    said = REASONS[reason].format(rollbacks=rollbacks, saturated=verdict.saturated if verdict else 0)
    kept = f"what was learned since is kept {f'in {saved}' if saved else 'nowhere but there'}"
    if verdict is not None:
        kept = "what had been learned before is there again: look at the text, or learn it with --no-gate"
    raise LearningDivergedError(f"{said}; {kept}", **result, saved=saved)


def gate_result(rollbacks: int, verdict: Verdict | None) -> dict[str, Any]:
    """The JSON value `gate`."""
    if verdict is None:
        return {"state": "rolled back" if rollbacks else "off", "rollbacks": rollbacks}
    return {
        "state": verdict.state,
        "rollbacks": rollbacks,
        "guard_rise_percent": verdict.rise_percent,
        "kept_guard_rise_percent": verdict.kept_rise_percent,
        "gains_kept": verdict.gains,
        "saturated": verdict.saturated,
    }


def gate_sentence(verdict: Verdict | None) -> str:
    """What a state that stays does to ordinary text."""
    if verdict is None:
        return "not judged by the gate"
    rise = f"ordinary text (the guard): {verdict.rise_percent:+.2f} % perplexity"
    if verdict.gains == 1:
        return rise
    kept = f"{verdict.kept_rise_percent:+.2f} % with the {100 * verdict.gains:.0f} % of the gains at rest that are kept"
    return f"{rise}, {kept}"


def personalisation_result(outcome: Personalisation, banks: int) -> dict[str, Any]:
    return {
        "tokens": outcome.tokens,
        "before": {"perplexity": outcome.before},
        "after": {"perplexity": outcome.after},
        "online": {"perplexity": outcome.online},
        "unigram_cache": {"perplexity": outcome.unigram_cache},
        "writes_per_learned_token": outcome.learning.writes_per_learned_token,
        "delta_sha256": sha256(outcome.delta),
        "banks": {"asked": banks, "used": len(split(outcome.delta))},
        "gate": gate_result(outcome.learning.rollbacks, outcome.verdict),
    }


def dry_personalisation(ids: npt.NDArray[np.int32], runtime: str, keeper: Keeper | None) -> Outcome:
    """What a personalisation would do with these tokens."""
    half = learned_part(ids)
    reached = None if keeper is None else keeper.read()
    done = 0 if reached is None else len(reached.online)
    result = {"tokens": len(ids), "would_learn": half - done, "would_score": 2 * (len(ids) - half), "learned": done}
    where = f"; the state would go to {keeper.output}" if keeper else "; nothing would be kept"
    before = f", {done:,} were learned before it was interrupted" if done else ""
    text = f"{len(ids):,} tokens: {half - done:,} would be learned on {runtime}{before}, the other half scored{where}"
    return Outcome(result, text)


def check_save_state(session: Session, save_state: str, load_state: str | None) -> None:
    """Before anything is learned: raises UsageError for a file that is no state, CannotWriteError where none can be,
    and says what a state will replace."""
    from edgehmn import states

    path = states.path_of(save_state)
    states.check_output(path)
    if path.is_file() and (load_state is None or states.path_of(load_state) != path):
        with contextlib.suppress(InvalidFileError):  # of another version, say
            learned = states.describe(save_state, read_bytes(path)).learned
            session.note(
                f"{save_state} holds {learned:,} learned tokens, and will be replaced; to learn on from it: "
                f"--load-state {save_state}"
            )


def keeper_of(
    save_state: str | None, image_id: str, ids: npt.NDArray[np.int32], load_state: str | None, where: dict[str, Any]
) -> Keeper | None:
    """Where the progress of this personalisation is kept: beside its output, if it has one."""
    from edgehmn import states

    if save_state is None:
        return None
    start = states.load(load_state) if load_state else b""
    numbers = np.array([where["seed"], where["banks"], SECTION, CONTEXT], "<u8").tobytes()
    return Keeper(states.path_of(save_state), bytes.fromhex(image_id), ids.astype("<i4").tobytes(), start, numbers)


@contextlib.contextmanager
def telling_how_to_go_on(session: Session, keeper: Keeper | None) -> Iterator[None]:
    """Who is interrupted, loses the link or has no more room is told what is kept and how to go on, or how it could
    be."""
    how = "with --save-state the next one can go on where it was lost"
    if keeper is not None:
        how = f"what was learned is kept in {keeper.path}; give the same command again to go on"
        if keeper.read() is not None:
            session.note(f"going on with what {keeper.path} holds of an interrupted run")
        elif keeper.path.exists():
            session.note(f"{keeper.path} holds progress of another text or model, and is replaced")
    try:
        yield
    except KeyboardInterrupt:
        if keeper is not None and keeper.path.exists():
            session.note(how)
        raise
    except LinkLostError as e:
        raise LinkLostError(f"{e}. {how}", **e.detail) from e
    except CannotWriteError as e:
        if keeper is None or not keeper.path.exists():
            raise
        raise CannotWriteError(f"{e}. {how}", **e.detail) from e
