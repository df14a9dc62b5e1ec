"""Profiles of boards that are measured through edgehmn's protocol: over a serial line, or by ssh with edgehmn-device.

A board tells how long it computed, by its own timer: neither the line nor this machine is in the figures.
"""

import datetime
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgehmn.core import Image
from edgehmn.device.boards import machines
from edgehmn.device.flash.parts import Part
from edgehmn.device.flash.ssh import IMAGE, LinuxBoard
from edgehmn.errors import DeviceError, UnsupportedError, UsageError
from edgehmn.estimate import own_speeds
from edgehmn.exported import Export
from edgehmn.files import write_bytes
from edgehmn.measure.anchor import (
    LARGE,
    NEW_TOKENS,
    SHAPES,
    Timing,
    as_toml,
    fit,
    model_timing,
    random_image,
)
from edgehmn.measure.token_by_token import stretches
from edgehmn.runtime.device import TOKENS_PER_REQUEST, DeviceRuntime
from edgehmn.streams import Ids
from edgehmn.targets.schema import Measured, Target, load_target, read_target
from edgehmn.texts import EVALUATION, shipped
from edgehmn.workload import workload_of

Note = Callable[[str], None]
SECONDS = 3.0  # of each timing
NANOSECONDS = 10**9
ONE_MODEL_FACTOR = 1.3  # of other models on a board, of which one model was timed
FOLDER = ".local/share/edgehmn-anchor"  # on a Linux board; what was flashed there stays


def anchor_board(port: str, out: Path, profile: Path, base: str) -> dict[str, Any]:
    """Time the export `out` on the board at `port` that it was flashed to, and write the board's profile: memory and
    power of the target `base`, seconds as measured. What the board has learned is put aside meanwhile.

    Raises DeviceError for another model there, UnsupportedError for an emulated board."""
    target = _real(base)
    export, workload = Export.open(out), workload_of(out)
    runtime = DeviceRuntime(port, instructions_per_second=NANOSECONDS)
    try:
        name = runtime.identity.board
        if name in machines():
            raise UnsupportedError(f"{name} is emulated: its clock counts instructions, and says nothing about seconds")
        runtime.check_holds(export.image.id, str(out))
        ids = export.encode(shipped(EVALUATION)[:20_000])
        step, learn = _put_aside(runtime, lambda: time_runtime(runtime, ids, int(export.image.header.n_ctx)))
    finally:
        runtime.close()
    macs, learning, known = workload.macs, workload.learning, own_speeds(target)
    assert learning is not None
    ratio = known.per_plastic_mac / known.per_mac
    per_mac = step / (macs + ratio * learning.macs_predicted * runtime.identity.plastic)
    per_write = per_mac * known.per_write / known.per_mac if learn is None else learn / learning.writes
    speeds: dict[str, Any] = {
        "seconds_per_mac": per_mac, "seconds_per_row": 0.0, "seconds_per_attention_mac": per_mac,
        "seconds_per_score": 0.0, "seconds_per_token": 0.0, "beyond_bytes": (), "seconds_per_byte": (),
        "seconds_per_plastic_mac": ratio * per_mac, "seconds_per_write": per_write, "seconds_per_learned_token": 0.0,
        "interval_factor": ONE_MODEL_FACTOR,
    }  # fmt: skip
    what = f"{out.name} on {name}, {step * 1e3:.4g} ms a token by its timer"
    if learn is None:
        what += "; learning not measured: its memory is too small"
    return _write(profile, target, speeds, what) | {"board": name}


