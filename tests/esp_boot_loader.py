"""The boot loader in the ROM of an ESP32-S3, behind a socket, as its maker documents the serial protocol
(docs.espressif.com/projects/esptool, Serial Protocol): enough for esptool without its stub."""

import hashlib
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import suppress

from tests.boot_loaders import connections

END, ESCAPE, ESCAPED = 0xC0, 0xDB, {0xDC: 0xC0, 0xDD: 0xDB}
FLASH_BEGIN, FLASH_DATA, FLASH_END, MEM_BEGIN, SYNC, WRITE_REG, READ_REG = 2, 3, 4, 5, 8, 9, 10
SPI_SET_PARAMS, SPI_ATTACH, READ_FLASH_SLOW, SPI_FLASH_MD5, SECURITY_INFO = 11, 13, 14, 0x13, 0x14
ACCEPTED = (FLASH_END, SPI_SET_PARAMS, SPI_ATTACH)  # what the board does about these cannot be seen
SPI_CMD, SPI_USR2, SPI_W0 = 0x60002000, 0x60002020, 0x60002058  # registers of the flash controller
READ_ID, FLASH_ID = 0x9F, 0x164020  # of a flash of 4 MiB
INVALID, FAILED, BAD_CHECKSUM = 5, 6, 7  # reasons that follow a status of 1
SEED = 0xEF


def unframed(connection: socket.socket) -> Iterator[bytes]:
    """The packets of a SLIP stream, until the other side hangs up."""
    packet, escaped, inside = bytearray(), False, False
    while data := connection.recv(1 << 16):
        for byte in data:
            if byte == END:
                if inside and packet:
                    yield bytes(packet)
                packet.clear()
                inside = True
            elif escaped:
                packet.append(ESCAPED[byte])
                escaped = False
            elif byte == ESCAPE:
                escaped = True
            else:
                packet.append(byte)


def framed(packet: bytes) -> bytes:
    return b"\xc0" + packet.replace(b"\xdb", b"\xdb\xdd").replace(b"\xc0", b"\xdb\xdc") + b"\xc0"


class EspBootLoader:
    """`memory` is the flash. conduct: "honest", "garbage" (a byte of each block is another, and the MD5 is that of what
    was sent), "refuses" (no erase), "hangs" (no answer to a block)."""

    def __init__(self, chip_id: int = 9, conduct: str = "honest") -> None:
        """chip_id: 9 is an ESP32-S3, 5 an ESP32-C3."""
        self.memory, self.chip_id, self.conduct = bytearray(b"\xff" * (4 << 20)), chip_id, conduct
        self.sent = bytearray(self.memory)
        self.asked_for_stub = False
        self.started = False
        self._registers: dict[int, int] = {}
        self._at, self._block = 0, 0
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = f"socket://127.0.0.1:{self._server.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._server.close()

    def _serve(self) -> None:
        for connection in connections(self._server):
            with suppress(OSError):
                for packet in unframed(connection):
                    self._answer(connection, packet)

    def _answer(self, connection: socket.socket, packet: bytes) -> None:
        direction, command, size, checksum = struct.unpack_from("<BBHI", packet)
        data = packet[8:]
        if direction != 0 or len(data) != size:
            return
        value, out, reason = self._do(command, data, checksum)
        if reason is None:
            return
        status = bytes([reason > 0, reason, 0, 0])
        answer = framed(struct.pack("<BBHI", 1, command, len(out) + len(status), value) + out + status)
        connection.sendall(answer * (8 if command == SYNC else 1))

    def _do(self, command: int, data: bytes, checksum: int) -> tuple[int, bytes, int | None]:
        """Value, data and reason of failure (0: none) of an answer; None for no answer."""
        words = struct.unpack(f"<{len(data) // 4}I", data[: len(data) // 4 * 4])
        if command == SYNC:
            return 0x20120707, b"", 0
        if command == SECURITY_INFO:
            return 0, struct.pack("<IBBBBBBBBII", 0, *[0] * 8, self.chip_id, 0), 0
        if command == READ_REG:
            return self._registers.get(words[0], 0), b"", 0
        if command == WRITE_REG:
            self._write_register(words[0], words[1])
            return 0, b"", 0
        if command == MEM_BEGIN:
            self.asked_for_stub = True
            return 0, b"", FAILED
        if command in (FLASH_BEGIN, FLASH_DATA):
            return 0, b"", self._flash(command, words, data, checksum)
        if command == SPI_FLASH_MD5:
            held = self.sent if self.conduct == "garbage" else self.memory
            return 0, hashlib.md5(held[words[0] : words[0] + words[1]]).hexdigest().encode(), 0
        if command == READ_FLASH_SLOW:
            return 0, bytes(self.memory[words[0] : words[0] + words[1]]).ljust(64, b"\0"), 0
        self.started |= command == FLASH_END
        return 0, b"", 0 if command in ACCEPTED else INVALID

    def _write_register(self, address: int, value: int) -> None:
        if address == SPI_CMD:  # done at once
            known = self._registers.get(SPI_USR2, 0) & 0xFF == READ_ID
            self._registers[SPI_W0] = FLASH_ID if known else 0
            value = 0
        self._registers[address] = value

    def _flash(self, command: int, words: tuple[int, ...], data: bytes, checksum: int) -> int | None:
        if command == FLASH_BEGIN:
            erased, _, self._block, self._at = words[:4]
            if self.conduct == "refuses":
                return FAILED
            for memory in (self.memory, self.sent):
                memory[self._at : self._at + erased] = b"\xff" * erased
            return 0
        size, number = words[:2]
        block, sum_ = data[16:], SEED
        for byte in block:
            sum_ ^= byte
        if len(block) != size or sum_ != checksum:
            return BAD_CHECKSUM
        if self.conduct == "hangs":
            return None
        at = self._at + number * self._block
        self.sent[at : at + size] = block
        if self.conduct == "garbage":
            block = bytes([block[0] ^ 1]) + block[1:]
        self.memory[at : at + size] = block
        return 0
