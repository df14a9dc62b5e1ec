"""The compiled C core, and the model that runs in it. The only module that imports `edgehmn._core`."""

import contextlib
import mmap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgehmn._core import ffi, lib
from edgehmn.errors import DoesNotFitError, EdgeHMNError, InvalidFileError, UsageError
from edgehmn.runtime.protocol import SCORE_FRAC, Counts

assert lib.EHMN_SCORE_FRAC == SCORE_FRAC

_MEANING = {
    "E_ARGUMENT": "an argument is out of range, such as a token outside the vocabulary",
    "E_MAGIC": "it is not an edgehmn file of this kind",
    "E_VERSION": "it is of a version that this edgehmn does not read",
    "E_SIZE": "it is truncated, too long, or a size in it contradicts another",
    "E_CRC": "its checksum does not match: it is damaged",
    "E_CONFIG": "a setting in it is out of range",
    "E_LAYOUT": "a tensor in it has the wrong shape or place",
    "E_VALUE": "it holds a value that may not occur",
    "E_ARENA": "the arena is too small",
    "E_IMAGE_ID": "it was learned with another image",
    "E_STATE": "the call needs another one before it",
}
TOGETHER = 32  # tokens that the encoder takes at once
LARGE_PAGE = 1 << 21
_FILE_STATUS = ("E_MAGIC", "E_VERSION", "E_SIZE", "E_CRC", "E_CONFIG", "E_LAYOUT", "E_VALUE", "E_IMAGE_ID")


def check(status: int, subject: str) -> None:
    """Raise the error that a status of the core stands for; `subject` begins the message."""
    if status == lib.EHMN_OK:
        return
    name = ffi.string(lib.ehmn_status_name(status)).decode()
    message = f"{subject}: {_MEANING.get(name, 'the core refused it')} ({name})"
    if name in _FILE_STATUS:
        raise InvalidFileError(message, status=name)
    if name == "E_ARENA":
        raise DoesNotFitError(message, status=name)
    raise (UsageError if name == "E_ARGUMENT" else EdgeHMNError)(message, status=name)


