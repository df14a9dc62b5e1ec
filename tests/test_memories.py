"""The memories of words in floats, each against a case that was computed by hand."""

import math

import numpy as np
import pytest

from edgehmn.memories import (
    BIAS_LIMIT,
    BIAS_TURN,
    COUNTS,
    NGRAM_LIMIT,
    Bias,
    Episodes,
    NGrams,
    Rows,
    contexts,
    slot,
)
from edgehmn.writes import Writer

RNG = np.random.default_rng(1)
D = 8


def float_writer() -> Writer:
    return Writer("float", 1.0, np.random.default_rng(0), 0.0, 0.0)


def flags(*signs: int) -> np.ndarray:
    return np.array(signs, np.float32)


# ---- Contexts


def test_contexts_are_the_hashes_of_the_specification() -> None:
    def mixed(a: np.uint32) -> np.uint32:
        a = a ^ (a >> np.uint32(16))
        a = a * np.uint32(0x7FEB352D)
        a = a ^ (a >> np.uint32(15))
        a = a * np.uint32(0x846CA68B)
        return a ^ (a >> np.uint32(16))

    with np.errstate(over="ignore"):
        one = mixed(np.uint32(5 + 1))
        two = mixed(one * np.uint32(0x9E3779B1) + np.uint32(261999 + 1))
    assert contexts([5, 261999]) == [int(one), int(two)]
    assert contexts([]) == []


def test_contexts_fill_a_table_evenly_and_tell_orders_apart() -> None:
    found = [contexts([a, b]) for a in range(64) for b in range(64)]
    pairs = np.bincount([slot(c[1], 64) for c in found], minlength=64)
    assert len({c[1] for c in found}) == 64 * 64 and pairs.min() > 30 and pairs.max() < 100  # 64 expected
    assert contexts([3, 4])[1] != contexts([4, 3])[1]
    assert (slot(0, 7), slot(2**32 - 1, 7)) == (0, 6)


# ---- Rows


def test_a_row_is_read_by_its_context_alone() -> None:
    rows = Rows(2, 4, D, eta=0.5, gain=1.0)
    rows.values[:] = np.arange(4)[:, None]
    rows.find([0])
    assert rows.row is None, "there is no context of two tokens yet"
    rows.learn(np.ones(D, np.float32), 1.0, 0.1, float_writer())
    rows.follow(np.ones(D, np.float32), 0.1, 3.0)
    assert rows.gain == 1 and rows.values[:, 0].tolist() == [0, 1, 2, 3]
    rows.find([0, 3 << 30])
    assert rows.row is not None and rows.row.tolist() == [3] * D


def test_a_row_decays_and_then_takes_the_error() -> None:
    rows = Rows(1, 2, D, eta=0.5, gain=1.0)
    rows.values[1] = 0.4
    rows.find([2**31])
    error = np.linspace(-1, 1, D).astype(np.float32)
    rows.learn(error, 2.0, 0.25, float_writer())
    np.testing.assert_allclose(rows.values[1], 0.4 * 0.75 + 0.5 * 2 * error, rtol=1e-6)
    assert not rows.values[0].any()


@pytest.mark.parametrize(("sign", "limit"), [(1, 3.0), (-1, 0.0)])
def test_the_gain_of_rows_follows_their_gradient(sign: int, limit: float) -> None:
    rows = Rows(1, 1, D, eta=0, gain=1.0)
    rows.values[0] = 0.25
    rows.find([0])
    error = np.full(D, 0.5 * sign, np.float32)
    rows.follow(error, 0.1, 3.0)
    assert rows.gain == pytest.approx(1 + sign * 0.1 * D * 0.25 * 0.5)
    for _ in range(100):
        rows.follow(error, 0.1, 3.0)
    assert rows.gain == limit


# ---- Bias


