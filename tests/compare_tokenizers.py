"""Tokenizers of every kind that the device supports, and their comparison with the tokenizers library.

    python tools/run.py tests.compare_tokenizers STRINGS [FILE ...]

compares on that many strings for each tokenizer: invented ones, and pieces of the text files named (or of the package's
own). A FILE that ends in .json is a tokenizer to compare instead of the small ones trained here.
"""

import json
import random
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, models
from tokenizers import decoders as D
from tokenizers import normalizers as N
from tokenizers import pre_tokenizers as P
from tokenizers.trainers import BpeTrainer

from edgehmn.texts import CALIBRATION, EVALUATION, FOLDER, PERSONAL, shipped
from edgehmn.tokenizer import DeviceTokenizer, tokenizer_section

OTHERS = (
    "Ünïcödé näive café 日本語テキスト 中文 русский текст العربية हिन्दी 한국어 😀😃 ½ ² ٣٤ 12345678 1999\n\tx = 'y'\r\n"
)
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
    r"\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace("{1,3}", "")
LLAMA_NORMALIZER = N.Sequence([N.Prepend("▁"), N.Replace(" ", "▁")])
LLAMA_DECODER = D.Sequence([D.Replace("▁", " "), D.ByteFallback(), D.Fuse(), D.Strip(" ", 1, 0)])
PARTS = (
    *(
        "'s",
        "'S",
        "'ſ",
        "'ll",
        "'LL",
        "'re",
        "'v",
        "'",
        " ",
        "  ",
        "\n",
        "\r\n",
        "\t",
        "\u00a0",
        "\u3000",
        "\x00",
        "\x85",
    ),
    *(
        "▁",
        "a",
        "e",
        "ab",
        "aaaa",
        "the",
        "cat",
        "at the",
        "1",
        "12",
        "12345",
        "½",
        "٣",
        "é",
        "e\u0301",
        "ſ",
        "日本",
        "한",
    ),
    *("😀", "\U0001d7d8", "\U00011de1", "\ufffd", "\u200d", "\u2028", "_", "!!", "...", "|", "<", "<mask", "<mask><"),
    *("<s>", "</s>", "<x>", "<unk>", "<tool>", "<|end|>", "<0x41>", "<0x0A>"),
)


@cache
def training_text() -> list[str]:
    return [*shipped(CALIBRATION).splitlines(True), *(OTHERS,) * 50]


def special(*names: str) -> list[AddedToken]:
    return [AddedToken(name, normalized=False, special=True) for name in names]


def byte_level(words: Any, added: list[AddedToken] | None = None, first: bool = False) -> Tokenizer:
    """Byte-level BPE with added tokens, behind the vocabulary or in front of it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = words, D.ByteLevel()
    alphabet = P.ByteLevel.alphabet()
    trainer = BpeTrainer(
        vocab_size=700, initial_alphabet=alphabet, special_tokens=(added or []) if first else [], show_progress=False
    )
    tokenizer.train_from_iterator(training_text(), trainer)
    tokenizer.add_tokens(added or special("<|end|>"))
    return tokenizer


def splitting(pattern: str) -> Any:
    return P.Sequence([P.Split(Regex(pattern), "isolated"), P.ByteLevel(add_prefix_space=False, use_regex=False)])


@cache
def _characters() -> dict[str, Any]:
    """Vocabulary and merges of characters, with a token for each byte."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    tokenizer.pre_tokenizer = P.Metaspace(prepend_scheme="always")
    names = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256))]
    trainer = BpeTrainer(vocab_size=700, special_tokens=names, limit_alphabet=90, show_progress=False)
    tokenizer.train_from_iterator(training_text(), trainer)
    model: dict[str, Any] = json.loads(tokenizer.to_str())["model"]
    return model


