"""`edgehmn validate`: an export is opened as a stranger would, and must compute what was recorded."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from edgehmn.conformance import Vectors, read_vectors
from edgehmn.core import CoreModel
from edgehmn.evaluate import text_perplexity
from edgehmn.exported import Export, encoder_runtime
from edgehmn.runtime.protocol import Runtime
from edgehmn.texts import EVALUATION, shipped

ENCODER_LIMIT = {"onnx": 1.0, "tflite": 2.0}  # rise of token perplexity over the image, %
VALIDATION_CHARACTERS = 6000


@dataclass(frozen=True)
class Check:
    """One thing that was measured, and what it may be."""

    name: str
    ok: bool
    figure: float
    limit: float

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def validate(export: Export, runtimes: tuple[str, ...], report: Callable[[str], None]) -> list[Check]:
    """Run each runtime (all that the export has, if none is named). Integer runtimes must agree bit for bit."""
    vectors = read_vectors(export.folder / "vectors.safetensors", export.image)
    present = [k for k in ENCODER_LIMIT if (export.folder / f"encoder.{k}").exists()]
    checks: list[Check] = []
    for kind in runtimes or ("host", *present):
        report(f"validating {kind}")
        if kind == "host":
            checks += integer_checks("host", CoreModel(export.image), vectors)
        elif kind == "emulator":
            from edgehmn.runtime.select import open_emulator

            with open_emulator(export.image) as runtime:
                checks += integer_checks("emulator", runtime, vectors)
        else:
            checks.append(_encoder_check(kind, export))
    return checks


def integer_checks(name: str, runtime: Runtime, vectors: Vectors) -> list[Check]:
    """Scores without and with learning, the delta, and scores by it while its gains follow must equal the recorded
    ones."""
    tokens = vectors["tokens"].astype(np.int32)
    runtime.reset()
    runtime.forget(0)
    static = runtime.process(tokens, learn=False)
    runtime.reset()
    learning = runtime.process(tokens, learn=True)
    delta = np.frombuffer(runtime.save(), np.uint8)
    runtime.reset()
    following = runtime.process(tokens, learn=False, follow=True)
    differing = {
        "static scores": int((static != vectors["static"]).sum()),
        "learning scores": int((learning != vectors["learning"]).sum()),
        "delta bytes": int((delta != vectors["delta"]).sum()),
        "following scores": int((following != vectors["following"]).sum()),
    }
    return [Check(f"{name}: differing {what}", n == 0, n, 0) for what, n in differing.items()]


def _encoder_check(kind: str, export: Export) -> Check:
    text = shipped(EVALUATION)[:VALIDATION_CHARACTERS]
    own = text_perplexity(CoreModel(export.image, plastic=False), export.encode, text)
    other = text_perplexity(encoder_runtime(kind, export.folder, export.image), export.encode, text)
    rise = 100 * (other.token / own.token - 1)
    return Check(f"{kind}: perplexity over image, %", rise <= ENCODER_LIMIT[kind], rise, ENCODER_LIMIT[kind])
