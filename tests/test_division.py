"""The firmware's own division of 64 bits."""

import subprocess
from pathlib import Path
from shutil import which

import pytest

from edgehmn.device.boards import sources


@pytest.mark.skipif(which("gcc") is None, reason="not run here: gcc missing")
def test_it_divides_as_the_host_does(tmp_path: Path) -> None:
    flags = ["-std=c11", "-O1", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-fsanitize=undefined"]
    files = [Path(__file__).parent / "division.c", sources() / "ports" / "cortex-m" / "division.c"]
    subprocess.run(["gcc", *flags, "-fno-sanitize-recover", *files, "-o", tmp_path / "division"], check=True)
    done = subprocess.run([tmp_path / "division"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "3000000\n")
