"""Text generation by the runtimes of others: what a token of a GGUF file costs, with all cores or the GPU.

    seconds = bytes read / rate + fixed seconds of processor and runtime

The rate is the smaller of two: an efficiency times the peak bandwidth of the memory, and the bytes that the processor
unpacks. A GPU unpacks in proportion to its clock and its units, which the power mode sets: on every Orin measured so
far that is the smaller one. Of a CPU only cores without int8 dot products are that slow. These few constants, and how
far processors and submitters lie apart, are fitted to published rates by bench/decode_fit.py. The cache of keys and
values is not counted: a short context is meant.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgehmn.errors import UnsupportedError, no_such
from edgehmn.estimate import (
    SPREADS,
    Estimate,
    LayerCost,
    Quantity,
    fitted,
    plan_memory,
    profile_sources,
)
from edgehmn.targets.schema import Target
from edgehmn.workload import Workload

RUNTIMES = ("llama.cpp", "Ollama", "MLC")
# Logarithms of these are fitted. "memory": seconds per byte at a peak of 1 byte/s; "fixed": seconds; the others:
# seconds per byte at 1 of Board.unpack.
PARAMETERS = (
    "gpu memory", "gpu llama.cpp", "gpu MLC", "cpu memory", "cpu unpack", "gpu fixed", "cpu fixed", "Ollama fixed",
)  # fmt: skip
DOT_PRODUCTS = 16  # multiply-accumulates of int8 in a cycle that only cores with dot products make
# Of a Jetson whose power mode is not stated: clock times units anywhere within a factor of 6. An AGX Orin's GPU runs at
# 408 MHz (15 W) to 1,300, an Orin NX's at 408 to 1,173, and in some modes half of its units are off.
POWER_MODES_SD = 0.52
ALL_CORES_FACTOR = 1.3  # what the power of all cores may be off by, beyond that of one


@dataclass(frozen=True)
class Board:
    """What the rate depends on. name: of the target; peak: bytes/s of the memory; unpack: where unpacking may be what
    takes longest, multiply-accumulates/s of a GPU or core cycles/s of a CPU, else 0."""

    name: str
    gpu: bool
    peak: float
    unpack: float

    @property
    def processor(self) -> str:
        """The level of the fit's effects of processors."""
        return f"{'gpu' if self.gpu else 'cpu'} {self.name}"


def board_of(target: Target) -> Board | None:
    """None where text generation by other runtimes is not known to run: no peak bandwidth in the profile."""
    peak = max((m.peak_bandwidth_bytes_per_s or 0.0 for m in target.memory), default=0.0)
    if not peak:
        return None
    core = target.core
    cycles = float(core.count * core.clock_hz)
    if target.kind == "gpu":
        return Board(target.name, True, peak, cycles * core.max_macs_per_cycle)
    return Board(target.name, False, peak, 0.0 if core.max_macs_per_cycle >= DOT_PRODUCTS else cycles)


def token_seconds(read: float, board: Board, runtime: str, log: dict[str, float]) -> dict[str, float]:
    """The parts of the time of a token for which `read` bytes are read, by the parameter that each is proportional to.
    log: logarithms of the parameters."""
    side = "gpu" if board.gpu else "cpu"
    engine = ("gpu MLC" if runtime == "MLC" else "gpu llama.cpp") if board.gpu else "cpu unpack"
    memory = read / board.peak * math.exp(log[f"{side} memory"])
    unpack = read / board.unpack * math.exp(log[engine]) if board.unpack else 0.0
    parts = {f"{side} memory": memory} if memory >= unpack else {engine: unpack}
    parts[f"{side} fixed"] = math.exp(log[f"{side} fixed"])
    if runtime == "Ollama":
        parts["Ollama fixed"] = math.exp(log["Ollama fixed"])
    return parts


@dataclass(frozen=True)
class Prediction:
    """Seconds of a token: the median of what they may be, and the deviation of their logarithm."""

    median: float
    deviation: float

    @property
    def interval(self) -> tuple[float, float]:
        """90 %."""
        reach = math.exp(SPREADS * self.deviation)
        return self.median / reach, self.median * reach


def predict(read: float, board: Board, runtime: str, fit: dict[str, Any]) -> Prediction:
    """Of a submitter who is not known.

    fit: "names" of parameters and processors, their "mean" and "covariance", "deviations" of the groups."""
    names, mean, deviations = fit["names"], fit["mean"], fit["deviations"]
    side = "gpu" if board.gpu else "cpu"
    parts = token_seconds(read, board, runtime, dict(zip(names, mean, strict=True)))
    total = sum(parts.values())
    gradient = np.array([parts.get(name, 0.0) / total for name in names])
    variance = deviations[f"{side} noise"] ** 2 + deviations[f"{side} submitter"] ** 2
    if board.gpu:
        variance += POWER_MODES_SD**2
    if board.processor in names:
        gradient[names.index(board.processor)] = 1.0
        total *= math.exp(mean[names.index(board.processor)])
    else:
        variance += deviations[f"{side} processor"] ** 2
    variance += float(gradient @ np.array(fit["covariance"]) @ gradient)
    return Prediction(total, math.sqrt(variance))


def estimate_generation(workload: Workload, target: Target, runtime: str | None) -> Estimate:
    """Raises UsageError for an unknown runtime, UnsupportedError for a target without anything to go by."""
    known = [name for name in RUNTIMES if target.kind == "gpu" or name != "MLC"]
    chosen = next((name for name in known if name.lower() == (runtime or known[0]).lower()), None)
    if chosen is None:
        raise no_such("runtime", str(runtime), known)
    board, fit = board_of(target), fitted()["decode"]
    if board is None:
        raise UnsupportedError(
            f"{target.name}: text generation from a GGUF file is estimated for boards whose memory has "
            "peak_bandwidth_bytes_per_s; this one has no published rates"
        )
    plan = plan_memory(workload, target)
    predicted = predict(max(1, workload.weight_bytes), board, chosen, fit)
    seconds = Quantity(predicted.median, *predicted.interval)
    power = target.power
    watts = power.idle_w + (1 if board.gpu else target.core.count) * (power.active_w - power.idle_w)
    joules = seconds.times(watts).spread(power.interval_factor).spread(ALL_CORES_FACTOR)
    tier = "same core and runtime" if board.processor in fit["names"] else "core class"
    sources = profile_sources(target, [f"rate: fitted to {fit['rows']} published rates, targets/fitted.json"])
    return Estimate(target, tier, chosen, seconds, joules, _layers(workload, seconds.value), plan, sources)


def _layers(workload: Workload, seconds: float) -> tuple[LayerCost, ...]:
    """The time, spread over the operators by the bytes that they read."""
    total = max(1, workload.weight_bytes)
    return tuple(
        LayerCost(o.name, o.kind, o.macs, o.weight_bytes, seconds * o.weight_bytes / total, "memory")
        for o in workload.operations
    )
