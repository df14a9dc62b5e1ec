"""Reading and writing files so that nothing is ever half-written and every failure has its exit code."""

import contextlib
import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from edgehmn.errors import CannotWriteError, InvalidFileError, UsageError

MAX_INPUT_BYTES = 1 << 30  # no file that is read whole may be larger


def read_bytes(path: str | Path) -> bytes:
    """The bytes of a file. Raises UsageError if there is none, InvalidFileError if it cannot be read."""
    try:
        with Path(path).open("rb") as f:
            mode = os.fstat(f.fileno()).st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode)):
                raise InvalidFileError(f"{path}: neither a file nor a pipe; give a file")
            data = f.read(MAX_INPUT_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(f"{path}: no such file") from None
    except OSError as e:
        raise InvalidFileError(f"{path}: cannot be read ({e.strerror})") from e
    if len(data) > MAX_INPUT_BYTES:
        raise InvalidFileError(f"{path}: larger than {MAX_INPUT_BYTES} bytes; this cannot be an edgehmn file")
    return data


def read_text(path: str | Path) -> str:
    """A UTF-8 text file. Raises as read_bytes, and InvalidFileError for bytes that are no UTF-8."""
    try:
        return read_bytes(path).decode("utf-8")
    except UnicodeDecodeError as e:
        raise InvalidFileError(f"{path}: not UTF-8 text (byte {e.start}); convert it first") from e


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write a file that appears whole or not at all; a link is followed. Raises CannotWriteError."""
    with _writing(path):
        path = Path(os.path.realpath(path))
        if path.exists() and not path.is_file():
            raise CannotWriteError(f"{path}: exists and is no file; choose another name")
        path.parent.mkdir(parents=True, exist_ok=True)
        work = _beside(path)
        try:
            with work.open("xb") as f:
                f.write(data)
                f.flush()
                os.fsync(f.fileno())
            work.replace(path)
        finally:
            work.unlink(missing_ok=True)


@contextlib.contextmanager
def new_folder(path: str | Path, is_ours: Callable[[Path], bool]) -> Iterator[Path]:
    """A folder that is filled under another name and takes `path`'s place only when complete.

    An existing folder is replaced only if it is empty or `is_ours` says that nothing foreign is in it.
    """
    with _writing(path):
        path = Path(os.path.realpath(path))
        if path.exists() and not (path.is_dir() and (not any(path.iterdir()) or is_ours(path))):
            raise UsageError(
                f"{path}: exists and holds more than an earlier output of this; choose another or remove it"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        work = _beside(path)
        try:
            work.mkdir()
            yield work
            _take_place(work, path)
        finally:
            shutil.rmtree(work, ignore_errors=True)


def _take_place(work: Path, path: Path) -> None:
    """Rename `work` to `path`; what was there is deleted only when that is done."""
    if not path.exists():
        work.rename(path)
        return
    old = _beside(path)
    try:
        path.rename(old)
        work.rename(path)
    except BaseException:
        if old.exists() and not path.exists():
            old.rename(path)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _beside(path: Path) -> Path:
    """An unused name in the same folder, however long `path`'s own name is."""
    return path.with_name(f".edgehmn-{secrets.token_hex(8)}")


@contextlib.contextmanager
def _writing(path: str | Path) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        raise CannotWriteError(f"{path}: cannot be written ({e.strerror or e}); free space or choose another") from e
