"""The delta: what the core writes it reads, and it reads nothing else; a refused delta changes nothing."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgehmn.core import CoreModel, Image, aligned, ffi, lib
from edgehmn.errors import InvalidFileError
from tests import hostile
from tests.models import BUSY, LEAST, LITTLE, SMALL, logits, opened, random_tokens, resealed_delta, tiny_image
from tests.oracle import Oracle
from tests.test_image_damage import EXTREMES, needs_gcc

HEADER = ffi.sizeof("ehmn_delta")
HEADER_WORDS = [w for w in range(0, HEADER, 4) if w != ffi.offsetof("ehmn_delta", "crc32")]
GAIN_MAX = 3 * 65536


def arrays(n_dense: int, d: int, vocab_size: int, rows: int, slots: int, episodes: int) -> dict[str, int]:
    """Where the arrays of a delta begin, as edgehmn_image.h says it; and where they end."""
    sizes = {
        "dense": n_dense * d * d,
        "rows": rows * d,
        "bias": 2 * vocab_size,
        "ngrams": 4 * slots,
        "keys": 4 * episodes * -(-d // 32),
        "tokens": 4 * episodes,
        "trace": 4 * n_dense * d,
        "slow": 4 * n_dense * d,
        "context": 4 * n_dense * d,
        "topic": 4 * 2 * d,
        "centre": 4 * d,
        "wander": 4 * d,
    }
    at, out = HEADER, {}
    for name, size in sizes.items():
        out[name] = at
        at += -(-size // 4) * 4
    return out | {"end": at}


AT = arrays(2, LEAST.d_model, LEAST.vocab_size, 3, 2 * 3, 3)


def place(*path: str | int) -> int:
    return int(ffi.offsetof("ehmn_delta", *path))


GAINS: list[tuple[str | int, ...]] = [("scale",), ("bias",), ("row", 0), ("row", 1), ("dense", 0), ("dense", 1)]
NGRAM = 1 << 20  # the largest gain of an n-gram


@pytest.fixture(scope="module")
def least() -> bytes:
    return tiny_image(LEAST, LITTLE, n_guard=2)


@pytest.fixture(scope="module")
def delta(least: bytes) -> bytes:
    """A delta of the least model that has learned."""
    model = CoreModel(opened(least), seed=3)
    model.process(random_tokens(30, LEAST.vocab_size), learn=True)
    return model.save()


@pytest.fixture
def model(least: bytes) -> CoreModel:
    model = CoreModel(opened(least), seed=11)
    model.process(random_tokens(9, LEAST.vocab_size), learn=True)
    return model


def with_words(delta: bytes, changes: Iterable[tuple[int, int]]) -> bytes:
    """The delta with other words at some offsets, and the CRC that belongs to them."""
    out = bytearray(delta)
    for offset, value in changes:
        out[offset : offset + 4] = np.uint32(value % 2**32).tobytes()
    return resealed_delta(out)


def refusal(model: CoreModel, delta: bytes) -> str:
    """The status with which a delta is refused, or 'OK'. A refused one must change nothing."""
    before, predicted = model.save(), logits(model)
    try:
        model.load(delta)
    except InvalidFileError as e:
        assert model.save() == before and logits(model) == predicted
        return str(e.detail["status"])
    return "OK"


def test_what_is_saved_is_loaded(model: CoreModel, delta: bytes) -> None:
    assert model.save() != delta
    model.load(delta)
    assert model.save() == delta and len(delta) == model.image.delta_bytes()


def test_layout_is_that_of_the_header() -> None:
    """The arrays follow one another as edgehmn_image.h says; the oracle writes the same bytes."""
    rule = replace(BUSY, row_slots=(3, 4), ngram_slots=7, ngram_orders=(1, 0, 5), episodes=5)
    image = tiny_image(replace(SMALL, d_model=34, n_heads=1), rule)
    model, oracle = CoreModel(opened(image), seed=5), Oracle(image, 5)
    assert model.image.delta_bytes() == arrays(2, 34, SMALL.vocab_size, 7, 2 * 7, 5)["end"]
    assert model.save() == oracle.save(), "untaught"
    assert oracle.save() == Oracle(image, 5).save()
    for token in random_tokens(20, SMALL.vocab_size).tolist():
        for each in (model, oracle):
            each.learn(token)
            each.step(token)
    restored = Oracle(image)
    restored.load(model.save())
    assert restored.save() == model.save() == oracle.save()


def test_an_untaught_delta_is_as_the_specification_says(least: bytes) -> None:
    """Zero but for its header, gains, scale and shares."""
    delta = CoreModel(opened(least), seed=9).save()
    h = ffi.cast("ehmn_delta *", ffi.from_buffer(delta))
    assert (h.magic, h.version, h.bytes, h.seed, len(delta)) == (0x444D4845, 3, AT["end"], 9, AT["end"])
    gains = h.gains
    assert [gains.scale, gains.bias, *gains.row, *gains.dense] == [65536] * 6 + [0] * 6
    assert list(gains.share) == [6554] * 16
    rest = np.frombuffer(delta, "<u4", len(delta) // 4).copy()
    for start, end in ((0, place("learned")), (place("gains"), HEADER)):
        rest[start // 4 : end // 4] = 0
    assert not rest.any()


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ([(place("magic"), 0x4E4D4845)], "E_MAGIC"),
        ([(place("version"), 1)], "E_VERSION"),
        ([(place("bytes"), HEADER)], "E_SIZE"),
        ([(place("image_id", 31), 0)], "E_IMAGE_ID"),
        ([(place("spread"), -1)], "E_VALUE"),
        ([(place("spread"), 2**31 - 1)], "OK"),
        ([(place("reward", "variance"), -1)], "E_VALUE"),
        ([(place("uncertainty", "started"), 2)], "E_VALUE"),
        ([(place("novelty", "reserved"), 1)], "E_VALUE"),
        ([(place("checks"), 257)], "E_VALUE"),
        *(([(place("gains", *gain), value)], "E_VALUE") for gain in GAINS for value in (-1, GAIN_MAX + 1)),
        ([(place("gains", "dense", 2), 1)], "E_VALUE"),  # of an adapter that the model has not
        ([(place("gains", "dense", 7), 1)], "E_VALUE"),
        *(
            ([(place("gains", "ngram", o, c), v)], "E_VALUE")
            for o, c in ((0, 0), (3, 15))
            for v in (NGRAM + 1, -NGRAM - 1)
        ),
        *(([(place("gains", "share", i), v)], "E_VALUE") for i in (0, 15) for v in (65, 62260, -1)),
        ([(AT["dense"], 0x01018001)], "E_VALUE"),  # -128 among the weights
        ([(AT["rows"], 0x01800101)], "E_VALUE"),  # and in a row
        ([(AT["bias"] + 4, 0x80000001)], "E_VALUE"),  # -32768 among the biases
        ([(AT["bias"] + 8, 0x00010001)], "E_VALUE"),  # behind the last, which is the first half of the word
        ([(AT["ngrams"], 1)], "E_VALUE"),  # a token, of count 0
        ([(AT["ngrams"], 1 << 18)], "E_VALUE"),  # a tag, of count 0
        ([(AT["ngrams"] + 20, 5 | 1 << 28)], "E_VALUE"),  # the first token that there is not
        ([(AT["keys"], 0x10)], "E_VALUE"),  # a bit of a fifth unit
        ([(AT["keys"] + 8, 0x80000000)], "E_VALUE"),
        ([(AT["tokens"] + 4, 5)], "E_VALUE"),
        ([(place("written"), 2), (AT["keys"] + 8, 0), (AT["tokens"] + 8, 1)], "E_VALUE"),  # of an episode not written
        ([(place("written"), 2), (AT["keys"] + 8, 1), (AT["tokens"] + 8, 0)], "E_VALUE"),
        ([(place("written"), 2**31 + 1)], "E_VALUE"),
        ([(place("written"), 2), (AT["keys"] + 8, 0), (AT["tokens"] + 8, 0)], "OK"),
        ([(place("written"), 2**31 - 1)], "OK"),
        ([(place("checks"), 256), (place("age"), -1), (place("guard_excess"), -(2**31)), (place("phase"), -1)], "OK"),
        *(([(place("gains", *gain), value)], "OK") for gain in GAINS for value in (0, GAIN_MAX)),
        *(([(place("gains", "ngram", 3, 15), v)], "OK") for v in (NGRAM, -NGRAM)),
        *(([(place("gains", "share", 15), v)], "OK") for v in (66, 62259)),
        ([(AT["dense"], 0x81818181), (AT["rows"] + 8, 0x81818181), (AT["bias"], 0x80017FFF)], "OK"),
        ([(AT["ngrams"] + 20, 0xFFFC0004)], "OK"),  # the last token, the largest tag, the largest count
        ([(AT["keys"] + 8, 0xF), (AT["tokens"] + 8, 4)], "OK"),
        ([(place("reward", "mean"), -(2**31)), (AT["centre"], -(2**31)), (AT["end"] - 4, 2**31 - 1)], "OK"),
        ([(place("learned"), 0xFFFFFFFF), (place("learned") + 4, 0xFFFFFFFF)], "OK"),
    ],
)
def test_each_field(model: CoreModel, delta: bytes, changes: list[tuple[int, int]], status: str) -> None:
    changes = [(offset // 4 * 4, value) for offset, value in changes]
    assert refusal(model, with_words(delta, changes)) == status


def test_damage_is_refused_before_anything_else_is_believed(model: CoreModel, delta: bytes) -> None:
    assert refusal(model, delta[:-1] + bytes([delta[-1] ^ 1])) == "E_CRC"
    assert refusal(model, delta + b"\0") == "E_SIZE"
    assert refusal(model, b"") == refusal(model, delta[:3]) == "E_MAGIC"
    assert refusal(model, delta[:4]) == "E_SIZE"


def test_a_delta_of_another_size_is_refused(model: CoreModel, delta: bytes) -> None:
    """Right CRC, right identity, and a size that is true of itself but not of the image's delta."""
    for size in (HEADER, len(delta) - 4, len(delta) + 4):
        resized = (delta + bytes(4))[:size]
        assert refusal(model, with_words(resized, [(place("bytes"), size)])) == "E_SIZE"


