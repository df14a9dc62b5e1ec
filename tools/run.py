"""Run a module of the checkout's folders bench, fuzz or tests with the package as it is installed.

    python tools/run.py bench.anchor OUT ...

`python -m` would put the checkout first, whose edgehmn/ has no compiled core.
"""

import runpy
import sys
from pathlib import Path


def main() -> None:
    if len(sys.argv) < 2:
        sys.exit("usage: python tools/run.py MODULE [ARGUMENT ...]")
    sys.path.pop(0)  # this folder
    sys.path.append(str(Path(__file__).resolve().parent.parent))
    sys.argv.pop(0)
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
