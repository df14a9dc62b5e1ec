"""What a long measurement has found so far. It lies among what is built, not among the results that are committed: a
run that was interrupted goes on, and a run in a fresh checkout measures."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent.parent / "build" / "bench"


def begun(results: Path, key: Mapping[str, Any]) -> dict[str, Any]:
    """What was kept for these results by a run with the same values of `key`, or `key` alone."""
    return of_same(FOLDER / results.name, key)


def of_same(path: Path, key: Mapping[str, Any]) -> dict[str, Any]:
    """What a file has of the same values of `key`, or `key` alone."""
    found: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    return found if {name: found.get(name) for name in key} == dict(key) else dict(key)


def keep(results: Path, found: Mapping[str, Any]) -> None:
    """Keep what was found so far."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    work = FOLDER / f"{results.name}.part"
    work.write_text(json.dumps(found), "utf-8")
    work.replace(FOLDER / results.name)


def finish_beside(results: Path, key: Mapping[str, Any], found: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Write what was found; of what stands under `name`, beside what the results have there of the same values of
    `key`. Returns all."""
    there = of_same(results, key)
    together = {**there, **found, name: there.get(name, {}) | found[name]}
    finish(results, together)
    return together


def finish(results: Path, found: Mapping[str, Any], *, sort_keys: bool = False) -> None:
    """Write the results; the next run begins anew."""
    results.parent.mkdir(parents=True, exist_ok=True)
    results.write_text(json.dumps(found, indent=1, sort_keys=sort_keys) + "\n", "utf-8")
    (FOLDER / results.name).unlink(missing_ok=True)
