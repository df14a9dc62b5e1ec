"""The evaluation plan: what is measured is what it says, finished parts are kept, what is missing is named."""

import contextlib
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest

from edgehmn.core import CoreModel, Image
from edgehmn.device.emulator import QEMU
from edgehmn.device.firmware import TOOLS
from edgehmn.errors import InvalidFileError, UsageError
from edgehmn.evaluate import text_perplexity
from edgehmn.evaluation import p1, p2, sequences
from edgehmn.evaluation.chats import ChatTokenizer, readings
from edgehmn.evaluation.p0 import p0
from edgehmn.evaluation.p0_tiles import Chips, _at_once
from edgehmn.evaluation.p3 import frozen_image, p3
from edgehmn.evaluation.plan import write
from edgehmn.evaluation.report import markdown, percent
from edgehmn.evaluation.run import Options, Run
from edgehmn.evaluation.sources import Dialogue, Sources, Turn, parse_dialogues, spread
from edgehmn.evaluation.statistics import LEAST_GAIN_NATS, share_of_gain
from edgehmn.evaluation.store import Store
from edgehmn.exported import Export
from edgehmn.runtime.protocol import nats
from edgehmn.streams import LEARN
from edgehmn.targets.memristive.mapping import TileSetup
from edgehmn.texts import CALIBRATION, EVALUATION, shipped
from tests.command_line import edgehmn
from tests.models import random_tokens, tiny_image

absent = [tool for tool in (QEMU, *TOOLS) if shutil.which(tool) is None]
PEOPLE = 12
PARLAI = """\
1 your persona: i like tea.
2 your persona: i run.
3 hello there !\thi , who are you ?\t\tone|two|three
4 a friend .\tgood .
1 your persona: i paint.
2 yes ?\tno .
"""
PLAIN = """\
persona: i like tea. | i run.
them: hello there !
you: hi , who are you ?
them: a friend .
you: good .

persona: i paint.
them: yes ?
you: no .
"""


@pytest.fixture(scope="module")
def image() -> Image:
    return Image(tiny_image())


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All texts of the plan, small enough for a tiny model."""
    folder = tmp_path_factory.mktemp("all") / "data"
    words = ["the", "mill", "saw", "Ada", "at", "nine", "and", "gave", "her", "a", "red", "book"]
    lines = [" ".join(words[i % 7 :: 2]) for i in range(160)]
    files = {
        "wikitext-2/test.txt": "\n".join(lines),
        "wikitext-2/valid.txt": "\n".join(reversed(lines)),
        "ag-news/test.csv": "".join(f'{i % 4},"Title, {i}","{line}"\n' for i, line in enumerate(lines)),
        "persona-chat/valid.txt": "\n".join(chat_text(i) for i in range(PEOPLE)),
        "text-open/gutenberg_part.txt": "\n".join(lines[::-1] * 2),
        "code/a.py": "def f(x):\n    return x + 1\n" * 200,
        "code/b.py": "class A:\n    y = 2\n" * 300,
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, "utf-8")
    return folder


def chat_text(person: int, turns: int = 7) -> str:
    said = [f"them: and {i} ?\nyou: i am {person} , not {i} .\n" for i in range(turns)]
    return "persona: somebody\n" + "".join(said)


@pytest.fixture(scope="module")
def reference_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export of the reference model, its image alone."""
    folder = tmp_path_factory.mktemp("reference") / "export"
    assert edgehmn("export", "reference", "-o", folder).code == 0
    return folder


@pytest.fixture
def run_of(tiny_export: Path, data: Path) -> Callable[..., Run]:
    """A short run on the tiny model."""

    def make(folder: Path | None = None, *, note: Callable[[str], None] = print, **options: Any) -> Run:
        export = Export.open(tiny_export)
        asked = Options(**{"seeds": 1, "tokens": 800, "banks": 2, "bleu": 2} | options)
        sources = Sources((data,), data / "code")
        return Run(export, sources, asked, Store(folder, export.image), no_bar, note)

    return make


