"""SPSA beside random search and CMA-ES of equal budget, five seeds each, on validation streams.

    python bench/tuning.py --data DIR [--budget N] [--seeds N]

DIR holds wikitext-2/valid.txt, ag-news/test.txt and persona-chat/*.txt; the code is two modules of the running
interpreter's standard library. Of each stream 2,000 tokens are tuned on and the next 2,000 held out; no part of it is a
test set of the evaluation plan. Results land in bench/results/tuning.json; a run that was interrupted goes on.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from statistics import mean, stdev
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1]))  # it was started as a script

from bench.kept import begun, finish, keep
from bench.texts import persona_chat, python_code
from edgehmn.checkpoint import REFERENCE, Checkpoint, read_checkpoint
from edgehmn.core import Image
from edgehmn.files import read_text, sha256
from edgehmn.image import image_of
from edgehmn.rules import read_rule
from edgehmn.tuning.parameters import Space
from edgehmn.tuning.tune import METHODS, Settings, Text, encode_texts, tune

RESULTS = Path(__file__).resolve().parent / "results" / "tuning.json"
TOKENS = 2000  # tuned on, and as many held out
CHARACTERS = 40_000  # that hold twice as many tokens in every text used here
CODE = ("argparse.py", "ast.py")


def texts(data: Path, checkpoint: Checkpoint) -> list[Text]:
    parts = {
        "wikitext-2 valid": read_text(data / "wikitext-2" / "valid.txt"),
        "ag-news from character 1,000,000": read_text(data / "ag-news" / "test.txt")[1_000_000:],
        "persona-chat from character 500,000": persona_chat(data)[500_000:],
        "code: " + ", ".join(CODE): "".join(python_code(name)[: CHARACTERS // len(CODE)] for name in CODE),
    }
    out = []
    for name, part in parts.items():
        ids = checkpoint.encode(part[:CHARACTERS])
        assert len(ids) >= 2 * TOKENS, f"{name}: {len(ids)} tokens"
        used = sha256(part[:CHARACTERS].encode())
        out.append(Text(name, used, ids[:TOKENS], ids[TOKENS : 2 * TOKENS]))
    return out


def summary(runs: dict[str, Any]) -> dict[str, Any]:
    """For each method, over seeds: nats per token gained over the start on both halves, mean and deviation."""
    out = {}
    for method in METHODS:
        row = {}
        for key in ("loss", "held_out_loss"):
            gains = [run["start"][key] - run[method][key] for run in runs.values()]
            row[key] = {"gain": mean(gains), "deviation": stdev(gains) if len(gains) > 1 else None, "least": min(gains)}
        out[method] = row
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--budget", type=int, default=40, help="evaluations of a method (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=5)
    args = parser.parse_args()
    checkpoint = read_checkpoint(REFERENCE)
    image = Image(image_of(checkpoint))
    results = begun(RESULTS, {"image_id": image.id, "budget": args.budget})
    results.setdefault("runs", {})
    space = Space(read_rule(image))
    chosen = texts(args.data, checkpoint)
    streams = encode_texts(image, chosen)
    for seed in range(args.seeds):
        if str(seed) in results["runs"]:
            continue
        began = time.process_time()
        tuning = tune(image, space, chosen, streams, Settings(METHODS, args.budget, seed))
        run = tuning.as_dict() | {"losses": {m: [round(v, 5) for v in losses] for m, losses in tuning.losses.items()}}
        run["found"] = {m: space.values(c.rule) for m, c in tuning.found.items()}
        results["tuned_on"] = run.pop("tuned_on")
        results["runs"][str(seed)] = run | {"cpu_seconds": round(time.process_time() - began)}
        results["summary"] = summary(results["runs"])
        keep(RESULTS, results)
        print(f"seed {seed} done", flush=True)
    finish(RESULTS, results, sort_keys=True)
    print(json.dumps(results["summary"], indent=1))


if __name__ == "__main__":
    main()
