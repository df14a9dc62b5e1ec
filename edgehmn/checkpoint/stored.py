"""Tensors that lie in a file and are read one at a time, so that reading a model takes little more than the model."""

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgehmn.checkpoint.model import Config, FloatArray
from edgehmn.errors import InvalidFileError

Bytes = npt.NDArray[np.uint8]
PIECE = 1 << 20  # values that are read and converted at a time


@dataclass(frozen=True)
class Form:
    """How values are stored: `values` of them in a block of `bytes`. decode: (n, bytes) -> (n, values)."""

    values: int
    bytes: int
    decode: Callable[[Bytes], npt.NDArray[Any]]


def _bfloat16(raw: Bytes) -> npt.NDArray[Any]:
    return (raw.view("<u2").astype(np.uint32) << 16).view(np.float32)


FORMS = {
    "F32": Form(1, 4, lambda raw: raw.view("<f4")),
    "F16": Form(1, 2, lambda raw: raw.view("<f2")),
    "BF16": Form(1, 2, _bfloat16),
}


@dataclass(frozen=True)
class Stored:
    """A tensor in a file, under the file's own name. `load` reads it as float32 of `shape`."""

    name: str
    shape: tuple[int, ...]
    load: Callable[[], FloatArray]

    def changed(self, shape: tuple[int, ...], change: Callable[[FloatArray], FloatArray]) -> "Stored":
        """The same, with `change` applied to what is read; the result shares no memory with it."""
        return Stored(self.name, shape, lambda: np.array(change(self.load()), np.float32, order="C"))

    def transposed(self) -> "Stored":
        return self.changed(self.shape[::-1], lambda w: w.T)

    def rows(self, start: int, stop: int) -> "Stored":
        """Some of its first axis; as many of them as there are."""
        n = len(range(*slice(start, stop).indices(self.shape[0] if self.shape else 0)))
        return self.changed((n, *self.shape[1:]), lambda w: w[start:stop])


@dataclass(frozen=True)
class Tensors:
    """All tensors of a model as they are stored, by the names of the file. `where` stands in messages."""

    where: Path
    stored: Mapping[str, Stored]

    def __contains__(self, name: str) -> bool:
        return name in self.stored

    def __getitem__(self, name: str) -> Stored:
        if name not in self.stored:
            raise InvalidFileError(f"{self.where}: tensor '{name}' is missing", tensor=name)
        return self.stored[name]

    def gather(self, config: Config, found: Mapping[str, Stored]) -> dict[str, FloatArray]:
        """Read what was found for the names of `Config`: all of `tensor_shapes`, and others where they are there.

        Raises InvalidFileError, naming the tensor, for one that is missing, has another shape, or is not finite.
        """
        expected = config.tensor_shapes()
        others = config.bias_shapes() | config.statistics_shapes()
        tensors = {}
        for name, shape in (expected | {k: s for k, s in others.items() if k in found}).items():
            if name not in found:
                raise InvalidFileError(f"{self.where}: tensor '{name}' is missing", tensor=name)
            tensors[name] = self.read(found[name], shape)
        return tensors

    def read(self, stored: Stored, shape: tuple[int, ...]) -> FloatArray:
        """Values of a tensor that must have this shape."""
        name = stored.name
        if stored.shape != shape:
            raise InvalidFileError(
                f"{self.where}: tensor '{name}' has shape {stored.shape}, its configuration says {shape}", tensor=name
            )
        values = stored.load()
        if not np.isfinite(values).all():
            raise InvalidFileError(f"{self.where}: tensor '{name}' holds NaN or infinity", tensor=name)
        return values


def load_values(path: Path, name: str, offset: int, shape: tuple[int, ...], form: Form) -> FloatArray:
    """Read a tensor whose blocks begin at byte `offset`. Raises InvalidFileError if the file does not hold them all."""
    n = math.prod(shape)
    if n % form.values:
        raise InvalidFileError(f"{path}: tensor '{name}' has {n} values, no multiple of {form.values}", tensor=name)
    blocks, step = n // form.values, max(1, PIECE // form.values)
    short = InvalidFileError(f"{path}: ends inside tensor '{name}'; it is truncated", tensor=name)
    try:
        with path.open("rb") as f:
            if offset + blocks * form.bytes > os.fstat(f.fileno()).st_size:
                raise short
            out = np.empty((blocks, form.values), np.float32)
            f.seek(offset)
            for start in range(0, blocks, step):
                piece = out[start : start + step]
                raw = f.read(len(piece) * form.bytes)
                if len(raw) != len(piece) * form.bytes:
                    raise short
                with np.errstate(all="ignore"):  # damaged scales: what is not finite is found afterwards
                    piece[:] = form.decode(np.frombuffer(raw, np.uint8).reshape(len(piece), form.bytes))
    except OSError as e:
        raise InvalidFileError(f"{path}: cannot be read ({e.strerror})") from e
    return out.reshape(shape)


def tie_if_equal(config_tied: bool, tensors: dict[str, FloatArray]) -> bool:
    """Whether the head is the embedding: said, or found to be; then it is kept once."""
    if not config_tied and np.array_equal(tensors["head"], tensors["embed"]):
        del tensors["head"]
        return True
    return config_tied
