"""The one CMakeLists.txt builds the core for this host, with sanitizers, and for aarch64."""

import shutil
import subprocess
from pathlib import Path

import pytest

NATIVE = Path(__file__).resolve().parent.parent / "native"
AARCH64 = ("-DCMAKE_SYSTEM_NAME=Linux", "-DCMAKE_SYSTEM_PROCESSOR=aarch64", "-DCMAKE_C_COMPILER=aarch64-linux-gnu-gcc")


def build(folder: Path, *options: str) -> Path:
    """The static library of the core, built in `folder`."""
    for command in (["cmake", "-S", str(NATIVE), "-B", str(folder), *options], ["cmake", "--build", str(folder)]):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder / "libedgehmn_core.a"


@pytest.mark.parametrize("options", [(), ("-DEHMN_SANITIZE=ON",)], ids=["host", "sanitizers"])
def test_host_library(tmp_path: Path, options: tuple[str, ...]) -> None:
    library = build(tmp_path, *options)
    members = subprocess.run(["ar", "t", str(library)], capture_output=True, text=True, check=True).stdout.split()
    core = {f"{path.name}.o" for path in NATIVE.glob("src/*.c")}
    assert "encoder.c.o" in core and core == {name for name in members if name.endswith(".o")}


def test_aarch64_library(tmp_path: Path) -> None:
    if shutil.which("aarch64-linux-gnu-gcc") is None:
        pytest.skip("not run here: no aarch64-linux-gnu-gcc (apt-get install gcc-aarch64-linux-gnu)")
    library = build(tmp_path, *AARCH64)
    members = subprocess.run(
        ["aarch64-linux-gnu-objdump", "-f", str(library)], capture_output=True, text=True, check=True
    ).stdout
    assert "elf64-littleaarch64" in members
