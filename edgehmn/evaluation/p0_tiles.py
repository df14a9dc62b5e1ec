"""P0 on simulated memristive tiles: what of the gain is kept there, and what it costs.

A seed is another chip: its devices are drawn anew. What its frozen part makes of the text is computed once, for the
static scores and for those while learning. The digital core stands beside it.
"""

from dataclasses import asdict, replace
from functools import lru_cache
from statistics import mean
from typing import Any

from edgehmn.core import CoreModel
from edgehmn.evaluate import Progress, no_progress
from edgehmn.evaluation.p0 import figures_of, online_part, summary
from edgehmn.evaluation.run import Run
from edgehmn.runtime.select import DEFAULT_TILE
from edgehmn.runtime.tile import EncoderUse, TileRuntime
from edgehmn.streams import FEED, LEARN, HiddenStream, Ids, in_nats, open_head, play
from edgehmn.targets.memristive.setup import TileSetup

NOT_MEANS = ("calibrated_to", "tokens_per_day")


def p0_tiles(run: Run, name: str, text: str, ids: Ids, settings: dict[str, Any]) -> dict[str, Any]:
    """As p0, but that the static scores are a mean over seeds too; and the cost, and how much of the digital gain is
    kept."""
    o = run.options
    setup = o.tiles or TileSetup()
    target = setup.of(o.target or DEFAULT_TILE).name
    asked = {"target": target, **asdict(setup), "static_only": o.static_only}
    settings = settings | asked
    passes = 2 if o.static_only else 3
    with run.progress_bar("p0", passes * len(ids) * run.missing("p0-tile", settings)) as progress:
        chips = _Chips(run, ids, target, setup, progress)
        parts = run.per_seed("p0-tile", settings, chips.part)
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
    result["gain_kept"] = [(p["static_nats"] - p["nats"]) / (start - end) for p in parts]
    result["gain_against_digital"] = [(start - p["nats"]) / (start - end) for p in parts]
    return result | summary(parts, len(ids), lambda total: figures_of(total, ids, text))


class _Chips:
    """What each chip makes of a text."""

    def __init__(self, run: Run, ids: Ids, target: str, setup: TileSetup, progress: Progress) -> None:
        self.run, self.ids, self.target, self.setup, self.progress = run, ids, target, setup, progress
        self._digital = lru_cache(maxsize=1)(self._encode_digital)

    def part(self, seed: int) -> dict[str, Any]:
        """Of one chip: total nats, the online part of p0, and the cost of the last run."""
        image, static_only = self.run.export.image, self.run.options.static_only
        digital, use = self._digital()
        stream, still = digital, digital.static
        if self.setup.mapping != "adapters":
            encoder = self._open("encoder", seed)
            stream, use = encoder.encode_stream(self.ids, self.progress), encoder.encoder_use()
            frozen = self._open("encoder", seed)
            frozen.encoded_by(use)
            still = play(frozen, stream, mode=FEED, progress=self.progress)
        part = {
            "static_nats": float(in_nats(still).sum()), "digital_static_nats": float(in_nats(digital.static).sum())
        }  # fmt: skip
        if static_only:
            runtime = self._open("encoder", seed) if self.setup.mapping == "adapters" else frozen
            return part | {"cost": runtime.cost().as_dict()}
        learner = self._open(self.setup.mapping, seed)
        learner.encoded_by(use)
        scores = play(learner, stream, mode=LEARN, progress=self.progress)
        beside = in_nats(play(open_head(image, seed), digital)).sum()
        return part | online_part(still, scores) | {"digital_nats": float(beside), "cost": learner.cost().as_dict()}

    def _open(self, mapping: str, seed: int) -> TileRuntime:
        return TileRuntime(self.run.export.image, self.target, replace(self.setup, mapping=mapping), seed=seed)

    def _encode_digital(self) -> tuple[HiddenStream, EncoderUse]:
        image = self.run.export.image
        stream = HiddenStream.encode(image, self.ids, no_progress)
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
