"""Flashing by the real programs against peers: esptool and a boot loader, ssh and sshd, gdb and QEMU."""

import getpass
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from edgehmn.core import CoreModel
from edgehmn.device.boards import find_board
from edgehmn.device.emulator import QEMU, Emulator
from edgehmn.device.firmware import build_firmware
from edgehmn.device.flash.esp import EspTool
from edgehmn.device.flash.flashing import flash
from edgehmn.device.flash.parts import Part, contents
from edgehmn.device.flash.programmer import Place, find_program
from edgehmn.device.flash.stm32 import Stm32Flash
from edgehmn.errors import DeviceError, FlashError
from edgehmn.exported import Export
from edgehmn.runtime.device import DeviceRuntime
from tests.boot_loaders import Stm32BootLoader
from tests.command_line import Result
from tests.esp_boot_loader import EspBootLoader
from tests.models import random_tokens
from tests.test_flash import BOARD, START, needs_tools

Cli = Callable[..., Result]
ESP_START = 0x10000  # where the parts of BOARD are put into an ESP's flash
PART = Part("image", ESP_START, bytes(range(256)) * 12 + b"the end")


def needs(program: str, package: str) -> pytest.MarkDecorator:
    there = find_program(program) or Path("/usr/sbin", program).exists()
    return pytest.mark.skipif(not there, reason=f"not run here: {program} missing ({package})")


needs_esptool = needs("esptool", "pip install esptool")
needs_sshd = needs("sshd", "sudo apt-get install openssh-server")
needs_gdb = needs("gdb-multiarch", "sudo apt-get install gdb-multiarch")


@pytest.fixture(scope="module")
def export(tiny_export: Path) -> Export:
    return Export.open(tiny_export)


# ---- stm32flash


@needs("stm32flash", "sudo apt-get install stm32flash")
@pytest.mark.parametrize(
    ("conduct", "said"), [("garbage", None), ("refuses", "ended with code 1"), ("hangs", "was stopped|ended with code")]
)
def test_the_real_stm32flash_and_a_boot_loader_that_lies(conduct: str, said: str | None) -> None:
    part = replace(PART, address=START)
    peer = Stm32BootLoader(0x413, START, 1 << 14, conduct)
    try:
        tool = Stm32Flash(0x413, START, 1.0 if conduct == "hangs" else 60.0)
        [place] = tool.places(peer.port)
        if said is None:
            tool.write(place, [part])  # it has read back what it wrote, and reports success
            back = tool.read(place, part)
            assert back is not None and len(back) == len(part.data) and back != part.data
        else:
            with pytest.raises(FlashError, match=said):
                tool.write(place, [part])
    finally:
        peer.close()


# ---- esptool


@contextmanager
def esp(chip_id: int = 9, conduct: str = "honest") -> Iterator[EspBootLoader]:
    peer = EspBootLoader(chip_id, conduct)
    try:
        yield peer
    finally:
        peer.close()


class AtEspStart:
    """esptool, with the addresses of BOARD moved into an ESP's flash."""

    def __init__(self) -> None:
        self._tool = EspTool("ESP32-S3")
        self.places, self.running, self.ready = self._tool.places, self._tool.running, self._tool.ready

    def write(self, place: Place, parts: Sequence[Part]) -> None:
        self._tool.write(place, [self._moved(part) for part in parts])

    def read(self, place: Place, part: Part) -> bytes | None:
        return self._tool.read(place, self._moved(part))

    def _moved(self, part: Part) -> Part:
        return replace(part, address=part.address - START + ESP_START)


@needs_tools
@needs_esptool
def test_the_real_esptool_against_a_boot_loader_that_takes_no_stub(export: Export) -> None:
    image = export.image.bytes.tobytes()
    with esp() as peer, Emulator(image, BOARD) as emulator:
        done = flash(export, BOARD, AtEspStart(), port=peer.port, line=emulator.url)
    assert (done.verified, done.self_test) == ("read back", "ok")
    assert peer.asked_for_stub and peer.started
    at = find_board(BOARD).numbers["BOARD_IMAGE_ADDRESS"] - START + ESP_START
    assert peer.memory[at : at + len(image)] == image


