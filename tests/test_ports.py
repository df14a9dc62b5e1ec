"""The firmware of real boards, run whole on models of their chips: clock, line, flash driver, and what they keep."""

import re
import shutil
import struct
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgehmn.core import CoreModel, Image, lib
from edgehmn.device.boards import NOT_RUN, boards, sources
from edgehmn.device.firmware import TOOLS, build_firmware, room_of
from edgehmn.device.flash.flashing import flash, programmer_for
from edgehmn.device.flash.parts import contents
from edgehmn.device.wire import encode
from edgehmn.errors import FlashError, LinkLostError
from edgehmn.exported import Export
from edgehmn.runtime.device import DeviceRuntime
from tests.command_line import Result
from tests.models import LEAST, LITTLE, repetitive_tokens, tiny_image
from tests.test_boards import SMALL_LLAMA, small_image

chip = pytest.importorskip("tests.chips.chip", reason="not run here: unicorn is missing")
from tests.chips.nrf52840 import Nrf52840  # noqa: E402
from tests.chips.rp2350 import Rp2350  # noqa: E402
from tests.chips.stm32 import Stm32F405, Stm32H743  # noqa: E402

CHIPS = {
    "feather-stm32f405": Stm32F405,
    "nrf52840-dk": Nrf52840,
    "nucleo-h743zi2": Stm32H743,
    "raspberry-pi-pico-2": Rp2350,
}
IN_RAM = ("STACK", "RAM", "ARENA", "STAGING", "STATE_COPY")
absent = [tool for tool in TOOLS if shutil.which(tool) is None]
needs_tools = pytest.mark.skipif(bool(absent), reason=f"not run here: {', '.join(absent)} missing")
every_port = pytest.mark.parametrize("name", CHIPS)


def new_chip(name, image):
    return CHIPS[name](boards()[name], build_firmware(name).read_bytes(), image)


def connect(url):
    return DeviceRuntime(url, timeout_s=60)


def learned(model, seed):
    model.process(repetitive_tokens(30, vocab_size=LEAST.vocab_size, seed=seed), learn=True)
    return model.save()


def pull_the_plug(board):
    """While it sleeps."""
    board.keep_flash()
    board.off = True


def test_every_real_board_has_a_model_here() -> None:
    assert set(CHIPS) == {name for name, board in boards().items() if board.machine is None}


def test_make_builds_the_firmware_of_every_board() -> None:
    makefile = (Path(__file__).parents[1] / "Makefile").read_text("utf-8")
    pattern = re.search(r"for header in native/(ports/\S+/board\.h); do", makefile)
    assert pattern is not None
    assert {header.parent.name for header in sources().glob(pattern[1])} == set(boards())


@every_port
def test_every_region_of_a_board_lies_in_the_memory_of_its_chip(name: str) -> None:
    board, model = boards()[name], CHIPS[name]
    number = board.numbers
    sizes = {region: number.get(f"BOARD_{region}_BYTES", 0) for region in ("FLASH", "IMAGE", *IN_RAM)}
    sizes["STATE"] = 2 * number["BOARD_STATE_SLOT_SECTORS"] * number["BOARD_STATE_SECTOR_BYTES"]
    for region, size in sizes.items():
        at = number.get(f"BOARD_{region}_ADDRESS", 0)
        memories = model.RAM if region in IN_RAM else (model.FLASH,)
        assert not size or any(start <= at and at + size <= start + room for start, room in memories), region
    flash, sector = model.FLASH[0], number["BOARD_STATE_SECTOR_BYTES"]
    assert (number["BOARD_IMAGE_ADDRESS"] - flash) % sector == 0, "writing an image erases whole sectors"
    assert number["BOARD_IMAGE_ADDRESS"] + number["BOARD_IMAGE_BYTES"] <= number["BOARD_STATE_ADDRESS"]
    assert (number["BOARD_STATE_ADDRESS"] - flash) % sector == 0


# ---- The whole firmware on its chip


