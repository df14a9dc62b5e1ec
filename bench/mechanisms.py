"""What each mechanism of the plastic head adds to a token, in instructions on emulated boards.

    python tools/run.py bench.mechanisms      writes bench/results/mechanisms.json and .md

Of the reference model with the default rule, per token of 64 after 1,024 that were learned, so that the context and the
memories are full and one look at the guard is among them. A mechanism's share is what a token costs less where that
mechanism alone is off: what several share, such as the error that the head learns from, is in the rest. The emulator's
clock counts instructions, so the numbers are the same on every machine; another compiler gives others.
"""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgehmn.calibrate import calibration_ids
from edgehmn.checkpoint import REFERENCE, read_checkpoint
from edgehmn.core import Image
from edgehmn.evaluation import p3
from edgehmn.image import image_of, with_rule
from edgehmn.plasticity import Rule
from edgehmn.runtime.device import DeviceRuntime
from edgehmn.streams import Ids

RESULTS = Path(__file__).resolve().parent / "results"
BOARDS = {"mps2-an385": "Cortex-M3", "mps2-an386": "Cortex-M4"}
WARM, TOKENS = 1024, 64
OFF: dict[str, dict[str, Any]] = {
    "dense adapter": {"rho_trace": ()},
    "G'": {"eta_global": 0.0},
    "rows of the previous tokens": {"row_slots": (0, 0)},
    "bias of every token": {"bias_step": 0.0},
    "n-grams": {"ngram_slots": 0},
    "episodes": {"episodes": 0},
    "topic": {"topic_limit": 0.0},
    "guard": {"guard_limit": 0.0},
}


def per_token(image: bytes, board: str, ids: Ids) -> tuple[float, float]:
    """Instructions: of scoring and feeding a token, and of learning it."""
    runtime = DeviceRuntime.emulated(image, board)
    try:
        runtime.process(ids[:WARM], learn=True)
        before = runtime.counts()
        runtime.process(ids[WARM:], learn=True)
        done = runtime.counts().since(before)
    finally:
        runtime.close()
    return (done.step_instructions or 0) / TOKENS, (done.learn_instructions or 0) / TOKENS


def shares(board: str) -> dict[str, Any]:
    checkpoint = read_checkpoint(REFERENCE)
    image = image_of(checkpoint)
    ids = calibration_ids(checkpoint)[: WARM + TOKENS]
    static, _ = per_token(p3.frozen_image(Image(image)).bytes.tobytes(), board, ids)
    predicted, learning = per_token(image, board, ids)
    learned = predicted + learning
    added = {}
    for name, off in OFF.items():
        added[name] = learned - sum(per_token(with_rule(image, replace(Rule(), **off)), board, ids))
        print(f"{board}: {name} {added[name]:,.0f}", file=sys.stderr)
    added["the rest: negatives, error, gains"] = learned - static - sum(added.values())
    return {"static": static, "predicted": predicted, "learned": learned, "added": added}


def table(boards: dict[str, Any]) -> str:
    head = [f"{BOARDS[name]}: instructions | % of the frozen token" for name in boards]
    lines = ["# What each mechanism adds to a token", "By `python tools/run.py bench.mechanisms`.", ""]
    lines += [f"| | {' | '.join(head)} |", "|---|" + "---|---|" * len(boards)]

    def row(name: str, values: list[float]) -> None:
        cells = [f"{v:,.0f} | {100 * v / b['static']:.1f}" for v, b in zip(values, boards.values(), strict=True)]
        lines.append(f"| {name} | {' | '.join(cells)} |")

    row("frozen model", [b["static"] for b in boards.values()])
    for name in next(iter(boards.values()))["added"]:
        row(f"+ {name}", [b["added"][name] for b in boards.values()])
    row("learned token", [b["learned"] for b in boards.values()])
    row("of it predicting", [b["predicted"] for b in boards.values()])

    def share(part: str) -> str:
        return ", ".join(f"{100 * p3.shares(b)[f'{part}_share']:.1f} % ({BOARDS[n]})" for n, b in boards.items())

    told = (
        f"Of a learned token, plasticity takes {share('plasticity')}; adapters and memories take {share('adapters')}."
    )
    return "\n".join([*lines, "", told, ""])


def main() -> None:
    compiler = subprocess.run(["arm-none-eabi-gcc", "-dumpversion"], capture_output=True, text=True, check=True)
    boards = {name: shares(name) for name in BOARDS}
    results = {"compiler": f"arm-none-eabi-gcc {compiler.stdout.strip()}", "tokens": TOKENS, "after": WARM}
    (RESULTS / "mechanisms.json").write_text(json.dumps(results | {"boards": boards}, indent=1) + "\n", "utf-8")
    text = table(boards)
    (RESULTS / "mechanisms.md").write_text(text, "utf-8")
    print(text)


if __name__ == "__main__":
    main()
