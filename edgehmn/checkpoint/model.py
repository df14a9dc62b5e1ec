"""The one form in which every reader hands over a trained model."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]


LAYER_NORMS = ("attn_norm", "mlp_norm")
# The norm whose output each matrix of a layer multiplies.
NORM_BEFORE = {"q": "attn_norm", "k": "attn_norm", "v": "attn_norm", "gate": "mlp_norm", "up": "mlp_norm"}
# In the order of their numbers in edgehmn_image.h.
NORMS = ("rmsnorm", "layernorm")
MLPS = ("swiglu", "gelu")
POSITIONS = ("rope", "learned")
WINDOWS = ("sliding", "restart")


@dataclass(frozen=True)
class Config:
    """Shape of a Trans-HMN model: an encoder of the Llama family (RMSNorm, RoPE, SwiGLU) or of the GPT-2 family
    (LayerNorm, learned positions, GELU), and what its head is made of."""

    n_layers: int
    d_model: int
    d_hidden: int
    n_heads: int
    n_kv_heads: int
    vocab_size: int
    n_ctx: int  # positions in the window of every layer, the current one included
    norm_eps: float
    final_norm: str  # of the head, one of NORMS
    tied_head: bool
    rope_theta: float = 10000.0
    rope_divisors: tuple[float, ...] = ()  # of each frequency, (d_head / 2,); empty: all 1
    norm: str = "rmsnorm"  # of the layers, one of NORMS
    mlp: str = "swiglu"  # or "gelu", in its tanh form
    positions: str = "rope"  # or "learned": a row of the tensor "positions" is added to the embedding
    window: str = "sliding"  # what happens when the window is full, see SPEC.md, "Window"
    start_token: int = -1  # goes first into every window, unseen by the caller; -1: none

    @property
    def d_head(self) -> int:
        return self.d_model // self.n_heads

    @property
    def d_kv(self) -> int:
        return self.d_head * self.n_kv_heads

    def rope_frequency(self) -> npt.NDArray[np.float64]:
        """Radians per position of each pair, (d_head / 2,); empty with learned positions."""
        if self.positions == "learned":
            return np.zeros(0)
        half = self.d_head // 2
        frequency: npt.NDArray[np.float64] = self.rope_theta ** (-np.arange(half) / half)
        return frequency / self.rope_divisors if self.rope_divisors else frequency

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the tensors that a checkpoint of this configuration must hold."""
        d = self.d_model
        shapes: dict[str, tuple[int, ...]] = {"embed": (self.vocab_size, d)}
        if self.positions == "learned":
            shapes["positions"] = (self.n_ctx, d)
        for i in range(self.n_layers):
            for name, shape in self.layer_matrix_shapes().items():
                norm = NORM_BEFORE.get(name)
                if norm:
                    shapes[f"layers.{i}.{norm}.weight"] = (d,)
                shapes[f"layers.{i}.{name}"] = shape
        shapes["final_norm.weight"] = (d,)
        if self.final_norm == "layernorm":
            shapes["final_norm.bias"] = (d,)
        if not self.tied_head:
            shapes["head"] = (self.vocab_size, d)
        return shapes

    def layer_matrix_shapes(self) -> dict[str, tuple[int, int]]:
        """(outputs, inputs) of the matrices of one layer; a GELU has no gate."""
        d, h, kv = self.d_model, self.d_hidden, self.d_kv
        gate = {"gate": (h, d)} if self.mlp == "swiglu" else {}
        return {"q": (d, d), "k": (kv, d), "v": (kv, d), "o": (d, d)} | gate | {"up": (h, d), "down": (d, h)}

    def bias_shapes(self) -> dict[str, tuple[int, ...]]:
        """Tensors that a checkpoint may hold beside those, zero where it does not: the bias of each matrix, and of each
        norm of the layers."""
        shapes: dict[str, tuple[int, ...]] = {}
        for i in range(self.n_layers):
            shapes |= {f"layers.{i}.{norm}.bias": (self.d_model,) for norm in LAYER_NORMS}
            shapes |= {f"layers.{i}.{name}.bias": (s[0],) for name, s in self.layer_matrix_shapes().items()}
        return shapes

    def statistics_shapes(self) -> dict[str, tuple[int, ...]]:
        """Tensors that a checkpoint may hold beside those: statistics of the plastic head, measured on the text
        that the model was trained on (tools/measure_statistics.py). Without them calibration measures its own."""
        d = self.d_model
        return {
            "plastic.mean": (d,),
            "plastic.inverse_deviation": (d,),
            "plastic.preconditioner": (d, d),
            "plastic.topic": (d, d),
        }


@dataclass(frozen=True)
class Checkpoint:
    """Float tensors by name (see `Config.tensor_shapes` and `bias_shapes`), weights as (outputs, inputs)."""

    config: Config
    tensors: dict[str, FloatArray]
    tokenizer_json: str

    @cached_property
    def tokenizer(self) -> Any:
        import tokenizers

        return tokenizers.Tokenizer.from_str(self.tokenizer_json)

    @property
    def head(self) -> FloatArray:
        """The output matrix, (vocab_size, d_model)."""
        return self.tensors["embed" if self.config.tied_head else "head"]

    def encode(self, text: str) -> npt.NDArray[np.int32]:
        """Token ids (n,) of a text, as the tokenizer gives them."""
        return self.encoder()(text)

    def encoder(self) -> Callable[[str], npt.NDArray[np.int32]]:
        """`encode`, without holding the tensors."""
        tokenizer = self.tokenizer
        return lambda text: np.array(tokenizer.encode(text).ids, dtype=np.int32)