@needs_tools
@every_port
def test_a_real_board_learns_the_bits_that_the_host_learns_and_keeps_them(name: str) -> None:
    image, ids = tiny_image(), repetitive_tokens(60)
    expected = CoreModel(Image(image))
    board = new_chip(name, image)
    with chip.serving(board) as url:
        runtime = connect(url)
        assert runtime.identity.board == name
        assert np.array_equal(runtime.process(ids, learn=True), expected.process(ids, learn=True))
        assert runtime.save() == expected.save()
        stored = runtime.store()
        assert (stored.sequence, stored.provisional) == (1, True)
        runtime._link.restart()
        assert runtime.save() == expected.save() and runtime.stored().trials == 1
        assert runtime.confirm().confirmed == 1
        runtime.close()
        pull_the_plug(board)
        runtime = connect(url)
        assert runtime.save() == expected.save() and not runtime.stored().provisional
        assert runtime.wipe().sequence == 0
        runtime.close()
    board.keep_flash()
    at, room = board.state
    assert set(board.flash[at - board.FLASH[0] : at - board.FLASH[0] + room]) == {0xFF}


def learns_and_keeps(name: str, image: bytes, ids: np.ndarray) -> None:
    """The first half of the tokens, a restart, the second half."""
    fit = boards()[name].fit(Image(image))
    assert fit["learns"] and fit["saves"]
    first, second = np.array_split(ids, 2)
    expected, started_anew = CoreModel(Image(image)), CoreModel(Image(image))
    with chip.serving(new_chip(name, image)) as url:
        runtime = connect(url)
        assert np.array_equal(runtime.process(first, learn=True), expected.process(first, learn=True))
        assert runtime.store().sequence == 1
        runtime._link.restart()
        started_anew.load(expected.save())
        assert np.array_equal(runtime.process(second, learn=True), started_anew.process(second, learn=True))
        runtime.close()


@needs_tools
@pytest.mark.parametrize("name", ["nucleo-h743zi2", "raspberry-pi-pico-2"])
def test_the_model_that_ships_learns_in_the_real_memory_of_a_board(name: str, reference_image: bytes) -> None:
    learns_and_keeps(name, reference_image, np.arange(100, 112, dtype=np.int32))


@needs_tools
@pytest.mark.parametrize("name", ["feather-stm32f405", "nrf52840-dk"])
def test_a_small_trained_shape_learns_in_the_real_memory_of_a_board(name: str) -> None:
    learns_and_keeps(name, small_image(), repetitive_tokens(60, period=20, vocab_size=SMALL_LLAMA.vocab_size))


