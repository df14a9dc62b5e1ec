"""A model gives the same scores and learns the same delta on the processors of Linux boards as on this machine, one
token at a time and many at once: built for them, run by QEMU's user emulation."""

import subprocess
import zlib
from pathlib import Path
from shutil import which

import numpy as np
import pytest

from bench.native import flags_of_files
from edgehmn.calibrate import calibration_ids
from edgehmn.checkpoint import REFERENCE, read_checkpoint
from edgehmn.core import CoreModel, Image
from edgehmn.image import image_of
from tests.models import BUSY, GPT2, TINY, random_tokens, tiny_image

NATIVE = Path(__file__).parent.parent / "native"
# Compiler, and by emulator the table that it must choose.
MACHINES = {
    "aarch64": (
        "aarch64-linux-gnu-gcc",
        {
            "qemu-aarch64 -cpu cortex-a53": "neon",
            "qemu-aarch64 -cpu cortex-a76": "dot",
            "qemu-aarch64 -cpu max": "mmla",
        },
    ),
    "riscv64": ("riscv64-linux-gnu-gcc", {"qemu-riscv64": "rows"}),
}
TOGETHER = 19


def build(machine: str, folder: Path) -> Path:
    compiler, _ = MACHINES[machine]
    of_file = flags_of_files(compiler)
    objects = []
    for source in [*sorted((NATIVE / "src").glob("*.c")), Path(__file__).parent / "stream.c"]:
        objects.append(str(folder / f"{source.stem}.o"))
        own = ["-O2", *of_file.get(source.stem, ()), "-std=c11", f"-I{NATIVE / 'src'}", f"-I{NATIVE / 'include'}"]
        subprocess.run([compiler, *own, "-c", str(source), "-o", objects[-1]], check=True)
    program = folder / "stream"
    subprocess.run([compiler, "-static", *objects, "-o", str(program)], check=True)
    return program


def here(image: bytes, ids: np.ndarray, n: int) -> list[str]:
    """What the program prints, by the core of this machine."""
    model = CoreModel(Image(image))
    parts = [
        model.process(ids[k * n : (k + 1) * n], learn=how == "learn", follow=how == "follow").tobytes()
        for k, how in enumerate(("learn", "feed", "follow"))
    ]
    return [f"{zlib.crc32(part):08x}" for part in (*parts, model.save())]


@pytest.mark.parametrize("machine", MACHINES)
def test_a_stream_is_the_same_on_other_processors(machine: str, tmp_path: Path) -> None:
    compiler, emulators = MACHINES[machine]
    needed = {"cmake", compiler, *(emulator.split()[0] for emulator in emulators)}
    if absent := sorted(tool for tool in needed if which(tool) is None):
        pytest.skip(f"not run here: {', '.join(absent)} missing")
    program = build(machine, tmp_path)
    checkpoint = read_checkpoint(REFERENCE)
    streams = [(tiny_image(config, BUSY), random_tokens(360), 120) for config in (TINY, GPT2)]
    streams.append((image_of(checkpoint), calibration_ids(checkpoint), 90))
    for image, ids, n in streams:
        (tmp_path / "image").write_bytes(image)
        (tmp_path / "ids").write_bytes(ids[: 3 * n].astype("<u4").tobytes())
        expected = here(image, ids, n)
        for emulator, table in emulators.items():
            for together in ([], [str(TOGETHER)]):
                command = [*emulator.split(), str(program), "image", "ids", str(n), *together]
                done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
                assert done.returncode == 0, done.stderr
                assert done.stdout.split() == [table, *expected], (emulator, together)
