"""Several threads give the bits of one, whatever their number, and a pool ends when nobody needs it."""

import shutil
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest

from edgehmn.calibrate import calibration_ids
from edgehmn.checkpoint import Checkpoint
from edgehmn.cli.learning import MAX_THREADS
from edgehmn.core import CoreModel, Image, ffi, lib
from edgehmn.device.server import Server, build_server
from edgehmn.errors import UsageError
from edgehmn.runtime.device import DeviceRuntime


def threads_of_this_process() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


@pytest.mark.parametrize("threads", [2, 3, 8])
def test_several_threads_give_the_bits_of_one(threads: int, reference_image: bytes, reference: Checkpoint) -> None:
    image, ids = Image(reference_image), calibration_ids(reference)
    one, several = CoreModel(image), CoreModel(image)
    several.use_threads(threads)
    for learn, part in ((True, ids[:60]), (False, ids[60:130])):
        expected = one.process(part, learn=learn)
        assert np.array_equal(several.process(part, learn=learn), expected)
    for token in ids[130:150].tolist():
        one.step(token)
        several.step(token)
    assert np.array_equal(one.logits(), several.logits())
    assert one.save() == several.save() and one.counts() == several.counts()


def test_a_pool_does_every_part_once_and_ends() -> None:
    before = threads_of_this_process()
    pool = lib.ehmn_pool_start(4)
    parallel = lib.ehmn_pool_parallel(pool)
    assert parallel.threads == 4 and threads_of_this_process() == before + 3
    done, lock = [0] * 1000, threading.Lock()

    @ffi.callback("void(void *, uint32_t)")
    def work(_: object, part: int) -> None:
        with lock:
            done[part] += 1

    for parts in (1, 2, 1000, 3):
        done[:] = [0] * 1000
        parallel.run(parallel.context, work, ffi.NULL, parts)
        assert done == [1] * parts + [0] * (1000 - parts)
    lib.ehmn_pool_stop(pool)
    assert threads_of_this_process() == before


def test_numbers_that_are_no_numbers_of_threads(reference_image: bytes) -> None:
    assert lib.EHMN_MAX_THREADS == MAX_THREADS
    model = CoreModel(Image(reference_image))
    for threads in (0, -1, MAX_THREADS + 1):
        with pytest.raises(UsageError, match="threads"):
            model.use_threads(threads)
    assert lib.ehmn_use_threads(ffi.NULL, ffi.NULL) == lib.EHMN_E_ARGUMENT
    assert lib.ehmn_use_threads(model._model, ffi.new("ehmn_parallel *")) == lib.EHMN_E_ARGUMENT
    assert lib.ehmn_use_threads(model._model, ffi.NULL) == lib.EHMN_OK


def test_a_linux_board_with_several_threads(reference_image: bytes, reference: Checkpoint, tmp_path: Path) -> None:
    if absent := [tool for tool in ("cc", "cmake", "ninja") if shutil.which(tool) is None]:
        pytest.skip(f"not run here: {', '.join(absent)} missing")
    image, ids = tmp_path / "model.ehmn", calibration_ids(reference)[:50]
    image.write_bytes(reference_image)
    program, expected = build_server(), CoreModel(Image(reference_image))
    words = subprocess.run([program, image, "--listen", "0", "--threads", "65"], capture_output=True, text=True)
    assert words.returncode == 2 and "threads" in words.stderr
    with Server(image, command=[program, "--threads", "3"]) as server:
        board = DeviceRuntime(server.url)
        assert np.array_equal(board.process(ids, learn=True), expected.process(ids, learn=True))
        assert board.save() == expected.save()
        board.close()
