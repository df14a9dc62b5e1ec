"""Reading and writing files so that nothing is ever half-written and every failure has its exit code."""

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from edgehmn.errors import CannotWriteError, InvalidFileError, UsageError

MAX_INPUT_BYTES = 1 << 30  # no file that is read whole may be larger


def read_bytes(path: str | Path) -> bytes:
    """The bytes of a file. Raises UsageError if there is none, InvalidFileError if it cannot be read."""
    path = Path(path)
    if not path.exists():
        raise UsageError(f"{path}: no such file")
    try:
        if path.stat().st_size > MAX_INPUT_BYTES:
            raise InvalidFileError(f"{path}: larger than {MAX_INPUT_BYTES} bytes; this cannot be an edgehmn file")
        return path.read_bytes()
    except OSError as e:
        raise InvalidFileError(f"{path}: cannot be read ({e.strerror})") from e


def read_text(path: str | Path) -> str:
    """A UTF-8 text file. Raises as read_bytes, and InvalidFileError for bytes that are no UTF-8."""
    try:
        return read_bytes(path).decode("utf-8")
    except UnicodeDecodeError as e:
        raise InvalidFileError(f"{path}: not UTF-8 text (byte {e.start}); convert it first") from e


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write a file that appears whole or not at all. Raises CannotWriteError."""
    path = Path(path)
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as f:
                f.write(data)
                f.flush()
                os.fsync(f.fileno())
            Path(name).chmod(0o644)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def new_folder(path: str | Path, marker: str) -> Iterator[Path]:
    """A folder that is filled under another name and takes `path`'s place only when complete.

    An existing folder is replaced only if it is empty or holds `marker`, so that nothing foreign is deleted.
    """
    path = Path(path).absolute()
    if path.exists() and not (path.is_dir() and (not any(path.iterdir()) or (path / marker).exists())):
        raise UsageError(f"{path}: exists and is no earlier output of this command; choose another or remove it")
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
        try:
            work.chmod(0o755)
            yield work
            old = work.with_name(work.name + ".old")
            if path.exists():
                path.rename(old)
            work.rename(path)
            shutil.rmtree(old, ignore_errors=True)
        finally:
            shutil.rmtree(work, ignore_errors=True)


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        raise CannotWriteError(f"{path}: cannot be written ({e.strerror or e}); free space or choose another") from e
