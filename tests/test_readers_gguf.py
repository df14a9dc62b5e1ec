"""GGUF files: what a converter writes is read as it was, in every type; the tokenizer; what is refused."""

import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgehmn.checkpoint import Checkpoint, Config, read_checkpoint
from edgehmn.errors import DependencyError, EdgeHMNError, InvalidFileError, UnsupportedError
from tests import checkpoint_files as files
from tests.checkpoint_files import BOOL, FLOAT32, INT32, STRING, UINT32, Array, Keys
from tests.models import GPT2, TINY, random_checkpoint

EPS = float(np.float32(1e-5))
LLAMA: Config = replace(
    TINY, vocab_size=272, d_model=32, d_hidden=64, n_ctx=12, norm_eps=EPS, final_norm="rmsnorm", window="restart"
)
STARTED = replace(LLAMA, start_token=1)
Stored = tuple[int, tuple[int, ...], bytes]


def read(path: Path, keys: Keys, tensors: dict[str, Stored], **options: Any) -> Checkpoint:
    path.write_bytes(files.gguf_bytes(keys, tensors))
    return read_checkpoint(path, **options)


@pytest.mark.parametrize("tied", [True, False])
def test_llama_is_read_as_it_was(tied: bool, tmp_path: Path) -> None:
    config = replace(STARTED, tied_head=tied)
    stored = random_checkpoint(config)
    found = read(tmp_path / "m.gguf", files.gguf_keys(config), files.gguf_tensors(stored))
    assert found.config == config and found.tensors.keys() == stored.tensors.keys()
    for name, values in stored.tensors.items():
        np.testing.assert_array_equal(found.tensors[name], values)
    assert read_checkpoint(tmp_path / "m.gguf", n_ctx=8).config == replace(config, n_ctx=8)


def test_an_older_version_and_a_head_that_is_the_embedding(tmp_path: Path) -> None:
    tensors = files.gguf_tensors(random_checkpoint(STARTED))
    tensors["output.weight"] = tensors["token_embd.weight"]
    (tmp_path / "m").write_bytes(files.gguf_bytes(files.gguf_keys(STARTED), tensors, version=2))
    assert read_checkpoint(tmp_path / "m").config == STARTED


def test_qwen2_keeps_its_rows_and_has_biases(tmp_path: Path) -> None:
    stored = random_checkpoint(STARTED)
    tensors = files.gguf_tensors(stored)
    for i in range(2):
        for name in ("q", "k"):
            tensors[f"blk.{i}.attn_{name}.weight"] = files.float32(stored.tensors[f"layers.{i}.{name}"])
        for name in ("q", "k", "v"):
            bias = stored.tensors[f"layers.{i}.{name}"][:, 0]
            stored.tensors[f"layers.{i}.{name}.bias"] = bias
            tensors[f"blk.{i}.attn_{name}.bias"] = files.float32(bias)
    found = read(tmp_path / "m.gguf", files.gguf_keys(STARTED, "qwen2"), tensors)
    assert found.tensors.keys() == stored.tensors.keys()
    assert all((found.tensors[name] == values).all() for name, values in stored.tensors.items())


def test_gpt2(tmp_path: Path) -> None:
    config = replace(GPT2, vocab_size=272, norm_eps=EPS, start_token=1, n_kv_heads=4)
    stored = random_checkpoint(config)
    found = read(tmp_path / "m.gguf", files.gguf_keys(config, "gpt2"), files.gpt2_gguf_tensors(stored))
    assert found.config == config and found.tensors.keys() == stored.tensors.keys()
    assert all((found.tensors[name] == values).all() for name, values in stored.tensors.items())


def test_frequencies(tmp_path: Path) -> None:
    tensors = files.gguf_tensors(random_checkpoint(STARTED))
    keys = files.gguf_keys(STARTED)
    linear = {"llama.rope.scaling.type": (STRING, "linear"), "llama.rope.scaling.factor": (FLOAT32, 4.0)}
    assert read(tmp_path / "a", keys | linear, tensors).config.rope_divisors == (4.0,) * 4
    own = {"rope_freqs.weight": files.float32(np.array([1, 1, 2.5, 8], np.float32))}
    assert read(tmp_path / "b", keys, tensors | own).config.rope_divisors == (1.0, 1.0, 2.5, 8.0)


# ---- Types of tensors


def half(w: Array) -> Stored:
    return files.F16, w.shape, w.astype("<f2").tobytes()


def brain(w: Array) -> Stored:
    return files.BF16, w.shape, files.bfloat16(w).tobytes()


