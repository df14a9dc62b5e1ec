"""Flashing: the right board or none, read back and tested; tools that lie, fail, or hang are found out."""

import json
import os
import platform
import shutil
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from edgehmn.core import lib
from edgehmn.device.boards import boards
from edgehmn.device.emulator import QEMU, Emulator
from edgehmn.device.firmware import TOOLS, build_firmware
from edgehmn.device.flash import flashing
from edgehmn.device.flash.esp import EspTool
from edgehmn.device.flash.flashing import flash, programmer_for, ways
from edgehmn.device.flash.parts import Part, contents, parts_of
from edgehmn.device.flash.programmer import Programmer, run, time_for
from edgehmn.device.flash.pyocd import PyOcd
from edgehmn.device.flash.ssh import LinuxBoard
from edgehmn.device.flash.stm32 import Stm32Flash
from edgehmn.device.flash.uf2 import Uf2Drive, uf2
from edgehmn.device.server import Server
from edgehmn.device.wire import Identity
from edgehmn.errors import (
    DependencyError,
    DeviceError,
    EdgeHMNError,
    FlashError,
    ManualStepError,
    UsageError,
)
from edgehmn.exported import Export
from edgehmn.runtime.device import DeviceRuntime
from tests.boot_loaders import Stm32BootLoader, fake_ssh, fake_tool
from tests.command_line import Result, wait_for
from tests.models import SMALL, random_tokens, tiny_image

Cli = Callable[..., Result]
BOARD = "netduinoplus2"
START = 0x08000000
CHIP = 0x413
PORT = "/dev/ttyUSB9"
absent = [tool for tool in (QEMU, *TOOLS) if shutil.which(tool) is None]
needs_tools = pytest.mark.skipif(bool(absent), reason=f"not run here: {', '.join(absent)} missing")


@pytest.fixture(scope="module")
def export(tiny_export: Path) -> Export:
    return Export.open(tiny_export)


@pytest.fixture(scope="module")
def emulated(export: Export) -> Iterator[str]:
    """Where a board answers that runs what was written."""
    with Emulator(export.image.bytes.tobytes(), BOARD) as emulator:
        yield emulator.url


@pytest.fixture(scope="module")
def linux_line(export: Export) -> Iterator[str]:
    with Server(export.folder / "model.ehmn") as server:
        yield server.url


