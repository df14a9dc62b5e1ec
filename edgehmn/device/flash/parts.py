"""What is written to a board, and where."""

import struct
from dataclasses import dataclass, field

from edgehmn.device.boards import Board
from edgehmn.errors import FlashError

ELF_HEADER = struct.Struct("<4s12xHHIIIIIHHHHHH")
SEGMENT = struct.Struct("<IIIIIIII")
PT_LOAD = 1
BLANK = b"\xff"


@dataclass(frozen=True)
class Part:
    """Bytes for an address of a board, or for a file of one that has files."""

    name: str
    address: int
    data: bytes = field(repr=False)


def parts_of(board: Board, elf: bytes, image: bytes) -> tuple[Part, ...]:
    """Firmware and image. Learned state lies elsewhere and is not touched."""
    return (
        Part("firmware", board.numbers["BOARD_FLASH_ADDRESS"], contents(elf, board.numbers["BOARD_FLASH_ADDRESS"])),
        Part("image", board.numbers["BOARD_IMAGE_ADDRESS"], image),
    )


@dataclass(frozen=True)
class Segment:
    """A part of a program: where it runs, where it is stored, what is stored, and bytes of memory that it takes."""

    address: int
    stored_at: int
    data: bytes = field(repr=False)
    memory: int


def segments(elf: bytes) -> list[Segment]:
    """Of a firmware's ELF file."""
    header = ELF_HEADER.unpack_from(elf)
    if header[0] != b"\x7fELF":
        raise FlashError("the firmware that was built is no ELF file; clear the cache of edgehmn and build again")
    offset, size, n = header[5], header[9], header[10]
    found = [SEGMENT.unpack_from(elf, offset + i * size) for i in range(n)]
    return [
        Segment(address, physical, elf[at : at + stored], memory)
        for kind, at, address, physical, stored, memory, *_ in found
        if kind == PT_LOAD
    ]


def contents(elf: bytes, base: int) -> bytes:
    """What a firmware's ELF file puts into the flash that begins at `base`."""
    out = bytearray()
    for segment in segments(elf):
        begin, stored = segment.stored_at - base, len(segment.data)
        if stored:
            out += BLANK * max(0, begin + stored - len(out))
            out[begin : begin + stored] = segment.data
    return bytes(out)
