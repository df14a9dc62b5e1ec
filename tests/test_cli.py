"""The commands, end to end: what they print, as text and as JSON, and what they leave behind."""

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest

from edgehmn import __version__
from edgehmn.cli import COMMANDS, cli
from edgehmn.cli.learning import personalisation_text
from edgehmn.core import Image
from edgehmn.errors import EXIT_CODES
from edgehmn.export.pipeline import DEFAULT_LIMITS
from edgehmn.learn import Personalisation
from edgehmn.runtime.protocol import Counts
from edgehmn.runtime.select import DEFAULT_BOARD, DEFAULT_TILE
from tests.command_line import edgehmn, finish, process, program, texts, wait_for

ENVELOPE = {"edgehmn", "schema", "command", "status", "error", "result"}
KINDS = {"image", "onnx", "tflite", "c", "tokenizer", "vectors"}
# Tested elsewhere.
SKIPPED = {
    "build": "compiles firmware",
    "emulate": "does not end",
    "demo": "compiles firmware",
    "flash": "needs a board",
    "monitor": "needs a board",
}


def arguments_of(command: str, export: Path, text: Path, folder: Path) -> list[str | Path]:
    """A call of each command that succeeds."""
    return {
        "inspect": ["inspect", export],
        "validate": ["validate", export, "--runtime", "host"],
        "plan": ["plan", export],
        "run": ["run", export, "abc", "-n", "5"],
        "personalise": ["personalise", export, text, "--save-state", "mine"],
        "state": ["state", "list"],
        "eval": ["eval", "p0", "--model", export, "--data", text],
        "doctor": ["doctor"],
        "profile": ["profile", export, "--target", "raspberry-pi-5"],
        "replay": ["replay", "record", export, text, "-o", folder / "a.ehmr"],
        "targets": ["targets"],
        "tune": ["tune", export, "--data", text, "--budget", "3", "--tokens", "40", "--method", "random"],
    }[command]


RUNNING = sorted(COMMANDS.keys() - SKIPPED.keys() - {"export"})


@pytest.mark.parametrize("command", RUNNING)
def test_text_goes_to_stdout(command: str, tiny_export: Path, short_text: Path, tmp_path: Path) -> None:
    done = edgehmn(*arguments_of(command, tiny_export, short_text, tmp_path))
    assert done.code == 0, done.err
    assert done.out.strip() and not done.out.startswith("{")


@pytest.mark.parametrize("command", RUNNING)
def test_json_is_one_envelope_and_nothing_else(
    command: str, tiny_export: Path, short_text: Path, tmp_path: Path
) -> None:
    done = edgehmn(*arguments_of(command, tiny_export, short_text, tmp_path), "--json")
    envelope = done.envelope
    assert envelope.keys() == ENVELOPE
    assert (envelope["edgehmn"], envelope["schema"], envelope["command"]) == (__version__, 1, command)
    assert (envelope["status"], envelope["error"], done.code, done.err) == ("ok", None, 0, "")
    assert done.out.count("\n") == 1


def test_quiet_says_nothing_on_stderr(tiny_export: Path) -> None:
    assert edgehmn("run", tiny_export, "abc").err != ""
    assert edgehmn("run", tiny_export, "abc", "-q").err == ""


def test_export(tiny_checkpoint: Path, short_text: Path, tmp_path: Path) -> None:
    out = tmp_path / "Zwei Wörter" / "été"
    result = edgehmn("export", tiny_checkpoint, "-o", out, "--format", "all", *texts(short_text), "--json").result
    assert {a["kind"] for a in result["artefacts"]} == KINDS
    assert {p.name for p in out.iterdir()} == {a["path"] for a in result["artefacts"]} | {"manifest.json"}
    for artefact in result["artefacts"]:
        assert artefact["bytes"] == (out / artefact["path"]).stat().st_size
    assert result["perplexity"].keys() == {"float", "image", "onnx", "tflite"}
    for figures in result["perplexity"].values():
        assert figures.keys() == {"token", "word", "bits_per_byte"}
    assert Image((out / "model.ehmn").read_bytes()).id == result["image_id"]
    assert [p.name for p in out.parent.iterdir()] == [out.name]


def test_export_prints_what_it_measured(tiny_checkpoint: Path, short_text: Path, tmp_path: Path) -> None:
    done = edgehmn("export", tiny_checkpoint, "-o", tmp_path / "out", *texts(short_text))
    assert "model.ehmn" in done.out and "bits/byte" in done.out and "over float" in done.out
    assert "measuring image" in done.err


