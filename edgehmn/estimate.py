"""What a token, or an inference, costs on a target: seconds, joules and memory, each with its 90 % interval.

Of every operator the larger of two times counts: of computing, and of reading its weights from where they lie.
A prediction is never a measurement: its tier says what it rests on.
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from edgehmn.errors import UnsupportedError, UsageError
from edgehmn.targets.schema import PROFILES, Memory, Target
from edgehmn.workload import Operation, Workload

SPREADS = 1.94  # deviations to either side of a 90 % interval: Student's t with 6 degrees of freedom
FITTED = PROFILES.parent / "fitted.json"
COUNTS = PROFILES.parent / "counts.json"
PLASTIC_CYCLES = PROFILES.parent / "plastic_cycles.json"
MEMORY_FACTOR = 1.3  # what a bandwidth may be off by, with 90 %
# Within which factor it is known, with 90 %, how many times as long as a frozen one a plastic instruction takes: where
# kernels were counted or pipelines modelled; where another core's instructions stand in.
KNOWN_FACTOR, STAND_IN_FACTOR = 1.3, 1.6
COUNTED_CORES = ("Cortex-M4F", "Cortex-M33", "Cortex-M7")
VECTOR_CODE = ("aarch64", "aarch64-dotprod", "x86-64")
LINE_BYTES = 64  # what a synapse moves where there are caches; without, its 4 bytes twice
TIERS = ("measured", "anchored", "same core and runtime", "core class")
DAY_S = 86400.0


def least_relative_error(median: float, deviation: float) -> float:
    """The value with the least expected relative error, of a log-normal quantity."""
    return median * math.exp(-(deviation**2))


@dataclass(frozen=True)
class Quantity:
    """A value with its 90 % interval."""

    value: float
    low: float
    high: float

    def times(self, factor: float) -> "Quantity":
        return Quantity(self.value * factor, self.low * factor, self.high * factor)

    def spread(self, factor: float) -> "Quantity":
        """Times something that is 1 within `factor`, independent of it."""
        low, high = (math.hypot(math.log(f), math.log(factor)) for f in (self.value / self.low, self.high / self.value))
        return Quantity(self.value, self.value * math.exp(-low), self.value * math.exp(high))

    @property
    def interval(self) -> list[float]:
        return [self.low, self.high]


@dataclass(frozen=True)
class LayerCost:
    """Of one operator. bound: "compute" or "memory"."""

    name: str
    kind: str
    macs: int
    weight_bytes: int
    seconds: float
    bound: str


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes needed and there. weights_in: the level they are read from; None: they fit nowhere."""

    flash_need: int
    flash_have: int
    ram_need: int
    ram_have: int
    weights_in: str | None

    @property
    def fits(self) -> bool:
        return self.weights_in is not None and self.ram_need <= self.ram_have


@dataclass(frozen=True)
class Estimate:
    """seconds, joules: per token or inference, frozen; seconds_learned, joules_learned: of a token that is learned,
    None where nothing learns. Of that energy, plasticity_share: of learning, the sparse updates and what decides on
    them; adapters_share: of the adapters and memories that predict, learning or not."""

    target: Target
    tier: str
    runtime: str
    seconds: Quantity
    joules: Quantity
    layers: tuple[LayerCost, ...]
    memory: MemoryPlan
    sources: tuple[str, ...]
    seconds_learned: Quantity | None = None
    joules_learned: Quantity | None = None
    plasticity_share: Quantity | None = None
    adapters_share: Quantity | None = None

    def idle_joules(self) -> float:
        """Of the joules, those that the board would have taken awake and idle."""
        return self.target.power.idle_w * self.seconds.value

    def per_day(self, tokens: float, learned: float) -> float:
        """Joules of a day with so many tokens, of which some are learned; the rest of it the board sleeps."""
        busy = (tokens - learned) * self.seconds.value
        joules = (tokens - learned) * self.joules.value
        if learned and self.seconds_learned is not None and self.joules_learned is not None:
            busy += learned * self.seconds_learned.value
            joules += learned * self.joules_learned.value
        if busy > DAY_S:
            return math.inf
        return joules + self.target.power.sleep_w * (DAY_S - busy)


