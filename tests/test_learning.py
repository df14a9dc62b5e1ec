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
from tests.models import (
    ALL_8_BITS,
    BUSY,
    QUIET,
    SMALL,
    TINY,
    Ids,
    opened,
    quantised,
    random_checkpoint,
    random_tokens,
    repetitive_tokens,
    tiny_image,
)
from tests.oracle_pair import Pair

BRISK = replace(QUIET, rho_trace=(0.0, 0.0, 0.0))
GLOBAL = replace(BRISK, eta_global=0.005)
EVERYTHING = replace(BUSY, eta_local=0.004, eta_global=0.004, rho_trace=(0.0, 0.4, 0.9))
RULES = {
    "no eta": replace(BRISK, eta_local=0.0),
    "local only": BRISK,
    "reward": GLOBAL,
    "uncertainty": replace(GLOBAL, gamma=0.4),
    "novelty": replace(GLOBAL, w_novelty=0.5),
    "a rate that would be negative": replace(GLOBAL, eta_local=1e-3, eta_global=0.1, w_reward=-1.0),
    "a short average": replace(GLOBAL, rho_average=0.5, gamma=0.5, w_novelty=-1.0),
    "kappa": replace(BRISK, kappa=0.7),
    "beta_attention": replace(BRISK, beta_attention=0.4),
    "kappa and beta_attention": replace(BRISK, kappa=3.0, beta_attention=2.0, rho_slow=0.9, rho_context=0.3),
    "phase": replace(BRISK, phase_period=7),
    "no unit closed": replace(BRISK, closed_below=0.0),
    "most units closed": replace(BRISK, closed_below=1.2),
    "rho_trace": replace(BRISK, rho_trace=(0.0, 0.5, 0.95)),
    "coarse weights": replace(BRISK, weight_frac=4),
    "fine weights": replace(BRISK, weight_frac=16),
    "decay": replace(BRISK, decay=0.02),
    "fast gain": replace(BRISK, eta_gain=1.0, gain_max=1.5),
    "gain below one": replace(BRISK, gain_max=0.25),
    "eta_row under reward": replace(GLOBAL, rho_trace=(), row_slots=(3, 5), eta_row=(0.02, 0.5)),
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
    "every unit closed": {"rule.closed_below": 1 << 20},
    "the largest gain": {"rule.eta_gain": 1 << 20, "rule.gain_max": 1 << 20},
    "no gain": {"rule.gain_max": 0},
}


def assert_equals_the_oracle(image: bytes, ids: Ids, seed: int = 7) -> CoreModel:
    return Pair(image, seed).take_all(ids.tolist()).core


@pytest.fixture(scope="module")
def image() -> Image:
    return opened(tiny_image())


def test_equals_the_oracle_with_the_default_rule() -> None:
    ids = np.concatenate([random_tokens(40), repetitive_tokens(60, 15)])
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
    config = replace(SMALL, final_norm=final_norm, tied_head=False, n_ctx=3)
    assert_equals_the_oracle(tiny_image(config, EVERYTHING, ALL_8_BITS), random_tokens(30, SMALL.vocab_size))


@pytest.mark.parametrize("seed", [0, 1, 2**32, 2**64 - 1])
def test_equals_the_oracle_with_any_seed(seed: int) -> None:
    assert_equals_the_oracle(tiny_image(SMALL, BRISK), random_tokens(8, SMALL.vocab_size), seed)


# ---- Limits


def test_weights_saturate_without_wrapping() -> None:
    image = opened(tiny_image(SMALL, replace(BRISK, weight_frac=10), settings={"rule.eta_local": 1 << 24}))
    model = CoreModel(image)

    def weights() -> npt.NDArray[np.int8]:
        n = 3 * SMALL.d_model**2
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
        model.head(token, hidden)
        if len(leaked) + 1 < len(ids):
            following = int(ids[len(leaked) + 1])
            model.learn(following)
            model.head(token, hidden)
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
    for h, token, target in zip(normed[:-1], ids[:-1].tolist(), ids[1:].tolist(), strict=True):
        online -= float(head.forward(h, token)[target]) * LOG2_E
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


@pytest.mark.parametrize("rule", [Rule(), EVERYTHING])
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


def test_a_static_model_does_not_learn(image: Image) -> None:
    model = CoreModel(image, plastic=False)
    delta = CoreModel(image).save()
    for _ in range(2):
        for refused in (
            lambda: model.learn(1),
            lambda: model.follow(1),
            model.save,
            lambda: model.load(delta),
            lambda: model.forget(1),
        ):
            with pytest.raises(EdgeHMNError, match="E_STATE"):
                refused()
        model.step(1)
