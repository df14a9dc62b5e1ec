"""The tiles against CrossSim: the same errors, and how fast.

    python bench/crosssim.py --crosssim DIR [--draws N] [--only errors|speed]

DIR holds CrossSim's `simulator` package (github.com/sandialabs/cross-sim, 3.2.0: `git archive HEAD simulator`); it
needs scipy. For each non-ideality alone and for all together: the same matrix, range and noise in both, N draws; the
spread of the error of each output, and its mean, which must agree within 3 % of the error. Then the time of one product
and of 64 with read noise drawn anew, and without it beside a plain NumPy product; rounds alternate, and the best of
each side counts. Results land in bench/results/crosssim.json and crosssim.md. Where CrossSim cannot be imported, it
says so, compares with NumPy alone, and writes nothing.
"""

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgehmn.targets.memristive.noise import Polynomial
from edgehmn.targets.memristive.presets import Converters, preset
from edgehmn.targets.memristive.tiles import TiledMatrix

TOP = 127
LIMIT = 0.03
JOSHI = (0.28638599, 0.07585724, -0.00178767)  # uS, powers of g in uS
MILO = (4.782321, -0.009107)
WAN = (1.053, 0.2374, -1.167e-2, 1.536e-4)
RESULTS = Path(__file__).resolve().parent / "results" / "crosssim.json"
FASTER_THAN_CROSSSIM, SLOWER_THAN_NUMPY = 5.0, 2.0  # least and most, of the ratios of times
ROUNDS, ROUND_S = 7, 0.15
ADC_BITS, ADC_BOUND = 8, 6.0
WIRE_OHM = 2.0


@dataclass(frozen=True)
class Case:
    """A device and what is wrong with it. read: share of g_max."""

    name: str
    g_min: float
    g_max: float
    programming: tuple[float, ...] = ()
    model: str = ""
    read: float = 0.0
    adc: bool = False
    wires: bool = False


CASES = (
    Case("programming, PCMJoshi", 0.25, 25.0, JOSHI, "PCMJoshi"),
    Case("programming, RRAMMilo", 50.0, 225.0, MILO, "RRAMMilo"),
    Case("programming, RRAMWan", 1.0, 39.0, WAN, "RRAMWan"),
    Case("read noise, 1 % of g_max", 0.25, 25.0, read=0.01),
    Case("ADC, 8 bits", 0.25, 25.0, adc=True),
    Case("wires, 2 ohm", 0.25, 25.0, wires=True),
    Case("all, PCMJoshi", 0.25, 25.0, JOSHI, "PCMJoshi", 0.01, True, True),
    Case("all, RRAMMilo", 50.0, 225.0, MILO, "RRAMMilo", 0.01, True, False),
)


def tile(case: Case, weights: np.ndarray, seed: int) -> TiledMatrix:
    """Ours. weights: integers (outputs, inputs)."""
    noise = Polynomial(case.programming, read_floor=case.read * case.g_max)
    ideal = preset("ideal")
    converters = Converters(adc_bits=ADC_BITS, bound=ADC_BOUND) if case.adc else Converters()
    chosen = replace(
        ideal, cell=replace(ideal.cell, g_min=case.g_min, g_max=case.g_max, noise=noise), converters=converters,
        wire_ohm=WIRE_OHM if case.wires else 0.0,
    )  # fmt: skip
    return TiledMatrix(weights, chosen, np.random.default_rng(seed), top=TOP)