@contextlib.contextmanager
def no_bar(label: str, total: int) -> Iterator[Callable[[int], None]]:
    yield lambda _: None


# Texts


def test_both_forms_of_persona_chat_say_the_same() -> None:
    assert parse_dialogues(PARLAI) == parse_dialogues(PLAIN)
    first, second = parse_dialogues(PLAIN)
    assert first[:2] == (Turn("them", "hello there !"), Turn("you", "hi , who are you ?"))
    assert (len(first), len(second)) == (4, 2)
    assert parse_dialogues("nothing said\n") == []


def test_news_come_as_csv_or_text(data: Path, tmp_path: Path) -> None:
    news = Sources((data,)).news()
    assert news.startswith("Title, 0\nthe saw at and her red\n\nTitle, 1\n")
    (tmp_path / "ag-news").mkdir()
    (tmp_path / "ag-news" / "test.txt").write_text(news, "utf-8")
    assert Sources((tmp_path,)).news() == news
    (tmp_path / "ag-news" / "test.txt").rename(tmp_path / "ag-news" / "test.csv")
    with pytest.raises(InvalidFileError, match="class, a title"):
        Sources((tmp_path,)).news()


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    sources = Sources((tmp_path,))
    for read, name in (
        (sources.news, "ag-news/test.txt"),
        (sources.dialogues, "persona-chat"),
        (sources.books, "text-open/gutenberg"),
        (lambda: sources.wikitext("valid"), "wikitext-2/valid.txt"),
        (sources.test_text, "wikitext-2/test.txt"),
        (Sources(()).test_text, "--data"),
        (Sources((tmp_path / "no",)).test_text, "no such"),
        (lambda: Sources((tmp_path,), tmp_path / "gone").code(10, 0), "--code"),
        (lambda: Sources((tmp_path,), tmp_path).code(10, 0), "Python modules"),
    ):
        with pytest.raises(UsageError, match=name):
            read()


def test_the_text_of_p0_is_found_in_each_usual_place(tmp_path: Path) -> None:
    (tmp_path / "wikitext-2").mkdir()
    path = tmp_path / "wikitext-2" / "wiki.test.tokens"
    path.write_text("a b\n", "utf-8")
    for place in (tmp_path, tmp_path / "wikitext-2", path):
        assert Sources((place,)).test_text() == (path.name, "a b\n")
    with pytest.raises(UsageError, match="one --data"):
        Sources((tmp_path, path)).test_text()
    path.write_text(" \n", "utf-8")
    with pytest.raises(UsageError, match="empty"):
        Sources((tmp_path,)).test_text()


def test_code_of_two_shares_has_no_module_in_common(data: Path) -> None:
    sources = Sources((data,), data / "code")
    assert "def f" in sources.code(100, 0) and "class A" not in sources.code(100, 0)
    assert "class A" in sources.code(100, 1) and "def f" not in sources.code(100, 1)
    assert len(Sources(()).code(50_000, 0)) >= 50_000, "the standard library is there by default"


def test_spread_takes_every_item_once() -> None:
    for n in (0, 1, 2, 5, 8, 13):
        items = [Path(str(i)) for i in range(n)]
        assert sorted(spread(items)) == sorted(items)
    assert [int(p.name) for p in spread([Path(str(i)) for i in range(8)])] == [0, 4, 2, 6, 1, 5, 3, 7]


# Chats


def dialogue(turns: int) -> Dialogue:
    return tuple(Turn(("them", "you")[i % 2], f"turn {i}") for i in range(turns))


def test_a_chat_knows_its_turns_and_words(tiny_export: Path) -> None:
    export = Export.open(tiny_export)
    chat = ChatTokenizer(export).chat(dialogue(3))
    assert export.decode(chat.ids) == "them: turn 0\nyou: turn 1\nthem: turn 2\n"
    assert export.decode(chat.ids[chat.words & (chat.turn == 1)]) == " turn 1\n"
    assert chat.first.sum() == 6
    assert export.decode(chat.ids[chat.begin_of(2) :]) == "them: turn 2\n"
    assert chat.begin_of(3) == len(chat.ids)


