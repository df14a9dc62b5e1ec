"""The functions on whole vectors for AVX2 give the bits of those in plain C, and keep to their arrays."""

import platform
import subprocess
from pathlib import Path
from shutil import which

import pytest

NATIVE = Path(__file__).parent.parent / "native"
FLAGS = ["-g", "-O1", "-std=c11", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-DEHMN_ASK_X86"]


@pytest.mark.skipif(platform.machine() != "x86_64" or which("gcc") is None, reason="not run here: needs gcc on x86-64")
def test_vectors_for_avx2_are_those_in_plain_c(tmp_path: Path) -> None:
    if "avx2" not in Path("/proc/cpuinfo").read_text("utf-8"):
        pytest.skip("not run here: this processor has no AVX2")
    objects = []
    for name in ("vectors", "vectors_avx2", "vectors_x86", "fixed", "tables", "compare_vectors_x86"):
        source = (Path(__file__).parent if name == "compare_vectors_x86" else NATIVE / "src") / f"{name}.c"
        objects.append(str(tmp_path / f"{name}.o"))
        own = ["-mavx2"] if name == "vectors_avx2" else []
        include = [f"-I{NATIVE / 'src'}", f"-I{NATIVE / 'include'}"]
        subprocess.run(["gcc", *FLAGS, *own, *include, "-c", str(source), "-o", objects[-1]], check=True)
    program = tmp_path / "compare"
    subprocess.run(["gcc", *FLAGS, *objects, "-o", str(program)], check=True)
    done = subprocess.run([str(program)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "the same\n"), done.stdout + done.stderr
