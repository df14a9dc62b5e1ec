"""The models that harnesses open, and tiny sound inputs of every kind from which they start: made once, then kept in
corpus/ and models/."""

from dataclasses import replace
from pathlib import Path

import tokenizers

from edgehmn.core import CoreModel, Image, ffi, lib
from edgehmn.device import wire
from edgehmn.image import build_image
from edgehmn.tokenizer import tokenizer_section
from fuzz.targets import MODELS
from tests.models import GPT2, LEAST, LITTLE, quantised, random_checkpoint, random_tokens, tiny_image

Inputs = dict[str, bytes]


def byte_pairs() -> str:
    """The JSON of a tokenizer of 9 tokens: some bytes, merges of them, an added and a special token."""
    vocab = {c: i for i, c in enumerate(("a", "b", "Ġ", "<", "1", "ab", "Ġa"))}
    model = tokenizers.models.BPE(vocab=vocab, merges=[("a", "b"), ("Ġ", "a")])
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.add_special_tokens(["<s>"])
    tokenizer.add_tokens(["a1"])
    return str(tokenizer.to_str())


def models() -> Inputs:
    """The images that the harnesses open: one without a tokenizer, one with."""
    little = quantised(random_checkpoint(replace(LEAST, d_model=4, vocab_size=9)), LITTLE)
    with_text = replace(little, tokenizer=tokenizer_section(byte_pairs(), 9))
    guard = with_text.guard
    few = replace(guard, mantissas=guard.mantissas[:2], frac=guard.frac[:2], tokens=guard.tokens[:2])
    return {
        "small": tiny_image(LEAST, LITTLE, n_guard=2),
        "text": build_image(replace(with_text, guard=few)),
    }


def images() -> Inputs:
    small = replace(GPT2, n_layers=1, d_model=4, d_hidden=3, n_heads=2, n_kv_heads=1, vocab_size=5)
    return models() | {"gpt2": tiny_image(small, LITTLE, n_guard=2)}


def deltas() -> Inputs:
    out = {}
    for name, image in models().items():
        core = CoreModel(Image(image))
        out[f"{name}-fresh"] = core.save()
        core.process(random_tokens(40, 5), learn=True)
        out[f"{name}-learned"] = core.save()
    return out


def sections() -> Inputs:
    section = tokenizer_section(byte_pairs(), 9)
    merged, split, digits, prefix = (ffi.offsetof("ehmn_tokenizer", n) for n in ("merged", "split", "digits", "prefix"))
    out = {"plain": section + b"ab <s>a1 a", "no-text": section}
    for kind in range(lib.EHMN_SPLIT_SPACES + 1):
        changed = bytearray(section)
        changed[split], changed[digits], changed[prefix] = kind, kind % 2, kind % 4
        out[f"split-{kind}"] = bytes(changed) + "It's 12 a\r\n\n  é▁x ".encode()
    assert section[merged] in (lib.EHMN_MERGED_IN_ORDER, lib.EHMN_MERGED_LISTED)
    return out | {
        "too-long": chain([b"abc"], [(i, i) for i in range(8)]),
        "too-many-parts": chain([b""], [(i, i) for i in range(11)]),
        "too-deep": chain([b"a"], [(i, 0) for i in range(34)]),
        "long": chain([b"a"], [(i, i) for i in range(6)]) + b"a" * 70,
    }


def chain(literals: list[bytes], pairs: list[tuple[int, int]]) -> bytes:
    """A section of merges in order alone: pair i makes token len(literals) + i."""
    header = ffi.new("ehmn_tokenizer *")
    header.magic, header.version, header.word_bytes = lib.EHMN_TOKENIZER_MAGIC, lib.EHMN_TOKENIZER_VERSION, 4
    header.n_merges, header.first_merged, header.n_literals = len(pairs), len(literals), len(literals)
    header.n_tokens, header.literal_bytes = len(literals) + len(pairs), sum(map(len, literals))
    bytes_ = [
        next((t for t, literal in enumerate(literals) if literal[:1] == bytes([b])), 2**32 - 1) for b in range(256)
    ]
    order = sorted(range(len(pairs)), key=lambda i: pairs[i])
    ends = [sum(map(len, literals[: i + 1])) for i in range(len(literals))]
    data = wire.words(*(token for pair in pairs for token in pair), *order, *bytes_, *ends) + b"".join(literals)
    header.bytes = ffi.sizeof("ehmn_tokenizer") + -(-len(data) // 4) * 4
    return bytes(ffi.buffer(header)) + data + bytes(-len(data) % 4)


def sessions() -> Inputs:
    """Each command alone and all together, on each kind of board."""
    words = wire.words
    session = [
        (lib.EHMN_WIRE_PROCESS, words(1, 1, 2, 3)), (lib.EHMN_WIRE_TEXT, words(1, 0) + b"ab a"),
        (lib.EHMN_WIRE_SAY, words(4, 256, 1)), (lib.EHMN_WIRE_GENERATE, words(2, 0)), (lib.EHMN_WIRE_COUNTS, b""),
        (lib.EHMN_WIRE_STORE, b""), (lib.EHMN_WIRE_STATE, b""), (lib.EHMN_WIRE_CONFIRM, b""),
        (lib.EHMN_WIRE_STORE, b""), (lib.EHMN_WIRE_ROLL_BACK, b""), (lib.EHMN_WIRE_SAVE, b""),
        (lib.EHMN_WIRE_READ, words(0, 64)), (lib.EHMN_WIRE_WRITE, words(0) + b"x" * 9),
        (lib.EHMN_WIRE_LOAD, words(64)), (lib.EHMN_WIRE_FORGET, bytes(8)), (lib.EHMN_WIRE_RESET, b""),
        (lib.EHMN_WIRE_WIPE, b""), (lib.EHMN_WIRE_RESTART, b""),
    ]  # fmt: skip
    frames = [wire.encode(lib.EHMN_WIRE_IDENTIFY, 7)]
    frames += [wire.encode(command, 8 + i, payload) for i, (command, payload) in enumerate(session)]
    out = {f"board-{kind}": bytes([kind, 0]) + b"".join(frames) for kind in range(8)}
    for (command, payload), name in zip(session, range(len(session)), strict=True):
        out[f"command-{name}"] = bytes(2) + frames[0] + wire.encode(command, 8, payload)
    return out | {"fault": bytes([0, 2]) + b"".join(frames)}


def states() -> Inputs:
    record = (b"EHMS" + bytes(148)) * 2
    return {"blank": b"\0\0", "two": b"\x07\x08\x06\x01\0\0" + record, "cut": b"\x07\x08\x01\x03\x06\0\x02"}


def all_seeds() -> dict[str, Inputs]:
    """The seeds of each target."""
    return {"image": images(), "tokenizer": sections(), "delta": deltas(), "state": states(), "wire": sessions()}


def write(folder: Path, inputs: Inputs, suffix: str = "") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in inputs.items():
        (folder / f"{name}{suffix}").write_bytes(data)


def write_all() -> None:
    """Models into models/, and archives that begin with the seeds; inputs kept for a fault stay."""
    from fuzz import corpus

    write(MODELS, models(), ".ehmn")
    for target, inputs in all_seeds().items():
        path = corpus.ARCHIVES / f"{target}.tar.xz"
        kept = {n: d for n, d in corpus.read(target).items() if n.startswith("fault-")} if path.exists() else {}
        corpus.write(target, kept | inputs)
