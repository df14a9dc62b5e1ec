"""Learning in the core: bit for bit that of the oracle, drawn without bias, and worth as much as the float rule."""

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edgehmn.core import CoreModel, Image, ffi
from edgehmn.errors import EdgeHMNError
from edgehmn.image import build_image
from edgehmn.model import LOG2_E, FloatModel, log_softmax
from edgehmn.plasticity import PlasticHead, Rule
from tests.exact import STEP, draw, draw_steps
from tests.models import (
    ALL_8_BITS,
    SMALL,
    TINY,
    Ids,
    opened,
    quantised,
    random_checkpoint,
    random_tokens,
    repetitive_tokens,
    resealed_delta,
    tiny_image,
)
from tests.oracle import Oracle

BRISK = Rule(eta_local=0.01, eta_global=0.0)  # some hundred steps for each token of the small model
GLOBAL = replace(BRISK, eta_global=0.005)
EVERYTHING = Rule(
    eta_local=0.004,
    eta_global=0.004,
    gamma=0.6,
    w_novelty=0.7,
    kappa=0.5,
    beta_attention=0.3,
    phase_period=9,
    decay=3e-3,
    rho_trace=(0.0, 0.4, 0.9),
)
RULES = {
    "no eta": replace(BRISK, eta_local=0.0),
    "local only": BRISK,
    "reward": GLOBAL,
    "uncertainty": replace(GLOBAL, gamma=0.4),
    "novelty": replace(GLOBAL, w_novelty=0.5),
    "a rate that would be negative": replace(GLOBAL, eta_local=0.0, eta_global=0.05, w_reward=-1.0),
    "a short average": replace(GLOBAL, rho_average=0.5, gamma=0.5, w_novelty=-1.0),
    "kappa": replace(BRISK, kappa=0.7),
    "beta_attention": replace(BRISK, beta_attention=0.4),
    "kappa and beta_attention": replace(BRISK, kappa=3.0, beta_attention=2.0, rho_slow=0.9, rho_context=0.3),
    "phase": replace(BRISK, phase_period=7),
    "rho_trace": replace(BRISK, rho_trace=(0.0, 0.5, 0.95)),
    "coarse weights": replace(BRISK, weight_frac=4),
    "fine weights": replace(BRISK, weight_frac=16),
    "decay": replace(BRISK, decay=0.02),
    "fast gain": replace(BRISK, eta_gain=1.0, gain_max=1.5),
    "gain below one": replace(BRISK, gain_max=0.25),
    "everything": EVERYTHING,
}
EXTREME_SETTINGS: dict[str, dict[str, Any]] = {
    "the largest rates": {"rule.eta_local": 1 << 24, "rule.eta_global": 1 << 24, "rule.w_reward": 1 << 20},
    "the largest decay": {"rule.eta_local": 1 << 20, "rule.decay_row": (1 << 24) - 1},
    "no averages": {"rule.eta_global": 1 << 20, "rule.rho_average": 0, "rule.w_uncertainty": -(1 << 20)},
    "still averages": {"rule.eta_global": 1 << 20, "rule.rho_average": 65535, "rule.w_novelty": 1 << 20},
    "still traces": {"rule.rho_trace": [65535] * 8},
    "the largest kappa and beta": {"rule.kappa": 1 << 20, "rule.beta_attention": 1 << 20, "rule.rho_slow": 65535},
    "the least phase": {"rule.phase_step": 1, "rule.phase_seed": 2**32 - 1},
    "half a turn": {"rule.phase_step": 1 << 31},
    "the largest gain": {"rule.eta_gain": 1 << 20, "rule.gain_max": 1 << 20},
    "no gain": {"rule.gain_max": 0},
}


def assert_equals_the_oracle(image: bytes, ids: Ids, seed: int = 7) -> CoreModel:
    core, oracle = CoreModel(opened(image), seed=seed), Oracle(image, seed)
    for i, token in enumerate(ids.tolist()):
        assert core.score(token) == oracle.score(token), f"score of token {i}"
        core.learn(token)
        oracle.learn(token)
        assert core.save() == oracle.save(), f"delta after token {i}"
        core.step(token)
        oracle.step(token)
    return core


