"""The tokenizer on the device: the tokens of the tokenizers library, from any text in any pieces, and back."""

import json
import random
import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from edgehmn.core import ffi, lib
from edgehmn.errors import InvalidFileError, UnsupportedError
from edgehmn.tokenizer import DeviceTokenizer, tokenizer_section
from tests.compare_tokenizers import KINDS, PARTS, differences, invented, on_the_device, real_text, without_bytes

ROOT = Path(__file__).parent.parent
STRINGS = 300  # of each kind; python tools/run.py tests.compare_tokenizers 100000 compares more
texts = st.lists(st.one_of(st.sampled_from(PARTS), st.text(max_size=6)), max_size=12).map("".join)


@cache
def pair(kind: str) -> tuple[Tokenizer, DeviceTokenizer]:
    tokenizer = KINDS[kind]()
    return tokenizer, on_the_device(tokenizer)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_tokens_and_the_same_text(kind: str) -> None:
    source = invented(random.Random(kind), real_text())
    assert not differences(*pair(kind), [next(source) for _ in range(STRINGS)])


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(some=st.lists(texts, min_size=1, max_size=8))
def test_the_same_tokens_of_any_text(kind: str, some: list[str]) -> None:
    assert not differences(*pair(kind), some)


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_text(kind: str) -> None:
    assert not differences(*pair(kind), [real_text()])


@pytest.mark.parametrize(
    "kind", ["reference", "smollm2", "llama3", "llama2", "llama2.c", "shuffled", "metaspace first"]
)
def test_a_text_comes_back(kind: str) -> None:
    device, text = pair(kind)[1], real_text().replace("<", "(").replace("▁", "_")
    assert device.decode(device.encode(text)).decode() == text


def test_the_comparison_sees_a_difference() -> None:
    assert differences(pair("gpt2")[0], pair("gpt2 pattern")[1], ["the cat"]) == []
    assert differences(pair("llama3")[0], pair("qwen2")[1], ["1234"])
    assert differences(pair("llama2")[0], pair("no prefix")[1], ["the cat"])


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_that_nobody_would_put_together(kind: str) -> None:
    tokenizer, device = pair(kind)
    rng, n = random.Random(kind), max(tokenizer.get_vocab().values()) + 1
    for _ in range(300):
        tokens = [rng.randrange(n) for _ in range(rng.randrange(10))]
        said = device.decode(tokens)
        try:
            assert said.decode() == tokenizer.decode(tokens)
        except UnicodeDecodeError:
            assert "\ufffd" in tokenizer.decode(tokens)
    assert device.decode([n, n + 5, 2**31]) == b""


# ---- Text in pieces, text that is none, and little room


