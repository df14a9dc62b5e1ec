"""Results as figures, by matplotlib (extra `report`)."""

from pathlib import Path
from typing import Any

import numpy as np

from edgehmn.errors import CannotWriteError, DependencyError

FORMATS = ("svg", "png")
COLOURS = {"static": "#777777", "online": "#1f6fb4", "frozen": "#c8552b", "cache": "#3a8f4d", "other": "#8a5aa8"}


def plot(results: dict[str, Any], folder: Path) -> list[Path]:
    """One figure for each part that was run, in every format. Raises DependencyError without matplotlib."""
    try:
        import matplotlib

        matplotlib.use("Agg")
    except ImportError as e:
        raise DependencyError("matplotlib is missing, which draws the plots: pip install 'edgehmn[report]'") from e
    from matplotlib import pyplot

    settings: dict[Any, Any] = {
        "svg.hashsalt": "edgehmn",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "font.size": 9,
    }
    settings |= {"legend.frameon": False, "axes.grid": True, "grid.alpha": 0.25, "figure.constrained_layout.use": True}
    paths = []
    with pyplot.rc_context(settings):
        for name, draw in (("p0", _p0), ("p1", _p1), ("p2", _p2), ("p3", _p3)):
            if name not in results or (name == "p0" and "online" not in results[name]):
                continue
            figure = draw(pyplot, results[name])
            for suffix in FORMATS:
                paths.append(folder / f"{name}.{suffix}")
                _save(figure, paths[-1])
            pyplot.close(figure)
    return paths


def _save(figure: Any, path: Path) -> None:
    try:
        figure.savefig(path, dpi=140, metadata={"Date": None} if path.suffix == ".svg" else None)
    except OSError as e:
        raise CannotWriteError(f"{path}: cannot be written ({e.strerror})") from e


def _p0(pyplot: Any, r: dict[str, Any]) -> Any:
    """Gain along the text, and snapshots against the frozen model."""
    figure, (above, below) = pyplot.subplots(2, 1, figsize=(7.5, 5.2), sharex=True)
    curve = r["curve"]
    x = curve["tokens"] * (np.arange(len(curve["static"])) + 0.5) / 1000
    above.plot(x, curve["static"], color=COLOURS["static"], lw=0.8, label="static")
    above.plot(x, curve["online"], color=COLOURS["online"], lw=0.8, label="learning online")
    above.set_ylabel("nats per token")
    above.set_ylim(top=above.get_ylim()[1] + 0.2)
    above.legend(loc="upper right", ncols=2)
    below.axhline(0, color=COLOURS["static"], lw=0.8)
    gain = np.array(curve["online"]) - curve["static"]
    below.plot(x, gain, color=COLOURS["online"], lw=0.6, alpha=0.6, label="online")
    if "frozen" in r:
        for kind, colour in (("following", COLOURS["frozen"]), ("still", COLOURS["other"])):
            f = r["frozen"][kind]
            label = f"frozen snapshot, gains {kind}"
            below.plot(np.array(f["tokens"]) / 1000, f["differences"], "o", ms=3, color=colour, label=label)
    below.set_ylim(bottom=below.get_ylim()[0] - 0.15)  # room for the legend
    below.set_ylabel("less static, nats per token")
    below.set_xlabel(f"thousand tokens of {r['text']}")
    below.legend(loc="lower left", ncols=3)
    return figure


