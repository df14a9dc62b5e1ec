"""Memristive tiles as a runtime of run, personalise and validate."""

from pathlib import Path

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


def test_what_tiles_cannot_do_is_said(tiny_export: Path) -> None:
    run = ("run", tiny_export, "a b", "-n", "2")
    for options, code, said in (
        (("--runtime", "tile", "--target", "nothing"), 2, "neurram"),
        (("--target", "hermes"), 2, "--runtime emulator or tile"),
        (("--runtime", "tile", "--banks", "2"), 10, "one bank"),
    ):
        result = edgehmn(*run, *options)
        assert result.code == code and said in result.err
    both = ("--runtime", "tile", "--runtime", "emulator", "--target", "hermes")
    assert edgehmn("validate", tiny_export, *both).code == 2
