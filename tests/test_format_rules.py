"""The validators in C and the rules of the documents, written once more in Python, say the same of every input that a
fuzzer kept, and of many more made from them; and what both let through runs as the specification says."""

import random
import zlib
from collections import Counter
from collections.abc import Callable

import numpy as np

from edgehmn.core import CoreModel, Image, aligned, ffi, lib
from edgehmn.errors import InvalidFileError
from fuzz import corpus
from fuzz.targets import MODELS
from tests import format_rules
from tests.format_rules import Invalid
from tests.oracle import Oracle

VOCABULARY = 300  # as in fuzz_tokenizer.c
EDGES = (0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 62, 63, 64, 255, 256, 65535, 65536, 2**20, 2**24, 2**31 - 1, 2**31)
EDGES += (2**32 - 2**20, 2**32 - 2, 2**32 - 1)
Rule = Callable[[bytes], None]


def pointer(data: bytes) -> object:
    buffer = aligned(max(len(data), 1))
    buffer[: len(data)] = np.frombuffer(data, np.uint8)
    return ffi.from_buffer("uint8_t[]", buffer)


def models() -> dict[bytes, CoreModel]:
    """The models of the harness of deltas, by their ids."""
    images = [(MODELS / f"{name}.ehmn").read_bytes() for name in ("small", "text")]
    return {image[16:48]: CoreModel(Image(image), seed=5) for image in images}


def sealed(data: bytes) -> bytes:
    """With the right size and CRC, where images and deltas have them."""
    if len(data) < 16:
        return data
    return data[:8] + np.array([len(data), zlib.crc32(data[16:])], "<u4").tobytes() + data[16:]


def changed(data: bytes, rng: random.Random) -> bytes:
    """With a word of the header, or of anything, changed a little or much; or cut, or longer."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2))):
        if not out or rng.random() < 0.05:
            out = out[: rng.randrange(len(out) + 1)] if rng.random() < 0.5 else out + bytes(4 * rng.randrange(1, 5))
            continue
        at = rng.randrange(0, len(out) - 3, 4) if len(out) > 3 else 0
        old = int.from_bytes(out[at : at + 4], "little")
        new = rng.choice((*EDGES, old + 1, old - 1, old ^ 1 << rng.randrange(32), rng.getrandbits(32)))
        out[at : at + 4] = (new % 2**32).to_bytes(4, "little")
    return bytes(out)


def compare(inputs: list[bytes], status: Callable[[bytes], int], rule: Rule) -> Counter[str]:
    """How many inputs break each rule; "" stands for those that break none. Fails where the core says otherwise."""
    broken: Counter[str] = Counter()
    for data in inputs:
        try:
            rule(data)
            why = ""
        except Invalid as e:
            why = str(e)
        broken[why] += 1
        assert (status(data) == lib.EHMN_OK) == (why == ""), f"{why!r}, the core says {status(data)}: {data.hex()}"
    return broken


def made_from(inputs: list[bytes], n: int, seal: Callable[[bytes], bytes]) -> list[bytes]:
    """The inputs, and n more each."""
    rng = random.Random(1)
    return inputs + [seal(changed(data, rng)) for data in inputs for _ in range(n)]


def test_images() -> None:
    inputs = made_from(list(corpus.read("image").values()), 30, sealed)
    broken = compare(inputs, lambda d: int(lib.ehmn_image_check(pointer(d), len(d))), format_rules.check_image)
    assert broken[""] > 100 and len(broken) > 40, broken


def test_deltas() -> None:
    of_models = models()
    first = next(iter(of_models.values()))

    def model_of(data: bytes) -> CoreModel:
        return of_models.get(data[16:48], first)

    def status(data: bytes) -> int:
        return int(lib.ehmn_delta_load(model_of(data)._model, pointer(data), len(data)))

    def rule(data: bytes) -> None:
        format_rules.check_delta(bytes(model_of(data).image.bytes), data)

    broken = compare(made_from(list(corpus.read("delta").values()), 100, sealed), status, rule)
    assert broken[""] > 100 and len(broken) > 12, broken


def test_tokenizers() -> None:
    sections = []
    for data in corpus.read("tokenizer").values():
        size = int.from_bytes(data[8:12], "little")
        sections.append(data[:size] if 128 <= size <= len(data) else data)
    broken = compare(
        made_from(sections, 60, lambda d: d),
        lambda d: int(lib.ehmn_tokenizer_check(pointer(d), len(d), VOCABULARY)),
        lambda d: format_rules.check_section(d, VOCABULARY),
    )
    assert broken[""] > 100 and len(broken) > 20, broken


def sound_images() -> list[bytes]:
    """Small enough for the oracle."""
    out = []
    for name, data in sorted(corpus.read("image").items()):
        try:
            image = Image(data, name)
        except InvalidFileError:
            continue
        if image.arena_bytes(plastic=True) < 20_000:
            out.append(data)
    return out


def test_what_is_let_through_runs_as_specified() -> None:
    sound = sound_images()
    assert len(sound) > 40
    for data in sound:
        model, oracle = CoreModel(Image(data), seed=3), Oracle(data, seed=3)
        for token in (0, 1, 1, 0):
            assert model.score(token) == oracle.score(token), data.hex()
            model.learn(token)
            oracle.learn(token)
            model.step(token)
            oracle.step(token)
        assert model.save() == oracle.save(), data.hex()
