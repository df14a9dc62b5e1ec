"""A board that answers in time, in valid frames of the right size, and with anything in them: the host gives a clear
error or a plain value, never runs on for ever, and shows nothing on a terminal that is no text."""

import random
from collections.abc import Callable
from contextlib import suppress

import numpy as np
import pytest

from edgehmn.core import ffi, lib
from edgehmn.device import wire
from edgehmn.device.wire import Frame
from edgehmn.errors import DeviceError, DoesNotFitError, EdgeHMNError
from edgehmn.runtime.device import DeviceRuntime
from tests.models import random_tokens
from tests.test_wire import ANSWER, MAX_PAYLOAD, serving

VOCABULARY = 17
DELTA_BYTES = 3000
STRUCTS = {
    lib.EHMN_WIRE_COUNTS: "ehmn_wire_counts",
    lib.EHMN_WIRE_STATE: "ehmn_wire_state",
    lib.EHMN_WIRE_TEXT: "ehmn_wire_text",
}
USES: dict[str, Callable[[DeviceRuntime], object]] = {
    "process": lambda board: board.process(random_tokens(40, VOCABULARY), learn=True),
    "generate": lambda board: board.generate(40, temperature=1.0),
    "read text": lambda board: board.read_text("some text " * 20, learn=False),
    "write text": lambda board: board.write_text(40, temperature=1.0),
    "counts": lambda board: board.counts(),
    "save": lambda board: board.save(),
    "load": lambda board: board.load(bytes(DELTA_BYTES)),
    "stored": lambda board: board.stored().provisional,
    "store": lambda board: board.store(),
    "confirm": lambda board: board.confirm(),
    "roll back": lambda board: board.roll_back(),
    "wipe": lambda board: board.wipe(),
    "forget": lambda board: board.forget(3),
}


def identity(frame: Frame, name: bytes = b"a board", tick_hz: int = 0, delta_bytes: int = DELTA_BYTES) -> bytes:
    raw = ffi.new("ehmn_wire_identity *")
    raw.board, raw.vocab_size, raw.mode, raw.tick_hz = name, VOCABULARY, lib.EHMN_PLASTIC, tick_hz
    raw.delta_bytes, raw.staging_room = delta_bytes, max(4000, delta_bytes)
    return wire.encode(frame.command | ANSWER, frame.sequence, bytes(ffi.buffer(raw)))


def expected_size(frame: Frame, rng: random.Random) -> int:
    """Of the answer that would be right."""
    if frame.command in STRUCTS:
        return int(ffi.sizeof(STRUCTS[frame.command]))
    if frame.command == lib.EHMN_WIRE_PROCESS:
        return len(frame.payload) - 4
    if frame.command == lib.EHMN_WIRE_GENERATE:
        return 4 * int.from_bytes(frame.payload[:4], "little")
    if frame.command == lib.EHMN_WIRE_READ:
        return int.from_bytes(frame.payload[4:8], "little")
    return rng.randrange(MAX_PAYLOAD + 1) if frame.command == lib.EHMN_WIRE_SAY else 0


