"""The whole evaluation: run parts of the plan, and write what they say."""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from edgehmn.errors import DependencyError, UsageError
from edgehmn.evaluation.p0 import p0
from edgehmn.evaluation.p1 import p1
from edgehmn.evaluation.p2 import p2
from edgehmn.evaluation.p3 import p3
from edgehmn.evaluation.plots import FORMATS, plot
from edgehmn.evaluation.report import markdown
from edgehmn.evaluation.run import Run
from edgehmn.files import check_replaceable, write_bytes

RESULTS, TABLE = "results.json", "table.md"
BEGIN = {RESULTS: b'{\n "image_id": "', TABLE: b"### P"}
PARTS: dict[str, Callable[[Run], dict[str, Any]]] = {"p0": p0, "p1": p1, "p2": p2, "p3": p3}


def evaluate(run: Run, names: Sequence[str]) -> dict[str, Any]:
    """Results by name of the part."""
    return {name: PARTS[name](run) for name in names}


def check_output(folder: Path) -> None:
    """Raises UsageError where a file that `write` would replace is somebody else's. Pictures say of nobody whose they
    are: beside results of ours they are ours."""
    check_replaceable(folder / RESULTS, "results of an evaluation", BEGIN[RESULTS])
    check_replaceable(folder / TABLE, "table of an evaluation", BEGIN[TABLE])
    pictures = [p for part in PARTS for p in sorted(folder.glob(f"{part}.*")) if p.suffix[1:] in FORMATS]
    if pictures and not (folder / RESULTS).exists():
        raise UsageError(f"{pictures[0]}: is of no evaluation that is known here; choose another folder, or remove it")


def write(results: dict[str, Any], image_id: str, folder: Path, note: Callable[[str], None]) -> list[Path]:
    """results.json, table.md and the plots; parts of earlier runs of the same image stay. Returns their paths."""
    path = folder / RESULTS
    known = _known(path, image_id) | results
    text = json.dumps(_finite({"image_id": image_id} | known), indent=1, allow_nan=False)
    write_bytes(path, f"{text}\n".encode())
    write_bytes(folder / TABLE, (markdown(known) + "\n").encode())
    written = [path, folder / TABLE]
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
