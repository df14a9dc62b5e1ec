"""How the float rule writes and draws: without bias, as evenly as it can be, or as the paper has it."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgehmn.plasticity import HeadStatistics, PlasticHead, Rule
from edgehmn.writes import Writer, draw_steps

HEAD = (0.3 * np.random.default_rng(7).normal(size=(50, 24))).astype(np.float32)
ONE = np.ones(1)


@given(
    st.lists(st.floats(-3, 3, width=32).map(lambda v: 0.0 if abs(v) < 1e-6 else v), min_size=1, max_size=12),
)
@settings(max_examples=200, deadline=None, derandomize=True)
def test_steps_are_unbiased(expected: list[float]) -> None:
    """Exactly: the mean over all offsets is an integral of steps, which change only where a stretch ends."""
    values = np.array(expected)
    edges = np.cumsum(np.abs(values))
    mean = integral(lambda offset: draw_steps(ONE, values, offset)[0], edges % 1)
    np.testing.assert_allclose(mean, values, rtol=0, atol=2e-6)


@given(st.lists(st.floats(-3, 3, width=32), min_size=1, max_size=12), st.floats(0, 1, exclude_max=True))
@example([1.0], 0.0)
@settings(max_examples=200, deadline=None, derandomize=True)
def test_steps_are_as_even_as_they_can_be(expected: list[float], offset: float) -> None:
    values = np.array(expected)
    steps = draw_steps(ONE, values, offset)[0]
    assert (np.abs(steps) >= np.floor(np.abs(values)) - 1e-6).all()
    assert (np.abs(steps) <= np.ceil(np.abs(values)) + 1e-6).all()
    assert (steps * values >= 0).all()
    assert abs(np.abs(steps).sum() - np.abs(values).sum()) < 1 + 1e-6


def test_steps_of_a_matrix_are_those_of_its_rows_end_to_end() -> None:
    rng = np.random.default_rng(6)
    for _ in range(50):
        rate, vector, offset = rng.normal(size=5), rng.normal(size=7), rng.random()
        found = draw_steps(rate, vector, offset)
        expected, at = np.zeros((5, 7)), 0.0
        for i, j in np.ndindex(5, 7):
            end = at + abs(rate[i] * vector[j])
            points = [k for k in range(100) if at <= offset + k < end]
            expected[i, j] = len(points) * np.sign(rate[i] * vector[j])
            at = end
        np.testing.assert_array_equal(found, expected)


def test_the_mean_of_many_writes_is_the_exact_update() -> None:
    rng = np.random.default_rng(7)
    rate, vector = rng.normal(size=6).astype(np.float32), rng.normal(size=9).astype(np.float32)
    exact = np.outer(rate, vector) / 30
    total, n = np.zeros((6, 9)), 10000
    writer = Writer("unbiased", 0.25, rng, 0, 0)
    for _ in range(n):
        weights = np.zeros((6, 9), np.float32)
        writer.add(weights, rate / 30, vector)
        total += weights
    deviation = np.sqrt(np.abs(exact) * 0.25 / n)  # no larger than that of independent rare steps
    assert (np.abs(total / n - exact) < 5 * deviation + 1e-6).all()


@pytest.mark.parametrize(("peak", "most"), [(0.99, 0.99 * 8), (1.01, 1.01 * 4)])
def test_a_token_moves_a_weight_by_eight_steps_at_most(peak: float, most: float) -> None:
    """As in the core, whose rates for each unit of an int8 mantissa are bounded."""
    weights, writer = np.zeros((1, 3), np.float32), Writer("unbiased", 1.0, np.random.default_rng(9), 0, 0)
    for _ in range(1000):
        writer.add(weights, np.full(1, -100, np.float32), np.array([0.5 * peak, -peak, 0.0], np.float32))
        assert np.abs(weights).max() <= math.ceil(most) and weights[0, 2] == 0
        weights[:] = 0
    assert writer.steps / 1000 == pytest.approx(1.5 * most, abs=0.1)


def test_the_papers_write_probability() -> None:
    """A step for each synapse with probability sigmoid(beta (|u| - theta)), whatever u is, towards its sign."""
    writer = Writer("sigmoid", 0.5, np.random.default_rng(8), 10.0, 0.5)
    vector = np.repeat(np.array([0.05, -0.25, 0.5], np.float32), 20000)  # u = 0.1, -0.5, 1 steps
    weights = np.zeros((1, len(vector)), np.float32)
    writer.add(weights, np.ones(1, np.float32), vector)
    means = (weights / 0.5).reshape(3, -1).mean(1)
    np.testing.assert_allclose(means, [1 / (1 + math.exp(4)), -0.5, 1 / (1 + math.exp(-5))], atol=0.015)
    assert writer.steps == np.count_nonzero(weights)


class Offset:
    """A random generator that draws one number."""

    def __init__(self, value: float) -> None:
        self.value = value

    def random(self) -> float:
        return self.value


@pytest.mark.parametrize("n_negatives", [1, 3, 16])
def test_negatives_are_unbiased(n_negatives: int) -> None:
    """Exactly: over all offsets each token is drawn n p times on average, and never off by more than one."""
    head: Any = PlasticHead(HEAD, HeadStatistics.neutral(24), Rule(n_negatives=n_negatives))
    p = np.exp(head.forward(HEAD[0], 0).astype(np.float64))
    p /= p.sum()

    def counts(offset: float) -> npt.NDArray[np.float64]:
        found = np.bincount(head._negatives(Offset(offset)), minlength=len(HEAD)).astype(np.float64)
        assert found.sum() == n_negatives and (np.abs(found - n_negatives * p) < 1 + 1e-9).all()
        return found

    np.testing.assert_allclose(integral(counts, np.cumsum(p) * n_negatives % 1), n_negatives * p, rtol=0, atol=1e-9)


def integral(steps: Callable[[float], npt.NDArray[Any]], breaks: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Integral over 0..1 of a function that is constant between breaks."""
    edges = np.unique(np.concatenate([[0.0], breaks, [1.0]]))
    return np.asarray(sum((b - a) * steps((a + b) / 2).astype(np.float64) for a, b in itertools.pairwise(edges)))
