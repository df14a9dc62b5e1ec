"""A profile as text with bars, as CSV, and as Markdown."""

import csv
import io
import math
from typing import Any

from edgehmn.report.result import Result, grouped_layers
from edgehmn.report.tiles import HEADER, tile_rows, tile_text

BAR = 24  # characters
CSV_BEGIN = "target,layer,kind,tier,macs,weight_bytes"
MARKDOWN_BEGIN = "# Profile of "


def figure(value: float) -> str:
    """Three digits that count."""
    if not math.isfinite(value):
        return "-"
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{digits}f}" if abs(value) >= 1e-6 else f"{value:.2e}"


def with_interval(target: Result, key: str) -> str:
    if key not in target:
        return "-"
    low, high = target["interval_90"][key]
    return f"{figure(target[key])} [{figure(low)}, {figure(high)}]"


def share(target: Result, part: str = "plasticity") -> str:
    """Of the energy of a learned token; part: "plasticity" or "adapters"."""
    key = f"{part}_share_of_energy"
    if key not in target:
        return "-"
    low, high = target["interval_90"][key]
    return f"{100 * target[key]:.1f} [{100 * low:.1f}, {100 * high:.1f}] %"


def fit(target: Result) -> str:
    memory = target["memory"]
    if "tile" in target:
        return memory["weights_in"] if memory["fits"] else f"more than a chip has: {memory['weights_in']}"
    if memory["fits"]:
        return f"weights in {memory['weights_in']}"
    missing = []
    if memory["weights_in"] is None:
        missing.append(f"flash {memory['flash_need_bytes']:,} of {memory['flash_have_bytes']:,}")
    if memory["ram_need_bytes"] > memory["ram_have_bytes"]:
        missing.append(f"RAM {memory['ram_need_bytes']:,} of {memory['ram_have_bytes']:,}")
    return "does not fit: " + "; ".join(missing)


def lifetime(days: float) -> str:
    if not math.isfinite(days):
        return "-"
    return f"{figure(days / 365)} years" if days > 730 else f"{figure(days)} days"


def battery(target: Result) -> str:
    return "a day is too short" if math.isinf(target["energy_j_per_day"]) else lifetime(target["battery_days"])


def rows(result: Result) -> tuple[list[str], list[list[str]]]:
    """Header and cells of the table of targets."""
    per = result["per"]
    header = ["target", "tier", f"ms per {per}", f"mJ per {per}"]
    learns = "learning" in result
    if learns:
        header += ["ms per learned token", "mJ per learned token", "plasticity's share"]
    header += ["J per day", "battery", "memory"]
    cells = []
    for t in result["targets"]:
        line = [
            t["name"],
            t["tier"],
            with_interval(t, f"latency_ms_per_{per}"),
            with_interval(t, f"energy_mj_per_{per}"),
        ]
        if learns:
            line += [with_interval(t, "latency_ms_per_learned_token"), with_interval(t, "energy_mj_per_learned_token")]
            line.append(share(t))
        cells.append([*line, figure(t["energy_j_per_day"]), battery(t), fit(t)])
    return header, cells


