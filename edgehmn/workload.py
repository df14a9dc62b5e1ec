"""What a model does per token, or per inference: its operators with their multiply-accumulates and bytes.

Nothing is executed. Of an export, the settings of the image say it; of a TFLite or ONNX file, the graph. The classes
of operators are those whose speed differs on a processor: see CLASSES.
"""

from dataclasses import dataclass, field
from pathlib import Path

from edgehmn.errors import InvalidFileError, UsageError

# fc: matrix times vector; conv: a window of more than one place; pointwise: a 1 x 1 window; depthwise: one channel at a
# time; attention: over the cache; other: element by element, counted as one multiply-accumulate an element.
CLASSES = ("fc", "conv", "pointwise", "depthwise", "attention", "other")


@dataclass(frozen=True)
class Operation:
    """One operator. macs: multiply-accumulates; weight_bytes: constants that it reads; activation_bytes: inputs and
    outputs."""

    name: str
    kind: str  # one of CLASSES
    macs: int
    weight_bytes: int
    activation_bytes: int
    rows: int = 0  # in our own core: outputs of a matrix, scores of attention


@dataclass(frozen=True)
class Learning:
    """What the plastic parts add to a token. macs_predicted: of adapters and memories while predicting; macs_learned:
    of learning; writes: synapses changed per learned token; delta_bytes: of all that is learned, which a token reads
    and writes once at most."""

    macs_predicted: float
    macs_learned: float
    writes: float
    delta_bytes: int


@dataclass(frozen=True)
class Workload:
    """per: "token" or "inference". flash_bytes: what is stored; ram_bytes: what must be in RAM while it runs, and
    ram_learning_bytes while it learns (0: it does not)."""

    name: str
    per: str
    operations: tuple[Operation, ...]
    flash_bytes: int
    ram_bytes: int
    ram_learning_bytes: int = 0
    learning: Learning | None = None
    regions: tuple[tuple[str, int], ...] = field(default=())
    generated: bool = False  # a token of a GGUF file, by the runtime of somebody else

    @property
    def macs(self) -> int:
        """Of matrix products and attention: the field's count, without what goes element by element."""
        return sum(o.macs for o in self.operations if o.kind != "other")

    @property
    def weight_bytes(self) -> int:
        return sum(o.weight_bytes for o in self.operations)

    @property
    def own(self) -> bool:
        """Whether our own core runs it."""
        return self.per == "token" and not self.generated

    def by_class(self) -> dict[str, int]:
        """Multiply-accumulates of each class."""
        return {k: sum(o.macs for o in self.operations if o.kind == k) for k in CLASSES}


def workload_of(path: Path) -> Workload:
    """Of an export folder, a TFLite, ONNX or GGUF file. Raises UsageError for anything else, InvalidFileError for a
    damaged one."""
    if path.is_dir():
        from edgehmn.workload_export import export_workload

        return export_workload(path)
    from edgehmn.inspection import gguf, onnx, tflite
    from edgehmn.inspection.source import opened

    with opened(path) as source:
        if tflite.looks_like(source):
            from edgehmn.workload_tflite import tflite_workload

            return tflite_workload(source, path.name)
        if source.size >= len(gguf.MAGIC) and source.read(0, len(gguf.MAGIC)) == gguf.MAGIC:
            from edgehmn.workload_gguf import gguf_workload

            return gguf_workload(source, path.name)
        if not onnx.looks_like(source):
            raise UsageError(
                f"{path}: neither an export nor a .tflite, .onnx or .gguf file; only these can be profiled"
            )
    from edgehmn.workload_onnx import onnx_workload

    return onnx_workload(path)


def checked_macs(macs: int, name: str) -> int:
    """Raises InvalidFileError for a count that no file means."""
    if not 0 <= macs < 1 << 50:
        raise InvalidFileError(f"{name}: an operator of {macs} multiply-accumulates; the file is damaged")
    return macs
