"""Flashing by the real pyocd: it finds a probe, brings its flash algorithm, which a model of the chip runs, and the
firmware that then stands in that flash proves what it computes."""

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from edgehmn.core import CoreModel, Image
from edgehmn.device.boards import boards
from edgehmn.device.firmware import TOOLS, build_firmware
from edgehmn.device.flash.flashing import _verify, flash, programmer_for
from edgehmn.device.flash.parts import Part, parts_of
from edgehmn.device.flash.programmer import Place, find_program
from edgehmn.device.flash.pyocd import PyOcd
from edgehmn.errors import DependencyError, DeviceError, FlashError
from edgehmn.exported import Export
from edgehmn.runtime.device import DeviceRuntime
from tests.command_line import Result
from tests.models import random_tokens

chip = pytest.importorskip("tests.chips.chip", reason="not run here: unicorn is missing")
from tests.chips.nrf52840 import Nrf52840  # noqa: E402
from tests.debug_probe import BOARD, Probe  # noqa: E402

Cli = Callable[..., Result]
PYOCD = find_program("pyocd")
absent = [*([] if PYOCD else ["pyocd (pip install pyocd)"]), *(tool for tool in TOOLS if shutil.which(tool) is None)]
pytestmark = pytest.mark.skipif(bool(absent), reason=f"not run here: {', '.join(absent)} missing")
NUCLEO = "0836"  # the board id of another board, as its probe says it
PART = Part("image", 0x20000, bytes(range(256)) * 24 + b"the end")


