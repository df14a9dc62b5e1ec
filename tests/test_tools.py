"""The tools for whoever trains a model: what is wrong in one line, and nothing half-written."""

import shutil
import subprocess
import sys
from pathlib import Path

import safetensors.numpy

from edgehmn.checkpoint import read_checkpoint
from tests.command_line import program

TOOLS = Path(__file__).resolve().parent.parent / "tools"


def tool(name: str, *words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, TOOLS / name, *words], capture_output=True, text=True, check=False)


def test_training_without_pytorch_says_how_to_get_it(tmp_path: Path) -> None:
    code = (
        "import runpy, sys\nsys.modules['torch'] = None\n"
        f"runpy.run_path({str(TOOLS / 'train_reference.py')!r}, run_name='__main__')"
    )
    done = program(code, cwd=tmp_path)
    assert done.returncode == 1 and "pip install torch" in done.stderr and done.stderr.count("\n") == 1


def test_statistics_are_put_into_a_checkpoint(tiny_checkpoint: Path, short_text: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    shutil.copytree(tiny_checkpoint, own)
    before = safetensors.numpy.load_file(own / "model.safetensors")
    done = tool("measure_statistics.py", own, short_text)
    assert done.returncode == 0, done.stderr
    after = safetensors.numpy.load_file(own / "model.safetensors")
    assert all((after[name] == values).all() for name, values in before.items() if not name.startswith("statistics"))
    assert set(after) == set(before) | set(read_checkpoint(own).config.statistics_shapes())


def test_what_is_wrong_with_statistics_is_one_line(tiny_checkpoint: Path, short_text: Path, tmp_path: Path) -> None:
    for words, said in (
        ((tmp_path / "nothing", short_text), "no such file; give the folder"),
        ((tiny_checkpoint, tmp_path / "nothing.txt"), "nothing.txt: no such file"),
        (("reference", short_text), "no such file; give the folder"),
    ):
        done = tool("measure_statistics.py", *words)
        assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr, done.stderr
