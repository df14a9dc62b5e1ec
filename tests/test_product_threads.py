"""Threads of the float model's products: one for a small model, unless the user says otherwise."""

import os
from pathlib import Path

import pytest

from edgehmn.cli.threads import CHOSEN_BY, SMALL_BYTES, one_thread_for_small
from tests.command_line import program

VARIABLE = CHOSEN_BY[0]


def chosen(cwd: Path, checkpoint: Path, *before: str, **environment: str) -> str:
    """What a fresh process has in the environment after the choice."""
    code = ["import os, sys", *before, "from edgehmn.cli.threads import one_thread_for_small",
            "one_thread_for_small(sys.argv[1])", f"print(os.environ.get('{VARIABLE}', 'all'))"]  # fmt: skip
    clean = {name: value for name, value in os.environ.items() if name not in CHOSEN_BY}
    done = program("\n".join(code), checkpoint, cwd=cwd, env=clean | environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_small_model_has_one_thread(tiny_checkpoint: Path, tmp_path: Path) -> None:
    for small in (tiny_checkpoint, Path("reference"), tmp_path / "nothing"):
        assert chosen(tmp_path, small) == "1"
    assert chosen(tmp_path, tiny_checkpoint, **{VARIABLE: "3"}) == "3"
    assert chosen(tmp_path, tiny_checkpoint, OMP_NUM_THREADS="3") == "all"
    assert chosen(tmp_path, tiny_checkpoint, "import numpy") == "all"
    assert chosen(tmp_path, tmp_path / ("x" * 300)) == "all", "what cannot be looked at is left to whoever reads it"


def test_a_large_model_has_all(tmp_path: Path) -> None:
    large = tmp_path / "model.gguf"
    for size, threads in ((SMALL_BYTES, "1"), (SMALL_BYTES + 1, "all")):
        with large.open("wb") as file:
            file.truncate(size)
        assert chosen(tmp_path, large) == chosen(tmp_path, tmp_path) == threads


@pytest.mark.parametrize(
    "command",
    [
        ("export", "CKPT", "-o", "OUT"),
        ("validate", "OUT", "--checkpoint", "CKPT"),
        ("eval", "p0", "--model", "OUT", "--data", "OUT", "--float", "CKPT"),
    ],
)
def test_commands_choose_before_numpy_is_there(command: tuple[str, ...], tiny_checkpoint: Path, tmp_path: Path) -> None:
    """The command ends where it asks for threads: NumPy must not have been read by then."""
    code = (
        "import sys\nimport edgehmn.cli.threads as t\n"
        "def ask(checkpoint): sys.exit(f'{checkpoint} {\"numpy\" in sys.modules}')\n"
        "t.one_thread_for_small = ask\nfrom edgehmn.cli import main\nmain(sys.argv[1:])"
    )
    words = [{"CKPT": str(tiny_checkpoint), "OUT": str(tmp_path)}.get(word, word) for word in command]
    done = program(code, *words, cwd=tmp_path)
    assert done.stderr.strip() == f"{tiny_checkpoint} False"


def test_this_process_has_numpy_already(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in CHOSEN_BY:
        monkeypatch.delenv(name, raising=False)
    one_thread_for_small(tiny_checkpoint)
    assert VARIABLE not in os.environ
