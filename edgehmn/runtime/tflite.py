"""The TFLite encoder: what the host must know of an exported file, and the class that runs it with LiteRT.

The graph takes one token per step and keeps no state. The host owns the KV cache, a ring of the n_ctx - 1
positions before the present one, that a step reads and the host then writes; `Interface` names every tensor.
"""

import hashlib
import json
import math
from dataclasses import asdict, dataclass, fields
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgehmn.errors import DependencyError, InvalidFileError, UsageError
from edgehmn.files import read_bytes

METADATA_NAME = "edgehmn_encoder"  # of the model's metadata entry, a JSON object that starts with FORMAT
FORMAT = '{"format": "edgehmn-encoder-1", '  # a change of the interface changes it
NO_SEAL = b'"sha256": "' + b"0" * 64 + b'"'  # what stands in the metadata while the seal is computed
FILE_IDENTIFIER = b"TFL3"  # bytes 4..7 of every TFLite file
MAX_METADATA_BYTES = 4096
MAX_CACHE_BYTES = 1 << 30  # what a file may ask of the host for its KV cache
HIDDEN_FRAC_RANGE = range(-15, 31)
CACHE_SCALE = 1 / 127  # of the int8 cache; the graph brings every key and value into -1..1
MASKED = -1e9  # added to the score of an unfilled slot; finite, as TFLite kernels promise nothing for infinity

# Where an interpreter may come from, best first. tflite_runtime, which ended in 2023, is for the 32-bit
# Raspberry Pi; with NumPy 2 it is imported without a complaint and only fails when an interpreter is made.
INTERPRETER_MODULES = ("ai_edge_litert.interpreter", "tflite_runtime.interpreter")

TensorSpec = tuple[type[np.generic], tuple[int, ...]]  # element type and shape


