"""nRF52840 (product specification 1.7: 4.3, 4.8, 5.4, 6.9 and 6.34)."""

from unicorn import arm_const as arm

from tests.chips.chip import BLANK, Chip

PAGE = 4096
OPEN = 0x5A  # of both halves of the protection
HOLDS = 6  # bytes that the receiver keeps


class Nrf52840(Chip):
    CPU = arm.UC_CPU_ARM_CORTEX_M4
    FLASH = (0, 1 << 20)
    RAM = ((0x20000000, 256 << 10),)
    PERIPHERALS = ((0x10000000, 0x2000), (0x40000000, 0x30000), (0x50000000, 0x1000))
    variant = b"AAF0"  # package and build code: the debug port locks itself
    protection = 0xFFFFFFFF  # in the user's information, which is flash

    def start_peripherals(self) -> None:
        uart, port = self["UART_ADDRESS"], self["UART_PORT_ADDRESS"]
        self.crystal = self.receiving = self.sending = self.ready = self.gone = False
        self.erasing = None
        pins = (self["UART_SEND_PIN"], self["UART_RECEIVE_PIN"])
        plain = [0x4001E504, 0x4001E540, uart + 0x304, *(port + 0x700 + 4 * pin for pin in pins), port + 0x508]
        self.registers |= dict.fromkeys([*plain, *range(uart + 0x508, uart + 0x518, 4), uart + 0x500, uart + 0x56C], 0)
        self.hardware_half, self.software_half = self.protection, 0
        self.readers |= {
            0x10000104: lambda: int.from_bytes(self.variant, "big"),
            0x10001208: lambda: self.protection,
            0x40000100: lambda: int(self.crystal),
            0x4001E400: self._flash_ready,
            uart + 0x108: self._event,
            uart + 0x11C: lambda: int(self.gone),
            uart + 0x518: self._receive,
        }
        self.writers |= {
            0x10001208: self._protect,
            0x40000558: self._open,
            0x40000100: lambda value: setattr(self, "crystal", self.crystal and value != 0),
            0x40000000: lambda value: setattr(self, "crystal", True),
            0x4001E508: self._erase,
            uart: lambda value: setattr(self, "receiving", True),
            uart + 8: lambda value: setattr(self, "sending", True),
            uart + 0x108: lambda value: setattr(self, "ready", self.ready and value != 0),
            uart + 0x11C: lambda value: setattr(self, "gone", self.gone and value != 0),
            uart + 0x51C: self._send,
            uart + 0x524: lambda value: self.require(value == 0x01D7E000 and self.crystal, "the rate is not exact"),
        }
        self.taken = 0

    @property
    def debug_port_is_open(self) -> bool:
        return self.hardware_half == self.software_half == OPEN

    def _protect(self, value: int) -> None:
        self.require(self.registers[0x4001E504] == 1, "the user's information is written, but not being programmed")
        self.require(self.protection == 0xFFFFFFFF, "the user's information is written twice")
        self.protection &= value

    def _open(self, value: int) -> None:
        self.require(self.variant[2:] >= b"F", "a register that this build of the chip has not")
        self.software_half = value

    def line_interrupt(self) -> bool:
        return bool(self.registers[self["UART_ADDRESS"] + 0x304] & 4 and self.receiving)

    def check_line(self) -> None:
        uart, port = self["UART_ADDRESS"], self["UART_PORT_ADDRESS"]
        send, receive = self["UART_SEND_PIN"], self["UART_RECEIVE_PIN"]
        pins = [self.registers[uart + at] for at in (0x508, 0x50C, 0x510, 0x514)]
        self.require(pins == [0xFFFFFFFF, send, 0xFFFFFFFF, receive], "the UART has other pins")
        self.require(self.registers[uart + 0x500] == 4 and self.registers[uart + 0x56C] == 0, "the UART is off")
        self.require(self.registers[port + 0x508] == 1 << send, "the line was low before the UART had it")
        self.require(self.registers[port + 0x700 + 4 * send] & 3 == 3, "the sending pin is no output")
        self.require(self.registers[port + 0x700 + 4 * receive] == 0xC, "the receiving pin is no input with pull-up")

    def _event(self) -> int:
        """A byte raises the event as it comes, and the next one when the last has been taken."""
        if self.received and self.receiving and not self.taken:
            self.ready, self.taken = True, 1
        return int(self.ready)

    def _receive(self) -> int:
        self.require(self.taken and not self.ready, "a byte is taken before its event is cleared, or twice")
        self.taken = 0
        return self.received.popleft()

    def _send(self, value: int) -> None:
        self.require(self.sending and not self.gone, "a byte is sent before the last has gone, or its event cleared")
        self.send(value)
        self.gone = True

    # ---- Flash

    def _flash_ready(self) -> int:
        self.settle()
        return 1

    def program(self, address: int, before: bytes, value: bytes) -> bytes:
        self.require(self.registers[0x4001E504] == 1 and len(value) == 4, "flash is written, but not being programmed")
        self.require(before == BLANK * 4, f"{address:#x} is written twice")
        if self.protected:
            return before
        after = bytes(b & v for b, v in zip(before, value, strict=True))
        return after if self.power_holds() else self.partly(before, after)

    def _erase(self, address: int) -> None:
        self.settle()
        at, room = self.state
        self.require(self.registers[0x4001E504] == 2, "a page is erased, but erasing is not enabled")
        self.require(address % PAGE == 0 and at <= address < at + room, f"{address:#x} would be erased")
        if not self.protected:
            self.erased(address, PAGE)
