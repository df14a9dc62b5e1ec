"""`edgehmn export`: a checkpoint in, a folder of artefacts out, each measured before it is called good."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgehmn import __version__
from edgehmn.calibrate import Calibration, calibrate, calibration_ids
from edgehmn.checkpoint import Checkpoint
from edgehmn.conformance import record_vectors, write_vectors
from edgehmn.core import CoreModel, Image
from edgehmn.errors import QualityGateError, UsageError
from edgehmn.evaluate import Perplexity, float_perplexity, text_perplexity
from edgehmn.export.c_array import write_c_array
from edgehmn.exported import MANIFEST, SCHEMA, describe_artefact, encoder_runtime, holds_only_an_export, write_json
from edgehmn.files import new_folder
from edgehmn.image import build_image
from edgehmn.quantize import quantise

FORMATS = ("image", "onnx", "tflite", "c")
DEFAULT_LIMITS = {"image": 1.0, "onnx": 1.0, "tflite": 2.0}  # largest rise of token perplexity over float, %

Report = Callable[[str], None]  # told what is being done


@dataclass(frozen=True)
class ExportResult:
    folder: Path
    image_id: str
    artefacts: list[dict[str, Any]]
    perplexity: dict[str, Perplexity] = field(repr=False)

    def as_dict(self) -> dict[str, Any]:
        """For JSON, which knows no infinity: a figure that is not finite is None."""
        figures = {
            kind: {name: v if np.isfinite(v) else None for name, v in p.summary().items()}
            for kind, p in self.perplexity.items()
        }
        return {"image_id": self.image_id, "artefacts": self.artefacts, "perplexity": figures}


def export_model(
    checkpoint: Checkpoint,
    folder: Path,
    formats: tuple[str, ...],
    *,
    evaluation_text: str,
    calibration_text: str | None = None,
    max_increase: float | None = None,
    report: Report = lambda _: None,
) -> ExportResult:
    """Write the artefacts of `formats` into `folder`, which appears only when all are complete and good.

    Every artefact that computes is run over `evaluation_text` and must stay within `max_increase` per cent of the
    float model's token perplexity (by default DEFAULT_LIMITS); otherwise QualityGateError, and nothing is written.
    """
    if not evaluation_text.strip():
        raise UsageError("the evaluation text is empty: perplexity cannot be measured on it")
    with new_folder(folder, holds_only_an_export) as work:
        report("calibrating")
        ids = calibration_ids(checkpoint, calibration_text)
        calibration = calibrate(checkpoint, ids)
        report("quantising")
        image = Image(build_image(quantise(checkpoint, calibration)))
        (work / "model.ehmn").write_bytes(image.bytes.tobytes())
        (work / "tokenizer.json").write_text(checkpoint.tokenizer_json, "utf-8")
        write_vectors(record_vectors(image, ids), work / "vectors.safetensors")
        _write_encoders(checkpoint, ids, calibration, formats, work, report)
        if "c" in formats:
            write_c_array(image.bytes.tobytes(), work)
        with np.errstate(all="ignore"):  # what overflows fails the gate
            perplexity = _measure(checkpoint, image, work, evaluation_text, report)
        _check_quality(perplexity, max_increase)
        artefacts = [describe_artefact(p) for p in sorted(work.iterdir())]
        result = ExportResult(folder, image.id, artefacts, perplexity)
        manifest = {"edgehmn": __version__, "schema": SCHEMA} | result.as_dict()
        write_json(work / MANIFEST, manifest)
    return result


def _write_encoders(
    checkpoint: Checkpoint,
    ids: npt.NDArray[np.int32],
    calibration: Calibration,
    formats: tuple[str, ...],
    work: Path,
    report: Report,
) -> None:
    if "onnx" in formats:
        from edgehmn.export import onnx

        report("writing encoder.onnx")
        onnx.export_encoder(checkpoint, calibration.hidden_frac, work / "encoder.onnx")
    if "tflite" in formats:
        from edgehmn.export import tflite

        report("writing encoder.tflite")
        tflite.export_encoder(checkpoint, ids, calibration.hidden_frac, work / "encoder.tflite")


def _measure(checkpoint: Checkpoint, image: Image, work: Path, text: str, report: Report) -> dict[str, Perplexity]:
    """Perplexity of the float model and of every artefact that computes."""
    report("measuring float")
    out = {"float": float_perplexity(checkpoint, text)}
    report("measuring image")
    out["image"] = text_perplexity(CoreModel(image, plastic=False), checkpoint.encode, text)
    for kind in ("onnx", "tflite"):
        if (work / f"encoder.{kind}").exists():
            report(f"measuring {kind}")
            out[kind] = text_perplexity(encoder_runtime(kind, work, image), checkpoint.encode, text)
    return out


def _check_quality(perplexity: dict[str, Perplexity], max_increase: float | None) -> None:
    for kind, limit in DEFAULT_LIMITS.items():
        if kind in perplexity:
            rise = 100 * (perplexity[kind].token / perplexity["float"].token - 1)
            allowed = limit if max_increase is None else max_increase
            if not rise <= allowed:
                raise QualityGateError(
                    f"{kind}: perplexity {perplexity[kind].token:.2f} is {rise:.2f} % above float "
                    f"{perplexity['float'].token:.2f}; allowed are {allowed:g} % (--max-ppl-increase)",
                    perplexity={k: v.summary() for k, v in perplexity.items()},
                )
