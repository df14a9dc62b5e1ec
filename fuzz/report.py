"""What was reached: lines of the files that each target is about, and what campaigns counted."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from fuzz import corpus
from fuzz.campaign import load, sources
from fuzz.programs import build
from fuzz.targets import HERE, MODELS, NATIVE, TARGETS

RESULTS = HERE / "results.json"
PAGE = HERE / "README.md"
BEGIN, END = "<!-- results -->", "<!-- end of results -->"
Lines = dict[int, int]  # how often each line of code ran


def tool(name: str) -> str:
    """Path of an LLVM tool. Raises FileNotFoundError."""
    for candidate in (name, *(f"{name}-{version}" for version in range(22, 13, -1))):
        if path := shutil.which(candidate):
            return path
    raise FileNotFoundError(f"{name} is missing; sudo apt-get install llvm")


def lines_of(target: str, folder: Path, inputs: Path) -> dict[str, Lines]:
    """For each file that a target is about: how often the inputs run each of its lines. FOLDER holds programs that were
    built with `lines`."""
    raw, data, program = folder / f"{target}.profraw", folder / f"{target}.profdata", folder / f"fuzz_{target}"
    env = os.environ | {"LLVM_PROFILE_FILE": str(raw), "EHMN_FUZZ_MODELS": str(MODELS)}
    subprocess.run([str(program), "-runs=0", str(inputs)], check=True, env=env, capture_output=True)
    subprocess.run([tool("llvm-profdata"), "merge", str(raw), "-o", str(data)], check=True)
    files = [str(NATIVE / "src" / f"{name}.c") for name in TARGETS[target].about]
    words = [tool("llvm-cov"), "export", "-format=lcov", f"-instr-profile={data}", str(program), *files]
    out: dict[str, Lines] = {}
    lines: Lines = {}
    for line in subprocess.run(words, check=True, capture_output=True, text=True).stdout.splitlines():
        if line.startswith("SF:"):
            lines = out.setdefault(Path(line[3:]).name, {})
        elif line.startswith("DA:"):
            number, count = line[3:].split(",")[:2]
            lines[int(number)] = int(count)
    return out


def report(folder: Path, targets: list[str]) -> None:
    """Measure the lines that the committed inputs reach, take what campaigns counted in FOLDER if it is more than what
    is known, and write results.json and the table of README.md."""
    built = folder / "lines"
    build(built, targets, lines=True)
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for target in targets:
        measured = lines_of(target, built, corpus.unpack(target, built))
        known = results.get(target, {})
        count = asdict(load(target, folder, sources(target)))
        if known.get("sources") == sources(target) and known["count"]["executions"] > count["executions"]:
            count = known["count"]
        files = {
            name: {"lines": len(lines), "missed": sorted(n for n, count in lines.items() if count == 0)}
            for name, lines in sorted(measured.items())
        }
        results[target] = {"sources": sources(target), "count": count, "files": files}
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    head, rest = PAGE.read_text().split(BEGIN)
    PAGE.write_text(head + BEGIN + "\n" + table(results) + END + rest.split(END)[1])
    print(table(results))
    for target in targets:
        show_missed(results[target]["files"])


def table(results: dict[str, dict]) -> str:  # type: ignore[type-arg]
    out = "| target | executions | edges | last new edge at | lines of its files |\n|---|---|---|---|---|\n"
    for target in (t for t in TARGETS if t in results):
        count, files = results[target]["count"], results[target]["files"]
        covered = ", ".join(
            f"{name} {100 * (1 - len(f['missed']) / f['lines']):.1f} %" for name, f in sorted(files.items())
        )
        numbers = f"{count['executions']:,} | {count['edges']:,} | {count['last_new_edge']:,}"
        out += f"| {target} | {numbers} | {covered} |\n"
    return out


def show_missed(files: dict[str, dict]) -> None:  # type: ignore[type-arg]
    for name, file in files.items():
        text = (NATIVE / "src" / name).read_text().splitlines()
        for number in file["missed"]:
            print(f"{name}:{number}: {text[number - 1].strip()}", file=sys.stderr)