@pytest.fixture(scope="module")
def image() -> Image:
    return opened(tiny_image())


def test_equals_the_oracle_with_the_default_rule() -> None:
    ids = np.concatenate([random_tokens(60), repetitive_tokens(100, 15)])
    assert assert_equals_the_oracle(tiny_image(), ids).counts().writes > 1000


@pytest.mark.parametrize("name", RULES)
def test_equals_the_oracle_with_each_symbol(name: str) -> None:
    ids = repetitive_tokens(50, 11, SMALL.vocab_size)
    model = assert_equals_the_oracle(tiny_image(SMALL, RULES[name]), ids)
    assert (model.counts().writes > 300) == (name != "no eta")


@pytest.mark.parametrize("n", [1, 2, 4, 8, 16, 32, 64])
def test_equals_the_oracle_with_any_number_of_negatives(n: int) -> None:
    image = tiny_image(SMALL, replace(BRISK, n_negatives=n), head_gain=0.5 if n < 16 else 2.0)
    assert_equals_the_oracle(image, random_tokens(25, SMALL.vocab_size))


@pytest.mark.parametrize("name", EXTREME_SETTINGS)
def test_equals_the_oracle_at_the_limits_of_the_rule(name: str) -> None:
    image = tiny_image(SMALL, GLOBAL, settings=EXTREME_SETTINGS[name])
    assert_equals_the_oracle(image, random_tokens(16, SMALL.vocab_size))


@pytest.mark.parametrize("final_norm", ["layernorm", "rmsnorm"])
def test_equals_the_oracle_with_8_bit_inputs_and_a_head_of_its_own(final_norm: str) -> None:
    config = replace(SMALL, final_norm=final_norm, tied_head=False, n_adapters=1, n_ctx=3)
    assert_equals_the_oracle(tiny_image(config, EVERYTHING, ALL_8_BITS), random_tokens(30, SMALL.vocab_size))


@pytest.mark.parametrize("seed", [0, 1, 2**32, 2**64 - 1])
def test_equals_the_oracle_with_any_seed(seed: int) -> None:
    assert_equals_the_oracle(tiny_image(SMALL, BRISK), random_tokens(8, SMALL.vocab_size), seed)


def extreme_delta(image: Image, sound: bytes, seed: int) -> bytes:
    """A delta of the most extreme values that the core accepts."""
    rng, delta, n = np.random.default_rng(seed), bytearray(sound), SMALL.n_adapters
    start = ffi.sizeof("ehmn_delta")
    arrays = start + n * SMALL.d_model**2
    weights = np.frombuffer(delta, np.int8, arrays - start, start)
    weights[:] = rng.choice([-127, -126, -1, 0, 1, 126, 127], len(weights))
    values = np.frombuffer(delta, np.int32, -1, arrays)
    values[:] = rng.choice([-(2**31), -(2**31) + 1, -(1 << 20), 0, 1, 1 << 20, 2**31 - 1], len(values))
    header = ffi.cast("ehmn_delta *", ffi.from_buffer(delta))
    header.learned = (2**64 - 1, 0, 2**32 - 1, 2**63)[seed % 4]
    header.writes, header.phase = 2**64 - 1, 2**32 - 1
    for average in (header.reward, header.uncertainty, header.novelty):
        average.mean = int(rng.choice([-(2**31), 0, 2**31 - 1]))
        average.variance, average.started = int(rng.choice([0, 1, 2**31 - 1])), int(rng.integers(2))
    header.gain[0:n] = rng.integers(0, image.header.rule.gain_max, n, endpoint=True).tolist()
    return resealed_delta(delta)


def test_equals_the_oracle_from_any_delta() -> None:
    data = tiny_image(SMALL, EVERYTHING)
    core, oracle = CoreModel(opened(data)), Oracle(data)
    for seed in range(12):
        delta = extreme_delta(core.image, core.save(), seed)
        for model in (core, oracle):
            model.load(delta)
        for token in random_tokens(3, SMALL.vocab_size, seed).tolist():
            for model in (core, oracle):
                model.step(token)
                model.learn(token)
            assert core.save() == oracle.save()


# ---- Draws


