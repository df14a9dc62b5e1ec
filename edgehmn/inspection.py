"""`edgehmn inspect`: what a file is, without executing anything in it."""

from pathlib import Path
from typing import Any

from edgehmn.core import Image, lib
from edgehmn.errors import InvalidFileError
from edgehmn.exported import Export
from edgehmn.files import read_bytes
from edgehmn.states import describe

SETTINGS = (
    "n_layers", "d_model", "d_hidden", "n_heads", "n_kv_heads", "vocab_size", "n_ctx", "n_dense", "n_guard",
    "value_frac", "hidden_frac",
)  # fmt: skip


def inspect(path: Path) -> dict[str, Any]:
    """Kind, image id and settings. Raises InvalidFileError if the file is of none of our kinds, or damaged."""
    if path.is_dir():
        export = Export.open(path)
        return _image_facts("export", export.image) | {"artefacts": export.manifest["artefacts"]}
    data = read_bytes(path)
    magic = int.from_bytes(data[:4], "little")
    if magic == lib.EHMN_IMAGE_MAGIC:
        return _image_facts("image", Image(data, str(path)))
    if magic == lib.EHMN_DELTA_MAGIC:
        state = describe(str(path), data)
        config = {"learned": state.learned, "bytes": state.bytes}
        return {"kind": "delta", "image_id": state.image_id, "config": config}
    raise InvalidFileError(f"{path}: neither an export folder nor an image nor a learned state")


def _image_facts(kind: str, image: Image) -> dict[str, Any]:
    config = {name: int(getattr(image.header, name)) for name in SETTINGS}
    rule = image.header.rule
    memories = {"row_slots": list(rule.row_slots), "ngram_slots": int(rule.ngram_slots), "episodes": int(rule.episodes)}
    return {"kind": kind, "image_id": image.id, "config": config | memories | {"bytes": len(image.bytes)}}
