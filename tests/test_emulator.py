"""The firmware on an emulated Cortex-M4: the same bits as the host, and no harm from anything on its line."""

import hashlib
import os
import random
import shutil
import signal
import socket
import tempfile
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgehmn.core import CoreModel, Image, ffi, lib
from edgehmn.device import link, wire
from edgehmn.device.boards import boards, find_board, machines
from edgehmn.device.emulator import QEMU, Emulator
from edgehmn.device.firmware import TOOLS, build_firmware
from edgehmn.device.link import Link
from edgehmn.errors import (
    CannotWriteError,
    DependencyError,
    DeviceError,
    DoesNotFitError,
    EdgeHMNError,
    InvalidFileError,
    LinkLostError,
    UsageError,
)
from edgehmn.runtime.device import DeviceRuntime
from tests.command_line import program
from tests.models import TINY, random_tokens, repetitive_tokens, tiny_image, with_settings

BOARD = "mps2-an386"
absent = [tool for tool in (QEMU, *TOOLS) if shutil.which(tool) is None]
pytestmark = pytest.mark.skipif(bool(absent), reason=f"not run here: {', '.join(absent)} missing")


@pytest.fixture(scope="module")
def image() -> bytes:
    return tiny_image()


@pytest.fixture(scope="module")
def board(image: bytes) -> Iterator[DeviceRuntime]:
    """One board for all tests that leave it usable; each forgets what it must."""
    runtime = DeviceRuntime.emulated(image)
    yield runtime
    runtime.close()


@pytest.fixture
def fresh(board: DeviceRuntime) -> DeviceRuntime:
    board.reset()
    board.forget(0)
    return board


def host(image: bytes) -> CoreModel:
    return CoreModel(Image(image))


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_the_board_says_what_it_is(board: DeviceRuntime, image: bytes) -> None:
    said, there = board.identity, Image(image)
    assert said.board == BOARD
    assert said.image_status == lib.EHMN_OK
    assert said.plastic
    assert (said.image_id, board.image_id) == (there.id, there.id)
    assert (said.vocab_size, said.delta_bytes) == (there.vocab_size, there.delta_bytes())
    assert said.arena_bytes == there.arena_bytes(plastic=True)
    assert (said.image_version, said.delta_version) == (lib.EHMN_IMAGE_VERSION, lib.EHMN_DELTA_VERSION)
    numbers = find_board(BOARD).numbers
    assert (said.arena_room, said.tick_hz) == (numbers["BOARD_ARENA_BYTES"], numbers["BOARD_TICK_HZ"])


@pytest.mark.timeout(1800)
def test_the_reference_model_learns_the_same_bits_on_host_and_board(reference_image: bytes) -> None:
    ids = repetitive_tokens(2000, period=400, vocab_size=Image(reference_image).vocab_size)
    expected = host(reference_image)
    scores = expected.process(ids, learn=True)
    assert scores[-400:].mean() < scores[:400].mean()  # so that what is compared has been learned
    runtime = DeviceRuntime.emulated(reference_image)
    try:
        assert np.array_equal(runtime.process(ids[:1600], learn=True), scores[:1600])
        saved = runtime.save()
        assert np.array_equal(runtime.process(ids[1600:], learn=True), scores[1600:])
        delta, counts = runtime.save(), runtime.counts()
    finally:
        runtime.close()
    assert sha256(delta) == sha256(expected.save())
    assert (counts.steps, counts.learned) == (2000, 1999)
    assert (counts.writes, counts.macs) == (expected.counts().writes, expected.counts().macs)
    assert counts.step_instructions is not None and counts.learn_instructions is not None
    assert counts.macs < counts.step_instructions + counts.learn_instructions < 20 * counts.macs
    continued, again = DeviceRuntime.emulated(reference_image), host(reference_image)
    try:
        continued.load(saved)
        again.load(saved)
        assert np.array_equal(continued.process(ids[:32], learn=True), again.process(ids[:32], learn=True))
    finally:
        continued.close()


def test_a_power_cycle_keeps_what_was_saved(image: bytes) -> None:
    ids = repetitive_tokens(120)
    whole = host(image)
    whole.process(ids[:80], learn=True)
    first = DeviceRuntime.emulated(image)
    first.process(ids[:80], learn=True)
    saved = first.save()
    first.close()
    whole.reset()
    expected = whole.process(ids[80:], learn=True)
    second = DeviceRuntime.emulated(image)
    try:
        assert second.save() != saved
        second.load(saved)
        assert second.save() == saved
        assert np.array_equal(second.process(ids[80:], learn=True), expected)
        assert second.save() == whole.save()
    finally:
        second.close()


