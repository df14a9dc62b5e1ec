"""docs/porting.md, followed: a new board is a folder, and its numbers are those that the guide explains."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from edgehmn.core import CoreModel, Image
from edgehmn.device import boards as boards_module
from edgehmn.device import firmware
from edgehmn.device.boards import NOT_RUN, TOOLS, boards, find_board, sources
from edgehmn.device.emulator import INSTRUCTIONS_PER_SECOND, QEMU, Emulator
from edgehmn.device.flash.flashing import ways
from edgehmn.runtime.device import DeviceRuntime
from tests.models import LEAST, LITTLE, repetitive_tokens, tiny_image
from tests.test_ports import Stm32F405, chip, needs_tools

ROOT = Path(__file__).resolve().parent.parent
GUIDE = (ROOT / "docs" / "porting.md").read_text("utf-8")
FIXED = {"BOARD_NAME", "BOARD_CPU", "BOARD_SOURCES", "BOARD_RUN_BY", *(f"BOARD_{tool}" for tool in TOOLS)}
BASE = "feather-stm32f405"
NAME = "my-board"
# Another STM32F405: a crystal of 8 MHz, the line on USART1 with pins PA9 and PA10, less flash for the model.
CHANGED = {
    "BOARD_IMAGE_BYTES": 0x00080000,
    "BOARD_STATE_ADDRESS": 0x080A0000,
    "BOARD_STATE_FIRST_SECTOR": 9,
    "BOARD_CRYSTAL_HZ": 8_000_000,
    "BOARD_UART_ADDRESS": 0x40011000,
    "BOARD_UART_CLOCK_HZ": 84_000_000,
    "BOARD_UART_INTERRUPT": 37,
    "BOARD_UART_ENABLE_ADDRESS": 0x40023844,
    "BOARD_UART_ENABLE_BIT": 4,
    "BOARD_UART_PORT_ADDRESS": 0x40020000,
    "BOARD_UART_SEND_PIN": 9,
    "BOARD_UART_RECEIVE_PIN": 10,
}


def test_the_guide_explains_every_number_and_no_other() -> None:
    used = {name for board in boards().values() for name in board.numbers} | FIXED
    assert set(re.findall(r"\bBOARD_[A-Z0-9_]+\b", GUIDE)) == used


def test_what_the_guide_names_is_there() -> None:
    for place in re.findall(r"`((?:native|tests)/[\w/.-]+)`", GUIDE):
        assert "NAME" in place or (ROOT / place).exists(), place
    for place in re.findall(r"`([\w-]+/[\w_]+\.[ch])`", GUIDE):
        assert (sources() / "ports" / place).is_file(), place


@pytest.fixture
def own_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout's C sources, to be added to."""
    copy = tmp_path / "native"
    shutil.copytree(sources(), copy)
    for module in (boards_module, firmware):
        monkeypatch.setattr(module, "sources", lambda: copy)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return copy


def copy_board(base: str, folder: Path, changed: dict[str, int]) -> None:
    """A board like another one, with other numbers."""
    shutil.copytree(sources() / "ports" / "boards" / base, folder)
    header = (folder / "board.h").read_text("utf-8").replace(f'"{base}"', f'"{folder.name}"')
    for name, value in changed.items():
        header, n = re.subn(rf"^(#define {name}) .*$", rf"\1 {value}", header, flags=re.M)
        assert n == 1
    (folder / "board.h").write_text(header, "utf-8")


@needs_tools
def test_a_copied_folder_with_other_numbers_is_a_board(own_sources: Path) -> None:
    folder = own_sources / "ports" / "boards" / NAME
    copy_board(BASE, folder, CHANGED)
    with (folder / "board.cmake").open("a") as f:
        f.write('set(BOARD_RUN_BY "somebody, 2026-12-01")\n')
    board, base = find_board(NAME), find_board(BASE)
    assert board.numbers == base.numbers | CHANGED and board.numbers != base.numbers
    assert (board.status, base.status) == ("run on hardware: somebody, 2026-12-01", NOT_RUN)
    assert ways(NAME) == ["stm32flash", "pyocd"]
    started = Stm32F405(board, firmware.build_firmware(NAME).read_bytes(), tiny_image())
    with chip.serving(started) as url:
        runtime = DeviceRuntime(url)
        assert runtime.identity.board == NAME
        assert runtime.store().provisional
        runtime.close()


# ---- Drivers of real boards on the chips that QEMU emulates, whose models nobody of here has written


