"""Firmware: ELF files and plain flash contents, and the images of edgehmn inside them."""

import zlib
from collections.abc import Iterator

from edgehmn.core import Image, ffi, lib
from edgehmn.errors import InvalidFileError
from edgehmn.files import MAX_INPUT_BYTES
from edgehmn.inspection.facts import Facts, known
from edgehmn.inspection.source import PIECE, Source

MACHINES = {
    3: "x86", 40: "Arm", 62: "x86-64", 94: "Xtensa", 183: "AArch64", 243: "RISC-V", 83: "AVR", 8: "MIPS",
}  # fmt: skip
DEVICES = ("Arm", "Xtensa", "RISC-V", "AVR")  # whose programs are firmware
TYPES = {1: "object", 2: "program", 3: "library or position-independent program", 4: "core dump"}
LOADED, WRITABLE = 1, 2  # type and flag of a program header
MAX_SEGMENTS = 256
MAX_CANDIDATES = 16  # places with an image's magic that are looked at
RAM = range(0x10000000, 0x60000000)  # where a Cortex-M's stack may begin; most begin it at 0x2......
CODE = (range(0x20000000), range(0x60000000, 0x100000000))  # where its flash may lie, with some beside the stack
NEAR = 24  # bits of an address; what has the others alike lies in the same memory
HEADER_BYTES, CHECKED = ffi.sizeof("ehmn_image"), ffi.offsetof("ehmn_image", "id")  # the CRC is of all from there on


def inspect_elf(source: Source) -> Facts:
    """Facts of an ELF file. Raises InvalidFileError for a damaged one."""
    ident = source.read(0, 16)
    if ident[4] not in (1, 2) or ident[5] not in (1, 2):
        raise InvalidFileError(f"{source.name}: an ELF file of no known class; it is damaged")
    wide, order = ident[4] == 2, "little" if ident[5] == 1 else "big"

    def number(at: int, n: int) -> int:
        data = source.read(at, n)
        return int.from_bytes(data if order == "little" else data[::-1], "little")

    word = 8 if wide else 4
    entry, table = number(24, word), number(24 + word, word)
    entry_size, count = number(54 if wide else 42, 2), number(56 if wide else 44, 2)
    if count > MAX_SEGMENTS:
        raise InvalidFileError(f"{source.name}: has {count} segments; it is damaged")
    flash = ram = 0
    for i in range(count):
        at = table + i * entry_size
        kind, flags = number(at, 4), number(at + (4 if wide else 24), 4)
        in_file, in_memory = number(at + (32 if wide else 16), word), number(at + (40 if wide else 20), word)
        if kind == LOADED:
            flash += in_file
            ram += in_memory if flags & WRITABLE else 0
    images, board = list(find_images(source)), _board(source)
    machine = MACHINES.get(number(18, 2), f"machine {number(18, 2)}")
    return known(
        {
            "kind": "firmware" if images or board or machine in DEVICES else "program",
            "format": "ELF",
            "machine": machine,
            "config": {
                "type": TYPES.get(number(16, 2), f"type {number(16, 2)}"),
                "bits": 64 if wide else 32,
                "byte_order": order,
                "entry": f"{entry:#x}",
                "flash_bytes": flash,
                "ram_bytes": ram,
            },
            "board": board,
            "images": images,
        }
    )


def inspect_flash(source: Source) -> Facts | None:
    """Facts of plain flash contents, or None if they neither begin as a Cortex-M's do nor hold an image."""
    stack, reset = (source.unsigned(0, 4), source.unsigned(4, 4)) if source.size >= 64 else (0, 0)
    vectors = stack in RAM and stack % 4 == 0 and reset % 2 == 1 and any(reset in place for place in CODE)
    vectors = vectors and stack >> NEAR != reset >> NEAR
    images = list(find_images(source))
    if not vectors and not images:
        return None
    config = {"stack": f"{stack:#x}", "entry": f"{reset:#x}"} if vectors else None
    machine = "Cortex-M" if vectors else None
    facts = {"kind": "firmware", "format": "flash contents", "machine": machine, "config": config}
    return known(facts | {"board": _board(source), "images": images})


def find_images(source: Source) -> Iterator[Facts]:
    """The sound images in a file: place, bytes and id. The code that reads images has their magic in it, too."""
    looked_at, end = 0, 0
    for offset in _places(source, lib.EHMN_IMAGE_MAGIC.to_bytes(4, "little")):
        if offset < end or offset + HEADER_BYTES > source.size:
            continue
        size = source.unsigned(offset + 8, 4)
        version_fits = source.unsigned(offset + 4, 4) == lib.EHMN_IMAGE_VERSION
        if not version_fits or not HEADER_BYTES <= size <= min(source.size - offset, MAX_INPUT_BYTES):
            continue
        looked_at += 1
        if looked_at > MAX_CANDIDATES:
            return
        if not _crc_matches(source, offset, size):
            continue
        data = b"".join(_slices(source, offset, size))
        try:
            image = Image(data)
        except InvalidFileError:
            continue
        end = offset + size
        yield {"offset": offset, "bytes": size, "image_id": image.id}


def _crc_matches(source: Source, offset: int, size: int) -> bool:
    """Before so much is held in memory."""
    crc = 0
    for data in _slices(source, offset + CHECKED, size - CHECKED):
        crc = zlib.crc32(data, crc)
    return crc == source.unsigned(offset + CHECKED - 4, 4)


def _slices(source: Source, offset: int, size: int) -> Iterator[bytes]:
    for at in range(offset, offset + size, PIECE):
        yield source.read(at, min(PIECE, offset + size - at))


def _places(source: Source, wanted: bytes) -> Iterator[int]:
    for start, data in source.pieces(overlap=len(wanted) - 1):
        at = data.find(wanted)
        while at >= 0:
            yield start + at
            at = data.find(wanted, at + 1)


def _board(source: Source) -> str | None:
    """The board that our firmware says it is for."""
    from edgehmn.device.boards import boards
    from edgehmn.errors import EdgeHMNError

    try:
        names = sorted(boards(), key=len, reverse=True)
    except EdgeHMNError:
        return None  # an installation without the sources
    for name in names:
        for at in _places(source, name.encode() + b"\0"):
            before = source.read(at - 1, 1) if at else b"\0"
            if not (before.isalnum() or before == b"-"):  # else it is the end of another word
                return name
    return None
