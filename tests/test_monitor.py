"""monitor: what it says of a device, that it leaves no trace there, and what it does with one that is lost or taken."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from edgehmn.cli.monitor import COLUMNS
from edgehmn.core import CoreModel, Image, lib
from edgehmn.device import link as link_module
from edgehmn.device import wire
from edgehmn.device.emulator import Emulator
from edgehmn.device.link import Link
from edgehmn.device.server import Server
from edgehmn.errors import EXIT_CODES, LinkLostError
from edgehmn.monitor import Change, look, watch
from edgehmn.runtime.device import DeviceRuntime
from tests.command_line import Result, finish, process
from tests.models import repetitive_tokens, tiny_image
from tests.test_device_state import image_file, needs_tools
from tests.test_hostile_board import hostile
from tests.test_wire import STRANGERS, Board, identity, serving

Cli = Callable[..., Result]
TOKENS = repetitive_tokens(120)
SOON = ("--timeout", "0.2")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "FIRST_WAIT_S", 0.1)
    monkeypatch.setattr(link_module, "POLL_S", 0.02)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(image_file(tmp_path, tiny_image()), state=tmp_path / "state", socket=tmp_path / "socket") as running:
        yield running


def learn(url: str, tokens: np.ndarray) -> None:
    with closing(DeviceRuntime(url)) as device:
        device.process(tokens, learn=True)


# ---- What it says, and that nothing changes


@needs_tools
def test_a_look_at_an_emulated_board_leaves_no_trace(run_cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    image = tiny_image()
    expected = CoreModel(Image(image))
    scores = expected.process(TOKENS, learn=True)
    monkeypatch.setattr(DeviceRuntime, "reset", lambda self: None)  # a session goes on in the context of the last

    def staged(device: DeviceRuntime) -> bytes:
        return device._read_staging(device.identity.delta_bytes)

    with Emulator(image) as emulator:
        with closing(DeviceRuntime(emulator.url)) as device:
            assert np.array_equal(device.process(TOKENS[:50], learn=True), scores[:50])
            device.store()
            delta, text = device.save(), staged(device)
        before = run_cli("monitor", "--port", emulator.url, "--json").result
        shown = run_cli("monitor", "--port", emulator.url).out
        listed = run_cli("monitor", "--port", emulator.url, "--every", "0.1", "--count", "3", "--json").result
        with closing(DeviceRuntime(emulator.url)) as device:
            assert staged(device) == text and device.save() == delta
            assert device.stored().sequence == 1 and device.stored().provisional
            assert np.array_equal(device.process(TOKENS[50:], learn=True), scores[50:]), "the context goes on"
            assert device.save() == expected.save()
        after = run_cli("monitor", "--port", emulator.url, "--json").result

    counts = expected.counts()
    assert (before["board"], before["emulated"], before["model"]) == ("mps2-an386", True, True)
    assert (before["image_id"], before["learns"], before["problem"]) == (Image(image).id, True, None)
    assert (before["protocol"], before["delta_bytes"]) == (lib.EHMN_WIRE_VERSION, len(delta))
    assert before["arena_bytes"] == Image(image).arena_bytes(plastic=True) <= before["arena_room"]
    assert (before["tokens"], before["learned"]) == (50, 49)
    assert (before["stored"]["sequence"], before["stored"]["provisional"], before["stored"]["trials"]) == (1, True, 0)
    assert before["instructions_per_token"] > 1e4 and before["ms_per_token"] is None
    assert 0 < before["learning_share"] < 0.5
    assert (after["tokens"], after["learned"], after["writes"]) == (counts.steps, counts.learned, counts.writes)
    assert after["writes_per_learned_token"] == counts.writes_per_learned_token and after["rollbacks"] == 0
    assert {"time"} == {key for key in before if listed["looks"][2].get(key) != before[key] and key != "port"}
    assert [each["change"] and each["change"]["tokens"] for each in listed["looks"]] == [None, 0, 0]
    rows = dict(line.split(maxsplit=1) for line in shown.splitlines())
    assert list(rows) == ["board", "firmware", "model", "memory", "flash", "fed", "learned", "speed"]
    assert rows["board"] == f"mps2-an386 at {emulator.url}, emulated" and "257 tokens, learns" in rows["model"]
    assert rows["flash"] == f"state 1, provisional, {len(delta):,} bytes" and rows["fed"].startswith("50 tokens")
    assert f"{before['instructions_per_token']:,.0f} instructions per token (emulated)" in rows["speed"]


def test_a_look_asks_for_nothing_but_what_leaves_all_as_it_is(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[int] = []
    encode = wire.encode

    def noted(command: int, sequence: int, payload: bytes = b"") -> bytes:
        sent.append(command)
        return encode(command, sequence, payload)

    monkeypatch.setattr(wire, "encode", noted)
    look(server.url, 5.0)
    assert sent == [lib.EHMN_WIRE_IDENTIFY, lib.EHMN_WIRE_COUNTS, lib.EHMN_WIRE_STATE]


def test_lines_say_what_has_changed(server: Server, run_cli: Cli, tmp_path: Path) -> None:
    first = run_cli("monitor", "--port", server.url).out
    assert "0 tokens since it started" in first and "nothing is stored" in first and "speed" not in first
    running = process("monitor", "--port", server.url, "--every", "0.3", cwd=tmp_path)
    assert running.stdout is not None
    lines = iter(running.stdout.readline, "")
    assert [next(line for line in lines if line == f"{COLUMNS}\n")]
    learn(server.url, TOKENS)
    with closing(DeviceRuntime(server.url)) as device:
        device.store()
    changed = next(line for line in lines if " 119 " in line).split()
    stored = "" if "state" in changed else next(line for line in lines if "state" in line)
    assert changed[1:3] == ["120", "119"] and float(changed[3]) > 0
    assert "state 1, provisional" in stored + " ".join(changed)
    running.send_signal(signal.SIGINT)
    done = finish(running)
    assert (done.code, "interrupted" in done.err) == (130, True), done
    shown = run_cli("monitor", "--port", server.url).out
    assert "linux at" in shown and "emulated" not in shown and "ms per token (measured, by its own timer)" in shown


def test_it_ends_with_its_reader(server: Server, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    running = process("monitor", "--port", server.url, "--every", "0.1", cwd=tmp_path, stdout=writing)
    os.close(writing)
    assert os.read(reading, 5) == b"board"
    os.close(reading)
    done = finish(running)
    assert (done.code, done.err) == (0, "")


def test_a_board_without_a_model_or_without_flash_is_described_as_well(run_cli: Cli, tmp_path: Path) -> None:
    def board(frame: wire.Frame) -> bytes:
        raw = wire.unpack("ehmn_wire_identity", identity(frame)[16:-4])
        raw.image_status, raw.arena_room = lib.EHMN_E_MAGIC, 1000
        answers = {lib.EHMN_WIRE_IDENTIFY: bytes(wire.ffi.buffer(raw)), lib.EHMN_WIRE_STATE: bytes(56)}
        return wire.encode(frame.command | lib.EHMN_WIRE_ANSWER, frame.sequence, answers[frame.command])

    with serving(board) as (url, _):
        result = run_cli("monitor", "--port", url, "--json").result
    assert (result["model"], result["image_id"], result["tokens"], result["arena_room"]) == (False, None, None, 1000)
    assert "holds no image; flash one" in result["problem"]
    with serving(board) as (url, _):
        assert "model     none: a board in a test holds no image" in run_cli("monitor", "--port", url).out
    with Server(image_file(tmp_path, tiny_image())) as without:
        assert run_cli("monitor", "--port", without.url, "--json").result["stored"] is None
        assert "none for states" in run_cli("monitor", "--port", without.url).out


WRONG = (
    "",
    "--port a --host b",
    "--port a --count 2",
    "--port a --every 1 --json",
    "--port a --every 0",
    "--port nonsense://x",
    "--port nonsense://x --every 1",
)


@pytest.mark.parametrize("words", WRONG)
def test_what_does_not_go_together_is_a_usage_error(words: str, run_cli: Cli) -> None:
    assert run_cli("monitor", *words.split()).code == 2


# ---- Lost, taken, strange


def test_a_device_that_is_lost_is_waited_for_and_taken_up_again(tmp_path: Path, impatient: None) -> None:
    image, path, noted = image_file(tmp_path, tiny_image()), tmp_path / "socket", list[str]()
    with ExitStack() as running:

        def start() -> Server:
            path.unlink(missing_ok=True)
            return running.enter_context(Server(image, socket=path))

        def note(text: str) -> None:
            noted.append(text)
            if len(noted) in (1, 3):
                start()

        looks = watch(partial(look, f"unix://{path}", 0.4), 0.05, None, note)
        first = next(looks)  # the device comes only now
        assert "is there" in noted[1] and first.counts is not None and first.counts.steps == 0
        learn(f"unix://{path}", TOKENS)
        second = next(looks)
        assert (Change.between(first, second).tokens, Change.between(first, second).restarted) == (120, False)
        running.close()  # unplugged, and plugged in again
        third = next(looks)
        change = Change.between(second, third)
        assert (change.restarted, change.tokens, change.learned) == (True, 0, 0)
        assert "trying again every 0.05 s" in noted[2] and noted[3:] == ["linux is back"]


def test_one_that_stays_away_is_said_once_and_is_the_error(run_cli: Cli, tmp_path: Path) -> None:
    words = ("monitor", "--port", f"unix://{tmp_path}/nothing", "--every", "0.1", "--count", "3")
    done = run_cli(*words)
    assert (done.code, done.out, done.err.count("trying again")) == (7, "", 1)
    assert run_cli(*words, "--json").envelope["error"]["code"] == 7


def test_looks_that_were_missed_are_counted(server: Server, run_cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = Link.stored
    left = iter([False, True, False])

    def at_times(self: Link) -> object:
        if next(left):
            raise LinkLostError("unplugged")
        return stored(self)

    monkeypatch.setattr(Link, "stored", at_times)
    result = run_cli("monitor", "--port", server.url, "--every", "0.1", "--count", "3", "--json").result
    assert (len(result["looks"]), result["missed"]) == (2, 1)


def test_a_device_that_another_program_has_is_waited_for(server: Server, impatient: None) -> None:
    """What it computes meanwhile is what it would compute without us."""
    expected, busy, noted = CoreModel(Image(tiny_image())), DeviceRuntime(server.url), list[str]()

    def note(text: str) -> None:
        noted.append(text)
        if "trying again" in text:
            assert np.array_equal(busy.process(TOKENS, learn=True), expected.process(TOKENS, learn=True))
            assert busy.save() == expected.save()
            busy.close()

    [now] = watch(partial(look, server.url, 0.3), 0.05, 2, note)
    assert now.counts is not None and now.counts.steps == len(TOKENS)
    assert len(noted) == 2 and "no other program" in noted[0]


def after_identity(answer: bytes | None) -> Board:
    return lambda frame: identity(frame) if frame.command == lib.EHMN_WIRE_IDENTIFY else answer


PEERS: dict[str, tuple[Board, int]] = {
    **{name: (board, 7) for name, (board, _) in STRANGERS.items()},
    "hangs after its identity": (after_identity(b""), 12),
    "babbles after its identity": (after_identity(b"\xd5EHM" * 99), 12),
    "leaves after its identity": (after_identity(None), 12),
}


@pytest.mark.parametrize("name", PEERS)
def test_a_strange_peer_has_its_exit_code(name: str, run_cli: Cli, impatient: None) -> None:
    board, code = PEERS[name]
    with serving(board) as (url, _):
        done = run_cli("monitor", "--port", url, *SOON, "--json")
    assert (done.code, done.envelope["error"]["code"]) == (code, code)


@pytest.mark.parametrize("seed", range(6))
def test_whatever_a_board_says_is_an_error_or_a_plain_text(seed: int, run_cli: Cli) -> None:
    for form in ([], ["--json"]):
        with serving(hostile(seed)) as (url, requests):
            done = run_cli("monitor", "--port", url, *form)
        assert (done.code in EXIT_CODES and done.code != 1) or "refused" in done.err + done.out, done
        assert (done.out + done.err).replace("\n", "").isprintable() and len(requests) <= 3
        if form:
            json.loads(done.out)


def test_a_port_is_free_between_looks(server: Server) -> None:
    looks = watch(partial(look, server.url, 5.0), 0.05, 3)
    for _ in range(3):
        next(looks)
        Link(server.url, timeout_s=1.0).close()
