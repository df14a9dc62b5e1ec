"""Checkpoints on disk, as a training program would leave them."""

import json
from dataclasses import asdict
from pathlib import Path

import safetensors.numpy
import tokenizers

from edgehmn.checkpoint import Checkpoint


def write_checkpoint(checkpoint: Checkpoint, folder: Path) -> None:
    """Store a checkpoint of at least 256 tokens as a directory, with a tokenizer of bytes."""
    folder.mkdir()
    config = asdict(checkpoint.config) | {"model_type": "trans-hmn", "architecture": "llama"}
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    safetensors.numpy.save_file(checkpoint.tensors, folder / "model.safetensors")
    (folder / "tokenizer.json").write_text(byte_tokenizer(), "utf-8")


def byte_tokenizer() -> str:
    """The JSON of a tokenizer with one token per byte."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    model = tokenizers.models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[])
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    return str(tokenizer.to_str())
