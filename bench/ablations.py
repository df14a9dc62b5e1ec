"""What each symbol and mechanism of the rule is worth: taken away, or added where it is off by default.

    python bench/ablations.py --data DIR [--tokens N] [--seeds N]

On the int8 C core, learned online on four streams on which the rule was not tuned: WikiText-2 valid from its middle,
AG News and Persona-Chat from places of their own, and three modules of the standard library. Figures are differences of
the mean loss in nats per token to the default rule (above zero: worse without it), with 95 % intervals by the bootstrap
over windows of 500 tokens. A run that was interrupted goes on; results land in
bench/results/ablations.json, the table in ablations.md beside it.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[1]))  # it was started as a script

from bench.kept import begun, finish, keep
from bench.texts import persona_chat, python_code
from edgehmn.calibrate import Calibration, calibrate, calibration_ids
from edgehmn.checkpoint import REFERENCE, Checkpoint, read_checkpoint
from edgehmn.core import Image
from edgehmn.evaluation.report import table as markdown_table
from edgehmn.evaluation.statistics import interval_95, window_sums
from edgehmn.files import read_text
from edgehmn.image import build_image, with_rule
from edgehmn.plasticity import Rule
from edgehmn.quantize import quantise
from edgehmn.streams import HiddenStream, in_nats, open_head, play

RESULTS = Path(__file__).resolve().parent / "results" / "ablations.json"
WINDOW = 500
MODULES = ("tarfile.py", "turtle.py", "typing.py")

SETTINGS: dict[str, dict[str, Any]] = {
    "the rule": {},
    "without the dense adapter": {"rho_trace": ()},
    "without rows by the previous token": {"row_slots": (0, 128)},
    "without rows by the previous two": {"row_slots": (128, 0)},
    "without both": {"row_slots": (0, 0)},
    "without the bias": {"bias_step": 0.0},
    "without n-grams": {"ngram_slots": 0},
    "without episodes": {"episodes": 0},
    "without any memory of words": {"row_slots": (0, 0), "bias_step": 0.0, "ngram_slots": 0, "episodes": 0},
    "gains of adapters and bias fixed at one": {"eta_gain": 0.0},
    "scale fixed at one": {"eta_scale": 0.0},
    "without G' (surprise)": {"eta_global": 0.0},
    "without decay of dense weights": {"decay": 0.0},
    "decay of dense weights ten times": {"decay": 1e-3},
    "every row written": {"closed_below": 0.0},
    "a third of the rows written": {"closed_below": 1.25},
    "LSB of dense weights 2^-8": {"weight_frac": 8},
    "LSB of dense weights 2^-10": {"weight_frac": 10},
    "4 negatives": {"n_negatives": 4},
    "64 negatives": {"n_negatives": 64},
    "guard off": {"guard_limit": 0.0},
    "with uncertainty in G' (gamma 0.5)": {"gamma": 0.5, "w_reward": 2.0},
    "with novelty in G' (weight 0.3)": {"w_novelty": 0.3},
    "with the slow eligibility (kappa 0.5)": {"kappa": 0.5},
    "with alpha (beta_a 0.5)": {"beta_attention": 0.5},
    "with the phase gate (period 10)": {"phase_period": 10},
    "with a second dense adapter, trace 0.5": {"rho_trace": (0.0, 0.5)},
    "four equal dense adapters": {"rho_trace": (0.0,) * 4},
}
NEUTRAL = "without the preconditioner"  # a matter of the image's statistics, not of the rule


def texts(data: Path) -> dict[str, str]:
    return {
        "WikiText-2": read_text(data / "wikitext-2" / "valid.txt")[550_000:],
        "AG News": read_text(data / "ag-news" / "test.txt")[1_400_000:],
        "Persona-Chat": persona_chat(data)[250_000:],
        "code": python_code(*MODULES),
    }


def without_preconditioner(checkpoint: Checkpoint, calibration: Calibration) -> Image:
    """The identity, scaled so that a rate means the same as with the preconditioner."""
    s = calibration.statistics
    scale = np.float32(np.sqrt(np.mean(np.diag(s.preconditioner @ s.preconditioner))))
    identity = np.eye(len(s.preconditioner), dtype=np.float32) * scale
    return Image(
        build_image(quantise(checkpoint, replace(calibration, statistics=replace(s, preconditioner=identity))))
    )


def losses(image: Image, streams: dict[str, HiddenStream], seeds: int) -> dict[str, np.ndarray]:
    """Nats of each token, mean over the seeds."""
    return {
        name: np.mean([in_nats(play(open_head(image, seed), stream)) for seed in range(seeds)], axis=0)
        for name, stream in streams.items()
    }


def compare(found: dict[str, np.ndarray], base: dict[str, np.ndarray]) -> dict[str, Any]:
    """Per stream and over all: the mean difference, and its interval."""
    out: dict[str, Any] = {}
    windows = []
    for name, values in found.items():
        difference = window_sums(values - base[name], WINDOW) / WINDOW
        out[name] = {
            "nats": float(values.mean()),
            "difference": float(difference.mean()),
            "interval_95": interval_95(difference),
        }
        windows.append(difference)
    everything = np.concatenate(windows)
    return out | {"all": {"difference": float(everything.mean()), "interval_95": interval_95(everything)}}


def table(results: dict[str, Any]) -> str:
    names = [n for n in next(iter(results.values())) if n != "all"]
    rows = []
    for setting, r in results.items():
        low, high = r["all"]["interval_95"]
        cells = [f"{r[n]['nats']:.3f}" if setting == "the rule" else f"{r[n]['difference']:+.3f}" for n in names]
        mean = np.mean([r[n]["nats"] for n in names])
        if setting == "the rule":
            rows.append([setting, *cells, f"{mean:.3f}", ""])
        else:
            rows.append([setting, *cells, f"{r['all']['difference']:+.3f}", f"{low:+.3f} .. {high:+.3f}"])
    return markdown_table(("nats per token", *names, "all", "95 %"), rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--tokens", type=int, default=10_000, help="of each stream (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    checkpoint = read_checkpoint(REFERENCE)
    calibration = calibrate(checkpoint, calibration_ids(checkpoint))
    data = build_image(quantise(checkpoint, calibration))
    kept = begun(RESULTS, {"image_id": Image(data).id, "tokens": args.tokens, "seeds": args.seeds})
    kept.setdefault("settings", {})
    streams = {}
    for name, text in texts(args.data).items():
        ids = checkpoint.encode(text[: 8 * args.tokens])[: args.tokens]
        streams[name] = HiddenStream.encode(Image(data), ids)
    base = losses(Image(data), streams, args.seeds)
    for setting in (*SETTINGS, NEUTRAL):
        if setting in kept["settings"]:
            continue
        if setting == NEUTRAL:
            image = without_preconditioner(checkpoint, calibration)
        else:
            image = Image(with_rule(data, replace(Rule(), **SETTINGS[setting])))
        found = base if setting == "the rule" else losses(image, streams, args.seeds)
        kept["settings"][setting] = compare(found, base)
        keep(RESULTS, kept)
        print(f"{setting}: {kept['settings'][setting]['all']['difference']:+.4f}", flush=True)
    finish(RESULTS, kept)
    shown = table(kept["settings"])
    RESULTS.with_suffix(".md").write_text(f"# What each mechanism is worth\n\n{shown}\n", "utf-8")
    print(shown)


if __name__ == "__main__":
    main()
