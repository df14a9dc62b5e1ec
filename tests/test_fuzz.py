"""The harnesses of fuzz/, for a moment: they build, their seeds are sound, and nothing is found at once. Longer:
python tools/run.py fuzz.fuzz --seconds 600."""

import subprocess
from pathlib import Path

import pytest

from fuzz import fuzz


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz")
    try:
        fuzz.build(folder)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not run here: clang with libFuzzer is missing (apt-get install clang libclang-rt-14-dev)")
    return fuzz.seeds(folder)


@pytest.mark.parametrize("target", fuzz.TARGETS)
def test_nothing_is_found_in_a_moment(folder: Path, target: str) -> None:
    said = fuzz.fuzz(target, folder, seconds=2)
    runs = [line for line in said.splitlines() if "number_of_executed_units" in line]
    assert runs and int(runs[0].split(":")[-1]) > 20
