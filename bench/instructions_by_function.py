"""Which functions of the firmware execute a token's instructions, and what each mechanism of learning adds to them.

    python tools/run.py bench.instructions_by_function BOARD           the functions, three kinds of token
    python tools/run.py bench.instructions_by_function mechanisms      bench/results/mechanisms.json and .md

Of the reference model at a full context, on emulated boards, counted exactly by the plugin of tools/qemu_plugin. A
mechanism's share is what the token costs less where the mechanism alone is off.
"""

import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from edgehmn.calibrate import calibration_ids
from edgehmn.checkpoint import REFERENCE, read_checkpoint
from edgehmn.device.boards import find_board
from edgehmn.device.emulator import Emulator
from edgehmn.image import image_of, with_rule
from edgehmn.plasticity import Rule
from edgehmn.runtime.device import DeviceRuntime
from tests.models import NOTHING

ROOT = Path(__file__).resolve().parents[1]
PLUGIN = ROOT / "tools" / "qemu_plugin" / "instructions.c"
WARM, TOKENS = 128, 64
OFF = {**NOTHING, "rho_trace": (), "topic_limit": 0.0, "guard_limit": 0.0}
KINDS = ("static", "predicted", "learned")


def functions(image: bytes, board: str, learn: bool) -> Counter[str]:
    """Instructions per token of each function. What runs before the tokens that count is subtracted."""
    ids = calibration_ids(read_checkpoint(REFERENCE))[: WARM + TOKENS]
    found = []
    with tempfile.TemporaryDirectory() as folder:
        plugin, out = Path(folder) / "instructions.so", Path(folder) / "counts"
        subprocess.run(["gcc", "-O2", "-shared", "-fPIC", str(PLUGIN), "-o", str(plugin)], check=True)
        for more in (0, TOKENS):
            with Emulator(image, board, options=["-plugin", f"{plugin},out={out}"]) as emulator:
                runtime = DeviceRuntime(emulator.url)
                runtime.process(ids[:WARM], learn=True)
                runtime.process(ids[WARM : WARM + more], learn=learn)
                runtime.close()
            lines = [line.split(maxsplit=1) for line in out.read_text("utf-8").splitlines()]
            found.append(Counter({name: int(n) for n, name in lines}))
    before, after = found
    return Counter({name: (after[name] - before[name]) // TOKENS for name in after})


def show(board: str) -> None:
    image = image_of(read_checkpoint(REFERENCE))
    counts = dict(
        zip(
            KINDS,
            (
                functions(with_rule(image, Rule(**OFF)), board, False),
                functions(image, board, False),
                functions(image, board, True),
            ),
            strict=True,
        )
    )
    print(f"{board}\n" + "".join(f"{kind:>12}" for kind in KINDS))
    for name, n in counts["learned"].most_common():
        if n >= 100:
            print("".join(f"{counts[kind][name]:12,}" for kind in KINDS), name)
    print("".join(f"{sum(counts[kind].values()):12,}" for kind in KINDS), "all")


def main(arguments: list[str]) -> None:
    show(find_board(arguments[0]).name)


if __name__ == "__main__":
    main(sys.argv[1:])
