"""Tiny seeded models for tests: random checkpoints whose activations have the sizes of trained ones."""

import zlib
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from edgehmn.calibrate import calibrate
from edgehmn.checkpoint import Checkpoint, Config
from edgehmn.core import CoreModel, Image, ffi
from edgehmn.image import build_image, reseal
from edgehmn.plasticity import Rule
from edgehmn.quantize import Precision, QuantGuard, QuantModel, quantise

Ids = npt.NDArray[np.int32]

# Odd sizes wherever they may be odd, two query heads for each key head, a window that is soon full.
TINY = Config(
    n_layers=2,
    d_model=24,
    d_hidden=23,
    n_heads=4,
    n_kv_heads=2,
    vocab_size=257,
    n_ctx=5,
    rope_theta=10000.0,
    norm_eps=1e-5,
    final_norm="layernorm",
    tied_head=True,
)
# The least of everything: an image of two kilobytes, small enough to damage in every bit.
GPT2 = replace(TINY, norm="layernorm", mlp="gelu", positions="learned", window="restart", n_ctx=6)
LEAST = replace(TINY, n_layers=1, d_model=4, d_hidden=3, n_heads=2, n_kv_heads=1, vocab_size=5, n_ctx=3)
SMALL = replace(TINY, n_layers=1, d_model=12, d_hidden=7, n_heads=2, n_kv_heads=1, vocab_size=61)
# Odd sizes around the words that keys of episodes are made of, and vocabularies that no block of the head divides.
SIX = replace(SMALL, d_model=6, d_hidden=5, n_heads=1, vocab_size=37)
TEN = replace(SMALL, d_model=10, d_hidden=9, n_heads=5, vocab_size=257)
THIRTY_FOUR = replace(SMALL, d_model=34, d_hidden=11, n_heads=1, vocab_size=257)

# Nothing learns, but for what a test switches on.
NOTHING: dict[str, Any] = {
    "eta_local": 0.0,
    "eta_global": 0.0,
    "row_slots": (0, 0),
    "bias_step": 0.0,
    "ngram_slots": 0,
    "episodes": 0,
    "eta_scale": 0.0,
}
# Rules with everything off but one dense adapter, with small memories of words, and with those alone.
QUIET = Rule(
    **NOTHING
    | {
        "eta_local": 0.01,  # some hundred steps for each token of the small model
        "rho_trace": (0.0,),
        "topic_limit": 0.0,
        "guard_limit": 0.0,
    }
)
BUSY = replace(
    QUIET,
    eta_global=0.005,
    gamma=0.6,
    w_novelty=0.7,
    kappa=0.5,
    beta_attention=0.3,
    phase_period=9,
    decay=3e-3,
    rho_trace=(0.0, 0.4),
    row_slots=(3, 5),
    decay_visit=0.01,
    bias_step=0.2,
    bias_decay=3e-3,
    ngram_slots=7,
    ngram_orders=(1, 2, 3, 5),
    episodes=40,
    eta_episode=0.05,
    eta_scale=0.01,
    topic_limit=0.5,
    guard_limit=0.5,
)
# The same for the least model.
LITTLE = replace(BUSY, row_slots=(1, 2), ngram_slots=3, ngram_orders=(1, 3), episodes=3)
ALL_8_BITS = Precision(inputs=8)


def random_tokens(n: int, vocab_size: int = TINY.vocab_size, seed: int = 1) -> Ids:
    return np.random.default_rng(seed).integers(0, vocab_size, n, dtype=np.int32)


def repetitive_tokens(n: int, period: int = 40, vocab_size: int = TINY.vocab_size, seed: int = 2) -> Ids:
    """A random phrase of `period` tokens, over and over."""
    return np.resize(random_tokens(period, vocab_size, seed), n)


def random_checkpoint(config: Config = TINY, seed: int = 0, head_gain: float = 1.0) -> Checkpoint:
    """Weights that keep the variance of their input, gains around one; logits of standard deviation `head_gain`."""
    rng = np.random.default_rng(seed)
    tensors = {}
    biases = config.bias_shapes() if config.norm == "layernorm" else {}
    for name, shape in (config.tensor_shapes() | biases).items():
        if len(shape) == 1:
            center = 0.0 if name.endswith("bias") else 1.0
            tensors[name] = rng.normal(center, 0.2, shape).astype(np.float32)
        else:
            tensors[name] = (shape[1] ** -0.5 * rng.normal(size=shape)).astype(np.float32)
    tensors["embed" if config.tied_head else "head"] *= np.float32(head_gain)
    return Checkpoint(config, tensors, "")


def quantised(checkpoint: Checkpoint, rule: Rule | None = None, bits: Precision | None = None) -> QuantModel:
    return quantise(checkpoint, calibrate(checkpoint, random_tokens(512, checkpoint.config.vocab_size, 3)), rule, bits)


@cache
def _model(config: Config, bits: Precision | None, seed: int, head_gain: float) -> QuantModel:
    return quantised(random_checkpoint(config, seed, head_gain), None, bits)


def tiny_image(
    config: Config = TINY,
    rule: Rule | None = None,
    bits: Precision | None = None,
    *,
    seed: int = 0,
    head_gain: float = 1.0,
    n_guard: int = 48,
    settings: Mapping[str, Any] | None = None,
) -> bytes:
    """An image of a random checkpoint. `settings` overwrites fields of its header, those of the rule as 'rule.NAME'."""
    model = _model(config, bits, seed, head_gain)
    guard = QuantGuard(model.guard.mantissas[:n_guard], model.guard.frac[:n_guard], model.guard.tokens[:n_guard])
    image = build_image(replace(model, rule=rule or Rule(), guard=guard))
    return with_settings(image, settings) if settings else image


def with_settings(image: bytes, settings: Mapping[str, Any]) -> bytes:
    """The image with other numbers in its header, and the CRC that belongs to them."""
    out = bytearray(image)
    header = ffi.cast("ehmn_image *", ffi.from_buffer("uint8_t[]", out))
    for name, value in settings.items():
        place, _, inner = name.partition(".")
        setattr(getattr(header, place) if inner else header, inner or name, value)
    return reseal(out)


def opened(image: bytes) -> Image:
    return Image(image, "test image")


def logits(model: CoreModel) -> list[int]:
    """The logits of a model that has predicted."""
    out = model.logits()
    assert out is not None
    return out.tolist()


def resealed_delta(delta: bytes | bytearray) -> bytes:
    """The delta with the CRC that belongs to its bytes."""
    out = bytearray(delta)
    header = ffi.cast("ehmn_delta *", ffi.from_buffer("uint8_t[]", out))
    header.crc32 = zlib.crc32(memoryview(out)[ffi.offsetof("ehmn_delta", "image_id") :])
    return bytes(out)
