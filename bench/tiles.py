"""What learning is worth, and costs, when the model lies on simulated memristive tiles.

    python bench/tiles.py --data DIR [--tokens N] [--seeds N] [--only NAME,...]

DIR holds wikitext-2/test.txt; the personal text is the one that ships. Each text is streamed once from an empty
context: static, then learning (each token scored before it is learned), with the same model in the digital core beside
it. Every figure of a tile is simulated. Results land in bench/results/tiles.json, finished runs at once, so that a run
that was interrupted goes on; bench/results/tiles.md is rewritten from it. `--tokens 2000` is the short form, without it
whole texts.
"""

import argparse
import json
import math
import time
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

from edgehmn.checkpoint import REFERENCE, read_checkpoint
from edgehmn.core import CoreModel, Image
from edgehmn.files import read_text
from edgehmn.image import image_of, with_rule
from edgehmn.rules import read_rule
from edgehmn.runtime.protocol import nats
from edgehmn.runtime.tile import TileRuntime
from edgehmn.targets.memristive.presets import Preset, preset
from edgehmn.texts import PERSONAL, shipped

RESULTS = Path(__file__).resolve().parent / "results" / "tiles.json"
DIGITAL = "digital"
BARE = "digital without cells"  # dense adapter and rows learn nothing: what no tile holds learns on
STATIC, LEARNING = "static", "learning"
PRESETS = ("ideal", "hermes", "neurram", "reram-hfo2", "reram-om")
BROKEN = tuple(f"hermes, {share} % stuck" for share in (0.5, 2, 10))
SPARSE = "verify:16"  # written when 16 steps wait instead of 8
SCHEMES = ("pulse", "threshold", "accumulate", "verify")
HEADING = (
    "tile",
    "writes",
    "on tiles",
    "static ppl",
    "learning ppl",
    "gain kept, %",
    "of the cells' part, %",
    "µJ/token",
    "µJ/learned token",
    "plasticity, % of energy",
    "pulses/learned token",
    "years to first worn cell",
)
TEXTS = ("wikitext-2", "personal")


def run(image: Image, ids: np.ndarray, target: str, mode: str, scheme: str, mapping: str, seed: int) -> dict[str, Any]:
    """One stream. Returns nats per token, and for a tile what it cost."""
    began = time.perf_counter()
    if target == BARE:
        image = Image(
            with_rule(
                image.bytes.tobytes(), replace(read_rule(image), eta_local=0.0, eta_global=0.0, eta_row=(0.0, 0.0))
            )
        )
    if target in (DIGITAL, BARE):
        core = CoreModel(image, plastic=mode == LEARNING, seed=seed)
        return {"nats": nats(core.process(ids, learn=mode == LEARNING)) / len(ids), "tokens": len(ids)}
    kept = mapping if mode == LEARNING else "encoder"
    name, _, threshold = scheme.partition(":")
    runtime = TileRuntime(
        image,
        tile_of(target),
        mapping=kept,
        writes="verify" if mode == STATIC else name,
        threshold=float(threshold) if threshold else None,
        seed=seed,
    )
    scores = runtime.process(ids, learn=mode == LEARNING)
    return {
        "nats": nats(scores) / len(ids),
        "tokens": len(ids),
        "tiles": runtime.tiles,
        "cost": runtime.cost().as_dict(),
        "seconds": round(time.perf_counter() - began, 1),
    }


def tile_of(target: str) -> Preset:
    """A preset by its name, or "NAME, N % stuck"."""
    name, _, stuck = target.partition(", ")
    chosen = preset(name)
    if not stuck:
        return chosen
    half = float(stuck.split(" ")[0]) / 200
    return replace(chosen, cell=replace(chosen.cell, stuck=(half, half)))


def plan(seeds: int) -> list[tuple[str, str, str, str, str, int]]:
    """(text, target, mode, scheme, mapping, seed) of every run, the most telling first."""
    runs = []
    for text in TEXTS:
        runs.append((text, DIGITAL, STATIC, "-", "-", 0))
        runs += [(text, digital, LEARNING, "-", "-", seed) for digital in (DIGITAL, BARE) for seed in range(seeds)]
    for seed in range(seeds):
        for text in TEXTS:
            for target in PRESETS:
                runs.append((text, target, STATIC, "-", "encoder", seed))
                runs.append((text, target, LEARNING, "verify", "all", seed))
        for target in PRESETS[1:]:
            runs.append((TEXTS[0], target, LEARNING, "verify", "adapters", seed))
    for scheme in SCHEMES[:-1]:
        runs += [(TEXTS[0], target, LEARNING, scheme, "adapters", 0) for target in PRESETS[1:]]
    runs += [(TEXTS[0], target, LEARNING, SPARSE, "all", 0) for target in PRESETS[1:]]
    runs += [(TEXTS[0], target, LEARNING, "verify", "adapters", 0) for target in BROKEN]
    return runs


def of(results: dict[str, Any], text: str, target: str, mode: str, scheme: str, mapping: str) -> list[dict[str, Any]]:
    """All seeds of one kind of run."""
    start = f"{text}/{target}/{mode}/{scheme}/{mapping}/"
    return [r for key, r in results["runs"].items() if key.startswith(start)]


