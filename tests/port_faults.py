"""Faults put into the drivers of the real boards, one at a time: the tests of the ports must find each.

python tools/run.py tests.port_faults      some minutes; the checkout is not changed
"""

import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from unittest import mock

from edgehmn.device import boards as boards_module
from edgehmn.device import firmware
from edgehmn.device.boards import sources
from edgehmn.errors import EdgeHMNError
from tests import test_ports as tests
from tests.chips.chip import Violation

FEATHER, NUCLEO, NRF, PICO = "feather-stm32f405", "nucleo-h743zi2", "nrf52840-dk", "raspberry-pi-pico-2"
# board, file below native/ports, what stands there, what stands there instead
FAULTS = (
    (FEATHER, "stm32f4/flash.c", "    forget_cached();\n", "    (void)forget_cached;\n"),
    (FEATHER, "stm32f4/flash.c", "CR_PROGRAM | CR_WORDS", "CR_PROGRAM"),
    (FEATHER, "stm32f4/clock.c", "#define ACR_WAITS 5u", "#define ACR_WAITS 4u"),
    (FEATHER, "stm32f4/clock.c", "(5u << 10 | 4u << 13)", "(4u << 10 | 4u << 13)"),
    (FEATHER, "stm32f4/clock.c", "    RCC_CR &= ~CR_PLL_ON;\n    while (RCC_CR & CR_PLL_READY) {\n    }\n", ""),
    (FEATHER, "cortex-m/startup.c", "(uint32_t)(uintptr_t)&vectors;", "0;"),
    (NUCLEO, "stm32h7/flash.c", "cpsid f", "nop"),
    (NUCLEO, "stm32h7/flash.c", "    CCR |= CCR_IGNORE_BUS_FAULTS;\n", ""),
    (NUCLEO, "stm32h7/flash.c", "if (FLASH_SR2 & SR_WRONG_WORD)", "if (0)"),
    (NUCLEO, "stm32h7/flash.c", "    copy(offset, count);\n", ""),
    (NUCLEO, "stm32h7/memory.c", "    protect();\n", "    (void)protect;\n"),
    (NUCLEO, "stm32h7/memory.c", "#define CTRL_ON 7u", "#define CTRL_ON 5u"),
    (NUCLEO, "stm32h7/clock.c", "#define D3CR_SCALE_1 (3u << 14)", "#define D3CR_SCALE_1 (2u << 14)"),
    (NRF, "nrf52840/flash.c", "    set_mode(CONFIG_WRITE);\n", ""),
    (NRF, "nrf52840/peripherals.c", "            UART_RXDRDY = 0;\n", ""),
    (NRF, "nrf52840/peripherals.c", "    clock_start();\n    NVMC", "    NVMC"),
    (NRF, "nrf52840/peripherals.c", "        UICR_APPROTECT = APPROTECT_OPEN;", "       "),
    (NRF, "nrf52840/peripherals.c", "    APPROTECT_DISABLE = UICR_APPROTECT;\n", ""),
    (NRF, "nrf52840/peripherals.c", "if ((FICR_INFO_VARIANT >> 8 & 0xFFu) < 'F')", "if (0)"),
    (PICO, "rp2350/flash.c", "    rom->flush_cache();\n", ""),
    (PICO, "rp2350/flash.c", "    read_again();\n", "    (void)read_again;\n"),
    (PICO, "rp2350/flash.c", '__attribute__((section(".code_in_ram"), noinline))', "__attribute__((noinline))"),
    (
        PICO,
        "rp2350/flash.c",
        "static uint8_t page[BOARD_STATE_UNIT];",
        "static const uint8_t page[BOARD_STATE_UNIT] = {1};",
    ),
    (PICO, "rp2350/flash.c", "    CPACR |= CPACR_REDUNDANCY;\n", ""),
    (PICO, "rp2350/clock.c", "    reset_block(RESET_PLL_SYS);\n", ""),
    (PICO, "rp2350/image_definition.c", "0x10210142u", "0x10110142u"),
)


def checks(board: str) -> list[Callable[[], None]]:
    """Those of the tests that can find something on a board."""
    found: list[Callable[[], None]] = [
        lambda: tests.test_a_real_board_learns_the_bits_that_the_host_learns_and_keeps_them(board),
        lambda: tests.test_a_cut_of_the_power_leaves_a_real_board_the_old_state_or_the_new_one(board),
        lambda: tests.test_a_cut_while_a_real_board_erases_leaves_a_flash_that_works(board),
    ]
    if board in (FEATHER, NUCLEO):
        found.append(lambda: tests.test_a_board_starts_as_well_from_the_boot_loader_in_its_rom(board))
    if board == NUCLEO:
        found.append(tests.test_a_torn_word_of_the_h743_is_a_fault_unless_that_is_ignored)
    if board == NRF:
        found.append(tests.test_an_nrf52840_leaves_its_debug_port_open_unless_somebody_has_locked_it)
    if board == PICO:
        found.append(tests.test_the_boot_rom_of_the_rp2350_finds_what_it_looks_for)
    return found


def found_by(board: str, file: str, old: str, new: str, folder: Path) -> str | None:
    """How the fault is found; None if it is not."""
    copy = folder / "native"
    shutil.copytree(sources(), copy)
    text = (copy / "ports" / file).read_text("utf-8")
    assert old in text, f"{file} has changed: {old!r} is not there"
    text = text.replace(old, new)
    if "const uint8_t page" in new:
        text = text.replace("page[i] = from[done + i];", "(void)from[done + i];")
    (copy / "ports" / file).write_text(text, "utf-8")
    cache = mock.patch.dict("os.environ", {"XDG_CACHE_HOME": str(folder / "cache")})
    with (
        cache,
        mock.patch.object(boards_module, "sources", lambda: copy),
        mock.patch.object(firmware, "sources", lambda: copy),
    ):
        firmware.build_firmware(board)  # a fault that the compiler finds is none of these
        for check in checks(board):
            try:
                check()
            except (AssertionError, EdgeHMNError, Violation) as e:
                return f"{type(e).__name__}: {str(e).splitlines()[0] if str(e) else ''}"
    return None


def main() -> None:
    missed, word = 0, sys.argv[1] if len(sys.argv) > 1 else ""
    chosen = [fault for fault in FAULTS if word in fault[1] or word in fault[2]]
    for board, file, old, new in chosen:
        with tempfile.TemporaryDirectory(prefix="edgehmn-") as folder:
            how = found_by(board, file, old, new, Path(folder))
        missed += how is None
        print(f"{'found ' if how else 'MISSED'} {file}: {old.strip().splitlines()[0][:60]}  {how or ''}", flush=True)
    print(f"{len(chosen) - missed} of {len(chosen)} found")
    sys.exit(missed != 0)


if __name__ == "__main__":
    main()
