"""The targets of fuzzing: which harness each has, and which files of the core it is about."""

from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
NATIVE = HERE.parent / "native"
MODELS = HERE / "models"


@dataclass(frozen=True)
class Target:
    """`harness`: files of this folder, beside fuzz.c. `about`: files of native/src whose lines are to be covered.
    `everywhere`: the edges of all the core count, not of these files alone. `max_bytes`: of an input."""

    harness: tuple[str, ...]
    about: tuple[str, ...]
    max_bytes: int
    everywhere: bool = False


TARGETS = {
    "wire": Target(("fuzz_wire", "mutate_frames"), ("wire", "device", "device_state", "device_text"), max_bytes=1536),
    "image": Target(
        ("fuzz_image", "mutate_image", "mutate_tokenizer"), ("image", "tokenizer"), max_bytes=2560, everywhere=True
    ),
    "delta": Target(("fuzz_delta",), ("delta",), max_bytes=1024, everywhere=True),
    "state": Target(("fuzz_state",), ("state",), max_bytes=520),
    "tokenizer": Target(
        ("fuzz_tokenizer", "mutate_tokenizer"), ("tokenizer", "tokenizer_merge", "tokenizer_split"), max_bytes=2048
    ),
}
