"""The forward pass of the core: bit for bit that of the oracle, and close to the float model."""

import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from edgehmn.checkpoint import Config
from edgehmn.core import CoreModel, Image, aligned, ffi, lib
from edgehmn.errors import DoesNotFitError, EdgeHMNError, UsageError
from edgehmn.model import LOG2_E, FloatModel
from edgehmn.plasticity import Rule
from edgehmn.quantize import Precision
from tests.models import (
    ALL_8_BITS,
    GPT2,
    QUIET,
    TINY,
    Ids,
    logits,
    opened,
    random_checkpoint,
    random_tokens,
    repetitive_tokens,
    tiny_image,
)
from tests.oracle import Oracle

SHAPES = {
    "layernorm, tied": TINY,
    "rmsnorm": replace(TINY, final_norm="rmsnorm"),
    "untied": replace(TINY, tied_head=False),
    "rmsnorm, untied": replace(TINY, final_norm="rmsnorm", tied_head=False),
    "a key head for each query head": replace(TINY, n_kv_heads=4, n_layers=1),
    "one key head": replace(TINY, n_kv_heads=1, n_layers=1),
    "one head": replace(TINY, n_heads=1, n_kv_heads=1, n_layers=1),
    "heads of two": replace(TINY, d_model=14, n_heads=7, n_kv_heads=7, d_hidden=37, vocab_size=33),
    "a window of one": replace(TINY, n_ctx=1, n_layers=3),
    "an even window": replace(TINY, n_ctx=8, vocab_size=64, n_layers=1),
    "a window that restarts": replace(TINY, window="restart"),
    "a start token": replace(TINY, window="restart", start_token=3, n_layers=1),
    "the least restarting window": replace(TINY, window="restart", start_token=0, n_ctx=4),
    "scaled positions": replace(TINY, rope_divisors=(1.0, 3.5, 8.0)),
    "GPT-2": GPT2,
    "GPT-2, untied": replace(GPT2, tied_head=False, start_token=7),
    "GELU": replace(TINY, mlp="gelu"),
    "layernorm throughout": replace(TINY, norm="layernorm"),
    "odd sizes": replace(TINY, d_model=24, n_heads=3, n_kv_heads=1, d_hidden=1376, vocab_size=257, n_layers=1),
}
OFF = replace(QUIET, rho_trace=())
MIXED = (("layers.0.q", 8), ("layers.0.o", 12), ("layers.0.up", 9), ("layers.0.down", 8), ("embed", 15), ("topic", 8))
BITS = {
    "16 bits": Precision(),
    "8 bits": ALL_8_BITS,
    "mixed bits": Precision(exceptions=MIXED),
    "weights of 4 bits": Precision(weights=4, inputs=13),
}


@pytest.fixture(scope="module")
def image() -> Image:
    return opened(tiny_image())


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("shape", SHAPES)
def test_equals_the_oracle(shape: str, bits: str) -> None:
    config = SHAPES[shape]
    data = tiny_image(config, bits=BITS[bits])
    core, oracle = CoreModel(opened(data), plastic=False), Oracle(data, plastic=False)
    for token in random_tokens(3 * config.n_ctx + 2, config.vocab_size).tolist():
        assert core.score(token) == oracle.score(token)
        hidden = core.encode(token)
        assert hidden.tolist() == oracle.encode(token)
        core.head(token, hidden)
        oracle.head(token, hidden.tolist())
        assert logits(core) == oracle.logits
    assert [core.score(k) for k in range(config.vocab_size)] == [oracle.score(k) for k in range(config.vocab_size)]


@pytest.mark.parametrize(
    "settings",
    [
        {"value_frac": 8, "hidden_frac": 14},
        {"value_frac": 16, "hidden_frac": 0},
        {"hidden_frac": 14},
        {"norm_eps_mantissa": 0},
        {"norm_eps_mantissa": 2**31 - 1, "norm_eps_shift": 0},
        {"norm_eps_mantissa": 1, "norm_eps_shift": 62},
    ],
)
def test_equals_the_oracle_where_values_saturate(settings: dict[str, int]) -> None:
    data = tiny_image(replace(TINY, n_layers=1), head_gain=40.0, settings=settings)
    core, oracle = CoreModel(opened(data)), Oracle(data)
    for token in random_tokens(12).tolist():
        core.step(token)
        oracle.step(token)
        assert logits(core) == oracle.logits


