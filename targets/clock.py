"""A board whose core runs at another clock than its profile says."""

import math
from dataclasses import replace

from edgehmn.errors import UsageError
from edgehmn.targets.schema import Measured, Memory, Power, Target

BESIDE_THE_CORE = ("tcm", "sram", "l2", "l3")  # levels of memory that the core's clock runs
LEAST_HZ, MOST_TIMES = 10**5, 4.0  # a clock that is no clock of such a board any more


def at_clock(target: Target, clock_hz: int) -> Target:
    """Cycles stay as many. Memory beside the core follows its clock; flash, DRAM and what hangs on a line take their
    time as before, and deliver at most what the nearest memory does. Of the power, what computing adds to being awake
    follows the clock; being awake may follow it too, which the interval holds. No voltage is scaled. What was published
    of the board was at its own clock. Raises UsageError for a clock that cannot be meant."""
    own = target.core.clock_hz
    if not LEAST_HZ <= clock_hz <= MOST_TIMES * own:
        raise UsageError(
            f"{target.name}: a clock of {clock_hz:,} Hz cannot be meant; its profile says {own:,}, and "
            f"{LEAST_HZ:,} to {MOST_TIMES:g} times as much can be estimated"
        )
    times = clock_hz / own
    source = f"{clock_hz:,} Hz, asked for; {own:,} by {target.core.source}"
    return replace(
        target, title=f"{target.title}; here at {clock_hz / 1e6:g} MHz",
        core=replace(target.core, clock_hz=clock_hz, source=source), memory=_memory(target, times),
        power=_power(target.power, times), measured_as=(),
        measured=_measured(target.measured, times) if target.measured else None,
    )  # fmt: skip


def _memory(target: Target, times: float) -> tuple[Memory, ...]:
    near = [m.bandwidth_bytes_per_s * times for m in target.memory if m.level in BESIDE_THE_CORE]
    most = max(near, default=math.inf)
    return tuple(
        replace(
            m,
            bandwidth_bytes_per_s=m.bandwidth_bytes_per_s * times
            if m.level in BESIDE_THE_CORE
            else min(m.bandwidth_bytes_per_s, most),
        )
        for m in target.memory
    )


def _power(power: Power, times: float) -> Power:
    """active_w between what it is if being awake follows the clock and if it does not, which the factor reaches."""
    awake_stays = power.idle_w + (power.active_w - power.idle_w) * times
    all_follows = power.active_w * times
    active = math.sqrt(awake_stays * all_follows)
    off = abs(math.log(awake_stays / all_follows)) / 2
    factor = math.exp(math.hypot(math.log(power.interval_factor), off))
    idle, sleep = min(power.idle_w, active), min(power.sleep_w, active)
    return replace(power, active_w=active, idle_w=idle, sleep_w=sleep, interval_factor=factor)


def _measured(measured: Measured, times: float) -> Measured:
    """seconds_per_byte are of memory, and stay."""
    computing = [
        name for name in Measured.__dataclass_fields__ if name.startswith("seconds_per_") and name != "seconds_per_byte"
    ]
    return replace(measured, **{name: getattr(measured, name) / times for name in computing})
