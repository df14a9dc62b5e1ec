"""Damaged and hostile sections of tokenizers: refused, or they make the same tokens everywhere; and never a fault."""

import json
import subprocess
from functools import cache
from pathlib import Path
from shutil import which
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from edgehmn.core import ffi, lib
from edgehmn.tokenizer import tokenizer_section
from tests.compare_tokenizers import KINDS, OTHERS

NATIVE = Path(__file__).parent.parent / "native"
SOURCES = ("tokenizer.c", "tokenizer_split.c", "tokenizer_merge.c", "unicode.c")
VOCABULARY = 500  # as in hostile_tokenizer.c
TEXT = (" a the<s>at the cat<mask><\n\n  1234▁x" + OTHERS[:60]).encode() + b"\xe2\x82 \xf0\x9f\xff<s>  aaaaaaaaaaaaaa"
EXTREMES = (0, 1, 2, 3, 5, 255, 256, 257, 65535, 65536, 1 << 20, (1 << 31) - 1, 1 << 31, (1 << 32) - 2, (1 << 32) - 1)


def smaller(kind: str, merges: int) -> bytes:
    """The section of a tokenizer of this kind with the first of its merges only."""
    whole: dict[str, Any] = json.loads(KINDS[kind]().to_str())
    model = whole["model"]
    model["merges"] = model["merges"][:merges]
    made = {t for a, b in model["merges"] for t in (a, b, a + b)} | {a["content"] for a in whole["added_tokens"]}
    kept = [t for t in model["vocab"] if len(t) == 1 or t.startswith("<") or t in {*made, "Ġcat", "aaaa"}]
    model["vocab"] = {t: i for i, t in enumerate(kept)}
    for i, token in enumerate(whole["added_tokens"]):
        token["id"] = model["vocab"].get(token["content"], len(kept) + i)
    tokenizer = Tokenizer.from_str(json.dumps(whole))
    return tokenizer_section(tokenizer.to_str(), max(tokenizer.get_vocab().values()) + 1)


@cache
def sections() -> list[bytes]:
    kinds = ("overlapping", "smollm2", "whole words", "bytes left out", "llama2", "shuffled")
    return [smaller(kind, 20) for kind in kinds]


def changed(section: bytes, *changes: tuple[int, int]) -> bytes:
    out = bytearray(section)
    for offset, value in changes:
        out[offset : offset + 4] = np.uint32(value).tobytes()
    return bytes(out)


