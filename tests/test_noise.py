"""A megabyte of noise before, between and inside frames, either way: the session goes on as if it had been quiet."""

import random
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from edgehmn.core import CoreModel, Image, lib
from edgehmn.device import link as link_module
from edgehmn.device import wire
from edgehmn.device.server import Server
from edgehmn.runtime.device import DeviceRuntime
from tests.models import random_tokens, tiny_image

MEGABYTE = 1 << 20
SYNC = bytes.fromhex("d545484d")


def any_bytes(rng: random.Random) -> bytes:
    return rng.randbytes(MEGABYTE)


def headers(rng: random.Random) -> bytes:
    """Beginnings of frames, of lengths that are possible: each looks like one until its CRC comes."""
    one = [SYNC + bytes([2, rng.randrange(1, 20)]) + rng.randrange(1025).to_bytes(2, "little") for _ in range(64)]
    return b"".join(rng.choice(one) + rng.randbytes(rng.randrange(9)) for _ in range(MEGABYTE // 12))


def frames_of_others(rng: random.Random) -> bytes:
    """Sound frames: answers, which are echoes to a board, and requests of versions and sequences that are not ours. A
    board answers the latter, so they come seldom."""
    echo = [wire.encode(rng.randrange(128, 256), rng.getrandbits(32), rng.randbytes(40)) for _ in range(64)]
    out = [rng.choice(echo) for _ in range(MEGABYTE // 60)]
    for at in range(0, len(out), 400):
        out[at] = wire.encode(lib.EHMN_WIRE_RESET, rng.getrandbits(32))
    return b"".join(out)


KINDS: dict[str, Callable[[random.Random], bytes]] = {
    "any bytes": any_bytes,
    "headers": headers,
    "frames of others": frames_of_others,
}


class NoisyLine:
    """A line to a board, with a megabyte of noise each way before the first frame, between two, and inside one: in the
    middle of the `inside`-th burst of bytes of each side, whose other half then comes too late."""

    def __init__(self, url: str, kind: str) -> None:
        host, port = url.removeprefix("socket://").split(":")
        self._far, self._kind, self.sent = (host, int(port)), KINDS[kind], 0
        self._server = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = [self._server]
        self.url = f"socket://127.0.0.1:{self._server.getsockname()[1]}"
        threading.Thread(target=self._connect, daemon=True).start()

    def _connect(self) -> None:
        with suppress(OSError):
            near, far = self._server.accept()[0], socket.create_connection(self._far)
            self._sockets += [near, far]
            threading.Thread(target=self._forward, args=(far, near, 1), daemon=True).start()
            self._forward(near, far, 2)

    def _forward(self, source: socket.socket, sink: socket.socket, seed: int) -> None:
        rng, bursts = random.Random(seed), 0
        with suppress(OSError):
            self._noise(sink, rng)  # before
            while data := source.recv(4096):
                bursts += 1
                if bursts == 4:
                    self._noise(sink, rng)  # between
                if bursts in (6, 9):
                    half = len(data) // 2
                    sink.sendall(data[:half])
                    self._noise(sink, rng)  # inside
                    data = data[half:]
                sink.sendall(data)

    def _noise(self, sink: socket.socket, rng: random.Random) -> None:
        noise = self._kind(rng)
        sink.sendall(noise)
        self.sent += len(noise)

    def close(self) -> None:
        for s in self._sockets:
            s.close()


@pytest.fixture(scope="module")
def image() -> bytes:
    return tiny_image()


@pytest.fixture(params=KINDS)
def line(request: pytest.FixtureRequest, image: bytes, tmp_path: Path) -> Iterator[NoisyLine]:
    (tmp_path / "image").write_bytes(image)
    with Server(tmp_path / "image", state=tmp_path / "state") as server:
        line = NoisyLine(server.url, request.param)
        yield line
        line.close()


def test_a_megabyte_before_between_and_inside_frames(
    line: NoisyLine, image: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_module, "FIRST_WAIT_S", 0.5)
    ids, expected = random_tokens(120), CoreModel(Image(image))
    board = DeviceRuntime(line.url)
    scores = [board.process(part, learn=True) for part in np.split(ids, 12)]
    assert np.array_equal(np.concatenate(scores), expected.process(ids, learn=True))
    assert board.counts().steps == len(ids), "no request was done twice"
    board.store()
    assert board.confirm().confirmed == 1
    assert board.save() == expected.save()
    board.close()
    assert line.sent >= 8 * MEGABYTE * 0.9
