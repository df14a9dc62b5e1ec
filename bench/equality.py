"""The same personalisation on every machine: scores and learned state must be equal to the last bit.

    python tools/run.py bench.equality [--tokens N] [--only MACHINE ...]

The reference model learns N tokens (5,000) of the shipped texts: on this machine with each table of kernels that it
can run, as edgehmn-device on other processors under QEMU's user emulation, and on the emulated boards. Then once more,
three times interrupted: the state is saved, and another machine goes on from it. What the reference table makes of the
same is what must come out. Results land in bench/results/equality.json and .md; what cannot run here is named and left
out. Ends with 1 if anything differs.
"""

import argparse
import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgehmn.checkpoint import REFERENCE, read_checkpoint
from edgehmn.core import CoreModel, Image, ffi, lib
from edgehmn.device.boards import boards
from edgehmn.device.emulator import QEMU
from edgehmn.device.firmware import TOOLS
from edgehmn.device.server import COMPILERS, Server, build_server
from edgehmn.image import image_of
from edgehmn.runtime.device import DeviceRuntime
from edgehmn.runtime.protocol import Runtime
from edgehmn.texts import EVALUATION, PERSONAL, shipped

RESULTS = Path(__file__).resolve().parent / "results"
TOKENS = 5000
PROCESSORS = {"aarch64": "qemu-aarch64", "armv7l": "qemu-arm", "riscv64": "qemu-riscv64"}
CORES = {"m3": "Cortex-M3", "m4": "Cortex-M4", "m7": "Cortex-M7", "m33": "Cortex-M33", "m55": "Cortex-M55"}
# Where the interrupted run goes on, as far as these can run here; the last of them has the last word.
CHAIN = ("mps2-an386", "aarch64", "mps3-an547", "riscv64")

Ids = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Machine:
    """name: what --only takes; what: of it, in words; needs: programs without which it cannot run."""

    name: str
    what: str
    needs: tuple[str, ...]
    start: Callable[[bytes], Any]  # a context manager that gives a Runtime of an image

    @property
    def absent(self) -> list[str]:
        return [tool for tool in self.needs if shutil.which(tool) is None]


@contextmanager
def with_table(index: int, image: bytes) -> Iterator[Runtime]:
    model = CoreModel(Image(image))
    lib.ehmn_use_kernels(model._model, lib.ehmn_kernel_table(index))
    yield model


@contextmanager
def on_processor(name: str, image: bytes) -> Iterator[Runtime]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.ehmn"
        file.write_bytes(image)
        with Server(file, command=[PROCESSORS[name], build_server(name)]) as server:
            runtime = DeviceRuntime(server.url)
            yield runtime
            runtime.close()


@contextmanager
def on_board(name: str, image: bytes) -> Iterator[Runtime]:
    runtime = DeviceRuntime.emulated(image, name)
    try:
        yield runtime
    finally:
        runtime.close()


def machines() -> Iterator[Machine]:
    """All of them, the reference table first."""
    index = 0
    while (table := lib.ehmn_kernel_table(index)) != ffi.NULL:
        kernels = ffi.string(table.name).decode()
        yield Machine(f"host-{kernels}", f"this machine, {kernels}", (), lambda image, i=index: with_table(i, image))
        index += 1
    for name, emulator in PROCESSORS.items():
        needs = (COMPILERS[name], emulator, "cmake", "ninja")
        yield Machine(name, f"{name} ({emulator})", needs, lambda image, n=name: on_processor(n, image))
    for board in boards().values():
        core = CORES.get(board.cpu.split()[0].split("-")[-1].partition("+")[0])
        if board.machine and core and board.numbers["BOARD_ARENA_BYTES"] >= 1 << 18:
            yield Machine(
                board.name, f"{core} ({board.machine})", (QEMU, *TOOLS), lambda image, n=board.name: on_board(n, image)
            )


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def learned(machine: Machine, image: bytes, ids: Ids, state: bytes | None = None) -> tuple[bytes, bytes]:
    """Scores, as bytes, and state of a machine that learns `ids`, from `state` on."""
    with machine.start(image) as runtime:
        if state is not None:
            runtime.load(state)
        scores = runtime.process(ids, learn=True)
        return np.asarray(scores, "<u4").tobytes(), runtime.save()


