"""A debug probe on an nRF52840, behind a socket, as pyocd documents its remote probe protocol (pyocd.io/docs,
remote_probe_protocol): debug port and access ports by their registers (Arm IHI 0031), the core's debug registers
(Armv7-M, C1.6), and the core itself by Unicorn, which runs the flash algorithm that pyocd brings."""

import contextlib
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any

from unicorn import UC_HOOK_INTR, Uc, UcError
from unicorn import arm_const as arm

from edgehmn.device.boards import boards
from edgehmn.device.firmware import build_firmware
from tests.boot_loaders import connections
from tests.chips.chip import BLANK, NOWHERE, PATIENCE_S
from tests.chips.nrf52840 import Nrf52840

BOARD = "nrf52840-dk"
OK, DISCONNECTED, FAULT = 0, 2, 12  # of the answer to a request
DPIDR, AHB_AP, CTRL_AP = 0x2BA01477, 0x24770011, 0x12880000
PART = {0x10000100: 0x52840, 0x10000108: 0x2004}
PERIPHERALS = (*PART, 0x10000104, 0x10001208, 0x4001E400, 0x4001E504)  # that pyocd itself reads or writes
ROM_TABLE, SYSTEM_CONTROL = 0xE00FF000, 0xE000E000
IDENTITIES = {  # the last twelve words of what lies there: PIDR4..7, PIDR0..3, CIDR0..3
    ROM_TABLE: (2, 0, 0, 0, 0x08, 0x40, 0x02, 0, 0x0D, 0x10, 0x05, 0xB1),
    SYSTEM_CONTROL: (4, 0, 0, 0, 0x0C, 0xB0, 0x0B, 0, 0x0D, 0xE0, 0x05, 0xB1),
}
CPUID, CLIDR, ISAR3, MPU_TYPE, MVFR0, MVFR2 = (SYSTEM_CONTROL + at for at in (0xD00, 0xD78, 0xD6C, 0xD90, 0xF40, 0xF48))
AIRCR, DFSR, DHCSR, DCRSR, DCRDR, DEMCR = (SYSTEM_CONTROL + at for at in (0xD0C, 0xD30, 0xDF0, 0xDF4, 0xDF8, 0xDFC))
KEY, DEBUGEN, HALT, S_REGRDY, S_HALT, S_RESET = 0xA05F, 1, 2, 1 << 16, 1 << 17, 1 << 25
BKPT = 7  # Unicorn's number of that exception
REGISTERS = {n: getattr(arm, f"UC_ARM_REG_R{n}") for n in range(13)} | {
    13: arm.UC_ARM_REG_SP,
    14: arm.UC_ARM_REG_LR,
    17: arm.UC_ARM_REG_MSP,
    18: arm.UC_ARM_REG_PSP,
}
PC, XPSR, SPECIAL = 15, 16, 20
SETTINGS = {"vendor_name": "edgehmn", "product_name": "a probe", "supported_wire_protocols": ["DEFAULT", "SWD"]}


class Fault(Exception):
    """An access that the chip does not allow, as the host is told."""


class Debugged(Nrf52840):
    """The chip in the hands of a debugger: all of its flash may be written, by the rules of its controller."""

    STORES_WAIT = False  # the algorithm that pyocd brings has no barrier
    wrong: int | None = None  # address of a word that keeps another bit than it is given

    @property
    def state(self) -> tuple[int, int]:
        return self.FLASH

    def prepare(self) -> None:
        self.uc.hook_add(UC_HOOK_INTR, self._exception)

    def start_peripherals(self) -> None:
        super().start_peripherals()
        self.registers |= PART | {0x40010404: 1, 0x40010504: 0xFFFFFFFF}  # the watchdog, which pyocd feeds
        self.writers[0x40010600] = lambda value: self.require(value == 0x6E524635, "the watchdog is fed something else")
        self.exception: int | None = None

    def _exception(self, uc: Uc, number: int, data: Any) -> None:
        self.exception = number
        uc.emu_stop()

    def program(self, address: int, before: bytes, value: bytes) -> bytes:
        after = super().program(address, before, value)
        return bytes([after[0] ^ 1, *after[1:]]) if address == self.wrong else after

    def until_breakpoint(self) -> None:
        self.exception = None
        with contextlib.suppress(UcError):  # what it means is told by the exception
            self.uc.emu_start(self.pc | 1, NOWHERE, timeout=PATIENCE_S * 1_000_000)
        self.pc = self.uc.reg_read(arm.UC_ARM_REG_PC)
        self.settle()
        self.require(self.exception == BKPT, f"the core does not come to a breakpoint, but to {self.pc:#x}")

    def erase_all(self) -> None:
        start, size = self.FLASH
        self.uc.mem_write(start, BLANK * size)
        self.protection = 0xFFFFFFFF