def hostile(seed: int) -> Callable[[Frame], bytes]:
    """A board with any contents, of several tastes: random, all ones, small numbers; seldom a status."""
    rng = random.Random(seed)

    def board(frame: Frame) -> bytes:
        if frame.command == lib.EHMN_WIRE_IDENTIFY:
            return identity(frame, rng.randbytes(31), rng.randrange(2))
        size, taste = expected_size(frame, rng), rng.randrange(4)
        if rng.randrange(60) == 0:
            return wire.encode(frame.command | ANSWER, frame.sequence, status=-rng.randrange(1, 60))
        words = np.array([rng.randrange(4) for _ in range(-(-size // 4))], "<u4").tobytes()[:size]
        payload = (rng.randbytes(size), b"\xff" * size, words, bytes(size))[taste]
        return wire.encode(frame.command | ANSWER, frame.sequence, payload)

    return board


@pytest.mark.parametrize("seed", range(8))
def test_whatever_a_board_answers_is_an_error_or_a_value(seed: int) -> None:
    with serving(hostile(seed)) as (url, requests):
        try:
            board = DeviceRuntime(url, instructions_per_second=10**9)
        except EdgeHMNError:
            return  # it refused to begin
        assert board.identity.board.isprintable()
        for use in USES.values():
            with suppress(EdgeHMNError):
                use(board)
        board.close()
    assert len(USES) < len(requests) < 2000


def scripted(text: bytes) -> Callable[[Frame], bytes]:
    """A board that says `text` of every piece of text, and else what is right."""

    def board(frame: Frame) -> bytes:
        if frame.command == lib.EHMN_WIRE_IDENTIFY:
            return identity(frame, b"\x1b[31mred\x07", 0)
        if frame.command == lib.EHMN_WIRE_TEXT:
            return wire.encode(frame.command | ANSWER, frame.sequence, text)
        return wire.encode(frame.command | ANSWER, frame.sequence, bytes(expected_size(frame, random.Random(0))))

    return board


# waiting and tokens that a board claims, and what the host makes of it
CLAIMS = {
    "more tokens than a text has": (0, 2**32 - 1, DeviceError),
    "more text waits than there is": (513, 0, DeviceError),
    "nothing is ever done": (64, 0, EdgeHMNError),
}


@pytest.mark.parametrize("name", CLAIMS)
def test_a_board_that_claims_too_much_of_a_text_is_not_believed(name: str) -> None:
    waiting, tokens, error = CLAIMS[name]
    with serving(scripted(wire.words(waiting, tokens, 0, 0))) as (url, _):
        board = DeviceRuntime(url)
        with pytest.raises(error):
            board.read_text("x" * 64, learn=False)
        board.close()


@pytest.mark.parametrize(("claimed", "match"), [(2**32 - 1, "claims"), (16, "claims"), (2**30, "no learned state")])
def test_a_board_that_claims_another_learned_state_is_not_read_to_the_end(claimed: int, match: str) -> None:
    def board(frame: Frame) -> bytes:
        if frame.command == lib.EHMN_WIRE_IDENTIFY:
            return identity(frame, delta_bytes=claimed)
        return scripted(b"")(frame)

    with serving(board) as (url, requests):
        runtime = DeviceRuntime(url)
        with pytest.raises(DeviceError, match=match) as caught:
            runtime.save()
        runtime.close()
    assert caught.value.exit_code == 7 and len(requests) < 10


def test_a_board_whose_text_only_waits_is_left() -> None:
    """It says that all that it was given waits, and never makes a token: the room is full, and nothing moves."""
    given = 0

    def board(frame: Frame) -> bytes:
        nonlocal given
        if frame.command == lib.EHMN_WIRE_TEXT:
            given += len(frame.payload) - 8
            return wire.encode(frame.command | ANSWER, frame.sequence, wire.words(given, 0, 0, 0))
        return scripted(b"")(frame)

    with serving(board) as (url, _):
        runtime = DeviceRuntime(url)
        with pytest.raises(DoesNotFitError):
            runtime.read_text("x" * 2000, learn=False)
        runtime.close()


def test_tokens_outside_the_vocabulary_are_refused() -> None:
    def board(frame: Frame) -> bytes:
        if frame.command == lib.EHMN_WIRE_GENERATE:
            return wire.encode(frame.command | ANSWER, frame.sequence, wire.words(*[2**31] * 3))
        return scripted(b"")(frame)

    with serving(board) as (url, _):
        runtime = DeviceRuntime(url, instructions_per_second=10**9)
        with pytest.raises(DeviceError, match="outside its vocabulary"):
            runtime.generate(3)
        assert runtime.counts().step_instructions is None, "it says that its timer stands still"
        assert runtime.identity.board == "?[31mred?", "no escape sequence reaches a terminal"
        runtime.close()
