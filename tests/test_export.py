"""What an export is worth, and that nothing in its folder is believed when it is read back."""

import hashlib
import json
import os
import random
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from edgehmn.checkpoint import Config
from edgehmn.core import ffi
from edgehmn.export import pipeline
from edgehmn.export.c_array import write_c_array
from edgehmn.image import reseal
from tests.checkpoint_files import write_checkpoint
from tests.command_line import Result, edgehmn, texts
from tests.models import LEAST, SIX, TEN, TINY, random_checkpoint, tiny_image

Copy = Callable[[Path], Path]
LARGEST_RISE = {"image": 1.003, "onnx": 1.02, "tflite": 1.02}  # of token perplexity over float
FILES = (
    "manifest.json", "model.ehmn", "tokenizer.json", "vectors.safetensors", "encoder.onnx", "encoder.tflite",
    "edgehmn_model.c", "edgehmn_model.h",
)  # fmt: skip


def readers(export: Path, text: Path) -> list[tuple[str | Path, ...]]:
    """Every command that opens an export."""
    return [
        ("inspect", export),
        ("plan", export),
        ("validate", export),
        ("run", export, "abc", "-n", "3"),
        ("run", export, "abc", "-n", "3", "--runtime", "onnx"),
        ("run", export, "abc", "-n", "3", "--runtime", "tflite"),
        ("personalise", export, text, "--save-state", "mine"),
        ("eval", "p0", "--model", export, "--data", text),
        ("emulate", export),
    ]


def assert_refused(done: Result, *words: str) -> None:
    """Exit code 4, one sentence on stderr that names the file, nothing on stdout."""
    assert (done.code, done.out) == (4, ""), done
    assert done.err.count("\n") == 1 and "Traceback" not in done.err, done
    assert all(word in done.err for word in words), done


def test_quality(reference_export: Path) -> None:
    perplexity = json.loads((reference_export / "manifest.json").read_text("utf-8"))["perplexity"]
    for kind, limit in LARGEST_RISE.items():
        assert perplexity[kind]["token"] <= limit * perplexity["float"]["token"], kind
        assert perplexity[kind]["word"] <= limit**2 * perplexity["float"]["word"], kind


def test_the_reference_export_is_valid(reference_export: Path) -> None:
    result = edgehmn("validate", reference_export, "--runtime", "host", "--tokens", "64", "--json").result
    assert result["ok"] and {c["figure"] for c in result["checks"]} == {0}


def test_the_image_fits_beside_two_states(reference_export: Path) -> None:
    """13 flash sectors of 128 KiB, and one sector for each of two states."""
    sizes = edgehmn("plan", reference_export, "--json").result
    assert sizes["image_bytes"] <= 13 << 17 and sizes["delta_bytes"] <= 1 << 17


@pytest.mark.parametrize("compiler", [["gcc", "-std=c11"], ["gcc", "-std=c17", "-O2"]])
def test_c_array_is_the_image(compiler: list[str], tiny_export: Path, tmp_path: Path) -> None:
    assert_compiles_to(tiny_export, (tiny_export / "model.ehmn").read_bytes(), tmp_path, compiler)


def test_c_array_of_the_reference_model_is_its_image(reference_export: Path, tmp_path: Path) -> None:
    assert_compiles_to(reference_export, (reference_export / "model.ehmn").read_bytes(), tmp_path, ["gcc", "-std=c11"])


@pytest.mark.parametrize("config", [LEAST, SIX, TEN])
def test_c_array_of_other_lengths(config: Config, tmp_path: Path) -> None:
    data = tiny_image(config)
    write_c_array(data, tmp_path)
    assert_compiles_to(tmp_path, data, tmp_path, ["gcc", "-std=c11"])


def assert_compiles_to(folder: Path, data: bytes, work: Path, compiler: list[str]) -> None:
    """A program that links the array writes it out, and it starts where an image may."""
    (work / "main.c").write_text(
        '#include "edgehmn_model.h"\n#include <stdint.h>\n#include <stdio.h>\n'
        "int main(void) {\n"
        "    if ((uintptr_t)edgehmn_model % 16 != 0) return 1;\n"
        "    return fwrite(edgehmn_model, 1, sizeof edgehmn_model, stdout) != EDGEHMN_MODEL_BYTES;\n}\n",
        "utf-8",
    )
    flags = ["-Wall", "-Wextra", "-Wpedantic", "-Werror", f"-I{folder}"]
    program = work / "program"
    sources = [work / "main.c", folder / "edgehmn_model.c"]
    subprocess.run([*compiler, *flags, *sources, "-o", program], check=True)
    assert subprocess.run([program], capture_output=True, check=True).stdout == data