def sentencepiece(
    normalizer: Any = LLAMA_NORMALIZER, words: Any = None, decoder: Any = LLAMA_DECODER, space: str = "▁", **model: Any
) -> Tokenizer:
    known = _characters()
    vocab = {name.replace("▁", space): i for name, i in known["vocab"].items()}
    merges = [(a.replace("▁", space), b.replace("▁", space)) for a, b in known["merges"]]
    tokenizer = Tokenizer(models.BPE(vocab, merges, byte_fallback=True, unk_token="<unk>", **model))
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    if words is not None:
        tokenizer.pre_tokenizer = words
    tokenizer.decoder = decoder
    tokenizer.add_tokens([*special("<unk>", "<s>", "</s>"), AddedToken("<x>", normalized=False)])
    return tokenizer


def shuffled() -> Tokenizer:
    """Merges in an order that training never gives: over spaces, and wholes before their parts."""
    whole = json.loads(sentencepiece(fuse_unk=True).to_str())
    vocab, merges = whole["model"]["vocab"], whole["model"]["merges"]
    for a, b in (("e", "▁"), ("e▁", "t"), ("s", "▁"), ("a", "a"), ("aa", "a"), ("a", "aa"), ("aa", "aa")):
        vocab.setdefault(a + b, len(vocab))
        merges.append([a, b])
    random.Random(1).shuffle(merges)
    whole["added_tokens"] = [a for a in whole["added_tokens"] if a["special"]]
    return Tokenizer.from_str(json.dumps(whole))


def whole_words() -> Tokenizer:
    """Words that are tokens, but that no merges make."""
    whole = json.loads(byte_level(splitting(LLAMA3)).to_str())
    whole["model"]["ignore_merges"] = True
    vocab = whole["model"]["vocab"]
    whole["added_tokens"][0]["id"] += 3
    for name in ("Ġcat", "...Ċ", "aaaa"):
        vocab.setdefault(name, len(vocab))
    return Tokenizer.from_str(json.dumps(whole))


def without_bytes(unknown: str | None, fuse: bool = False) -> Tokenizer:
    """Some bytes have no token: those of x, of the emoji, of most Chinese characters."""
    whole = json.loads(byte_level(P.ByteLevel(add_prefix_space=False)).to_str())
    model = whole["model"]
    missing = {"x", "ð", "æ", "Ģ"}
    kept = [t for t in model["vocab"] if not missing & set(t)]
    model["vocab"] = {t: i for i, t in enumerate(kept)}
    model["merges"] = [m for m in model["merges"] if not missing & set("".join(m))]
    whole["added_tokens"][0]["id"] = len(kept)
    return Tokenizer.from_str(json.dumps(whole | {"model": model | {"unk_token": unknown, "fuse_unk": fuse}}))


def wide() -> Tokenizer:
    """More tokens than 16 bits count."""
    whole = json.loads(byte_level(splitting(LLAMA3)).to_str())
    vocab = whole["model"]["vocab"]
    vocab |= {f"filler{i}": i for i in range(len(vocab), 66_000)}
    whole["added_tokens"][0]["id"] = len(vocab)
    return Tokenizer.from_str(json.dumps(whole))


def overlapping() -> Tokenizer:
    added = [AddedToken("cat", normalized=True), AddedToken("<mask", normalized=False)]
    added += [AddedToken("<mask><", normalized=True), AddedToken("at the", normalized=False), *special("<s>", "<s>a")]
    return byte_level(P.ByteLevel(add_prefix_space=True), added)


def metaspace(scheme: str, split: bool) -> Tokenizer:
    decoder = D.Metaspace(prepend_scheme=scheme, split=split) if split else LLAMA_DECODER
    return sentencepiece(None, P.Metaspace(prepend_scheme=scheme, split=split), decoder)


