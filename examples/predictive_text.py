"""Predictive text in a terminal, by a model that learns each line as it is typed.

    python examples/predictive_text.py OUT [--runtime host|emulator|device] [--port PORT] [--save-state NAME]

OUT is an export. The word that is expected stands dimmed behind the cursor; Tab takes it. Enter ends a line, which is
then learned; Ctrl-D ends the session. After each line stands how many keystrokes it took, and how many were saved of
all lines and of the last ten: the more is typed, the more are saved. Keys that were pressed count, corrections too.
"""

import argparse
import os
import shutil
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgehmn import states
from edgehmn.errors import EdgeHMNError
from edgehmn.exported import Export
from edgehmn.live import LiveSession
from edgehmn.runtime.select import open_runtime

TAB, ENTER, END, INTERRUPT, BACKSPACE, ESCAPE = "\t", "\r", "\x04", "\x03", ("\x7f", "\b"), "\x1b"
DIM, PLAIN, CLEAR = "\x1b[2m", "\x1b[0m", "\r\x1b[K"
RECENT = 10  # lines


class Typist:
    """The line that is being typed, and the keys that it took."""

    def __init__(self, live: LiveSession) -> None:
        self._live = live
        self.text, self.keys = "", 0
        self._asked: tuple[str, str] | None = None  # what was typed before the present word, and the word suggested

    @property
    def ghost(self) -> str:
        """The rest of the suggested word, with the space behind it; empty if another word is being typed."""
        before, _, begun = self.text.rpartition(" ")
        before += " " if before or self.text.startswith(" ") else ""
        if self._asked is None or self._asked[0] != before:
            self._asked = before, self._live.suggest(before)
        word = self._asked[1]
        return f"{word[len(begun) :]} " if word.startswith(begun) and word != begun else ""

    def press(self, key: str) -> None:
        self.keys += 1
        if key in BACKSPACE:
            self.text = self.text[:-1]
        elif key == TAB:
            self.text += self.ghost
        elif key.isprintable():
            self.text += key


@contextmanager
def raw(fd: int) -> Iterator[None]:
    """Keys come one by one, unseen."""
    before = termios.tcgetattr(fd)
    try:
        tty.setraw(fd, termios.TCSANOW)
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSANOW, before)


def keys(fd: int) -> Iterator[str]:
    """Single keys, the bytes of a character put together; arrows and the like are left out. Ends with the input."""
    waiting = b""
    while data := os.read(fd, 64):
        waiting += data
        try:
            text, waiting = waiting.decode(), b""
        except UnicodeDecodeError:
            continue
        if not text.startswith(ESCAPE):
            yield from text


def show(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def show_line(typist: Typist) -> None:
    """The end of the line that fits into the window, and the ghost behind the cursor."""
    room = shutil.get_terminal_size().columns - 4
    typed, ghost = typist.text[-room:], typist.ghost.rstrip()
    ghost = ghost[: room - len(typed)]
    back = f"\x1b[{len(ghost)}D" if ghost else ""
    show(f"{CLEAR}> {typed}{DIM}{ghost}{PLAIN}{back}")


def share(lines: list[tuple[int, int]]) -> float:
    """Keystrokes saved, in per cent, of lines (characters, keys)."""
    return 100 * (1 - sum(pressed for _, pressed in lines) / max(1, sum(characters for characters, _ in lines)))


def converse(live: LiveSession, fd: int) -> list[tuple[int, int]]:
    """Until Ctrl-D, Ctrl-C or the end of the input. Returns characters and keys of each line."""
    done: list[tuple[int, int]] = []
    typist = Typist(live)
    show_line(typist)
    for key in keys(fd):
        if key in (END, INTERRUPT):
            break
        if key in (ENTER, "\n"):
            text = typist.text.rstrip()
            if text:
                done.append((len(text) + 1, typist.keys + 1))
                live.line(text)
                said = f"{done[-1][1]} keys for {done[-1][0]}; saved {share(done):.0f} %"
                said += f", {share(done[-RECENT:]):.0f} % of the last {min(RECENT, len(done))} lines"
                show(f"{CLEAR}> {text}\r\n{DIM}  {said}{PLAIN}\r\n")
            typist = Typist(live)
        else:
            typist.press(key)
        show_line(typist)
    show(CLEAR)
    return done


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("export", type=Path)
    parser.add_argument("--runtime", choices=["host", "emulator", "device"], default="host")
    parser.add_argument("--port", help="of a device")
    parser.add_argument("--load-state", help="what was learned before: a name or a .ehmd file")
    parser.add_argument("--save-state", help="keep what is learned: a name or a .ehmd file")
    args = parser.parse_args()
    if not sys.stdin.isatty():
        parser.error("standard input is no terminal; 'edgehmn personalise OUT -' reads lines from a pipe")

    def keep(delta: bytes) -> None:
        if args.save_state:
            states.save(args.save_state, delta)

    try:
        export = Export.open(args.export)
        live = LiveSession(
            lambda: open_runtime(export, runtime=args.runtime, port=args.port),
            export.encode,
            export.decode,
            keep=keep,
            start=states.load(args.load_state) if args.load_state else None,
            gate=export.image,
        )
        try:
            with raw(sys.stdin.fileno()):
                done = converse(live, sys.stdin.fileno())
        finally:
            live.close()
    except EdgeHMNError as e:
        print(f"{e}", file=sys.stderr)
        return e.exit_code
    first, last = done[:RECENT], done[-RECENT:]
    print(f"{len(done)} lines: {share(done):.0f} % of the keystrokes saved", end="")
    print(f"; {share(first):.0f} % of the first {len(first)}, {share(last):.0f} % of the last {len(last)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
