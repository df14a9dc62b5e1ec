"""The harnesses of fuzz/, for a moment: what was found before is not found again, nothing new is at once, and the
committed inputs still reach what they are about. Longer: python tools/run.py fuzz.fuzz run --seconds 600."""

import subprocess
from pathlib import Path

import pytest

from fuzz import campaign, corpus, programs, report
from fuzz.campaign import Count
from fuzz.targets import TARGETS

MISSING = "not run here: clang with libFuzzer is missing (apt-get install clang libclang-rt-14-dev llvm)"


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Skips where the tools are missing, which is seen by an empty harness: a build of ours that fails is a failure."""
    program = tmp_path_factory.mktemp("tools") / "empty"
    empty = "#include <stddef.h>\nint LLVMFuzzerTestOneInput(const char *d, size_t n) { return d == NULL && n > 0; }\n"
    try:
        report.tool("llvm-cov")
        command = ["clang", "-fsanitize=fuzzer", "-x", "c", "-", "-o", str(program)]
        subprocess.run(command, input=empty, text=True, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip(MISSING)


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory: pytest.TempPathFactory, tools: None) -> Path:
    folder = tmp_path_factory.mktemp("fuzz")
    programs.build(folder)
    return folder


@pytest.fixture(scope="module")
def counting(tmp_path_factory: pytest.TempPathFactory, tools: None) -> Path:
    folder = tmp_path_factory.mktemp("lines")
    programs.build(folder, lines=True)
    return folder


@pytest.mark.parametrize("target", TARGETS)
def test_nothing_is_found_in_a_moment(sanitized: Path, target: str) -> None:
    inputs = corpus.unpack(target, sanitized)
    known = len(list(inputs.iterdir()))
    count = campaign.run(target, sanitized, seconds=2)
    assert count.executions > known + 20 and count.edges > 100


@pytest.mark.parametrize("target", TARGETS)
def test_the_known_inputs_reach_the_lines_of_what_they_are_about(counting: Path, target: str) -> None:
    files = report.lines_of(target, counting, corpus.unpack(target, counting))
    assert set(files) == {f"{name}.c" for name in TARGETS[target].about}
    for name, lines in files.items():
        missed = [number for number, runs in lines.items() if runs == 0]
        assert len(missed) <= 0.05 * len(lines), f"{name}: {missed}"


def test_a_harness_that_finds_something_says_so(sanitized: Path, tmp_path: Path) -> None:
    (tmp_path / "findings").mkdir()
    program = tmp_path / "fuzz_state"
    program.write_text("#!/bin/sh\necho 'fuzz_state.c:1: not so' >&2\nexit 77\n")
    program.chmod(0o755)
    with pytest.raises(programs.FoundError, match="not so"):
        campaign.run("state", tmp_path, seconds=1)


SAID = """#2	INITED cov: 10 ft: 12 corp: 2/9b
#700	NEW    cov: 12 ft: 14 corp: 3/12b
#900	REDUCE cov: 12 ft: 14 corp: 3/10b
#1000	DONE   cov: 12 ft: 14 corp: 3/10b
Done 1000 runs in 3 second(s)
stat::number_of_executed_units: 1000""".splitlines()


def test_counts_add_up_over_runs(tmp_path: Path) -> None:
    first = campaign.counted(SAID, Count())
    assert first == Count(executions=1000, edges=12, last_new_edge=700, seconds=3)
    again = campaign.counted(SAID, first)
    assert again == Count(executions=2000, edges=12, last_new_edge=700, seconds=6), "known edges are not new"
    more = [line.replace("cov: 12", "cov: 13") for line in SAID]
    assert campaign.counted(more, again).last_new_edge == 2700
    campaign.store("state", tmp_path, "a hash", again)
    assert campaign.load("state", tmp_path, "a hash") == again
    assert campaign.load("state", tmp_path, "that of other sources") == Count()
    assert campaign.load("wire", tmp_path, "a hash") == Count()


def test_an_archive_gives_back_what_was_put_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "ARCHIVES", tmp_path)
    inputs = {"fault-once": b"\0" * 5, "abc": b"", "d": bytes(range(256))}
    corpus.write("state", inputs)
    first = (tmp_path / "state.tar.xz").read_bytes()
    assert corpus.read("state") == inputs
    corpus.write("state", dict(reversed(inputs.items())))
    assert (tmp_path / "state.tar.xz").read_bytes() == first
    assert {path.name for path in corpus.unpack("state", tmp_path).iterdir()} == set(inputs)
