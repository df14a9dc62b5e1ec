"""What libraries in C and C++ print on standard error, where they offer no switch for it: it goes to `logging`."""

import contextlib
import logging
import os
import tempfile
from collections.abc import Iterator

LOG = logging.getLogger(__name__)
STDERR = 2
MAX_BYTES = 1 << 16  # of what is said, that are logged


@contextlib.contextmanager
def native_log() -> Iterator[None]:
    """Keep what is printed on the process's standard error meanwhile, in whatever thread, and log it as information."""
    with contextlib.ExitStack() as stack:
        try:
            kept = stack.enter_context(tempfile.TemporaryFile())
            before = os.dup(STDERR)
        except OSError:  # no place for a file, or standard error is closed
            yield
            return
        try:
            os.dup2(kept.fileno(), STDERR)
            yield
        finally:
            os.dup2(before, STDERR)
            os.close(before)
            kept.seek(0)
            for line in kept.read(MAX_BYTES).decode("utf-8", "replace").splitlines():
                LOG.info("%s", line)