def test_a_delta_of_another_image_is_refused(model: CoreModel) -> None:
    other = CoreModel(opened(tiny_image(LEAST, LITTLE, seed=1, n_guard=2)))
    other.process(random_tokens(5, LEAST.vocab_size), learn=True)
    assert len(other.save()) == len(model.save())
    assert refusal(model, other.save()) == "E_IMAGE_ID"


def test_alignment_and_room(least: bytes, delta: bytes) -> None:
    model = CoreModel(opened(least))
    room = aligned(len(delta) + 8)
    out = ffi.from_buffer("uint8_t[]", room)
    room[4 : 4 + len(delta)] = np.frombuffer(delta, np.uint8)
    assert lib.ehmn_delta_load(model._model, out + 4, len(delta)) == lib.EHMN_E_ALIGNMENT
    room[:] = 0xA5
    assert lib.ehmn_delta_save(model._model, out, len(delta) - 1) == lib.EHMN_E_SIZE
    assert (room == 0xA5).all()
    assert lib.ehmn_delta_save(model._model, out, len(room)) == lib.EHMN_OK
    assert room[: len(delta)].tobytes() == model.save() and (room[len(delta) :] == 0xA5).all()


def damage(least: bytes, delta: bytes) -> list[hostile.Case]:
    return [(hostile.IMAGE, least), (hostile.DELTA_CUTS, delta), (hostile.DELTA_FLIPS, delta)]


