"""Microcontrollers that QEMU does not have, as far as the firmware uses them: the core by Unicorn, and models of the
peripherals that know the rules of their reference manuals. What runs is the very file that is flashed.

A register that a model does not know, a peripheral without its clock, a clock beyond its range, a flash word written
twice: each ends the run with `Violation`.
"""

import contextlib
import random
import re
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from unicorn import (
    UC_ARCH_ARM,
    UC_HOOK_CODE,
    UC_HOOK_MEM_WRITE,
    UC_MODE_MCLASS,
    UC_MODE_THUMB,
    UC_PROT_ALL,
    UC_PROT_EXEC,
    UC_PROT_READ,
    UC_PROT_WRITE,
    Uc,
    UcError,
)
from unicorn import arm_const as arm

from edgehmn.device.boards import Board
from edgehmn.device.flash.parts import contents

NOWHERE = 0xFFFFFFFE
PPB, PPB_BYTES = 0xE0000000, 0x100000  # the core's own registers
PAGE = 4096
VTOR = 0xE000ED08
PATIENCE_S = 30  # that the core may compute without sleeping
CYCLES = 1000  # that the counter goes on from one look to the next
BLANK = b"\xff"
BARRIER = b"\xbf\xf3\x4f\x8f"  # dsb sy


class Violation(AssertionError):
    """The firmware did what its chip does not allow, or does not answer."""


