"""What boards keep in their own flash: stored, tried, confirmed, rolled back, wiped; through power cuts."""

import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgehmn.core import CoreModel, Image, lib
from edgehmn.device import wire
from edgehmn.device.boards import boards
from edgehmn.device.emulator import QEMU, Emulator
from edgehmn.device.firmware import TOOLS
from edgehmn.device.server import Server
from edgehmn.errors import CannotWriteError, DeviceError, FlashError, InvalidFileError, LinkLostError, UsageError
from edgehmn.runtime.device import DeviceRuntime
from tests.command_line import Result
from tests.models import random_tokens, repetitive_tokens, tiny_image

NETDUINO = "netduinoplus2"
absent = [tool for tool in (QEMU, *TOOLS) if shutil.which(tool) is None]
needs_tools = pytest.mark.skipif(bool(absent), reason=f"not run here: {', '.join(absent)} missing")


def image_file(folder: Path, image: bytes) -> Path:
    path = folder / f"image{len(image)}"
    path.write_bytes(image)
    return path


def test_test_confirm_revert(tmp_path: Path) -> None:
    with Server(image_file(tmp_path, tiny_image()), state=tmp_path / "state") as server:
        board = DeviceRuntime(server.url)
        nothing = board.save()
        assert (board.stored().sequence, board.stored().provisional, board.stored().applied) == (0, False, True)
        for settle in (board.confirm, board.roll_back):
            with pytest.raises(UsageError, match="store one first"):
                settle()
        board.process(random_tokens(30), learn=True)
        first = board.save()
        assert (board.store().sequence, board.stored().provisional) == (1, True)
        with pytest.raises(UsageError, match="confirm it or roll back"):
            board.store()
        assert board.roll_back().sequence == 0
        assert board.save() == nothing
        board.load(first)
        board.store()
        assert board.confirm().confirmed == 2
        board.process(random_tokens(30, seed=3), learn=True)
        assert board.store().provisional
        board.roll_back()
        assert board.save() == first
        for start in range(1, lib.EHMN_STATE_TRIALS + 2):
            if start == 1:
                board.process(random_tokens(30, seed=4), learn=True)
                second = board.save()
                board.store()
            board._link.restart()
            kept = start <= lib.EHMN_STATE_TRIALS
            assert board.save() == (second if kept else first)
            assert board.stored().trials == (start if kept else 0)
        assert not board.stored().provisional
        board.close()


