"""The HMN rule in floats: each symbol does something, nothing is biased, and it learns what can be learned."""

import itertools
import math
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgehmn.model import log_softmax
from edgehmn.plasticity import HeadStatistics, PlasticHead, Rule, RunningScore, draw_events, measure_statistics

Ids = npt.NDArray[np.int64]
VOCAB, D, PERIOD = 50, 24, 12
RNG = np.random.default_rng(7)
HEAD = (0.3 * RNG.normal(size=(VOCAB, D))).astype(np.float32)
INPUT = RNG.normal(size=(VOCAB, D)).astype(np.float32)  # the final norm's output after each token


def statistics() -> HeadStatistics:
    """As calibration measures them, on tokens drawn from the frozen head's own predictions."""
    rng = np.random.default_rng(8)
    normed = INPUT[rng.integers(0, VOCAB, 600)]
    log_p = log_softmax(normed @ HEAD.T)
    targets = np.array(
        [rng.choice(VOCAB, p=np.exp(p.astype(np.float64)) / np.exp(p.astype(np.float64)).sum()) for p in log_p]
    )
    return measure_statistics(normed, log_p, targets, HEAD)


STATISTICS = statistics()
REPEATING = np.resize(np.random.default_rng(9).permutation(VOCAB)[:PERIOD], 40 * PERIOD).astype(np.int64)


def losses(rule: Rule, ids: Ids = REPEATING, targets: Ids | None = None, seed: int = 0) -> npt.NDArray[np.float64]:
    """Nats of each token of a stream that is learned as it comes; `targets` are learned instead of what comes."""
    head = PlasticHead(HEAD, STATISTICS, rule, seed)
    learned = ids[1:] if targets is None else targets[1:]
    out = []
    for now, following, taught in zip(ids, ids[1:], learned, strict=False):
        out.append(-float(head.forward(INPUT[now])[following]))
        head.learn(int(taught))
    return np.array(out)