@lru_cache(maxsize=4)
def _read(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return values


def fitted() -> dict[str, Any]:
    """targets/fitted.json."""
    return _read(FITTED)


def runtimes(target: Target) -> list[str]:
    """What --runtime-profile may name for this target."""
    names = [n["runtime"] for n in _read(FITTED)["networks"] if n["target"] == target.name and n["runtime"]]
    return names or ([target.network.runtime] if target.network else [])


def published(workload: Workload, target: Target) -> list[dict[str, Any]]:
    """Published measurements of a network of the same multiply-accumulates on this target, at its own clock."""
    if not target.measured_as:
        return []
    macs = [workload.by_class()[k] for k in ("fc", "conv", "pointwise", "depthwise")]
    return [p for p in _read(FITTED)["published"] if p["target"] == target.name and p["macs"] == macs]


def estimate(workload: Workload, target: Target, runtime: str | None = None) -> Estimate:
    """Raises UsageError for a runtime that is not known there, UnsupportedError for an export on a GPU."""
    if workload.generated:
        from edgehmn.generation import estimate_generation

        return estimate_generation(workload, target, runtime)
    if workload.own:
        if runtime is not None:
            raise UsageError(
                "--runtime-profile is about .tflite, .onnx and .gguf files; an export runs in our own core"
            )
        return _own(workload, target)
    return _network(workload, target, runtime)


# Memory


def plan_memory(workload: Workload, target: Target) -> MemoryPlan:
    """Where weights and arena lie."""
    ram_need = workload.ram_learning_bytes or workload.ram_bytes
    ram = max(target.memory_for("arena"), key=lambda m: m.bytes)
    stores = [m for m in target.memory_for("weights") if _room(m, ram, ram_need) >= workload.flash_bytes]
    has_flash = [m for m in target.memory_for("weights") if m.level in ("flash", "xip")] or target.memory_for("weights")
    flash = max(has_flash, key=lambda m: m.bytes)
    # What lies in RAM has to be copied there from flash, if there is any, so it must fit that too.
    stores = [m for m in stores if workload.flash_bytes <= flash.bytes]
    best = max(stores, key=lambda m: m.bandwidth_bytes_per_s) if stores else None
    return MemoryPlan(workload.flash_bytes, flash.bytes, ram_need, ram.bytes, best.level if best else None)


def _room(memory: Memory, ram: Memory, ram_need: int) -> int:
    return memory.bytes - (ram_need if memory is ram else 0)


def _bandwidth(workload: Workload, target: Target, plan: MemoryPlan) -> float:
    """Bytes per second at which weights are read: of the cache that holds them all, or of where they lie."""
    if target.measured is not None:
        m = target.measured
        levels = [s for s, b in zip(m.seconds_per_byte, m.beyond_bytes, strict=True) if workload.flash_bytes > b]
        return 1 / levels[-1] if levels else math.inf
    caches = [m for m in target.memory if m.level in ("l2", "l3")]
    inside = [m.bandwidth_bytes_per_s for m in caches if m.bytes >= workload.flash_bytes + plan.ram_need // 2]
    stores = [m for m in target.memory_for("weights") if m.level == plan.weights_in] or [
        min(target.memory_for("weights"), key=lambda m: m.bandwidth_bytes_per_s)
    ]
    return max([*inside, *(m.bandwidth_bytes_per_s for m in stores)])


# Our own core


@dataclass(frozen=True)
class Speeds:
    """Seconds of the parts of our own core."""

    per_mac: float
    per_row: float
    per_attention_mac: float
    per_score: float
    per_token: float
    per_plastic_mac: float
    per_write: float
    per_learned_token: float

    def times(self, factor: float) -> "Speeds":
        return Speeds(*(factor * getattr(self, f) for f in self.__dataclass_fields__))


def own_speeds(target: Target) -> Speeds:
    """As measured on the board, or from the instructions that were counted for its kind."""
    if target.measured is not None:
        m = target.measured
        return Speeds(
            m.seconds_per_mac, m.seconds_per_row, m.seconds_per_attention_mac, m.seconds_per_score,
            m.seconds_per_token, m.seconds_per_plastic_mac, m.seconds_per_write, m.seconds_per_learned_token,
        )  # fmt: skip
    c = _counts(target)
    cycle = target.own_core.cycles_per_instruction / target.core.clock_hz
    per, macs = c["instructions_per_token"], c["macs_per_token"]
    frozen = per["static"] / macs["static"] * cycle
    plastic = plastic_cycles(target)
    predicted = (per["predicted"] - per["static"]) / (macs["predicted"] - macs["static"]) * cycle * plastic.adapters
    written = (per["learned"] - per["predicted"]) / c["writes_per_learned_token"] * cycle * plastic.learning
    return Speeds(frozen, 0, frozen, 0, 0, predicted, written, 0)


@dataclass(frozen=True)
class PlasticCycles:
    """How many times as long as one of the frozen model an instruction takes of the adapters that predict and of
    learning; within which factor, with 90 %."""

    adapters: float
    learning: float
    factor: float


def plastic_cycles(target: Target) -> PlasticCycles:
    """On cores with vector units as bench.plastic_cycles found it: frozen parts are streams of products there, which
    run without a stop."""
    if target.measured is None and target.own_core.instructions in VECTOR_CODE:
        found = _read(PLASTIC_CYCLES)
        return PlasticCycles(**found["cores"].get(target.core.name, found["others"]), factor=KNOWN_FACTOR)
    known = target.measured is not None or target.core.name in COUNTED_CORES
    return PlasticCycles(1.0, 1.0, KNOWN_FACTOR if known else STAND_IN_FACTOR)


def _counts(target: Target) -> dict[str, Any]:
    entry: dict[str, Any] = _read(COUNTS)[target.own_core.instructions]
    return entry


def _own(workload: Workload, target: Target) -> Estimate:
    if target.own_core.instructions == "none":
        raise UnsupportedError(
            f"{target.name}: edgehmn's own core does not run on a GPU; profile the CPU of that board"
        )
    plan = plan_memory(workload, target)
    speeds, bandwidth = own_speeds(target), _bandwidth(workload, target, plan)
    factor = target.measured.interval_factor if target.measured else target.own_core.interval_factor
    corners = [(1.0, 1.0), (1 / factor, 1 / MEMORY_FACTOR), (factor, MEMORY_FACTOR)]
    frozen = [_own_seconds(workload, speeds, bandwidth, *c, target) for c in corners]
    plastic = [_plastic_seconds(workload, target, speeds, *c) for c in corners]
    layers = tuple(_own_layer(o, speeds, bandwidth, target) for o in workload.operations)
    seconds = _positive(frozen)
    out = Estimate(
        target, "anchored" if target.measured else "core class", "edgehmn", seconds, _joules(seconds, target), layers,
        plan, _sources(target, "own"),
    )  # fmt: skip
    if workload.learning is None:
        return out
    learned = _positive([f + p for f, p in zip(frozen, plastic, strict=True)])

    def seconds_of(compute: float, memory: float) -> tuple[float, float, float]:
        """Of the frozen model, of adapters that predict, and of learning."""
        frozen = _own_seconds(workload, speeds, bandwidth, compute, memory, target)
        plastic = _plastic_seconds(workload, target, speeds, compute, memory)
        adapters = min(plastic, _adapters_seconds(workload, speeds, compute))
        return frozen, adapters, plastic - adapters

    def learning_to_rest(compute: float, memory: float) -> float:
        frozen, adapters, learning = seconds_of(compute, memory)
        return learning / (frozen + adapters)

    def adapters_to_rest(compute: float, memory: float) -> float:
        frozen, adapters, learning = seconds_of(compute, memory)
        return adapters / (frozen + learning)

    spreads = factor, plastic_cycles(target).factor
    return replace(
        out, seconds_learned=learned, joules_learned=_joules(learned, target),
        plasticity_share=_share(learning_to_rest, *spreads), adapters_share=_share(adapters_to_rest, *spreads),
    )  # fmt: skip


def _share(ratio: Callable[[float, float], float], factor: float, plastic: float) -> Quantity:
    """Of a plastic part in all, from its ratio to the rest where computing and memory are so many times as slow.

    What slows both parts alike leaves the share as it is: it is only the ratio that is uncertain, by what does not fall
    on both, each of these by itself."""
    middle = max(ratio(1, 1), 1e-9)
    changes = [
        math.log(max(ratio(*at), 1e-9) / middle)
        for at in ((factor, 1), (1 / factor, 1), (1, MEMORY_FACTOR), (1, 1 / MEMORY_FACTOR))
    ]
    changes += [math.log(plastic), -math.log(plastic)]
    up, down = (math.sqrt(sum(max(0.0, sign * c) ** 2 for c in changes)) for sign in (1, -1))
    return Quantity(*(r / (1 + r) for r in (middle, middle * math.exp(-down), middle * math.exp(up))))


def _own_layer(o: Operation, speeds: Speeds, bandwidth: float, target: Target) -> LayerCost:
    if o.kind == "attention":
        compute = o.macs * speeds.per_attention_mac + o.rows * speeds.per_score
    else:
        compute = o.macs * speeds.per_mac + o.rows * speeds.per_row
    memory = o.weight_bytes / bandwidth
    bound = "memory" if memory > compute else "compute"
    return LayerCost(o.name, o.kind, o.macs, o.weight_bytes, max(compute, memory), bound)


def _own_seconds(w: Workload, s: Speeds, bandwidth: float, compute: float, memory: float, target: Target) -> float:
    scaled = s.times(compute)
    return scaled.per_token + sum(_own_layer(o, scaled, bandwidth / memory, target).seconds for o in w.operations)


def _plastic_seconds(w: Workload, target: Target, s: Speeds, compute: float, memory: float) -> float:
    """Seconds that adapters, memories and learning add to a token that is learned."""
    if w.learning is None:
        return 0.0
    learning = w.learning
    computing = _adapters_seconds(w, s, compute) + compute * (learning.writes * s.per_write + s.per_learned_token)
    if target.measured is not None:
        return computing
    caches = [m for m in target.memory if m.level in ("l2", "l3") and m.bytes >= w.ram_learning_bytes]
    ram = max(caches or target.memory_for("arena"), key=lambda m: m.bandwidth_bytes_per_s)
    of_write = LINE_BYTES if any(m.level == "dram" for m in target.memory) else 8
    moved = min(learning.writes * of_write, 2 * learning.delta_bytes)
    return max(computing, memory * moved / ram.bandwidth_bytes_per_s)


def _adapters_seconds(w: Workload, s: Speeds, compute: float) -> float:
    """Seconds that adapters and memories add to a prediction."""
    return compute * w.learning.macs_predicted * s.per_plastic_mac if w.learning is not None else 0.0


def _positive(values: list[float]) -> Quantity:
    return Quantity(*(max(v, 1e-12) for v in values))


def _joules(seconds: Quantity, target: Target) -> Quantity:
    return seconds.times(target.power.active_w).spread(target.power.interval_factor)


# Networks


def _network(workload: Workload, target: Target, runtime: str | None) -> Estimate:
    entries = [n for n in _read(FITTED)["networks"] if n["target"] == target.name]
    chosen = next((n for n in entries if n["runtime"].lower() == (runtime or "").lower()), None)
    known = runtimes(target)
    if runtime is not None and runtime.lower() not in [name.lower() for name in known]:
        raise UsageError(f"{target.name}: no runtime '{runtime:.60}' is known there; known are {', '.join(known)}")
    if chosen is not None:
        logs, deviation = _fitted_costs(workload, chosen)
        tier = "same core and runtime" if chosen["seen_on_core"] else "core class"
        name = chosen["runtime"] or "any fast runtime"
    elif target.network is not None:
        n = target.network
        logs = [n.cycles_per_mac_fc, n.cycles_per_mac_conv, n.cycles_per_mac_pointwise, n.cycles_per_mac_depthwise]
        logs, deviation = [*logs, n.cycles_per_operator], math.log(n.interval_factor) / SPREADS
        tier, name = "core class", n.runtime
    else:
        raise UnsupportedError(f"{target.name}: its profile has no table 'network', and its core is not in the fit")
    plan = plan_memory(workload, target)
    bandwidth = _bandwidth(workload, target, plan)
    layers = tuple(_network_layer(o, logs, target, bandwidth) for o in workload.operations)
    median = max(sum(layer.seconds for layer in layers), 1e-12)
    bounds = [median * math.exp(sign * SPREADS * deviation) for sign in (-1, 1)]
    seconds = Quantity(least_relative_error(median, deviation), bounds[0], bounds[1])
    return Estimate(target, tier, name, seconds, _joules(seconds, target), layers, plan, _sources(target, "network"))


def _fitted_costs(workload: Workload, entry: dict[str, Any]) -> tuple[list[float], float]:
    """Cycles per multiply-accumulate of each class and per operator, and the deviation of the total's logarithm."""
    costs = [math.exp(v) for v in entry["log_cycles"]]
    by_class = workload.by_class()
    amounts = [by_class["fc"] + by_class["attention"], by_class["conv"], by_class["pointwise"], by_class["depthwise"]]
    amounts.append(sum(o.kind != "other" for o in workload.operations))
    parts = [a * c for a, c in zip(amounts, costs, strict=True)]
    total = sum(parts) or 1.0
    share = [p / total for p in parts]
    noise = _read(FITTED)["deviations"]["noise"]
    variance = sum(
        a * b * v for a, row in zip(share, entry["covariance"], strict=True) for b, v in zip(share, row, strict=True)
    )
    return costs, math.sqrt(variance + noise**2)


def _network_layer(o: Operation, costs: list[float], target: Target, bandwidth: float) -> LayerCost:
    kinds = {"fc": 0, "attention": 0, "conv": 1, "pointwise": 2, "depthwise": 3}
    if o.kind == "other":  # the fit's cost of an operator has the usual ones inside
        cycles = 0.0
    else:
        cycles = o.macs * costs[kinds[o.kind]] + costs[4]
    compute, memory = cycles / target.core.clock_hz, o.weight_bytes / bandwidth
    bound = "memory" if memory > compute else "compute"
    return LayerCost(o.name, o.kind, o.macs, o.weight_bytes, max(compute, memory), bound)


def _sources(target: Target, what: str) -> tuple[str, ...]:
    out = []
    if target.measured is not None and what == "own":
        out.append(f"speed: {target.measured.source}, {target.measured.date}")
    elif what == "own":
        out += [f"instructions: {_counts(target)['source']}", f"cycles per instruction: {target.own_core.source}"]
    elif target.network is None:
        out.append(f"cycles: fitted to {_read(FITTED)['rows']} published measurements, targets/fitted.json")
    else:
        out.append(f"cycles: {target.network.source}")
    return profile_sources(target, out)


def profile_sources(target: Target, speed: list[str]) -> tuple[str, ...]:
    """What every figure rests on; speed: what its time does."""
    return (
        f"clock: {target.core.source}",
        *speed,
        *(f"{m.level}: {m.source}" for m in target.memory),
        f"power of {target.power.of}: {target.power.source}",
    )