def test_a_wipe_leaves_nothing_that_was_learned(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with Server(image_file(tmp_path, tiny_image()), state=state) as server:
        board = DeviceRuntime(server.url)
        nothing = board.save()
        for seed in (1, 2):
            board.process(random_tokens(30, seed=seed), learn=True)
            board.store()
            board.confirm()
        assert board.wipe().sequence == 0
        assert set(state.read_bytes()) == {0xFF}
        assert set(board._read_staging(board.identity.staging_room)) == {0}
        assert board.save() == nothing
        board._link.restart()
        assert board.save() == nothing
        board.close()


def test_the_state_of_another_image_is_kept_reported_and_never_applied(tmp_path: Path) -> None:
    state, mine, other = tmp_path / "state", tiny_image(), tiny_image(seed=1)
    with Server(image_file(tmp_path, mine), state=state) as server:
        board = DeviceRuntime(server.url)
        board.process(random_tokens(30), learn=True)
        learned = board.save()
        board.store()
        board.close()
    (tmp_path / "other").write_bytes(other)
    with Server(tmp_path / "other", state=state) as server:
        board = DeviceRuntime(server.url)
        said = board.stored()
        assert (said.applied, said.image_id, said.status) == (False, Image(mine).id, lib.EHMN_E_IMAGE_ID)
        assert board.save() == CoreModel(Image(other)).save()
        board.process(random_tokens(5), learn=True)
        with pytest.raises((UsageError, InvalidFileError)):
            board.store()
        board.close()
    with Server(image_file(tmp_path, mine), state=state) as server:
        board = DeviceRuntime(server.url)
        assert (board.save(), board.stored().applied) == (learned, True)
        board.confirm()
        board.close()
    with Server(tmp_path / "other", state=state) as server:
        board = DeviceRuntime(server.url)
        with pytest.raises(InvalidFileError, match="another image"):
            board.store()
        board.wipe()
        assert board.store().provisional
        board.close()


@needs_tools
@pytest.mark.parametrize("name", [name for name, board in boards().items() if board.machine and name != NETDUINO])
def test_an_emulated_board_keeps_its_state_through_a_power_cycle(name: str, tmp_path: Path) -> None:
    image, ids, flash = tiny_image(), repetitive_tokens(60), tmp_path / "flash"
    expected = CoreModel(Image(image))
    board = DeviceRuntime.emulated(image, name, flash=flash)
    try:
        board.process(ids[:30], learn=True)
        board.store()
        board._link.restart()
        assert (board.stored().trials, board.stored().provisional) == (1, True)
        board.confirm()
    finally:
        board.close()
    board = DeviceRuntime.emulated(image, name, flash=flash)
    try:
        expected.process(ids[:30], learn=True)
        expected.reset()
        assert board.save() == expected.save()
        assert np.array_equal(board.process(ids[30:], learn=True), expected.process(ids[30:], learn=True))
        assert board.save() == expected.save()
    finally:
        board.close()


@needs_tools
def test_an_emulated_board_survives_power_cuts_while_it_stores(tmp_path: Path) -> None:
    image, rng, flash = tiny_image(), random.Random(2), tmp_path / "flash"
    kept = None
    for round_ in range(6):
        with Emulator(image, flash=flash) as emulator:
            board = DeviceRuntime(emulator.url, timeout_s=3.0)
            found = board.save()
            assert kept is None or found in kept
            if board.stored().provisional:
                board.confirm()
            board.process(random_tokens(10, seed=round_), learn=True)
            kept = (found, board.save())
            link = board._link
            link._line.write(wire.encode(lib.EHMN_WIRE_STORE, (link._sequence + 1) % 2**32))
            time.sleep(rng.uniform(0, 0.02))
            emulator._process.kill()
            emulator._process.wait()
            with pytest.raises(LinkLostError):
                board.process(random_tokens(1), learn=False)
            board.close()


@needs_tools
def test_netduinoplus2_says_that_its_emulated_flash_takes_nothing(tmp_path: Path) -> None:
    board = DeviceRuntime.emulated(tiny_image(), NETDUINO)
    try:
        board.process(random_tokens(20), learn=True)
        learned = board.save()
        with pytest.raises(FlashError):
            board.store()
        assert (board.save(), board.stored().sequence) == (learned, 0)
    finally:
        board.close()
    with pytest.raises(UsageError, match="cannot write its flash"):
        Emulator(None, NETDUINO, flash=tmp_path / "flash")
    with pytest.raises(UsageError, match="comma"):
        Emulator(None, flash=tmp_path / "a,b")
    (tmp_path / "notes").write_text("mine", "utf-8")
    for other in (tmp_path, tmp_path / "notes"):
        with pytest.raises(DeviceError, match="no flash of an emulated board"):
            Emulator(None, flash=other)
    with pytest.raises(CannotWriteError):
        Emulator(None, flash=tmp_path / "notes" / "flash")


def test_the_commands_about_stored_state(run_cli: Callable[..., Result], tmp_path: Path) -> None:
    with Server(image_file(tmp_path, tiny_image()), state=tmp_path / "state") as server:

        def state(action: str) -> Result:
            return run_cli("state", action, "--port", server.url, "--json")

        assert state("stored").result["sequence"] == 0
        assert state("store").result["provisional"]
        assert state("store").code == 2
        assert not state("confirm").result["provisional"]
        assert state("rollback").code == 2
        assert state("store").result["sequence"] == 2
        assert state("rollback").result["sequence"] == 1
        assert "state 1, confirmed" in run_cli("state", "stored", "--port", server.url).out
        assert state("wipe").result["sequence"] == 0
    assert run_cli("state", "stored", "--port", server.url).code == 7
