"""A tokenizer as the bytes that the C core reads, and text to tokens and back in the core.

The tokens are those of `tokenizers.Tokenizer.encode(text, add_special_tokens=False)`. What the core cannot do exactly
like that library is refused with UnsupportedError: such a model needs a host for its text.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgehmn.checkpoint import Checkpoint
from edgehmn.core import check, ffi, lib
from edgehmn.errors import EdgeHMNError, UnsupportedError
from edgehmn.tokenizer_scheme import METASPACE, Scheme, read_scheme, unsupported

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")

Words = npt.NDArray[np.uint32]


def _byte_alphabet() -> dict[str, int]:
    """The byte that each character of a byte-level vocabulary stands for: itself if it is printable Latin-1, else the
    next free character from U+0100 on."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in plain]
    return {chr(b): b for b in plain} | {chr(0x100 + i): b for i, b in enumerate(others)}


ALPHABET = _byte_alphabet()


@dataclass(frozen=True)
class _Added:
    token: int
    content: str
    special: bool
    late: bool


@dataclass(frozen=True)
class _Vocabulary:
    """What a tokenizer says: ids of tokens, merges with the first to be made first, and tokens found in the text."""

    ids: dict[str, int]
    merges: list[tuple[str, str]]
    added: list[_Added]
    ignore_merges: bool
    byte_fallback: bool
    unknown: int  # the token of what has none, or -1
    fuse_unknown: bool
    n_tokens: int


def _vocabulary(tokenizer: Any, scheme: Scheme, model: dict[str, Any]) -> _Vocabulary:
    if model["type"] != "BPE":
        raise unsupported(f"a {model['type']} model; byte-pair encoding is")
    for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(name):
            raise unsupported(f"{name} = {model[name]!r}")
    pairs = (m.split(" ") if isinstance(m, str) else m for m in model["merges"])
    ranks = {(left, right): i for i, (left, right) in enumerate(pairs)}  # of equal pairs the last counts
    added = []
    for token, a in tokenizer.get_added_tokens_decoder().items():
        for flag in ("lstrip", "rstrip", "single_word"):
            if getattr(a, flag):
                raise unsupported(f"{flag} of the added token {a.content!r}")
        if a.normalized and scheme.has_normalizer:
            raise unsupported(f"the added token {a.content!r}, which is looked for in normalized text")
        if "\ufffd" in a.content:
            raise unsupported(f"U+FFFD in the added token {a.content!r}")
        if a.content:
            added.append(_Added(token, a.content, a.special, a.normalized))
    if len(added) > lib.EHMN_MAX_ADDED:
        raise unsupported(f"{len(added)} added tokens (at most {lib.EHMN_MAX_ADDED})")
    n = max([*model["vocab"].values(), *(a.token for a in added)], default=-1) + 1
    merges = sorted(ranks, key=ranks.__getitem__)
    unknown = -1 if model.get("unk_token") is None else tokenizer.token_to_id(model["unk_token"])
    flags = {name: bool(model.get(name)) for name in ("ignore_merges", "byte_fallback", "fuse_unk")}
    fuse = flags.pop("fuse_unk") and unknown >= 0
    return _Vocabulary(model["vocab"], merges, added, **flags, unknown=unknown, fuse_unknown=fuse, n_tokens=n)


def _bytes_of_token(token: str, scheme: Scheme) -> bytes:
    """What a token says in an output."""
    if scheme.byte_level:
        return bytes(ALPHABET[c] for c in token) if ALPHABET.keys() >= set(token) else token.encode()
    byte = _BYTE_TOKEN.fullmatch(token)
    if byte and scheme.byte_fallback:
        return bytes([int(byte[1], 16)])
    return token.replace(scheme.space, " ").encode()


def _literals(v: _Vocabulary, scheme: Scheme) -> list[bytes]:
    """The bytes of every token id; none for an id that no token has."""
    out = [b""] * v.n_tokens
    for token, i in v.ids.items():
        out[i] = _bytes_of_token(token, scheme)
        if scheme.strip == lib.EHMN_STRIP_FIRST_TOKEN and " " in token:
            raise unsupported(f"a space in the token {token!r}")
    for a in v.added:
        content = a.content.encode()
        said = _bytes_of_token(a.content, scheme)
        first_lost = scheme.strip == lib.EHMN_STRIP_FIRST_TOKEN and b" " in content
        if (content != said and (not a.special or len(a.content) == 1)) or (first_lost and not a.special):
            raise unsupported(f"the added token {a.content!r}, which would not say itself")
        out[a.token] = content
    longest = max(out, key=len, default=b"")
    if len(longest) > lib.EHMN_MAX_TOKEN_BYTES:
        raise unsupported(f"a token of {len(longest)} bytes (at most {lib.EHMN_MAX_TOKEN_BYTES})")
    return out


