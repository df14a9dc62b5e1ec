"""llama2.c's files: what it would run is read as it was; its tokenizer; its own story, where the model is here."""

import hashlib
import itertools
import random
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers

from edgehmn.checkpoint import Config, read_checkpoint
from edgehmn.checkpoint.tokenizer import scored_bpe
from edgehmn.errors import InvalidFileError, UnsupportedError, UsageError
from edgehmn.model import FloatModel
from tests import checkpoint_files as files
from tests.models import TINY, random_checkpoint

CONFIG: Config = replace(
    TINY, vocab_size=268, n_ctx=12, final_norm="rmsnorm", window="restart", start_token=1, norm_eps=1e-5
)
UNTIED = replace(CONFIG, tied_head=False)
STORIES = Path(__file__).resolve().parents[2] / "shared" / "data" / "stories260K"
STORY = "beeb5cb46785efee81a8545300b31e396b595e5ce6f3b77db201545501981d14"


def write(folder: Path, data: bytes, tokenizer: str = "tokenizer.bin") -> Path:
    path = folder / "model.bin"
    path.write_bytes(data)
    files.write_llama2c_tokenizer(folder / tokenizer, 268)
    return path


@pytest.mark.parametrize("config", [CONFIG, UNTIED])
@pytest.mark.parametrize("version", [0, 1])
def test_float_versions_are_read_as_they_were(version: int, config: Config, tmp_path: Path) -> None:
    stored = random_checkpoint(config)
    found = read_checkpoint(write(tmp_path, files.llama2c_bytes(stored, version)))
    assert found.config == config and found.tensors.keys() == stored.tensors.keys()
    for name, values in stored.tensors.items():
        np.testing.assert_array_equal(found.tensors[name], values)


@pytest.mark.parametrize("config", [CONFIG, UNTIED])
@pytest.mark.parametrize("group", [1, 2, 4])
def test_int8_is_within_half_a_step(group: int, config: Config, tmp_path: Path) -> None:
    stored = random_checkpoint(config)
    found = read_checkpoint(write(tmp_path, files.llama2c_bytes(stored, 2, group)))
    assert found.config == config
    for name, values in stored.tensors.items():
        if values.ndim == 1:
            np.testing.assert_array_equal(found.tensors[name], values)
        elif not name.endswith((".q", ".k")):
            step = np.abs(values.reshape(-1, group)).max(1, keepdims=True) / 127
            error = np.abs((found.tensors[name] - values).reshape(-1, group))
            assert (error <= 0.501 * step + 1e-7).all(), name


@pytest.mark.parametrize("name", ["tokenizer.bin", "tok268.bin", "tok_of_mine.bin", "model_tokenizer.bin"])
def test_a_tokenizer_that_fits_is_found(name: str, tmp_path: Path) -> None:
    path = write(tmp_path, files.llama2c_bytes(random_checkpoint(CONFIG), 0), name)
    files.write_llama2c_tokenizer(tmp_path / "tok300.bin", 300)
    if name != "tokenizer.bin":
        files.write_llama2c_tokenizer(tmp_path / "tokenizer.bin", 300)
    found = read_checkpoint(path, n_ctx=9)
    assert found.config.n_ctx == 9 and len(found.encode("ab")) == 1
    with pytest.raises(UsageError):
        read_checkpoint(path, n_ctx=13)


def test_a_tokenizer_is_needed(tmp_path: Path) -> None:
    path = write(tmp_path, files.llama2c_bytes(random_checkpoint(CONFIG), 1))
    (tmp_path / "tokenizer.bin").rename(tmp_path / "elsewhere")
    files.write_llama2c_tokenizer(tmp_path / "tok300.bin", 300)
    with pytest.raises(InvalidFileError, match=r"no tokenizer of 268 tokens.*tok268\.bin.*--tokenizer"):
        read_checkpoint(path)
    assert read_checkpoint(path, tokenizer=tmp_path / "elsewhere").config == CONFIG
    with pytest.raises(InvalidFileError, match="268 tokens"):
        read_checkpoint(path, tokenizer=tmp_path / "tok300.bin")


def test_the_tokenizer_encodes_as_llama2c(tmp_path: Path) -> None:
    """Against its rule, written plainly: of all pairs, the one of the best score, the leftmost of them, again."""
    path = write(tmp_path, files.llama2c_bytes(random_checkpoint(CONFIG), 0))
    pieces, scores = files.byte_pieces(268)
    found = read_checkpoint(path)
    rng = np.random.default_rng(4)
    for _ in range(3000):
        text = "".join(rng.choice(list("aaab bé\n<日"), rng.integers(0, 30)))
        assert found.encode(text).tolist() == plain_encoding(text, pieces, scores), text
        assert found.tokenizer.decode(found.encode(text)) == text
    assert found.encode("").tolist() == []


def plain_encoding(text: str, pieces: list[str], scores: list[float], prefix: str = " ") -> list[int]:
    tokens: list[int] = []
    for character in prefix * bool(text) + text:
        known = character in pieces
        tokens += [pieces.index(character)] if known else [byte + 3 for byte in character.encode()]
    while True:
        pairs = [pieces[a] + pieces[b] for a, b in itertools.pairwise(tokens)]
        best = max(
            (i for i, p in enumerate(pairs) if p in pieces), key=lambda i: scores[pieces.index(pairs[i])], default=-1
        )
        if best < 0:
            return tokens
        tokens[best : best + 2] = [pieces.index(pairs[best])]