def packed(kind: int) -> Callable[[Array], Stored]:
    """Blocks of 32 values with scales of 16 bits, as ggml lays them out."""

    def store(w: Array) -> Stored:
        raw = b""
        for block in w.reshape(-1, 32):
            low, high = float(block.min()), float(block.max())
            if kind == files.Q8_0:
                scale = np.float16(np.abs(block).max() / 127)
                raw += scale.tobytes() + np.rint(block / np.float32(scale)).astype(np.int8).tobytes()
                continue
            if kind == files.Q4_0:
                scale, least = np.float16(max(high, -low) / 7), np.float16(0)
                q = np.rint(block / np.float32(scale)).astype(int) + 8
            else:
                scale, least = np.float16((high - low) / 15), np.float16(low)
                q = np.rint((block - np.float32(least)) / np.float32(scale)).clip(0, 15).astype(int)
            raw += scale.tobytes() + (least.tobytes() if kind == files.Q4_1 else b"")
            raw += bytes(int(q[i]) | int(q[i + 16]) << 4 for i in range(16))
        return kind, w.shape, raw

    return store


@pytest.mark.parametrize(
    "store, steps",
    [(half, 2048), (brain, 128), (packed(files.Q8_0), 200), (packed(files.Q4_0), 12), (packed(files.Q4_1), 14)],
)
def test_types(store: Callable[[Array], Stored], steps: int, tmp_path: Path) -> None:
    """Every value within half a step (a whole one of what is cut off) of the largest of its block."""
    stored = random_checkpoint(STARTED)
    found = read(tmp_path / "m.gguf", files.gguf_keys(STARTED), files.gguf_tensors(stored, store))
    for name, values in stored.tensors.items():
        if values.ndim == 2 and name not in ("layers.0.q", "layers.0.k", "layers.1.q", "layers.1.k"):
            blocks = values.reshape(-1, 32)
            error = np.abs(found.tensors[name].reshape(-1, 32) - blocks)
            assert (error <= np.abs(blocks).max(1, keepdims=True) / steps).all(), name