def test_same_export_twice_is_the_same_bytes(
    tiny_export: Path, tiny_checkpoint: Path, short_text: Path, tmp_path: Path
) -> None:
    again = tmp_path / "again"
    assert edgehmn("export", tiny_checkpoint, "-o", again, "--format", "all", *texts(short_text)).code == 0
    assert contents(again) == contents(tiny_export)


def test_export_replaces_an_earlier_one(
    tiny_export: Path, tiny_checkpoint: Path, short_text: Path, copy_of: Callable[[Path], Path]
) -> None:
    out = copy_of(tiny_export)
    assert edgehmn("export", tiny_checkpoint, "-o", out, *texts(short_text)).code == 0
    assert not (out / "encoder.onnx").exists() and (out / "model.ehmn").exists()


def test_export_through_a_link_keeps_the_link(tiny_checkpoint: Path, short_text: Path, tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    link = tmp_path / "link"
    link.symlink_to("target")
    assert edgehmn("export", tiny_checkpoint, "-o", link, *texts(short_text)).code == 0
    assert link.is_symlink() and (tmp_path / "target" / "model.ehmn").exists()


def test_inspect_knows_each_kind(tiny_export: Path, short_text: Path, tmp_path: Path) -> None:
    state = tmp_path / "learned.ehmd"
    assert edgehmn("personalise", tiny_export, short_text, "--save-state", state).code == 0
    facts = [edgehmn("inspect", f, "--json").result for f in (tiny_export, tiny_export / "model.ehmn", state)]
    assert [f["kind"] for f in facts] == ["export", "image", "delta"]
    assert len({f["image_id"] for f in facts}) == 1
    assert facts[0]["config"]["n_layers"] == facts[1]["config"]["n_layers"] == 2
    assert facts[2]["config"]["learned"] == len(short_text.read_bytes()) // 2 - 1  # no token predicts the first


def test_validate_runs_what_the_export_has(tiny_export: Path) -> None:
    result = edgehmn("validate", tiny_export, "--json").result
    assert result["ok"] and all(c.keys() == {"name", "ok", "figure", "limit"} for c in result["checks"])
    assert {c["name"].split(":")[0] for c in result["checks"]} == {"host", "onnx", "tflite"}


def test_plan_is_the_sum_of_its_regions(tiny_export: Path) -> None:
    result = edgehmn("plan", tiny_export, "--json").result
    assert result.keys() >= {"image_bytes", "arena_bytes", "arena_static_bytes", "delta_bytes", "regions", "targets"}
    assert sum(r["bytes"] for r in result["regions"]) == result["arena_bytes"] > result["arena_static_bytes"]
    assert result["image_bytes"] == (tiny_export / "model.ehmn").stat().st_size


def test_plan_says_whether_an_arena_would_do(tiny_export: Path) -> None:
    need = edgehmn("plan", tiny_export, "--json").result["arena_bytes"]
    assert edgehmn("plan", tiny_export, "--arena", str(need)).code == 0
    short = edgehmn("plan", tiny_export, "--arena", str(need - 1))
    assert short.code == 6 and str(need) in short.err and str(need - 1) in short.err


@pytest.mark.parametrize("runtime", ["host", "onnx", "tflite"])
def test_run(runtime: str, tiny_export: Path) -> None:
    arguments = ("run", tiny_export, "abc, é", "-n", "20", "--runtime", runtime)
    result = edgehmn(*arguments, "--json").result
    assert result["tokens"] == 20 and result["tokens_per_s"] > 0 and isinstance(result["text"], str)
    assert edgehmn(*arguments).out == "abc, é" + result["text"] + "\n"


def test_the_seed_decides_what_is_drawn(tiny_export: Path) -> None:
    def drawn(seed: int) -> str:
        options = ("-n", "40", "--temperature", "1", "--seed", str(seed), "--json")
        return str(edgehmn("run", tiny_export, "abc", *options).result["text"])

    assert drawn(1) == drawn(1) != drawn(2)
    assert drawn(2**63 - 1)


def test_personalise_lowers_perplexity(reference_export: Path, tmp_path: Path) -> None:
    text = tmp_path / "diary.txt"
    text.write_text("On Monday I saw Ada at the old mill. She gave me the red book, and I read it.\n" * 25)
    result = edgehmn("personalise", reference_export, text, "--save-state", "diary", "--json").result
    keys = {"tokens", "before", "after", "online", "writes_per_learned_token", "delta_sha256", "gate"}
    assert result.keys() >= keys and result["gate"].keys() >= {"state", "rollbacks"}
    assert result["after"]["perplexity"] < 0.9 * result["before"]["perplexity"]
    assert result["writes_per_learned_token"] > 0
    [state] = edgehmn("state", "list", "--json").result["states"]
    assert (state["name"], state["learned"]) == ("diary", result["tokens"] // 2 - 1)


def test_personalise_takes_several_files_as_one_text(tiny_export: Path, short_text: Path, tmp_path: Path) -> None:
    text = short_text.read_text("utf-8")
    (tmp_path / "a").write_text(text[:300], "utf-8")
    (tmp_path / "b").write_text(text[300:], "utf-8")
    whole = edgehmn("personalise", tiny_export, short_text, "--json").result
    assert edgehmn("personalise", tiny_export, tmp_path / "a", tmp_path / "b", "--json").result == whole
    folder = tmp_path / "notes"
    (folder / "z" / ".git").mkdir(parents=True)
    (folder / "a.md").write_text(text[:300], "utf-8")
    (folder / "z" / "b.txt").write_text(text[300:], "utf-8")
    (folder / "z" / "c.py").write_bytes(b"\xff no text")
    (folder / "z" / ".git" / "d.txt").write_text("hidden")
    assert edgehmn("personalise", tiny_export, folder, "--json").result == whole


def test_learning_goes_on_from_a_loaded_state(tiny_export: Path, short_text: Path) -> None:
    first = edgehmn("personalise", tiny_export, short_text, "--save-state", "first", "--json").result
    second = edgehmn("personalise", tiny_export, short_text, "--load-state", "first", "--json").result
    assert second["before"] == first["after"] != first["before"]


def test_states_are_saved_listed_and_loaded(
    tiny_export: Path, short_text: Path, tmp_path: Path, states_folder: Path
) -> None:
    assert edgehmn("state", "list", "--json").result == {"states": []}
    kept, back = tmp_path / "kept.ehmd", tmp_path / "back.ehmd"
    assert edgehmn("personalise", tiny_export, short_text, "--save-state", kept).code == 0
    [saved] = edgehmn("state", "save", "mine", "--from", kept, "--json").result["states"]
    assert saved["name"] == "mine" and saved.keys() >= {"name", "image_id", "confirmed", "bytes"}
    assert [p.name for p in states_folder.iterdir()] == ["mine.ehmd"]
    assert edgehmn("state", "list", "--json").result == {"states": [saved]}
    assert edgehmn("state", "load", "mine", "--to", back).code == 0
    assert back.read_bytes() == kept.read_bytes()


def test_state_list_shows_what_is_sound(tiny_export: Path, short_text: Path, states_folder: Path) -> None:
    assert edgehmn("personalise", tiny_export, short_text, "--save-state", "sound").code == 0
    (states_folder / "folder.ehmd").mkdir()
    (states_folder / "cut.ehmd").write_bytes((states_folder / "sound.ehmd").read_bytes()[:-1])
    (states_folder / "notes.txt").write_text("mine", "utf-8")
    assert [s["name"] for s in edgehmn("state", "list", "--json").result["states"]] == ["sound"]


def test_eval_p0_compares_with_float(
    tiny_export: Path, tiny_checkpoint: Path, short_text: Path, tmp_path: Path
) -> None:
    (tmp_path / "test.txt").write_bytes(short_text.read_bytes())
    where = ("eval", "p0", "--model", tiny_export, "--data", tmp_path, "--json")
    result = edgehmn(*where, "--float", tiny_checkpoint).result
    for kind in ("float", "static", "online"):
        assert result[kind].keys() >= {"word_perplexity", "bits_per_byte"}
    assert result["static"]["nats"] == pytest.approx(result["float"]["nats"], rel=0.01)
    assert "online" not in edgehmn(*where, "--static-only").result


def test_eval_excerpts_are_the_same_every_time(tiny_export: Path, short_text: Path, tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_text(short_text.read_text("utf-8") * 40, "utf-8")
    where = ("eval", "excerpts", "--model", tiny_export, "--data", tmp_path, "--excerpts", "2", "--json")
    result = edgehmn(*where).result
    assert len(result["excerpts"]) == 2 and result == edgehmn(*where).result
    assert edgehmn(*where, "--static-only").code == 2


def test_doctor_names_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    checks = {c["name"]: c for c in edgehmn("doctor", "--json").result["checks"]}
    assert all(c.keys() == {"name", "ok", "found", "for", "fix"} for c in checks.values())
    assert checks["numpy"]["ok"] and not checks["onnx"]["ok"] and "edgehmn[onnx]" in checks["onnx"]["fix"]
    assert "edgehmn[onnx]" in edgehmn("doctor").out


def test_doctor_says_what_each_program_is_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))  # beside which programs are looked for, too
    said = edgehmn("doctor").out
    for line in (
        "for flashing STM32 boards through their boot loader: sudo apt-get install stm32flash",
        "for flashing boards through a debug probe: pip install pyocd",
        "for flashing ESP32 boards: pip install esptool",
        "for flashing Linux boards: sudo apt-get install openssh-client",
        "for edgehmn-device for 32-bit Raspberry Pi: sudo apt-get install gcc-arm-linux-gnueabihf",
        "sudo apt-get install clang",
    ):
        assert line in said
    drive = tmp_path / "drives" / "pico"
    drive.mkdir(parents=True)
    monkeypatch.setattr("edgehmn.device.flash.uf2.MOUNTS", (f"{tmp_path}/drives/*",))
    assert "UF2 drive               needs no program" in edgehmn("doctor").out
    (drive / "INFO_UF2.TXT").write_text("UF2 Bootloader v1.0\nBoard-ID: RP2350\n")
    assert f"UF2 drive               RP2350 at {drive}" in edgehmn("doctor").out


def test_version_and_help() -> None:
    assert edgehmn("--version").out.strip() == f"edgehmn, version {__version__}"
    shown = edgehmn("--help")
    assert shown.code == 0
    lines = {line.split()[0] for line in shown.out.splitlines() if line.strip()}
    assert lines >= set(COMMANDS) | {str(code) for code in EXIT_CODES}
    assert edgehmn().code == edgehmn("state").code == 2


def test_help_is_the_same_without_docstrings(tmp_path: Path) -> None:
    """`python -OO`, as some installations run everything."""
    for command in ([], ["run"], ["state"]):
        words = [sys.executable, "-OO", "-m", "edgehmn", *command, "--help"]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True)
        assert done.stdout == finish(process(*command, "--help", cwd=tmp_path)).out


