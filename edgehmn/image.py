"""QuantModel -> image: the bytes that a device runs. The layout comes from the C header, through cffi."""

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt

from edgehmn.calibrate import calibrate, calibration_ids
from edgehmn.checkpoint import Checkpoint
from edgehmn.checkpoint.model import MLPS, NORMS, POSITIONS, WINDOWS
from edgehmn.core import CoreModel, Image, ffi, lib
from edgehmn.errors import InvalidFileError, UsageError
from edgehmn.plasticity import Rule
from edgehmn.precision import choose_precision, measure_losses
from edgehmn.quantize import QuantMatrix, QuantModel, mantissa_shift, quantise, to_fixed
from edgehmn.rules import write_rule
from edgehmn.tokenizer import device_section

Buffer = bytes | npt.NDArray[Any]  # the bytes of a section; arrays are not copied before they are in their place


def build_image(model: QuantModel) -> bytes:
    """The image of a quantised model, complete with identity and CRC."""
    header = ffi.new("ehmn_image *")
    _fill_settings(header, model)
    matrices = ffi.new("ehmn_matrix[]", len(model.matrices))
    vectors = ffi.new("ehmn_vector[]", len(model.vectors))
    at = header.matrices_offset = _align(ffi.sizeof("ehmn_image"))
    header.vectors_offset = at + ffi.sizeof(matrices)
    sections: list[tuple[int, Buffer]] = []
    at = _align(header.vectors_offset + ffi.sizeof(vectors))
    for record, m in zip(matrices, model.matrices, strict=True):
        record.rows, record.cols = m.weights.shape
        record.shift, record.input_bits, record.weight_bits = m.shift, m.input_bits, m.weight_bits
        record.weights_offset, at = _place(sections, at, packed_weights(m))
        record.scales_offset, at = _place(sections, at, m.scales.astype("<i4"))
        if m.bias is not None:
            record.bias_offset, at = _place(sections, at, m.bias.astype("<i4"))
    for vector, v in zip(vectors, model.vectors, strict=True):
        vector.length, vector.shift = len(v.values), v.shift
        vector.offset, at = _place(sections, at, v.values.astype("<i4"))
    guard = ffi.new("ehmn_guard[]", len(model.guard.tokens))
    for entry, frac, token in zip(guard, model.guard.frac, model.guard.tokens, strict=True):
        entry.frac, entry.token = int(frac), int(token)
    header.n_guard = len(guard)
    header.guard_offset, at = _place(sections, at, ffi.buffer(guard)[:] + model.guard.mantissas.tobytes())
    header.tokenizer_bytes = len(model.tokenizer)
    header.tokenizer_offset, at = _place(sections, at, model.tokenizer)
    header.magic, header.version, header.bytes = lib.EHMN_IMAGE_MAGIC, lib.EHMN_IMAGE_VERSION, at
    image = bytearray(at)
    image[header.matrices_offset : header.vectors_offset] = ffi.buffer(matrices)[:]
    image[header.vectors_offset : header.vectors_offset + ffi.sizeof(vectors)] = ffi.buffer(vectors)[:]
    for offset, data in sections:
        flat = np.frombuffer(data, np.uint8) if len(data) else np.zeros(0, np.uint8)
        image[offset : offset + len(flat)] = flat.data
    image[: ffi.sizeof("ehmn_image")] = ffi.buffer(header)[:]
    ffi.cast("ehmn_image *", ffi.from_buffer(image)).id = list(_identity(image))
    return score_guard(image)


def packed_weights(m: QuantMatrix) -> Buffer:
    """As an image holds them: weights of 4 bits two in a byte, the even column in the low half."""
    if m.weight_bits == 8:
        return np.ascontiguousarray(m.weights)
    nibbles = np.zeros((len(m.weights), m.weights.shape[1] + m.weights.shape[1] % 2), np.uint8)
    nibbles[:, : m.weights.shape[1]] = m.weights & 15
    return (nibbles[:, ::2] | nibbles[:, 1::2] << 4).tobytes()


def image_of(checkpoint: Checkpoint) -> bytes:
    """The image of a checkpoint with all that is usual: calibrated on the text that ships, under the default rule, with
    its tokenizer."""
    section, _ = device_section(checkpoint)
    ids = calibration_ids(checkpoint)
    calibration = calibrate(checkpoint, ids)
    precision = choose_precision(measure_losses(checkpoint, ids, calibration))
    return build_image(quantise(checkpoint, calibration, precision=precision, tokenizer=section))