def _tokens_of_bytes(v: _Vocabulary, scheme: Scheme) -> list[int]:
    """The token of each byte; -1 for a byte that is left out of the text."""
    if not scheme.byte_level:
        missing = [b for b in range(256) if f"<0x{b:02X}>" not in v.ids]
        if missing or not v.byte_fallback:
            raise unsupported(f"a vocabulary without a token for the byte {(missing or [0])[0]}")
        return [v.ids[f"<0x{b:02X}>"] for b in range(256)]
    out = {b: v.ids.get(c, v.unknown) for c, b in ALPHABET.items()}
    if v.fuse_unknown and not v.ids.keys() >= ALPHABET.keys():
        raise unsupported("fuse_unk with bytes that have no token")
    return [out[b] for b in range(256)]


def _tokens_of_chars(v: _Vocabulary, scheme: Scheme) -> list[int]:
    if scheme.byte_level:
        return []
    if scheme.space not in v.ids:
        raise unsupported(f"a vocabulary without a token for {scheme.space!r}")
    unreachable = " " if scheme.space == METASPACE else ""
    chars = {c.replace(scheme.space, " ").encode(): i for c, i in v.ids.items() if len(c) == 1 and c != unreachable}
    return [chars[c] for c in sorted(chars)]


def _whole_words(tokenizer: Any, v: _Vocabulary, scheme: Scheme, literals: list[bytes]) -> list[int]:
    """Tokens that `ignore_merges` gives to a word of theirs, and merging does not."""
    if not v.ignore_merges:
        return []
    if not scheme.byte_level:
        raise unsupported("ignore_merges without byte level")
    import tokenizers

    plain = json.loads(tokenizer.to_str())
    plain |= {"added_tokens": [], "normalizer": None, "pre_tokenizer": None, "post_processor": None}
    plain["model"]["ignore_merges"] = False
    merging = tokenizers.Tokenizer.from_str(json.dumps(plain))
    names = [t for t in v.ids if t and ALPHABET.keys() >= set(t)]
    found = [v.ids[t] for t, e in zip(names, merging.encode_batch(names), strict=True) if e.ids != [v.ids[t]]]
    return sorted(found, key=literals.__getitem__)


def _in_order(v: _Vocabulary, scheme: Scheme, literals: list[bytes], as_literals: set[int]) -> int | None:
    """The token that the first merge makes, if the others follow in order and their bytes follow from their parts."""
    first = v.ids["".join(v.merges[0])] if v.merges else v.n_tokens
    depths: dict[int, int] = {}  # parts that wait while a merged token is taken apart
    for token, (left, right) in enumerate(v.merges, first):
        parts = v.ids[left], v.ids[right]
        in_order = v.ids[left + right] == token and all(p < token or p >= first + len(v.merges) for p in parts)
        depths[token] = max(depths.get(parts[0], 0) + 1, depths.get(parts[1], 0))
        if (
            not in_order
            or token in as_literals
            or depths[token] > lib.EHMN_MAX_TOKEN_DEPTH
            or literals[parts[0]] + literals[parts[1]] != literals[token]
        ):
            return None
    return first


def _split_of(v: _Vocabulary, scheme: Scheme) -> int:
    """Text that is one word may be cut before spaces all the same if no merge crosses such a place."""
    if scheme.byte_level or scheme.split != lib.EHMN_SPLIT_NONE:
        return scheme.split
    crossing = re.compile(f"[^{scheme.space}]{scheme.space}")
    return int(lib.EHMN_SPLIT_NONE if any(crossing.search(a + b) for a, b in v.merges) else lib.EHMN_SPLIT_SPACES)


