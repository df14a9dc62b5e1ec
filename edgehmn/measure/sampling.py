"""Sensors of power or energy, and how their samples become joules."""

import itertools
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from edgehmn.errors import DeviceError

MOST_WATTS = 5000.0  # more than this is no board, but a unit read wrongly
Sample = tuple[float, float]  # seconds, watts or joules


@dataclass(frozen=True)
class Description:
    """What is printed with every figure. rail: what is measured; leaves_out: what is not."""

    method: str
    rail: str
    leaves_out: str
    rate_hz: float


class Sensor(Protocol):
    """Something that is read again and again. counts: read() gives joules that only rise; else watts."""

    description: Description
    counts: bool

    def read(self) -> float:
        """Raises DeviceError if there is no reading, or one that cannot be."""


def plausible(watts: float, what: str) -> float:
    """Raises DeviceError for watts that no board takes."""
    if not math.isfinite(watts) or watts < 0:
        raise DeviceError(f"{what}: {watts} W cannot be; the sensor is not read rightly")
    if watts > MOST_WATTS:
        raise DeviceError(f"{what}: {watts:g} W cannot be; are these millivolts or milliwatts taken for watts?")
    return watts


def integrate(samples: Sequence[Sample], what: str) -> float:
    """Joules under samples of watts, by trapezoids. Raises DeviceError for fewer than two, times that do not rise, or
    nothing but zeros."""
    if len(samples) < 2:
        raise DeviceError(f"{what}: {len(samples)} samples are no measurement; measure for longer")
    joules = 0.0
    for (t0, p0), (t1, p1) in itertools.pairwise(samples):
        if t1 <= t0:
            raise DeviceError(f"{what}: its times do not rise")
        joules += (plausible(p0, what) + plausible(p1, what)) / 2 * (t1 - t0)
    if joules == 0:
        raise DeviceError(f"{what}: every sample is zero; the rail is not measured")
    return joules


def counted(samples: Sequence[Sample], wraps_at: float, what: str) -> float:
    """Joules between the first and the last reading of a counter that starts again at `wraps_at` joules."""
    if len(samples) < 2:
        raise DeviceError(f"{what}: {len(samples)} readings are no measurement; measure for longer")
    joules = 0.0
    for (t0, e0), (t1, e1) in itertools.pairwise(samples):
        step = e1 - e0 if e1 >= e0 else e1 - e0 + wraps_at
        if not 0 <= e0 <= wraps_at or not 0 <= e1 <= wraps_at or t1 <= t0:
            raise DeviceError(f"{what}: a reading that cannot be ({e0:g} J, then {e1:g} J)")
        plausible(step / (t1 - t0), what)
        joules += step
    if joules == 0:
        raise DeviceError(f"{what}: the counter does not move")
    return joules


@dataclass(frozen=True)
class Energy:
    """joules over seconds, from so many samples."""

    joules: float
    seconds: float
    samples: int
    description: Description

    @property
    def watts(self) -> float:
        return self.joules / self.seconds

    def as_dict(self) -> dict[str, Any]:
        d = self.description
        return {
            "joules": self.joules, "seconds": self.seconds, "watts": self.watts, "samples": self.samples,
            "samples_per_s": self.samples / self.seconds, "method": d.method, "rail": d.rail,
            "leaves_out": d.leaves_out,
        }  # fmt: skip


def measure_energy(sensor: Sensor, work: Callable[[], object]) -> Energy:
    """Joules while `work` runs, read beside it by a thread. Raises DeviceError if a reading fails."""
    samples: list[Sample] = []
    failed: list[Exception] = []
    done = threading.Event()

    def sample() -> None:
        try:
            while True:
                samples.append((time.perf_counter(), sensor.read()))
                if done.wait(1 / sensor.description.rate_hz):
                    break
            samples.append((time.perf_counter(), sensor.read()))
        except Exception as e:  # handed to the caller, who is in another thread
            failed.append(e)

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        work()
    finally:
        done.set()
        thread.join(timeout=10)
    if failed:
        raise failed[0]
    what = sensor.description.rail
    wraps_at = getattr(sensor, "wraps_at_joules", math.inf)
    joules = counted(samples, wraps_at, what) if sensor.counts else integrate(samples, what)
    return Energy(joules, samples[-1][0] - samples[0][0], len(samples), sensor.description)