def their_core(case: Case, weights: np.ndarray) -> Any:
    """CrossSim's, of the same weights in shares of the largest."""
    from simulator import AnalogCore, CrossSimParameters
    from simulator.parameters.core_parameters import CoreStyle
    from simulator.parameters.xbar_parameters import ADCRangeLimits

    p = CrossSimParameters()
    p.core.style = CoreStyle.BALANCED
    p.core.rows_max, p.core.cols_max = weights.shape[1], weights.shape[0]
    p.core.mapping.weights.min, p.core.mapping.weights.max = -1.0, 1.0
    device = p.xbar.device
    device.Rmin, device.Rmax = 1e6 / case.g_max, 1e6 / case.g_min
    if case.model:
        device.programming_error.enable, device.programming_error.model = True, case.model
    if case.read:
        device.read_noise.enable, device.read_noise.model = True, "NormalIndependentDevice"
        device.read_noise.magnitude = case.read
    if case.adc:
        adc = p.xbar.adc.mvm
        adc.model = "SignMagnitudeADC"
        adc = p.xbar.adc.mvm
        adc.bits, adc.signed = ADC_BITS, True
        adc.adc_range_option = ADCRangeLimits.CALIBRATED
        span = 1 - case.g_min / case.g_max
        adc.calibrated_range = [-ADC_BOUND * span, ADC_BOUND * span]
    if case.wires:
        p.xbar.array.parasitics.enable = True
        p.xbar.array.parasitics.Rp_row = p.xbar.array.parasitics.Rp_col = WIRE_OHM
        p.simulation.Verr_th_mvm = 1e-7
    return AnalogCore(weights / TOP, p)


def errors(case: Case, size: int, draws: int) -> tuple[np.ndarray, np.ndarray]:
    """(draws, outputs) of ours and theirs, in units of (largest input) (largest weight)."""
    rng = np.random.default_rng(1)
    weights = np.clip(np.rint(rng.normal(0, 40, (size, size))), -TOP, TOP).astype(np.int64)
    weights[0, 0] = TOP
    x = np.clip(rng.normal(0, 0.3, size), -1, 1)
    true = weights @ x / TOP
    again = bool(case.programming)
    n = draws if again or case.read else 1
    ours, theirs = np.empty((n, size)), np.empty((n, size))
    matrix, core = tile(case, weights, 0), their_core(case, weights)
    np.random.seed(0)
    for i in range(n):
        if again and i:
            matrix = tile(case, weights, i)
            core.set_matrix(weights / TOP)
        ours[i] = matrix.product(x) / TOP - true
        theirs[i] = core.matvec(x) - true
    return ours, theirs


def compare(case: Case, size: int, draws: int) -> dict[str, Any]:
    """How the errors agree. The difference of means is freed of what a finite number of draws makes of it."""
    ours, theirs = errors(case, size, draws)
    n = len(ours)
    a, b = ours.var(axis=0, ddof=1 if n > 1 else 0), theirs.var(axis=0, ddof=1 if n > 1 else 0)
    spread = float(np.sqrt(a.mean() / b.mean())) if b.mean() > 0 else 1.0
    apart = float(np.mean((ours.mean(0) - theirs.mean(0)) ** 2) - np.mean(a + b) / n)
    scale = float(np.sqrt(np.mean(theirs**2)))
    mean = float(np.sqrt(max(apart, 0.0))) / scale
    ok = abs(spread - 1) <= LIMIT and mean <= LIMIT
    return {"case": case.name, "draws": n, "error": scale, "spread_ratio": spread, "means_apart": mean, "ok": ok}


def best(calls: list[Callable[[], Any]]) -> list[float]:
    """Seconds of one call of each, the best of rounds that alternate."""
    repeats = []
    for call in calls:
        call()
        began, n = time.perf_counter(), 0
        while time.perf_counter() - began < ROUND_S:
            call()
            n += 1
        repeats.append(n)
    out = [float("inf")] * len(calls)
    for _ in range(ROUNDS):
        for i, call in enumerate(calls):
            began = time.perf_counter()
            for _ in range(repeats[i]):
                call()
            out[i] = min(out[i], (time.perf_counter() - began) / repeats[i])
    return out


