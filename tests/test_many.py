"""Many tokens at once give the bits of one after the other: scores, logits, delta, counts and what comes afterwards,
whatever the sizes, the window, the instruction set and the number of tokens that are at work together."""

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from shutil import which
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edgehmn.checkpoint import Config
from edgehmn.core import CoreModel, Image, aligned, ffi, lib
from edgehmn.device.firmware import build_firmware
from edgehmn.errors import UsageError
from edgehmn.plasticity import Rule
from edgehmn.quantize import Precision
from tests.models import BUSY, GPT2, LEAST, SIX, THIRTY_FOUR, TINY, Ids, random_tokens, tiny_image

FEED, LEARN, FOLLOW = lib.EHMN_FEED, lib.EHMN_LEARN, lib.EHMN_FOLLOW
IMAGES: dict[str, tuple[Config, Rule | None, Precision | None]] = {
    "sliding": (TINY, BUSY, None),
    "a window of one": (replace(TINY, n_ctx=1, n_layers=3), BUSY, None),
    "learned positions, restart": (GPT2, BUSY, None),
    "restart, start token": (replace(TINY, window="restart", start_token=3), BUSY, None),
    "the least restarting window": (replace(TINY, window="restart", start_token=0, n_ctx=4), BUSY, None),
    "a longer one": (replace(TINY, window="restart", start_token=0, n_ctx=33, n_layers=1), BUSY, None),
    "one that slides": (replace(TINY, n_ctx=33, n_layers=1), BUSY, None),
    "least": (LEAST, None, None),
    "six": (SIX, None, None),
    "thirty-four": (THIRTY_FOUR, BUSY, None),
    "8 bits": (TINY, BUSY, Precision(inputs=8)),
    "weights of 4 bits": (TINY, BUSY, Precision(weights=4)),
}


def tables() -> Iterator[Any]:
    index = 0
    while (table := lib.ehmn_kernel_table(index)) != ffi.NULL:
        yield table
        index += 1


def one_by_one(model: CoreModel, ids: Ids, how: int) -> npt.NDArray[np.uint32]:
    scores = []
    for token in ids.tolist():
        scores.append(model.score(token))
        model.attend(token, learn=how == LEARN, follow=how == FOLLOW)
        model.step(token)
    return np.array(scores, np.uint32)


def at_once(model: CoreModel, ids: Ids, how: int, together: int, *, scored: bool = True) -> npt.NDArray[np.uint32]:
    """By ehmn_process, with room for so many tokens between guard bytes."""
    size, guard = ffi.new("uint32_t *"), 64
    assert lib.ehmn_work_bytes(model.image.pointer, together, size) == lib.EHMN_OK
    memory = aligned(size[0] + 2 * guard)
    memory[:] = 0xA5
    scores, tokens = np.full(len(ids), 77, np.uint32), np.ascontiguousarray(ids, np.uint32)
    out = ffi.from_buffer("uint32_t[]", scores) if scored else ffi.NULL
    work = ffi.from_buffer("uint8_t[]", memory)[guard : guard + size[0]]
    status = lib.ehmn_process(
        model._model, ffi.from_buffer("uint32_t[]", tokens), len(ids), how, out, ffi.addressof(work, 0), size[0]
    )
    assert status == lib.EHMN_OK
    assert (memory[:guard] == 0xA5).all() and (memory[guard + size[0] :] == 0xA5).all()
    return scores


