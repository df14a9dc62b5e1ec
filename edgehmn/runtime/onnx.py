"""The ONNX encoder: the tensors of an exported file, and the class that runs it with onnxruntime.

The graph takes one token per step and keeps no state. The host owns the KV cache, a ring of n_ctx positions
that a step reads and the host then writes at position mod n_ctx; `OnnxInterface` names every tensor.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from edgehmn.errors import DependencyError, InvalidFileError, UnsupportedError, UsageError, no_such
from edgehmn.files import read_bytes, sha256
from edgehmn.runtime.encoder import Interface, TensorSpec
from edgehmn.runtime.native_log import native_log
from edgehmn.runtime.onnx_file import SEAL_BYTES, read_contents
from edgehmn.runtime.onnx_shapes import check_shapes

TENSOR_TYPES = {np.int64: "tensor(int64)", np.int16: "tensor(int16)", np.float32: "tensor(float)"}

# Execution providers by the name that the command line gives them, in onnxruntime's order of preference: what the
# first of a row cannot run goes to the next.
PROVIDERS = {
    "cpu": ("CPUExecutionProvider",),
    "cuda": ("CUDAExecutionProvider", "CPUExecutionProvider"),
    "tensorrt": ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"),
}


@dataclass(frozen=True)
class OnnxInterface(Interface):
    """An Interface, and the tensors of one step."""

    cache_item_bytes: ClassVar[int] = 4

    def inputs(self) -> dict[str, TensorSpec]:
        """Inputs of one step, by name.

        token: id. cos, sin: see `Interface.angles`; with learned positions there is instead position, that in the
        window. mask: added to the scores of the cache's slots, 0 where a slot is visible, -inf where it is unfilled
        or about to be overwritten (position mod n_ctx, which holds the one position that has just left the window).
        key_cache.N, value_cache.N: of layer N, keys already rotated, each laid out as the product that reads it
        wants it. They are one tensor per layer because onnxruntime copies what a graph slices.
        """
        specs: dict[str, TensorSpec] = {"token": (np.int64, (1,))}
        if self.rope_frequency:
            specs |= dict.fromkeys(("cos", "sin"), (np.float32, (self.d_head // 2,)))
        else:
            specs["position"] = (np.int64, (1,))
        specs["mask"] = (np.float32, (self.n_ctx,))
        for i in range(self.n_layers):
            specs[f"key_cache.{i}"] = (np.float32, (self.n_kv_heads, self.d_head, self.n_ctx))
            specs[f"value_cache.{i}"] = (np.float32, (self.n_kv_heads, self.n_ctx, self.d_head))
        return specs

    def outputs(self) -> dict[str, TensorSpec]:
        """Outputs of one step, by name: hidden (see `Encoder`), and the cache's contents for this position."""
        rows = (np.float32, (self.n_layers, self.d_kv))
        return {"hidden": (np.int16, (self.d_model,)), "key": rows, "value": rows}


class OnnxEncoder:
    """An exported encoder, run from its file alone. Same file, onnxruntime, provider and processor: same bits.

    interface: what the file says of itself. position: of the next token in the window, which has no upper end where
    it slides. provider: of PROVIDERS, the one that is used.
    """

    def __init__(self, path: str | Path, threads: int = 1, provider: str = "cpu") -> None:
        """threads: that onnxruntime may use within one operator. provider: where to run, of PROVIDERS.

        Raises UsageError (no such file or provider), InvalidFileError, UnsupportedError (another version of ONNX, or
        this onnxruntime cannot run it) or DependencyError (no onnxruntime, or none with that provider).
        """
        path = Path(path)
        data = _read_intact(path)
        shape = self.interface = _read_interface(path, data)
        self._session = _open_session(path, data, threads, provider)
        self.provider = provider
        _check_tensors(path, self._session, shape)
        self.hidden_frac, self.d_model, self.vocab_size = shape.hidden_frac, shape.d_model, shape.vocab_size
        self._key_cache = np.zeros((shape.n_layers, shape.n_kv_heads, shape.d_head, shape.n_ctx), np.float32)
        self._value_cache = np.zeros((shape.n_layers, shape.n_kv_heads, shape.n_ctx, shape.d_head), np.float32)
        caches = {f"key_cache.{i}": layer for i, layer in enumerate(self._key_cache)}
        caches |= {f"value_cache.{i}": layer for i, layer in enumerate(self._value_cache)}
        # each layer's input is a view: the ring is written in place
        self._in: dict[str, npt.NDArray[Any]] = {
            name: caches[name] if name in caches else np.zeros(size, kind)
            for name, (kind, size) in shape.inputs().items()
        }
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
        """Forget the context: the next step is the first of a window, and equal to that of a new encoder."""
        self.position = 0
        self._key_cache.fill(0)
        self._value_cache.fill(0)
        self._in["mask"].fill(-np.inf)

    def step(self, token: int) -> npt.NDArray[np.int16]:
        """Feed one token, 0..vocab_size - 1 (else UsageError); returns hidden (d_model,), a new array.

        Raises UsageError also where the window is full and does not slide.
        """
        shape = self.interface
        if not 0 <= token < self.vocab_size:
            raise UsageError(f"token {token} is outside the vocabulary, 0..{self.vocab_size - 1}")
        if self.position >= shape.n_ctx and shape.window != "sliding":
            raise UsageError(f"the window of {shape.n_ctx} positions is full; reset it")
        slot = self.position % shape.n_ctx
        self._in["token"][0] = token
        self._in["mask"][slot] = -np.inf
        self._run()
        heads = (shape.n_layers, shape.n_kv_heads, shape.d_head)
        self._key_cache[..., slot] = self._out["key"].reshape(heads)
        self._value_cache[:, :, slot] = self._out["value"].reshape(heads)
        self._in["mask"][slot] = 0
        self.position += 1
        hidden: npt.NDArray[np.int16] = self._out["hidden"].copy()
        return hidden

    def _run(self) -> None:
        if self.interface.rope_frequency:
            self._in["cos"][:], self._in["sin"][:] = self.interface.angles(self.position)
        else:
            self._in["position"][0] = self.position
        self._session.run_with_iobinding(self._binding)