def _added_section(v: _Vocabulary) -> tuple[bytes, bytes]:
    """The records of the added tokens, the longest first, and the bits of their first bytes."""
    ordered = sorted(v.added, key=lambda a: (-len(a.content.encode()), a.token))
    records, first = ffi.new("ehmn_added[]", len(ordered)), bytearray(32)
    for record, a in zip(records, ordered, strict=True):
        record.token = a.token
        record.flags = lib.EHMN_ADDED_SPECIAL * a.special + lib.EHMN_ADDED_LATE * a.late
        b = a.content.encode()[0]
        first[b // 8] |= 1 << b % 8
    return bytes(ffi.buffer(records)) if ordered else b"", bytes(first)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def device_section(checkpoint: Checkpoint) -> tuple[bytes, str]:
    """The section for a checkpoint's image, and a word about it; empty, with the reason, where the core cannot do what
    the tokenizer does."""
    try:
        return tokenizer_section(checkpoint.tokenizer_json, checkpoint.config.vocab_size), "in the image"
    except UnsupportedError as e:
        return b"", f"not in the image, so that text needs a host: {e}"


def tokenizer_section(tokenizer_json: str, vocab_size: int) -> bytes:
    """The section of a tokenizer.json for a model of `vocab_size` tokens. Raises UnsupportedError."""
    import tokenizers

    tokenizer = tokenizers.Tokenizer.from_str(tokenizer_json)
    settings = json.loads(tokenizer.to_str())  # in the form of this version of the library
    scheme = read_scheme(settings)
    v = _vocabulary(tokenizer, scheme, settings["model"])
    if not 0 < v.n_tokens <= vocab_size:
        raise unsupported(f"{v.n_tokens} tokens for a model that has {vocab_size}")
    literals = _literals(v, scheme)
    whole = _whole_words(tokenizer, v, scheme, literals)
    first = _in_order(v, scheme, literals, {*whole, *(a.token for a in v.added)})
    header = ffi.new("ehmn_tokenizer *")
    header.merged = lib.EHMN_MERGED_LISTED if first is None else lib.EHMN_MERGED_IN_ORDER
    header.first_merged = first or 0
    if first is not None:
        del literals[first : first + len(v.merges)]
    header.split = _split_of(v, scheme)
    return _assemble(header, v, scheme, literals, whole, vocab_size)


def _assemble(
    header: Any, v: _Vocabulary, scheme: Scheme, literals: list[bytes], whole: list[int], vocab_size: int
) -> bytes:
    pairs = np.array([(v.ids[a], v.ids[b]) for a, b in v.merges], np.uint32).reshape(-1, 2)
    listed = header.merged == lib.EHMN_MERGED_LISTED
    chars = _tokens_of_chars(v, scheme)
    records, first_bytes = _added_section(v)
    header.word_bytes = 2 if max(v.n_tokens, len(pairs)) < 1 << 16 else 4
    word = np.dtype(f"<u{header.word_bytes}")
    words: list[Iterable[int]] = [
        pairs.ravel(),
        np.lexsort((pairs[:, 1], pairs[:, 0])),
        [v.ids[a + b] for a, b in v.merges] if listed else [],
        _tokens_of_bytes(v, scheme),
        chars,
        whole,
    ]
    ends = np.cumsum([len(b) for b in literals], dtype=np.uint32).astype("<u4")
    arrays = [np.array(list(w), np.int64).astype(word).tobytes() for w in words] + [
        records,
        ends.tobytes(),
        b"".join(literals),
    ]
    header.magic, header.version = lib.EHMN_TOKENIZER_MAGIC, lib.EHMN_TOKENIZER_VERSION
    header.n_tokens, header.n_merges, header.n_chars = v.n_tokens, len(pairs), len(chars)
    header.n_whole, header.n_added, header.n_literals = len(whole), len(v.added), len(literals)
    header.literal_bytes = len(arrays[-1])
    header.digits, header.metaspace = scheme.digits, not scheme.byte_level and scheme.space == METASPACE
    header.prefix, header.strip = scheme.prefix, scheme.strip
    header.added_first = list(first_bytes)
    header.bytes = ffi.sizeof("ehmn_tokenizer") + sum(len(_padded(a)) for a in arrays)
    section = bytes(ffi.buffer(header)) + b"".join(map(_padded, arrays))
    try:
        DeviceTokenizer(section, vocab_size)
    except EdgeHMNError as e:
        raise unsupported(f"this tokenizer: {e}") from e
    return section


class DeviceTokenizer:
    """A tokenizer as it runs on the device: the C core reads its section."""

    def __init__(self, section: bytes, vocab_size: int) -> None:
        """Raises InvalidFileError for a section that the core refuses."""
        self._section = ffi.new("uint32_t[]", -(-len(section) // 4) or 1)  # aligned
        ffi.memmove(self._section, section, len(section))
        check(lib.ehmn_tokenizer_check(self._section, len(section), vocab_size), "tokenizer")

    def encode(self, text: str | bytes) -> npt.NDArray[np.int32]:
        """Tokens (n,) of a text. Bytes that are not UTF-8 stand for U+FFFD."""
        data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
        room = 6 * len(data) + 8
        tokens = np.zeros(room, np.uint32)
        source, n = ffi.new("ehmn_text *"), ffi.new("uint32_t *")
        keep = ffi.from_buffer("uint8_t[]", data)
        source.text, source.bytes = keep, len(data)
        out = ffi.from_buffer("uint32_t[]", tokens)
        check(lib.ehmn_tokenize(self._section, source, out, room, n), "text")
        assert source.position == len(data)
        return tokens[: n[0]].astype(np.int32)

    def decode(self, tokens: Iterable[int]) -> bytes:
        """The bytes that tokens say, special ones left out."""
        state, n = ffi.new("uint32_t *"), ffi.new("uint32_t *")
        out = ffi.new("uint8_t[]", lib.EHMN_MAX_TOKEN_BYTES)
        parts = []
        for token in tokens:
            check(lib.ehmn_detokenize(self._section, int(token), state, out, len(out), n), "token")
            parts.append(bytes(ffi.buffer(out, n[0])))
        return b"".join(parts)