def in_pieces(section: bytes, text: bytes, rng: random.Random) -> list[int]:
    """Tokens of a text that comes in pieces, each in front of which stands what was left; with room that grows."""
    memory = ffi.new("uint32_t[]", len(section) // 4)
    ffi.memmove(memory, section, len(section))
    source, n, room = ffi.new("ehmn_text *"), ffi.new("uint32_t *"), 2
    found: list[int] = []
    rest, at = b"", 0
    while at < len(text) or rest:
        size = rng.randrange(1, 9)
        rest, at = rest + text[at : at + size], at + size
        kept = ffi.from_buffer("uint8_t[]", rest)
        source.text, source.bytes, source.position, source.more = kept, len(rest), 0, at < len(text)
        before = None
        while before != (source.position, source.state):
            tokens, before = ffi.new("uint32_t[]", room), (source.position, source.state)
            status = lib.ehmn_tokenize(memory, source, tokens, room, n)
            found += ffi.unpack(tokens, n[0])
            if status != lib.EHMN_OK:
                assert status == lib.EHMN_E_ARENA and n[0] == 0
                room, before = 2 * room, None
        rest = rest[source.position :]
    return found


@cache
def section_of(kind: str) -> bytes:
    tokenizer = pair(kind)[0]
    return tokenizer_section(tokenizer.to_str(), max(tokenizer.get_vocab().values()) + 1)


@pytest.mark.parametrize("kind", KINDS)
def test_pieces_make_the_tokens_of_the_whole(kind: str) -> None:
    rng, (_, device) = random.Random(kind), pair(kind)
    source, section = invented(rng, real_text()), section_of(kind)
    for _ in range(60):
        text = next(source).encode()
        assert in_pieces(section, text, rng) == device.encode(text).tolist(), text


@pytest.mark.parametrize("kind", ["reference", "llama2", "overlapping"])
@settings(max_examples=150, deadline=None)
@given(
    text=st.one_of(
        st.binary(max_size=40),
        st.lists(st.sampled_from(list(b"a \xc3\xa9\xe2\x96\x81\xed\xa0\xf0\x9f\x98\x80\xf4\x90\xff")), max_size=12).map(
            bytes
        ),
    )
)
def test_what_is_not_utf8_is_replaced(kind: str, text: bytes) -> None:
    tokenizer, device = pair(kind)
    found = device.encode(text).tolist()
    assert found == tokenizer.encode(text.decode("utf-8", "replace"), add_special_tokens=False).ids
    assert in_pieces(section_of(kind), text, random.Random(text)) == found


@pytest.mark.parametrize("kind", ["reference", "llama2", "no words"])
def test_room_for_twice_the_bytes_is_enough(kind: str) -> None:
    memory, n, source = ffi.new("uint32_t[]", len(section_of(kind)) // 4), ffi.new("uint32_t *"), ffi.new("ehmn_text *")
    ffi.memmove(memory, section_of(kind), len(section_of(kind)))
    prefix = 1 if kind == "llama2" else 0
    kept = ffi.from_buffer("uint8_t[]", b"qxqxqxqx")
    source.text, source.bytes = kept, len(kept)
    tokens = ffi.new("uint32_t[]", 2 * (len(kept) + prefix))
    assert lib.ehmn_tokenize(memory, source, tokens, len(tokens) - 1, n) == lib.EHMN_E_ARENA
    assert (source.position, source.state, n[0]) == (0, 0, 0)
    assert lib.ehmn_tokenize(memory, source, tokens, len(tokens), n) == lib.EHMN_OK and source.position == 8


@pytest.mark.parametrize("kind", ["reference", "no words", "llama2", "shuffled"])
def test_equal_characters_cost_little(kind: str) -> None:
    """Eight times as many cost 64 times as much where each merge looks at all that remains."""
    _, device = pair(kind)

    def seconds(text: str) -> float:
        durations = []
        for _ in range(5):
            start = time.process_time()
            device.encode(text)
            durations.append(time.process_time() - start)
        return min(durations)

    for char in "a ":
        assert seconds(char * 80_000) < 30 * seconds(char * 10_000)


# ---- Sections


def deep(depth: int) -> Tokenizer:
    """a, aa, aaa, ...: each token is the one before and one more."""
    whole = json.loads(pair("no words")[0].to_str())
    vocab = {t: i for i, t in enumerate(t for t in whole["model"]["vocab"] if len(t) == 1)}
    vocab |= {"a" * n: len(vocab) + n - 2 for n in range(2, depth + 2)}
    whole["model"] |= {"vocab": vocab, "merges": [["a" * n, "a"] for n in range(1, depth + 1)]}
    whole["added_tokens"] = []
    return Tokenizer.from_str(json.dumps(whole))


@pytest.mark.parametrize(("depth", "merged"), [(32, "IN_ORDER"), (33, "LISTED"), (255, "LISTED")])
def test_tokens_of_tokens_of_tokens(depth: int, merged: str) -> None:
    tokenizer = deep(depth)
    section = tokenizer_section(tokenizer.to_str(), 2000)
    found = ffi.cast("ehmn_tokenizer *", ffi.from_buffer(section)).merged
    assert found == getattr(lib, f"EHMN_MERGED_{merged}")
    assert not differences(
        tokenizer, DeviceTokenizer(section, 2000), ["a" * n for n in (1, 2, 30, 31, 32, 33, 100, 600)]
    )


def test_a_token_that_is_too_long_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="a token of 257 bytes"):
        tokenizer_section(deep(256).to_str(), 2000)


def test_the_reference_tokenizer_is_small() -> None:
    assert len(section_of("reference")) < 20_000


def test_the_classes_of_characters_are_those_of_the_library() -> None:
    if not tokenizers.__version__.startswith("0.23."):
        pytest.skip(f"not run here: tokenizers {tokenizers.__version__} knows another Unicode than 0.23 does")
    done = subprocess.run([sys.executable, str(ROOT / "tools" / "make_unicode.py"), "--check"], check=False)
    assert done.returncode == 0


def changed(kind: str, **changes: Any) -> str:
    whole: dict[str, Any] = json.loads(pair(kind)[0].to_str())
    model = changes.pop("model", {})
    return json.dumps(whole | changes | {"model": whole["model"] | model})


def added(**flags: bool) -> list[dict[str, Any]]:
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
    return [{"id": 0, "content": "<unk>"} | plain | flags]


SPLIT = {"type": "Split", "pattern": {"Regex": r"\d+"}, "behavior": "Isolated", "invert": False}
LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("qwen2", {"normalizer": {"type": "NFC"}}, "the normalizer NFC"),
        ("gpt2", {"decoder": None}, "the decoder none"),
        ("gpt2", {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [SPLIT, LEVEL]}}, r"splitting by .*d\+"),
        ("gpt2", {"pre_tokenizer": {"type": "Whitespace"}}, "the decoder ByteLevel"),
        (
            "smollm2",
            {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [LEVEL, LEVEL]}},
            "ByteLevel \\+ ByteLevel",
        ),
        ("gpt2", {"model": {"dropout": 0.5}}, "dropout = 0.5"),
        ("gpt2", {"model": {"end_of_word_suffix": "</w>", "merges": []}}, "end_of_word_suffix"),
        ("llama2", {"decoder": {"type": "ByteFallback"}}, "the decoder ByteFallback"),
        ("llama2", {"normalizer": {"type": "Lowercase"}}, "the normalizer Lowercase"),
        ("llama2", {"model": {"ignore_merges": True}}, "ignore_merges"),
        ("llama2", {"added_tokens": added(lstrip=True)}, "lstrip of the added token '<unk>'"),
        ("llama2", {"added_tokens": added(single_word=True)}, "single_word of the added token '<unk>'"),
        ("llama2", {"added_tokens": added(normalized=True)}, "normalized text"),
        ("llama2", {"model": {"type": "WordLevel", "vocab": {"<unk>": 0}, "unk_token": "<unk>"}}, "a WordLevel model"),
    ],
)
def test_what_the_device_cannot_do_is_refused_by_name(kind: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UnsupportedError, match=message):
        tokenizer_section(changed(kind, **changes), 5000)


def test_a_byte_without_a_token_is_refused_where_it_would_be_part_of_something_unknown() -> None:
    with pytest.raises(UnsupportedError, match="fuse_unk"):
        tokenizer_section(without_bytes("Ġthe", fuse=True).to_str(), 5000)
    with pytest.raises(UnsupportedError, match="a token for the byte 65"):
        tokenizer_section(pair("llama2")[0].to_str().replace("<0x41>", "<0xx41>"), 5000)


def test_a_vocabulary_that_is_larger_than_the_model_s_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="3072 tokens for a model that has 3071"):
        tokenizer_section(pair("reference")[0].to_str(), 3071)
    with pytest.raises(InvalidFileError, match="E_CONFIG"):
        DeviceTokenizer(section_of("reference"), 3071)
