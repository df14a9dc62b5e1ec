"""Draws: steps of weights are drawn without bias, by the line itself and by the core."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from edgehmn.core import CoreModel, ffi
from tests import oracle_state
from tests.exact import STEP, draw, draw_steps
from tests.models import QUIET, SMALL, opened, resealed_delta, tiny_image
from tests.oracle import Oracle

DRAWS = 10_000


def test_the_line_is_unbiased_exactly() -> None:
    """Over all offsets of a fine grid every weight gets its expected number of steps, to the last unit."""
    rng, offsets = np.random.default_rng(0), 1 << 13
    rates = (rng.integers(-(1 << 9), (1 << 9) + 1, 6) * (STEP // offsets)).tolist()
    pre = rng.integers(-127, 128, 8).tolist()
    total = np.zeros((6, 8), np.int64)
    for k in range(offsets):
        total += np.array(draw_steps(rates, pre, k * (STEP // offsets)))
    assert np.array_equal(total, np.outer(np.array(rates) // (STEP // offsets), pre))


def bias(total: npt.NDArray[np.int64], expected: npt.NDArray[np.float64], n: int) -> npt.NDArray[np.float64]:
    """Deviation of n draws' sums from n times their expectation, in standard deviations, where steps are common."""
    fraction = np.abs(expected) % 1
    common = n * fraction * (1 - fraction) > 10
    assert common.mean() > 0.3
    return ((total - n * expected) / np.sqrt(n * fraction * (1 - fraction) + 1e-9))[common]


class Experiment:
    """One token learned with many seeds, each time from the same state; and the oracle's expectation.

    The head is so sharp that all negatives are the most probable token, so that the expected steps, too, are the same.
    """

    target = 4

    def __init__(self) -> None:
        rule = replace(QUIET, rho_trace=(0.0, 0.0), decay=0.01, row_slots=(2, 3), decay_visit=0.02, eta_row=(0.1, 0.1))
        data = tiny_image(SMALL, rule, head_gain=20.0)
        self.core, self.oracle = CoreModel(opened(data)), Oracle(data)
        rng, d = np.random.default_rng(0), SMALL.d_model
        self.dense, self.rows = rng.integers(-60, 61, (2, d, d)), rng.integers(-60, 61, (5, d))
        st = oracle_state.fresh(self.oracle.header, 0)
        st.dense, st.rows = self.dense.tolist(), [self.rows[:2].tolist(), self.rows[2:].tolist()]
        self.base = oracle_state.save(self.oracle.header, st)
        self.oracle.load(self.base)
        self.context = next((a, b) for a in range(40) for b in range(40) if self.is_sharp(a, b))
        self.read = [(k * 2 + slot) for k, slot in self.oracle.taken.rows]
        self.oracle.learn(self.target)

    def is_sharp(self, *tokens: int) -> bool:
        """Whether the prediction after these tokens gives all that a mass can show to one token."""
        self.oracle.reset()
        for token in tokens:
            self.oracle.step(token)
        assert self.oracle.prediction
        return sum(p > 0 for p in self.oracle.prediction.p) == 1

    def total(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Sums of the changes of dense weights and of rows."""
        delta, start = bytearray(self.base), ffi.sizeof("ehmn_delta")
        header = ffi.cast("ehmn_delta *", ffi.from_buffer(delta))
        sums = np.zeros(self.dense.size + self.rows.size, np.int64)
        for seed in range(DRAWS):
            header.seed = seed
            self.core.load(resealed_delta(delta))
            self.core.reset()
            for token in self.context:
                self.core.step(token)
            self.core.learn(self.target)
            sums += np.frombuffer(self.core.save(), np.int8, len(sums), start)
        dense, rows = np.split(sums, [self.dense.size])
        return (
            dense.reshape(self.dense.shape) - DRAWS * self.dense,
            rows.reshape(self.rows.shape) - DRAWS * self.rows,
        )


def test_draws_of_the_core_are_unbiased() -> None:
    e = Experiment()
    dense, rows = e.total()
    expected = np.array([np.outer(rates, pre) / STEP for rates, pre in e.oracle.updates])
    assert abs(bias(dense[:, 1:], expected[:, 1:], DRAWS)).max() < 5

    rule = e.core.image.header.rule
    decay = rule.decay_row / STEP * (e.dense + expected)[:, 0]  # row 0 is the first whose turn it is
    assert abs(dense[:, 0] / DRAWS - (expected[:, 0] - decay)).max() < 5 * np.sqrt(0.5 / DRAWS)
    assert abs(decay).max() > 0.5

    assert len(e.read) == 2 and not np.delete(rows, e.read, 0).any(), "rows that were not read stay"
    for read, (rate, pre) in zip(e.read, e.oracle.row_updates, strict=True):
        change, decay = rate * np.array(pre) / STEP, rule.decay_visit / STEP * e.rows[read]
        assert abs(rows[read] / DRAWS - (change - decay)).max() < 5 * np.sqrt(0.5 / DRAWS)
        assert abs(decay).max() > 0.5 and abs(change).max() > 0.5

    biased = np.zeros(e.dense.shape[1:], np.int64)  # offsets from the first half of the interval only
    for seed in range(DRAWS):
        biased += np.array(draw_steps(*e.oracle.updates[0], draw(seed, 1, 0) >> 9))
    assert abs(bias(biased, expected[0], DRAWS)).max() > 20, "a biased draw would be seen"


# How many tokens must have been learned for seed 0 to draw an offset of whole sixteenths of a step.
@pytest.mark.parametrize(("learned", "sixteenths"), [(2553129, 0), (5774110, 2), (6092486, 7), (6567871, 15)])
def test_a_point_on_the_edge_of_two_weights_falls_on_the_later_one(learned: int, sixteenths: int) -> None:
    """With all rates at their limit, 1/16 of a step, the edges lie on whole sixteenths, too."""
    data = tiny_image(SMALL, QUIET, settings={"rule.eta_local": 1 << 24})
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
    assert offset == sixteenths * STEP // 16 and np.count_nonzero((edges - offset) % STEP == 0) > 2
    assert core.save() == oracle.save()
