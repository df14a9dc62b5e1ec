"""RP2350 (data sheet: 5.4, 7.5, 8.1, 8.2, 8.6, 9.11 and 12.1), and of its boot ROM what writes the flash.

From the time that the flash is made ready for commands until it is set up for reading again, the core can neither read
nor run what lies in it: stricter than the chip, which can again in between."""

import struct
from collections.abc import Callable
from typing import Any

from unicorn import UC_HOOK_CODE, UC_PROT_EXEC, UC_PROT_NONE, UC_PROT_READ
from unicorn import arm_const as arm

from tests.chips.chip import Chip

MHZ = 1_000_000
CPACR = 0xE000ED88
DIVIDERS = (0x40010034, 0x40010040, 0x4001004C)
SECTOR, PAGE = 4096, 256
TABLE, FUNCTIONS = 0x100, ("IF", "EX", "FO", "FC")
RETURN = 0x4770  # bx lr
SETUP_DONE = 0x400D0000  # a register of the flash's interface that the function in boot RAM writes
SETUP = struct.pack("<HHHHII", 0x4B01, 0x601B, RETURN, RETURN, SETUP_DONE, 0)  # ldr r3, [pc, #4]; str r3, [r3]; bx lr
DONE, REFUSED = 0, 0x100000000 - 4