class Chip:
    """A board from power-on on. Subclasses name the core and the memory, and model the peripherals."""

    CPU: int
    FLASH: tuple[int, int]  # address and size of the flash that is mapped into memory
    RAM: tuple[tuple[int, int], ...]
    PERIPHERALS: tuple[tuple[int, int], ...]

    def __init__(self, board: Board, elf: bytes, image: bytes, seed: int = 0) -> None:
        self.board, self.random = board, random.Random(seed)
        base, size = self.FLASH
        self.flash = bytearray(BLANK * size)
        firmware = contents(elf, board.numbers["BOARD_FLASH_ADDRESS"])
        assert len(firmware) <= board.numbers["BOARD_FLASH_BYTES"]
        for address, data in ((board.numbers["BOARD_FLASH_ADDRESS"], firmware), (self["IMAGE_ADDRESS"], image)):
            self.flash[address - base : address - base + len(data)] = data
        self.cut_after: int | None = None  # operations of the flash until the power goes
        self.protected = False  # the flash refuses to be written
        self.operations = 0
        self.torn: set[int] = set()
        self.off = True

    def __getitem__(self, name: str) -> int:
        return self.board.numbers[f"BOARD_{name}"]

    @property
    def state(self) -> tuple[int, int]:
        """Address and size of the flash for learned state."""
        return self["STATE_ADDRESS"], 2 * self["STATE_SLOT_SECTORS"] * self["STATE_SECTOR_BYTES"]

    # ---- Power, reset, run

    def power_on(self) -> None:
        self.uc = Uc(UC_ARCH_ARM, UC_MODE_THUMB | UC_MODE_MCLASS)
        self.uc.ctl_set_cpu_model(self.CPU)
        base, size = self.FLASH
        at, room = self.state
        self._buffered = False
        for start, end in ((base, at), (at, at + room), (at + room, base + size)):
            if start < end:
                writable = UC_PROT_WRITE if start == at and self.CPU_WRITES_FLASH else 0
                self.uc.mem_map(start, end - start, UC_PROT_READ | UC_PROT_EXEC | writable)
        self.uc.mem_write(base, bytes(self.flash))
        for start, size in self.RAM:
            self.uc.mem_map(start, size, UC_PROT_ALL)
            self.uc.mem_write(start, self.random.randbytes(PAGE) * (size // PAGE))  # nobody has cleared it
        for start, size in (*self.PERIPHERALS, (PPB, PPB_BYTES)):
            self.uc.mmio_map(start, size, self._read, start, self._write, start)
        self.uc.hook_add(UC_HOOK_MEM_WRITE, self._flash_written, None, at, at + room - 1)
        for found in re.finditer(re.escape(BARRIER), self.flash):
            self.uc.hook_add(UC_HOOK_CODE, self._all_done, None, base + found.start(), base + found.start())
        self.prepare()
        self.off = False
        self.reset()

    CPU_WRITES_FLASH = True
    STORES_WAIT = True  # in a buffer until a barrier, while registers are read

    def prepare(self) -> None:
        """More memory and hooks, after power-on."""

    def reset(self) -> None:
        self.received: deque[int] = deque()
        self.sent = bytearray()
        self.registers: dict[int, int] = {0xE000EDFC: 0, 0xE0001000: 0, 0xE0001FB0: 0, 0xE000ED14: 0, VTOR: 0}
        self.readers: dict[int, Callable[[], int]] = {0xE0001004: self._cycles}
        self.writers: dict[int, Callable[[int], None]] = {0xE000ED0C: self._reset_control, 0xE0001004: self._restart}
        for n in range(8):
            self.registers |= {0xE000E100 + 4 * n: 0, 0xE000E280 + 4 * n: 0}
        self._time, self._pending = 0, []
        self.failure: str | None = None
        self.reset_asked = self.line_checked = False
        self.start_peripherals()
        stack, entry = struct.unpack("<II", self.uc.mem_read(self["FLASH_ADDRESS"], 8))
        for register in (arm.UC_ARM_REG_PRIMASK, arm.UC_ARM_REG_FAULTMASK):
            self.uc.reg_write(register, 0)
        self.uc.reg_write(arm.UC_ARM_REG_SP, stack)
        self.pc = entry

    def start_peripherals(self) -> None:
        """Registers as a reset leaves them: into `registers`, `readers` and `writers`."""
        raise NotImplementedError

    def take(self, data: bytes) -> bytes:
        """Bytes for the board; returns what it sends until it sleeps."""
        self.received.extend(data)
        self.sent.clear()
        while not self.off:
            try:
                begin = time.monotonic()
                self.uc.emu_start(self.pc | 1, NOWHERE, timeout=PATIENCE_S * 1_000_000)
                if time.monotonic() - begin >= PATIENCE_S:
                    self.failure = f"it does not come to rest in {PATIENCE_S} s"
            except UcError as e:
                self.failure = self.failure or str(e)
            self.pc = self.uc.reg_read(arm.UC_ARM_REG_PC)
            if self.failure:
                raise Violation(f"{self.failure}, at {self.pc:#x}")
            if self.reset_asked:
                kept = bytes(self.sent)
                self.reset()
                self.sent.extend(kept)
            elif not self.received:
                break
            elif not self.off:
                interrupt = self["UART_INTERRUPT"]
                enabled = self.registers[0xE000E100 + 4 * (interrupt // 32)] >> interrupt % 32 & 1
                if not (enabled and self.line_interrupt()):
                    raise Violation("it sleeps, and no byte will wake it")
        if self.off:
            self.keep_flash()
        return bytes(self.sent)

    def keep_flash(self) -> None:
        """What is learned, for the time without power."""
        base, _ = self.FLASH
        at, room = self.state
        self.flash[at - base : at - base + room] = self.uc.mem_read(at, room)

    def line_interrupt(self) -> bool:
        """Whether a byte that came raises the interrupt of the line."""
        raise NotImplementedError

    def check_line(self) -> None:
        """That pins and line are as the board has them."""
        raise NotImplementedError

    def send(self, value: int) -> None:
        """A byte of the board for the host."""
        if not self.line_checked:
            self.require(self.registers[VTOR] == self["FLASH_ADDRESS"], "faults go elsewhere")
            self.check_line()
            self.line_checked = True
        self.sent.append(value & 0xFF)

    # ---- Registers

    def fail(self, what: str) -> None:
        self.failure = self.failure or what
        self.uc.emu_stop()

    def require(self, true: Any, what: str) -> None:
        if not true and not self.off:
            self.fail(what)

    def clocked(self, address: int) -> bool:
        """Whether the peripheral at an address has its clock."""
        return True

    def _read(self, uc: Uc, offset: int, size: int, base: int) -> int:
        address = base + offset
        self.require(size == 4, f"{address:#x} is read by {size} bytes")
        self.require(self.clocked(address), f"{address:#x} is read without a clock")
        if address in self.readers:
            return self.readers[address]()
        self.require(address in self.registers, f"{address:#x} is read, and is none of the registers")
        return self.registers.get(address, 0)

    def _write(self, uc: Uc, offset: int, size: int, value: int, base: int) -> None:
        address = base + offset
        self.require(size == 4, f"{address:#x} is written by {size} bytes")
        self.require(self.clocked(address), f"{address:#x} is written without a clock")
        if address in self.writers:
            self.writers[address](value)
        elif address in self.readers:
            self.fail(f"{address:#x} is written, and can only be read")
        else:
            self.require(address in self.registers, f"{address:#x} is written, and is none of the registers")
            self.registers[address] = value

    def _cycles(self) -> int:
        on = self.registers[0xE000EDFC] >> 24 & 1 and self.registers[0xE0001000] & 1
        self.require(on, "the counter of cycles does not run")
        self._time += CYCLES
        return self._time

    def _restart(self, value: int) -> None:
        self._time = value

    def _reset_control(self, value: int) -> None:
        self.require(value == 0x05FA0004, f"reset control is {value:#x}")
        self.reset_asked = True
        self.uc.emu_stop()

    # ---- Flash

    def _flash_written(self, uc: Uc, access: int, address: int, size: int, value: int, data: Any) -> None:
        """Called before the core's write: what it does to the flash is settled when its controller is asked."""
        before = bytes(uc.mem_read(address, size))
        self._buffered = self.STORES_WAIT
        self._pending.append((address, before, (value & ((1 << 8 * size) - 1)).to_bytes(size, "little")))

    def _all_done(self, uc: Uc, address: int, size: int, data: Any) -> None:
        """At a barrier: no store waits in a buffer any more."""
        self._buffered = False

    def settle(self) -> None:
        """Let what the core has written since the last time happen to the flash."""
        self.require(not self._buffered, "the flash's controller is asked while what was written is on its way")
        pending, self._pending = self._pending, []
        for address, before, value in pending:
            self.uc.mem_write(address, before if self.off else self.program(address, before, value))

    def program(self, address: int, before: bytes, value: bytes) -> bytes:
        """What stands there after a write of the core."""
        raise NotImplementedError

    def power_holds(self) -> bool:
        """Count an operation of the flash; False if the power goes in the midst of it."""
        self.operations += 1
        if self.cut_after is not None and self.operations >= self.cut_after:
            self.off = True
            self.uc.emu_stop()
        return not self.off

    def partly(self, before: bytes, after: bytes) -> bytes:
        """Bits of both."""
        mask = self.random.randbytes(len(before))
        return bytes(b & m | a & ~m & 0xFF for b, a, m in zip(before, after, mask, strict=True))

    def erased(self, address: int, size: int) -> None:
        """Erase, or begin to."""
        if self.power_holds():
            self.uc.mem_write(address, BLANK * size)
        else:
            before = bytes(self.uc.mem_read(address, size))
            self.uc.mem_write(address, self.partly(before, BLANK * size))


@contextlib.contextmanager
def serving(chip: Chip) -> Iterator[str]:
    """The URL of the board's line. A connection powers the board on if it is off, and ends where its power goes."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        violations: list[BaseException] = []
        thread = threading.Thread(target=_serve, args=(server, chip, violations), daemon=True)
        thread.start()
        try:
            yield f"socket://127.0.0.1:{server.getsockname()[1]}"
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join(5)  # not for ever, if a test ends in a session
            if violations:
                raise violations[0]


def _serve(server: socket.socket, chip: Chip, violations: list[BaseException]) -> None:
    while True:
        try:
            line, _ = server.accept()
        except OSError:
            return
        with line:
            line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                if chip.off:
                    chip.power_on()
                    chip.take(b"")
                while not chip.off and (data := line.recv(PAGE)):
                    line.sendall(chip.take(data))
            except ConnectionError:
                continue
            except BaseException as e:
                violations.append(e)
                return
