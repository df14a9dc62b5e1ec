"""The functions on whole vectors for AVX2 and AVX-512 give the bits of those in plain C, and keep to their arrays."""

import platform
import subprocess
from pathlib import Path
from shutil import which

import pytest

from bench.native import flags_of_files

NATIVE = Path(__file__).parent.parent / "native"
FLAGS = ["-g", "-O1", "-std=c11", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-DEHMN_ASK_X86"]


@pytest.mark.skipif(platform.machine() != "x86_64" or which("gcc") is None, reason="not run here: needs gcc on x86-64")
@pytest.mark.parametrize("needed, define", [("avx2", []), ("avx512_vnni", ["-DAVX512"])])
def test_vectors_for_x86_are_those_in_plain_c(needed: str, define: list[str], tmp_path: Path) -> None:
    if needed not in Path("/proc/cpuinfo").read_text("utf-8"):
        pytest.skip(f"not run here: this processor has no {needed}")
    objects = []
    ours = ("vectors", "vectors_plastic", "vectors_reduce", "vectors_avx2", "vectors_avx2_plastic", "vectors_avx512")
    ours += ("vectors_x86", "fixed", "tables")
    for name in (*ours, "compare_vectors_x86"):
        source = (Path(__file__).parent if name == "compare_vectors_x86" else NATIVE / "src") / f"{name}.c"
        objects.append(str(tmp_path / f"{name}.o"))
        own = define if name == "compare_vectors_x86" else flags_of_files("gcc")[name]
        include = [f"-I{NATIVE / 'src'}", f"-I{NATIVE / 'include'}"]
        subprocess.run(["gcc", *FLAGS, *own, *include, "-c", str(source), "-o", objects[-1]], check=True)
    program = tmp_path / "compare"
    subprocess.run(["gcc", *FLAGS, *objects, "-o", str(program)], check=True)
    done = subprocess.run([str(program)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "the same\n"), done.stdout + done.stderr