@needs_esptool
def test_the_real_esptool_and_another_chip_or_none() -> None:
    with esp(chip_id=5) as peer, pytest.raises(DeviceError, match="another board: ESP32-C3, not ESP32-S3"):
        EspTool("ESP32-S3").places(peer.port)
    with pytest.raises(DeviceError, match="hold BOOT"):
        EspTool("ESP32-S3").places("socket://127.0.0.1:9")


@needs_esptool
@pytest.mark.parametrize(("conduct", "said"), [("refuses", "flash download mode"), ("hangs", "was stopped")])
def test_the_real_esptool_that_fails(conduct: str, said: str) -> None:
    with esp(conduct=conduct) as peer:
        tool = EspTool("ESP32-S3", limit_s=0.75 if conduct == "hangs" else 60.0)
        [place] = tool.places(peer.port)
        with pytest.raises(FlashError, match=said):
            tool.write(place, [PART])


@needs_esptool
def test_a_chip_that_confirms_what_it_does_not_hold_is_found_out() -> None:
    """esptool compares hashes and reports success; what is read back tells."""
    with esp(conduct="garbage") as peer:
        tool = EspTool("ESP32-S3")
        [place] = tool.places(peer.port)
        tool.write(place, [PART])
        back = tool.read(place, PART)
    assert back is not None and len(back) == len(PART.data) and back != PART.data


# ---- ssh


