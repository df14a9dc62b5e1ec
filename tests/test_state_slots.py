"""Two slots of flash: whatever a loss of power interrupts, the state before or the one after is there."""

import random
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from edgehmn.core import ffi, lib

BLANK = 0xFF
IMAGE, OTHER_IMAGE = bytes(range(32)), bytes(32)
OK, FLASH, STATE = int(lib.EHMN_OK), int(lib.EHMN_STATE_E_FLASH), int(lib.EHMN_E_STATE)
SHAPES = {"small units": (4096, 1, 8), "two sectors": (2048, 2, 32), "pages": (8192, 1, 256)}


class Flash:
    """Flash as a chip has it: programming clears bits, whole units, each once; an erase sets a sector. At operation
    `cut` the power goes: it is done in part, and nothing that follows is done at all."""

    def __init__(self, sector: int, sectors: int, unit: int, seed: int = 0) -> None:
        self.size, self.sector, self.unit = 2 * sector * sectors, sector, unit
        self._words = ffi.new("uint64_t[]", self.size // 8)
        self.bytes = ffi.buffer(self._words)
        self.bytes[:] = bytes([BLANK]) * self.size
        self.rng = random.Random(seed)
        self.done, self.cut, self.lie = 0, -1, ""
        self.erased = [0] * (2 * sectors)
        self._erase = ffi.callback("int32_t(void *, uint32_t)", self._do_erase)
        self._program = ffi.callback("int32_t(void *, uint32_t, const void *, uint32_t)", self._do_program)
        self.raw = ffi.new("ehmn_flash *")
        self.raw.base = ffi.cast("const uint8_t *", self._words)
        self.raw.sector_bytes, self.raw.slot_sectors, self.raw.unit = sector, sectors, unit
        self.raw.erase, self.raw.program = self._erase, self._program

    def _changed(self, at: int, new: bytes) -> int:
        """Put `new` there; a power cut leaves a part of it, by bytes from either end or by bits anywhere."""
        self.done += 1
        if self.lie == "does nothing":
            return OK
        if self.lie == "refuses":
            return -1
        if self.cut >= 0 and self.done > self.cut:
            if self.done > self.cut + 1:
                return -1
            old, part = self.bytes[at : at + len(new)], self.rng.randrange(len(new) + 1)
            torn = self.rng.choice([new[:part] + old[part:], old[:part] + new[part:], self._mixed(old, new)])
            self.bytes[at : at + len(new)] = torn
            return -1
        if self.lie == "flips a bit":
            new = new[:-1] + bytes([new[-1] ^ 0x10])
        self.bytes[at : at + len(new)] = new
        return OK

    def _mixed(self, old: bytes, new: bytes) -> bytes:
        mask = int.from_bytes(self.rng.randbytes(len(new)), "little")
        a, b = int.from_bytes(old, "little"), int.from_bytes(new, "little")
        return (a & ~mask | b & mask).to_bytes(len(new), "little")

    def _do_erase(self, context: object, at: int) -> int:
        assert at % self.sector == 0 and at < self.size
        self.erased[at // self.sector] += 1
        return self._changed(at, bytes([BLANK]) * self.sector)

    def _do_program(self, context: object, at: int, data: object, count: int) -> int:
        assert count and at % self.unit == count % self.unit == 0 and at + count <= self.size
        assert set(self.bytes[at : at + count]) == {BLANK}, "no unit is programmed twice"
        return self._changed(at, ffi.buffer(data, count)[:])

    def powered(self) -> None:
        """Power is there again."""
        self.done, self.cut, self.lie = 0, -1, ""


@dataclass(frozen=True)
class Found:
    """What is in force: a state, and whether it is provisional."""

    data: bytes | None
    provisional: bool = False


def found(flash: Flash) -> Found:
    state = ffi.new("ehmn_state *")
    assert lib.ehmn_state_find(flash.raw, state) == OK
    if state.sequence == 0:
        return Found(None)
    assert state.offset % 8 == 0 and bytes(state.image_id) == IMAGE
    data = flash.bytes[state.offset : state.offset + state.bytes]
    return Found(data, state.sequence != state.confirmed)


def store(flash: Flash, data: bytes, image: bytes = IMAGE) -> int:
    return int(lib.ehmn_state_store(flash.raw, image, data, len(data)))


def confirm(flash: Flash) -> int:
    return int(lib.ehmn_state_confirm(flash.raw))


def drop(flash: Flash) -> int:
    return int(lib.ehmn_state_drop(flash.raw))


def begin(flash: Flash, image: bytes = IMAGE) -> int:
    return int(lib.ehmn_state_begin(flash.raw, image, ffi.new("ehmn_state *")))


def new_flash(shape: str = "small units", seed: int = 0) -> Flash:
    return Flash(*SHAPES[shape], seed=seed)


def states(n: int, seed: int = 1) -> list[bytes]:
    rng = random.Random(seed)
    return [rng.randbytes(rng.randrange(1, 1500)) for _ in range(n)]


def interrupted(flash: Flash, operation: Callable[[], int], allowed: tuple[Found, Found]) -> int:
    """Cut the power at every erase and write of an operation, each from the same beginning; then do it whole. Returns
    how many there were."""
    before = flash.bytes[:]
    flash.powered()
    assert operation() == OK
    after, total = flash.bytes[:], flash.done
    for cut in range(total):
        flash.bytes[:] = before
        flash.powered()
        flash.cut = cut
        assert operation() != OK
        flash.powered()
        assert found(flash) in allowed, f"cut at operation {cut} of {total}"
        if not found(flash).provisional:
            assert store(flash, b"what comes next") == OK, "and the flash is no dead end"
            assert found(flash) == Found(b"what comes next", True)
    flash.bytes[:] = after
    flash.powered()
    assert found(flash) == allowed[1]
    return total


def test_a_record_with_the_sequence_of_the_confirmed_one_is_not_newer() -> None:
    """No board writes such a flash; who copies a slot does."""
    flash, data = new_flash(), b"learned"
    assert store(flash, data) == OK
    half = flash.size // 2
    flash.bytes[half:] = flash.bytes[:half]
    assert confirm(flash) == OK
    assert found(flash) == Found(data)
    assert store(flash, b"more") == OK


@pytest.mark.parametrize("shape", SHAPES)
def test_power_cut_at_every_write_and_erase_of_fifty_saves(shape: str) -> None:
    flash, kept, cuts = new_flash(shape), Found(None), 0
    for i, data in enumerate(states(50)):
        new = Found(data, True)
        cuts += interrupted(flash, lambda data=data: store(flash, data), (kept, new))  # type: ignore[misc]
        if i % 5 == 4:
            interrupted(flash, lambda: drop(flash), (new, kept))
        else:
            kept = Found(data)
            interrupted(flash, lambda: confirm(flash), (new, kept))
    assert cuts > 200
    assert min(flash.erased) > 0


def test_a_thousand_random_cuts() -> None:
    rng, survived = random.Random(5), 0
    flash = new_flash(seed=6)
    flash.bytes[:] = rng.randbytes(flash.size)  # of a board whose flash holds anything
    confirmed, provisional = Found(None), Found(None)
    for data in states(1000, seed=7):
        flash.powered()
        flash.cut = rng.randrange(12)
        before = provisional if provisional.data is not None else confirmed
        if provisional.data is None:
            operation, after = store(flash, data), Found(data, True)
        elif rng.random() < 0.6:
            assert provisional.data is not None
            operation, after = confirm(flash), Found(provisional.data)
        else:
            operation, after = drop(flash), confirmed
        flash.powered()
        now = found(flash)
        assert now in (before, after)
        assert operation != OK or now == after
        survived += operation == OK
        provisional = now if now.provisional else Found(None)
        confirmed = confirmed if now.provisional else now
    assert 300 < survived < 950


def test_a_provisional_state_is_tried_and_then_dropped() -> None:
    flash = new_flash()
    assert (store(flash, b"first"), confirm(flash), store(flash, b"second")) == (OK, OK, OK)
    for trial in range(lib.EHMN_STATE_TRIALS):
        before = flash.bytes[:]
        flash.cut = 0
        assert begin(flash) != OK
        flash.powered()
        assert found(flash) == Found(b"second", True)
        flash.bytes[:] = before
        assert begin(flash) == OK, trial
        assert found(flash) == Found(b"second", True)
    assert begin(flash) == OK
    assert found(flash) == Found(b"first")
    assert (begin(flash), confirm(flash), drop(flash)) == (OK, STATE, STATE)
    assert store(flash, b"third") == OK
    assert (begin(flash), confirm(flash)) == (OK, OK)
    for _ in range(10):
        assert begin(flash) == OK
    assert found(flash) == Found(b"third")


def test_a_provisional_state_is_not_written_over() -> None:
    flash = new_flash()
    assert store(flash, b"first") == OK
    before = flash.bytes[:]
    assert store(flash, b"second") == STATE
    assert flash.bytes[:] == before
    assert drop(flash) == OK
    assert found(flash) == Found(None)


def test_the_state_of_another_image_is_kept_and_reported() -> None:
    flash = new_flash()
    assert (store(flash, b"mine"), confirm(flash)) == (OK, OK)
    before = flash.bytes[:]
    assert begin(flash, OTHER_IMAGE) == store(flash, b"theirs", OTHER_IMAGE) == lib.EHMN_E_IMAGE_ID
    assert flash.bytes[:] == before
    assert lib.ehmn_state_wipe(flash.raw) == OK
    assert store(flash, b"theirs", OTHER_IMAGE) == OK


def test_the_sectors_wear_alike_and_as_little_as_can_be() -> None:
    flash = Flash(4096, 1, 32)
    data = bytes(1000)
    each = flash.sector // lib.ehmn_state_record_bytes(flash.raw, len(data))
    assert each == 3
    for _ in range(600):
        assert (store(flash, data), confirm(flash)) == (OK, OK)
    assert sum(flash.erased) == 600 // each - 2, "the first two slots were blank"
    assert max(flash.erased) - min(flash.erased) <= 1


def test_a_state_as_large_as_a_slot() -> None:
    flash = new_flash()
    most = flash.sector - lib.ehmn_state_record_bytes(flash.raw, 0)
    assert store(flash, bytes(most + 1)) == lib.EHMN_E_SIZE
    for i in range(4):
        data = bytes([i]) * most
        assert (store(flash, data), confirm(flash)) == (OK, OK)
        assert found(flash) == Found(data)


@pytest.mark.parametrize("lie", ["does nothing", "refuses", "flips a bit"])
def test_a_driver_is_not_believed(lie: str) -> None:
    flash = new_flash()
    assert (store(flash, b"first"), confirm(flash)) == (OK, OK)
    flash.lie = lie
    assert store(flash, b"second") == FLASH
    assert lib.ehmn_state_wipe(flash.raw) == FLASH
    flash.powered()
    assert found(flash).data in ((b"first",) if lie != "flips a bit" else (b"first", None))


def test_damage_in_a_stored_state_falls_back_to_the_one_before() -> None:
    flash = new_flash()
    for data in (b"first" * 20, b"second" * 20):
        assert (store(flash, data), confirm(flash)) == (OK, OK)
    at = flash.bytes[:].index(b"second")
    flash.bytes[at : at + 1] = b"X"
    assert found(flash) == Found(b"first" * 20)
    assert (store(flash, b"third"), confirm(flash)) == (OK, OK)
    assert found(flash) == Found(b"third")


def test_a_wipe_leaves_nothing() -> None:
    flash = new_flash("two sectors")
    for data in states(9):
        assert (store(flash, data), confirm(flash)) == (OK, OK)
    flash.cut = 1
    assert lib.ehmn_state_wipe(flash.raw) == FLASH
    flash.powered()
    assert lib.ehmn_state_wipe(flash.raw) == OK
    assert set(flash.bytes[:]) == {BLANK}
    assert found(flash) == Found(None)
    erased = sum(flash.erased)
    assert lib.ehmn_state_wipe(flash.raw) == OK
    assert sum(flash.erased) == erased, "what is blank needs no erase"


def test_any_bytes_are_no_state_and_no_fault() -> None:
    rng = random.Random(3)
    good = new_flash()
    for data in states(6):
        assert (store(good, data), confirm(good)) == (OK, OK)
    kept = good.bytes[:]
    for _ in range(400):
        damaged = bytearray(kept)
        for _ in range(rng.randrange(1, 40)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        good.bytes[:] = bytes(damaged)
        found(good)
        assert store(good, b"new") in (OK, STATE)
        good.powered()


WRONG = {
    "no base": {"base": ffi.NULL},
    "an odd unit": {"unit": 24},
    "a small unit": {"unit": 4},
    "a large unit": {"unit": 512},
    "sectors that are no units": {"sector_bytes": 4100},
    "no sectors": {"slot_sectors": 0},
    "too many": {"slot_sectors": 1 << 30},
}


@pytest.mark.parametrize("name", WRONG)
def test_a_region_that_is_none_is_refused(name: str) -> None:
    flash = new_flash()
    for field, value in WRONG[name].items():
        setattr(flash.raw, field, value)
    state = ffi.new("ehmn_state *")
    statuses = (
        lib.ehmn_state_find(flash.raw, state),
        lib.ehmn_state_begin(flash.raw, IMAGE, state),
        lib.ehmn_state_confirm(flash.raw),
        lib.ehmn_state_drop(flash.raw),
        lib.ehmn_state_wipe(flash.raw),
        store(flash, b"x"),
    )
    assert set(statuses) == {lib.EHMN_E_ARGUMENT}
