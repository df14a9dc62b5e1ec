"""Results that survive an interruption: one small file for each finished part, found again by what it depends on."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edgehmn.core import CoreModel, Image
from edgehmn.errors import InvalidFileError, UsageError
from edgehmn.files import check_place, read_text, write_bytes

PROBE_TOKENS = 256


def fingerprint(image: Image) -> str:
    """What this core learns with this image from a fixed text: results are kept only as long as it stays the same."""
    model = CoreModel(image)
    ids = np.random.default_rng(0).integers(0, image.vocab_size, PROBE_TOKENS, dtype=np.int32)
    scores = model.process(np.concatenate([ids, ids]), learn=True)
    return hashlib.sha256(scores.tobytes() + model.save()).hexdigest()


class Store:
    """Finished parts in FOLDER/parts; without a folder nothing is kept. Raises CannotWriteError."""

    def __init__(self, folder: Path | None, image: Image) -> None:
        self.folder = folder
        if folder is not None:
            check_place(folder / "parts" / "part")
        self._model = {"image_id": image.id, "core": fingerprint(image) if folder else ""}

    def part(self, name: str, settings: dict[str, Any], compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The result of `compute`, or the one that an earlier run with the same settings has left."""
        if self.folder is None:
            return compute()
        key = self._key(settings)
        path = self._path(name, key)
        kept = _read(path, key)
        if kept is not None:
            return kept
        result = compute()
        write_bytes(path, json.dumps({"key": key, "result": result}).encode())
        return result

    def has(self, name: str, settings: dict[str, Any]) -> bool:
        """Whether `part` would find its result."""
        key = self._key(settings)
        return self.folder is not None and _read(self._path(name, key), key) is not None

    def _key(self, settings: dict[str, Any]) -> dict[str, Any]:
        key: dict[str, Any] = json.loads(json.dumps(self._model | settings))
        return key

    def _path(self, name: str, key: dict[str, Any]) -> Path:
        assert self.folder is not None
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
        return self.folder / "parts" / f"{name}-{digest[:12]}.json"


def _read(path: Path, key: dict[str, Any]) -> dict[str, Any] | None:
    """A kept result; None where there is none, or what is there cannot be read."""
    try:
        kept = json.loads(read_text(path))
        return dict(kept["result"]) if kept["key"] == key else None
    except (UsageError, InvalidFileError, ValueError, KeyError, TypeError):
        return None


def digest_of(text: str) -> str:
    """Short name of a text, for the settings of a part."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
