"""A slip of the keyboard costs no file: what is there and is something else than the output is not written over."""

import io
from pathlib import Path

import pytest

from edgehmn.files import check_replaceable
from tests.command_line import edgehmn

DIARY = "a day like any other, and another one after it. " * 20


@pytest.fixture
def diary(tmp_path: Path) -> Path:
    path = tmp_path / "diary.txt"
    path.write_text(DIARY)
    return path


def refused(*words: str | Path) -> bool:
    done = edgehmn(*words, "-q")
    return done.code == 2 and "choose another name" in done.err and done.out == ""


def test_no_output_takes_the_place_of_what_was_read(
    tiny_export: Path, diary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, replay, model = tmp_path / "a.ehmd", tmp_path / "a.ehmr", tmp_path / "encoder.onnx"
    model.write_bytes((tiny_export / "encoder.onnx").read_bytes())
    assert edgehmn("personalise", tiny_export, diary, "--save-state", state, "-q").code == 0
    assert edgehmn("replay", "record", tiny_export, diary, "-o", replay, "-q").code == 0
    before = {path: path.read_bytes() for path in (diary, state, replay, model)}

    def work(*_: object) -> None:
        raise AssertionError("the work was begun")

    for name in ("replay.Recorder", "learn.personalise", "replay.again", "device.firmware.build_firmware"):
        monkeypatch.setattr(f"edgehmn.{name}", work)
    assert refused("personalise", tiny_export, diary, "--save-state", diary)
    assert refused("personalise", tiny_export, diary, "--save-state", replay)
    assert refused("personalise", tiny_export, "-", "--save-state", diary)
    assert refused("replay", "record", tiny_export, diary, "-o", diary)
    assert refused("replay", "run", tiny_export, replay, "--save-state", replay)
    assert refused("state", "load", state, "--to", diary)
    assert refused("state", "save", diary, "--from", state)
    assert refused("profile", model, "--target", "host", "--html", model)
    for form in ("--html", "--csv", "--markdown"):
        assert refused("profile", tiny_export, "--target", "host", form, diary)
    assert refused("build", "-o", diary)
    assert {path: path.read_bytes() for path in before} == before


def test_an_anchor_takes_the_place_of_a_profile_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = tmp_path / "pyproject.toml"
    project.write_text('[project]\nname = "mine"\n')
    monkeypatch.setattr("edgehmn.measure.anchor.anchor_host", None)  # which is not called
    assert refused("profile", project, "--anchor")
    assert project.read_text().startswith("[project]")


def test_an_output_takes_the_place_of_an_earlier_one(tiny_export: Path, diary: Path, tmp_path: Path) -> None:
    for name in ("a.ehmd", "new.ehmd", "empty.ehmd"):
        (tmp_path / "empty.ehmd").touch()
        for _ in range(2):
            assert edgehmn("personalise", tiny_export, diary, "--save-state", tmp_path / name, "-q").code == 0
    for _ in range(2):
        assert edgehmn("replay", "record", tiny_export, diary, "-o", tmp_path / "a.ehmr", "-q").code == 0
        reports = [word for form in ("html", "csv", "markdown") for word in (f"--{form}", tmp_path / f"a.{form}")]
        assert edgehmn("profile", tiny_export, "--target", "host", *reports, "-q").code == 0


def test_an_evaluation_takes_the_place_of_an_earlier_one_alone(
    tiny_export: Path, diary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("eval", "p0", "--model", tiny_export, "--data", diary, "--tokens", "100", "--seeds", "1", "-q", "--output")
    for _ in range(2):
        assert edgehmn(*words, tmp_path / "out").code == 0
    names = sorted(path.name for path in (tmp_path / "out").iterdir() if path.is_file())
    assert {"results.json", "table.md", "p0.svg"} <= set(names)
    monkeypatch.setattr("edgehmn.evaluation.plan.evaluate", None)
    for name in names:
        other = tmp_path / name
        other.mkdir()
        (other / name).write_text("mine")
        done = edgehmn(*words, other)
        assert done.code == 2 and name in done.err and "choose another" in done.err, done
        assert [path.read_text() for path in other.iterdir()] == ["mine"]


def test_what_is_about_to_be_replaced_is_said(
    tiny_export: Path, diary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second session that does not start from the first loses what that one learned."""
    state = tmp_path / "mine.ehmd"
    words = ("personalise", tiny_export, diary, "--save-state", state)
    assert "will be replaced" not in edgehmn(*words).err
    said = edgehmn(*words).err
    assert f"{state} holds" in said and f"will be replaced; to learn on from it: --load-state {state}" in said
    assert "will be replaced" not in edgehmn(*words, "--load-state", state).err + edgehmn(*words, "-q").err
    monkeypatch.setattr("sys.stdin", io.StringIO("a line\n"))
    assert "will be replaced" in edgehmn("personalise", tiny_export, "-", "--save-state", state).err
    state.write_bytes(state.read_bytes()[:-1])
    assert edgehmn(*words).code == 0, "a damaged one is replaced, too"


def test_a_state_that_is_not_listed_is_said(
    tiny_export: Path, diary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEHMN_STATES", str(tmp_path))
    assert edgehmn("personalise", tiny_export, diary, "--save-state", "mine").code == 0
    (tmp_path / "half.ehmd").write_bytes((tmp_path / "mine.ehmd").read_bytes()[:-1])
    (tmp_path / "folder.ehmd").mkdir()
    done = edgehmn("state", "list")
    assert done.code == 0 and "half" not in done.out and "mine" in done.out
    assert "half: truncated or damaged" in done.err and "folder.ehmd: a folder" in done.err
    assert edgehmn("state", "list", "-q").err == edgehmn("state", "list", "--json").err == ""


def test_what_is_no_file_is_left_to_who_writes_it(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nothing", Path("/dev/null")):
        check_replaceable(path, "state", b"EHMD")