def score_guard(image: bytearray) -> bytes:
    """A whole image, complete but for its CRC and for what the frozen model scores on each of its guard vectors, with
    both: the core computes it. As few copies of the weights as can be live at a time."""
    _put_crc(image)
    model = CoreModel(Image(image))
    bits = [model.guard_score(i) for i in range(model.image.header.n_guard)]
    guard = ffi.cast("ehmn_guard *", ffi.from_buffer(image) + model.image.header.guard_offset)
    del model
    for i, value in enumerate(bits):
        guard[i].bits = value
    return reseal(image)


def with_rule(image: bytes, rule: Rule) -> bytes:
    """The same model under another rule, with the identity that this makes. Raises UsageError for a rule that no image
    can hold."""
    out = bytearray(image)
    header = ffi.cast("ehmn_image *", ffi.from_buffer(out))
    write_rule(header.rule, rule, int(header.d_model))
    header.n_dense = len(rule.rho_trace)
    header.id = list(_identity(out))
    try:
        return score_guard(out)
    except InvalidFileError as e:
        raise UsageError(f"a parameter of the rule is out of range: {rule}") from e


def reseal(image: bytearray) -> bytes:
    """An image with the right CRC, which is put into `image` too."""
    _put_crc(image)
    return bytes(image)


def _put_crc(image: bytearray) -> None:
    checked = ffi.offsetof("ehmn_image", "id")
    crc = lib.ehmn_crc32(0, ffi.from_buffer(memoryview(image)[checked:]), len(image) - checked)
    offset = ffi.offsetof("ehmn_image", "crc32")
    image[offset : offset + 4] = ffi.buffer(ffi.new("uint32_t *", crc))[:]


def _align(offset: int) -> int:
    return -(-offset // lib.EHMN_ALIGN) * lib.EHMN_ALIGN


def _place(sections: list[tuple[int, Buffer]], at: int, data: Buffer) -> tuple[int, int]:
    """Append a section; returns its offset and where the next one may begin."""
    sections.append((at, data))
    return at, _align(at + (len(data) if isinstance(data, bytes) else data.nbytes))


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
    header.final_norm = NORMS.index(c.final_norm)
    header.tied_head = int(c.tied_head)
    header.norm = NORMS.index(c.norm)
    header.mlp = MLPS.index(c.mlp)
    header.positions = POSITIONS.index(c.positions)
    header.window = WINDOWS.index(c.window)
    header.start_token = c.start_token if c.start_token >= 0 else lib.EHMN_NO_TOKEN
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
    digest = hashlib.sha256(b"edgehmn image 4")
    first, last = ffi.offsetof("ehmn_image", "n_layers"), ffi.offsetof("ehmn_image", "matrices_offset")
    digest.update(view[first:last])
    digest.update(view[ffi.offsetof("ehmn_image", "rule") : ffi.sizeof("ehmn_image")])
    n = (header.vectors_offset - header.matrices_offset) // ffi.sizeof("ehmn_matrix")
    for m in ffi.cast("ehmn_matrix *", ffi.from_buffer(image) + header.matrices_offset)[0:n]:
        digest.update(np.array([m.rows, m.cols, m.shift, m.input_bits, m.weight_bits], "<i8").tobytes())
        row_bytes = m.cols if m.weight_bits == 8 else (m.cols + 1) // 2
        digest.update(view[m.weights_offset : m.weights_offset + m.rows * row_bytes])
        digest.update(view[m.scales_offset : m.scales_offset + 4 * m.rows])
        digest.update(view[m.bias_offset : m.bias_offset + 4 * m.rows] if m.bias_offset else b"")
    for v in ffi.cast("ehmn_vector *", ffi.from_buffer(image) + header.vectors_offset)[0 : lib.EHMN_VECTORS]:
        digest.update(np.array([v.length, v.shift], "<i8").tobytes() + view[v.offset : v.offset + 4 * v.length])
    guard = ffi.cast("ehmn_guard *", ffi.from_buffer(image) + header.guard_offset)
    digest.update(np.array([[g.frac, g.token] for g in guard[0 : header.n_guard]], "<i8").tobytes())
    mantissas = header.guard_offset + header.n_guard * ffi.sizeof("ehmn_guard")
    digest.update(view[mantissas : mantissas + header.n_guard * header.d_model])
    digest.update(view[header.tokenizer_offset : header.tokenizer_offset + header.tokenizer_bytes])
    return digest.digest()
