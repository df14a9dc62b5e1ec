"""What the documents say is what is: tables come from results, results belong to the model that ships."""

import importlib.util
import json
import re
import shlex
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from shutil import which
from types import ModuleType

import pytest

from bench import speed
from edgehmn.checkpoint import Checkpoint
from edgehmn.cli import COMMANDS, HELP
from edgehmn.core import Image
from edgehmn.errors import EXIT_CODES
from tests.command_line import Result, check_understood, commands_in

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text("utf-8")


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_learning", ROOT / "bench" / "learning.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_readme_table_is_generated_from_the_committed_results(bench: ModuleType) -> None:
    results = json.loads(bench.RESULTS.read_text("utf-8"))
    shown = README.split(bench.BEGIN)[1].split(bench.END)[0].strip()
    assert shown == bench.readme_table(results).strip()


def test_tables_of_the_plan_are_generated_from_the_committed_results(bench: ModuleType) -> None:
    r = json.loads(bench.RESULTS.read_text("utf-8"))
    tables = bench.markdown({part: r[part] for part in ("p0", "p1", "p2", "p3")})
    assert bench.RESULTS.with_name("evaluation.md").read_text("utf-8") == f"# The evaluation plan\n\n{tables}\n"


def test_readme_table_of_speed_is_generated_from_the_committed_results() -> None:
    shown = README.split(speed.BEGIN)[1].split(speed.END)[0].strip()
    assert shown == speed.readme_table(json.loads((speed.RESULTS / "speed.json").read_text("utf-8"))).strip()


def test_the_gate_of_the_readme_is_the_measured_one() -> None:
    r = json.loads((ROOT / "bench" / "results" / "gate.json").read_text("utf-8"))
    kept = statistics.median(row["gain_kept_percent"] for row in r["honest"])
    rise = max(row["kept_text_rise_percent"] for row in r["destructive"])
    left, honest = f"text within {rise:.2f} %", f"{len(r['honest'])} honest texts keep {kept:.1f} %"
    words = " ".join(README.split())  # wherever lines end
    assert len(r["destructive"]) == 6 and left in words and honest in words


def test_results_belong_to_the_model_that_ships(bench: ModuleType, reference_image: bytes) -> None:
    assert json.loads(bench.RESULTS.read_text("utf-8"))["image_id"] == Image(reference_image).id


def test_results_meet_the_promises(bench: ModuleType) -> None:
    r = json.loads(bench.RESULTS.read_text("utf-8"))
    assert r["float"]["words"] == 245_569
    assert r["float"]["word"] <= 175
    assert r["image"]["word"] <= 1.003 * r["float"]["word"]
    for kind in ("onnx", "tflite"):
        assert r[kind]["word"] <= 1.02 * r["float"]["word"]
    assert len(r["excerpts"]["rows"]) == 20
    assert r["excerpts"]["median_fall"] >= 0.08


def test_learning_meets_the_promises(bench: ModuleType) -> None:
    r = json.loads(bench.RESULTS.read_text("utf-8"))
    p0, frozen = r["p0"], r["p0"]["frozen"]["following"]
    assert p0["static"]["word_perplexity"] == pytest.approx(r["image"]["word"])
    assert p0["online"]["word_perplexity"] <= 0.7 * p0["static"]["word_perplexity"]
    assert p0["worst_window_nats"] <= 0
    assert frozen["worst_percent"] <= 0.5
    assert frozen["mean_nats"] < 0
    assert r["p1"]["interval_95"]["gain_nats"][0] > 0
    assert r["p1"]["interval_95"]["gain_over_cache_nats"][0] > 0
    for sequence in r["p2"]["sequences"].values():
        assert sequence["banks"]["4"]["forgetting_nats"] <= (0.10 if sequence["tuned"] else 0.15)
    assert r["p3"]["macs_added_percent"] <= 5
    emulated = r["p3"]["emulated"]
    assert emulated["plasticity_share"] + emulated["adapters_share"] <= 0.08, "the paper asks 0.10 of plasticity alone"


def test_exit_codes_of_the_readme() -> None:
    table = dict(re.findall(r"^\| (\d+) \| (.+?) \|$", README, re.M))
    assert table == {str(code): meaning for code, meaning in EXIT_CODES.items()}


def test_every_command_has_help() -> None:
    assert set(HELP) == set(COMMANDS)


