"""Every board: its numbers, the stack that its firmware needs, what fits, and the same bits as the host."""

import os
import re
import shutil
import subprocess
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from edgehmn.calibrate import calibrate, calibration_ids
from edgehmn.checkpoint import read_checkpoint
from edgehmn.core import CoreModel, Image, lib
from edgehmn.device.boards import Board, boards, find_board, machines, sources
from edgehmn.device.emulator import QEMU, Emulator
from edgehmn.device.firmware import TOOLS, build_firmware
from edgehmn.device.link import Link
from edgehmn.errors import DoesNotFitError, EdgeHMNError, LinkLostError, UsageError
from edgehmn.fitting import image_for_board
from edgehmn.image import build_image
from edgehmn.plasticity import Rule
from edgehmn.quantize import quantise
from edgehmn.runtime.device import DeviceRuntime
from tests.models import TINY, random_tokens, repetitive_tokens, tiny_image, with_settings

NETDUINO = "netduinoplus2"
BOARDS = boards()
KB = 1024
STORIES = Path(__file__).resolve().parents[2] / "shared" / "data" / "stories260K" / "stories260K.bin"
absent = [tool for tool in (QEMU, *TOOLS) if shutil.which(tool) is None]
needs_tools = pytest.mark.skipif(bool(absent), reason=f"not run here: {', '.join(absent)} missing")

# The shape of a small trained model, with memories that leave room for a copy of what was learned.
SMALL_LLAMA = replace(TINY, n_layers=5, d_model=64, d_hidden=172, n_heads=8, n_kv_heads=4, vocab_size=512, n_ctx=128)
SMALL_RULE = replace(Rule(), row_slots=(64, 64), ngram_slots=480)


@cache
def small_image() -> bytes:
    return tiny_image(SMALL_LLAMA, SMALL_RULE)


def host(image: bytes) -> CoreModel:
    return CoreModel(Image(image))


# ---- The table of boards


def test_the_boards_have_names_and_machines() -> None:
    assert {"mps2-an385", "mps2-an386", "mps2-an500", "mps2-an505", "mps3-an547", NETDUINO} <= set(BOARDS)
    assert [*BOARDS] == sorted(BOARDS) and machines() == [name for name, board in BOARDS.items() if board.machine]
    for name, board in BOARDS.items():
        assert find_board(name) == find_board(board.folder) == board
        assert board.machine in (None, name)
        assert board.cpu.startswith("-mcpu=cortex-m")
    for unknown in ("", "mps2", "qemu/", "elsewhere/netduinoplus2", "../qemu/netduinoplus2", "qemu/qemu/mps2-an386"):
        with pytest.raises(UsageError, match="'edgehmn targets'"):
            find_board(unknown)


@pytest.mark.parametrize("board", BOARDS.values(), ids=lambda board: board.name)
def test_the_memory_of_a_board_is_in_order(board: Board) -> None:
    number = board.numbers
    regions = [(number[f"BOARD_{name}_ADDRESS"], number[f"BOARD_{name}_BYTES"]) for name in
               ("FLASH", "IMAGE", "STACK", "RAM", "ARENA", "STAGING", "STATE_COPY")
               if f"BOARD_{name}_ADDRESS" in number]  # fmt: skip
    slot = number["BOARD_STATE_SECTOR_BYTES"] * number["BOARD_STATE_SLOT_SECTORS"]
    regions.append((number["BOARD_STATE_ADDRESS"], 2 * slot))
    used = sorted((start, start + size) for start, size in regions if size)
    assert all(end <= start for (_, end), (start, _) in pairwise(used))
    assert all(start % lib.EHMN_ALIGN == 0 for start, _ in used)
    assert number["BOARD_STACK_ADDRESS"] < number["BOARD_RAM_ADDRESS"], "an overflow must fault"


