"""Reader of edgehmn's own directory: model.safetensors + config.json + tokenizer.json."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from edgehmn import texts
from edgehmn.checkpoint.model import Checkpoint, Config, FloatArray
from edgehmn.errors import InvalidFileError, UnsupportedError
from edgehmn.files import read_text

REFERENCE = "reference"  # the name that stands for the model that ships with the package
MAX_DIMENSION = 1 << 20  # no size in a configuration may exceed this: it bounds every product of two
MAX_LAYERS = 1 << 10  # bounds the list of tensors
FLOAT_TYPES = ("F16", "F32")  # as safetensors names them


def read_checkpoint(source: str | Path) -> Checkpoint:
    """Read a checkpoint directory, or the shipped model when `source` is "reference".

    Raises InvalidFileError for a missing, damaged or contradictory file (naming the tensor or key) and
    UnsupportedError for an architecture that this version does not run.
    """
    if str(source) == REFERENCE and not Path(source).exists():
        folder = texts.FOLDER
    else:
        folder = Path(source)
    if not folder.is_dir():
        raise InvalidFileError(f"{source}: no such checkpoint directory; give one, or the word '{REFERENCE}'")
    config = _read_config(_member(folder, "config.json"))
    tensors = _read_tensors(_member(folder, "model.safetensors"), config)
    tokenizer_json = read_text(_member(folder, "tokenizer.json"))
    read_tokenizer(folder / "tokenizer.json", tokenizer_json, config.vocab_size)
    return Checkpoint(config, tensors, tokenizer_json)


def read_tokenizer(path: Path, text: str, vocab_size: int) -> Any:
    """A tokenizer that takes any text whole, all of whose tokens are below `vocab_size`. Raises InvalidFileError."""
    import tokenizers

    try:
        tokenizer = tokenizers.Tokenizer.from_str(text)
        largest = max(tokenizer.get_vocab().values(), default=-1)
        tokenizer.encode("Any text.\n")
    except Exception as e:  # the tokenizers library raises bare Exception
        raise InvalidFileError(f"{path}: not a tokenizer that the tokenizers library reads ({e})") from e
    if largest >= vocab_size:
        raise InvalidFileError(f"{path}: has token {largest}, but the model's vocab_size is {vocab_size}")
    if tokenizer.truncation is not None or tokenizer.padding is not None:
        raise InvalidFileError(f"{path}: cuts or pads texts; set its keys 'truncation' and 'padding' to null")
    return tokenizer


def _member(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.is_file():
        raise InvalidFileError(f"{path}: missing; a checkpoint directory needs this file")
    return path


def _read_config(path: Path) -> Config:
    try:
        raw = json.loads(read_text(path))
    except (ValueError, RecursionError) as e:
        raise InvalidFileError(f"{path}: not valid JSON ({e})") from e
    if not isinstance(raw, dict):
        raise InvalidFileError(f"{path}: must hold a JSON object")
    if raw.get("model_type") != "trans-hmn" or raw.get("architecture") != "llama":
        raise UnsupportedError(
            f"{path}: model_type {raw.get('model_type')!r} with architecture {raw.get('architecture')!r} is not "
            "supported; this version reads model_type 'trans-hmn' with architecture 'llama'"
        )
    values = {f.name: _config_value(path, raw, f.name, f.type) for f in fields(Config)}
    config = Config(**values)
    _check_config(path, config)
    return config


def _config_value(path: Path, raw: dict[str, Any], key: str, kind: Any) -> Any:
    if key not in raw:
        raise InvalidFileError(f"{path}: key '{key}' is missing")
    value = raw[key]
    expected: tuple[type, ...] = (int, float) if kind is float else (kind,)
    if not isinstance(value, expected) or (isinstance(value, bool) and kind is not bool):
        raise InvalidFileError(f"{path}: key '{key}' must be {kind.__name__}, not {value!r}")
    try:
        return float(raw[key]) if kind is float else value
    except OverflowError:
        raise InvalidFileError(f"{path}: key '{key}' is too large") from None


def _check_config(path: Path, c: Config) -> None:
    for f in fields(Config):
        value = getattr(c, f.name)
        if f.type is int and not 1 <= value <= MAX_DIMENSION:
            raise InvalidFileError(f"{path}: key '{f.name}' is {value}, outside 1..{MAX_DIMENSION}")
    if c.n_layers > MAX_LAYERS:
        raise InvalidFileError(f"{path}: key 'n_layers' is {c.n_layers}, above {MAX_LAYERS}")
    if c.d_model % c.n_heads or c.d_head % 2:
        raise InvalidFileError(f"{path}: d_model {c.d_model} over n_heads {c.n_heads} is not an even head size")
    if c.n_heads % c.n_kv_heads:
        raise InvalidFileError(f"{path}: n_heads {c.n_heads} is no multiple of n_kv_heads {c.n_kv_heads}")
    if c.final_norm not in ("layernorm", "rmsnorm"):
        raise UnsupportedError(f"{path}: final_norm {c.final_norm!r}; known are 'layernorm' and 'rmsnorm'")
    if not (0 < c.norm_eps < 1 and 1 < c.rope_theta < 1e12):
        raise InvalidFileError(f"{path}: norm_eps {c.norm_eps} or rope_theta {c.rope_theta} is out of range")


def _read_tensors(path: Path, config: Config) -> dict[str, FloatArray]:
    import safetensors

    tensors: dict[str, FloatArray] = {}
    try:
        with safetensors.safe_open(path, framework="numpy") as f:
            present = set(f.keys())
            expected = config.tensor_shapes()
            if present & set(config.statistics_shapes()):
                expected |= config.statistics_shapes()
            for name, shape in expected.items():
                if name not in present:
                    raise InvalidFileError(f"{path}: tensor '{name}' is missing", tensor=name)
                _check_form(path, name, f.get_slice(name), shape)
                tensors[name] = f.get_tensor(name).astype(np.float32)
    except (safetensors.SafetensorError, OSError) as e:
        raise InvalidFileError(f"{path}: not a valid safetensors file ({e})") from e
    for name, values in tensors.items():
        if not np.isfinite(values).all():
            raise InvalidFileError(f"{path}: tensor '{name}' holds NaN or infinity", tensor=name)
    return tensors


def _check_form(path: Path, name: str, stored: Any, shape: tuple[int, ...]) -> None:
    """Type and shape of a stored tensor, before it is read."""
    kind, found = stored.get_dtype(), tuple(stored.get_shape())
    if kind not in FLOAT_TYPES:
        known = " and ".join(FLOAT_TYPES)
        raise UnsupportedError(f"{path}: tensor '{name}' has type {kind}; {known} are read", tensor=name)
    if found != shape:
        raise InvalidFileError(f"{path}: tensor '{name}' has shape {found}, config.json says {shape}", tensor=name)
