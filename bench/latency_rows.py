"""The published measurements as rows of the fit: which core, runtime, version, board and submitter, and which classes
of operators the workload is made of."""

import csv
import re
from dataclasses import dataclass
from pathlib import Path

from edgehmn.errors import InvalidFileError

CLASSES = ("fc", "conv", "pointwise", "depthwise")
# Multiply-accumulates by class, as edgehmn.workload counts them in the reference networks of MLPerf Tiny.
MLPERF = {
    "MLPerfTiny-AD FC-autoencoder": (264192, 0, 0, 0),
    "MLPerfTiny-KWS DS-CNN": (768, 320000, 2048000, 288000),
    "MLPerfTiny-IC ResNet8": (640, 12238848, 262144, 0),
    "MLPerfTiny-VWW MobileNetV1-0.25-96": (512, 497664, 6193152, 798336),
}
OPERATORS = {"AD": 10, "KWS": 10, "IC": 10, "VWW": 28}
PERSON = (512, 165888, 6193152, 798336)  # the same network with one colour
BOTTLENECK = (0.0, 0.05, 0.80, 0.15)  # taken for the networks of which only the total is published
KERNELS = {"FC": 0, "conv 3x3": 1, "1x1": 2, "dwconv": 3}
# Of models whose head has weights of its own, the input embedding: a token reads one row of it. Vocabulary x width, by
# the name as `plain` has it.
EMBEDDINGS = {
    "llama3.18b": 128256 * 4096, "qwen2.57b": 152064 * 3584, "deepseekr17b": 152064 * 3584,
    "deepseekr11.5b": 151936 * 1536, "deepseekr114b": 152064 * 5120, "deepseekr132b": 152064 * 5120,
    "phi3.53b": 32064 * 3072, "mistral7b": 32000 * 4096, "llama27b": 32000 * 4096, "llama213b": 32000 * 5120,
    "llama270b": 32000 * 8192, "tinyllama": 32000 * 2048, "qwen38b": 151936 * 4096, "qwen1.8b": 151936 * 2048,
    "deepseekcoder1.3b": 32256 * 2048,
}  # fmt: skip
BYTES_OF_WEIGHT = 4.5 / 8  # of the four-bit formats that these rows have
# MLC's q4f16_ft, which the script makes that the rows of MLC name as their source; the file has estimates at 4.5 bits.
MLC_BYTES_OF_WEIGHT = 4 / 8
ACCELERATORS = ("Syntiant", "NE16", "MVP", "GPU", "RV64")
MICROCONTROLLERS = ("Cortex-M0+", "Cortex-M4F", "Cortex-M7", "Cortex-M33")


@dataclass(frozen=True)
class Row:
    board: str
    core: str
    family: str  # of runtimes
    version: str  # family, version, round
    submitter: str
    workload: str
    clock_hz: float
    macs: tuple[float, ...]  # by class
    operators: int
    cycles: float
    official: bool
    power_w: float | None
    supply: str
    runtime: str
    energy_mj: float | None
    latency_s: float
    submission: str = ""  # its folder: the same software on two operating systems is two

    @property
    def system(self) -> str:
        return f"{self.board} | {self.version}"


@dataclass(frozen=True)
class Decode:
    """A row of text generation. family: of runtimes, as edgehmn.generation names them; bytes: read for each token."""

    board: str
    core: str
    runtime: str
    family: str
    submitter: str
    workload: str
    bytes: float
    seconds: float


def read_rows(path: Path) -> tuple[list[Row], list[Decode]]:
    """Rows of networks on cores of microcontrollers, and rows of text generation."""
    rows, decodes = [], []
    with path.open(encoding="utf-8", newline="") as f:
        for line in csv.DictReader(f):
            try:
                if line["workload"].startswith("LLM decode"):
                    decodes.append(_decode(line))
                elif (row := _row(line)) is not None:
                    rows.append(row)
            except (KeyError, ValueError) as e:
                raise InvalidFileError(f"{path}: a row that cannot be read: {line} ({e})") from e
    return rows, decodes


