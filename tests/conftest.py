"""What tests share: the reference model and what becomes of it, a tiny model on disk, a clean place for states."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

# The folders bench/ and fuzz/, behind the installed package: edgehmn/ of the checkout has no compiled core.
sys.path.append(str(Path(__file__).resolve().parent.parent))

from edgehmn.checkpoint import Checkpoint, read_checkpoint
from edgehmn.image import image_of
from tests.checkpoint_files import write_checkpoint
from tests.command_line import Result, edgehmn, texts
from tests.models import TINY, random_checkpoint

LETTERS = "abc def, ghi.\nEvery little helps; 1, 2, 3: öäü — 日本\n"


@pytest.fixture(autouse=True)
def states_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test reads or writes the user's own states."""
    folder = tmp_path / "states of this test"
    monkeypatch.setenv("EDGEHMN_STATES", str(folder))
    return folder


@pytest.fixture(scope="session")
def run_cli() -> Callable[..., Result]:
    """`edgehmn` in this process: arguments in; exit code, standard output and standard error out."""
    return edgehmn


@pytest.fixture(scope="session")
def reference() -> Checkpoint:
    return read_checkpoint("reference")


@pytest.fixture(scope="session")
def reference_image(reference: Checkpoint) -> bytes:
    return image_of(reference)


@pytest.fixture(scope="session")
def reference_export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export of the reference model in every format. Not to be changed: see `copy_of`."""
    folder = tmp_path_factory.mktemp("reference") / "export"
    done = edgehmn("export", "reference", "-o", folder, "--format", "all")
    assert done.code == 0, done.err
    return folder


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint directory of a random model, one token per byte, that runs in no time."""
    folder = tmp_path_factory.mktemp("tiny") / "checkpoint"
    write_checkpoint(random_checkpoint(TINY), folder)
    return folder


@pytest.fixture(scope="session")
def short_text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text of some 600 bytes: long enough to calibrate on, to learn and to score."""
    path = tmp_path_factory.mktemp("text") / "a text.txt"
    path.write_text(LETTERS * 10, "utf-8")
    return path


@pytest.fixture(scope="session")
def tiny_export(tiny_checkpoint: Path, short_text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export of the tiny model in every format. Not to be changed: see `copy_of`."""
    folder = tmp_path_factory.mktemp("tiny") / "export"
    done = edgehmn("export", tiny_checkpoint, "-o", folder, "--format", "all", *texts(short_text))
    assert done.code == 0, done.err
    return folder


@pytest.fixture
def copy_of(tmp_path: Path) -> Callable[[Path], Path]:
    """A copy of a folder, to do with as one likes."""

    def copy(folder: Path) -> Path:
        return Path(shutil.copytree(folder, tmp_path / f"copy of {folder.name}"))

    return copy
