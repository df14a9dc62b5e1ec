"""What a token costs on the emulated boards, against the committed table budget.json: more than 3 % worse fails.

    python tools/run.py tests.test_budget      records what there is now, if a change makes it better or is worth it

Instructions are exact (the emulator's clock counts them), so the state of this machine does not matter; another
compiler does, so the table holds for the one that it names.
"""

import json
import re
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from shutil import which
from typing import Any

import pytest

from edgehmn.calibrate import calibration_ids
from edgehmn.checkpoint import REFERENCE, read_checkpoint
from edgehmn.device.boards import find_board
from edgehmn.device.firmware import TOOLS, build_firmware
from edgehmn.image import image_of, with_rule
from edgehmn.plasticity import Rule
from edgehmn.runtime.device import DeviceRuntime
from tests.models import NOTHING
from tests.test_boards import call_graph, deepest

TABLE = Path(__file__).parent / "budget.json"
# A Cortex-M3, which has no DSP instructions; a Cortex-M4, which has; a Cortex-M55, which has vectors.
BOARDS = ("mps2-an385", "mps2-an386", "mps3-an547")
WARM = 128  # tokens that fill the context
TOKENS = 64  # that are counted after it: one look at the guard is among them
TOLERANCE = 0.03
COMPILER = "arm-none-eabi-gcc"
missing = [tool for tool in (*TOOLS, "qemu-system-arm") if which(tool) is None]
needs_tools = pytest.mark.skipif(bool(missing), reason=f"not run here: {', '.join(missing)} missing")


def compiler() -> str:
    return subprocess.run([COMPILER, "-dumpversion"], capture_output=True, text=True, check=True).stdout.strip()


def instructions(image: bytes, board: str, learn: bool) -> int:
    """Per token, at a full context."""
    ids = calibration_ids(read_checkpoint(REFERENCE))[: WARM + TOKENS]
    runtime = DeviceRuntime.emulated(image, board)
    try:
        runtime.process(ids[:WARM], learn=learn)
        before = runtime.counts()
        runtime.process(ids[WARM:], learn=learn)
        after = runtime.counts()
    finally:
        runtime.close()
    done = after.since(before)
    return ((done.step_instructions or 0) + (done.learn_instructions or 0)) // TOKENS


def measured(board: str) -> dict[str, int]:
    image = image_of(read_checkpoint(REFERENCE))
    off = with_rule(image, Rule(**{**NOTHING, "rho_trace": (), "topic_limit": 0.0, "guard_limit": 0.0}))
    sections = subprocess.run(
        ["arm-none-eabi-size", "-A", str(build_firmware(board))], capture_output=True, text=True, check=True
    ).stdout
    size = {name: int(n) for name, n in re.findall(r"^(\.\w+)\s+(\d+)", sections, re.M)}
    with tempfile.TemporaryDirectory() as folder:
        stack = deepest(*call_graph(find_board(board), Path(folder)), "reset")
    return {
        "instructions per token, plasticity off": instructions(off, board, learn=False),
        "instructions per token, frozen": instructions(image, board, learn=False),
        "instructions per learned token": instructions(image, board, learn=True),
        "bytes of code": size[".text"],
        "bytes of constants": size[".rodata"],
        "bytes of stack": stack,
    }


@needs_tools
@pytest.mark.parametrize("board", BOARDS)
def test_nothing_costs_more_than_the_table_says(board: str) -> None:
    table: dict[str, Any] = json.loads(TABLE.read_text("utf-8"))
    if table["compiler"] != compiler():
        pytest.skip(f"not run here: the table holds for {COMPILER} {table['compiler']}, this is {compiler()}")
    now = measured(board)
    worse = {what: (table[board][what], n) for what, n in now.items() if n > (1 + TOLERANCE) * table[board][what]}
    assert not worse, "more than the budget; if it is worth it: python tools/run.py tests.test_budget"
    better = [what for what, n in now.items() if n < (1 - TOLERANCE) * table[board][what]]
    if better:
        warnings.warn(
            f"{board}: better than the budget, record it (python tools/run.py tests.test_budget): {better}",
            stacklevel=1,
        )


def main() -> None:
    table: dict[str, Any] = {"compiler": compiler()} | {board: measured(board) for board in BOARDS}
    TABLE.write_text(json.dumps(table, indent=1) + "\n", "utf-8")
    sys.stdout.write(TABLE.read_text("utf-8"))


if __name__ == "__main__":
    main()
