"""What libraries print by themselves is no part of what a command says, but can be seen."""

import logging
import os
import subprocess
from pathlib import Path

import pytest

from edgehmn.runtime.native_log import MAX_BYTES, native_log
from tests.command_line import finish, process, program


def said(capfd: pytest.CaptureFixture[str]) -> str:
    return capfd.readouterr().err


def test_what_is_printed_meanwhile_is_logged(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO), native_log():
        subprocess.run(["sh", "-c", "echo from outside >&2"], check=True)
        os.write(2, b"no \xff text\n" + b"x" * (2 * MAX_BYTES))
    assert said(capfd) == ""
    assert caplog.messages[:2] == ["from outside", "no � text"] and len(caplog.messages[2]) < MAX_BYTES
    os.write(2, b"afterwards")
    assert said(capfd) == "afterwards"


def test_it_ends_with_what_ends_it(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    before = os.dup(0)  # the lowest number that is free
    os.close(before)
    with pytest.raises(KeyboardInterrupt), native_log():
        os.write(2, b"why\n")
        raise KeyboardInterrupt
    os.write(2, b"afterwards")
    assert (caplog.messages, said(capfd)) == (["why"], "afterwards")
    assert os.dup(0) == before, "nothing is left open"
    os.close(before)


def test_where_standard_error_is_closed_it_does_nothing(tmp_path: Path) -> None:
    code = "import os; os.close(2)\nfrom edgehmn.runtime.native_log import native_log\nwith native_log(): print('done')"
    done = program(code, cwd=tmp_path, stderr=None)
    assert (done.returncode, done.stdout) == (0, "done\n")


@pytest.mark.parametrize("runtime", ["tflite", "onnx"])
def test_runtimes_say_nothing_unless_asked(runtime: str, tiny_export: Path, tmp_path: Path) -> None:
    """Of the whole process: their libraries write past Python."""
    run = ("run", tiny_export, "a", "-n", "1", "--runtime", runtime)
    assert finish(process(*run, "-q", cwd=tmp_path)).err == ""
    lines = finish(process(*run, cwd=tmp_path)).err.splitlines()
    assert len(lines) == 1 and "tokens/s" in lines[0]
    model = tiny_export / f"encoder.{runtime}"
    assert finish(process("profile", model, "--measured", "-q", cwd=tmp_path)).err == ""
    if runtime == "tflite":
        assert "XNNPACK" in finish(process(*run, "-v", cwd=tmp_path)).err
