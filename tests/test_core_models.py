"""What llvm-mca is given of a program, and what it must not leave out."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from bench import core_models
from bench.core_models import CORES, cycles, listing

AARCH64 = """
0000000000400280 <_init>:
  400280:      \tstp\tx29, x30, [sp, #-0x10]!
  400284:      \tadd\tx16, x16, #0xff8 // of a comment
  400288:      \tb.eq\t0x4003a4 <away+0x4>
"""
X86 = """
  401000:      \tmovq\t0x10(%rip), %rax   # 0x401017 <table>
  401007:      \tjne\t0x40120a <away>
"""


def test_operands_stay_and_comments_go() -> None:
    addresses, lines = listing(AARCH64, "//")
    assert addresses == [0x400280, 0x400284, 0x400288]
    assert lines == ["stp\tx29, x30, [sp, #-0x10]!", "add\tx16, x16, #0xff8", "b.eq\t0"]
    assert listing(X86, "#")[1] == ["movq\t0x10(%rip), %rax", "jne\t0"]


def test_instructions_that_the_model_leaves_out_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """llvm-mca of LLVM 16 says what it does not know, goes on without it, and ends as if all were well."""
    left_out = 0

    def regions(core: Any, text: str, iterations: int) -> list[dict[str, Any]]:
        view = {"TotalCycles": 4 * iterations, "Instructions": (3 - left_out) * iterations}
        return [{"Name": "400280-3", "SummaryView": view}]

    monkeypatch.setattr(core_models, "disassembled", lambda program, comment: listing(AARCH64, comment))
    monkeypatch.setattr(core_models, "_regions", regions)
    blocks = Counter({(0x400280, 3): 10})
    assert cycles(CORES[0], Path("program"), blocks) == (40.0, 40.0)
    left_out = 1
    with pytest.raises(ValueError, match="left out"):
        cycles(CORES[0], Path("program"), blocks)
