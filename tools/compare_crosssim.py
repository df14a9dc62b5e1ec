"""The tiles against CrossSim: the same errors, and how fast.

    python tools/compare_crosssim.py --crosssim DIR [--draws N] [--only errors|speed]

DIR holds CrossSim's `simulator` package (github.com/sandialabs/cross-sim, 3.2.0: `git archive HEAD simulator`); it
needs scipy. For each non-ideality alone and for all together: the same matrix, range and noise in both, N draws; the
spread of the error of each output, and its mean, which must agree within 3 % of the error. Then the time of one product
and of 64 with read noise drawn anew. Where CrossSim cannot be imported, it says so and compares with NumPy alone.
"""

import argparse
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


def compare(case: Case, size: int, draws: int) -> bool:
    """Print how the errors agree. The difference of means is freed of what a finite number of draws makes of it."""
    ours, theirs = errors(case, size, draws)
    n = len(ours)
    a, b = ours.var(axis=0, ddof=1 if n > 1 else 0), theirs.var(axis=0, ddof=1 if n > 1 else 0)
    spread = float(np.sqrt(a.mean() / b.mean())) if b.mean() > 0 else 1.0
    apart = float(np.mean((ours.mean(0) - theirs.mean(0)) ** 2) - np.mean(a + b) / n)
    scale = float(np.sqrt(np.mean(theirs**2)))
    mean = float(np.sqrt(max(apart, 0.0))) / scale
    ok = abs(spread - 1) <= LIMIT and mean <= LIMIT
    print(f"{case.name:28s} {n:5d} draws  error {scale:.4f}  spread ratio {spread:.4f}  means apart "
          f"{100 * mean:.2f} % of the error  {'ok' if ok else 'NOT WITHIN 3 %'}", flush=True)  # fmt: skip
    return ok


def seconds(call: Callable[[], Any], budget_s: float = 0.6) -> float:
    """Of one call, the best of five rounds."""
    call()
    began, n = time.perf_counter(), 0
    while time.perf_counter() - began < budget_s / 5:
        call()
        n += 1
    rounds = []
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(max(1, n // 2)):
            call()
        rounds.append((time.perf_counter() - began) / max(1, n // 2))
    return min(rounds)


def speed(with_crosssim: bool) -> bool:
    """Products of 256 x 256, one and 64 vectors: with read noise against CrossSim, without against NumPy."""
    rng, size, ok = np.random.default_rng(2), 256, True
    weights = np.clip(np.rint(rng.normal(0, 40, (size, size))), -TOP, TOP).astype(np.int64)
    weights[0, 0] = TOP
    noisy, quiet = CASES[2], replace(CASES[2], read=0.0)
    for batch in (1, 64):
        x = np.clip(rng.normal(0, 0.3, (batch, size)), -1, 1)
        mine = tile(noisy, weights, 0)
        single: Any = x[0] if batch == 1 else x
        ours = seconds(lambda m=mine, v=single: m.product(v))
        if with_crosssim:
            core = their_core(noisy, weights)
            theirs = seconds(lambda c=core, v=x: [c.matvec(row) for row in v])
            at_once = seconds(lambda c=core, v=x: c.matmat(v.T))
            ratio = theirs / ours
            ok = ok and ratio >= 5
            print(f"read noise, {batch:2d} products: ours {1e6 * ours:9.1f} us, CrossSim {1e6 * theirs:9.1f} us "
                  f"({ratio:.1f} x), all in one call {1e6 * at_once:9.1f} us ({at_once / ours:.1f} x)")  # fmt: skip
        plain = np.ascontiguousarray((weights / TOP).T)
        still = tile(quiet, weights, 0)
        ours, numpy = seconds(lambda m=still, v=single: m.product(v)), seconds(lambda p=plain, v=single: v @ p)
        ok = ok and ours <= 2 * numpy
        print(
            f"no noise,   {batch:2d} products: ours {1e6 * ours:9.1f} us, NumPy {1e6 * numpy:9.1f} us "
            f"({ours / numpy:.2f} x)"
        )
    return ok


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
    ok = True
    if found and args.only != "speed":
        for case in CASES:
            ok = compare(case, args.size, args.draws) and ok
    if args.only != "errors":
        ok = speed(found) and ok
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