def settled(curve: npt.NDArray[np.float64]) -> float:
    """Mean nats of the last quarter."""
    return float(curve[-len(curve) // 4 :].mean())


def fall(curve: npt.NDArray[np.float64]) -> float:
    """Nats by which the last quarter is better than the first turn."""
    return float(curve[:PERIOD].mean()) - settled(curve)


PLAIN = {"eta_global": 0.0}
GLOBAL: dict[str, Any] = {"eta_global": 1e-3}
SWITCHES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "error": (PLAIN, {"error": "hebbian"}),
    "eta_local": (PLAIN, {"eta_local": 4e-3}),
    "eta_global": (PLAIN, {"eta_global": 1e-3}),
    "gamma": (GLOBAL, {"gamma": 0.5}),
    "w_reward": (GLOBAL, {"w_reward": 0.5}),
    "w_uncertainty": (GLOBAL | {"gamma": 0.5}, {"w_uncertainty": 0.5}),
    "w_novelty": (GLOBAL, {"w_novelty": 1.0}),
    "kappa": (PLAIN, {"kappa": 1.0}),
    "rho_slow": ({"kappa": 1.0}, {"rho_slow": 0.9}),
    "beta_attention": (PLAIN, {"beta_attention": 1.0}),
    "rho_context": ({"beta_attention": 1.0}, {"rho_context": 0.5}),
    "phase_period": (PLAIN, {"phase_period": 8}),
    "write": (PLAIN, {"write": "float"}),
    "beta_write": ({"write": "sigmoid"}, {"beta_write": 5.0}),
    "theta_write": ({"write": "sigmoid"}, {"theta_write": 0.6}),
    "decay": (PLAIN, {"decay": 1e-2}),
    "weight_frac": (PLAIN, {"weight_frac": 7}),
    "n_negatives": (PLAIN, {"n_negatives": 4}),
    "eta_gain": (PLAIN, {"eta_gain": 0.0}),
    "gain_max": ({"eta_gain": 0.5}, {"gain_max": 1.0}),
    "rho_trace": (PLAIN, {"rho_trace": (0.0, 0.3, 0.6, 0.9)}),
    "rho_average": (GLOBAL, {"rho_average": 0.5}),
    "initial_deviation": (PLAIN, {"initial_deviation": 0.1}),
}


def test_every_symbol_has_a_switch() -> None:
    assert SWITCHES.keys() == {f.name for f in fields(Rule)}


@pytest.mark.parametrize("symbol", SWITCHES)
def test_each_symbol_changes_the_result(symbol: str) -> None:
    without, change = SWITCHES[symbol]
    ids = REPEATING[: 8 * PERIOD]
    off, on = losses(Rule(**without), ids), losses(Rule(**without | change), ids)
    assert np.isfinite(on).all() and (on != off).any()
    if symbol != "initial_deviation":
        assert on[0] == off[0], "before anything is learned, no other symbol matters"


@pytest.mark.parametrize("rule", [Rule(), Rule(rho_trace=(0.5,)), Rule(error="hebbian", rho_trace=())])
def test_an_untaught_head_is_the_frozen_model(rule: Rule) -> None:
    head = PlasticHead(HEAD, STATISTICS, rule)
    for h in INPUT[:10]:
        np.testing.assert_array_equal(head.forward(h), log_softmax(HEAD @ h))
    assert head.writes == 0


def test_the_same_seed_draws_the_same() -> None:
    ids = REPEATING[: 4 * PERIOD]
    assert (losses(Rule(), ids, seed=1) == losses(Rule(), ids, seed=1)).all()
    assert (losses(Rule(), ids, seed=1) != losses(Rule(), ids, seed=2)).any()


def test_learning_lowers_the_loss_to_what_there_is_to_know() -> None:
    """A phrase in order can be known by heart; out of order, how often each token comes; from anywhere, nothing."""
    rng = np.random.default_rng(3)
    in_order = losses(Rule())
    out_of_order = losses(Rule(), targets=rng.permutation(REPEATING))
    anywhere = losses(Rule(), targets=rng.integers(0, VOCAB, len(REPEATING)))
    assert settled(in_order) < 0.5 and fall(in_order) > 2
    assert settled(out_of_order) > 0.8 * math.log(PERIOD)
    assert settled(anywhere) > 0.9 * math.log(VOCAB)


@pytest.mark.parametrize("write", ["unbiased", "float"])
def test_hebbian_learning_is_worse(write: Any) -> None:
    """The paper's literal postsynaptic factor has no error in it, so no error gets smaller by it."""
    by_error = fall(losses(Rule(write=write, error="output_error")))
    hebbian = fall(losses(Rule(write=write, error="hebbian", initial_deviation=0.1)))
    assert by_error > 1.0 and hebbian < by_error / 2


def test_decay_forgets() -> None:
    """Without anything to learn, weights go to the prior, which is zero."""
    rule = Rule(eta_local=0, eta_global=0, decay=1e-2)
    start, turns = 100 * 2.0**-rule.weight_frac, 20
    head = PlasticHead(HEAD, STATISTICS, rule)
    head.weights[:] = start
    for token in np.resize(REPEATING, turns * D):  # one row per token
        head.forward(INPUT[token])
        head.learn(int(token))
    expected = start * (1 - rule.decay * D) ** turns
    np.testing.assert_allclose(head.weights.mean((1, 2)), expected, rtol=0.05)


def test_weights_stay_in_their_seven_bits() -> None:
    head = PlasticHead(HEAD, STATISTICS, Rule(eta_local=0.5))
    for now, following in itertools.pairwise(REPEATING[:61]):
        head.forward(INPUT[now])
        head.learn(int(following))
    steps = head.weights * 2.0 ** Rule().weight_frac
    assert (steps == np.round(steps)).all() and np.abs(steps).max() == 127
    assert (head.gain >= 0).all() and (head.gain <= Rule().gain_max).all()


@given(
    st.lists(st.floats(-3, 3, width=32).map(lambda v: 0.0 if abs(v) < 1e-6 else v), min_size=1, max_size=12),
)
@settings(max_examples=200, deadline=None, derandomize=True)
def test_events_are_unbiased(expected: list[float]) -> None:
    """Exactly: the mean over all offsets is an integral of steps, which change only where a stretch ends."""
    values = np.array(expected)
    edges = np.cumsum(np.abs(values))
    mean = integral(lambda offset: draw_events(values, offset), edges % 1)
    np.testing.assert_allclose(mean, values, rtol=0, atol=2e-6)


@given(st.lists(st.floats(-3, 3, width=32), min_size=1, max_size=12), st.floats(0, 1, exclude_max=True))
@example([1.0], 0.0)
@settings(max_examples=200, deadline=None, derandomize=True)
def test_events_are_as_even_as_they_can_be(expected: list[float], offset: float) -> None:
    values = np.array(expected)
    events = draw_events(values.reshape(1, -1), offset)[0]
    assert (np.abs(events) >= np.floor(np.abs(values)) - 1e-6).all()
    assert (np.abs(events) <= np.ceil(np.abs(values)) + 1e-6).all()
    assert (events * values >= 0).all()
    assert abs(np.abs(events).sum() - np.abs(values).sum()) < 1 + 1e-6


class Offset:
    """A random generator that draws one number."""

    def __init__(self, value: float) -> None:
        self.value = value

    def random(self) -> float:
        return self.value


@pytest.mark.parametrize("n_negatives", [1, 3, 16])
def test_negatives_are_unbiased(n_negatives: int) -> None:
    """Exactly: over all offsets each token is drawn n p times on average, and never off by more than one."""
    head: Any = PlasticHead(HEAD, STATISTICS, Rule(n_negatives=n_negatives))
    p = np.exp(head.forward(INPUT[0]).astype(np.float64))
    p /= p.sum()

    def counts(offset: float) -> npt.NDArray[np.float64]:
        head.rng = Offset(offset)
        found = np.bincount(head._negatives(), minlength=VOCAB).astype(np.float64)
        assert found.sum() == n_negatives and (np.abs(found - n_negatives * p) < 1 + 1e-9).all()
        return found

    np.testing.assert_allclose(integral(counts, np.cumsum(p) * n_negatives % 1), n_negatives * p, rtol=0, atol=1e-9)


def integral(steps: Callable[[float], npt.NDArray[Any]], breaks: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Integral over 0..1 of a function that is constant between breaks."""
    edges = np.unique(np.concatenate([[0.0], breaks, [1.0]]))
    return np.asarray(sum((b - a) * steps((a + b) / 2).astype(np.float64) for a, b in itertools.pairwise(edges)))


def test_running_score_is_in_deviations_and_bounded() -> None:
    score = RunningScore(0.99)
    values = np.random.default_rng(4).normal(5, 3, 4000)
    scores = np.array([score(float(v)) for v in values])[1000:]
    assert scores[0] == pytest.approx((values[1000] - 5) / 3, abs=0.6)
    assert abs(scores.mean()) < 0.1 and 0.8 < scores.std() < 1.05
    assert score(1e9) == 2 and score(-1e30) == -2


def test_statistics_make_rates_mean_the_same_in_every_model() -> None:
    """Teaching a token at rate eta raises its logit for the same input by eta d on average, however large the head."""
    for size in (0.1, 1.0, 10.0):
        head = (size * HEAD).astype(np.float32)
        normed = INPUT[np.random.default_rng(1).integers(0, VOCAB, 400)]
        log_p = log_softmax(normed @ HEAD.T)
        targets = log_p.argmax(-1)
        found = measure_statistics(normed, log_p, targets, head)
        delta = head[targets] - np.exp(log_p) @ head
        gained = np.sum((head[targets] @ found.preconditioner) * (delta @ found.preconditioner), axis=-1)
        assert gained.mean() == pytest.approx(1, rel=1e-3)
        np.testing.assert_allclose(found.preconditioner, found.preconditioner.T, atol=1e-5 / size)
        np.testing.assert_allclose((normed - found.mean) * found.inverse_deviation, whitened(normed), atol=1e-3)


def whitened(x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    out: npt.NDArray[np.float32] = (x - x.mean(0)) / x.std(0)
    return out


def test_neutral_statistics_change_nothing() -> None:
    neutral = HeadStatistics.neutral(D)
    head = PlasticHead(HEAD, neutral, Rule())
    head.forward(INPUT[3])
    np.testing.assert_allclose(head.x, INPUT[3] / math.sqrt(float(np.mean(INPUT[3] ** 2)) + 1e-5), rtol=1e-5)