def interrupted(chain: Sequence[Machine], image: bytes, ids: Ids) -> tuple[bytes, bytes]:
    """The same of machines that take over from each other."""
    scores, state = b"", None
    for machine, part in zip(chain, np.array_split(ids, len(chain)), strict=True):
        more, state = learned(machine, image, part, state)
        scores += more
    assert state is not None
    return scores, state


def compare(image: bytes, ids: Ids, chosen: Sequence[Machine], say: Callable[[str], None]) -> dict[str, Any]:
    """All that are chosen against the first of them, whose table is the reference."""
    reference = chosen[0]
    expected = learned(reference, image, ids)
    rows = []
    for machine in chosen[1:]:
        scores, state = learned(machine, image, ids)
        rows.append({"machine": machine.what, "scores": sha256(scores), "state": sha256(state)})
        rows[-1]["equal"] = (scores, state) == expected
        say(f"{machine.what}: {'equal' if rows[-1]['equal'] else 'DIFFERENT'}")
    chain = [machine for name in CHAIN for machine in chosen if machine.name == name] or [reference] * len(CHAIN)
    whole = interrupted([reference] * len(chain), image, ids)
    scores, state = interrupted(chain, image, ids)
    same = (scores, state) == whole
    say(f"interrupted, {' then '.join(m.what for m in chain)}: {'equal' if same else 'DIFFERENT'}")
    return {
        "image_id": Image(image).id,
        "tokens": len(ids),
        "reference": {"scores": sha256(expected[0]), "state": sha256(expected[1])},
        "machines": rows,
        "interrupted": {
            "machines": [machine.what for machine in chain],
            "reference": {"scores": sha256(whole[0]), "state": sha256(whole[1])},
            "scores": sha256(scores),
            "state": sha256(state),
            "equal": same,
        },
    }


def markdown(results: dict[str, Any]) -> str:
    expected, chain = results["reference"], results["interrupted"]
    lines = [
        f"# {results['tokens']:,} tokens learned, on every machine",
        "",
        "`python tools/run.py bench.equality` writes this. SHA-256 of all scores and of the learned state.",
        "",
        "| machine | scores | state | |",
        "|---|---|---|---|",
        f"| reference table | {expected['scores'][:16]} | {expected['state'][:16]} | |",
    ]
    for row in results["machines"]:
        said = "equal" if row["equal"] else "**different**"
        lines.append(f"| {row['machine']} | {row['scores'][:16]} | {row['state'][:16]} | {said} |")
    said = "equal to the reference table, interrupted in the same way" if chain["equal"] else "**different**"
    lines += ["", f"Interrupted, saved and taken over by the next: {', '.join(chain['machines'])}: {said}."]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    parser.add_argument("--tokens", type=int, default=TOKENS)
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="MACHINE", help="compare these alone; writes no results"
    )
    args = parser.parse_args(arguments)
    every = list(machines())
    if unknown := set(args.only) - {m.name for m in every}:
        parser.error(f"no machine {', '.join(unknown)}; there are {', '.join(m.name for m in every)}")
    chosen = [m for i, m in enumerate(every) if i == 0 or not args.only or m.name in args.only]
    for machine in chosen:
        if machine.absent:
            print(f"{machine.what}: not run here: {', '.join(machine.absent)} missing")
    checkpoint = read_checkpoint(REFERENCE)
    ids = checkpoint.encode(shipped(PERSONAL) + shipped(EVALUATION))[: args.tokens]
    present = [m for m in chosen if not m.absent]
    results = compare(image_of(checkpoint), ids, present, lambda text: print(text, flush=True))
    if not args.only:
        (RESULTS / "equality.json").write_text(json.dumps(results, indent=1) + "\n", "utf-8")
        (RESULTS / "equality.md").write_text(markdown(results), "utf-8")
    return 0 if all(row["equal"] for row in (*results["machines"], results["interrupted"])) else 1


if __name__ == "__main__":
    sys.exit(main())
