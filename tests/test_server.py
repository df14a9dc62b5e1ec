"""edgehmn-device, on this machine and cross-compiled: the bits of the host, and nothing from outside."""

import hashlib
import os
import random
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgehmn.core import CoreModel, Image
from edgehmn.device import link as link_module
from edgehmn.device.link import Link
from edgehmn.device.server import COMPILERS, Server, build_server
from edgehmn.errors import DeviceError, LinkLostError, UsageError
from edgehmn.runtime.device import DeviceRuntime
from tests.models import repetitive_tokens, tiny_image

EMULATORS = {"aarch64": "qemu-aarch64", "armv7l": "qemu-arm", "riscv64": "qemu-riscv64"}


@pytest.fixture(scope="module")
def image() -> bytes:
    return tiny_image()


@pytest.fixture
def file(image: bytes, tmp_path: Path) -> Path:
    path = tmp_path / "an image, é.ehmn"
    path.write_bytes(image)
    return path


@pytest.fixture
def runtime(file: Path, tmp_path: Path) -> Iterator[DeviceRuntime]:
    with Server(file, state=tmp_path / "state") as server:
        opened = DeviceRuntime(server.url)
        yield opened
        opened.close()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_it_learns_the_bits_that_the_host_learns(image: bytes, runtime: DeviceRuntime) -> None:
    ids, expected = repetitive_tokens(300), CoreModel(Image(image))
    assert np.array_equal(runtime.process(ids, learn=True), expected.process(ids, learn=True))
    assert np.array_equal(runtime.generate(20, temperature=1.0), expected.generate(20, temperature=1.0))
    assert sha256(runtime.save()) == sha256(expected.save())
    assert runtime.identity.board == "linux"
    assert runtime.counts().writes == expected.counts().writes


@pytest.mark.parametrize("machine", EMULATORS)
def test_it_learns_the_same_bits_on_other_processors(machine: str, image: bytes, file: Path, tmp_path: Path) -> None:
    absent = [tool for tool in (COMPILERS[machine], EMULATORS[machine], "cmake", "ninja") if shutil.which(tool) is None]
    if absent:
        pytest.skip(f"not run here: {', '.join(absent)} missing")
    ids, expected = repetitive_tokens(300), CoreModel(Image(image))
    command, state = [EMULATORS[machine], build_server(machine)], tmp_path / "state"
    with Server(file, state=state, command=command) as server:
        board = DeviceRuntime(server.url)
        assert np.array_equal(board.process(ids, learn=True), expected.process(ids, learn=True))
        assert sha256(board.save()) == sha256(expected.save())
        board.store()
        board.confirm()
        board.close()
    with Server(file, state=state) as server:  # the file is the same on every machine
        board = DeviceRuntime(server.url)
        assert sha256(board.save()) == sha256(expected.save())
        board.close()