def spread(values: list[float], form: str = ".3f") -> str:
    """Mean and standard deviation over seeds."""
    if not values:
        return "-"
    return format(mean(values), form) + (f" ± {stdev(values):{form}}" if len(values) > 1 else "")


def figures(results: dict[str, Any], text: str, target: str, scheme: str, mapping: str) -> list[str] | None:
    """A line of the table, or None if the run is not there."""
    learning = of(results, text, target, LEARNING, scheme, mapping)
    static = of(
        results,
        text,
        DIGITAL if mapping == "adapters" else target,
        STATIC,
        "-",
        "-" if mapping == "adapters" else "encoder",
    )
    digital_static, digital = (
        of(results, text, DIGITAL, STATIC, "-", "-"),
        of(results, text, DIGITAL, LEARNING, "-", "-"),
    )
    if not (learning and static and digital and digital_static):
        return None
    before = mean(r["nats"] for r in static)
    gain = mean(r["nats"] for r in digital_static) - mean(r["nats"] for r in digital)
    kept = [100 * (before - r["nats"]) / gain for r in learning]
    bare = of(results, text, BARE, LEARNING, "-", "-")
    part = mean(r["nats"] for r in bare) - mean(r["nats"] for r in digital) if bare else 0.0
    own = [100 * (mean(r["nats"] for r in bare) - r["nats"]) / part for r in learning] if part else []
    cost = [r["cost"] for r in learning]

    def average(key: str) -> float:
        return mean(math.inf if c[key] is None else c[key] for c in cost)

    return [
        target, scheme, mapping,
        f"{np.exp(before):.2f}", f"{np.exp(mean(r['nats'] for r in learning)):.2f}", spread(kept, ".0f"),
        spread(own, ".0f") if mapping == "adapters" else "-",
        f"{average('energy_nj_per_token') / 1e3:.2f}", f"{average('energy_nj_per_learned_token') / 1e3:.2f}",
        f"{100 * average('plasticity_share_of_energy'):.1f}", f"{average('pulses_per_learned_token'):,.0f}",
        f"{average('years_to_first_worn_cell'):.1f}",
    ]  # fmt: skip


def markdown(results: dict[str, Any]) -> str:
    """The tables."""
    lines = [
        "# The model on memristive tiles (simulated)",
        "",
        "Simulated, not measured; energies calibrated to HERMES (ideal: one-phase, hermes: four-phase) or summed",
        "from parts (the others). Perplexity per token, streamed once. Gain kept: nats per token that learning gains",
        "over the same tiles without it, in per cent of what it gains in the digital core (`adapters`: the encoder",
        "stays digital, and the gain is over the digital static model); mean ± deviation over seeds. Most of the gain",
        "comes from memories that stay digital (words, biases, episodes, gains). The cells' part is what the dense",
        "adapter and the rows add to those in the digital core, and how much of that is kept. Years: until the first",
        "cell has had the pulses that it bears, at 20,000 learned tokens a day.",
    ]
    for text in TEXTS:
        digital = of(results, text, DIGITAL, LEARNING, "-", "-")
        static = of(results, text, DIGITAL, STATIC, "-", "-")
        if not digital or not static:
            continue
        lines += ["", f"## {text}, {digital[0]['tokens']:,} tokens", ""]
        bare = of(results, text, BARE, LEARNING, "-", "-")
        before, after = np.exp(static[0]["nats"]), np.exp(mean(r["nats"] for r in digital))
        said = f"Digital int8: static {before:.2f}, learning {after:.2f}"
        if bare:
            said += f", learning without dense adapter and rows {np.exp(mean(r['nats'] for r in bare)):.2f}"
        lines += [said + ".", ""]
        lines += ["| " + " | ".join(HEADING) + " |", "|" + " --- |" * len(HEADING)]
        for mapping in ("all", "adapters"):
            for scheme in (*reversed(SCHEMES), SPARSE):
                for target in (*PRESETS, *BROKEN):
                    row = figures(results, text, target, scheme, mapping)
                    if row:
                        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--tokens", type=int, help="of each text; default all")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", help="targets, with commas between; default all")
    args = parser.parse_args()
    for name in args.only.split(",") if args.only else []:
        preset(name)
    checkpoint = read_checkpoint(REFERENCE)
    image = Image(image_of(checkpoint))
    texts = {TEXTS[0]: read_text(args.data / "wikitext-2" / "test.txt"), TEXTS[1]: shipped(PERSONAL)}
    ids = {name: checkpoint.encode(text)[: args.tokens] for name, text in texts.items()}
    results: dict[str, Any] = {"image_id": image.id, "tokens": args.tokens, "runs": {}}
    if RESULTS.exists():
        kept = json.loads(RESULTS.read_text("utf-8"))
        if (kept["image_id"], kept["tokens"]) == (image.id, args.tokens):
            results = kept
    for text, target, mode, scheme, mapping, seed in plan(args.seeds):
        key = f"{text}/{target}/{mode}/{scheme}/{mapping}/{seed}"
        if key in results["runs"] or (args.only and target not in (*args.only.split(","), DIGITAL, BARE)):
            continue
        results["runs"][key] = run(image, ids[text], target, mode, scheme, mapping, seed)
        RESULTS.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
        RESULTS.with_suffix(".md").write_text(markdown(results), "utf-8")
        print(key, results["runs"][key]["nats"], flush=True)


if __name__ == "__main__":
    main()