def _p1(pyplot: Any, r: dict[str, Any]) -> Any:
    """Change of perplexity over the others' delta by the number of turns."""
    readings = r["readings"]
    figure, axes = pyplot.subplots(1, len(readings), figsize=(4.2 * len(readings), 3.6), squeeze=False, sharey=True)
    lines = (
        ("frozen", "frozen after n turns", "frozen", "o-"),
        ("others_and_cache", "cache on others' delta", "cache", "s--"),
    )
    for axis, (name, reading) in zip(axes[0], readings.items(), strict=True):
        axis.axhline(0, color=COLOURS["static"], lw=0.8, label="delta of other people")
        for key, label, colour, style in lines:
            n = [e["n"] for e in reading[key]]
            change = np.array([e["change_percent"] for e in reading[key]])
            spread = np.abs(np.array([e["interval_95"] for e in reading[key]]).T - change)
            axis.errorbar(n, change, spread, fmt=style, color=COLOURS[colour], ms=3, lw=1, capsize=2, label=label)
        online = reading["online"]
        axis.axhline(online["change_percent"], color=COLOURS["online"], lw=1, ls=":", label="going on learning")
        what = {"own": "own turns (you)", "chat": "turns of both sides"}[name]
        axis.set_xlabel(f"n, {what}")
        axis.set_title(f"{reading['people']} people, {reading['scored_tokens']:,} tokens", fontsize=9)
        axis.set_xticks(reading["turns"])
    axes[0][0].set_ylabel("change of perplexity, %")
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside upper center", ncols=4, fontsize=8)
    return figure


def _p2(pyplot: Any, r: dict[str, Any]) -> Any:
    """Gain over the frozen model along each sequence, by the number of banks."""
    sequences = r["sequences"]
    figure, axes = pyplot.subplots(len(sequences), 1, figsize=(7.5, 2.4 * len(sequences)), squeeze=False, sharex=True)
    length = r["visit_tokens"]
    for axis, (name, sequence) in zip(axes[:, 0], sequences.items(), strict=True):
        static = np.array(sequence["static"])
        per_window = 4 * length / len(static)
        x = per_window * (np.arange(len(static)) + 0.5) / 1000
        for (banks, s), colour in zip(sequence["banks"].items(), ("frozen", "online"), strict=False):
            gain = (static - s["online"]) / per_window
            label = f"{banks} bank{'s' if banks != '1' else ''}, F = {s['forgetting_nats']:+.3f}"
            axis.plot(x, gain, color=COLOURS[colour], lw=0.9, label=label)
        for visit in range(1, 4):
            axis.axvline(visit * length / 1000, color=COLOURS["static"], lw=0.8, ls=":")
        axis.axhline(0, color=COLOURS["static"], lw=0.8)
        axis.set_title(name.replace("-", ", ") + ("" if sequence["tuned"] else " (untuned)"), fontsize=9)
        axis.set_ylabel("gain, nats per token")
        axis.set_ylim(top=axis.get_ylim()[1] * 1.2)  # room for the legend
        axis.legend(loc="upper left", ncols=2, fontsize=8)
    axes[-1][0].set_xlabel("thousand tokens")
    return figure


def _p3(pyplot: Any, r: dict[str, Any]) -> Any:
    """What predicting costs, what the learned parts add to it, and what learning adds."""
    bars = {"multiply-accumulates": r["macs_per_token"]}
    if r["emulated"] is not None:
        bars["instructions"] = r["emulated"]["instructions_per_token"]
    figure, axis = pyplot.subplots(figsize=(6.5, 1.1 + 0.5 * len(bars)))
    for place, costs in enumerate(bars.values()):
        parts = (costs["static"], costs["predicted"] - costs["static"], costs["learned"] - costs["predicted"])
        left = 0.0
        labels = ("frozen model", "adapters and memories", "learning")
        for part, label, colour in zip(parts, labels, ("static", "online", "frozen"), strict=True):
            share = 100 * part / costs["static"]
            axis.barh(place, share, left=left, color=COLOURS[colour], label=label if place == 0 else None, height=0.6)
            left += share
        axis.text(left + 0.5, place, f"+{left - 100:.1f} %", va="center")
    axis.set_yticks(range(len(bars)), bars)
    axis.set_xlabel("per token, % of the frozen model")
    axis.set_xlim(0, 1.15 * max(100 * c["learned"] / c["static"] for c in bars.values()))
    axis.grid(axis="y", visible=False)
    figure.legend(loc="outside upper center", ncols=3, fontsize=8)
    return figure
