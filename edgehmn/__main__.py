"""The command `edgehmn`, also as `python -m edgehmn`."""

import signal
from types import FrameType


def main() -> None:
    """Load the command line and run it. An interrupt that comes before it is there is kept for it: it knows what to
    answer, and what is half loaded cannot."""
    early: list[int] = []

    def keep(number: int, _: FrameType | None) -> None:
        early.append(number)

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else, as in the background, it is ignored
        signal.signal(signal.SIGINT, keep)
    from edgehmn.cli import main as run

    run(early=early)


if __name__ == "__main__":
    main()
