"""docs/porting.md, followed: a new board is a folder, and its numbers are those that the guide explains."""

import re
import shutil
from pathlib import Path

import pytest

from edgehmn.device import boards as boards_module
from edgehmn.device import firmware
from edgehmn.device.boards import NOT_RUN, TOOLS, boards, find_board, sources
from edgehmn.device.flash.flashing import ways
from edgehmn.runtime.device import DeviceRuntime
from tests.models import tiny_image
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


@needs_tools
def test_a_copied_folder_with_other_numbers_is_a_board(own_sources: Path) -> None:
    folder = own_sources / "ports" / "boards" / NAME
    shutil.copytree(folder.parent / BASE, folder)
    header = (folder / "board.h").read_text("utf-8").replace(f'"{BASE}"', f'"{NAME}"')
    for name, value in CHANGED.items():
        header, n = re.subn(rf"^(#define {name}) .*$", rf"\1 {value}", header, flags=re.M)
        assert n == 1
    (folder / "board.h").write_text(header, "utf-8")
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