class DebugPort:
    """Registers of the debug port, of the access port to the memory, of Nordic's control port, and of the core."""

    def __init__(self, chip: Debugged, started: Callable[[], None], locked: bool = False) -> None:
        """started: called as the core leaves a reset and is not held."""
        self.chip, self.locked, self._started = chip, locked, started
        self._select = self._control = self._csw = self._tar = self._number = 0
        self._debug, self._demcr, self._dfsr, self._data = 0, 0, 0, 0
        self._halted, self._was_reset = False, False
        self._others = {XPSR: 1 << 24, SPECIAL: 0}

    # ---- Debug port and access ports

    def read_dp(self, at: int) -> int:
        if at == 4:
            return self._control | self._control << 1 & 0xA0000000  # power is there when it is asked for
        return {0: DPIDR, 12: 0}[at]

    def write_dp(self, at: int, value: int) -> None:
        if at == 4:
            self._control = value & 0x50000000
        elif at == 8:
            self._select = value

    def read_ap(self, at: int) -> int:
        port, register = self._where(at)
        if port == 1:
            return {0: 0, 8: 0, 12: int(not self.locked), 0xFC: CTRL_AP}[register]
        if register == 12:
            return self._transfer(None)
        return {0: self._csw | int(not self.locked) << 6, 4: self._tar, 0xF4: 0, 0xF8: ROM_TABLE | 3, 0xFC: AHB_AP}.get(
            register, 0
        )

    def write_ap(self, at: int, value: int) -> None:
        port, register = self._where(at)
        if port == 1:
            if register == 4 and value == 1:
                self.chip.erase_all()
                self.locked = False
        elif register == 0:
            self._csw = value & 0x3F000037
        elif register == 4:
            self._tar = value
        elif register == 12:
            self._transfer(value)

    def _where(self, at: int) -> tuple[int, int]:
        port, register = self._select >> 24, self._select & 0xF0 | at & 12
        if self._control & 0x50000000 != 0x50000000:
            raise Fault("the debug port has no power")
        return (port, register) if port < 2 else (0, 0x100)  # no such port: reads as 0

    def _transfer(self, value: int | None) -> int:
        """One access to memory through the data register; the address goes on within its 4 KiB, as in a Cortex-M4."""
        if self.locked:
            raise Fault("the debug port is locked")
        size, at = 1 << (self._csw & 7), self._tar
        if at % size:
            raise Fault(f"{at:#x} is not aligned")
        if self._csw & 0x30:
            self._tar = at & ~0xFFF | (at + size) & 0xFFF
        lanes = 8 * (at & 3)
        if value is None:
            return int.from_bytes(self._read(at, size), "little") << lanes
        self._write(at, (value >> lanes & (1 << 8 * size) - 1).to_bytes(size, "little"))
        return 0

    # ---- Memory and core

    def _memory(self, at: int) -> bool:
        return any(start <= at < start + size for start, size in (self.chip.FLASH, *self.chip.RAM))

    def _read(self, at: int, size: int) -> bytes:
        if self._memory(at):
            return bytes(self.chip.uc.mem_read(at, size))
        if size != 4:
            raise Fault(f"{at:#x} is read by {size} bytes")
        return struct.pack("<I", self._register(at))

    def _write(self, at: int, data: bytes) -> None:
        if self._memory(at):
            start, size = self.chip.RAM[0]
            if not start <= at < start + size:
                raise Fault(f"{at:#x} is written by the debugger")
            self.chip.uc.mem_write(at, data)
        elif len(data) != 4:
            raise Fault(f"{at:#x} is written by {len(data)} bytes")
        else:
            self._set_register(at, int.from_bytes(data, "little"))

    def _register(self, at: int) -> int:
        if at in PERIPHERALS:
            return self.chip.readers[at]() if at in self.chip.readers else self.chip.registers[at]
        page, last = at & ~0xFFF, at & 0xFFF
        if page in IDENTITIES and last >= 0xFD0:
            return IDENTITIES[page][(last - 0xFD0) // 4]
        if page == ROM_TABLE:
            return (SYSTEM_CONTROL - ROM_TABLE & 0xFFFFFFFF) | 3 if last == 0 else 0
        if at == DHCSR:
            was_reset, self._was_reset = self._was_reset, False
            return self._debug | S_REGRDY | S_HALT * self._halted | S_RESET * was_reset
        known = {CPUID: 0x410FC241, CLIDR: 0, ISAR3: 0x01111131, MPU_TYPE: 0x800, MVFR0: 0x10110021, MVFR2: 0}
        known |= {DFSR: self._dfsr, DCRDR: self._data, DEMCR: self._demcr, AIRCR: 0xFA050000}
        if at not in known:
            raise Fault(f"{at:#x} is read, and is none of the registers")
        return known[at]

    def _set_register(self, at: int, value: int) -> None:
        if at == DHCSR and value >> 16 == KEY:
            self._control_core(value & 0xF)
        elif at in PERIPHERALS and at in self.chip.writers:
            self.chip.writers[at](value)
        elif at in PERIPHERALS and at in self.chip.registers:
            self.chip.registers[at] = value
        elif at == DCRSR:
            self._move(value & 0x7F, bool(value >> 16 & 1))
        elif at == DCRDR:
            self._data = value
        elif at == DEMCR:
            self._demcr = value
        elif at == DFSR:
            self._dfsr &= ~value
        elif at == AIRCR and value == 0x05FA0004:
            self._reset()
        else:
            raise Fault(f"{at:#x} is written, and is none of the registers")

    def _control_core(self, bits: int) -> None:
        goes_on = self._halted and not bits & HALT
        self._debug, self._halted = bits, bool(bits & DEBUGEN and bits & HALT)
        ram, size = self.chip.RAM[0]
        if goes_on and bits & DEBUGEN and ram <= self.chip.pc < ram + size:
            self.chip.until_breakpoint()
            self._halted, self._dfsr = True, self._dfsr | 2

    def _reset(self) -> None:
        self.chip.reset()
        self._was_reset = True
        self._halted = bool(self._demcr & 1 and self._debug & DEBUGEN)
        if not self._halted:
            self._started()

    def _move(self, number: int, write: bool) -> None:
        """Between a register of the core and DCRDR."""
        if not self._halted:
            raise Fault("a register is asked for, and the core runs")
        if number not in REGISTERS and number != PC and number not in self._others:
            raise Fault(f"register {number} is none")
        if write and number == PC:
            self.chip.pc = self._data & ~1
        elif write and number in self._others:
            self._others[number] = self._data
        elif write:
            self.chip.uc.reg_write(REGISTERS[number], self._data)
        elif number == PC:
            self._data = self.chip.pc
        else:
            self._data = self._others[number] if number in self._others else self.chip.uc.reg_read(REGISTERS[number])


class Probe:
    """conduct: what it does once a part of the flash has been written: "honest", "garbage" (a bit is another), "hangs"
    (no answer), "drops" (the connection), "unplugged" (says that it has lost its probe)."""

    def __init__(self, conduct: str = "honest", kept: bytes = b"", locked: bool = False) -> None:
        """kept: what stands in the flash for learned states before."""
        board = boards()[BOARD]
        self.board = Nrf52840(board, build_firmware(BOARD).read_bytes(), b"")  # what runs after a reset
        self.chip = Debugged(board, build_firmware(BOARD).read_bytes(), b"")
        self.chip.flash[:] = BLANK * len(self.chip.flash)
        at, _ = self.board.state
        self.chip.flash[at : at + len(kept)] = kept
        self.board.flash[:] = self.chip.flash
        self.chip.power_on()
        if conduct == "garbage":
            self.chip.wrong = 0x20004
        self.conduct, self.starts, self.acted = conduct, 0, False
        self.port = DebugPort(self.chip, self._started, locked)
        self.failure: BaseException | None = None
        self._server = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._server.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def flash(self) -> bytes:
        start, size = self.chip.FLASH
        return bytes(self.chip.uc.mem_read(start, size))

    def close(self) -> None:
        self._server.close()
        if self.failure:
            raise self.failure

    def _started(self) -> None:
        self.starts += 1
        self.board.flash[:], self.board.off = self.flash, True

    def _serve(self) -> None:
        for connection in connections(self._server):
            with connection.makefile("rwb") as stream:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                try:
                    for answer in self._answers(stream):
                        stream.write(json.dumps(answer).encode() + b"\n")
                        stream.flush()
                except OSError:
                    continue  # pyocd was stopped
                except BaseException as e:
                    self.failure = e
                    return

    def _answers(self, stream: Any) -> Iterator[dict[str, Any]]:
        protocol = None
        for line in stream:
            request = json.loads(line)
            words, arguments = request["request"], request.get("arguments", [])
            answer: dict[str, Any] = {"id": request["id"], "status": OK}
            if self.conduct in ("hangs", "drops", "unplugged") and self.chip.operations > 1000:
                self.acted = True
                if self.conduct == "drops":
                    return
                if self.conduct == "hangs":
                    continue
                yield answer | {"status": DISCONNECTED, "error": "the probe is gone"}
                continue
            if words == "connect":
                protocol = "SWD"
            elif words == "disconnect":
                protocol = None
            elif words == "readprop":
                answer["result"] = {"capabilities": [], "wire_protocol": protocol, **SETTINGS}[arguments[0]]
            else:
                try:
                    answer["result"] = self._do(words, arguments)
                except Fault as e:
                    answer |= {"status": FAULT, "error": str(e)}
            if self.chip.failure:
                raise AssertionError(self.chip.failure)
            yield answer

    def _do(self, words: str, arguments: list[Any]) -> Any:
        port = self.port
        if words == "read_ap_multiple":
            at, count = arguments
            return [port.read_ap(at) for _ in range(count)]
        if words == "write_ap_multiple":
            at, values = arguments
            for value in values:
                port.write_ap(at, value)
            return None
        if words in ("read_dp", "write_dp", "read_ap", "write_ap"):
            return getattr(port, words)(*arguments)
        quiet = ("hello", "open", "close", "lock", "unlock", "set_clock", "flush", "get_memory_interface_for_ap")
        assert words in quiet, words
        return None
