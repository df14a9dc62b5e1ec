"""The baselines beside our rule, on the four streams on which all of them were tuned.

    python bench/baselines/table.py --data DIR

Reads bench/results/baselines.json as `run.py` left it, runs the default rule on the int8 C core over the same streams,
and writes bench/results/baselines.md. Methods that `run.py` has not finished tuning are left out.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[2]))  # it was started as a script

from bench.baselines.streams import tuning_ids
from edgehmn.checkpoint import REFERENCE, read_checkpoint
from edgehmn.core import CoreModel, Image
from edgehmn.evaluation.report import table as markdown_table
from edgehmn.image import image_of
from edgehmn.runtime.protocol import nats

RESULTS = Path(__file__).resolve().parents[1] / "results"
OURS = "**the rule, int8 C core**"
PLOT = """On the first 100,000 tokens of WikiText-2 test, gain against cost (plot.py):

![gain against cost](baselines.svg)"""


def our_losses(data: Path) -> dict[str, float]:
    """Mean nats per token of each stream, learned online, and their mean."""
    checkpoint = read_checkpoint(REFERENCE)
    image = Image(image_of(checkpoint))
    losses = {
        name: nats(CoreModel(image).process(ids, learn=True)) / len(ids)
        for name, ids in tuning_ids(data, checkpoint).items()
    }
    return losses | {"mean": sum(losses.values()) / len(losses)}


def table(rows: dict[str, dict[str, float]]) -> str:
    """Markdown, the best mean first."""
    names = list(next(iter(rows.values())))
    best_first = sorted(rows.items(), key=lambda item: item[1]["mean"])
    cells = [[method, *(f"{r[n]:.4f}" for n in names)] for method, r in best_first]
    return markdown_table(("nats per token", *names), cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    args = parser.parse_args()
    found: dict[str, Any] = json.loads((RESULTS / "baselines.json").read_text("utf-8"))["methods"]
    rows = {name: entry["tuning"] for name, entry in found.items() if "tuning" in entry}
    shown = table(rows | {OURS: our_losses(args.data)})
    text = f"# Other methods, on the streams on which each was tuned\n\n{shown}\n\n{PLOT}\n"
    (RESULTS / "baselines.md").write_text(text, "utf-8")
    print(shown)


if __name__ == "__main__":
    main()