def sqnr_db(reference: npt.NDArray[np.floating], approximation: npt.NDArray[np.floating]) -> float:
    error = reference - approximation
    return float(10 * np.log10(np.sum(np.square(reference)) / np.sum(np.square(error))))


def run(core: CoreModel, ids: Ids) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Hidden vectors and natural logits, as real numbers."""
    hidden, predicted = [], []
    for token in ids.tolist():
        hidden.append(core.encode(token))
        core.head(token, hidden[-1])
        predicted.append(logits(core))
    hidden_unit, logit_unit = 2.0**-core.image.header.hidden_frac, 2.0**-lib.EHMN_LOGIT_FRAC / LOG2_E
    return np.array(hidden) * hidden_unit, np.array(predicted) * logit_unit


@pytest.mark.parametrize(("bits", "hidden_db", "logits_db"), [("16 bits", 31, 30), ("8 bits", 27, 26)])
@pytest.mark.parametrize("shape", ["layernorm, tied", "rmsnorm, untied"])
def test_follows_the_float_model(shape: str, bits: str, hidden_db: float, logits_db: float) -> None:
    config = SHAPES[shape]
    model = FloatModel(random_checkpoint(config))
    ids = random_tokens(200)
    hidden, predicted = run(CoreModel(opened(tiny_image(config, bits=BITS[bits]))), ids)
    exact = model.encode(ids, model.new_state())
    assert sqnr_db(exact, hidden) > hidden_db
    assert sqnr_db(model.logits(model.final_norm(exact)), predicted) > logits_db


def test_an_untaught_head_is_the_frozen_model(image: Image) -> None:
    static, plastic = CoreModel(image, plastic=False), CoreModel(image)
    for token in random_tokens(20).tolist():
        static.step(token)
        plastic.step(token)
        assert logits(static) == logits(plastic)


def test_a_step_is_encoder_then_head(image: Image) -> None:
    whole, parts = CoreModel(image), CoreModel(image)
    for token in repetitive_tokens(20, 7).tolist():
        for model in (whole, parts):
            model.learn(token)
        whole.step(token)
        parts.head(token, parts.encode(token))
        assert logits(whole) == logits(parts)
    assert whole.save() == parts.save()


def test_after_a_reset_as_if_fresh(image: Image) -> None:
    model, ids = CoreModel(image, plastic=False), random_tokens(23)
    fresh = model.process(ids, learn=False)
    last = logits(model)
    model.reset()
    assert model.logits() is None
    assert np.array_equal(model.process(ids, learn=False), fresh)
    assert logits(model) == last


def test_the_window_holds_exactly_n_ctx_positions() -> None:
    """With one layer, the token n_ctx positions back leaves no trace, and the one after it does."""
    model = CoreModel(opened(tiny_image(replace(TINY, n_layers=1))), plastic=False)
    ids = random_tokens(4 * TINY.n_ctx)

    def last_logits(ids: Ids) -> list[int]:
        model.reset()
        model.process(ids, learn=False)
        return logits(model)

    for back, is_seen in ((TINY.n_ctx - 1, True), (TINY.n_ctx, False)):
        changed = ids.copy()
        changed[-1 - back] ^= 1
        assert (last_logits(changed) != last_logits(ids)) == is_seen


def test_streaming_does_not_drift(image: Image) -> None:
    """After 100,000 tokens every bit is what the oracle gets that begins at that position, with nothing before it.

    A prediction depends on n_layers (n_ctx - 1) earlier tokens and, through the phases, on the position.
    """
    n, tail = 100_000, TINY.n_layers * (TINY.n_ctx - 1) + 1
    ids = random_tokens(n + 10)
    core, oracle = CoreModel(image, plastic=False), Oracle(image.bytes.tobytes(), plastic=False)
    scores = core.process(ids[:n], learn=False)
    oracle.reset(n - tail)
    for token in ids[n - tail : n].tolist():
        oracle.step(token)
    for token in ids[n:].tolist():
        assert core.score(token) == oracle.score(token)
        assert logits(core) == oracle.logits
        core.step(token)
        oracle.step(token)
    assert core.counts().steps == n + 10
    first, last = scores[:5000].mean() / 2**16, scores[-5000:].mean() / 2**16
    assert abs(first - last) < 0.1, "bits for each of random tokens"


def test_far_positions_keep_the_accuracy_of_near_ones(image: Image) -> None:
    model, ids = FloatModel(random_checkpoint()), random_tokens(6000)
    hidden, _ = run(CoreModel(image, plastic=False), ids)
    exact = model.encode(ids, model.new_state())
    near, far = sqnr_db(exact[:1000], hidden[:1000]), sqnr_db(exact[-1000:], hidden[-1000:])
    assert far > near - 0.5


def test_scores_are_those_of_a_distribution(image: Image) -> None:
    model = CoreModel(image)
    assert model.score(3) == round(2**16 * math.log2(TINY.vocab_size)), "before the first step all are alike"
    for token in random_tokens(10).tolist():
        model.step(token)
        scores = np.array([model.score(k) for k in range(TINY.vocab_size)])
        assert abs(np.sum(2.0 ** (-scores / 2**16)) - 1) < 1e-4


def test_samples_are_those_of_the_oracle(image: Image) -> None:
    core, oracle = CoreModel(image, seed=5), Oracle(image.bytes.tobytes(), 5)
    with pytest.raises(EdgeHMNError, match="E_STATE"):
        core.sample(1.0)
    token = 0
    for temperature in (0, 256, 1, 128, 0, 300, 4096, 77, 256):
        core.step(token)
        oracle.step(token)
        token = oracle.sample(temperature)
        assert core.sample(temperature / 256) == token
    with pytest.raises(UsageError):
        core.sample(4097 / 256)


def test_the_most_probable_token_is_the_first_of_equals() -> None:
    image = opened(tiny_image(replace(TINY, n_layers=1, vocab_size=40)))
    embedding = ffi.cast("ehmn_matrix *", image.pointer + image.header.matrices_offset)[7]
    rows = image.bytes[embedding.weights_offset : embedding.weights_offset + 40 * 24].reshape(40, 24)
    scales = image.bytes[embedding.scales_offset : embedding.scales_offset + 4 * 40].view(np.int32)
    rows[:], scales[:] = rows[11], scales[11]  # an image once checked is not checked again
    model = CoreModel(image)
    model.step(5)
    assert model.sample(0.0) == 0


@pytest.mark.parametrize("saturates", [(0,), (1,), (0, 1), ()])
def test_embedding_and_position_saturate_together(saturates: tuple[int, ...]) -> None:
    """Rows of both whose scales take values beyond 32 bits, just below 30, or one each."""
    image = opened(tiny_image(replace(GPT2, n_layers=1, vocab_size=40)))
    matrices = ffi.cast("ehmn_matrix *", image.pointer + image.header.matrices_offset)
    for i, matrix in enumerate((matrices[7], matrices[8])):
        at = image.bytes[matrix.scales_offset : matrix.scales_offset + 4 * matrix.rows].view(np.int32)
        matrix.shift = image.header.value_frac + (0 if i in saturates else 3)
        at[:] = 2**31 - 1 if i in saturates else 2**25 - 1
    core, oracle = CoreModel(image), Oracle(image.bytes.tobytes())
    for token in (3, 11, 39, 0, 3, 7):
        assert core.encode(token).tolist() == list(oracle.encode(token))


def test_samples_follow_the_prediction(image: Image) -> None:
    """In every single draw that of the oracle, and all together the distribution that is scored."""
    core, oracle, n = CoreModel(image, seed=2), Oracle(image.bytes.tobytes(), 2), 3000
    core.step(9)
    oracle.step(9)
    samples = [core.sample(1.0) for _ in range(n)]
    assert samples == [oracle.sample(256) for _ in range(n)]
    p = np.array([2.0 ** (-core.score(k) / 2**16) for k in range(TINY.vocab_size)])
    z = (np.bincount(samples, minlength=TINY.vocab_size) - n * p) / np.sqrt(n * p * (1 - p))
    assert abs(z).max() < 5.5 and 0.7 < np.mean(z**2) < 1.4


def macs_of_feeding(c: Config, n: int) -> int:
    """Of n tokens by the frozen model: rows of the embedding, matrices, keys and values with their weights."""
    matrices = c.n_layers * (2 * c.d_model**2 + 2 * c.d_kv * c.d_model + 3 * c.d_hidden * c.d_model)
    filled = sum(min(i + 1, c.n_ctx) for i in range(n))
    attention = 2 * c.n_layers * c.n_heads * c.d_head * filled
    return n * (c.d_model + matrices + c.vocab_size * c.d_model) + attention


# What a rule adds, in d_model: at each token fed, learned and followed, where n_negatives is 1; and at 79 taken in.
COSTS: dict[str, tuple[Rule, int, int, int, int]] = {
    "nothing": (OFF, 24, 27, 27, 0),
    "a dense adapter": (replace(OFF, rho_trace=(0.0,)), 48, 30, 28, 0),
    "rows": (replace(OFF, row_slots=(3, 0)), 25, 29, 28, 0),
    "bias and n-grams": (replace(OFF, bias_step=0.1, ngram_slots=5), 24, 27, 27, 0),
    "two looks at the topic": (replace(OFF, topic_limit=1.0), 24, 27, 27, 2 * 24),
}
NEW_TOKENS = 3 * np.arange(80) % TINY.vocab_size  # none of them foreseen


@pytest.mark.parametrize("name", COSTS)
def test_counts(name: str) -> None:
    rule, fed, learned, followed, looks = COSTS[name]
    image, n, d = opened(tiny_image(TINY, replace(rule, n_negatives=1))), len(NEW_TOKENS), TINY.d_model
    for learn, follow, cost in ((False, False, 0), (True, False, learned), (False, True, followed)):
        model = CoreModel(image)
        model.process(NEW_TOKENS, learn=learn, follow=follow)
        counts = model.counts()
        assert (counts.steps, counts.learned) == (n, n - 1 if learn else 0)
        assert counts.writes == delta_header(model.save()).writes
        extra = counts.macs - macs_of_feeding(TINY, n)
        assert extra == d * (n * fed + (n - 1) * cost + (looks if cost else 0))


def test_a_foreseen_token_costs_no_error() -> None:
    model = CoreModel(opened(tiny_image(TINY, replace(OFF, n_negatives=1), head_gain=20.0)))
    model.step(5)
    foreseen = min(range(TINY.vocab_size), key=model.score)
    assert model.score(foreseen) < 0.58 * 2**16
    before = model.counts().macs
    model.learn(foreseen)
    assert model.counts().macs == before


def test_counts_of_episodes_and_guard() -> None:
    """A key is compared 32 bits at a time; a look at the guard takes one pass through the head."""
    n, d, words = len(NEW_TOKENS), TINY.d_model, 1
    rule = replace(OFF, n_negatives=1)
    plain = CoreModel(opened(tiny_image(TINY, rule)))
    recalls = CoreModel(opened(tiny_image(TINY, replace(rule, episodes=40))))
    watched = CoreModel(opened(tiny_image(TINY, replace(rule, guard_limit=1.0))))
    for model in (plain, recalls, watched):
        model.process(NEW_TOKENS, learn=True)
    stored = sum(min(40, i) for i in range(n))
    assert recalls.counts().macs - plain.counts().macs == stored * words
    assert watched.counts().macs - plain.counts().macs == TINY.vocab_size * d + d * d


def delta_header(delta: bytes) -> "ffi.CData":
    header = ffi.new("ehmn_delta *")
    ffi.buffer(header)[:] = delta[: ffi.sizeof("ehmn_delta")]
    return header


def test_a_refused_token_changes_nothing(image: Image) -> None:
    model, untouched = CoreModel(image), CoreModel(image)
    for token in (1, 2, 3):
        for bad in (TINY.vocab_size, -1, 2**32 - 1):
            for call in (model.step, model.encode, model.score, model.learn):
                with pytest.raises(UsageError, match="E_ARGUMENT"):
                    call(bad)
        model.step(token)
        untouched.step(token)
    assert logits(model) == logits(untouched)
    assert model.counts() == untouched.counts() and model.save() == untouched.save()


# ---- The arena


@pytest.mark.parametrize("plastic", [False, True])
def test_arena_one_byte_short(image: Image, plastic: bool) -> None:
    need = image.arena_bytes(plastic=plastic)
    for size in (0, 1, 511, need - 1):
        with pytest.raises(DoesNotFitError, match=str(need)):
            CoreModel(image, plastic=plastic, arena_bytes=size)
    CoreModel(image, plastic=plastic, arena_bytes=need)


@pytest.mark.parametrize("plastic", [False, True])
def test_nothing_outside_the_arena_is_touched(image: Image, plastic: bool) -> None:
    """The arena is full of garbage before, between guards, and its result is that of a zeroed one."""
    need, guard = image.arena_bytes(plastic=plastic), 256
    memory = aligned(need + 2 * guard)
    memory[:] = 0xA5
    model = ffi.new("ehmn_model **")
    bits = ffi.new("uint32_t *")
    arena = ffi.from_buffer("uint8_t[]", memory)
    assert lib.ehmn_open(image.pointer, arena + guard, need, int(plastic), 3, model) == lib.EHMN_OK
    twin = CoreModel(image, plastic=plastic, seed=3)
    for token in random_tokens(3 * TINY.n_ctx).tolist():
        assert lib.ehmn_score(model[0], token, bits) == lib.EHMN_OK
        assert bits[0] == twin.score(token)
        for call in (lib.ehmn_learn, lib.ehmn_step) if plastic else (lib.ehmn_step,):
            assert call(model[0], token) == lib.EHMN_OK
        if plastic:
            twin.learn(token)
        twin.step(token)
    if plastic:
        delta = aligned(image.delta_bytes() + guard)
        delta[:] = 0xA5
        out = ffi.from_buffer("uint8_t[]", delta)
        assert lib.ehmn_delta_save(model[0], out, image.delta_bytes()) == lib.EHMN_OK
        assert delta[: image.delta_bytes()].tobytes() == twin.save()
        assert (delta[image.delta_bytes() :] == 0xA5).all()
        assert lib.ehmn_delta_load(model[0], out, image.delta_bytes()) == lib.EHMN_OK
    assert (memory[:guard] == 0xA5).all() and (memory[guard + need :] == 0xA5).all()


# ---- Kernels

TABLES = [name for name in dir(lib) if name.startswith("ehmn_kernels_")]


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize(
    ("rows", "cols", "extra"), [(1, 1, 0), (2, 3, 1), (5, 23, 9), (7, 64, 0), (3, 256, 5), (33, 127, 1)]
)
def test_matrix_kernels_give_exact_sums(table: str, rows: int, cols: int, extra: int) -> None:
    kernels, rng = getattr(lib, table), np.random.default_rng(rows)
    stride = cols + extra
    random = rng.integers(-127, 128, (rows, stride), dtype=np.int8)
    for w in (random, np.full((rows, stride), 127, np.int8), np.full((rows, stride), -127, np.int8)):
        for limit, function, kind in ((127, kernels.matvec_s8, "int8_t[]"), (32767, kernels.matvec_s16, "int16_t[]")):
            dtype = np.int8 if limit == 127 else np.int16
            for x in (
                rng.integers(-limit, limit + 1, cols, dtype=dtype),
                np.full(cols, limit, dtype),
                np.full(cols, -limit, dtype),
            ):
                acc = np.full(rows + 1, 77, np.int32)
                function(
                    ffi.from_buffer("int8_t[]", w.ravel()),
                    rows,
                    cols,
                    stride,
                    ffi.from_buffer(kind, x),
                    ffi.from_buffer("int32_t[]", acc),
                )
                exact = w[:, :cols].astype(np.int64) @ x.astype(np.int64)
                assert np.array_equal(acc[:rows], exact) and acc[rows] == 77


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize(
    ("rows", "cols", "extra"), [(1, 1, 0), (2, 6, 3), (5, 32, 0), (512, 2, 30), (128, 33, 1), (512, 17, 0)]
)
def test_weighted_sum_is_exact(table: str, rows: int, cols: int, extra: int) -> None:
    kernels, rng = getattr(lib, table), np.random.default_rng(rows)
    stride = cols + extra
    random = rng.integers(-127, 128, (rows, stride), dtype=np.int8)
    for w in (random, np.full((rows, stride), -127, np.int8)):
        for weight in (rng.integers(0, 2**15 + 1, rows, dtype=np.int32), np.full(rows, 2**15, np.int32)):
            acc = np.full(cols + 1, 77, np.int32)
            kernels.weighted_sum(
                ffi.from_buffer("int8_t[]", w.ravel()),
                rows,
                cols,
                stride,
                ffi.from_buffer("int32_t[]", weight),
                ffi.from_buffer("int32_t[]", acc),
            )
            exact = weight.astype(np.int64) @ w[:, :cols].astype(np.int64)
            assert np.array_equal(acc[:cols], exact) and acc[cols] == 77


def test_there_is_a_reference_table() -> None:
    assert "ehmn_kernels_ref" in TABLES


def test_rule_of_the_image_does_not_change_the_frozen_model(image: Image) -> None:
    other = CoreModel(opened(tiny_image(rule=Rule(eta_local=1.0, rho_trace=(0.9,) * 4))), plastic=True)
    ids = random_tokens(20)
    assert np.array_equal(other.process(ids, learn=False), CoreModel(image).process(ids, learn=False))
