"""Text on the wire: the board's own tokens are those of the host, in pieces of any size, and so is what it says."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgehmn.core import CoreModel, Image, lib
from edgehmn.device import wire
from edgehmn.device.emulator import QEMU
from edgehmn.device.firmware import TOOLS
from edgehmn.device.server import Server
from edgehmn.errors import DeviceError, EdgeHMNError, InvalidFileError, UsageError
from edgehmn.exported import Export
from edgehmn.runtime import device as device_module
from edgehmn.runtime.device import DeviceRuntime
from edgehmn.texts import PERSONAL, shipped
from edgehmn.tokenizer import DeviceTokenizer
from tests.models import tiny_image

absent = [tool for tool in (QEMU, *TOOLS) if shutil.which(tool) is None]

TEXTS = {
    "ordinary": "Every little helps, said the old woman; 1, 2, 3 and 2026.\n\nIt's  raining \t cats.",
    "beyond ASCII": "öäü — 日本語のテキスト, 🙂🙂 naïve café",
    "one long word": "a" * 1500,
    "many spaces": " " * 700 + "x" + "\n" * 600,
    "nothing": "",
    "one byte": "x",
}


@pytest.fixture(scope="module")
def export(reference_export: Path) -> Export:
    return Export.open(reference_export)


@pytest.fixture(scope="module")
def board(export: Export) -> Iterator[DeviceRuntime]:
    with Server(export.folder / "model.ehmn") as server:
        runtime = DeviceRuntime(server.url)
        yield runtime
        runtime.close()


@pytest.fixture
def fresh(board: DeviceRuntime) -> DeviceRuntime:
    board.reset()
    board.forget(0)
    return board


@pytest.mark.parametrize("name", TEXTS)
def test_the_board_reads_the_tokens_that_the_host_makes(fresh: DeviceRuntime, export: Export, name: str) -> None:
    text = TEXTS[name]
    ids = export.encode(text)
    tokens, scores = fresh.read_text(text, learn=True)
    if name != "one long word":  # the board cuts a word that is longer than what may wait
        assert np.array_equal(tokens, ids)
    expected = CoreModel(export.image)
    assert np.array_equal(scores, expected.process(tokens, learn=True))
    assert fresh.save() == expected.save()


@pytest.mark.parametrize("size", [1, 7, 64, 512])
def test_the_pieces_do_not_matter(
    fresh: DeviceRuntime, export: Export, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_module, "TEXT_PER_REQUEST", size)
    text = shipped(PERSONAL)[: 60 * min(size, 40)]
    assert np.array_equal(fresh.read_text(text, learn=False)[0], export.encode(text))


def test_bytes_that_are_no_utf_8_are_replaced(fresh: DeviceRuntime) -> None:
    assert np.array_equal(
        fresh.read_text(b"caf\xe9 \xff\xc3", learn=False)[0], fresh.read_text("caf\ufffd \ufffd\ufffd", learn=False)[0]
    )


def test_modes_and_the_end_of_a_text(fresh: DeviceRuntime, export: Export) -> None:
    expected, text = CoreModel(export.image), "Good morning, good morning"
    ids = export.encode(text)
    for mode in ({"learn": False}, {"learn": True}, {"learn": False, "follow": True}):
        assert np.array_equal(fresh.read_text(text, **mode)[1], expected.process(ids, **mode))


def test_the_board_says_the_text_of_the_tokens_that_the_host_draws(fresh: DeviceRuntime, export: Export) -> None:
    prompt, expected = export.encode("The man said"), CoreModel(export.image)
    section = bytes(export.image.bytes[export.image.header.tokenizer_offset :][: export.image.header.tokenizer_bytes])
    tokenizer = DeviceTokenizer(section, export.image.vocab_size)
    fresh.read_text("The man said", learn=False)
    expected.process(prompt, learn=False)
    for n, temperature in ((50, 1.0), (1, 0.0), (70, 0.0), (0, 0.0)):
        ids = expected.generate(n, temperature=temperature)
        assert fresh.write_text(n, temperature=temperature) == tokenizer.decode(ids)


def test_a_reset_forgets_the_text_that_waits(fresh: DeviceRuntime, export: Export) -> None:
    fresh._link.request(lib.EHMN_WIRE_TEXT, wire.words(0, 1) + b"Good mor", expect=16)
    fresh.reset()
    assert np.array_equal(fresh.read_text("ning", learn=False)[0], export.encode("ning"))


def test_the_board_believes_no_text(fresh: DeviceRuntime) -> None:
    room = lib.EHMN_WIRE_TEXT_ROOM
    fresh._link.request(lib.EHMN_WIRE_TEXT, wire.words(0, 1) + b"x" * 10, expect=16)
    before = fresh.save(), fresh.counts()
    refused = {
        "a mode that is none": (lib.EHMN_WIRE_TEXT, wire.words(3, 0), UsageError),
        "more than more": (lib.EHMN_WIRE_TEXT, wire.words(0, 2), UsageError),
        "no header": (lib.EHMN_WIRE_TEXT, wire.words(0), DeviceError),
        "too much at once": (lib.EHMN_WIRE_TEXT, wire.words(0, 1) + b"x" * (room + 1), DeviceError),
        "too much with what waits": (lib.EHMN_WIRE_TEXT, wire.words(0, 1) + b"x" * (room - 9), InvalidFileError),
        "too many tokens": (lib.EHMN_WIRE_SAY, wire.words(65, 0, 1), UsageError),
        "a temperature beyond": (lib.EHMN_WIRE_SAY, wire.words(1, 4097, 1), UsageError),
        "half a beginning": (lib.EHMN_WIRE_SAY, wire.words(1, 0, 2), UsageError),
        "nothing to continue": (lib.EHMN_WIRE_SAY, wire.words(1, 0, 1), EdgeHMNError),
    }
    for name, (command, payload, error) in refused.items():
        with pytest.raises(error) as caught:
            fresh._link.request(command, payload)
        assert type(caught.value) is error, name
    assert (fresh.save(), fresh.counts()) == before
    fresh._link.request(lib.EHMN_WIRE_TEXT, wire.words(0, 1) + b"x" * (room - 10), expect=16)


def test_an_image_without_a_tokenizer_says_so(tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(tiny_image())
    assert Image(tiny_image()).header.tokenizer_bytes == 0
    with Server(tmp_path / "image") as server:
        runtime = DeviceRuntime(server.url)
        with pytest.raises(DeviceError, match="no tokenizer"):
            runtime.read_text("text", learn=False)
        runtime.process(np.array([1, 2]), learn=False)
        with pytest.raises(DeviceError, match="no tokenizer"):
            runtime.write_text(3)
        runtime.close()


@pytest.mark.skipif(bool(absent), reason=f"not run here: {', '.join(absent)} missing")
def test_an_emulated_board_reads_and_says_text(export: Export) -> None:
    text, expected = TEXTS["ordinary"], CoreModel(export.image)
    board = DeviceRuntime.emulated(export.image.bytes.tobytes())
    try:
        tokens, scores = board.read_text(text, learn=True)
        assert np.array_equal(tokens, export.encode(text))
        assert np.array_equal(scores, expected.process(tokens, learn=True))
        assert board.write_text(8).decode("utf-8", "replace") == export.decode(expected.generate(8))
        board.store()
        board._link.restart()
        assert board.save() == expected.save()
    finally:
        board.close()
