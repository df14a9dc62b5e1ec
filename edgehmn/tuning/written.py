"""A tuned export: the export that was tuned, with another rule in its image, and all that follows from that.

The encoder does not change. That the untaught model does not either is measured: its hidden vectors and static scores
must equal those that the old export recorded, so the perplexities in the manifest go on to hold. What depends on
learning, the conformance vectors, is made again.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from edgehmn import __version__
from edgehmn.conformance import read_vectors, record_vectors, write_vectors
from edgehmn.core import Image
from edgehmn.errors import EdgeHMNError, InvalidFileError
from edgehmn.export.c_array import write_c_array
from edgehmn.exported import MANIFEST, Export, describe_artefact, write_json
from edgehmn.files import read_bytes, read_text

LOG = "tuning.json"
UNCHANGED = ("tokenizer.json", "encoder.onnx", "encoder.tflite")


def write_tuned(export: Export, image: Image, log: dict[str, Any], folder: Path) -> list[dict[str, Any]]:
    """Fill `folder` with the files of `export` for `image`, which differs from its image in the rule alone, and
    tuning.json. Returns the artefacts."""
    old = read_vectors(export.folder / "vectors.safetensors", export.image)
    new = record_vectors(image, old["tokens"].astype(np.int32))
    if not all(np.array_equal(old[name], new[name]) for name in ("hidden", "static")):
        raise EdgeHMNError("the untaught model is not the same under the new rule; nothing was written")
    data = image.bytes.tobytes()
    (folder / "model.ehmn").write_bytes(data)
    write_vectors(new, folder / "vectors.safetensors")
    for name in UNCHANGED:
        if (export.folder / name).exists():
            (folder / name).write_bytes(read_bytes(export.folder / name))
    if (export.folder / "edgehmn_model.c").exists():
        write_c_array(data, folder)
    write_json(folder / LOG, log | {"earlier": _earlier(export)})
    artefacts = [describe_artefact(path) for path in sorted(folder.iterdir())]
    changed = {"edgehmn": __version__, "image_id": image.id, "artefacts": artefacts}
    write_json(folder / MANIFEST, export.manifest | changed)
    return artefacts


def _earlier(export: Export) -> list[Any]:
    """The logs of earlier tunings, the newest first: nothing that a rule was tuned on is forgotten."""
    path = export.folder / LOG
    if not path.exists():
        return []
    try:
        log = dict(json.loads(read_text(path)))
        return [log, *log.pop("earlier", [])]
    except (ValueError, TypeError, RecursionError) as e:
        raise InvalidFileError(f"{path}: not a log of a tuning ({e!r})") from e
