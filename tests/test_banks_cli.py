"""Banks as an option of run and personalise, and the states that several banks leave behind."""

import zlib
from pathlib import Path

import pytest

from edgehmn import banks, states
from edgehmn.banks import BankedModel, join, open_core, split
from edgehmn.cli.learning import MAX_BANKS
from edgehmn.core import CoreModel
from edgehmn.errors import InvalidFileError
from edgehmn.exported import Export
from tests.command_line import Result, edgehmn


def personalise(export: Path, text: Path, *options: str | Path) -> Result:
    return edgehmn("personalise", export, text, "--json", *options)


@pytest.fixture(scope="module")
def taught(tiny_export: Path, short_text: Path) -> BankedModel:
    """Three banks that hold different things, of room for four; the present one is not the first."""
    opened = Export.open(tiny_export)
    ids = opened.encode(short_text.read_text("utf-8"))
    deltas = []
    for n in (40, 60, 80):
        model = CoreModel(opened.image, seed=3)
        model.process(ids[:n], learn=True)
        deltas.append(model.save())
    out = BankedModel(opened.image, banks=4)
    out.load(join(deltas))
    return out


def test_the_limit_is_that_of_the_core() -> None:
    assert MAX_BANKS == banks.MAX_BANKS


def test_a_state_is_of_all_banks(taught: BankedModel) -> None:
    state = taught.save()
    deltas = split(state)
    assert [states.describe("", d).learned for d in deltas] == [39, 59, 79]
    described = states.describe("", state)
    assert (described.banks, described.learned, described.bytes) == (3, 39, len(state))
    again = BankedModel(taught.image, banks=3)
    again.load(state)
    assert again.save() == state and again.topic().banks == 3 and again.topic().bank == 0


def test_a_state_of_one_bank_is_its_delta(taught: BankedModel) -> None:
    delta = split(taught.save())[1]
    one = BankedModel(taught.image, banks=2)
    one.load(join(split(taught.save())[:2]))
    assert one.topic().banks == 2
    one.load(delta)
    assert one.save() == delta and one.topic().banks == 1, "what the other bank held is gone"
    assert type(open_core(taught.image, 0, 1)) is CoreModel


def test_a_refused_state_changes_nothing(taught: BankedModel) -> None:
    before = taught.save()
    first, second, _ = split(before)
    damaged = bytearray(second)
    damaged[-1] ^= 1
    for refused in (join([first, bytes(damaged)]), join([first] * 5), before[:-1], b"", b"EHMB"):
        with pytest.raises(InvalidFileError):
            taught.load(refused)
        assert taught.save() == before


def sealed(state: bytes) -> bytes:
    return state[:8] + len(state).to_bytes(4, "little") + zlib.crc32(state[16:]).to_bytes(4, "little") + state[16:]


def test_every_damage_of_the_header_is_found(taught: BankedModel) -> None:
    state = taught.save()
    for at in range(20):
        bad = bytearray(state)
        bad[at] ^= 0x41
        with pytest.raises(InvalidFileError):
            states.describe("x", bytes(bad))
    for n in (0, 1, 4, 17, 2**32 - 1):
        with pytest.raises(InvalidFileError):
            states.describe("x", sealed(state[:16] + n.to_bytes(4, "little") + state[20:]))
    for cut in (*range(24), len(state) - 1, len(state) - len(split(state)[0])):
        with pytest.raises(InvalidFileError):
            states.describe("x", state[:cut])
        with pytest.raises(InvalidFileError):
            states.describe("x", sealed(state[:cut]) if cut >= 16 else state[:cut])


def test_banks_of_different_images_are_no_state(taught: BankedModel) -> None:
    first, second, _ = split(taught.save())
    foreign = bytearray(second)
    foreign[16] ^= 1
    foreign[12:16] = zlib.crc32(foreign[16:]).to_bytes(4, "little")
    with pytest.raises(InvalidFileError, match="different images"):
        states.describe("x", join([first, bytes(foreign)]))


@pytest.mark.parametrize("runtime", ["host", "onnx", "tflite"])
def test_a_session_with_banks_stops_and_goes_on(
    runtime: str, tiny_export: Path, short_text: Path, taught: BankedModel
) -> None:
    states.save("three", taught.save())
    options = ("--runtime", runtime, "--banks", "4")
    result = personalise(tiny_export, short_text, *options, "--load-state", "three", "--save-state", "more").result
    assert result["banks"]["asked"] == 4 and result["banks"]["used"] >= 3
    [more, three] = edgehmn("state", "list", "--json").result["states"]
    assert (more["name"], three["name"], three["banks"]) == ("more", "three", 3)
    assert more["banks"] == result["banks"]["used"] and more["learned"] > three["learned"] == 39
    written = edgehmn("run", tiny_export, "abc", "-n", "5", *options, "--load-state", "more", "--json").result
    assert written["tokens"] == 5


def test_one_bank_is_as_ever(tiny_export: Path, short_text: Path) -> None:
    plain = personalise(tiny_export, short_text, "--save-state", "plain").result
    one = personalise(tiny_export, short_text, "--save-state", "one", "--banks", "1").result
    assert plain["delta_sha256"] == one["delta_sha256"] and one["banks"] == {"asked": 1, "used": 1}
    assert not banks.is_joined(states.load("one"))


def test_a_state_needs_as_many_banks(tiny_export: Path, short_text: Path, taught: BankedModel, tmp_path: Path) -> None:
    path = states.save(str(tmp_path / "three.ehmd"), taught.save())
    for few in ((), ("--banks", "2")):
        refused = edgehmn("run", tiny_export, "abc", "--load-state", path, *few)
        assert refused.code == 2 and "--banks 3" in refused.err and "3 banks" in refused.err
    assert edgehmn("run", tiny_export, "abc", "-n", "2", "--load-state", path, "--banks", "3").code == 0


@pytest.mark.parametrize("where", [("emulator",), ("device", "--port", "socket://127.0.0.1:1")])
def test_a_board_has_one_bank(where: tuple[str, ...], tiny_export: Path) -> None:
    refused = edgehmn("run", tiny_export, "abc", "--banks", "2", "--runtime", *where)
    assert refused.code == 2 and "one bank" in refused.err


@pytest.mark.parametrize("n", ["0", "17", "x"])
def test_a_number_of_banks_is_possible(n: str, tiny_export: Path) -> None:
    assert edgehmn("run", tiny_export, "abc", "--banks", n).code == 2


def test_what_a_file_of_banks_is(taught: BankedModel, tmp_path: Path) -> None:
    path = states.save(str(tmp_path / "three.ehmd"), taught.save())
    facts = edgehmn("inspect", path, "--json").result
    assert facts["kind"] == "banks" and facts["image_id"] == taught.image_id
    assert facts["config"] == {"learned": 39, "bytes": len(taught.save()), "banks": 3}
    kept = edgehmn("state", "save", "kept", "--from", path)
    assert kept.code == 0 and "3 banks" in kept.out
    assert edgehmn("state", "load", "kept", "--to", tmp_path / "out.ehmd").code == 0
    assert (tmp_path / "out.ehmd").read_bytes() == path.read_bytes()
    assert "3" in edgehmn("state", "list").out
