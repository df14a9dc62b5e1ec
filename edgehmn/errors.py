"""Every way in which a command can fail: one exception class per documented exit code.

The table of the README is tested against `EXIT_CODES`. A message says what was wrong, where (file, key,
tensor) and what to do next.
"""

from typing import Any


class EdgeHMNError(Exception):
    """An error with a documented exit code. `detail` goes into the JSON envelope unchanged."""

    exit_code = 1
    meaning = "internal error"

    def __init__(self, message: str, **detail: Any) -> None:
        super().__init__(message)
        self.detail = detail


class UsageError(EdgeHMNError):
    exit_code, meaning = 2, "usage"


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