def speed(with_crosssim: bool) -> list[dict[str, Any]]:
    """Products of 256 x 256, one and 64 vectors: with read noise against CrossSim, without against NumPy."""
    rng, size, rows = np.random.default_rng(2), 256, []
    weights = np.clip(np.rint(rng.normal(0, 40, (size, size))), -TOP, TOP).astype(np.int64)
    weights[0, 0] = TOP
    noisy = next(c for c in CASES if c.read and not c.model)
    for batch in (1, 64):
        x = np.clip(rng.normal(0, 0.3, (batch, size)), -1, 1)
        given: Any = x[0] if batch == 1 else x
        if with_crosssim:
            mine, core = tile(noisy, weights, 0), their_core(noisy, weights)
            calls = [
                lambda m=mine, v=given: m.product(v), lambda c=core, v=x: [c.matvec(row) for row in v],
                lambda c=core, v=x: c.matmat(v.T),
            ]  # fmt: skip
            ours, one_by_one, at_once = best(calls)
            rows.append(timing("read noise", batch, "CrossSim", ours, min(one_by_one, at_once), True))
        plain, still = np.ascontiguousarray((weights / TOP).T), tile(replace(noisy, read=0.0), weights, 0)
        ours, numpy = best([lambda m=still, v=given: m.product(v), lambda p=plain, v=given: v @ p])
        rows.append(timing("no noise", batch, "NumPy", ours, numpy, False))
    return rows


def timing(what: str, batch: int, peer: str, ours: float, theirs: float, faster: bool) -> dict[str, Any]:
    """ratio: how many times faster than the peer, or slower."""
    ratio = theirs / ours if faster else ours / theirs
    ok = ratio >= FASTER_THAN_CROSSSIM if faster else ratio <= SLOWER_THAN_NUMPY
    return {
        "what": what, "products": batch, "peer": peer, "us": 1e6 * ours, "peer_us": 1e6 * theirs, "ratio": ratio,
        "is": "times faster" if faster else "times its time", "ok": ok,
    }  # fmt: skip


def markdown(results: dict[str, Any]) -> str:
    lines = [
        "# Tiles against CrossSim", "",
        "The same matrix, range and noise in both. Error: of an output, in units of the largest input times the",
        "largest weight; spread ratio: ours over theirs; means apart: in per cent of the error. Limits: 3 %.", "",
        "| what is not ideal | draws | error | spread ratio | means apart, % | |", "|" + " --- |" * 6,
    ]  # fmt: skip
    lines += [
        f"| {r['case']} | {r['draws']:,} | {r['error']:.4f} | {r['spread_ratio']:.4f} | {100 * r['means_apart']:.2f} | "
        f"{'ok' if r['ok'] else 'not within'} |"
        for r in results["errors"]
    ]
    lines += [
        "", "Products of 256 x 256 on one thread, read noise drawn anew for each; CrossSim the faster of product by",
        f"product and all at once. {results['machine']}. Limits: {FASTER_THAN_CROSSSIM:g} times faster than CrossSim,",
        f"{SLOWER_THAN_NUMPY:g} times the time of NumPy.", "",
        "| | products | ours, µs | peer | its, µs | ratio | |", "|" + " --- |" * 7,
    ]  # fmt: skip
    lines += [
        f"| {r['what']} | {r['products']} | {r['us']:,.1f} | {r['peer']} | {r['peer_us']:,.1f} | {r['ratio']:.2f} "
        f"{r['is']} | {'ok' if r['ok'] else 'not within'} |"
        for r in results["speed"]
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--crosssim", type=Path, help="folder that holds CrossSim's simulator package")
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--only", choices=("errors", "speed"))
    args = parser.parse_args()
    if args.crosssim:
        sys.path.insert(0, str(args.crosssim))
    try:
        import simulator  # noqa: F401

        found = True
    except ImportError as e:
        found = False
        print(f"CrossSim is not here ({e}): errors and its speed are not compared; see --help")
    results: dict[str, Any] = {"errors": [], "speed": [], "machine": f"{platform.machine()}, NumPy {np.__version__}"}
    if found and RESULTS.exists():
        results |= json.loads(RESULTS.read_text("utf-8"))
    if found and args.only != "speed":
        results["errors"] = [compare(case, args.size, args.draws) for case in CASES]
    if args.only != "errors":
        results["speed"] = speed(found)
    print(markdown(results))
    if found:
        RESULTS.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
        RESULTS.with_suffix(".md").write_text(markdown(results), "utf-8")
    return 0 if all(r["ok"] for r in results["errors"] + results["speed"]) else 1


if __name__ == "__main__":
    sys.exit(main())