def test_instruction_counts_are_the_same_in_every_run(image: bytes) -> None:
    counts = []
    for _ in range(2):
        runtime = DeviceRuntime.emulated(image)
        runtime.process(random_tokens(40), learn=True)
        runtime.generate(5, temperature=1.0)
        counts.append(runtime.counts())
        runtime.close()
    assert counts[0] == counts[1]
    assert counts[0].step_instructions and counts[0].learn_instructions


def test_learning_costs_no_instruction_when_it_is_off(fresh: DeviceRuntime) -> None:
    before = fresh.counts()
    fresh.process(random_tokens(8), learn=False)
    after = fresh.counts()
    assert after.learn_instructions == before.learn_instructions
    assert after.steps == before.steps + 8
    assert (after.step_instructions or 0) - (before.step_instructions or 0) > 8 * 10_000


@pytest.mark.parametrize("temperature", [0.0, 0.5, 1.0])
def test_the_board_draws_the_tokens_that_the_host_draws(image: bytes, temperature: float) -> None:
    runtime, expected = DeviceRuntime.emulated(image), host(image)
    try:
        runtime.process(random_tokens(5), learn=False)
        expected.process(random_tokens(5), learn=False)
        drawn = runtime.generate(40, temperature=temperature)
    finally:
        runtime.close()
    assert np.array_equal(drawn, expected.generate(40, temperature=temperature))


def test_reset_and_forget(fresh: DeviceRuntime, image: bytes) -> None:
    ids, expected = random_tokens(30), host(image)
    untrained = expected.process(ids, learn=False)
    assert np.array_equal(fresh.process(ids, learn=True)[:1], untrained[:1])
    learned = fresh.save()
    fresh.reset()
    assert fresh.save() == learned
    fresh.forget(5)
    assert np.array_equal(fresh.process(ids, learn=False), untrained)
    expected.forget(5)
    expected.reset()
    expected.process(ids, learn=True)
    fresh.forget(5)
    fresh.reset()
    fresh.process(ids, learn=True)
    assert fresh.save() == expected.save()


