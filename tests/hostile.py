"""Images and deltas as an attacker may make them, given to the core in a process of its own: a crash is a failed test.

    python hostile.py CASES

does in Python what hostile.c does in C under sanitizers: for each case it prints the status and, if the core accepts
the case, a checksum of what the model then does.
"""

import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from shutil import which
from typing import Any

import numpy as np

from edgehmn.core import CoreModel, Image
from edgehmn.errors import InvalidFileError

IMAGE, IMAGE_LONG, IMAGE_CUTS, IMAGE_FLIPS, DELTA, DELTA_LONG, DELTA_CUTS, DELTA_FLIPS = range(8)
SHORT, LONG = 6, 90  # tokens that a model is fed; after the longer, it has looked at its guard and at its topic
BANKS = 2
Case = tuple[int, bytes]

NATIVE = Path(__file__).parent.parent / "native"


def process(model: Any, vocab_size: int, n: int, sample: Callable[[], int]) -> int:
    """Feed n tokens, each scored before, learned (every fifth followed), and followed by a sample; a checksum of scores
    and samples."""
    crc = 0
    for i in range(n):
        token = (3 * i + 1) % vocab_size
        score = model.score(token)
        (model.follow if i % 5 == 4 else model.learn)(token)
        model.step(token)
        crc = zlib.crc32(np.array([score, sample()], "<u4").tobytes(), crc)
    return crc


def behaviour(model: Any, vocab_size: int, n: int, sample: Callable[[], int]) -> int:
    """A checksum of what a model does, and of what its banks hold then."""
    crc = process(model, vocab_size, n, sample)
    for bank in range(BANKS):
        crc = zlib.crc32(model.save_bank(bank) or b"", crc)
    return crc


def of_image(data: bytes, n: int) -> int:
    model = CoreModel(Image(data), seed=7, banks=BANKS)
    return behaviour(model, model.image.vocab_size, n, lambda: model.sample(1.0))


def of_delta(image: bytes, delta: bytes, n: int) -> int:
    """What the delta does as the present bank and as the other one."""
    model = CoreModel(Image(image), seed=7, banks=BANKS)
    process(model, model.image.vocab_size, SHORT, model.sample)
    model.reset()
    before = model.save()
    try:
        model.load(delta)
    except InvalidFileError:
        assert model.save() == before, "a refused delta changes nothing"
        raise
    model.load_bank(1, delta)
    return behaviour(model, model.image.vocab_size, n, lambda: model.sample(1.0))


def damaged(data: bytes, *, cuts: bool) -> Iterable[bytes]:
    """Every shorter beginning of `data`, or `data` with every single bit flipped."""
    if cuts:
        yield from (data[:n] for n in range(len(data)))
        return
    flipped = bytearray(data)
    for i in range(8 * len(data)):
        flipped[i // 8] ^= 1 << i % 8
        yield bytes(flipped)
        flipped[i // 8] ^= 1 << i % 8


def count_accepted(accept: Callable[[bytes], Any], cases: Iterable[bytes]) -> int:
    accepted = 0
    for case in cases:
        try:
            accept(case)
            accepted += 1
        except InvalidFileError:
            pass
    return accepted


def outcome(image: bytes, kind: int, data: bytes) -> str:
    status = "OK"
    try:
        if kind in (IMAGE, IMAGE_LONG):
            crc = of_image(data, LONG if kind == IMAGE_LONG else SHORT)
        elif kind in (DELTA, DELTA_LONG):
            crc = of_delta(image, data, LONG if kind == DELTA_LONG else SHORT)
        else:
            accept = Image if kind < DELTA else CoreModel(Image(image)).load
            crc = count_accepted(accept, damaged(data, cuts=kind in (IMAGE_CUTS, DELTA_CUTS)))
    except InvalidFileError as e:
        status, crc = e.detail["status"], 0
    return f"{status} {crc:08x}"


def write_cases(path: Path, cases: Iterable[Case]) -> Path:
    path.write_bytes(b"".join(np.array([kind, len(data)], "<u4").tobytes() + data for kind, data in cases))
    return path


def replay(path: Path) -> None:
    """Print the outcome of each case; the deltas belong to the image at the beginning."""
    rest, image = memoryview(path.read_bytes()), None
    while rest:
        kind, size = np.frombuffer(rest, "<u4", 2).tolist()
        data = bytes(rest[8 : 8 + size])
        image = image or data
        print(outcome(image, kind, data), flush=True)
        rest = rest[8 + size :]


def run(command: list[str], cases: int) -> list[str]:
    """The outcomes. A process that dies, says anything else or falls silent fails the test, naming the case."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    outcomes = done.stdout.splitlines()
    assert done.returncode == 0, f"died in case {len(outcomes)} ({done.returncode}): {done.stderr[-3000:]}"
    assert done.stderr == "" and len(outcomes) == cases
    return outcomes


def in_the_module(cases: list[Case], folder: Path) -> list[str]:
    """Outcomes in the module that Python uses."""
    return run([sys.executable, __file__, str(write_cases(folder / "cases", cases))], len(cases))


def under_sanitizers(cases: list[Case], folder: Path) -> list[str]:
    """Outcomes in the same sources, compiled with AddressSanitizer and UndefinedBehaviorSanitizer."""
    return run([str(sanitized_driver()), str(write_cases(folder / "cases", cases))], len(cases))


def can_sanitize() -> bool:
    return which("gcc") is not None


@cache
def _build_folder() -> "tempfile.TemporaryDirectory[str]":
    return tempfile.TemporaryDirectory(prefix="edgehmn-hostile-")


@cache
def sanitized_driver() -> Path:
    driver = Path(_build_folder().name) / "hostile"
    sources = [*sorted(NATIVE.glob("src/*.c")), Path(__file__).with_suffix(".c")]
    flags = ["-std=c11", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-fsanitize=address,undefined"]
    flags += ["-fno-sanitize-recover=all", f"-I{NATIVE / 'include'}", f"-I{NATIVE / 'src'}"]
    subprocess.run(["gcc", *flags, *map(str, sources), "-o", str(driver)], check=True)
    return driver


if __name__ == "__main__":
    replay(Path(sys.argv[1]))