def test_a_bias_goes_up_for_what_came_and_down_for_what_was_predicted() -> None:
    bias = Bias(6, step=0.2, decay=0, gain=1.0)
    bias.learn(2, np.array([1, 1, 2, 5]))
    np.testing.assert_allclose(bias.values, [0, -0.1, 0.15, 0, 0, -0.05], rtol=1e-6, atol=1e-9)
    bias.follow(2, np.array([1, 1, 2, 5]), 0.1, 3.0)
    gained = 0.15 - (-0.1 - 0.1 + 0.15 - 0.05) / 4
    assert bias.gain == pytest.approx(1 + 0.1 * gained / math.log(2)), "the core's biases are in bits, and so is this"


def test_the_decay_of_biases_goes_once_round_the_vocabulary() -> None:
    bias = Bias(300, step=0, decay=1e-3, gain=1.0)
    bias.values[:] = 1
    bias.fade(0)
    assert (bias.values[:3] == np.float32(1 - BIAS_TURN * 1e-3)).all() and (bias.values[3:] == 1).all()
    for time in range(1, BIAS_TURN):
        bias.fade(time)
    np.testing.assert_allclose(bias.values, 1 - BIAS_TURN * 1e-3, rtol=1e-6)


def test_biases_are_bounded() -> None:
    bias = Bias(4, step=1.0, decay=0, gain=1.0)
    for _ in range(40):
        bias.learn(0, np.array([1, 1]))
    np.testing.assert_allclose(bias.values, [BIAS_LIMIT, -BIAS_LIMIT, 0, 0], rtol=1e-6)


# ---- n-grams


def seen(memory: NGrams, context: int, *tokens: int) -> None:
    for token in tokens:
        memory.find([context])
        memory.learn(token)


def test_an_ngram_counts_up_to_its_limit_and_gives_way() -> None:
    memory = NGrams(1, 2)
    assert memory.counts == [0, 0]
    seen(memory, 7, *[4] * 20)
    assert memory.counts == [COUNTS - 1, 0] and memory.tokens[0] == 4
    counts = []
    for _ in range(4):
        seen(memory, 7, 9)
        counts.append((memory.tokens[0], memory.counts[0]))
    assert counts == [(4, 7), (4, 3), (4, 1), (9, 1)]


def test_an_ngram_speaks_only_where_its_tag_fits() -> None:
    memory = NGrams(1, 2)
    seen(memory, 7, 4, 4)
    memory.gains[2] = 1.5
    for context, expected in ((7, 1.5), (8, 0.0), (7 + 2**10, 1.5), (2**31 + 7, 0.0)):
        logits = np.zeros(10, np.float32)
        memory.find([context])
        memory.add(logits)
        assert logits[4] == expected and np.count_nonzero(logits) == (expected > 0), context
    seen(memory, 8, 4)  # another context of the same slot: the count halves, though the token is the same
    assert (memory.counts[0], memory.tags[0]) == (1, 7)
    seen(memory, 8, 4)
    assert (memory.counts[0], memory.tags[0]) == (1, 8)


def test_the_gain_of_an_order_and_count_follows_its_gradient() -> None:
    memory, p = NGrams(1, 1), np.full(10, 0.1, np.float32)
    memory.find([0])
    memory.follow(4, p, 0.05)
    assert not any(memory.gains), "no hit, nothing to follow"
    seen(memory, 0, 4, 4)
    memory.find([0])
    memory.follow(4, p, 0.05)
    assert memory.gains[2] == pytest.approx(0.05 * 0.9)
    memory.follow(5, p, 0.05)
    assert memory.gains[2] == pytest.approx(0.05 * 0.8) and memory.gains[1] == 0
    for _ in range(2000):
        memory.follow(4, p, 0.05)
    assert memory.gains[2] == NGRAM_LIMIT == pytest.approx(16 * math.log(2))


def test_without_enough_context_there_is_no_ngram() -> None:
    memory = NGrams(3, 4)
    memory.find([1, 2])
    memory.learn(5)
    memory.follow(5, np.ones(10, np.float32), 0.1)
    assert memory.at is None and not any(memory.counts)


