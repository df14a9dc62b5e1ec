"""Reader of edgehmn's own directory: model.safetensors + config.json + tokenizer.json (docs/checkpoints.md)."""

from dataclasses import MISSING, Field, fields, replace
from pathlib import Path
from typing import Any

from edgehmn.checkpoint.model import Checkpoint, Config
from edgehmn.checkpoint.safetensors_file import read_header
from edgehmn.checkpoint.settings import Settings, checked, context
from edgehmn.checkpoint.stored import Tensors
from edgehmn.checkpoint.tokenizer import read_tokenizer
from edgehmn.errors import InvalidFileError, UnsupportedError
from edgehmn.files import read_text

MODEL_TYPE = "trans-hmn"
ARCHITECTURE = "llama"  # the one word that files of all versions have; what the model is, the other keys say


def read_trans_hmn(folder: Path, settings: Settings, n_ctx: int | None) -> Checkpoint:
    """settings: of its config.json. n_ctx: a smaller window than it was trained with. Raises as read_checkpoint."""
    config = _config(settings)
    path = member(folder, "model.safetensors")
    tensors = Tensors(path, read_header(path))
    found = dict(tensors.stored)
    statistics = config.statistics_shapes().keys()
    if statistics & found.keys():
        found |= {name: tensors[name] for name in statistics}  # all or none
    if n_ctx is not None:
        config = replace(config, n_ctx=context(settings.where, config.n_ctx, n_ctx))
        if config.positions == "learned" and "positions" in found:
            found["positions"] = found["positions"].rows(0, config.n_ctx)
    tokenizer = member(folder, "tokenizer.json")
    values = tensors.gather(config, found)
    tokenizer_json = read_text(tokenizer)
    read_tokenizer(tokenizer, tokenizer_json, config.vocab_size)
    return Checkpoint(config, values, tokenizer_json)


def member(folder: Path, name: str) -> Path:
    """A file of a checkpoint directory. Raises InvalidFileError if it is not there."""
    path = folder / name
    if not path.is_file():
        raise InvalidFileError(f"{path}: missing; a checkpoint directory needs this file")
    return path


def _config(settings: Settings) -> Config:
    if settings.values.get("architecture") != ARCHITECTURE:
        raise UnsupportedError(
            f"{settings.where}: architecture {settings.values.get('architecture')!r} is not supported; with model_type "
            f"'{MODEL_TYPE}' this version reads architecture '{ARCHITECTURE}'"
        )
    return checked(Config(**{f.name: _value(settings, f) for f in fields(Config)}), settings.where)


def _value(settings: Settings, field: "Field[Any]") -> Any:
    default = None if field.default is MISSING else field.default
    if field.name == "rope_divisors":
        divisors = settings.get("rope_divisors", list, [])
        return tuple(Settings(f"{settings.where}: rope_divisors", {"number": v}).get("number", float) for v in divisors)
    return settings.get(field.name, field.type, default)  # type: ignore[arg-type]
