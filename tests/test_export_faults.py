"""What can go wrong around an export: the old one stays whole, the new one appears only when it is complete, and every
failure has its documented exit code."""

import contextlib
import hashlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import safetensors.numpy

from edgehmn import files
from edgehmn.conformance import read_vectors
from edgehmn.errors import CannotWriteError, EdgeHMNError, InvalidFileError, UsageError
from edgehmn.exported import ALWAYS, MANIFEST, Export, holds_only_an_export
from edgehmn.files import new_folder
from tests.command_line import edgehmn, finish, process, texts

Copy = Callable[[Path], Path]
FILES = (*ALWAYS, MANIFEST, "encoder.onnx", "encoder.tflite", "edgehmn_model.c", "edgehmn_model.h")


def tree(folder: Path) -> dict[str, bytes | None]:
    """Everything below a folder: contents of files, None for folders."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


@pytest.fixture
def place(tiny_export: Path, tmp_path: Path) -> Path:
    """A folder with an older export in it, 'out'."""
    folder = tmp_path / "place"
    folder.mkdir()
    shutil.copytree(tiny_export, folder / "out")
    return folder


# ---- Good outcomes


def test_exporting_twice_gives_the_same_bytes(
    tiny_checkpoint: Path, short_text: Path, tiny_export: Path, place: Path
) -> None:
    """In another process, with another order of hashes, over an older one, at a path with spaces and accents."""
    out = place / "in Ordnung — ça va, 日本"
    environment = os.environ | {"PYTHONHASHSEED": "12345"}
    command = ("export", tiny_checkpoint, "-o", out, "--format", "all", *texts(short_text))
    done = finish(process(*command, cwd=place, env=environment))
    assert done.code == 0, done.err
    assert tree(out) == tree(tiny_export)
    assert b"Ordnung" not in b"".join(data or b"" for data in tree(out).values())
    assert edgehmn(*command).code == 0 and tree(out) == tree(tiny_export)
    assert sorted(p.name for p in place.iterdir()) == sorted([out.name, "out"])


@pytest.mark.parametrize("also", ["notes.txt", "model.ehmn.bak", "folder"])
def test_a_folder_that_holds_something_else_is_not_replaced(
    also: str, tiny_checkpoint: Path, short_text: Path, place: Path
) -> None:
    (place / "out" / also).mkdir() if also == "folder" else (place / "out" / also).write_text("mine", "utf-8")
    before = tree(place)
    done = edgehmn("export", tiny_checkpoint, "-o", place / "out", *texts(short_text))
    assert done.code == 2 and "choose another" in done.err and tree(place) == before


def test_a_folder_that_is_no_export_is_not_replaced(tiny_checkpoint: Path, short_text: Path, place: Path) -> None:
    for path in (place / "out").iterdir():
        if path.name != "model.ehmn":
            path.unlink()
    before = tree(place)
    assert edgehmn("export", tiny_checkpoint, "-o", place / "out", *texts(short_text)).code == 2
    assert tree(place) == before


# ---- No room, no permission


@pytest.mark.parametrize("room", [0, 500, 19_000, 30_000, 40_000])
def test_files_that_cannot_grow(room: int, tiny_checkpoint: Path, short_text: Path, place: Path) -> None:
    """A limit on the size of a file: the system refuses the write as it does on a full disk."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))

    before = tree(place)
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    command = ("export", tiny_checkpoint, "-o", place / "out", "--format", "all", *texts(short_text), "-q")
    done = finish(process(*command, cwd=place, preexec_fn=limit, env=environment))
    assert done.code == 13 and done.err.count("\n") == 1 and "cannot be written" in done.err, done
    assert tree(place) == before