def leaves(name: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    """A command, or all commands of a group, with their names."""
    if isinstance(command, click.Group):
        context = click.Context(command)
        for part in command.list_commands(context):
            inner = command.get_command(context, part)
            assert inner is not None
            yield from leaves(f"{name} {part}".strip(), inner)
    else:
        yield name, command


def test_every_option_has_words_and_its_default_stands_in_them() -> None:
    shown = {}
    for name, command in leaves("", cli):
        context = click.Context(command)
        for option in command.params:
            if isinstance(option, click.Option):
                record = option.get_help_record(context)
                assert record is not None and option.help, f"{name} {option.opts}"
                known = isinstance(option.default, str | int | float | Path) and not option.is_flag
                assert not known or "default" in record[1], f"{name} {option.opts}: {option.default}"
                shown[f"{name} {option.opts[0]}"] = record[1]
    assert len(shown) > 100 and "[default: 60.0; x>=0.1]" in shown["run --timeout"]


def test_defaults_in_words_are_those_of_the_product() -> None:
    helps = {name: edgehmn(*name.split(), "--help").out for name in ("run", "export", "eval")}
    words = {name: " ".join(text.split()) for name, text in helps.items()}
    assert f"by default {DEFAULT_BOARD}," in words["run"] and f"by default {DEFAULT_TILE} " in words["run"]
    assert f"by default {DEFAULT_TILE}." in words["eval"]
    assert (
        DEFAULT_LIMITS == {"image": 1, "onnx": 1, "tflite": 2} and "by default 1, and 2 for TFLite" in words["export"]
    )


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    """Each command's help, in a fresh process: only click is needed to print it."""
    code = f"""
import sys
from edgehmn.cli import main
for command in {[[], *([c] for c in COMMANDS)]!r}:
    try:
        main([*command, "--help"])
    except SystemExit as e:
        assert e.code == 0, command
heavy = {{"numpy", "onnx", "onnxruntime", "ai_edge_litert", "tokenizers", "safetensors", "rich", "edgehmn._core"}}
sys.exit(", ".join(heavy & sys.modules.keys()) or 0)
"""
    done = program(code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_export_leaves_the_old_one(
    number: int,
    tiny_export: Path,
    tiny_checkpoint: Path,
    short_text: Path,
    copy_of: Callable[[Path], Path],
    tmp_path: Path,
) -> None:
    """A real signal to a real process, while it writes."""
    out = copy_of(tiny_export)
    long_text = tmp_path / "long.txt"
    long_text.write_text(short_text.read_text("utf-8") * 1000, "utf-8")
    running = process("export", tiny_checkpoint, "-o", out, "--evaluation", long_text, cwd=tmp_path)
    wait_for(lambda: any(p.name.startswith(".") for p in tmp_path.iterdir()) or running.poll() is not None)
    running.send_signal(number)
    done = finish(running)
    assert done.code == 130 and "interrupted" in done.err and "Traceback" not in done.err
    assert contents(out) == contents(tiny_export)
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


# The command `edgehmn`, interrupted when the nth module of its own is looked for.
INTERRUPTED = """
import os, runpy, signal, sys
at, n = int(sys.argv.pop(1)), 0
class Interrupt:
    def find_spec(self, name, path=None, target=None):
        global n
        n += name == "edgehmn.cli" or n > 0
        if n == at:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupt())
runpy.run_module("edgehmn", run_name="__main__")
"""


def test_an_interrupt_while_it_loads_is_answered_like_any_other(tiny_export: Path, tmp_path: Path) -> None:
    words = ("run", tiny_export, "a", "-n", "1")
    for at in (1, 2, 3, *range(4, 150, 20)):
        done = program(INTERRUPTED, str(at), *words, "--json", cwd=tmp_path)
        assert (done.returncode, done.stderr.strip()) == (130, ""), (at, done)  # click ends the line of ^C
        assert json.loads(done.stdout)["error"]["code"] == 130, (at, done)
    said = program(INTERRUPTED, "1", *words, cwd=tmp_path)
    assert (said.returncode, said.stdout) == (130, "")
    assert said.stderr == "edgehmn run: interrupted; nothing was left half-written\n"
    assert program(INTERRUPTED, "-1", *words, cwd=tmp_path).returncode == 0


def test_what_is_ignored_in_the_background_stays_ignored(tiny_export: Path, tmp_path: Path) -> None:
    done = program(INTERRUPTED, "1", "inspect", tiny_export, cwd=tmp_path, preexec_fn=ignore_interrupts)
    assert (done.returncode, done.stderr) == (0, ""), done


def ignore_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def test_a_reader_that_goes_away_is_no_error(tiny_export: Path, tmp_path: Path) -> None:
    for words in (("inspect", tiny_export), ("--help",), ("run", "--help")):
        reading, writing = os.pipe()
        os.close(reading)
        done = finish(process(*words, cwd=tmp_path, stdout=writing))
        os.close(writing)
        assert (done.code, done.err) == (0, ""), words


def test_lines_that_cannot_be_read_are_no_fault_of_ours(tiny_export: Path, tmp_path: Path) -> None:
    """Standard input that is closed, or no text, in a locale in which Python reads anything."""
    words = shlex.join([sys.executable, "-m", "edgehmn", "personalise", str(tiny_export), "-"])
    environment = os.environ | {"LC_ALL": "C"}
    for end, code, said in ((" <&-", 2, "standard input is closed"), (" <latin", 4, "not UTF-8 text")):
        (tmp_path / "latin").write_bytes(b"a line\nGr\xfc\xdfe\n")
        done = subprocess.run(words + end, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (code, "") and said in done.stderr, done


@pytest.mark.parametrize("option", [[], ["--json"], ["--help"]])
def test_output_that_cannot_be_printed_is_an_error(option: list[str], tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = finish(process("doctor", *option, cwd=tmp_path, stdout=full))
    assert done.code == 13 and done.err.count("standard output") == done.err.count("\n") == 1


@pytest.mark.parametrize("closed", [1, 2])
def test_an_output_that_is_closed(closed: int, tiny_export: Path, tmp_path: Path) -> None:
    """`>&-` and `2>&-`: Python then has no such stream."""
    words = shlex.join([sys.executable, "-m", "edgehmn", "run", str(tiny_export), "a", "-n", "1"])
    done = subprocess.run(f"{words} {closed}>&-", shell=True, cwd=tmp_path, capture_output=True, text=True)
    if closed == 1:
        assert (done.returncode, done.stderr.splitlines()[-1]) == (13, "edgehmn run: standard output: is closed")
    else:
        assert (done.returncode, done.stderr) == (0, "") and done.stdout.startswith("a")


def test_notes_that_nobody_reads_end_no_work(tiny_checkpoint: Path, short_text: Path, tmp_path: Path) -> None:
    """`2>&1 | head -1`, and a full disk under stderr."""
    reading, writing = os.pipe()
    os.close(reading)
    with Path("/dev/full").open("w") as full:
        for n, stderr in enumerate((writing, full)):
            words = ("export", tiny_checkpoint, "-o", tmp_path / str(n), *texts(short_text))
            assert finish(process(*words, cwd=tmp_path, stderr=stderr)).code == 0
            assert (tmp_path / str(n) / "model.ehmn").is_file()
    os.close(writing)


def test_sources_that_are_not_installed_say_so() -> None:
    """`python -m edgehmn` in a checkout finds these first."""
    done = finish(process("doctor", cwd=Path(__file__).parent.parent))
    assert done.code == 10 and "pip install ." in done.err and done.err.count("\n") == 1


def test_a_prompt_may_look_like_an_empty_option(tiny_export: Path) -> None:
    assert edgehmn("run", tiny_export, "-n", "1", "--", "--text=").code == 0


def test_an_option_without_its_value_names_its_command() -> None:
    done = edgehmn("plan", "x", "--target")
    assert done.code == 2 and "'edgehmn plan --help'" in done.err


def test_groups_list_whole_sentences() -> None:
    for group in ("state", "replay"):
        out = edgehmn(group, "--help").out
        assert "..." not in out.partition("Commands:")[2] and out.count(".\n") > 2


def test_a_terminal_without_unicode_still_gets_its_text(tiny_export: Path, tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONIOENCODING": "latin-1"}
    running = process("run", tiny_export, "日", "-n", "1", cwd=tmp_path, env=environment, encoding="latin-1")
    done = finish(running)
    assert done.code == 0 and done.out.startswith("\\u65e5")


def test_interrupted_chips_end_and_finished_ones_are_kept(tiny_export: Path, short_text: Path, tmp_path: Path) -> None:
    """Of an evaluation in several processes."""
    text, out, seeds = tmp_path / "long.txt", tmp_path / "out", 8
    text.write_text(short_text.read_text("utf-8") * 10, "utf-8")
    words = ("eval", "p0", "--model", tiny_export, "--data", text, "--runtime", "tile", "--tokens", "2000")
    running = process(*words, "--seeds", str(seeds), "--jobs", "2", "--output", out, cwd=tmp_path)
    wait_for(lambda: any(out.glob("parts/p0-tile-*")) or running.poll() is not None)
    running.send_signal(signal.SIGINT)
    done = finish(running)
    assert done.code == 130 and "Traceback" not in done.err, done
    assert 1 <= len(list(out.glob("parts/p0-tile-*"))) < seeds


def test_a_name_gives_a_terminal_no_orders(tiny_export: Path, tmp_path: Path) -> None:
    evil = tmp_path / "\x1b]0;title\x07\x9b2J.txt"
    evil.write_text("short")
    for words in (("run", evil, "a"), ("profile", evil, "--target", "host"), ("personalise", tiny_export, f"{evil}?")):
        said = edgehmn(*words).err
        assert "\\x1b]0;title\\x07\\x9b2J" in said
        assert all(c.isprintable() or c == "\n" for c in said)


def test_what_rose_did_not_fall() -> None:
    counts = Counts(0, 0, 0, 0, 0)
    said = [personalisation_text(Personalisation(9, 4.0, after, 4.0, 4.0, counts, b"")) for after in (3.0, 4.0, 5.0)]
    words = [text.split("perplexity ")[-1].split(";")[0] for text in said]
    assert words == ["fell by 25.0 %", "fell by 0.0 %", "rose by 25.0 %"]


def test_nohup_is_heeded(tiny_export: Path, tmp_path: Path) -> None:
    """A session of typed lines, which waits: a terminal that is closed does not end it where SIGHUP is ignored."""
    words = shlex.join([sys.executable, "-m", "edgehmn", "personalise", str(tiny_export), "-"])
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(f"trap '' HUP; exec {words}", shell=True, cwd=tmp_path, text=True, **pipes) as running:
        assert running.stdin is not None and running.stderr is not None
        running.stdin.write("a line that is learned\n")
        running.stdin.flush()
        assert "keys saved" in running.stderr.readline()
        running.send_signal(signal.SIGHUP)
        out, _ = running.communicate("and one more\n", timeout=300)
        assert running.returncode == 0 and out.startswith("lines 1 to 2: ")


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}