def hostile(section: bytes) -> list[bytes]:
    """Each field of the header at many extremes, several at once; words of the arrays; flipped bits; cuts."""
    fields = range(0, ffi.sizeof("ehmn_tokenizer") - 32, 4)
    rng = np.random.default_rng(0)
    out = [section]
    for offset in fields:
        old = int(np.frombuffer(section, "<u4", 1, offset)[0])
        out += [changed(section, (offset, v)) for v in {*EXTREMES, old + 1, max(old - 1, 0)} - {old}]
    for _ in range(200):
        chosen = rng.choice(fields, 3, replace=False).tolist()
        out.append(changed(section, *((offset, int(rng.choice(EXTREMES))) for offset in chosen)))
    for _ in range(600):
        offset = 4 * int(rng.integers(24, len(section) // 4))
        out.append(changed(section, (offset, int(rng.choice([*EXTREMES, 0x00010001, 0x01000100, 0x61616161])))))
    for _ in range(600):
        damaged = bytearray(section)
        damaged[int(rng.integers(len(section)))] ^= 1 << int(rng.integers(8))
        out.append(bytes(damaged))
    size = ffi.offsetof("ehmn_tokenizer", "bytes")
    out += [section[:n] for n in range(0, len(section), 13)]
    out += [changed(section[:n], (size, n)) for n in range(ffi.sizeof("ehmn_tokenizer"), len(section), 4)]
    return [*out, changed(section + bytes(4), (size, len(section) + 4))]


def checksum(values: Any, start: int = 0) -> int:
    for value in values:
        start = (start * 31 + int(value)) % 2**32
    return start


def outcome(section: bytes) -> str:
    """What hostile_tokenizer.c prints, from the module that Python uses."""
    memory = ffi.new("uint32_t[]", len(section) // 4 + 1)
    ffi.memmove(memory, section, len(section))
    status = lib.ehmn_tokenizer_check(memory, len(section), VOCABULARY)
    if status != lib.EHMN_OK:
        return f"{status} {0:08x}"
    room = 2 * (3 * len(TEXT) + 1)
    tokens, n, text, state = (
        ffi.new("uint32_t[]", room),
        ffi.new("uint32_t *"),
        ffi.new("ehmn_text *"),
        ffi.new("uint32_t *"),
    )
    kept = ffi.from_buffer("uint8_t[]", TEXT)
    text.text, text.bytes = kept, len(TEXT)
    assert lib.ehmn_tokenize(memory, text, tokens, room, n) == lib.EHMN_OK
    found = checksum(tokens[0 : n[0]])
    out = ffi.new("uint8_t[]", lib.EHMN_MAX_TOKEN_BYTES)
    for token in range(VOCABULARY + 2):
        assert lib.ehmn_detokenize(memory, token, state, out, len(out), n) == lib.EHMN_OK
        found = checksum(out[0 : n[0]], found)
    return f"{status} {found:08x}"


def under_sanitizers(cases: list[bytes], folder: Path) -> list[str]:
    driver, file = folder / "hostile_tokenizer", folder / "cases"
    file.write_bytes(b"".join(np.uint32(len(block)).tobytes() + block for block in [TEXT, *cases]))
    flags = ["-std=c11", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-fsanitize=address,undefined"]
    flags += ["-fno-sanitize-recover=all", f"-I{NATIVE / 'include'}", f"-I{NATIVE / 'src'}"]
    sources = [*(NATIVE / "src" / name for name in SOURCES), Path(__file__).with_name("hostile_tokenizer.c")]
    subprocess.run(["gcc", *flags, *map(str, sources), "-o", str(driver)], check=True)
    done = subprocess.run([str(driver), str(file)], capture_output=True, text=True, timeout=300, check=False)
    outcomes = done.stdout.splitlines()
    assert done.returncode == 0, f"died in case {len(outcomes)} ({done.returncode}): {done.stderr[-3000:]}"
    assert done.stderr == "" and len(outcomes) == len(cases)
    return outcomes


@pytest.mark.skipif(which("gcc") is None, reason="not run here: gcc is missing")
def test_hostile_sections_are_refused_or_do_the_same_everywhere(tmp_path: Path) -> None:
    cases = [case for section in sections() for case in hostile(section)]
    outcomes = under_sanitizers(cases, tmp_path)
    names = ("OK", "E_MAGIC", "E_VERSION", "E_SIZE", "E_CONFIG", "E_LAYOUT", "E_VALUE")
    assert {int(found.split()[0]) for found in outcomes} == {getattr(lib, f"EHMN_{name}") for name in names}
    assert sum(found.startswith("0 ") for found in outcomes) > 1000
    for case, found in zip(cases, outcomes, strict=True):
        assert outcome(case) == found


def header(section: bytes) -> Any:
    return ffi.cast("ehmn_tokenizer *", ffi.from_buffer(section))


def test_a_token_that_would_grow_without_end_is_refused() -> None:
    """Each merged token made of the one before, twice: 2^20 bytes."""
    section = bytearray(sections()[1])
    t = header(bytes(section))
    assert t.merged == lib.EHMN_MERGED_IN_ORDER and t.word_bytes == 2
    pairs = np.frombuffer(section, "<u2", 2 * t.n_merges, ffi.sizeof("ehmn_tokenizer")).reshape(-1, 2)
    order = np.frombuffer(section, "<u2", t.n_merges, ffi.sizeof("ehmn_tokenizer") + pairs.nbytes)
    for i in range(1, t.n_merges):
        pairs[i] = t.first_merged + i - 1
    order[:] = np.lexsort((pairs[:, 1], pairs[:, 0]))
    assert outcome(bytes(section)) == f"{lib.EHMN_E_VALUE} 00000000"


def test_arguments() -> None:
    section = sections()[0]
    memory, n, text = ffi.new("uint32_t[]", len(section) // 4 + 1), ffi.new("uint32_t *"), ffi.new("ehmn_text *")
    ffi.memmove(memory, section, len(section))
    moved = ffi.cast("uint8_t *", memory) + 1
    assert lib.ehmn_tokenizer_check(ffi.NULL, 0, 1) == lib.EHMN_E_ARGUMENT
    assert lib.ehmn_tokenizer_check(moved, len(section), VOCABULARY) == lib.EHMN_E_ALIGNMENT
    few = header(section).n_tokens - 1
    assert lib.ehmn_tokenizer_check(memory, len(section), few) == lib.EHMN_E_CONFIG
    assert lib.ehmn_tokenizer_check(memory, len(section), few + 1) == lib.EHMN_OK
    kept = ffi.from_buffer("uint8_t[]", b"ab")
    text.text, text.bytes, text.position = kept, 2, 3
    assert lib.ehmn_tokenize(memory, text, ffi.NULL, 0, n) == lib.EHMN_E_ARGUMENT
    text.position = 0
    assert lib.ehmn_tokenize(memory, text, ffi.NULL, 0, n) == lib.EHMN_E_ARENA
    assert lib.ehmn_tokenize(memory, text, ffi.NULL, 2, n) == lib.EHMN_E_ARGUMENT
    assert lib.ehmn_detokenize(memory, 0, ffi.NULL, ffi.NULL, 0, n) == lib.EHMN_E_ARGUMENT
