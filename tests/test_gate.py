"""The gate: destructive streams leave ordinary text as it was, honest ones keep their gain, what is refused says so.
The full form, with its figures: bench/gate.py."""

import hashlib
import io
import json
import shutil
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from bench.gate import Ids, attack, destructive
from edgehmn.banks import BankedModel, join, split
from edgehmn.checkpoint import Checkpoint
from edgehmn.core import CoreModel, Image, ffi
from edgehmn.delta import Delta, sealed
from edgehmn.device.server import Server
from edgehmn.errors import EdgeHMNError, InvalidFileError
from edgehmn.gate import KNOWN_TOKENS, LIMIT_PERCENT, STEPS, guard_rise, judge, one_class, saturated, settle
from edgehmn.learn import personalise
from edgehmn.runtime.device import DeviceRuntime
from edgehmn.states import save
from edgehmn.texts import PERSONAL, shipped
from tests.command_line import Result
from tests.models import TINY, opened, random_tokens, tiny_image, with_settings
from tests.test_flash import needs_tools

Cli = Callable[..., Result]
TOKENS, ONE = 1200, 65536


@pytest.fixture(scope="module")
def image(reference_image: bytes) -> Image:
    return opened(reference_image)


def rise_percent(image: Image, state: bytes) -> float:
    """Of the guard's perplexity over that of a model that has learned nothing."""
    fresh, learned = CoreModel(image), CoreModel(image)
    learned.load(state)
    n = int(image.header.n_guard)
    bits = sum(learned.guard_score(i) - fresh.guard_score(i) for i in range(n)) / n / 65536
    return float(100 * (2**bits - 1))


def test_destructive_streams_leave_ordinary_text_as_it_was(image: Image, reference: Checkpoint) -> None:
    verdicts = {}
    for name, ids in destructive(reference.encode, image.vocab_size, shipped(PERSONAL), TOKENS, []):
        verdict, _, learned, kept = attack(image, ids)
        assert len(ids) == TOKENS
        assert rise_percent(image, learned) == pytest.approx(verdict.rise_percent)
        assert verdict.rise_percent > 10 or "repeated" in name, f"{name} destroys nothing"  # what repeats is foreseen
        assert rise_percent(image, kept) <= LIMIT_PERCENT, name
        verdicts[name] = verdict.state
    assert verdicts.pop("one line repeated") == verdicts.pop("one token repeated") == "one class"
    assert set(verdicts.values()) == {"settled"} and len(verdicts) == 4


def test_an_honest_text_keeps_its_gain(image: Image, reference: Checkpoint) -> None:
    ids = reference.encode(shipped(PERSONAL))
    without, gated = personalise(CoreModel(image), ids), personalise(CoreModel(image), ids, gate=image)
    assert gated.verdict is not None and gated.verdict.state == "settled"
    assert gated.before == without.before and gated.online == without.online
    assert np.log(gated.before / gated.after) > 0.95 * np.log(without.before / without.after) > 0.5
    assert rise_percent(image, without.delta) > 2 * LIMIT_PERCENT > 2 * rise_percent(image, gated.delta)
    a, b = Delta.read(image, without.delta), Delta.read(image, gated.delta)
    for name in ("dense", "rows", "bias", "ngrams", "keys", "tokens"):
        assert np.array_equal(getattr(a, name), getattr(b, name)), "nothing is forgotten"
    assert not np.array_equal(a.gains, b.gains)


def learned_badly(image: Image, ids: Ids | None = None) -> bytes:
    model = CoreModel(image)
    model.process(random_tokens(400, image.vocab_size) if ids is None else ids, learn=True)
    return model.save()


