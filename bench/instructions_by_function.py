"""Which functions of a board's firmware execute the instructions of a token: of the frozen model, of a prediction by
what was learned, and of a token that is learned.

    python tools/run.py bench.instructions_by_function BOARD [WARM]

Of the reference model on an emulated board, counted exactly by the plugin of tools/qemu_plugin, over 64 tokens after
WARM that were learned: 128, which fill the context; 1,000 fill the memories, too.
"""

import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from edgehmn.calibrate import calibration_ids
from edgehmn.checkpoint import REFERENCE, read_checkpoint
from edgehmn.core import Image
from edgehmn.device.boards import find_board
from edgehmn.device.emulator import Emulator
from edgehmn.evaluation.p3 import frozen_image
from edgehmn.image import image_of
from edgehmn.runtime.device import DeviceRuntime

ROOT = Path(__file__).resolve().parents[1]
PLUGIN = ROOT / "tools" / "qemu_plugin" / "instructions.c"
TOKENS = 64


def functions(image: bytes, board: str, warm: int, learn: bool) -> Counter[str]:
    """Instructions per token of each function. What runs before the tokens that count is subtracted."""
    ids = calibration_ids(read_checkpoint(REFERENCE))[: warm + TOKENS]
    found = []
    with tempfile.TemporaryDirectory() as folder:
        plugin, out = Path(folder) / "instructions.so", Path(folder) / "counts"
        subprocess.run(["gcc", "-O2", "-shared", "-fPIC", str(PLUGIN), "-o", str(plugin)], check=True)
        for more in (0, TOKENS):
            with Emulator(image, board, options=["-plugin", f"{plugin},out={out}"]) as emulator:
                runtime = DeviceRuntime(emulator.url)
                runtime.process(ids[:warm], learn=True)
                runtime.process(ids[warm : warm + more], learn=learn)
                runtime.close()
            lines = [line.split(maxsplit=1) for line in out.read_text("utf-8").splitlines()]
            found.append(Counter({name: int(n) for n, name in lines}))
    before, after = found
    return Counter({name: (after[name] - before[name]) // TOKENS for name in after})


def show(board: str, warm: int) -> None:
    image = image_of(read_checkpoint(REFERENCE))
    frozen = frozen_image(Image(image)).bytes.tobytes()
    counts = {
        "static": functions(frozen, board, warm, False),
        "predicted": functions(image, board, warm, False),
        "learned": functions(image, board, warm, True),
    }
    print(f"{board}\n" + "".join(f"{kind:>12}" for kind in counts))
    for name, n in counts["learned"].most_common():
        if n >= 100:
            print("".join(f"{of[name]:12,}" for of in counts.values()), name)
    print("".join(f"{sum(of.values()):12,}" for of in counts.values()), "all")


def main(arguments: list[str]) -> None:
    if len(arguments) not in (1, 2):
        sys.exit(__doc__)
    show(find_board(arguments[0]).name, int(arguments[1]) if len(arguments) == 2 else 128)


if __name__ == "__main__":
    main(sys.argv[1:])
