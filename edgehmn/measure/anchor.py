"""A profile of this very machine: our own core timed on a few random models of different shapes, in about ten seconds.

What is measured is processor time of one thread, so that other programs disturb it little.
"""

import datetime
import itertools
import platform
import re
import shlex
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgehmn.calibrate import calibrate
from edgehmn.checkpoint import Checkpoint, Config
from edgehmn.core import CoreModel, Image
from edgehmn.device.flash.programmer import program
from edgehmn.device.flash.ssh import INSTALL_LINE
from edgehmn.errors import DeviceError, UsageError
from edgehmn.files import write_bytes
from edgehmn.image import build_image
from edgehmn.measure.token_by_token import feed, stretches
from edgehmn.quantize import quantise
from edgehmn.targets.schema import Measured, Target, load_target, read_target
from edgehmn.workload_export import count_learning, image_operations

Array = npt.NDArray[np.float64]
FIRST = Config(
    n_layers=4, d_model=48, d_hidden=128, n_heads=4, n_kv_heads=2, vocab_size=640, n_ctx=32, norm_eps=1e-5,
    final_norm="layernorm", tied_head=True,
)  # fmt: skip
SHAPES = (
    FIRST,
    replace(FIRST, n_layers=3, n_heads=6, n_kv_heads=3, n_ctx=256),
    replace(FIRST, n_layers=3, d_model=64, d_hidden=192, n_heads=1, n_kv_heads=1, n_ctx=256),
    replace(FIRST, n_layers=2, d_model=96, d_hidden=256, n_heads=2, vocab_size=4096, n_ctx=64),
    replace(FIRST, n_layers=4, d_model=128, d_hidden=352, n_heads=8, n_kv_heads=4, vocab_size=1024, n_ctx=64),
    replace(FIRST, n_layers=2, d_model=192, d_hidden=512, vocab_size=2048, n_ctx=64),
    replace(FIRST, n_layers=3, d_model=192, d_hidden=448, n_heads=6, n_kv_heads=6, vocab_size=2048, n_ctx=128),
    replace(FIRST, n_layers=4, d_model=384, d_hidden=1024, n_heads=6, vocab_size=4096, n_ctx=64),
)
# As large as many caches; that many copies, a token each in turn, are larger than the share of a cache that is ours.
COPIES = (1, 2, 4)
LARGE = replace(FIRST, n_layers=2, d_model=640, d_hidden=1280, n_heads=10, n_kv_heads=5, vocab_size=40_000)
SECONDS = 0.4  # of each timing
NEW_TOKENS = 1 << 17  # more than is taken in meanwhile: what is learned while it is timed must be new
LEAST_FACTOR, MOST_FACTOR = 1.15, 20.0  # the most that a profile may have: then hardly anything is known
FEWEST = 5  # models that the nearest cache is taken to hold
SLOWER = 1.25  # as many times as expected, and a model's weights are read from farther away
REMOTE_S = 900.0
NOT_FOUND = 127  # what a shell ends with where there is no such program


@dataclass(frozen=True)
class Timing:
    """Of one model, its bytes; per token, what it does, and how long it takes frozen and learning."""

    image_bytes: int
    weight_bytes: int
    macs: int
    rows: int
    attention_macs: int
    scores: int
    plastic_macs: float
    writes: float
    frozen_s: float
    learned_s: float


def random_image(config: Config, seed: int = 0) -> Image:
    """A model of random weights that keep the variance of their inputs."""
    rng = np.random.default_rng(seed)
    tensors = {}
    for name, shape in config.tensor_shapes().items():
        one = len(shape) == 1
        values = (
            np.full(shape, 0.0 if name.endswith("bias") else 1.0) if one else rng.normal(size=shape) * shape[1] ** -0.5
        )
        tensors[name] = values.astype(np.float32)
    checkpoint = Checkpoint(config, tensors, "")
    ids = rng.integers(0, config.vocab_size, 320).astype(np.int32)
    return Image(build_image(quantise(checkpoint, calibrate(checkpoint, ids))))


def time_image(image: Image, ids: npt.NDArray[np.int32]) -> Timing:
    """ids: tokens of the vocabulary; the first fill window and memories."""
    frozen = _seconds_per_token(CoreModel(image, plastic=False), ids, learn=False)
    learned = _seconds_per_token(CoreModel(image), ids, learn=True)
    return model_timing(image, ids[: 2 * _first_tokens(image)], frozen, learned)


def model_timing(image: Image, ids: npt.NDArray[np.int32], frozen: float, learned: float) -> Timing:
    """Of a model that took so many seconds per token somewhere: what it did, counted here."""
    operations = image_operations(image)
    products, attention = ([o for o in operations if o.kind == kind] for kind in ("fc", "attention"))
    _, learning = count_learning(image, ids)
    return Timing(
        len(image.bytes), sum(o.weight_bytes for o in products),
        sum(o.macs for o in products), sum(o.rows for o in products), sum(o.macs for o in attention),
        sum(o.rows for o in attention), learning.macs_predicted, learning.writes, frozen, learned,
    )  # fmt: skip