# ---- Episodes

HERE = flags(1, 1, 1, 1, 1, 1, 1, 1)
NEAR = flags(1, 1, 1, 1, 1, 1, -1, -1)  # differs in two of eight signs: similarity cos(pi / 4)
FAR = flags(1, 1, -1, -1, -1, -1, -1, -1)  # in six: cos(3 pi / 4)


def remembering(n: int, *events: tuple[np.ndarray, int]) -> Episodes:
    out = Episodes(n, D, sharpness=2.0)
    for state, token in events:
        out.recall(state, np.ones(10, np.float32), 10.0)
        out.learn(token)
    return out


def test_nothing_is_recalled_where_nothing_was_written() -> None:
    episodes, p = remembering(4), np.full(10, 0.5, np.float32)
    assert episodes.recall(HERE, p, 5.0) == 5.0 and (p == 0.5).all()
    episodes.follow(3, 0.1)
    assert episodes.share == [0.1] * 16


def test_what_came_in_like_states_gets_a_share() -> None:
    episodes = remembering(4, (NEAR, 3), (FAR, 4), (NEAR, 3))
    p = np.arange(1, 11).astype(np.float32) / 55 * 2  # of mass 2
    before = p.copy()
    mass = episodes.recall(0.3 * HERE, p, 2.0)
    weight = math.exp(-2 * (math.cos(math.pi / 4) - math.cos(3 * math.pi / 4)))  # of the far one
    recalled = np.zeros(10)
    recalled[3], recalled[4] = 2 / (2 + weight), weight / (2 + weight)
    np.testing.assert_allclose(p / mass, 0.9 * before / 2 + 0.1 * recalled, rtol=1e-6)
    assert mass == pytest.approx(2 / 0.9) and episodes.bucket == int(16 * math.cos(math.pi / 4))
    from_here = 0.1 * recalled[3] / (0.9 * before[3] / 2 + 0.1 * recalled[3])
    assert episodes.responsibility.keys() == {3, 4} and episodes.responsibility[3] == pytest.approx(from_here)
    episodes.follow(3, 0.01)
    assert episodes.share[11] == pytest.approx(0.1 + 0.01 * (from_here - 0.1)) and episodes.share[10] == 0.1
    episodes.follow(7, 1.0)
    assert episodes.share[11] == 66 / 65536, "the least share, after a token that was not among them"
    episodes.share[11] = 0.5
    p = np.zeros(10, np.float32)
    p[3] = 1e-30
    episodes.recall(HERE, p, 1.0)
    episodes.follow(3, 1.0)
    assert episodes.share[11] == 62259 / 65536


def test_the_nearest_are_recalled_and_of_equals_the_first() -> None:
    events = [(FAR, 9)] * 5 + [(NEAR, i % 3) for i in range(15)] + [(HERE, 5)] * 3 + [(FAR, 8)] * 7
    episodes = remembering(30, *events)
    episodes.recall(HERE, np.ones(10, np.float32), 10.0)
    index, differing = episodes._nearest(30)
    assert index.tolist() == [20, 21, 22, *range(5, 18)] and differing.tolist() == [0] * 3 + [2] * 13
    assert episodes.bucket == 15, "similarity one is the last bucket"


def test_the_oldest_episode_is_overwritten() -> None:
    episodes = remembering(3, *[(HERE, token) for token in range(5)])
    assert episodes.tokens.tolist() == [3, 4, 2] and episodes.written == 5
    p = np.ones(10, np.float32)
    episodes.recall(HERE, p, 10.0)
    assert np.flatnonzero(p > 1).tolist() == [2, 3, 4]


def test_opposite_states_are_of_similarity_zero() -> None:
    episodes = remembering(2, (HERE, 1))
    episodes.recall(-HERE, np.ones(10, np.float32), 10.0)
    assert episodes.bucket == 0
