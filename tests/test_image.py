"""The validator: it accepts what is sound, and refuses all else with the status that edgehmn.h names."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgehmn.core import CoreModel, Image, aligned, ffi, lib
from edgehmn.errors import InvalidFileError
from edgehmn.image import build_image, reseal
from edgehmn.plasticity import Rule
from tests import hostile
from tests.models import ALL_8_BITS, LEAST, TINY, quantised, random_checkpoint, tiny_image, with_settings
from tests.oracle import Oracle

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
BUSY = Rule(eta_local=0.02, eta_global=0.01, gamma=0.5, w_novelty=0.5, kappa=0.5, beta_attention=0.5, phase_period=5)
VECTORS = 5
needs_gcc = pytest.mark.skipif(not hostile.can_sanitize(), reason="not run here: gcc is missing")


@pytest.fixture(scope="module")
def least() -> bytes:
    return tiny_image(LEAST, BUSY)


def check(data: bytes) -> str:
    """The name of the status of a check."""
    buffer = aligned(len(data))
    buffer[:] = np.frombuffer(data, np.uint8)
    return status_name(lib.ehmn_image_check(ffi.from_buffer("uint8_t[]", buffer), len(data)))


def status_name(status: int) -> str:
    return ffi.string(lib.ehmn_status_name(status)).decode()


def records(image: bytes | bytearray) -> tuple[Any, Any]:
    """The matrix and the vector records of an image, to be changed in place if it is a bytearray."""
    base = ffi.from_buffer("uint8_t[]", image)
    header = ffi.cast("ehmn_image *", base)
    return ffi.cast("ehmn_matrix *", base + header.matrices_offset), ffi.cast(
        "ehmn_vector *", base + header.vectors_offset
    )


def matrix_count(image: bytes) -> int:
    header = ffi.cast("ehmn_image *", ffi.from_buffer("uint8_t[]", image))
    return (header.vectors_offset - header.matrices_offset) // ffi.sizeof("ehmn_matrix")


def with_matrix(image: bytes, index: int, **fields: Any) -> bytes:
    out = bytearray(image)
    for name, value in fields.items():
        setattr(records(out)[0][index], name, value)
    return reseal(out)


def with_bytes(image: bytes, offset: int, data: bytes) -> bytes:
    out = bytearray(image)
    out[offset : offset + len(data)] = data
    return reseal(out)


# ---- What is sound


@pytest.mark.parametrize("config", [LEAST, TINY, replace(TINY, tied_head=False, final_norm="rmsnorm", n_adapters=8)])
def test_sections_follow_one_another_and_padding_is_zero(config: Any) -> None:
    """The layout as SPEC.md gives it: every offset follows from the settings."""
    image = tiny_image(config)
    header = ffi.cast("ehmn_image *", ffi.from_buffer(image))
    matrices, vectors = records(image)
    n = matrix_count(image)
    assert n == 7 * config.n_layers + 2 + (not config.tied_head)
    assert header.matrices_offset == 256 and header.vectors_offset == 256 + 32 * n
    used = [(0, header.vectors_offset + 16 * VECTORS)]
    for m in matrices[0:n]:
        used += [(m.weights_offset, m.rows * m.cols), (m.scales_offset, 4 * m.rows)]
    used += [(v.offset, 4 * v.length) for v in vectors[0:VECTORS]]
    end = 0
    for offset, size in used:
        assert offset == -(-end // 16) * 16 and not any(image[end:offset])
        end = offset + size
    assert len(image) == header.bytes == -(-end // 16) * 16 and not any(image[end:])


def test_the_id_is_of_the_content() -> None:
    model = quantised(random_checkpoint(LEAST))
    base = Image(build_image(model))

    def id_with(**changes: Any) -> str:
        return Image(build_image(replace(model, **changes))).id

    assert base.id == id_with()
    ids = {base.id, id_with(rule=replace(model.rule, eta_local=0.5)), id_with(config=replace(model.config, n_ctx=4))}
    for i, m in enumerate(model.matrices):
        weights = m.weights.copy()
        weights[0, 0] = 5 if weights[0, 0] != 5 else 6
        for changed in (replace(m, weights=weights), replace(m, scales=m.scales + 1), replace(m, shift=m.shift - 1)):
            ids.add(id_with(matrices=[*model.matrices[:i], changed, *model.matrices[i + 1 :]]))
    for i, v in enumerate(model.vectors):
        for other in (replace(v, values=v.values + 1), replace(v, shift=v.shift - 1)):
            ids.add(id_with(vectors=[*model.vectors[:i], other, *model.vectors[i + 1 :]]))
    assert len(ids) == 3 + 3 * len(model.matrices) + 2 * len(model.vectors)


# ---- Every status


def test_every_status_is_reached(least: bytes) -> None:
    """One input for each status of edgehmn.h, those of deltas and of calls included."""
    good = Image(least)
    room = aligned(good.arena_bytes(plastic=True) + 64)
    arena, out = ffi.from_buffer("uint8_t[]", room), ffi.new("ehmn_model **")
    delta = bytearray(CoreModel(good).save())
    foreign = CoreModel(Image(tiny_image(LEAST, seed=1)))
    static = CoreModel(good, plastic=False)

    def opened(shift: int, size: int) -> int:
        return lib.ehmn_open(good.pointer, arena + shift, size, lib.EHMN_PLASTIC, 0, out)

    def refused_delta() -> str:
        with pytest.raises(InvalidFileError) as e:
            foreign.load(bytes(delta))
        return str(e.value.detail["status"])

    reached = {
        "OK": check(least),
        "E_ARGUMENT": status_name(lib.ehmn_image_check(ffi.NULL, 0)),
        "E_ALIGNMENT": status_name(lib.ehmn_image_check(good.pointer + 1, len(least))),
        "E_MAGIC": check(b"GGUF" + least[4:]),
        "E_VERSION": check(with_settings(least, {"version": 2})),
        "E_SIZE": check(least[:-1]),
        "E_CRC": check(least[:-1] + b"\1"),
        "E_CONFIG": check(with_settings(least, {"n_ctx": 0})),
        "E_LAYOUT": check(with_settings(least, {"vectors_offset": 16})),
        "E_VALUE": check(with_bytes(least, records(least)[0][0].weights_offset, b"\x80")),
        "E_ARENA": status_name(opened(0, good.arena_bytes(plastic=True) - 1)),
        "E_IMAGE_ID": refused_delta(),
        "E_STATE": status_name(lib.ehmn_learn(static._model, 0)),
    }
    assert reached == {name: name for name in reached}
    named = {name.removeprefix("EHMN_") for name in dir(lib) if name.startswith("EHMN_E_")}
    assert named | {"OK"} == set(reached), "every status of the header"
    assert status_name(opened(8, len(room) - 8)) == "E_ALIGNMENT"
    assert status_name(opened(0, len(room))) == "OK"


def test_names_of_statuses() -> None:
    for name in dir(lib):
        if name.startswith("EHMN_E_"):
            assert f"EHMN_{status_name(getattr(lib, name))}" == name
    assert status_name(lib.EHMN_OK) == "OK" and status_name(1) == status_name(-1000) == "E_UNKNOWN"


def test_null_pointers_and_unknown_flags_are_refused(least: bytes) -> None:
    image, null = Image(least), ffi.NULL
    model, size, out = CoreModel(image)._model, ffi.new("uint32_t *"), ffi.new("ehmn_model **")
    room = aligned(image.arena_bytes(plastic=True))
    arena = ffi.from_buffer("uint8_t[]", room)
    refused: list[tuple[Callable[..., int], tuple[Any, ...]]] = [
        (lib.ehmn_arena_bytes, (null, 0, size)),
        (lib.ehmn_arena_bytes, (image.pointer, 2, size)),
        (lib.ehmn_arena_bytes, (image.pointer, 0, null)),
        (lib.ehmn_delta_bytes, (null, size)),
        (lib.ehmn_delta_bytes, (image.pointer, null)),
        (lib.ehmn_open, (null, arena, len(room), 1, 0, out)),
        (lib.ehmn_open, (image.pointer, null, len(room), 1, 0, out)),
        (lib.ehmn_open, (image.pointer, arena, len(room), 2, 0, out)),
        (lib.ehmn_open, (image.pointer, arena, len(room), 1, 0, null)),
        (lib.ehmn_encode, (null, 0, ffi.new("int16_t[4]"))),
        (lib.ehmn_encode, (model, 0, null)),
        (lib.ehmn_head, (null, ffi.new("int16_t[4]"))),
        (lib.ehmn_head, (model, null)),
        (lib.ehmn_step, (null, 0)),
        (lib.ehmn_score, (null, 0, size)),
        (lib.ehmn_score, (model, 0, null)),
        (lib.ehmn_learn, (null, 0)),
        (lib.ehmn_sample, (null, 0, size)),
        (lib.ehmn_sample, (model, 0, null)),
        (lib.ehmn_get_counts, (null, ffi.new("ehmn_counts *"))),
        (lib.ehmn_get_counts, (model, null)),
        (lib.ehmn_delta_save, (null, arena, len(room))),
        (lib.ehmn_delta_save, (model, null, len(room))),
        (lib.ehmn_delta_load, (null, arena, len(room))),
        (lib.ehmn_delta_load, (model, null, len(room))),
        (lib.ehmn_delta_reset, (null, 0)),
    ]
    for function, arguments in refused:
        assert function(*arguments) == lib.EHMN_E_ARGUMENT
    assert lib.ehmn_logits(null) == null


# ---- Limits of settings and values

RANGES = {
    "n_ctx": (1, 512),
    "final_norm": (0, 1),
    "value_frac": (8, 16),
    "hidden_frac": (0, 14),
    "norm_eps_mantissa": (0, 2**31 - 1),
    "norm_eps_shift": (0, 62),
    "rule.eta_local": (0, 1 << 24),
    "rule.eta_global": (0, 1 << 24),
    "rule.w_reward": (-(1 << 20), 1 << 20),
    "rule.w_uncertainty": (-(1 << 20), 1 << 20),
    "rule.w_novelty": (-(1 << 20), 1 << 20),
    "rule.kappa": (0, 1 << 20),
    "rule.rho_slow": (0, 65535),
    "rule.beta_attention": (0, 1 << 20),
    "rule.rho_context": (0, 65535),
    "rule.decay_row": (0, (1 << 24) - 1),
    "rule.weight_frac": (0, 16),
    "rule.n_negatives": (1, 64),
    "rule.eta_gain": (0, 1 << 20),
    "rule.gain_max": (0, 1 << 20),
    "rule.rho_average": (0, 65535),
}
SIZES = {"n_layers": 64, "d_hidden": 16384, "vocab_size": 262144, "n_adapters": 8, "tied_head": 1}


def with_word(image: bytes, name: str, value: int) -> bytes:
    """The image with any 32 bits, signed or not, in a field of its header."""
    return with_bytes(image, ffi.offsetof("ehmn_image", *name.split(".")), np.uint32(value % 2**32).tobytes())


@pytest.mark.parametrize("name", RANGES)
def test_a_setting_is_accepted_within_its_range_only(least: bytes, name: str) -> None:
    low, high = RANGES[name]
    assert [check(with_word(least, name, value)) for value in (low, high)] == ["OK", "OK"]
    assert [check(with_word(least, name, value)) for value in (low - 1, high + 1)] == ["E_CONFIG", "E_CONFIG"]


@pytest.mark.parametrize("name", SIZES)
def test_a_size_is_looked_at_within_its_range_only(least: bytes, name: str) -> None:
    assert check(with_word(least, name, SIZES[name])) in ("OK", "E_SIZE", "E_LAYOUT")
    for value in (SIZES[name] + 1, -1, 0 if name != "tied_head" else 2):
        assert check(with_word(least, name, value)) == "E_CONFIG"


@pytest.mark.parametrize(
    ("d_model", "n_heads", "n_kv_heads", "possible"),
    [
        (2, 1, 1, True),
        (1, 1, 1, False),
        (0, 1, 1, False),
        (4096, 2048, 1024, True),
        (4098, 2049, 1, False),
        (512, 2, 1, True),  # heads of 256
        (516, 2, 1, False),
        (4, 4, 1, False),  # heads of one
        (4, 3, 1, False),
        (4, 0, 1, False),
        (4, 2, 0, False),
        (4, 1, 2, False),
        (12, 6, 4, False),
        (4, 2**31, 1, False),
    ],
)
def test_heads(least: bytes, d_model: int, n_heads: int, n_kv_heads: int, possible: bool) -> None:
    image = with_settings(least, {"d_model": d_model, "n_heads": n_heads, "n_kv_heads": n_kv_heads})
    assert (check(image) in ("E_SIZE", "E_LAYOUT")) == possible
    assert (check(image) == "E_CONFIG") != possible


@pytest.mark.parametrize(
    "settings",
    [
        {"rule.n_negatives": 3},
        {"rule.n_negatives": 48},
        {"rule.rho_trace": [0, 65536, 0, 0, 0, 0, 0, 0]},
        {"rule.rho_trace": [0, 0, 0, 0, 0, 0, 0, -1]},
        {"rule.reserved": [0, 0, 0, 0, 0, 0, 1]},
        {"reserved": [1, 0, 0, 0]},
    ],
)
def test_settings_that_may_not_be(least: bytes, settings: dict[str, Any]) -> None:
    assert check(with_settings(least, settings)) == "E_CONFIG"


MATRIX_FIELDS = {"rows": 1, "cols": 1, "weights_offset": 16, "scales_offset": 16, "shift": 63, "input_bits": 4}
VECTOR_FIELDS = {"length": 1, "offset": 16, "shift": 63, "reserved": 1}


def test_each_field_of_a_record_is_looked_at(least: bytes) -> None:
    for kind, count, fields in ((0, matrix_count(least), MATRIX_FIELDS), (1, VECTORS, VECTOR_FIELDS)):
        for i in range(count):
            for name, step in fields.items():
                for change in (step, -step):
                    image = bytearray(least)
                    record = records(image)[kind][i]
                    setattr(record, name, (getattr(record, name) + change) % 2**31)
                    assert check(reseal(image)) == "E_LAYOUT", (kind, i, name)
    for i in range(matrix_count(least)):
        for reserved in ([1, 0], [0, 1]):
            assert check(with_matrix(least, i, reserved=reserved)) == "E_LAYOUT"


def test_a_weight_of_minus_128_is_refused(least: bytes) -> None:
    for i in range(matrix_count(least)):
        m = records(least)[0][i]
        for place in (0, m.rows * m.cols - 1):
            assert check(with_bytes(least, m.weights_offset + place, b"\x80")) == "E_VALUE"
            assert check(with_bytes(least, m.weights_offset + place, b"\x81")) == "OK"


def test_a_negative_scale_is_refused(least: bytes) -> None:
    for i in range(matrix_count(least)):
        m = records(least)[0][i]
        for place in (0, 4 * (m.rows - 1)):
            assert check(with_bytes(least, m.scales_offset + place, b"\0\0\0\x80")) == "E_VALUE"
            assert check(with_bytes(least, m.scales_offset + place, b"\xff\xff\xff\x7f")) == "OK"


def test_a_row_that_could_overflow_is_refused() -> None:
    """The largest sum of magnitudes that SPEC.md allows in a row for 16-bit inputs is accepted; one more is not."""
    limit = (2**31 - 1) // 32767
    n = limit // 127 + 2
    image = tiny_image(replace(LEAST, d_hidden=n), bits=ALL_8_BITS)
    down = records(image)[0][6]
    row = np.zeros((down.rows, n), np.int8)
    row[-1, :-2] = -127
    row[-1, -2] = limit % 127
    full = with_bytes(with_matrix(image, 6, input_bits=16), down.weights_offset, row.tobytes())
    assert check(full) == "OK"
    row[-1, -1] = 1
    assert check(with_bytes(full, down.weights_offset, row.tobytes())) == "E_VALUE"
    assert check(with_bytes(image, down.weights_offset, row.tobytes())) == "OK", "8-bit inputs leave room"


def test_padding_that_is_not_zero_is_refused(least: bytes) -> None:
    """SPEC.md: 'padding is zero'; otherwise one model has many images."""
    m = records(least)[0][7]  # the embedding, of five rows
    for end in (m.weights_offset + m.rows * m.cols, m.scales_offset + 4 * m.rows):
        assert end % 16
        assert check(with_bytes(least, end, b"\1")) != "OK"


# ---- Damage


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
    words = [*range(0, 12, 4), *range(ffi.offsetof("ehmn_image", "n_layers"), data_offset, 4)]
    rule = range(ffi.offsetof("ehmn_image", "rule"), ffi.sizeof("ehmn_image") - 28, 4)
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
        for v in vectors[0:VECTORS]:
            values = np.frombuffer(image, "<i4", v.length, v.offset)
            values[:] = rng.choice([-(2**31), -1, 0, 1, 2**31 - 1], len(values)) if rng.random() < 0.4 else values
        for m in records(image)[0][0 : matrix_count(least)]:
            m.shift = int(rng.choice([0, 1, 20, m.shift, m.shift, 62]))
            m.input_bits = int(rng.choice([8, 16]))
        out.append(reseal(image))
    deeper = tiny_image(replace(LEAST, n_layers=3, tied_head=False), BUSY)
    return [(hostile.IMAGE, image) for image in (*out, *resized(least), *resized(deeper))]


def expected(image: bytes) -> str:
    oracle = Oracle(image, 7)
    return f"OK {hostile.behaviour(oracle, oracle.header.vocab_size, lambda: oracle.sample(256)):08x}"


def test_hostile_images_are_refused_or_do_what_the_specification_says(least: bytes, tmp_path: Path) -> None:
    cases = hostile_images(least)
    outcomes = hostile.in_the_module(cases, tmp_path)
    accepted = [(image, found) for (_, image), found in zip(cases, outcomes, strict=True) if found.startswith("OK")]
    statuses = {found.split()[0] for found in outcomes}
    assert statuses == {"OK", "E_MAGIC", "E_VERSION", "E_SIZE", "E_CONFIG", "E_LAYOUT"}
    assert len(accepted) > 300
    for image, found in accepted:
        assert found == expected(image)


@needs_gcc
def test_hostile_images_under_sanitizers(least: bytes, tmp_path: Path) -> None:
    cases = hostile_images(least)
    assert hostile.under_sanitizers(cases, tmp_path) == hostile.in_the_module(cases, tmp_path)
