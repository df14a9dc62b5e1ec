"""Tuning: what the search methods find, that they are compared fairly, and that a tuned export is a sound one."""

import json
import signal
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgehmn.calibrate import calibrate, calibration_ids
from edgehmn.checkpoint import Checkpoint
from edgehmn.core import CoreModel, Image
from edgehmn.errors import UsageError
from edgehmn.image import build_image, with_rule
from edgehmn.plasticity import Rule
from edgehmn.quantize import quantise
from edgehmn.rules import read_rule
from edgehmn.runtime.protocol import nats
from edgehmn.streams import HiddenStream
from edgehmn.tuning.evolution import cma_es
from edgehmn.tuning.objective import mean_square_of_dense_weights, online_loss
from edgehmn.tuning.parameters import NAMES, PARAMETERS, Bounded, Space, Strength, value_of, with_value
from edgehmn.tuning.random_search import random_search
from edgehmn.tuning.search import Box, Coordinates, Counted, Found, Objective
from edgehmn.tuning.spsa import spsa
from tests.command_line import edgehmn, finish, process
from tests.models import random_tokens, tiny_image

Copy = Callable[[Path], Path]
Method = Callable[[Objective, Box, int, int], Found]
BEST = np.array([2e-3, 5e-4, 3e-4])  # of the fake objective, as strengths
START = BEST * [4, 0.25, 2.5]
BOX = Box(np.log(START), np.log(START / 10), np.log(START * 10))
FLOAT_ONLY = ("error", "write", "beta_write", "theta_write", "initial_deviation")  # an image has no place for these
EVERYTHING_ON = Rule(
    gamma=0.5, w_novelty=0.25, kappa=0.25, beta_attention=0.5, phase_period=32, rho_trace=(0.0, 0.5), decay=2e-4
)


def noisy_valley(at: Coordinates, seed: int, noise: float = 0.02) -> float:
    """A quadratic in the logarithms, with noise that the seed decides and that does not go away by stepping aside."""
    rng = np.random.default_rng(seed)
    return valley(at) + noise * float(rng.normal() + 0.1 * rng.normal(size=3) @ at)


def valley(at: Coordinates) -> float:
    return 5 + float([0.1, 0.05, 0.2] @ (at - np.log(BEST)) ** 2)


def plain_spsa(objective: Objective, box: Box, budget: int, seed: int, **options: Any) -> Found:
    return spsa(objective, box, budget, seed, first_step=np.full(len(box.start), 0.15), **options)


METHODS: dict[str, Method] = {"spsa": plain_spsa, "random_search": random_search, "cma": cma_es}


# ---- Search


def test_spsa_finds_the_bottom_of_a_noisy_valley_in_log_space() -> None:
    left = [(valley(plain_spsa(noisy_valley, BOX, 240, seed).best) - 5) / (valley(BOX.start) - 5) for seed in range(10)]
    assert np.mean(left) < 0.05 and max(left) < 0.2


@pytest.mark.parametrize("name", METHODS)
def test_every_method_gains_on_its_start(name: str) -> None:
    rises = [valley(METHODS[name](noisy_valley, BOX, 60, seed).best) - valley(BOX.start) for seed in range(5)]
    assert np.mean(rises) < -0.1 and max(rises) < 0


@pytest.mark.parametrize("name", METHODS)
def test_budgets_are_equal_to_the_evaluation(name: str) -> None:
    for budget in (1, 2, 3, 5, 8, 13, 40):
        calls: list[int] = []

        def objective(at: Coordinates, seed: int, calls: list[int] = calls) -> float:
            calls.append(seed)
            return noisy_valley(at, seed)

        found = METHODS[name](objective, BOX, budget, 0)
        assert len(calls) == len(found.losses) == budget


def test_a_budget_cannot_be_overdrawn() -> None:
    counted = Counted(noisy_valley, 1)
    counted(BOX.start, 0)
    with pytest.raises(AssertionError, match="budget"):
        counted(BOX.start, 0)


