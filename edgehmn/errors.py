"""Every way in which a command can fail: one exception class per documented exit code.

The table of the README is tested against `EXIT_CODES`. A message says what was wrong, where (file, key,
tensor) and what to do next.
"""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

MAX_LISTED = 80  # characters of known names in an error, where something else lists them, too


class EdgeHMNError(Exception):
    """An error with a documented exit code. `detail` goes into the JSON envelope unchanged."""

    exit_code = 1
    meaning = "internal error"

    def __init__(self, message: str, **detail: Any) -> None:
        super().__init__(message)
        self.detail = detail


class UsageError(EdgeHMNError):
    exit_code, meaning = 2, "usage"


def no_such(what: str, name: str, known: Iterable[str], elsewhere: str = "") -> UsageError:
    """The error for a name that is none of `known`: it says the nearest of them, and then all, or, if they are many,
    where they are listed: `elsewhere`."""
    names = list(known)
    near = get_close_matches(name, names, 2) or [n for n in names if len(name) > 2 and name.lower() in n.lower()][:2]
    hint = f" (did you mean {' or '.join(near)}?)" if near else ""
    listed = ", ".join(names) or "none"
    there = elsewhere if elsewhere and len(listed) > MAX_LISTED else f"known are: {listed}"
    return UsageError(f"no {what} '{name:.80}'{hint}; {there}")


class QualityGateError(EdgeHMNError):
    exit_code, meaning = 3, "quality gate failed"


class InvalidFileError(EdgeHMNError):
    exit_code, meaning = 4, "invalid or hostile model or state file"


class UnsupportedError(EdgeHMNError):
    exit_code, meaning = 5, "unsupported architecture, operator, dtype or opset"


class DoesNotFitError(EdgeHMNError):
    exit_code, meaning = 6, "does not fit (flash, RAM or arena)"


class DeviceError(EdgeHMNError):
    exit_code, meaning = 7, "device missing, ambiguous or not permitted"


class FlashError(EdgeHMNError):
    exit_code, meaning = 8, "flash or verification failed"


class ManualStepError(EdgeHMNError):
    exit_code, meaning = 9, "done, but a manual step is needed"


class DependencyError(EdgeHMNError):
    exit_code, meaning = 10, "missing or incompatible dependency"


class LearningDivergedError(EdgeHMNError):
    exit_code, meaning = 11, "learning diverged and was rolled back"


class LinkLostError(EdgeHMNError):
    exit_code, meaning = 12, "the link to the device was lost (what was learned is kept)"


class CannotWriteError(EdgeHMNError):
    exit_code, meaning = 13, "cannot write (disk full, read-only)"


INTERRUPTED = 130

_CLASSES: list[type[EdgeHMNError]] = [EdgeHMNError, *EdgeHMNError.__subclasses__()]

EXIT_CODES: dict[int, str] = {
    0: "ok",
    **{c.exit_code: c.meaning for c in _CLASSES},
    INTERRUPTED: "interrupted, nothing half-written",
}
