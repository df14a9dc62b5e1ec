"""A profile as one HTML page that holds everything it shows: no script, nothing is loaded."""

import math
from html import escape

from edgehmn.report.result import Result, grouped_layers
from edgehmn.report.text import figure, rows, share
from edgehmn.report.tiles import HEADER, tile_rows

STYLE = """
:root{color-scheme:light dark;--back:#fff;--ink:#1c1f23;--faint:#5b636d;--line:#d9dde2;--soft:#f3f5f7;--blue:#1f6fb4;
--orange:#b8501f;--grey:#8a929b}
@media(prefers-color-scheme:dark){:root{--back:#15181c;--ink:#e6e9ec;--faint:#a2abb5;--line:#353b43;--soft:#1e2329;
--blue:#5aa9e6;--orange:#f0955f;--grey:#7d8792}}
*{box-sizing:border-box}
body{margin:0 auto;padding:1.2rem;max-width:76rem;background:var(--back);color:var(--ink);
font:15px/1.45 system-ui,sans-serif}
h1{font-size:1.4rem;margin:.2rem 0}h2{font-size:1.1rem;margin:2rem 0 .5rem}
p{margin:.3rem 0;color:var(--faint)}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums;font-size:.9rem}
th,td{text-align:right;padding:.35rem .4rem;border-bottom:1px solid var(--line);white-space:nowrap}
th:first-child,td:first-child{text-align:left}
th{font-weight:600;color:var(--faint)}
.wide{font-size:.85rem}.wide th,.wide td+td{white-space:normal}
.bad{color:var(--orange)}
svg{display:block;width:100%;height:auto;max-width:28rem}
svg text{fill:var(--ink);stroke:var(--back);stroke-width:3px;paint-order:stroke;font:13px system-ui,sans-serif}
svg .faint{fill:var(--faint)}
.b{fill:var(--blue)}.o{fill:var(--orange)}.g{fill:var(--grey)}.w{stroke:var(--ink);stroke-width:1.5;opacity:.65}
.grid{stroke:var(--line)}
details{margin:.4rem 0;background:var(--soft);padding:.4rem .8rem;border-radius:.4rem}
summary{cursor:pointer}ul{margin:.4rem 0;padding-left:1.2rem;color:var(--faint);font-size:.9rem;overflow-wrap:anywhere}
@media(max-width:40rem){body{padding:.8rem;font-size:14px}
.wide thead{display:none}.wide,.wide tbody,.wide tr,.wide td{display:block;text-align:left;border:0;white-space:normal}
.wide tr{border-bottom:1px solid var(--line);padding:.5rem 0}.wide td{padding:.1rem 0}
.wide td::before{content:attr(data-of) ": ";color:var(--faint)}
.wide td:first-child{font-weight:600}.wide td:first-child::before{content:""}}
"""
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"  # nothing may be loaded
BEGIN = (
    '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width,initial-scale=1">'
    f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
)
# Coordinates of the plots: wide enough for a name above each bar, so that a phone shows them readably.
WIDTH, ROW, LEFT = 360, 34, 4
MOST_LABELS = 5  # of decades that are labelled each: more and they would touch