def cut(path: Path, keep: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data))])


def flip(path: Path, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[bit // 8 % len(data)] ^= 1 << bit % 8
    path.write_bytes(data)


def link_to_elsewhere(path: Path) -> None:
    """The right bytes, but from outside the folder."""
    elsewhere = path.parent.parent / f"elsewhere {path.name}"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES: dict[str, Callable[[Path], None]] = {
    "empty": lambda path: cut(path, 0),
    "half": lambda path: cut(path, 0.5),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\n"),
    "other": lambda path: path.write_bytes(random.Random(0).randbytes(5000)),
    "missing": Path.unlink,
    "folder": make_folder,
    "link": link_to_elsewhere,
    "flipped at its start": lambda path: flip(path, 3),
    "flipped in its middle": lambda path: flip(path, 4 * path.stat().st_size),
    "flipped at its end": lambda path: flip(path, 8 * path.stat().st_size - 14),
}
# White space at the end of a manifest, and figures in it that are for people: see the test of its every byte.
HARMLESS = {("manifest.json", "longer"), ("manifest.json", "flipped in its middle")}


@pytest.mark.parametrize(("name", "damage"), [pair for pair in product(FILES, DAMAGES) if pair not in HARMLESS])
def test_a_damaged_file_is_refused_by_every_command(
    name: str, damage: str, tiny_export: Path, short_text: Path, copy_of: Copy, states_folder: Path
) -> None:
    folder = copy_of(tiny_export)
    DAMAGES[damage](folder / name)
    before = snapshot(folder)
    for command in readers(folder, short_text):
        assert_refused(edgehmn(*command, "-q"), str(folder))
    assert snapshot(folder) == before and not states_folder.exists()


def test_a_flipped_bit_of_the_manifest(tiny_export: Path, copy_of: Copy) -> None:
    """A flipped bit is found, or is in a part that no command computes with."""
    folder = copy_of(tiny_export)
    path = folder / "manifest.json"
    sound = path.read_bytes()
    good = edgehmn("plan", folder).out
    refused = 0
    places = range(0, len(sound), 7)
    for byte in places:
        flip(path, 8 * byte + byte % 8)
        done = edgehmn("plan", folder, "-q")
        if done.code == 0:
            assert done.out == good
        else:
            assert_refused(done, str(folder))
            refused += 1
        path.write_bytes(sound)
    assert refused > len(places) / 2


def forge(folder: Path, name: str, data: bytes) -> None:
    """Replace a file and make the manifest agree: what an attacker, not an accident, does."""
    (folder / name).write_bytes(data)

    def describe(manifest: dict[str, Any]) -> None:
        for artefact in manifest["artefacts"]:
            if artefact["path"] == name:
                artefact |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}

    edit_manifest(folder, describe)


def edit_manifest(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text("utf-8"))
    change(manifest)
    path.write_text(json.dumps(manifest), "utf-8")


def rename_artefact(to: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda manifest: manifest["artefacts"][0].update(path=to)


FORGED_MANIFESTS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a path to a parent": rename_artefact("../model.ehmn"),
    "an absolute path": rename_artefact("/etc/passwd"),
    "an empty path": rename_artefact(""),
    "a path with a zero": rename_artefact("model.ehmn\0"),
    "a path that is a number": rename_artefact(7),
    "a path without an end": rename_artefact("x" * 100_000),
    "a path with an escape sequence": rename_artefact("\x1b[2J\n"),
    "the same file twice": lambda m: m["artefacts"].append(m["artefacts"][0]),
    "a file that is not listed": lambda m: m["artefacts"].pop(),
    "no files": lambda m: m.update(artefacts=[]),
    "files that are no list": lambda m: m.update(artefacts={"path": "model.ehmn"}),
    "files that are no objects": lambda m: m.update(artefacts=[1, None]),
    "another schema": lambda m: m.update(schema=2),
    "no schema": lambda m: m.pop("schema"),
    "another image": lambda m: m.update(image_id="0" * 64),
    "no image": lambda m: m.pop("image_id"),
}


@pytest.mark.parametrize("case", FORGED_MANIFESTS)
def test_a_forged_manifest_is_refused(case: str, tiny_export: Path, copy_of: Copy) -> None:
    folder = copy_of(tiny_export)
    edit_manifest(folder, FORGED_MANIFESTS[case])
    assert_refused(edgehmn("plan", folder, "-q"), "manifest.json")


@pytest.mark.parametrize("text", ["", "[]", "null", "3", "{}", "[" * 100_000, '{"artefacts": ' + "9" * 10_000 + "}"])
def test_a_manifest_that_is_none_is_refused(text: str, tiny_export: Path, copy_of: Copy) -> None:
    folder = copy_of(tiny_export)
    (folder / "manifest.json").write_text(text, "utf-8")
    assert_refused(edgehmn("plan", folder, "-q"), "manifest.json")


def changed_vectors(export: Path, **changes: Any) -> bytes:
    vectors = safetensors.numpy.load_file(export / "vectors.safetensors")
    vectors |= {k: v for k, v in changes.items() if v is not None}
    return safetensors.numpy.save({k: v for k, v in vectors.items() if changes.get(k, v) is not None})


def test_forged_files_are_refused_by_what_reads_them(tiny_export: Path, short_text: Path, copy_of: Copy) -> None:
    folder = copy_of(tiny_export)
    run, check = ("run", folder, "abc", "-n", "3"), ("validate", folder)
    n, width = safetensors.numpy.load_file(folder / "vectors.safetensors")["hidden"].shape
    tokenizer = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    tokenizer["model"]["vocab"]["!"] = 4_000_000_000
    noise = random.Random(1).randbytes(3000)
    garbage = (b"", noise, b"\xff" * 8 + b"{}", b"\0\0\0\0TFL3")
    cases: list[tuple[str, bytes, tuple[str | Path, ...]]] = [
        *((name, data, run) for name in ("tokenizer.json", "model.ehmn") for data in (b"", b"{}", noise)),
        ("tokenizer.json", json.dumps(tokenizer).encode(), run),
        *(("vectors.safetensors", data, check) for data in (*garbage, changed_vectors(folder, delta=None))),
        ("vectors.safetensors", changed_vectors(folder, extra=np.zeros(1)), check),
        ("vectors.safetensors", changed_vectors(folder, tokens=np.array(3, np.int32)), check),
        ("vectors.safetensors", changed_vectors(folder, tokens=np.zeros(0, np.int32)), check),
        ("vectors.safetensors", changed_vectors(folder, tokens=np.full(n, 257, np.int32)), check),
        ("vectors.safetensors", changed_vectors(folder, tokens=np.full(n, -1, np.int32)), check),
        ("vectors.safetensors", changed_vectors(folder, hidden=np.zeros((n, width + 1), np.int16)), check),
        ("vectors.safetensors", changed_vectors(folder, hidden=np.zeros((n, width), np.float32)), check),
        *((f"encoder.{kind}", d, (*run, "--runtime", kind)) for kind in ("onnx", "tflite") for d in garbage),
    ]  # fmt: skip
    for name, data, command in cases:
        sound = {path.name: path.read_bytes() for path in folder.iterdir()}
        forge(folder, name, data)
        assert_refused(edgehmn(*command, "-q"), name)
        for path in folder.iterdir():
            path.write_bytes(sound[path.name])


def test_an_encoder_of_another_model_is_refused(
    tiny_export: Path, short_text: Path, copy_of: Copy, tmp_path: Path
) -> None:
    write_checkpoint(random_checkpoint(replace(TINY, d_model=32)), tmp_path / "wider")
    wider = tmp_path / "wider export"
    assert edgehmn("export", tmp_path / "wider", "-o", wider, "--format", "all", *texts(short_text)).code == 0
    for kind in ("onnx", "tflite"):
        folder = copy_of(tiny_export)
        forge(folder, f"encoder.{kind}", (wider / f"encoder.{kind}").read_bytes())
        assert_refused(edgehmn("run", folder, "abc", "--runtime", kind, "-q"), "does not belong to the image")
        shutil.rmtree(folder)


def test_validate_catches_a_changed_weight(tiny_export: Path, copy_of: Copy) -> None:
    """One weight of one matrix, with every checksum made right again."""
    folder = copy_of(tiny_export)
    image = bytearray((folder / "model.ehmn").read_bytes())
    header = ffi.cast("ehmn_image *", ffi.from_buffer("uint8_t[]", image))
    matrices = ffi.cast("ehmn_matrix *", ffi.from_buffer("uint8_t[]", image) + header.matrices_offset)
    weights = np.frombuffer(image, np.int8)[matrices[0].weights_offset :]
    image[matrices[0].weights_offset] = 100 if weights[0] < 0 else 156
    forge(folder, "model.ehmn", reseal(image))
    done = edgehmn("validate", folder, "--runtime", "host", "--json")
    detail = done.envelope["error"]["detail"]
    assert done.code == 3 and not detail["ok"]
    assert {c["name"]: c["ok"] for c in detail["checks"]}["host: differing static scores"] is False
    assert "FAILED" in edgehmn("validate", folder, "--runtime", "host").err


def test_validate_catches_an_encoder_that_is_worse(tiny_export: Path, copy_of: Copy, monkeypatch: Any) -> None:
    monkeypatch.setattr("edgehmn.validation.LIMIT", {"onnx": -50.0})
    done = edgehmn("validate", copy_of(tiny_export), "--runtime", "onnx", "--tokens", "100", "--json")
    [check] = (c for c in done.envelope["error"]["detail"]["checks"] if not c["ok"])
    assert done.code == 3 and check["name"].startswith("onnx") and check["figure"] > check["limit"] > -50


def test_a_text_without_spaces_has_no_word_perplexity(tiny_checkpoint: Path, short_text: Path, tmp_path: Path) -> None:
    (tmp_path / "one word").write_text("abc" * 300, "utf-8")
    export = ("export", tiny_checkpoint, "-o", tmp_path / "out", "--calibration", short_text, "--max-ppl-increase", "5")
    result = edgehmn(*export, "--evaluation", tmp_path / "one word", "--json").result
    assert result["perplexity"]["image"]["word"] is None and result["perplexity"]["image"]["token"] > 1
    assert "Infinity" not in (tmp_path / "out" / "manifest.json").read_text("utf-8")
    assert "inf" in edgehmn(*export, "--evaluation", tmp_path / "one word").out


def test_an_export_may_be_moved_and_read_without_being_written(tiny_export: Path, copy_of: Copy) -> None:
    folder = copy_of(tiny_export)
    before = snapshot(folder)
    for path in folder.iterdir():
        path.chmod(0o444)
    moved = folder.rename(folder.with_name("bewegt nach — ölig"))
    assert edgehmn("run", moved, "abc").code == edgehmn("plan", moved).code == 0
    assert snapshot(moved) == before


def test_files_of_an_export_can_be_read_by_whom_the_user_lets(tiny_export: Path) -> None:
    mask = os.umask(0)
    os.umask(mask)
    assert {path.stat().st_mode & 0o777 for path in tiny_export.iterdir()} == {0o666 & ~mask}
    assert tiny_export.stat().st_mode & 0o777 == 0o777 & ~mask


def snapshot(folder: Path) -> dict[str, bytes | str]:
    """Contents of the files, and what else there is."""
    return {
        p.name: p.read_bytes() if p.is_file() and not p.is_symlink() else str(p.is_symlink()) for p in folder.iterdir()
    }


def test_inputs_of_8_bits_that_lose_too_much_are_given_up(
    tiny_checkpoint: Path, short_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `auto` falls back to is what `--inputs 16` makes, with the perplexity of that: of an encoder, too, whose
    head is the image's."""
    export = ("export", tiny_checkpoint, *texts(short_text), "--format", "image", "--format", "onnx", "--json", "-o")
    monkeypatch.setattr(pipeline, "NARROW_RISE", 100.0)
    narrow = edgehmn(*export, tmp_path / "narrow").result
    wide = edgehmn(*export, tmp_path / "wide", "--inputs", "16").result
    monkeypatch.setattr(pipeline, "NARROW_RISE", -100.0)
    given_up = edgehmn(*export, tmp_path / "given up").result
    assert given_up["image_id"] == wide["image_id"] != narrow["image_id"]
    assert given_up["perplexity"] == wide["perplexity"] and given_up["perplexity"].keys() == {"float", "image", "onnx"}
    assert (tmp_path / "given up" / "model.ehmn").read_bytes() == (tmp_path / "wide" / "model.ehmn").read_bytes()
