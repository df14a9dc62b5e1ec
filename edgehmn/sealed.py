"""How files that this package writes by itself begin: magic, version, bytes of the file, CRC-32 of all that follows.

Learned states and images begin so too, but are written and read by the C core.
"""

import struct
import zlib

from edgehmn.errors import InvalidFileError

SEAL = struct.Struct("<4s3I")


def seal(magic: bytes, version: int, body: bytes) -> bytes:
    """A whole file of a body. magic: 4 bytes."""
    return SEAL.pack(magic, version, SEAL.size + len(body), zlib.crc32(body)) + body


def is_sealed(magic: bytes, data: bytes) -> bool:
    """Whether a file says that it is of this kind."""
    return data[: len(magic)] == magic


def unseal(magic: bytes, version: int, data: bytes, *, least: int) -> bytes:
    """The body of a whole and sound file, at least so many bytes. Raises InvalidFileError, which says what is wrong."""
    if not is_sealed(magic, data) or len(data) < SEAL.size + least:
        raise InvalidFileError(f"not one, or too short to be one ({len(data)} bytes)")
    _, written, size, crc = SEAL.unpack_from(data)
    if written != version:
        raise InvalidFileError(f"of version {written}; this edgehmn reads {version}")
    body = data[SEAL.size :]
    if size != len(data) or crc != zlib.crc32(body):
        raise InvalidFileError("truncated or damaged (size or checksum differs)")
    return body