@pytest.mark.parametrize("name", METHODS)
def test_seeds_reproduce(name: str) -> None:
    state = np.random.get_state()[1].tolist()
    first, again, other = (METHODS[name](noisy_valley, BOX, 30, seed) for seed in (1, 1, 2))
    assert first.losses == again.losses and (first.best == again.best).all()
    assert first.losses != other.losses
    assert np.random.get_state()[1].tolist() == state, "the generator that others share is left alone"


@pytest.mark.parametrize("name", METHODS)
def test_no_method_leaves_the_box(name: str) -> None:
    """The bottom lies outside, and one coordinate starts on its bound."""
    box = Box(BOX.start, np.minimum(BOX.start, np.log(BEST) + 0.5), BOX.start + np.array([1e-9, 1.0, 1.0]))
    seen: list[Coordinates] = []

    def objective(at: Coordinates, seed: int) -> float:
        seen.append(at)
        return noisy_valley(at, seed)

    for at in (METHODS[name](objective, box, 60, 3).best, *seen):
        assert (box.low <= at).all() and (at <= box.high).all()


def test_common_random_numbers_make_the_difference() -> None:
    """Noise that both sides of a pair share is not in their slope."""
    noisier = partial(noisy_valley, noise=0.3)
    shared, own = (
        [valley(plain_spsa(noisier, BOX, 60, seed, common_random_numbers=c).best) - 5 for seed in range(20)]
        for c in (True, False)
    )
    assert np.mean(shared) < 0.5 * np.mean(own)


def test_a_step_that_does_harm_is_taken_back() -> None:
    """A cliff beside a slope: without blocking the iterates would stay on the far side."""

    def cliff(at: Coordinates, seed: int) -> float:
        return float(-at.sum()) + (50.0 if (at > 1.0).any() else 0.0) + 0.01 * np.random.default_rng(seed).normal()

    box = Box(np.zeros(2), np.full(2, -3.0), np.full(2, 3.0))
    assert (plain_spsa(cliff, box, 60, 0).best <= 1.0).all()


def test_separate_meta_rates() -> None:
    """A meta-rate of zero keeps its parameter, and the first step is as long as its rate says."""
    first_step = np.array([0.0, 0.05, 0.1])
    found = spsa(noisy_valley, BOX, 60, 0, first_step=first_step)
    assert found.best[0] == BOX.start[0] and (found.best[1:] != BOX.start[1:]).all()
    one = spsa(lambda at, _: float(at.sum()), BOX, 2, 0, first_step=first_step)
    np.testing.assert_allclose(abs(one.best - BOX.start), first_step, atol=1e-12)


def test_a_flat_objective_moves_nothing() -> None:
    np.testing.assert_allclose(plain_spsa(lambda at, seed: 1.0, BOX, 20, 0).best, BOX.start, rtol=1e-12)


# ---- Parameters and rules


@pytest.mark.parametrize("rule", [Rule(), EVERYTHING_ON, Rule(gamma=0.25, w_uncertainty=0.5), Rule(gamma=1.5)])
def test_a_rule_that_was_read_from_an_image_makes_the_same_image(rule: Rule) -> None:
    image = tiny_image(rule=rule)
    read = read_rule(Image(image))
    assert with_rule(image, read) == image
    for field in fields(Rule):
        if rule.gamma <= 1 and field.name not in FLOAT_ONLY:
            assert getattr(read, field.name) == pytest.approx(getattr(rule, field.name), rel=1e-3, abs=1e-4), field.name


def test_a_rule_can_be_put_into_an_image_that_has_another() -> None:
    assert with_rule(tiny_image(), EVERYTHING_ON) == tiny_image(rule=EVERYTHING_ON)
    assert with_rule(tiny_image(rule=EVERYTHING_ON), Rule()) == tiny_image(rule=Rule())


@pytest.mark.parametrize("rule", [Rule(ngram_orders=(1, 2, 3, 4, 5)), Rule(rho_trace=(0.0,) * 9)])
def test_a_rule_with_more_than_an_image_holds_is_refused(rule: Rule) -> None:
    with pytest.raises(UsageError, match="8 dense adapters"):
        with_rule(tiny_image(), rule)


