"""The TFLite encoder: what the host must know of an exported file, and the class that runs it with LiteRT.

The graph takes one token per step and keeps no state. The host owns the KV cache, a ring of the n_ctx - 1
positions before the present one, that a step reads and the host then writes; `Interface` names every tensor.
"""

import hashlib
import json
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgehmn.errors import DependencyError, InvalidFileError, UsageError
from edgehmn.files import read_bytes
from edgehmn.runtime import encoder
from edgehmn.runtime.encoder import TensorSpec
from edgehmn.runtime.native_log import native_log

METADATA_NAME = "edgehmn_encoder"  # of the model's metadata entry, a JSON object that starts with FORMAT
FORMAT = '{"format": "edgehmn-encoder-2", '  # a change of the interface changes it
NO_SEAL = b'"sha256": "' + b"0" * 64 + b'"'  # what stands in the metadata while the seal is computed
FILE_IDENTIFIER = b"TFL3"  # bytes 4..7 of every TFLite file
MAX_METADATA_BYTES = 1 << 16
MAX_LAYERS = 1024  # each has two inputs and two outputs
ANGLE_SCALE = 1 / 32767  # of cos and sin
MASK_SCALE = 1 / 4  # of the mask: MASKED is far below every score
MASKED = -32767
SLOT_AXES = {"keys": 1, "values": 2}

# Where an interpreter may come from, best first. tflite_runtime, which ended in 2023, is for the 32-bit
# Raspberry Pi; with NumPy 2 it is imported without a complaint and only fails when an interpreter is made.
INTERPRETER_MODULES = ("ai_edge_litert.interpreter", "tflite_runtime.interpreter")


@dataclass(frozen=True)
class Interface(encoder.Interface):
    """Sizes, scale, window and tensors of an exported encoder; the file's metadata."""

    cache_item_bytes = 2

    def inputs(self) -> dict[str, TensorSpec]:
        """Inputs of one step, by name, in the file's order."""
        return self.step_inputs() | self.cache_inputs()

    def step_inputs(self) -> dict[str, TensorSpec]:
        """token: id. position: in the window, where positions are learned. cos, sin: what RoPE multiplies a head and
        its swapped halves by, at ANGLE_SCALE (see `angles`). mask: for the cache's slots and, last, the present
        position: 0 where one is filled, MASKED elsewhere."""
        row = (1, self.d_head)
        turn: dict[str, TensorSpec] = {"cos": (np.int16, row), "sin": (np.int16, row)}
        place: dict[str, TensorSpec] = turn if self.rope_frequency else {"position": (np.int32, (1,))}
        return {"token": (np.int32, (1,))} | place | {"mask": (np.int16, (1, 1, self.n_ctx))}

    def cache_inputs(self) -> dict[str, TensorSpec]:
        """keys.I and values.I, for each layer: one slot for each position but the present, along SLOT_AXES. Keys are
        already rotated."""
        return self._of_layers("", self.n_ctx - 1)

    def outputs(self) -> dict[str, TensorSpec]:
        """Outputs of one step, by name: hidden (see `Encoder`), and what belongs in the next slot of each cache."""
        return {"hidden": (np.int16, (1, self.d_model))} | self._of_layers("new_", 1)

    def _of_layers(self, prefix: str, slots: int) -> dict[str, TensorSpec]:
        n, d = self.n_kv_heads, self.d_head
        shapes = {"keys": (n, slots, d), "values": (n, d, slots)}
        return {f"{prefix}{k}.{i}": (np.int16, shape) for i in range(self.n_layers) for k, shape in shapes.items()}

    def step_values(self, position: int) -> dict[str, npt.NDArray[np.int16] | int]:
        """What a step is told of its position: the inputs cos and sin, or position."""
        if not self.rope_frequency:
            return {"position": position}
        cos, sin = (np.round(a / ANGLE_SCALE).astype(np.int16) for a in self.angles(position))
        return {"cos": np.concatenate([cos, cos]), "sin": np.concatenate([-sin, sin])}

    def to_metadata(self) -> bytes:
        """JSON, still without a seal."""
        values = json.dumps(self.as_dict())
        return FORMAT.encode() + values[1:-1].encode() + b", " + NO_SEAL + b"}"

    def check(self) -> None:
        super().check()
        if self.n_ctx < 2:
            raise ValueError(f"n_ctx is {self.n_ctx}, and a window needs at least 2 positions")
        if self.n_layers > MAX_LAYERS:
            raise ValueError(f"it has {self.n_layers} layers, the limit is {MAX_LAYERS}")


