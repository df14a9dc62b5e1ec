"""A personalisation that is interrupted anywhere goes on, and ends in the bits of one that was not."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edgehmn import learn
from edgehmn.banks import open_core
from edgehmn.core import CoreModel
from edgehmn.device.server import Server
from edgehmn.errors import CannotWriteError, InvalidFileError, LinkLostError
from edgehmn.exported import Export
from edgehmn.files import sha256
from edgehmn.learn import Personalisation, personalise
from edgehmn.resume import Keeper, Reached
from edgehmn.runtime.device import DeviceRuntime
from edgehmn.runtime.protocol import Counts
from tests.command_line import Result, finish, process
from tests.models import BUSY, SMALL, opened, random_tokens, repetitive_tokens, tiny_image

Cli = Callable[..., Result]
Ids = npt.NDArray[np.integer]
IDS = np.concatenate([repetitive_tokens(300, vocab_size=SMALL.vocab_size), random_tokens(300, SMALL.vocab_size)])


@pytest.fixture
def short_sections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learn, "SECTION", 50)
    monkeypatch.setattr(learn, "CONTEXT", 7)


class _Cut:
    """A runtime whose link is lost after so many tokens, in the middle of a request. What it learned stays in it."""

    def __init__(self, model: CoreModel, tokens: int) -> None:
        self._model, self._left, self.image_id = model, tokens, model.image_id

    def process(self, ids: Ids, *, learn: bool, follow: bool = False) -> npt.NDArray[np.uint32]:
        done, self._left = ids[: self._left], max(0, self._left - len(ids))
        scores = self._model.process(done, learn=learn, follow=follow)
        if len(done) < len(ids):
            raise LinkLostError("the cable was pulled")
        return scores

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


def same(a: Personalisation, b: Personalisation) -> None:
    assert a == b and a.delta == b.delta and a.learning == b.learning


@pytest.mark.usefixtures("short_sections")
@pytest.mark.parametrize("banks", [1, 3])
def test_cut_at_random_tokens_it_ends_in_the_same_bits(banks: int, tmp_path: Path) -> None:
    image = opened(tiny_image(SMALL, BUSY))
    options: dict[str, Any] = {"banks": banks, "gate": image}
    whole = personalise(open_core(image, 0, banks), IDS, **options)
    kept = personalise(open_core(image, 0, banks), IDS, keeper=Keeper(tmp_path / "whole"), **options)
    same(kept, whole)
    rng, cuts = np.random.default_rng(banks), 0
    model: CoreModel = open_core(image, 0, banks)
    for attempt in range(100):
        budget = int(rng.integers(1, 420))
        monkey = _Cut(model, budget)
        try:
            done = personalise(monkey, IDS, keeper=Keeper(tmp_path / "cut"), **options)
            break
        except LinkLostError:
            cuts += 1
            if attempt % 3 == 2:  # it lost its power as well
                model = open_core(image, 0, banks)
    assert cuts > 3
    same(done, whole)
    for kept_in in ("whole", "cut"):
        reached = Keeper(tmp_path / kept_in).read()
        assert reached is not None and reached.learning == whole.learning, "it is removed by who keeps the state"


@pytest.mark.usefixtures("short_sections")
def test_a_board_that_is_cut_ends_like_the_host(tmp_path: Path) -> None:
    data = tiny_image(SMALL, BUSY)
    image, file = opened(data), tmp_path / "model.ehmn"
    file.write_bytes(data)
    whole = personalise(CoreModel(image), IDS, gate=image)
    cuts = 0
    with Server(file) as server:
        for budget in (250, 333, 40, 190, 1000, 10**6):
            board = DeviceRuntime(server.url, timeout_s=20.0)
            try:
                done = personalise(_Cut(board, budget), IDS, gate=image, keeper=Keeper(tmp_path / "x"))
                break
            except LinkLostError:
                cuts += 1
            finally:
                board.close()
    assert cuts >= 3
    same(done, whole)


def test_sections_change_nothing_of_a_short_text_and_little_of_a_long_one(short_sections: None) -> None:
    image = opened(tiny_image(SMALL, BUSY))

    def in_one_go(n: int) -> CoreModel:
        model = CoreModel(image)
        for ids, learn_ in ((IDS[n : 2 * n], False), (IDS[:n], True)):  # what was read leaves its trace in the delta
            model.process(ids, learn=learn_, follow=not learn_)
            model.reset()
        return model

    assert personalise(CoreModel(image), IDS[:100]).delta == in_one_go(50).save()
    parts = personalise(CoreModel(image), IDS)
    assert parts.delta != in_one_go(300).save() and parts.learning.learned == in_one_go(300).counts().learned == 299


def test_progress_is_only_gone_on_with_by_the_same_run(tmp_path: Path) -> None:
    reached = Reached(
        np.arange(3, dtype=np.uint32), np.arange(2, dtype=np.uint32), b"abc", b"de", Counts(1, 2, 3, 4, 5)
    )
    keeper = Keeper(tmp_path / "mine.ehmd", b"image", b"text")
    assert keeper.read() is None
    keeper.write(reached)
    again = keeper.read()
    assert again is not None and again.learning == reached.learning
    assert (again.start, again.delta, again.before.tolist()) == (b"abc", b"de", [0, 1, 2])
    for other in ((b"image", b"texts"), (b"imag", b"etext"), (b"image",)):
        assert Keeper(tmp_path / "mine.ehmd", *other).read() is None
    data = keeper.path.read_bytes()
    for damaged in (b"", data[:50], data[:-1], b"\xff" * 8 + data[8:], data.replace(b"counts", b"county")):
        keeper.path.write_bytes(damaged)
        with pytest.raises(InvalidFileError, match="damaged progress"):
            keeper.read()
    with pytest.raises(CannotWriteError):
        Keeper(Path("/proc/mine"), b"").write(reached)


# ---- The command


@pytest.fixture
def long_text(tmp_path: Path) -> Path:
    path = tmp_path / "long.txt"
    letters = np.random.default_rng(3).choice(list("abcdefghijklmnopqrstuvwxyz ,.\n"), 6000)
    path.write_text("".join(letters), "utf-8")
    return path


def test_the_command_goes_on_after_a_lost_link_on_another_runtime(
    run_cli: Cli, tiny_export: Path, long_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path / "mine.ehmd"
    whole = run_cli("personalise", tiny_export, long_text, "--json").result
    command = ("personalise", tiny_export, long_text, "--save-state", state)
    with Server(tiny_export / "model.ehmn") as server:
        process_ = DeviceRuntime.process
        left = [5000]  # tokens until the server is killed: 3000 of the second half, some of the first

        def counted(self: DeviceRuntime, ids: Ids, **mode: bool) -> npt.NDArray[np.uint32]:
            left[0] -= len(ids)
            if left[0] < 0:
                server.close()
            return process_(self, ids, **mode)  # type: ignore[arg-type]

        monkeypatch.setattr(DeviceRuntime, "process", counted)
        done = run_cli(*command, "--runtime", "device", "--port", server.url)
    assert (done.code, "give the same command again" in done.err) == (12, True), done
    assert Path(f"{state}.part").is_file() and not state.exists()
    dry = run_cli(*command, "--dry-run", "--json").result
    assert 0 < dry["learned"] < dry["tokens"] // 2 == dry["learned"] + dry["would_learn"]
    done = run_cli(*command)
    assert (done.code, "going on" in done.err) == (0, True)
    assert run_cli("state", "save", "copy", "--from", state).code == 0
    assert sha256(state.read_bytes()) == whole["delta_sha256"]
    assert not Path(f"{state}.part").exists()


def test_what_could_not_be_saved_is_not_lost(
    run_cli: Cli, tiny_export: Path, long_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full when all is learned."""

    def full(name: str, state: bytes) -> Path:
        raise CannotWriteError(f"{name}: cannot be written")

    command = ("personalise", tiny_export, long_text, "--save-state", tmp_path / "mine.ehmd", "--json")
    whole = run_cli("personalise", tiny_export, long_text, "--json").result
    monkeypatch.setattr("edgehmn.states.save", full)
    done = run_cli(*command)
    assert done.code == 13 and "give the same command again to go on" in done.out, done
    monkeypatch.undo()
    assert run_cli(*command, "--dry-run").result["would_learn"] == 0
    assert run_cli(*command).result == whole | {"saved": str(tmp_path / "mine.ehmd")}
    assert not list(tmp_path.glob("*.part"))


