"""What a model does, counted without running it; and what that costs on a target."""

import contextlib
import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.core_models import CORES
from edgehmn.core import CoreModel
from edgehmn.errors import InvalidFileError, UnsupportedError, UsageError
from edgehmn.estimate import (
    COUNTS,
    PLASTIC_CYCLES,
    VECTOR_CODE,
    Quantity,
    estimate,
    least_relative_error,
    plan_memory,
    plastic_cycles,
    published,
    runtimes,
)
from edgehmn.evaluation.p3 import shares
from edgehmn.exported import Export
from edgehmn.files import sha256
from edgehmn.targets.schema import load_target, target_names
from edgehmn.workload import Learning, Operation, Workload, workload_of
from edgehmn.workload_export import count_learning, image_operations

NETWORKS = Path(__file__).resolve().parents[2] / "shared" / "data" / "tflite-mlperf-tiny"
MACS = {  # as published with the networks
    "ad01_int8": 264192,
    "kws_ref_model": 2656768,
    "pretrainedResnet_quant": 12501632,
    "vww_96_int8": 7489664,
}


def network(name: str) -> Workload:
    path = NETWORKS / f"{name}.tflite"
    if not path.exists():
        pytest.skip(f"not run here: {path.name} is not beside the checkout")
    return workload_of(path)


def token(flash: int = 1_686_544, learning: bool = True) -> Workload:
    """As the reference model."""
    operations = tuple(Operation(f"layer {i}", "fc", 250_000, 250_000, 1000, 500) for i in range(7))
    counted = json.loads(COUNTS.read_text("utf-8"))["cortex-m4"]
    macs = counted["macs_per_token"]
    added = (macs["predicted"] - macs["static"], macs["learned"] - macs["predicted"])
    what = Learning(*added, counted["writes_per_learned_token"], 94_000) if learning else None
    return Workload("x", "token", operations, flash, 215_216, 313_136, what)


@pytest.mark.parametrize("name", MACS)
def test_tflite_macs_are_the_published_ones(name: str) -> None:
    assert network(name).macs == MACS[name]


def test_tflite_of_an_export(tiny_export: Path) -> None:
    w = workload_of(tiny_export / "encoder.tflite")
    image = Export.open(tiny_export).image
    own = sum(o.macs for o in image_operations(image) if o.kind == "fc" and o.name != "head")
    assert own <= w.by_class()["fc"] <= 1.02 * own and w.per == "inference"


def test_damaged_tflite(tiny_export: Path, tmp_path: Path) -> None:
    data = (tiny_export / "encoder.tflite").read_bytes()
    rng = np.random.default_rng(0)
    path = tmp_path / "x.tflite"
    for i in range(60):
        changed = bytearray(data if i % 2 else data[: rng.integers(8, len(data))])
        for at in rng.integers(0, len(changed), 3):
            changed[at] = int(rng.integers(0, 256))
        changed[4:8] = b"TFL3"
        path.write_bytes(changed)
        with contextlib.suppress(InvalidFileError):
            assert workload_of(path).macs >= 0


