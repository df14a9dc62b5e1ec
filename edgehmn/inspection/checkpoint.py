"""Checkpoint directories: what config.json says, the headers of the weights, the kind of tokenizer."""

from pathlib import Path
from typing import Any

from edgehmn.checkpoint.read import CONFIG
from edgehmn.checkpoint.settings import parse_object
from edgehmn.checkpoint.trans_hmn import MODEL_TYPE
from edgehmn.errors import InvalidFileError
from edgehmn.inspection import safetensors
from edgehmn.inspection.facts import Facts, StoredTensor, known, tensor_facts
from edgehmn.inspection.source import Source, opened

MAX_CONFIG_BYTES = 1 << 20
MAX_TOKENIZER_BYTES = 1 << 26
MAX_FILES = 1000
# Our name for a size -> the names of the families of Hugging Face. Our own files use our names.
SIZES = {
    "n_layers": ("num_hidden_layers", "n_layer"),
    "d_model": ("hidden_size", "n_embd"),
    "d_hidden": ("intermediate_size", "n_inner"),
    "n_heads": ("num_attention_heads", "n_head"),
    "n_kv_heads": ("num_key_value_heads",),
    "vocab_size": (),
    "n_ctx": ("max_position_embeddings", "n_positions"),
    "rope_theta": (),
    "window": (),
    "tied_head": ("tie_word_embeddings",),
}
TOKENIZERS = {"tokenizer.model": "SentencePiece", "vocab.json": "BPE", "vocab.txt": "WordPiece"}
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")  # could run code when they are read, so they never are


def inspect(folder: Path) -> Facts:
    """Facts of a checkpoint directory. Raises InvalidFileError for a damaged file in it."""
    with opened(folder / CONFIG) as source:
        config = parse_object(_text(source, MAX_CONFIG_BYTES), source.name)
        files = [_file(CONFIG, source)]
    weights = sorted(folder.glob("*.safetensors"))
    if len(weights) > MAX_FILES:
        raise InvalidFileError(f"{folder}: has {len(weights)} safetensors files, more than {MAX_FILES}")
    tensors: list[StoredTensor] = []
    for path in weights:
        with opened(path) as source:
            tensors += safetensors.read_header(source)[0]
            files.append(_file(path.name, source))
    architecture = config.get("architecture") or config.get("model_type")
    pickles = [path.name for path in sorted(folder.iterdir()) if path.suffix in PICKLES]
    return known(
        {
            "kind": "checkpoint",
            "format": "edgehmn" if config.get("model_type") == MODEL_TYPE else "Hugging Face",
            "architecture": str(architecture)[:80] if architecture else None,
            "config": _sizes(config),
            "tokenizer": _tokenizer(folder),
            "tensors": tensor_facts(tensors),
            "files": files,
            "never_read": pickles or None,
        }
    )


def _sizes(config: dict[str, Any]) -> Facts:
    found: Facts = {}
    for ours, theirs in SIZES.items():
        value = next((config[name] for name in (ours, *theirs) if config.get(name) is not None), None)
        if isinstance(value, int | float | str):
            found[ours] = value[:80] if isinstance(value, str) else value
    return found


def _tokenizer(folder: Path) -> str | None:
    path = folder / "tokenizer.json"
    if path.is_file():
        with opened(path) as source:
            return tokenizer_kind(parse_object(_text(source, MAX_TOKENIZER_BYTES), source.name))
    return next((kind for name, kind in TOKENIZERS.items() if (folder / name).is_file()), None)


def tokenizer_kind(parsed: dict[str, Any]) -> str | None:
    """Of a tokenizer.json, such as "BPE, 4,096 tokens"; None if it is none."""
    model = parsed.get("model")
    if not isinstance(model, dict) or not isinstance(model.get("vocab"), dict | list):
        return None
    return f"{str(model.get('type', 'BPE'))[:40]}, {len(model['vocab']):,} tokens"


def _text(source: Source, limit: int) -> str:
    try:
        return source.everything(limit).decode("utf-8")
    except UnicodeDecodeError as e:
        raise InvalidFileError(f"{source.name}: not UTF-8 text (byte {e.start})") from e


def _file(name: str, source: Source) -> dict[str, Any]:
    return {"path": name, "bytes": source.size, "sha256": source.sha256()}
