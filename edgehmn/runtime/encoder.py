"""The one contract between any encoder and the one head: a hidden vector of int16 at a declared scale.

`Interface` is what an exported file (ONNX, TFLite) says of itself; each format adds its tensors.
"""

from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from edgehmn.checkpoint.model import WINDOWS, Config, FloatArray

MAX_SIZE = 1 << 20  # no size in a file may exceed this
MAX_LAYERS = 1 << 10  # each has tensors of its own
MAX_CACHE_BYTES = 1 << 30  # what a file may ask of the host for its KV cache
HIDDEN_FRAC_RANGE = range(-15, 31)

TensorSpec = tuple[type[np.generic], tuple[int, ...]]  # element type and shape
AnyInterface = TypeVar("AnyInterface", bound="Interface")


class Encoder(Protocol):
    """Turns a stream of tokens into hidden vectors, one step per token.

    A hidden vector is the encoder's output before the final norm, as int16 mantissas: its real value is
    mantissa * 2**-hidden_frac. The head (the C core) owns the final norm, adapters, softmax and learning.
    An encoder knows one window; `edgehmn.runtime.window` begins the next one where the window does not slide.
    """

    hidden_frac: int
    d_model: int
    vocab_size: int

    @property
    def interface(self) -> "Interface":
        """What the file says of itself."""

    def reset(self) -> None:
        """Forget the context: the next step is the first of a window."""

    def step(self, token: int) -> npt.NDArray[np.int16]:
        """Feed one token; returns the hidden vector (d_model,) that predicts the next one. Raises UsageError for a
        token outside the vocabulary, and where the window is full and does not slide."""


@dataclass(frozen=True)
class Interface:
    """Sizes, scale and window of an exported encoder; stored in the file, so the file suffices to run it."""

    n_layers: int
    n_ctx: int
    d_model: int
    d_head: int
    n_kv_heads: int
    vocab_size: int
    hidden_frac: int
    rope_frequency: tuple[float, ...]  # radians per position of each pair, (d_head / 2,); empty: learned positions
    window: str  # one of WINDOWS
    start_token: int  # see Config

    cache_item_bytes: ClassVar[int] = 1  # of one number in the KV cache

    @classmethod
    def of(cls: type[AnyInterface], config: Config, hidden_frac: int) -> AnyInterface:
        """That of a model. Raises ValueError as `check` does."""
        same = {name: getattr(config, name) for name in ("n_layers", "n_ctx", "d_model", "d_head", "n_kv_heads")}
        same |= {name: getattr(config, name) for name in ("vocab_size", "window", "start_token")}
        return cls(**same, hidden_frac=hidden_frac, rope_frequency=tuple(config.rope_frequency().tolist()))

    @classmethod
    def from_dict(cls: type[AnyInterface], values: dict[str, Any]) -> AnyInterface:
        """The reverse of `as_dict`. Raises ValueError where an entry is missing, of another type or out of range."""
        known: dict[str, Any] = {}
        for f in fields(cls):
            value = values.get(f.name)
            if f.name == "rope_frequency":
                if not isinstance(value, list) or not all(type(v) is float for v in value):
                    raise ValueError(f"metadata entry '{f.name}' is missing or no list of numbers")
                value = tuple(value)
            elif type(value) is not f.type:
                raise ValueError(f"metadata entry '{f.name}' is missing or of a wrong type")
            known[f.name] = value
        return cls(**known)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"rope_frequency": list(self.rope_frequency)}

    def __post_init__(self) -> None:
        self.check()

    def check(self) -> None:
        """Raises ValueError where a value is out of range; this also bounds what a file can ask of the host."""
        for name in ("n_layers", "n_ctx", "d_model", "d_head", "n_kv_heads", "vocab_size"):
            if not 1 <= getattr(self, name) <= MAX_SIZE:
                raise ValueError(f"{name} {getattr(self, name)} is outside 1..{MAX_SIZE}")
        if self.n_layers > MAX_LAYERS:
            raise ValueError(f"n_layers {self.n_layers} is outside 1..{MAX_LAYERS}")
        if self.hidden_frac not in HIDDEN_FRAC_RANGE:
            raise ValueError(
                f"hidden_frac {self.hidden_frac} is outside {HIDDEN_FRAC_RANGE[0]}..{HIDDEN_FRAC_RANGE[-1]}"
            )
        if self.rope_frequency and 2 * len(self.rope_frequency) != self.d_head:
            raise ValueError(f"{len(self.rope_frequency)} RoPE frequencies do not fit heads of {self.d_head}")
        if not all(0 <= f <= MAX_SIZE for f in self.rope_frequency):  # NaN is refused, too
            raise ValueError("a RoPE frequency is out of range")
        if self.window not in WINDOWS:
            raise ValueError(f"window '{self.window:.20}' is none of {', '.join(WINDOWS)}")
        if self.window == "sliding" and (self.start_token != -1 or not self.rope_frequency):
            raise ValueError("a window with a start token or with learned positions does not slide")
        if self.window == "restart" and self.n_ctx < 4:
            raise ValueError(f"n_ctx is {self.n_ctx}, and a window that restarts needs at least 4 positions")
        if not -1 <= self.start_token < self.vocab_size:
            raise ValueError(f"start token {self.start_token} is outside the vocabulary, 0..{self.vocab_size - 1}")
        cache_bytes = 2 * self.n_layers * self.n_ctx * self.d_kv * self.cache_item_bytes
        if cache_bytes > MAX_CACHE_BYTES:
            raise ValueError(f"its KV cache has {cache_bytes} bytes, the limit is {MAX_CACHE_BYTES}")

    @property
    def d_kv(self) -> int:
        return self.d_head * self.n_kv_heads

    def angles(self, position: int) -> tuple[FloatArray, FloatArray]:
        """cos and sin, (d_head / 2,), of the angle of each RoPE pair at a position; computed in float64, so that a
        position has no end."""
        phase = position * np.array(self.rope_frequency)
        return np.cos(phase).astype(np.float32), np.sin(phase).astype(np.float32)
