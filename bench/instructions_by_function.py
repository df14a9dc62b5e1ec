"""Which functions of a board's firmware execute the instructions of a token: of the frozen model, of a prediction by
what was learned, and of a token that is learned; with Linux also of a prompt, whose tokens are many at once.

    python tools/run.py bench.instructions_by_function BOARD [WARM]

BOARD: an emulated one, or aarch64, aarch64-dotprod, aarch64-i8mm or x86-64 with Linux, as in bench.count_instructions.
Of the reference model, counted exactly by the plugin of tools/qemu_plugin, over 64 tokens after WARM that were learned:
128, which fill the context; 1,000 fill the memories, too.
"""

import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np

from bench.count_instructions import MACHINES, Program, missing_tools
from bench.instruction_plugin import Plugin
from edgehmn.calibrate import calibration_ids
from edgehmn.checkpoint import REFERENCE, read_checkpoint
from edgehmn.core import Image
from edgehmn.device.boards import find_board
from edgehmn.device.emulator import Emulator
from edgehmn.evaluation.p3 import frozen_image
from edgehmn.image import image_of
from edgehmn.runtime.device import DeviceRuntime

ROOT = Path(__file__).resolve().parents[1]
TOKENS = 64


Counts = dict[str, Counter[str]]  # instructions per token of each function, by what is done with a token


def per_token(before: Counter[str], after: Counter[str]) -> Counter[str]:
    return Counter({name: (after[name] - before[name]) // TOKENS for name in after})


def on_board(image: bytes, board: str, warm: int, learn: bool) -> Counter[str]:
    ids = calibration_ids(read_checkpoint(REFERENCE))[: warm + TOKENS]
    found = []
    with tempfile.TemporaryDirectory() as folder:
        plugin = Plugin(Path(folder))
        for more in (0, TOKENS):
            with Emulator(image, board, options=plugin.options) as emulator:
                runtime = DeviceRuntime(emulator.url)
                runtime.process(ids[:warm], learn=True)
                runtime.process(ids[warm : warm + more], learn=learn)
                runtime.close()
            found.append(plugin.counts())
    return per_token(*found)


def of_board(image: bytes, board: str, warm: int) -> Counts:
    frozen = frozen_image(Image(image)).bytes.tobytes()
    return {
        "static": on_board(frozen, board, warm, False),
        "predicted": on_board(image, board, warm, False),
        "learned": on_board(image, board, warm, True),
    }


def of_machine(image: bytes, machine: str, warm: int) -> Counts:
    with tempfile.TemporaryDirectory() as folder:
        model, ids = Path(folder) / "model.ehmn", Path(folder) / "ids"
        model.write_bytes(image)
        ids.write_bytes(np.asarray(calibration_ids(read_checkpoint(REFERENCE)), "<u4").tobytes())
        program = Program.build(machine, Path(folder))
        learned = program.run(model, ids, warm, "l")
        frozen = program.run(model, ids, warm, "s")
        prompt = f"m{TOKENS}"
        return {
            "prompt": per_token(
                program.run(model, ids, 2 * TOKENS, prompt), program.run(model, ids, 3 * TOKENS, prompt)
            ),
            "static": per_token(frozen, program.run(model, ids, warm + TOKENS, "s")),
            "predicted": per_token(learned, program.run(model, ids, warm + TOKENS, f"p{warm}")),
            "learned": per_token(learned, program.run(model, ids, warm + TOKENS, "l")),
        }


def show(name: str, counts: Counts) -> None:
    print(f"{name}\n" + "".join(f"{kind:>12}" for kind in counts))
    most: Counter[str] = Counter()
    for of in counts.values():
        most |= of
    for function, n in most.most_common():
        if n >= 100:
            print("".join(f"{of[function]:12,}" for of in counts.values()), function)
    print("".join(f"{sum(of.values()):12,}" for of in counts.values()), "all")


def main(arguments: list[str]) -> None:
    if len(arguments) not in (1, 2):
        sys.exit(__doc__)
    name, warm = arguments[0], int(arguments[1]) if len(arguments) == 2 else 128
    image = image_of(read_checkpoint(REFERENCE))
    if name in MACHINES:
        if missing := missing_tools(name):
            sys.exit(f"{name}: cannot be counted here: {missing} is missing")
        show(name, of_machine(image, name, warm))
    else:
        show(name, of_board(image, find_board(name).name, warm))


if __name__ == "__main__":
    main(sys.argv[1:])