def test_netduinoplus2_has_the_memory_of_its_chip() -> None:
    number = BOARDS[NETDUINO].numbers
    flash, ram = (0x08000000, 0x08000000 + 1024 * KB), (0x20000000, 0x20000000 + 128 * KB)
    for name, (start, end) in {"FLASH": flash, "IMAGE": flash, "STACK": ram, "RAM": ram, "ARENA": ram}.items():
        at, size = number[f"BOARD_{name}_ADDRESS"], number[f"BOARD_{name}_BYTES"]
        assert start <= at and at + size <= end, name
    sectors = [16 * KB] * 4 + [64 * KB] + [128 * KB] * 7  # of the STM32F405, reference manual RM0090, table 5
    starts = np.cumsum([0, *sectors]) + flash[0]
    assert number["BOARD_IMAGE_ADDRESS"] in starts, "writing the image erases whole sectors"
    first = number["BOARD_STATE_FIRST_SECTOR"]
    assert number["BOARD_IMAGE_ADDRESS"] + number["BOARD_IMAGE_BYTES"] == number["BOARD_STATE_ADDRESS"] == starts[first]
    assert starts[first] + 2 * number["BOARD_STATE_SECTOR_BYTES"] == starts[-1], "the last two are for learned state"


# ---- The stack: the deepest chain of calls, from what the compiler says


def call_graph(board: Board, folder: Path) -> tuple[dict[str, int], dict[str, set[str]]]:
    """Bytes of every function's frame, and whom it calls, of the firmware as its build compiles it."""
    toolchain = sources() / "cmake" / "arm-none-eabi.cmake"
    build = ["-G", "Ninja", f"-DCMAKE_TOOLCHAIN_FILE={toolchain}", f"-DEHMN_BOARD={board.folder}"]
    environment = {**os.environ, "CFLAGS": "-fcallgraph-info=su"}
    for command in (["cmake", "-S", str(sources()), "-B", str(folder), *build], ["cmake", "--build", str(folder)]):
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    frames: dict[str, int] = {}
    calls: dict[str, set[str]] = {}
    for info in folder.rglob("*.ci"):
        text = info.read_text()
        for name, size, kind in re.findall(r'node: \{ title: "([^"]+)" label: "[^"]*\\n(\d+) bytes \(([^)]*)\)', text):
            assert kind == "static", f"{name}: its frame has no fixed size"
            frames[name] = int(size)
        for caller, callee in re.findall(r'edge: \{ sourcename: "([^"]+)" targetname: "([^"]+)"', text):
            calls.setdefault(caller, set()).add(callee)
    return frames, calls


def deepest(frames: dict[str, int], calls: dict[str, set[str]], *roots: str) -> int:
    """Bytes of stack that the deepest of these functions takes with all that it calls. A call through a pointer goes to
    what such a pointer can hold: the flash driver in the slots, kernels in the encoder and the head, the port in the
    commands, and the commands in what serves them."""
    kernels = {name for name in frames if "kernels_" in name}
    port = {name for name in frames if name.split(":")[-1] in ("timer_start", "timer_read", "uart_write", "restart")}
    flash = {name for name in frames if name.endswith(("flash.c:erase", "flash.c:program"))}
    commands = {name for name in frames if "device.c:" in name or name.startswith("ehmn_command_")}
    commands -= {name for name in commands if name.endswith(":refuse")}
    assert kernels and len(port) >= 4 and len(flash) == 2 and len(commands) >= 16

    def through_pointer(name: str) -> set[str]:
        if name == "ehmn_device_take":
            return commands | port
        if "state.c:" in name or name.startswith("ehmn_state_"):
            return flash
        tokens = name in ("ehmn_process_token", "ehmn_say_token")
        return port if tokens or name in commands or name.endswith(":refuse") else kernels

    @cache
    def below(name: str) -> int:
        callees = calls.get(name, set())
        if "__indirect_call" in callees:
            callees = callees | through_pointer(name)
        return frames.get(name, 0) + max((below(c) for c in callees if c != "__indirect_call"), default=0)

    return max(below(root) for root in roots)