def bar(value: float, most: float, width: int = BAR) -> str:
    eighths = round(8 * width * value / most) if most > 0 else 0
    return "█" * (eighths // 8) + ("", "▏", "▎", "▍", "▌", "▋", "▊", "▉")[eighths % 8]


def as_text(result: Result) -> str:
    parts = [
        f"{result['name']}: {result['macs']:,} multiply-accumulates per {result['per']}, "
        f"{result['weight_bytes']:,} bytes of weights",
        *(_target_text(t, result) for t in result["targets"]),
        _layers_text(result),
    ]
    if len(result["targets"]) > 1:
        parts.append(_comparison(result))
    return "\n\n".join(part for part in parts if part)


def _target_text(t: Result, result: Result) -> str:
    per, use = result["per"], result["use"]
    tile = "tile" in t
    lines = [
        f"{t['name']}  {t['title']}",
        f"  estimated, tier: {t['tier']}; runtime: {t['runtime']}; in [ ]: 90 % interval",
    ]
    pairs = [(f"per {per}", f"latency_ms_per_{per}", f"energy_mj_per_{per}")]
    pairs.append(("per learned token", "latency_ms_per_learned_token", "energy_mj_per_learned_token"))
    for label, time, energy in pairs:
        if time in t:
            lines.append(f"  {label:<18} {with_interval(t, time)} ms   {with_interval(t, energy)} mJ")
    if not tile:
        lines.append(
            f"  {'of the energy':<18} idle {figure(t[f'idle_energy_mj_per_{per}'])} mJ, active "
            f"{figure(t[f'active_energy_mj_per_{per}'])} mJ; asleep {figure(t['sleep_energy_j_per_day'])} J a day"
        )
    if "plasticity_share_of_energy" in t:
        adapters = f"; adapters and memories {share(t, 'adapters')}" if "adapters_share_of_energy" in t else ""
        lines.append(f"  {'plasticity':<18} {share(t)} of the energy of a learned token{adapters}")
    learned = f", {use['learned_per_day']:,.0f} of them learned" if "plasticity_share_of_energy" in t else ""
    lines.append(
        f"  {'a day':<18} {figure(t['energy_j_per_day'])} J for {use['per_day']:,.0f}{learned}; "
        + ("no idle power is known" if tile else f"{battery(t)} from {use['battery_wh']:g} Wh")
    )
    lines.append(tile_text(t) if tile else f"  {'memory':<18} {_memory(t)}; {fit(t)}")
    for p in t["published"]:
        energy = f", {p['energy_mj']} mJ" if p["energy_mj"] else ""
        lines.append(f"  {'published':<18} {p['latency_ms']} ms{energy}: {p['runtime']}, {p['workload']}")
    lines += [f"  {'source':<18} {s}" for s in t["sources"]]
    return "\n".join(lines)


def _memory(t: Result) -> str:
    m = t["memory"]
    return (
        f"flash {m['flash_need_bytes']:,} of {m['flash_have_bytes']:,} bytes, "
        f"RAM {m['ram_need_bytes']:,} of {m['ram_have_bytes']:,}"
    )


def _layers_text(result: Result) -> str:
    layers = grouped_layers(result)
    if not layers:
        return ""
    first = result["targets"][0]["name"]
    most = max(layer["ms"][first] for layer in layers)
    width = max(len(layer["name"]) for layer in layers)
    lines = [f"layers on {first}, longest first"]
    for layer in layers:
        ms = layer["ms"][first]
        name = f"{layer['name']:<{width}}  {layer['kind']:<10}"
        lines.append(f"  {name} {layer['macs']:>13,}  {figure(ms):>9} ms  {bar(ms, most)}".rstrip())
    return "\n".join(lines)


def _comparison(result: Result) -> str:
    """Bars over the targets, on a logarithmic scale: a thousandth of the longest is no bar."""
    per = result["per"]
    lines = []
    for key, unit in ((f"latency_ms_per_{per}", "ms"), (f"energy_mj_per_{per}", "mJ")):
        most = max(t[key] for t in result["targets"])
        width = max(len(t["name"]) for t in result["targets"])
        lines.append(f"{unit} per {per}, logarithmic")
        for t in result["targets"]:
            length = max(0.0, 1 + math.log10(max(t[key] / most, 1e-9)) / 3)
            lines.append(f"  {t['name']:<{width}} {figure(t[key]):>9}  {bar(length, 1)}".rstrip())
    return "\n".join(lines)


def overview(results: list[Result]) -> str:
    """One line for each model on each target, the published figures beside."""
    lines = [["model", "target", "MAC", "weights", "ms", "published ms"]]
    for r in results:
        for t in r["targets"]:
            known = [p["latency_ms"] for p in t["published"]]
            beside = f"{figure(min(known))} to {figure(max(known))}, {len(known)} rows" if known else ""
            ms = with_interval(t, f"latency_ms_per_{r['per']}")
            lines.append([r["name"], t["name"], f"{r['macs']:,}", f"{r['weight_bytes']:,}", ms, beside])
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def as_csv(result: Result) -> str:
    """A line for each target in total, then one for each layer on each target; units in the header."""
    per = result["per"]
    columns = [*CSV_BEGIN.split(","), f"latency_ms_per_{per}"]
    columns += [f"latency_ms_per_{per}_low", f"latency_ms_per_{per}_high"]
    keys = (
        f"energy_mj_per_{per}",
        "latency_ms_per_learned_token",
        "energy_mj_per_learned_token",
        "plasticity_share_of_energy",
        "adapters_share_of_energy",
    )
    columns += [k + end for k in keys for end in ("", "_low", "_high")]
    columns += ["energy_j_per_day", "battery_days", "fits"]
    cells = ("adc_share_of_energy", "pulses_per_learned_token", "years_to_first_worn_cell")
    columns += cells if any("tile" in t for t in result["targets"]) else ()
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    for t in result["targets"]:
        line: list[Any] = [t["name"], "", "", t["tier"], result["macs"], result["weight_bytes"]]
        for key in (f"latency_ms_per_{per}", *keys):
            line += [t[key], *t["interval_90"][key]] if key in t else ["", "", ""]
        line += [t["energy_j_per_day"], t["battery_days"], t["memory"]["fits"]]
        line += [t["tile"][k] for k in cells] if "tile" in t else []
        writer.writerow([_guarded(v) for v in line + [""] * (len(columns) - len(line))])
    for layer in result["layers"]:
        for name, ms in layer["ms"].items():
            line = [name, layer["name"], layer["kind"], "", layer["macs"], layer["weight_bytes"], ms]
            writer.writerow([_guarded(v) for v in line + [""] * (len(columns) - len(line))])
    return out.getvalue()


def _guarded(value: Any) -> Any:
    """A text that a spreadsheet would take for a formula, as text; nothing for a figure that nobody knows."""
    if isinstance(value, float) and not math.isfinite(value):
        return ""
    return "'" + value if isinstance(value, str) and value[:1] in ("=", "+", "-", "@") else value


def as_markdown(result: Result) -> str:
    header, cells = rows(result)
    lines = [
        f"{MARKDOWN_BEGIN}{_cell(result['name'])}", "",
        f"{result['macs']:,} multiply-accumulates per {result['per']}, {result['weight_bytes']:,} bytes of weights. "
        "Figures are estimates; in brackets the 90 % interval.", "",
        "| " + " | ".join(header) + " |", "|" + "---|" * len(header),
        *("| " + " | ".join(_cell(c) for c in line) + " |" for line in cells),
    ]  # fmt: skip
    tiles = tile_rows(result)
    if tiles:
        lines += ["", "| " + " | ".join(HEADER) + " |", "|" + "---|" * len(HEADER)]
        lines += ["| " + " | ".join(line) + " |" for line in tiles]
    names = [t["name"] for t in result["targets"]]
    lines += ["", "| layer | class | multiply-accumulates | " + " | ".join(f"ms, {n}" for n in names) + " |"]
    lines.append("|" + "---|" * (3 + len(names)))
    for layer in grouped_layers(result, 60):
        ms = " | ".join(figure(layer["ms"][n]) for n in names)
        lines.append(f"| {_cell(layer['name'])} | {layer['kind']} | {layer['macs']:,} | {ms} |")
    for t in result["targets"]:
        lines += [
            "",
            f"Sources of {t['name']} ({t['tier']}, {t['runtime']}):",
            "",
            *(f"- {_cell(s)}" for s in t["sources"]),
        ]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
