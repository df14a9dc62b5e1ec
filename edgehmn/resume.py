"""How far a personalisation has come, in a file beside its output, so that it can go on after a lost link or Ctrl-C."""

import hashlib
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgehmn.errors import InvalidFileError
from edgehmn.files import read_bytes, write_bytes
from edgehmn.runtime.protocol import Counts

SUFFIX = ".part"
NONE = -1  # stands for counts that a runtime does not have

Scores = npt.NDArray[np.uint32]


@dataclass(frozen=True)
class Reached:
    """before: scores of the second half, before anything was learned; online: of what has been learned so far; start:
    the state that it began with; delta: the state now; learning: what learning has done."""

    before: Scores
    online: Scores
    start: bytes = field(repr=False)
    delta: bytes = field(repr=False)
    learning: Counts


class Keeper:
    """The file with the progress of one personalisation. `facts` are what it depends on: the image, the tokens, and so
    on; progress with other facts is another's, and is not gone on with."""

    def __init__(self, output: Path, *facts: bytes) -> None:
        """output: where the learned state will be; the progress lies beside it."""
        self.output = output
        self.path = output.with_name(output.name + SUFFIX)
        digest = hashlib.sha256()
        for fact in facts:
            digest.update(len(fact).to_bytes(8, "little") + fact)
        self._key = np.frombuffer(digest.digest(), np.uint8)

    def read(self) -> Reached | None:
        """None if there is none, or only another's. Raises InvalidFileError for a damaged file."""
        from safetensors import SafetensorError
        from safetensors.numpy import load

        if not self.path.exists():
            return None
        try:
            parts = load(read_bytes(self.path))
            if not np.array_equal(parts["key"], self._key):
                return None
            counts = [None if n == NONE else int(n) for n in parts["counts"].astype(np.int64)]
            return Reached(
                before=parts["before"].astype(np.uint32),
                online=parts["online"].astype(np.uint32),
                start=parts["start"].astype(np.uint8).tobytes(),
                delta=parts["delta"].astype(np.uint8).tobytes(),
                learning=Counts(*counts),  # type: ignore[arg-type]
            )
        except (SafetensorError, KeyError, TypeError, ValueError) as e:
            raise InvalidFileError(f"{self.path}: damaged progress ({e}); remove it to start anew") from e

    def write(self, reached: Reached) -> None:
        """Raises CannotWriteError."""
        from safetensors.numpy import save

        counts = [NONE if n is None else n for n in astuple(reached.learning)]
        parts: dict[str, npt.NDArray[Any]] = {
            "key": self._key,
            "before": reached.before,
            "online": reached.online,
            "start": np.frombuffer(reached.start, np.uint8),
            "delta": np.frombuffer(reached.delta, np.uint8),
            "counts": np.array(counts, np.int64),
        }
        write_bytes(self.path, save(parts))

    def remove(self) -> None:
        """Nothing is left to go on with."""
        self.path.unlink(missing_ok=True)
