"""P0 on simulated memristive tiles: what of the gain is kept there, and what it costs.

A seed is another chip: its devices are drawn anew. What its frozen part makes of the text is computed once, for the
static scores and for those while learning. The digital core stands beside it. Several chips run at once, each in a
process of its own.
"""

import multiprocessing
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from statistics import mean
from typing import Any

from edgehmn.core import CoreModel, Image
from edgehmn.errors import UsageError
from edgehmn.evaluate import Progress, no_progress
from edgehmn.evaluation.p0 import figures_of, online_part, summary
from edgehmn.evaluation.run import Run
from edgehmn.evaluation.statistics import share_of_gain
from edgehmn.runtime.select import DEFAULT_TILE
from edgehmn.runtime.tile import EncoderUse, TileRuntime
from edgehmn.streams import FEED, LEARN, HiddenStream, Ids, in_nats, open_head, play
from edgehmn.targets.memristive.mapping import TileSetup

NOT_MEANS = ("calibrated_to", "tokens_per_day")
PART = "p0-tile"


def p0_tiles(run: Run, name: str, text: str, ids: Ids, settings: dict[str, Any]) -> dict[str, Any]:
    """As p0, but that the static scores are a mean over seeds too; and the cost, and how much of the digital gain is
    kept."""
    o = run.options
    setup = o.tiles or TileSetup()
    if o.static_only and setup.mapping == "adapters":
        raise UsageError("--static-only: with --mapping adapters nothing lies on tiles before it is learned")
    target = setup.of(o.target or DEFAULT_TILE).name
    asked = {"target": target, **asdict(setup), "static_only": o.static_only}
    settings = settings | asked
    chips = Chips(run.export.image.bytes.tobytes(), ids, target, setup, o.static_only)
    missing = [i for i in range(o.seeds) if not run.store.has(f"{PART}-{i}", settings | {"seed": i})]
    with (
        run.progress_bar("p0", (2 if o.static_only else 3) * len(ids) * len(missing)) as progress,
        _at_once(chips, missing, o.jobs, progress) as part,
    ):
        parts = run.per_seed(PART, settings, part)
    totals = {key: mean(p[key] for p in parts) for key in parts[0] if key.endswith("nats")}
    figures = {key: figures_of(total, ids, text) for key, total in totals.items()}
    result: dict[str, Any] = {
        "text": name, "tokens": len(ids), "runtime": "tile", **asked,
        "static": figures["static_nats"], "digital": {"static": figures["digital_static_nats"]},
        "tile": _mean_cost([p["cost"] for p in parts]),
    }  # fmt: skip
    if o.static_only:
        return result
    start, end = totals["digital_static_nats"], totals["digital_nats"]
    result["digital"]["online"] = figures["digital_nats"]
    n, whole = len(ids), (start - end) / len(ids)
    result["gain_kept"] = [share_of_gain((p["static_nats"] - p["nats"]) / n, whole) for p in parts]
    result["gain_against_digital"] = [share_of_gain((start - p["nats"]) / n, whole) for p in parts]
    return result | summary(parts, len(ids), lambda total: figures_of(total, ids, text))


_chips: "Chips"  # of a process of the pool. With each seed they would fill its pipe, in which an interrupt then waits.


def _begin(chips: "Chips") -> None:
    global _chips
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal comes to all of them
    _chips = chips


def _part(seed: int) -> dict[str, Any]:
    return _chips.part(seed)


@contextmanager
def _at_once(
    chips: "Chips", seeds: list[int], jobs: int, progress: Progress
) -> Iterator[Callable[[int], dict[str, Any]]]:
    """What gives the part of a seed, of those named, while as many processes as asked for compute the next ones. When
    this is interrupted they end, too."""
    if min(jobs, len(seeds)) < 2:
        yield lambda seed: chips.part(seed, progress)
        return
    others, context = set(multiprocessing.active_children()), multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(jobs, len(seeds)), context, _begin, (chips,)) as pool:
        running = {seed: pool.submit(_part, seed) for seed in seeds}

        def part(seed: int) -> dict[str, Any]:
            found = running[seed].result()
            progress((2 if chips.static_only else 3) * len(chips.ids))
            return found

        try:
            yield part
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in set(multiprocessing.active_children()) - others:
                process.terminate()
            raise


@dataclass(frozen=True)
class Chips:
    """What any chip with an image is asked to do with a text."""

    image: bytes
    ids: Ids
    target: str
    setup: TileSetup
    static_only: bool

    def part(self, seed: int, progress: Progress = no_progress) -> dict[str, Any]:
        """Of one chip: total nats, the online part of p0, and the cost of the last run."""
        image = Image(self.image)
        digital, use = self._digital(image)
        stream, still = digital, digital.static
        frozen = self._open(image, "encoder", seed)
        if self.setup.mapping != "adapters":
            encoder = self._open(image, "encoder", seed)
            stream, use = encoder.encode_stream(self.ids, progress), encoder.encoder_use()
            frozen.encoded_by(use)
            still = play(frozen, stream, mode=FEED, progress=progress)
        part = {
            "static_nats": float(in_nats(still).sum()), "digital_static_nats": float(in_nats(digital.static).sum())
        }  # fmt: skip
        if self.static_only:
            return part | {"cost": frozen.cost().as_dict()}
        learner = self._open(image, self.setup.mapping, seed)
        learner.encoded_by(use)
        scores = play(learner, stream, mode=LEARN, progress=progress)
        beside = in_nats(play(open_head(image, seed), digital)).sum()
        return part | online_part(still, scores) | {"digital_nats": float(beside), "cost": learner.cost().as_dict()}

    def _open(self, image: Image, mapping: str, seed: int) -> TileRuntime:
        return TileRuntime(image, self.target, replace(self.setup, mapping=mapping), seed=seed)

    def _digital(self, image: Image) -> tuple[HiddenStream, EncoderUse]:
        """Hidden vectors of the digital encoder, and what a token takes there."""
        stream = HiddenStream.encode(image, self.ids)
        model = CoreModel(image, plastic=False)
        for token in self.ids[: 2 * int(image.header.n_ctx)].tolist():
            model.encode(token)
        return stream, EncoderUse(0.0, model.counts().macs / max(1, model.counts().steps))


def _mean_cost(costs: list[dict[str, Any]]) -> dict[str, Any]:
    """Over chips; what is None, since it never ends, stays so."""
    first = dict(costs[0])
    for key in first:
        if key not in NOT_MEANS and first[key] is not None:
            first[key] = mean(c[key] for c in costs)
    return first
