"""Frames of the serial line: the C core's own parser and structs, as Python values."""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from edgehmn.core import ffi, lib


@dataclass(frozen=True)
class Frame:
    """A valid frame; see edgehmn_wire.h for the commands and what they carry."""

    version: int
    command: int
    sequence: int
    status: int
    payload: bytes


def encode(command: int, sequence: int, payload: bytes = b"", *, status: int = 0) -> bytes:
    """A frame, ready to be sent. payload: at most EHMN_WIRE_MAX_PAYLOAD bytes, else ValueError."""
    if len(payload) > lib.EHMN_WIRE_MAX_PAYLOAD:
        raise ValueError(f"payload of {len(payload)} bytes; a frame carries at most {lib.EHMN_WIRE_MAX_PAYLOAD}")
    frame = ffi.new("ehmn_wire_frame *")
    frame.header.command, frame.header.sequence, frame.header.status = command, sequence, status
    frame.header.length = len(payload)
    ffi.buffer(frame.payload)[: len(payload)] = payload
    size = lib.ehmn_wire_seal(frame)
    return ffi.buffer(frame)[:size]


class Receiver:
    """Finds the valid frames in a stream of bytes, whatever else is in it."""

    def __init__(self) -> None:
        self._state = ffi.new("ehmn_wire_receiver *")

    @property
    def missing(self) -> int:
        """Bytes that must come before the next frame can be whole: reading as many never waits in vain."""
        header, filled = self._state.frame.header, self._state.filled
        length = header.length if filled >= ffi.sizeof("ehmn_wire_header") else 0
        return int(lib.EHMN_WIRE_OVERHEAD + length - filled)

    def feed(self, data: bytes) -> list[Frame]:
        """Take bytes; returns the frames that they complete."""
        frames = []
        for byte in data:
            whole = lib.ehmn_wire_take(self._state, byte)
            while whole:
                frames.append(self._frame())
                whole = lib.ehmn_wire_drop(self._state)
        return frames

    def _frame(self) -> Frame:
        frame = self._state.frame
        header = frame.header
        payload = ffi.buffer(frame.payload)[: header.length]
        return Frame(header.version, header.command, header.sequence, header.status, payload)


def words(*values: int) -> bytes:
    """Values 0..2**32 - 1 as a payload of uint32."""
    return np.array(values, "<u4").tobytes()


def unpack(struct: str, payload: bytes) -> Any:
    """The struct of edgehmn_wire.h with this name, filled with a payload of exactly its size."""
    value = ffi.new(f"{struct} *")
    ffi.buffer(value)[:] = payload
    return value


def _printable(name: bytes) -> str:
    """A name that can be shown on a terminal, whatever a board calls itself."""
    return "".join(c if " " <= c <= "~" else "?" for c in name.decode("ascii", "replace"))


@dataclass(frozen=True)
class Identity:
    """Who answers: ehmn_wire_identity."""

    board: str
    image_status: int
    image_id: str
    plastic: bool
    vocab_size: int
    arena_bytes: int
    arena_room: int
    delta_bytes: int
    staging_room: int
    image_version: int
    delta_version: int
    tick_hz: int

    @classmethod
    def from_payload(cls, payload: bytes) -> "Identity":
        raw = unpack("ehmn_wire_identity", payload)
        return cls(
            board=_printable(bytes(raw.board).split(b"\0")[0]),
            image_status=raw.image_status,
            image_id=bytes(raw.image_id).hex(),
            plastic=raw.mode == lib.EHMN_PLASTIC,
            vocab_size=raw.vocab_size,
            arena_bytes=raw.arena_bytes,
            arena_room=raw.arena_room,
            delta_bytes=raw.delta_bytes,
            staging_room=raw.staging_room,
            image_version=raw.image_version,
            delta_version=raw.delta_version,
            tick_hz=raw.tick_hz,
        )


@dataclass(frozen=True)
class DeviceCounts:
    """What a device has done since it started: ehmn_wire_counts."""

    steps: int = 0
    learned: int = 0
    writes: int = 0
    macs: int = 0
    step_ticks: int = 0
    learn_ticks: int = 0
    rollbacks: int = 0

    @classmethod
    def from_payload(cls, payload: bytes) -> "DeviceCounts":
        raw = unpack("ehmn_wire_counts", payload)
        return cls(**{field.name: getattr(raw, field.name) for field in fields(cls)})


@dataclass(frozen=True)
class StoredState:
    """What a board keeps in its flash: ehmn_wire_state. sequence: of the state that counts, 0 if there is none, and its
    size in bytes; confirmed: of the last confirmed one; trials: starts that a provisional one has had; applied: whether
    it could be loaded, which one of another image cannot."""

    sequence: int
    confirmed: int
    size: int
    trials: int
    slot_bytes: int
    image_id: str
    status: int

    @property
    def provisional(self) -> bool:
        return self.sequence != self.confirmed

    @property
    def applied(self) -> bool:
        return self.status == int(lib.EHMN_OK)

    @classmethod
    def from_payload(cls, payload: bytes) -> "StoredState":
        raw = unpack("ehmn_wire_state", payload)
        return cls(
            sequence=raw.sequence,
            confirmed=raw.confirmed,
            size=raw.bytes,
            trials=raw.trials,
            slot_bytes=raw.slot_bytes,
            image_id=bytes(raw.image_id).hex(),
            status=raw.status,
        )
