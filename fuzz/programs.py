"""The programs of the targets: built with clang, run as libFuzzer runs them."""

import os
import resource
import subprocess
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.native import flags_of_files
from fuzz.targets import HERE, MODELS, NATIVE, TARGETS

FLAGS = ("-std=c11", "-O2", "-g1", "-D_GNU_SOURCE", f"-I{NATIVE / 'include'}", f"-I{NATIVE / 'src'}", f"-I{HERE}")
# Edges are counted. Comparisons are not traced: the mutators know the formats, and it took half of the time.
EDGES = ("-fsanitize=fuzzer-no-link", "-fno-sanitize-coverage=trace-cmp")
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
LINES = ("-fprofile-instr-generate", "-fcoverage-mapping")
STRICT = ("-Wall", "-Wextra", "-Werror")
ASAN = "detect_leaks=0:quarantine_size_mb=1:malloc_context_size=2:allocator_may_return_null=1"
# An execution takes some 50 us; a machine with much else to do may let it wait for seconds.
MOST_MB = 1024  # that an execution may take
COMMON = ("-timeout=30", "-detect_leaks=0", "-entropic=0", "-print_final_stats=1", "-reload=0")


def compile_all(sources: Iterable[Path], flags: Iterable[str], folder: Path) -> None:
    """Compile into `folder`, two files at a time, what has changed since. Raises CalledProcessError."""
    folder.mkdir(parents=True, exist_ok=True)
    headers = [*HERE.glob("*.h"), *NATIVE.glob("*/*.h"), Path(__file__)]
    changed = max(path.stat().st_mtime for path in headers)

    def compile_one(path: Path) -> None:
        out = folder / f"{path.stem}.o"
        own = flags_of_files("clang").get(path.stem, ())
        if not out.exists() or out.stat().st_mtime <= max(changed, path.stat().st_mtime):
            subprocess.run(["clang", *FLAGS, *flags, *own, "-c", str(path), "-o", str(out)], check=True)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(compile_one, sorted(sources)))


def build(folder: Path, targets: Iterable[str] = tuple(TARGETS), *, lines: bool = False) -> None:
    """The programs of the targets, with the sanitizers, or with counters of lines. Raises CalledProcessError."""
    how, names = LINES if lines else SANITIZERS, tuple(targets)
    core = {path.stem: path for path in (NATIVE / "src").glob("*.c")}
    watched = {name: set(core) if TARGETS[name].everywhere else set(TARGETS[name].about) for name in names}
    with_edges = {stem for stems in watched.values() for stem in stems}
    without = {stem for stems in watched.values() for stem in core.keys() - stems}
    compile_all({core[stem] for stem in with_edges}, (*how, *EDGES), folder / "edges")
    compile_all({core[stem] for stem in without}, how, folder / "no-edges")
    parts = {name for target in names for name in TARGETS[target].harness} | {"fuzz"}
    harness = {name for name in parts if name.startswith("fuzz_")}
    compile_all({HERE / f"{name}.c" for name in harness}, (*how, *EDGES, *STRICT), folder / "harness")
    compile_all({HERE / f"{name}.c" for name in parts - harness}, STRICT, folder / "harness")  # not what is tested
    for name in names:
        objects = [str(folder / "harness" / f"{part}.o") for part in ("fuzz", *TARGETS[name].harness)]
        objects += [str(folder / ("edges" if stem in watched[name] else "no-edges") / f"{stem}.o") for stem in core]
        program = folder / f"fuzz_{name}"
        if not program.exists() or program.stat().st_mtime <= max(Path(path).stat().st_mtime for path in objects):
            subprocess.run(["clang", how[0], "-fsanitize=fuzzer", *objects, "-o", str(program)], check=True)


class FoundError(Exception):
    """A harness found something: what it said, and the input."""


def memory_limit() -> str:
    """libFuzzer asks the system for its peak, which on Linux begins with that of the process that starts it."""
    return f"-rss_limit_mb={MOST_MB + resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}"


def libfuzzer(target: str, folder: Path, words: list[str]) -> list[str]:
    """Run a target's program; returns the lines that it says. Raises FoundError if it ends in a fault."""
    findings = folder / "findings"
    findings.mkdir(exist_ok=True)
    program = [str(folder / f"fuzz_{target}"), *COMMON, memory_limit(), f"-max_len={TARGETS[target].max_bytes}"]
    done = subprocess.run(
        [*program, f"-artifact_prefix={findings}/{target}-", *words],
        env=os.environ | {"EHMN_FUZZ_MODELS": str(MODELS), "ASAN_OPTIONS": ASAN},
        cwd=folder, text=True, errors="replace", stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    if done.returncode != 0:
        raise FoundError(f"{target}: {' '.join(words)}\n{done.stderr[-6000:]}")
    return done.stderr.splitlines()
