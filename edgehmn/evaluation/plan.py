"""The whole evaluation: run parts of the plan, and write what they say."""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from edgehmn.errors import DependencyError
from edgehmn.evaluation.p0 import p0
from edgehmn.evaluation.p1 import p1
from edgehmn.evaluation.p2 import p2
from edgehmn.evaluation.p3 import p3
from edgehmn.evaluation.plots import plot
from edgehmn.evaluation.report import markdown
from edgehmn.evaluation.run import Run
from edgehmn.files import write_bytes

PARTS: dict[str, Callable[[Run], dict[str, Any]]] = {"p0": p0, "p1": p1, "p2": p2, "p3": p3}


def evaluate(run: Run, names: Sequence[str]) -> dict[str, Any]:
    """Results by name of the part."""
    return {name: PARTS[name](run) for name in names}


def write(results: dict[str, Any], image_id: str, folder: Path, note: Callable[[str], None]) -> list[Path]:
    """results.json, table.md and the plots; parts of earlier runs of the same image stay. Returns their paths."""
    path = folder / "results.json"
    known = _known(path, image_id) | results
    text = json.dumps(_finite({"image_id": image_id} | known), indent=1, allow_nan=False)
    write_bytes(path, f"{text}\n".encode())
    write_bytes(folder / "table.md", (markdown(known) + "\n").encode())
    written = [path, folder / "table.md"]
    try:
        return written + plot(known, folder)
    except DependencyError as e:
        note(f"no plots: {e}")
        return written


def _known(path: Path, image_id: str) -> dict[str, Any]:
    try:
        known = json.loads(path.read_text("utf-8"))
        return {k: known[k] for k in PARTS if k in known} if known["image_id"] == image_id else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _finite(value: Any) -> Any:
    """JSON has no infinity: a perplexity that is infinite is null."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