def test_parameters_are_fields_of_the_rule_and_reach_the_image() -> None:
    image = tiny_image(rule=EVERYTHING_ON)
    rule = read_rule(Image(image))
    for name in NAMES:
        changed = with_value(rule, name, 0.75 * value_of(rule, name))
        assert with_rule(image, changed) != image, name
        read = value_of(read_rule(Image(with_rule(image, changed))), name)
        assert read == pytest.approx(value_of(changed, name), rel=1e-2), name


def test_every_corner_of_the_box_is_a_valid_image() -> None:
    image = tiny_image(rule=EVERYTHING_ON)
    space = Space(read_rule(Image(image)), NAMES)
    for corner in (space.box.low, space.box.high, space.box.start):
        Image(with_rule(image, space.rule_at(corner)))
    assert with_rule(image, space.rule_at(space.box.start)) == image


def test_strengths_are_searched_by_their_logarithm_and_others_in_a_box() -> None:
    space = Space(EVERYTHING_ON, ("eta_local", "beta_attention"))
    assert space.names == ("eta_local", "beta_attention")
    moved = space.rule_at(space.box.start + np.array([np.log(2), 1.0]))
    assert moved.eta_local == pytest.approx(2 * EVERYTHING_ON.eta_local)
    assert moved.beta_attention == pytest.approx(EVERYTHING_ON.beta_attention + 0.5)
    assert replace(moved, eta_local=EVERYTHING_ON.eta_local, beta_attention=0.5) == EVERYTHING_ON


def test_what_is_switched_off_is_left_off() -> None:
    rule = Rule(episodes=0, row_slots=(128, 0), ngram_slots=0, bias_step=0.0)
    names = Space(rule).names
    assert "eta_row[0]" in names and "eta_local" in names
    assert not {"eta_row[1]", "sharpness", "eta_episode", "eta_ngram", "bias_step", "bias_decay"} & set(names)
    assert not any(isinstance(p, Bounded) for p in Space(rule).parameters)
    with pytest.raises(UsageError, match=r"eta_row\[1\].*switched off"):
        Space(rule, ("eta_row[1]",))
    with pytest.raises(UsageError, match="nothing to tune"):
        Space(Rule(rho_trace=(), episodes=0, row_slots=(0, 0), ngram_slots=0, bias_step=0.0, eta_scale=0.0))


def test_a_name_that_is_no_parameter_is_refused_with_those_that_are() -> None:
    with pytest.raises(UsageError, match=r"frob.*" + ".*".join(map(_escaped, NAMES))):
        Space(Rule(), ("eta_local", "frob"))


def _escaped(name: str) -> str:
    return name.replace("[", r"\[").replace("]", r"\]")


def test_names_are_unique() -> None:
    assert len(set(NAMES)) == len(NAMES)
    assert any(isinstance(p, Strength) for p in PARAMETERS)


# ---- The loss


def test_the_loss_is_what_learning_the_stream_gives() -> None:
    image, ids = Image(tiny_image()), random_tokens(200)
    scores = CoreModel(image, seed=5).process(ids, learn=True)
    stream = HiddenStream.encode(image, ids)
    assert online_loss(image, stream, 5) == nats(scores) / len(ids)
    assert online_loss(image, stream, 5) != online_loss(image, stream, 6)


def test_stability_is_the_mean_square_of_the_dense_weights() -> None:
    image, ids = Image(tiny_image(rule=Rule(eta_local=0.02))), np.resize(random_tokens(20), 200)
    stream = HiddenStream.encode(image, ids)
    model = CoreModel(image)
    assert mean_square_of_dense_weights(model) == 0
    model.process(ids, learn=True)
    square = mean_square_of_dense_weights(model)
    assert 0 < square < 0.1
    assert online_loss(image, stream, 0, stability=2.0) == pytest.approx(online_loss(image, stream, 0) + 2 * square)


# ---- The command