def test_readings_score_what_comes_after_the_last_turn_that_is_learned(tiny_export: Path) -> None:
    export = Export.open(tiny_export)
    chats = [ChatTokenizer(export).chat(dialogue(n)) for n in (16, 16, 16, 9)]
    own, both = readings(chats, (0, 2, 4, 6, 8))
    assert (own.name, own.turns, both.name, both.turns) == ("own", (0, 2, 4, 6), "chat", (0, 2, 4, 6, 8))
    assert export.decode(chats[0].ids[own.scored(chats[0])]) == " turn 13\n turn 15\n"
    assert export.decode(chats[0].ids[both.scored(chats[0])]).startswith(" turn 8\n turn 9\n")
    learned = chats[0].ids[(own.modes(chats[0], LEARN) == LEARN)]
    assert export.decode(learned).startswith("you: turn 1\nyou: turn 3\n")
    assert own.place(chats[0], 0) == 0 and own.place(chats[0], 2) == chats[0].begin_of(4)
    assert [own.suits(c) for c in chats] == [True, True, True, False]
    assert readings([ChatTokenizer(export).chat(dialogue(2))], (0, 2)) == []


def test_learning_is_ahead_from_where_it_stays_ahead() -> None:
    curve = np.array([[9, 5.0, 5.5], [9, 5.0, 4.5], [9, 5.0, 5.1], [9, 5.0, 4.0], [2, 1.0, 9.0]])
    assert p1._ahead(curve) == 60
    assert p1._ahead(curve[:3]) is None
    assert p1._ahead(curve[3:]) == 0


# The parts of the plan


def test_p0_is_the_perplexity_of_the_stream(run_of: Callable[..., Run], data: Path) -> None:
    run = run_of(seeds=2, tokens=None)
    result = p0(run)
    text = (data / "wikitext-2" / "test.txt").read_text("utf-8")
    for name, learn in (("static", False), ("online", True)):
        p = text_perplexity(CoreModel(run.export.image), run.export.encode, text, learn=learn)
        assert result[name]["words"] == p.words
        measured = result["static"] if name == "static" else result["seeds"][0]["online"]
        assert measured["nats"] == pytest.approx(p.nats, rel=1e-12)
    assert result["online"]["nats"] == pytest.approx(np.mean([s["online"]["nats"] for s in result["seeds"]]))
    low, high = result["interval_95"]["word_perplexity_ratio"]
    ratio = result["online"]["word_perplexity"] / result["static"]["word_perplexity"]
    assert low - 1e-9 <= ratio <= high + 1e-9
    assert len(result["frozen"]["following"]["differences"]) >= 1


def test_p0_by_another_runtime_says_the_same_of_its_own_scores(run_of: Callable[..., Run]) -> None:
    onnx, host = (p0(run_of(runtime=r, tokens=300)) for r in ("onnx", "host"))
    assert onnx["static"]["nats"] == pytest.approx(host["static"]["nats"], rel=0.02)
    assert onnx["online"].keys() == host["online"].keys() and "frozen" not in onnx


