"""The live loop: suggestions count, lines are learned, and a link that is lost costs nothing that was learned."""

import contextlib
import io
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from edgehmn import live as live_module
from edgehmn.core import CoreModel
from edgehmn.device.server import Server
from edgehmn.errors import DeviceError, LinkLostError
from edgehmn.exported import Export
from edgehmn.live import LiveSession
from edgehmn.runtime.device import DeviceRuntime
from edgehmn.runtime.protocol import Runtime
from tests.command_line import Result

Cli = Callable[..., Result]
LINES = ["the cat sat on the mat", "the dog sat on the cat", "", "öäü and the mat", "the cat sat on the mat"] * 5


@pytest.fixture(scope="module")
def export(reference_export: Path) -> Export:
    return Export.open(reference_export)


def on_host(export: Export) -> Callable[[], contextlib.AbstractContextManager[Runtime]]:
    return lambda: contextlib.closing(CoreModel(export.image))


def test_keystrokes_saved_rise_on_lines_that_come_again(export: Export) -> None:
    session = LiveSession(on_host(export), export.encode, export.decode)
    done = [session.line(text) for text in LINES if text]
    first, last = done[:4], done[-4:]
    assert [d.keys for d in first] == [len(text) + 1 for text in LINES[:5] if text]
    assert sum(d.saved for d in last) > sum(d.saved for d in first)
    assert sum(d.bits for d in last) < sum(d.bits for d in first)
    assert all(0 <= d.saved < d.keys for d in done)
    assert session.suggest("the cat sat on the") != ""
    assert session.close() != CoreModel(export.image).save()


class Flaky:
    """A board whose link is lost again and again."""

    def __init__(self, model: CoreModel, budget: list[int]) -> None:
        self._model, self._budget, self.image_id = model, budget, model.image_id

    def __getattr__(self, name: str) -> object:
        self._budget[0] -= 1
        if self._budget[0] < 0:
            self._budget[0] = 90
            raise LinkLostError("the cable was pulled")
        return getattr(self._model, name)


def test_lost_links_change_nothing_of_what_is_learned(export: Export, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_module, "PAUSE_S", 0.0)
    whole = LiveSession(on_host(export), export.encode, export.decode)
    expected = [whole.line(text) for text in LINES[:14] if text]
    opened, copies, budget = [0], list[bytes](), [40]

    @contextlib.contextmanager
    def flaky() -> Iterator[Runtime]:
        opened[0] += 1
        if opened[0] == 3:
            raise DeviceError("not there yet")
        yield Flaky(CoreModel(export.image), budget)  # type: ignore[misc]

    broken = LiveSession(flaky, export.encode, export.decode, keep=copies.append)
    assert [broken.line(text) for text in LINES[:14] if text] == expected
    assert opened[0] > 3
    assert broken.close() == whole.close() == copies[-1]


def test_a_board_that_stays_away_is_a_lost_link(export: Export, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_module, "PAUSE_S", 0.0)
    monkeypatch.setattr(live_module, "AGAIN_S", 0.05)
    session = LiveSession(lambda: contextlib.nullcontext(Flaky(CoreModel(export.image), [2])),  # type: ignore[arg-type]
                          export.encode, export.decode)  # fmt: skip
    session._open = lambda: (_ for _ in ()).throw(DeviceError("gone"))
    with pytest.raises(LinkLostError, match="cable"):
        for text in LINES:
            session.line(text)


def test_a_server_that_is_killed_and_started_again(export: Export, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_module, "PAUSE_S", 0.05)
    whole = LiveSession(on_host(export), export.encode, export.decode)
    servers = [Server(export.folder / "model.ehmn")]

    @contextlib.contextmanager
    def board() -> Iterator[Runtime]:
        if servers[-1]._process.poll() is not None:
            servers.append(Server(export.folder / "model.ehmn"))
        with contextlib.closing(DeviceRuntime(servers[-1].url, timeout_s=5.0)) as runtime:
            yield runtime

    session = LiveSession(board, export.encode, export.decode)
    for i, text in enumerate(LINES[:8]):
        if i in (3, 6):
            servers[-1].close()
        assert session.line(text) == whole.line(text)
    assert len(servers) == 3
    assert session.close() == whole.close()
    servers[-1].close()


def test_personalise_reads_standard_input(run_cli: Cli, reference_export: Path, tmp_path: Path,
                                          monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    def typed(*lines: str) -> None:
        monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(lines)))

    state = tmp_path / "live.ehmd"
    typed(*LINES)
    whole = run_cli("personalise", reference_export, "-", "--save-state", state, "--json").result
    saved = [part["keystrokes_saved_percent"] for part in whole["parts"]]
    assert whole["lines"] == 20 and saved[-1] > saved[0]
    assert state.is_file()
    typed(*LINES[:5])
    done = run_cli("personalise", reference_export, "-", "--load-state", state)
    assert (done.code, "keys saved" in done.err, "next:" in done.err) == (0, True, True)
    assert [row.partition(":")[0] for row in done.out.splitlines()] == ["line 1", "line 2", "lines 3 to 4"]
    typed()
    learned = state.read_bytes()
    assert run_cli("personalise", reference_export, "-", "--save-state", state).code == 2
    assert state.read_bytes() == learned, "where nothing was typed, nothing takes the place of what was learned"
    assert run_cli("personalise", reference_export, "-", "--save-state", tmp_path / "none.ehmd").code == 2
    assert not (tmp_path / "none.ehmd").exists()
    assert np.isfinite(saved).all()