@pytest.fixture(scope="module")
def diary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("texts") / "diary.txt"
    path.write_text("On Monday I saw Ada at the old mill. She gave me the red book, and I read it.\n" * 12, "utf-8")
    return path


@pytest.fixture(scope="module")
def tuned(reference_export: Path, diary: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """An export of the reference model, tuned a little, and what was said about it."""
    out = tmp_path_factory.mktemp("tuned") / "export"
    few = ("--budget", "6", "--tokens", "120", "--method", "all", "--seed", "1")
    return out, edgehmn("tune", reference_export, "--data", diary, *few, "-o", out, "--json").result


def test_tune_says_what_it_found(tuned: tuple[Path, dict[str, Any]], diary: Path) -> None:
    _, result = tuned
    for key in ("start", "best", "spsa", "random_search", "cma"):
        assert 0 < result[key]["loss"] < 12 and 0 < result[key]["held_out_loss"] < 12
    assert result["best"]["loss"] == min(result[k]["loss"] for k in ("start", "spsa", "random_search", "cma"))
    assert result["parameters"].keys() == result["start"]["parameters"].keys()
    assert set(result["evaluations"].values()) == {6}
    [text] = result["tuned_on"]
    assert (text["file"], text["tokens"], text["held_out_tokens"]) == ("diary.txt", 60, 60)


def test_a_tuned_export_is_a_sound_export(tuned: tuple[Path, dict[str, Any]], reference_export: Path) -> None:
    out, result = tuned
    assert edgehmn("validate", out, "--json").result["ok"]
    assert {p.name for p in out.iterdir()} == {p.name for p in reference_export.iterdir()} | {"tuning.json"}
    for same in ("encoder.onnx", "encoder.tflite", "tokenizer.json"):
        assert (out / same).read_bytes() == (reference_export / same).read_bytes()
    manifest, before = (json.loads((f / "manifest.json").read_text("utf-8")) for f in (out, reference_export))
    assert manifest["perplexity"] == before["perplexity"]
    assert (manifest["image_id"] == before["image_id"]) == (result["best"]["method"] == "start")
    assert manifest["image_id"] == result["image_id"] == edgehmn("inspect", out, "--json").result["image_id"]
    rule = read_rule(Image((out / "model.ehmn").read_bytes()))
    assert {name: value_of(rule, name) for name in result["parameters"]} == result["parameters"]


def test_the_export_says_what_it_was_tuned_on(tuned: tuple[Path, dict[str, Any]]) -> None:
    out, result = tuned
    log = json.loads((out / "tuning.json").read_text("utf-8"))
    assert log["tuned_on"] == result["tuned_on"] and log["parameters"] == result["parameters"]
    assert log["earlier"] == []


def test_tuning_a_tuned_export_remembers_the_first(
    tuned: tuple[Path, dict[str, Any]], copy_of: Copy, short_text: Path
) -> None:
    out = copy_of(tuned[0])
    first = json.loads((out / "tuning.json").read_text("utf-8"))
    few = ("--budget", "1", "--tokens", "40", "--method", "random", "--parameters", "decay, eta_row[1]")
    done = edgehmn("tune", out, "--data", short_text, *few, "-o", out)
    assert done.code == 0 and "tuned on 20 tokens of a text.txt" in done.out and "eta_row[1]" in done.out
    assert "nothing better than the start" in done.out
    log = json.loads((out / "tuning.json").read_text("utf-8"))
    first.pop("earlier")
    assert log["earlier"] == [first] and log["parameters"].keys() == {"decay", "eta_row[1]"}
    assert edgehmn("validate", out, "--runtime", "host").code == 0


def test_the_same_tuning_twice_is_the_same_bytes(tiny_export: Path, short_text: Path, tmp_path: Path) -> None:
    few = ("--budget", "6", "--tokens", "60", "--method", "spsa")
    for name in ("a", "b"):
        assert edgehmn("tune", tiny_export, "--data", short_text, *few, "-o", tmp_path / name).code == 0
    a, b = ({p.name: p.read_bytes() for p in (tmp_path / name).iterdir()} for name in ("a", "b"))
    assert a == b


def test_without_an_output_nothing_is_written(tiny_export: Path, short_text: Path, tmp_path: Path) -> None:
    few = ("--budget", "2", "--tokens", "40")
    result = edgehmn("tune", tiny_export, "--data", short_text, *few, "--json").result
    assert result.keys() >= {"start", "best", "random_search", "parameters"} and result["cma"] is None
    assert "output" not in result and not list(tmp_path.glob("*.json"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--parameters", "frob"), ["frob", *NAMES]),
        (("--parameters", ","), ["--parameters"]),
        (("--budget", "0"), ["--budget"]),
        (("--method", "magic"), ["magic"]),
        (("--meta-rates", "0.1", "2"), ["--meta-rates"]),
        (("--meta-rates", "0.1", "nan"), ["--meta-rates"]),
        (("--stability", "nan"), ["--stability"]),
        (("--tokens", "1"), ["--tokens"]),
        (("--data", "nothing"), ["nothing"]),
    ],
)
def test_wrong_arguments_are_usage_errors(
    arguments: tuple[str, ...], words: list[str], tiny_export: Path, short_text: Path, tmp_path: Path
) -> None:
    done = edgehmn("tune", tiny_export, "--data", short_text, *arguments, "-o", tmp_path / "out")
    assert done.code == 2 and all(word in done.err for word in words), done
    assert not list(tmp_path.iterdir())


def test_a_text_too_short_to_tune_on(tiny_export: Path, tmp_path: Path) -> None:
    (tmp_path / "few").write_text("few words", "utf-8")
    done = edgehmn("tune", tiny_export, "--data", tmp_path / "few")
    assert done.code == 2 and "few" in done.err and "32" in done.err


def test_without_cma_the_error_says_how_to_get_it(
    tiny_export: Path, short_text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cma", None)
    done = edgehmn("tune", tiny_export, "--data", short_text, "--method", "cma")
    assert done.code == 10 and "pip install 'edgehmn[tune]'" in done.err
    assert edgehmn("tune", tiny_export, "--data", short_text, "--budget", "1", "--tokens", "40").code == 0


def test_an_output_that_is_something_else_is_found_out_before_the_work(tiny_export: Path, short_text: Path) -> None:
    many = ("--budget", "1000000", "--tokens", "400")
    done = edgehmn("tune", tiny_export, "--data", short_text, *many, "-o", short_text.parent)
    assert done.code == 2 and "holds more than" in done.err


def test_interrupted_it_leaves_nothing(tiny_export: Path, short_text: Path, tmp_path: Path) -> None:
    """A real signal to a real process, while it searches."""
    many = ("--budget", "1000000", "--tokens", "400", "-o", tmp_path / "out")
    running = process("tune", tiny_export, "--data", short_text, *many, cwd=tmp_path)
    while not any(tmp_path.iterdir()) and running.poll() is None:
        pass
    running.send_signal(signal.SIGINT)
    done = finish(running)
    assert done.code == 130 and "interrupted" in done.err and not list(tmp_path.iterdir())


def test_the_reference_gains_by_learning_faster(reference: Checkpoint, diary: Path) -> None:
    """On a repetitive text the search finds that a rule which hardly learns should learn more."""
    slow = Rule(eta_local=3e-4, eta_global=7.5e-5, bias_step=0.02)
    calibration = calibrate(reference, calibration_ids(reference))
    image = build_image(quantise(reference, calibration, slow))
    space = Space(read_rule(Image(image)), ("eta_local", "bias_step"))
    stream = HiddenStream.encode(Image(image), reference.encode(diary.read_text("utf-8"))[:120])

    def objective(at: Coordinates, seed: int) -> float:
        return online_loss(Image(with_rule(image, space.rule_at(at))), stream, seed)

    found = plain_spsa(objective, space.box, 16, 0)
    assert objective(found.best, 99) < objective(space.box.start, 99) - 0.02
    assert space.rule_at(found.best).bias_step > slow.bias_step
