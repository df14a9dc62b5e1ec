"""A profile of the very machine: what is fitted to what was timed there, and what is written."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgehmn.core import CoreModel, Image
from edgehmn.errors import DeviceError, InvalidFileError, UsageError
from edgehmn.estimate import estimate
from edgehmn.exported import Export
from edgehmn.measure.anchor import (
    FIRST,
    Timing,
    as_toml,
    fit,
    fit_speeds,
    frozen_seconds,
    nonnegative,
    products_seconds,
    random_image,
    time_image,
)
from edgehmn.measure.token_by_token import feed
from edgehmn.targets.schema import Measured, load_target
from edgehmn.workload import workload_of
from tests.command_line import Result


def test_nonnegative_least_squares() -> None:
    design = np.array([[1.0, 1.0], [2.0, 1.0], [4.0, 1.0]])
    assert nonnegative(design, design @ [2.0, 3.0]) == pytest.approx([2.0, 3.0])
    assert nonnegative(design, design @ [2.0, -0.5]).min() >= 0


def test_a_random_model_is_timed() -> None:
    image = random_image(FIRST)
    assert isinstance(image, Image)
    timing = time_image(image, np.arange(80, dtype=np.int32))
    assert timing.frozen_s > 0 and timing.writes > 0
    speeds = fit_speeds([timing])
    assert speeds["interval_factor"] >= 1.15


SPEEDS = {
    "seconds_per_mac": 2e-11, "seconds_per_row": 5e-10, "seconds_per_attention_mac": 3e-11, "seconds_per_score": 2e-9,
    "seconds_per_token": 3e-6, "seconds_per_plastic_mac": 1e-10, "seconds_per_write": 1e-9,
    "seconds_per_learned_token": 4e-6,
}  # fmt: skip


def as_if_timed(
    kilobytes: int, per_byte: float = 0.0, amounts: tuple[int, ...] = (1, 1, 1, 1), noise: float = 1.0
) -> Timing:
    """Of a machine with SPEEDS, where the model's weights lie in a memory that takes `per_byte` for each."""
    rows, attention, scores, writes = amounts
    weights = 1000 * kilobytes
    t = Timing(
        weights, weights, weights, 8000 * rows, 70_000 * attention, 900 * scores, 1e4 * rows, 6000.0 * writes, 0.0, 0.0
    )  # fmt: skip
    frozen = frozen_seconds(t, SPEEDS) + max(0.0, weights * per_byte - products_seconds(t, SPEEDS))
    learned = frozen + t.plastic_macs * SPEEDS["seconds_per_plastic_mac"] + t.writes * SPEEDS["seconds_per_write"]
    learned += SPEEDS["seconds_per_learned_token"]
    return replace(t, frozen_s=noise * frozen, learned_s=noise * learned)


NEAR = [
    as_if_timed(130, amounts=(1, 1, 5, 1)),
    as_if_timed(150, amounts=(2, 1, 1, 2)),
    as_if_timed(240, amounts=(3, 9, 1, 1)),
    as_if_timed(700, amounts=(5, 2, 2, 3)),
    as_if_timed(950, amounts=(1, 4, 3, 2)),
    as_if_timed(1300, amounts=(6, 1, 1, 4)),
]


def test_levels_of_memory_are_found_and_do_not_blur_the_speeds() -> None:
    far = [as_if_timed(8000, 4e-11), as_if_timed(30_000, 4.4e-11), as_if_timed(120_000, 1e-10)]
    found = fit([*far, *NEAR])
    assert {k: found[k] for k in SPEEDS} == pytest.approx(SPEEDS, rel=1e-3)
    assert found["interval_factor"] == pytest.approx(1.15), "the larger ones do not widen the interval"
    assert found["seconds_per_byte"] == pytest.approx([4.4e-11, 1e-10], rel=0.01)
    first, second = found["beyond_bytes"]
    assert 1_300_000 < first < 8_000_000 and 30_000_000 < second < 120_000_000, "between the held and the slower"


def test_where_nothing_waits_for_memory_no_level_is_found() -> None:
    found = fit([*NEAR, as_if_timed(8000), as_if_timed(30_000, noise=1.2)])
    assert (found["beyond_bytes"], found["seconds_per_byte"]) == ((), ())


def test_levels_rise_whatever_was_timed() -> None:
    """What was measured at odds with itself still makes a profile that can be read."""
    far = [as_if_timed(8000, 4e-11), as_if_timed(16_000, 8e-11), as_if_timed(30_000, 3e-11), as_if_timed(60_000, 1e-10)]
    found = fit([*NEAR, *far])
    assert list(found["seconds_per_byte"]) == sorted(set(found["seconds_per_byte"]))


