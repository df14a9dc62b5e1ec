"""The one form in which every reader hands over a trained model."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Config:
    """Shape of a Trans-HMN model. The encoder is of the Llama family: RMSNorm, RoPE, SwiGLU, no biases."""

    n_layers: int
    d_model: int
    d_hidden: int
    n_heads: int
    n_kv_heads: int
    vocab_size: int
    n_ctx: int  # positions in the sliding window of every layer, the current one included
    rope_theta: float
    norm_eps: float
    final_norm: str  # "layernorm" or "rmsnorm"
    tied_head: bool
    n_adapters: int

    @property
    def d_head(self) -> int:
        return self.d_model // self.n_heads

    @property
    def d_kv(self) -> int:
        return self.d_head * self.n_kv_heads

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the tensors that a checkpoint of this configuration must hold."""
        d, h, kv = self.d_model, self.d_hidden, self.d_kv
        shapes: dict[str, tuple[int, ...]] = {"embed": (self.vocab_size, d)}
        for i in range(self.n_layers):
            shapes |= {
                f"layers.{i}.attn_norm.weight": (d,),
                f"layers.{i}.q": (d, d),
                f"layers.{i}.k": (kv, d),
                f"layers.{i}.v": (kv, d),
                f"layers.{i}.o": (d, d),
                f"layers.{i}.mlp_norm.weight": (d,),
                f"layers.{i}.gate": (h, d),
                f"layers.{i}.up": (h, d),
                f"layers.{i}.down": (d, h),
            }
        shapes["final_norm.weight"] = (d,)
        if self.final_norm == "layernorm":
            shapes["final_norm.bias"] = (d,)
        if not self.tied_head:
            shapes["head"] = (self.vocab_size, d)
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
    """Float tensors by name (see `Config.tensor_shapes`), weights as (outputs, inputs)."""

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
        return np.array(self.tokenizer.encode(text).ids, dtype=np.int32)