def test_onnx_classes(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    h = onnx.helper
    weights = {"c": (8, 3, 3, 3), "p": (16, 8, 1, 1), "d": (16, 1, 3, 3), "f": (16 * 64, 10)}
    nodes = [
        h.make_node("Conv", ["x", "c"], ["a"], pads=[1, 1, 1, 1]),
        h.make_node("Conv", ["a", "p"], ["b"]),
        h.make_node("Conv", ["b", "d"], ["e"], pads=[1, 1, 1, 1], group=16),
        h.make_node("Flatten", ["e"], ["g"]),
        h.make_node("MatMul", ["g", "f"], ["y"]),
        h.make_node("Softmax", ["y"], ["z"]),
    ]
    tensors = [onnx.numpy_helper.from_array(np.zeros(s, np.float32), n) for n, s in weights.items()]
    ends = [h.make_tensor_value_info(n, 1, s) for n, s in (("x", (1, 3, 8, 8)), ("z", (1, 10)))]
    path = tmp_path / "net.onnx"
    onnx.save(h.make_model(h.make_graph(nodes, "g", ends[:1], ends[1:], tensors)), path)
    w = workload_of(path)
    expected = {"conv": 64 * 8 * 27, "pointwise": 64 * 16 * 8, "depthwise": 64 * 16 * 9, "fc": 10 * 1024}
    assert w.by_class() == expected | {"attention": 0, "other": 10}
    assert w.ram_bytes == 4 * 64 * 32, "two activations of 16 channels at once"
    path.write_bytes(path.read_bytes()[:-700])
    with pytest.raises(InvalidFileError):
        workload_of(path)


def test_neither_kind(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_text("no model, but long enough to look at")
    with pytest.raises(UsageError, match=r"\.tflite, \.onnx or \.gguf"):
        workload_of(path)


def test_an_export_is_counted_as_the_core_counts(tiny_export: Path) -> None:
    image = Export.open(tiny_export).image
    operations = image_operations(image)
    ids = np.arange(4 * int(image.header.n_ctx) + 8, dtype=np.int32) % image.vocab_size
    frozen, learning = count_learning(image, ids)
    assert sum(o.macs for o in operations) == pytest.approx(frozen, rel=0.1)
    assert learning.writes > 0 and learning.macs_predicted > 0
    model = CoreModel(image, plastic=False)
    assert model.counts().macs == 0, "counting needs no state of anybody else's"


# Costs


@pytest.mark.parametrize("name", target_names())
def test_every_target_gives_an_interval_around_its_value(name: str) -> None:
    target = load_target(name)
    if target.kind == "gpu":
        with pytest.raises(UnsupportedError):
            estimate(token(), target)
        return
    e = estimate(token(), target)
    for q in (e.seconds, e.joules, e.seconds_learned, e.joules_learned, e.plasticity_share, e.adapters_share):
        assert q is not None and 0 < q.low < q.value < q.high
    assert e.tier == "core class" and e.sources
    assert e.seconds_learned is not None and e.seconds_learned.value > e.seconds.value
    assert e.idle_joules() <= e.joules.value


def test_the_larger_of_two_times_counts() -> None:
    target = load_target("rp2350")
    e = estimate(token(), target)
    xip = next(m for m in target.memory if m.level == "xip")
    assert e.memory.weights_in == "xip" and {layer.bound for layer in e.layers} <= {"memory", "compute"}
    assert e.seconds.value >= 7 * 250_000 / xip.bandwidth_bytes_per_s


def test_small_models_lie_in_ram() -> None:
    assert plan_memory(token(flash=20_000, learning=False), load_target("rp2350")).weights_in == "sram"


def test_what_does_not_fit() -> None:
    plan = plan_memory(token(), load_target("nrf52840"))
    assert plan.weights_in is None and not plan.fits and plan.ram_need > plan.ram_have


def test_shares_follow_the_counts() -> None:
    per = json.loads(COUNTS.read_text("utf-8"))["cortex-m4"]["instructions_per_token"]
    e = estimate(token(), load_target("stm32l4r5"))
    assert e.plasticity_share is not None and e.adapters_share is not None
    counted = shares(per)
    assert e.plasticity_share.value == pytest.approx(counted["plasticity_share"], rel=0.1)
    assert e.adapters_share.value == pytest.approx(counted["adapters_share"], rel=0.1)


@pytest.mark.parametrize("name", ["stm32l4r5", "raspberry-pi-5", "rp2350", "esp32-s3"])
def test_shares_are_what_seconds_say(name: str) -> None:
    """Adapters and learning together are what a learned token has beyond a frozen one."""
    e = estimate(token(), load_target(name))
    assert e.plasticity_share is not None and e.adapters_share is not None and e.seconds_learned is not None
    both = 1 - e.seconds.value / e.seconds_learned.value
    assert e.plasticity_share.value + e.adapters_share.value == pytest.approx(both, rel=1e-6)


def test_what_slows_both_parts_leaves_the_share_as_it_is() -> None:
    """Of a board that computes all the time, only how long plastic instructions take is uncertain."""
    target = load_target("stm32l4r5")
    slow = replace(target, own_core=replace(target.own_core, cycles_per_instruction=3.0, interval_factor=3.0))
    a, b = (estimate(token(), t).plasticity_share for t in (target, slow))
    assert a is not None and b is not None
    assert a.interval == pytest.approx(b.interval)
    odds = [v / (1 - v) for v in (a.low, a.value, a.high)]
    assert odds[2] / odds[1] == pytest.approx(1.3, rel=0.01) and odds[1] / odds[0] == pytest.approx(1.3, rel=0.01)


def test_the_share_of_a_board_that_waits_for_its_memory_is_less_certain() -> None:
    """There, frozen parts wait for flash and plastic ones compute: each is off by itself."""
    e = estimate(token(), load_target("rp2350"))
    share = e.plasticity_share
    assert share is not None and any(layer.bound == "memory" for layer in e.layers)
    odds = [v / (1 - v) for v in (share.low, share.value, share.high)]
    assert odds[2] / odds[1] > 1.5


def plastic_cycles_found() -> dict[str, Any]:
    path = Path(__file__).resolve().parents[1] / "bench" / "results" / "plastic-cycles.json"
    found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return found


def test_vector_code_is_found_to_make_plastic_instructions_longer() -> None:
    """Estimates take what was found of a core, and the factor holds what was measured here."""
    models = {m["core"]: m["times_with_caches_and_branches"] for m in plastic_cycles_found()["models"]}
    for core in CORES:
        for target in map(load_target, target_names()):
            if target.core.name in core.stands_for and target.own_core.instructions in VECTOR_CODE:
                cycles = plastic_cycles(target)
                assert cycles.adapters == pytest.approx(models[core.name]["adapters"], abs=0.01)
                assert cycles.learning == pytest.approx(models[core.name]["learning"], abs=0.01)
    here = plastic_cycles(load_target("host"))
    measured = next(row["times"] for row in plastic_cycles_found()["rows"] if row["kernels"] == "avx2")
    assert here.learning / here.factor < measured["learning"] < here.learning * here.factor
    assert here.learning > 1


def test_a_core_without_a_model_takes_the_mean_of_those_that_have_one() -> None:
    target = load_target("raspberry-pi-5")
    unknown = plastic_cycles(replace(target, core=replace(target.core, name="Neoverse-V2")))
    known = [plastic_cycles(load_target(name)) for name in ("raspberry-pi-zero-2w", "raspberry-pi-4b", target.name)]
    for part in ("adapters", "learning"):
        found = sorted(getattr(cycles, part) for cycles in (*known, plastic_cycles(load_target("host"))))
        assert found[0] <= getattr(unknown, part) <= found[-1]


def test_cycles_of_cores_whose_pipelines_are_modelled() -> None:
    least = {m["core"]: m["cycles"][0] for m in plastic_cycles_found()["models"]}
    for target in map(load_target, target_names()):
        for core in least:
            if target.core.name.removeprefix("Cortex-") in core:
                assert target.own_core.cycles_per_instruction == pytest.approx(least[core], rel=0.1), target.name


def test_the_committed_shares_are_of_the_present_counts() -> None:
    """Otherwise: python tools/run.py bench.p3_targets OUT, with an export of the reference model."""
    path = Path(__file__).resolve().parents[1] / "bench" / "results" / "p3-targets.json"
    results = json.loads(path.read_text("utf-8"))
    assert results["counts_sha256"] == sha256(COUNTS.read_bytes())
    assert results["plastic_cycles_sha256"] == sha256(PLASTIC_CYCLES.read_bytes())
    for row in results["rows"]:
        target = load_target(row["target"])
        assert row["cycles"] == asdict(plastic_cycles(target))
        assert row["counted_on"] == target.own_core.instructions
        for part in ("plasticity", "adapters"):
            low, high = row[part]["interval_90"]
            assert low < row[part]["share"] < high


def test_a_day() -> None:
    e = estimate(token(), load_target("stm32u575"))
    assert e.joules_learned is not None
    asleep, busy = e.per_day(0, 0), e.per_day(1000, 100)
    assert asleep == pytest.approx(86400 * e.target.power.sleep_w)
    assert busy - asleep == pytest.approx(900 * e.joules.value + 100 * e.joules_learned.value, rel=0.01)
    assert math.isinf(e.per_day(1e9, 0))


def test_published_figures_lie_in_their_interval() -> None:
    """Of the runtime that is named; these rows are in the fit."""
    target, w = load_target("stm32l4r5"), network("kws_ref_model")
    rows = published(w, target)
    assert len(rows) > 10
    assert set(runtimes(target)) >= {r["runtime"] for r in rows}
    inside = []
    for r in rows:
        e = estimate(w, target, r["runtime"])
        inside.append(e.seconds.low <= r["latency_ms"] / 1e3 <= e.seconds.high)
    assert np.mean(inside) >= 0.85
    assert estimate(w, target, rows[0]["runtime"]).tier == "same core and runtime"
    assert estimate(w, target).tier == "core class"


def test_an_unknown_runtime() -> None:
    w = Workload("x", "inference", token().operations, 1000, 1000)
    with pytest.raises(UsageError, match="known are"):
        estimate(w, load_target("stm32l4r5"), "toaster")
    with pytest.raises(UsageError, match="own core"):
        estimate(token(), load_target("stm32l4r5"), "X-CUBE-AI")


def test_quantities() -> None:
    q = Quantity(1.0, 0.5, 2.0).spread(2.0)
    assert q.high == pytest.approx(math.exp(math.hypot(math.log(2), math.log(2))))
    assert Quantity(1.0, 0.5, 2.0).times(3).interval == [1.5, 6.0]
    values = np.exp(np.random.default_rng(0).normal(0, 0.5, 20_000))
    mine, median = (np.mean(np.abs(c / values - 1)) for c in (least_relative_error(1.0, 0.5), 1.0))
    assert mine < median
