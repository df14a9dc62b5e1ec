"""What a device is, and what it has done and learned: looked at without a trace on it.

A look asks for identity, counts and stored state, and for nothing else: context, delta, staging buffer and flash stay
as they are. The port is open for a look alone, so that another program can have it in between.
"""

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timezone

from edgehmn.device.boards import machines
from edgehmn.device.emulator import INSTRUCTIONS_PER_SECOND
from edgehmn.device.link import Link
from edgehmn.device.wire import DeviceCounts, Identity, StoredState
from edgehmn.errors import DeviceError, EdgeHMNError, LinkLostError
from edgehmn.runtime.device import check_image
from edgehmn.runtime.over_ssh import reached


@dataclass(frozen=True)
class Look:
    """What a device said. time: of day, and `at` in seconds of a clock that never goes back. problem: why there is no
    model, None if there is one; counts: of the model; stored: None if the device has no flash for states."""

    time: datetime
    at: float
    identity: Identity
    problem: str | None
    counts: DeviceCounts | None
    stored: StoredState | None

    @property
    def emulated(self) -> bool:
        return self.identity.board in machines()

    @property
    def seconds_per_token(self) -> float | None:
        """That it computed for each token fed, by its timer: learning left out, the line too. None before the first,
        and where there is no timer; an emulated board's counts instructions."""
        counts, hz = self.counts, self.identity.tick_hz
        return counts.step_ticks / counts.steps / hz if counts and counts.steps and counts.step_ticks and hz else None

    @property
    def instructions_per_token(self) -> float | None:
        """The same of an emulated board."""
        seconds = self.seconds_per_token
        return seconds * INSTRUCTIONS_PER_SECOND if seconds is not None and self.emulated else None

    @property
    def learning_share(self) -> float | None:
        """Of all that it computed, what was learning and following."""
        ticks = self.counts.step_ticks + self.counts.learn_ticks if self.counts else 0
        return self.counts.learn_ticks / ticks if self.counts and ticks else None


@dataclass(frozen=True)
class Change:
    """What a device did from one look to another. restarted: it started anew in between, and this is what it did since
    then; one that has done more since than before is not noticed."""

    seconds: float
    tokens: int
    learned: int
    restarted: bool

    @classmethod
    def between(cls, before: Look, now: Look) -> "Change":
        old, new = before.counts or DeviceCounts(), now.counts or DeviceCounts()
        restarted = new.steps < old.steps or new.learned < old.learned or new.macs < old.macs
        old = DeviceCounts() if restarted else old
        return cls(now.at - before.at, new.steps - old.steps, new.learned - old.learned, restarted)

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / self.seconds if self.seconds > 0 else 0.0


def look(port: str, timeout_s: float) -> Look:
    """Look at the device at a pyserial URL, unix://PATH or ssh://USER@NAME. A server that ssh starts for it works on a
    copy of what is stored there: this start is no trial of a provisional state. Raises the errors of Link."""
    with reached(port, aside=True) as url, closing(Link(url, timeout_s=timeout_s)) as link:
        try:
            check_image(link.identity, port)
            problem = None
        except EdgeHMNError as e:
            problem = str(e).removeprefix(f"{port}: ")
        counts = link.counts() if problem is None else None
        return Look(datetime.now(timezone.utc), time.monotonic(), link.identity, problem, counts, link.stored())


def watch(
    take: Callable[[], Look], every_s: float, count: int | None, note: Callable[[str], None] = lambda text: None
) -> Iterator[Look]:
    """Take a look every so many seconds, `count` times or without an end. A device that is not there, or that another
    program has, is noted once and waited for. Raises its error if none of `count` looks was answered."""
    lost: EdgeHMNError | None = None
    answered, due = 0, time.monotonic()
    for _ in itertools.count() if count is None else range(count):
        time.sleep(max(0.0, due - time.monotonic()))
        due = max(due, time.monotonic()) + every_s
        try:
            now = take()
        except (DeviceError, LinkLostError) as e:
            if str(e) != str(lost):
                note(f"{e}; trying again every {every_s:g} s")
            lost = e
            continue
        if lost is not None:
            note(f"{now.identity.board} is back" if answered else f"{now.identity.board} is there")
        lost, answered = None, answered + 1
        yield now
    if lost is not None and not answered:
        raise lost
