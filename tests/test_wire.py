"""The serial line: frames out of any bytes, and a session that survives whatever the line does."""

import itertools
import os
import socket
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import serial
from hypothesis import given, settings
from hypothesis import strategies as st

from edgehmn.core import ffi, lib
from edgehmn.device import link as link_module
from edgehmn.device import wire
from edgehmn.device.link import Link
from edgehmn.device.wire import Frame, Receiver
from edgehmn.errors import DeviceError, InvalidFileError, LinkLostError, UsageError

SYNC = bytes.fromhex("d545484d")
HEADER, CRC, MAX_PAYLOAD = 16, 4, 1024
MAX_FRAME = HEADER + MAX_PAYLOAD + CRC
ANSWER = 0x80


def frames_by_offset(stream: bytes) -> list[bytes]:
    """The frames of a whole stream, by the words of SPEC.md: from left to right, wherever one is valid."""
    frames, at = [], 0
    while at <= len(stream) - HEADER - CRC:
        end = at + HEADER + int.from_bytes(stream[at + 6 : at + 8], "little")
        crc = int.from_bytes(stream[end : end + CRC], "little")
        fits = end - at <= HEADER + MAX_PAYLOAD and end + CRC <= len(stream)
        if stream[at : at + 4] == SYNC and fits and zlib.crc32(stream[at:end]) == crc:
            frames.append(stream[at : end + CRC])
            at = end + CRC
        else:
            at += 1
    return frames


def raw(frame: Frame) -> bytes:
    return wire.encode(frame.command, frame.sequence, frame.payload, status=frame.status)