def test_commands_of_the_readme_are_understood() -> None:
    """With all of their arguments, as they stand there."""
    lines = commands_in(README)
    assert len({words[0] for words in lines}) > 10
    for words in lines:
        check_understood(words)


@pytest.mark.skipif(which("arm-none-eabi-gcc") is None, reason="not run here: arm-none-eabi-gcc missing")
def test_the_python_of_the_readme_does_what_it_says(
    reference_export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = README.split("```python\n")[1].split("```")[0]
    says = re.search(r"print\(.*#\s*(.+)\n", code)
    assert says is not None
    (tmp_path / "ref").symlink_to(reference_export)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})
    assert capsys.readouterr().out.strip() == says[1]


def test_the_readme_names_all_that_flash_needs(tiny_export: Path, run_cli: Callable[..., Result]) -> None:
    [line] = re.findall(r"^edgehmn (flash ref .*)", README, re.M)
    words = [str(tiny_export) if word == "ref" else word for word in shlex.split(line, comments=True)]
    assert run_cli(*words, "--dry-run").code == 0


DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "edgehmn/**/*.md", "export/**/*.md", "fuzz/*.md")
    for path in ROOT.glob(pattern)
)


def test_documents_link_to_files_that_exist() -> None:
    assert {path.name for path in DOCUMENTS} >= {"README.md", "DESIGN.md", "SPEC.md", "porting.md", "MODEL_CARD.md"}
    for path in DOCUMENTS:
        for link in re.findall(r"\]\(([^)#:]+)\)", path.read_text("utf-8")):
            assert (path.parent / link).exists(), f"{path.relative_to(ROOT)} links to {link}"


def test_no_line_of_prose_is_wider_than_an_editor() -> None:
    for path in DOCUMENTS:
        text = re.sub(r"^( *)```.*?^\1```", "", path.read_text("utf-8"), flags=re.M | re.S)
        wide = [line for line in text.splitlines() if len(line) > 120 and not line.lstrip().startswith("|")]
        assert not wide, f"{path.relative_to(ROOT)}: {wide[0][:80]}..."


def test_reference_is_small_and_complete(reference: Checkpoint) -> None:
    folder = ROOT / "edgehmn" / "reference"
    names = ("model.safetensors", "config.json", "tokenizer.json")
    assert sum((folder / n).stat().st_size for n in names) < 5_000_000
    c = reference.config
    assert (c.n_layers, c.d_model, c.d_hidden, c.n_heads, c.vocab_size, c.n_ctx) == (6, 128, 344, 4, 3072, 128)


def test_modules_of_the_checkout_say_what_they_do_and_what_is_wrong(tmp_path: Path) -> None:
    def run(*words: str) -> tuple[int, str, str]:
        command = [sys.executable, str(ROOT / "tools" / "run.py"), *words]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
        return done.returncode, done.stdout, done.stderr

    for module in ("bench.products", "bench.speed"):  # without argparse, and with it
        code, out, err = run(module, "--help")
        assert (code, err) == (0, "") and len(out) > 100
    assert run("bench.nothing") == (1, "", "bench.nothing: no module of bench, fuzz or tests\n")
    code, out, err = run("bench.plastic_cycles", "nothing")
    assert (code, out, err.count("\n")) == (2, "", 1) and "no such folder" in err


def test_the_table_of_what_is_generated_is_whole() -> None:
    table = (ROOT / "docs" / "development.md").read_text("utf-8").split("## What is generated")[1]
    rows = [[cell.strip() for cell in row.split("|")[1:3]] for row in re.findall(r"^\|.*\|$", table, re.M)[2:]]
    files = {name for cell, _ in rows for name in re.findall(r"`([^`]+)`", cell)}
    assert {p.name for p in (ROOT / "bench" / "results").iterdir()} <= files, "each result says what makes it"
    assert {f"targets/{p.name}" for p in (ROOT / "targets").glob("*.json")} <= files
    for name in files:
        assert (ROOT / name).exists() or (ROOT / "bench" / "results" / name).exists(), name
    for _, command in rows:
        for module in re.findall(r"`((?:bench|tests)\.\w+)", command):
            assert (ROOT / f"{module.replace('.', '/')}.py").exists(), module
        for script in re.findall(r"python (\S+\.py)", command):
            assert (ROOT / script).exists(), script
