"""The baselines of bench/baselines: exact gradients, no look ahead, and each learns what it can learn."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from bench.baselines import adapters, cache, dynamic, mixture, ngram, tuning
from bench.baselines.methods import METHODS, Workplace
from bench.baselines.network import Network
from bench.baselines.streams import Stream, prepare
from edgehmn.checkpoint import Checkpoint, Config
from edgehmn.model import FloatModel, log_softmax
from tests.models import TINY, random_checkpoint, random_tokens, repetitive_tokens

UNTIED = replace(TINY, tied_head=False, final_norm="rmsnorm", n_kv_heads=4)
TOKENS = 600
TEACHING = [name for name in METHODS if name not in ("static", "hebbian", "random-feedback")]


def checkpoint_with_statistics(config: Config = TINY) -> Checkpoint:
    made = random_checkpoint(config)
    d = config.d_model
    statistics: dict[str, Any] = {
        "plastic.mean": np.full(d, 0.1, np.float32),
        "plastic.inverse_deviation": np.linspace(0.5, 1.5, d, dtype=np.float32),
        "plastic.preconditioner": np.diag(np.linspace(0.2, 0.4, d)).astype(np.float32),
    }
    return Checkpoint(config, made.tensors | statistics, "")


def workplace(tmp_path: Path) -> Workplace:
    return Workplace(checkpoint_with_statistics(), tmp_path, lambda: random_tokens(200))


def learned(name: str, place: Workplace, stream: Stream, **other: Any) -> npt.NDArray[np.float64]:
    """Nats of each token under a method at its first settings."""
    method = METHODS[name]
    start = (METHODS[method.after].start if method.after else {}) | method.start | other
    for used in ("dynamic-sgd", "dynamic-rms"):
        place.chosen[used] = METHODS[used].start
    settings = method.complete(place, [stream], start)
    [[losses]] = method.losses(place, [stream], [settings])
    cost = method.cost(place, settings, stream)
    assert losses.shape == stream.ids.shape and losses[0] == pytest.approx(np.log(TINY.vocab_size))
    assert name == "static" or (cost.macs > 0 and cost.state_bytes > 0)
    return losses


@pytest.mark.parametrize("config", [TINY, UNTIED], ids=["tied", "untied"])
def test_network_means_what_the_float_model_means(config: Config) -> None:
    checkpoint, ids = random_checkpoint(config), random_tokens(40)
    model, network = FloatModel(checkpoint), Network(checkpoint)
    expected = model.final_norm(model.encode(ids, model.new_state()))
    found = np.concatenate([network.forward(ids[i : i + 7])[0] for i in range(0, 40, 7)])
    np.testing.assert_allclose(found, expected, atol=2e-4)


@pytest.mark.parametrize("config", [TINY, UNTIED], ids=["tied", "untied"])
def test_network_gradient_is_the_slope_of_the_loss(config: Config) -> None:
    network, ids = Network(random_checkpoint(config), np.float64), random_tokens(13)
    network.forward(ids[:6])
    keys, values, position = network.keys, network.values, network.position

    def log_p() -> npt.NDArray[np.float64]:
        network.keys, network.values, network.position = list(keys), list(values), position
        return log_softmax(network.forward(ids[6:12])[1]).astype(np.float64)

    targets = ids[7:13]
    network.backward(dynamic.loss_gradient(log_p(), targets))
    for name, weights in network.w.items():
        direction = np.random.default_rng(1).normal(size=weights.shape)
        losses = []
        for step in (1e-5, -1e-5):
            weights += step * direction
            losses.append(-log_p()[np.arange(6), targets].mean())
            weights -= step * direction
        slope = (losses[0] - losses[1]) / 2e-5
        assert np.sum(network.grad[name] * direction) == pytest.approx(slope, rel=1e-4, abs=1e-8), name


@pytest.mark.parametrize("layers", [0, 3], ids=["gained", "stack"])
def test_adapter_gradients_are_the_slope_of_the_log_probability(layers: int) -> None:
    head = adapters.Head.of(checkpoint_with_statistics())
    rng, d = np.random.default_rng(2), TINY.d_model
    made: Any
    if layers:
        made = adapters.Stack(head, [{"initial": 0.1}], layers, "backprop")
        matrices = made.weights
    else:
        made = adapters.GainedAdapter(head, [{}])
        made.weights += 0.1 * rng.standard_normal((1, d, d))
        made.gain[:], made.scale[:] = 1.3, 0.9
        matrices = [made.weights]
    h = rng.standard_normal((1, d)).astype(np.float32)
    log_p = log_softmax(made.forward(h))
    residual = -np.exp(log_p)
    residual[0, 5] += 1
    gradients = made.gradients(residual)
    slopes = list(zip(matrices, gradients if layers else gradients[:1], strict=True))
    x = [t[0] for t in made.tape] if layers else [made.x]
    cases = [(m, post[..., None] * i[:, None]) for (m, post), i in zip(slopes, x, strict=True)]
    if not layers:
        cases += [(made.gain, gradients[1]), (made.scale, gradients[2])]
    for weights, gradient in cases:
        direction = gradient / np.linalg.norm(gradient)
        step, found = np.float32(1e-2), []
        for sign in (1, -1):
            weights += sign * step * direction
            found.append(float(log_softmax(made.forward(h))[0, 5]))
            weights -= sign * step * direction
        assert (found[0] - found[1]) / 2e-2 == pytest.approx(np.linalg.norm(gradient), rel=0.02)


@pytest.mark.parametrize("name", TEACHING)
def test_baseline_learns_a_text_that_repeats(name: str, tmp_path: Path) -> None:
    place = workplace(tmp_path)
    stream = prepare("phrase", repetitive_tokens(TOKENS), place.checkpoint)
    static = learned("static", place, stream)
    faster = {"eta": 0.05} if "dynamic-head" in name or name == "backprop-stack" else {}
    assert learned(name, place, stream, **faster)[-100:].mean() < static[-100:].mean() - 0.05


@pytest.mark.parametrize("name", ["hebbian", "random-feedback"])
def test_signals_without_direction_stay_finite(name: str, tmp_path: Path) -> None:
    place = workplace(tmp_path)
    stream = prepare("phrase", repetitive_tokens(TOKENS), place.checkpoint)
    assert np.isfinite(learned(name, place, stream)).all()


@pytest.mark.parametrize("name", ["neural+ngram-cache-following", "backprop-adapter", "dynamic-sgd"])
def test_baseline_sees_no_token_before_it_is_scored(name: str, tmp_path: Path) -> None:
    place, ids = workplace(tmp_path), repetitive_tokens(200)
    other = ids.copy()
    other[150:] = random_tokens(50, seed=9)
    settings = METHODS[name].start
    if METHODS[name].after:
        n_buckets, start = ngram.N_BUCKETS, METHODS[METHODS[name].after or ""].start
        settings = start | settings | {"weights": [[0.4, 0.3, 0.3]] * n_buckets}
    first, second = (
        METHODS[name].losses(place, [prepare(f"{i}", x, place.checkpoint)], [settings])[0][0]
        for i, x in enumerate((ids, other))
    )
    np.testing.assert_allclose(first[:150], second[:150], atol=1e-5)
    assert abs(first[151:] - second[151:]).max() > 0.1


def test_neural_cache_is_its_definition() -> None:
    ids = random_tokens(300, 7)
    keys = np.random.default_rng(3).standard_normal((299, 6)).astype(np.float32)
    found = cache.cache_p(keys, ids, theta=1.5, states=20)
    for t in (1, 10, 256, 298):
        seen = np.arange(max(0, t - 20), t)
        weight = np.exp(1.5 * keys[seen].astype(np.float64) @ keys[t])
        assert found[t] == pytest.approx(weight[ids[seen + 1] == ids[t + 1]].sum() / weight.sum(), rel=1e-4)
    assert found[0] == 0


def test_ngram_probabilities_sum_to_one_and_forget_what_left_the_window() -> None:
    ids = random_tokens(400, 5)
    for window in (0, 60):
        total = np.zeros(len(ids) - 1)
        for token in range(5):  # what the cache would have given to each possible last token
            changed = np.append(ids[:-1], token)
            total += ngram.ngram_p(ngram.count(changed, window), 0.5, 0.7, 5)[-1]
        np.testing.assert_allclose(total, 1)
    short = ngram.count(ids, 60)
    again = ngram.count(ids[-61:], 0)
    np.testing.assert_array_equal(short.total[-1, 0], again.total[-1, 0])
    assert short.entries < ngram.count(ids, 0).entries


def test_mixture_finds_the_better_component() -> None:
    good = np.stack([np.full(500, 0.1), np.full(500, 0.8)], 1)
    parts = mixture.Parts(good, np.zeros(500, np.int64))
    weights = mixture.fit([parts], 2)
    assert weights[0, 1] > 0.99 and weights[1, 1] == 0.5
    even = np.full((1, 2), 0.5)
    assert mixture.log_p(parts, even, 0.05)[-1] > mixture.log_p(parts, even)[-1]


def test_climb_finds_the_minimum_and_repeats_nothing() -> None:
    asked: list[dict[str, Any]] = []

    def evaluate(settings: list[dict[str, Any]]) -> list[dict[str, Any]]:
        asked.extend(settings)
        means = [abs(np.log(s["eta"] / 0.011)) + (s["kind"] != "b") for s in settings]
        entries = [{"settings": s, "nats": {}, "mean": m} for s, m in zip(settings, means, strict=True)]
        log.extend(entries)
        return entries

    log: list[dict[str, Any]] = []
    start, axes = {"eta": 0.1, "kind": "a"}, {"eta": 2.0, "kind": ("a", "b")}
    best = tuning.climb(evaluate, log, start, axes, at_once=2, limit=50)
    assert best["kind"] == "b" and best["eta"] == pytest.approx(0.011, rel=0.2)
    n = len(asked)
    assert tuning.climb(evaluate, log, start, axes, at_once=2, limit=50) == best and len(asked) == n
    assert len({str(s) for s in asked}) == n