@pytest.fixture
def listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let pyocd find probes, by a plug-in: name, address, and the id of the board that it is part of."""
    about = tmp_path / "plug-in" / "listed_probes-1.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: listed-probes\nVersion: 1\n")
    (about / "entry_points.txt").write_text("[pyocd.probe]\nlisted = pyocd_probes:ListedProbes\n")
    shutil.copy(Path(__file__).with_name("pyocd_probes.py"), about.parent)
    monkeypatch.setenv("PYTHONPATH", str(about.parent))

    def listed(*probes: tuple[str, str, str]) -> None:
        monkeypatch.setenv("LISTED_PROBES", " ".join("=".join(probe) for probe in probes))

    return listed


@pytest.fixture
def probe(request: pytest.FixtureRequest, listed: Callable[..., None]) -> Iterator[Probe]:
    """The one probe that is there, A1, and how it behaves."""
    probe = Probe(**getattr(request, "param", {}))
    listed(("A1", probe.address, ""))
    yield probe
    probe.close()


def behaving(**settings: object) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("probe", [settings], indirect=True, ids=[""])


def learned_before(export: Export) -> tuple[bytes, bytes]:
    """What a board has learned, and what stands for it in its flash."""
    board = Nrf52840(boards()[BOARD], build_firmware(BOARD).read_bytes(), export.image.bytes.tobytes())
    with chip.serving(board) as url:
        runtime = DeviceRuntime(url, timeout_s=60)
        runtime.process(random_tokens(20), learn=True)
        runtime.store()
        runtime.confirm()
        learned = runtime.save()
        runtime.close()
    board.keep_flash()
    at, room = board.state
    return learned, bytes(board.flash[at : at + room])


def test_a_board_is_written_keeps_what_it_learned_and_proves_that_it_runs(
    tiny_export: Path, listed: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export = Export.open(tiny_export)
    learned, kept = learned_before(export)
    temporary = tmp_path / "a (folder), é"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    monkeypatch.setattr("edgehmn.device.flash.flashing.ANSWER_S", 60.0)
    probe = Probe(kept=kept)
    listed(("A1", probe.address, "1102"), ("A12", "127.0.0.1:9", ""))
    with chip.serving(probe.board) as url:
        done = flash(export, BOARD, programmer_for(BOARD), port="A1", line=url)
        runtime = DeviceRuntime(url, timeout_s=60)
        assert runtime.save() == learned != CoreModel(Image(export.image.bytes.tobytes())).save()
        runtime.close()
    assert (done.place, done.verified, done.self_test, probe.starts) == ("A1", "read back", "ok", 1)
    parts = parts_of(boards()[BOARD], build_firmware(BOARD).read_bytes(), export.image.bytes.tobytes())
    expected = bytearray(b"\xff" * len(probe.flash))
    for at, data in ((probe.board.state[0], kept), *((part.address, part.data) for part in parts)):
        expected[at : at + len(data)] = data
    assert probe.flash == expected
    probe.close()


# ---- No board, several, or one of another kind


def test_no_probe_several_and_one_of_another_board(
    run_cli: Cli, tiny_export: Path, listed: Callable[..., None]
) -> None:
    arguments = ("flash", tiny_export, "--target", BOARD)
    listed(("OTHER", "127.0.0.1:9", NUCLEO))
    done = run_cli(*arguments)
    assert (done.code, "no board of this kind is connected" in done.err) == (7, True)
    listed(("OTHER", "127.0.0.1:9", NUCLEO), ("A1", "127.0.0.1:9", "1102"), ("A12", "127.0.0.1:9", ""))
    done = run_cli(*arguments)
    assert done.code == 7
    assert "A1  nRF52840-DK" in done.err and "A12  " in done.err and "OTHER" not in done.err


def test_probes_that_cannot_be_listed(listed: Callable[..., None]) -> None:
    listed(("a probe of one word",))
    with pytest.raises(DeviceError, match=r"cannot ask for probes: .*argument"):
        PyOcd("nrf52840").places(None)


def test_a_probe_that_has_gone(listed: Callable[..., None]) -> None:
    listed(("A1", "127.0.0.1:9", ""))
    with pytest.raises(FlashError, match="Connection refused"):
        PyOcd("nrf52840").write(Place("A1", ""), [PART])


def test_a_chip_that_pyocd_does_not_know(probe: Probe) -> None:
    with pytest.raises(DependencyError, match="pyocd pack install stm32f405rgtx"):
        PyOcd("stm32f405rgtx").write(Place("A1", ""), [PART])


def test_pyocd_has_the_names_that_boards_give_their_chips() -> None:
    def ask(what: str) -> list[dict[str, str]]:
        return json.loads(subprocess.check_output([str(PYOCD), "json", f"--{what}"]))[what]

    names = {board.tools["pyocd"] for board in boards().values() if "pyocd" in board.tools}
    built_in = {target["name"] for target in ask("targets")}
    assert {"nrf52840", "rp2350"} <= names & built_in
    assert names <= built_in | {board["target"] for board in ask("boards")}, "others come with a pack"


# ---- Boards and probes that fail


@behaving(conduct="garbage")
def test_a_flash_that_keeps_something_else(probe: Probe) -> None:
    tool, place = PyOcd("nrf52840"), Place("A1", "")
    tool.write(place, [PART])  # it reports success
    with pytest.raises(FlashError, match=f"1 of {len(PART.data):,} bytes differ"):
        _verify(tool, place, [PART])


@behaving(conduct="unplugged")
def test_a_probe_that_is_pulled_out_while_it_writes(probe: Probe) -> None:
    with pytest.raises(FlashError, match="pyocd ended with code 1") as caught:
        PyOcd("nrf52840").write(Place("A1", ""), [PART])
    assert caught.value.exit_code == 8 and probe.acted


def test_probes_that_are_silent_or_hang_up_while_they_write(listed: Callable[..., None]) -> None:
    """pyocd waits for ever for both: it is stopped."""
    for limit_s in (6.0, 60.0):  # a busy machine may not come to writing in the first
        probes = [Probe("hangs"), Probe("drops")]
        listed(*((probe.conduct, probe.address, "") for probe in probes))
        with ThreadPoolExecutor() as pool:
            errors = list(pool.map(stopped, ("hangs", "drops"), (limit_s, limit_s)))
        for probe in probes:
            probe.close()
        if all(probe.acted for probe in probes):
            break
    assert all(probe.acted for probe in probes)
    assert all(e.exit_code == 8 and f"did not end in {limit_s:g} s and was stopped" in str(e) for e in errors)


def stopped(name: str, limit_s: float) -> FlashError:
    with pytest.raises(FlashError) as caught:
        PyOcd("nrf52840", limit_s).write(Place(name, ""), [PART])
    return caught.value


@behaving(kept=b"what it has learned", locked=True)
def test_a_locked_chip_is_not_erased(probe: Probe) -> None:
    before, tool, place = probe.flash, PyOcd("nrf52840"), Place("A1", "")
    with pytest.raises(FlashError, match=r"is locked.*nothing was written") as caught:
        tool.write(place, [PART])
    assert probe.flash == before
    # It opens by what the message says, and not by less.
    words = str(caught.value).split("pyocd ", 1)[1].split(";")[0].split()
    subprocess.run([str(PYOCD), *words], check=True, capture_output=True)
    assert set(probe.flash) == {0xFF}
    tool.write(place, [PART])
    assert tool.read(place, PART) == PART.data