def flipped(data: bytes, bit: int) -> bytes:
    out = bytearray(data)
    out[bit // 8 % len(out)] ^= 1 << bit % 8
    return bytes(out)


def header(length: int, sync: bytes = SYNC) -> bytes:
    return sync + bytes([1, 1]) + length.to_bytes(2, "little") + bytes(8)


payloads = st.binary(max_size=80) | st.binary(min_size=MAX_PAYLOAD - 2, max_size=MAX_PAYLOAD)
whole = st.builds(
    wire.encode,
    st.integers(0, 255),
    st.integers(0, 2**32 - 1),
    payloads,
    status=st.integers(-(2**31), 2**31 - 1),
)
half = st.builds(lambda frame, part: frame[: int(part * len(frame))], whole, st.floats(0, 1))
damaged = st.builds(flipped, whole, st.integers(0, 8 * MAX_FRAME))
headers = st.builds(header, st.integers(0, 2**16 - 1))
noise = st.binary(max_size=40) | st.lists(st.sampled_from([SYNC, SYNC[:1], SYNC[:3], b"\0"])).map(b"".join)
nested = st.builds(lambda inner: wire.encode(1, 2, inner[:MAX_PAYLOAD])[:-1] + b"\x00", whole)
streams = st.lists(whole | half | damaged | headers | noise | nested, max_size=8).map(b"".join)


@settings(max_examples=300, deadline=None)
@given(streams, st.lists(st.integers(1, 700), min_size=1))
def test_the_receiver_finds_every_frame_of_any_stream(stream: bytes, cuts: list[int]) -> None:
    stream += bytes(MAX_FRAME)  # ends what is still open
    receiver, found, at = Receiver(), [], 0
    for cut in itertools.cycle(cuts):
        found += receiver.feed(stream[at : at + cut])
        at += cut
        if at >= len(stream):
            break
    assert [raw(f) for f in found if f.version == lib.EHMN_WIRE_VERSION] == [
        f for f in frames_by_offset(stream) if f[4] == lib.EHMN_WIRE_VERSION
    ]
    assert len(found) == len(frames_by_offset(stream))


@given(whole)
def test_a_frame_survives_the_round_trip(data: bytes) -> None:
    (frame,) = Receiver().feed(data)
    assert raw(frame) == data
    assert frames_by_offset(data) == [data]


@pytest.mark.parametrize("length", [0, 1, 3, 4, MAX_PAYLOAD - 1, MAX_PAYLOAD])
def test_a_receiver_asks_for_no_byte_beyond_the_frame(length: int) -> None:
    data, receiver, at = wire.encode(3, 7, bytes(length)) + b"after", Receiver(), 0
    found: list[Frame] = []
    while not found:
        step = receiver.missing
        assert step > 0
        found = receiver.feed(data[at : at + step])
        at += step
    assert data[at:] == b"after"
    assert found == [Frame(lib.EHMN_WIRE_VERSION, 3, 7, 0, bytes(length))]


FRAME = wire.encode(3, 7, b"tokens")
OTHER = wire.encode(2, 8)
STREAMS = {
    "boot chatter before": (b"\r\nbooting v1.2 \xff\xfe\r\n" + FRAME, [FRAME]),
    "noise between": (FRAME + b"\0\xd5\xd5\x45" + OTHER, [FRAME, OTHER]),
    "part of the sync before": (SYNC[:3] + FRAME, [FRAME]),
    "a byte lost inside": (FRAME[:9] + FRAME[10:] + OTHER + OTHER, [OTHER, OTHER]),
    "a byte added inside": (FRAME[:9] + b"!" + FRAME[9:] + OTHER, [OTHER]),
    "half a frame, then again": (FRAME[:20] + FRAME, [FRAME]),
    "wrong CRC, then again": (flipped(FRAME, 8 * 18) + FRAME, [FRAME]),
    "length beyond the limit": (header(MAX_PAYLOAD + 1) + FRAME, [FRAME]),
    "longest length": (header(0xFFFF) + FRAME, [FRAME]),
    "truncated at the end": (FRAME + OTHER[:-1], [FRAME]),
    "a header that swallows three frames": (header(90) + 3 * FRAME + bytes(20), 3 * [FRAME]),
}


@pytest.mark.parametrize("name", STREAMS)
def test_damage_costs_the_damaged_frame_only(name: str) -> None:
    stream, expected = STREAMS[name]
    assert [raw(f) for f in Receiver().feed(stream)] == expected
    assert frames_by_offset(stream) == expected


@pytest.mark.parametrize("frame", [FRAME, OTHER])
def test_every_flipped_bit_is_noticed(frame: bytes) -> None:
    for bit in range(8 * len(frame)):
        assert Receiver().feed(flipped(frame, bit) + bytes(MAX_FRAME)) == []


def test_zeros_end_any_half_frame() -> None:
    for cut in range(1, len(FRAME)):
        receiver = Receiver()
        assert receiver.feed(FRAME[:cut] + bytes(MAX_FRAME)) == []
        assert [raw(f) for f in receiver.feed(OTHER)] == [OTHER]
    receiver = Receiver()
    assert receiver.feed(header(MAX_PAYLOAD) + bytes(MAX_FRAME)) == []
    assert [raw(f) for f in receiver.feed(OTHER)] == [OTHER]


def test_a_payload_beyond_the_limit_is_refused() -> None:
    with pytest.raises(ValueError, match="at most 1024"):
        wire.encode(1, 1, bytes(MAX_PAYLOAD + 1))


# A board in a thread, for what a session does; the firmware itself is tested on an emulated board.

Board = Callable[[Frame], bytes | None]  # what it sends for a request; None hangs up


@contextmanager
def serving(board: Board) -> Iterator[tuple[str, list[Frame]]]:
    """The URL of a board behind a TCP port, and the requests that it got so far."""
    requests: list[Frame] = []

    def serve() -> None:
        connection = server.accept()[0]
        receiver = Receiver()
        with connection:
            while data := connection.recv(4096):
                for frame in receiver.feed(data):
                    requests.append(frame)
                    answer = board(frame)
                    if answer is None:
                        return
                    connection.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"socket://127.0.0.1:{server.getsockname()[1]}", requests
        finally:
            server.close()
            thread.join(10)
            assert not thread.is_alive()


def identity(frame: Frame) -> bytes:
    raw_identity = ffi.new("ehmn_wire_identity *")
    raw_identity.board = b"a board in a test"
    raw_identity.vocab_size = 17
    return wire.encode(frame.command | ANSWER, frame.sequence, bytes(ffi.buffer(raw_identity)))


def scripted(*answers: Callable[[Frame], bytes] | None) -> Board:
    """A board that identifies itself, and then gives the answers in turn."""
    script = iter(answers)

    def board(frame: Frame) -> bytes | None:
        if frame.command == lib.EHMN_WIRE_IDENTIFY:
            return identity(frame)
        answer = next(script)
        return answer and answer(frame)

    return board


def done(frame: Frame) -> bytes:
    return wire.encode(frame.command | ANSWER, frame.sequence)


def lost(frame: Frame) -> bytes:
    return b""


def broken(frame: Frame) -> bytes:
    return flipped(done(frame), 8 * 9)


def stale(frame: Frame) -> bytes:
    return wire.encode(frame.command | ANSWER, frame.sequence - 1, b"old") + done(frame)


def echo(frame: Frame) -> bytes:
    return raw(frame) + b"\r\n" + done(frame)


def refusal(status: int) -> Callable[[Frame], bytes]:
    return lambda frame: wire.encode(frame.command | ANSWER, frame.sequence, status=status)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "FIRST_WAIT_S", 0.2)
    monkeypatch.setattr(link_module, "POLL_S", 0.05)


def test_a_board_is_identified() -> None:
    with serving(scripted()) as (url, _):
        link = Link(url)
        assert (link.identity.board, link.identity.vocab_size) == ("a board in a test", 17)
        link.close()
        link.close()