def as_html(result: Result) -> str:
    per = result["per"]
    body = [
        f"<h1>Profile of {escape(result['name'])}</h1>",
        f"<p>{result['macs']:,} multiply-accumulates per {per}, {result['weight_bytes']:,} bytes of weights. "
        "All figures are estimates, not measurements; in brackets, and as thin lines in the plots, the 90&nbsp;% "
        "interval. The first two plots are logarithmic.</p>",
        "<h2>Targets</h2>", _table(result),
        f"<h2>Milliseconds per {per}</h2>", _bars(result, f"latency_ms_per_{per}", "b"),
        f"<h2>Millijoules per {per}</h2>", _bars(result, f"energy_mj_per_{per}", "o"),
    ]  # fmt: skip
    if "learning" in result:
        body += [
            "<h2>Plasticity's share of the energy of a learned token</h2>",
            "<p>Pale: what adapters and memories add to a prediction, whether the device goes on learning or not.</p>",
            _shares(result),
        ]
    if any("tile" in t for t in result["targets"]):
        body += ["<h2>Simulated memristive tiles</h2>", _tiles(result)]
    body += [
        "<h2>Memory</h2>",
        _memory(result),
        "<h2>Layers</h2>",
        _layers(result),
        "<h2>Where the figures come from</h2>",
    ]
    for t in result["targets"]:
        items = "".join(f"<li>{escape(s)}</li>" for s in (*t["sources"], *_published(t)))
        head = f"{escape(t['title'])}: {escape(t['tier'])}, {escape(t['runtime'])}"
        body.append(f"<details><summary>{head}</summary><ul>{items}</ul></details>")
    return (
        f'{BEGIN}<link rel="icon" href="data:,">'
        f"<title>Profile of {escape(result['name'])}</title><style>{STYLE}</style></head><body>\n"
        + "\n".join(body) + "\n</body></html>\n"
    )  # fmt: skip


def _published(t: Result) -> list[str]:
    return [f"published: {p['latency_ms']} ms, {p['workload']}, {p['runtime']}" for p in t["published"]]


def _table(result: Result) -> str:
    header, cells = rows(result)
    head = "".join(f"<th>{escape(h)}</th>" for h in header)
    lines = []
    for line, t in zip(cells, result["targets"], strict=True):
        bad = "" if t["memory"]["fits"] else ' class="bad"'
        data = "".join(
            f'<td data-of="{escape(h)}"{bad if i == len(line) - 1 else ""}>{_cell(c)}</td>'
            for i, (h, c) in enumerate(zip(header, line, strict=True))
        )
        lines.append(f"<tr>{data}</tr>")
    return _scrolling(f'<table class="wide"><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table>')


def _cell(text: str) -> str:
    """An interval stays on one line."""
    head, bracket, interval = escape(text).partition("[")
    return head + bracket + interval.replace(" ", "&nbsp;")


def _scrolling(table: str) -> str:
    return f'<div class="scroll">{table}</div>'


def _svg(n: int, content: str, label: str) -> str:
    height = n * ROW + 22
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(label)}">{content}</svg>'


def _bars(result: Result, key: str, colour: str) -> str:
    """Bars with their intervals, on a logarithmic scale."""
    targets = result["targets"]
    low = 10 ** math.floor(math.log10(min(t["interval_90"][key][0] for t in targets)))
    high = 10 ** math.ceil(math.log10(max(t["interval_90"][key][1] for t in targets)))
    high = max(high, 10 * low)

    def x(value: float) -> float:
        return LEFT + (WIDTH - 2 * LEFT - 10) * math.log(max(value, low) / low) / math.log(high / low)

    bottom = len(targets) * ROW + 4
    out = []
    first, last = round(math.log10(low)), round(math.log10(high))
    every = 1 + (last - first) // (MOST_LABELS + 1)
    for power in range(first, last + 1):
        at = x(10.0**power)
        out.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="0" y2="{bottom}"/>')
        if (power - first) % every:
            continue
        anchor = "start" if at < 20 else "end" if at > WIDTH - 30 else "middle"
        out.append(f'<text class="faint" x="{at:.1f}" y="{bottom + 14}" text-anchor="{anchor}">{10.0**power:g}</text>')
    for i, t in enumerate(targets):
        y = i * ROW
        a, b = (x(v) for v in t["interval_90"][key])
        out.append(f'<text x="{LEFT}" y="{y + 14}">{escape(t["name"])}</text>')
        out.append(f'<text class="faint" x="{WIDTH - 6}" y="{y + 14}" text-anchor="end">{figure(t[key])}</text>')
        out.append(f'<rect class="{colour}" x="{LEFT}" y="{y + 19}" width="{x(t[key]) - LEFT:.1f}" height="9" rx="2"/>')
        out.append(f'<line class="w" x1="{a:.1f}" x2="{b:.1f}" y1="{y + 23.5}" y2="{y + 23.5}"/>')
    return _svg(len(targets), "".join(out), key)


