"""From the words of a command line to a runtime."""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from edgehmn.banks import open_core
from edgehmn.core import Image
from edgehmn.errors import UsageError
from edgehmn.exported import Export, encoder_runtime
from edgehmn.runtime.protocol import Runtime

if TYPE_CHECKING:
    from edgehmn.runtime.device import DeviceRuntime
    from edgehmn.targets.memristive.mapping import TileSetup

DEFAULT_BOARD = "mps2-an386"
DEFAULT_TILE = "hermes"
ANSWER_S = 60.0


@contextlib.contextmanager
def open_runtime(
    export: Export,
    *,
    runtime: str = "host",
    target: str | None = None,
    port: str | None = None,
    seed: int = 0,
    banks: int = 1,
    provider: str = "cpu",
    timeout: float = ANSWER_S,
    host: str | None = None,
    tiles: "TileSetup | None" = None,
    threads: int = 1,
) -> Iterator[Runtime]:
    """The runtime of that name with the export's model and nothing learned, in 1..MAX_BANKS banks. Closed at the end.
    threads: for large matrices, on the host.
    timeout: seconds that a board has for an answer, beside its work. host: USER@NAME of a Linux board, for ssh, instead
    of a port.
    Raises UsageError for options that do not go together."""
    if target is not None and runtime not in ("emulator", "tile"):
        raise UsageError(
            "--target names an emulated board or a memristive tile: it goes with --runtime emulator or tile"
        )
    if tiles is not None and runtime != "tile":
        raise UsageError("--mapping, --cell-bits, --writes and --write-threshold go with --runtime tile")
    if provider != "cpu" and runtime != "onnx":
        raise UsageError("--provider is what onnxruntime computes with: it goes with --runtime onnx")
    if threads > 1 and runtime != "host":
        raise UsageError("--threads is for the core on this machine: it goes with --runtime host")
    port = port_of(port, host)
    if (port is not None) != (runtime == "device"):
        raise UsageError("--port, or --host, and --runtime device go together: name the device's port")
    if banks > 1 and runtime in ("emulator", "device", "tile"):
        raise UsageError("a board or a tile has one bank: --banks goes with --runtime host, onnx or tflite")
    if runtime == "emulator":
        with open_emulator(export.image, target or DEFAULT_BOARD, timeout) as device:
            device.forget(seed)
            yield device
    elif runtime == "device":
        assert port is not None
        with open_device(port, timeout) as device:
            device.check_holds(export.image.id, str(export.folder))
            yield device
    elif runtime == "tile":
        yield open_tiles(export.image, target or DEFAULT_TILE, seed, tiles)
    elif runtime == "host":
        core = open_core(export.image, seed, banks)
        core.use_threads(threads)
        yield core
    else:
        yield encoder_runtime(runtime, export.folder, export.image, seed, provider, banks)


def port_of(port: str | None, host: str | None) -> str | None:
    """The port that --port or --host names, if one of them does. Raises UsageError if both do."""
    if host is not None and port is not None:
        raise UsageError("--host reaches a Linux board by ssh, --port any other device: give one of them")
    return port if host is None else f"ssh://{host}"


def open_tiles(image: Image, target: str, seed: int, setup: "TileSetup | None" = None) -> Runtime:
    """The model on simulated memristive tiles: encoder and adapters, written by write-verify, unless `setup` says
    otherwise."""
    from edgehmn.runtime.tile import TileRuntime

    return TileRuntime(image, target, setup, seed=seed)


@contextlib.contextmanager
def open_device(port: str, timeout: float = ANSWER_S) -> Iterator["DeviceRuntime"]:
    """The device at a pyserial URL, unix://PATH or ssh://USER@NAME. What it has learned stays."""
    from edgehmn.runtime.over_ssh import open_kept

    with open_kept(port, timeout) as device:
        yield device


@contextlib.contextmanager
def open_emulator(image: Image, board: str = DEFAULT_BOARD, timeout: float = ANSWER_S) -> Iterator[Runtime]:
    """A fresh emulated board with this image."""
    from edgehmn.runtime.device import DeviceRuntime

    with contextlib.closing(DeviceRuntime.emulated(image.bytes.tobytes(), board, timeout_s=timeout)) as device:
        yield device
