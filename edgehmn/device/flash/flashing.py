"""`edgehmn flash`: find the one board, write it, read it back, and let it prove that it computes what was exported."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgehmn.conformance import read_vectors
from edgehmn.core import CoreModel, ffi
from edgehmn.device.boards import Board, find_board
from edgehmn.device.firmware import build_firmware
from edgehmn.device.flash.emulated import Emulated
from edgehmn.device.flash.esp import EspTool
from edgehmn.device.flash.parts import Part, parts_of
from edgehmn.device.flash.programmer import Place, Programmer, choose
from edgehmn.device.flash.pyocd import PyOcd
from edgehmn.device.flash.ssh import LinuxBoard
from edgehmn.device.flash.stm32 import Stm32Flash
from edgehmn.device.flash.uf2 import Uf2Drive
from edgehmn.errors import DeviceError, FlashError, LinkLostError, ManualStepError, UsageError
from edgehmn.exported import Export

if TYPE_CHECKING:
    from edgehmn.runtime.device import DeviceRuntime

LINUX = "linux"
EMULATOR = "emulator"
ANSWER_S = 10.0  # for the board to answer after it was started


@dataclass(frozen=True)
class Flashed:
    """What was done. verified: "read back", or "self-test" where the board cannot be read."""

    board: str
    place: str
    written_bytes: int
    verified: str
    self_test: str


def ways(board: str) -> list[str]:
    """How a board can be written, the usual way first."""
    if board == LINUX:
        return ["ssh"]
    known = find_board(board)
    return [*known.tools, *([EMULATOR] if known.machine else [])]


def programmer_for(board: str, via: str | None = None, limit_s: float | None = None) -> Programmer:
    """limit_s: for its program to write, or to read back; None: by size. Raises UsageError for a board that has no such
    way, DependencyError where the program of it is missing."""
    if board == LINUX:
        return LinuxBoard(limit_s)
    known, possible = find_board(board), ways(board)
    way = via or possible[-1 if known.machine else 0]
    if way not in possible:
        raise UsageError(f"{board} cannot be written by '{way}'; it can by {', '.join(possible)}")
    if way == EMULATOR:
        return Emulated(known)
    return _real(known, way, limit_s)


def _real(board: Board, way: str, limit_s: float | None) -> Programmer:
    said = board.tools[way]
    if way == "stm32flash":
        return Stm32Flash(int(said, 0), board.numbers["BOARD_FLASH_ADDRESS"], limit_s)
    if way == "pyocd":
        return PyOcd(said, limit_s)
    if way == "esptool":
        return EspTool(said, limit_s)
    board_id, _, family = said.partition(":")
    return Uf2Drive(board_id, int(family, 0))


def flash(
    export: Export,
    board: str,
    programmer: Programmer,
    *,
    port: str | None = None,
    line: str | None = None,
    note: Callable[[str], None] = lambda text: None,
) -> Flashed:
    """port: which of several places. line: where the board answers, if not there. What it had learned stays in its
    flash, and in its memory as far as it does not have to start anew.

    Raises DeviceError unless exactly one right board is there, FlashError if it does not hold what was written or
    computes something else, and ManualStepError if all was written but the board waits for somebody's hand.
    """
    place, parts = prepare(export, board, programmer, port, note)
    size = sum(len(part.data) for part in parts)
    note(f"writing {size:,} bytes")
    programmer.write(place, parts)
    verified = _verify(programmer, place, parts)
    note("self-test with the vectors of the export, on the board")
    with programmer.running(place, line) as url:
        _self_test(export, board, url, verified)
    return Flashed(board, place.name, size, verified, "ok")


def prepare(
    export: Export,
    board: str,
    programmer: Programmer,
    port: str | None,
    note: Callable[[str], None] = lambda text: None,
) -> tuple[Place, tuple[Part, ...]]:
    """All that comes before writing: the one place, and what goes there. Raises as `flash`, and DoesNotFitError."""
    place = choose(programmer.places(port), port, programmer.ready)
    note(f"found {place.name} ({place.what})")
    image = export.image.bytes.tobytes()
    if isinstance(programmer, LinuxBoard):
        return place, programmer.parts(place, image)
    known = find_board(board)
    known.fit(export.image)
    return place, parts_of(known, build_firmware(board).read_bytes(), image)


def _verify(programmer: Programmer, place: Place, parts: Sequence[Part]) -> str:
    verified = "read back"
    for part in parts:
        back = programmer.read(place, part)
        if back is None:
            verified = "self-test"
        elif back != part.data:
            wrong = sum(a != b for a, b in zip(back, part.data, strict=False)) + abs(len(back) - len(part.data))
            raise FlashError(
                f"{place.name}: {part.name} is not there: {wrong:,} of {len(part.data):,} bytes differ though the "
                "program that wrote it reported success; write again, at a lower speed or by another cable",
                part=part.name,
            )
    return verified


def _self_test(export: Export, board: str, url: str | None, verified: str) -> None:
    """The recorded vectors, bit for bit; what the board had learned is there again afterwards."""
    from edgehmn.runtime.device import DeviceRuntime
    from edgehmn.validation import integer_checks

    done = "all is written and read back" if verified == "read back" else "all is written"
    if url is None:
        raise ManualStepError(
            f"{done}, but nothing proves that the board runs it: reset it and run 'edgehmn validate {export.folder} "
            "--runtime device --port PORT', or flash again with --line PORT"
        )
    try:
        runtime = DeviceRuntime(url, timeout_s=ANSWER_S)
    except (DeviceError, LinkLostError) as e:
        raise ManualStepError(
            f"{done}, but the board does not answer at {url}: set it to start its firmware (BOOT0 low), press reset, "
            f"and run 'edgehmn validate {export.folder} --runtime device --port {url}' ({e})"
        ) from e
    try:
        if runtime.identity.board != board:
            raise FlashError(f"{url}: is a {runtime.identity.board}, not the {board} that was written")
        if runtime.image_id != export.image.id:
            raise FlashError(f"{url}: runs image {runtime.image_id[:16]}, written was {export.image.id[:16]}")
        vectors = read_vectors(export.folder / "vectors.safetensors", export.image)
        kept = runtime.save()
        failed = [check.name for check in integer_checks("device", runtime, vectors) if not check.ok]
        _give_back(export, runtime, kept)
    except LinkLostError as e:
        raise FlashError(f"{url}: the board was lost during its self-test ({e})") from e
    finally:
        runtime.close()
    if failed:
        raise FlashError(f"{url}: the board computes something else than was exported: {', '.join(failed)}")


def _give_back(export: Export, runtime: "DeviceRuntime", kept: bytes) -> None:
    """What the board had learned is there again. Nothing learned needs no transfer."""
    seed = int(ffi.from_buffer("ehmn_delta *", kept).seed)
    if kept == CoreModel(export.image, seed=seed).save():
        runtime.forget(seed)
    else:
        runtime.load(kept)
    runtime.reset()
