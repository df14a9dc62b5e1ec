"""Results as Markdown: one table for each part of the plan, with every number's unit and interval."""

from collections.abc import Sequence
from typing import Any

from edgehmn.evaluation.statistics import LEAST_GAIN_NATS


def markdown(results: dict[str, Any]) -> str:
    """The tables of the parts that were run, in order."""
    tables = {"p0": _p0, "p1": _p1, "p2": _p2, "p3": _p3}
    return "\n\n".join(tables[name](results[name]) for name in tables if name in results)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns also stand below one another as plain text."""
    widths = [max(3, *(len(line[i]) for line in (header, *rows))) for i in range(len(header))]
    lines = [header, ["-" * w for w in widths], *rows]
    return "\n".join(f"| {' | '.join(c.ljust(w) for c, w in zip(line, widths, strict=True))} |" for line in lines)


def _interval(interval: Sequence[float], digits: int, scale: float = 1.0) -> str:
    return f"[{scale * interval[0]:.{digits}f}, {scale * interval[1]:.{digits}f}]"


def _p0(r: dict[str, Any]) -> str:
    words = r["static"]["words"]
    out = [f"### P0: {r['text']}, {r['tokens']:,} tokens, {words:,} words, streamed once, {r['runtime']}"]
    static = r["static"]["word_perplexity"]
    kinds = [k for k in ("float", "static", "online") if k in r]
    rows = [
        [
            k, f"{r[k]['token_perplexity']:.3f}", f"{r[k]['word_perplexity']:.2f}", f"{r[k]['bits_per_byte']:.4f}",
            f"{100 * (r[k]['word_perplexity'] / static - 1):+.2f} %",
        ]
        for k in kinds
    ]  # fmt: skip
    out.append(table(("", "token perplexity", "word perplexity", "bits/byte", "word, against static"), rows))
    if "tile" in r:
        out.append(_tile(r))
    if "online" in r:
        each = ", ".join(f"{s['online']['word_perplexity']:.2f}" for s in r["seeds"])
        ratio = r["interval_95"]["word_perplexity_ratio"]
        out.append(
            f"Online by seed: {each}; online / static word perplexity in 95 % {_interval(ratio, 4)}. Worst 5,000 "
            f"tokens, online less static: {r['worst_window_nats']:+.4f} nat per token."
        )
    if "frozen" in r:
        rows = [
            [
                kind, str(len(f["tokens"])), f"{f['mean_nats']:+.4f} {_interval(f['interval_95'], 4)}",
                f"{f['worst_nats']:+.4f}", f"{f['worst_percent']:+.2f} %",
            ]
            for kind, f in r["frozen"].items()
        ]  # fmt: skip
        header = ("frozen snapshots, gains", "snapshots", "mean less static, nat", "worst", "worst, perplexity")
        out.append(table(header, rows))
    return "\n\n".join(out)


def _tile(r: dict[str, Any]) -> str:
    """What a tile kept of the digital gain, and what it cost."""
    cost, digital = r["tile"], r["digital"]
    parts = [
        f"Tile {r['target']}, mapping {r['mapping']}, writes {r['writes']} ({cost['calibrated_to']}). Digital core: "
        f"static {digital['static']['word_perplexity']:.2f}"
        + (f", online {digital['online']['word_perplexity']:.2f}" if "online" in digital else "")
        + " word perplexity.",
    ]
    if "gain_kept" in r:
        kept, against = (", ".join(map(percent, r[k])) for k in ("gain_kept", "gain_against_digital"))
        parts.append(f"Of the digital gain kept, by seed: {kept}; from the digital static model on: {against}.")
    years = cost["years_to_first_worn_cell"]
    worn = "" if years is None else f"; {years:.1f} years to the first worn cell at {cost['tokens_per_day']:,.0f} a day"
    parts.append(
        f"Per token {cost['energy_nj_per_token'] / 1e3:.2f} µJ and {cost['latency_us_per_token']:.1f} µs, learned "
        f"{cost['energy_nj_per_learned_token'] / 1e3:.2f} µJ and {cost['latency_us_per_learned_token']:.1f} µs; ADCs "
        f"{100 * cost['adc_share_of_energy']:.0f} %, plasticity {100 * cost['plasticity_share_of_energy']:.1f} % of "
        f"it; {cost['pulses_per_learned_token']:,.0f} pulses per learned token{worn}."
    )
    return " ".join(parts)


def _p1(r: dict[str, Any]) -> str:
    out = [f"### P1: Persona-Chat, {r['others']} other people's dialogues learned before"]
    for name, reading in r["readings"].items():
        counted = {"own": "turns of `you` count as own", "chat": "turns of both sides count"}[name]
        tokens = f"{reading['people']} people, {reading['scored_tokens']:,} tokens after {reading['turns'][-1]} turns"
        out.append(f"**{name}** ({counted}; {tokens})")
        others = reading["others"]["perplexity"]
        rows = [["static", "", f"{reading['static']['perplexity']:.2f}", f"{_change(reading, others):+.1f} %", ""]]
        for label, key in (
            ("frozen after n turns", "frozen"),
            ("frozen after n turns of somebody else", "stranger"), ("neural cache on static", "cache"),
            ("neural cache on others' delta", "others_and_cache"), ("going on learning", "online"),
        ):  # fmt: skip
            entries = reading[key] if isinstance(reading[key], list) else [reading[key]]
            rows += [_p1_row(label, entry) for entry in entries]
        header = ("", "n", "perplexity of the next turns", "against others' delta (n = 0)", "95 %")
        out.append(table(header, rows))
        right = ", ".join(f"{k} {100 * v:.2f} %" for k, v in reading["accuracy"].items())
        intervals = reading["interval_95"]
        recovery = reading["recovery_tokens"]
        ahead = "never" if recovery is None else f"after {recovery} own tokens"
        out.append(
            f"Gain {reading['gain_nats']:+.4f} nat per token, in 95 % {_interval(intervals['gain_nats'], 4)}; over "
            f"somebody else's turns {_interval(intervals['gain_over_stranger_nats'], 4)}; over the better cache "
            f"{_interval(intervals['gain_over_cache_nats'], 4)}. First token of a word right: {right}. Ahead of the "
            f"others' delta for good: {ahead}. Forgotten of others: {reading['forgetting_nats']:+.4f} nat."
        )
    if "bleu" in r:
        b = r["bleu"]
        scores = ", ".join(f"{k} {b[k]:.2f}" for k in ("static", "others", "frozen"))
        out.append(f"BLEU of {b['turns']} greedy turns ({r['headline']}): {scores}; {b['signature']}")
    return "\n\n".join(out)


def _change(reading: dict[str, Any], others: float) -> float:
    return 100 * (float(reading["static"]["perplexity"]) / others - 1)


def _p1_row(label: str, entry: dict[str, Any]) -> list[str]:
    change = f"{entry['change_percent']:+.2f} %"
    return [label, str(entry["n"]), f"{entry['perplexity']:.2f}", change, _interval(entry["interval_95"], 2)]


def _p2(r: dict[str, Any]) -> str:
    out = [f"### P2: A, B, A, B, {r['visit_tokens']:,} tokens each; nats per token"]
    rows = []
    for name, sequence in r["sequences"].items():
        for banks, s in sequence["banks"].items():
            frozen = s["frozen_loss"]
            rows.append(
                [
                    name + ("" if sequence["tuned"] else " (untuned)"), banks,
                    f"{s['gain_nats']:.3f} {_interval(s['interval_95']['gain_nats'], 3)}",
                    f"{s['forgetting_nats']:+.3f} {_interval(s['interval_95']['forgetting_nats'], 3)}",
                    f"{frozen['static']['a']:.3f}",
                    ", ".join(f"{v['a']:.3f}" for v in frozen["after_each_visit"]),
                    f"{s['backward_transfer_nats']:+.3f}",
                ]
            )  # fmt: skip
    header = ("sequence", "banks", "gain on B", "F", "held-out A: static", "frozen after each visit", "BWT")
    out.append(table(header, rows))
    out.append(_p2_returns(r))
    return "\n\n".join(out)


def _p2_returns(r: dict[str, Any]) -> str:
    rows = []
    for name, sequence in r["sequences"].items():
        for banks, s in sequence["banks"].items():
            topics = s["topics"]
            delays = "; ".join(
                ", ".join("-" if d is None else str(d) for d in seed) for seed in topics["delays_tokens"]
            )
            rows.append(
                [
                    name, banks, _shares(s["a_returns"]), _shares(s["b_returns"]), f"{s['recovery_tokens']:.0f}",
                    delays, "; ".join(" ".join(map(str, b)) for b in topics["bank_after_each_visit"]),
                    f"{topics['false_alarms_in_sequence_per_20000']:.2f}",
                    f"{topics['false_alarms_of_one_topic_per_20000']:.2f}",
                ]
            )  # fmt: skip
    header = (
        "sequence", "banks", "A returns: gain in its windows (share of the uninterrupted)", "B returns",
        "tokens until A is within 0.05 nat", "delays of the three changes, by seed", "banks of the visits",
        "false alarms per 20,000 tokens", "of one topic",
    )  # fmt: skip
    return table(header, rows) + f"\n\nNo share (-) where the uninterrupted gain is below {LEAST_GAIN_NATS:g} nat."


def _shares(windows: Sequence[dict[str, Any]]) -> str:
    """Gain in each window, and its share of the uninterrupted one."""
    return ", ".join(
        f"{w['tokens'][0]:,}-{w['tokens'][1]:,}: {w['gain_nats']:.2f} ({percent(w['share'])})" for w in windows
    )


def percent(share: float | None) -> str:
    """Of a gain; of one that is next to nothing there is none."""
    return "-" if share is None else f"{100 * share:.0f} %"


def _p3(r: dict[str, Any]) -> str:
    macs, emulated, energy = r["macs_per_token"], r["emulated"], r["energy_modelled"]
    rows = [["multiply-accumulates (counted)", *(f"{macs[k]:,.0f}" for k in ("static", "predicted", "learned"))]]
    if emulated is not None:
        counts = emulated["instructions_per_token"]
        row = (f"{counts[k]:,.0f}" for k in ("static", "predicted", "learned"))
        rows.append([f"instructions (emulated, {emulated['board']})", *row])
    if energy is not None:
        joules = energy["millijoules_per_token"]
        row = (f"{joules[k]:.3f}" for k in ("static", "predicted", "learned"))
        rows.append([f"energy, mJ (modelled, {energy['board']})", *row])
    out = ["### P3: cost per token", table(("", "static", "predicted with what was learned", "and learned"), rows)]
    shares = [f"multiply-accumulates {r['macs_added_percent']:+.2f} % over static"]
    if emulated is not None:
        plasticity, adapters = (f"{100 * emulated[f'{part}_share']:.2f} %" for part in ("plasticity", "adapters"))
        shares.append(f"of a learned token's instructions and energy, plasticity {plasticity}, adapters {adapters}")
    sizes = ", ".join(f"{k.replace('_', ' ')} {v:,}" for k, v in r["bytes"].items())
    writes = f"{r['writes_per_learned_token']:,.0f} writes per learned token"
    out.append(f"{'; '.join(shares)}; {writes}. Bytes: {sizes}.")
    if energy is not None:
        out.append(f"Energy per instruction: {energy['nanojoules_per_instruction']:.3f} nJ, from {energy['source']}.")
    return "\n\n".join(out)