def test_p0_on_tiles_stands_beside_the_digital_core(run_of: Callable[..., Run], tmp_path: Path) -> None:
    host = p0(run_of(seeds=2, tokens=200))
    ideal = p0(run_of(tmp_path, runtime="tile", target="ideal", seeds=2, tokens=200, tiles=TileSetup(threshold=1)))
    for key in ("static", "online"):
        assert ideal[key] == ideal["digital"][key] == host[key], "an ideal tile is the core"
    assert ideal["gain_kept"] == ideal["gain_against_digital"] == pytest.approx([1, 1], abs=0.2)
    hermes = p0(run_of(tmp_path, runtime="tile", target="hermes", seeds=2, tokens=200))
    assert hermes["digital"] == ideal["digital"] and hermes["static"]["nats"] != host["static"]["nats"]
    assert hermes["seeds"][0] != hermes["seeds"][1], "another seed is another chip"
    assert 0 < hermes["tile"]["plasticity_share_of_energy"] < 1 and 0 < hermes["tile"]["adc_share_of_energy"] < 1
    again = p0(run_of(tmp_path, runtime="tile", target="hermes", seeds=2, tokens=200, note=pytest.fail))
    assert again == hermes
    assert p0(run_of(runtime="tile", target="hermes", seeds=2, tokens=200, jobs=2)) == hermes, "at once, the same"
    adapters = p0(run_of(runtime="tile", target="hermes", tokens=200, tiles=TileSetup("adapters")))
    assert adapters["static"] == host["static"] and adapters["online"] != host["online"]
    still = p0(run_of(runtime="tile", target="hermes", tokens=200, static_only=True))
    assert "online" not in still and still["static"]["nats"] == pytest.approx(hermes["static"]["nats"], rel=0.02)
    with pytest.raises(UsageError, match="nothing lies on tiles"):
        p0(run_of(runtime="tile", tokens=200, static_only=True, tiles=TileSetup("adapters")))
    assert "simulated, calibrated to HERMES" in markdown({"p0": hermes}) and "by seed" in markdown({"p0": hermes})
    assert "static" in markdown({"p0": still})


@dataclass(frozen=True)
class SlowChips:
    """Of which all but the first take longer than anybody waits."""

    folder: Path
    ids: tuple[int, ...] = (1, 2, 3)
    static_only: bool = True

    def part(self, seed: int) -> dict[str, Any]:
        (self.folder / str(seed)).touch()
        time.sleep(0 if seed == 0 else 300)
        return {"seed": seed}


def test_chips_at_once_are_had_one_by_one_and_end_with_what_interrupts_them(tmp_path: Path) -> None:
    counted: list[int] = []
    began = time.monotonic()
    with (
        pytest.raises(KeyboardInterrupt),
        _at_once(cast(Chips, SlowChips(tmp_path)), [0, 1, 2, 3], 2, counted.append) as part,
    ):
        assert part(0) == {"seed": 0} and counted == [6]
        while not (tmp_path / "1").exists():
            assert time.monotonic() - began < 100
            time.sleep(0.01)
        raise KeyboardInterrupt
    assert time.monotonic() - began < 150 and not (tmp_path / "3").exists()


def test_a_frozen_snapshot_is_what_was_learned_so_far(run_of: Callable[..., Run]) -> None:
    result = p0(run_of(tokens=800))
    run = run_of()
    ids = run.export.encode(run.sources.test_text()[1])[:800]
    model = CoreModel(run.export.image)
    model.process(ids[:400], learn=True)
    after = nats(model.process(ids[400:600], learn=False, follow=True)) / 200
    static = nats(CoreModel(run.export.image).process(ids[:600], learn=False)[400:]) / 200
    assert result["frozen"]["following"]["differences"][0] == pytest.approx(after - static, abs=0.02)


def test_p1_compares_conditions_on_the_same_turns(run_of: Callable[..., Run]) -> None:
    result = p1.p1(run_of(tokens=None, seeds=2))
    assert result.keys() >= {"gain_nats", "forgetting_nats", "recovery_tokens", "seeds", "interval_95", "bleu"}
    assert result["readings"].keys() == {"own", "chat"} and len(result["seeds"]) == 2
    for reading in result["readings"].values():
        frozen = reading["frozen"]
        assert frozen[0]["perplexity"] == pytest.approx(reading["others"]["perplexity"])
        assert frozen[0]["change_percent"] == 0 and [f["n"] for f in frozen] == reading["turns"]
        last = frozen[-1]["perplexity"]
        assert reading["gain_nats"] == pytest.approx(np.log(reading["others"]["perplexity"] / last))
        low, high = reading["interval_95"]["gain_nats"]
        assert low <= reading["gain_nats"] <= high
        assert all(0 <= v <= 1 for v in reading["accuracy"].values())
        assert reading["stranger"]["n"] == reading["turns"][-1] and reading["stranger"]["perplexity"] != last
        assert reading["others_and_cache"][0]["perplexity"] == pytest.approx(reading["others"]["perplexity"])
    assert "tok:13a" in result["bleu"]["signature"] and result["bleu"]["turns"] > 0


