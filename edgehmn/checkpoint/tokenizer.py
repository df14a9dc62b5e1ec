"""Tokenizers: those that a file holds, checked; and those that are built from the vocabulary in it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgehmn.checkpoint.settings import parse_object
from edgehmn.errors import InvalidFileError, UnsupportedError


def read_tokenizer(path: Path, text: str, vocab_size: int) -> Any:
    """A tokenizer that takes any text whole, adds nothing to it, and all of whose tokens are below `vocab_size`.

    Raises InvalidFileError.
    """
    import tokenizers

    try:
        tokenizer = tokenizers.Tokenizer.from_str(text)
        largest = max(tokenizer.get_vocab().values(), default=-1)
        tokenizer.encode("Any text.\n")
        added = tokenizer.num_special_tokens_to_add(False)
    except Exception as e:  # the tokenizers library raises bare Exception
        raise InvalidFileError(f"{path}: not a tokenizer that the tokenizers library reads ({e})") from e
    if largest >= vocab_size:
        raise InvalidFileError(f"{path}: has token {largest}, but the model's vocab_size is {vocab_size}")
    if tokenizer.truncation is not None or tokenizer.padding is not None:
        raise InvalidFileError(f"{path}: cuts or pads texts; set its keys 'truncation' and 'padding' to null")
    if added:
        raise InvalidFileError(f"{path}: adds tokens to a text; set its key 'post_processor' to null")
    return tokenizer


def plain_tokenizer(path: Path, text: str, vocab_size: int) -> tuple[str, int]:
    """(JSON, start token or -1): a tokenizer without what it puts around a text, and the token that it puts in front.

    Raises InvalidFileError, and UnsupportedError if it puts more than one there.
    """
    import tokenizers

    parsed = parse_object(text, str(path))
    try:
        whole = tokenizers.Tokenizer.from_str(text)
        whole.no_truncation()
        whole.no_padding()
        front = whole.encode("").ids if whole.num_special_tokens_to_add(False) else []
        around = whole.encode("a").ids
        bare = whole.encode("a", add_special_tokens=False).ids
    except Exception as e:  # the tokenizers library raises bare Exception
        raise InvalidFileError(f"{path}: not a tokenizer that the tokenizers library reads ({e})") from e
    n = next((i for i in range(len(front) + 1) if around[i : i + len(bare)] == bare), 0)
    if n > 1:
        raise UnsupportedError(f"{path}: puts {n} tokens in front of a text; one at most is supported")
    plain = json.dumps(parsed | {"post_processor": None, "truncation": None, "padding": None}, ensure_ascii=False)
    read_tokenizer(path, plain, vocab_size)
    return plain, around[0] if n else -1


MAX_TOKEN = 256  # characters of a token that is merged from others: bounds the ways to cut it
SPACE = "▁"  # what SentencePiece writes for a space, and reads as one

# Words of the vocabularies that GGUF files hold, by what llama.cpp calls their pre-tokenizer.
_DIGIT_BY_DIGIT = ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone")
_GPT2 = ("default", "gpt-2", "gpt2", "olmo", "mpt", "phi-2", "jais")
_WORDS = r"|[^\r\n\p{L}\p{N}]?\p{L}+|NUMBER| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_ENDINGS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_PATTERNS = {
    "llama-bpe": _ENDINGS + _WORDS.replace("NUMBER", r"\p{N}{1,3}"),
    "llama3": _ENDINGS + _WORDS.replace("NUMBER", r"\p{N}{1,3}"),
    "qwen2": _ENDINGS + _WORDS.replace("NUMBER", r"\p{N}"),
}
WHOLE_WORDS_FIRST = ("llama-bpe", "llama3")  # a word that is a token is taken as it is, whatever its merges


def byte_level_bpe(tokens: Sequence[str], merges: Sequence[str], special: Sequence[int], kind: str, where: str) -> str:
    """The JSON of a byte-level BPE tokenizer, as GPT-2 has it.

    tokens: in the order of their ids; merges: "left right", the first wins; special: ids that are never taken apart;
    kind: how text is cut into words, as GGUF files name it. Raises UnsupportedError for an unknown kind,
    InvalidFileError for a vocabulary that is none.
    """
    pairs = [merge.split(" ") for merge in merges]
    known = _vocabulary(tokens, where)
    for pair in pairs:
        if len(pair) != 2 or not known.keys() >= {*pair, "".join(pair)}:
            raise InvalidFileError(f"{where}: merge '{' '.join(pair)[:80]}' is not one of two tokens to a third")
    return _bpe(
        known,
        pairs,
        special,
        pre_tokenizer=_words(kind, where),
        decoder=_byte_level(use_regex=True),
        ignore_merges=kind in WHOLE_WORDS_FIRST,
    )


def _words(kind: str, where: str) -> dict[str, Any]:
    """The pre-tokenizer of this name."""
    if kind in _GPT2:
        return _byte_level(use_regex=True)
    if kind in _DIGIT_BY_DIGIT:
        parts = [{"type": "Digits", "individual_digits": True}, _byte_level(use_regex=True)]
    elif kind in _PATTERNS:
        split = {"type": "Split", "pattern": {"Regex": _PATTERNS[kind]}, "behavior": "Isolated", "invert": False}
        parts = [split, _byte_level(use_regex=False)]
    else:
        known = ", ".join([*_GPT2, *_DIGIT_BY_DIGIT, *_PATTERNS])
        raise UnsupportedError(f"{where}: pre-tokenizer '{kind[:80]}' is not supported; known are {known}")
    return {"type": "Sequence", "pretokenizers": parts}


def _byte_level(use_regex: bool) -> dict[str, Any]:
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": use_regex}


def scored_bpe(
    tokens: Sequence[str],
    scores: Sequence[float],
    special: Sequence[int],
    where: str,
    *,
    prefix: bool = True,
    unknown: int = 0,
) -> str:
    """The JSON of a BPE tokenizer with scores and byte fallback, as SentencePiece and llama2.c have it.

    Of all pairs of neighbours that make a token, the one with the highest score is merged, the leftmost first.
    tokens, scores: in the order of their ids; special: as above; in all of them SPACE stands for a space.
    prefix: whether a space goes in front of a text; unknown: for characters of which the bytes are no tokens either.
    """
    known = _vocabulary(tokens, where)
    if len(scores) != len(tokens) or not all(abs(s) < float("inf") for s in scores):
        raise InvalidFileError(f"{where}: has {len(tokens)} tokens but not a score for each")
    if not 0 <= unknown < len(tokens):
        raise InvalidFileError(f"{where}: token {unknown} for unknown characters is not in its vocabulary")
    if any(len(token) > MAX_TOKEN for token in tokens):
        raise InvalidFileError(f"{where}: a token has more than {MAX_TOKEN} characters; the vocabulary is damaged")
    made = sorted(set(range(len(tokens))) - set(special) - _single_bytes(known), key=lambda i: (-scores[i], i))
    merges = [pair for i in made for pair in _halves(tokens[i], known)]
    steps: list[dict[str, Any]] = [{"type": "Prepend", "prepend": SPACE}] if prefix else []
    steps.append({"type": "Replace", "pattern": {"String": " "}, "content": SPACE})
    decoders = [
        {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
        *([{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if prefix else []),
    ]
    return _bpe(
        known,
        merges,
        special,
        normalizer={"type": "Sequence", "normalizers": steps},
        decoder={"type": "Sequence", "decoders": decoders},
        byte_fallback=True,
        unk_token=tokens[unknown],
        fuse_unk=False,
    )


def _halves(token: str, known: dict[str, int]) -> list[list[str]]:
    """All pairs of tokens that make this one, in such an order that of two which overlap the left one is merged.

    A pair has one rank, so an order is all that can be given. AB and BC overlap in B where both are this token: the
    cuts are then i and n - i. The longer left half comes first, unless only the other order can occur (ab+aba before
    aba+ba). Where both can (a+aa, aa+a), runs of one character are merged from the left, and only aa+a is met.
    """
    n = len(token)
    cuts = list(range(n - 1, 0, -1))
    for i in range(1, (n + 1) // 2):
        if token[i:] == token[: n - i] and token[n - i :] != token[:i]:
            cuts[n - 1 - i], cuts[i - 1] = n - i, i
    return [[token[:i], token[i:]] for i in cuts if token[:i] in known and token[i:] in known]


def _single_bytes(known: dict[str, int]) -> set[int]:
    """The tokens that stand for bytes, <0x00> to <0xFF>."""
    return {known[name] for name in (f"<0x{byte:02X}>" for byte in range(256)) if name in known}


def _vocabulary(tokens: Sequence[str], where: str) -> dict[str, int]:
    known = {token: i for i, token in enumerate(tokens)}
    if len(known) != len(tokens) or "" in known:
        twice = next(token for i, token in enumerate(tokens) if known[token] != i or not token)
        raise InvalidFileError(f"{where}: token '{twice[:80]}' stands twice in its vocabulary, or is empty")
    return known


def _bpe(known: dict[str, int], merges: list[list[str]], special: Sequence[int], **settings: Any) -> str:
    """The JSON of a tokenizer; `settings` belong to the model where a model has them."""
    names = list(known)
    added = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
    }
    whole = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, "content": names[i]} | added for i in sorted(set(special))],
        "normalizer": None,
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": None,
    }
    whole |= {key: value for key, value in settings.items() if key in whole}
    model |= {key: value for key, value in settings.items() if key in model}
    return json.dumps(whole | {"model": model | {"vocab": known, "merges": merges}}, ensure_ascii=False)
