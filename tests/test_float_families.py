"""The float model of both families and both windows against a plain one, written with explicit loops."""

import itertools
import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from edgehmn.calibrate import calibrate
from edgehmn.checkpoint import Checkpoint, Config
from edgehmn.model import CHUNK, FloatModel, gelu, log_softmax, silu
from tests.models import GPT2, TINY, random_checkpoint, random_tokens

Array = npt.NDArray[np.floating]
RESTART = replace(TINY, window="restart", n_ctx=6)
CONFIGS: dict[str, Config] = {
    "gpt2": GPT2,
    "gpt2 with a start token": replace(GPT2, start_token=3),
    "gpt2, odd window": replace(GPT2, n_ctx=7, start_token=3),
    "llama that restarts": RESTART,
    "llama that restarts with a start token": replace(RESTART, start_token=256, final_norm="rmsnorm"),
    "the least window": replace(RESTART, n_ctx=4, start_token=0),
    "a window longer than the text": replace(RESTART, n_ctx=64, start_token=0),
    "stretched frequencies": replace(TINY, rope_divisors=(1.0, 2.5, 8.0)),
    "layernorm and gelu with RoPE, sliding": replace(TINY, norm="layernorm", mlp="gelu"),
    "swiglu with learned positions": replace(GPT2, norm="rmsnorm", mlp="swiglu"),
}
TEXT = random_tokens(40)


def with_biases(config: Config) -> Checkpoint:
    made = random_checkpoint(config)
    rng = np.random.default_rng(7)
    biases = {n: rng.normal(0, 0.3, s).astype(np.float32) for n, s in config.bias_shapes().items()}
    return Checkpoint(config, made.tensors | biases, "")


