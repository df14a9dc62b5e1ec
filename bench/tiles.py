"""What learning is worth, and costs, when the model lies on simulated memristive tiles.

    python bench/tiles.py --data DIR [--tokens N] [--seeds N] [--only NAME,...]

DIR holds wikitext-2/test.txt; the personal text is the one that ships. Each text is streamed once from an empty
context: static, then learning (each token scored before it is learned), with the same model in the digital core beside
it. What a tile's frozen part makes of a text is computed once for each seed and serves every way of writing, so that
they are compared on equal hidden vectors. Every figure of a tile is simulated. Results land in
bench/results/tiles.json, with --only beside those of the other targets, and the table in tiles.md; a run that was
interrupted goes on. `--tokens 2000` is the short form, without it whole texts.
"""

import argparse
import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import numpy.typing as npt

sys.path.append(str(Path(__file__).resolve().parents[1]))  # it was started as a script

from bench.kept import begun, finish_beside, keep
from edgehmn.checkpoint import REFERENCE, read_checkpoint
from edgehmn.core import CoreModel, Image
from edgehmn.files import read_text
from edgehmn.image import image_of, with_rule
from edgehmn.rules import read_rule
from edgehmn.runtime.protocol import nats
from edgehmn.runtime.tile import EncoderUse, TileRuntime
from edgehmn.streams import FEED, LEARN, HiddenStream, open_head, play
from edgehmn.targets.memristive.mapping import TileSetup
from edgehmn.targets.memristive.presets import preset
from edgehmn.texts import PERSONAL, shipped

RESULTS = Path(__file__).resolve().parent / "results" / "tiles.json"
DIGITAL = "digital"
BARE = "digital without cells"  # dense adapter and rows learn nothing: what no tile holds learns on
STATIC, LEARNING = "static", "learning"
IDEAL = "ideal"
PRESETS = ("hermes", "neurram", "reram-hfo2", "reram-es", IDEAL)
BEST = "verify"
# SCHEME or SCHEME:THRESHOLD, with ", copies" where plastic weights fill their tiles.
COPIES = ("verify:8, copies",)
OTHERS = ("verify:4", "verify:8", *COPIES, "accumulate", "threshold", "noise", "pulse")
HEADING = (
    "tile", "writes", "on tiles", "static ppl", "learning ppl", "gain kept, %", "against digital, %",
    "of the cells' part, %", "µJ/token", "µJ/learned token", "plasticity, % of energy", "pulses/learned token",
    "years to first worn cell",
)  # fmt: skip
TEXTS = ("wikitext-2", "personal")

Ids = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Job:
    """One stream. mapping: "-" for the digital core."""

    text: str
    target: str
    mode: str
    scheme: str
    mapping: str
    seed: int

    @property
    def key(self) -> str:
        return f"{self.text}/{self.target}/{self.mode}/{self.scheme}/{self.mapping}/{self.seed}"


class Encoded:
    """Hidden vectors of each text by each encoder, and what a token of them costs. The last ones are kept."""

    def __init__(self, image: Image, ids: dict[str, Ids]) -> None:
        self.image, self.ids = image, ids
        self.digital = lru_cache(maxsize=2)(self._digital)
        self.tile = lru_cache(maxsize=1)(self._tile)

    def _digital(self, text: str) -> tuple[HiddenStream, EncoderUse]:
        stream = HiddenStream.encode(self.image, self.ids[text])
        model = CoreModel(self.image, plastic=False)
        for token in self.ids[text].tolist():
            model.encode(token)
        return stream, EncoderUse(0.0, model.counts().macs / len(stream))

    def _tile(self, text: str, target: str, seed: int) -> tuple[HiddenStream, EncoderUse]:
        runtime = TileRuntime(self.image, target, TileSetup("encoder"), seed=seed)
        return runtime.encode_stream(self.ids[text]), runtime.encoder_use()


def run(encoded: Encoded, job: Job) -> dict[str, Any]:
    """Nats per token, and for a tile what it cost."""
    began, image = time.perf_counter(), encoded.image
    mode = LEARN if job.mode == LEARNING else FEED
    if job.target in (DIGITAL, BARE):
        stream = encoded.digital(job.text)[0]
        scores = play(open_head(without_cells(image) if job.target == BARE else image, job.seed), stream, mode=mode)
        return {"nats": nats(scores) / len(stream), "tokens": len(stream)}
    on_tiles = job.mapping != "adapters"
    chip = 0 if job.target == IDEAL else job.seed  # all ideal ones are the same
    stream, use = encoded.tile(job.text, job.target, chip) if on_tiles else encoded.digital(job.text)
    name, _, copies = job.scheme.partition(", ")
    name, _, threshold = name.partition(":")
    runtime = TileRuntime(
        image,
        job.target,
        TileSetup(
            job.mapping,
            writes=BEST if job.mode == STATIC else name,
            threshold=float(threshold) if threshold else None,
            fill=bool(copies),
        ),
        seed=job.seed,
    )
    runtime.encoded_by(use)
    scores = play(runtime, stream, mode=mode)
    return {
        "nats": nats(scores) / len(stream),
        "tokens": len(stream),
        "tiles": runtime.tiles,
        "cost": runtime.cost().as_dict(),
        "seconds": round(time.perf_counter() - began, 1),
    }


def without_cells(image: Image) -> Image:
    """The same model whose dense adapter and rows learn nothing."""
    rule = replace(read_rule(image), eta_local=0.0, eta_global=0.0, eta_row=(0.0, 0.0))
    return Image(with_rule(image.bytes.tobytes(), rule))