def state(model: CoreModel) -> tuple[Any, ...]:
    logits = model.logits()
    return (
        None if logits is None else logits.tolist(),
        model.save() if model.plastic else b"",
        model.counts(),
        model.generate(7, temperature=1.0).tolist(),
    )


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("table", list(tables()), ids=lambda table: ffi.string(table.name).decode())
@pytest.mark.parametrize("plastic", [True, False], ids=["plastic", "static"])
def test_many_tokens_are_as_one_after_the_other(table: Any, name: str, plastic: bool) -> None:
    image = Image(tiny_image(*IMAGES[name]))
    ids = random_tokens(90, image.vocab_size)
    modes = (LEARN, FEED, FOLLOW, FEED, LEARN) if plastic else (FEED, FEED)
    for together in (2, 3, 8, 37):
        one, many = CoreModel(image, plastic=plastic), CoreModel(image, plastic=plastic)
        lib.ehmn_use_kernels(many._model, table)
        for how in modes:
            for part in (ids[:41], ids[41:45], ids[45:]):
                assert np.array_equal(at_once(many, part, how, together), one_by_one(one, part, how))
        assert state(many) == state(one)


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("plastic", [True, False], ids=["plastic", "static"])
def test_a_prompt_that_nobody_scores_ends_in_the_same_state(name: str, plastic: bool) -> None:
    image = Image(tiny_image(*IMAGES[name]))
    ids = random_tokens(60, image.vocab_size)
    one, many = CoreModel(image, plastic=plastic), CoreModel(image, plastic=plastic)
    for part in (ids[:1], ids[1:20], ids[20:]):
        assert (at_once(many, part, FEED, 7, scored=False) == 77).all()
        one_by_one(one, part, FEED)
    assert many.counts().macs < one.counts().macs  # the predictions in between are not made
    assert many.counts().steps == one.counts().steps
    assert [*state(many)[:2], state(many)[3]] == [*state(one)[:2], state(one)[3]]
    if plastic:
        assert np.array_equal(at_once(many, ids, LEARN, 7), one_by_one(one, ids, LEARN))


def test_process_uses_it_and_says_which_token_is_wrong() -> None:
    image = Image(tiny_image(*IMAGES["sliding"]))
    ids = random_tokens(100)
    one, many = CoreModel(image), CoreModel(image)
    for how in (LEARN, FEED, FOLLOW):
        scores = many.process(ids, learn=how == LEARN, follow=how == FOLLOW)
        assert np.array_equal(scores, one_by_one(one, ids, how))
    many.feed(ids)
    assert np.array_equal(one_by_one(one, ids, FEED)[:0], []) and state(many)[0] == state(one)[0]
    before = many.save(), many.counts()
    for wrong in (-1, image.vocab_size, 2**31 - 1):
        with pytest.raises(UsageError, match=f"token {wrong}"):
            many.process(np.array([1, wrong, 2], np.int64), learn=True)
    assert (many.save(), many.counts()) == before
    assert len(many.process(np.array([], np.int32), learn=True)) == 0


def test_process_refuses_what_it_cannot_do() -> None:
    image = Image(tiny_image(*IMAGES["sliding"]))
    model, static = CoreModel(image), CoreModel(image, plastic=False)
    tokens = ffi.new("uint32_t[]", [1, 2, image.vocab_size])
    work = ffi.from_buffer("uint8_t[]", aligned(1 << 16))
    none = ffi.NULL
    assert lib.ehmn_process(none, tokens, 2, FEED, none, none, 0) == lib.EHMN_E_ARGUMENT
    assert lib.ehmn_process(model._model, none, 2, FEED, none, none, 0) == lib.EHMN_E_ARGUMENT
    assert lib.ehmn_process(model._model, tokens, 3, FEED, none, none, 0) == lib.EHMN_E_ARGUMENT
    assert lib.ehmn_process(model._model, tokens, 2, 3, none, none, 0) == lib.EHMN_E_ARGUMENT
    assert lib.ehmn_process(model._model, tokens, 2, FEED, none, none, 64) == lib.EHMN_E_ARGUMENT
    assert lib.ehmn_process(model._model, tokens, 2, FEED, none, work + 8, 64) == lib.EHMN_E_ALIGNMENT
    for how in (LEARN, FOLLOW):
        assert lib.ehmn_process(static._model, tokens, 2, how, none, none, 0) == lib.EHMN_E_STATE
    assert model.counts().steps == static.counts().steps == 0
    size = ffi.new("uint32_t *")
    assert lib.ehmn_work_bytes(none, 2, size) == lib.EHMN_E_ARGUMENT
    assert lib.ehmn_work_bytes(image.pointer, 2**32 - 1, size) == lib.EHMN_E_ARGUMENT
    assert lib.ehmn_process(model._model, tokens, 2, FEED, none, none, 0) == lib.EHMN_OK  # one after the other
    assert model.counts().steps == 2