def plain_windows(config: Config, n: int) -> list[tuple[list[int], int]]:
    """For each of n tokens fed: the positions in the window with it, as indices of fed tokens (-1: the start token),
    and the place of the first of them. Written from the definition, token by token."""
    start = [-1] if config.start_token >= 0 else []
    windows: list[tuple[list[int], int]] = []
    window: list[int] = []
    for i in range(n):
        if config.window == "sliding":
            window = [*window, i][-config.n_ctx :]
            windows.append((window, i - len(window) + 1))
            continue
        if not window:
            window = list(start)
        elif len(window) == config.n_ctx:
            window = start + list(range(i - config.n_ctx // 2, i))
        window = [*window, i]
        windows.append((window, 0))
    return windows


def plain_hidden(checkpoint: Checkpoint, ids: npt.NDArray[np.integer]) -> Array:
    """Every window encoded by itself, from its first token; of one that slides, in one layer (deeper ones see further
    back than their window)."""
    c = checkpoint.config
    out = []
    for window, first in plain_windows(c, len(ids)):
        tokens = [c.start_token if i < 0 else int(ids[i]) for i in window]
        out.append(plain_window(checkpoint, tokens, first)[-1])
    return np.array(out)


def plain_window(checkpoint: Checkpoint, tokens: list[int], first: int) -> Array:
    """Hidden vectors (len(tokens), d_model) in float64 of tokens that all see those before them."""
    c, t = checkpoint.config, {k: v.astype(np.float64) for k, v in checkpoint.tensors.items()}
    x = np.array([t["embed"][token] for token in tokens])
    if c.positions == "learned":
        x = x + np.array([t["positions"][first + i] for i in range(len(tokens))])

    def matrix(name: str, v: Array) -> Array:
        return t[name] @ v + t.get(f"{name}.bias", 0.0)

    def norm(name: str, v: Array) -> Array:
        v = v - v.mean() if c.norm == "layernorm" else v
        scaled = v / math.sqrt(sum(a * a for a in v) / len(v) + c.norm_eps)
        return scaled * t[f"{name}.weight"] + t.get(f"{name}.bias", 0.0)

    def turned(v: Array, position: int) -> Array:
        half, out = len(v) // 2, v.copy()
        if c.positions == "learned":
            return out
        for i in range(half):
            angle = position * c.rope_theta ** (-i / half) / (c.rope_divisors[i] if c.rope_divisors else 1)
            out[i] = v[i] * math.cos(angle) - v[i + half] * math.sin(angle)
            out[i + half] = v[i + half] * math.cos(angle) + v[i] * math.sin(angle)
        return out

    size, group = c.d_head, c.n_heads // c.n_kv_heads
    for layer in range(c.n_layers):
        at = f"layers.{layer}."
        y = [norm(at + "attn_norm", row) for row in x]
        q, k, v = ([matrix(at + name, row) for row in y] for name in "qkv")
        for now in range(len(x)):
            heads = []
            for head in range(c.n_heads):
                mine, theirs = (slice(h * size, (h + 1) * size) for h in (head, head // group))
                query = turned(q[now][mine], first + now)
                scores = [query @ turned(k[i][theirs], first + i) / math.sqrt(size) for i in range(now + 1)]
                weights = [math.exp(s) for s in scores]
                heads.append(sum(w * v[i][theirs] for i, w in enumerate(weights)) / sum(weights))
            x[now] += matrix(at + "o", np.concatenate(heads))
        for now in range(len(x)):
            inner = norm(at + "mlp_norm", x[now])
            up = matrix(at + "up", inner)
            if c.mlp == "swiglu":
                gate = matrix(at + "gate", inner)
                up = gate / (1 + np.exp(-gate)) * up
            else:
                up = np.array([plain_gelu(a) for a in up])
            x[now] += matrix(at + "down", up)
    return x


def plain_gelu(a: float) -> float:
    return 0.5 * a * (1 + math.tanh(math.sqrt(2 / math.pi) * (a + 0.044715 * a**3)))


@pytest.mark.parametrize("name", CONFIGS)
def test_encoder_is_the_plain_one(name: str) -> None:
    config = CONFIGS[name]
    if config.window == "sliding":
        config = replace(config, n_layers=1)
    checkpoint = with_biases(config)
    expected = plain_hidden(checkpoint, TEXT)
    for step in (1, 2, 7, len(TEXT)):
        model = FloatModel(checkpoint)
        state = model.new_state()
        found = np.concatenate([model.encode(TEXT[i : i + step], state) for i in range(0, len(TEXT), step)])
        np.testing.assert_allclose(found, expected, rtol=0, atol=3e-5 * np.abs(expected).max())


def test_missing_biases_are_zero() -> None:
    made = random_checkpoint(GPT2)
    bare = {name: w for name, w in made.tensors.items() if name in GPT2.tensor_shapes()}
    zero = {name: np.zeros(shape, np.float32) for name, shape in GPT2.bias_shapes().items()}
    found = [FloatModel(Checkpoint(GPT2, tensors, "")) for tensors in (bare, bare | zero)]
    first, second = (model.encode(TEXT, model.new_state()) for model in found)
    np.testing.assert_array_equal(first, second)


def test_windows_longer_than_a_chunk() -> None:
    """A chunk never crosses a restart, and half a window is encoded again in one."""
    config = replace(GPT2, n_layers=1, n_ctx=2 * CHUNK + 10, start_token=5)
    ids = random_tokens(4 * CHUNK)
    model = FloatModel(random_checkpoint(config))
    whole, parts = model.new_state(), model.new_state()
    together = model.encode(ids, whole)
    apart = np.concatenate([model.encode(ids[i : i + 77], parts) for i in range(0, len(ids), 77)])
    np.testing.assert_allclose(apart, together, rtol=0, atol=1e-4)
    assert whole.position == parts.position and (whole.recent == ids[-(CHUNK + 5) :]).all()
    assert whole.keys.shape[2] == whole.position


def test_the_state_knows_the_largest_residual() -> None:
    """Also inside the layers, of every token, and of the start token, which the caller never sees."""
    config = replace(RESTART, start_token=9)
    made = random_checkpoint(config)
    made.tensors["embed"][9] *= 1000
    model = FloatModel(made)
    state = model.new_state()
    assert state.largest == 0
    hidden = model.encode(TEXT[:1], state)
    assert state.largest >= np.abs(made.tensors["embed"][9]).max() > 10 * np.abs(hidden).max()
    inner = random_checkpoint(TINY)
    for i in range(TINY.n_layers):  # what attention adds, the MLP takes away again
        inner.tensors[f"layers.{i}.o.bias"] = np.full(TINY.d_model, 500.0, np.float32)
        inner.tensors[f"layers.{i}.down.bias"] = np.full(TINY.d_model, -500.0, np.float32)
    model = FloatModel(inner)
    state = model.new_state()
    assert np.abs(model.encode(TEXT, state)).max() < 100 < state.largest


def test_the_range_of_hidden_vectors_is_that_of_usual_ones() -> None:
    """One token in 300 is far larger: it needs room in the residual, and saturates between both parts."""
    ids = random_tokens(900)
    ids[ids == 0] = 1
    ids[::300] = 0
    plain, made = random_checkpoint(TINY), random_checkpoint(TINY)
    made.tensors["embed"][0] *= 30000
    usual, found = calibrate(plain, ids), calibrate(made, ids)
    assert found.hidden_frac == usual.hidden_frac
    assert found.value_frac < usual.value_frac


def test_log_probabilities_in_little_memory() -> None:
    model = FloatModel(random_checkpoint(GPT2))
    hidden = model.encode(TEXT, model.new_state())
    expected = log_softmax(model.logits(model.final_norm(hidden[:-1])))[np.arange(39), TEXT[1:]]
    np.testing.assert_allclose(model.log_p(hidden[:-1], TEXT[1:]), expected, rtol=0, atol=1e-5)
    assert model.log_p(hidden[:0], TEXT[:0]).shape == (0,)


def test_activations() -> None:
    x = np.linspace(-200, 200, 4001).astype(np.float32)
    with np.errstate(all="raise", under="ignore"):
        np.testing.assert_allclose(gelu(x), [plain_gelu(float(a)) for a in x], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(silu(x), x / (1 + np.exp(-x.astype(float))), rtol=1e-5, atol=1e-6)


def test_windows_as_the_definition_says() -> None:
    """The plain windows themselves, by example: six positions, a start token, three tokens again."""
    config = replace(RESTART, start_token=0)
    seen = [window for window, _ in plain_windows(config, 9)]
    assert seen[0] == [-1, 0] and seen[4] == [-1, 0, 1, 2, 3, 4] and seen[5] == [-1, 2, 3, 4, 5]
    assert seen[6] == [-1, 2, 3, 4, 5, 6] and seen[7] == [-1, 4, 5, 6, 7]
    assert all(len(w) <= 6 for w in seen) and all(b[-1] == a[-1] + 1 for a, b in itertools.pairwise(seen))