def test_p1_says_when_there_are_too_few_dialogues(run_of: Callable[..., Run]) -> None:
    with pytest.raises(UsageError, match="at least 8"):
        p1.p1(run_of(tokens=500))


def test_p2_measures_each_sequence(run_of: Callable[..., Run]) -> None:
    result = p2.p2(run_of(tokens=400))
    assert result.keys() >= {"gain_nats", "forgetting_nats", "recovery_tokens", "seeds", "interval_95"}
    assert [(n, s["tuned"]) for n, s in result["sequences"].items()] == [
        ("news-code", True), ("chat-wikipedia", False), ("books-code", False),
    ]  # fmt: skip
    for sequence in result["sequences"].values():
        assert sequence["banks"].keys() == {"1", "2"}
        for s in sequence["banks"].values():
            frozen = [v["a"] for v in s["frozen_loss"]["after_each_visit"]]
            assert s["forgetting_nats"] == pytest.approx(frozen[1] - frozen[0])
            low, high = s["interval_95"]["forgetting_nats"]
            assert low <= s["forgetting_nats"] + 1e-9 and s["forgetting_nats"] <= high + 1e-9
            assert [w["tokens"] for w in s["a_returns"]] == [[0, 4], [4, 12], [12, 80]]
            for w in s["a_returns"] + s["b_returns"]:
                assert w["share"] == share_of_gain(w["gain_nats"], w["uninterrupted_gain_nats"])
            assert len(s["topics"]["delays_tokens"]) == 1


def test_there_is_no_share_of_next_to_nothing() -> None:
    assert share_of_gain(0.05, LEAST_GAIN_NATS) == 0.05 / LEAST_GAIN_NATS
    assert share_of_gain(-0.23, 0.99 * LEAST_GAIN_NATS) is share_of_gain(1, 0) is share_of_gain(1, -1) is None
    assert (percent(0.9951), percent(-0.2), percent(None)) == ("100 %", "-20 %", "-")


def test_p2_leaves_out_what_has_no_text_and_says_so(run_of: Callable[..., Run], data: Path, tmp_path: Path) -> None:
    shutil.copytree(data / "ag-news", tmp_path / "ag-news")
    notes: list[str] = []
    run = run_of(note=notes.append, tokens=400)
    alone = Run(run.export, Sources((tmp_path,), data / "code"), run.options, run.store, no_bar, notes.append)
    assert list(p2.p2(alone)["sequences"]) == ["news-code"]
    assert len(notes) == 2 and "persona-chat" in notes[0] and "books" in notes[1]


def test_topics_are_told_by_their_first_change_after_a_boundary() -> None:
    part = {"changes": [50, 130, 170, 330], "changes_a": [7], "changes_b": [], "bank": [0, 1, 0, 1]}
    topics = p2._topics([part], 100)
    assert topics["delays_tokens"] == [[30, None, 30]]
    assert topics["false_alarms_in_sequence_per_20000"] == 20_000 * 2 / 400
    assert topics["false_alarms_of_one_topic_per_20000"] == 20_000 * 1 / 400


def test_recovery_is_when_the_gain_is_back() -> None:
    lack = np.array([1.0] * 30 + [0.0] * 70)
    assert sequences._recovery(lack, 5) == 30
    assert sequences._recovery(np.ones(50), 5) == 50
    assert sequences._recovery(np.zeros(50), 5) == 0


