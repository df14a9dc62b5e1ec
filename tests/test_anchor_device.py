"""Profiles of boards that are measured through the protocol: over a line, and by ssh with edgehmn-device."""

import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from edgehmn.device.emulator import Emulator
from edgehmn.device.server import Server
from edgehmn.errors import DeviceError, UnsupportedError, UsageError
from edgehmn.estimate import estimate
from edgehmn.exported import Export
from edgehmn.measure import anchor, anchor_device
from edgehmn.runtime.device import DeviceRuntime
from edgehmn.targets.schema import load_target
from edgehmn.workload import workload_of
from tests.command_line import Result

Cli = Callable[..., Result]
needs_server = pytest.mark.skipif(
    not all(map(shutil.which, ("cmake", "ninja", "cc"))), reason="cmake, ninja or cc is missing"
)
needs_qemu = pytest.mark.skipif(shutil.which("qemu-system-arm") is None, reason="qemu-system-arm is missing")


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anchor_device, "SECONDS", 0.05)


@pytest.fixture(scope="module")
def image(tiny_export: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("image") / "model.ehmn"
    path.write_bytes(Export.open(tiny_export).image.bytes.tobytes())
    return path


@pytest.fixture
def server(image: Path) -> Iterator[Server]:
    with Server(image) as running:
        yield running


@needs_server
def test_a_board_on_a_line(server: Server, tiny_export: Path, tmp_path: Path, run_cli: Cli) -> None:
    """What the board says of its time is in the profile, and what it had learned is still there."""
    board = DeviceRuntime(server.url)
    board.process(Export.open(tiny_export).encode("a text to learn, and to learn again"), learn=True)
    learned = board.save()
    board.close()
    path = tmp_path / "mine.toml"
    arguments = ("profile", path, "--anchor", "--port", server.url, "--export", tiny_export)
    done = run_cli(*arguments, "--target", "host", "--json")
    assert done.code == 0, done
    target = load_target(str(path))
    assert target.measured is not None and "by its timer" in target.measured.source
    e = estimate(workload_of(tiny_export), target)
    assert e.tier == "anchored" and e.seconds_learned is not None and e.seconds_learned.value > e.seconds.value
    board = DeviceRuntime(server.url)
    assert board.save() == learned
    board.close()
    assert run_cli(*arguments).code == UsageError.exit_code, "whose memory and power?"
    assert run_cli(*arguments[:5], "--target", "host").code == UsageError.exit_code
    assert run_cli(*arguments, "--target", "jetson-nano-gpu").code == UsageError.exit_code


@needs_server
def test_the_time_of_a_board_is_in_its_profile(
    server: Server, tiny_export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A board that takes 7 ms for a token, and 2 more to learn it."""
    monkeypatch.setattr(anchor_device, "time_runtime", lambda *_: (7e-3, 2e-3))
    path = tmp_path / "mine.toml"
    anchor_device.anchor_board(server.url, tiny_export, path, "stm32h743")
    target = load_target(str(path))
    e = estimate(workload_of(tiny_export), target)
    assert e.seconds_learned is not None
    assert e.seconds_learned.value == pytest.approx(9e-3, rel=0.01), "adapters and memories are in both"
    assert 0 < e.seconds.value < 7e-3, "frozen, without them"
    assert e.memory.ram_have == max(m.bytes for m in load_target("stm32h743").memory_for("arena"))


@needs_server
def test_another_model_on_the_board(server: Server, tiny_export: Path, tmp_path: Path, run_cli: Cli) -> None:
    other = tmp_path / "other"
    shutil.copytree(tiny_export, other)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DeviceRuntime, "image_id", property(lambda _: "0" * 64, lambda *_: None), raising=False)
        arguments = ("--anchor", "--port", server.url, "--export", other, "--target", "host")
        anchored = run_cli("profile", tmp_path / "x.toml", *arguments)
        ran = run_cli("run", other, "a", "--runtime", "device", "--port", server.url)
    for done in (anchored, ran):
        assert done.code == DeviceError.exit_code and f"linux runs image {'0' * 16}, {other} is" in done.err, done


@needs_qemu
def test_an_emulated_board_has_no_seconds(tiny_export: Path, tmp_path: Path, run_cli: Cli) -> None:
    data = Export.open(tiny_export).image.bytes.tobytes()
    path = tmp_path / "x.toml"
    with Emulator(data) as board:
        arguments = ("--anchor", "--port", board.url, "--export", tiny_export, "--target", "stm32l4r5")
        done = run_cli("profile", path, *arguments)
    assert (done.code, "counts instructions" in done.err) == (UnsupportedError.exit_code, True) and not path.exists()
    done = run_cli("profile", path, "--anchor", "--port", "x", "--export", tiny_export, "--target", "corstone-300")
    assert (done.code, "is emulated" in done.err) == (UnsupportedError.exit_code, True)


SSH = """#!{python}
import os, sys
words = sys.argv[1:]
if words[0] == "--":
    sys.exit(127)
while words[0].startswith("-"):
    if words[0] == "-L":
        near, far = words[1].split(":")[1], words[1].split(":")[3]
        words[-1] = words[-1].replace("--listen " + far, "--listen " + near)
    words = words[1 if words[0] == "-tt" else 2:]
os.chdir({home!r})
os.execvp("sh", ["sh", "-c", words[1]])
"""


@needs_server
def test_a_linux_board_without_edgehmn(tmp_path: Path, run_cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """edgehmn-device is sent there, and leaves nothing behind; what was flashed there stays."""
    home = tmp_path / "home"
    flashed = home / ".local" / "share" / "edgehmn"
    flashed.mkdir(parents=True)
    (flashed / "model.ehmn").write_bytes(b"of the board")
    ssh = tmp_path / "ssh"
    ssh.write_text(SSH.format(python=sys.executable, home=str(home)), "utf-8")
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin")
    monkeypatch.setattr(anchor_device, "SHAPES", anchor.SHAPES[:4])
    monkeypatch.setattr(anchor_device, "LARGE", replace(anchor.FIRST, d_model=256, d_hidden=512))
    path = tmp_path / "there.toml"
    done = run_cli("profile", path, "--anchor", "--host", "pi@board")
    assert done.code == 0 and "edgehmn-device is sent" in done.err, done
    target = load_target(str(path))
    assert target.measured is not None and "edgehmn-device" in target.measured.source
    assert target.measured.seconds_per_mac + target.measured.seconds_per_row > 0
    assert [p.name for p in flashed.iterdir()] == ["model.ehmn"] and not (flashed.parent / "edgehmn-anchor").exists()
