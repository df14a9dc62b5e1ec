"""The Runtime of a board, real or emulated, behind a serial line."""

from contextlib import ExitStack
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgehmn.core import check, ffi, lib
from edgehmn.device import wire
from edgehmn.device.emulator import INSTRUCTIONS_PER_SECOND, Emulator
from edgehmn.device.link import Link
from edgehmn.device.wire import StoredState
from edgehmn.errors import DeviceError, DoesNotFitError, InvalidFileError, LinkLostError, UsageError
from edgehmn.files import MAX_INPUT_BYTES
from edgehmn.runtime.protocol import Counts

TOKENS_PER_REQUEST = 16  # few enough that no answer takes long, many enough that the line costs nothing
TOKEN_S = 10.0  # how long the slowest board may take for one token
TEXT_PER_REQUEST = 64  # bytes, for the same reason
TOKENS_PER_BYTE = 6  # of a text at most: a byte that is no UTF-8 stands for three, and a space may come before each
DELTA_HEADER_BYTES = ffi.sizeof("ehmn_delta")
FLASH_S = 60.0  # for erasing and writing a slot
TEMPERATURE_ONE = 256  # ehmn_sample takes Q8


class DeviceRuntime:
    """A model on a board. Opening forgets the context; what the board had learned stays.

    identity: of the board. Methods raise LinkLostError when the board no longer answers.
    """

    def __init__(
        self,
        port: str,
        *,
        baudrate: int = 115200,
        timeout_s: float = 60.0,
        instructions_per_second: int | None = None,
    ) -> None:
        """port: any pyserial URL. instructions_per_second: of an emulated board, to make its ticks into counts.

        Raises the errors of `Link`; InvalidFileError if the board's image is missing or damaged and
        DoesNotFitError if the board's memory is too small for it.
        """
        self._instructions_per_second = instructions_per_second
        with ExitStack() as stack:
            self._link = Link(port, baudrate=baudrate, timeout_s=timeout_s)
            stack.callback(self._link.close)
            self.identity = self._link.identity
            check_image(self.identity, port)
            self.image_id = self.identity.image_id
            self.reset()
            self._start = self._link.counts()
            self._resources = stack.pop_all()

    @classmethod
    def emulated(
        cls, image: bytes, board: str = "mps2-an386", *, flash: Path | None = None, timeout_s: float = 60.0
    ) -> "DeviceRuntime":
        """Start an emulated board with this image; closing the runtime stops it. Raises also what Emulator does."""
        with ExitStack() as stack:
            emulator = stack.enter_context(Emulator(image, board, flash=flash))
            try:
                runtime = cls(emulator.url, timeout_s=timeout_s, instructions_per_second=INSTRUCTIONS_PER_SECOND)
            except (DeviceError, LinkLostError) as e:
                raise (emulator.failure() or DeviceError(str(e))) from e
            stack.callback(runtime._link.close)
            runtime._resources = stack.pop_all()
        return runtime

    def check_holds(self, image_id: str, out: str) -> None:
        """Raises DeviceError if the board runs another model than that of the export `out`, whose image has this id."""
        if self.image_id != image_id:
            raise DeviceError(
                f"{self._link.url}: {self.identity.board} runs image {self.image_id[:16]}, {out} is {image_id[:16]}: "
                f"give the export that it runs, or write this one: edgehmn flash {out} --target ..."
            )

    def process(self, ids: npt.NDArray[np.integer], *, learn: bool, follow: bool = False) -> npt.NDArray[np.uint32]:
        outside = ids[(ids < 0) | (ids >= self.identity.vocab_size)]
        if len(outside):
            raise UsageError(f"token {outside[0]} is outside the vocabulary, 0..{self.identity.vocab_size - 1}")
        mode = self._mode(learn, follow)
        scores = np.empty(len(ids), np.uint32)
        for i in range(0, len(ids), TOKENS_PER_REQUEST):
            chunk = ids[i : i + TOKENS_PER_REQUEST]
            payload = wire.words(mode) + chunk.astype("<u4").tobytes()
            answer = self._work(lib.EHMN_WIRE_PROCESS, payload, len(chunk))
            scores[i : i + len(chunk)] = np.frombuffer(answer, "<u4")
        return scores

    def _mode(self, learn: bool, follow: bool) -> int:
        """EHMN_WIRE_... of what is done with a token that came. Raises DoesNotFitError."""
        if learn and not self.identity.plastic:
            raise DoesNotFitError(
                f"{self.identity.board} has an arena of {self.identity.arena_room} bytes: too small to learn"
            )
        if not self.identity.plastic:
            return int(lib.EHMN_WIRE_FROZEN)
        return int(lib.EHMN_WIRE_LEARN if learn else lib.EHMN_WIRE_FOLLOW if follow else lib.EHMN_WIRE_FROZEN)

    def generate(self, n: int, *, temperature: float = 0.0) -> npt.NDArray[np.int32]:
        tokens = np.empty(n, np.int32)
        q8 = _q8(temperature)
        for i in range(0, n, TOKENS_PER_REQUEST):
            count = min(TOKENS_PER_REQUEST, n - i)
            answer = self._work(lib.EHMN_WIRE_GENERATE, wire.words(count, q8), count)
            tokens[i : i + count] = self._tokens_in(answer)
        return tokens

    def _tokens_in(self, data: bytes) -> npt.NDArray[np.int32]:
        """Tokens as a board says them. Raises DeviceError if they are none of its vocabulary."""
        tokens = np.frombuffer(data, "<u4")
        if (tokens >= self.identity.vocab_size).any():
            raise DeviceError(f"{self.identity.board} answered with tokens outside its vocabulary; flash it anew")
        return tokens.astype(np.int32)

    def _work(self, command: int, payload: bytes, tokens: int) -> bytes:
        return self._link.request(command, payload, expect=4 * tokens, work_s=TOKEN_S * tokens)

    def read_text(
        self, text: str | bytes, *, learn: bool, follow: bool = False
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.uint32]]:
        """`process` for a text that the board itself turns into tokens: those, and their scores. Raises DeviceError if
        its image has no tokenizer."""
        data, mode = text.encode() if isinstance(text, str) else text, self._mode(learn, follow)
        tokens: list[npt.NDArray[np.int32]] = []
        scores: list[npt.NDArray[np.uint32]] = []
        at = waiting = 0
        while at < len(data) or waiting or not tokens:
            part = data[at : at + min(TEXT_PER_REQUEST, lib.EHMN_WIRE_TEXT_ROOM - waiting)]
            at += len(part)
            payload = wire.words(mode, at < len(data)) + part
            work_s = TOKEN_S * (len(part) + waiting + 1)
            size = ffi.sizeof("ehmn_wire_text")
            answer = self._link.request(lib.EHMN_WIRE_TEXT, payload, expect=size, work_s=work_s, subject="text")
            said = wire.unpack("ehmn_wire_text", answer)
            there = waiting + len(part)
            if 0 < said.waiting == there and (at == len(data) or not part):
                raise DoesNotFitError(f"{self.identity.board} has too little memory beside the model for a text")
            if said.waiting > there or said.tokens > TOKENS_PER_BYTE * (there + 1):
                raise DeviceError(f"{self.identity.board} answered with more text than it was given; flash it anew")
            waiting = said.waiting
            staged = self._read_staging(8 * said.tokens)
            tokens.append(self._tokens_in(staged[: 4 * said.tokens]))
            scores.append(np.frombuffer(staged[4 * said.tokens :], "<u4"))
        return np.concatenate(tokens), np.concatenate(scores)

    def write_text(self, n: int, *, temperature: float = 0.0) -> bytes:
        """`generate`, the board itself turning the n tokens into text. The bytes may end inside a character."""
        text, done, q8 = b"", 0, _q8(temperature)
        while done < n:
            count = min(TOKENS_PER_REQUEST, n - done)
            payload = wire.words(count, q8, done == 0)
            answer = self._link.request(lib.EHMN_WIRE_SAY, payload, expect=None, work_s=TOKEN_S * count)
            said = int.from_bytes(answer[:4], "little")
            if not 0 < said <= count:
                raise DeviceError(f"{self.identity.board} said {said} tokens of {count}; flash it anew")
            done += said
            text += answer[4:]
        return text

    def reset(self) -> None:
        self._link.request(lib.EHMN_WIRE_RESET)

    def forget(self, seed: int) -> None:
        self._link.request(lib.EHMN_WIRE_FORGET, np.array(seed, "<u8").tobytes())

    def save(self) -> bytes:
        self._check_staging()
        claimed = self.identity.delta_bytes
        if not DELTA_HEADER_BYTES <= claimed <= MAX_INPUT_BYTES:
            raise DeviceError(f"{self.identity.board} claims a learned state of {claimed} bytes; flash it anew")
        self._link.request(lib.EHMN_WIRE_SAVE)
        header = self._read_staging(DELTA_HEADER_BYTES)
        delta = ffi.from_buffer("ehmn_delta *", header)
        if delta.bytes != claimed or bytes(delta.image_id).hex() != self.image_id:
            raise DeviceError(f"{self.identity.board} sent what is no learned state of its model; flash it anew")
        return self._read_staging(claimed, header)

    def _read_staging(self, size: int, begun: bytes = b"") -> bytes:
        """begun: what was already read."""
        data = bytearray(begun)
        while len(data) < size:
            count = min(lib.EHMN_WIRE_MAX_PAYLOAD, size - len(data))
            data += self._link.request(lib.EHMN_WIRE_READ, wire.words(len(data), count), expect=count)
        return bytes(data)

    def stored(self) -> StoredState:
        """What the board keeps in its flash."""
        state = self._link.stored()
        if state is None:
            raise DeviceError(f"{self.identity.board} has no flash for what it learned; save that on this host")
        return state

    def store(self) -> StoredState:
        """Put what was learned into the board's flash: provisional, until `confirm` or `roll_back`. A loss of power
        leaves the state before or this one.

        Raises UsageError while another provisional state waits, InvalidFileError if the flash holds a state of another
        image, which would be lost, and FlashError if the flash does not take it.
        """
        self._check_staging()
        if self.stored().provisional:
            raise UsageError(f"{self.identity.board} has a state that is provisional: confirm it or roll back first")
        self._link.request(lib.EHMN_WIRE_STORE, work_s=FLASH_S, subject=f"state in the flash of {self.identity.board}")
        return self.stored()

    def confirm(self) -> StoredState:
        """Keep the provisional state for good. Raises UsageError if there is none."""
        return self._settle(lib.EHMN_WIRE_CONFIRM)

    def roll_back(self) -> StoredState:
        """Drop the provisional state; the confirmed one, or none, is loaded. Raises UsageError if there is none."""
        return self._settle(lib.EHMN_WIRE_ROLL_BACK)

    def _settle(self, command: int) -> StoredState:
        if not self.stored().provisional:
            raise UsageError(f"{self.identity.board} has no provisional state: store one first")
        self._link.request(command, work_s=FLASH_S)
        return self.stored()

    def wipe(self) -> StoredState:
        """Erase all that was learned, in memory and in both slots of the flash, and look that it is gone."""
        self._link.request(lib.EHMN_WIRE_WIPE, work_s=FLASH_S)
        return self.stored()

    def _check_staging(self) -> None:
        """Raises DoesNotFitError if the board has no room beside the model for a learned state on its way."""
        i = self.identity
        if i.staging_room < i.delta_bytes:
            raise DoesNotFitError(
                f"{i.board} has {i.staging_room:,} bytes beside the model, and what it learned takes "
                f"{i.delta_bytes:,}: export with '--target {i.board}', or with a smaller --context",
                need=i.delta_bytes,
                have=i.staging_room,
            )

    def load(self, delta: bytes) -> None:
        if len(delta) == self.identity.delta_bytes:
            self._check_staging()
        if len(delta) > self.identity.staging_room:
            raise InvalidFileError(f"delta of {len(delta)} bytes; one of this image has {self.identity.delta_bytes}")
        step = lib.EHMN_WIRE_MAX_PAYLOAD - 4
        for at in range(0, len(delta), step):
            self._link.request(lib.EHMN_WIRE_WRITE, wire.words(at) + delta[at : at + step])
        self._link.request(lib.EHMN_WIRE_LOAD, wire.words(len(delta)), subject="delta")

    def counts(self) -> Counts:
        now, start = self._link.counts(), self._start
        per_second = self._instructions_per_second
        ticks = (now.step_ticks - start.step_ticks, now.learn_ticks - start.learn_ticks)
        step, learn = (
            t * per_second // self.identity.tick_hz if per_second and self.identity.tick_hz else None for t in ticks
        )
        return Counts(
            steps=now.steps - start.steps,
            learned=now.learned - start.learned,
            writes=now.writes - start.writes,
            macs=now.macs - start.macs,
            rollbacks=now.rollbacks - start.rollbacks,
            step_instructions=step,
            learn_instructions=learn,
        )

    def close(self) -> None:
        self._resources.close()


def _q8(temperature: float) -> int:
    q8 = round(temperature * TEMPERATURE_ONE)
    if not 0 <= q8 < 2**32:
        raise UsageError(f"temperature {temperature} is out of range")
    return q8


def check_image(identity: wire.Identity, port: str) -> None:
    """Raises InvalidFileError if the board's image is missing or damaged, DoesNotFitError if it has too little memory
    for it."""
    if identity.image_status == lib.EHMN_E_MAGIC:
        raise InvalidFileError(f"{port}: {identity.board} holds no image; flash one")
    if identity.image_status == lib.EHMN_E_ARENA:
        need, have = identity.arena_bytes, identity.arena_room
        raise DoesNotFitError(
            f"{port}: the image needs an arena of {need:,} bytes, and {identity.board} has {have:,}; export it with a "
            "smaller --context",
            need=need,
            have=have,
        )
    check(identity.image_status, f"{port}: image of {identity.board}")
