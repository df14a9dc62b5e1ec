"""The model on memristive tiles: ideal ones give the core's own bits, others learn with what their cells can do."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgehmn.checkpoint import Config
from edgehmn.core import CoreModel, Image
from edgehmn.errors import UsageError
from edgehmn.plasticity import Rule
from edgehmn.quantize import Precision
from edgehmn.runtime.tile import TileRuntime
from edgehmn.runtime.tile_plastic import context_hash
from edgehmn.streams import play
from edgehmn.targets.memristive.mapping import MAPPINGS, TileSetup
from edgehmn.targets.memristive.presets import HERMES, IDEAL, Converters
from edgehmn.targets.memristive.writes import SCHEMES
from tests import exact
from tests.models import BUSY, GPT2, SIX, TINY, opened, random_tokens, repetitive_tokens, tiny_image

ROOT = Path(__file__).resolve().parent.parent
LEARNING = replace(BUSY, eta_local=0.05)


def image(config: Config = TINY, rule: Rule | None = LEARNING, bits: Precision | None = None) -> Image:
    return opened(tiny_image(config, rule, bits))


def learned(runtime: TileRuntime, n: int = 150) -> np.ndarray:
    return runtime.process(repetitive_tokens(n), learn=True)


@pytest.mark.parametrize("config", [TINY, GPT2, SIX])
@pytest.mark.parametrize("bits", [None, Precision(inputs=8)])
def test_ideal_tiles_are_the_core(config: Config, bits: Precision | None) -> None:
    """Every bit: static, learning, following, the delta; windows that slide and restart, inputs of 8 and 16 bits."""
    which = image(config, bits=bits)
    core, tiles = CoreModel(which, seed=3), TileRuntime(which, "ideal", TileSetup(writes="pulse"), seed=3)
    ids = repetitive_tokens(80, vocab_size=config.vocab_size)
    for learn, follow in ((False, False), (True, False), (False, True), (True, False)):
        assert np.array_equal(
            core.process(ids, learn=learn, follow=follow), tiles.process(ids, learn=learn, follow=follow)
        )
        assert core.save() == tiles.save()
        core.reset()
        tiles.reset()
    assert core.counts() == tiles.counts() and core.counts().writes > 300
    for runtime in (core, tiles):
        runtime.process(ids[:3], learn=False)
    assert np.array_equal(core.generate(20), tiles.generate(20))


def test_four_bit_weights_lie_on_tiles_too() -> None:
    which = image(bits=Precision(weights=4))
    ids = random_tokens(40)
    assert np.array_equal(
        CoreModel(which).process(ids, learn=False), TileRuntime(which, "ideal").process(ids, learn=False)
    )


def test_many_bits_of_converters_are_enough() -> None:
    which = image()
    fine = replace(IDEAL, converters=Converters(dac_bits=16, adc_bits=31))
    tiles = TileRuntime(which, fine, TileSetup("encoder"))
    ids = random_tokens(60)
    apart = tiles.process(ids, learn=False).astype(np.int64) - CoreModel(which).process(ids, learn=False)
    assert np.abs(apart).max() < 0.01 * 65536
    coarse = TileRuntime(which, replace(IDEAL, converters=Converters(dac_bits=8, adc_bits=8)), TileSetup("encoder"))
    assert coarse.process(ids, learn=False).mean() == pytest.approx(
        CoreModel(which).process(ids, learn=False).mean(), rel=0.02
    )


@pytest.mark.parametrize("mapping", MAPPINGS)
@pytest.mark.parametrize("target", ["hermes", "neurram", "reram-om"])
def test_real_devices_run_and_are_reproduced_by_their_seed(target: str, mapping: str) -> None:
    which = image()
    one, same, other = (TileRuntime(which, target, TileSetup(mapping), seed=s) for s in (1, 1, 2))
    scores = learned(one, 40)
    assert np.array_equal(scores, learned(same, 40)) and one.save() == same.save()
    assert not np.array_equal(scores, learned(other, 40))
    assert one.tiles == sum(m.tiles for m in one.matrices) > 0


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_scheme_learns_on_cells(scheme: str) -> None:
    """A phrase that comes again and again is learned, and every pulse is counted at its cell."""
    tiles = TileRuntime(image(), "ideal", TileSetup("adapters", writes=scheme))
    scores = learned(tiles, 400)
    use = tiles.use()
    assert scores[-40:].mean() < 0.8 * scores[:40].mean()
    assert use.learned == 399 and use.writes.pulses == int(use.wear.sum()) > 0
    cost = tiles.cost()
    assert cost.calibrated_to.startswith("simulated") and 0 < cost.plasticity_share_of_energy < 1
    assert cost.energy_nj_per_learned_token > cost.energy_nj_per_token > 0
    assert all(v == v for v in asdict(cost).values())


def test_following_and_scoring_write_nothing() -> None:
    tiles = TileRuntime(image(), "hermes")
    tiles.process(random_tokens(30), learn=False, follow=True)
    assert tiles.use().writes.pulses == 0 and tiles.cost().plasticity_share_of_energy == 0


def test_what_was_learned_is_saved_loaded_and_forgotten() -> None:
    which = image()
    tiles = TileRuntime(which, "ideal", TileSetup(writes="pulse"))
    learned(tiles)
    delta = tiles.save()
    for scheme in SCHEMES:
        core = CoreModel(which)
        core.load(delta)
        other = TileRuntime(which, "ideal", TileSetup(writes=scheme))
        other.load(delta)
        ids = random_tokens(30)
        assert np.array_equal(core.process(ids, learn=False), other.process(ids, learn=False))
        assert other.use().writes.programmed > 0, "loading writes cells, and that is counted"
    tiles.forget(5)
    tiles.reset()
    fresh = CoreModel(which, seed=5)
    assert np.array_equal(fresh.process(ids, learn=True), tiles.process(ids, learn=True))


def test_a_pause_changes_scores() -> None:
    which, ids = image(), random_tokens(200)
    quiet = replace(HERMES, converters=Converters(), cell=replace(HERMES.cell, compensated=False))
    before, after = (TileRuntime(which, quiet, TileSetup("encoder")) for _ in range(2))
    after.advance(365 * 86400.0)
    base = CoreModel(which).process(ids, learn=False).astype(np.int64)
    errors = [np.abs(t.process(ids, learn=False).astype(np.int64) - base).mean() for t in (before, after)]
    assert errors[1] > 1.2 * errors[0]


def test_what_was_learned_drifts_over_a_pause_and_a_refresh_mends_it() -> None:
    """A year: conductances fall by their power law, predictions with them; writing the cells anew from the integers
    that stay in digital memory brings both back."""
    which, ids = image(), repetitive_tokens(60)
    quiet = replace(HERMES, converters=Converters(), wire_ohm=0.0, cell=replace(HERMES.cell, compensated=False))
    tiles = TileRuntime(which, quiet, TileSetup("adapters", threshold=1))
    learned(tiles, 400)
    core = CoreModel(which)
    core.load(tiles.save())

    def now() -> tuple[float, float]:
        """Size of what lies on cells, and how far scores are from those of the integers."""
        tiles.reset()
        core.reset()
        size = float(np.sqrt(sum((m.weights() ** 2).sum() for m in tiles.matrices)))
        apart = tiles.process(ids, learn=False).astype(np.int64) - core.process(ids, learn=False)
        return size, float(np.abs(apart).mean())

    size, apart = now()
    tiles.advance(365 * 86400.0)
    faded, further = now()
    assert 0.4 * size < faded < 0.8 * size and further > 2 * apart, "(1 + a year / 300 s) ** -0.05 is 0.56"
    tiles.load(tiles.save())
    mended, near = now()
    assert mended == pytest.approx(size, rel=0.1) and near < further / 2


def test_what_does_not_go_together_is_refused() -> None:
    plain = image(rule=replace(LEARNING, eta_local=0.0, row_slots=(0, 0)))
    for target, setup, said in (
        ("prime", TileSetup(writes="pulse"), "--writes verify or --cell-bits 0"),
        ("hermes", TileSetup(cell_bits=2, writes="accumulate"), "--writes verify"),
        ("isaac", TileSetup(cell_bits=0), "4 levels, too few for analog values: --cell-bits 2"),
        ("isaac", TileSetup(cell_bits=3), "too few for 3 bits"),
        ("hermes", TileSetup(cell_bits=8), "0..7"),
        ("hermes", TileSetup(writes="noise", threshold=3), "threshold or accumulate or verify"),
    ):
        with pytest.raises(UsageError, match=said):
            TileRuntime(image(), target, setup)
    if not plain.header.n_dense:
        with pytest.raises(UsageError, match="no adapters"):
            TileRuntime(plain, "hermes", TileSetup("adapters"))


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_slices_of_cells_hold_the_model_and_what_it_learns(bits: int) -> None:
    """Without noise, weights in slices are the same weights."""
    which, ids = image(), repetitive_tokens(60)
    core = CoreModel(which, seed=2)
    setup = TileSetup(cell_bits=bits, threshold=1)
    tiles = TileRuntime(which, "ideal", setup, seed=2)
    assert np.array_equal(core.process(ids, learn=True), tiles.process(ids, learn=True))
    assert core.save() == tiles.save() and tiles.tiles > TileRuntime(which, "ideal").tiles
    assert tiles.use().writes.pulses > 0


def test_hidden_vectors_are_computed_once_for_many_ways_of_writing() -> None:
    """Static scores and costs are those of a run in one piece."""
    which, ids = image(), repetitive_tokens(80)
    whole = TileRuntime(which, "ideal", TileSetup(threshold=1), seed=4)
    encoder = TileRuntime(which, "ideal", TileSetup("encoder"), seed=4)
    stream, use = encoder.encode_stream(ids), encoder.encoder_use()
    head = TileRuntime(which, "ideal", TileSetup(threshold=1), seed=4)
    head.encoded_by(use)
    assert np.array_equal(play(head, stream), whole.process(ids, learn=True)) and head.save() == whole.save()
    one, other = head.cost(), whole.cost()
    assert one.energy_nj_per_learned_token == pytest.approx(other.energy_nj_per_learned_token, rel=1e-3)
    assert one.latency_us_per_token == other.latency_us_per_token
    assert {m.reads.vectors for m in encoder.matrices[:-1]} == {80}, "matrices with one input are asked once"


def test_the_context_hash_is_that_of_the_specification() -> None:
    for tokens in ([3], [3, 70_000], [0, 0]):
        assert context_hash(tokens) == exact.context_hash(tokens)


def test_names_that_are_not_known_are_refused() -> None:
    for target, setup in (("x", TileSetup()), ("hermes", TileSetup("x")), ("hermes", TileSetup(writes="x"))):
        with pytest.raises(UsageError, match=r"there are|known are"):
            TileRuntime(image(), target, setup)


@pytest.mark.parametrize("text", ["wikitext-2", "personal"])
def test_the_committed_table_meets_the_goal(text: str, reference_image: bytes) -> None:
    """HERMES with the best way of writing: nine tenths of the digital gain, and of the cells' own part; a tenth of the
    energy."""
    results = json.loads((ROOT / "bench" / "results" / "tiles.json").read_text("utf-8"))
    assert results["image_id"] == Image(reference_image).id

    def runs(which: str) -> list[dict[str, Any]]:
        return [results["runs"][f"{text}/{which}/{seed}"] for seed in range(3)]

    def loss(which: str) -> float:
        return float(np.mean([r["nats"] for r in runs(which)]))

    static = results["runs"][f"{text}/digital/static/-/-/0"]["nats"]
    digital, bare = loss("digital/learning/-/-"), loss("digital without cells/learning/-/-")
    tile = loss("hermes/learning/verify/adapters")
    assert (static - tile) / (static - digital) >= 0.9 and (bare - tile) / (bare - digital) >= 0.9
    whole = loss("hermes/static/-/encoder") - loss("hermes/learning/verify/all")
    assert whole / (static - digital) >= 0.9, "over the same tiles without learning"
    for mapping in ("all", "adapters"):
        shares = [r["cost"]["plasticity_share_of_energy"] for r in runs(f"hermes/learning/verify/{mapping}")]
        assert max(shares) < 0.1
