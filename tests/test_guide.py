"""docs/personalising.md does what it says: its commands run in their order, and print what it shows."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from edgehmn.texts import PERSONAL, shipped
from tests.command_line import Result, check_understood, commands_in

GUIDE = (Path(__file__).resolve().parents[1] / "docs" / "personalising.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", GUIDE, re.M | re.S)  # language, text


def test_the_guide_does_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_cli: Callable[..., Result]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    Path("notes.txt").write_text(shipped(PERSONAL), "utf-8")
    said = ""
    for language, block in BLOCKS:
        if language == "python":
            exec(compile(block, "docs/personalising.md", "exec"), {})
        elif language == "" and not commands_in(block):
            missing = [line for line in block.splitlines() if " ".join(line.split()) not in " ".join(said.split())]
            assert not missing, f"not printed: {missing}"
        elif language == "":
            for words in commands_in(block):
                done = run_cli(*words)
                assert done.code == 0, (words, done.err)
                said = done.out
    assert Path("notes.ehmr").exists() and Path("other.ehmd").exists()


def test_what_needs_a_board_is_spelled_right() -> None:
    lines = [words for language, block in BLOCKS if language == "text" for words in commands_in(block)]
    assert len(lines) > 5
    for words in lines:
        check_understood(words)
