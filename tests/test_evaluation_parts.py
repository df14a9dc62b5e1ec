"""What the evaluation plan computes with: streams of hidden vectors, intervals over units, the neural cache."""

import numpy as np
import pytest

from edgehmn.core import CoreModel, Image
from edgehmn.evaluation import neural_cache
from edgehmn.evaluation.neural_cache import Mixture, States
from edgehmn.evaluation.statistics import interval_95, running_mean, window_sums
from edgehmn.streams import FEED, FOLLOW, LEARN, HiddenStream, open_head, play, rewind, twin_of
from tests.models import random_tokens, repetitive_tokens, tiny_image


@pytest.fixture(scope="module")
def image() -> Image:
    return Image(tiny_image())


@pytest.fixture(scope="module")
def stream(image: Image) -> HiddenStream:
    return HiddenStream.encode(image, repetitive_tokens(400))


# Streams


def test_playing_hidden_vectors_is_processing_the_text(image: Image, stream: HiddenStream) -> None:
    for mode, flags in ((LEARN, {"learn": True}), (FOLLOW, {"learn": False, "follow": True}), (FEED, {"learn": False})):
        whole, head = CoreModel(image, seed=5), open_head(image, 5)
        scores = play(head, stream, mode=mode)
        assert scores.tolist() == whole.process(stream.ids, **flags).tolist()
        assert head.save() == whole.save()
    assert stream.static.tolist() == CoreModel(image, plastic=False).process(stream.ids, learn=False).tolist()


def test_greedy_is_the_most_probable_token(image: Image, stream: HiddenStream) -> None:
    model = CoreModel(image, plastic=False)
    chosen = [-1]
    for token in stream.ids[:50].tolist():
        model.step(token)
        chosen.append(model.sample())
    assert stream.greedy[:51].tolist() == chosen
    greedy = np.full(len(stream), -1, np.int32)
    play(open_head(image), stream, mode=FEED, greedy=greedy)
    assert greedy.tolist() == stream.greedy.tolist()


def test_a_head_goes_on_from_the_middle_as_if_it_had_heard_all(image: Image, stream: HiddenStream) -> None:
    """Frozen, a place in a stream depends on the tokens just before it, and on nothing earlier."""
    teacher = open_head(image)
    play(teacher, stream)
    whole, late = open_head(image), open_head(image)
    whole.load(teacher.save())
    late.load(teacher.save())
    rewind(late, stream, 150)
    scores = play(whole, stream, mode=FEED)[150:]
    assert play(late, stream, 150, mode=FEED).tolist() == scores.tolist()


def test_modes_may_differ_from_token_to_token(image: Image, stream: HiddenStream) -> None:
    modes = np.where(np.arange(len(stream)) < 200, LEARN, FEED)
    head, other = open_head(image), open_head(image)
    scores = play(head, stream, mode=modes)
    parts = [play(other, stream, 0, 200), play(other, stream, 200, mode=FEED)]
    assert np.concatenate(parts).tolist() == scores.tolist()
    assert head.save() == other.save() and head.counts().learned == 199


def test_a_twin_knows_what_its_original_knows(image: Image, stream: HiddenStream) -> None:
    for banks in (1, 3):
        head = open_head(image, 1, banks)
        play(head, stream)
        twin = twin_of(head, banks)
        rewind(head, stream)
        rewind(twin, stream)
        assert play(twin, stream, 0, 45, mode=FOLLOW).tolist() == play(head, stream, 0, 45, mode=FOLLOW).tolist()


# Statistics


def test_interval_covers_the_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(3)
    intervals = [interval_95(rng.normal(1.0, 2.0, 60)) for _ in range(60)]
    assert 50 <= sum(low < 1.0 < high for low, high in intervals) < 60
    assert intervals[0] != intervals[1]


def test_interval_weighs_units_by_their_size() -> None:
    totals, sizes = np.array([10.0, 1.0] * 50), np.array([10.0, 1.0] * 50)
    assert interval_95(totals, sizes) == [1.0, 1.0]
    assert interval_95(totals, sizes) == interval_95(list(totals), list(sizes))
    low, high = interval_95(totals)
    assert low < 5.5 < high


def test_windows() -> None:
    values = np.arange(7.0)
    assert window_sums(values, 3).tolist() == [3, 12, 6]
    assert running_mean(values, 3).tolist() == [1, 2, 3, 4, 5]
    assert running_mean(values, 30).tolist() == [3]


# The neural cache


def test_cache_probabilities_are_a_distribution() -> None:
    rng = np.random.default_rng(1)
    hidden = rng.integers(-3000, 3000, (40, 16), dtype=np.int16)
    states = States.of(hidden[:30], random_tokens(30, 11))
    queries = np.repeat(hidden[30:], 11, axis=0)
    p = neural_cache.probabilities(states, queries, np.tile(np.arange(11, dtype=np.int32), 10), 7.0)
    assert p.min() >= 0 and p.reshape(10, 11).sum(-1) == pytest.approx(np.ones(10))


def test_cache_recalls_what_followed_the_same_state_and_forgets_the_oldest() -> None:
    rng = np.random.default_rng(2)
    hidden = rng.integers(-3000, 3000, (20, 16), dtype=np.int16)
    tokens = np.arange(20, dtype=np.int32)
    states = States.of(hidden[:10], tokens[:10]).then(States.of(hidden[10:], tokens[10:]), 15)
    assert states.tokens.tolist() == list(range(5, 20))
    assert neural_cache.probabilities(states, hidden[5:], tokens[5:], 100.0).min() > 0.9
    assert neural_cache.probabilities(states, hidden[:5], tokens[:5], 100.0).max() == 0


def test_best_mixture_leaves_the_model_alone_where_the_cache_knows_nothing() -> None:
    nats_of_model = np.full(4, 2.0)
    hidden = np.ones((4, 8), np.int16)
    empty = States(np.zeros((0, 8), np.int8), np.zeros(0, np.int32))
    targets = np.zeros(4, np.int32)
    assert Mixture(5.0, 0.3).nats(nats_of_model, empty, hidden, targets).tolist() == [2.0] * 4
    wrong = States(np.ones((2, 8), np.int8), np.ones(2, np.int32))
    assert neural_cache.best_mixture([(nats_of_model, wrong, hidden, targets)]).weight == min(neural_cache.WEIGHTS)
