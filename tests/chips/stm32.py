"""STM32F405 (reference manual RM0090) and STM32H743 (RM0433)."""

from collections.abc import Callable

from unicorn import UC_HOOK_MEM_READ
from unicorn import arm_const as arm

from tests.chips.chip import Chip

KEYS = [0x45670123, 0xCDEF89AB]
MHZ = 1_000_000


class Stm32(Chip):
    """What both have: ports, a crystal or the clock of the debugger, a flash that is unlocked by two keys."""

    GPIO: int
    BAUD_ERROR = 0.01
    has_crystal = True
    from_loader = False  # started by the boot loader in ROM, which leaves its clocks and its line on

    def start_pins(self) -> None:
        port = self["UART_PORT_ADDRESS"]
        self.registers |= {port: 0xFFFFFFFF, port + 0xC: 0, port + 0x20: 0, port + 0x24: 0}

    def check_pins(self) -> None:
        port = self["UART_PORT_ADDRESS"]
        for pin in (self["UART_SEND_PIN"], self["UART_RECEIVE_PIN"]):
            function = self.registers[port + 0x20 + 4 * (pin // 8)] >> 4 * (pin % 8) & 0xF
            self.require(self.registers[port] >> 2 * pin & 3 == 2 and function == 7, f"pin {pin} is not the USART's")
            self.require(self.registers[port + 0xC] >> 2 * pin & 3 == 1, f"pin {pin} has no pull-up")

    def check_baud(self, clock_hz: float, divisor: int) -> None:
        error = clock_hz / divisor / self["BAUD"] - 1
        self.require(abs(error) < self.BAUD_ERROR, f"the line's rate is wrong by {error:.1%}")

    def start_lock(self, keys: int, control: int, errors: int) -> None:
        self.lock, self.keys, self.errors = True, [], 0
        self.writers |= {keys: self._key, control: self._control}
        self.readers[control] = lambda: self.control | self.LOCK * self.lock
        self.control = 0
        self.error_bits = errors

    LOCK: int
    START: int

    def _key(self, value: int) -> None:
        self.keys = [*self.keys, value][-2:]
        self.require(value in KEYS, f"{value:#x} is no key of the flash")
        self.lock = self.keys != KEYS

    def _control(self, value: int) -> None:
        self.settle()
        if self.lock:
            self.fail("the flash is locked")
        elif value & self.LOCK:
            self.lock, self.keys = True, []
        else:
            begins = value & self.START and not self.control & self.START
            self.control = value & ~self.START
            if begins:
                self._begin(value)

    def _begin(self, value: int) -> None:
        raise NotImplementedError


class Stm32F405(Stm32):
    CPU = arm.UC_CPU_ARM_CORTEX_M4
    FLASH = (0x08000000, 1 << 20)
    RAM = ((0x10000000, 64 << 10), (0x20000000, 128 << 10))
    PERIPHERALS = ((0x40000000, 0x30000),)
    LOCK, START = 1 << 31, 1 << 16
    SECTORS = [(0x08000000 + n * 0x4000, 0x4000) for n in range(4)] + [(0x08010000, 0x10000)]
    SECTORS += [(0x08020000 + n * 0x20000, 0x20000) for n in range(7)]

    def start_peripherals(self) -> None:
        self.start_pins()
        self.start_lock(0x40023C04, 0x40023C10, 0xF2)
        self.clock_hz = {"core": 16 * MHZ, "apb1": 16 * MHZ, "apb2": 16 * MHZ}
        uart = self["UART_ADDRESS"]
        self.registers |= {0x40023804: 0x24003010, 0x40023830: 0x00100000, self["UART_ENABLE_ADDRESS"]: 0}
        self.registers |= {uart + 0xC: 0, uart + 0x10: 0, uart + 0x14: 0, 0x40023800: 0x83, 0x40023808: 0}
        if self.from_loader:
            self.registers |= {0x40023800: 0x01010083, 0x40023808: 0x940A, uart + 0xC: 0x340C, uart + 0x10: 0x2000}
        self.acr, self.stale = 0, False
        self.readers |= {
            0x40023800: self._rcc_control,
            0x40023808: lambda: self.registers[0x40023808] | (self.registers[0x40023808] & 3) << 2,
            0x40023C00: lambda: self.acr,
            0x40023C0C: self._status,
            uart: lambda: 0xC0 | 0x20 * bool(self.received),
            uart + 4: lambda: self.received.popleft() if self.received else 0,
        }
        self.writers |= {
            0x40023800: lambda value: self.registers.__setitem__(0x40023800, value & ~(1 << 25 | 1 << 17 | 2)),
            0x40023804: self._configure,
            0x40023808: self._select,
            0x40023C00: self._access_control,
            0x40023C0C: lambda value: setattr(self, "errors", self.errors & ~value),
            uart + 4: self.send,
            uart + 8: lambda value: self.check_baud(self.clock_hz["apb1" if uart < 0x40010000 else "apb2"], value),
        }

    def clocked(self, address: int) -> bool:
        if address & ~0x3FF == self["UART_PORT_ADDRESS"]:
            return bool(self.registers[0x40023830] >> (address - 0x40020000) // 0x400 & 1)
        if address & ~0x3FF == self["UART_ADDRESS"]:
            return bool(self.registers[self["UART_ENABLE_ADDRESS"]] >> self["UART_ENABLE_BIT"] & 1)
        return True

    def line_interrupt(self) -> bool:
        return self.registers[self["UART_ADDRESS"] + 0xC] & 0x2024 == 0x2024

    def send(self, value: int) -> None:
        self.require(not self.stale, "the data cache may hold what the flash held before")
        super().send(value)

    def check_line(self) -> None:
        self.check_pins()
        control = [self.registers[self["UART_ADDRESS"] + at] for at in (0xC, 0x10, 0x14)]
        self.require(control == [0x202C, 0, 0], "not 8 bits, no parity, one stop bit; or the line is off")

    def _rcc_control(self) -> int:
        on = self.registers[0x40023800]
        return on | (on & 1) << 1 | (on >> 16 & 1 and self.has_crystal) << 17 | (on >> 24 & 1) << 25

    def _configure(self, value: int) -> None:
        self.require(not self.registers[0x40023800] >> 24 & 1, "the PLL is changed while it is on")
        self.registers[0x40023804] = value

    def _select(self, value: int) -> None:
        pll, control = self.registers[0x40023804], self.registers[0x40023800]
        if value & 3 == 2:
            m, n, p = pll & 0x3F, pll >> 6 & 0x1FF, 2 * ((pll >> 16 & 3) + 1)
            from_crystal = pll >> 22 & 1
            self.require(not from_crystal or self.has_crystal, "the PLL runs from a crystal that does not")
            self.require(control >> 24 & 1, "the PLL is off")
            reference = (self["CRYSTAL_HZ"] if from_crystal else 16 * MHZ) / m
            self.require(MHZ <= reference <= 2 * MHZ, "the PLL's reference is out of range")
            self.require(100 * MHZ <= reference * n <= 432 * MHZ, "the PLL's oscillator is out of range")
            self.require(pll >> 24 >= 2, "the PLL's Q is less than 2")
            core = reference * n / p
            self.require(core == self["TICK_HZ"] <= 168 * MHZ, f"the core's clock is {core}")
            self.require(self.acr & 7 >= 5, "the flash is too slow for the core's clock")
            divide = [1, 1, 1, 1, 2, 4, 8, 16]
            apb = {"apb1": core / divide[value >> 10 & 7], "apb2": core / divide[value >> 13 & 7]}
            self.require(apb["apb1"] <= 42 * MHZ and apb["apb2"] <= 84 * MHZ, "a bus is too fast")
            self.clock_hz = {"core": core, **apb}
        self.registers[0x40023808] = value

    def _access_control(self, value: int) -> None:
        self.require(not (value & 0x1000 and value & 0x400), "the data cache is reset while it is on")
        self.stale = self.stale and not value & 0x1000
        self.require(not (value & 0x400 and self.stale), "the data cache holds what was there before")
        self.acr = value

    def _status(self) -> int:
        self.settle()
        return self.errors

    def program(self, address: int, before: bytes, value: bytes) -> bytes:
        self.require(not self.lock and self.control & 3 == 1, "flash is written, but not being programmed")
        self.require(self.control >> 8 & 3 == 2 and len(value) == 4, "flash is not written by words")
        self.require(before == b"\xff" * 4, f"{address:#x} is written twice")
        self.stale = bool(self.acr & 0x400)
        if self.protected:
            self.errors |= 0x10
            return before
        after = bytes(b & v for b, v in zip(before, value, strict=True))
        return after if self.power_holds() else self.partly(before, after)

    def _begin(self, value: int) -> None:
        self.require(value & 7 == 2, "an erase is started, but of no sector")
        address, size = self.SECTORS[value >> 3 & 0xF]
        self.require(address >= self.state[0], f"the sector at {address:#x} would be erased")
        self.stale = bool(self.acr & 0x400)
        if self.protected:
            self.errors |= 0x10
        else:
            self.erased(address, size)


class Stm32H743(Stm32):
    CPU = arm.UC_CPU_ARM_CORTEX_M7
    FLASH = (0x08000000, 2 << 20)
    RAM = ((0x20000000, 128 << 10), (0x24000000, 512 << 10), (0x30000000, 288 << 10))
    PERIPHERALS = ((0x40000000, 0x20000), (0x52000000, 0x10000), (0x58000000, 0x30000))
    LOCK, START = 1, 1 << 7
    WORD = 32
    SECTOR = 128 << 10

    def start_peripherals(self) -> None:
        self.start_pins()
        self.start_lock(0x52002104, 0x5200210C, 0x07EE0000)
        self.apb1_hz = 0.0
        self.words: dict[int, bytes] = {}
        uart = self["UART_ADDRESS"]
        self.registers |= {
            0x5802480C: 6, 0x58024818: 0x4000, 0x52002000: 0x37, 0x58024400: 1, 0x58024410: 0, 0x58024418: 0,
            0x5802441C: 0, 0x58024420: 0, 0x58024428: 0x02020200, 0x5802442C: 0x01FF0000, 0x58024430: 0x01010280,
            0x580244DC: 0, 0x580244E0: 0, 0x580244E8: 0, uart: 0, uart + 4: 0, uart + 8: 0,
            0xE000ED84: 0, 0xE000ED98: 0, 0xE000ED9C: 0, 0xE000EDA0: 0, 0xE000ED94: 0,
        }  # fmt: skip
        if self.from_loader:
            self.registers |= {0x58024400: 0x01050019, 0x58024410: 3, uart: 0x140D, uart + 4: 0x2000}
        self.supplied = False
        self.readers |= {
            0x58024804: lambda: 1 << 13 if self.supplied else 0,
            0x58024818: lambda: self.registers[0x58024818] | 1 << 13,
            0x58024400: self._rcc_control,
            0x58024410: lambda: self.registers[0x58024410] | (self.registers[0x58024410] & 7) << 3,
            0x52002110: self._status,
            uart + 0x1C: lambda: 0xC0 | 0x20 * bool(self.received),
            uart + 0x24: lambda: self.received.popleft() if self.received else 0,
            0xE000ED80: lambda: 127 << 13 | 3 << 3 | 1,  # 128 sets of 4 ways of 32 bytes
        }
        self.writers |= {
            0x5802480C: self._supply,
            0x58024818: lambda value: self.registers.__setitem__(0x58024818, value),
            0x58024400: lambda value: self.registers.__setitem__(0x58024400, value & ~(1 << 25 | 1 << 17 | 4)),
            0x58024410: self._select,
            **{address: self._configured(address) for address in (0x58024428, 0x5802442C, 0x58024430)},
            0x52002114: lambda value: setattr(self, "errors", self.errors & ~value),
            uart + 0xC: lambda value: self.check_baud(self.apb1_hz, value),
            uart + 0x28: self.send,
            0xE000EF50: lambda value: None,
            0xE000EF60: self.invalidated.add,
            0xE000ED14: self._core_control,
        }
        self.invalidated.clear()
        if hasattr(self, "uc"):
            self._watch_torn()

    def __init__(self, *arguments: object) -> None:
        self.invalidated: set[int] = set()
        super().__init__(*arguments)  # type: ignore[arg-type]

    def clocked(self, address: int) -> bool:
        if address & ~0x3FF == self["UART_PORT_ADDRESS"]:
            return bool(self.registers[0x580244E0] >> (address - 0x58020000) // 0x400 & 1)
        if address & ~0x3FF == self["UART_ADDRESS"]:
            return bool(self.registers[0x580244E8] >> self["UART_ENABLE_BIT"] & 1)
        return True

    def line_interrupt(self) -> bool:
        return self.registers[self["UART_ADDRESS"]] & 0x25 == 0x25

    def check_line(self) -> None:
        self.check_pins()
        control = [self.registers[self["UART_ADDRESS"] + at] for at in (0, 4, 8)]
        self.require(control == [0x2000002D, 0, 0x1000], "not 8 bits, no parity, one stop bit; or the line is off")

    def _supply(self, value: int) -> None:
        self.require(value == 2, f"supply {value:#x}: the board has only the chip's regulator")
        self.supplied = True

    def _rcc_control(self) -> int:
        on = self.registers[0x58024400]
        bypassed = on >> 16 & on >> 18 & 1 and self.has_crystal
        return on | (on & 1) << 2 | bypassed << 17 | (on >> 24 & 1) << 25

    def _configured(self, address: int) -> Callable[[int], None]:
        def configure(value: int) -> None:
            self.require(not self.registers[0x58024400] >> 24 & 1, "the PLL is changed while it is on")
            self.registers[address] = value

        return configure

    def _select(self, value: int) -> None:
        select, config, divide = (self.registers[a] for a in (0x58024428, 0x5802442C, 0x58024430))
        if value & 7 == 3:
            self.require(self.registers[0x58024400] >> 3 & 3 == 0, "the oscillator within is divided")
            source = {0: 64 * MHZ, 2: self["CRYSTAL_HZ"]}[select & 3]
            self.require(select & 3 == 0 or self.has_crystal, "the PLL runs from a clock that does not")
            reference = source / (select >> 4 & 0x3F)
            lowest = [1, 2, 4, 8][config >> 2 & 3] * MHZ
            self.require(lowest <= reference <= 2 * lowest, "the PLL's reference is out of the range that it is told")
            oscillator = reference * ((divide & 0x1FF) + 1)
            self.require(config & 3 == 0 and config >> 16 & 1, "the PLL has a fraction, the narrow range, or no output")
            self.require(192 * MHZ <= oscillator <= 836 * MHZ, "the PLL's oscillator is out of range")
            self.require(self.registers[0x58024400] >> 24 & 1, "the PLL is off")
            core = oscillator / ((divide >> 9 & 0x7F) + 1)
            self.require(core == self["TICK_HZ"] <= 400 * MHZ, f"the core's clock is {core}")
            self.require(self.supplied and self.registers[0x58024818] >> 14 & 3 == 3, "the voltage is too low for it")
            self.require(self.registers[0x52002000] & 0x3F == 0x22, "wrong wait states for AXI at 200 MHz")
            domains = [self.registers[a] for a in (0x58024418, 0x5802441C, 0x58024420)]
            self.require(domains[0] == 0x48 and domains[1] & 0x770 == 0x440 and domains[2] & 0x70 == 0x40, "buses")
            self.apb1_hz = core / 4
        self.registers[0x58024410] = value

    def _core_control(self, value: int) -> None:
        if value >> 16 & 1 and not self.registers[0xE000ED14] >> 16 & 1:
            ways = {way << 30 | line << 5 for way in range(4) for line in range(128)}
            self.require(self.invalidated == ways, "the data cache is switched on with anything in it")
            at, room = self.state
            region = [self.registers[a] for a in (0xE000ED94, 0xE000ED9C, 0xE000EDA0)]
            self.require(region[0] & 7 == 7 and region[1] == at, "the flash that is written would be cached")
            self.require(1 << (region[2] >> 1 & 0x1F) + 1 == room and region[2] & 0x003F0001 == 0x00010001, "no device")
        self.registers[0xE000ED14] = value

    # ---- Words of 256 bits with error correction

    def prepare(self) -> None:
        self._watched: set[int] = set()

    def _watch_torn(self) -> None:
        for word in self.torn - self._watched:
            self._watched.add(word)
            self.uc.hook_add(UC_HOOK_MEM_READ, self._torn_read, None, word, word + self.WORD - 1)

    def _torn_read(self, uc: object, access: int, address: int, size: int, value: int, data: object) -> None:
        if address & -self.WORD in self.torn:
            ignored = self.registers[0xE000ED14] >> 8 & 1 and self.uc.reg_read(arm.UC_ARM_REG_FAULTMASK)
            self.require(ignored, f"bus fault: {address:#x} cannot be corrected")
            self.errors |= 1 << 26

    def _tear(self, word: int) -> None:
        self.torn.add(word)
        self._watch_torn()

    def _status(self) -> int:
        self.settle()
        waits = any(len(data) < self.WORD for data in self.words.values())
        return self.errors | 2 * waits

    def program(self, address: int, before: bytes, value: bytes) -> bytes:
        if self.lock or self.control & 6 != 2:
            self.fail("flash is written, but not being programmed")
            return before
        self.require(self.control >> 4 & 3 == 3 and len(value) == 4, "flash is not written by words")
        word = address & -self.WORD
        collected = self.words.get(word, b"")
        self.require(len(self.words) == (word in self.words), "another flash word is begun before the last is whole")
        self.require(word + len(collected) == address, "a flash word is not written in order")
        collected += value
        if len(collected) < self.WORD:
            self.words[word] = collected
            return before
        self.words.pop(word, None)
        old = bytes(self.uc.mem_read(word, self.WORD - 4)) + before
        self.require(old == b"\xff" * self.WORD and word not in self.torn, f"{word:#x} is written twice")
        if self.protected:
            self.errors |= 1 << 17
            return before
        if not self.power_holds():
            self._tear(word)
            collected = self.partly(old, collected)
        self.uc.mem_write(word, collected)
        return collected[-4:]

    def _begin(self, value: int) -> None:
        self.require(value & 0xE == 4, "an erase is started, but of no sector")
        address = 0x08100000 + (value >> 8 & 7) * self.SECTOR
        self.require(address >= self.state[0], f"the sector at {address:#x} would be erased")
        if self.protected:
            self.errors |= 1 << 17
            return
        words = range(address, address + self.SECTOR, self.WORD)
        self.torn -= set(words)
        self.erased(address, self.SECTOR)
        if self.off:
            for word in self.random.sample(words, 40):
                self._tear(word)
