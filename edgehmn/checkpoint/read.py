"""The one door: whatever a model is stored as, its reader is found by what it holds."""

from pathlib import Path

from edgehmn import texts
from edgehmn.checkpoint.model import Checkpoint
from edgehmn.checkpoint.settings import read_settings
from edgehmn.checkpoint.trans_hmn import MODEL_TYPE, member, read_trans_hmn
from edgehmn.errors import InvalidFileError, UsageError

CONFIG = "config.json"  # of a checkpoint directory
REFERENCE = "reference"  # the name that stands for the model that ships with the package


def read_checkpoint(source: str | Path, *, n_ctx: int | None = None, tokenizer: str | Path | None = None) -> Checkpoint:
    """Read a trained model: a directory (our own, or Hugging Face's of the Llama or GPT-2 family), a GGUF file, a
    llama2.c .bin file, or the shipped model when `source` is "reference".

    n_ctx: positions of its window; by default as many as it was trained for, at most 512 (our own: all).
    tokenizer: of a llama2.c file, where it does not lie beside it under a usual name.
    Raises InvalidFileError for a damaged or contradictory file (naming the tensor or key), UnsupportedError for what
    this version does not run, UsageError for a model that is not there, a context that it has not or a tokenizer that
    it does not take, DependencyError where a file needs a package that is not installed.
    """
    if str(source) == REFERENCE and not Path(source).exists():
        path = texts.FOLDER
    else:
        path = Path(source)
    if not path.exists():
        raise UsageError(f"{source}: no such checkpoint; give a directory or file, or the word '{REFERENCE}'")
    if not path.is_dir():
        return _read_file(path, n_ctx, Path(tokenizer) if tokenizer else None)
    _refuse(tokenizer, path)
    return _read_folder(path, n_ctx)


def _refuse(tokenizer: str | Path | None, path: Path) -> None:
    if tokenizer is not None:
        raise UsageError(f"{tokenizer}: {path} has a tokenizer of its own; --tokenizer is for a llama2.c file")


def _read_folder(folder: Path, n_ctx: int | None) -> Checkpoint:
    if (folder / "manifest.json").is_file() and not (folder / CONFIG).exists():
        raise InvalidFileError(f"{folder}: an export already; give the checkpoint that it was made from")
    settings = read_settings(member(folder, CONFIG))
    if settings.values.get("model_type") == MODEL_TYPE:
        return read_trans_hmn(folder, settings, n_ctx)
    from edgehmn.checkpoint.hugging_face import read_hugging_face

    return read_hugging_face(folder, settings, n_ctx)


def _read_file(path: Path, n_ctx: int | None, tokenizer: Path | None) -> Checkpoint:
    from edgehmn.checkpoint import gguf, llama2c

    if not path.is_file():
        raise InvalidFileError(f"{path}: neither a file nor a directory; give one")
    try:
        with path.open("rb") as f:
            start = f.read(llama2c.HEADER_BYTES)
    except OSError as e:
        raise InvalidFileError(f"{path}: cannot be read ({e.strerror})") from e
    if start.startswith(gguf.MAGIC):
        _refuse(tokenizer, path)
        return gguf.read_gguf(path, n_ctx)
    if llama2c.is_llama2c(start):
        return llama2c.read_llama2c(path, n_ctx, tokenizer)
    raise InvalidFileError(f"{path}: neither a GGUF file nor one of llama2.c; give one, or a checkpoint directory")
