"""Programs that run beside a command and end with it, however it ends: killed as well, when no code of ours runs."""

import contextlib
import os
import subprocess
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# The program takes the shell's place. Behind it waits a process of its group, which kills all of the group when the
# pipe closes, whose other end this process alone has: it closes with the process. The group cannot be another's by
# then, as its number can, because the one that waits is in it. (The signal that Linux sends at a parent's death goes by
# the thread that started the child, and must be asked for between fork and exec, where threads make that unsafe.)
# Where a system has no /dev/fd nobody waits, and nothing is killed.
_WATCHED = '{ exec </dev/fd/"$0" || exit; read -r _; kill -9 0; } </dev/null >/dev/null 2>&1 & exec "$@"'


class Companion:
    """A program in a session of its own: an interrupt at the keyboard reaches this process alone. It ends with this
    process at the latest."""

    def __init__(self, words: Sequence[str | Path], *, pass_fds: Sequence[int] = (), **options: Any) -> None:
        """options: of subprocess.Popen. Its name must be a path, or found in PATH."""
        watched, kept = os.pipe()
        try:
            self.process = subprocess.Popen(
                ["/bin/sh", "-c", _WATCHED, str(watched), *map(str, words)],
                pass_fds=[*pass_fds, watched], start_new_session=True, **options,
            )  # fmt: skip
        except BaseException:
            os.close(kept)
            raise
        finally:
            os.close(watched)
        self._release = weakref.finalize(self, os.close, kept)

    def end(self, grace_s: float) -> None:
        """Let it end by itself for so long, after it was told to; then kill it. Ending twice is allowed."""
        if not self._release.alive:
            return
        if grace_s > 0:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(grace_s)
        self.process.kill()
        self.process.communicate()
        self._release()
