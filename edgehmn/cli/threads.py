"""How many threads the float model's products take: decided before NumPy is there, as its libraries read it once."""

import contextlib
import os
import sys
from pathlib import Path

CHOSEN_BY = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")
SMALL_BYTES = 32 << 20  # of a checkpoint; two threads on two idle cores gain nothing up to here


def one_thread_for_small(checkpoint: str | Path) -> None:
    """Let products of a small model take one thread, unless the user has chosen, or NumPy is there already.

    Threads of OpenBLAS wait for one another by spinning: where other programs take the cores, thousands of products,
    each shorter than a turn of the scheduler, take ten times as long and more.
    """
    if "numpy" in sys.modules or any(name in os.environ for name in CHOSEN_BY):
        return
    path = Path(checkpoint)
    with contextlib.suppress(OSError):  # which whoever reads it puts into words
        files = path.iterdir() if path.is_dir() else [path]
        if sum(file.stat().st_size for file in files if file.is_file()) <= SMALL_BYTES:
            os.environ["OPENBLAS_NUM_THREADS"] = "1"
