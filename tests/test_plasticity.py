"""The HMN rule in floats: each symbol does something, nothing is biased, and it learns what can be learned."""

import copy
import itertools
import math
from dataclasses import fields
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edgehmn.model import log_softmax
from edgehmn.plasticity import (
    HeadStatistics,
    PlasticHead,
    Rule,
    RunningScore,
    measure_statistics,
    standardise,
    topic_matrix,
)
from tests.models import NOTHING

Ids = npt.NDArray[np.int64]
VOCAB, D, PERIOD = 50, 24, 12
RNG = np.random.default_rng(7)
HEAD = (0.3 * RNG.normal(size=(VOCAB, D))).astype(np.float32)
INPUT = RNG.normal(size=(VOCAB, D)).astype(np.float32)  # the final norm's output after each token
CALIBRATION = INPUT[RNG.integers(0, VOCAB, 600)]


def statistics() -> HeadStatistics:
    """As calibration measures them, on tokens drawn from the frozen head's own predictions."""
    rng = np.random.default_rng(8)
    log_p = log_softmax(CALIBRATION @ HEAD.T)
    targets = np.array(
        [rng.choice(VOCAB, p=np.exp(p.astype(np.float64)) / np.exp(p.astype(np.float64)).sum()) for p in log_p]
    )
    return measure_statistics(CALIBRATION, targets, HEAD)


STATISTICS = statistics()
REPEATING = np.resize(np.random.default_rng(9).permutation(VOCAB)[:PERIOD], 40 * PERIOD).astype(np.int64)


def losses(rule: Rule, ids: Ids = REPEATING, targets: Ids | None = None, seed: int = 0) -> npt.NDArray[np.float64]:
    """Nats of each token of a stream that is learned as it comes; `targets` are learned instead of what comes."""
    head = PlasticHead(HEAD, STATISTICS, rule, seed)
    learned = ids[1:] if targets is None else targets[1:]
    out = []
    for now, following, taught in zip(ids, ids[1:], learned, strict=False):
        out.append(-float(head.forward(INPUT[now], int(now))[following]))
        head.learn(int(taught))
    return np.array(out)


def taught(rule: Rule, ids: Ids = REPEATING, seed: int = 0) -> PlasticHead:
    """A head that has learned a stream."""
    head = PlasticHead(HEAD, STATISTICS, rule, seed)
    for now, following in itertools.pairwise(ids.tolist()):
        head.forward(INPUT[now], now)
        head.learn(following)
    return head