@contextlib.contextmanager
def mounted(folder: Path, options: str) -> Iterator[None]:
    """A small file system in memory; skips where that is not allowed."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder]
    if os.geteuid() != 0 or shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("needs the right to mount a file system")
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("room", ["8k", "40k", "120k"])
def test_a_full_disk(room: str, tiny_checkpoint: Path, short_text: Path, tmp_path: Path) -> None:
    with mounted(tmp_path / "small", f"size={room}"):
        out = tmp_path / "small" / "out"
        done = edgehmn("export", tiny_checkpoint, "-o", out, "--format", "all", *texts(short_text), "-q")
        assert done.code == 13 and str(out) in done.err and "No space" in done.err, done
        assert tree(tmp_path / "small") == {}


def test_a_read_only_place(tiny_checkpoint: Path, short_text: Path, tiny_export: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    with mounted(small, "size=2m"):
        shutil.copytree(tiny_export, small / "out")
        subprocess.run(["mount", "-o", "remount,ro", small], check=True)
        before = tree(small)
        for out in (small / "out", small / "new"):
            done = edgehmn("export", tiny_checkpoint, "-o", out, *texts(short_text), "-q")
            assert done.code == 13 and str(out) in done.err, done
        assert tree(small) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only to the superuser")
def test_a_read_only_folder(tiny_checkpoint: Path, short_text: Path, place: Path) -> None:
    for folder in (place / "out", place):
        folder.chmod(0o555)
        before = tree(place)
        done = edgehmn("export", tiny_checkpoint, "-o", place / "out", *texts(short_text), "-q")
        folder.chmod(0o755)
        assert done.code == 13 and tree(place) == before, done


# ---- Ctrl-C


@pytest.mark.parametrize("notes", range(6))
def test_ctrl_c(notes: int, tiny_checkpoint: Path, short_text: Path, place: Path) -> None:
    """In the middle of what the first note announces, the second, and so on."""
    before = tree(place)
    text = place.parent / "long text"
    text.write_text(short_text.read_text("utf-8") * 20, "utf-8")  # else it is over before the signal comes
    options = ("--format", "all", "--calibration", short_text, "--evaluation", text)
    running = process("export", tiny_checkpoint, "-o", place / "out", *options, cwd=place)
    assert running.stderr is not None
    for _ in range(notes + 1):
        assert running.stderr.readline()
    running.send_signal(signal.SIGINT)
    done = finish(running)
    assert done.code == 130 and "interrupted" in done.err, done
    assert tree(place) == before


class Interrupting:
    """Raises KeyboardInterrupt before the n-th line that is run in one source file."""

    def __init__(self, n: int, file: str) -> None:
        self.left, self.file = n, file

    def __call__(self, frame: FrameType, event: str, argument: Any) -> Any:
        if frame.f_code.co_filename != self.file:
            return None
        if event == "line":
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt
        return self


@pytest.mark.parametrize("exchanges", [True, False])
def test_ctrl_c_before_every_line_of_taking_the_place(
    exchanges: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole, old or new, after each; and after one interrupt nothing else is left behind."""
    if not exchanges:
        monkeypatch.setattr(files, "_exchange", lambda a, b: False)
    elif sys.platform != "linux":
        pytest.skip("names are exchanged on Linux only")
    old, new = {"a": b"old", "b": b"old too"}, {"a": b"new"}
    place, done, n = tmp_path / "place", False, 0
    while not done:
        n += 1
        shutil.rmtree(place, ignore_errors=True)
        (place / "out").mkdir(parents=True)
        for name, data in old.items():
            (place / "out" / name).write_bytes(data)
        before = sys.gettrace()
        try:
            sys.settrace(Interrupting(n, str(files.__file__)))
            with new_folder(place / "out", lambda _: True) as work:
                (work / "a").write_bytes(b"new")
            done = True
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(before)
        assert tree(place / "out") in (old, new), n
        assert [p.name for p in place.iterdir()] == ["out"], n
    assert n > 25 and tree(place / "out") == new


# ---- Folders and files


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    for error, expected in ((OSError(28, "No space left"), CannotWriteError), (UsageError("no"), UsageError)):
        with pytest.raises(expected), new_folder(tmp_path / "out", holds_only_an_export) as work:
            (work / "a").write_bytes(b"half")
            raise error
        assert tree(tmp_path) == {}