def test_random_vocabularies() -> None:
    """Words of two letters, in which tokens overlap themselves in every way; longer ones are worth less."""
    words = ["".join(w) for n in range(2, 6) for w in itertools.product("ab", repeat=n)]
    for seed in range(60):
        rng = random.Random(seed)
        chosen = sorted(rng.sample(words, rng.randrange(3, 40)), key=lambda w: (len(w), rng.random()))
        pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "a", "b", *chosen]
        scores = [0.0] * 262 + [-float(i) for i in range(len(chosen))]
        tokenizer = tokenizers.Tokenizer.from_str(scored_bpe(pieces, scores, (), "here", prefix=False))
        for _ in range(50):
            text = "".join(rng.choices("ab", k=rng.randrange(1, 25)))
            expected = plain_encoding(text, pieces, scores, prefix="")
            assert tokenizer.encode(text).ids == expected, (text, chosen)


# ---- What is refused


def header(version: int, **changes: Any) -> bytes:
    sizes = {"d": 24, "h": 23, "layers": 2, "heads": 4, "kv": 2, "vocab": 268, "ctx": 12, "tied": 1, "group": 4}
    values = list((sizes | changes).values())
    return struct.pack("<Ii7iBi", 0x616B3432, version, *values)


@pytest.mark.parametrize(
    "changes, word",
    [
        ({"d": 0}, "d_model"),
        ({"d": -24}, "d_model"),
        ({"d": 1 << 30}, "d_model"),
        ({"d": 26}, "head size"),
        ({"heads": 0}, "n_heads"),
        ({"kv": 3}, "n_kv_heads"),
        ({"layers": 2000}, "n_layers"),
        ({"layers": 3}, "bytes"),
        ({"vocab": 269}, "bytes"),
        ({"vocab": -268}, "vocab_size"),
        ({"ctx": 0}, "n_ctx"),
        ({"ctx": 3}, "n_ctx"),
        ({"tied": 0}, "bytes"),
        ({"tied": 2}, "flag"),
        ({"group": 0}, "group size"),
        ({"group": -4}, "group size"),
        ({"group": 7}, "group size"),
    ],
)
def test_headers_that_are_refused(changes: dict[str, int], word: str, tmp_path: Path) -> None:
    data = files.llama2c_bytes(random_checkpoint(CONFIG), 2)
    made = header(2, **changes)
    with pytest.raises(InvalidFileError) as caught:
        read_checkpoint(write(tmp_path, made + data[len(made) :]))
    assert word in str(caught.value) and "model.bin" in str(caught.value)


def test_other_versions_and_other_files(tmp_path: Path) -> None:
    for version in (0, 3, -1):
        with pytest.raises(UnsupportedError, match="version"):
            read_checkpoint(write(tmp_path, header(version).ljust(300, b"\0")))
    for data in (b"", b"text", b"\xff" * 300, b"\0" * 300, b"PK\3\4" + b"x" * 300):
        with pytest.raises(InvalidFileError, match="neither a GGUF file nor one of llama2"):
            read_checkpoint(write(tmp_path, data))
    with pytest.raises(UsageError, match="no such checkpoint"):
        read_checkpoint(tmp_path / "nothing")


@pytest.mark.parametrize("version", [0, 1, 2])
def test_a_weight_that_is_not_finite_is_named(version: int, tmp_path: Path) -> None:
    data = bytearray(files.llama2c_bytes(random_checkpoint(CONFIG), version))
    data[-4:] = struct.pack("<f", np.nan)
    with pytest.raises(InvalidFileError, match="holds NaN") if version else pytest.raises(InvalidFileError):
        read_checkpoint(write(tmp_path, bytes(data) if version else data[:28] + struct.pack("<f", np.inf) + data[32:]))


def test_tokenizers_that_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, files.llama2c_bytes(random_checkpoint(CONFIG), 0))
    place = tmp_path / "tokenizer.bin"
    sound = place.read_bytes()
    no_bytes = sound.replace(b"<0x41>", b"<0x42>", 1)
    no_space = sound.replace(struct.pack("<i", 1) + b" ", struct.pack("<i", 1) + b"_", 1)
    long = sound[:8] + struct.pack("<i", 1 << 30) + sound[12:]
    negative = sound[:8] + struct.pack("<i", -5) + sound[12:]
    no_score = sound[:4] + struct.pack("<f", np.nan) + sound[8:]
    no_text = sound.replace(b"<unk>", b"<\xff\xfe>>")
    for data in (b"", sound[:-1], sound + b"\0", no_bytes, no_space, long, negative, no_score, no_text):
        place.write_bytes(data)
        with pytest.raises(InvalidFileError, match=r"tokenizer\.bin"):
            read_checkpoint(path)


# ---- A model that was trained


def test_stories260k_tells_what_llama2c_tells() -> None:
    """200 tokens from `run stories260K.bin -z tok512.bin -t 0 -n 200 -i "Once upon a time"`, by their hash."""
    if not STORIES.is_dir():
        print(f"not here: {STORIES}")
        pytest.skip(f"{STORIES} is not here")
    checkpoint = read_checkpoint(STORIES / "stories260K.bin")
    model = FloatModel(checkpoint)
    state = model.new_state()
    ids = checkpoint.encode("Once upon a time").tolist()
    hidden = model.encode(np.array(ids), state)
    while len(ids) < 200:
        ids.append(int(model.logits(model.final_norm(hidden[-1:]))[0].argmax()))
        hidden = model.encode(np.array(ids[-1:]), state)
    text = checkpoint.tokenizer.decode(ids)
    assert text.startswith("Once upon a time, there was a little girl named Lily.")
    assert hashlib.sha256(text.encode()).hexdigest() == STORY
    assert checkpoint.config.n_ctx == 512 and checkpoint.config.start_token == 1
