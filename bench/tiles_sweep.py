"""What a device needs so that learning on it is worth what it is in digital memory.

    python tools/run.py bench.tiles_sweep [--tokens N] [--seeds N]

The personal text that ships, its hidden vectors from the digital core, dense adapter and rows on tiles. One property at
a time is moved away from a base: HERMES written by write-verify, or a fine, symmetric device that takes open-loop
pulses. Kept is the cells' share of the digital gain, as in bench/tiles.py; the last column is where it falls below
90 %, between two values that were run. Everything is simulated. Results land in bench/results/tiles-sweep.json and
tiles-sweep.md; a run that was interrupted goes on.
"""

import argparse
import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.kept import begun, finish_beside, keep
from bench.tiles import Encoded, without_cells
from edgehmn.checkpoint import REFERENCE, read_checkpoint
from edgehmn.core import Image
from edgehmn.image import image_of
from edgehmn.runtime.protocol import nats
from edgehmn.runtime.tile import TileRuntime
from edgehmn.streams import open_head, play
from edgehmn.targets.memristive.mapping import TileSetup
from edgehmn.targets.memristive.noise import NoiseModel
from edgehmn.targets.memristive.presets import HERMES, IDEAL, Preset
from edgehmn.targets.memristive.steps import SoftBounds, Update
from edgehmn.texts import PERSONAL, shipped

RESULTS = Path(__file__).resolve().parent / "results" / "tiles-sweep.json"
TEXT = "personal"
GOAL = 90.0

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Scaled:
    """A noise model whose writes and reads are louder."""

    model: NoiseModel
    program: float = 1.0
    read: float = 1.0

    @property
    def drifts(self) -> bool:
        return self.model.drifts

    @property
    def t0_s(self) -> float:
        return self.model.t0_s

    def program_sigma(self, g: Array) -> Array:
        return np.asarray(self.program * self.model.program_sigma(g), g.dtype)

    def drift_exponent(self, g: Array, rng: np.random.Generator) -> Array:
        return self.model.drift_exponent(g, rng)

    def read_sigma(self, g: Array, age_s: float) -> Array:
        return np.asarray(self.read * self.model.read_sigma(g, age_s), g.dtype)


@dataclass(frozen=True)
class Property:
    """What is moved, over which values, and what each makes of a preset and of the way of writing."""

    name: str
    writes: str
    values: tuple[float, ...]
    form: str
    of: Callable[[float], tuple[Preset, TileSetup]]


def hermes(**changes: Any) -> tuple[Preset, TileSetup]:
    """HERMES with other noise or cells, written by write-verify."""
    noise = Scaled(HERMES.cell.noise, changes.pop("program", 1.0), changes.pop("read", 1.0))
    setup = TileSetup("adapters", threshold=changes.pop("threshold", None))
    return replace(HERMES, cell=replace(HERMES.cell, noise=noise, **changes)), setup


def fine(writes: str = "pulse", law: Any = None, **changes: Any) -> tuple[Preset, TileSetup]:
    """An ideal device but for how a pulse moves it. step: in steps of a weight."""
    base: Update = IDEAL.cell.update
    step = changes.pop("step", 1.0) / 127
    update = replace(base, step=step, law=law or base.law, **changes)
    return replace(IDEAL, cell=replace(IDEAL.cell, update=update)), TileSetup("adapters", writes=writes)


PROPERTIES = (
    Property("written noise, times HERMES's", "verify", (0, 1, 2, 3, 4, 6), "g", lambda v: hermes(program=v)),
    Property("read noise, times HERMES's", "verify", (0, 1, 2, 4, 8), "g", lambda v: hermes(read=v)),
    Property("stuck cells, %", "verify", (0, 2, 5, 10, 20), "g", lambda v: hermes(stuck=(v / 200, v / 200))),
    Property("levels of a cell (0: any)", "verify", (0, 64, 32, 16, 8), "g", lambda v: hermes(levels=int(v))),
    Property("steps that wait for a write", "verify", (2, 4, 6, 8, 12, 16, 24), "g", lambda v: hermes(threshold=v)),
    Property("size of a pulse, steps of a weight", "pulse", (1, 4, 8, 16, 32), "g", lambda v: fine(step=v)),
    Property("the same, steps accumulated first", "accumulate", (1, 4, 8, 16, 32), "g",
             lambda v: fine("accumulate", step=v)),
    Property("noise of a pulse, in pulses", "pulse", (0, 1, 2, 4), "g", lambda v: fine(cycle=v)),
    Property("up pulses over down pulses", "pulse", (1, 1.1, 1.25, 1.5, 2), "g",
             lambda v: fine(up_down=2 * (v - 1) / (v + 1))),
    Property("spread of pulses between devices", "pulse", (0, 0.3, 0.7, 1), "g", lambda v: fine(step_spread=v)),
    Property("re-drawn at each touch, steps", "pulse", (0, 2, 8), "g", lambda v: fine(write_noise=v)),
    Property("soft bounds, size of a pulse", "pulse", (1,), "g", lambda v: fine(law=SoftBounds(), step=v)),
)  # fmt: skip


