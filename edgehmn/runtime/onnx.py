"""The ONNX encoder: what the host must know of an exported file, and the class that runs it with onnxruntime.

The graph takes one token per step and keeps no state. The host owns the KV cache, a ring of n_ctx positions
that a step reads and the host then writes at position mod n_ctx; `Interface` names every tensor.
"""

import re
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgehmn.checkpoint.trans_hmn import MAX_DIMENSION
from edgehmn.errors import DependencyError, InvalidFileError, UnsupportedError, UsageError
from edgehmn.files import read_bytes, sha256

FORMAT = "edgehmn-encoder-1"  # value of the metadata entry "format"; a change of the interface changes it
SEAL_BYTES = 64  # the file ends in the SHA-256, in hexadecimal, of all bytes before it
MAX_CACHE_BYTES = 1 << 30  # what a file may ask of the host for its KV cache
HIDDEN_FRAC_RANGE = range(-15, 31)
REFUSED_VERSION = re.compile(r"IR version: \d+|Opset \d+|NOT_IMPLEMENTED.*")  # in onnxruntime's messages
TENSOR_TYPES = {np.int64: "tensor(int64)", np.int16: "tensor(int16)", np.float32: "tensor(float)"}

TensorSpec = tuple[type[np.generic], tuple[int, ...]]  # element type and shape