@pytest.mark.parametrize("board", BOARDS.values(), ids=lambda board: board.name)
@needs_tools
def test_the_stack_has_room_for_the_deepest_calls(board: Board, tmp_path: Path) -> None:
    frames, calls = call_graph(board, tmp_path)
    assert 1 * KB < deepest(frames, calls, "reset") <= board.numbers["BOARD_STACK_BYTES"] * 7 // 8
    headers = "".join(path.read_text("utf-8") for path in (sources() / "include").glob("*.h"))
    [most] = re.findall(r"Stack: (\d+) KB on a Cortex-M, for whatever is called of these headers", headers)
    public = set(re.findall(r"^[\w ]+\*?\b(ehmn_\w+)\(", headers, re.M)) & set(frames)
    assert {"ehmn_learn", "ehmn_process", "ehmn_state_store", "ehmn_tokenize"} <= public
    assert 1 * KB < deepest(frames, calls, *public) <= int(most) * KB


# ---- What fits


def test_what_fits_is_said_before_anything_is_started() -> None:
    image, board = Image(small_image()), BOARDS[NETDUINO]
    said = board.fit(image)
    assert said["learns"] and said["saves"]
    assert (said["image_bytes"], said["image_room"]) == (len(image.bytes), 640 * KB)
    assert (said["arena_bytes"], said["arena_room"]) == (image.arena_bytes(plastic=True), 120 * KB)
    larger = Image(tiny_image(SMALL_LLAMA))  # with the memories that are usual
    arena = larger.arena_bytes(plastic=True)
    assert board.fit(larger) == said | {"image_bytes": len(larger.bytes), "arena_bytes": arena, "saves": False}
    window = Image(with_settings(small_image(), {"n_ctx": 256}))
    said = board.fit(window)
    assert (said["learns"], said["saves"], said["arena_bytes"]) == (False, False, window.arena_bytes(plastic=False))
    assert BOARDS["mps2-an386"].fit(window)["saves"]


def test_what_does_not_fit_is_refused_with_the_numbers() -> None:
    board = BOARDS[NETDUINO]
    window = Image(with_settings(small_image(), {"n_ctx": 512}))
    with pytest.raises(DoesNotFitError, match=f"{NETDUINO} has 122,880") as caught:
        board.fit(window)
    assert caught.value.exit_code == 6
    assert caught.value.detail == {"need": window.arena_bytes(plastic=False), "have": 120 * KB}
    large = Image(tiny_image(replace(SMALL_LLAMA, d_hidden=600)))
    with pytest.raises(DoesNotFitError, match="has room for 655,360") as caught:
        board.fit(large)
    assert caught.value.detail == {"need": len(large.bytes), "have": 640 * KB}


@needs_tools
def test_the_emulator_refuses_what_does_not_fit() -> None:
    with pytest.raises(DoesNotFitError, match="has room for 655,360"):
        Emulator(bytes(640 * KB + 1), NETDUINO)
    with pytest.raises(DoesNotFitError, match=f"{NETDUINO} has 122,880") as caught:
        DeviceRuntime.emulated(with_settings(small_image(), {"n_ctx": 512}), NETDUINO)
    assert caught.value.exit_code == 6


@needs_tools
@pytest.mark.parametrize("board", BOARDS.values(), ids=lambda board: board.name)
def test_the_firmware_builds_under_either_name(board: Board) -> None:
    elf = build_firmware(board.name)
    assert elf == build_firmware(board.folder)
    assert elf.read_bytes()[:4] == b"\x7fELF"


# ---- What they compute


@needs_tools
@pytest.mark.parametrize("name", machines())
def test_every_board_learns_the_bits_that_the_host_learns(name: str) -> None:
    image = tiny_image()
    ids, expected = repetitive_tokens(200), host(image)
    scores = expected.process(ids, learn=True)
    runtime = DeviceRuntime.emulated(image, name)
    try:
        assert runtime.identity.board == name
        assert np.array_equal(runtime.process(ids, learn=True), scores)
        assert runtime.save() == expected.save()
        counts = runtime.counts()
    finally:
        runtime.close()
    assert (counts.steps, counts.writes) == (200, expected.counts().writes)
    assert counts.step_instructions is not None and counts.macs < counts.step_instructions < 20 * counts.macs


