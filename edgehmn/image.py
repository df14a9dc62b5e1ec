"""QuantModel -> image: the bytes that a device runs. The layout comes from the C header, through cffi."""

import hashlib
from typing import Any

import numpy as np

from edgehmn.calibrate import calibrate, calibration_ids
from edgehmn.checkpoint import Checkpoint
from edgehmn.core import CoreModel, Image, ffi, lib
from edgehmn.errors import InvalidFileError, UsageError
from edgehmn.plasticity import Rule
from edgehmn.quantize import QuantModel, mantissa_shift, quantise, to_fixed
from edgehmn.rules import write_rule


def build_image(model: QuantModel) -> bytes:
    """The image of a quantised model, complete with identity and CRC."""
    header = ffi.new("ehmn_image *")
    _fill_settings(header, model)
    matrices = ffi.new("ehmn_matrix[]", len(model.matrices))
    vectors = ffi.new("ehmn_vector[]", len(model.vectors))
    at = header.matrices_offset = _align(ffi.sizeof("ehmn_image"))
    header.vectors_offset = at + ffi.sizeof(matrices)
    sections: list[tuple[int, bytes]] = []
    at = _align(header.vectors_offset + ffi.sizeof(vectors))
    for record, m in zip(matrices, model.matrices, strict=True):
        record.rows, record.cols = m.weights.shape
        record.shift, record.input_bits = m.shift, m.input_bits
        record.weights_offset, at = _place(sections, at, m.weights.tobytes())
        record.scales_offset, at = _place(sections, at, m.scales.astype("<i4").tobytes())
    for vector, v in zip(vectors, model.vectors, strict=True):
        vector.length, vector.shift = len(v.values), v.shift
        vector.offset, at = _place(sections, at, v.values.astype("<i4").tobytes())
    guard = ffi.new("ehmn_guard[]", len(model.guard.tokens))
    for entry, frac, token in zip(guard, model.guard.frac, model.guard.tokens, strict=True):
        entry.frac, entry.token = int(frac), int(token)
    header.n_guard = len(guard)
    header.guard_offset, at = _place(sections, at, ffi.buffer(guard)[:] + model.guard.mantissas.tobytes())
    header.magic, header.version, header.bytes = lib.EHMN_IMAGE_MAGIC, lib.EHMN_IMAGE_VERSION, at
    image = bytearray(at)
    image[header.matrices_offset : header.vectors_offset] = ffi.buffer(matrices)[:]
    image[header.vectors_offset : header.vectors_offset + ffi.sizeof(vectors)] = ffi.buffer(vectors)[:]
    for offset, data in sections:
        image[offset : offset + len(data)] = data
    image[: ffi.sizeof("ehmn_image")] = ffi.buffer(header)[:]
    ffi.cast("ehmn_image *", ffi.from_buffer(image)).id = list(_identity(image))
    return score_guard(reseal(image))


def image_of(checkpoint: Checkpoint) -> bytes:
    """The image of a checkpoint with all that is usual: calibrated on the text that ships, under the default rule."""
    return build_image(quantise(checkpoint, calibrate(checkpoint, calibration_ids(checkpoint))))


def score_guard(image: bytes) -> bytes:
    """The image with what the frozen model scores on each of its guard vectors: the core computes it."""
    model = CoreModel(Image(image))
    out = bytearray(image)
    guard = ffi.cast("ehmn_guard *", ffi.from_buffer(out) + model.image.header.guard_offset)
    for i in range(model.image.header.n_guard):
        guard[i].bits = model.guard_score(i)
    return reseal(out)


def with_rule(image: bytes, rule: Rule) -> bytes:
    """The same model under another rule, with the identity that this makes. Raises UsageError for a rule that no image
    can hold."""
    out = bytearray(image)
    header = ffi.cast("ehmn_image *", ffi.from_buffer(out))
    write_rule(header.rule, rule, int(header.d_model))
    header.n_dense = len(rule.rho_trace)
    header.id = list(_identity(out))
    try:
        return score_guard(reseal(out))
    except InvalidFileError as e:
        raise UsageError(f"a parameter of the rule is out of range: {rule}") from e


def reseal(image: bytearray) -> bytes:
    """Put the right CRC into an image."""
    checked = ffi.offsetof("ehmn_image", "id")
    crc = lib.ehmn_crc32(0, ffi.from_buffer(memoryview(image)[checked:]), len(image) - checked)
    offset = ffi.offsetof("ehmn_image", "crc32")
    image[offset : offset + 4] = ffi.buffer(ffi.new("uint32_t *", crc))[:]
    return bytes(image)


def _align(offset: int) -> int:
    return -(-offset // lib.EHMN_ALIGN) * lib.EHMN_ALIGN


def _place(sections: list[tuple[int, bytes]], at: int, data: bytes) -> tuple[int, int]:
    """Append a section; returns its offset and where the next one may begin."""
    sections.append((at, data))
    return at, _align(at + len(data))


def _fill_settings(header: Any, model: QuantModel) -> None:
    c = model.config
    for name in (
        "n_layers",
        "d_model",
        "d_hidden",
        "n_heads",
        "n_kv_heads",
        "vocab_size",
        "n_ctx",
    ):
        setattr(header, name, getattr(c, name))
    header.n_dense = len(model.rule.rho_trace)
    header.final_norm = lib.EHMN_FINAL_LAYERNORM if c.final_norm == "layernorm" else lib.EHMN_FINAL_RMSNORM
    header.tied_head = int(c.tied_head)
    header.value_frac = model.calibration.value_frac
    header.hidden_frac = model.calibration.hidden_frac
    eps = c.d_model * c.norm_eps
    header.norm_eps_shift = mantissa_shift(eps)
    header.norm_eps_mantissa = int(to_fixed(eps, header.norm_eps_shift))
    write_rule(header.rule, model.rule, c.d_model)


def _identity(image: bytearray) -> bytes:
    """SHA-256 of settings and tensors in canonical order; the layout, the CRC and what follows from the rest do not
    enter."""
    view = memoryview(image)
    header = ffi.cast("ehmn_image *", ffi.from_buffer(image))
    digest = hashlib.sha256(b"edgehmn image 2")
    first, last = ffi.offsetof("ehmn_image", "n_layers"), ffi.offsetof("ehmn_image", "matrices_offset")
    digest.update(view[first:last])
    digest.update(view[ffi.offsetof("ehmn_image", "rule") : ffi.sizeof("ehmn_image")])
    n = (header.vectors_offset - header.matrices_offset) // ffi.sizeof("ehmn_matrix")
    for m in ffi.cast("ehmn_matrix *", ffi.from_buffer(image) + header.matrices_offset)[0:n]:
        digest.update(np.array([m.rows, m.cols, m.shift, m.input_bits], "<i8").tobytes())
        digest.update(view[m.weights_offset : m.weights_offset + m.rows * m.cols])
        digest.update(view[m.scales_offset : m.scales_offset + 4 * m.rows])
    for v in ffi.cast("ehmn_vector *", ffi.from_buffer(image) + header.vectors_offset)[0 : lib.EHMN_VECTORS]:
        digest.update(np.array([v.length, v.shift], "<i8").tobytes() + view[v.offset : v.offset + 4 * v.length])
    guard = ffi.cast("ehmn_guard *", ffi.from_buffer(image) + header.guard_offset)
    digest.update(np.array([[g.frac, g.token] for g in guard[0 : header.n_guard]], "<i8").tobytes())
    mantissas = header.guard_offset + header.n_guard * ffi.sizeof("ehmn_guard")
    digest.update(view[mantissas : mantissas + header.n_guard * header.d_model])
    return digest.digest()
