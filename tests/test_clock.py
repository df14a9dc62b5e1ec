"""A board at another clock: cycles stay as many, memory on a line as slow, and power is less certain."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from edgehmn.errors import UsageError
from edgehmn.estimate import estimate, published
from edgehmn.targets.clock import at_clock
from edgehmn.targets.schema import Measured, load_target
from edgehmn.workload import Learning, Operation, Workload
from tests.command_line import Result


def token() -> Workload:
    operations = tuple(Operation(f"layer {i}", "fc", 250_000, 250_000, 1000, 500) for i in range(7))
    return Workload("x", "token", operations, 1_686_544, 215_216, 313_136, Learning(35_000, 24_000, 5_700, 94_000))


@pytest.mark.parametrize("times", [0.25, 0.5])
def test_a_core_that_computes_takes_as_many_cycles(times: float) -> None:
    board = load_target("stm32h743")
    own, other = estimate(token(), board), estimate(token(), at_clock(board, int(times * board.core.clock_hz)))
    assert other.seconds.value == pytest.approx(own.seconds.value / times)
    assert own.plasticity_share is not None and other.plasticity_share is not None
    assert other.plasticity_share.interval == pytest.approx(own.plasticity_share.interval)


def test_a_core_that_waits_for_its_flash_is_hardly_faster_with_a_faster_clock() -> None:
    board = load_target("rp2350")
    own, other = estimate(token(), board), estimate(token(), at_clock(board, 2 * board.core.clock_hz))
    assert 0.9 * own.seconds.value < other.seconds.value <= own.seconds.value


def test_no_memory_delivers_more_than_the_nearest() -> None:
    board = at_clock(load_target("stm32h743"), 1_000_000)
    near = [m.bandwidth_bytes_per_s for m in board.memory if m.level in ("tcm", "sram")]
    assert max(m.bandwidth_bytes_per_s for m in board.memory) == max(near)


@pytest.mark.parametrize("times", [0.1, 0.5, 3.0])
def test_power_lies_between_what_being_awake_may_do(times: float) -> None:
    board = load_target("stm32l4r5")
    slow = at_clock(board, int(times * board.core.clock_hz)).power
    ends = sorted(
        (board.power.active_w * times, board.power.idle_w + (board.power.active_w - board.power.idle_w) * times)
    )
    assert ends[0] < slow.active_w < ends[1]
    assert slow.active_w / slow.interval_factor < ends[0] and slow.active_w * slow.interval_factor > ends[1]
    assert slow.interval_factor > board.power.interval_factor
    assert slow.sleep_w <= slow.idle_w <= slow.active_w


def test_its_own_clock_changes_nothing_but_what_is_known_of_it() -> None:
    board = load_target("stm32l4r5")
    same = estimate(token(), at_clock(board, board.core.clock_hz))
    own = estimate(token(), board)
    assert same.seconds == own.seconds and same.joules.interval == pytest.approx(own.joules.interval)
    assert not published(token(), same.target), "what is published was at the clock of the profile"


def test_a_board_that_was_measured_computes_faster_and_reads_as_before() -> None:
    measured = Measured("today", 1e-9, 1e-9, 1e-9, 1e-9, 1e-6, (1000,), (1e-9,), 1e-9, 1e-8, 1e-6, 1.2, "a test")
    board = replace(load_target("host"), measured=measured)
    twice = at_clock(board, 2 * board.core.clock_hz).measured
    assert twice is not None and twice.seconds_per_byte == measured.seconds_per_byte
    assert twice.seconds_per_mac == measured.seconds_per_mac / 2
    assert twice.seconds_per_learned_token == measured.seconds_per_learned_token / 2
    assert (twice.date, twice.interval_factor) == (measured.date, measured.interval_factor)


@pytest.mark.parametrize("clock_hz", [1, 99_999, 10**10])
def test_clocks_that_cannot_be_meant(clock_hz: int) -> None:
    with pytest.raises(UsageError, match="cannot be meant"):
        at_clock(load_target("stm32l4r5"), clock_hz)


def test_the_command(tiny_export: Path, run_cli: Callable[..., Result]) -> None:
    own, slow = (
        run_cli("profile", tiny_export, "--target", "stm32h743", *more, "--json").result["targets"][0]
        for more in ((), ("--clock-hz", "240e6"))
    )
    assert slow["title"].endswith("here at 240 MHz") and "240,000,000 Hz, asked for" in slow["sources"][0]
    assert slow["latency_ms_per_token"] == pytest.approx(2 * own["latency_ms_per_token"])
    assert math.isclose(slow["plasticity_share_of_energy"], own["plasticity_share_of_energy"])
    for more in (
        ("--target", "stm32h743,rp2350", "--clock-hz", "1e8"), ("--target", "hermes", "--clock-hz", "1e8"),
        ("--target", "stm32h743", "--clock-hz", "80"), ("--measured", "--clock-hz", "1e8"),
    ):  # fmt: skip
        done = run_cli("profile", tiny_export, *more)
        assert done.code == 2 and "clock" in done.err, done
