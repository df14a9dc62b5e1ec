"""The safetensors format: a JSON header that says where each tensor lies, then their values.

It is read here and not by its own library, which maps the whole file into memory beside the copy that is made of it,
knows no BF16 without further packages, and takes the last of two tensors of one name.
"""

import math
import os
import struct
from pathlib import Path
from typing import Any

from edgehmn.checkpoint.model import FloatArray
from edgehmn.checkpoint.settings import parse_object
from edgehmn.checkpoint.stored import FORMS, Stored, load_values
from edgehmn.errors import InvalidFileError, UnsupportedError

MAX_HEADER = 1 << 25  # bytes; headers of real models take some hundred for each tensor
BITS = {"F64": 64, "I64": 64, "U64": 64, "F32": 32, "I32": 32, "U32": 32, "BF16": 16, "F16": 16, "I16": 16, "U16": 16}


def read_header(path: Path) -> dict[str, Stored]:
    """The tensors of a file by name. Raises InvalidFileError if it is not a whole safetensors file."""
    try:
        with path.open("rb") as f:
            total = os.fstat(f.fileno()).st_size
            head = f.read(8)
            length = struct.unpack("<Q", head)[0] if len(head) == 8 else total
            if length > min(total - 8, MAX_HEADER):
                raise InvalidFileError(f"{path}: not a valid safetensors file (its header does not fit in it)")
            raw = f.read(length)
    except OSError as e:
        raise InvalidFileError(f"{path}: cannot be read ({e.strerror})") from e
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as e:
        raise InvalidFileError(f"{path}: not a valid safetensors file ({e})") from e
    header = parse_object(text, str(path))
    header.pop("__metadata__", None)
    entries = [(name, *_entry(path, name, entry)) for name, entry in header.items()]
    end = 0
    for name, _, _, begin, stop in sorted(entries, key=lambda e: e[3:]):
        if begin != end:
            raise InvalidFileError(f"{path}: tensor '{name}' does not begin where another ends", tensor=name)
        end = stop
    if 8 + length + end != total:
        raise InvalidFileError(
            f"{path}: has {total} bytes, its header says {8 + length + end}; it is truncated or damaged"
        )
    return {name: _stored(path, name, kind, shape, 8 + length + begin) for name, kind, shape, begin, _ in entries}


def _entry(path: Path, name: str, entry: Any) -> tuple[str, tuple[int, ...], int, int]:
    """(type, shape, first byte, end) of an entry of the header."""
    wrong = InvalidFileError(f"{path}: the header's entry of tensor '{name[:80]}' is damaged", tensor=name)
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise wrong
    kind, shape, place = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not (isinstance(kind, str) and isinstance(shape, list) and isinstance(place, list) and len(place) == 2):
        raise wrong
    if not all(type(v) is int and 0 <= v < 1 << 62 for v in shape + place) or place[0] > place[1] or len(shape) > 8:
        raise wrong
    if kind in BITS and math.prod(shape) * BITS[kind] // 8 != place[1] - place[0]:
        raise InvalidFileError(f"{path}: tensor '{name}' has {place[1] - place[0]} bytes, not those of its shape")
    return kind, tuple(shape), place[0], place[1]


def _stored(path: Path, name: str, kind: str, shape: tuple[int, ...], offset: int) -> Stored:
    def load() -> FloatArray:
        if kind not in FORMS:
            known = ", ".join(FORMS)
            raise UnsupportedError(f"{path}: tensor '{name}' has type {kind}; {known} are read", tensor=name)
        return load_values(path, name, offset, shape, FORMS[kind])

    return Stored(name, shape, load)