NATIVE = Path(__file__).parent.parent / "native"
# As wide as the reference model, whose heads fill registers, in a window that is full between two batches.
WIDE = replace(TINY, d_model=128, d_hidden=72, n_heads=4, n_kv_heads=2, n_ctx=61, n_layers=1)


@pytest.fixture(scope="module")
def aarch64_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """compare_many.c with the core as it is built for aarch64."""
    if missing := [tool for tool in ("aarch64-linux-gnu-gcc", "qemu-aarch64", "cmake") if which(tool) is None]:
        pytest.skip(f"not run here: {missing[0]} is missing")
    folder = tmp_path_factory.mktemp("aarch64")
    system = ["-DCMAKE_SYSTEM_NAME=Linux", "-DCMAKE_SYSTEM_PROCESSOR=aarch64"]
    compiler = "aarch64-linux-gnu-gcc"
    build = ["cmake", "-S", str(NATIVE), "-B", str(folder), f"-DCMAKE_C_COMPILER={compiler}", *system]
    for command in (build, ["cmake", "--build", str(folder), "--target", "edgehmn_core"]):
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    sources = [str(Path(__file__).parent / "compare_many.c"), str(folder / "libedgehmn_core.a")]
    headers = [f"-I{NATIVE / 'src'}", f"-I{NATIVE / 'include'}"]
    program = folder / "compare"
    subprocess.run([compiler, "-std=c11", "-O2", "-static", *headers, *sources, "-o", str(program)], check=True)
    return program


@pytest.mark.parametrize(("processor", "expected"), [("cortex-a53", {"neon"}), ("max", {"neon", "dot", "mmla"})])
def test_many_tokens_on_aarch64(processor: str, expected: set[str], aarch64_program: Path, tmp_path: Path) -> None:
    images = {**IMAGES, "wide": (WIDE, BUSY, None), "wide, 8 bits": (WIDE, BUSY, Precision(inputs=8))}
    paths = []
    for index, model in enumerate(images.values()):
        paths.append(tmp_path / f"{index}.ehmn")
        paths[-1].write_bytes(tiny_image(*model))
    command = ["qemu-aarch64", "-cpu", processor, str(aarch64_program), *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(done.stdout.split()) == expected


@pytest.mark.skipif(which("arm-none-eabi-nm") is None, reason="not run here: arm-none-eabi-nm is missing")
def test_firmware_has_no_code_of_it() -> None:
    done = subprocess.run(
        ["arm-none-eabi-nm", build_firmware("mps2-an386")], capture_output=True, text=True, check=True
    )
    names = set(done.stdout.split())
    assert "ehmn_step" in names
    assert not names & {"ehmn_process", "ehmn_work_bytes", "ehmn_use_threads", "ehmn_rows_of_part"}


def test_a_table_with_other_products_is_asked_for_each_of_them() -> None:
    """As tiles do it: what several vectors at once would give is not what such a table means."""
    image, ids = Image(tiny_image(*IMAGES["sliding"])), random_tokens(30)
    table, calls = ffi.new("ehmn_kernels *", lib.ehmn_best_kernels()[0]), []
    own = table.matvec_s16

    @ffi.callback(ffi.typeof(own))
    def matvec(w: Any, rows: int, cols: int, stride: int, x: Any, acc: Any) -> None:
        calls.append(rows)
        own(w, rows, cols, stride, x, acc)

    table.matvec_s16 = matvec
    one, many = CoreModel(image), CoreModel(image)
    lib.ehmn_use_kernels(many._model, table)
    assert np.array_equal(at_once(many, ids, FEED, 8), one_by_one(one, ids, FEED))
    assert len(calls) >= len(ids) * TINY.n_layers * 7