def test_a_unix_socket_serves_as_well(image: bytes, file: Path, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with Server(file, socket=path) as server:
        assert server.url == f"unix://{path}"
        assert path.stat().st_mode & 0o777 == 0o600
        board = DeviceRuntime(server.url)
        ids = repetitive_tokens(30)
        assert np.array_equal(board.process(ids, learn=True), CoreModel(Image(image)).process(ids, learn=True))
        with pytest.raises(DeviceError, match="no flash"):
            board.store()
        server.close()
        with pytest.raises(LinkLostError):
            board.process(ids, learn=True)
        board.close()
    for url in (f"unix://{path}", f"unix://{path}{'x' * 200}"):
        with pytest.raises(DeviceError, match="cannot be opened"):
            Link(url)


def test_one_host_at_a_time_and_what_it_left_is_there(image: bytes, file: Path) -> None:
    ids, expected = repetitive_tokens(60), CoreModel(Image(image))
    expected.process(ids, learn=True)
    with Server(file) as server:
        first = DeviceRuntime(server.url)
        first.process(ids, learn=True)
        first.close()
        second = DeviceRuntime(server.url)
        assert second.save() == expected.save()
        second._link.restart()
        assert second.save() != expected.save(), "nothing was stored"
        second.close()


def test_a_power_cut_at_any_moment_leaves_the_old_state_or_the_new(image: bytes, file: Path, tmp_path: Path) -> None:
    """The process is killed while it stores, at random moments: a real cut of what writes."""
    state, rng, ids = tmp_path / "state", random.Random(8), repetitive_tokens(900)
    kept, seen = [b""], set()
    for round_ in range(25):
        with Server(file, state=state) as server:
            board = DeviceRuntime(server.url, timeout_s=5.0)
            found = board.save()
            if round_:
                assert found in kept
                seen.add(kept.index(found))
            if board.stored().provisional:
                board.confirm()
            board.process(ids[20 * round_ : 20 * round_ + 20], learn=True)
            kept = [found, board.save()]
            assert found != kept[1]
            killer = threading.Timer(rng.uniform(0, 0.03), os.kill, (server.pid, signal.SIGKILL))
            killer.start()
            try:
                board.store()
                board.confirm()
            except LinkLostError:
                pass
            killer.join()
            board.close()
    assert 0 in seen or 1 in seen


def test_a_megabyte_of_noise_changes_nothing(image: bytes, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "FIRST_WAIT_S", 0.3)
    ids, expected = repetitive_tokens(40), CoreModel(Image(image))
    rng = random.Random(1)
    with Server(file) as server:
        board = DeviceRuntime(server.url)
        scores = [board.process(ids[:20], learn=True)]
        for _ in range(16):
            board._link._line.write(rng.randbytes(1 << 16))
        scores.append(board.process(ids[20:], learn=True))
        assert np.array_equal(np.concatenate(scores), expected.process(ids, learn=True))
        assert board.save() == expected.save()
        board.close()


@pytest.mark.parametrize(
    "code, said, words",
    [
        (4, "empty: is no image", ["empty", "--listen", "0"]),
        (4, "short: is no image", ["short", "--listen", "0"]),
        (4, "text: is no sound image (E_MAGIC)", ["text", "--listen", "0"]),
        (4, "damaged: is no sound image (E_CRC)", ["damaged", "--listen", "0"]),
        (4, "pipe: is no image (and no file)", ["pipe", "--listen", "0"]),
        (4, ".: is no image (and no file)", [".", "--listen", "0"]),
        (4, "short: is no state file", ["image", "--listen", "0", "--state", "short"]),
        (2, "missing: cannot be read", ["missing", "--listen", "0"]),
        (2, "x: is no port", ["image", "--listen", "x"]),
        (2, "65536: is no port", ["image", "--listen", "65536"]),
        (2, "-1: is no port", ["image", "--listen", "-1"]),
        (2, "0: is no number of threads", ["image", "--listen", "0", "--threads", "0"]),
        (2, "usage: edgehmn-device", ["image"]),
        (2, "usage: edgehmn-device", ["image", "--listen"]),
        (7, "text: cannot be listened on", ["image", "--unix", "text"]),
        (13, "no/such: cannot be opened", ["image", "--listen", "0", "--state", "no/such"]),
    ],
)
def test_what_it_cannot_serve_has_its_exit_code(
    code: int, said: str, words: list[str], image: bytes, tmp_path: Path
) -> None:
    files = {"image": image, "empty": b"", "short": b"x" * 100, "text": b"x" * 9999, "damaged": image[:-3] + b"\1\2\3"}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    os.mkfifo(tmp_path / "pipe")
    done = subprocess.run([build_server(), *words], cwd=tmp_path, capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stdout, said in done.stderr) == (code, "", True), done
    assert done.stderr.count("\n") == 1 or said.startswith("usage"), done


def test_what_is_no_image_or_no_state_file_is_refused(file: Path, tmp_path: Path) -> None:
    (tmp_path / "damaged").write_bytes(file.read_bytes()[:-3] + b"\1\2\3")
    with pytest.raises(DeviceError, match="no sound image"):
        Server(tmp_path / "damaged", state=tmp_path / "unused")
    assert not (tmp_path / "unused").exists()
    (tmp_path / "state").write_bytes(b"x" * 1000)
    with pytest.raises(DeviceError, match="no state file"):
        Server(file, state=tmp_path / "state")
    with pytest.raises(DeviceError, match="cannot be read"):
        Server(tmp_path / "missing")
    with pytest.raises(UsageError, match="aarch64"):
        build_server("pdp11")
    with Server(file, state=tmp_path / "shared"), pytest.raises(DeviceError, match="serves another"):
        Server(file, state=tmp_path / "shared")
    with pytest.raises(DeviceError, match="usage"):
        Server(file, command=[build_server(), "--listen"])


def test_nobody_outside_this_machine_is_listened_to(file: Path) -> None:
    with Server(file) as server:
        port = int(server.url.rsplit(":", 1)[1])
        listening = Path("/proc/net/tcp").read_text().splitlines()[1:]
        (address,) = {line.split()[1].split(":")[0] for line in listening if line.split()[1].endswith(f":{port:04X}")
                      and line.split()[3] == "0A"}  # fmt: skip
        assert socket.inet_ntoa(bytes.fromhex(address)[::-1]) == "127.0.0.1"
