"""Cells of memristive tiles: the published fits, single pulses, wires, write-verify, wear."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from edgehmn.errors import UsageError
from edgehmn.targets.memristive import wires
from edgehmn.targets.memristive.cells import STUCK_HIGH, STUCK_LOW, CellArray, rectified
from edgehmn.targets.memristive.noise import Hermes, Pcm, Polynomial
from edgehmn.targets.memristive.presets import HERMES, IDEAL, PRESETS, WAN, Cell, preset
from edgehmn.targets.memristive.steps import Constant, Exponential, SoftBounds, Update, staircase

N = 20_000


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def array(cell: Cell, weights: npt.NDArray[np.integer], seed: int = 0, wire_ohm: float = 0.0) -> CellArray:
    return CellArray(weights, cell, rng(seed), top=127, wire_ohm=wire_ohm)


def every(a: CellArray) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    rows, columns = np.indices(a.shape)
    return rows.ravel(), columns.ravel()


# ---- The fits, at conductances where the published constants can be worked out by hand


@pytest.mark.parametrize(
    ("noise", "g", "sigma"),
    [
        (Pcm(), 0.0, 0.26348),
        (Pcm(), 12.5, 0.26348 + 1.9650 / 2 - 1.1731 / 4),
        (Pcm(), 25.0, 0.26348 + 1.9650 - 1.1731),
        (Hermes(), 20.7, 0.16603222 + 4.71806468 - 8.48101252 + 4.68961419),
        (WAN, 0.0, 0.782),
        (WAN, 40.0, 0.782 + 20.274 - 43.507 + 37.062 - 11.934),
        (Polynomial((4.782321, -0.009107)), 100.0, 4.782321 - 0.9107),
    ],
)
def test_programming_noise_has_the_published_spread(noise: Pcm, g: float, sigma: float) -> None:
    assert noise.program_sigma(np.full(1, g))[0] == pytest.approx(sigma, rel=1e-9)


def test_drift_and_one_over_f_noise_have_the_published_constants() -> None:
    full = np.full(N, 25.0)
    nu = Pcm().drift_exponent(full, rng())
    assert nu.mean() == pytest.approx(0.049, abs=3e-4) and nu.std() == pytest.approx(0.008, rel=0.05)
    assert Pcm().drift_exponent(np.full(N, 1e-6), rng()).mean() == pytest.approx(0.1, abs=2e-3)
    nu = Hermes().drift_exponent(np.full(N, 20.7), rng())
    assert nu.mean() == pytest.approx(0.0736 - 0.0436 - 0.0126, abs=3e-4)
    assert nu.std() == pytest.approx(0.0073 + 0.0093 - 0.0118, rel=0.05)
    day = 86400.0
    expected = 25.0 * 0.0088 * np.sqrt(np.log((day + 20 + 250e-9) / (2 * 250e-9)))
    assert Pcm().read_sigma(np.full(1, 25.0), day)[0] == pytest.approx(expected)
    q = 0.0123 + 0.0211 - 0.0280 + 0.0069
    expected = 20.7 * q * np.sqrt(np.log((day + 300 + 512e-9) / (2 * 512e-9)))
    assert Hermes().read_sigma(np.full(1, 20.7), day)[0] == pytest.approx(expected)


def test_a_pause_drifts_by_the_power_law() -> None:
    cell = replace(HERMES.cell, noise=replace(Pcm(), g_max=20.7))
    a = array(cell, np.full((40, 40), 100))
    then = a.conductances()
    a.now_s = 20.0 * 99  # (age + t0) / t0 = 100
    assert np.allclose(a.conductances(), then * 100.0**-a.nu, rtol=1e-5)
    a.program(every(a), np.full(1600, 100))
    assert np.array_equal(a.conductances(), a.g), "writing begins the age anew"


def test_reads_below_zero_are_cut() -> None:
    drawn = np.maximum(rng().normal(0.3, 0.5, 400_000), 0)
    mean, variance = rectified(np.full(1, 0.3), np.full(1, 0.5))
    assert mean[0] == pytest.approx(drawn.mean(), rel=5e-3) and variance[0] == pytest.approx(drawn.var(), rel=1e-2)
    mean, variance = rectified(np.array([50.0, -50.0]), np.ones(2))
    assert np.allclose(mean, [50, 0]) and np.allclose(variance, [1, 0])


# ---- Pulses


def test_soft_bounds_shrink_steps_and_are_never_crossed() -> None:
    update = Update(SoftBounds(), 0.05, highest=1.0, lowest=-0.5)
    devices = update.draw((1,), rng())
    at = np.array([0.5])
    assert update.pulse(at, np.ones(1), devices, rng())[0] == pytest.approx(0.5 + 0.05 * 0.5)
    assert update.pulse(at, -np.ones(1), devices, rng())[0] == pytest.approx(0.5 - 0.05 * 2)
    w = np.zeros(1)
    for _ in range(500):
        w = update.pulse(w, -np.ones(1), devices, rng())
    assert w[0] == pytest.approx(-0.5, abs=1e-3)


def test_exponential_steps_follow_their_formula() -> None:
    law = Exponential(-1.18445, -0.081404, 5.0, 5.0, -0.5, -0.5)
    devices = Update(law, 0.00135).draw((1,), rng())
    up = law.size(np.array([0.2]), np.ones(1), devices)[0]
    down = law.size(np.array([0.2]), -np.ones(1), devices)[0]
    z = 2 * -0.5 * 0.2 / 2 - 0.5
    assert up == pytest.approx(0.00135 * (1 + 1.18445 * np.exp(5 * z)), rel=1e-5)
    assert down == pytest.approx(-0.00135 * (1 + 0.081404 * np.exp(-5 * z)), rel=1e-5)


def test_spreads_of_devices_and_of_cycles_are_what_was_asked_for() -> None:
    update = Update(Constant(), 0.01, step_spread=0.3, bound_spread=(0.2, 0.1), cycle=0.5, highest=1, lowest=-1)
    devices = update.draw((N,), rng())
    assert devices.up.mean() == pytest.approx(0.01, rel=0.01) and devices.up.std() == pytest.approx(0.003, rel=0.05)
    assert devices.highest.std() == pytest.approx(0.2, rel=0.05)
    steps = update.pulse(np.zeros(N, np.float32), np.ones(N), replace(devices, up=np.full(N, 0.01)), rng())
    assert steps.std() == pytest.approx(0.005, rel=0.05) and steps.mean() == pytest.approx(0.01, rel=0.02)
    heavy = replace(update, log_normal=True, step_spread=0.7).draw((N,), rng()).up
    assert np.log(heavy).std() == pytest.approx(0.7, rel=0.03) and heavy.mean() == pytest.approx(0.01, rel=0.05)


def test_a_staircase_ends_where_it_should() -> None:
    assert staircase(0, 30, 97, 3.08, 38.5) == pytest.approx(3.08)
    assert staircase(97, 30, 97, 3.08, 38.5) == pytest.approx(38.5)
    assert staircase(20, 30, 97, 3.08, 38.5) > 3.08 + 20 / 97 * 35.42, "first pulses move more"


def test_one_sided_pairs_are_taken_back_when_full() -> None:
    a = array(HERMES.cell, np.zeros((8, 8), np.int64))
    for _ in range(60):
        a.pulse(every(a), np.ones(64, np.int64))
    assert a.counts.refreshed > 0 and a.counts.verify_reads > 0
    assert (a.g <= HERMES.cell.g_max * 1.3).all() and (a.weights() > 20).all()
    assert a.wear.sum() == a.counts.pulses


# ---- Cells


def test_programming_reaches_its_target_with_the_spread_of_the_fit() -> None:
    weights = np.full((120, 120), 64)
    a = array(HERMES.cell, weights)
    goal = 64 * HERMES.cell.g_max / 127
    assert a.g[0].mean() == pytest.approx(goal, rel=2e-3)
    assert a.g[0].std() == pytest.approx(HERMES.cell.noise.program_sigma(np.full(1, goal))[0], rel=0.03)
    assert (a.g >= 0).all()


def test_levels_are_kept() -> None:
    cell = replace(IDEAL.cell, g_min=1.0, levels=4)
    a = CellArray(np.arange(-3, 4)[None], cell, rng(), top=3)
    assert np.allclose(a.weights(), [[-3, -2, -1, 0, 1, 2, 3]])
    coarse = CellArray(np.arange(-127, 128)[None], cell, rng(), top=127)
    assert len(np.unique(np.round(coarse.weights(), 6))) == 7


def test_an_offset_column_stands_for_zero() -> None:
    cell = replace(IDEAL.cell, g_min=1.0, offset=True)
    weights = np.array([[-127, -3], [0, 127]])
    a = array(cell, weights)
    assert np.allclose(a.weights(), weights) and np.allclose(a.g[1], 13.0) and a.g[0].min() == 1.0
    a.pulse(every(a), np.array([5, -1, 0, 3]))
    assert np.allclose(a.weights(), [[-122, -4], [0, 127]]) and a.wear.tolist() == [[[5, 1], [0, 3]], [[0, 0], [0, 0]]]
    noisy = array(replace(HERMES.cell, offset=True, update=IDEAL.cell.update), np.zeros((50, 40), np.int64))
    assert (noisy.g[1] == noisy.g[1][:, :1]).all(), "one reference for a row"
    assert noisy.weights().std() > 2


def test_stuck_cells_stay() -> None:
    cell = replace(IDEAL.cell, stuck=(0.1, 0.2))
    a = array(cell, np.full((100, 100), 50))
    assert a.stuck is not None and (a.stuck == STUCK_HIGH).mean() == pytest.approx(0.2, abs=0.01)
    assert (a.g[a.stuck == STUCK_HIGH] == cell.g_max).all() and (a.g[a.stuck == STUCK_LOW] == cell.g_min).all()
    before = a.g[a.stuck > 0].copy()
    a.program(every(a), np.full(10_000, -20))
    a.pulse(every(a), np.full(10_000, 3))
    assert np.array_equal(a.g[a.stuck > 0], before)


def test_the_other_cell_of_a_pair_makes_up_for_a_stuck_one() -> None:
    a = array(replace(IDEAL.cell, stuck=(0.2, 0.2)), np.full((60, 60), 50))
    assert a.stuck is not None
    plus, minus = a.stuck
    reached = ((plus == 0) & (minus != 0)) | ((plus == STUCK_HIGH) & (minus == 0)) | ((plus == 0) & (minus == 0))
    assert np.allclose(a.weights()[reached & (minus != STUCK_HIGH)], 50)
    assert np.allclose(a.weights()[(plus == 0) & (minus == STUCK_HIGH)], 0), "as near as it comes"
    assert np.allclose(a.weights()[(plus == STUCK_LOW) & (minus == 0)], 0)


def test_only_the_cell_of_a_pair_that_moves_is_written() -> None:
    a = array(HERMES.cell, np.full((50, 50), 30))
    kept, moved = a.g[1].copy(), a.g[0].copy()
    a.now_s = 10.0
    a.program(every(a), np.full(2500, 40))
    assert np.array_equal(a.g[1], kept) and not np.array_equal(a.g[0], moved)
    assert a.wear[1].max() == 0 and a.counts.pulses == a.wear[0].sum() > 2500
    assert a.written_s[1].max() == 0 and a.written_s[0].min() == 10
    a.program(every(a), np.full(2500, 40))
    assert a.wear[1].min() > 0, "a refresh writes both"
    a.pulse(every(a), np.ones(2500, np.int64))
    worn = a.wear.copy()
    a.program(every(a), np.full(2500, 40))
    assert (a.wear[0] > worn[0]).all() and np.array_equal(a.wear[1], worn[1]), "pulses have moved the first cells"


def test_write_verify_counts_its_pulses_and_reads() -> None:
    a = array(PRESETS["neurram"].cell, np.zeros((100, 100), np.int64))
    assert a.counts.pulses == 0 and a.wear.max() == 0, "making a tile is not using it"
    a.program(every(a), np.full(10_000, 30))
    assert a.counts.pulses == a.counts.verify_reads == a.wear.sum()
    assert a.wear[0].mean() == pytest.approx(8.5, rel=0.06) and a.wear.max() <= 30


def test_seeds_reproduce() -> None:
    one, same, other = (array(HERMES.cell, np.full((9, 9), 40), seed) for seed in (1, 1, 2))
    assert np.array_equal(one.g, same.g) and not np.array_equal(one.g, other.g)


# ---- Wires


def mesh(g: npt.NDArray[np.float64], wire_ohm: float) -> npt.NDArray[np.float64]:
    """All nodes of the network at once, the plain way."""
    rows, columns = g.shape
    n, wire = rows * columns, 1e6 / wire_ohm
    a, out = np.zeros((2 * n, 2 * n)), np.zeros((rows, columns))

    def join(p: int | None, q: int | None, conductance: float) -> None:
        for x, y in ((p, q), (q, p)):
            if x is not None:
                a[x, x] += conductance
                if y is not None:
                    a[x, y] -= conductance

    for i in range(rows):
        for j in range(columns):
            r, c = i * columns + j, n + i * columns + j
            join(r, c, g[i, j])
            join(r, r - 1 if j else None, wire)
            join(c, c + columns if i < rows - 1 else None, wire)
    for i in range(rows):
        drive = np.zeros(2 * n)
        drive[i * columns] = wire
        v = np.linalg.solve(a, drive)
        out[i] = wire * v[n + (rows - 1) * columns :]
    return out


def test_the_mesh_is_solved_exactly() -> None:
    g = rng().uniform(0, 25, (5, 4))
    for ohm in (0.35, 200.0):
        assert np.allclose(wires.exact(g, ohm), mesh(g, ohm), rtol=1e-9)
    assert wires.exact(np.full((1, 1), 20.0), 1e4)[0, 0] == pytest.approx(1 / (1 / 20.0 + 2 * 1e-2))
    assert np.array_equal(wires.exact(g, 0.0), g)


def test_the_first_order_is_right_to_first_order() -> None:
    g = rng().uniform(0, 25, (24, 17))
    drop, error = [], []
    for ohm in (0.01, 0.1, 1.0):
        exact = wires.exact(g, ohm)
        drop.append(np.abs(exact - g).max())
        error.append(np.abs(exact - wires.first_order(g, ohm)).max())
    assert drop[1] / drop[0] == pytest.approx(10, rel=0.01) and error[1] / error[0] == pytest.approx(100, rel=0.05)
    assert error[2] < 2e-3 * drop[2]


def test_presets_are_found_by_name() -> None:
    assert preset("tile-hermes") is preset("hermes") is HERMES
    assert all(p.source and p.calibrated_to for p in PRESETS.values())
    with pytest.raises(UsageError, match="neurram"):
        preset("nothing")