def test_a_profile_of_a_version_before_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "board.toml"
    levels: dict[str, Any] = {"beyond_bytes": (10**6,), "seconds_per_byte": (1e-10,)}
    measured = Measured(date="2026-01-01", interval_factor=1.2, source="test", **SPEEDS, **levels)
    text = as_toml(replace(load_target("host"), name="board", measured=measured))
    path.write_text(text.replace("beyond_bytes = [1000000]", "cached_bytes = 1000000"), "utf-8")
    with pytest.raises(InvalidFileError, match=r"cached_bytes.*edgehmn profile FILE --anchor"):
        load_target(str(path))
    for wrong in ("beyond_bytes = []", "beyond_bytes = [1000000, 10]", "beyond_bytes = [10, 10]"):
        path.write_text(text.replace("beyond_bytes = [1000000]", wrong), "utf-8")
        with pytest.raises(InvalidFileError, match="beyond_bytes and seconds_per_byte"):
            load_target(str(path))


def test_a_profile_of_a_version_before_is_anchored_again(
    tmp_path: Path, run_cli: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the error for it says; what is wrong elsewhere in it stays for its owner to mend."""
    asked: list[Path] = []

    def anchored(profile: Path, *_: Any) -> dict[str, Any]:
        asked.append(profile)
        return SPEEDS | {"beyond_bytes": (), "seconds_per_byte": ()}

    monkeypatch.setattr("edgehmn.measure.anchor.anchor_host", anchored)
    path = tmp_path / "board.toml"
    text = as_toml(replace(load_target("host"), name="board"))
    path.write_text(text + '\n[measured]\ndate = "2026-01-01"\ncached_bytes = 1000000\n', "utf-8")
    assert "--anchor does so again" in run_cli("profile", tmp_path, "--target", path).err
    assert run_cli("profile", path, "--anchor").code == 0 and asked == [path]
    path.write_text(text.replace("idle_w", "idle_mw") + "\n[measured]\n", "utf-8")
    done = run_cli("profile", path, "--anchor")
    assert done.code == UsageError.exit_code and "idle_mw" in done.err and asked == [path]


def test_anchor_of_another_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_cli: Callable[..., Result]
) -> None:
    """An ssh that answers as another machine would."""
    answer = tmp_path / "answer"
    ssh = tmp_path / "ssh"
    ssh.write_text(f'#!/bin/sh\n[ "$2" = "me@board" ] || exit 255\ncat {answer}\n', "utf-8")
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    path = tmp_path / "board.toml"
    levels: dict[str, Any] = {"beyond_bytes": (10**6, 10**8), "seconds_per_byte": (1e-10, 2e-10)}
    measured = Measured(date="2026-01-01", interval_factor=1.2, source="test", **SPEEDS, **levels)
    answer.write_text(as_toml(replace(load_target("host"), name="board", measured=measured)), "utf-8")
    done = run_cli("profile", path, "--anchor", "--host", "me@board")
    assert done.code == 0
    assert "50,000 million multiply-accumulates a second; weights of models of more than 1 MB at 10 GB/s" in done.out
    assert "more than 100 MB at 5 GB/s" in done.out and f"--target {path}" in done.out
    assert load_target(str(path)).measured == measured
    assert run_cli("profile", path, "--anchor", "--host", "me@nowhere").code == DeviceError.exit_code
    assert run_cli("profile", path, "--anchor", "--host", "-oProxyCommand=x").code == UsageError.exit_code
    answer.write_text("rubbish", "utf-8")
    assert run_cli("profile", path, "--anchor", "--host", "me@board").code == InvalidFileError.exit_code
    assert load_target(str(path)).measured == measured, "what was there stays"


def test_anchor_writes_a_profile_that_predicts(
    tmp_path: Path, tiny_export: Path, run_cli: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgehmn.measure.anchor.SECONDS", 0.05)
    monkeypatch.setattr("edgehmn.measure.anchor.LARGE", replace(FIRST, d_model=256, d_hidden=512))
    path = tmp_path / "here.toml"
    done = run_cli("profile", path, "--anchor", "--json")
    assert done.code == 0, done
    target = load_target(str(path))
    assert target.measured is not None and target.known_from == "measured on this board"
    e = estimate(workload_of(tiny_export), target)
    assert e.tier == "anchored" and e.seconds.low < e.seconds.value < e.seconds.high


def test_tokens_are_timed_one_after_the_other(tiny_export: Path) -> None:
    """As they are generated and learned; a prompt's, many at once, take less time each. The bits are the same."""
    image = Export.open(tiny_export).image
    ids = np.arange(40, dtype=np.int32) % image.vocab_size
    one, many = CoreModel(image), CoreModel(image)
    feed(one, ids, learn=True)
    many.process(ids, learn=True)
    assert one.save() == many.save() and one.counts().learned == many.counts().learned > 0
    with pytest.raises(UsageError):
        feed(one, np.array([image.vocab_size]), learn=False)
