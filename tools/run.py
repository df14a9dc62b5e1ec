"""Run a module of the checkout's folders bench, fuzz or tests with the package as it is installed.

    python tools/run.py bench.anchor OUT ...     --help says what a module does

`python -m` would put the checkout first, whose edgehmn/ has no compiled core.
"""

import ast
import importlib.util
import runpy
import sys
from pathlib import Path


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        sys.exit(__doc__)
    sys.path.pop(0)  # this folder
    sys.path.append(str(Path(__file__).resolve().parent.parent))
    sys.argv.pop(0)
    module = sys.argv[0]
    source = source_of(module)
    if sys.argv[1:] in (["-h"], ["--help"]) and "argparse" not in source:
        print(ast.get_docstring(ast.parse(source)))
        return
    from edgehmn.errors import EdgeHMNError

    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except EdgeHMNError as e:
        print(f"{module}: {e}", file=sys.stderr)
        sys.exit(e.exit_code)


def source_of(module: str) -> str:
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        spec = None
    if spec is None or spec.origin is None:
        sys.exit(f"{module}: no module of bench, fuzz or tests")
    return Path(spec.origin).read_text("utf-8")


if __name__ == "__main__":
    main()
