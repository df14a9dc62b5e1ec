"""`edgehmn inspect`: what a file is. Nothing in it is executed, and only pieces of it are held in memory."""

from pathlib import Path

from edgehmn import replay
from edgehmn.checkpoint.settings import parse_object
from edgehmn.core import Image, lib
from edgehmn.errors import InvalidFileError, UsageError
from edgehmn.exported import MANIFEST
from edgehmn.files import MAX_INPUT_BYTES
from edgehmn.inspection import checkpoint, firmware, gguf, llama2c, onnx, own, safetensors, tflite
from edgehmn.inspection.facts import Facts
from edgehmn.inspection.source import Source, opened

KNOWN = (
    "an export folder, a checkpoint directory (edgehmn, Hugging Face), an image, a learned state, a replay, "
    "safetensors, GGUF, llama2.c (model, tokenizer), ONNX, TFLite, tokenizer.json, firmware (ELF or flash contents)"
)
SECTOR = 4096  # of which a flash that was read out has a whole number
IMAGE = lib.EHMN_IMAGE_MAGIC.to_bytes(4, "little")
STATES = (lib.EHMN_DELTA_MAGIC.to_bytes(4, "little"), b"EHMB")


def inspect(path: Path, trust: Path | None = None) -> Facts:
    """What a file or folder is: "kind", and what else is known of it, all JSON.

    trust: public key file by which an export must be signed. Raises UsageError if there is nothing, or `trust` goes
    with something else than an export, InvalidFileError if it is of none of the known kinds, or damaged.
    """
    if path.is_dir():
        if (path / MANIFEST).exists() or (path / MANIFEST).is_symlink():
            return own.inspect_export(path, trust)
        _refuse_trust(path, trust)
        if (path / checkpoint.CONFIG).is_file():
            return checkpoint.inspect(path)
        raise InvalidFileError(f"{path}: a folder with neither {MANIFEST} nor {checkpoint.CONFIG}; known are {KNOWN}")
    _refuse_trust(path, trust)
    with opened(path) as source:
        facts = _file_facts(source)
        return facts | {"size": source.size, "sha256": source.sha256()}


def _refuse_trust(path: Path, trust: Path | None) -> None:
    if trust is not None:
        raise UsageError(f"{path}: --trust is about an export folder; only that can be signed")


def _file_facts(source: Source) -> Facts:
    start = source.read(0, min(source.size, 16))
    if start.startswith(IMAGE):
        flash = source.size % SECTOR == 0 and source.size > source.unsigned(8, 4) and firmware.inspect_flash(source)
        return flash or own.inspect_image(Image(source.everything(MAX_INPUT_BYTES), source.name))
    if start.startswith(STATES):
        return own.inspect_state(source.name, source.everything(MAX_INPUT_BYTES))
    if start.startswith(replay.MAGIC):
        return own.inspect_replay(source.name, source.everything(MAX_INPUT_BYTES))
    if start.startswith(gguf.MAGIC):
        return gguf.inspect(source)
    if start.startswith(b"\x7fELF"):
        return firmware.inspect_elf(source)
    if tflite.looks_like(source):
        return tflite.inspect(source)
    if safetensors.looks_like(source):
        return safetensors.inspect(source)
    found = llama2c.inspect(source) or onnx.inspect(source) or _tokenizer(source, start)
    found = found or llama2c.inspect_tokenizer(source) or firmware.inspect_flash(source)
    if found is None:
        raise InvalidFileError(f"{source.name}: neither a model nor a part of one; known are {KNOWN}")
    return found


def _tokenizer(source: Source, start: bytes) -> Facts | None:
    """A tokenizer.json by itself."""
    if not start.lstrip().startswith(b"{") or source.size > checkpoint.MAX_TOKENIZER_BYTES:
        return None
    try:
        parsed = parse_object(source.everything(checkpoint.MAX_TOKENIZER_BYTES).decode(), source.name)
    except (InvalidFileError, UnicodeDecodeError):
        return None
    kind = checkpoint.tokenizer_kind(parsed)
    return {"kind": "tokenizer", "tokenizer": kind} if kind else None