KINDS: dict[str, Callable[[], Tokenizer]] = {
    "reference": lambda: Tokenizer.from_file(str(FOLDER / "tokenizer.json")),
    "gpt2": lambda: byte_level(P.ByteLevel(add_prefix_space=False), [AddedToken("<|end|>", special=True)]),
    "gpt2 pattern": lambda: byte_level(splitting(GPT2)),
    "smollm2": lambda: byte_level(
        P.Sequence([P.Digits(individual_digits=True), P.ByteLevel(add_prefix_space=False)]), special("<|end|>"), True
    ),
    "llama3": lambda: byte_level(splitting(LLAMA3)),
    "whole words": whole_words,
    "wide": wide,
    "qwen2": lambda: byte_level(splitting(QWEN2), [*special("<|end|>"), AddedToken("<tool>")]),
    "overlapping": overlapping,
    "no words": lambda: byte_level(P.ByteLevel(add_prefix_space=False, use_regex=False)),
    "bytes left out": lambda: without_bytes(None),
    "bytes unknown": lambda: without_bytes("Ġthe"),
    "llama2": sentencepiece,
    "llama2.c": lambda: sentencepiece(
        N.Prepend(" "), None, D.Sequence([D.Replace(" ", " "), D.ByteFallback(), D.Fuse(), D.Strip(" ", 1, 0)]), " "
    ),
    "no prefix": lambda: sentencepiece(
        N.Replace(" ", "▁"), None, D.Sequence([D.Replace("▁", " "), D.ByteFallback(), D.Fuse()])
    ),
    "metaspace": lambda: metaspace("always", True),
    "metaspace first": lambda: metaspace("first", False),
    "metaspace first, words": lambda: metaspace("first", True),
    "metaspace never": lambda: metaspace("never", True),
    "shuffled": shuffled,
}


@cache
def real_text() -> str:
    return shipped(EVALUATION) + shipped(PERSONAL) + Path(__file__).read_text("utf-8") + OTHERS


def invented(rng: random.Random, real: str) -> Iterator[str]:
    """Strings without end: odd parts put together, pieces of real text with and without them, any characters."""
    while True:
        kind = rng.random()
        if kind < 0.45:
            yield "".join(rng.choices(PARTS, k=rng.randrange(14)))
        elif kind < 0.75:
            at = rng.randrange(len(real))
            text = real[at : at + rng.randrange(1, 300)]
            cut = rng.randrange(len(text) + 1)
            yield text[:cut] + rng.choice(PARTS) * (rng.random() < 0.3) + text[cut:]
        else:
            limits = rng.choices((0x80, 0x250, 0x3000, 0xD800, 0x10000, 0x110000), k=rng.randrange(20))
            points = [rng.randrange(limit) for limit in limits]
            yield "".join(chr(c) for c in points if not 0xD800 <= c < 0xE000)


def on_the_device(tokenizer: Tokenizer) -> DeviceTokenizer:
    vocab_size = max(tokenizer.get_vocab().values()) + 1
    return DeviceTokenizer(tokenizer_section(tokenizer.to_str(), vocab_size), vocab_size)


def differences(tokenizer: Tokenizer, device: DeviceTokenizer, texts: list[str]) -> list[str]:
    """What the device does otherwise: from text to tokens, and back."""
    out = []
    for text, encoding in zip(texts, tokenizer.encode_batch(texts, add_special_tokens=False), strict=True):
        found = device.encode(text).tolist()
        if found != encoding.ids:
            out.append(f"{text!r}: {[tokenizer.id_to_token(t) for t in found]}, not {encoding.tokens}")
        said = device.decode(encoding.ids).decode("utf-8", "replace")
        if said != tokenizer.decode(encoding.ids):
            out.append(f"{encoding.ids}: {said!r}, not {tokenizer.decode(encoding.ids)!r}")
    return out


def main(strings: int, files: list[Path]) -> int:
    """How many differences there are."""
    total = 0
    named = {str(f): Tokenizer.from_file(str(f)) for f in files if f.suffix == ".json"}
    texts = [f.read_text("utf-8", "replace") for f in files if f.suffix != ".json"]
    real = "".join(texts) or real_text()
    for name, tokenizer in named.items() or ((kind, make()) for kind, make in KINDS.items()):
        device, source = on_the_device(tokenizer), invented(random.Random(0), real)
        wrong = []
        for i in range(0, strings, 1000):
            wrong += differences(tokenizer, device, [next(source) for _ in range(min(1000, strings - i))])
        print(f"{name}: {strings} strings, {len(wrong)} differences", *wrong[:5], sep="\n    ", flush=True)
        total += len(wrong)
    return total


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), [Path(f) for f in sys.argv[2:]]) > 0)
