"""Every mechanism of learning in the core: bit for bit that of the oracle, alone and with all others, at odd sizes."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edgehmn.checkpoint import Config
from edgehmn.plasticity import Rule
from tests import oracle_state
from tests.models import BUSY, QUIET, SIX, TEN, THIRTY_FOUR, Ids, random_tokens, repetitive_tokens, tiny_image
from tests.oracle import Oracle
from tests.oracle_pair import Pair
from tests.oracle_state import State

SHAPES = {"6 of 37": SIX, "10 of 257": TEN, "34 of 257": THIRTY_FOUR}
OFF = replace(QUIET, rho_trace=())
MECHANISMS: dict[str, Rule] = {
    "off": OFF,
    "dense": replace(QUIET, rho_trace=(0.0, 0.5), decay=0.01),
    "rows": replace(OFF, row_slots=(3, 5), decay_visit=0.05),
    "rows by one token": replace(OFF, row_slots=(3, 0), row_frac=2),
    "rows by two tokens": replace(OFF, row_slots=(0, 5), row_frac=16),
    "bias": replace(OFF, bias_step=0.2, bias_decay=1e-3),
    "n-grams": replace(OFF, ngram_slots=7, ngram_orders=(1, 2, 3, 5)),
    "n-grams of one order": replace(OFF, ngram_slots=7, ngram_orders=(2,)),
    "n-grams of an order that is off": replace(OFF, ngram_slots=5, ngram_orders=(0, 8, 0, 1)),
    "n-grams of one order twice": replace(OFF, ngram_slots=1, ngram_orders=(1, 1), eta_ngram=1.0),
    "few episodes": replace(OFF, episodes=5, eta_episode=0.3),
    "many episodes": replace(OFF, episodes=40, sharpness=3.0),
    "sharp episodes": replace(OFF, episodes=1, sharpness=700.0, eta_episode=1.0),
    "scale": replace(OFF, eta_scale=0.05),
    "all": BUSY,
    "all, from few negatives": replace(BUSY, n_negatives=1, ngram_orders=(2,), episodes=5),
}


def tokens(config: Config, n: int, seed: int = 2) -> Ids:
    """A phrase over and over, with other tokens strewn in: contexts come again, and are followed by others."""
    ids = repetitive_tokens(n, 11, config.vocab_size, seed)
    strewn = np.random.default_rng(seed).random(n) < 0.3
    ids[strewn] = random_tokens(int(strewn.sum()), config.vocab_size, seed + 1)
    return ids


def pair(config: Config, rule: Rule, settings: dict[str, Any] | None = None, **options: Any) -> Pair:
    return Pair(tiny_image(config, rule, head_gain=2.0, settings=settings), **options)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", MECHANISMS)
def test_learning_equals_the_oracle(name: str, shape: str) -> None:
    config = SHAPES[shape]
    both = pair(config, MECHANISMS[name]).take_all(tokens(config, 110))
    untouched = both.oracle.state == replace(oracle_state.fresh(both.oracle.header, 7), learned=109, age=109)
    assert untouched == (name == "off")


@pytest.mark.parametrize("shape", ["6 of 37", "34 of 257"])
@pytest.mark.parametrize("name", MECHANISMS)
def test_following_equals_the_oracle(name: str, shape: str) -> None:
    """Learned first, so that there is something to follow; then following alone, and mixed with learning."""
    config = SHAPES[shape]
    both = pair(config, MECHANISMS[name])
    both.take_all(tokens(config, 40))
    frozen = both.oracle.state
    before = [list(map(list, frozen.rows[0])), list(frozen.bias), list(frozen.keys), frozen.learned, frozen.writes]
    both.take_all(tokens(config, 30, 5), "follow")
    assert before == [frozen.rows[0], frozen.bias, frozen.keys, frozen.learned, frozen.writes]
    both.take_all(tokens(config, 40, 7), ("learn", "follow", "none", "learn"))


def test_following_leaves_the_delta_but_for_its_traces() -> None:
    """The gains that following moves predict, but they are not saved, and end with a reset or with learning."""
    both = pair(TEN, BUSY).take_all(tokens(TEN, 150).tolist())
    before = oracle_state.load(both.oracle.header, both.core.save())
    both.take_all(tokens(TEN, 60, 9), "follow")
    after = oracle_state.load(both.oracle.header, both.core.save())
    assert {name for name in vars(before) if getattr(before, name) != getattr(after, name)} == {"trace"}
    assert both.oracle.gains != after.gains
    both.reset()
    assert both.oracle.gains == after.gains
    both.take_all(tokens(TEN, 10, 4))
    both.take_all(tokens(TEN, 10, 5), "follow")
    both.take_all(tokens(TEN, 30, 6), ("follow", "learn", "learn"))


@pytest.mark.parametrize("shape", SHAPES)
def test_resets_loads_and_samples_in_between(shape: str) -> None:
    config = SHAPES[shape]
    both = pair(config, BUSY)
    ids = tokens(config, 240)
    both.take_all(ids[:50])
    kept = both.core.save()
    for i, act in enumerate((both.reset, lambda: both.load(kept), lambda: both.forget(5), both.reset)):
        both.take_all(ids[50 + 40 * i : 80 + 40 * i], ("learn", "learn", "follow"))
        act()
        both.sample(256) if both.oracle.prediction else both.step(3)
        both.take_all(ids[80 + 40 * i : 90 + 40 * i], ("follow", "learn"))


def test_a_prediction_taken_in_more_than_once() -> None:
    both = pair(TEN, BUSY)
    for i, token in enumerate(tokens(TEN, 60).tolist()):
        both.step(token)
        for how in ("learn", "follow", "learn")[: i % 4]:
            for model in (both.core, both.oracle):
                getattr(model, how)(token ^ i % 2)
            both.compare(f"after token {i}")


def test_the_context_is_what_was_fed_to_the_head() -> None:
    """Rows and n-grams go by the token that the head was told, not by what the encoder was fed."""
    both = pair(SIX, replace(OFF, row_slots=(3, 5), ngram_slots=7))
    for i, token in enumerate(tokens(SIX, 60).tolist()):
        hidden = both.core.encode(token)
        assert hidden.tolist() == both.oracle.encode(token)
        told = (token + i) % 37
        both.core.head(told, hidden)
        both.oracle.head(told, hidden.tolist())
        for model in (both.core, both.oracle):
            model.learn(told)
        both.compare(f"after token {i}")


# ---- Extremes

LIMITS: dict[str, dict[str, Any]] = {
    "the largest rates of rows": {"rule.eta_row": [1 << 24] * 2, "rule.row_frac": 16},
    "the largest decay of rows": {"rule.decay_visit": (1 << 24) - 1},
    "coarse rows": {"rule.row_frac": 0},
    "the largest bias": {"rule.bias_step": 32767, "rule.bias_decay": 0},
    "the largest decay of biases": {"rule.bias_decay": 65535},
    "the smallest bias": {"rule.bias_step": 1},
    "the largest rate of n-grams": {"rule.eta_ngram": 1 << 20},
    "the sharpest episodes": {"rule.sharpness": 1 << 20, "rule.eta_episode": 65536},
    "blunt episodes": {"rule.sharpness": 0},
    "the largest rate of the scale": {"rule.eta_scale": 1 << 24},
    "the largest gains": {"rule.eta_gain": 1 << 20, "rule.gain_max": 1 << 20},
    "no gains": {"rule.gain_max": 0},
    "the largest modulation": {"rule.eta_global": 1 << 24, "rule.w_reward": 1 << 20, "rule.w_novelty": -(1 << 20)},
}


@pytest.mark.parametrize("name", LIMITS)
def test_equals_the_oracle_at_the_limits_of_the_rule(name: str) -> None:
    pair(SIX, BUSY, LIMITS[name]).take_all(tokens(SIX, 70), ("learn", "learn", "follow"))


def extreme_state(oracle: Oracle, seed: int) -> State:
    """A state of the most extreme values that a delta may hold."""
    h, rng = oracle.header, np.random.default_rng(seed)
    rule, most = h.rule, h.rule.gain_max
    st = oracle_state.fresh(h, seed)

    def choose(like: Any, values: list[int]) -> Any:
        return rng.choice(np.array(values, np.int64), np.shape(like)).tolist()

    weights, words = [-127, -126, -1, 0, 1, 126, 127], [-(2**31), -(2**31) + 1, -(1 << 20), 0, 1, 1 << 20, 2**31 - 1]
    st.dense, st.rows = choose(st.dense, weights), [choose(table, weights) for table in st.rows]
    st.bias = choose(st.bias, [-32767, -32766, -1, 0, 1, 32766, 32767])
    for name in ("trace", "slow", "context", "topic", "centre", "wander"):
        setattr(st, name, choose(getattr(st, name), words))
    for name in ("scale", "bias", "row", "dense"):
        setattr(st.gains, name, choose(getattr(st.gains, name), [0, 1, 65536, most]))
    st.gains.ngram = choose(st.gains.ngram, [-(1 << 20), -1, 0, 1, 1 << 20])
    st.gains.share = choose(st.gains.share, [66, 67, 6554, 62258, 62259])
    st.ngrams = [[slot_of(rng, h.vocab_size) for _ in table] for table in st.ngrams]
    st.written = int(rng.choice([0, 1, 3, rule.episodes, 2**31 - 2, 2**31 - 1, 2**31])) if rule.episodes else 0
    stored = min(st.written, rule.episodes)
    all_bits = (1 << h.d_model) - 1
    st.keys = choose([0] * stored, [0, all_bits, all_bits // 3, 1]) + [0] * (rule.episodes - stored)
    st.tokens = rng.integers(0, h.vocab_size, stored).tolist() + [0] * (rule.episodes - stored)
    st.learned = (2**64 - 65, 0, 2**32 - 1, 2**63, 63)[seed % 5]
    st.writes, st.phase, st.age = 2**64 - 1, 2**32 - 1, int(rng.choice([0, 2**32 - 1]))
    st.checks, st.spread = int(rng.choice([0, 1, 19, 20, 255, 256])), int(rng.choice([0, 1, 100_000, 2**31 - 1]))
    st.guard_excess = int(rng.choice([-(2**31), 0, rule.guard_limit + 1, 3 * rule.guard_limit, 2**31 - 1]))
    for name in oracle_state.AVERAGES:
        average = getattr(st, name)
        average.mean, average.variance = choose(0, [-(2**31), 0, 2**31 - 1]), choose(0, [0, 1, 2**31 - 1])
        average.started = int(rng.integers(2))
    return st


def slot_of(rng: np.random.Generator, vocab_size: int) -> tuple[int, int, int]:
    count = int(rng.choice([0, 1, 2, 14, 15]))
    return (int(rng.choice([0, vocab_size - 1])), int(rng.integers(1024)), count) if count else oracle_state.FREE


@pytest.mark.parametrize("shape", SHAPES)
def test_equals_the_oracle_from_any_delta(shape: str) -> None:
    config = SHAPES[shape]
    both = pair(config, BUSY)
    for seed in range(16):
        both.load(oracle_state.save(both.oracle.header, extreme_state(both.oracle, seed)))
        both.take_all(tokens(config, 5, seed), "follow" if seed % 4 == 0 else "learn")


def from_state(both: Pair, change: Callable[[State], None]) -> None:
    st = oracle_state.load(both.oracle.header, both.core.save())
    change(st)
    both.load(oracle_state.save(both.oracle.header, st))


@pytest.mark.parametrize("episodes", [1, 5, 32])
def test_the_count_of_episodes_never_ends(episodes: int) -> None:
    """Near 2^31 it falls back to a number at which every episode is still held, and the next is still the next."""
    both = pair(SIX, replace(OFF, episodes=episodes))
    both.take_all(tokens(SIX, 40))

    def late(st: State) -> None:
        st.written = 2**31 - 5

    from_state(both, late)
    both.take_all(tokens(SIX, 25))
    assert both.oracle.state.written < 2 * episodes + 25


def test_counts_of_n_grams_stay_within_their_four_bits() -> None:
    both = pair(SIX, replace(OFF, ngram_slots=64, ngram_orders=(1, 2, 3, 5)))
    both.take_all(repetitive_tokens(120, 5, 37))
    assert {count for table in both.oracle.state.ngrams for _, _, count in table} == {0, 15}
    both.take_all(repetitive_tokens(120, 7, 37))