@pytest.fixture
def linux(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A ssh that knows, as `board`, a sshd of this user at the other end of a pipe: it has no port that could be
    another's. The home that it serves."""
    home, etc, programs = (tmp_path / name for name in ("home", "etc", "programs"))
    for folder in (home, etc, programs):
        folder.mkdir()
    for key in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(etc / key)], check=True)
    shutil.copy(etc / "user.pub", etc / "authorized")
    (etc / "login").write_text(f'#!/bin/sh\ncd "{home}" && exec sh -c "$SSH_ORIGINAL_COMMAND"\n')
    (etc / "login").chmod(0o755)
    (etc / "sshd_config").write_text(
        f"HostKey {etc / 'host'}\nAuthorizedKeysFile {etc / 'authorized'}\n"
        f"PidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin yes\n"
        f"ForceCommand {etc / 'login'}\n"
    )
    sshd = shutil.which("sshd") or "/usr/sbin/sshd"
    (etc / "ssh_config").write_text(
        f"Host board\nProxyCommand {sshd} -i -e -f {etc / 'sshd_config'} 2>>{etc / 'log'}\n"
        f"User {getpass.getuser()}\nIdentityFile {etc / 'user'}\n"
        f"IdentitiesOnly yes\nUserKnownHostsFile {etc / 'known'}\nStrictHostKeyChecking accept-new\n"
    )
    (programs / "ssh").write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {etc / "ssh_config"} "$@"\n')
    (programs / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    if os.geteuid() == 0:  # where a sshd of root locks its children up; it stays: a test beside this one may need it
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    subprocess.run(["ssh", "board", "true"], check=False, capture_output=True)
    if "account is locked" in (etc / "log").read_text("utf-8", "replace"):
        pytest.skip("not run here: this user's account is locked for sshd")
    return home


@needs_sshd
def test_a_linux_board_behind_a_real_sshd(run_cli: Cli, export: Export, linux: Path) -> None:
    arguments = ("flash", export.folder, "--target", "linux", "--json", "--port")
    result = run_cli(*arguments, "board").result
    assert (result["board"], result["verified"], result["self_test"]) == ("linux", "read back", "ok")
    folder = linux / ".local" / "share" / "edgehmn"
    assert {path.name for path in folder.iterdir()} == {"edgehmn-device", "model.ehmn", "state"}
    assert (folder / "model.ehmn").read_bytes() == export.image.bytes.tobytes()
    assert (linux / ".local" / "share" / "edgehmn" / "edgehmn-device").stat().st_mode & 0o111
    done = run_cli(*arguments, "nobody-has-this-name.invalid")
    assert (done.code, "cannot be reached" in done.err + done.out) == (7, True)
    shutil.rmtree(linux / ".local")
    (linux / ".local").write_text("a file in the way")
    done = run_cli(*arguments, "board")
    assert (done.code, "ssh ended with code" in done.out) == (8, True)


@needs_sshd
def test_ports_that_others_have_are_not_insisted_on(
    run_cli: Cli, export: Export, linux: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The board's here is this machine: one port is taken for its server, then one for ssh."""
    words = ("flash", export.folder, "--target", "linux", "--json", "--port", "board")
    with socket.create_server(("127.0.0.1", 0)) as taken, ExitStack() as stack:
        used = taken.getsockname()[1]
        held = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(4)]
        free = [server.getsockname()[1] for server in held]
        stack.close()
        ports = iter([used, free[0], free[1], used, free[2], free[3]])
        monkeypatch.setattr("edgehmn.device.flash.ssh.random.choice", lambda among: next(ports))
        assert run_cli(*words).result["self_test"] == "ok" and next(ports, None) is None
        monkeypatch.setattr("edgehmn.device.flash.ssh.random.choice", lambda among: used)
        done = run_cli(*words)
    assert done.code == FlashError.exit_code and "already in use" in done.out, "in the end it gives up"


@needs_sshd
def test_a_key_that_is_not_let_in_is_no_board(run_cli: Cli, export: Export, linux: Path) -> None:
    (linux.parent / "etc" / "authorized").write_text("")
    done = run_cli("flash", export.folder, "--target", "linux", "--port", "board")
    assert (done.code, "without a question" in done.err) == (7, True)


# ---- gdb


@needs_tools
@needs_gdb
@pytest.mark.parametrize("board", ["mps2-an386", "netduinoplus2"])
def test_gdb_puts_the_firmware_where_we_do(export: Export, board: str, tmp_path: Path) -> None:
    """gdb loads the ELF file over QEMU's stub and compares each section; what it loaded is what our own reading of the
    file says. Then the board starts from that, with the image beside it, and computes what the host computes."""
    elf, numbers = build_firmware(board), find_board(board).numbers
    start, image = numbers["BOARD_FLASH_ADDRESS"], export.image.bytes.tobytes()
    ours = contents(elf.read_bytes(), start)
    (tmp_path / "image").write_bytes(image)
    with socket.create_server(("127.0.0.1", 0)) as line, socket.create_server(("127.0.0.1", 0)) as stub:
        url = f"socket://127.0.0.1:{line.getsockname()[1]}"
        gdb_port, fds = stub.getsockname()[1], [line.fileno(), stub.fileno()]
        words = [QEMU, "-M", board, "-S", "-display", "none", "-nodefaults"]
        for name, fd in zip(("host", "gdb"), fds, strict=True):
            words += ["-chardev", f"socket,id={name},fd={fd},server=on,wait=off,nodelay=on"]
        words += ["-serial", "chardev:host", "-gdb", "chardev:gdb"]
        qemu = subprocess.Popen(words, pass_fds=fds, stderr=subprocess.DEVNULL)
    try:
        said = _gdb(gdb_port, elf, tmp_path, [
            "load",
            "compare-sections",
            f"dump binary memory theirs {start:#x} {start + len(ours):#x}",
            f"restore image binary {numbers['BOARD_IMAGE_ADDRESS']:#x}",
            f"set {{char}}{start + len(ours) - 1:#x} = {ours[-1] ^ 1:#x}",
            "compare-sections .data",
            f"set {{char}}{start + len(ours) - 1:#x} = {ours[-1]:#x}",
            f"set $sp = *(unsigned int *){start:#x}",  # a reset by the monitor would come at some later time
            "set $xpsr = 0x01000000",
            f"set $pc = *(unsigned int *){start + 4:#x} & ~1",
            "detach",
        ])  # fmt: skip
        assert said.count(": matched.") >= 4 and said.count("MIS-MATCHED!") == 1, said
        assert (tmp_path / "theirs").read_bytes() == ours
        device, ids = DeviceRuntime(url, timeout_s=20), random_tokens(20)
        assert device.process(ids, learn=True).tolist() == CoreModel(export.image).process(ids, learn=True).tolist()
        device.close()
    finally:
        qemu.kill()
        qemu.wait()


def _gdb(port: int, elf: Path, folder: Path, commands: Sequence[str]) -> str:
    words = ["gdb-multiarch", "-batch", "-nx", "-ex", f"target remote 127.0.0.1:{port}"]
    for command in commands:
        words += ["-ex", command]
    done = subprocess.run([*words, str(elf)], cwd=folder, capture_output=True, text=True, timeout=120)
    return done.stdout + done.stderr
