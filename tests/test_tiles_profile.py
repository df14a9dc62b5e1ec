"""Memristive tiles beside boards in `targets` and `profile`."""

import csv
from collections.abc import Callable
from pathlib import Path

import pytest

from edgehmn.errors import UnsupportedError, UsageError
from edgehmn.estimate_tiles import tile_profile
from edgehmn.targets.memristive.mapping import TileSetup
from edgehmn.targets.memristive.presets import PRESETS
from edgehmn.workload import workload_of
from tests.command_line import Result


def test_targets_lists_tiles_beside_boards(run_cli: Callable[..., Result]) -> None:
    listed = {t["name"]: t for t in run_cli("targets", "--json").result["targets"]}
    assert set(PRESETS) < set(listed) and listed["stm32h743"]["kind"] != "simulated tile"
    assert listed["hermes"]["known_from"].startswith("simulated, calibrated to HERMES")
    one = run_cli("targets", "--target", "tile-neurram", "--json").result["targets"]
    assert [t["name"] for t in one] == ["neurram"] and one[0]["profile"]["cell"]["verify_pulses"] == 8.52
    assert "ReRamWan2022" in run_cli("targets", "--target", "neurram").out


def test_a_profile_puts_tiles_beside_boards(tiny_export: Path, tmp_path: Path, run_cli: Callable[..., Result]) -> None:
    files = {end: tmp_path / f"x.{end}" for end in ("html", "csv", "markdown")}
    outputs = [v for end, path in files.items() for v in (f"--{end}", path)]
    r = run_cli("profile", tiny_export, "--target", "stm32h743,hermes", *outputs, "--learned-per-day", "500", "--json")
    board, tile = r.result["targets"]
    assert (board["name"], tile["name"], tile["kind"]) == ("stm32h743", "hermes", "simulated tile")
    assert set(board) - {"adapters_share_of_energy"} < set(tile), "of a tile, adapters are not told apart"
    assert tile["tier"] == "simulated, calibrated to HERMES, four-phase"
    for key in ("latency_ms_per_token", "energy_mj_per_learned_token", "plasticity_share_of_energy"):
        low, high = tile["interval_90"][key]
        assert low < tile[key] < high
    assert tile["energy_mj_per_learned_token"] > tile["energy_mj_per_token"] > 0
    assert 0.5 < tile["tile"]["adc_share_of_energy"] < 1 and tile["tile"]["years_to_first_worn_cell"] > 0
    more = run_cli("profile", tiny_export, "--target", "hermes", "--learned-per-day", "5000", "--json").result
    years = more["targets"][0]["tile"]["years_to_first_worn_cell"]
    assert years == pytest.approx(tile["tile"]["years_to_first_worn_cell"] / 10), (
        "ten times the use, a tenth of the life"
    )
    assert all(set(layer["ms"]) == {"stm32h743", "hermes"} for layer in r.result["layers"])
    page = files["html"].read_text("utf-8")
    assert "Simulated memristive tiles" in page and "500 learned tokens a day" in page and "ADCs" in page
    row = next(r for r in csv.DictReader(files["csv"].open()) if r["target"] == "hermes" and not r["layer"])
    assert float(row["years_to_first_worn_cell"]) > 0 and float(row["adc_share_of_energy"]) < 1
    assert row["battery_days"] == "" and "inf" not in files["csv"].read_text("utf-8").replace("inference", "")
    assert "| hermes | all | verify |" in files["markdown"].read_text("utf-8")


def test_the_text_says_that_it_is_simulated(tiny_export: Path, run_cli: Callable[..., Result]) -> None:
    text = run_cli("profile", tiny_export, "--target", "isaac", "--mapping", "encoder").out
    assert "simulated, calibrated to ISAAC" in text and "nothing is written" in text and "mapping encoder" in text
    assert "layers on isaac" in text and "memory  " not in text, "digital memories learn all the same"


def test_latency_and_energy_are_those_of_passes_and_parts(tiny_export: Path) -> None:
    """Of the tiny model every matrix fills one tile for each input it has: passes can be counted by hand."""
    workload = workload_of(tiny_export)
    p = tile_profile(tiny_export, workload, "hermes", TileSetup("encoder"), 1000.0)
    products = len({o.name.rpartition(" ")[0] for o in workload.operations if o.name.startswith("layer")})
    assert p.tiles == products * 4 + 2, "q, k and v; o; gate and up; down: of each layer, and two of the head"
    one = PRESETS["hermes"].parts
    passes = (products * 4 + 1) * (one.fixed_ns + 4 * one.phase_ns) / 1e3
    assert passes < p.cost.latency_us_per_token < passes * 1.5
    assert sum(p.ms) == pytest.approx(p.cost.latency_us_per_token / 1e3, rel=0.5)


def test_what_cannot_be_profiled_is_said(tiny_export: Path, run_cli: Callable[..., Result]) -> None:
    network = run_cli("profile", tiny_export / "encoder.onnx", "--target", "hermes")
    assert network.code == UnsupportedError.exit_code and "export" in network.err
    for arguments in (("--target", "rp2350", "--mapping", "all"), ("--target", "prime", "--writes", "pulse")):
        assert run_cli("profile", tiny_export, *arguments).code == UsageError.exit_code