@dataclass(frozen=True)
class Interface:
    """Sizes and scale of an exported encoder; stored as the file's metadata, so the file suffices to run it."""

    n_layers: int
    n_ctx: int
    d_model: int
    d_head: int
    n_kv_heads: int
    vocab_size: int
    hidden_frac: int
    rope_theta: float

    def inputs(self) -> dict[str, TensorSpec]:
        """Inputs of one step, by name.

        token: id. cos, sin: of position * rope_theta**(-i / (d_head / 2)) for i < d_head / 2, which the host
        computes in float64, so that a position has no end. mask: added to the scores of the cache's slots and,
        last, of the present position: 0 where one is filled, MASKED elsewhere. cache: for each layer the keys
        (already rotated) of its heads, then the values; each layer's values and each RoPE pair's keys are in
        units of their calibrated range, so that one scale serves all.
        """
        angle = (np.float32, (1, self.d_head // 2))
        cache = (2 * self.n_layers * self.n_kv_heads, self.n_ctx - 1, self.d_head)
        return {
            "token": (np.int32, (1,)),
            "cos": angle,
            "sin": angle,
            "mask": (np.float32, (1, 1, self.n_ctx)),
            "cache": (np.int8, cache),
        }

    def outputs(self) -> dict[str, TensorSpec]:
        """Outputs of one step, by name: hidden (see `Encoder`), and what belongs in the cache's next slot."""
        slot = (2 * self.n_layers * self.n_kv_heads, 1, self.d_head)
        return {"hidden": (np.int16, (1, self.d_model)), "slot": (np.int8, slot)}

    def to_metadata(self) -> bytes:
        """JSON, still without a seal."""
        values = json.dumps(asdict(self))
        return FORMAT.encode() + values[1:-1].encode() + b", " + NO_SEAL + b"}"

    @classmethod
    def from_metadata(cls, metadata: dict[str, Any]) -> "Interface":
        """Raises ValueError where an entry is missing, of another type, or out of range."""
        for f in fields(cls):
            if type(metadata.get(f.name)) is not f.type:
                raise ValueError(f"metadata entry '{f.name}' is missing or of a wrong type")
        interface = cls(**{f.name: metadata[f.name] for f in fields(cls)})
        interface.check()
        return interface

    def check(self) -> None:
        """Raises ValueError where a size or scale is out of range."""
        if self.n_ctx < 2:
            raise ValueError(f"n_ctx is {self.n_ctx}, and a window needs at least 2 positions")
        sizes = (self.n_layers, self.d_model, self.d_head // 2, self.n_kv_heads, self.vocab_size)
        if min(sizes) < 1 or self.hidden_frac not in HIDDEN_FRAC_RANGE or not 1 < self.rope_theta < 1e12:
            raise ValueError(f"{self} is out of range")
        cache_bytes = math.prod(self.inputs()["cache"][1])
        if cache_bytes > MAX_CACHE_BYTES:
            raise ValueError(f"its KV cache has {cache_bytes} bytes, the limit is {MAX_CACHE_BYTES}")


class TfliteEncoder:
    """An exported encoder, run from its file alone. Same file, same runtime, same CPU: same bits.

    position: of the next token in the stream, an integer without an upper end.
    """

    def __init__(self, path: str | Path, num_threads: int = 1) -> None:
        """num_threads: that the interpreter may use within one operator.

        Raises UsageError where there is no file, InvalidFileError for one that is damaged or none of ours,
        DependencyError where no interpreter is installed that runs it.
        """
        path = Path(path)
        data = read_bytes(path)
        interface = self._interface = _read_interface(path, data)
        self.hidden_frac, self.d_model = interface.hidden_frac, interface.d_model
        self.vocab_size = interface.vocab_size
        half = interface.d_head // 2
        self._rope_frequency = interface.rope_theta ** (-np.arange(half) / half)
        self._interpreter = _open_interpreter(path, data, num_threads)
        self._tensor_index = _tensor_indices(path, self._interpreter, interface)
        self.reset()

    def reset(self) -> None:
        """Forget the context: the next step is the first of a stream, and equal to that of a new encoder."""
        self.position = 0
        self._view("cache")[:] = 0
        self._view("mask")[..., :-1] = MASKED
        self._view("mask")[..., -1] = 0

    def step(self, token: int) -> npt.NDArray[np.int16]:
        """Feed one token, 0..vocab_size - 1 (else UsageError); returns hidden (d_model,), a new array."""
        if not 0 <= token < self.vocab_size:
            raise UsageError(f"token {token} is outside the vocabulary, 0..{self.vocab_size - 1}")
        phase = self.position * self._rope_frequency
        self._view("token")[:] = token
        self._view("cos")[:] = np.cos(phase)
        self._view("sin")[:] = np.sin(phase)
        self._interpreter.invoke()
        slot = self.position % (self._interface.n_ctx - 1)
        self._view("cache")[:, slot] = self._view("slot")[:, 0]
        self._view("mask")[..., slot] = 0
        self.position += 1
        hidden: npt.NDArray[np.int16] = self._view("hidden")[0].copy()
        return hidden

    def _view(self, name: str) -> npt.NDArray[Any]:
        """A tensor's own memory. Never kept: the interpreter refuses to run while a view of it is alive."""
        view: npt.NDArray[Any] = self._interpreter.tensor(self._tensor_index[name])()
        return view


def seal(data: bytes) -> bytes:
    """Put the SHA-256 of a whole file, computed while NO_SEAL stands in its place, into its metadata."""
    assert data.count(NO_SEAL) == 1, "the metadata entry is written once"
    return data.replace(NO_SEAL, NO_SEAL.replace(b"0" * 64, hashlib.sha256(data).hexdigest().encode()))


def _read_interface(path: Path, data: bytes) -> Interface:
    """What the metadata says, once its seal has shown that the whole file is intact.

    An interpreter trusts the offsets in a file, and a flipped bit can crash the process. So the file is not
    parsed before the seal has been checked: the metadata is found by its first words. The seal guards against
    damage; it does not make a file from a stranger trustworthy.
    """
    if data[4:8] != FILE_IDENTIFIER:
        raise InvalidFileError(f"{path}: not a TFLite file; give an exported encoder")
    start = data.find(FORMAT.encode())
    if start < 0:
        raise InvalidFileError(f"{path}: no encoder that this edgehmn exported; export it with `edgehmn export`")
    text = data[start : start + MAX_METADATA_BYTES].decode("latin-1")
    try:
        metadata, length = json.JSONDecoder().raw_decode(text)
        found = b'"sha256": "' + str(metadata["sha256"]).encode() + b'"'
    except (ValueError, KeyError, RecursionError):
        raise InvalidFileError(f"{path}: damaged (its metadata cannot be read); export it again") from None
    blank = data[start : start + length].replace(found, NO_SEAL)
    digest = hashlib.sha256(data[:start] + blank + data[start + length :]).hexdigest()
    if digest != metadata["sha256"]:
        raise InvalidFileError(f"{path}: damaged (its checksum does not match); export it again")
    try:
        return Interface.from_metadata(metadata)
    except ValueError as e:
        raise InvalidFileError(f"{path}: {e}; export it again") from e


def _open_interpreter(path: Path, data: bytes, num_threads: int) -> Any:
    """An interpreter of the first module that can make one and has every operator of the file."""
    refusals = []
    for name in INTERPRETER_MODULES:
        try:
            interpreter = import_module(name).Interpreter(model_content=data, num_threads=num_threads)
            interpreter.allocate_tensors()
            return interpreter
        except (ImportError, AttributeError, SystemError, RuntimeError, ValueError) as e:
            refusals.append(f"{name}: {e}")
    raise DependencyError(
        f"{path}: no TFLite interpreter here runs it ({'; '.join(refusals)}); "
        "pip install 'edgehmn[tflite]', or on a 32-bit Pi: pip install tflite-runtime 'numpy<2'"
    )


def _tensor_indices(path: Path, interpreter: Any, interface: Interface) -> dict[str, int]:
    """Indices of inputs and outputs by name, once they are known to be those of the interface."""
    details = interpreter.get_input_details() + interpreter.get_output_details()
    present = {d["name"]: (d["dtype"], tuple(map(int, d["shape"]))) for d in details}
    if present != interface.inputs() | interface.outputs():
        raise InvalidFileError(f"{path}: its tensors are not what its metadata says; export it again")
    return {d["name"]: d["index"] for d in details}
