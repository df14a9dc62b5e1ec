"""`edgehmn export`: a checkpoint in, a folder of artefacts out, each measured before it is called good."""

import ctypes
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgehmn import __version__
from edgehmn.calibrate import Calibration, calibrate, calibration_ids
from edgehmn.checkpoint import Checkpoint
from edgehmn.conformance import record_vectors, write_vectors
from edgehmn.core import CoreModel, Image
from edgehmn.device.boards import find_board
from edgehmn.errors import QualityGateError, UsageError
from edgehmn.evaluate import Perplexity, float_perplexity, text_perplexity
from edgehmn.export.c_array import write_c_array
from edgehmn.export.project import KINDS as PROJECTS
from edgehmn.export.project import project_zip
from edgehmn.exported import MANIFEST, SCHEMA, describe_artefact, encoder_runtime, holds_only_an_export, write_json
from edgehmn.files import new_folder
from edgehmn.fitting import image_for_board
from edgehmn.image import build_image
from edgehmn.precision import Loss, choose_precision, measure_losses
from edgehmn.quantize import Precision, QuantModel, quantise
from edgehmn.runtime.protocol import Runtime
from edgehmn.signing import SigningKey, sign_export
from edgehmn.tokenizer import device_section

ENCODERS = ("image", "onnx", "tflite")  # what computes, and is measured
ALL = (*ENCODERS, "c")  # what the word "all" stands for; projects hold the image once more, each
FORMATS = (*ALL, *PROJECTS)
INPUTS = ("16", "8", "auto")  # bits of what the image's matrices multiply
NARROW_RISE = 0.3  # in per cent, of the image over float: beyond it `auto` takes inputs of 16 bits after all
LEAST_EVALUATION = 64  # tokens: the first is a guess of every model, and few say nothing
DEFAULT_LIMITS = {"image": 1.0, "onnx": 1.0, "tflite": 2.0}  # largest rise of token perplexity over float, %

Report = Callable[[str], None]  # told what is being done
Encode = Callable[[str], npt.NDArray[np.int32]]  # text to token ids


@dataclass(frozen=True)
class Settings:
    """What to write, and how exact it must be.

    max_increase: of token perplexity over the float model, per cent, for every artefact; None: DEFAULT_LIMITS.
    weight_bits: of the layers' weights in the image, 8 or 4. inputs: one of INPUTS. board: name of a board for whose
    memory the learned state is made small enough; None: all of it. key: what to sign the manifest with.
    """

    formats: tuple[str, ...] = ("image",)
    evaluation_text: str = ""
    calibration_text: str | None = None
    max_increase: float | None = None
    weight_bits: int = 8
    inputs: str = "auto"
    board: str | None = None
    key: SigningKey | None = None


@dataclass(frozen=True)
class ExportResult:
    """noise: signal-to-noise in dB of each matrix of the image and each product of the ONNX encoder, as rows of tables.
    tokenizer: "in the image", or why text needs a host. signed_by: fingerprint of the key."""

    folder: Path
    image_id: str
    artefacts: list[dict[str, Any]]
    perplexity: dict[str, Perplexity] = field(repr=False)
    noise: dict[str, list[dict[str, float | str]]] = field(repr=False)
    tokenizer: str
    signed_by: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON, which knows no infinity: a figure that is not finite is None."""
        figures = {
            kind: {name: v if np.isfinite(v) else None for name, v in p.summary().items()}
            for kind, p in self.perplexity.items()
        }
        return {
            "image_id": self.image_id,
            "artefacts": self.artefacts,
            "perplexity": figures,
            "noise_db": self.noise,
            "tokenizer": self.tokenizer,
        }


def export_model(
    read: Callable[[], Checkpoint], folder: Path, settings: Settings, report: Report = lambda _: None
) -> ExportResult:
    """Write the artefacts of `settings.formats` into `folder`, which appears only when all are complete and good.

    Every artefact that computes is run over the evaluation text and must stay within its limit; otherwise
    QualityGateError, and nothing is written. The float tensors that `read` gives, the largest thing in memory, are let
    go before the image is built; it is called again if 8-bit inputs lose more than NARROW_RISE and `inputs` is auto.
    """
    if not settings.evaluation_text.strip():
        raise UsageError("the evaluation text is empty: perplexity cannot be measured on it")
    if settings.board is not None:
        find_board(settings.board)  # an unknown name is found before the work, not after it
    with new_folder(folder, holds_only_an_export) as work:
        report("reading the model")
        checkpoint = read()
        encode = checkpoint.encoder()
        if (tokens := len(encode(settings.evaluation_text))) < LEAST_EVALUATION:
            raise UsageError(
                f"the evaluation text has {tokens} tokens; at least {LEAST_EVALUATION} are needed, some thousands are "
                "better"
            )
        report("calibrating")
        ids = calibration_ids(checkpoint, settings.calibration_text)
        calibration = calibrate(checkpoint, ids)
        losses = measure_losses(checkpoint, ids, calibration, settings.weight_bits)
        report("measuring float")
        with np.errstate(all="ignore"):  # what overflows fails the gate
            perplexity = {"float": float_perplexity(checkpoint, settings.evaluation_text)}
        _give_back()
        (work / "tokenizer.json").write_text(checkpoint.tokenizer_json, "utf-8")
        noise = {"image": [x.as_dict() for x in losses]}
        noise |= _write_encoders(checkpoint, ids, calibration, settings.formats, work, report)
        report("quantising")
        section, tokenizer = device_section(checkpoint)
        precision = _precision(settings, losses)
        model = quantise(checkpoint, calibration, precision=precision, tokenizer=section)
        del checkpoint
        _give_back()
        image = _image(model, settings.board)
        del model
        _write_image(image, ids, settings.formats, work)
        perplexity |= _measure(encode, image, work, settings.evaluation_text, report)
        if settings.inputs == "auto" and precision.inputs == 8 and not _rise(perplexity, "image") <= NARROW_RISE:
            report("quantising again, with inputs of 16 bits: 8 lose too much")
            model = quantise(read(), calibration, precision=replace(precision, inputs=16), tokenizer=section)
            image = _image(model, settings.board)
            del model
            _write_image(image, ids, settings.formats, work)
            # Of every artefact: the head behind an encoder is the image's.
            perplexity |= _measure(encode, image, work, settings.evaluation_text, report)
        _check_quality(perplexity, noise, settings.max_increase)
        artefacts = [describe_artefact(p) for p in sorted(work.iterdir())]
        result = ExportResult(folder, image.id, artefacts, perplexity, noise, tokenizer)
        write_json(work / MANIFEST, {"edgehmn": __version__, "schema": SCHEMA} | result.as_dict())
        signed_by = sign_export(work, settings.key) if settings.key is not None else None
    return replace(result, signed_by=signed_by)


def _give_back() -> None:
    """Let the system have the memory of freed arrays: glibc keeps those below 32 MB, here a whole model's worth."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)


