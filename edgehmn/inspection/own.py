"""Our own files: export folders, images, learned states."""

from pathlib import Path
from typing import Any

from edgehmn.checkpoint.model import MLPS, NORMS, POSITIONS, WINDOWS
from edgehmn.core import Image, ffi, lib
from edgehmn.exported import Export
from edgehmn.inspection.facts import Facts
from edgehmn.replay import Replay
from edgehmn.signing import verify_export
from edgehmn.states import describe

SETTINGS = (
    "n_layers", "d_model", "d_hidden", "n_heads", "n_kv_heads", "vocab_size", "n_ctx", "n_dense", "n_guard",
    "value_frac", "hidden_frac", "tied_head",
)  # fmt: skip
WORDS = {"norm": NORMS, "final_norm": NORMS, "mlp": MLPS, "positions": POSITIONS, "window": WINDOWS}


def inspect_export(folder: Path, trust: Path | None) -> Facts:
    """Raises InvalidFileError also if it is not signed by the key of `trust`."""
    export = Export.open(folder)
    signature = verify_export(export, trust)
    facts = inspect_image(export.image) | {"kind": "export", "signature": signature.as_dict()}
    perplexity = export.manifest.get("perplexity")
    if isinstance(perplexity, dict):
        facts["perplexity"] = {str(k): v.get("token") for k, v in perplexity.items() if isinstance(v, dict)}
    return facts | {"artefacts": export.manifest["artefacts"]}


def inspect_image(image: Image) -> Facts:
    h = image.header
    config: dict[str, Any] = {name: int(getattr(h, name)) for name in SETTINGS}
    config |= {name: words[getattr(h, name)] for name, words in WORDS.items()}
    config["start_token"] = -1 if h.start_token == lib.EHMN_NO_TOKEN else int(h.start_token)
    memories = {
        "row_slots": list(h.rule.row_slots),
        "ngram_slots": int(h.rule.ngram_slots),
        "episodes": int(h.rule.episodes),
    }
    return {
        "kind": "image",
        "version": int(h.version),
        "image_id": image.id,
        "architecture": "gpt2" if config["positions"] == "learned" else "llama",
        "config": config | memories | {"bytes": len(image.bytes)},
        "tokenizer": f"{h.tokenizer_bytes:,} bytes" if h.tokenizer_bytes else "none",
        "tensors": _matrix_facts(image),
        "memory": {
            "arena_bytes": image.arena_bytes(plastic=True),
            "arena_static_bytes": image.arena_bytes(plastic=False),
            "delta_bytes": image.delta_bytes(),
        },
    }


def _matrix_facts(image: Image) -> Facts:
    """Of the matrices: how many, their parameters, and how many have which bits."""
    h = image.header
    n = (h.vectors_offset - h.matrices_offset) // ffi.sizeof("ehmn_matrix")
    matrices = ffi.cast("ehmn_matrix *", image.pointer + h.matrices_offset)[0:n]
    forms: dict[str, int] = {}
    for m in (m for m in matrices if m.rows):
        form = f"int{m.weight_bits} x int{m.input_bits}"
        forms[form] = forms.get(form, 0) + 1
    present = sum(1 for m in matrices if m.rows)
    parameters = sum(int(m.rows) * int(m.cols) for m in matrices)
    return {"count": present, "parameters": parameters} | {k: forms[k] for k in sorted(forms)}


def inspect_state(name: str, data: bytes) -> Facts:
    """A delta, or a state of several banks."""
    state = describe(name, data)
    config = {"learned": state.learned, "bytes": state.bytes}
    if state.banks > 1:
        return {"kind": "banks", "image_id": state.image_id, "config": config | {"banks": state.banks}}
    return {"kind": "delta", "image_id": state.image_id, "config": config}


def inspect_replay(name: str, data: bytes) -> Facts:
    """What was done to a model, call by call."""
    replay = Replay.from_bytes(data, name)
    config = {"seed": replay.seed, "calls": len(replay.calls)} | replay.counts()
    return {"kind": "replay", "image_id": replay.image_id, "config": config, "delta_sha256": replay.delta_sha256}
