"""A file of any size, of which only pieces are ever in memory."""

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from edgehmn.errors import InvalidFileError, UsageError
from edgehmn.files import MAX_INPUT_BYTES

PIECE = 1 << 20  # bytes that are read at once where a file is read from end to end
BLOCK, KEPT_BLOCKS = 1 << 16, 64  # what is kept of small reads, which come back to the same places
MAX_READ = 1 << 26  # bytes that one part of a file may have


class Source:
    """The bytes of a file by offset. Every place that is asked for is checked against the size."""

    def __init__(self, name: str, file: int, size: int, whole: bytes | None = None) -> None:
        self.name, self.size = name, size
        self._file, self._whole = file, whole
        self._blocks: dict[int, bytes] = {}

    def read(self, offset: int, n: int) -> bytes:
        """`n` bytes. Raises InvalidFileError where the file ends before."""
        if n > MAX_READ:
            raise InvalidFileError(f"{self.name}: a part of it has {n} bytes, more than {MAX_READ}; it is damaged")
        self.require(offset, n)
        if self._whole is not None:
            return self._whole[offset : offset + n]
        if n > BLOCK:
            data = self._pread(offset, n)
        else:
            first = offset // BLOCK
            both = self._block(first) + (self._block(first + 1) if (offset + n - 1) // BLOCK > first else b"")
            data = both[offset - first * BLOCK :][:n]
        if len(data) != n:
            raise InvalidFileError(f"{self.name}: became shorter while it was read")
        return data

    def _block(self, number: int) -> bytes:
        """A block of the file; those that were read last are kept."""
        data = self._blocks.pop(number, None)
        if data is None:
            data = self._pread(number * BLOCK, BLOCK)
            if len(self._blocks) >= KEPT_BLOCKS:
                del self._blocks[next(iter(self._blocks))]
        self._blocks[number] = data
        return data

    def require(self, offset: int, n: int) -> None:
        """Raises InvalidFileError unless `n` bytes lie at `offset`."""
        if offset < 0 or n < 0 or offset + n > self.size:
            raise InvalidFileError(f"{self.name}: truncated or damaged: a part of it lies beyond its end")

    def unsigned(self, offset: int, n: int) -> int:
        """A little-endian integer of `n` bytes."""
        return int.from_bytes(self.read(offset, n), "little")

    def pieces(self, overlap: int = 0) -> Iterator[tuple[int, bytes]]:
        """The whole file: offset and bytes of each piece, which repeats the last `overlap` bytes of the one before."""
        at = 0
        while at < self.size:
            start = max(0, at - overlap)
            n = min(self.size, at + PIECE) - start
            yield start, self.read(start, n)
            at = start + n

    def sha256(self) -> str:
        digest = hashlib.sha256()
        for _, data in self.pieces():
            digest.update(data)
        return digest.hexdigest()

    def everything(self, limit: int) -> bytes:
        """The whole file. Raises InvalidFileError if it has more than `limit` bytes."""
        if self.size > limit:
            raise InvalidFileError(f"{self.name}: larger than {limit} bytes; this cannot be a file of its kind")
        return b"".join(data for _, data in self.pieces())

    def _pread(self, offset: int, n: int) -> bytes:
        try:
            return os.pread(self._file, n, offset)
        except OSError as e:
            raise InvalidFileError(f"{self.name}: cannot be read ({e.strerror})") from e


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Source]:
    """A file to look at; a pipe is read whole. Raises UsageError if there is none, InvalidFileError if it cannot be
    read."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(f"{path}: no such file") from None
    except OSError as e:
        raise InvalidFileError(f"{path}: cannot be read ({e.strerror})") from e
    try:
        status = os.fstat(file)
        if stat.S_ISREG(status.st_mode):
            yield Source(str(path), file, status.st_size)
        elif stat.S_ISFIFO(status.st_mode):
            data = _drain(path, file)
            yield Source(str(path), -1, len(data), data)
        else:
            raise InvalidFileError(f"{path}: neither a file nor a pipe; give a file")
    finally:
        os.close(file)


def _drain(path: Path, file: int) -> bytes:
    """All that comes out of a pipe."""
    try:
        with os.fdopen(os.dup(file), "rb") as f:
            data = f.read(MAX_INPUT_BYTES + 1)
    except OSError as e:
        raise InvalidFileError(f"{path}: cannot be read ({e.strerror})") from e
    if len(data) > MAX_INPUT_BYTES:
        raise InvalidFileError(f"{path}: a pipe that gives more than {MAX_INPUT_BYTES} bytes; give a file")
    return data
