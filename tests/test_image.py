"""The validator: it accepts what is sound, and refuses all else with the status that edgehmn.h names."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edgehmn import core
from edgehmn.core import CoreModel, Image, aligned, ffi, lib
from edgehmn.errors import InvalidFileError
from edgehmn.image import build_image, reseal
from edgehmn.quantize import Precision
from tests.models import (
    ALL_8_BITS,
    GPT2,
    LEAST,
    LITTLE,
    TINY,
    quantised,
    random_checkpoint,
    repetitive_tokens,
    tiny_image,
    with_settings,
)

VECTORS = 6


@pytest.fixture(scope="module")
def least() -> bytes:
    return tiny_image(LEAST, LITTLE, n_guard=2)


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


@pytest.mark.parametrize("bits", [Precision(), Precision(weights=4)])
@pytest.mark.parametrize("config", [LEAST, TINY, replace(TINY, tied_head=False, final_norm="rmsnorm"), GPT2])
def test_sections_follow_one_another_and_padding_is_zero(config: Any, bits: Precision) -> None:
    """The layout as SPEC.md gives it: every offset follows from the settings."""
    image = tiny_image(config, bits=bits)
    header = ffi.cast("ehmn_image *", ffi.from_buffer(image))
    matrices, vectors = records(image)
    n = matrix_count(image)
    assert n == 7 * config.n_layers + 3 + (not config.tied_head) + (config.positions == "learned")
    assert header.matrices_offset == 416 and header.vectors_offset == 416 + 32 * n
    used = [(0, header.vectors_offset + 16 * VECTORS)]
    for m in matrices[0:n]:
        row_bytes = m.cols if m.weight_bits == 8 else (m.cols + 1) // 2
        used += [(m.weights_offset, m.rows * row_bytes), (m.scales_offset, 4 * m.rows)]
        used += [(m.bias_offset, 4 * m.rows)] if m.bias_offset else []
    used += [(v.offset, 4 * v.length) for v in vectors[0:VECTORS]]
    used += [(header.guard_offset, header.n_guard * (12 + config.d_model)), (header.tokenizer_offset, 0)]
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
        for other in (replace(v, values=v.values + 1), replace(v, shift=v.shift ^ 1)):
            ids.add(id_with(vectors=[*model.vectors[:i], other, *model.vectors[i + 1 :]]))
    for changed in (
        replace(model.guard, tokens=(model.guard.tokens + 1) % LEAST.vocab_size),
        replace(model.guard, frac=model.guard.frac - 1),
        replace(model.guard, mantissas=-model.guard.mantissas),
        replace(
            model.guard, mantissas=model.guard.mantissas[:0], frac=model.guard.frac[:0], tokens=model.guard.tokens[:0]
        ),
    ):
        ids.add(id_with(guard=changed))
    assert len(ids) == 7 + 3 * len(model.matrices) + 2 * len(model.vectors)


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
        "E_VERSION": check(with_settings(least, {"version": 1})),
        "E_SIZE": check(least[:-1]),
        "E_CRC": check(least[:-1] + bytes([least[-1] ^ 1])),
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


@pytest.mark.parametrize("size", [1, 1000, 1 << 20, (1 << 21) + 1])
def test_buffers_are_aligned_zero_and_apart(size: int) -> None:
    one, other = aligned(size), aligned(size)
    assert len(one) == size and one.ctypes.data % 64 == 0 and not one.any()
    one[:] = 1
    assert not other.any()


@pytest.mark.parametrize("offset", [4, 8, 12])
def test_memory_that_is_aligned_no_better_than_the_header_asks_gives_the_same(
    offset: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, ids = tiny_image(), repetitive_tokens(40)
    usual = CoreModel(Image(data))
    expected = usual.process(ids, learn=True), usual.process(ids, learn=False), usual.save()
    monkeypatch.setattr(core, "aligned", lambda size: aligned(size + offset)[offset:])
    image = Image(data)
    monkeypatch.setattr(core, "aligned", lambda size: aligned(size + 4 * offset)[4 * offset :])  # multiples of 16
    model = CoreModel(image)
    assert image.bytes.ctypes.data % 16 == offset and model._arena.ctypes.data % 64 == 4 * offset
    found = model.process(ids, learn=True), model.process(ids, learn=False), model.save()
    assert np.array_equal(found[:2], expected[:2]) and found[2] == expected[2]


def test_null_pointers_and_unknown_flags_are_refused(least: bytes) -> None:
    image, null = Image(least), ffi.NULL
    opened, size, out = CoreModel(image), ffi.new("uint32_t *"), ffi.new("ehmn_model **")
    model = opened._model  # lives as long as what was opened
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
        (lib.ehmn_head, (null, 0, ffi.new("int16_t[4]"))),
        (lib.ehmn_head, (model, 0, null)),
        (lib.ehmn_head, (model, image.vocab_size, ffi.new("int16_t[4]"))),
        (lib.ehmn_step, (null, 0)),
        (lib.ehmn_score, (null, 0, size)),
        (lib.ehmn_score, (model, 0, null)),
        (lib.ehmn_learn, (null, 0)),
        (lib.ehmn_follow, (null, 0)),
        (lib.ehmn_sample, (null, 0, size)),
        (lib.ehmn_sample, (model, 0, null)),
        (lib.ehmn_get_counts, (null, ffi.new("ehmn_counts *"))),
        (lib.ehmn_get_counts, (model, null)),
        (lib.ehmn_delta_save, (null, arena, len(room))),
        (lib.ehmn_delta_save, (model, null, len(room))),
        (lib.ehmn_delta_load, (null, arena, len(room))),
        (lib.ehmn_delta_load, (model, null, len(room))),
        (lib.ehmn_delta_reset, (null, 0)),
        (lib.ehmn_banks_bytes, (null, 2, size)),
        (lib.ehmn_banks_bytes, (image.pointer, 2, null)),
        (lib.ehmn_banks_bytes, (image.pointer, 1, size)),
        (lib.ehmn_banks_bytes, (image.pointer, lib.EHMN_MAX_BANKS + 1, size)),
        (lib.ehmn_banks_attach, (null, arena, len(room), 2)),
        (lib.ehmn_banks_attach, (model, null, len(room), 2)),
        (lib.ehmn_banks_attach, (model, arena, len(room), 1)),
        (lib.ehmn_bank_save, (null, 0, arena, len(room))),
        (lib.ehmn_bank_save, (model, 0, null, len(room))),
        (lib.ehmn_bank_save, (model, 1, arena, len(room))),
        (lib.ehmn_bank_load, (null, 0, arena, len(room))),
        (lib.ehmn_bank_load, (model, 0, null, len(room))),
        (lib.ehmn_bank_load, (model, 1, arena, len(room))),
        (lib.ehmn_get_topic, (null, ffi.new("ehmn_topic *"))),
        (lib.ehmn_get_topic, (model, null)),
        (lib.ehmn_guard_score, (null, 0, size)),
        (lib.ehmn_guard_score, (model, 0, null)),
        (lib.ehmn_settle, (null, size)),
        (lib.ehmn_settle, (model, null)),
        (lib.ehmn_guard_score, (model, int(image.header.n_guard), size)),
    ]
    for function, arguments in refused:
        assert function(*arguments) == lib.EHMN_E_ARGUMENT
    assert lib.ehmn_logits(null) == null
    assert lib.ehmn_banks_attach(model, arena + 4, len(room), 2) == lib.EHMN_E_ALIGNMENT


def test_banks_that_no_address_reaches_are_refused(least: bytes) -> None:
    largest = {"d_model": 4096, "n_dense": 8, "rule.row_slots": [65536, 65536], "rule.episodes": 65536}
    header, size = bytearray(with_settings(least, largest)), ffi.new("uint32_t *")
    pointer = ffi.from_buffer(header)  # only its settings are read
    assert lib.ehmn_banks_bytes(pointer, 2, size) == lib.EHMN_OK and size[0] > 4 * 8 * 4096**2
    assert lib.ehmn_banks_bytes(pointer, 16, size) == lib.EHMN_E_SIZE


# ---- Limits of settings and values

RANGES = {
    "n_ctx": (1, 512),
    "n_dense": (0, 8),
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
    "rule.rho_trace.0": (0, 65535),
    "rule.rho_trace.7": (0, 65535),
    "rule.row_slots.0": (0, 65536),
    "rule.row_slots.1": (0, 65536),
    "rule.eta_row.0": (0, 1 << 24),
    "rule.eta_row.1": (0, 1 << 24),
    "rule.row_frac": (0, 16),
    "rule.decay_visit": (0, (1 << 24) - 1),
    "rule.bias_step": (0, 32767),
    "rule.bias_decay": (0, 65535),
    "rule.ngram_slots": (0, 65536),
    "rule.ngram_order.0": (0, 8),
    "rule.ngram_order.3": (0, 8),
    "rule.eta_ngram": (0, 1 << 20),
    "rule.episodes": (0, 65536),
    "rule.sharpness": (0, 1 << 20),
    "rule.eta_episode": (0, 65536),
    "rule.eta_scale": (0, 1 << 24),
    "rule.topic_limit": (0, 2**31 - 1),
    "rule.topic_margin": (0, 2**31 - 1),
    "rule.guard_limit": (0, 1 << 20),
    "rule.closed_below": (0, 1 << 20),
}
SIZES = {"n_layers": 64, "d_hidden": 16384, "vocab_size": 262144, "tied_head": 1, "n_guard": 256}


def with_word(image: bytes, name: str, value: int) -> bytes:
    """The image with any 32 bits, signed or not, in a field of its header."""
    path = (int(part) if part.isdigit() else part for part in name.split("."))
    return with_bytes(image, ffi.offsetof("ehmn_image", *path), np.uint32(value % 2**32).tobytes())


@pytest.mark.parametrize("name", RANGES)
def test_a_setting_is_accepted_within_its_range_only(least: bytes, name: str) -> None:
    low, high = RANGES[name]
    assert [check(with_word(least, name, value)) for value in (low, high)] == ["OK", "OK"]
    assert [check(with_word(least, name, value)) for value in (low - 1, high + 1)] == ["E_CONFIG", "E_CONFIG"]


@pytest.mark.parametrize("name", SIZES)
def test_a_size_is_looked_at_within_its_range_only(least: bytes, name: str) -> None:
    assert check(with_word(least, name, SIZES[name])) in ("OK", "E_SIZE", "E_LAYOUT")
    for value in (SIZES[name] + 1, -1, 0 if name not in ("tied_head", "n_guard") else 2**31):
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
        {"rule.reserved": [0] * 16 + [1]},
        {"rule.reserved": [1]},
        {"reserved": [1, 0, 0]},
        {"reserved": [0, 0, 1]},
        {"norm": 2},
        {"mlp": 2},
        {"positions": 2},
        {"window": 2},
        {"positions": 1},
        {"start_token": 1},
        {"window": 1},
    ],
)
def test_settings_that_may_not_be(least: bytes, settings: dict[str, Any]) -> None:
    assert check(with_settings(least, settings)) == "E_CONFIG"


MATRIX_FIELDS = {
    "rows": 1,
    "cols": 1,
    "weights_offset": 16,
    "scales_offset": 16,
    "shift": 63,
    "input_bits": 9,
    "weight_bits": 1,
    "bias_offset": 16,
}
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


def test_a_norm_is_shifted_by_few_bits(least: bytes) -> None:
    shifts = records(least)[1][lib.EHMN_VECTOR_NORM_SHIFTS]
    for place in (0, 4 * (shifts.length - 1)):
        for value in (-1, 0, 8, 9):
            found = check(with_bytes(least, shifts.offset + place, value.to_bytes(4, "little", signed=True)))
            assert found == ("OK" if 0 <= value <= 8 else "E_VALUE"), (place, value)


@pytest.mark.parametrize(("bits", "most"), [(16, 32767), (15, 16383), (8, 127 * 259)])
def test_a_row_that_could_overflow_is_refused(bits: int, most: int) -> None:
    """The largest sum of magnitudes that SPEC.md allows in a row is accepted; one more is not."""
    limit = (2**31 - 1) // most
    n = limit // 127 + 2
    image = tiny_image(replace(LEAST, d_hidden=n), bits=ALL_8_BITS)
    down = records(image)[0][6]
    row = np.zeros((down.rows, n), np.int8)
    row[-1, :-2] = -127
    row[-1, -2] = limit % 127
    full = with_bytes(with_matrix(image, 6, input_bits=bits), down.weights_offset, row.tobytes())
    assert check(full) == "OK"
    row[-1, -1] = 1
    assert check(with_bytes(full, down.weights_offset, row.tobytes())) == "E_VALUE"


def test_each_field_of_a_guard_vector_is_looked_at(least: bytes) -> None:
    at = int(ffi.cast("ehmn_image *", ffi.from_buffer(least)).guard_offset)
    for i in (0, 1):
        for field, low, high in (("frac", -16, 30), ("token", 0, LEAST.vocab_size - 1), ("bits", 0, 1 << 27)):
            place = at + 12 * i + ffi.offsetof("ehmn_guard", field)
            for value in (low - 1, low, high, high + 1):
                found = check(with_bytes(least, place, np.uint32(value % 2**32).tobytes()))
                assert found == ("OK" if low <= value <= high else "E_VALUE"), (i, field, value)
    for mantissa in (at + 24, at + 24 + 2 * LEAST.d_model - 1):
        assert check(with_bytes(least, mantissa, b"\x80")) == "E_VALUE"
        assert check(with_bytes(least, mantissa, b"\x81")) == "OK"
    for other in (at - 16, at + 16, at + 1):
        assert check(with_settings(least, {"guard_offset": other})) == "E_LAYOUT"


def test_padding_that_is_not_zero_is_refused(least: bytes) -> None:
    """SPEC.md: 'padding is zero'; otherwise one model has many images."""
    m = records(least)[0][7]  # the embedding, of five rows
    for end in (m.weights_offset + m.rows * m.cols, m.scales_offset + 4 * m.rows):
        assert end % 16
        assert check(with_bytes(least, end, b"\1")) != "OK"