def test_a_bad_delta_is_refused_and_nothing_changes(fresh: DeviceRuntime) -> None:
    fresh.process(random_tokens(30), learn=True)
    good = fresh.save()
    damaged = bytearray(good)
    damaged[len(good) // 2] ^= 1
    other_image = bytearray(good)
    other_image[ffi.offsetof("ehmn_delta", "image_id")] ^= 1
    for bad in (bytes(damaged), bytes(other_image), good[:-1], good + b"\0", b"", b"x", bytes(200_000)):
        with pytest.raises(InvalidFileError):
            fresh.load(bad)
        assert fresh.save() == good


def test_half_a_load_changes_nothing(fresh: DeviceRuntime) -> None:
    fresh.process(random_tokens(30), learn=True)
    good = fresh.save()
    fresh.forget(1)
    empty = fresh.save()
    half = wire.words(0) + good[: lib.EHMN_WIRE_MAX_PAYLOAD - 4]
    fresh._link.request(lib.EHMN_WIRE_WRITE, half)
    assert fresh.save() == empty


BEYOND = 2**32 - 1
REQUESTS = {
    "an unknown command": (100, b"", DeviceError),
    "the command after the last": (lib.EHMN_WIRE_SAY + 1, b"", DeviceError),
    "command zero": (0, b"", DeviceError),
    "a payload where none belongs": (lib.EHMN_WIRE_RESET, b"\0", DeviceError),
    "no payload where one belongs": (lib.EHMN_WIRE_LOAD, b"", DeviceError),
    "half a token": (lib.EHMN_WIRE_PROCESS, wire.words(1, 2) + b"\0", DeviceError),
    "too many tokens": (lib.EHMN_WIRE_PROCESS, wire.words(1, *range(lib.EHMN_WIRE_MAX_TOKENS + 1)), DeviceError),
    "a token beyond the vocabulary": (lib.EHMN_WIRE_PROCESS, wire.words(1, 1, TINY.vocab_size), UsageError),
    "neither learn nor not": (lib.EHMN_WIRE_PROCESS, wire.words(3, 1), UsageError),
    "too many to generate": (lib.EHMN_WIRE_GENERATE, wire.words(65, 0), UsageError),
    "a temperature beyond": (lib.EHMN_WIRE_GENERATE, wire.words(2, 4097), UsageError),
    "reading beyond the buffer": (lib.EHMN_WIRE_READ, wire.words(131072, 1), InvalidFileError),
    "reading across the end": (lib.EHMN_WIRE_READ, wire.words(131071, 2), InvalidFileError),
    "reading past 2^32": (lib.EHMN_WIRE_READ, wire.words(BEYOND, 2), InvalidFileError),
    "reading too much": (lib.EHMN_WIRE_READ, wire.words(0, 1025), InvalidFileError),
    "writing beyond the buffer": (lib.EHMN_WIRE_WRITE, wire.words(131072) + b"x", InvalidFileError),
    "writing past 2^32": (lib.EHMN_WIRE_WRITE, wire.words(BEYOND) + b"xx", InvalidFileError),
    "loading more than there is": (lib.EHMN_WIRE_LOAD, wire.words(131073), InvalidFileError),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_the_board_believes_no_request(fresh: DeviceRuntime, name: str) -> None:
    command, payload, error = REQUESTS[name]
    fresh.process(random_tokens(3), learn=True)
    before, counts = fresh.save(), fresh.counts()
    with pytest.raises(error) as caught:
        fresh._link.request(command, payload)
    assert type(caught.value) is error
    assert fresh.save() == before
    assert fresh.counts() == counts


def answers(line: Link, sent: bytes, n: int) -> list[wire.Frame]:
    """The first n frames that a board sends back."""
    line._line.write(sent)
    frames: list[wire.Frame] = []
    receiver = wire.Receiver()
    while len(frames) < n:
        frames += receiver.feed(line._line.read(receiver.missing))
    return frames


def test_frames_of_others_are_answered_or_ignored_and_the_session_goes_on(fresh: DeviceRuntime) -> None:
    line, version = fresh._link, lib.EHMN_WIRE_VERSION + 1
    of_the_future = bytearray(wire.encode(lib.EHMN_WIRE_IDENTIFY, 99, b"what is this")[:-4])
    of_the_future[4] = version
    of_the_future += zlib.crc32(of_the_future).to_bytes(4, "little")
    an_answer = wire.encode(lib.EHMN_WIRE_FORGET | lib.EHMN_WIRE_ANSWER, line._sequence + 1, bytes(8))
    of_another_session = wire.encode(lib.EHMN_WIRE_RESET, line._sequence + 2)
    got = answers(line, bytes(of_the_future) + an_answer + of_another_session, 2)
    assert [(f.version, f.sequence, f.status) for f in got] == [
        (lib.EHMN_WIRE_VERSION, 99, lib.EHMN_WIRE_E_VERSION),
        (lib.EHMN_WIRE_VERSION, line._sequence + 2, lib.EHMN_WIRE_E_SEQUENCE),
    ]
    again = wire.encode(lib.EHMN_WIRE_FORGET, line._sequence, bytes(8))  # the last request was this forget
    assert [(f.sequence, f.status) for f in answers(line, again, 1)] == [(line._sequence, lib.EHMN_OK)]
    assert len(fresh.process(random_tokens(3), learn=True)) == 3


def test_what_the_host_cannot_mean_is_refused_before_it_is_sent(fresh: DeviceRuntime) -> None:
    for ids in (np.array([0, TINY.vocab_size]), np.array([-1]), np.array([2**32])):
        with pytest.raises(UsageError, match="outside the vocabulary"):
            fresh.process(ids, learn=False)
    with pytest.raises(UsageError):
        fresh.generate(1, temperature=-1.0)
    with pytest.raises(EdgeHMNError, match="E_STATE"):
        fresh.generate(1)
    assert len(fresh.process(np.array([], np.int32), learn=True)) == 0
    assert len(fresh.generate(0)) == 0


@contextmanager
def noisy_line(url: str, seed: int, every: int) -> Iterator[tuple[str, list[int]]]:
    """The URL of a line to `url` that adds, drops or changes about one of `every` bytes, both ways, and what it
    did so far: a list of 0, 1 and 2."""
    host_name, port = url.removeprefix("socket://").split(":")
    sockets: list[socket.socket] = []
    done: list[int] = []

    def forward(source: socket.socket, sink: socket.socket, seed: int) -> None:
        rng = random.Random(seed)
        with suppress(OSError):  # the other side hangs up
            while data := source.recv(64):
                out = bytearray()
                for byte in data:
                    kind = rng.randrange(3 * every)
                    changed = bytes([byte ^ 1 << rng.randrange(8)])
                    out += (bytes([byte, 0xD5]), b"", changed, bytes([byte]))[min(kind, 3)]
                    done.extend([kind] if kind < 3 else [])
                sink.sendall(out)
            sink.shutdown(socket.SHUT_WR)

    def connect() -> None:
        near = server.accept()[0]
        far = socket.create_connection((host_name, int(port)))
        sockets.extend((near, far))
        back = threading.Thread(target=forward, args=(far, near, seed + 1), daemon=True)
        back.start()
        forward(near, far, seed)

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=connect, daemon=True).start()
        yield f"socket://127.0.0.1:{server.getsockname()[1]}", done
    for s in sockets:
        s.close()


def test_noise_on_the_line_changes_nothing(image: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "FIRST_WAIT_S", 0.3)
    ids, expected = random_tokens(160), host(image)
    scores = expected.process(ids, learn=True)
    with Emulator(image) as emulator, noisy_line(emulator.url, seed=4, every=250) as (url, done):
        runtime = DeviceRuntime(url)
        assert np.array_equal(runtime.process(ids, learn=True), scores)
        assert runtime.counts().steps == len(ids)
        runtime.close()
    assert len(done) >= 5


def test_a_new_session_finds_what_the_last_one_left(image: bytes) -> None:
    ids, expected = random_tokens(30), host(image)
    expected.process(ids, learn=True)
    expected.reset()
    with Emulator(image) as emulator:
        first = DeviceRuntime(emulator.url)
        first.process(ids, learn=True)
        first._link._line.write(wire.encode(lib.EHMN_WIRE_PROCESS, 1, bytes(600))[:300])  # and is cut off
        first.close()
        second = DeviceRuntime(emulator.url)
        assert np.array_equal(second.process(ids, learn=False), expected.process(ids, learn=False))
        assert (second.counts().steps, second.counts().learned) == (len(ids), 0)
        assert second.counts().step_instructions is None
        second.close()


def test_a_board_that_starts_anew_is_noticed(image: bytes) -> None:
    with Emulator(image) as emulator:
        runtime = DeviceRuntime(emulator.url)
        untrained = runtime.save()
        runtime.process(random_tokens(30), learn=True)
        runtime._link.request(lib.EHMN_WIRE_RESTART)  # as a fault or a brown-out would, behind the session's back
        with pytest.raises(LinkLostError, match="started anew") as caught:
            runtime.process(random_tokens(1), learn=False)
        assert caught.value.exit_code == 12
        runtime.close()
        runtime = DeviceRuntime(emulator.url)
        assert runtime.save() == untrained  # this board has no storage of its own
        runtime.process(random_tokens(30), learn=True)
        runtime._link.restart()
        assert runtime._link.identity == runtime.identity
        assert runtime.save() == untrained
        runtime.close()


def test_a_board_that_dies_is_a_lost_link(image: bytes) -> None:
    with Emulator(image) as emulator:
        runtime = DeviceRuntime(emulator.url)
        emulator._process.kill()
        with pytest.raises(LinkLostError):
            runtime.process(random_tokens(100), learn=True)
        assert "ended with code -9" in str(emulator.failure())
        runtime.close()
        runtime.close()


def test_a_flash_without_room_is_a_disk_that_is_full(tmp_path: Path) -> None:
    """The file is memory to QEMU: where it cannot grow, the system sends this signal."""
    with Emulator(None, flash=tmp_path / "flash") as emulator:
        emulator._process.send_signal(signal.SIGBUS)
        failure = emulator.failure()
    assert isinstance(failure, CannotWriteError) and str(tmp_path / "flash") in str(failure)


def test_a_board_without_a_sound_image_says_so(image: bytes) -> None:
    with Emulator(None) as emulator:
        line = Link(emulator.url)
        assert (line.identity.board, line.identity.image_status) == (BOARD, lib.EHMN_E_MAGIC)
        with pytest.raises(DeviceError, match="no usable image"):
            line.request(lib.EHMN_WIRE_RESET)
        line.close()
        with pytest.raises(InvalidFileError, match="holds no image"):
            DeviceRuntime(emulator.url)
    for damaged, status in ((image[:-9], "E_CRC"), (image[:-40] + b"\1" + image[-39:], "E_CRC"), (image[:64], "E_CRC")):
        with pytest.raises(InvalidFileError, match=status):
            DeviceRuntime.emulated(damaged)


def test_an_arena_that_is_too_small_is_noticed() -> None:
    room = find_board(BOARD).numbers["BOARD_ARENA_BYTES"]
    deep = tiny_image(replace(TINY, n_layers=40))
    windows = [with_settings(deep, {"n_ctx": n}) for n in range(64, 513, 8)]
    fits = {plastic: [Image(w).arena_bytes(plastic=plastic) <= room for w in windows] for plastic in (True, False)}
    too_small_to_learn, too_small_to_run = fits[True].index(False), fits[False].index(False)
    assert 0 < too_small_to_learn < too_small_to_run
    runtime = DeviceRuntime.emulated(windows[too_small_to_learn - 1])
    assert runtime.identity.plastic
    runtime.close()
    runtime = DeviceRuntime.emulated(windows[too_small_to_learn])
    try:
        assert not runtime.identity.plastic
        assert len(runtime.process(np.arange(3), learn=False)) == 3
        with pytest.raises(DoesNotFitError, match="too small to learn"):
            runtime.process(np.arange(3), learn=True)
    finally:
        runtime.close()
    with pytest.raises(DoesNotFitError, match=f"{BOARD} has {room:,}") as caught:
        DeviceRuntime.emulated(windows[too_small_to_run])
    assert caught.value.detail["need"] > caught.value.detail["have"] == room
    with pytest.raises(DoesNotFitError, match="room for"):
        Emulator(bytes(find_board(BOARD).numbers["BOARD_IMAGE_BYTES"] + 1))


def test_the_emulator_ends_with_its_block() -> None:
    with pytest.raises(ZeroDivisionError), Emulator(None) as emulator:
        assert is_running(emulator._process.pid)
        raise ZeroDivisionError
    assert not is_running(emulator._process.pid)
    assert not Path(emulator._folder.name).exists()
    emulator.close()


def test_the_emulator_ends_when_it_is_forgotten() -> None:
    emulator = Emulator(None)
    pid = emulator._process.pid
    del emulator
    assert not is_running(pid)


def test_the_emulator_ends_with_a_program_that_fails(tmp_path: Path) -> None:
    code = "from edgehmn.device.emulator import Emulator; e = Emulator(None); print(e._process.pid); 1 / 0"
    done = program(code, cwd=tmp_path)
    assert "ZeroDivisionError" in done.stderr
    assert not is_running(int(done.stdout))


def test_what_is_missing_is_named_with_the_line_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    build_firmware(BOARD)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DependencyError, match="apt-get install qemu-system-arm") as caught:
        Emulator(None)
    assert caught.value.exit_code == 10
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
    with pytest.raises(DependencyError, match="apt-get install gcc-arm-none-eabi") as caught:
        build_firmware(BOARD)
    assert caught.value.exit_code == 10
    for tool in TOOLS[:-1]:
        (tmp_path / tool).write_text("#!/bin/sh\n")
        (tmp_path / tool).chmod(0o755)
    with pytest.raises(DependencyError, match=f"^{TOOLS[-1]} is missing"):
        build_firmware(BOARD)
    (tmp_path / TOOLS[-1]).symlink_to(tmp_path / TOOLS[0])
    (tmp_path / "cmake").write_text("#!/bin/sh\necho no such generator\nexit 1\n")
    with pytest.raises(DependencyError, match="no such generator"):
        build_firmware(BOARD)
    assert list((tmp_path / "empty" / "edgehmn" / "firmware").iterdir()) == []


def test_firmware_is_built_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a cache, é"))
    monkeypatch.setenv("CFLAGS", "-march=native")
    elf = build_firmware(BOARD)
    made = elf.stat().st_mtime_ns
    assert elf.read_bytes()[:4] == b"\x7fELF"
    assert list(elf.parent.iterdir()) == [elf]
    assert build_firmware(BOARD) == elf
    assert elf.stat().st_mtime_ns == made


def test_no_room_for_files_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "a file").write_text("where a folder should be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a file"))
    with pytest.raises(CannotWriteError, match="XDG_CACHE_HOME"):
        build_firmware(BOARD)
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "a file"))
    with pytest.raises(CannotWriteError, match="TMPDIR"):
        Emulator(None)


def test_an_unknown_board_is_a_usage_error() -> None:
    assert BOARD in boards()
    assert BOARD in machines()
    with pytest.raises(UsageError, match=BOARD):
        Emulator(None, f"{BOARD}x")