def limit(values: list[float], kept: list[float]) -> str:
    """Where the kept share crosses the goal, on a straight line between the two values around it."""
    pairs = list(zip(values, kept, strict=True))
    if pairs[0][1] < GOAL:
        return "never reached"
    for (a, x), (b, y) in itertools.pairwise(pairs):
        if y < GOAL:
            return f"{a + (b - a) * (x - GOAL) / (x - y):.3g}"
    return f"beyond {values[-1]:g}"


def markdown(results: dict[str, Any]) -> str:
    lines = [
        "# What a device needs (simulated)", "",
        f"Personal text, {results['tokens']:,} tokens, encoder digital, dense adapter and rows on tiles. Kept: of",
        "what those add to the gain of the digital core, in per cent, mean over seeds; in brackets plasticity's share",
        f"of the energy. The last column: where less than {GOAL:g} % is kept. `verify`: around HERMES; `pulse` and",
        "`accumulate`: around a device whose pulse is one step, the same up and down, without noise.", "",
        "| property | writes | kept, % (share of energy, %) | 90 % until |", "| --- | --- | --- | --- |",
    ]  # fmt: skip
    for p in PROPERTIES:
        done = [(v, of(results, p, v)) for v in p.values if of(results, p, v)]
        if not done:
            continue
        kept = [mean(r["kept"] for r in runs) for _, runs in done]
        cells = [
            f"{v:{p.form}}: {k:.0f} ({100 * mean(r['share'] for r in runs):.1f})"
            for (v, runs), k in zip(done, kept, strict=True)
        ]
        lines.append(f"| {p.name} | {p.writes} | {'; '.join(cells)} | {limit([v for v, _ in done], kept)} |")
    return "\n".join(lines) + "\n"


def of(results: dict[str, Any], p: Property, value: float) -> list[dict[str, Any]]:
    start = f"{p.name}/{value:g}/"
    return [r for key, r in results["runs"].items() if key.startswith(start)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tokens", type=int, default=2000)
    parser.add_argument("--seeds", type=int, default=1)
    args = parser.parse_args()
    checkpoint = read_checkpoint(REFERENCE)
    image = Image(image_of(checkpoint))
    encoded = Encoded(image, {TEXT: checkpoint.encode(shipped(PERSONAL))[: args.tokens]})
    same = {"image_id": image.id, "tokens": args.tokens}
    results = {"runs": {}} | begun(RESULTS, same)
    stream, use = encoded.digital(TEXT)
    for seed in range(args.seeds):
        whole, bare = (nats(play(open_head(i, seed), stream)) for i in (image, without_cells(image)))
        for p in PROPERTIES:
            for value in p.values:
                key = f"{p.name}/{value:g}/{seed}"
                if key in results["runs"]:
                    continue
                runtime = TileRuntime(image, *p.of(value), seed=seed)
                runtime.encoded_by(use)
                own, cost = nats(play(runtime, stream)), runtime.cost()
                results["runs"][key] = {
                    "kept": 100 * (bare - own) / (bare - whole), "share": cost.plasticity_share_of_energy,
                    "pulses": cost.pulses_per_learned_token,
                }  # fmt: skip
                keep(RESULTS, results)
                print(key, results["runs"][key], flush=True)
    RESULTS.with_suffix(".md").write_text(markdown(finish_beside(RESULTS, same, results, "runs")), "utf-8")


if __name__ == "__main__":
    main()