def test_the_line_is_unbiased_exactly() -> None:
    """Over all offsets of a fine grid every weight gets its expected number of steps, to the last unit."""
    rng, offsets = np.random.default_rng(0), 1 << 14
    rates = (rng.integers(-(1 << 10), (1 << 10) + 1, 6) * (STEP // offsets)).tolist()
    pre = rng.integers(-127, 128, 8).tolist()
    total = np.zeros((6, 8), np.int64)
    for k in range(offsets):
        total += np.array(draw_steps(rates, pre, k * (STEP // offsets)))
    assert np.array_equal(total, np.outer(np.array(rates) // (STEP // offsets), pre))


def bias(total: npt.NDArray[np.int64], expected: npt.NDArray[np.float64], n: int) -> npt.NDArray[np.float64]:
    """Deviation of n draws' sums from n times their expectation, in standard deviations, where steps are common."""
    fraction = np.abs(expected) % 1
    common = n * fraction * (1 - fraction) > 10
    assert common.sum() > 100
    return ((total - n * expected) / np.sqrt(n * fraction * (1 - fraction) + 1e-9))[common]


def test_draws_of_the_core_are_unbiased() -> None:
    """One token learned with 10,000 seeds, each time from the same state.

    The head is so sharp that all negatives are the most probable token, so that the expected steps, too, are the same.
    """
    data, n, target = tiny_image(SMALL, replace(BRISK, decay=0.01), head_gain=20.0), 10_000, 4
    core, oracle = CoreModel(opened(data)), Oracle(data)
    shape, start = (SMALL.n_adapters, SMALL.d_model, SMALL.d_model), ffi.sizeof("ehmn_delta")
    base = bytearray(core.save())
    weights = np.frombuffer(base, np.int8, int(np.prod(shape)), start).reshape(shape)
    weights[:] = np.random.default_rng(0).integers(-60, 61, shape)
    oracle.load(bytes(base))
    token = next(k for k in range(SMALL.vocab_size) if is_sharp(oracle, k))
    oracle.learn(target)
    expected = np.array([np.outer(rates, pre) / STEP for rates, pre in oracle.updates])

    total = np.zeros(shape, np.int64)
    header = ffi.cast("ehmn_delta *", ffi.from_buffer(base))
    for seed in range(n):
        header.seed = seed
        core.load(resealed_delta(base))
        core.reset()
        core.step(token)
        core.learn(target)
        total += np.frombuffer(core.save(), np.int8, weights.size, start).reshape(shape)
    total -= n * weights.astype(np.int64)

    z = bias(total[:, 1:], expected[:, 1:], n)
    assert abs(z).max() < 5
    decay = core.image.header.rule.decay_row / STEP * (weights + expected)[:, 0]  # row 0 is the first whose turn it is
    assert abs(total[:, 0] / n - (expected[:, 0] - decay)).max() < 5 * np.sqrt(0.5 / n)
    assert abs(decay).max() > 0.5

    biased = np.zeros(shape[1:], np.int64)  # offsets from the first half of the interval only
    for seed in range(n):
        biased += np.array(draw_steps(*oracle.updates[0], draw(seed, 1, 0) >> 9))
    assert abs(bias(biased, expected[0], n)).max() > 20, "a biased draw would be seen"


def is_sharp(oracle: Oracle, token: int) -> bool:
    """Whether the prediction after `token` gives all that a mass can show to one token."""
    oracle.reset()
    oracle.step(token)
    return sum(p > 0 for p in oracle.p) == 1


# How many tokens must have been learned for seed 0 to draw an offset of whole sixteenths of a step.
@pytest.mark.parametrize(("learned", "sixteenths"), [(2553129, 0), (5774110, 2), (6092486, 7), (6567871, 15)])
def test_a_point_on_the_edge_of_two_weights_falls_on_the_later_one(learned: int, sixteenths: int) -> None:
    """With all rates at their limit, 1/16 of a step, the edges lie on whole sixteenths, too."""
    data = tiny_image(SMALL, settings={"rule.eta_local": 1 << 24})
    core, oracle = CoreModel(opened(data)), Oracle(data)
    delta = bytearray(core.save())
    ffi.cast("ehmn_delta *", ffi.from_buffer(delta)).learned = learned
    for model in (core, oracle):
        model.load(resealed_delta(delta))
        model.step(1)
        model.learn(2)
    offset = draw(0, 1, learned) >> 8
    rates, pre = oracle.updates[0]
    edges = np.cumsum(np.abs(np.outer(rates, pre)))
    assert offset == sixteenths * STEP // 16 and np.count_nonzero((edges - offset) % STEP == 0) > 3
    assert core.save() == oracle.save()


# ---- Limits


def test_weights_saturate_without_wrapping() -> None:
    image = opened(tiny_image(SMALL, settings={"rule.eta_local": 1 << 24, "rule.decay_row": 0}))
    model = CoreModel(image)

    def weights() -> npt.NDArray[np.int8]:
        n = SMALL.n_adapters * SMALL.d_model**2
        return np.frombuffer(model.save(), np.int8, n, ffi.sizeof("ehmn_delta")).copy()

    before = weights()
    for token in repetitive_tokens(150, 5, SMALL.vocab_size).tolist():
        model.learn(token)
        model.step(token)
        after = weights()
        assert abs(after.astype(int)).max() <= 127
        assert abs(after.astype(int) - before).max() <= 8 + 1, "at most 8 steps of a weight, and one of rounding"
        before = after
    assert (abs(before.astype(int)) == 127).sum() > 20


# ---- What learning is worth


def bits_per_token(scores: npt.NDArray[np.uint32]) -> float:
    return float(scores.mean()) / 2**16


def test_a_repetitive_stream_is_learned(image: Image) -> None:
    ids = repetitive_tokens(1500)
    static = bits_per_token(CoreModel(image).process(ids, learn=False))
    online = CoreModel(image).process(ids, learn=True)
    assert bits_per_token(online[-300:]) < static - 3


def test_nothing_can_be_learned_of_chance() -> None:
    """Tokens without any order, and a model that already gives all of them the same probability: any gain would be a
    leak of the token into its own score. Scoring after learning shows how large such a leak would be."""
    image, ids = opened(tiny_image(head_gain=0.02)), random_tokens(1500)
    static = bits_per_token(CoreModel(image).process(ids, learn=False))
    online = bits_per_token(CoreModel(image).process(ids, learn=True))
    assert abs(static - np.log2(TINY.vocab_size)) < 0.01 and online > static - 0.01
    model, leaked = CoreModel(image), list[int]()
    for token in ids.tolist():
        hidden = model.encode(token)
        model.head(hidden)
        if len(leaked) + 1 < len(ids):
            following = int(ids[len(leaked) + 1])
            model.learn(following)
            model.head(hidden)
            leaked.append(model.score(following))
    assert np.mean(leaked) / 2**16 < static - 0.05


def test_shuffled_targets_give_no_gain() -> None:
    """The same contexts and the same tokens, each as often as any other, but taught in another order."""
    image, ids = opened(tiny_image(head_gain=0.02)), np.random.default_rng(3).permutation(TINY.vocab_size)
    gain = {}
    for name, targets in (("true", ids), ("shuffled", np.random.default_rng(4).permutation(ids))):
        model = CoreModel(image)
        before = bits_per_token(model.process(ids, learn=False))
        for _ in range(6):
            for token, target in zip(ids.tolist(), targets.tolist(), strict=True):
                model.learn(target)
                model.step(token)
        model.reset()
        gain[name] = before - bits_per_token(model.process(ids, learn=False))
    assert gain["true"] > 0.5 and gain["shuffled"] < 0.02


def test_the_integer_rule_is_worth_as_much_as_the_float_rule() -> None:
    checkpoint, ids = random_checkpoint(), repetitive_tokens(1000)
    model = quantised(checkpoint)
    image = opened(build_image(model))
    float_model = FloatModel(checkpoint)
    normed = float_model.final_norm(float_model.encode(ids, float_model.new_state()))
    head = PlasticHead(checkpoint.head, model.calibration.statistics, model.rule)
    online = 0.0
    for h, target in zip(normed[:-1], ids[1:].tolist(), strict=True):
        online -= float(head.forward(h)[target]) * LOG2_E
        head.learn(target)
    log_p = log_softmax(float_model.logits(normed[:-1]))
    static = -float(log_p[np.arange(len(log_p)), ids[1:]].sum()) * LOG2_E
    scores = [CoreModel(image).process(ids, learn=learn)[1:].astype(np.int64) for learn in (False, True)]
    gain = float((scores[0] - scores[1]).sum()) / 2**16
    assert 0.95 < gain / (static - online) < 1.05


# ---- States


def test_a_seed_is_a_delta(image: Image) -> None:
    def learned(seed: int) -> bytes:
        model = CoreModel(image, seed=seed)
        model.process(repetitive_tokens(60), learn=True)
        return model.save()

    assert learned(1) == learned(1)
    start = ffi.sizeof("ehmn_delta")
    assert len({learned(seed)[start:] for seed in (0, 1, 2, 2**32, 2**64 - 1)}) == 5


@pytest.mark.parametrize("rule", [Rule(), replace(EVERYTHING, rho_trace=(0.0, 0.3, 0.6, 0.9))])
def test_a_restored_model_goes_on_as_one_that_never_stopped(rule: Rule) -> None:
    image, ids = opened(tiny_image(rule=rule)), repetitive_tokens(240, 23)
    uninterrupted = CoreModel(image, seed=4)
    uninterrupted.process(ids[:130], learn=True)
    restored = CoreModel(image, seed=99)
    restored.process(random_tokens(10), learn=True)
    restored.load(uninterrupted.save())
    for model in (uninterrupted, restored):
        model.reset()
    scores = uninterrupted.process(ids[130:], learn=True)
    assert np.array_equal(restored.process(ids[130:], learn=True), scores)
    assert restored.save() == uninterrupted.save()


def test_a_delta_alone_carries_what_was_learned(image: Image) -> None:
    teacher, ids = CoreModel(image), repetitive_tokens(400)
    teacher.process(ids, learn=True)
    pupil = CoreModel(image)
    pupil.load(teacher.save())
    teacher.reset()
    assert np.array_equal(pupil.process(ids[:50], learn=False), teacher.process(ids[:50], learn=False))


def test_forgetting_is_beginning_anew(image: Image) -> None:
    model, ids = CoreModel(image, seed=1), repetitive_tokens(80)
    model.process(ids, learn=True)
    model.forget(6)
    model.reset()
    fresh = CoreModel(image, seed=6)
    assert model.save() == fresh.save()
    assert np.array_equal(model.process(ids, learn=True), fresh.process(ids, learn=True))
    assert model.save() == fresh.save()


def test_forgetting_starts_every_draw_again(image: Image) -> None:
    """edgehmn.h: 'draws start again at `seed`'; those of samples are draws too."""
    model, fresh = CoreModel(image, seed=6), CoreModel(image, seed=6)
    model.step(1)
    first = model.generate(12, temperature=1.5).tolist()
    model.forget(6)
    model.reset()
    for again in (model, fresh):
        again.step(1)
        assert again.generate(12, temperature=1.5).tolist() == first


def test_before_a_prediction_there_is_nothing_to_learn(image: Image) -> None:
    model = CoreModel(image)
    untaught = model.save()
    model.learn(1)
    assert model.save() == untaught and model.counts().learned == 0
    model.process(repetitive_tokens(10), learn=True)
    learned = model.save()
    model.reset()
    model.learn(1)
    assert model.save() == learned


def test_one_prediction_may_be_learned_twice() -> None:
    data = tiny_image(SMALL, EVERYTHING)
    core, oracle = CoreModel(opened(data)), Oracle(data)
    for token in random_tokens(10, SMALL.vocab_size).tolist():
        for model in (core, oracle):
            model.step(token)
            model.learn(token)
            model.learn(token ^ 1)
        assert core.save() == oracle.save()


def test_a_static_model_does_not_learn(image: Image) -> None:
    model = CoreModel(image, plastic=False)
    delta = CoreModel(image).save()
    for _ in range(2):
        for refused in (lambda: model.learn(1), model.save, lambda: model.load(delta), lambda: model.forget(1)):
            with pytest.raises(EdgeHMNError, match="E_STATE"):
                refused()
        model.step(1)
