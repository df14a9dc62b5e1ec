"""The float model and the plastic head against second ones, written with explicit loops and nothing shared."""

import itertools
import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from edgehmn.checkpoint import Checkpoint, Config
from edgehmn.evaluate import float_perplexity
from edgehmn.model import CHUNK, FloatModel, log_softmax
from edgehmn.plasticity import HeadStatistics, PlasticHead, Rule
from tests.models import TINY, random_checkpoint, random_tokens
from tests.plain_head import PlainHead

Array = npt.NDArray[np.floating]
CONFIGS = {
    "two query heads for a key head": TINY,
    "four query heads for a key head": replace(TINY, n_kv_heads=1),
    "a key head for each query head": replace(TINY, n_kv_heads=4),
    "one head": replace(TINY, n_heads=1, n_kv_heads=1),
    "rmsnorm, untied": replace(TINY, final_norm="rmsnorm", tied_head=False),
    "a window of one": replace(TINY, n_ctx=1),
    "a window longer than the text": replace(TINY, n_ctx=64),
    "a slow base": replace(TINY, rope_theta=100.0, n_layers=3),
}
TEXT = random_tokens(40)


def norm(x: Array, gain: Array, eps: float) -> Array:
    return x / math.sqrt(sum(v * v for v in x) / len(x) + eps) * gain


def turned(x: Array, position: int, theta: float) -> Array:
    """Each pair (i, i + half) of a head is a complex number, turned by position * theta**(-i / half)."""
    half = len(x) // 2
    out = np.empty(len(x))
    for i in range(half):
        z = complex(x[i], x[i + half]) * complex(math.cos(a := position * theta ** (-i / half)), math.sin(a))
        out[i], out[i + half] = z.real, z.imag
    return out