def anchor_server(host: str, profile: Path, base: str, note: Note = lambda _: None) -> dict[str, Any]:
    """Time random models on a Linux machine that ssh reaches, by edgehmn-device: nothing of edgehmn need be there. Its
    own folder there is removed again. Raises DeviceError."""
    target = _real(base)
    board = LinuxBoard(folder=FOLDER)
    place = board.places(host)[0]
    rng = np.random.default_rng(1)
    timings: list[Timing] = []
    try:
        for i, config in enumerate((*SHAPES, LARGE)):
            note(f"model {i + 1} of {len(SHAPES) + 1}")
            image = random_image(config)
            data = image.bytes.tobytes()
            ids = rng.integers(0, config.vocab_size, NEW_TOKENS).astype(np.int32)
            board.write(place, board.parts(place, data) if i == 0 else (Part(IMAGE, 0, data),))
            with board.running(place, None) as url:
                timings.append(_time_image(str(url), image, ids))
    finally:
        board.remove(place)
    return _write(
        profile, target, fit_boards(timings, target), f"{len(timings)} random models, edgehmn-device, one thread"
    )


def _time_image(url: str, image: Image, ids: Ids) -> Timing:
    runtime = DeviceRuntime(url, instructions_per_second=NANOSECONDS)
    try:
        step, learn = time_runtime(runtime, ids, int(image.header.n_ctx))
    finally:
        runtime.close()
    return model_timing(image, ids[: 2 * int(image.header.n_ctx) + 64], step, step + (learn or 0.0))


def fit_boards(timings: list[Timing], target: Target) -> dict[str, Any]:
    """As anchor.fit, of timings whose tokens have adapters and memories in them: those of a board. What these
    take, beside a multiply-accumulate of the frozen part, is that of the kernels of `target`."""
    known = own_speeds(target)
    ratio = known.per_plastic_mac / known.per_mac
    whole = [replace(t, macs=round(t.macs + ratio * t.plastic_macs)) for t in timings]
    speeds = fit(whole)
    speeds["seconds_per_plastic_mac"] += ratio * speeds["seconds_per_mac"]
    return speeds


def time_runtime(runtime: DeviceRuntime, ids: Ids, n_ctx: int) -> tuple[float, float | None]:
    """Seconds of a token with a full window, and what learning adds; None where the board does not learn. Of pieces the
    lower quartile: a board's timer goes on while other programs run, which only makes a piece longer."""
    out: list[float | None] = []
    for learn in (False, True) if runtime.identity.plastic else (False,):
        runtime.reset()
        runtime.process(np.resize(ids, n_ctx + 1), learn=learn)
        new = stretches(ids[n_ctx + 1 :] if len(ids) > 2 * n_ctx else ids, TOKENS_PER_REQUEST)
        took: list[float] = []
        end = time.monotonic() + SECONDS
        while time.monotonic() < end or len(took) < 3:
            start = runtime.counts()
            runtime.process(next(new), learn=learn)
            done = runtime.counts().since(start)
            nanoseconds = done.learn_instructions if learn else done.step_instructions
            assert nanoseconds is not None
            took.append(nanoseconds / NANOSECONDS / TOKENS_PER_REQUEST)
        out.append(float(np.quantile(took, 0.25)))
    if not all(v is not None and v > 0 for v in out):
        raise DeviceError("the board's timer does not move; its firmware has none")
    step, learned = (*out, None)[:2]
    assert step is not None
    return step, learned


def _put_aside(runtime: DeviceRuntime, work: Callable[[], tuple[float, float | None]]) -> tuple[float, float | None]:
    """Do the work and give the board back what it had learned."""
    learned = runtime.save() if runtime.identity.plastic else None
    try:
        return work()
    finally:
        runtime.reset()
        if learned is not None:
            runtime.load(learned)


def _real(base: str) -> Target:
    target = load_target(base)
    if target.kind == "emulated":
        raise UnsupportedError(f"{base} is emulated: its clock counts instructions, and says nothing about seconds")
    if target.own_core.instructions == "none":
        raise UsageError(f"{base}: our own core does not run there; name the CPU of that board with --target")
    return replace(target, measured=None)


def _write(profile: Path, target: Target, speeds: dict[str, Any], what: str) -> dict[str, Any]:
    source = f"edgehmn profile --anchor: {what}"
    measured = Measured(date=datetime.date.today().isoformat(), source=source, **speeds)
    anchored = replace(target, name=profile.stem, title=f"measured board, from {target.name}", measured=measured)
    write_bytes(profile, as_toml(anchored).encode())
    read_target(profile)
    return asdict(measured)
