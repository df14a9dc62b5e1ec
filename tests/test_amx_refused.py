"""Linux may refuse a process the tiles that its processor has: the core then takes AVX-512, with the same results."""

from pathlib import Path

import numpy as np
import pytest

from edgehmn.core import CoreModel, Image, ffi, lib
from tests.command_line import program
from tests.models import TINY, tiny_image

SEED = 5
REFUSALS = {
    # A filter of system calls, as containers have, that lets arch_prctl(ARCH_REQ_XCOMP_PERM, ...) fail with EPERM.
    "seccomp": """
rules = [(0x20, 0, 0, 0), (0x15, 0, 3, 158), (0x20, 0, 0, 16), (0x15, 0, 1, 0x1023), (0x06, 0, 0, 0x50001),
         (0x06, 0, 0, 0x7fff0000)]
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *rule) for rule in rules))
program = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(rules), ctypes.addressof(code)))
done = libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, program) == 0
""",
    # A program whose stack for signals is too small for the state of tiles: Linux says ENOSPC.
    "signal stack": """
stack = ctypes.create_string_buffer(6144)
done = libc.sigaltstack(struct.pack("QixxxxQ", ctypes.addressof(stack), 0, 6144), None) == 0
""",
    "nothing": "done = True",
}
PROGRAM = """
import ctypes, struct, sys
libc = ctypes.CDLL(None)
{refusal}
if not done:
    sys.exit("cannot")
import numpy as np
from edgehmn.core import CoreModel, Image, ffi, lib
tables = [lib.ehmn_kernel_table(i) for i in range(6)]
print(*(ffi.string(table.name).decode() for table in tables if table != ffi.NULL))
print(ffi.string(lib.ehmn_best_kernels().name).decode())
with open(sys.argv[1], "rb") as file:
    model = CoreModel(Image(file.read()), seed={seed})
tokens = np.frombuffer(bytes.fromhex(sys.argv[2]), np.int32)
print(model.process(tokens, learn=False).tobytes().hex(), model.process(tokens, learn=True).tobytes().hex())
"""


def with_tiles() -> list[str]:
    """The names of the tables of this process, AMX's among them; skipped where there is none to refuse."""
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists() or "amx_int8" not in cpuinfo.read_text():
        pytest.skip("not run here: the processor has no AMX whose tiles could be refused")
    tables = [lib.ehmn_kernel_table(i) for i in range(6)]
    names = [ffi.string(table.name).decode() for table in tables if table != ffi.NULL]
    if "amx" not in names:
        pytest.skip("not run here: the compiler of this build knows no AMX, or Linux has refused tiles already")
    return names


@pytest.mark.parametrize("refusal", REFUSALS)
def test_without_tiles_the_table_of_avx512_computes_the_same(refusal: str, tmp_path: Path) -> None:
    names = with_tiles()
    image = tiny_image()
    (tmp_path / "model.ehmn").write_bytes(image)
    tokens = np.random.default_rng(1).integers(0, TINY.vocab_size, 100, dtype=np.int32)
    code = PROGRAM.format(refusal=REFUSALS[refusal], seed=SEED)
    done = program(code, tmp_path / "model.ehmn", tokens.tobytes().hex(), cwd=tmp_path)
    if done.stderr.strip() == "cannot":
        pytest.skip(f"not run here: this system has no {refusal}")
    assert done.returncode == 0, done.stderr
    tables, best, bits = done.stdout.splitlines()
    left = names if refusal == "nothing" else names[: names.index("amx")]
    assert tables.split() == left and best == left[-1] == ("amx" if refusal == "nothing" else "vnni")
    model = CoreModel(Image(image), seed=SEED)
    assert (
        bits
        == f"{model.process(tokens, learn=False).tobytes().hex()} {model.process(tokens, learn=True).tobytes().hex()}"
    )
