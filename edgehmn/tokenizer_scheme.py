"""Which of the ways to cut and to join text that the core knows a tokenizer.json asks for."""

from dataclasses import dataclass
from typing import Any

from edgehmn.core import lib
from edgehmn.errors import UnsupportedError

METASPACE = "\u2581"

_GPT2 = r"| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LLAMA3 = r"|[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_ANY_CASE = ("(?i:'s|'t|'re|'ve|'m|'ll|'d)", "'(?i:[sdmt]|ll|ve|re)")
_PATTERNS: dict[str, int] = {
    "'s|'t|'re|'ve|'m|'ll|'d" + _GPT2: lib.EHMN_SPLIT_GPT2,
    "'(?:[sdmt]|ll|ve|re)" + _GPT2: lib.EHMN_SPLIT_GPT2,
    **{contraction + _LLAMA3 % r"\p{N}{1,3}": lib.EHMN_SPLIT_LLAMA3 for contraction in _ANY_CASE},
    **{contraction + _LLAMA3 % r"\p{N}": lib.EHMN_SPLIT_QWEN2 for contraction in _ANY_CASE},
}
_PREPEND_SCHEMES: dict[str, int] = {
    "always": lib.EHMN_PREFIX_UNLESS_SPACE,
    "first": lib.EHMN_PREFIX_FIRST,
    "never": lib.EHMN_PREFIX_NEVER,
}


def unsupported(what: str) -> UnsupportedError:
    return UnsupportedError(f"tokenizer: the device does not support {what}; its text needs a host")


@dataclass(frozen=True)
class Scheme:
    """How text becomes words, and tokens text."""

    byte_level: bool
    split: int
    prefix: int
    strip: int = lib.EHMN_STRIP_NOTHING
    digits: bool = False
    byte_fallback: bool = False  # tokens such as <0x0A> say a byte
    space: str = METASPACE  # what stands for a space in tokens that are not byte-level
    has_normalizer: bool = False


def _flat(part: dict[str, Any] | None, members: str) -> list[dict[str, Any]]:
    """The steps of a part of a tokenizer.json, sequences taken apart."""
    if part is None:
        return []
    if part["type"] != "Sequence":
        return [part]
    return [step for member in part[members] for step in _flat(member, members)]


def _types(steps: list[dict[str, Any]]) -> str:
    return " + ".join(str(s["type"]) for s in steps) or "none"


def read_scheme(settings: dict[str, Any]) -> Scheme:
    """The scheme of a tokenizer.json as the library writes it. Raises UnsupportedError, which says what is unknown."""
    for name in ("truncation", "padding"):
        if settings.get(name) is not None:
            raise unsupported(name)
    normalizers = _flat(settings["normalizer"], "normalizers")
    splitters = _flat(settings["pre_tokenizer"], "pretokenizers")
    decoders = _flat(settings["decoder"], "decoders")
    if any(s["type"] == "ByteLevel" for s in splitters):
        return _byte_level(normalizers, splitters, decoders)
    return _sentencepiece(normalizers, splitters, decoders)


def _byte_level(
    normalizers: list[dict[str, Any]], splitters: list[dict[str, Any]], decoders: list[dict[str, Any]]
) -> Scheme:
    if normalizers:
        raise unsupported(f"the normalizer {_types(normalizers)} of byte-level text")
    if [d["type"] for d in decoders] != ["ByteLevel"]:
        raise unsupported(f"the decoder {_types(decoders)} of byte-level tokens")
    *before, level = splitters
    digits = bool(before) and before[0]["type"] == "Digits" and before[0]["individual_digits"]
    before = before[1:] if digits else before
    split = lib.EHMN_SPLIT_GPT2 if level.get("use_regex", True) else lib.EHMN_SPLIT_NONE
    if len(before) == 1 and before[0]["type"] == "Split" and split == lib.EHMN_SPLIT_NONE:
        split = _pattern(before.pop())
    if before or level["type"] != "ByteLevel" or (level["add_prefix_space"] and len(splitters) > 1):
        raise unsupported(f"the pre-tokenizer {_types(splitters)} with these settings")
    prefix = lib.EHMN_PREFIX_UNLESS_SPACE if level["add_prefix_space"] else lib.EHMN_PREFIX_NEVER
    return Scheme(True, split, prefix, digits=digits)


def _pattern(step: dict[str, Any]) -> int:
    pattern = step["pattern"].get("Regex")
    if step["behavior"] != "Isolated" or step["invert"] or pattern not in _PATTERNS:
        raise unsupported(f"splitting by {step['pattern']}, {step['behavior']} (it knows GPT-2, Llama 3 and Qwen 2)")
    return _PATTERNS[pattern]


def _sentencepiece(
    normalizers: list[dict[str, Any]], splitters: list[dict[str, Any]], decoders: list[dict[str, Any]]
) -> Scheme:
    space, byte_fallback, strip = _joining(decoders)
    prefix = None
    split = lib.EHMN_SPLIT_NONE
    if not normalizers and len(splitters) == 1 and splitters[0]["type"] == "Metaspace":
        step = splitters[0]
        split = lib.EHMN_SPLIT_SPACE if step["split"] else lib.EHMN_SPLIT_NONE
        if step["replacement"] == space == METASPACE:
            prefix = _PREPEND_SCHEMES.get(step["prepend_scheme"])
    elif not splitters:
        prepend = {"type": "Prepend", "prepend": space}
        replace = {"type": "Replace", "pattern": {"String": " "}, "content": space}
        needed = [replace] if space == METASPACE else []
        if [n for n in normalizers if n != prepend] == needed and normalizers.count(prepend) <= 1:
            prefix = lib.EHMN_PREFIX_ALWAYS if prepend in normalizers else lib.EHMN_PREFIX_NEVER
    if prefix is None:
        raise unsupported(f"the normalizer {_types(normalizers)} with the pre-tokenizer {_types(splitters)}")
    return Scheme(False, split, prefix, strip, False, byte_fallback, space, bool(normalizers))


def _joining(decoders: list[dict[str, Any]]) -> tuple[str, bool, int]:
    """What stands for a space, whether byte tokens say bytes, and what the beginning of an output loses."""
    if len(decoders) == 1 and decoders[0]["type"] == "Metaspace" and decoders[0]["replacement"] == METASPACE:
        never = decoders[0]["prepend_scheme"] == "never"
        return METASPACE, False, lib.EHMN_STRIP_NOTHING if never else lib.EHMN_STRIP_FIRST_TOKEN
    steps = [d["type"] for d in decoders]
    known = [["Replace"] + ["ByteFallback"] * b + f for b in (0, 1) for f in ([], ["Fuse"], ["Fuse", "Strip"])]
    first, last = (decoders[0], decoders[-1]) if decoders else ({}, {})
    space = first.get("pattern", {}).get("String")
    stripping = steps[-1:] == ["Strip"]
    if (
        steps not in known
        or first["content"] != " "
        or space not in (METASPACE, " ")
        or (stripping and last != {"type": "Strip", "content": " ", "start": 1, "stop": 0})
    ):
        raise unsupported(f"the decoder {_types(decoders)} with these settings")
    strip = lib.EHMN_STRIP_SPACE if stripping else lib.EHMN_STRIP_NOTHING
    return space, "ByteFallback" in steps, strip