def _row(line: dict[str, str]) -> Row | None:
    core = line["core"]
    if line["precision"] != "int8" or not line["latency_ms"] or any(a in core for a in ACCELERATORS) or "-A" in core:
        return None
    mix = _mix(line["workload"], float(line["MACs"] or 0))
    if mix is None:
        return None
    official = re.search(r"(v\d\.\d):(?:closed|open)/([^/]+)/", line["source"])
    family, version = _runtime(line["runtime"])
    by = official[2].lower() if official else submitter(line["source"])
    version = " ".join(f"{family} {version} {official[1] if official else ''}".split())
    supply = re.search(r"supply ([\d.]+) V", line["note"])
    clock = float(line["clock_MHz"]) * 1e6
    return Row(
        line["board"], core, family, version, by,
        line["workload"], clock, mix[0], mix[1], float(line["latency_ms"]) * 1e-3 * clock, official is not None,
        float(line["power_W"]) if line["power_W"] else None, supply[1] if supply else "", line["runtime"],
        float(line["energy_mJ"]) if line["energy_mJ"] else None, float(line["latency_ms"]) * 1e-3,
        line["source"].rpartition("/results/")[2].split("/")[0] if official else "",
    )  # fmt: skip


def _mix(workload: str, macs: float) -> tuple[tuple[float, ...], int] | None:
    """Multiply-accumulates by class, and the number of operators."""
    if workload in MLPERF:
        return MLPERF[workload], OPERATORS[workload.removeprefix("MLPerfTiny-").split()[0]]
    if workload.startswith("TFLM person"):
        return PERSON, 28
    if macs and workload.startswith("kernel "):
        kind = 0 if " FC" in workload else 3 if "dwconv" in workload else 2 if "1x1" in workload else 1
        return tuple(macs if i == kind else 0.0 for i in range(4)), 1
    if macs and re.match(r"mcunet|proxyless|mbv2", workload):
        return tuple(macs * share for share in BOTTLENECK), 50
    return None


def _runtime(name: str) -> tuple[str, str]:
    """Family and version."""
    low = name.lower().replace("_", "-")
    if low.startswith("x-cube-ai"):
        return "X-CUBE-AI", low.removeprefix("x-cube-ai").strip(" -")
    if low.startswith("microtvm"):
        return ("microTVM CMSIS-NN" if "cmsis" in low else "microTVM native"), ""
    if "esp-nn ansi" in low or "reference kernels" in low:
        return "reference kernels", ""
    for mark, family in (("esp-nn", "ESP-NN"), ("andes", "TFLM Andes NN"), ("tflm", "TFLM CMSIS-NN")):
        if mark in low:
            return family, re.sub(r"tflm|\+ cmsis-nn|[()]", "", low).strip()
    return name.split(" @")[0], ""


def _decode(line: dict[str, str]) -> Decode:
    workload, family = line["workload"].removeprefix("LLM decode "), generation_family(line["runtime"])
    unread = unread_weights(workload)
    if family == "MLC" and line["MACs"]:
        read = (float(line["MACs"]) - unread) * MLC_BYTES_OF_WEIGHT
    else:
        read = float(line["param_bytes"]) - unread * BYTES_OF_WEIGHT
    return Decode(
        line["board"], line["core"], line["runtime"], family, submitter(line["source"]), workload, read,
        1 / float(line["tokens_per_s"]),
    )  # fmt: skip


def plain(name: str) -> str:
    """A model's name as every publisher writes it: Qwen 2.5 7B, Qwen2.5-7B and qwen2.5:7b are one."""
    return re.sub(r"[ :_-]", "", name).lower()


def unread_weights(workload: str) -> int:
    """Of the model in the name of a row, those that a token does not read: of the input embedding, all."""
    return next((weights for name, weights in EMBEDDINGS.items() if plain(workload).startswith(name)), 0)


def generation_family(runtime: str) -> str:
    for mark, family in (("Ollama", "Ollama"), ("MLC", "MLC"), ("llama.cpp", "llama.cpp"), ("bitnet", "llama.cpp")):
        if runtime.startswith(mark):
            return family
    return f"other: {runtime}"


def submitter(source: str) -> str:
    """Owner of the repository, or the site."""
    owner = re.search(r"github\.com/([^/\s]+)/", source) or re.match(r"https?://(?:www\.)?([^/\s]+)", source)
    return (owner[1] if owner else source.split(":")[0].split("/")[0]).lower()
