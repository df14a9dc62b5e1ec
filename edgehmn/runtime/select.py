"""From the words of a command line to a runtime."""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from edgehmn.banks import open_core
from edgehmn.core import Image
from edgehmn.errors import DependencyError, UsageError
from edgehmn.exported import Export, encoder_runtime
from edgehmn.runtime.protocol import Runtime

if TYPE_CHECKING:
    from edgehmn.targets.memristive.mapping import TileSetup

DEFAULT_BOARD = "mps2-an386"
DEFAULT_TILE = "hermes"


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
    tiles: "TileSetup | None" = None,
) -> Iterator[Runtime]:
    """The runtime of that name with the export's model and nothing learned, in 1..MAX_BANKS banks. Closed at the end.
    Raises DependencyError if it cannot have so many."""
    if target is not None and runtime not in ("emulator", "tile"):
        raise UsageError(
            "--target names an emulated board or a memristive tile: it goes with --runtime emulator or tile"
        )
    if tiles is not None and runtime != "tile":
        raise UsageError("--mapping, --cell-bits, --writes and --write-threshold go with --runtime tile")
    if provider != "cpu" and runtime != "onnx":
        raise UsageError("--provider is what onnxruntime computes with: it goes with --runtime onnx")
    if (port is not None) != (runtime == "device"):
        raise UsageError("--port and --runtime device go together: name the device's port")
    if banks > 1 and runtime in ("emulator", "device"):
        raise DependencyError(
            f"the firmware has one bank, not {banks}: leave --banks out, or use --runtime host, onnx or tflite"
        )
    if runtime == "emulator":
        with open_emulator(export.image, target or DEFAULT_BOARD) as device:
            device.forget(seed)
            yield device
    elif runtime == "device":
        assert port is not None
        with open_device(port) as device:
            if device.image_id != export.image.id:
                raise UsageError(
                    f"the device at {port} runs image {device.image_id[:16]}, the export is {export.image.id[:16]}"
                )
            yield device
    elif runtime == "tile":
        if banks > 1:
            raise DependencyError(f"--runtime tile has one bank, not {banks}: leave --banks out, or use --runtime host")
        yield open_tiles(export.image, target or DEFAULT_TILE, seed, tiles)
    elif runtime == "host":
        yield open_core(export.image, seed, banks)
    else:
        yield encoder_runtime(runtime, export.folder, export.image, seed, provider, banks)


def open_tiles(image: Image, target: str, seed: int, setup: "TileSetup | None" = None) -> Runtime:
    """The model on simulated memristive tiles: encoder and adapters, written by write-verify, unless `setup` says
    otherwise."""
    from edgehmn.runtime.tile import TileRuntime

    return TileRuntime(image, target, setup, seed=seed)


@contextlib.contextmanager
def open_device(port: str) -> Iterator[Runtime]:
    """The device at a pyserial URL. What it has learned stays."""
    from edgehmn.runtime.device import DeviceRuntime

    with contextlib.closing(DeviceRuntime(port)) as device:
        yield device


@contextlib.contextmanager
def open_emulator(image: Image, board: str = DEFAULT_BOARD) -> Iterator[Runtime]:
    """A fresh emulated board with this image."""
    from edgehmn.runtime.device import DeviceRuntime

    with contextlib.closing(DeviceRuntime.emulated(image.bytes.tobytes(), board)) as device:
        yield device