needs_qemu = pytest.mark.skipif(shutil.which(QEMU) is None, reason=f"not run here: {QEMU} is missing")


def learns_and_keeps(name: str, image: bytes, *options: str) -> None:
    """A board of that name learns what the host learns, stores it, starts anew and wipes it."""
    vocab_size = Image(image).vocab_size
    ids, expected = repetitive_tokens(100, vocab_size=vocab_size), CoreModel(Image(image))
    with Emulator(image, name, options=options) as emulator:
        runtime = DeviceRuntime(emulator.url, instructions_per_second=INSTRUCTIONS_PER_SECOND)
        assert np.array_equal(runtime.process(ids, learn=True), expected.process(ids, learn=True))
        assert runtime.save() == expected.save()
        counts = runtime.counts()
        assert counts.step_instructions and counts.learn_instructions
        assert counts.macs < counts.step_instructions + counts.learn_instructions < 200 * counts.macs
        assert runtime.store().provisional
        runtime._link.restart()
        assert runtime.save() == expected.save() and runtime.stored().trials == 1
        assert runtime.confirm().confirmed == 1 and runtime.wipe().sequence == 0
        runtime.close()


# The nRF51 has the UART, clock and flash controller of the nRF52840, in smaller pages, and a core with the least that a
# Cortex-M has: no division, no cycle counter, and a fault at any word that is not aligned.
SMALLER_PAGES = {"BOARD_STATE_SECTOR_BYTES": 1024, "BOARD_STATE_SLOT_SECTORS": 64}
MEMORY = ("-global", "nrf51-soc.flash-size=1048576", "-global", "nrf51-soc.sram-size=262144")  # as the nRF52840 has


@needs_tools
@needs_qemu
def test_drivers_of_the_nrf52840_learn_and_keep_on_a_cortex_m0(own_sources: Path) -> None:
    folder = own_sources / "ports" / "qemu" / "microbit"
    copy_board("nrf52840-dk", folder, SMALLER_PAGES)
    (folder / "debug_port.c").write_text('#include "nrf52840/debug_port.h"\nvoid debug_port_open(void)\n{\n}\n')
    described = (folder / "board.cmake").read_text("utf-8").replace("cortex-m4 -mfloat-abi=soft", "cortex-m0")
    described = described.replace("nrf52840/debug_port.c", "qemu/microbit/debug_port.c")
    (folder / "board.cmake").write_text(described.replace("timers/cycles.c", "timers/systick.c"), "utf-8")
    learns_and_keeps("microbit", tiny_image(), *MEMORY)


# A chip with the UART of the RP2350, and a clock so slow that short tokens end before its timer's first tick.
STELLARIS = {
    "BOARD_FLASH_ADDRESS": 0,
    "BOARD_IMAGE_ADDRESS": 0x20000,
    "BOARD_IMAGE_BYTES": 0x20000,
    "BOARD_STATE_ADDRESS": 0x2000C000,
    "BOARD_STATE_SLOT_SECTORS": 2,
    "BOARD_RAM_BYTES": 0x1000,
    "BOARD_ARENA_ADDRESS": 0x20003000,
    "BOARD_ARENA_BYTES": 0x9000,
    "BOARD_STAGING_ADDRESS": 0,
    "BOARD_STAGING_BYTES": 0,
    "BOARD_UART_ADDRESS": 0x4000C000,
    "BOARD_UART_INTERRUPT": 5,
    "BOARD_UART_CLOCK_HZ": 12_500_000,
    "BOARD_TICK_HZ": 12_500_000,
}


@needs_tools
@needs_qemu
def test_the_uart_of_the_rp2350_serves_a_stellaris(own_sources: Path) -> None:
    folder = own_sources / "ports" / "qemu" / "lm3s6965evb"
    copy_board("raspberry-pi-pico-2", folder, STELLARIS)
    (folder / "start.c").write_text(
        '#include "peripherals.h"\n#include "pl011/uart.h"\nvoid peripherals_start(void)\n{\n    uart_start();\n}\n'
    )
    files = "qemu/lm3s6965evb/start.c pl011/uart.c ram-flash/flash.c timers/systick.c"
    (folder / "board.cmake").write_text(f'set(BOARD_CPU "-mcpu=cortex-m3")\nset(BOARD_SOURCES {files})\n')
    learns_and_keeps("lm3s6965evb", tiny_image(LEAST, LITTLE, n_guard=2))