def test_two_that_learn_for_one_state_do_not_replace_each_other(
    run_cli: Cli, tiny_export: Path, short_text: Path, tmp_path: Path
) -> None:
    (tmp_path / "link.ehmd").symlink_to("mine.ehmd")
    words = ("personalise", tiny_export, "-", "--save-state", tmp_path / "mine.ehmd")
    first = process(*words, cwd=tmp_path, stdin=subprocess.PIPE)
    assert first.stdin is not None and first.stderr is not None
    first.stdin.write("a line\n")
    first.stdin.flush()
    assert "keys saved" in first.stderr.readline()
    for text in (short_text, "-"):
        done = run_cli("personalise", tiny_export, text, "--save-state", tmp_path / "link.ehmd")
        assert (done.code, "another edgehmn is learning for it" in done.err) == (13, True), done
    assert run_cli("personalise", tiny_export, short_text, "--save-state", tmp_path / "other.ehmd").code == 0
    assert first.communicate(timeout=300)[0].startswith("line 1") and first.returncode == 0
    assert run_cli("personalise", tiny_export, short_text, "--save-state", tmp_path / "link.ehmd").code == 0
    assert (tmp_path / "link.ehmd").is_symlink()


def test_ctrl_c_keeps_what_was_reached(tiny_export: Path, tmp_path: Path) -> None:
    text, state = tmp_path / "long.txt", tmp_path / "mine.ehmd"
    letters = list("abcdefghijklmnopqrstuvwxyz ,.\n")  # of fewer, rows of so small a model reach their limits
    text.write_text("".join(np.random.default_rng(4).choice(letters, 16_000)), "utf-8")
    part = Path(f"{state}.part")
    command = ("personalise", tiny_export, text, "--save-state", state, "--json")
    running = process(*command, cwd=tmp_path)
    deadline = time.monotonic() + 60
    while not part.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(running.pid, signal.SIGINT)
    stopped = finish(running)
    assert (stopped.code, part.is_file(), state.exists()) == (130, True, False), stopped
    other = tmp_path / "other.txt"
    other.write_text("another text, " * 20, "utf-8")
    said = finish(process("personalise", tiny_export, other, "--save-state", state, "--dry-run", cwd=tmp_path)).err
    assert "progress of another text" in said
    result = finish(process(*command, cwd=tmp_path)).result
    assert result == finish(process("personalise", tiny_export, text, "--save-state", tmp_path / "b.ehmd", "--json",
                                    cwd=tmp_path)).result | {"saved": str(state)}  # fmt: skip


def test_a_dry_run_opens_all_and_learns_nothing(
    run_cli: Cli, tiny_export: Path, short_text: Path, tmp_path: Path
) -> None:
    state = tmp_path / "mine.ehmd"
    command = ("personalise", tiny_export, short_text, "--dry-run", "--save-state", state)
    n = len(Export.open(tiny_export).encode(short_text.read_text("utf-8")))
    with Server(tiny_export / "model.ehmn") as server:
        where = ("--runtime", "device", "--port", server.url, "--timeout", "5")
        result = run_cli(*command, *where, "--json").result
        assert result == {"tokens": n, "would_learn": n // 2, "would_score": 2 * (n - n // 2), "learned": 0}
        with closing(DeviceRuntime(server.url)) as board:
            assert board.save() == CoreModel(Export.open(tiny_export).image).save()
    assert not list(tmp_path.iterdir()), "nothing is written"
    assert run_cli(*command, *where).code == 7, "the board is gone"
    assert f"the state would go to {state}" in run_cli(*command).out
    assert run_cli("personalise", tiny_export, "-", "--dry-run").code == 2
    assert run_cli(*command, "--timeout", "0").code == 2