def _shares(result: Result) -> str:
    key, pale = "plasticity_share_of_energy", "adapters_share_of_energy"
    targets = [t for t in result["targets"] if key in t]
    most = max([0.12, *(max(t["interval_90"][key][1], t[key] + t.get(pale, 0.0)) for t in targets)])
    scale = (WIDTH - 2 * LEFT) / most
    limit = LEFT + 0.1 * scale
    bottom = len(targets) * ROW + 4
    out = [f'<line class="w" stroke-dasharray="4 3" x1="{limit:.1f}" x2="{limit:.1f}" y1="0" y2="{bottom}"/>']
    out.append(f'<text class="faint" x="{limit:.1f}" y="{bottom + 14}" text-anchor="end">10 %</text>')
    for i, t in enumerate(targets):
        y = i * ROW
        a, b = (LEFT + v * scale for v in t["interval_90"][key])
        out.append(f'<text x="{LEFT}" y="{y + 14}">{escape(t["name"])}  {share(t)}</text>')
        width, more = t[key] * scale, t.get(pale, 0.0) * scale
        out.append(f'<rect class="g" x="{LEFT}" y="{y + 19}" width="{width:.1f}" height="9" rx="2"/>')
        out.append(
            f'<rect class="g" opacity="0.3" x="{LEFT + width:.1f}" y="{y + 19}" width="{more:.1f}" height="9" rx="2"/>'
        )
        out.append(f'<line class="w" x1="{a:.1f}" x2="{b:.1f}" y1="{y + 23.5}" y2="{y + 23.5}"/>')
    return _svg(len(targets), "".join(out), "plasticity's share of energy")


def _tiles(result: Result) -> str:
    head = "".join(f"<th>{escape(h)}</th>" for h in HEADER)
    lines = []
    for line in tile_rows(result):
        lines.append("".join(f'<td data-of="{escape(h)}">{escape(c)}</td>' for h, c in zip(HEADER, line, strict=True)))
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return _scrolling(f'<table class="wide"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>')


def _memory(result: Result) -> str:
    """Of each board, flash and RAM: how much of it is taken."""
    out, y = [], 0
    width = WIDTH - 2 * LEFT
    boards = [t for t in result["targets"] if "tile" not in t]
    for t in boards:
        m = t["memory"]
        for what in ("flash", "ram"):
            need, have = m[f"{what}_need_bytes"], m[f"{what}_have_bytes"]
            part = min(1.0, need / have)
            colour = "b" if need <= have else "o"
            label = f"{t['name']} {what.upper() if what == 'ram' else what}: {need:,} of {have:,}"
            out.append(f'<text x="{LEFT}" y="{y + 14}">{escape(label)}</text>')
            out.append(f'<rect class="grid" fill="none" x="{LEFT}" y="{y + 19}" width="{width}" height="9" rx="2"/>')
            out.append(f'<rect class="{colour}" x="{LEFT}" y="{y + 19}" width="{width * part:.1f}" height="9" rx="2"/>')
            y += ROW
    return _svg(2 * len(boards), "".join(out), "memory")


def _layers(result: Result) -> str:
    layers = grouped_layers(result)
    names = [t["name"] for t in result["targets"]]
    head = "".join(f"<th>{escape(h)}</th>" for h in ("layer", "class", "MAC", *(f"ms, {n}" for n in names)))
    lines = []
    for layer in layers:
        cells = [escape(layer["name"]), layer["kind"], f"{layer['macs']:,}", *(figure(layer["ms"][n]) for n in names)]
        lines.append("<tr>" + "".join(f"<td>{c}</td>" for c in cells) + "</tr>")
    return _scrolling(f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>")