def settled(curve: npt.NDArray[np.float64]) -> float:
    """Mean nats of the last quarter."""
    return float(curve[-len(curve) // 4 :].mean())


def fall(curve: npt.NDArray[np.float64]) -> float:
    """Nats by which the last quarter is better than the first turn."""
    return float(curve[:PERIOD].mean()) - settled(curve)


DENSE: dict[str, Any] = NOTHING | {"eta_local": 3e-3}
GLOBAL: dict[str, Any] = DENSE | {"eta_global": 7.5e-4}
ROWS: dict[str, Any] = NOTHING | {"row_slots": (128, 128)}
BIAS: dict[str, Any] = NOTHING | {"bias_step": 0.2}
NGRAMS: dict[str, Any] = NOTHING | {"ngram_slots": 1024}
EPISODES: dict[str, Any] = NOTHING | {"episodes": 1024}
SWITCHES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "error": (DENSE, {"error": "hebbian", "initial_deviation": 0.01}),
    "eta_local": (NOTHING, {"eta_local": 4e-3}),
    "eta_global": (DENSE, {"eta_global": 1e-3}),
    "gamma": (GLOBAL, {"gamma": 0.5}),
    "w_reward": (GLOBAL, {"w_reward": 0.5}),
    "w_uncertainty": (GLOBAL | {"gamma": 0.5}, {"w_uncertainty": 0.5}),
    "w_novelty": (GLOBAL, {"w_novelty": 1.0}),
    "kappa": (DENSE, {"kappa": 1.0}),
    "rho_slow": (DENSE | {"kappa": 1.0}, {"rho_slow": 0.9}),
    "beta_attention": (DENSE, {"beta_attention": 1.0}),
    "rho_context": (DENSE | {"beta_attention": 1.0}, {"rho_context": 0.5}),
    "phase_period": (DENSE, {"phase_period": 8}),
    "write": (DENSE, {"write": "float"}),
    "beta_write": (DENSE | {"write": "sigmoid"}, {"beta_write": 5.0}),
    "theta_write": (DENSE | {"write": "sigmoid"}, {"theta_write": 0.6}),
    "decay": (DENSE, {"decay": 1e-2}),
    "closed_below": (DENSE, {"closed_below": 0.0}),
    "weight_frac": (DENSE, {"weight_frac": 7}),
    "n_negatives": (DENSE, {"n_negatives": 4}),
    "eta_gain": (DENSE, {"eta_gain": 0.0}),
    "gain_max": (DENSE | {"eta_gain": 0.5}, {"gain_max": 1.0}),
    "rho_trace": (DENSE, {"rho_trace": (0.0, 0.3, 0.6, 0.9)}),
    "rho_average": (GLOBAL, {"rho_average": 0.5}),
    "initial_deviation": (DENSE, {"initial_deviation": 0.1}),
    "row_slots": (NOTHING, {"row_slots": (128, 0)}),
    "eta_row": (ROWS, {"eta_row": (0.0, 0.3)}),
    "row_frac": (ROWS, {"row_frac": 4}),
    "decay_visit": (ROWS, {"decay_visit": 0.1}),
    "bias_step": (NOTHING, {"bias_step": 0.2}),
    "bias_decay": (BIAS, {"bias_decay": 0.0}),
    "ngram_slots": (NOTHING, {"ngram_slots": 64}),
    "ngram_orders": (NGRAMS, {"ngram_orders": (2,)}),
    "eta_ngram": (NGRAMS, {"eta_ngram": 0.0}),
    "episodes": (NOTHING, {"episodes": 16}),
    "sharpness": (EPISODES, {"sharpness": 1.0}),
    "eta_episode": (EPISODES, {"eta_episode": 0.0}),
    "eta_scale": (NOTHING, {"eta_scale": 1e-2}),
}
CORE_ALONE = {"topic_limit", "topic_margin", "guard_limit"}  # which state learns, not how


def test_every_symbol_has_a_switch() -> None:
    assert SWITCHES.keys() | CORE_ALONE == {f.name for f in fields(Rule)}


@pytest.mark.parametrize("symbol", SWITCHES)
def test_each_symbol_changes_the_result(symbol: str) -> None:
    without, change = SWITCHES[symbol]
    ids = REPEATING[: 8 * PERIOD]
    off, on = losses(Rule(**without), ids), losses(Rule(**without | change), ids)
    assert np.isfinite(on).all() and (on != off).any()
    if "initial_deviation" not in change:
        assert on[0] == off[0], "before anything is learned, no other symbol matters"


@pytest.mark.parametrize("rule", [Rule(), Rule(rho_trace=(0.5, 0.0)), Rule(error="hebbian", rho_trace=())])
def test_an_untaught_head_is_the_frozen_model(rule: Rule) -> None:
    head = PlasticHead(HEAD, STATISTICS, rule)
    for token in range(10):
        np.testing.assert_array_equal(head.forward(INPUT[token], token), log_softmax(HEAD @ INPUT[token]))
    assert head.writes == 0


def test_with_everything_off_nothing_is_learned() -> None:
    head = taught(Rule(**NOTHING), REPEATING[:100])
    for token in range(10):
        np.testing.assert_array_equal(head.forward(INPUT[token], token), log_softmax(HEAD @ INPUT[token]))
    assert head.writes == 0 and head.time == 99


@pytest.mark.parametrize(
    ("mechanism", "least"), [(DENSE, 2.0), (ROWS, 2.0), (BIAS, 1.0), (NGRAMS, 2.0), (EPISODES, 2.0)]
)
def test_each_mechanism_learns_alone(mechanism: dict[str, Any], least: float) -> None:
    """A bias learns how often each token comes; the others learn the phrase."""
    assert fall(losses(Rule(**mechanism))) > least


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
    by_error = fall(losses(Rule(**DENSE | {"write": write})))
    literal = DENSE | {"write": write, "error": "hebbian", "initial_deviation": 0.1, "weight_frac": 8}
    assert by_error > 1.0 and fall(losses(Rule(**literal))) < by_error / 2


def test_hebbian_learning_never_starts_from_zero() -> None:
    assert not taught(Rule(error="hebbian"), REPEATING[:200]).weights.any()


@pytest.mark.parametrize("write", ["unbiased", "sigmoid", "float"])
def test_decay_forgets(write: Any) -> None:
    """Without anything to learn, weights go to the prior, which is zero."""
    rule = Rule(**NOTHING | {"decay": 1e-2, "write": write, "theta_write": 3.0})
    start, turns = 100 * 2.0**-rule.weight_frac, 20
    head = PlasticHead(HEAD, STATISTICS, rule)
    head.weights[:] = start
    for token in np.resize(REPEATING, turns * D).tolist():  # one row per token
        head.forward(INPUT[token], token)
        head.learn(token)
    expected = start * (1 - rule.decay * D) ** turns
    np.testing.assert_allclose(head.weights.mean((1, 2)), expected, rtol=0.05)


@pytest.mark.parametrize("write", ["unbiased", "sigmoid"])
def test_weights_stay_in_their_seven_bits(write: Any) -> None:
    rule = Rule(eta_local=0.5, eta_row=(5.0, 5.0), write=write, initial_deviation=0.1)
    head = taught(rule, REPEATING[:61])
    for weights, frac in ((head.weights, rule.weight_frac), *((rows.values, rule.row_frac) for rows in head.rows)):
        steps = weights * 2.0**frac
        assert (steps == np.round(steps)).all() and np.abs(steps).max() <= 127
    assert np.abs(head.weights).max() == 127 * 2.0**-rule.weight_frac
    assert all(0 <= gain <= rule.gain_max for gain in (*head.gain, *(rows.gain for rows in head.rows), head.scale))


def test_every_step_is_counted() -> None:
    head = taught(Rule(decay=0.0, decay_visit=0.0), REPEATING[:4])
    before = head.weights.copy(), [rows.values.copy() for rows in head.rows], head.writes
    head.forward(INPUT[REPEATING[3]], int(REPEATING[3]))
    head.learn(int(REPEATING[4]))
    steps = np.abs(head.weights - before[0]).sum() * 2 ** Rule().weight_frac
    steps += sum(
        np.abs(rows.values - old).sum() * 2 ** Rule().row_frac for rows, old in zip(head.rows, before[1], strict=True)
    )
    assert head.writes - before[2] == steps > 0
    assert taught(Rule(write="float"), REPEATING[:20]).writes == 0


# ---- Following, and the context


def state(head: PlasticHead) -> list[npt.NDArray[Any]]:
    """Everything that following must leave as it is."""
    assert head.bias and head.episodes
    memories = [np.array([m.tokens, m.tags, m.counts]) for m in head.ngrams]
    rows = [rows.values.copy() for rows in head.rows]
    averages = [np.array([a.mean, a.variance, a.started]) for a in (head.reward, head.uncertainty, head.novelty)]
    counts = np.array([head.time, head.writes, head.episodes.written])
    episodes = [head.episodes.keys.copy(), head.episodes.tokens.copy()]
    return [head.weights.copy(), head.bias.values.copy(), *rows, *memories, *averages, counts, *episodes]


def gains(head: PlasticHead) -> list[float]:
    assert head.bias and head.episodes
    rows = [rows.gain for rows in head.rows]
    ngrams = [g for memory in head.ngrams for g in memory.gains]
    return [*head.gain, *rows, *ngrams, *head.episodes.share, head.bias.gain, head.scale]


def test_following_moves_the_gains_and_no_weight() -> None:
    head = taught(Rule(gamma=0.5, w_novelty=0.1), REPEATING[: 10 * PERIOD])
    other = np.random.default_rng(5).integers(0, VOCAB, 200).tolist()
    weights, before = state(head), gains(head)
    head.reset_context()
    for now, following in itertools.pairwise(other):
        head.forward(INPUT[now], now)
        head.follow(following)
    for a, b in zip(weights, state(head), strict=True):
        np.testing.assert_array_equal(a, b)
    moved = np.array(gains(head)) != np.array(before)
    assert moved[0] and moved[1:3].all() and moved[-2:].all() and moved.sum() > 6


def test_following_turns_down_what_does_not_hold() -> None:
    """A head that learned a phrase, frozen on other text: with its gains following it does far less harm."""
    other = np.random.default_rng(5).integers(0, VOCAB, 800).tolist()

    def loss(mode: str) -> float:
        head = taught(Rule(), REPEATING[: 20 * PERIOD])
        nats = []
        for now, following in itertools.pairwise(other):
            nats.append(-float(head.forward(INPUT[now], now)[following]))
            if mode == "follow":
                head.follow(following)
        return float(np.mean(nats[-400:]))

    frozen, followed = loss("freeze"), loss("follow")
    static = float(np.mean(-log_softmax(INPUT[other[-401:-1]] @ HEAD.T)[np.arange(400), other[-400:]]))
    assert followed - static < 0.4 * (frozen - static)


def test_following_leaves_the_draws_of_learning_as_they_are() -> None:
    ids = REPEATING[: 3 * PERIOD].tolist()
    plain, followed = (PlasticHead(HEAD, STATISTICS, Rule(), seed=3) for _ in range(2))
    for now, following in itertools.pairwise(ids):
        for head in (plain, followed):
            head.forward(INPUT[now], now)
        followed._negatives(followed.follow_rng)
        plain.learn(following)
        followed.learn(following)
    np.testing.assert_array_equal(plain.weights, followed.weights)


def test_reset_forgets_the_context_and_nothing_else() -> None:
    head = taught(Rule(), REPEATING[: 5 * PERIOD])
    weights = state(head)
    head.reset_context()
    head.learn(3)
    head.follow(3)  # there is no prediction to learn from
    for a, b in zip(weights, state(head), strict=True):
        np.testing.assert_array_equal(a, b)
    head.forward(INPUT[4], 4)
    assert [rows.row is None for rows in head.rows] == [False, True]
    assert [memory.at is None for memory in head.ngrams] == [False, True, True, True]


def test_a_copy_goes_on_by_itself() -> None:
    head = taught(Rule(), REPEATING[:40])
    twin = copy.deepcopy(head)
    for now, following in itertools.pairwise(REPEATING[40:60].tolist()):
        assert (head.forward(INPUT[now], now) == twin.forward(INPUT[now], now)).all()
        head.learn(following)
        twin.learn(following)
    before = twin.weights.copy()
    head.learn(0)
    np.testing.assert_array_equal(twin.weights, before)


# ---- Signals and statistics


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
        log_p = log_softmax(normed @ head.T)
        targets = log_p.argmax(-1)
        found = measure_statistics(normed, targets, head)
        delta = head[targets] - np.exp(log_p) @ head
        gained = np.sum((head[targets] @ found.preconditioner) * (delta @ found.preconditioner), axis=-1)
        assert gained.mean() == pytest.approx(1, rel=1e-3)
        np.testing.assert_allclose(found.preconditioner, found.preconditioner.T, atol=1e-5 / size)
        np.testing.assert_allclose((normed - found.mean) * found.inverse_deviation, whitened(normed), atol=1e-3)


def whitened(x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    out: npt.NDArray[np.float32] = (x - x.mean(0)) / x.std(0)
    return out


def drifting(n: int, d: int, seed: int = 1) -> npt.NDArray[np.float32]:
    """Vectors (n, d) whose mean wanders, more in some directions than in others."""
    rng = np.random.default_rng(seed)
    slow = np.zeros((n, d))
    for i in range(1, n):
        slow[i] = 0.99 * slow[i - 1] + 0.1 * rng.normal(size=d) * np.linspace(0.2, 2, d)
    return (slow + rng.normal(size=(n, d))).astype(np.float32)


def within_topics(x: npt.NDArray[np.float32], n: int) -> npt.NDArray[np.float64]:
    """Covariance of the mean of 64 tokens around its topic, from n windows: half that of neighbours' differences."""
    d = x.shape[1]
    means = [x[64 * i : 64 * (i + 1)].mean(0, dtype=np.float64) for i in range(n)]
    differences = np.array([b - a for a, b in itertools.pairwise(means)]).reshape(-1, d)
    centred = differences - differences.mean(0) if n > 1 else differences
    return sum((np.outer(v, v) for v in centred), np.zeros((d, d))) / max(1, n - 1) / 2


@pytest.mark.parametrize("n", [40, 64 * 3 + 63, 64 * 4, 64 * 40 + 13])
def test_the_topic_matrix_is_that_of_its_definition(n: int) -> None:
    d = 6
    x, windows = drifting(n, d), n // 64
    s_w, c = within_topics(x, windows), np.cov(x.T.astype(np.float64), bias=True)
    ratio = np.trace(s_w) / np.trace(c) if windows >= 4 else 1 / 64
    s = (windows * s_w + 2 * d * ratio * c) / (windows + 2 * d)
    topic = topic_matrix(x).astype(np.float64)
    np.testing.assert_allclose(topic, topic.T, atol=1e-5)
    np.testing.assert_allclose(topic @ (s + 0.1 * np.trace(s) / d * np.eye(d)) @ topic, np.eye(d), atol=1e-4)


def test_in_units_of_the_topic_matrix_neighbouring_means_differ_by_about_two_variances() -> None:
    x, other = drifting(64 * 400, 12), drifting(64 * 400, 12, seed=2)
    means = other.reshape(400, 64, 12).mean(1) @ topic_matrix(x)
    assert 1.6 < np.mean(np.square(np.diff(means, axis=0))) < 2.2


def test_statistics_measure_topics_on_the_standardised_input() -> None:
    np.testing.assert_array_equal(STATISTICS.topic, topic_matrix(standardise(CALIBRATION, STATISTICS)))
    np.testing.assert_allclose(np.mean(standardise(CALIBRATION, STATISTICS) ** 2, -1), 1, rtol=1e-5)


def test_neutral_statistics_change_nothing() -> None:
    neutral = HeadStatistics.neutral(D)
    head = PlasticHead(HEAD, neutral, Rule())
    head.forward(INPUT[3], 3)
    np.testing.assert_allclose(head.x, INPUT[3] / math.sqrt(float(np.mean(INPUT[3] ** 2))), rtol=1e-5)
    assert not standardise(np.zeros(D, np.float32), neutral).any()
    np.testing.assert_array_equal(neutral.topic, np.eye(D))
