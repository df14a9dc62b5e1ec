"""The comparison of machines, short: what it finds equal, and that it finds a difference."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from bench.equality import Machine, compare, machines, markdown
from tests.models import repetitive_tokens, tiny_image

EVERY = {machine.name: machine for machine in machines()}


def chosen(*names: str) -> list[Machine]:
    return [EVERY["host-ref"], *(EVERY[name] for name in names)]


def test_every_processor_and_board_is_compared() -> None:
    assert next(iter(EVERY)) == "host-ref" and len([name for name in EVERY if name.startswith("host-")]) >= 2
    emulated = {"mps2-an385", "mps2-an386", "mps2-an500", "mps2-an505", "mps3-an547"}
    assert {"aarch64", "armv7l", "riscv64"} | emulated <= set(EVERY)


def test_machines_that_learn_the_same_are_equal_interrupted_or_not() -> None:
    names = [name for name in ("mps2-an386", "mps3-an547") if not EVERY[name].absent]
    if len(names) < 2:
        pytest.skip(f"not run here: {', '.join(EVERY['mps3-an547'].absent)} missing")
    said: list[str] = []
    results = compare(tiny_image(), repetitive_tokens(60), chosen("host-rows", *names), said.append)
    assert [row["equal"] for row in results["machines"]] == [True] * 3 and len(said) == 4
    chain = results["interrupted"]
    assert chain["equal"] and len(chain["machines"]) == 2
    assert chain["state"] != results["reference"]["state"], "the window was lost on the way"
    assert "**" not in markdown(results) and "Cortex-M55" in markdown(results)


@pytest.mark.parametrize("where", ["scores", "state"])
def test_a_difference_is_found(where: str) -> None:
    rows = EVERY["host-rows"]

    @contextmanager
    def wrong(image: bytes) -> Iterator[Any]:
        with rows.start(image) as runtime:
            if where == "scores":
                process = runtime.process
                runtime.process = lambda ids, learn: process(ids, learn=learn) + (ids == ids[7])
            else:
                runtime.save = lambda save=runtime.save: save()[:-1] + b"?"
            yield runtime

    results = compare(
        tiny_image(), repetitive_tokens(40), [EVERY["host-ref"], replace(rows, start=wrong)], lambda _: None
    )
    (row,) = results["machines"]
    assert not row["equal"] and (row[where] != results["reference"][where])
    assert "**different**" in markdown(results)


def test_what_is_missing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert EVERY["mps2-an386"].absent and EVERY["aarch64"].absent and not EVERY["host-rows"].absent
