"""Products on memristive tiles: exact where they should be, off by no more than is stated elsewhere; energy."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from edgehmn.errors import UsageError
from edgehmn.targets.memristive.cells import WriteCounts
from edgehmn.targets.memristive.energy import TileUse, one_pass, price
from edgehmn.targets.memristive.noise import Polynomial
from edgehmn.targets.memristive.presets import HERMES, HERMES_PARTS, IDEAL, ISAAC, PRIME, Converters, Preset
from edgehmn.targets.memristive.tiles import TiledMatrix
from edgehmn.targets.memristive.writes import scheme

ROOT = Path(__file__).resolve().parent.parent
OPERATIONS = 2 * 256 * 256
Integers = npt.NDArray[np.int64]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def integers(shape: tuple[int, ...], most: int, seed: int = 0) -> Integers:
    return rng(seed).integers(-most, most + 1, shape)


def matrix(weights: Integers, kind: Preset, seed: int = 0) -> TiledMatrix:
    return TiledMatrix(weights, kind, rng(seed))


@pytest.mark.parametrize("shape", [(5, 3), (300, 344), (3072, 128), (129, 600)])
def test_an_ideal_tile_is_exact(shape: tuple[int, int]) -> None:
    w, x = integers(shape, 127), integers((3, shape[1]), 32767, 1)
    tiles = matrix(w, IDEAL)
    assert np.array_equal(np.rint(tiles.product(x)), x @ w.T)
    assert np.array_equal(np.rint(tiles.product(x[0])), w @ x[0])
    assert tiles.tiles == -(-shape[0] // 256) * -(-shape[1] // 256)


def test_slices_of_two_bits_and_streamed_inputs_are_exact_with_enough_levels() -> None:
    """ISAAC: nine bits hold the sum of 128 products of one input bit and a digit of two bits."""
    w, x = integers((40, 300), 127), integers((4, 300), 32767, 1)
    assert np.array_equal(np.rint(matrix(w, ISAAC).product(x)), x @ w.T)


@pytest.mark.parametrize("bits", [8, 10])
def test_converters_round_by_no_more_than_they_state(bits: int) -> None:
    w, x = integers((200, 256), 127), integers((50, 256), 127, 1)
    tiles = matrix(w, replace(IDEAL, converters=Converters(adc_bits=bits)))
    y = tiles.product(x)
    assert np.abs(y - x @ w.T).max() <= tiles.converter_step() / 2 * (1 + 1e-6)
    assert tiles.converter_step() < 1.3 * np.abs(x @ w.T).max() / (2 ** (bits - 1) - 1), "the range fits what comes"
    assert tiles.reads.repeated > 0


def test_inputs_round_by_no_more_than_they_state() -> None:
    w, x = integers((20, 128), 127), integers((9, 128), 32767, 1)
    tiles = matrix(w, replace(IDEAL, converters=Converters(dac_bits=8)))
    half_level = np.abs(x).max(axis=1, keepdims=True) / 127 / 2
    assert (np.abs(tiles.product(x) - x @ w.T) <= half_level * np.abs(w).sum(axis=1) * (1 + 1e-9)).all()
    fits = integers((9, 128), 127, 2)
    assert np.array_equal(np.rint(tiles.product(fits)), fits @ w.T), "what fits is driven as it is"


def test_a_stated_range_clips() -> None:
    w = np.full((4, 100), 127)
    tiles = matrix(w, replace(IDEAL, converters=Converters(dac_bits=8, adc_bits=8, bound=10.0)))
    assert np.allclose(tiles.product(np.full(100, 127)), 10.0 * 127 * 127)


def test_read_noise_for_each_output_is_that_of_each_cell() -> None:
    """The exact variance of an output, instead of a draw for every cell: the same distribution."""
    noise = Polynomial(read_white=0.05, read_floor=0.3)
    kind = replace(IDEAL, cell=replace(IDEAL.cell, g_min=2.0, noise=noise))
    w, x, n = integers((12, 60), 127), integers((60,), 127, 1), 4000
    tiles = matrix(w, kind)
    drawn = tiles.product(np.broadcast_to(x, (n, 60)))
    array = tiles.arrays[0]
    sigma = noise.read_sigma(array.g, 0.0)
    cells = np.maximum(array.g + sigma * rng(5).standard_normal((n, *array.g.shape)), 0)
    plain = np.einsum("i,nio->no", x, cells[:, 0] - cells[:, 1]) / array.unit
    assert np.allclose(drawn.std(0), plain.std(0), rtol=0.08)
    assert (np.abs(drawn.mean(0) - plain.mean(0)) < 5 * plain.std(0) * np.sqrt(2 / n)).all()
    z = (drawn - drawn.mean(0)) / drawn.std(0)
    assert abs((z**3).mean()) < 0.05 and (z**4).mean() == pytest.approx(3, abs=0.1), "a normal number"
    assert abs(np.corrcoef(z[:-1, 0], z[1:, 0])[0, 1]) < 0.06, "drawn anew for every product"


def test_products_and_seeds_reproduce() -> None:
    w, x = integers((30, 300), 127), integers((6, 300), 32767, 1)
    one, same, other = (matrix(w, HERMES, seed).product(x) for seed in (1, 1, 2))
    assert np.array_equal(one, same) and not np.array_equal(one, other)
    error = one - x @ w.T
    assert 0.02 < error.std() / (x @ w.T).std() < 0.3


def test_a_pause_shrinks_products_and_compensation_mends_it() -> None:
    w, x = integers((60, 128), 127), integers((80, 128), 127, 1)
    bare = replace(HERMES, cell=replace(HERMES.cell, compensated=False))
    slopes = {}
    for name, kind in (("bare", bare), ("compensated", HERMES)):
        tiles = matrix(w, kind)
        tiles.advance(30 * 86400.0)
        y, true = tiles.product(x).ravel(), (x @ w.T).ravel()
        slopes[name] = float(y @ true / (true @ true))
    assert slopes["bare"] < 0.8 and slopes["compensated"] == pytest.approx(1, abs=0.07)


def test_single_weights_are_written_and_read() -> None:
    tiles = matrix(np.zeros((6, 400), np.int64), IDEAL)
    o, i = np.array([0, 5, 3]), np.array([0, 399, 260])
    tiles.program(o, i, np.array([7, -90, 33]))
    assert np.allclose(tiles.read(o, i), [7, -90, 33]) and np.allclose(tiles.weights()[o, i], [7, -90, 33])
    tiles.pulse(o, i, np.array([2, -50, 0]))
    assert np.allclose(tiles.weights_at(o, i), [9, -127, 33])
    x = integers((400,), 127)
    assert np.array_equal(np.rint(tiles.product(x)), np.rint(tiles.weights() @ x)), "products see what was written"
    sliced = matrix(np.zeros((6, 400), np.int64), PRIME)
    sliced.program(o, i, np.array([7, -90, 33]))
    assert np.allclose(sliced.weights()[o, i], [7, -90, 33])


def test_copies_fill_a_tile_and_their_errors_average() -> None:
    w, x = integers((100, 120), 127), integers((300, 120), 127, 1)
    assert np.array_equal(np.rint(TiledMatrix(w, IDEAL, rng(), fill=True).product(x)), x @ w.T)
    quiet = replace(HERMES, converters=Converters(), wire_ohm=0.0)
    errors = []
    for fill in (False, True):
        tiles = TiledMatrix(w, quiet, rng(3), fill=fill)
        errors.append((tiles.product(x) - x @ w.T).std())
        assert tiles.tiles == 1 and tiles.reads.passes == 300, "a tile costs what it costs"
    assert errors[1] == pytest.approx(errors[0] / 2, rel=0.15), "four copies"
    tiles.program(np.array([7]), np.array([119]), np.array([80]))
    tiles.product(x)
    tiles.pulse(np.array([99]), np.array([3]), np.array([2]))
    assert tiles.write_counts().programmed == 4 and np.count_nonzero(tiles.wear()) >= 8
    assert np.allclose(tiles.weights_at(np.array([7]), np.array([119])), tiles.weights()[7, 119])


def test_the_committed_comparison_with_crosssim_meets_its_limits() -> None:
    results = json.loads((ROOT / "bench" / "results" / "crosssim.json").read_text("utf-8"))
    assert {r["draws"] for r in results["errors"]} <= {1, 1000} and len(results["errors"]) == 8
    assert all(abs(r["spread_ratio"] - 1) <= 0.03 and r["means_apart"] <= 0.03 for r in results["errors"])
    ratios = {(r["peer"], r["products"]): r["ratio"] for r in results["speed"]}
    assert ratios.keys() == {(peer, n) for peer in ("CrossSim", "NumPy") for n in (1, 64)}
    assert all(v >= 5 if peer == "CrossSim" else v <= 2 for (peer, _), v in ratios.items())


# ---- Schemes of writing


def plain_steps(tokens: int) -> list[Integers]:
    return [rng(t).integers(-2, 3, (8, 10)) for t in range(tokens)]


def test_pulses_of_an_ideal_device_are_the_steps() -> None:
    tiles = matrix(np.zeros((8, 10), np.int64), IDEAL)
    writer = scheme("pulse", tiles, rng())
    for steps in plain_steps(9):
        writer.write(steps)
    assert np.allclose(tiles.weights(), sum(plain_steps(9)))
    assert tiles.write_counts().pulses == sum(int(np.abs(s).sum()) for s in plain_steps(9)) == tiles.wear().sum()


def test_a_coarse_device_rounds_without_bias() -> None:
    coarse = replace(IDEAL, cell=replace(IDEAL.cell, update=replace(IDEAL.cell.update, step=10 / 127)))
    tiles = matrix(np.zeros((300, 300), np.int64), coarse)
    scheme("pulse", tiles, rng()).write(np.full((300, 300), 3))
    assert set(np.unique(np.rint(tiles.weights()))) == {0, 10}
    assert tiles.weights().mean() == pytest.approx(3, rel=0.03)


def test_the_noise_of_a_device_rounds_without_bias() -> None:
    """One pulse for a small step, of its width; its noise is what cycles of whole pulses have, in proportion."""
    update = replace(IDEAL.cell.update, step=10 / 127, cycle=0.5)
    tiles = matrix(np.zeros((200, 200), np.int64), replace(IDEAL, cell=replace(IDEAL.cell, update=update)))
    scheme("noise", tiles, rng()).write(np.full((200, 200), 3))
    assert tiles.wear().max() == 1 and tiles.weights().mean() == pytest.approx(3, rel=0.02)
    assert tiles.weights().std() == pytest.approx(10 * 0.5 * np.sqrt(0.3), rel=0.02)
    scheme("noise", tiles, rng()).write(np.full((200, 200), 24))
    assert tiles.write_counts().pulses == 4 * 200 * 200 and tiles.weights().mean() == pytest.approx(27, rel=0.02)


def test_thresholds_drop_and_accumulators_wait() -> None:
    steps = np.array([[1, 2, -3, 0]])
    tiles = matrix(np.zeros((1, 4), np.int64), IDEAL)
    scheme("threshold", tiles, rng(), 2).write(steps)
    assert np.allclose(tiles.weights(), [[0, 2, -3, 0]])
    tiles = matrix(np.zeros((1, 4), np.int64), IDEAL)
    writer = scheme("accumulate", tiles, rng(), 4)
    for expected in ([0, 0, 0, 0], [0, 4, -6, 0], [0, 4, -6, 0], [4, 8, -12, 0]):
        writer.write(steps)
        assert np.allclose(tiles.weights(), [expected])


def test_write_verify_does_not_add_up_its_errors() -> None:
    tiles = matrix(np.zeros((40, 40), np.int64), HERMES)
    writer = scheme("verify", tiles, rng(), 4)
    assert writer.master
    for sign in (1, -1) * 20:
        writer.write(np.full((40, 40), 30 * sign))
    writer.write(np.full((40, 40), 30))
    assert tiles.weights().mean() == pytest.approx(30, abs=0.5) and tiles.weights().std() < 6
    with pytest.raises(UsageError, match="accumulate"):
        scheme("nothing", tiles, rng())


# ---- Energy


def test_the_parts_predict_what_they_were_not_calibrated_to() -> None:
    one, four = (one_pass(HERMES_PARTS, 256, 256, n) for n in (1, 4))
    assert one.energy_pj == pytest.approx(13_400, rel=0.01) and one.latency_ns == pytest.approx(133)  # calibrated
    assert four.energy_pj == pytest.approx(52_800, rel=0.10) and four.latency_ns == pytest.approx(521, rel=0.10)
    assert OPERATIONS / one.core_pj == pytest.approx(10.5, rel=0.25)  # TOPS/W of the core
    assert 64 * OPERATIONS / one.latency_ns / 1e3 == pytest.approx(63.1, rel=0.01)  # TOPS of the chip


def use(passes: int, writes: WriteCounts | None = None, learned: int = 0) -> TileUse:
    wear = np.array([0, 3, 100], np.uint32)
    return TileUse(10, learned, passes, passes, 0, 0, writes or WriteCounts(), wear)


def test_a_tile_half_filled_pays_for_its_converters() -> None:
    def passes(outputs: int, inputs: int) -> int:
        tiles = matrix(np.zeros((outputs, inputs), np.int64), HERMES)
        tiles.product(np.ones(inputs, np.int64))
        return tiles.reads.passes - tiles.reads.repeated

    assert passes(256, 256) == passes(128, 128) == 1 and passes(257, 256) == passes(256, 257) == 2
    assert price(use(1), HERMES).energy_nj_per_token * 10 == pytest.approx(
        one_pass(HERMES.parts, 256, 256).energy_pj / 1e3
    )


def test_writes_are_priced_and_wear_gives_years() -> None:
    cost = price(use(1, WriteCounts(pulses=50, verify_reads=20), learned=10), HERMES, tokens_per_day=1000)
    assert cost.write_energy_nj_per_learned_token == pytest.approx((50 * 20 + 20 * 5) / 10 / 1e3)
    assert cost.pulses_per_learned_token == 5 and cost.most_pulses_per_cell == 100
    assert cost.years_to_first_worn_cell == pytest.approx(1e8 / 100 * 10 / 1000 / 365.25)
    assert cost.calibrated_to.startswith("simulated, calibrated to HERMES") and 0.8 < cost.adc_share_of_energy < 0.95
    assert price(use(1), HERMES).years_to_first_worn_cell == float("inf")
    passes = one_pass(HERMES.parts, 256, 256).latency_ns / 10 / 1e3
    assert price(use(1), HERMES).latency_us_per_token == pytest.approx(passes)
    beside = price(replace(use(1), digital_macs=64_000), HERMES)
    assert beside.latency_us_per_token == pytest.approx(passes + 0.1), "tiles and the digital unit take turns"
