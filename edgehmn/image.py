"""QuantModel -> image: the bytes that a device runs. The layout comes from the C header, through cffi."""

import hashlib
from typing import Any

import numpy as np

from edgehmn.core import ffi, lib
from edgehmn.quantize import QuantModel, mantissa_shift, to_fixed


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
    header.magic, header.version, header.bytes = lib.EHMN_IMAGE_MAGIC, lib.EHMN_IMAGE_VERSION, at
    header.id = list(_identity(header, model))
    image = bytearray(at)
    image[header.matrices_offset : header.vectors_offset] = ffi.buffer(matrices)[:]
    image[header.vectors_offset : header.vectors_offset + ffi.sizeof(vectors)] = ffi.buffer(vectors)[:]
    for offset, data in sections:
        image[offset : offset + len(data)] = data
    image[: ffi.sizeof("ehmn_image")] = ffi.buffer(header)[:]
    return reseal(image)


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
        "n_adapters",
    ):
        setattr(header, name, getattr(c, name))
    header.final_norm = lib.EHMN_FINAL_LAYERNORM if c.final_norm == "layernorm" else lib.EHMN_FINAL_RMSNORM
    header.tied_head = int(c.tied_head)
    header.value_frac = model.calibration.value_frac
    header.hidden_frac = model.calibration.hidden_frac
    eps = c.d_model * c.norm_eps
    header.norm_eps_shift = mantissa_shift(eps)
    header.norm_eps_mantissa = int(to_fixed(eps, header.norm_eps_shift))
    _fill_rule(header.rule, model)


def _fill_rule(out: Any, model: QuantModel) -> None:
    r = model.rule
    fixed = {
        24: {"eta_local": r.eta_local, "eta_global": r.eta_global, "decay_row": r.decay * model.config.d_model},
        16: {
            "w_reward": r.gamma * r.w_reward,
            "w_uncertainty": (1 - r.gamma) * r.w_uncertainty,
            "w_novelty": r.w_novelty,
            "kappa": r.kappa,
            "rho_slow": r.rho_slow,
            "beta_attention": r.beta_attention * float(np.log2(np.e)),
            "rho_context": r.rho_context,
            "eta_gain": r.eta_gain,
            "gain_max": r.gain_max,
            "rho_average": r.rho_average,
        },
    }
    for frac, values in fixed.items():
        for name, value in values.items():
            setattr(out, name, int(to_fixed(value, frac)))
    for i, rho in enumerate(r.rho_trace):
        out.rho_trace[i] = int(to_fixed(rho, 16))
    out.phase_step = round(2**32 / r.phase_period) if r.phase_period else 0
    out.phase_seed = 1
    out.weight_frac, out.n_negatives = r.weight_frac, r.n_negatives


def _identity(header: Any, model: QuantModel) -> bytes:
    """SHA-256 of settings and tensors in canonical order; offsets and CRC do not enter."""
    digest = hashlib.sha256(b"edgehmn image 1")
    first, last = ffi.offsetof("ehmn_image", "n_layers"), ffi.offsetof("ehmn_image", "matrices_offset")
    digest.update(ffi.buffer(header)[first:last])
    digest.update(ffi.buffer(header)[ffi.offsetof("ehmn_image", "rule") :])
    for m in model.matrices:
        digest.update(np.array([*m.weights.shape, m.shift, m.input_bits], "<i8").tobytes())
        digest.update(m.weights.tobytes() + m.scales.astype("<i4").tobytes())
    for v in model.vectors:
        digest.update(np.array([len(v.values), v.shift], "<i8").tobytes() + v.values.astype("<i4").tobytes())
    return digest.digest()
