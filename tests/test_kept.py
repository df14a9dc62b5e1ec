"""A long measurement goes on where it was interrupted, and measures in a fresh checkout whatever is committed there."""

import json
from pathlib import Path
from typing import Any

import pytest

from bench import kept, learning, tiles
from bench.baselines import run as baselines
from bench.baselines import streams as texts
from edgehmn.checkpoint import Checkpoint
from edgehmn.errors import UsageError

COMMITTED: dict[str, Any] = json.loads(learning.RESULTS.read_text("utf-8"))


def measured(data: Path, name: str) -> dict[str, Any]:
    """Stands for a part of the figures: it takes a note of being measured, and fails where it is told to."""
    with (data / "measured").open("a") as f:
        f.write(f"{name}\n")
    if (data / f"no {name}").exists():
        raise UsageError(f"{name} cannot be measured")
    part: dict[str, Any] = COMMITTED[name]
    return part


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with texts, beside results that are committed and a README."""
    results = tmp_path / "results" / "learning.json"
    results.parent.mkdir()
    results.write_text(json.dumps(COMMITTED))
    (tmp_path / "README.md").write_text(f"before\n{learning.BEGIN}\nold\n{learning.END}\nafter\n")
    for name, value in (("RESULTS", results), ("ROOT", tmp_path), ("PLAN", tmp_path / "plan")):
        monkeypatch.setattr(learning, name, value)
    monkeypatch.setattr(kept, "FOLDER", tmp_path / "build")
    monkeypatch.setattr(learning, "EXPORT", tmp_path / "ref")
    monkeypatch.setattr(learning, "JOBS", {name: (measured, (name,)) for name in learning.JOBS})

    class Made:
        image_id = COMMITTED["image_id"]

    monkeypatch.setattr(learning, "export_model", lambda *_: Made)
    folder = tmp_path / "data"
    folder.mkdir()
    monkeypatch.setattr("sys.argv", ["learning", "--data", str(folder), "--jobs", "1"])
    return folder


def names(data: Path) -> list[str]:
    """What was measured since the last time."""
    note = data / "measured"
    found = note.read_text().split() if note.exists() else []
    note.unlink(missing_ok=True)
    return found


def test_what_is_committed_is_measured_again(data: Path) -> None:
    learning.RESULTS.write_text(json.dumps(COMMITTED | {"float": {"word": 0}}))
    for _ in range(2):
        learning.main()
        assert sorted(names(data)) == sorted(learning.JOBS)
        assert json.loads(learning.RESULTS.read_text()) == COMMITTED
    readme = (learning.ROOT / "README.md").read_text()
    assert readme.startswith("before\n") and readme.endswith("after\n") and "P0, frozen" in readme


def test_an_interrupted_run_goes_on(data: Path) -> None:
    before = learning.RESULTS.read_bytes()
    (data / "no onnx").touch()
    with pytest.raises(UsageError):
        learning.main()
    done = set(names(data)) - {"onnx"}
    assert {"p0", "p1"} <= done and learning.RESULTS.read_bytes() == before, "nothing half-measured is committed"
    (data / "no onnx").unlink()
    learning.main()
    again = names(data)
    assert "onnx" in again and "p0" not in again


def test_a_folder_that_is_not_there_is_no_measurement(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data.rmdir()
    with pytest.raises(SystemExit):
        learning.main()
    assert f"{data}: no such folder" in capsys.readouterr().err


def test_what_was_kept_with_other_settings_is_not_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "FOLDER", tmp_path / "build")
    results = tmp_path / "a" / "results.json"
    assert kept.begun(results, {"seed": 1}) == {"seed": 1}
    kept.keep(results, {"seed": 1, "runs": [1]})
    assert kept.begun(results, {"seed": 1}) == {"seed": 1, "runs": [1]} and not results.exists()
    assert kept.begun(results, {"seed": 2}) == {"seed": 2} == kept.begun(tmp_path / "other.json", {"seed": 2})
    kept.finish(results, {"b": 1, "a": 2}, sort_keys=True)
    assert list(json.loads(results.read_text())) == ["a", "b"] and kept.begun(results, {"seed": 1}) == {"seed": 1}


def test_one_tile_is_measured_beside_those_that_are_committed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = tmp_path / "tiles.json"
    monkeypatch.setattr(kept, "FOLDER", tmp_path / "build")
    for name, value in (("RESULTS", results), ("Encoded", lambda *_: None), ("read_text", lambda _: "text")):
        monkeypatch.setattr(tiles, name, value)
    monkeypatch.setattr(tiles, "markdown", lambda found: str(len(found["runs"])))
    done: list[str] = []

    def run(_: object, job: tiles.Job) -> dict[str, float]:
        done.append(job.target)
        return {"nats": len(done)}

    monkeypatch.setattr(tiles, "run", run)
    command = ["tiles", "--data", str(tmp_path), "--seeds", "1", "--only"]
    own = {}
    for target in ("hermes", "neurram", "hermes"):
        monkeypatch.setattr("sys.argv", [*command, target])
        done.clear()
        tiles.main()
        assert set(done) == {target, tiles.DIGITAL, tiles.BARE}, "measured again, whatever is committed"
        own[target] = json.loads(results.read_text())["runs"]
    assert len(own["hermes"]) == len(own["neurram"]) > len(done), "and the other target stays"
    assert (tmp_path / "tiles.md").read_text() == str(len(own["hermes"]))


def test_a_baseline_is_measured_beside_those_that_are_committed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reference: Checkpoint
) -> None:
    """One method at a time, the second cut short before its last figure: it goes on, and the first stays."""
    monkeypatch.setattr(kept, "FOLDER", tmp_path / "build")
    results, ids = tmp_path / "results" / "baselines.json", reference.encode("A river runs. " * 20)
    streams = dict.fromkeys((f"{texts.WHOLE}-{texts.FIRST}", texts.WHOLE), ids)
    monkeypatch.setattr(texts, "tuning_ids", lambda *_: {"a": ids[:30]})
    monkeypatch.setattr(texts, "final_ids", lambda *_: streams)
    done: list[str] = []
    finish = baselines.finish

    def noted(name: str, method: Any, workplace: Any, stream: Any, *rest: Any) -> None:
        done.append(f"{name} {stream.name}")
        if (tmp_path / "cut").exists() and stream.name == texts.WHOLE:
            raise UsageError("cut short")
        finish(name, method, workplace, stream, *rest)

    def run(name: str) -> None:
        words = ["--data", str(tmp_path), "--scratch", str(tmp_path / "scratch"), "--results", str(results)]
        monkeypatch.setattr("sys.argv", ["run", *words, "--only", name])
        baselines.main()

    monkeypatch.setattr(baselines, "finish", noted)
    run("static")
    first = json.loads(results.read_text())
    assert first["methods"]["static"]["final"].keys() == streams.keys() and len(done) == 2
    (tmp_path / "cut").touch()
    with pytest.raises(SystemExit):
        run("ngram-cache")
    assert json.loads(results.read_text()) == first, "nothing half-measured is committed"
    log = json.loads((tmp_path / "build" / results.name).read_text())["methods"]["ngram-cache"]["log"]
    (tmp_path / "cut").unlink()
    run("ngram-cache")
    found = json.loads(results.read_text())["methods"]
    assert found["static"] == first["methods"]["static"] and found["ngram-cache"]["log"] == log, "it went on"
    assert found["ngram-cache"]["final"].keys() == streams.keys() and not (tmp_path / "build" / results.name).exists()
    done.clear()
    run("static")
    assert len(done) == 2 and json.loads(results.read_text())["methods"].keys() == found.keys(), "measured again"