def plain_hidden(checkpoint: Checkpoint, ids: npt.NDArray[np.integer]) -> Array:
    """Hidden vectors (len(ids), d_model) in float64, layer by layer, one query and one head at a time."""
    c, t = checkpoint.config, {k: v.astype(np.float64) for k, v in checkpoint.tensors.items()}
    size, group = c.d_model // c.n_heads, c.n_heads // c.n_kv_heads
    x = np.array([t["embed"][token] for token in ids])
    for layer in range(c.n_layers):
        w = {n: t[f"layers.{layer}.{n}"] for n in ("q", "k", "v", "o", "gate", "up", "down")}
        normed = [norm(row, t[f"layers.{layer}.attn_norm.weight"], c.norm_eps) for row in x]
        for now in range(len(ids)):
            seen = range(max(0, now - c.n_ctx + 1), now + 1)
            heads = []
            for head in range(c.n_heads):
                mine = slice(head * size, (head + 1) * size)
                theirs = slice(head // group * size, (head // group + 1) * size)
                query = turned(w["q"][mine] @ normed[now], now, c.rope_theta)
                keys = [turned(w["k"][theirs] @ normed[at], at, c.rope_theta) for at in seen]
                weights = [math.exp(query @ key / math.sqrt(size)) for key in keys]
                values = [w["v"][theirs] @ normed[at] for at in seen]
                heads.append(sum(a * v for a, v in zip(weights, values, strict=True)) / sum(weights))
            x[now] += w["o"] @ np.concatenate(heads)
        for now in range(len(ids)):
            y = norm(x[now], t[f"layers.{layer}.mlp_norm.weight"], c.norm_eps)
            gate = w["gate"] @ y
            x[now] += w["down"] @ (gate / (1 + np.exp(-gate)) * (w["up"] @ y))
    return x


def hidden(config: Config, ids: npt.NDArray[np.integer], step: int) -> Array:
    """Hidden vectors of the float model, `step` tokens at a time."""
    model = FloatModel(random_checkpoint(config))
    state = model.new_state()
    return np.concatenate([model.encode(ids[i : i + step], state) for i in range(0, len(ids), step)])


@pytest.mark.parametrize("name", CONFIGS)
def test_encoder_is_the_plain_one(name: str) -> None:
    config = CONFIGS[name]
    expected = plain_hidden(random_checkpoint(config), TEXT)
    for step in (1, 7, len(TEXT)):
        np.testing.assert_allclose(hidden(config, TEXT, step), expected, rtol=0, atol=2e-5 * np.abs(expected).max())


@pytest.mark.parametrize("final_norm", ["layernorm", "rmsnorm"])
@pytest.mark.parametrize("tied_head", [True, False])
def test_head_is_the_plain_one(final_norm: str, tied_head: bool) -> None:
    checkpoint = random_checkpoint(replace(TINY, final_norm=final_norm, tied_head=tied_head))
    model, t, c = FloatModel(checkpoint), checkpoint.tensors, checkpoint.config
    x = np.random.default_rng(5).normal(3, 2, (4, c.d_model)).astype(np.float32)
    log_p = log_softmax(model.logits(model.final_norm(x)))
    for row, found in zip(x.astype(np.float64), log_p, strict=True):
        if final_norm == "layernorm":
            y = (row - row.mean()) / math.sqrt(row.var() + c.norm_eps) * t["final_norm.weight"] + t["final_norm.bias"]
        else:
            y = norm(row, t["final_norm.weight"], c.norm_eps)
        logits = [float(w.astype(np.float64) @ y) for w in t["embed" if tied_head else "head"]]
        expected = np.array(logits) - math.log(sum(math.exp(v) for v in logits))
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("n_ctx", [2, 5, 9])
def test_the_window_is_exact(n_ctx: int) -> None:
    """In one layer the token n_ctx back changes nothing, to the bit, and the one after it does."""
    config, now = replace(TINY, n_layers=1, n_ctx=n_ctx), 20
    base = hidden(config, TEXT, 1)[now]
    for back in range(1, n_ctx + 3):
        ids = TEXT.copy()
        ids[now - back] = (ids[now - back] + 1) % config.vocab_size
        changed = hidden(config, ids, 1)[now]
        assert (changed != base).any() == (back < n_ctx), back


def test_layers_reach_further_together() -> None:
    """Two layers see 2 n_ctx - 1 positions."""
    reach, now = 2 * (TINY.n_ctx - 1), 20
    base = hidden(TINY, TEXT, 1)[now]
    for back in (reach, reach + 1):
        ids = TEXT.copy()
        ids[now - back] += 1
        assert (hidden(TINY, ids, 1)[now] != base).any() == (back == reach)


def test_positions_are_relative() -> None:
    """The same tokens after any others, once those have left every window, give the same vectors."""
    later = hidden(TINY, np.concatenate([random_tokens(30, seed=9), TEXT]), 64)[30:]
    settled = TINY.n_layers * (TINY.n_ctx - 1)
    np.testing.assert_allclose(later[settled:], hidden(TINY, TEXT, 64)[settled:], rtol=0, atol=1e-4)


def test_state_continues_and_keeps_no_more_than_it_needs() -> None:
    model = FloatModel(random_checkpoint(TINY))
    state, whole = model.new_state(), model.new_state()
    together = model.encode(TEXT, whole)
    apart = [model.encode(TEXT[:11], state), model.encode(TEXT[:0], state), model.encode(TEXT[11:], state)]
    np.testing.assert_allclose(np.concatenate(apart), together, rtol=0, atol=1e-5)
    assert state.position == len(TEXT)
    assert state.keys.shape == state.values.shape == (2, 2, TINY.n_ctx - 1, 6)


def test_a_text_longer_than_a_chunk() -> None:
    config = replace(TINY, n_layers=1)
    ids = random_tokens(2 * CHUNK + 3)
    np.testing.assert_allclose(hidden(config, ids, len(ids)), hidden(config, ids, 1), rtol=0, atol=1e-4)


def test_perplexity_is_that_of_the_plain_model() -> None:
    """Every token but the first is scored by the prediction before it; the first costs log(vocab_size)."""

    class Spelled(Checkpoint):
        def encode(self, text: str) -> npt.NDArray[np.int32]:
            return np.frombuffer(text.encode(), np.uint8).astype(np.int32)

    made = random_checkpoint(TINY)
    checkpoint = Spelled(made.config, made.tensors, "")
    text = "one two\nthree, four"
    ids = checkpoint.encode(text)
    model = FloatModel(checkpoint)
    log_p = log_softmax(model.logits(model.final_norm(plain_hidden(checkpoint, ids[:-1]).astype(np.float32))))
    expected = math.log(TINY.vocab_size) - sum(float(log_p[i, token]) for i, token in enumerate(ids[1:]))
    found = float_perplexity(checkpoint, text)
    assert found.nats == pytest.approx(expected, rel=1e-5)
    assert (found.tokens, found.words, found.bytes) == (19, 5, 19)
    assert found.token == pytest.approx(math.exp(expected / 19)) and found.word == pytest.approx(math.exp(expected / 5))
    assert found.bits_per_byte == pytest.approx(expected / math.log(2) / 19)


# ---- The plastic head

EVERYTHING = Rule(
    write="float",
    gamma=0.5,
    w_novelty=0.3,
    eta_global=2e-3,
    kappa=0.5,
    beta_attention=0.4,
    phase_period=9,
    closed_below=0.0,  # a unit just at the limit may be on its other side in float32
    rho_trace=(0.0, 0.6),
    decay=2e-3,
    decay_visit=0.02,
    bias_decay=1e-3,
    row_slots=(16, 32),
    ngram_slots=16,
    episodes=40,
    sharpness=6.0,
    initial_deviation=0.02,
    eta_gain=0.05,
)
RULES = {
    "default": Rule(write="float"),
    "everything": EVERYTHING,
    "hebbian": Rule(write="float", error="hebbian", initial_deviation=0.1),
    "tight bounds": replace(EVERYTHING, gain_max=0.9, bias_step=1.5, eta_ngram=3.0, eta_episode=0.9),
    "odd numbers": replace(EVERYTHING, n_negatives=5, row_slots=(0, 3), ngram_orders=(4,), rho_trace=(0.9,)),
    "no adapters": Rule(write="float", rho_trace=(), row_slots=(0, 0)),
    "no memories": Rule(write="float", bias_step=0, ngram_slots=0, episodes=0),
}


@pytest.mark.parametrize("name", RULES)
def test_the_plastic_head_is_the_plain_one(name: str) -> None:
    """Learning, then following, then learning again, with two resets: every prediction, and the state at the end."""
    rule, vocab, d, rng = RULES[name], 37, 10, np.random.default_rng(11)
    head = (0.5 * rng.normal(size=(vocab, d))).astype(np.float32)
    square = rng.normal(size=(d, d)) / 5
    statistics = HeadStatistics(
        rng.normal(size=d).astype(np.float32),
        rng.uniform(0.5, 2, d).astype(np.float32),
        (np.eye(d) + square + square.T).astype(np.float32),
        np.eye(d, dtype=np.float32),
    )
    inputs = rng.normal(size=(vocab, d)).astype(np.float32)
    ids = np.concatenate([np.resize(rng.integers(0, vocab, 11), 160), rng.integers(0, vocab, 60)] * 2).tolist()
    fast = PlasticHead(head, statistics, rule, seed=5)
    fast.rng = np.random.default_rng(6)
    plain = PlainHead(
        head,
        statistics,
        rule,
        draws=np.random.default_rng(6).random(len(ids)),
        follow_draws=np.random.default_rng([5, 1]).random(len(ids)),
        phase=fast.phase,
        weights=fast.weights,
    )
    for i, (now, following) in enumerate(itertools.pairwise(ids)):
        if i in (100, 230):
            fast.reset_context()
            plain.reset()
        h = inputs[now] + np.float32(0.3) * inputs[ids[i - 1]]
        np.testing.assert_allclose(fast.forward(h, now), plain.forward(h.astype(float).tolist(), now), atol=3e-4)
        followed = 180 <= i < 220
        fast.follow(following) if followed else fast.learn(following)
        plain.follow(following) if followed else plain.learn(following)
    np.testing.assert_allclose(fast.weights, np.reshape(plain.weights, fast.weights.shape), atol=1e-4)
    np.testing.assert_allclose(fast.gain, plain.gain, atol=1e-3)
    for rows in fast.rows:
        np.testing.assert_allclose(rows.values, plain.rows[rows.order - 1], atol=1e-3)
        assert rows.gain == pytest.approx(plain.row_gain[rows.order - 1], abs=1e-3)
    if fast.bias:
        np.testing.assert_allclose(fast.bias.values, plain.bias, atol=1e-4)
    if fast.episodes:
        np.testing.assert_allclose(fast.episodes.share, plain.share, atol=1e-4)
    for signal in ("reward", "uncertainty", "novelty"):
        mean, expected = getattr(fast, signal).mean, plain.signals[signal].mean or 0.0
        assert mean == pytest.approx(expected, abs=1e-4)
    assert fast.scale == pytest.approx(plain.scale, abs=1e-4)
