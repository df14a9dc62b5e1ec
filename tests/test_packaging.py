"""What is published: the source archive builds the wheel, and the wheel holds all that runs and nothing else."""

import importlib.util
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

from edgehmn import __version__

ROOT = Path(__file__).resolve().parent.parent
NEEDED_TO_BUILD = ("scikit_build_core", "cffi", "cmake")
RUNTIME_FILES = (
    "edgehmn/cli/__init__.py", "edgehmn/py.typed", "edgehmn/_core.pyi", "edgehmn/export/pipeline.py",
    "edgehmn/export/onnx.py", "edgehmn/export/tflite.py", "edgehmn/export/c_array.py", "edgehmn/targets/__init__.py",
    "edgehmn/reference/config.json", "edgehmn/reference/model.safetensors", "edgehmn/reference/tokenizer.json",
    "edgehmn/reference/calibration.txt", "edgehmn/reference/evaluation.txt", "edgehmn/reference/personal.txt",
    "edgehmn/native/CMakeLists.txt", "edgehmn/native/include/edgehmn.h", "edgehmn/native/src/encoder.c",
    "edgehmn/export/project.py", "edgehmn/export/templates/shared/src/edgehmn.hpp", "edgehmn/device/boards.py",
)  # fmt: skip


def build(kind: str, source: Path, out: Path) -> Path:
    """Build an archive; offline, if what builds it is installed."""
    offline = all(importlib.util.find_spec(name) for name in NEEDED_TO_BUILD)
    command = [sys.executable, "-m", "build", f"--{kind}", *(["--no-isolation"] if offline else []), "-o", out, source]
    done = subprocess.run(command, cwd=out.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    [archive] = out.iterdir()
    return archive


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("sdist", ROOT, tmp_path_factory.mktemp("sdist") / "dist")


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Built out of the source archive alone, as an installer does where there is no wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.unpack_archive(sdist, folder)  # tarfile's own filters are not in Debian 12's Python 3.11.2
    return zipfile.ZipFile(build("wheel", folder / f"edgehmn-{__version__}", folder / "dist"))


def test_source_archive_holds_what_builds_and_what_tests(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[-1] for name in archive.getnames()}
    needed = ("pyproject.toml", "README.md", "LICENSE", "SPEC.md", "native/CMakeLists.txt", "tests/conftest.py")
    assert names.issuperset(needed)
    assert names.issuperset(name.replace("edgehmn/export/", "export/") for name in RUNTIME_FILES[:7])
    assert not [n for n in names if n.startswith(("build/", ".venv", ".ci/")) or n.endswith((".so", ".pyc"))]


def test_wheel_holds_all_that_runs(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    assert names.issuperset(RUNTIME_FILES)
    assert [n for n in names if n.startswith("edgehmn/_core") and n.endswith(".abi3.so")]
    sources = {
        f"edgehmn/native/{p.relative_to(ROOT / 'native').as_posix()}" for p in (ROOT / "native").rglob("*.[chS]")
    }
    assert sources and names.issuperset(sources), "firmware is built out of these"


def test_wheel_is_each_file_as_it_is_here(wheel: zipfile.ZipFile) -> None:
    for name in RUNTIME_FILES:
        inside = name.removeprefix("edgehmn/")
        here = ROOT / (inside if inside.startswith(("export/", "targets/", "native/")) else name)
        assert wheel.read(name) == here.read_bytes(), name


def test_wheel_holds_nothing_else(wheel: zipfile.ZipFile) -> None:
    top = {name.split("/")[0] for name in wheel.namelist()}
    assert top == {"edgehmn", f"edgehmn-{__version__}.dist-info"}
    assert not [n for n in wheel.namelist() if "test" in n.split("/")[1] or n.endswith((".pyc", ".o"))]


def test_wheel_serves_every_python_from_3_10(wheel: zipfile.ZipFile) -> None:
    assert wheel.filename is not None and "-cp310-abi3-" in wheel.filename


def test_metadata(wheel: zipfile.ZipFile) -> None:
    folder = f"edgehmn-{__version__}.dist-info"
    metadata = Parser().parsestr(wheel.read(f"{folder}/METADATA").decode())
    assert (metadata["Name"], metadata["Version"]) == ("edgehmn", __version__)
    assert metadata["License-Expression"] == "Apache-2.0" and f"{folder}/licenses/LICENSE" in wheel.namelist()
    extras = set(metadata.get_all("Provides-Extra") or [])
    assert extras >= {"onnx", "tflite", "device", "all"}
    assert "edgehmn = edgehmn.__main__:main" in wheel.read(f"{folder}/entry_points.txt").decode()
    assert str(metadata.get_payload()).strip() == (ROOT / "README.md").read_text("utf-8").strip()


def test_wheel_runs_where_nothing_else_of_it_is(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    """Unpacked elsewhere, with the reference model inside."""
    wheel.extractall(tmp_path / "site")
    program = (
        "import sys; sys.path.insert(0, 'site'); import edgehmn, edgehmn._core; "
        "assert edgehmn.__file__.startswith(sys.argv[1]); from edgehmn.checkpoint import read_checkpoint; "
        "from edgehmn.export.pipeline import FORMATS; print(read_checkpoint('reference').config.n_layers, FORMATS)"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == "6 ('image', 'onnx', 'tflite', 'c', 'cmake', 'arduino', 'esp-idf', 'zephyr')\n", done.stderr
