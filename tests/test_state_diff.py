"""state diff: the same is the same, and what differs is told where it is."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgehmn.banks import join
from edgehmn.compare import compare, text_perplexities
from edgehmn.core import CoreModel, Image
from edgehmn.delta import Delta
from edgehmn.errors import InvalidFileError
from edgehmn.exported import Export
from edgehmn.states import save
from tests.command_line import Result
from tests.models import BUSY, SMALL, opened, random_tokens, repetitive_tokens, resealed_delta, tiny_image

Cli = Callable[..., Result]


@pytest.fixture(scope="module")
def image() -> Image:
    return opened(tiny_image(SMALL, BUSY))


def learned(image: Image, n: int, seed: int = 0) -> bytes:
    model = CoreModel(image, seed=seed)
    model.process(repetitive_tokens(n, vocab_size=image.vocab_size), learn=True)
    return model.save()


def test_the_same_state_is_the_same(image: Image) -> None:
    state = learned(image, 120)
    result = compare(image, state, state)
    assert result["same"] is True
    for w in result["weights"]:
        assert (w["differing"], w["rms_difference"]) == (0, 0) and w["rms_a"] == w["rms_b"]
        assert w["cosine"] is None or w["cosine"] == pytest.approx(1)
    assert all(m["entries_a"] == m["shared"] > 0 for m in result["memories"])
    assert all(a == b for a, b in result["gains"].values())


def test_each_difference_is_told_where_it_is(image: Image) -> None:
    state = learned(image, 120)
    parts = Delta.read(image, state)
    at = state.index(parts.dense.tobytes())
    changed = bytearray(state)
    where = at + int(np.flatnonzero(parts.dense.ravel() == 0)[0])
    changed[where] = 5
    result = compare(image, state, resealed_delta(changed))
    assert not result["same"]
    assert [w["differing"] for w in result["weights"]] == [1, *[0] * (len(result["weights"]) - 1)]
    assert result["weights"][0]["rms_difference"] == pytest.approx(5 / np.sqrt(parts.dense[0].size))
    assert result["guard_rise_percent"][0] != result["guard_rise_percent"][1]
    assert [w["name"] for w in result["weights"]] == [
        "dense adapter 1", "dense adapter 2", "row adapters", "bias of tokens"
    ]  # fmt: skip


def test_against_nothing_learned(image: Image) -> None:
    result = compare(image, CoreModel(image).save(), learned(image, 120))
    assert all(w["cosine"] is None and w["rms_a"] == 0 and w["rms_b"] > 0 for w in result["weights"])
    assert all(m["entries_a"] == m["shared"] == 0 < m["entries_b"] for m in result["memories"])
    assert [m["name"] for m in result["memories"]] == [*(f"n-grams {i}" for i in range(1, 5)), "episodes"]
    assert result["memories"][-1]["entries_b"] == 40, "the last episodes, as many as there is room for"
    assert result["guard_rise_percent"][0] == 0
    with pytest.raises(InvalidFileError):
        compare(image, b"no delta", learned(image, 10))


def test_a_text_is_scored_as_it_would_be_read(image: Image) -> None:
    ids, state = random_tokens(100, image.vocab_size), learned(image, 120)
    frozen, with_state = text_perplexities(image, [None, state], ids)
    model = CoreModel(image)
    model.load(state)
    bits = model.process(ids, learn=False, follow=True).astype(float).mean() / 65536
    assert with_state == pytest.approx(2**bits) and frozen != with_state


def test_the_command(run_cli: Cli, tiny_export: Path, short_text: Path, tmp_path: Path) -> None:
    image = Export.open(tiny_export).image
    one, two = learned(image, 100), learned(image, 140, seed=1)
    save("one", one)
    save("two", two)
    save("both", join([one, two]))
    plain = run_cli("state", "diff", "one", "two", "--json").result
    assert plain.keys() == {"image_id", "states", "same"} and [s["learned"] for s in plain["states"]] == [99, 139]
    options = ("--image", tiny_export, "--text", short_text)
    result = run_cli("state", "diff", "one", "two", *options, "--json").result
    assert result["text"].keys() == {"frozen", "a", "b"} and result["same"] is False
    assert result["text"]["a"] != result["text"]["b"]
    [bank] = result["banks"]
    assert 0 < bank["weights"][0]["differing"] <= bank["weights"][0]["n"]
    text = run_cli("state", "diff", "both", "both", *options)
    assert (text.code, "the same to the bit" in text.out, "bank 1" in text.out) == (0, True, True)
    for word in ("dense adapter 1", "episodes", "gain at rest", "guard, rise", "frozen"):
        assert word in text.out
    assert run_cli("state", "diff", "one", "nothing").code == 2
    assert run_cli("state", "diff", "one", "two", "--text", short_text).code == 2
    other = tmp_path / "other.ehmd"
    other.write_bytes(learned(opened(tiny_image(SMALL, BUSY)), 10))
    done = run_cli("state", "diff", "one", other)
    assert (done.code, "nothing in common" in done.err) == (4, True)
    empty = tmp_path / "empty"
    empty.write_text("")
    assert run_cli("state", "diff", "one", "two", "--image", tiny_export, "--text", empty).code == 2