@needs_tools
@every_port
def test_a_cut_of_the_power_leaves_a_real_board_the_old_state_or_the_new_one(name: str) -> None:
    image = tiny_image(LEAST, LITTLE)
    model = CoreModel(Image(image))
    old, new = (learned(model, seed) for seed in (1, 2))
    board = new_chip(name, image)
    seen = set()
    with chip.serving(board) as url:
        runtime = connect(url)
        runtime.load(old)
        runtime.store()
        runtime.confirm()
        before = board.operations
        runtime.load(new)
        runtime.store()
        count = board.operations - before
        runtime.roll_back()
        runtime.close()
        assert count >= len(new) // board["STATE_UNIT"]
        for cut in sorted({1, count // 2, count - 1, count}):  # the last two are of the header that makes it count
            pull_the_plug(board)
            runtime = connect(url)
            assert runtime.save() == old
            runtime.load(new)
            board.cut_after = board.operations + cut
            with pytest.raises(LinkLostError):
                runtime.store()
            runtime.close()
            assert board.off
            board.cut_after = None
            runtime = connect(url)
            said, state = runtime.stored(), runtime.save()
            assert state == (new if said.provisional else old)
            seen.add(said.provisional)
            if said.provisional:
                runtime.roll_back()
            runtime.load(new)
            assert runtime.store().provisional, "what is torn does not hinder the next store"
            runtime.roll_back()
            assert runtime.save() == old
            runtime.close()
    assert False in seen


@needs_tools
@every_port
def test_a_cut_while_a_real_board_erases_leaves_a_flash_that_works(name: str) -> None:
    image, ids = tiny_image(LEAST, LITTLE), repetitive_tokens(30, vocab_size=LEAST.vocab_size)
    board = new_chip(name, image)
    with chip.serving(board) as url:
        runtime = connect(url)
        nothing = runtime.save()
        runtime.process(ids, learn=True)
        learned = runtime.save()
        runtime.store()
        runtime.confirm()
        board.cut_after = board.operations + 1
        with pytest.raises(LinkLostError):
            runtime.wipe()
        runtime.close()
        board.cut_after = None
        runtime = connect(url)
        assert runtime.save() in (learned, nothing)
        runtime.wipe()
        runtime.load(learned)
        runtime.store()
        runtime._link.restart()
        assert runtime.save() == learned
        runtime.close()


@needs_tools
@every_port
def test_a_flash_that_refuses_is_reported(name: str) -> None:
    board = new_chip(name, tiny_image(LEAST, LITTLE))
    with chip.serving(board) as url:
        runtime = connect(url)
        runtime.process(repetitive_tokens(10, vocab_size=LEAST.vocab_size), learn=True)
        board.protected = True
        with pytest.raises(FlashError):
            runtime.store()
        board.protected = False
        assert runtime.store().provisional
        board.protected = True
        with pytest.raises(FlashError):
            runtime.wipe()
        runtime.close()


@needs_tools
@pytest.mark.parametrize("name", ["feather-stm32f405", "nucleo-h743zi2"])
def test_without_its_crystal_a_board_runs_as_fast_from_the_oscillator_within(name: str) -> None:
    board = new_chip(name, tiny_image())
    board.has_crystal = False
    with chip.serving(board) as url:
        runtime = connect(url)
        assert runtime.identity.tick_hz == board["TICK_HZ"]
        runtime.close()


@needs_tools
@pytest.mark.parametrize("name", ["feather-stm32f405", "nucleo-h743zi2"])
def test_a_board_starts_as_well_from_the_boot_loader_in_its_rom(name: str) -> None:
    board = new_chip(name, tiny_image())
    board.from_loader = True
    with chip.serving(board) as url:
        runtime = connect(url)
        assert runtime.identity.board == name
        runtime.close()


@needs_tools
def test_an_nrf52840_leaves_its_debug_port_open_unless_somebody_has_locked_it() -> None:
    """A port that is locked opens only by erasing all, and a new model could not be flashed without that."""
    board = new_chip("nrf52840-dk", tiny_image())
    opened = []
    for _ in range(2):
        board.power_on()
        board.take(b"")
        opened.append(board.debug_port_is_open)
        pull_the_plug(board)
    assert opened == [False, True], "the user's information counts from the next start on"
    for variant, protection in ((b"AAF0", 0), (b"AAC0", 0xFFFFFFFF)):
        board = new_chip("nrf52840-dk", tiny_image())
        board.variant, board.protection = variant, protection
        board.power_on()
        board.take(b"")
        assert (board.protection, board.software_half) == (protection, 0)


# ---- What the models catch


@needs_tools
def test_a_torn_word_of_the_h743_is_a_fault_unless_that_is_ignored() -> None:
    board = new_chip("nucleo-h743zi2", tiny_image())
    at, _ = board.state
    board.torn = {at}
    board.power_on()
    assert board.take(b"") == b""  # starts: the firmware reads it with care
    assert bytes(board.uc.mem_read(board["STATE_COPY_ADDRESS"], 64)) == bytes(32) + b"\xff" * 32
    board.uc.mem_write(0x24000000, struct.pack("<HHI", 0x4800, 0x6801, at))  # ldr r0, [pc]; ldr r1, [r0]
    board.pc = 0x24000000
    with pytest.raises(chip.Violation, match="bus fault"):
        board.take(b"")


@needs_tools
@pytest.mark.parametrize(
    ("name", "number", "said"),
    [(name, "BAUD", "rate is wrong") for name in CHIPS if name != "nrf52840-dk"]
    + [(name, "UART_SEND_PIN", "pin|GPIO|low|none of the registers") for name in CHIPS],
)
def test_the_models_catch_firmware_that_is_for_another_board(name: str, number: str, said: str) -> None:
    board = boards()[name]
    value = board.numbers[f"BOARD_{number}"]
    other = replace(board, numbers=board.numbers | {f"BOARD_{number}": 2 * value if number == "BAUD" else value + 3})
    wrong = CHIPS[name](other, build_firmware(name).read_bytes(), b"")
    wrong.power_on()
    with pytest.raises(chip.Violation, match=said):
        wrong.take(encode(lib.EHMN_WIRE_IDENTIFY, 1))


# ---- The files that are flashed


@needs_tools
def test_the_commands_say_what_is_left_and_what_has_not_been_tried(run_cli: Callable[..., Result]) -> None:
    done = run_cli("build", "--target", "nucleo-h743zi2", "--json").result
    assert done["status"] == NOT_RUN and done["flash_room"] == 128 << 10 and 30_000 < done["flash_bytes"] < 100_000
    assert "nucleo-h743zi2 (builds, not yet run on hardware): flash " in run_cli("build", "--target", done["board"]).out
    listed = {board["name"]: board["status"] for board in run_cli("targets", "--json").result["boards"]}
    assert {name for name, status in listed.items() if status == NOT_RUN} == set(CHIPS) and set(listed) == set(boards())
    assert "raspberry-pi-pico-2" in run_cli("targets").out


def symbols(elf: Path) -> dict[str, int]:
    listed = subprocess.run(["arm-none-eabi-nm", str(elf)], capture_output=True, text=True, check=True).stdout
    return {name: int(address, 16) for address, _, name in (line.split() for line in listed.splitlines())}


@needs_tools
@pytest.mark.parametrize("name", boards())
def test_the_firmware_begins_as_its_core_expects_and_says_what_is_left(name: str, tmp_path: Path) -> None:
    board, elf, plain = boards()[name], build_firmware(name), tmp_path / "firmware.bin"
    number = board.numbers
    subprocess.run(["arm-none-eabi-objcopy", "-O", "binary", "-R", ".bss", str(elf), str(plain)], check=True)
    data, start = plain.read_bytes(), number["BOARD_FLASH_ADDRESS"]
    assert contents(elf.read_bytes(), start) == data
    stack, *handlers = struct.unpack_from("<16I", data)
    assert stack == number["BOARD_STACK_ADDRESS"] + number["BOARD_STACK_BYTES"] and stack % 8 == 0
    assert all(address & 1 and start < address < start + len(data) for address in handlers)
    assert handlers[0] == symbols(elf)["reset"] | 1
    room = room_of(board, elf.read_bytes())
    assert room["flash_bytes"] == len(data) <= room["flash_room"] == number["BOARD_FLASH_BYTES"]
    assert room["ram_bytes"] == symbols(elf)["bss_end"] - number["BOARD_RAM_ADDRESS"] <= room["ram_room"]


@needs_tools
def test_the_boot_rom_of_the_rp2350_finds_what_it_looks_for() -> None:
    name = "raspberry-pi-pico-2"
    elf = build_firmware(name)
    words = struct.unpack_from("<1024I", contents(elf.read_bytes(), 0x10000000))  # the first 4 KB
    begin = words.index(0xFFFFDED3)
    kind, at, items = words[begin + 1], begin + 1, 0
    while (
        words[at] & 0xFF != 0xFF
    ):  # items of one byte of size; the last one has two, and says how many words there were
        items += words[at] >> 8 & 0xFF
        at += words[at] >> 8 & 0xFF
    assert words[at] == 0xFF | items << 8
    assert words[at + 1] == 0 and words[at + 2] == 0xAB123579
    assert kind & 0xFF == 0x42
    executable, security, core, chip_code = kind >> 16 & 0xF, kind >> 20 & 3, kind >> 24 & 7, kind >> 28 & 7
    assert (executable, security, core, chip_code) == (1, 2, 0, 1)  # data sheet, table of IMAGE_TYPE: S, Arm, RP2350
    ram = range(0x20002000, 0x20008000)
    found = symbols(elf)
    assert all(found[symbol] in ram for symbol in ("operate", "page", "setup"))


class FromDrive(Rp2350):
    """Its boot ROM has written the file that was put on its drive: each block by itself."""

    drive: Path

    def power_on(self) -> None:
        data = (self.drive / "edgehmn.uf2").read_bytes()
        self.flash = bytearray(b"\xff" * self.FLASH[1])
        for i in range(0, len(data), 512):
            one, two, flags, address, size, number, count, family = struct.unpack_from("<8I", data, i)
            assert (one, two, flags & 0x2000, family) == (0x0A324655, 0x9E5D5157, 0x2000, 0xE48BFF59)
            assert (number, count, size, address % 256) == (i // 512, len(data) // 512, 256, 0)
            assert self["FLASH_ADDRESS"] <= address < self["STATE_ADDRESS"], "what was learned stays"
            at = address - self.FLASH[0]
            self.flash[at : at + size] = data[i + 32 : i + 32 + size]
        super().power_on()


@needs_tools
def test_a_pico_2_is_flashed_by_its_drive_and_proves_that_it_runs(tiny_export: Path, tmp_path: Path) -> None:
    name = "raspberry-pi-pico-2"
    (tmp_path / "INFO_UF2.TXT").write_text("UF2 Bootloader v1.0\nModel: Raspberry Pi RP2350\nBoard-ID: RP2350\n")
    board = FromDrive(boards()[name], build_firmware(name).read_bytes(), b"")
    board.drive = tmp_path
    with chip.serving(board) as url:
        done = flash(Export.open(tiny_export), name, programmer_for(name), port=str(tmp_path), line=url)
    assert (done.board, done.verified, done.self_test) == (name, "self-test", "ok")
