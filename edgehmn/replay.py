"""Replays: what was done to a model, call by call, so that any runtime of the same image can do it again to the bit.

A replay file is a header, sealed by a CRC-32, and the calls. It holds the tokens of the text that was learned, and so
the text itself: it belongs where the text belongs.
"""

import hashlib
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgehmn.errors import InvalidFileError
from edgehmn.files import read_bytes, sha256, write_bytes
from edgehmn.runtime.protocol import Counts, Runtime
from edgehmn.sealed import seal, unseal
from edgehmn.states import check_image

MAGIC = b"EHMR"
VERSION = 1
HEADER = struct.Struct("<32sQQ32s32s")  # image id, seed, calls, SHA-256 of the last delta, of the results
CALL = struct.Struct("<IIQ")  # kind, number, bytes of what follows, filled up to a multiple of 8
FROZEN, LEARN, FOLLOW, GENERATE, RESET, FORGET, LOAD = range(7)
WORDS = {FROZEN: "score", LEARN: "learn", FOLLOW: "follow", GENERATE: "generate"}
TEMPERATURE_ONE = 256


@dataclass(frozen=True)
class Call:
    """One call of a runtime. number: temperature (Q8) of GENERATE; data: tokens (int32), seed (8 bytes) or a delta."""

    kind: int
    number: int = 0
    data: bytes = field(default=b"", repr=False)

    @property
    def tokens(self) -> npt.NDArray[np.int32]:
        return np.frombuffer(self.data, "<i4").astype(np.int32)


@dataclass(frozen=True)
class Replay:
    """What was done from a fresh model with `seed` on, and what came of it."""

    image_id: str
    seed: int
    calls: tuple[Call, ...]
    delta_sha256: str
    results_sha256: str

    def counts(self) -> dict[str, int]:
        """Tokens by what was done with them."""
        return {word: sum(len(c.data) // 4 for c in self.calls if c.kind == kind) for kind, word in WORDS.items()}

    def to_bytes(self) -> bytes:
        body = b"".join(CALL.pack(c.kind, c.number, len(c.data)) + c.data + bytes(-len(c.data) % 8) for c in self.calls)
        hashes = [bytes.fromhex(h) for h in (self.delta_sha256, self.results_sha256)]
        header = HEADER.pack(bytes.fromhex(self.image_id), self.seed, len(self.calls), *hashes)
        return seal(MAGIC, VERSION, header + body)

    @classmethod
    def from_bytes(cls, data: bytes, name: str) -> "Replay":
        """Raises InvalidFileError for anything that is no whole, sound replay."""
        try:
            body = unseal(MAGIC, VERSION, data, least=HEADER.size)
        except InvalidFileError as e:
            raise InvalidFileError(f"{name}: as a replay, {e}; 'edgehmn replay record' writes one") from e
        image_id, seed, n, delta, results = HEADER.unpack_from(body)
        calls = tuple(_calls(body, name))
        if len(calls) != n:
            raise InvalidFileError(f"{name}: holds {len(calls)} calls and says {n}")
        return cls(image_id.hex(), seed, calls, delta.hex(), results.hex())

    def write(self, path: Path) -> None:
        write_bytes(path, self.to_bytes())

    @classmethod
    def read(cls, path: Path) -> "Replay":
        return cls.from_bytes(read_bytes(path), str(path))


def _calls(data: bytes, name: str) -> Iterator[Call]:
    at = HEADER.size
    while at < len(data):
        if len(data) - at < CALL.size:
            raise InvalidFileError(f"{name}: ends inside a call")
        kind, number, size = CALL.unpack_from(data, at)
        at += CALL.size
        if size > len(data) - at:
            raise InvalidFileError(f"{name}: a call is longer than the file")
        whole = {RESET: size == 0, FORGET: size == 8, LOAD: size > 0}
        if not whole.get(kind, kind <= GENERATE and size % 4 == 0):
            raise InvalidFileError(f"{name}: a call of kind {kind} with {size} bytes, which there is not")
        yield Call(kind, number, data[at : at + size])
        at += size + -size % 8


class Recorder:
    """A Runtime that passes every call on, and keeps it. `finish` gives the replay. It begins with a model that is
    reset and has forgotten: what another state it starts from must be loaded through it."""

    def __init__(self, runtime: Runtime, seed: int = 0) -> None:
        self._runtime, self._seed = runtime, seed
        self.image_id = runtime.image_id
        self._calls: list[Call] = []
        self._results = hashlib.sha256()
        runtime.reset()
        runtime.forget(seed)

    def process(self, ids: npt.NDArray[np.integer], *, learn: bool, follow: bool = False) -> npt.NDArray[np.uint32]:
        scores = self._runtime.process(ids, learn=learn, follow=follow)
        kind = LEARN if learn else FOLLOW if follow else FROZEN
        self._calls.append(Call(kind, 0, ids.astype("<i4").tobytes()))
        self._results.update(scores.astype("<u4").tobytes())
        return scores

    def generate(self, n: int, *, temperature: float = 0.0) -> npt.NDArray[np.int32]:
        q8 = round(temperature * TEMPERATURE_ONE)
        tokens = self._runtime.generate(n, temperature=temperature)
        self._calls.append(Call(GENERATE, q8, tokens.astype("<i4").tobytes()))
        self._results.update(tokens.astype("<i4").tobytes())
        return tokens

    def reset(self) -> None:
        self._runtime.reset()
        self._calls.append(Call(RESET))

    def forget(self, seed: int) -> None:
        self._runtime.forget(seed)
        self._calls.append(Call(FORGET, 0, seed.to_bytes(8, "little")))

    def save(self) -> bytes:
        return self._runtime.save()

    def load(self, delta: bytes) -> None:
        self._runtime.load(delta)
        self._calls.append(Call(LOAD, 0, delta))

    def counts(self) -> Counts:
        return self._runtime.counts()

    def close(self) -> None:
        self._runtime.close()

    def finish(self) -> Replay:
        delta = sha256(self._runtime.save())
        return Replay(self.image_id, self._seed, tuple(self._calls), delta, self._results.hexdigest())


@dataclass(frozen=True)
class Outcome:
    """What came of doing it again, and whether it is what was recorded."""

    delta_sha256: str
    results_sha256: str
    delta: bytes = field(repr=False)
    same_delta: bool = False
    same_results: bool = False


def again(
    replay: Replay, runtime: Runtime, progress: Callable[[int], None] = lambda n: None, name: str = "replay"
) -> Outcome:
    """Do every call of a replay on a runtime, from a fresh model on. Raises InvalidFileError, which begins with `name`,
    if it has another image."""
    check_image(name, replay.image_id, runtime.image_id, "recorded")
    recorder = Recorder(runtime, replay.seed)
    for call in replay.calls:
        if call.kind in (FROZEN, LEARN, FOLLOW):
            recorder.process(call.tokens, learn=call.kind == LEARN, follow=call.kind == FOLLOW)
        elif call.kind == GENERATE:
            recorder.generate(len(call.tokens), temperature=call.number / TEMPERATURE_ONE)
        elif call.kind == RESET:
            recorder.reset()
        elif call.kind == FORGET:
            recorder.forget(int.from_bytes(call.data, "little"))
        else:
            recorder.load(call.data)
        progress(len(call.data) // 4 if call.kind <= GENERATE else 0)
    new, delta = recorder.finish(), runtime.save()
    same = new.delta_sha256 == replay.delta_sha256, new.results_sha256 == replay.results_sha256
    return Outcome(new.delta_sha256, new.results_sha256, delta, *same)
