"""Memristive tiles as a runtime of run, personalise and validate."""

from pathlib import Path

import pytest

from edgehmn.cli import tiles
from edgehmn.targets.memristive import mapping
from edgehmn.targets.memristive.writes import SCHEMES
from tests.command_line import edgehmn


def test_run_says_what_tiles_would_have_spent(tiny_export: Path) -> None:
    host = edgehmn("run", tiny_export, "a b", "-n", "4", "--json").result
    ideal = edgehmn("run", tiny_export, "a b", "-n", "4", "--json", "--runtime", "tile", "--target", "ideal").result
    assert ideal["text"] == host["text"] and "tokens_per_s" not in ideal and "tile" not in host
    assert ideal["tile"]["calibrated_to"].startswith("simulated") and ideal["tile"]["energy_nj_per_token"] > 0
    shown = edgehmn("run", tiny_export, "a b", "-n", "4", "--runtime", "tile")
    assert shown.code == 0 and "simulated, calibrated to HERMES" in shown.err


def test_personalise_learns_on_cells(tiny_export: Path, short_text: Path) -> None:
    command = ("personalise", tiny_export, short_text, "--json", "--runtime", "tile", "--target", "tile-neurram")
    result = edgehmn(*command).result
    tile = result["tile"]
    assert tile["pulses_per_learned_token"] > 0 and tile["years_to_first_worn_cell"] > 0
    assert edgehmn(*command).result == result, "seeded"
    assert edgehmn(*command, "--seed", "1").result != result


def test_validate_compares_tiles_with_the_host(tiny_export: Path) -> None:
    command = ("validate", tiny_export, "--json", "--tokens", "16", "--runtime", "host", "--runtime", "tile")
    for target, most in (("ideal", 1e-9), ("hermes", 1000.0)):
        rows = {r["name"]: r for r in edgehmn(*command, "--target", target).result["runtimes"]}
        assert abs(rows["tile"]["rise"]) <= most and (rows["tile"]["rise"] == 0) == (target == "ideal")


def test_mappings_and_ways_of_writing_are_chosen(tiny_export: Path, short_text: Path) -> None:
    command = ("personalise", tiny_export, short_text, "--json", "--runtime", "tile", "--target", "hermes")
    few = edgehmn(*command, "--mapping", "adapters", "--writes", "verify", "--write-threshold", "20").result
    many = edgehmn(*command, "--mapping", "adapters", "--writes", "verify", "--write-threshold", "2").result
    assert 0 < few["tile"]["pulses_per_learned_token"] < many["tile"]["pulses_per_learned_token"] / 2
    digital = edgehmn("personalise", tiny_export, short_text, "--json").result["before"]["perplexity"]
    assert few["before"]["perplexity"] == pytest.approx(digital, rel=0.01), "nothing but empty cells is in the way"
    frozen = edgehmn(*command, "--mapping", "encoder").result
    assert frozen["tile"]["pulses_per_learned_token"] == 0
    sliced = edgehmn(*command, "--cell-bits", "4").result
    assert sliced["tile"]["energy_nj_per_token"] > 1.5 * frozen["tile"]["energy_nj_per_token"]


def test_the_words_of_the_options_are_those_of_the_tiles() -> None:
    assert (tiles.MAPPINGS, tiles.WRITES, tiles.MAX_CELL_BITS) == (mapping.MAPPINGS, SCHEMES, mapping.MAX_CELL_BITS)


def test_what_tiles_cannot_do_is_said(tiny_export: Path) -> None:
    run = ("run", tiny_export, "a b", "-n", "2")
    for options, code, said in (
        (("--runtime", "tile", "--target", "nothing"), 2, "neurram"),
        (("--target", "hermes"), 2, "--runtime emulator or tile"),
        (("--runtime", "tile", "--banks", "2"), 2, "one bank"),
        (("--writes", "pulse"), 2, "go with --runtime tile"),
        (("--runtime", "tile", "--mapping", "encoder", "--writes", "pulse"), 2, "leaves digital"),
        (("--runtime", "tile", "--target", "isaac", "--writes", "pulse"), 2, "--writes verify"),
        (("--runtime", "tile", "--writes", "noise", "--write-threshold", "2"), 2, "--write-threshold goes with"),
    ):
        result = edgehmn(*run, *options)
        assert result.code == code and said in result.err
    assert "--cell-bits goes with" in edgehmn("validate", tiny_export, "--cell-bits", "2").err
    both = ("--runtime", "tile", "--runtime", "emulator", "--target", "hermes")
    assert edgehmn("validate", tiny_export, *both).code == 2