@pytest.fixture
def line(linux_line: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The same core on this machine, which takes no time, under the board's name."""
    read = Identity.from_payload
    named = staticmethod(lambda payload: replace(read(payload), board=BOARD))
    monkeypatch.setattr(Identity, "from_payload", named)
    return linux_line


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose programs are found first."""
    folder = tmp_path / "a bin, é"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


def written(memory: Path, export: Export) -> None:
    """The memory holds firmware and image where the board looks for them."""
    data = memory.read_bytes()
    for part in parts_of(boards()[BOARD], build_firmware(BOARD).read_bytes(), export.image.bytes.tobytes()):
        at = part.address - START
        assert data[at : at + len(part.data)] == part.data, part.name


# ---- Tools that do what they say


@needs_tools
def test_an_honest_tool_and_a_board_that_answers(run_cli: Cli, export: Export, emulated: str, tools: Path) -> None:
    memory = fake_tool(tools, "stm32flash", base=START, chip=CHIP)
    arguments = ("flash", export.folder, "--target", BOARD, "--via", "stm32flash", "--port", PORT, "--json")
    result = run_cli(*arguments, "--line", emulated).result
    assert (result["board"], result["verified"], result["self_test"]) == (BOARD, "read back", "ok")
    written(memory, export)


@needs_tools
def test_the_real_stm32flash_against_a_boot_loader(export: Export, line: str) -> None:
    if shutil.which("stm32flash") is None:
        pytest.skip("not run here: stm32flash missing (apt-get install stm32flash)")
    peer = Stm32BootLoader(CHIP, START, 1 << 20)
    try:
        done = flash(export, BOARD, Stm32Flash(CHIP, START), port=peer.port, line=line)
        assert (done.verified, done.self_test, peer.started) == ("read back", "ok", START)
        for part in parts_of(boards()[BOARD], build_firmware(BOARD).read_bytes(), export.image.bytes.tobytes()):
            at = part.address - START
            assert peer.memory[at : at + len(part.data)] == part.data
    finally:
        peer.close()
    other = Stm32BootLoader(0x450, START, 1 << 10)
    try:
        with pytest.raises(DeviceError, match="another board: 0x0450"):
            Stm32Flash(CHIP, START).places(other.port)
    finally:
        other.close()


@needs_tools
def test_probes(export: Export, line: str, tools: Path) -> None:
    def probe(name: str, target: str = "stm32f405rgtx") -> dict[str, str]:
        return {"unique_id": name, "info": f"probe {name}", "target": target}

    def listed(*probes: dict[str, str]) -> Path:
        return fake_tool(tools, "pyocd", base=START, probes=json.dumps({"boards": probes}))

    memory = listed(probe("A1"), probe("OTHER", "stm32h743xx"))
    done = flash(export, BOARD, PyOcd("stm32f405rgtx"), line=line)
    assert (done.place, done.verified) == ("A1", "read back")
    written(memory, export)
    listed(probe("A1"), probe("B2", "cortex_m"))
    with pytest.raises(DeviceError, match="several boards are connected") as caught:
        flash(export, BOARD, PyOcd("stm32f405rgtx"), line=line)
    assert caught.value.detail["candidates"] == ["A1", "B2"]
    assert flash(export, BOARD, PyOcd("stm32f405rgtx"), port="B2", line=line).place == "B2"
    with pytest.raises(DeviceError, match="OTHER is none of these"):
        flash(export, BOARD, PyOcd("stm32f405rgtx"), port="OTHER", line=line)
    listed(probe("OTHER", "stm32h743xx"))
    with pytest.raises(DeviceError, match="no board of this kind is connected; plug its debug probe in"):
        flash(export, BOARD, PyOcd("stm32f405rgtx"), line=line)


@needs_tools
def test_esptool(export: Export, line: str, tools: Path) -> None:
    memory = fake_tool(tools, "esptool", base=START)
    assert flash(export, BOARD, EspTool("ESP32-S3"), port=PORT, line=line).verified == "read back"
    written(memory, export)
    with pytest.raises(DeviceError, match="another board: ESP32-S3, not ESP32"):
        flash(export, BOARD, EspTool("ESP32"), port=PORT, line=line)


def test_uf2_files_are_read_by_another_library(tmp_path: Path) -> None:
    family, parts = 0xE48BFF59, [Part("a", 0x10000000, bytes(range(200)) * 9), Part("b", 0x10080000, b"x" * 256)]
    data = uf2(parts, family)
    assert len(data) % 512 == 0
    module = pytest.importorskip("adafruit_uf2.uf2conv", reason="not run here: pip install adafruit-uf2")
    (tmp_path / "a.uf2").write_bytes(data)
    back = module.convert_from_uf2(data)
    assert bytes(back[: len(parts[0].data)]) == parts[0].data
    assert bytes(back[0x80000 : 0x80000 + 256]) == parts[1].data
    with pytest.raises(FlashError, match="UF2 cannot write"):
        uf2([Part("c", 0x10000010, b"x")], family)


def test_uf2_blocks() -> None:
    parts = [Part("a", 0x10000100, bytes(range(256)) + b"end")]
    data = uf2(parts, 7)
    blocks = [struct.unpack("<8I476sI", data[at : at + 512]) for at in range(0, len(data), 512)]
    assert [b[3] for b in blocks] == [0x10000100, 0x10000200]
    assert {(b[0], b[1], b[2], b[4], b[6], b[7], b[9]) for b in blocks} == {
        (0x0A324655, 0x9E5D5157, 0x2000, 256, 2, 7, 0x0AB16F30)
    }
    assert [b[5] for b in blocks] == [0, 1]
    assert blocks[1][8][:256] == b"end".ljust(256, b"\xff")


@needs_tools
def test_a_uf2_drive(export: Export, line: str, tmp_path: Path) -> None:
    drive = tmp_path / "drive"
    drive.mkdir()
    (drive / "INFO_UF2.TXT").write_text("UF2 Bootloader v1.0\nModel: A board\nBoard-ID: RP2350\n")
    way = Uf2Drive("RP2350", 0xE48BFF59)
    done = flash(export, BOARD, way, port=str(drive), line=line)
    assert done.verified == "self-test"
    assert (drive / "edgehmn.uf2").stat().st_size % 512 == 0
    with pytest.raises(ManualStepError, match="nothing proves"):
        flash(export, BOARD, way, port=str(drive))
    for board, said in (("RPI-RP2", "drive of RP2350"), ("RP2350", "no UF2 boot loader")):
        folder = drive if board == "RPI-RP2" else tmp_path
        with pytest.raises(DeviceError, match=said):
            flash(export, BOARD, Uf2Drive(board, 1), port=str(folder), line=line)


@needs_tools
@pytest.mark.parametrize("name", ["mps2-an386", "mps3-an547"])
def test_an_emulated_board_gets_a_new_model_and_keeps_what_it_learned(
    run_cli: Cli, export: Export, tmp_path: Path, name: str
) -> None:
    file = tmp_path / "flash of a board"
    arguments = ("flash", export.folder, "--target", name, "--port", file, "--json")
    result = run_cli(*arguments).result
    assert (result["verified"], result["self_test"]) == ("read back", "ok")
    with Emulator(None, name, flash=file) as emulator:
        board = DeviceRuntime(emulator.url)
        board.process(random_tokens(20), learn=True)
        learned = board.save()
        board.store()
        board.confirm()
        board.close()
        done = run_cli(*arguments)
        assert (done.code, "stop that one first" in done.out) == (7, True)
        with pytest.raises(DeviceError, match="stop that one first"):
            Emulator(None, name, flash=file)
    assert run_cli(*arguments).result["self_test"] == "ok"
    with Emulator(None, name, flash=file) as emulator:
        board = DeviceRuntime(emulator.url)
        assert board.save() == learned
        board.close()
    (tmp_path / "some file").write_bytes(b"of mine")
    assert run_cli(*arguments[:-2], tmp_path / "some file").code == 7
    assert (tmp_path / "some file").read_bytes() == b"of mine"
    assert run_cli(*arguments[:4]).code == 7


def test_a_linux_board_by_ssh(run_cli: Cli, export: Export, tools: Path) -> None:
    home = fake_ssh(tools)
    arguments = ("flash", export.folder, "--target", "linux", "--port", "pi@board", "--json")
    result = run_cli(*arguments).result
    assert (result["verified"], result["self_test"]) == ("read back", "ok")
    folder = home / ".local" / "share" / "edgehmn"
    assert {path.name for path in folder.iterdir()} == {"edgehmn-device", "model.ehmn", "state"}
    assert run_cli(*arguments[:-2], "pi@elsewhere").code == 7
    assert run_cli(*arguments[:4]).code == 7


def test_a_linux_board_that_is_another(run_cli: Cli, export: Export, tools: Path) -> None:
    fake_ssh(tools, machine="Linux sparc64")
    done = run_cli("flash", export.folder, "--target", "linux", "--port", "pi@board")
    assert (done.code, "sparc64" in done.err) == (7, True)


@needs_tools
def test_a_dry_run_finds_the_board_and_writes_nothing(run_cli: Cli, export: Export, tools: Path) -> None:
    memory = fake_tool(tools, "stm32flash", base=START, chip=CHIP)
    before = memory.read_bytes()
    arguments = ("flash", export.folder, "--target", BOARD, "--via", "stm32flash", "--port", PORT, "--dry-run")
    result = run_cli(*arguments, "--json").result
    assert (result["board"], result["place"], result["written_bytes"], result["verified"]) == (BOARD, PORT, 0, None)
    assert [part["name"] for part in result["would_write"]] == ["firmware", "image"]
    assert result["would_write"][1]["bytes"] == len(export.image.bytes)
    assert "would get" in run_cli(*arguments).out and memory.read_bytes() == before
    fake_tool(tools, "stm32flash", chip=0x450)
    assert run_cli(*arguments).code == 7


@needs_tools
def test_the_time_for_writing_can_be_set(run_cli: Cli, export: Export, tools: Path) -> None:
    fake_tool(tools, "stm32flash", "hangs", base=START, chip=CHIP)
    arguments = ("flash", export.folder, "--target", BOARD, "--via", "stm32flash", "--port", PORT, "--timeout")
    done = run_cli(*arguments, "1")
    assert (done.code, "did not end in 1 s and was stopped" in done.err) == (8, True)
    assert time_for(2_000_000, None) > 2 * 2 * 2_000_000 * 10 / 115_200, "written and verified at 115,200 baud"
    assert time_for(2_000_000, 3.0) == 3.0


# ---- Tools that do not, and boards that do not


LIES = [("garbage", "1 of"), ("nothing", "differ"), ("code", "ended with code 3"), ("hangs", "was stopped")]
FIRST_PROBE = json.dumps({"boards": [{"unique_id": "A1", "info": "a probe", "target": "chip"}]})


def way_of(tool: str, limit_s: float = 60.0) -> Programmer:
    if tool == "stm32flash":
        return Stm32Flash(CHIP, START, limit_s)
    return PyOcd("chip", limit_s) if tool == "pyocd" else EspTool("ESP32-S3", limit_s)


@needs_tools
@pytest.mark.parametrize(("conduct", "said"), LIES)
@pytest.mark.parametrize("tool", ["stm32flash", "pyocd", "esptool"])
def test_tools_that_lie_or_hang(export: Export, line: str, tools: Path, tool: str, conduct: str, said: str) -> None:
    fake_tool(tools, tool, conduct, base=START, probes=FIRST_PROBE)
    way = way_of(tool, 0.4 if conduct == "hangs" else 60.0)
    with pytest.raises(FlashError, match=said) as caught:
        flash(export, BOARD, way, port="A1" if tool == "pyocd" else PORT, line=line)
    assert caught.value.exit_code == 8


@pytest.mark.parametrize(
    ("conduct", "said"),
    [("garbage", "is not there"), *LIES[2:], ("no start", "does not start: cannot execute")],
)
def test_a_ssh_that_lies_or_hangs(export: Export, tools: Path, conduct: str, said: str) -> None:
    fake_ssh(tools, machine=f"Linux {platform.machine()}", conduct=conduct)
    with pytest.raises(FlashError, match=said) as caught:
        flash(export, "linux", LinuxBoard(0.4 if conduct == "hangs" else 60.0), port="pi@board")
    assert caught.value.exit_code == 8


@needs_tools
@pytest.mark.parametrize("tool", ["stm32flash", "pyocd", "esptool"])
def test_a_board_that_waits_for_a_hand(
    export: Export, line: str, tools: Path, monkeypatch: pytest.MonkeyPatch, tool: str
) -> None:
    """The tool cannot start it; or says that it did, and nothing answers."""
    monkeypatch.setattr(flashing, "ANSWER_S", 0.5)
    port = "A1" if tool == "pyocd" else PORT
    memory = fake_tool(tools, tool, "by hand", base=START, probes=FIRST_PROBE)
    with pytest.raises(ManualStepError, match=r"written and read back.*please press the reset button.*press reset"):
        flash(export, BOARD, way_of(tool), port=port, line=line)
    written(memory, export)
    memory = fake_tool(tools, tool, base=START, probes=FIRST_PROBE)
    with pytest.raises(ManualStepError, match="press reset") as caught:
        flash(export, BOARD, way_of(tool), port=port, line="socket://127.0.0.1:9")
    assert caught.value.exit_code == 9
    written(memory, export)


def test_a_drive_that_takes_no_file_and_a_board_of_another_model(export: Export, line: str, tmp_path: Path) -> None:
    (tmp_path / "INFO_UF2.TXT").write_text("Board-ID: RP2350\n")
    way = Uf2Drive("RP2350", 0xE48BFF59)
    (tmp_path / "edgehmn.uf2").mkdir()
    with pytest.raises(FlashError, match="took no file"):
        flash(export, BOARD, way, port=str(tmp_path), line=line)
    (tmp_path / "edgehmn.uf2").rmdir()
    image = tmp_path / "other.ehmn"
    image.write_bytes(tiny_image(SMALL))
    with Server(image) as other, pytest.raises(FlashError, match="runs image"):
        flash(export, BOARD, way, port=str(tmp_path), line=other.url)


@needs_tools
def test_a_board_that_runs_something_else_is_found_out(export: Export, tools: Path, line: str) -> None:
    fake_tool(tools, "stm32flash", base=START, chip=CHIP)
    with pytest.raises(FlashError, match="is a netduinoplus2, not the mps2-an386"):
        flash(export, "mps2-an386", PyOcdOf(Stm32Flash(CHIP, 0)), port=PORT, line=line)
    image = bytearray(export.image.bytes.tobytes())
    with Emulator(bytes(image[:-1]), BOARD) as emulator, pytest.raises(EdgeHMNError):
        flash(export, BOARD, Stm32Flash(CHIP, START), port=PORT, line=emulator.url)


class PyOcdOf:
    """Any way to write, with every part as it should be."""

    def __init__(self, way: Stm32Flash) -> None:
        self.places, self.running, self.ready = way.places, way.running, way.ready

    def write(self, place: object, parts: object) -> None:
        pass

    def read(self, place: object, part: Part) -> bytes:
        return part.data


def test_the_wrong_chip_no_tool_and_no_such_way(run_cli: Cli, export: Export, tools: Path, tmp_path: Path,
                                                monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    fake_tool(tools, "stm32flash", chip=0x450)
    arguments = ("flash", export.folder, "--target", BOARD, "--via")
    done = run_cli(*arguments, "stm32flash", "--port", PORT)
    assert (done.code, "another board: 0x0450" in done.err) == (7, True)
    assert run_cli(*arguments, "uf2").code == 2
    assert run_cli("flash", export.folder, "--target", "mps2-an999").code == 2
    assert ways(BOARD) == ["stm32flash", "pyocd", "emulator"]
    with pytest.raises(UsageError, match="keeps no flash"):
        programmer_for(BOARD)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))  # beside which programs are looked for, too
    for way in ("stm32flash", "pyocd"):
        with pytest.raises(DependencyError, match="is missing"):
            programmer_for(BOARD, way)


def test_no_serial_port_and_several(tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from serial.tools import list_ports

    class Info:
        def __init__(self, device: str) -> None:
            self.device = device

    fake_tool(tools, "stm32flash", chip=CHIP)
    monkeypatch.setattr(list_ports, "comports", lambda: [Info("/dev/ttyUSB0"), Info("/dev/ttyUSB1")])
    with pytest.raises(DeviceError, match="several boards") as caught:
        flashing.choose(Stm32Flash(CHIP, START).places(None), None, "wake it")
    assert caught.value.detail["candidates"] == ["/dev/ttyUSB0", "/dev/ttyUSB1"]
    monkeypatch.setattr(list_ports, "comports", list)
    with pytest.raises(DeviceError, match="no board of this kind is connected; wake it"):
        flashing.choose(Stm32Flash(CHIP, START).places(None), None, "wake it")


def test_a_program_that_hangs_is_stopped_with_its_children(tmp_path: Path) -> None:
    with pytest.raises(FlashError, match="was stopped"):
        run(["sh", "-c", f"sleep 30 & echo $! > '{tmp_path / 'child'}'; wait"], 0.5)
    child = int((tmp_path / "child").read_text())

    def ended() -> bool:
        try:
            return Path(f"/proc/{child}/stat").read_text().split()[2] in "ZX"
        except OSError:
            return True

    wait_for(ended)  # it was killed, but dies when it is its turn


@needs_tools
def test_the_contents_of_a_firmware_are_what_the_linker_placed() -> None:
    import subprocess

    elf = build_firmware(BOARD)
    data = contents(elf.read_bytes(), START)
    flat = elf.with_suffix(".test.bin")
    try:
        subprocess.run(["arm-none-eabi-objcopy", "-O", "binary", str(elf), str(flat)], check=True)
        assert flat.read_bytes() == data
    finally:
        flat.unlink(missing_ok=True)
    with pytest.raises(FlashError, match="no ELF"):
        contents(bytes(100), START)
    assert lib.EHMN_WIRE_VERSION >= 2
