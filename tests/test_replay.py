"""Replays: what was done is done again to the bit, on any runtime; what is no replay is refused."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgehmn.core import CoreModel, Image
from edgehmn.device.emulator import QEMU
from edgehmn.device.firmware import TOOLS
from edgehmn.device.server import Server
from edgehmn.errors import InvalidFileError
from edgehmn.replay import CALL, HEADER, MAGIC, VERSION, Recorder, Replay, again
from edgehmn.runtime.device import DeviceRuntime
from edgehmn.sealed import seal
from tests.command_line import Result
from tests.models import random_tokens, repetitive_tokens, tiny_image

Cli = Callable[..., Result]
absent = [tool for tool in (QEMU, *TOOLS) if shutil.which(tool) is None]


def recorded(image: bytes, seed: int = 3) -> tuple[Replay, bytes]:
    """Everything that a session may do, and the delta that it left."""
    model = CoreModel(Image(image))
    model.process(random_tokens(9), learn=True)
    recorder = Recorder(model, seed)
    recorder.process(repetitive_tokens(60), learn=True)
    recorder.generate(12, temperature=0.7)
    state = recorder.save()
    recorder.reset()
    recorder.process(random_tokens(20), learn=False, follow=True)
    recorder.forget(9)
    recorder.process(random_tokens(5), learn=True)
    recorder.load(state)
    recorder.process(random_tokens(30, seed=5), learn=True)
    recorder.process(random_tokens(3), learn=False)
    return recorder.finish(), recorder.save()


def test_a_session_is_done_again_to_the_bit_on_host_and_device(tmp_path: Path) -> None:
    image = tiny_image()
    replay, delta = recorded(image)
    outcome = again(replay, CoreModel(Image(image)))
    assert (outcome.same_delta, outcome.same_results, outcome.delta) == (True, True, delta)
    (tmp_path / "image").write_bytes(image)
    with Server(tmp_path / "image") as server:
        board = DeviceRuntime(server.url)
        board.process(random_tokens(40, seed=8), learn=True)
        outcome = again(replay, board)
        board.close()
    assert (outcome.same_delta, outcome.same_results, outcome.delta) == (True, True, delta)


def test_a_difference_is_noticed() -> None:
    image = tiny_image()
    replay, _ = recorded(image)
    other = Replay(replay.image_id, replay.seed + 1, replay.calls, replay.delta_sha256, replay.results_sha256)
    outcome = again(other, CoreModel(Image(image)))
    assert not outcome.same_delta and not outcome.same_results
    with pytest.raises(InvalidFileError, match="recorded with another image"):
        again(replay, CoreModel(Image(tiny_image(seed=1))))


def test_the_file_survives_the_round_trip_and_nothing_damaged_does(tmp_path: Path) -> None:
    replay, _ = recorded(tiny_image())
    replay.write(tmp_path / "a.ehmr")
    assert Replay.read(tmp_path / "a.ehmr") == replay
    good = replay.to_bytes()
    assert Replay.from_bytes(good, "x").counts() == {"score": 3, "learn": 95, "follow": 20, "generate": 12}
    rng = random.Random(1)
    damaged = [good[:n] for n in range(0, len(good), 7)] + [good + b"\0"]
    for _ in range(200):
        bad = bytearray(good)
        bad[rng.randrange(len(bad))] ^= 1 << rng.randrange(8)
        damaged.append(bytes(bad))
    for bad in damaged:
        with pytest.raises(InvalidFileError):
            Replay.from_bytes(bytes(bad), "x")


def resealed(replay: Replay, calls: bytes, n: int) -> bytes:
    """A file with a right checksum around any calls."""
    hashes = [bytes.fromhex(h) for h in (replay.delta_sha256, replay.results_sha256)]
    return seal(MAGIC, VERSION, HEADER.pack(bytes.fromhex(replay.image_id), 0, n, *hashes) + calls)


def test_hostile_calls_with_a_right_checksum_are_refused() -> None:
    replay, _ = recorded(tiny_image())
    hostile = [
        (CALL.pack(1, 0, 1 << 60), 1),
        (CALL.pack(7, 0, 0), 1),
        (CALL.pack(1, 0, 3) + bytes(8), 1),
        (CALL.pack(4, 0, 8) + bytes(8), 1),
        (CALL.pack(5, 0, 16) + bytes(16), 1),
        (CALL.pack(6, 0, 0), 1),
        (CALL.pack(4, 0, 0), 2),
        (CALL.pack(4, 0, 0)[:9], 1),
    ]
    for calls, n in hostile:
        with pytest.raises(InvalidFileError):
            Replay.from_bytes(resealed(replay, calls, n), "x")
    assert Replay.from_bytes(resealed(replay, CALL.pack(4, 0, 0), 1), "x").calls[0].kind == 4


def test_record_run_and_inspect(run_cli: Cli, tiny_export: Path, short_text: Path, tmp_path: Path) -> None:
    file = tmp_path / "session.ehmr"
    done = run_cli("replay", "record", tiny_export, short_text, "-o", file, "-n", "5", "--seed", "7", "--json")
    assert done.result["tokens"]["generate"] == 5
    again_ = run_cli("replay", "run", tiny_export, file, "--save-state", tmp_path / "s.ehmd", "--json")
    assert again_.result["same"] == {"delta": True, "results": True}
    assert again_.result["delta_sha256"] == done.result["delta_sha256"]
    assert (tmp_path / "s.ehmd").is_file()
    onnx = run_cli("replay", "run", tiny_export, file, "--load-state", "x")
    assert onnx.code == 2
    facts = run_cli("inspect", file, "--json").result
    assert (facts["kind"], facts["config"]["seed"]) == ("replay", 7)
    loaded = run_cli("replay", "record", tiny_export, short_text, "-o", file, "--load-state", tmp_path / "s.ehmd")
    assert (loaded.code, run_cli("replay", "run", tiny_export, file).code) == (0, 0)
    bad = bytearray(file.read_bytes())
    bad[-1] ^= 1
    file.write_bytes(bad)
    assert run_cli("replay", "run", tiny_export, file).code == 4
    assert run_cli("inspect", file).code == 4


@pytest.mark.skipif(bool(absent), reason=f"not run here: {', '.join(absent)} missing")
def test_a_replay_of_the_host_on_an_emulated_board(
    run_cli: Cli, tiny_export: Path, short_text: Path, tmp_path: Path
) -> None:
    file = tmp_path / "session.ehmr"
    assert run_cli("replay", "record", tiny_export, short_text, "-o", file).code == 0
    done = run_cli("replay", "run", tiny_export, file, "--runtime", "emulator", "--json")
    assert done.result["same"] == {"delta": True, "results": True}


def test_an_interrupted_session_ends_in_the_same_delta() -> None:
    """Saved at any token and restored, a session goes on as one that was reset there."""
    image, ids = tiny_image(), repetitive_tokens(40)
    for cut in range(0, 40, 3):
        whole, first, second = (CoreModel(Image(image)) for _ in range(3))
        whole.process(ids[:cut], learn=True)
        whole.reset()
        whole.process(ids[cut:], learn=True)
        first.process(ids[:cut], learn=True)
        second.load(first.save())
        second.process(ids[cut:], learn=True)
        assert np.array_equal(np.frombuffer(second.save(), np.uint8), np.frombuffer(whole.save(), np.uint8))
