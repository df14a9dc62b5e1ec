"""Every exit code that this version can give, reached by a real cause; and what a failure leaves behind."""

import errno
import os
import resource
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgehmn.cli.output import Session
from edgehmn.device.boards import find_board
from edgehmn.device.flash.emulated import Emulated
from edgehmn.device.flash.parts import Part
from edgehmn.device.flash.programmer import Place
from edgehmn.errors import EXIT_CODES, CannotWriteError, UsageError
from edgehmn.files import check_place, new_folder, read_bytes, read_text, write_bytes
from edgehmn.replay import Replay
from tests.checkpoint_files import write_checkpoint
from tests.command_line import edgehmn, texts
from tests.models import TINY, random_checkpoint

Copy = Callable[[Path], Path]
# Its conformance vectors are longer than its image.
LONG_VECTORS = replace(TINY, n_layers=1, d_hidden=3)


@pytest.fixture(scope="module")
def causes(tiny_export: Path, tiny_checkpoint: Path, short_text: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Name -> exit code, arguments, and words of the message that say where and what next."""
    folder = tmp_path_factory.mktemp("causes")
    (folder / "few words").write_text("too short", "utf-8")
    (folder / "empty").write_text(" \n", "utf-8")
    (folder / "latin").write_bytes("é".encode("latin-1") * 40)
    (folder / "eighty").write_text("eight by ten. " * 6, "utf-8")
    write_checkpoint(random_checkpoint(replace(TINY, n_layers=1)), folder / "other")
    shutil.copytree(tiny_checkpoint, folder / "mamba")
    (folder / "mamba" / "config.json").write_text('{"model_type": "mamba"}', "utf-8")
    image_only = folder / "image only"
    assert edgehmn("export", tiny_checkpoint, "-o", image_only, *texts(short_text)).code == 0
    assert edgehmn("export", folder / "other", "-o", folder / "stranger", *texts(short_text)).code == 0
    state = folder / "stranger.ehmd"
    assert edgehmn("personalise", folder / "stranger", short_text, "--save-state", state).code == 0
    own, replay = folder / "own.ehmd", folder / "stranger.ehmr"
    assert edgehmn("personalise", tiny_export, short_text, "--save-state", own).code == 0
    assert edgehmn("replay", "record", folder / "stranger", short_text, "-o", replay).code == 0
    (folder / "cut.ehmd").write_bytes(state.read_bytes()[:-1])
    shutil.copytree(image_only, folder / "half")
    (folder / "half" / "model.ehmn").unlink()
    export, run, out = ("export", tiny_checkpoint, "-o", folder / "out"), ("run", tiny_export), folder / "out"
    measured, profile = texts(short_text), ("profile", tiny_export, "--target", "host")
    return {
        "no such command": (2, ["frobnicate"], ["frobnicate", "--help"]),
        "a command almost": (2, ["proflie", tiny_export], ["did you mean profile"]),
        "no such target": (2, [*profile[:-1], "nosuch"], ["'nosuch'", "'edgehmn targets' lists them", "FILE.toml"]),
        "a target almost": (2, [*profile[:-1], "host,raspberry-pi5"], ["did you mean raspberry-pi-5 or"]),
        "a tile almost": (2, [*profile[:-1], "hermse"], ["did you mean hermes?"]),
        "a target to be shown, almost": (2, ["targets", "--target", "rp235"], ["did you mean rp2350"]),
        "a board to be measured, almost": (
            2, ["profile", folder / "x.toml", "--anchor", "--target", "hots"], ["did you mean host"],
        ),
        "a tile to be measured": (
            2, ["profile", folder / "x.toml", "--anchor", "--target", "hermes"], ["hermes is a simulated tile"],
        ),
        "a board almost": (2, ["build", "--target", "nucleo"], ["did you mean nucleo-h743zi2?", "'edgehmn targets'"]),
        "a parameter almost": (
            2, ["tune", tiny_export, "--data", short_text, "-o", folder / "tuned", "--parameters", "etalocal"],
            ["did you mean eta_local", "w_novelty"],
        ),
        "no file of a state": (2, [*run, "a", "--load-state", folder / "nothing.ehmd"], ["nothing.ehmd", "state list"]),
        "no such option": (2, ["plan", tiny_export, "--frob"], ["--frob", "'edgehmn plan --help'"]),
        "no such option of a command of a group": (2, ["state", "list", "--frob"], ["'edgehmn state list --help'"]),
        "a text of a variable that is not set": (2, ["personalise", tiny_export, ""], ["empty", "variable"]),
        "a checkpoint of one": (2, ["export", "", "-o", out], ["empty", "variable"]),
        "a place of one": (2, ["export", tiny_checkpoint, "-o", ""], ["empty", "variable"]),
        "a state of one": (2, [*run, "a", "--load-state", ""], ["after --load-state", "empty", "variable"]),
        "a name of one": (2, ["personalise", tiny_export, short_text, "--save-state="], ["--save-state=", "empty"]),
        "a tokenizer beside one": (2, [*export, *measured, "--tokenizer", short_text], ["tokenizer of its own"]),
        "no such export": (2, ["plan", folder / "nothing"], ["nothing", "edgehmn export"]),
        "the reference for an export": (2, ["run", "reference", "a"], ["edgehmn export reference -o OUT"]),
        "a checkpoint for an export": (4, ["run", tiny_checkpoint, "a"], [f"edgehmn export {tiny_checkpoint} -o OUT"]),
        "an export for a checkpoint": (4, ["export", tiny_export, "-o", out], ["an export already"]),
        "a file for an export": (4, ["plan", short_text], ["edgehmn export"]),
        "no such text": (2, ["personalise", tiny_export, folder / "nothing"], ["nothing"]),
        "a text too short to learn": (2, ["personalise", tiny_export, folder / "empty"], ["too short"]),
        "an empty prompt": (2, [*run, ""], ["empty"]),
        "a prompt that is no Unicode": (2, [*run, "\udcff"], ["Unicode"]),
        "a temperature that is no number": (2, [*run, "a", "--temperature", "nan"], ["--temperature"]),
        "a negative temperature": (2, [*run, "a", "--temperature", "-1"], ["--temperature"]),
        "a negative seed": (2, [*run, "a", "--seed", "-1"], ["--seed"]),
        "a target without the emulator": (2, [*run, "a", "--target", "x"], ["--runtime emulator"]),
        "a device without a port": (2, [*run, "a", "--runtime", "device"], ["--port"]),
        "an encoder that was not exported": (2, ["run", image_only, "a", "--runtime", "onnx"], ["--format onnx"]),
        "no such state": (2, [*run, "a", "--load-state", "nothing"], ["nothing", "known are: none"]),
        "a folder for a state": (2, ["personalise", tiny_export, short_text, "--save-state", "x/"], ["x/", "folder"]),
        "a name that is none": (2, [*run, "a", "--load-state", "two words"], ["letters"]),
        "an option that is given twice": (2, [*run, "a", "-n", "2", "--tokens", "3"], ["--tokens is given twice"]),
        "a command of a group almost": (2, ["state", "lst"], ["did you mean list?", "settle"]),
        "a tile to run, almost": (2, [*run, "a", "--runtime", "tile", "--target", "hermse"], ["did you mean hermes"]),
        "a port beyond all ports": (2, ["state", "save", "x", "--port", "socket://a:99999"], ["socket://HOST:PORT"]),
        "an address of nothing": (2, ["state", "save", "x", "--port", "socket://"], ["socket://HOST:PORT"]),
        "a state from nowhere": (2, ["state", "save", "x"], ["--port", "--from"]),
        "a state to nowhere": (2, ["state", "load", "x"], ["--port", "--to"]),
        "an evaluation text without words": (2, [*export, "--evaluation", folder / "empty"], ["evaluation", "empty"]),
        "an evaluation text too short": (
            2, [*export, "--calibration", short_text, "--evaluation", folder / "few words"], ["evaluation", "64"],
        ),
        "a calibration text too short": (2, [*export, "--calibration", folder / "few words"], ["calibration", "256"]),
        "a test text without words": (2, ["eval", "p0", "--model", tiny_export, "--data", folder / "empty"], ["empty"]),
        "no test text": (2, ["eval", "p0", "--model", tiny_export, "--data", folder], ["test.txt"]),
        "two test texts": (
            2, ["eval", "p0", "--model", tiny_export, "--data", short_text, "--data", short_text], ["one --data"],
        ),
        "nothing to take excerpts of": (
            2, ["eval", "excerpts", "--model", tiny_export, "--data", folder / "eighty"], ["2,000 tokens"],
        ),
        "excerpts of no text": (2, ["eval", "excerpts", "--model", tiny_export], ["no --data given"]),
        "excerpts of nothing": (2, ["eval", "excerpts", "--model", tiny_export, "--data", folder / "nil"], ["nil"]),
        "perplexity that may not rise": (3, [*export, *measured, "--max-ppl-increase", "-99"], ["--max-ppl-increase"]),
        "a limit that is no number": (2, [*export, *measured, "--max-ppl-increase", "nan"], ["--max-ppl-increase"]),
        "tokens that are no number": (2, [*profile, "--per-day", "nan"], ["--per-day"]),
        "tokens without an end": (2, [*profile, "--per-day", "1e999"], ["--per-day"]),
        "more learned than read": (2, [*profile, "--learned-per-day", "20000"], ["--per-day"]),
        "time that is no number": (2, [*run, "a", "--timeout", "nan"], ["--timeout"]),
        "no such checkpoint": (2, ["export", folder / "nothing", "-o", out], ["nothing", "reference"]),
        "a text that is no UTF-8": (4, ["personalise", tiny_export, folder / "latin"], ["latin", "byte 0"]),
        "a file beside standard input": (2, ["personalise", tiny_export, short_text, "-"], ["goes alone"]),
        "a folder without a text": (2, ["personalise", tiny_export, folder / "mamba"], ["mamba", ".txt"]),
        "a folder for a text": (4, ["tune", tiny_export, "--data", folder], ["a folder", "give a file"]),
        "a device for a checkpoint": (4, ["export", "/dev/null", "-o", out], ["neither a file nor a directory"]),
        "a text to inspect": (4, ["inspect", short_text], ["neither"]),
        "something endless to inspect": (4, ["inspect", "/dev/zero"], ["/dev/zero"]),
        "a name beyond all limits": (4, ["inspect", "x" * 5000], ["too long"]),
        "a state of another image": (
            4, [*run, "a", "--load-state", state], ["stranger.ehmd", "another image", "give the export"],
        ),
        **{
            f"a state of another image, {name}": (4, words, [f"{file}: was", "another image", "give the export"])
            for name, file, words in (
                ("to learn on", state, ["personalise", tiny_export, short_text, "--load-state", state]),
                ("to learn on, live", state, ["personalise", tiny_export, "-", "--load-state", state]),
                ("on a tile", state, [*run, "a", "--runtime", "tile", "--load-state", state]),
                ("to settle", state, ["state", "settle", tiny_export, "--name", state]),
                ("to record", state,
                 ["replay", "record", tiny_export, short_text, "-o", folder / "x.ehmr", "--load-state", state]),
                ("as a replay", replay, ["replay", "run", tiny_export, replay]),
            )
        },
        "states of two images": (4, ["state", "diff", state, own], ["nothing in common"]),
        "states of another image": (
            4, ["state", "diff", state, state, "--image", tiny_export], ["stranger.ehmd", "another image"],
        ),
        "a truncated state": (4, ["state", "save", "x", "--from", folder / "cut.ehmd"], ["cut.ehmd", "truncated"]),
        "a text for a state": (4, ["state", "save", "x", "--from", short_text], ["not a learned state"]),
        "an export that lacks a file": (4, ["plan", folder / "half"], ["model.ehmn", "missing", "export again"]),
        "another architecture": (5, ["export", folder / "mamba", "-o", out], ["config.json", "mamba"]),
        "an arena too small": (6, ["plan", tiny_export, "--arena", "1000"], ["1000", "needed"]),
        "no such device": (7, [*run, "a", "--runtime", "device", "--port", "/dev/tty-none"], ["/dev/tty-none"]),
        "an output below a file": (13, ["export", tiny_checkpoint, "-o", short_text / "out"], ["choose another"]),
        "an output in a place that is read-only": (13, ["export", tiny_checkpoint, "-o", "/proc/out"], ["/proc/out"]),
        "a device for a state": (13, ["state", "load", state, "--to", "/dev/full"], ["/dev/full"]),
    }  # fmt: skip


def test_a_place_that_cannot_be_written_is_found_out_before_the_work(
    tiny_export: Path, short_text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(*_: object) -> None:
        raise AssertionError("the work was begun")

    (short_text.parent / "a.ehmr").write_bytes(Replay("0" * 64, 0, (), "0" * 64, "0" * 64).to_bytes())
    for name in (
        "replay.Recorder",
        "replay.again",
        "learn.personalise",
        "evaluation.plan.evaluate",
        "workload.workload_of",
        "measure.anchor.anchor_host",
    ):
        monkeypatch.setattr(f"edgehmn.{name}", work)
    inside = short_text / "x"
    for words in (
        ["replay", "record", tiny_export, short_text, "-o", inside],
        ["replay", "run", tiny_export, short_text.parent / "a.ehmr", "--save-state", inside],
        ["personalise", tiny_export, short_text, "--save-state", inside],
        ["eval", "p3", "--model", tiny_export, "--output", inside],
        ["profile", tiny_export, "--target", "host", "--html", inside],
        ["profile", f"{inside}.toml", "--anchor"],
    ):
        done = edgehmn(*words, "-q")
        assert done.code == 13 and str(short_text) in done.err and "choose another place" in done.err, done


def test_each_cause_has_its_exit_code(causes: dict[str, tuple[int, list[str | Path], list[str]]]) -> None:
    for name, (code, arguments, words) in causes.items():
        done = edgehmn(*arguments, "-q")
        assert done.code == code, (name, done)
        assert done.out == "", (name, done)
        assert done.err.startswith(f"edgehmn {arguments[0]}: "), (name, done)
        assert done.err.count("\n") == (7 if code == 3 else 1), "the quality gate shows the five worst matrices"
        assert all(word in done.err for word in words), (name, done)


def test_each_cause_has_its_envelope(causes: dict[str, tuple[int, list[str | Path], list[str]]]) -> None:
    for name, (code, arguments, words) in causes.items():
        done = edgehmn(*arguments, "--json")
        envelope = done.envelope
        assert (done.code, done.err) == (code, ""), (name, done)
        assert (envelope["status"], envelope["command"], envelope["result"]) == ("error", arguments[0], {}), name
        error = envelope["error"]
        assert (error["code"], error["meaning"]) == (code, EXIT_CODES[code]), name
        assert all(word in error["message"] for word in words) and isinstance(error["detail"], dict), name


def test_a_failed_gate_leaves_nothing_behind(tiny_checkpoint: Path, short_text: Path, tmp_path: Path) -> None:
    place = tmp_path / "place"
    out = place / "out"
    done = edgehmn("export", tiny_checkpoint, "-o", out, *texts(short_text), "--max-ppl-increase", "-1", "--json")
    assert done.code == 3
    assert done.envelope["error"]["detail"]["perplexity"].keys() == {"float", "image"}
    assert list(place.iterdir()) == []


MISSING = {
    "onnx, to export": ("onnx", ["export", "CKPT", "-o", "OUT", "--format", "onnx"], "pip install 'edgehmn[onnx]'"),
    "onnxruntime, to run": ("onnxruntime", ["run", "EXPORT", "a", "--runtime", "onnx"], "pip install 'edgehmn[onnx]'"),
    "flatbuffers, to export": (
        "flatbuffers", ["export", "CKPT", "-o", "OUT", "--format", "tflite"], "pip install 'edgehmn[tflite]'",
    ),
    "litert, to run": (
        "ai_edge_litert.interpreter", ["run", "EXPORT", "a", "--runtime", "tflite"], "pip install 'edgehmn[tflite]'",
    ),
    "pyserial, for a device": (
        "serial", ["run", "EXPORT", "a", "--runtime", "device", "--port", "/dev/tty-none"],
        "pip install 'edgehmn[device]'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", MISSING)
def test_a_missing_package_is_named_with_the_line_that_mends_it(
    case: str, tiny_export: Path, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package, arguments, line = MISSING[case]
    for name in [package, *(m for m in sys.modules if m.startswith(f"{package}."))]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "edgehmn.export.tflite_builder", raising=False)  # imports what is missing
    places = {"CKPT": tiny_checkpoint, "EXPORT": tiny_export, "OUT": tmp_path / "place" / "out"}
    done = edgehmn(*(places.get(a, a) for a in arguments), "-q")
    assert done.code == 10 and line in done.err and done.err.count("\n") == 1, done
    assert not list(tmp_path.glob("place/*"))


def test_a_missing_program_is_named_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def work(*_: object) -> None:
        raise AssertionError("the work was begun")

    monkeypatch.setattr("edgehmn.demonstration.export_reference", work)
    monkeypatch.setenv("PATH", str(tmp_path))
    for words, package in (
        (["demo", "-o", tmp_path / "demo"], "qemu-system-arm"),
        (["profile", tmp_path / "x.toml", "--anchor", "--host", "me@board"], "openssh-client"),
    ):
        done = edgehmn(*words, "-q")
        assert done.code == 10 and f"apt-get install {package}" in done.err and done.err.count("\n") == 1, done


def test_memory_that_is_not_there_is_no_fault_of_ours(tiny_export: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_much(*_: object) -> None:
        np.empty(1 << 50, np.uint8)

    monkeypatch.setattr("edgehmn.planning.plan", too_much)
    done = edgehmn("plan", tiny_export)
    assert done.code == 6 and "not so much memory is free" in done.err and "fault of edgehmn" not in done.err
    assert edgehmn("plan", tiny_export, "--json").envelope["error"]["code"] == 6


def test_a_fault_of_our_own(tiny_export: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fault(*_: object) -> None:
        raise ZeroDivisionError("a fault")

    monkeypatch.setattr("edgehmn.planning.plan", fault)
    short = edgehmn("plan", tiny_export)
    assert short.code == 1 and "ZeroDivisionError: a fault" in short.err and "-v" in short.err
    assert "Traceback" not in short.err
    long = edgehmn("plan", tiny_export, "-v", "--json")
    assert long.code == 1 and "Traceback" in long.err and long.envelope["error"]["code"] == 1


def test_a_pipe_that_breaks_inside_is_no_success(tiny_export: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr("edgehmn.planning.plan", broken)
    done = edgehmn("plan", tiny_export)
    assert (done.code, done.out, "Broken pipe" in done.err) == (1, "", True), done
    assert edgehmn("plan", tiny_export, "--json").envelope["error"]["code"] == 1


def test_ctrl_c_leaves_the_old_export(
    tiny_export: Path, tiny_checkpoint: Path, short_text: Path, copy_of: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each line that an export reports, so at each of its stages."""
    out = copy_of(tiny_export)
    arguments = ("export", tiny_checkpoint, "-o", out, "--format", "all", *texts(short_text))
    stages = edgehmn(*arguments).err.splitlines()
    assert len(stages) >= 6
    before = contents(out)
    for stage in stages:

        def interrupt(_: Session, message: str, at: str = stage) -> None:
            if message == at:
                raise KeyboardInterrupt

        monkeypatch.setattr(Session, "note", interrupt)
        done = edgehmn(*arguments)
        assert done.code == 130 and "interrupted" in done.err, stage
        assert contents(out) == before and hidden(out.parent) == [], stage


@contextmanager
def files_end_at(size: int) -> Iterator[None]:
    """As on a disk that is full: no file can grow beyond `size` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_leaves_the_old_export(
    tiny_export: Path, tiny_checkpoint: Path, short_text: Path, copy_of: Copy
) -> None:
    """Full one byte before the end of each file that an export writes."""
    out = copy_of(tiny_export)
    before = contents(out)
    for size in sorted({len(data) for data in before.values()}):
        with files_end_at(size - 1):
            done = edgehmn("export", tiny_checkpoint, "-o", out, "--format", "all", *texts(short_text), "-q")
        assert done.code == 13 and "cannot be written" in done.err and done.err.count("\n") == 1, (size, done)
        assert contents(out) == before and hidden(out.parent) == [], size


def test_a_full_disk_is_noticed_while_vectors_are_written(short_text: Path, tmp_path: Path) -> None:
    write_checkpoint(random_checkpoint(LONG_VECTORS), tmp_path / "checkpoint")
    export = ("export", tmp_path / "checkpoint", "-o", tmp_path / "place" / "out", *texts(short_text), "-q", "--json")
    sizes = {a["kind"]: a["bytes"] for a in edgehmn(*export).result["artefacts"]}
    assert sizes["image"] < sizes["vectors"]
    before = contents(tmp_path / "place" / "out")
    with files_end_at(sizes["image"]):
        assert edgehmn(*export).code == 13
    assert contents(tmp_path / "place" / "out") == before and hidden(tmp_path / "place") == []


def test_a_full_disk_leaves_the_old_state(
    tiny_export: Path, short_text: Path, states_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = ("personalise", tiny_export, short_text, "--save-state", "mine")
    assert edgehmn(*save).code == 0
    before = contents(states_folder)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    done = edgehmn(*save, "--seed", "9")
    assert done.code == 13 and "No space left" in done.err and done.out == ""
    assert contents(states_folder) == before


def test_a_full_disk_leaves_no_half_of_an_emulated_flash(tmp_path: Path) -> None:
    board, path = Emulated(find_board("mps2-an386")), tmp_path / "flash"
    with files_end_at(4096), pytest.raises(CannotWriteError, match="free space"):
        board.write(Place(str(path), ""), [Part("image", 0, b"x")])
    assert not path.exists()
    with pytest.raises(CannotWriteError, match="/proc/flash: cannot be written"):
        board.write(Place("/proc/flash", ""), [])


def foreign(folder: Path, kind: str, export: Path) -> None:
    if kind == "a web application":
        folder.mkdir()
        (folder / "manifest.json").write_text('{"name": "app"}', "utf-8")
    elif kind == "an export with something beside it":
        shutil.copytree(export, folder)
        (folder / "my notes.txt").write_text("mine", "utf-8")
    elif kind == "an export with a folder in it":
        shutil.copytree(export, folder)
        (folder / "edgehmn_model.c").unlink()
        (folder / "edgehmn_model.c").mkdir()
    else:
        folder.write_text("a file", "utf-8")


@pytest.mark.parametrize(
    "kind", ["a web application", "an export with something beside it", "an export with a folder in it", "a file"]
)
def test_what_is_not_ours_is_never_replaced(
    kind: str, tiny_export: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    foreign(out, kind, tiny_export)
    before = sorted(tmp_path.rglob("*"))
    done = edgehmn("export", tiny_checkpoint, "-o", out, "-q")
    assert done.code == 2 and "choose another" in done.err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_that_cannot_take_its_place_gives_it_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "place"
    place.mkdir()
    (place / "old").touch()
    rename = Path.rename

    def fail_for_new(path: Path, target: Path) -> Path:
        if (path / "new").exists():
            raise OSError(errno.EIO, "Input/output error")
        return rename(path, target)

    monkeypatch.setattr("edgehmn.files._exchange", lambda a, b: False)  # as on a system that cannot swap names
    monkeypatch.setattr(Path, "rename", fail_for_new)
    with pytest.raises(CannotWriteError, match="Input/output"), new_folder(place, lambda _: True) as work:
        (work / "new").touch()
    assert [p.name for p in tmp_path.rglob("*")] == ["place", "old"]


def test_writing_follows_links_and_spares_what_is_no_file(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / ("long name " * 25)
    link.symlink_to(target)
    write_bytes(link, b"text")
    assert link.is_symlink() and read_bytes(target) == b"text"
    with pytest.raises(CannotWriteError, match="no file"):
        write_bytes("/dev/null", b"text")
    assert Path("/dev/null").is_char_device()
    with pytest.raises(CannotWriteError, match="no file"):
        write_bytes(tmp_path, b"text")
    with pytest.raises(UsageError):
        read_bytes(tmp_path / "target" / "below a file")


def test_a_user_without_a_home_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(_: int) -> None:
        raise KeyError

    for name in ("HOME", "EDGEHMN_STATES", "XDG_DATA_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", nobody)
    for words, variable in ((["state", "list"], "XDG_DATA_HOME"), (["build"], "XDG_CACHE_HOME")):
        done = edgehmn(*words, "-q")
        assert done.code == 2 and f"set HOME, or {variable}" in done.err and done.err.count("\n") == 1, done


def test_a_text_from_windows_is_the_text(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes("\ufeffa line\r\nand\rone more\r\n\ufeff".encode())
    assert read_text(tmp_path / "text") == "a line\nand\rone more\n\ufeff"


def test_looking_whether_a_place_can_be_written_makes_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    check_place(tmp_path / "no" / "such" / "folder" / "file")
    for place in (tmp_path / "file" / "x", tmp_path / "file" / "x" / "y", tmp_path):
        with pytest.raises(CannotWriteError):
            check_place(place)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_learned_states_are_as_private_as_the_user_wants(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        write_bytes(tmp_path / "mine", b"what I wrote")
    finally:
        os.umask(before)
    assert (tmp_path / "mine").stat().st_mode & 0o777 == 0o600


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def hidden(folder: Path) -> list[Path]:
    return [p for p in folder.iterdir() if p.name.startswith(".")]
