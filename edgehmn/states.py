"""Named learned states on the host: save, list, load. A state is a file of one delta, or of several in as many banks;
its name is its file name."""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgehmn.banks import MAGIC, is_joined, split
from edgehmn.core import ffi, lib
from edgehmn.errors import InvalidFileError, UsageError, no_such
from edgehmn.files import check_place, check_replaceable, read_bytes, user_folder, write_bytes
from edgehmn.runtime.protocol import Runtime

SUFFIX = ".ehmd"
DELTA_MAGIC = int(lib.EHMN_DELTA_MAGIC).to_bytes(4, "little")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class State:
    """What the headers of a state say about it."""

    name: str
    image_id: str
    learned: int  # tokens, in all banks together
    bytes: int
    banks: int = 1


def folder() -> Path:
    """Where named states live: $EDGEHMN_STATES, else edgehmn/states in the user's data folder."""
    if chosen := os.environ.get("EDGEHMN_STATES"):
        return Path(chosen)
    return user_folder("XDG_DATA_HOME", ".local/share") / "edgehmn" / "states"


def path_of(name: str) -> Path:
    """The file of a named state; a name with a slash or the suffix is a path of its own. Raises UsageError."""
    if "/" in name or name.endswith(SUFFIX):
        if name.endswith("/") or Path(name).is_dir():
            raise UsageError(f"{name}: a folder; name the file in it, NAME{SUFFIX}")
        return Path(name)
    if not NAME.fullmatch(name):
        raise UsageError(f"'{name}' is no name for a state: use letters, digits, '.', '_' and '-'")
    return folder() / f"{name}{SUFFIX}"


def check_output(path: Path) -> None:
    """Raises UsageError for a file that is there and is no state: none can be kept in its place; and CannotWriteError
    where no file can be made."""
    check_place(path)
    check_replaceable(path, "learned state", DELTA_MAGIC, MAGIC)


def describe(name: str, state: bytes) -> State:
    """Read the headers of a state. Raises InvalidFileError for anything that is no whole state."""
    if not is_joined(state):
        return _describe_delta(name, state)
    try:
        deltas = split(state)
    except InvalidFileError as e:
        raise InvalidFileError(f"{name}: {e}", **e.detail) from e
    banks = [_describe_delta(f"{name}, bank {i}", delta) for i, delta in enumerate(deltas)]
    if len({bank.image_id for bank in banks}) > 1:
        raise InvalidFileError(f"{name}: its banks were learned with different images")
    return State(name, banks[0].image_id, banks[0].learned, len(state), len(banks))


def _describe_delta(name: str, delta: bytes) -> State:
    size = ffi.sizeof("ehmn_delta")
    if len(delta) < size:
        raise InvalidFileError(f"{name}: too short to be a learned state ({len(delta)} bytes)")
    header = ffi.new("ehmn_delta *")
    ffi.buffer(header)[:] = delta[:size]
    checked = ffi.offsetof("ehmn_delta", "image_id")
    crc = lib.ehmn_crc32(0, ffi.from_buffer(memoryview(delta)[checked:]), len(delta) - checked)
    if header.magic != lib.EHMN_DELTA_MAGIC or header.version != lib.EHMN_DELTA_VERSION:
        raise InvalidFileError(f"{name}: not a learned state of this version")
    if header.bytes != len(delta) or header.crc32 != crc:
        raise InvalidFileError(f"{name}: truncated or damaged (size or checksum differs)")
    return State(name, bytes(header.image_id).hex(), int(header.learned), len(delta))


def save(name: str, state: bytes) -> Path:
    """Store a state under a name; returns its path."""
    describe(name, state)
    path = path_of(name)
    check_output(path)
    write_bytes(path, state)
    return path


def load(name: str) -> bytes:
    """The state of a name. Raises UsageError if there is none, listing those that exist."""
    path = path_of(name)
    if not path.exists():
        if path.parent != folder():
            raise UsageError(f"{path}: no such state; 'edgehmn state list' lists those that have a name alone")
        raise no_such("state", name, (s.name for s in list_states()), "'edgehmn state list' lists them")
    state = read_bytes(path)
    describe(str(path), state)
    return state


def check_image(name: str, of: str, image_id: str, done: str = "learned") -> None:
    """Raises InvalidFileError for what was made with another image than this one. of: its image's id; done: what it is
    that was done with it."""
    if of != image_id:
        raise InvalidFileError(
            f"{name}: was {done} with another image, {of[:16]}; this is {image_id[:16]}: give the export that it was "
            f"{done} with",
            image_id=of,
        )


def load_for(image_id: str, name: str, banks: int = 1) -> bytes:
    """The state of a name, for a model of that image with so many banks. Raises as `load`, UsageError if it has more
    banks, and InvalidFileError if it belongs to another image."""
    state = load(name)
    described = describe(name, state)
    check_image(str(path_of(name)), described.image_id, image_id)
    if (has := described.banks) > banks:
        raise UsageError(
            f"{path_of(name)}: was learned in {has} banks, and there is room for {banks}: give --banks {has} or more "
            "to a run on this host; a board has one bank"
        )
    return state


def load_into(runtime: Runtime, name: str, banks: int = 1) -> None:
    """Give a state to a runtime of so many banks. Raises as `load_for`."""
    state = load_for(runtime.image_id, name, banks)
    try:
        runtime.load(state)
    except InvalidFileError as e:
        raise InvalidFileError(f"{path_of(name)}: {e}", **e.detail) from e


def list_states(note: Callable[[str], None] = lambda message: None) -> list[State]:
    """All sound named states, by name. note: gets what is wrong with each of the others."""
    out = []
    for path in sorted(folder().glob(f"*{SUFFIX}")):
        try:
            out.append(describe(path.stem, read_bytes(path)))
        except (InvalidFileError, UsageError) as e:
            note(str(e))
    return out