@dataclass(frozen=True)
class Interface:
    """Sizes and scale of an exported encoder; stored as the file's metadata, so the file suffices to run it."""

    n_layers: int
    n_ctx: int
    d_model: int
    d_head: int
    d_kv: int
    vocab_size: int
    hidden_frac: int
    rope_theta: float

    def inputs(self) -> dict[str, TensorSpec]:
        """Inputs of one step, by name.

        token: id. cos, sin: of position * rope_theta**(-i / (d_head / 2)) for i < d_head / 2, which the host
        computes in float64, so that a position has no end. mask: added to the scores of the cache's slots, 0
        where a slot is visible, -inf where it is unfilled or about to be overwritten (position mod n_ctx, which
        holds the one position that has just left the window). key_cache.N, value_cache.N: rows of layer N, keys
        already rotated. They are one tensor per layer because onnxruntime copies what a graph slices.
        """
        angle, cache = (np.float32, (self.d_head // 2,)), (np.float32, (self.n_ctx, self.d_kv))
        specs: dict[str, TensorSpec] = {"token": (np.int64, (1,)), "cos": angle, "sin": angle}
        specs["mask"] = (np.float32, (self.n_ctx,))
        for i in range(self.n_layers):
            specs |= {f"key_cache.{i}": cache, f"value_cache.{i}": cache}
        return specs

    def outputs(self) -> dict[str, TensorSpec]:
        """Outputs of one step, by name: hidden (see `Encoder`), and the cache rows of this position."""
        rows = (np.float32, (self.n_layers, self.d_kv))
        return {"hidden": (np.int16, (self.d_model,)), "key": rows, "value": rows}

    def __post_init__(self) -> None:
        """Raises ValueError where a value is out of range; this also bounds what a file can ask of the host."""
        for f in fields(self):
            value = getattr(self, f.name)
            if f.type is int and f.name != "hidden_frac" and not 1 <= value <= MAX_DIMENSION:
                raise ValueError(f"{f.name} {value} is outside 1..{MAX_DIMENSION}")
        if self.hidden_frac not in HIDDEN_FRAC_RANGE:
            limits = f"{HIDDEN_FRAC_RANGE[0]}..{HIDDEN_FRAC_RANGE[-1]}"
            raise ValueError(f"hidden_frac {self.hidden_frac} is outside {limits}")
        if not 1 < self.rope_theta < 1e12:
            raise ValueError(f"rope_theta {self.rope_theta} is out of range")
        if 8 * self.n_layers * self.n_ctx * self.d_kv > MAX_CACHE_BYTES:
            raise ValueError(f"the KV cache would exceed {MAX_CACHE_BYTES} bytes")

    def to_metadata(self) -> dict[str, str]:
        return {"format": FORMAT} | {name: repr(value) for name, value in asdict(self).items()}

    @classmethod
    def from_metadata(cls, metadata: dict[str, str]) -> "Interface":
        """Raises ValueError where an entry is missing, no number or out of range."""
        values = {}
        for f in fields(cls):
            if f.name not in metadata:
                raise ValueError(f"metadata entry '{f.name}' is missing")
            values[f.name] = (int if f.type is int else float)(metadata[f.name])
        return cls(**values)  # type: ignore[arg-type]


class OnnxEncoder:
    """An exported encoder, run from its file alone. Same file, same onnxruntime, same CPU: same bits.

    position: of the next token in the stream, an integer without an upper end.
    """

    def __init__(self, path: str | Path, threads: int = 1) -> None:
        """threads: that onnxruntime may use within one operator.

        Raises UsageError (no such file), InvalidFileError, UnsupportedError (this onnxruntime cannot run it) or
        DependencyError.
        """
        path = Path(path)
        self._session = _open_session(path, _read_intact(path), threads)
        shape = self._interface = _read_interface(path, self._session)
        self.hidden_frac, self.d_model, self.vocab_size = shape.hidden_frac, shape.d_model, shape.vocab_size
        self._rope_frequency = shape.rope_theta ** (-np.arange(shape.d_head // 2) / (shape.d_head // 2))
        self._key_cache = np.zeros((shape.n_layers, shape.n_ctx, shape.d_kv), np.float32)
        self._value_cache = np.zeros_like(self._key_cache)
        self._in: dict[str, npt.NDArray[Any]] = {
            name: np.zeros(size, kind) for name, (kind, size) in shape.inputs().items()
        }
        for i in range(shape.n_layers):  # each layer's input is a view: the ring is written in place
            self._in[f"key_cache.{i}"], self._in[f"value_cache.{i}"] = self._key_cache[i], self._value_cache[i]
        self._out: dict[str, npt.NDArray[Any]] = {
            name: np.zeros(size, kind) for name, (kind, size) in shape.outputs().items()
        }
        self._binding = self._session.io_binding()
        for bind, arrays in ((self._binding.bind_input, self._in), (self._binding.bind_output, self._out)):
            for name, array in arrays.items():
                bind(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        self.reset()
        try:
            self._run()  # of the first token on an empty cache: leaves no trace, and shows that the graph runs
        except Exception as e:  # onnxruntime's exceptions have no common base
            raise InvalidFileError(f"{path}: its graph fails ({_one_line(e)}); export it again") from e

    def reset(self) -> None:
        """Forget the context: the next step is the first of a stream, and equal to that of a new encoder."""
        self.position = 0
        self._key_cache.fill(0)
        self._value_cache.fill(0)
        self._in["mask"].fill(-np.inf)

    def step(self, token: int) -> npt.NDArray[np.int16]:
        """Feed one token, 0..vocab_size - 1 (else UsageError); returns hidden (d_model,), a new array."""
        if not 0 <= token < self.vocab_size:
            raise UsageError(f"token {token} is outside the vocabulary, 0..{self.vocab_size - 1}")
        slot = self.position % self._interface.n_ctx
        self._in["token"][0] = token
        self._in["mask"][slot] = -np.inf
        self._run()
        self._key_cache[:, slot] = self._out["key"]
        self._value_cache[:, slot] = self._out["value"]
        self._in["mask"][slot] = 0
        self.position += 1
        return self._out["hidden"].copy()

    def _run(self) -> None:
        phase = self.position * self._rope_frequency
        self._in["cos"][:] = np.cos(phase)
        self._in["sin"][:] = np.sin(phase)
        self._session.run_with_iobinding(self._binding)


def _read_intact(path: Path) -> bytes:
    """The bytes of a file whose seal is right: a flipped bit never reaches onnxruntime's parser."""
    data = read_bytes(path)
    if sha256(data[:-SEAL_BYTES]).encode() != data[-SEAL_BYTES:]:
        raise InvalidFileError(
            f"{path}: damaged, or no encoder exported by edgehmn (its checksum does not match); export it again"
        )
    return data


def _open_session(path: Path, data: bytes, threads: int) -> Any:
    try:
        import onnxruntime
    except ImportError as e:
        raise DependencyError(f"onnxruntime cannot be imported ({e}); pip install 'edgehmn[onnx]'") from e
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # errors reach the caller as exceptions, so nothing goes to stderr
    try:
        return onnxruntime.InferenceSession(data, options, ["CPUExecutionProvider"], enable_fallback=0)
    except Exception as e:  # onnxruntime's exceptions have no common base, and one class has many causes
        refused = REFUSED_VERSION.search(str(e))
        if refused:
            raise UnsupportedError(
                f"{path}: onnxruntime {onnxruntime.__version__} does not support this file ({refused[0]}); "
                "upgrade it: pip install -U onnxruntime"
            ) from e
        raise InvalidFileError(f"{path}: not a valid ONNX model ({_one_line(e)}); export it again") from e


def _read_interface(path: Path, session: Any) -> Interface:
    try:
        metadata = session.get_modelmeta().custom_metadata_map
        if metadata.get("format") != FORMAT:
            raise ValueError(f"its metadata does not say '{FORMAT}'")
        interface = Interface.from_metadata(metadata)
        for expected, present in (
            (interface.inputs(), session.get_inputs()),
            (interface.outputs(), session.get_outputs()),
        ):
            wanted = {name: (TENSOR_TYPES[kind], list(shape)) for name, (kind, shape) in expected.items()}
            if {p.name: (p.type, p.shape) for p in present} != wanted:
                raise ValueError("its tensors are not what its metadata says")
    except ValueError as e:  # a UnicodeDecodeError of onnxruntime's binding is one, too
        raise InvalidFileError(f"{path}: {e}; export it with this version of edgehmn") from e
    return interface


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