def _precision(settings: Settings, losses: list[Loss]) -> Precision:
    if settings.inputs == "auto":
        return choose_precision(losses, settings.weight_bits)
    return Precision(settings.weight_bits, int(settings.inputs))


def _image(model: QuantModel, board: str | None) -> Image:
    image = Image(build_image(model))
    return image if board is None else image_for_board(image, board)


def _write_encoders(
    checkpoint: Checkpoint,
    ids: npt.NDArray[np.int32],
    calibration: Calibration,
    formats: tuple[str, ...],
    work: Path,
    report: Report,
) -> dict[str, list[dict[str, float | str]]]:
    """Returns what the products of the ONNX encoder lose, if it is written."""
    products = {}
    if "onnx" in formats:
        from edgehmn.export import onnx
        from edgehmn.export.onnx_activations import choose_activations

        report("writing encoder.onnx")
        activations, table = choose_activations(checkpoint, ids)
        onnx.export_encoder(checkpoint, calibration.hidden_frac, work / "encoder.onnx", activations)
        products["onnx"] = [x.as_dict() for x in table]
    if "tflite" in formats:
        from edgehmn.export import tflite

        report("writing encoder.tflite")
        tflite.export_encoder(checkpoint, ids, calibration.hidden_frac, work / "encoder.tflite")
    return products


def _write_sources(image: Image, formats: tuple[str, ...], work: Path) -> None:
    if "c" in formats:
        write_c_array(image.bytes.tobytes(), work)
    for kind in PROJECTS:
        if kind in formats:
            (work / f"project-{kind}.zip").write_bytes(project_zip(kind, image.bytes.tobytes()))


def _measure(encode: Encode, image: Image, work: Path, text: str, report: Report) -> dict[str, Perplexity]:
    """Perplexity of every artefact that computes, all at the same time: each runs on one core, outside Python."""
    runtimes: dict[str, Runtime] = {"image": CoreModel(image, plastic=False)}
    for kind in ("onnx", "tflite"):
        if (work / f"encoder.{kind}").exists():
            runtimes[kind] = encoder_runtime(kind, work, image)
    report(f"measuring {', '.join(runtimes)}")
    stopped = threading.Event()

    def go_on(_: int) -> None:
        if stopped.is_set():
            raise InterruptedError

    def measure(runtime: Runtime) -> Perplexity:
        with np.errstate(all="ignore"):  # what overflows fails the gate
            return text_perplexity(runtime, encode, text, progress=go_on)

    with ThreadPoolExecutor(min(len(runtimes), os.cpu_count() or 1)) as pool:
        try:
            done = {kind: pool.submit(measure, runtime) for kind, runtime in runtimes.items()}
            return {kind: future.result() for kind, future in done.items()}
        finally:
            stopped.set()  # after an error or Ctrl-C nobody waits for the others


def _write_image(image: Image, ids: npt.NDArray[np.int32], formats: tuple[str, ...], work: Path) -> None:
    (work / "model.ehmn").write_bytes(image.bytes.data)
    write_vectors(record_vectors(image, ids), work / "vectors.safetensors")
    _write_sources(image, formats, work)


def _rise(perplexity: dict[str, Perplexity], kind: str) -> float:
    """Over float, in per cent; NaN if one of them is."""
    return 100 * (perplexity[kind].token / perplexity["float"].token - 1)


def _check_quality(
    perplexity: dict[str, Perplexity], noise: dict[str, list[dict[str, float | str]]], max_increase: float | None
) -> None:
    for kind, limit in DEFAULT_LIMITS.items():
        if kind in perplexity:
            rise = _rise(perplexity, kind)
            allowed = limit if max_increase is None else max_increase
            if not rise <= allowed:
                worst = sorted(noise["image"], key=lambda row: float(row["inputs_16"]))[:5]
                table = "".join(f"\n  {row['matrix']:<20}{row['inputs_16']:6.1f} dB" for row in worst)
                raise QualityGateError(
                    f"{kind}: perplexity {perplexity[kind].token:.2f} is {rise:.2f} % above float "
                    f"{perplexity['float'].token:.2f}; allowed are {allowed:g} % (--max-ppl-increase)\n"
                    f"matrices of the image that lose most by rounding:{table}",
                    perplexity={k: v.summary() for k, v in perplexity.items()},
                    noise_db=noise,
                )
