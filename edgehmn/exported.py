"""An export folder: manifest, image, tokenizer, encoders, conformance vectors. Read back, nothing is believed."""

import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgehmn.checkpoint.read import CONFIG, REFERENCE
from edgehmn.checkpoint.tokenizer import read_tokenizer
from edgehmn.core import Image
from edgehmn.errors import InvalidFileError, UsageError
from edgehmn.files import read_bytes, read_text, sha256
from edgehmn.runtime.encoder import Encoder
from edgehmn.runtime.encoder_runtime import EncoderRuntime

MANIFEST = "manifest.json"
SIGNATURE = "manifest.sig"  # of the manifest, if the export is signed: edgehmn/signing.py
SCHEMA = 1
MAX_MANIFEST_BYTES = 1 << 20

# File name -> kind of artefact. An export holds nothing else, apart from its manifest and the signature of that.
ARTEFACTS = {
    "model.ehmn": "image",
    "encoder.onnx": "onnx",
    "encoder.tflite": "tflite",
    "edgehmn_model.c": "c",
    "edgehmn_model.h": "c",
    "tokenizer.json": "tokenizer",
    "vectors.safetensors": "vectors",
    "tuning.json": "tuning",
    "project-cmake.zip": "cmake",
    "project-arduino.zip": "arduino",
    "project-esp-idf.zip": "esp-idf",
    "project-zephyr.zip": "zephyr",
}
ALWAYS = ("model.ehmn", "tokenizer.json", "vectors.safetensors")


@dataclass(frozen=True)
class Export:
    """An export folder whose files have the sizes and hashes that its manifest says."""

    folder: Path
    manifest: dict[str, Any]
    manifest_bytes: bytes = field(repr=False)
    image: Image = field(repr=False)

    @classmethod
    def open(cls, folder: str | Path) -> "Export":
        """Raises UsageError if there is no such folder, InvalidFileError if anything in it is not as it was
        written."""
        folder = Path(folder)
        if not folder.exists():
            if str(folder) == REFERENCE:
                raise UsageError(f"{folder} is a checkpoint, and no export yet; first: edgehmn export {folder} -o OUT")
            raise UsageError(f"{folder}: no such folder; give the one that 'edgehmn export' wrote")
        if not folder.is_dir():
            raise InvalidFileError(f"{folder}: a file; give the folder that 'edgehmn export' wrote")
        if (folder / CONFIG).is_file() and not (folder / MANIFEST).exists():
            raise InvalidFileError(f"{folder}: a checkpoint, and no export yet; first: edgehmn export {folder} -o OUT")
        manifest, manifest_bytes = _read_manifest(folder / MANIFEST)
        for artefact in manifest["artefacts"]:
            _check_artefact(folder, artefact)
        present = {name for name in ARTEFACTS if (folder / name).exists()}
        listed = [artefact["path"] for artefact in manifest["artefacts"]]
        if sorted(listed) != sorted(present.union(ALWAYS)):
            raise InvalidFileError(f"{folder / MANIFEST}: does not list the files of this folder; export again")
        image = Image(read_bytes(folder / "model.ehmn"), str(folder / "model.ehmn"))
        if image.id != manifest["image_id"]:
            raise InvalidFileError(f"{folder / MANIFEST}: belongs to another image; export again")
        return cls(folder, manifest, manifest_bytes, image)

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


def encoder_runtime(
    kind: str, folder: Path, image: Image, seed: int = 0, provider: str = "cpu", banks: int = 1
) -> EncoderRuntime:
    """The encoder of an export folder, `kind` "onnx" or "tflite", in front of the image's head."""
    return EncoderRuntime(open_encoder(kind, folder, provider), image, seed=seed, banks=banks)


def open_encoder(kind: str, folder: Path, provider: str = "cpu") -> Encoder:
    """The encoder of an export folder, `kind` "onnx" (with one of onnxruntime's execution providers) or "tflite".
    Raises UsageError if it has none, DependencyError if the provider is not there."""
    path = folder / f"encoder.{kind}"
    if not path.exists():
        raise UsageError(f"{path}: missing; export with '--format {kind}' or '--format all'")
    if kind == "onnx":
        from edgehmn.runtime.onnx import OnnxEncoder

        return OnnxEncoder(path, provider=provider)
    from edgehmn.runtime.tflite import TfliteEncoder

    return TfliteEncoder(path)


def holds_only_an_export(folder: Path) -> bool:
    """Whether a folder may be replaced by an export: it looks like one, and nothing else lies in it."""
    names = {path.name for path in folder.iterdir()}
    if not all(path.is_file() for path in folder.iterdir()):
        return False
    return {MANIFEST, *ALWAYS} <= names <= {MANIFEST, SIGNATURE, *ARTEFACTS}


def describe_artefact(path: Path) -> dict[str, Any]:
    """What a manifest says about a file of an export."""
    data = read_bytes(path)
    return {"kind": ARTEFACTS[path.name], "path": path.name, "bytes": len(data), "sha256": sha256(data)}


def write_json(path: Path, value: dict[str, Any]) -> None:
    """In the form in which every JSON file of an export is written."""
    path.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n", "utf-8")


def _read_manifest(path: Path) -> tuple[dict[str, Any], bytes]:
    """What the manifest says, and its bytes, which a signature is of."""
    if path.is_symlink() or not path.is_file():
        raise InvalidFileError(f"{path}: missing; this is no folder that 'edgehmn export' wrote")
    data = read_bytes(path, MAX_MANIFEST_BYTES)
    try:
        manifest = json.loads(data.decode())
        artefacts = manifest["artefacts"]
        sound = manifest["schema"] == SCHEMA and isinstance(manifest["image_id"], str) and isinstance(artefacts, list)
        sound = sound and all(
            isinstance(a["path"], str) and isinstance(a["bytes"], int) and isinstance(a["sha256"], str)
            for a in artefacts
        )
    except (ValueError, KeyError, TypeError, RecursionError) as e:
        raise InvalidFileError(f"{path}: not a manifest of an export ({e!r}); export again") from e
    if not sound:
        raise InvalidFileError(f"{path}: not a manifest of an export that this version reads; export again")
    return dict(manifest), data


def _check_artefact(folder: Path, artefact: dict[str, Any]) -> None:
    name = artefact["path"]
    path = folder / name
    if name not in ARTEFACTS:
        raise InvalidFileError(f"{folder / MANIFEST}: names {name!r:.80}, which is no file of an export; export again")
    if path.is_symlink() or not path.is_file():
        raise InvalidFileError(f"{path}: missing, though {MANIFEST} names it; export again")
    data = read_bytes(path)
    if len(data) != artefact["bytes"] or sha256(data) != artefact["sha256"]:
        raise InvalidFileError(f"{path}: is not as it was exported (size or hash differs); export again")
