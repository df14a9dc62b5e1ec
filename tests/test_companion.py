"""Programs that run beside a command: none is left when it ends, whatever ends it."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgehmn.device import companion as companion_module
from edgehmn.device.companion import Companion
from edgehmn.device.emulator import QEMU
from edgehmn.device.firmware import TOOLS
from tests.command_line import finish, process

absent = [tool for tool in (QEMU, *TOOLS) if shutil.which(tool) is None]
# In a thread that has ended when its program is looked at: a death of the thread is none of the process.
PARENT = """
import sys, threading
from edgehmn.device.companion import Companion
started = []
thread = threading.Thread(target=lambda: started.append(Companion(sys.argv[1:])))
thread.start()
thread.join()
print(started[0].process.pid, flush=True)
sys.stdin.read()
"""


def left(group: int) -> bool:
    """Whether anything of a process group is there, after so long as its end may take."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return False
        time.sleep(0.01)
    return True


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_is_left_of_a_program_whose_parent_was_killed(number: int, tmp_path: Path) -> None:
    words = [sys.executable, "-c", PARENT, "sleep", "300"]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, cwd=tmp_path, stdin=pipe, stdout=pipe, text=True) as parent:
        assert parent.stdout is not None
        group = int(parent.stdout.readline())
        time.sleep(0.2)
        os.killpg(group, 0)
        parent.send_signal(number)
    assert not left(group)


def test_nothing_is_left_of_a_program_that_was_ended(tmp_path: Path) -> None:
    for words, grace_s, code in (
        (["sleep", "300"], 10, -signal.SIGTERM),
        (["sleep", "300"], 0, -signal.SIGKILL),
        (["sh", "-c", "trap '' TERM; echo; while :; do sleep 0.01; done"], 0.1, -signal.SIGKILL),
        (["true"], 10, None),
    ):
        companion = Companion(words, cwd=tmp_path, stdout=subprocess.PIPE)
        if len(words) == 3:
            companion.process.stdout.readline()
        companion.end(grace_s)
        companion.end(grace_s)
        assert code in (None, companion.process.returncode) and not left(companion.process.pid), words


def test_where_nobody_can_wait_nothing_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a system without /dev/fd."""
    monkeypatch.setattr(companion_module, "_WATCHED", companion_module._WATCHED.replace("/dev/fd", "/dev/no"))
    companion = Companion(["sleep", "300"])
    time.sleep(0.3)
    assert companion.process.poll() is None
    companion.end(0)


def test_it_has_the_files_that_it_was_given_and_its_own_end() -> None:
    reading, writing = os.pipe()
    companion = Companion(
        [sys.executable, "-c", f"import os, sys; os.write({writing}, b'there'); sys.exit(7)"],
        pass_fds=[writing], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    os.close(writing)
    out, err = companion.process.communicate(timeout=60)
    assert (companion.process.returncode, out, err, os.read(reading, 99)) == (7, b"", b"", b"there")
    companion.end(0)
    os.close(reading)


@pytest.mark.skipif(bool(absent), reason=f"not run here: {', '.join(absent)} missing")
def test_an_emulated_board_ends_with_a_command_that_was_killed(tiny_export: Path, tmp_path: Path) -> None:
    running = process("emulate", tiny_export, cwd=tmp_path)
    assert running.stdout is not None and "is running" in running.stdout.readline()
    children = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
    assert len(children) == 1
    running.kill()
    finish(running)
    assert not left(int(children[0]))