def test_names_are_exchanged(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "a" / "x").write_bytes(b"1")
    if not files._exchange(tmp_path / "a", tmp_path / "b"):
        pytest.skip("this file system cannot exchange names")
    assert tree(tmp_path) == {"a": None, "b": None, "b/x": b"1"}
    assert not files._exchange(tmp_path / "a", tmp_path / "nothing")


def test_a_limit_on_what_is_read(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(bytes(100))
    assert len(files.read_bytes(tmp_path / "f", 100)) == 100
    with pytest.raises(InvalidFileError, match="99 bytes"):
        files.read_bytes(tmp_path / "f", 99)


# ---- Hostile folders, opened in this process


def refused(attempt: Callable[[], object]) -> bool:
    """Whether it ended in a documented error; anything else but success is a failed test."""
    try:
        attempt()
    except EdgeHMNError as e:
        assert isinstance(e, InvalidFileError), e
        return True
    return False


@pytest.mark.parametrize("name", FILES)
def test_every_damage_to_a_file_is_found(name: str, tiny_export: Path, copy_of: Copy) -> None:
    """40 truncations and 60 flips of each file. A flip in a figure of the manifest that is for people passes."""
    folder, rng = copy_of(tiny_export), random.Random(name)
    sound, passed = (folder / name).read_bytes(), 0
    cases = [sound[: rng.randrange(len(sound))] for _ in range(40)]
    for _ in range(60):
        data, bit = bytearray(sound), rng.randrange(8 * len(sound))
        data[bit // 8] ^= 1 << bit % 8
        cases.append(bytes(data))
    before = sorted(p.name for p in folder.iterdir())
    for data in cases:
        (folder / name).write_bytes(data)
        passed += not refused(lambda: Export.open(folder))
    assert passed == 0 or (name == MANIFEST and passed < 40), passed
    assert sorted(p.name for p in folder.iterdir()) == before


def forged(folder: Path, name: str, data: bytes) -> None:
    """Replace a file and let the manifest agree."""
    (folder / name).write_bytes(data)
    manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
    for artefact in manifest["artefacts"]:
        if artefact["path"] == name:
            artefact |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (folder / MANIFEST).write_text(json.dumps(manifest), "utf-8")


def read_all(folder: Path) -> None:
    export = Export.open(folder)
    read_vectors(folder / "vectors.safetensors", export.image)
    export.decode(export.encode("Any text, öäü."))


@pytest.mark.parametrize("name", ["model.ehmn", "tokenizer.json", "vectors.safetensors"])
def test_forged_files_are_refused_or_harmless(name: str, tiny_export: Path, copy_of: Copy) -> None:
    """Damage with every hash made right again: what reads the file refuses it, or finds it sound."""
    folder, rng = copy_of(tiny_export), random.Random(name)
    sound = (folder / name).read_bytes()
    for i in range(150):
        data = bytearray(sound[: rng.randrange(len(sound))] if i % 3 == 0 else sound)
        for _ in range(1 if i % 3 else 0):
            bit = rng.randrange(8 * (len(data) if i % 2 else min(1500, len(data))))
            data[bit // 8] ^= 1 << bit % 8
        forged(folder, name, bytes(data))
        assert refused(lambda: read_all(folder)) or len(data) == len(sound), i
    assert not (folder / name).is_symlink()


def test_vectors_of_other_types_are_refused(tiny_export: Path) -> None:
    export = Export.open(tiny_export)
    vectors = safetensors.numpy.load_file(tiny_export / "vectors.safetensors")
    for key, value in vectors.items():
        for kind in ("float32", "int64", "uint8", "int16"):
            if str(value.dtype) != kind:
                path = tiny_export.parent / f"vectors {key} {kind}"
                path.write_bytes(safetensors.numpy.save(vectors | {key: value.astype(kind)}))
                assert refused(lambda path=path: read_vectors(path, export.image))  # type: ignore[misc]
