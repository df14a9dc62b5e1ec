"""Every format cut and changed at random: read, or refused in one sentence; never another error, never much memory."""

import contextlib
import os
import random
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from edgehmn.checkpoint import read_checkpoint
from edgehmn.errors import DependencyError, InvalidFileError, UnsupportedError
from edgehmn.files import read_bytes
from tests import checkpoint_files as files
from tests.models import GPT2, TINY, random_checkpoint
from tests.test_readers_gguf import EPS, byte_level_keys
from tests.test_readers_hugging_face import shard
from tests.test_readers_hugging_face import write as write_hugging_face

CUTS, FLIPS = 200, int(os.environ.get("EDGEHMN_FLIPS", 200))
# Our own reading of a tiny model takes little; of what a damaged file promises, nothing may be believed.
MEMORY = 16 << 20

STARTED = replace(TINY, vocab_size=268, n_ctx=12, final_norm="rmsnorm", window="restart", start_token=1)
LLAMA = replace(STARTED, vocab_size=272, d_model=32, d_hidden=64, norm_eps=EPS)


def _llama2c(version: int) -> Callable[[Path], tuple[Path, list[Path]]]:
    def make(folder: Path) -> tuple[Path, list[Path]]:
        path, tokenizer = folder / "model.bin", folder / "tokenizer.bin"
        path.write_bytes(files.llama2c_bytes(random_checkpoint(STARTED), version))
        files.write_llama2c_tokenizer(tokenizer, STARTED.vocab_size)
        return path, [path, tokenizer]

    return make


def _gguf(folder: Path) -> tuple[Path, list[Path]]:
    path = folder / "model.gguf"
    path.write_bytes(files.gguf_bytes(files.gguf_keys(LLAMA), files.gguf_tensors(random_checkpoint(LLAMA))))
    return path, [path]


def _gguf_of_gpt2(folder: Path) -> tuple[Path, list[Path]]:
    path, config = folder / "model.gguf", replace(GPT2, vocab_size=272, n_kv_heads=4)
    tokenizer = {key: value for key, value in byte_level_keys("smollm").items() if key.startswith("tokenizer")}
    keys = files.gguf_keys(config, "gpt2") | tokenizer
    path.write_bytes(files.gguf_bytes(keys, files.gpt2_gguf_tensors(random_checkpoint(config))))
    return path, [path]


def _own(folder: Path) -> tuple[Path, list[Path]]:
    files.write_checkpoint(random_checkpoint(TINY), folder / "own")
    return folder / "own", [folder / "own" / name for name in ("config.json", "model.safetensors", "tokenizer.json")]


def _hugging_face(case: str, in_shards: bool = False) -> Callable[[Path], tuple[Path, list[Path]]]:
    def make(folder: Path) -> tuple[Path, list[Path]]:
        write_hugging_face(folder, case)
        if in_shards:
            shard(folder)
        return folder, sorted(p for p in folder.iterdir() if p.is_file())

    return make


FORMATS: dict[str, Callable[[Path], tuple[Path, list[Path]]]] = {
    "own": _own,
    "llama": _hugging_face("llama"),
    "llama in shards": _hugging_face("llama", in_shards=True),
    "gpt2": _hugging_face("gpt2"),
    "gguf": _gguf,
    "gguf of gpt2": _gguf_of_gpt2,
    "llama2.c 0": _llama2c(0),
    "llama2.c 1": _llama2c(1),
    "llama2.c 2": _llama2c(2),
}


def cut(parts: list[Path], rng: random.Random) -> tuple[Path, bytes]:
    """One of the files, cut somewhere, and what it was."""
    part = rng.choice(parts)
    sound = part.read_bytes()
    part.write_bytes(sound[: rng.randrange(len(sound.rstrip()))])
    return part, sound


@pytest.mark.parametrize("name", FORMATS)
def test_cut_anywhere(name: str, tmp_path: Path) -> None:
    source, parts = FORMATS[name](tmp_path)
    read_checkpoint(source)
    rng = random.Random(name)
    for _ in range(CUTS):
        part, sound = cut(parts, rng)
        with pytest.raises((InvalidFileError, UnsupportedError)) as caught:
            read_checkpoint(source)
        assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)
        part.write_bytes(sound)


@pytest.mark.parametrize("name", FORMATS)
def test_memory_is_bounded(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The room that a file is read into is as large as the largest that would be taken, and given back untouched.
    monkeypatch.setattr(read_bytes, "__defaults__", (1 << 20,))
    source, parts = FORMATS[name](tmp_path)
    rng = random.Random(name)
    tracemalloc.start()
    try:
        for damage in (*[cut] * 10, *[change] * 20):
            part, sound = damage(parts, rng)
            with contextlib.suppress(InvalidFileError, UnsupportedError, DependencyError):
                read_checkpoint(source)
            part.write_bytes(sound)
        assert tracemalloc.get_traced_memory()[1] < MEMORY
    finally:
        tracemalloc.stop()


def change(parts: list[Path], rng: random.Random) -> tuple[Path, bytes]:
    """One of the files with one or three bits changed, and what it was. Half of the changes are made in the first
    4,000 bytes, where the headers are."""
    part = rng.choice(parts)
    sound = part.read_bytes()
    damaged = bytearray(sound)
    for _ in range(rng.choice((1, 1, 3))):
        damaged[rng.randrange(min(len(sound), rng.choice((4000, len(sound)))))] ^= 1 << rng.randrange(8)
    part.write_bytes(damaged)
    return part, sound


@pytest.mark.parametrize("name", FORMATS)
def test_changed_anywhere(name: str, tmp_path: Path) -> None:
    source, parts = FORMATS[name](tmp_path)
    rng = random.Random(name)
    refused = 0
    for _ in range(FLIPS):
        part, sound = change(parts, rng)
        try:
            read_checkpoint(source)
        except (InvalidFileError, UnsupportedError, DependencyError) as e:
            assert str(tmp_path) in str(e)
            refused += 1
        part.write_bytes(sound)
    assert refused > FLIPS // 50