@needs_tools
def test_a_small_trained_shape_learns_on_netduinoplus2_and_goes_on_after_a_power_cycle() -> None:
    image = small_image()
    ids = repetitive_tokens(400, period=100, vocab_size=SMALL_LLAMA.vocab_size)
    expected = host(image)
    scores = expected.process(ids, learn=True)
    assert scores[-100:].mean() < scores[:100].mean()  # so that what is compared has been learned
    runtime = DeviceRuntime.emulated(image, NETDUINO)
    try:
        assert np.array_equal(runtime.process(ids, learn=True), scores)
        saved = runtime.save()
        assert saved == expected.save()
        assert np.array_equal(runtime.generate(20, temperature=1.0), expected.generate(20, temperature=1.0))
    finally:
        runtime.close()
    again, loaded = DeviceRuntime.emulated(image, NETDUINO), host(image)
    try:
        assert again.save() != saved  # its flash cannot be written: state is kept by the host
        again.load(saved)
        loaded.load(saved)
        assert np.array_equal(again.process(ids[:60], learn=True), loaded.process(ids[:60], learn=True))
        assert again.save() == loaded.save()
    finally:
        again.close()


@needs_tools
def test_a_trained_model_writes_and_learns_on_netduinoplus2() -> None:
    if not STORIES.is_file():
        pytest.skip(f"not run here: {STORIES} is not there; a random model of its shape runs in the test before")
    checkpoint = read_checkpoint(STORIES, n_ctx=128)
    quantised = quantise(checkpoint, calibrate(checkpoint, calibration_ids(checkpoint)[:512]))
    image = image_for_board(Image(build_image(quantised)), NETDUINO).bytes.tobytes()
    begin, expected = checkpoint.encode("Once upon a time, there was a little girl"), host(image)
    runtime = DeviceRuntime.emulated(image, NETDUINO)
    try:
        assert np.array_equal(runtime.process(begin, learn=True), expected.process(begin, learn=True))
        story = runtime.generate(200)
        assert np.array_equal(story, expected.generate(200))
        assert str(checkpoint.tokenizer.decode(story.tolist())).count(" ") > 40, "words"
        assert np.array_equal(runtime.process(story, learn=True), expected.process(story, learn=True))
        assert runtime.save() == expected.save()
    finally:
        runtime.close()


@needs_tools
def test_netduinoplus2_learns_even_where_there_is_no_room_to_save() -> None:
    image = tiny_image(SMALL_LLAMA)
    ids = random_tokens(20, SMALL_LLAMA.vocab_size)
    runtime = DeviceRuntime.emulated(image, NETDUINO)
    try:
        assert runtime.identity.staging_room < runtime.identity.delta_bytes
        assert np.array_equal(runtime.process(ids, learn=True), host(image).process(ids, learn=True))
        with pytest.raises(EdgeHMNError):
            runtime.save()
        assert len(runtime.process(ids, learn=True)) == len(ids)
    finally:
        runtime.close()


@needs_tools
def test_netduinoplus2_without_an_image_and_after_a_restart() -> None:
    with Emulator(None, NETDUINO) as emulator:
        line = Link(emulator.url)
        assert (line.identity.board, line.identity.image_status) == (NETDUINO, lib.EHMN_E_MAGIC)
        assert line.identity.staging_room == 0
        line.close()
    with Emulator(tiny_image(), NETDUINO) as emulator:
        runtime = DeviceRuntime(emulator.url)
        untrained = runtime.save()
        runtime.process(random_tokens(30), learn=True)
        runtime._link.request(lib.EHMN_WIRE_RESTART)
        with pytest.raises(LinkLostError, match="started anew"):
            runtime.process(random_tokens(1), learn=False)
        runtime.close()
        runtime = DeviceRuntime(emulator.url)
        assert runtime.save() == untrained
        runtime.close()