def _seconds_per_token(model: CoreModel, ids: npt.NDArray[np.int32], *, learn: bool) -> float:
    """Median of pieces of what follows the first of `ids`."""
    first = _first_tokens(model.image)
    feed(model, ids[:first], learn=learn)
    took: list[float] = []
    end = time.perf_counter() + SECONDS
    for piece in stretches(ids[first:], first // 4):
        start = time.process_time()
        feed(model, piece, learn=learn)
        took.append((time.process_time() - start) / len(piece))
        if time.perf_counter() > end and len(took) >= 4:
            break
    return float(np.median(took))


def _first_tokens(image: Image) -> int:
    """So many fill the window, and something of the memories."""
    return int(image.header.n_ctx) + 32


def fit(timings: Iterable[Timing]) -> dict[str, Any]:
    """Of Measured: speeds of the models that the nearest memory holds, and what the weights of larger ones cost."""
    known = sorted(timings, key=lambda t: t.image_bytes)
    near = min(FEWEST, len(known))
    speeds: dict[str, Any] = fit_speeds(known[:near])
    while near < len(known) and known[near].frozen_s < SLOWER * frozen_seconds(known[near], speeds):
        near += 1
        speeds = fit_speeds(known[:near])
    return speeds | fit_memory(known[near:], known[near - 1].image_bytes, speeds)


def fit_speeds(timings: Iterable[Timing]) -> dict[str, float]:
    """Seconds of each part, none negative, with the least squared relative errors."""
    known = list(timings)
    frozen = np.array([[t.macs, t.rows, t.attention_macs, t.scores, 1] for t in known], float)
    a = nonnegative(frozen, np.array([t.frozen_s for t in known]))
    added = np.array([max(t.learned_s - t.frozen_s, 1e-9) for t in known])
    b = nonnegative(np.array([[t.plastic_macs, t.writes, 1] for t in known], float), added)
    names = (
        "seconds_per_mac",
        "seconds_per_row",
        "seconds_per_attention_mac",
        "seconds_per_score",
        "seconds_per_token",
    )
    out = dict(zip(names, a.tolist(), strict=True))
    of_learning = ("seconds_per_plastic_mac", "seconds_per_write", "seconds_per_learned_token")
    out |= dict(zip(of_learning, b.tolist(), strict=True))
    residual = np.abs(np.log(frozen @ a / [t.frozen_s for t in known]))
    return out | {"interval_factor": min(MOST_FACTOR, max(LEAST_FACTOR, float(np.exp(2 * residual.max()))))}


def products_seconds(t: Timing, speeds: dict[str, float]) -> float:
    return t.macs * speeds["seconds_per_mac"] + t.rows * speeds["seconds_per_row"]


def rest_seconds(t: Timing, speeds: dict[str, float]) -> float:
    """Of a frozen token, beside the products: attention, and what every token takes."""
    attention = t.attention_macs * speeds["seconds_per_attention_mac"] + t.scores * speeds["seconds_per_score"]
    return attention + speeds["seconds_per_token"]


def frozen_seconds(t: Timing, speeds: dict[str, float]) -> float:
    """Per token, if nothing waits for memory."""
    return products_seconds(t, speeds) + rest_seconds(t, speeds)


def time_copies(image: Image, ids: npt.NDArray[np.int32], timing: Timing) -> list[Timing]:
    """Of COPIES of a model, its own timing first: as if it were one of all their bytes, of which a part is read."""
    out = [timing]
    for n in COPIES[1:]:
        models = [CoreModel(Image(image.bytes.tobytes()), plastic=False) for _ in range(n)]
        for model in models:
            feed(model, ids[:-8], learn=False)
        took = []
        for token in ids[-8:]:
            start = time.process_time()
            for model in models:
                feed(model, np.array([token], np.int32), learn=False)
            took.append((time.process_time() - start) / n)
        frozen_s = float(np.median(took))
        learned_s = frozen_s + timing.learned_s - timing.frozen_s
        out.append(replace(timing, image_bytes=n * timing.image_bytes, frozen_s=frozen_s, learned_s=learned_s))
    return out


def fit_memory(large: Iterable[Timing], held: int, speeds: dict[str, float]) -> dict[str, tuple[int | float, ...]]:
    """beyond_bytes and seconds_per_byte of each level of memory behind the nearest, which holds `held` bytes.

    large: by rising size. The first that is slower than the others before it says where a level begins, the last before
    the next level how slow it is."""
    beyond: list[int] = []
    slow: list[float] = []
    for t in large:
        reading = t.frozen_s - rest_seconds(t, speeds)
        before = slow[-1] * t.weight_bytes if slow else products_seconds(t, speeds)
        if reading > SLOWER * before:
            beyond.append(round((held * t.image_bytes) ** 0.5))  # somewhere there a cache ends
            slow.append(reading / t.weight_bytes)
        elif slow:
            slow[-1] = reading / t.weight_bytes
            if slow[-2:-1] >= slow[-1:]:  # no level of its own after all
                slow.pop()
                beyond.pop()
        held = t.image_bytes
    return {"beyond_bytes": tuple(beyond), "seconds_per_byte": tuple(slow)}


def nonnegative(design: Array, y: Array) -> Array:
    """x >= 0 with the least sum of (design @ x / y - 1)**2; every choice of columns is tried."""
    scaled = design / y[:, None]
    columns = design.shape[1]
    best, least = np.zeros(columns), np.inf
    for n in range(1, columns + 1):
        for chosen in itertools.combinations(range(columns), n):
            part = scaled[:, chosen]
            size = np.linalg.norm(part, axis=0)
            if (size == 0).any():
                continue
            x = np.linalg.lstsq(part / size, np.ones(len(y)), rcond=None)[0] / size
            error = float(((part @ x - 1) ** 2).sum())
            if (x >= 0).all() and error < least:
                least = error
                best = np.zeros(columns)
                best[list(chosen)] = x
    return best


def anchor_host(profile: Path, note: Callable[[str], None] = lambda _: None, base: str = "host") -> dict[str, Any]:
    """Measure this machine and write its profile; what is not measured, memory and power, is that of the target `base`.
    Raises CannotWriteError."""
    host = load_target(base)
    timings: list[Timing] = []
    rng = np.random.default_rng(1)
    for i, config in enumerate((*SHAPES, LARGE)):
        note(f"model {i + 1} of {len(SHAPES) + 1}")
        ids = rng.integers(0, config.vocab_size, NEW_TOKENS).astype(np.int32)
        image = random_image(config)
        timing = time_image(image, ids)
        few = ids[: 2 * _first_tokens(image)]
        timings += time_copies(image, few, timing) if config is LARGE else [timing]
    speeds = fit(timings)
    what = f"{len(SHAPES) + 1} random models, processor time of one thread"
    source = f"edgehmn profile --anchor: {what}, {platform.processor() or platform.machine()}"
    measured = Measured(date=datetime.date.today().isoformat(), source=source, **speeds)
    anchored = replace(
        host, name=profile.stem, title=f"measured machine ({platform.machine()}), from {host.name}", measured=measured
    )
    write_bytes(profile, as_toml(anchored).encode())
    read_target(profile)
    return speeds | {"timings": [asdict(t) for t in timings]}


def anchor_remote(
    host: str, profile: Path, base: str = "host", note: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """The same on another machine that is reached by ssh: by edgehmn there, or, where that is not installed, by
    edgehmn-device. Raises DeviceError, and DependencyError without ssh."""
    if host.startswith("-") or not re.fullmatch(r"[A-Za-z0-9_][\w-]*", profile.stem):
        raise UsageError(f"'{host}', {profile}: give USER@NAME, and a profile named of letters, digits, _ and -")
    there = f"$d/{profile.stem}.toml"
    run = f"edgehmn profile {there} --anchor --target {shlex.quote(base)} -q >&2 && cat {there}"
    script = f"d=$(mktemp -d) && {run}; s=$?; rm -rf $d; exit $s"
    try:
        done = subprocess.run([program("ssh", INSTALL_LINE), "--", host, script], capture_output=True, timeout=REMOTE_S)
    except (OSError, subprocess.TimeoutExpired) as e:
        raise DeviceError(f"{host}: ssh failed ({e})") from e
    if done.returncode == NOT_FOUND:
        from edgehmn.measure.anchor_device import anchor_server

        note(f"edgehmn is not installed at {host}; edgehmn-device is sent there")
        return anchor_server(host, profile, base, note)
    if done.returncode:
        why = done.stderr.decode("utf-8", "replace").strip()[-200:]
        raise DeviceError(f"{host}: could not be measured ({why})")
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / profile.name
        copy.write_bytes(done.stdout)
        measured = read_target(copy).measured
    if measured is None:
        raise DeviceError(f"{host}: sent a profile without measurements")
    write_bytes(profile, done.stdout)
    return asdict(measured)


def as_toml(target: Target) -> str:
    """A profile as it is read."""
    values = {k: v for k, v in asdict(target).items() if k != "path" and v is not None and v != ()}
    lines = [f"{k} = {_literal(v)}" for k, v in values.items() if not isinstance(v, dict) and k != "memory"]
    for key, table in values.items():
        for one in table if key == "memory" else [table] if isinstance(table, dict) else []:
            lines += ["", f"[[{key}]]" if key == "memory" else f"[{key}]"]
            lines += [f"{k} = {_literal(v)}" for k, v in one.items() if v is not None]
    return "\n".join(lines) + "\n"


def _literal(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_literal, value)) + "]"
    return repr(value)