def slot_of(name: str, slot: int) -> tuple[slice | int, ...]:
    """Index of a slot in a cache of that name, or in the output that belongs there."""
    return (slice(None),) * SLOT_AXES[name.partition(".")[0]] + (slot,)


class TfliteEncoder:
    """An exported encoder, run from its file alone. Same file, same runtime, same CPU: same bits.

    position: of the next token in the stream; in a window that slides it has no upper end.
    """

    def __init__(self, path: str | Path, num_threads: int = 1) -> None:
        """num_threads: that the interpreter may use within one operator.

        Raises UsageError where there is no file, InvalidFileError for one that is damaged or none of ours,
        DependencyError where no interpreter is installed that runs it.
        """
        path = Path(path)
        data = read_bytes(path)
        self.interface = _read_interface(path, data)
        self.hidden_frac, self.d_model = self.interface.hidden_frac, self.interface.d_model
        self.vocab_size = self.interface.vocab_size
        self._interpreter = _open_interpreter(path, data, num_threads)
        self._tensor_index = _tensor_indices(path, self._interpreter, self.interface)
        self.reset()

    def reset(self) -> None:
        """Forget the context: the next step is the first of a window, and equal to that of a new encoder."""
        self.position = 0
        for name in self.interface.cache_inputs():
            self._view(name)[:] = 0
        self._view("mask")[..., :-1] = MASKED
        self._view("mask")[..., -1] = 0

    def step(self, token: int) -> npt.NDArray[np.int16]:
        """Feed one token, 0..vocab_size - 1; returns hidden (d_model,), a new array. Raises UsageError for another
        token, and where the window is full and does not slide."""
        if not 0 <= token < self.vocab_size:
            raise UsageError(f"token {token} is outside the vocabulary, 0..{self.vocab_size - 1}")
        n_ctx = self.interface.n_ctx
        if self.interface.window != "sliding" and self.position >= n_ctx:
            raise UsageError(f"the window is full ({n_ctx} positions): reset the encoder, or use WindowedEncoder")
        self._view("token")[:] = token
        for name, value in self.interface.step_values(self.position).items():
            self._view(name)[:] = value
        self._interpreter.invoke()
        slot = self.position % (n_ctx - 1)
        for name in self.interface.cache_inputs():
            self._view(name)[slot_of(name, slot)] = self._view(f"new_{name}")[slot_of(name, 0)]
        self._view("mask")[..., slot] = 0
        self.position += 1
        hidden: npt.NDArray[np.int16] = self._view("hidden")[0].copy()
        return hidden

    def _view(self, name: str) -> npt.NDArray[Any]:
        """A tensor's own memory. Never kept: the interpreter refuses to run while a view of it is alive."""
        view: npt.NDArray[Any] = self._interpreter.tensor(self._tensor_index[name])()
        return view


def seal(data: bytearray) -> bytearray:
    """Put the SHA-256 of a whole file, computed while NO_SEAL stands in its place, into its metadata; returns it."""
    assert data.count(NO_SEAL) == 1, "the metadata entry is written once"
    digest = hashlib.sha256(data).hexdigest().encode()
    start = data.index(NO_SEAL) + NO_SEAL.index(b"0" * 64)
    data[start : start + len(digest)] = digest
    return data


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
    digest = hashlib.sha256(memoryview(data)[:start])
    digest.update(data[start : start + length].replace(found, NO_SEAL))
    digest.update(memoryview(data)[start + length :])
    if digest.hexdigest() != metadata["sha256"]:
        raise InvalidFileError(f"{path}: damaged (its checksum does not match); export it again")
    try:
        return Interface.from_dict(metadata)
    except ValueError as e:
        raise InvalidFileError(f"{path}: {e}; export it again") from e


def _open_interpreter(path: Path, data: bytes, num_threads: int) -> Any:
    """An interpreter of the first module that can make one and has every operator of the file."""
    refusals = []
    for name in INTERPRETER_MODULES:
        try:
            with native_log():  # LiteRT says that it has XNNPACK
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
