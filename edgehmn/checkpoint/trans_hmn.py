"""Reader of edgehmn's own directory: model.safetensors + config.json + tokenizer.json."""

import json
from dataclasses import fields
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from edgehmn.checkpoint.model import Checkpoint, Config, FloatArray
from edgehmn.errors import InvalidFileError, UnsupportedError

REFERENCE = "reference"  # the name that stands for the model that ships with the package
MAX_DIMENSION = 1 << 20  # no size in a configuration may exceed this: it bounds every product of two


def read_checkpoint(source: str | Path) -> Checkpoint:
    """Read a checkpoint directory, or the shipped model when `source` is "reference".

    Raises InvalidFileError for a missing, damaged or contradictory file (naming the tensor or key) and
    UnsupportedError for an architecture that this version does not run.
    """
    if str(source) == REFERENCE and not Path(source).exists():
        folder = Path(str(resources.files("edgehmn"))) / "reference"
    else:
        folder = Path(source)
    if not folder.is_dir():
        raise InvalidFileError(f"{source}: no such checkpoint directory; give one, or the word '{REFERENCE}'")
    config = _read_config(folder / "config.json")
    tensors = _read_tensors(folder / "model.safetensors", config)
    tokenizer_json = _read_text(folder / "tokenizer.json")
    checkpoint = Checkpoint(config, tensors, tokenizer_json)
    _check_tokenizer(checkpoint, folder / "tokenizer.json")
    return checkpoint


def _read_text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except FileNotFoundError:
        raise InvalidFileError(f"{path}: missing; a checkpoint directory needs this file") from None
    except (OSError, UnicodeDecodeError) as e:
        raise InvalidFileError(f"{path}: cannot be read ({e})") from e


def _read_config(path: Path) -> Config:
    try:
        raw = json.loads(_read_text(path))
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
    return float(value) if kind is float else value


def _check_config(path: Path, c: Config) -> None:
    for f in fields(Config):
        value = getattr(c, f.name)
        if f.type is int and not 1 <= value <= MAX_DIMENSION:
            raise InvalidFileError(f"{path}: key '{f.name}' is {value}, outside 1..{MAX_DIMENSION}")
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

    if not path.is_file():
        raise InvalidFileError(f"{path}: missing; a checkpoint directory needs this file")
    tensors: dict[str, FloatArray] = {}
    try:
        with safetensors.safe_open(path, framework="numpy") as f:
            present = set(f.keys())
            for name, shape in config.tensor_shapes().items():
                if name not in present:
                    raise InvalidFileError(f"{path}: tensor '{name}' is missing", tensor=name)
                tensors[name] = _float_tensor(path, name, f.get_tensor(name), shape)
    except (safetensors.SafetensorError, TypeError, ValueError, OSError) as e:
        raise InvalidFileError(f"{path}: not a valid safetensors file ({e})") from e
    return tensors


def _float_tensor(path: Path, name: str, value: Any, shape: tuple[int, ...]) -> FloatArray:
    if value.dtype not in (np.float16, np.float32):
        raise UnsupportedError(f"{path}: tensor '{name}' has type {value.dtype}; float16 and float32 are read")
    if value.shape != shape:
        raise InvalidFileError(f"{path}: tensor '{name}' has shape {value.shape}, the configuration says {shape}")
    out: FloatArray = value.astype(np.float32)
    if not np.isfinite(out).all():
        raise InvalidFileError(f"{path}: tensor '{name}' holds NaN or infinity", tensor=name)
    return out


def _check_tokenizer(checkpoint: Checkpoint, path: Path) -> None:
    try:
        size = checkpoint.tokenizer.get_vocab_size()
    except Exception as e:  # the tokenizers library raises bare Exception
        raise InvalidFileError(f"{path}: not a tokenizer that the tokenizers library reads ({e})") from e
    if size > checkpoint.config.vocab_size:
        raise InvalidFileError(f"{path}: {size} tokens, but config.json says vocab_size {checkpoint.config.vocab_size}")
