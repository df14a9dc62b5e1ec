"""Type-check the installed package, where export/ and targets/ lie in their places below edgehmn.

mypy is run from an empty folder: in the checkout it would find the sources before they are put together.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    command = [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml"), "-p", "edgehmn"]
    with tempfile.TemporaryDirectory() as empty:
        return subprocess.run([*command, "--cache-dir", str(ROOT / "build" / "mypy")], cwd=empty).returncode


if __name__ == "__main__":
    sys.exit(main())