def test_p3_counts_what_learning_adds(run_of: Callable[..., Run], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    notes: list[str] = []
    result = p3(run_of(note=notes.append))
    macs = result["macs_per_token"]
    assert 0 < macs["static"] < macs["predicted"] < macs["learned"]
    of_learned = 1 - macs["predicted"] / macs["learned"]
    assert 0 < result["plasticity_share_of_macs"] == pytest.approx(of_learned)
    assert 0 < result["adapters_share_of_macs"] == pytest.approx(1 - macs["static"] / macs["learned"] - of_learned)
    sizes = result["bytes"]
    assert sizes["arena_added"] == sizes["arena_plastic"] - sizes["arena_static"] > 0
    assert sizes["banks_2"] >= 2 * sizes["delta"]
    assert result["emulated"] is None and "qemu" in notes[0]


@pytest.mark.skipif(bool(absent), reason=f"not run here: {', '.join(absent)} missing")
def test_p3_prices_instructions_of_a_board(run_of: Callable[..., Run]) -> None:
    result = p3(run_of(tokens=100))
    counts, energy = result["emulated"]["instructions_per_token"], result["energy_modelled"]
    assert 0 < counts["static"] < counts["predicted"] < counts["learned"]
    assert 0 < energy["plasticity_share"] == pytest.approx(1 - counts["predicted"] / counts["learned"])
    added = (counts["predicted"] - counts["static"]) / counts["learned"]
    assert 0 < energy["adapters_share"] == pytest.approx(added)
    assert energy["millijoules_per_token"]["static"] == pytest.approx(
        counts["static"] * energy["nanojoules_per_instruction"] * 1e-6
    )


def test_the_frozen_image_computes_the_frozen_model(image: Image) -> None:
    ids = random_tokens(60)
    scores = CoreModel(frozen_image(image)).process(ids, learn=True)
    assert scores.tolist() == CoreModel(image, plastic=False).process(ids, learn=False).tolist()


# What is kept


def test_a_part_is_computed_once(tmp_path: Path, image: Image) -> None:
    calls: list[int] = []

    def compute() -> dict[str, Any]:
        calls.append(1)
        return {"x": len(calls)}

    store = Store(tmp_path, image)
    assert not store.has("a", {"seed": 0})
    assert [Store(tmp_path, image).part("a", {"seed": 0}, compute) for _ in range(2)] == [{"x": 1}, {"x": 1}]
    assert store.has("a", {"seed": 0})
    assert store.part("a", {"seed": 1}, compute) == {"x": 2}
    assert Store(tmp_path, Image(tiny_image(seed=4))).part("a", {"seed": 0}, compute) == {"x": 3}
    for kept in (tmp_path / "parts").iterdir():
        kept.write_text(kept.read_text("utf-8")[:-3], "utf-8")
    assert store.part("a", {"seed": 0}, compute) == {"x": 4}
    assert [Store(None, image).part("a", {"seed": 0}, compute) for _ in range(2)] == [{"x": 5}, {"x": 6}]


def test_an_interrupted_run_goes_on(
    run_of: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = p2.p2(run_of(tokens=400, seeds=2))
    learn, seen = p2.learn_sequence, []

    def interrupted(*arguments: Any) -> dict[str, Any]:
        if len(seen) == 5:
            raise KeyboardInterrupt
        seen.append(arguments)
        return learn(*arguments)

    monkeypatch.setattr(p2, "learn_sequence", interrupted)
    with pytest.raises(KeyboardInterrupt):
        p2.p2(run_of(tmp_path, tokens=400, seeds=2))
    monkeypatch.setattr(p2, "learn_sequence", lambda *a: (seen.append(a), learn(*a))[1])
    assert p2.p2(run_of(tmp_path, tokens=400, seeds=2)) == whole
    assert len(seen) == 12


def test_results_of_all_parts_stand_together(run_of: Callable[..., Run], tmp_path: Path) -> None:
    run = run_of(tmp_path, tokens=None)
    first = {"p0": p0(run)}
    second = {"p1": p1.p1(run_of(tmp_path, tokens=None))}
    write(first, run.export.image.id, tmp_path, print)
    paths = write(second, run.export.image.id, tmp_path, print)
    assert {p.name for p in paths} == {"results.json", "table.md", "p0.svg", "p0.png", "p1.svg", "p1.png"}
    assert json.loads((tmp_path / "results.json").read_text("utf-8")).keys() == {"image_id", "p0", "p1"}
    assert (tmp_path / "table.md").read_text("utf-8") == markdown(first | second) + "\n"
    assert (tmp_path / "p1.svg").read_text("utf-8").startswith("<?xml")
    write(first, "another", tmp_path, print)
    assert json.loads((tmp_path / "results.json").read_text("utf-8")).keys() == {"image_id", "p0"}


# The command


def test_all_by_the_command_line(tiny_export: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "results"
    command = ["eval", "all", "--model", tiny_export, "--data", data, "--code", data / "code", "--output", out]
    command += ["--seeds", "1", "--tokens", "3000", "--banks", "2", "--bleu", "1"]
    result = edgehmn(*command, "--json").result
    assert result.keys() == {"p0", "p1", "p2", "p3"}
    assert result["p0"]["static"].keys() >= {"word_perplexity", "bits_per_byte"}
    for part in ("p1", "p2"):
        assert result[part].keys() >= {"gain_nats", "forgetting_nats", "recovery_tokens", "seeds", "interval_95"}
    for suffix in ("svg", "png"):
        assert {p.name for p in out.glob(f"*.{suffix}")} == {f"p{i}.{suffix}" for i in range(4)}
    again = edgehmn(*command)
    assert again.code == 0 and "### P2" in again.out and str(out / "table.md") in again.out


def test_plots_and_bleu_name_what_they_need(
    tiny_export: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("matplotlib", "sacrebleu.metrics"):
        monkeypatch.setitem(sys.modules, name, None)
    command = ["eval", "p1", "--model", tiny_export, "--data", data, "--seeds", "1", "--output", tmp_path / "out"]
    missing = edgehmn(*command)
    assert missing.code == 10 and "edgehmn[eval]" in missing.err
    done = edgehmn(*command, "--bleu", "0")
    assert done.code == 0 and "edgehmn[report]" in done.err and (tmp_path / "out" / "table.md").exists()


def test_options_of_p0_go_with_p0(tiny_export: Path, data: Path) -> None:
    done = edgehmn("eval", "p2", "--model", tiny_export, "--data", data, "--static-only")
    assert done.code == 2 and "p0" in done.err


def test_help_says_where_the_texts_come_from() -> None:
    shown = edgehmn("eval", "--help").out
    for name in ("wikitext-2/test.txt", "persona-chat/*.txt", "ag-news/test.csv", "--code DIR"):
        assert name in shown


# The short form, on what ships with the package


def test_the_reference_model_learns_and_a_snapshot_of_it_is_worth_something(
    reference_folder: Path, tmp_path: Path
) -> None:
    """10,000 tokens of public-domain text: the evaluation excerpt and a part of the calibration text."""
    (tmp_path / "test.txt").write_text(shipped(EVALUATION) + shipped(CALIBRATION), "utf-8")
    where = ("eval", "p0", "--model", reference_folder, "--data", tmp_path, "--seeds", "1", "--tokens", "10000")
    result = edgehmn(*where, "--json").result
    assert result["tokens"] == 10_000 and result["p0"]["online"] == result["online"]
    assert result["online"]["word_perplexity"] < 0.95 * result["static"]["word_perplexity"]
    assert result["worst_window_nats"] < 0
    frozen: dict[str, npt.ArrayLike] = result["frozen"]["following"]
    assert frozen["worst_percent"] < 0.5