class Rp2350(Chip):
    CPU = arm.UC_CPU_ARM_CORTEX_M33
    FLASH = (0x10000000, 4 << 20)
    RAM = ((0x20000000, 520 << 10),)
    PERIPHERALS = ((0x40000000, 0x100000),)
    CPU_WRITES_FLASH = False

    def prepare(self) -> None:
        self.uc.mem_map(0, 32 << 10, UC_PROT_READ | UC_PROT_EXEC)
        rom = bytearray(struct.pack("<H", RETURN) * 0x200)
        rom[0x10:0x18] = struct.pack("<3sBHH", b"Mu\x02", 2, 0, TABLE | 1)
        self.uc.mem_write(0, bytes(rom))
        self.uc.hook_add(UC_HOOK_CODE, self._in_rom, None, TABLE, TABLE + 0x100)

    def start_peripherals(self) -> None:
        uart = self["UART_ADDRESS"]
        pins = (self["UART_SEND_PIN"], self["UART_RECEIVE_PIN"])
        self.reading = True
        self.connected = self.commands = False
        plain = {0x40048000: 0, 0x4004800C: 0xC4, 0x40010030: 0, 0x4001003C: 0x41, 0x40010048: 0}
        plain |= dict.fromkeys(DIVIDERS, 0x20000)  # as a boot ROM might leave them
        plain |= {0x40050000: 1, 0x40050004: 0x2D, 0x40050008: 0, 0x4005000C: 0x77000, 0x40020000: 0x1FFFFFFF}
        plain |= dict.fromkeys((uart + 0x24, uart + 0x28, uart + 0x2C, uart + 0x30, uart + 0x38, uart + 0x44), 0)
        plain |= {0x40028004 + 8 * pin: 0x1F for pin in pins} | {0x40038004 + 4 * pin: 0x116 for pin in pins}
        self.registers |= (
            plain | {CPACR: 0} | {0x400E0000 + i: w for i, w in zip(range(0, 256, 4), self._setup(), strict=True)}
        )
        self.readers |= {
            0x40048004: lambda: (self.registers[0x40048000] == 0xFABAA0) << 31,
            0x40010038: lambda: 1 << (self.registers[0x40010030] & 3),
            0x40010044: lambda: 1 << (self.registers[0x4001003C] & 1),
            0x40020008: lambda: ~self.registers[0x40020000] & 0x1FFFFFFF,
            0x40050000: self._pll_status,
            uart: lambda: self.received.popleft() if self.received else 0,
            uart + 0x18: lambda: 0x80 | 0x10 * (not self.received),
        }
        self.writers |= {
            uart: self.send,
            0x40010030: self._reference,
            0x4001003C: self._system,
            0x40020000: self._reset_parts,
            0x40050000: lambda value: self.registers.__setitem__(0x40050000, value),
            SETUP_DONE: self._read_again,
            uart + 0x2C: self._format,
        }
        self.core_hz = 0.0

    def _setup(self) -> tuple[int, ...]:
        return struct.unpack("<64I", SETUP.ljust(256, b"\0"))

    def clocked(self, address: int) -> bool:
        part = {0x40028000: 6, 0x40038000: 9, 0x40050000: 14, 0x40070000: 26}.get(address & 0xFFFF8000)
        return part is None or not self.registers[0x40020000] >> part & 1

    def line_interrupt(self) -> bool:
        uart = self["UART_ADDRESS"]
        return self.registers[uart + 0x38] & 0x50 == 0x50 and self.registers[uart + 0x30] & 0x201 == 0x201

    # ---- Clocks and line

    def _pll_status(self) -> int:
        runs = not self.registers[0x40050004] & 0x21 and self.registers[0x40050008] >= 16
        return self.registers[0x40050000] | runs << 31

    def _reference(self, value: int) -> None:
        self.require(value == 2 and self.registers[0x40048000] == 0xFABAA0, "the crystal does not run")
        self.registers[0x40010030] = value

    def _system(self, value: int) -> None:
        if value & 1:
            self.require(value & 0xE0 == 0 and self._pll_status() >> 31, "the PLL is not locked, or not the source")
            self.require(not self.registers[0x40050004] & 0x29, "a part of the PLL is off")
            oscillator = self["CRYSTAL_HZ"] * self.registers[0x40050008] / (self.registers[0x40050000] & 0x3F)
            self.require(750 * MHZ <= oscillator <= 1600 * MHZ, "the PLL's oscillator is out of range")
            first, second = self.registers[0x4005000C] >> 16 & 7, self.registers[0x4005000C] >> 12 & 7
            self.core_hz = oscillator / (first * second)
            self.require(self.core_hz == self["TICK_HZ"] <= 150 * MHZ, f"the core's clock is {self.core_hz}")
        self.registers[0x4001003C] = value

    def _reset_parts(self, value: int) -> None:
        running = self.registers[0x4001003C] & 1
        self.require(not (running and value >> 14 & 1), "the PLL is reset while the core runs from it")
        self.registers[0x40020000] = value

    def _format(self, value: int) -> None:
        uart = self["UART_ADDRESS"]
        divisor = self.registers[uart + 0x24] + self.registers[uart + 0x28] / 64
        self.require(all(self.registers[divider] == 0x10000 for divider in DIVIDERS), "a clock is divided")
        self.require(self.registers[0x40010048] == 0x800, "the peripherals have no clock")
        self.require(value == 0x70, "not 8 bits, no parity, one stop bit, with FIFOs")
        error = self.core_hz / (16 * divisor) / self["BAUD"] - 1
        self.require(abs(error) < 0.001, f"the line's rate is wrong by {error:.2%}")
        self.registers[uart + 0x2C] = value

    def check_line(self) -> None:
        for pin in (self["UART_SEND_PIN"], self["UART_RECEIVE_PIN"]):
            pad, function = self.registers[0x40038004 + 4 * pin], self.registers[0x40028004 + 8 * pin]
            self.require(function == 2 and pad & 0x1C8 == 0x048, f"GPIO{pin} is not the UART's, or isolated")
        self.require(self.registers[self["UART_ADDRESS"] + 0x30] & 0x101 == 0x101, "the transmitter is off")

    # ---- The boot ROM

    def _in_rom(self, uc: Any, address: int, size: int, data: Any) -> None:
        first, second, third = (uc.reg_read(r) for r in (arm.UC_ARM_REG_R0, arm.UC_ARM_REG_R1, arm.UC_ARM_REG_R2))
        if address == TABLE:
            name = bytes((first & 0xFF, first >> 8 & 0xFF)).decode("latin-1")
            known = name in FUNCTIONS and second == 4
            uc.reg_write(arm.UC_ARM_REG_R0, TABLE + 0x10 * (1 + FUNCTIONS.index(name)) | 1 if known else 0)
            return
        self.require(address % 0x10 == 0 and address <= TABLE + 0x40, f"the boot ROM has nothing at {address:#x}")
        functions: list[Callable[[], int]] = [
            self._connect,
            self._exit_reading,
            lambda: self._operate(first, second, third, uc.reg_read(arm.UC_ARM_REG_R3)),
            self._flush,
        ]
        uc.reg_write(arm.UC_ARM_REG_R0, functions[(address - TABLE) // 0x10 - 1]())
        for register in (arm.UC_ARM_REG_R1, arm.UC_ARM_REG_R2, arm.UC_ARM_REG_R3, arm.UC_ARM_REG_R12):
            uc.reg_write(register, self.random.getrandbits(32))

    def _connect(self) -> int:
        self.require(self.registers[CPACR] >> 14 & 3 == 3, "the boot ROM cannot check itself")
        self.connected, self.reading = True, False
        self.uc.mem_protect(*self.FLASH, UC_PROT_NONE)
        return 0

    def _exit_reading(self) -> int:
        self.require(self.connected, "the flash is not connected")
        self.commands, self.flushed = True, False
        return 0

    def _operate(self, flags: int, address: int, count: int, data: int) -> int:
        at, room = self.state
        unit = {0x100: SECTOR, 0x10100: PAGE}.get(flags)
        self.require(self.commands, "the flash takes no commands yet")
        self.require(unit is not None, f"operation {flags:#x}")
        self.require(at <= address and address + count <= at + room, f"{count} bytes at {address:#x} are not ours")
        if self.protected or unit is None or address % unit or count % unit:
            return REFUSED
        if flags == 0x100:
            self.erased(address, count)
            return DONE
        self.require(0x20000000 <= data < 0x20082000, "the bytes to be written lie in the flash")
        before, after = bytes(self.uc.mem_read(address, count)), bytes(self.uc.mem_read(data, count))
        self.require(set(before) == {0xFF}, f"{address:#x} is written twice")
        self.uc.mem_write(address, after if self.power_holds() else self.partly(before, after))
        return DONE

    def _flush(self) -> int:
        self.flushed = True
        return 0

    def _read_again(self, value: int) -> None:
        self.require(self.commands and self.flushed, "reading is set up before the cache is emptied")
        self.connected = self.commands = False
        self.uc.mem_protect(*self.FLASH, UC_PROT_READ | UC_PROT_EXEC)

    def program(self, address: int, before: bytes, value: bytes) -> bytes:
        self.fail(f"the core writes {address:#x}, which it cannot")
        return before
