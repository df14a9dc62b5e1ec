"""The networks of MLPerf Tiny: counts as published, times beside the published ones, from the command line too."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bench import networks
from edgehmn.errors import UsageError
from tests.command_line import Result

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
FILES = sorted((DATA / "tflite-mlperf-tiny").glob("*.tflite"))
COMMITTED = json.loads((networks.RESULTS / "networks.json").read_text("utf-8"))

needs_data = pytest.mark.skipif(not FILES, reason="the networks are not beside the checkout")


@needs_data
def test_the_committed_table_is_what_the_command_writes() -> None:
    again = networks.network_rows(DATA)
    assert len(again) == len(COMMITTED)
    for new, old in zip(again, COMMITTED, strict=True):
        for key in ("network", "macs", "weight_bytes", "target", "runtime", "published_ms"):
            assert new[key] == old[key]
        assert new["predicted_ms"] == pytest.approx(old["predicted_ms"], rel=1e-6)


def test_counts_and_times_are_near_the_published_ones() -> None:
    known = [r for r in COMMITTED if r["published_macs"]]
    assert {r["network"] for r in known} == set(networks.NETWORKS) - {"str_ww_ref_model"}
    for r in known:
        assert r["macs"] == r["published_macs"]
        assert r["weight_bytes"] == pytest.approx(r["published_bytes"], rel=0.03)
    named = [(v, r) for r in known if r["runtime"] for v in r["published_ms"]]
    assert np.median([abs(r["predicted_ms"] / v - 1) for v, r in named]) < 0.1
    assert np.mean([r["interval_90_ms"][0] <= v <= r["interval_90_ms"][1] for v, r in named]) >= 0.85
    any_runtime = [(v, r) for r in known if not r["runtime"] for v in r["published_ms"]]
    assert np.mean([r["interval_90_ms"][0] <= v <= r["interval_90_ms"][1] for v, r in any_runtime]) >= 0.85


@needs_data
def test_several_at_once(run_cli: Callable[..., Result], tmp_path: Path) -> None:
    done = run_cli("profile", *FILES, "--target", "stm32l4r5", "--json")
    profiles = done.result["profiles"]
    assert [p["name"] for p in profiles] == [path.name for path in FILES]
    for p in profiles:
        old = next(
            r
            for r in COMMITTED
            if (r["network"] + ".tflite", r["target"], r["runtime"]) == (p["name"], "stm32l4r5", "")
        )
        assert p["macs"] == old["macs"]
        assert p["targets"][0]["latency_ms_per_inference"] == pytest.approx(old["predicted_ms"])
    text = run_cli("profile", *FILES[:2], "--target", "stm32l4r5,stm32h7a3").out
    assert "published ms" in text and text.count("ad01_int8.tflite") == 3
    for option in (("--html", tmp_path / "x.html"), ("--measured",), ("--anchor",)):
        assert run_cli("profile", *FILES[:2], "--target", "stm32l4r5", *option).code == UsageError.exit_code
