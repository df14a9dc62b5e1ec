"""Damaged and hostile images: refused, or they do what the specification says; and never a fault."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgehmn.core import ffi, lib
from edgehmn.image import reseal
from tests import hostile
from tests.models import LEAST, LITTLE, tiny_image, with_settings
from tests.oracle import Oracle
from tests.test_image import VECTORS, check, matrix_count, records

EXTREMES: tuple[int, ...] = (
    0,
    1,
    2,
    3,
    7,
    8,
    15,
    16,
    17,
    62,
    63,
    64,
    255,
    65535,
    65536,
    1 << 20,
    (1 << 24) - 1,
    1 << 24,
)
EXTREMES += ((1 << 31) - 1, 1 << 31, (1 << 31) + 1, (1 << 32) - 2, (1 << 32) - 1)
needs_gcc = pytest.mark.skipif(not hostile.can_sanitize(), reason="not run here: gcc is missing")


@pytest.fixture(scope="module")
def least() -> bytes:
    return tiny_image(LEAST, LITTLE, n_guard=2)


def resized(image: bytes) -> list[bytes]:
    """Cut or longer images that say their own size, under a right CRC."""
    sizes = [*range(ffi.sizeof("ehmn_image"), len(image), 4), len(image) + 4, len(image) + 16]
    return [with_settings((image + bytes(16))[:size], {"bytes": size}) for size in sizes]


def test_an_image_whose_size_contradicts_its_settings_is_refused(least: bytes) -> None:
    assert {check(image) for image in resized(least)} == {"E_SIZE"}


def damage(least: bytes) -> list[hostile.Case]:
    return [(hostile.IMAGE, least), (hostile.IMAGE_CUTS, least), (hostile.IMAGE_FLIPS, least)]


def test_every_cut_and_every_flipped_bit_is_refused(least: bytes, tmp_path: Path) -> None:
    assert hostile.in_the_module(damage(least), tmp_path)[1:] == ["OK 00000000", "OK 00000000"]


@needs_gcc
def test_every_cut_and_every_flipped_bit_under_sanitizers(least: bytes, tmp_path: Path) -> None:
    assert hostile.under_sanitizers(damage(least), tmp_path)[1:] == ["OK 00000000", "OK 00000000"]


def hostile_images(least: bytes) -> list[hostile.Case]:
    """Images under a right CRC: each word of header and records at many extremes, several at once, and extreme data."""
    data_offset = records(least)[0][0].weights_offset
    guard_offset = ffi.cast("ehmn_image *", ffi.from_buffer(least)).guard_offset
    words = [*range(0, 12, 4), *range(ffi.offsetof("ehmn_image", "n_layers"), data_offset, 4)]
    words += range(guard_offset, guard_offset + 24, 4)
    rule = range(ffi.offsetof("ehmn_image", "rule"), ffi.sizeof("ehmn_image") - 72, 4)
    out = [least]

    def change(*changes: tuple[int, int]) -> None:
        image = bytearray(least)
        for offset, value in changes:
            image[offset : offset + 4] = np.uint32(value).tobytes()
        out.append(reseal(image))

    for offset in words:
        old = int(np.frombuffer(least, "<u4", 1, offset)[0])
        for value in sorted({*EXTREMES, (old - 1) % 2**32, (old + 1) % 2**32, 2 * old % 2**32} - {old}):
            change((offset, value))
    rng = np.random.default_rng(0)
    for _ in range(400):
        chosen = rng.choice(words if rng.random() < 0.2 else rule, 4, replace=False).tolist()
        change(*((offset, int(rng.choice(EXTREMES))) for offset in chosen))
    matrices, vectors = records(least)
    for _ in range(100):
        image = bytearray(least)
        for m in matrices[0 : matrix_count(least)]:
            weights = np.frombuffer(image, np.int8, m.rows * m.cols, m.weights_offset)
            weights[:] = rng.choice([-127, 0, 127, 1], len(weights)) if rng.random() < 0.5 else weights
            scales = np.frombuffer(image, "<i4", m.rows, m.scales_offset)
            scales[:] = rng.choice([0, 1, 2**30, 2**31 - 1], len(scales)) if rng.random() < 0.3 else scales
        for i, v in enumerate(vectors[0:VECTORS]):
            values = np.frombuffer(image, "<i4", v.length, v.offset)
            extremes = [0, 1, 7, 8] if i == lib.EHMN_VECTOR_NORM_SHIFTS else [-(2**31), -1, 0, 1, 2**31 - 1]
            values[:] = rng.choice(extremes, len(values)) if rng.random() < 0.4 else values
        for m in records(image)[0][0 : matrix_count(least)]:
            m.shift = int(rng.choice([0, 1, 20, m.shift, m.shift, 62]))
            m.input_bits = int(rng.choice([8, 11, 16]))
        out.append(reseal(image))
    deeper = tiny_image(replace(LEAST, n_layers=3, tied_head=False), LITTLE, n_guard=2)
    out += [*resized(least), *resized(deeper)]
    return [(hostile.IMAGE_LONG if i % 97 == 0 else hostile.IMAGE, image) for i, image in enumerate(out)]


def expected(kind: int, image: bytes) -> str:
    oracle, n = Oracle(image, 7, banks=hostile.BANKS), hostile.LONG if kind == hostile.IMAGE_LONG else hostile.SHORT
    return f"OK {hostile.behaviour(oracle, oracle.header.vocab_size, n, lambda: oracle.sample(256)):08x}"


def test_hostile_images_are_refused_or_do_what_the_specification_says(least: bytes, tmp_path: Path) -> None:
    cases = hostile_images(least)
    outcomes = hostile.in_the_module(cases, tmp_path)
    accepted = [(case, found) for case, found in zip(cases, outcomes, strict=True) if found.startswith("OK")]
    statuses = {found.split()[0] for found in outcomes}
    assert statuses == {"OK", "E_MAGIC", "E_VERSION", "E_SIZE", "E_CONFIG", "E_LAYOUT", "E_VALUE"}
    assert len(accepted) > 1000
    for i, (case, found) in enumerate(accepted):
        if i % 4 == 0 or case[0] == hostile.IMAGE_LONG:
            assert found == expected(*case)


@needs_gcc
def test_hostile_images_under_sanitizers(least: bytes, tmp_path: Path) -> None:
    cases = hostile_images(least)
    assert hostile.under_sanitizers(cases, tmp_path) == hostile.in_the_module(cases, tmp_path)