def test_every_cut_and_every_flipped_bit_is_refused(least: bytes, delta: bytes, tmp_path: Path) -> None:
    assert hostile.in_the_module(damage(least, delta), tmp_path)[1:] == ["OK 00000000", "OK 00000000"]


@needs_gcc
def test_every_cut_and_every_flipped_bit_under_sanitizers(least: bytes, delta: bytes, tmp_path: Path) -> None:
    assert hostile.under_sanitizers(damage(least, delta), tmp_path)[1:] == ["OK 00000000", "OK 00000000"]


def hostile_deltas(least: bytes, delta: bytes) -> list[hostile.Case]:
    """Deltas under a right CRC: each word of the header at some extremes, several at once, extreme arrays; and all that
    with few tokens to go to the next look at the guard."""
    out = []
    for offset in HEADER_WORDS:
        old = int(np.frombuffer(delta, "<u4", 1, offset)[0])
        values = {*EXTREMES[offset // 4 % 5 :: 5], (old + 1) % 2**32} - {old}
        out += [with_words(delta, [(offset, value)]) for value in sorted(values)]
    rng = np.random.default_rng(0)
    state = [w for w in HEADER_WORDS if place("seed") <= w]
    for _ in range(100):
        chosen = rng.choice(state, 3, replace=False).tolist()
        out.append(with_words(delta, [(offset, int(rng.choice(EXTREMES))) for offset in chosen]))
    free = [*range(AT["dense"], AT["bias"], 4), *range(AT["trace"], AT["end"], 4)]
    for i in range(200):
        words = rng.choice(free if i % 2 else range(HEADER, AT["end"], 4), 20).tolist()
        changes = [(w, int(rng.choice(EXTREMES))) for w in words]
        learned = [(place("learned"), 60), (place("checks"), 20 + i % 7)]
        out.append(with_words(delta, [*changes, *learned, (place("guard_excess"), int(rng.choice(EXTREMES)))]))
    cases = [(hostile.DELTA_LONG if i % 53 == 0 else hostile.DELTA, d) for i, d in enumerate(out)]
    return [(hostile.IMAGE, least), *cases]


def expected(least: bytes, kind: int, delta: bytes) -> str:
    oracle, n = Oracle(least, 7, banks=hostile.BANKS), hostile.LONG if kind == hostile.DELTA_LONG else hostile.SHORT
    hostile.process(oracle, LEAST.vocab_size, hostile.SHORT, lambda: oracle.sample(0))
    oracle.reset()
    oracle.load(delta)
    oracle.load_bank(1, delta)
    return f"OK {hostile.behaviour(oracle, LEAST.vocab_size, n, lambda: oracle.sample(256)):08x}"


def test_hostile_deltas_are_refused_or_do_what_the_specification_says(
    least: bytes, delta: bytes, tmp_path: Path
) -> None:
    cases = hostile_deltas(least, delta)
    outcomes = hostile.in_the_module(cases, tmp_path)
    accepted = [(case, found) for case, found in list(zip(cases, outcomes, strict=True))[1:] if found.startswith("OK")]
    assert {found.split()[0] for found in outcomes} == {"OK", "E_MAGIC", "E_VERSION", "E_SIZE", "E_IMAGE_ID", "E_VALUE"}
    assert len(accepted) > 200
    for i, (case, found) in enumerate(accepted):
        if i % 2 == 0 or case[0] == hostile.DELTA_LONG:
            assert found == expected(least, *case)


@needs_gcc
def test_hostile_deltas_under_sanitizers(least: bytes, delta: bytes, tmp_path: Path) -> None:
    cases = hostile_deltas(least, delta)
    assert hostile.under_sanitizers(cases, tmp_path) == hostile.in_the_module(cases, tmp_path)


def test_a_delta_is_tied_to_its_image_not_to_where_it_lies(least: bytes, delta: bytes) -> None:
    again = CoreModel(Image(least, "the same bytes elsewhere"))
    again.load(delta)
    assert again.save() == delta
