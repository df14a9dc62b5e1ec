"""Reading and writing files so that nothing is ever half-written and every failure has its exit code."""

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
import socket
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from edgehmn.errors import CannotWriteError, InvalidFileError, UsageError

TEXT_SUFFIXES = (".txt", ".md")
MAX_INPUT_BYTES = 1 << 30  # no file that is read whole may be larger
AT_FDCWD, RENAME_EXCHANGE = -100, 2  # of Linux's renameat2


def read_bytes(path: str | Path, limit: int = MAX_INPUT_BYTES) -> bytes:
    """The bytes of a file. Raises UsageError if there is none, InvalidFileError if it cannot be read or has more than
    `limit` bytes."""
    try:
        with Path(path).open("rb") as f:
            mode = os.fstat(f.fileno()).st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode)):
                raise InvalidFileError(f"{path}: neither a file nor a pipe; give a file")
            data = f.read(limit + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise InvalidFileError(f"{path}: a folder; give a file") from None
    except OSError as e:
        raise InvalidFileError(f"{path}: cannot be read ({e.strerror})") from e
    if len(data) > limit:
        raise InvalidFileError(f"{path}: larger than {limit:,} bytes, the most that is read of a file")
    return data


def read_text(path: str | Path) -> str:
    """A UTF-8 text file; what Windows writes more, its line ends and the mark at the beginning, is no part of the text.
    Raises as read_bytes, and InvalidFileError for bytes that are no UTF-8."""
    try:
        return read_bytes(path).decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as e:
        raise InvalidFileError(f"{path}: not UTF-8 text (byte {e.start}); convert it first") from e


def read_texts(paths: Iterable[str | Path]) -> str:
    """One text of several files in their order; a folder stands for the TEXT_SUFFIXES files below it, in the order of
    their names, without hidden ones. Raises as read_text, and UsageError for a folder that has none."""
    parts = []
    for path in map(Path, paths):
        found = _texts_below(path) if path.is_dir() else [path]
        if not found:
            raise UsageError(f"{path}: no {' or '.join(TEXT_SUFFIXES)} file in this folder")
        parts += [read_text(p) for p in found]
    return "".join(parts)


def _texts_below(folder: Path) -> list[Path]:
    found = (p for p in folder.rglob("*") if p.suffix in TEXT_SUFFIXES and p.is_file())
    return sorted(p for p in found if not any(part.startswith(".") for part in p.relative_to(folder).parts))


def user_folder(variable: str, below_home: str) -> Path:
    """A folder of the user's: what the variable of the environment names, else the one below their home. Raises
    UsageError if they have none."""
    if chosen := os.environ.get(variable):
        return Path(chosen)
    try:
        return Path.home() / below_home
    except RuntimeError:
        raise UsageError(f"this user has no home folder: set HOME, or {variable} to a folder") from None


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def write_bytes(path: str | Path, data: bytes | bytearray) -> None:
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


def check_place(path: str | Path) -> None:
    """What cannot be written is found out before the work whose result it is: raises CannotWriteError unless a file of
    this name, and its folder if there is none, can be made. Nothing is."""
    with _writing(path):
        path = Path(os.path.realpath(path))
        if path.is_dir():
            raise CannotWriteError(f"{path}: exists and is no file; choose another name")
        there = next(folder for folder in path.parents if folder.exists())
        code = errno.EACCES
        if not there.is_dir():
            code = errno.ENOTDIR
        elif os.access(there, os.W_OK):
            return
        elif os.statvfs(there).f_flag & os.ST_RDONLY:
            code = errno.EROFS
        raise OSError(code, os.strerror(code))


def check_replaceable(path: str | Path, what: str, *begins: bytes) -> None:
    """Raises UsageError for a file that is there and begins otherwise than `what` does: a slip of the keyboard must not
    cost a file that cannot be made again."""
    with contextlib.suppress(OSError):  # where it cannot be read, writing it will say why
        if Path(path).is_file():
            with Path(path).open("rb") as f:
                start = f.read(max(map(len, begins)))
            if start and not start.startswith(begins):
                raise UsageError(f"{path}: exists and is no {what}; choose another name, or remove it")


@contextlib.contextmanager
def alone_at(path: str | Path | None) -> Iterator[None]:
    """While a long work for this file is done, no other process of this machine does one: its end would take the place
    of what this one has done. Raises CannotWriteError if one does. None: of no file, nothing."""
    with contextlib.ExitStack() as stack:
        if path is not None and sys.platform == "linux":  # which has names that are nobody's when their process ends
            name = sha256(os.fsencode(os.path.realpath(path)))
            claim = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            try:
                claim.bind(f"\0edgehmn-{name}")
            except OSError:
                raise CannotWriteError(
                    f"{path}: another edgehmn is learning for it; wait for its end, or choose another name"
                ) from None
        yield


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
        if path.exists() and not os.access(path, os.W_OK):
            raise CannotWriteError(f"{path}: is read-only; make it writable or choose another")
        path.parent.mkdir(parents=True, exist_ok=True)
        work, old = _beside(path), _beside(path)
        try:
            try:
                work.mkdir()
                yield work
                _sync(work)
                _take_place(work, path, old)
            except CannotWriteError as e:
                raise CannotWriteError(str(e).replace(str(work), str(path)), **e.detail) from e
            finally:
                _settle(work, path, old)
        finally:  # once more, in case Ctrl-C came while it was done
            _settle(work, path, old)


def _take_place(work: Path, path: Path, old: Path) -> None:
    """Rename `work` to `path`; what was there is then `work` or `old`. At no moment is there neither, where the system
    can exchange two names."""
    if path.exists():
        if _exchange(work, path):
            return
        path.rename(old)
    work.rename(path)


def _settle(work: Path, path: Path, old: Path) -> None:
    """Remove what is not needed any more; what could not be replaced stays where it was."""
    if old.exists() and not path.exists():
        old.rename(path)
    for folder in (old, work):
        shutil.rmtree(folder, ignore_errors=True)


def _exchange(a: Path, b: Path) -> bool:
    """Exchange two names in one step; False where the system or the file system cannot."""
    import ctypes

    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):
        return False
    return bool(renameat2(AT_FDCWD, os.fsencode(a), AT_FDCWD, os.fsencode(b), RENAME_EXCHANGE) == 0)


def _sync(folder: Path) -> None:
    """Let the files of a folder reach the disk before it takes a name, so that a loss of power leaves the old one."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as f:
                os.fsync(f.fileno())


def _beside(path: Path) -> Path:
    """An unused name in the same folder, however long `path`'s own name is."""
    return path.with_name(f".edgehmn-{secrets.token_hex(8)}")


@contextlib.contextmanager
def _writing(path: str | Path) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        advice = "free space or choose another" if e.errno in (errno.ENOSPC, errno.EDQUOT) else "choose another place"
        raise CannotWriteError(f"{path}: cannot be written ({e.strerror or e}); {advice}") from e