@pytest.mark.parametrize("first", [lost, broken])
def test_a_request_is_repeated_as_it_was_until_it_is_answered(first: Callable[[Frame], bytes], impatient: None) -> None:
    with serving(scripted(first, first, done)) as (url, requests):
        link = Link(url)
        assert link.request(lib.EHMN_WIRE_FORGET, bytes(8)) == b""
        link.close()
    _, *repeated = requests
    assert len(repeated) == 3
    assert set(repeated) == {repeated[0]}
    assert repeated[0].sequence == (requests[0].sequence + 1) % 2**32


def test_an_answer_behind_the_header_of_a_long_frame_is_found(impatient: None) -> None:
    """Noise that announces 1,024 bytes: short answers would be taken for them for ever."""
    with serving(scripted(lambda frame: header(MAX_PAYLOAD) + done(frame))) as (url, requests):
        link = Link(url)
        assert link.request(lib.EHMN_WIRE_RESET) == b""
        link.close()
    assert len(requests) == 2, "it was there when the first wait was over"


@pytest.mark.parametrize("answer", [stale, echo])
def test_what_is_no_answer_to_this_request_is_skipped(answer: Callable[[Frame], bytes]) -> None:
    with serving(scripted(answer, answer)) as (url, requests):
        link = Link(url)
        link.request(lib.EHMN_WIRE_RESET)
        link.request(lib.EHMN_WIRE_RESET)
        link.close()
    assert len(requests) == 3


REFUSALS = {
    "the session is over": (refusal(lib.EHMN_WIRE_E_SEQUENCE), LinkLostError),
    "hung up": (None, LinkLostError),
    "no model": (refusal(lib.EHMN_WIRE_E_NO_MODEL), DeviceError),
    "unknown command": (refusal(lib.EHMN_WIRE_E_COMMAND), DeviceError),
    "wrong length": (refusal(lib.EHMN_WIRE_E_LENGTH), DeviceError),
    "damaged delta": (refusal(lib.EHMN_E_CRC), InvalidFileError),
    "bad argument": (refusal(lib.EHMN_E_ARGUMENT), UsageError),
    "answer of another length": (lambda f: wire.encode(f.command | ANSWER, f.sequence, b"x"), DeviceError),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refusal_is_the_documented_error(name: str) -> None:
    answer, error = REFUSALS[name]
    with serving(scripted(answer)) as (url, _):
        link = Link(url)
        with pytest.raises(error) as caught:
            link.request(lib.EHMN_WIRE_RESET)
        assert type(caught.value) is error
        assert url in str(caught.value)
        link.close()


def test_an_answer_that_never_comes_is_a_lost_link(impatient: None) -> None:
    with serving(scripted(*[lost] * 20)) as (url, _):
        link = Link(url, timeout_s=1.0)
        with pytest.raises(LinkLostError, match="no answer in 1 s"):
            link.request(lib.EHMN_WIRE_RESET)
        link.close()


STRANGERS: dict[str, tuple[Board, str]] = {
    "silent": (lambda frame: b"", "nothing answered"),
    "chattering": (lambda frame: b"login: ", "nothing answered"),
    "hangs up": (lambda frame: None, "lost"),
    "short identity": (done, "identity has 0 bytes"),
    "of another version": (
        lambda f: (lambda x: x[:-4] + zlib.crc32(x[:-4]).to_bytes(4, "little"))(done(f)[:4] + b"\7" + done(f)[5:]),
        "version 7",
    ),
}


@pytest.mark.parametrize("name", STRANGERS)
def test_what_is_no_board_of_ours_is_a_device_error(name: str, impatient: None) -> None:
    board, message = STRANGERS[name]
    with serving(board) as (url, _), pytest.raises(DeviceError, match=message):
        Link(url, timeout_s=0.5)


def test_a_port_that_is_not_there_is_a_device_error(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"socket://127.0.0.1:{server.getsockname()[1]}"
    for missing in (url, str(tmp_path / "ttyACM0")):
        with pytest.raises(DeviceError, match="serial ports of this machine"):
            Link(missing)
    with pytest.raises(UsageError):
        Link("nonsense://x")


def test_a_serial_port_that_another_program_has_is_left_alone(monkeypatch: pytest.MonkeyPatch, impatient: None) -> None:
    """As ours is by others of edgehmn: a port has one program at a time. It is waited for a little, as for a look."""
    master, slave = os.openpty()
    name = os.ttyname(slave)
    monkeypatch.setattr(link_module, "FREE_S", 0.2)
    with serial.Serial(name, exclusive=True), pytest.raises(DeviceError, match="another program has it"):
        Link(name, timeout_s=0.3)
    monkeypatch.setattr(link_module, "FREE_S", 10.0)
    held = serial.Serial(name, exclusive=True)
    timer = threading.Timer(0.3, held.close)
    timer.start()
    with pytest.raises(DeviceError, match="nothing answered"):  # nobody is at the other end, but the port was free
        Link(name, timeout_s=0.3)
    timer.join()
    os.close(master)
    os.close(slave)