def test_types_are_those_of_the_gguf_package(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf", reason="the gguf package is not here")
    config = replace(LLAMA, d_model=256, d_hidden=256, n_heads=8, n_kv_heads=4, n_layers=1, start_token=1)
    rng = np.random.default_rng(3)
    checkpoint = random_checkpoint(config)
    kinds = [k for k in gguf.GGMLQuantizationType if k.name in ("Q4_0", "Q4_1", "Q8_0", "Q4_K", "Q6_K", "Q2_K", "BF16")]
    assert len(kinds) == 7
    for kind in kinds:
        values, size = gguf.GGML_QUANT_SIZES[kind]
        raw = rng.integers(0, 256, (272 * 256 // values, size), dtype=np.uint8)
        raw.reshape(-1)[:] &= 0x3F  # of scales: finite
        tensors = files.gguf_tensors(checkpoint)
        tensors["token_embd.weight"] = (int(kind), (272, 256), raw.tobytes())
        found = read(tmp_path / "m.gguf", files.gguf_keys(config), tensors)
        expected = gguf.quants.dequantize(raw.reshape(272, -1), kind)
        np.testing.assert_array_equal(found.tensors["embed"], expected, kind.name)


def test_a_type_that_needs_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "gguf", None)
    tensors = files.gguf_tensors(random_checkpoint(STARTED))
    tensors["token_embd.weight"] = (14, (272, 256), b"")
    with pytest.raises(DependencyError, match=r"edgehmn\[gguf\]"):
        read(tmp_path / "m.gguf", files.gguf_keys(replace(STARTED, d_model=256)), tensors)


# ---- Tokenizers


def test_scores_and_bytes(tmp_path: Path) -> None:
    """A space goes in front, the best pair is merged first and the left one of two equal ones, the rest is bytes."""
    keys, tensors = files.gguf_keys(STARTED), files.gguf_tensors(random_checkpoint(STARTED))
    pieces = [p.replace(" ", "▁") for p in files.byte_pieces(272)[0]]
    found = read(tmp_path / "m.gguf", keys, tensors)
    for text, expected in {
        "": [],
        "ab": ["▁ab"],
        "a": ["▁a"],
        "aaa": ["▁a", "aa"],
        "baaa": ["▁", "b", "aaa"],
        "b a": ["▁", "b▁a"],
        "é\n": ["▁", "é", "<0x0A>"],
        "<s>": ["▁", "<0x3C>", "<0x73>", "<0x3E>"],
    }.items():
        assert found.encode(text).tolist() == [pieces.index(p) for p in expected], text
        assert found.tokenizer.decode(found.encode(text)) == text
    bare = read(tmp_path / "b.gguf", keys | {"tokenizer.ggml.add_space_prefix": (BOOL, False)}, tensors)
    assert bare.encode("ab").tolist() == [pieces.index("ab")]
    assert bare.tokenizer.decode(bare.encode(" ab")) == " ab"


def byte_level_keys(pre: str | None = None, **more: tuple[int, Any]) -> Keys:
    """The vocabulary of a byte-level tokenizer: 256 bytes, <s>, and some words."""
    import tokenizers

    letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    words = ["ab", "Ġab", "12", "123", "éx", "ĠĠ", "Ċ!"]
    merges = ["a b", "Ġ ab", "1 2", "12 3", "é x", "Ġ Ġ", "Ċ !"]
    tokens = letters + ["<s>"] + words + [f"[{i}]" for i in range(272 - 257 - len(words))]
    keys = files.gguf_keys(LLAMA)
    keys |= {
        "tokenizer.ggml.model": (STRING, "gpt2"),
        "tokenizer.ggml.tokens": (STRING, tokens),
        "tokenizer.ggml.merges": (STRING, merges),
        "tokenizer.ggml.token_type": (INT32, [1] * 256 + [3] + [1] * 15),
        "tokenizer.ggml.bos_token_id": (UINT32, 256),
    }
    return keys | ({"tokenizer.ggml.pre": (STRING, pre)} if pre else {}) | more


@pytest.mark.parametrize(
    "pre, words, start",
    [
        (None, ["ab", "Ġab", "Ġ", "123", "4", "Ċ", "!"], -1),
        ("gpt-2", ["ab", "Ġab", "Ġ", "123", "4", "Ċ", "!"], -1),
        ("smollm", ["ab", "Ġab", "Ġ", "1", "2", "3", "4", "Ċ", "!"], -1),
        ("qwen2", ["ab", "Ġab", "Ġ", "1", "2", "3", "4", "Ċ", "!"], -1),
        ("llama-bpe", ["ab", "Ġab", "Ġ", "123", "4", "Ċ", "!"], 256),
    ],
)
def test_byte_level_words(pre: str | None, words: list[str], start: int, tmp_path: Path) -> None:
    keys, tensors = byte_level_keys(pre), files.gguf_tensors(random_checkpoint(LLAMA))
    found = read(tmp_path / "m.gguf", keys, tensors)
    tokens = keys["tokenizer.ggml.tokens"][1]
    text = "ab ab 1234\n!"
    assert [tokens[i] for i in found.encode(text)] == words
    assert found.tokenizer.decode(found.encode(text)) == text and found.encode("<s>").tolist() == [256]
    assert found.config.start_token == start
    asked = read(tmp_path / "b.gguf", byte_level_keys(pre, **{"tokenizer.ggml.add_bos_token": (BOOL, True)}), tensors)
    assert asked.config.start_token == 256 and asked.encode(text).tolist() == found.encode(text).tolist()


# ---- What is refused

WRONG: dict[str, tuple[Keys, type[EdgeHMNError], str]] = {
    "another architecture": ({"general.architecture": (STRING, "mamba")}, UnsupportedError, "mamba"),
    "no width": ({"llama.embedding_length": (UINT32, 0)}, InvalidFileError, "embedding_length"),
    "a width that is none": ({"llama.embedding_length": (STRING, "32")}, InvalidFileError, "embedding_length"),
    "another width": ({"llama.embedding_length": (UINT32, 64)}, InvalidFileError, "shape"),
    "layers without end": ({"llama.block_count": (UINT32, 1 << 19)}, InvalidFileError, "n_layers"),
    "one layer more": ({"llama.block_count": (UINT32, 3)}, InvalidFileError, "blk.2."),
    "no epsilon": ({"llama.attention.layer_norm_rms_epsilon": (FLOAT32, 0.0)}, InvalidFileError, "norm_eps"),
    "experts": ({"llama.expert_count": (UINT32, 8)}, UnsupportedError, "expert_count"),
    "part of a head turned": ({"llama.rope.dimension_count": (UINT32, 4)}, UnsupportedError, "dimension_count"),
    "another scaling": ({"llama.rope.scaling.type": (STRING, "yarn")}, UnsupportedError, "yarn"),
    "alignment of zero": ({"general.alignment": (UINT32, 0)}, InvalidFileError, "alignment"),
    "another tokenizer": ({"tokenizer.ggml.model": (STRING, "bert")}, UnsupportedError, "bert"),
    "too many tokens": (
        {
            "tokenizer.ggml.tokens": (STRING, [f"[{i}]" for i in range(300)]),
            "tokenizer.ggml.scores": (FLOAT32, [0.0] * 300),
            "tokenizer.ggml.token_type": (INT32, [1] * 300),
        },
        InvalidFileError,
        "token 299",
    ),
    "no score for a token": ({"tokenizer.ggml.scores": (FLOAT32, [0.0])}, InvalidFileError, "score"),
    "scores that are NaN": ({"tokenizer.ggml.scores": (FLOAT32, [np.nan] * 272)}, InvalidFileError, "score"),
    "no type for a token": ({"tokenizer.ggml.token_type": (INT32, [1])}, InvalidFileError, "token types"),
    "twice the same": ({"tokenizer.ggml.tokens": (STRING, ["a"] * 272)}, InvalidFileError, "'a' stands twice"),
    "numbers for tokens": ({"tokenizer.ggml.tokens": (UINT32, [1] * 272)}, InvalidFileError, "list of texts"),
    "no such BOS": ({"tokenizer.ggml.bos_token_id": (UINT32, 272)}, InvalidFileError, "bos_token_id"),
    "no such unknown": ({"tokenizer.ggml.unknown_token_id": (UINT32, 272)}, InvalidFileError, "unknown"),
}


@pytest.mark.parametrize("case", WRONG)
def test_keys_that_are_refused(case: str, tmp_path: Path) -> None:
    changes, error, word = WRONG[case]
    tensors = files.gguf_tensors(random_checkpoint(STARTED))
    with pytest.raises(error) as caught:
        read(tmp_path / "m.gguf", files.gguf_keys(STARTED) | changes, tensors)
    assert word in str(caught.value) and str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    "changes, error, word",
    [
        ({"tokenizer.ggml.pre": (STRING, "future")}, UnsupportedError, "'future'"),
        ({"tokenizer.ggml.merges": (STRING, ["a  b"])}, InvalidFileError, "merge"),
        ({"tokenizer.ggml.merges": (STRING, ["b a"])}, InvalidFileError, "merge"),
    ],
)
def test_byte_level_vocabularies_that_are_refused(
    changes: Keys, error: type[EdgeHMNError], word: str, tmp_path: Path
) -> None:
    tensors = files.gguf_tensors(random_checkpoint(LLAMA))
    with pytest.raises(error, match=word):
        read(tmp_path / "m.gguf", byte_level_keys(**changes), tensors)


def test_headers_that_promise_too_much(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    for head in (
        struct.pack("<IQQ", 3, 1 << 60, 0),
        struct.pack("<IQQ", 3, 0, 1 << 60),
        struct.pack("<IQQQ", 3, 0, 1, 1 << 62),
        struct.pack("<IQQQ", 3, 0, 1, 1) + b"k" + struct.pack("<IIQ", 9, 8, 1 << 61),
        struct.pack("<IQQQ", 3, 0, 1, 1) + b"k" + struct.pack("<IIQ", 9, 4, 1 << 61),
        struct.pack("<IQQQ", 3, 0, 1, 1) + b"k" + struct.pack("<IIQ", 9, 9, 1),
        struct.pack("<IQQQ", 3, 0, 1, 1) + b"k" + struct.pack("<I", 99),
        struct.pack("<IQQQ", 3, 1, 0, 1) + b"t" + struct.pack("<IQQIQ", 2, 1 << 62, 1 << 62, 0, 0),
        struct.pack("<IQQQ", 3, 1, 0, 1) + b"t" + struct.pack("<I", 5),
        b"",
    ):
        path.write_bytes(b"GGUF" + head + b"\0" * 64)
        with pytest.raises(EdgeHMNError, match=r"m\.gguf"):
            read_checkpoint(path)
    for version in (1, 4, 3 << 24):
        path.write_bytes(b"GGUF" + struct.pack("<IQQ", version, 0, 0))
        with pytest.raises(UnsupportedError, match="version"):
            read_checkpoint(path)


def test_a_key_or_a_tensor_that_stands_twice(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    sound = files.gguf_bytes(files.gguf_keys(STARTED), files.gguf_tensors(random_checkpoint(STARTED)))
    for one, other in ((b"blk.0.attn_k.weight", b"blk.1.attn_k.weight"), (b"llama.block_count", b"llama.block_cuont")):
        twice = sound.replace(one, other) if one.startswith(b"blk") else sound
        if twice == sound:
            keys = sound.index(b"llama.rope.freq_base")
            twice = sound[:keys] + b"llama.context_length" + sound[keys + 20 :]
        path.write_bytes(twice)
        with pytest.raises(InvalidFileError, match="stands twice"):
            read_checkpoint(path)
