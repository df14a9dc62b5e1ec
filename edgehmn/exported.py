"""An export folder: manifest, image, tokenizer, encoders, conformance vectors. Read back, nothing is believed."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgehmn.checkpoint.trans_hmn import read_tokenizer
from edgehmn.core import Image
from edgehmn.errors import InvalidFileError, UsageError
from edgehmn.files import read_bytes, read_text, sha256
from edgehmn.runtime.encoder_runtime import EncoderRuntime

MANIFEST = "manifest.json"
SCHEMA = 1

# File name -> kind of artefact. An export holds nothing else, apart from its manifest.
ARTEFACTS = {
    "model.ehmn": "image",
    "encoder.onnx": "onnx",
    "encoder.tflite": "tflite",
    "edgehmn_model.c": "c",
    "edgehmn_model.h": "c",
    "tokenizer.json": "tokenizer",
    "vectors.safetensors": "vectors",
    "tuning.json": "tuning",
}
ALWAYS = ("model.ehmn", "tokenizer.json", "vectors.safetensors")


@dataclass(frozen=True)
class Export:
    """An export folder whose files have the sizes and hashes that its manifest says."""

    folder: Path
    manifest: dict[str, Any]
    image: Image

    @classmethod
    def open(cls, folder: str | Path) -> "Export":
        """Raises UsageError if there is no such folder, InvalidFileError if anything in it is not as it was
        written."""
        folder = Path(folder)
        if not folder.exists():
            raise UsageError(f"{folder}: no such folder; give the one that 'edgehmn export' wrote")
        if not folder.is_dir():
            raise InvalidFileError(f"{folder}: a file; give the folder that 'edgehmn export' wrote")
        manifest = _read_manifest(folder / MANIFEST)
        for artefact in manifest["artefacts"]:
            _check_artefact(folder, artefact)
        present = {name for name in ARTEFACTS if (folder / name).exists()}
        listed = [artefact["path"] for artefact in manifest["artefacts"]]
        if sorted(listed) != sorted(present.union(ALWAYS)):
            raise InvalidFileError(f"{folder / MANIFEST}: does not list the files of this folder; export again")
        image = Image(read_bytes(folder / "model.ehmn"), str(folder / "model.ehmn"))
        if image.id != manifest["image_id"]:
            raise InvalidFileError(f"{folder / MANIFEST}: belongs to another image; export again")
        return cls(folder, manifest, image)

    @cached_property
    def tokenizer(self) -> Any:
        path = self.folder / "tokenizer.json"
        return read_tokenizer(path, read_text(path), self.image.vocab_size)

    def encode(self, text: str) -> npt.NDArray[np.int32]:
        if any("\ud800" <= c <= "\udfff" for c in text):
            raise UsageError("the text is not valid Unicode; give UTF-8")
        try:
            return np.array(self.tokenizer.encode(text).ids, np.int32)
        except Exception as e:  # the tokenizers library raises bare Exception
            raise InvalidFileError(f"{self.folder / 'tokenizer.json'}: cannot encode this text ({e})") from e

    def decode(self, ids: npt.NDArray[np.integer]) -> str:
        return str(self.tokenizer.decode(ids.tolist()))


def encoder_runtime(kind: str, folder: Path, image: Image, seed: int = 0) -> EncoderRuntime:
    """The encoder of an export folder, `kind` "onnx" or "tflite", in front of the image's head."""
    path = folder / f"encoder.{kind}"
    if not path.exists():
        raise UsageError(f"{path}: missing; export with '--format {kind}' or '--format all'")
    if kind == "onnx":
        from edgehmn.runtime.onnx import OnnxEncoder

        return EncoderRuntime(OnnxEncoder(path), image, seed=seed)
    from edgehmn.runtime.tflite import TfliteEncoder

    return EncoderRuntime(TfliteEncoder(path), image, seed=seed)


def holds_only_an_export(folder: Path) -> bool:
    """Whether a folder may be replaced by an export: it looks like one, and nothing else lies in it."""
    names = {path.name for path in folder.iterdir() if path.is_file()}
    return names == {path.name for path in folder.iterdir()} and {MANIFEST, *ALWAYS} <= names <= {MANIFEST, *ARTEFACTS}


def describe_artefact(path: Path) -> dict[str, Any]:
    """What a manifest says about a file of an export."""
    data = read_bytes(path)
    return {"kind": ARTEFACTS[path.name], "path": path.name, "bytes": len(data), "sha256": sha256(data)}


def write_json(path: Path, value: dict[str, Any]) -> None:
    """In the form in which every JSON file of an export is written."""
    path.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n", "utf-8")


def _read_manifest(path: Path) -> dict[str, Any]:
    if path.is_symlink() or not path.is_file():
        raise InvalidFileError(f"{path}: missing; this is no folder that 'edgehmn export' wrote")
    try:
        manifest = json.loads(read_text(path))
        artefacts = manifest["artefacts"]
        sound = manifest["schema"] == SCHEMA and isinstance(manifest["image_id"], str) and isinstance(artefacts, list)
        sound = sound and all(
            isinstance(a["path"], str) and isinstance(a["bytes"], int) and isinstance(a["sha256"], str)
            for a in artefacts
        )
    except (ValueError, KeyError, TypeError, RecursionError) as e:
        raise InvalidFileError(f"{path}: not a manifest of an export ({e!r})") from e
    if not sound:
        raise InvalidFileError(f"{path}: not a manifest of an export that this version reads; export again")
    return dict(manifest)


def _check_artefact(folder: Path, artefact: dict[str, Any]) -> None:
    name = artefact["path"]
    path = folder / name
    if name not in ARTEFACTS or path.is_symlink() or not path.is_file():
        raise InvalidFileError(f"{folder / MANIFEST}: names {name!r:.80}, which is no file of an export; export again")
    data = read_bytes(path)
    if len(data) != artefact["bytes"] or sha256(data) != artefact["sha256"]:
        raise InvalidFileError(f"{path}: is not as it was exported (size or hash differs); export again")