def with_gains(delta: bytes, kept: int) -> bytes:
    """SPEC.md, "Settling": the delta with `kept` of STEPS parts of its gains."""
    out = bytearray(delta)
    gains = ffi.from_buffer("ehmn_delta *", out).gains
    gains.scale = ONE + (gains.scale - ONE) * kept // STEPS
    gains.bias = gains.bias * kept // STEPS
    for values in (gains.row, gains.dense, *gains.ngram, gains.share):
        for i, value in enumerate(list(values)):
            values[i] = max(value * kept // STEPS, 66 if values == gains.share else -(2**31))
    return sealed(out)


def test_settling_keeps_as_much_as_the_limit_allows(image: Image) -> None:
    learned = learned_badly(image)
    settled, kept = settle(image, learned)
    n = round(kept * STEPS)
    assert 0 < n < STEPS and settled == with_gains(learned, n)
    assert rise_percent(image, settled) <= LIMIT_PERCENT < rise_percent(image, with_gains(learned, n + 1))
    assert settle(image, settled) == (settled, 1.0), "what is settled stays as it is"
    assert with_gains(learned, STEPS) == learned
    assert guard_rise(image, with_gains(learned, 0)) == 0, "without gains it is the frozen model"
    fresh = CoreModel(image).save()
    assert settle(image, fresh) == (fresh, 1.0)
    model = CoreModel(image)
    model.load(learned)
    model.process(random_tokens(30, image.vocab_size), learn=False, follow=True)
    assert model.settle() == n
    model.reset()
    assert Delta.read(image, model.save()).gains.tolist() == Delta.read(image, settled).gains.tolist(), (
        "not of following"
    )
    with pytest.raises(EdgeHMNError, match="E_STATE"):
        CoreModel(image, plastic=False).settle()


def test_each_bank_is_settled(image: Image) -> None:
    good, bad = CoreModel(image).save(), learned_badly(image)
    settled, kept = settle(image, join([bad, good]))
    assert split(settled) == [settle(image, bad)[0], good] and kept == settle(image, bad)[1]
    assert guard_rise(image, join([good, bad])) == guard_rise(image, bad) > guard_rise(image, settled)
    BankedModel(image, banks=2).load(settled)


def test_an_image_without_a_guard_is_not_judged_by_it() -> None:
    image = opened(tiny_image(TINY, n_guard=0))
    learned = learned_badly(image)
    assert settle(image, learned) == (learned, 1.0)
    assert judge(image, learned, np.full(400, 8 << 16, np.uint32))[0].state == "ok"


def test_saturation_is_caught(image: Image) -> None:
    fresh = CoreModel(image).save()
    n = Delta.read(image, fresh).dense.size
    assert saturated(image, learned_badly(image)) < 0.001
    full = bytearray(fresh)
    start = ffi.sizeof("ehmn_delta")
    full[start : start + 2 * (n // 80)] = b"\x7f\x81" * (n // 80)
    assert saturated(image, sealed(full)) == pytest.approx(0.025, rel=0.01)
    verdict, _ = judge(image, sealed(full), np.full(10, 8 << 16, np.uint32))
    assert verdict.refused and verdict.state == "saturated"
    with pytest.raises(InvalidFileError):
        saturated(image, bytes(full[:-1]))


def test_a_stretch_that_teaches_nothing_is_found() -> None:
    scores = np.full(1000, 5 << 16, np.uint32)
    assert one_class(scores) is None
    scores[300 : 300 + KNOWN_TOKENS] = 6000
    assert one_class(scores) == 300
    scores[400] = 32 << 16
    assert one_class(scores) is None
    assert one_class(np.zeros(KNOWN_TOKENS - 1, np.uint32)) is None
    assert one_class(np.zeros(KNOWN_TOKENS, np.uint32)) == 0


def test_one_line_over_and_over_is_refused(run_cli: Cli, reference_export: Path, tmp_path: Path,
                                          monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    text, state = tmp_path / "lines.txt", tmp_path / "lines.ehmd"
    text.write_text("over-and-over-and-over-and-over-and-over-again\n" * 180, "utf-8")
    command = ("personalise", reference_export, text, "--save-state", state, "--json")
    done = run_cli(*command)
    error = done.envelope["error"]
    assert (done.code, error["detail"]["gate"]["state"], state.exists()) == (11, "one class", False)
    assert "before is there again" in error["message"] and error["detail"]["saved"] is None
    assert error["detail"]["after"] == error["detail"]["before"], "nothing of it is left"
    assert not list(tmp_path.glob("*.part"))
    assert "not judged by the gate" in run_cli(*command[:-1], "--no-gate").out
    assert run_cli(*command, "--no-gate").result["gate"] == {"state": "off", "rollbacks": 0}
    assert state.is_file()
    monkeypatch.setattr(sys, "stdin", io.StringIO("over-and-over-and-over-and-over-and-over-again\n" * 100))
    done = run_cli("personalise", reference_export, "-", "--save-state", tmp_path / "live.ehmd", "--json")
    assert (done.code, done.envelope["error"]["detail"]["gate"]["state"]) == (11, "one class")
    assert (tmp_path / "live.ehmd").read_bytes() == CoreModel(
        opened((reference_export / "model.ehmn").read_bytes())
    ).save()


def test_a_state_and_a_device_can_be_settled_later(run_cli: Cli, tiny_export: Path, tmp_path: Path) -> None:
    image = opened((tiny_export / "model.ehmn").read_bytes())
    bad, state = learned_badly(image, random_tokens(150, 3)), tmp_path / "bad.ehmd"
    settled, share = settle(image, bad)
    assert share < 1
    state.write_bytes(bad)
    result = run_cli("state", "settle", tiny_export, "--name", state, "--json").result
    assert (result["state"], result["gains_kept"], state.read_bytes()) == ("settled", share, settled)
    assert run_cli("state", "settle", tiny_export, "--name", state, "--json").result["state"] == "ok"
    with Server(tiny_export / "model.ehmn") as server:
        with closing(DeviceRuntime(server.url)) as board:
            board.load(bad)
        said = run_cli("state", "settle", tiny_export, "--port", server.url).out
        assert "was settled" in said and "of the gains at rest that are kept" in said
        with closing(DeviceRuntime(server.url)) as board:
            assert board.save() == settled
    full = bytearray(bad)
    start = ffi.sizeof("ehmn_delta")
    full[start : start + 100] = b"\x7f" * 100
    state.write_bytes(sealed(full))
    done = run_cli("state", "settle", tiny_export, "--name", state)
    assert (done.code, "limit" in done.err, state.read_bytes()) == (11, True, bytes(full))
    assert run_cli("state", "settle", tiny_export).code == 2
    save("other", CoreModel(opened(tiny_image(TINY))).save())
    done = run_cli("state", "settle", tiny_export, "--name", "other")
    assert (done.code, "was learned with another image" in done.err) == (4, True)


# ---- A device that says that it rolled back


@pytest.fixture(scope="module")
def wild(tiny_export: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export whose model learns far too fast, and whose guard allows next to nothing."""
    folder = Path(shutil.copytree(tiny_export, tmp_path_factory.mktemp("wild") / "export"))
    file, manifest = folder / "model.ehmn", json.loads((folder / "manifest.json").read_text("utf-8"))
    data = with_settings(file.read_bytes(), {"rule.guard_limit": 1, "rule.eta_local": 1 << 21})
    file.write_bytes(data)
    for artefact in manifest["artefacts"]:
        if artefact["path"] == file.name:
            artefact.update(bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
    (folder / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    return folder


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text of letters that the guard's does not have."""
    path = tmp_path_factory.mktemp("foreign") / "text.txt"
    path.write_text("".join(np.random.default_rng(1).choice(list("QWXZ#@~^"), 800)), "utf-8")
    return path


def refused(done: Result) -> None:
    detail = done.envelope["error"]["detail"]
    assert (done.code, detail["gate"]["state"]) == (11, "rolled back"), done
    assert detail["gate"]["rollbacks"] > 0 and detail["after"] == detail["before"]


def test_the_host_says_that_it_rolled_back(run_cli: Cli, wild: Path, foreign: Path, tmp_path: Path) -> None:
    state = tmp_path / "x.ehmd"
    refused(run_cli("personalise", wild, foreign, "--json", "--save-state", state))
    assert not state.exists()
    done = run_cli("personalise", wild, foreign, "--json", "--save-state", state, "--no-gate")
    assert (done.code, state.is_file()) == (11, True), "without the gate, what was learned since is kept"
    assert str(state) in done.envelope["error"]["message"]


def test_a_server_says_that_it_rolled_back(run_cli: Cli, wild: Path, foreign: Path) -> None:
    with Server(wild / "model.ehmn") as server:
        where = ("--runtime", "device", "--port", server.url)
        refused(run_cli("personalise", wild, foreign, "--json", *where))
        assert run_cli("run", wild, "abc", "-n", "3", "--json", *where).code == 0


@needs_tools
def test_an_emulated_board_says_that_it_rolled_back(run_cli: Cli, wild: Path, foreign: Path) -> None:
    refused(run_cli("personalise", wild, foreign, "--json", "--runtime", "emulator"))


def test_run_fails_when_the_runtime_rolled_back(
    run_cli: Cli, tiny_export: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = CoreModel.counts
    monkeypatch.setattr(
        CoreModel, "counts", lambda self: type(c := counts(self))(c.steps, c.learned, c.writes, c.macs, 2)
    )
    done = run_cli("run", tiny_export, "abc", "-n", "3", "--json")
    error = done.envelope["error"]
    assert (done.code, "2 times" in error["message"]) == (11, True) and len(error["detail"]["text"])