def aligned(size: int) -> npt.NDArray[np.uint8]:
    """A zeroed buffer that starts at a multiple of 64, a large one in large pages where the system has them."""
    huge = getattr(mmap, "MADV_HUGEPAGE", None)
    step = 64 if huge is None or size < LARGE_PAGE // 2 else LARGE_PAGE
    raw = np.zeros(size + 64, np.uint8) if step == 64 else _in_large_pages(-(-size // step) * step + step, huge)
    start = -raw.ctypes.data % step
    return raw[start : start + size]


def _in_large_pages(size: int, advice: Any) -> npt.NDArray[np.uint8]:
    """Memory of its own: weights read from it miss less in the caches and need fewer looks at page tables."""
    area = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):  # a system without them
        area.madvise(advice)
    return np.frombuffer(area, np.uint8)


class Image:
    """A validated image in memory, and what its header says."""

    def __init__(self, data: bytes | bytearray, name: str = "image") -> None:
        """Validate `data`. Raises InvalidFileError for anything that is not a whole, sound image."""
        self.bytes = aligned(len(data))
        self.bytes[:] = np.frombuffer(data, np.uint8)
        self.pointer = ffi.from_buffer("uint8_t[]", self.bytes)
        check(lib.ehmn_image_check(self.pointer, len(data)), name)
        self.header = ffi.from_buffer("ehmn_image *", self.bytes)  # keeps the bytes alive

    @property
    def id(self) -> str:
        return bytes(self.header.id).hex()

    @property
    def vocab_size(self) -> int:
        return int(self.header.vocab_size)

    def _size(self, function: Callable[..., int], *args: int) -> int:
        size = ffi.new("uint32_t *")
        check(function(self.pointer, *args, size), "image")
        return int(size[0])

    def arena_bytes(self, *, plastic: bool) -> int:
        return self._size(lib.ehmn_arena_bytes, lib.EHMN_PLASTIC if plastic else lib.EHMN_STATIC)

    def delta_bytes(self) -> int:
        return self._size(lib.ehmn_delta_bytes)


def arena_regions(image: Image) -> list[dict[str, Any]]:
    """What the learning arena is made of: name and bytes (alignment included) of each region, in order."""
    layout = lib.ehmn_layout_arena(ffi.cast("const ehmn_image *", image.pointer), lib.EHMN_PLASTIC)
    names = [name for name, _ in ffi.typeof("ehmn_layout").fields]
    starts = [0, *(int(getattr(layout, name)) for name in names)]
    labels = ["model", *names[:-1]]
    return [{"name": n, "bytes": b - a} for n, a, b in zip(labels, starts, starts[1:], strict=False)]


@dataclass(frozen=True)
class Topic:
    """Where a model stands among its topics. distance: of the present text from its bank's centre, mean squared, in
    deviations within a topic; changes: of topic since the model was opened."""

    bank: int
    banks: int
    changes: int
    distance: float


class CoreModel:
    """The Runtime of this host: an image opened in the C core. Also takes hidden vectors of other encoders."""

    def __init__(
        self, image: Image, *, plastic: bool = True, seed: int = 0, banks: int = 1, arena_bytes: int | None = None
    ) -> None:
        """Open with a fresh delta. banks: deltas between which the model chooses by topic, 1..EHMN_MAX_BANKS."""
        self.image, self.image_id, self.plastic = image, image.id, plastic
        size = image.arena_bytes(plastic=plastic) if arena_bytes is None else arena_bytes
        self._arena = aligned(max(size, 1))
        self._arena_pointer = ffi.from_buffer("uint8_t[]", self._arena)
        mode = lib.EHMN_PLASTIC if plastic else lib.EHMN_STATIC
        out = ffi.new("ehmn_model **")
        status = lib.ehmn_open(image.pointer, self._arena_pointer, size, mode, seed, out)
        check(status, f"arena of {size} bytes, {image.arena_bytes(plastic=plastic)} are needed")
        self._model = out[0]
        self._bits = ffi.new("uint32_t *")
        self._banks = self._attach_banks(banks) if banks != 1 else None
        self._hidden = ffi.new("int16_t[]", int(image.header.d_model))
        self._hidden_array = np.frombuffer(ffi.buffer(self._hidden), np.int16)
        self._work = aligned(0)  # grows when many tokens come

    def _attach_banks(self, n: int) -> npt.NDArray[np.uint8]:
        size = ffi.new("uint32_t *")
        check(lib.ehmn_banks_bytes(self.image.pointer, _unsigned(n), size), f"{n} banks")
        memory = aligned(int(size[0]))
        pointer = ffi.from_buffer("uint8_t[]", memory)
        check(lib.ehmn_banks_attach(self._model, pointer, len(memory), n), f"{n} banks")
        return memory

    def use_threads(self, threads: int) -> None:
        """Let products of large matrices use so many threads, 1..EHMN_MAX_THREADS; the results are the same."""
        pool = lib.ehmn_pool_start(threads) if 1 <= threads <= lib.EHMN_MAX_THREADS else ffi.NULL
        if pool == ffi.NULL:
            raise UsageError(f"{threads} threads cannot be started: give 1 to {lib.EHMN_MAX_THREADS}")
        pool = ffi.gc(pool, lib.ehmn_pool_stop)
        check(lib.ehmn_use_threads(self._model, lib.ehmn_pool_parallel(pool)), "threads")
        self._pool = pool  # the former one, if any, ends here

    def process(self, ids: npt.NDArray[np.integer], *, learn: bool, follow: bool = False) -> npt.NDArray[np.uint32]:
        scores = np.empty(len(ids), np.uint32)
        how = lib.EHMN_LEARN if learn else lib.EHMN_FOLLOW if follow and self.plastic else lib.EHMN_FEED
        self._process(ids, how, ffi.from_buffer("uint32_t[]", scores))
        return scores

    def feed(self, ids: npt.NDArray[np.integer]) -> None:
        """Feed tokens, of which nobody wants the scores and nothing is learned: a prompt. Raises UsageError."""
        self._process(ids, lib.EHMN_FEED, ffi.NULL)

    def _process(self, ids: npt.NDArray[np.integer], how: int, scores: Any) -> None:
        tokens = ffi.from_buffer("uint32_t[]", self._tokens(ids))
        work = self._work_for(min(len(ids), TOGETHER))
        where = ffi.from_buffer("uint8_t[]", work)
        check(lib.ehmn_process(self._model, tokens, len(ids), how, scores, where, len(work)), "process")

    def _tokens(self, ids: npt.NDArray[np.integer]) -> npt.NDArray[np.uint32]:
        """Tokens as the core takes them. Raises UsageError for one outside the vocabulary."""
        outside = ids[(ids < 0) | (ids >= self.image.vocab_size)]
        if len(outside):
            check(lib.EHMN_E_ARGUMENT, f"token {int(outside[0])}")
        return np.ascontiguousarray(ids, np.uint32)

    def _work_for(self, tokens: int) -> npt.NDArray[np.uint8]:
        """Room in which so many tokens are encoded at once."""
        size: Any = ffi.new("uint32_t *")
        check(lib.ehmn_work_bytes(self.image.pointer, tokens, size), "work memory")
        if len(self._work) < int(size[0]):
            self._work = aligned(int(size[0]))
        return self._work

    def attend(self, token: int, *, learn: bool, follow: bool) -> None:
        """Let the prediction meet the token that came: see Runtime.process. A static model has nothing that follows."""
        if learn:
            self.learn(token)
        elif follow and self.plastic:
            self.follow(token)

    def step(self, token: int) -> None:
        status = lib.ehmn_step(self._model, _unsigned(token))
        if status:  # a token has passed through the caches: what is not needed, as the message, is a tenth of it
            check(status, f"token {token}")

    def encode(self, token: int) -> npt.NDArray[np.int16]:
        """Feed a token to the encoder alone; its hidden vector (d_model,)."""
        status = lib.ehmn_encode(self._model, _unsigned(token), self._hidden)
        if status:
            check(status, f"token {token}")
        return self._hidden_array.copy()

    def head(self, token: int, hidden: npt.NDArray[np.int16]) -> None:
        """Predict from the hidden vector (d_model,) of any encoder, at 2**-hidden_frac, to which `token` was fed."""
        vector = np.ascontiguousarray(hidden, np.int16)
        if vector.shape != (int(self.image.header.d_model),):
            raise UsageError(f"hidden vector of shape {vector.shape}; the head needs {self.image.header.d_model}")
        check(lib.ehmn_head(self._model, _unsigned(token), ffi.from_buffer("int16_t[]", vector)), f"token {token}")

    def score(self, token: int) -> int:
        status = lib.ehmn_score(self._model, _unsigned(token), self._bits)
        if status:
            check(status, f"token {token}")
        return int(self._bits[0])

    def learn(self, token: int) -> None:
        status = lib.ehmn_learn(self._model, _unsigned(token))
        if status:
            check(status, f"token {token}")

    def follow(self, token: int) -> None:
        """Let the gains follow that `token` came, with every weight frozen."""
        status = lib.ehmn_follow(self._model, _unsigned(token))
        if status:
            check(status, f"token {token}")

    def guard_score(self, index: int) -> int:
        """Score of a guard vector of the image by what has been learned so far."""
        check(lib.ehmn_guard_score(self._model, _unsigned(index), self._bits), f"guard vector {index}")
        return int(self._bits[0])

    def settle(self) -> int:
        """Turn the gains at rest down until the guard is within its limit; of 256 parts, those that are left. See
        ehmn_settle."""
        check(lib.ehmn_settle(self._model, self._bits), "settle")
        return int(self._bits[0])

    def topic(self) -> Topic:
        t: Any = ffi.new("ehmn_topic *")
        check(lib.ehmn_get_topic(self._model, t), "topic")
        return Topic(t.bank, t.banks, t.changes, t.distance / 65536)

    def logits(self) -> npt.NDArray[np.int16] | None:
        """Base-2 logits (vocab_size,) with EHMN_LOGIT_FRAC fractional bits; None before the first step."""
        pointer = lib.ehmn_logits(self._model)
        if pointer == ffi.NULL:
            return None
        return np.frombuffer(ffi.buffer(pointer, 2 * self.image.vocab_size), np.int16).copy()

    def sample(self, temperature: float = 0.0) -> int:
        """Choose the next token; see ehmn_sample."""
        check(lib.ehmn_sample(self._model, round(temperature * 256), self._bits), "sample")
        return int(self._bits[0])

    def generate(
        self, n: int, *, temperature: float = 0.0, feed: Callable[[int], None] | None = None
    ) -> npt.NDArray[np.int32]:
        """feed: takes each token in the place of `step`, where the encoder is another."""
        out = np.empty(n, np.int32)
        for i in range(n):
            out[i] = self.sample(temperature)
            (feed or self.step)(int(out[i]))
        return out

    def reset(self) -> None:
        lib.ehmn_reset(self._model)

    def forget(self, seed: int) -> None:
        check(lib.ehmn_delta_reset(self._model, seed), "forget")

    def save(self) -> bytes:
        out = aligned(self.image.delta_bytes())
        check(lib.ehmn_delta_save(self._model, ffi.from_buffer("uint8_t[]", out), len(out)), "delta")
        return out.tobytes()

    def load(self, delta: bytes) -> None:
        check(lib.ehmn_delta_load(self._model, _pointer_to(delta), len(delta)), "delta")

    def save_bank(self, bank: int) -> bytes | None:
        """The delta of a bank, None if it holds nothing."""
        out = aligned(self.image.delta_bytes())
        status = lib.ehmn_bank_save(self._model, _unsigned(bank), ffi.from_buffer("uint8_t[]", out), len(out))
        if status == lib.EHMN_E_STATE and self.plastic:
            return None
        check(status, f"bank {bank}")
        return out.tobytes()

    def load_bank(self, bank: int, delta: bytes) -> None:
        check(lib.ehmn_bank_load(self._model, _unsigned(bank), _pointer_to(delta), len(delta)), f"bank {bank}")

    def counts(self) -> Counts:
        c: Any = ffi.new("ehmn_counts *")
        check(lib.ehmn_get_counts(self._model, c), "counts")
        return Counts(steps=c.steps, learned=c.learned, writes=c.writes, macs=c.macs, rollbacks=c.rollbacks)

    def close(self) -> None:
        """Nothing is held that the garbage collector does not give back."""


def _pointer_to(data: bytes) -> Any:
    """An aligned copy of `data` for the core, alive as long as the pointer."""
    buffer = aligned(len(data))
    buffer[:] = np.frombuffer(data, np.uint8)
    return ffi.from_buffer("uint8_t[]", buffer)


def _unsigned(token: int) -> int:
    """A token as the core takes it; what does not fit becomes one that it refuses."""
    return token if 0 <= token < 2**32 else 2**32 - 1