def _read_intact(path: Path) -> bytes:
    """The bytes of a file whose seal is right: a flipped bit never reaches onnxruntime's parser."""
    data = read_bytes(path)
    if sha256(data[:-SEAL_BYTES]).encode() != data[-SEAL_BYTES:]:
        raise InvalidFileError(
            f"{path}: damaged, or no encoder exported by edgehmn (its checksum does not match); export it again"
        )
    return data


def _read_interface(path: Path, data: bytes) -> OnnxInterface:
    try:
        contents = read_contents(data)
        interface = OnnxInterface.from_dict(contents.interface)
        check_shapes(contents, {name: shape for name, (_, shape) in interface.inputs().items()})
        return interface
    except ValueError as e:
        raise InvalidFileError(f"{path}: {e}; export it with this version of edgehmn") from e
    except UnsupportedError as e:
        raise UnsupportedError(f"{path}: {e}; use the edgehmn that wrote it, or export again") from e


def _open_session(path: Path, data: bytes, threads: int, provider: str) -> Any:
    if provider not in PROVIDERS:
        raise no_such("execution provider", provider, PROVIDERS)
    try:
        with native_log():  # where it finds no graphics card, some versions say so
            import onnxruntime
    except ImportError as e:
        raise DependencyError(f"onnxruntime cannot be imported ({e}); pip install 'edgehmn[onnx]'") from e
    wanted, present = PROVIDERS[provider], onnxruntime.get_available_providers()
    if wanted[0] not in present:
        raise DependencyError(
            f"onnxruntime {onnxruntime.__version__} here has no {wanted[0]}, only {', '.join(present)}; install the "
            "build that has it (onnxruntime-gpu; on a Jetson NVIDIA's own wheel), or choose the provider 'cpu'"
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # errors reach the caller as exceptions, so nothing goes to stderr
    try:
        providers = [name for name in wanted if name in present]
        session = onnxruntime.InferenceSession(data, options, providers, enable_fallback=0)
    except Exception as e:  # onnxruntime's exceptions have no common base, and one class has many causes
        if "NOT_IMPLEMENTED" in str(e):
            raise UnsupportedError(
                f"{path}: onnxruntime {onnxruntime.__version__} does not support this file ({_one_line(e)}); "
                "upgrade it: pip install -U onnxruntime"
            ) from e
        if provider != "cpu" and wanted[0].removesuffix("ExecutionProvider").upper() in str(e).upper():
            raise DependencyError(
                f"{wanted[0]} cannot be started ({_one_line(e)}); install its libraries, or choose the provider 'cpu'"
            ) from e
        raise InvalidFileError(f"{path}: not a valid ONNX model ({_one_line(e)}); export it again") from e
    if session.get_providers()[0] != wanted[0]:  # onnxruntime goes on without one whose libraries are missing
        raise DependencyError(
            f"onnxruntime {onnxruntime.__version__} could not start {wanted[0]}: its libraries or its device are "
            "missing; install them, or choose the provider 'cpu'"
        )
    return session


def _check_tensors(path: Path, session: Any, interface: OnnxInterface) -> None:
    for expected, present in (
        (interface.inputs(), session.get_inputs()),
        (interface.outputs(), session.get_outputs()),
    ):
        wanted = {name: (TENSOR_TYPES[kind], list(shape)) for name, (kind, shape) in expected.items()}
        if {p.name: (p.type, p.shape) for p in present} != wanted:
            raise InvalidFileError(f"{path}: its tensors are not what its metadata says; export it again")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
