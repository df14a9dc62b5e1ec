"""Gain against cost: our rule beside the baselines, on the first 100,000 tokens of WikiText-2 test.

    python bench/baselines/plot.py

Reads bench/results/baselines.json and learning.json and draws bench/results/baselines.svg: nats per token below the
static model against the multiply-accumulates added, the area of a point being the bytes of its state.
"""

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parents[1] / "results"
TEXT = "wikitext2-test-100000"
TOKENS = 100_000
OURS = "the rule, int8 C core"
NEAR = 0.02  # nats
LINEAR_BELOW = 1.0  # per cent: the axis of costs is logarithmic beyond
BYTES_OF_A_POINT = 20_000.0  # of state for each square point of area


def points() -> dict[str, tuple[float, float, float]]:
    """By method: MACs added in per cent, nats per token gained over static, bytes of state."""
    methods: dict[str, Any] = json.loads((RESULTS / "baselines.json").read_text("utf-8"))["methods"]
    final = {name: entry["final"][TEXT] for name, entry in methods.items() if TEXT in entry.get("final", {})}
    static = final.pop("static")["nats_per_token"]
    out = {
        name: (f["macs_added_percent"], static - f["nats_per_token"], float(f["state_bytes"]))
        for name, f in final.items()
    }
    ours: dict[str, Any] = json.loads((RESULTS / "learning.json").read_text("utf-8"))
    curve = ours["p0"]["curve"]
    windows = TOKENS // curve["tokens"]
    gains = [a - b for a, b in zip(curve["static"][:windows], curve["online"][:windows], strict=True)]
    out[OURS] = (ours["p3"]["macs_added_percent"], sum(gains) / windows, float(ours["p3"]["bytes"]["delta"]))
    return out


def main() -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    matplotlib.rcParams["svg.hashsalt"] = "edgehmn"
    figure, axes = pyplot.subplots(figsize=(7.5, 4.4), constrained_layout=True)
    axes.set_xscale("symlog", linthresh=LINEAR_BELOW)
    found = points()
    for name, (cost, gain, size) in sorted(found.items(), key=lambda item: -item[1][2]):
        colour = "#c8552b" if name == OURS else "#1f6fb4"
        axes.scatter(cost, gain, s=12 + size / BYTES_OF_A_POINT, color=colour, alpha=0.6, lw=0)
        crowded = any(0 < g - gain < NEAR and abs(c - cost) < 1 for c, g, _ in found.values())
        place = (0, -15) if crowded else (0, 8)  # below the point where another label is just above
        axes.annotate(name, (cost, gain), xytext=place, textcoords="offset points", ha="center", fontsize=7)
    axes.set_xlabel("multiply-accumulates added, %")
    axes.set_ylabel("nats per token below static")
    axes.set_ylim(0, 0.31)
    axes.set_xlim(-0.4, 600)
    axes.grid(alpha=0.25)
    figure.savefig(RESULTS / "baselines.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