def plan(seeds: int) -> Iterator[Job]:
    """Every run, the most telling first; those that share hidden vectors follow one another."""
    for text in TEXTS:
        yield Job(text, DIGITAL, STATIC, "-", "-", 0)
        for digital in (DIGITAL, BARE):
            yield from (Job(text, digital, LEARNING, "-", "-", seed) for seed in range(seeds))
    yield from of_chips(PRESETS, range(1))
    yield from of_chips(PRESETS[:1], range(1, seeds))
    yield from (Job(TEXTS[1], PRESETS[0], LEARNING, scheme, "adapters", 0) for scheme in OTHERS)
    yield from of_chips(PRESETS[1:], range(1, seeds))
    for target in PRESETS[1:3]:
        yield from (Job(TEXTS[1], target, LEARNING, scheme, "adapters", 0) for scheme in COPIES)


def of_chips(targets: Sequence[str], seeds: range) -> Iterator[Job]:
    for target in targets:
        for seed in seeds:
            for text in TEXTS:
                yield Job(text, target, STATIC, "-", "encoder", seed)
                yield Job(text, target, LEARNING, BEST, "all", seed)
                if target != IDEAL:
                    yield Job(text, target, LEARNING, BEST, "adapters", seed)


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
    digital_static = of(results, text, DIGITAL, STATIC, "-", "-")
    digital = of(results, text, DIGITAL, LEARNING, "-", "-")
    bare = of(results, text, BARE, LEARNING, "-", "-")
    static = digital_static if mapping == "adapters" else of(results, text, target, STATIC, "-", "encoder")
    if not (learning and static and digital and digital_static and bare):
        return None
    before, start = (mean(r["nats"] for r in runs) for runs in (static, digital_static))
    gain = start - mean(r["nats"] for r in digital)
    without = mean(r["nats"] for r in bare)
    part = without - mean(r["nats"] for r in digital)
    kept = [100 * (before - r["nats"]) / gain for r in learning]
    against = [100 * (start - r["nats"]) / gain for r in learning]
    own = [100 * (without - r["nats"]) / part for r in learning]
    cost = [r["cost"] for r in learning]

    def average(key: str) -> float:
        return mean(math.inf if c[key] is None else c[key] for c in cost)

    return [
        target, scheme, mapping,
        f"{np.exp(before):.2f}", f"{np.exp(mean(r['nats'] for r in learning)):.2f}", spread(kept, ".0f"),
        spread(against, ".0f"), spread(own, ".0f") if mapping == "adapters" else "-",
        f"{average('energy_nj_per_token') / 1e3:.2f}", f"{average('energy_nj_per_learned_token') / 1e3:.2f}",
        f"{100 * average('plasticity_share_of_energy'):.1f}", f"{average('pulses_per_learned_token'):,.0f}",
        f"{average('years_to_first_worn_cell'):.1f}",
    ]  # fmt: skip


INTRODUCTION = """\
# The model on memristive tiles (simulated)

Simulated, not measured; energies calibrated to HERMES (ideal: one-phase, hermes: four-phase) or summed
from parts (the others). Perplexity per token, streamed once; mean ± deviation over seeds.
Gain kept: nats per token that learning gains over the same tiles without it, in per cent of what it gains in the
digital core (`adapters`: the encoder stays digital, and the gain is over the digital static model). Against digital:
the same from the digital static model on, so that what tiles lose before anything is learned counts too. Most of the
gain comes from memories that stay digital (words, biases, episodes, gains). The cells' part is what the dense adapter
and the rows add to those in the digital core, and how much of that is kept.
`verify`: the integers wait in digital memory, and a cell is set by write-verify when they have moved by 6 steps
(`verify:8`: by 8; `copies`: into every copy of the weight that its tile has room for). Years: until the first cell has
had the pulses that it bears, at 20,000 learned tokens a day."""


def markdown(results: dict[str, Any]) -> str:
    """The tables."""
    lines = [INTRODUCTION]
    for text in TEXTS:
        digital = of(results, text, DIGITAL, LEARNING, "-", "-")
        static = of(results, text, DIGITAL, STATIC, "-", "-")
        bare = of(results, text, BARE, LEARNING, "-", "-")
        if not digital or not static or not bare:
            continue
        lines += ["", f"## {text}, {digital[0]['tokens']:,} tokens", ""]
        before, after, without = np.exp([mean(r["nats"] for r in runs) for runs in (static, digital, bare)])
        lines.append(
            f"Digital int8: static {before:.2f}, learning {after:.2f}, learning without dense adapter and rows "
            f"{without:.2f}."
        )
        lines += ["", "| " + " | ".join(HEADING) + " |", "|" + " --- |" * len(HEADING)]
        for mapping in ("all", "adapters"):
            for scheme in (BEST, *OTHERS):
                for target in PRESETS:
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
    only = args.only.split(",") if args.only else []
    for name in only:
        preset(name)
    checkpoint = read_checkpoint(REFERENCE)
    image = Image(image_of(checkpoint))
    texts = {TEXTS[0]: read_text(args.data / "wikitext-2" / "test.txt"), TEXTS[1]: shipped(PERSONAL)}
    encoded = Encoded(image, {name: checkpoint.encode(text)[: args.tokens] for name, text in texts.items()})
    key = {"image_id": image.id, "tokens": args.tokens}
    results = {"runs": {}} | begun(RESULTS, key)
    for job in plan(args.seeds):
        if job.key in results["runs"] or (only and job.target not in (*only, DIGITAL, BARE)):
            continue
        results["runs"][job.key] = run(encoded, job)
        keep(RESULTS, results)
        print(job.key, results["runs"][job.key]["nats"], flush=True)
    RESULTS.with_suffix(".md").write_text(markdown(finish_beside(RESULTS, key, results, "runs")), "utf-8")


if __name__ == "__main__":
    main()
