"""Runs of the harnesses: one for some seconds, or many, with counts that add up over all of them."""

import hashlib
import json
import re
import sys
import time
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

from fuzz import corpus
from fuzz.programs import FoundError, build, libfuzzer
from fuzz.targets import HERE, NATIVE, TARGETS

CHUNK_S = 120  # of one run in a campaign: what is lost at most when it is stopped


@dataclass(frozen=True)
class Count:
    """What has been run of a target. `last_new_edge`: the execution that reached an edge for the last time first."""

    executions: int = 0
    edges: int = 0
    last_new_edge: int = 0
    seconds: int = 0

    def line(self) -> str:
        return (
            f"{self.executions:,} executions in {self.seconds:,} s, {self.edges:,} edges, "
            f"the last new one at execution {self.last_new_edge:,}"
        )


def counted(lines: list[str], before: Count) -> Count:
    """What libFuzzer said, added to a count."""
    now = before
    for line in lines:
        if m := re.match(r"#(\d+)\s.*\bcov: (\d+)", line):
            if int(m[2]) > now.edges:
                now = replace(now, edges=int(m[2]), last_new_edge=before.executions + int(m[1]))
        elif m := re.match(r"stat::number_of_executed_units: (\d+)", line):
            now = replace(now, executions=before.executions + int(m[1]))
        elif m := re.match(r"Done \d+ runs in (\d+) second", line):
            now = replace(now, seconds=before.seconds + int(m[1]))
    return now


def run(target: str, folder: Path, *, seconds: int = 0, executions: int = -1, before: Count | None = None) -> Count:
    """All inputs in FOLDER/corpus/TARGET again, then new ones, until a limit. Raises FoundError."""
    words = [f"-runs={executions}", f"-max_total_time={seconds}", str(folder / "corpus" / target)]
    return counted(libfuzzer(target, folder, words), before or Count())


def sources(target: str) -> str:
    """A hash of the harness and of the files that it is about: counts are of these."""
    t = TARGETS[target]
    paths = [NATIVE / "src" / f"{name}.c" for name in t.about] + [HERE / f"{name}.c" for name in (*t.harness, "fuzz")]
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()[:16]


def load(target: str, folder: Path, of: str) -> Count:
    """What was counted in FOLDER with the sources of this hash."""
    path = folder / "counts" / f"{target}.json"
    if not path.exists():
        return Count()
    stored = json.loads(path.read_text())
    return Count(**stored["count"]) if stored["sources"] == of else Count()


def store(target: str, folder: Path, of: str, count: Count) -> None:
    path = folder / "counts" / f"{target}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".part").write_text(json.dumps({"sources": of, "count": asdict(count)}) + "\n")
    path.with_suffix(".part").replace(path)


def campaign(folder: Path, targets: list[str], executions: int, until: str | None) -> int:
    """Run the targets in turn until each has had so many executions, or until a time of day. Returns an exit code."""
    build(folder, targets)
    of = {target: sources(target) for target in targets}  # they may change while the programs run
    for target in targets:
        corpus.unpack(target, folder)
    while True:
        left = {t: executions - load(t, folder, of[t]).executions for t in targets}
        for target in (t for t in targets if left[t] > 0):
            if until is not None and datetime.now(timezone.utc).strftime("%H:%M") >= until:
                return 0
            started = time.time()
            try:
                before = load(target, folder, of[target])
                count = run(target, folder, seconds=CHUNK_S, executions=left[target], before=before)
            except FoundError as found:
                print(found, file=sys.stderr)
                return 1
            store(target, folder, of[target], replace(count, seconds=before.seconds + round(time.time() - started)))
            print(f"{target}: {count.line()}", flush=True)
        if all(n <= 0 for n in left.values()):
            return 0
