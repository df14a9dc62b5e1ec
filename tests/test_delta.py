"""The delta: what the core writes it reads, and it reads nothing else; a refused delta changes nothing."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from edgehmn.core import CoreModel, Image, aligned, ffi, lib
from edgehmn.errors import InvalidFileError
from tests import hostile
from tests.models import LEAST, SMALL, logits, opened, random_tokens, resealed_delta, tiny_image
from tests.oracle import Oracle
from tests.test_image import BUSY, EXTREMES, needs_gcc

HEADER = ffi.sizeof("ehmn_delta")
HEADER_WORDS = [w for w in range(0, HEADER, 4) if w != ffi.offsetof("ehmn_delta", "crc32")]


@pytest.fixture(scope="module")
def least() -> bytes:
    return tiny_image(LEAST, BUSY)


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


def place(*path: str | int) -> int:
    return int(ffi.offsetof("ehmn_delta", *path))


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
    image = tiny_image(SMALL, BUSY)
    model, oracle = CoreModel(opened(image), seed=5), Oracle(image, 5)
    n, d = SMALL.n_adapters, SMALL.d_model
    assert model.image.delta_bytes() == HEADER + n * d * d + 4 * (3 * n + 2) * d
    assert model.save() == oracle.save(), "untaught"
    assert oracle.save() == Oracle(image, 5).save()
    for token in random_tokens(20, SMALL.vocab_size).tolist():
        for each in (model, oracle):
            each.learn(token)
            each.step(token)
    restored = Oracle(image)
    restored.load(model.save())
    assert restored.save() == model.save() == oracle.save()


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ([(place("magic"), 0x4E4D4845)], "E_MAGIC"),
        ([(place("version"), 2)], "E_VERSION"),
        ([(place("bytes"), HEADER)], "E_SIZE"),
        ([(place("image_id", 31), 0)], "E_IMAGE_ID"),
        ([(place("reserved", 4), 1)], "E_VALUE"),
        ([(place("reward", "variance"), -1)], "E_VALUE"),
        ([(place("uncertainty", "started"), 2)], "E_VALUE"),
        ([(place("novelty", "reserved"), 1)], "E_VALUE"),
        ([(place("gain", 0), -1)], "E_VALUE"),
        ([(place("gain", 1), 3 * 65536 + 1)], "E_VALUE"),
        ([(place("gain", 2), 1)], "E_VALUE"),  # of an adapter that the model has not
        ([(HEADER, 0x01018001)], "E_VALUE"),  # -128 among the weights
        ([(place("gain", 1), 3 * 65536)], "OK"),
        ([(HEADER, 0x81818181)], "OK"),
        ([(place("reward", "mean"), -(2**31))], "OK"),
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
    other = CoreModel(opened(tiny_image(LEAST, BUSY, seed=1)))
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
    """Deltas under a right CRC: each word of the header at many extremes, several at once, and extreme arrays."""
    out = []
    for offset in HEADER_WORDS:
        old = int(np.frombuffer(delta, "<u4", 1, offset)[0])
        values = {*EXTREMES[::3], (old - 1) % 2**32, (old + 1) % 2**32} - {old}
        out += [with_words(delta, [(offset, value)]) for value in sorted(values)]
    rng = np.random.default_rng(0)
    state = [w for w in HEADER_WORDS if place("seed") <= w]
    for _ in range(100):
        chosen = rng.choice(state, 3, replace=False).tolist()
        out.append(with_words(delta, [(offset, int(rng.choice(EXTREMES))) for offset in chosen]))
    for _ in range(100):
        words = rng.integers(HEADER // 4, len(delta) // 4, 20) * 4
        out.append(with_words(delta, [(int(w), int(rng.choice(EXTREMES))) for w in words]))
    return [(hostile.IMAGE, least), *((hostile.DELTA, d) for d in out)]


def expected(least: bytes, delta: bytes) -> str:
    oracle = Oracle(least, 7)
    hostile.process(oracle, LEAST.vocab_size, lambda: oracle.sample(0))
    oracle.reset()
    oracle.load(delta)
    return f"OK {hostile.behaviour(oracle, LEAST.vocab_size, lambda: oracle.sample(256)):08x}"


def test_hostile_deltas_are_refused_or_do_what_the_specification_says(
    least: bytes, delta: bytes, tmp_path: Path
) -> None:
    cases = hostile_deltas(least, delta)
    outcomes = hostile.in_the_module(cases, tmp_path)
    accepted = [(d, found) for (_, d), found in list(zip(cases, outcomes, strict=True))[1:] if found.startswith("OK")]
    assert {found.split()[0] for found in outcomes} == {"OK", "E_MAGIC", "E_VERSION", "E_SIZE", "E_IMAGE_ID", "E_VALUE"}
    assert len(accepted) > 200
    for d, found in accepted:
        assert found == expected(least, d)


@needs_gcc
def test_hostile_deltas_under_sanitizers(least: bytes, delta: bytes, tmp_path: Path) -> None:
    cases = hostile_deltas(least, delta)
    assert hostile.under_sanitizers(cases, tmp_path) == hostile.in_the_module(cases, tmp_path)


def test_a_delta_is_tied_to_its_image_not_to_where_it_lies(least: bytes, delta: bytes) -> None:
    again = CoreModel(Image(least, "the same bytes elsewhere"))
    again.load(delta)
    assert again.save() == delta
