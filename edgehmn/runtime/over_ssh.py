"""Linux boards that ssh reaches: edgehmn-device runs there for as long as it is needed."""

import contextlib
from collections.abc import Iterator

from edgehmn.core import ffi
from edgehmn.device.flash.programmer import Place
from edgehmn.device.flash.ssh import LinuxBoard
from edgehmn.errors import DeviceError, FlashError
from edgehmn.runtime.device import DeviceRuntime

SCHEME = "ssh://"


@contextlib.contextmanager
def reached(port: str, *, aside: bool = False) -> Iterator[str]:
    """Where a device answers: `port` itself, or the near end of a line to the server that ssh://USER@NAME starts.
    aside: that one works on a copy of what is stored there. Raises DeviceError if there is none."""
    if not port.startswith(SCHEME):
        yield port
        return
    name = port.removeprefix(SCHEME)
    if not name or name.startswith("-"):
        raise DeviceError(f"{port}: names no machine; give ssh://USER@NAME")
    board, place = LinuxBoard(aside=aside), Place(name, "Linux")
    with contextlib.ExitStack() as stack:
        try:
            url = stack.enter_context(board.running(place, None))
        except FlashError as e:
            raise DeviceError(f"{e}; write it first: edgehmn flash OUT --target linux --port {name}") from e
        assert url is not None
        yield url


@contextlib.contextmanager
def open_kept(port: str, timeout_s: float) -> Iterator[DeviceRuntime]:
    """The device at a port, closed at the end. A server that ssh started ends then as well, and all that is in its
    memory: what it has learned is stored there before, and confirmed, because its next start is our next command and
    no trial. After an error nothing is stored."""
    with reached(port) as url, contextlib.closing(DeviceRuntime(url, timeout_s=timeout_s)) as device:
        if url == port:
            yield device
            return
        before = _learned(device.save())
        yield device
        now = device.save()
        if _learned(now) != before:
            if device.stored().provisional:
                device.roll_back()
                device.load(now)
            device.store()
            device.confirm()


def _learned(delta: bytes) -> bytes:
    """What only learning changes; traces of what was read lie behind it."""
    return delta[ffi.offsetof("ehmn_delta", "image_id") : ffi.sizeof("ehmn_delta")]
