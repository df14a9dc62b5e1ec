"""Logits of tiny models as the transformers package computes them, kept for tests that have neither it nor PyTorch.

    python tools/run.py tests.golden_hugging_face    # writes tests/golden/hugging_face.json; needs torch, transformers

The weights follow from the names of the tensors (`formula`), so that only configurations and logits are kept.
"""

import json
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

PATH = Path(__file__).resolve().parent / "golden" / "hugging_face.json"
TOKENS = 18
KEPT = 4  # positions whose logits are kept, the last ones
LLAMA: dict[str, Any] = {
    "vocab_size": 40,
    "hidden_size": 24,
    "intermediate_size": 11,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32,
    "rms_norm_eps": 1e-5,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 2.0,
    "original_max_position_embeddings": 24,
}
GPT2 = {"vocab_size": 40, "n_embd": 24, "n_layer": 2, "n_head": 3, "n_positions": 32}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", LLAMA),
    "llama with biases, tied": (
        "Llama",
        LLAMA | {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True},
    ),
    "llama, RoPE linear": (
        "Llama",
        LLAMA | {"rope_parameters": {"rope_type": "linear", "rope_theta": 1000.0, "factor": 4.0}},
    ),
    "llama, RoPE of Llama 3": ("Llama", LLAMA | {"rope_parameters": LLAMA3}),
    "mistral": ("Mistral", LLAMA | {"num_key_value_heads": 1, "sliding_window": 20}),
    "qwen2": ("Qwen2", LLAMA),
    "gpt2": ("GPT2", GPT2),
    "gpt2 with another inner size": ("GPT2", GPT2 | {"n_inner": 31, "activation_function": "gelu_pytorch_tanh"}),
}


def formula(name: str, shape: list[int] | tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Weights that look random: a hash of the tensor's name and of each place, of the sizes that trained ones have."""
    x = np.arange(math.prod(shape), dtype=np.uint64) * 0x9E3779B1 + zlib.crc32(name.encode())
    for multiplier in (0x7FEB352D, 0x846CA68B):
        x = ((x ^ (x >> 16)) * multiplier) & 0xFFFFFFFF
    uniform = x.astype(np.float64) / 2**32 - 0.5
    if len(shape) > 1:
        return (uniform * (12 / shape[-1]) ** 0.5).reshape(shape).astype(np.float32)
    center = 1.0 if "norm" in name or "ln_" in name else 0.0
    return (uniform + center * name.endswith("weight")).astype(np.float32)


def tokens() -> npt.NDArray[np.int64]:
    return np.arange(TOKENS) * 7 % 40


def main() -> None:
    import torch
    import transformers

    kept = {}
    for case, (family, settings) in CASES.items():
        config = getattr(transformers, f"{family}Config")(**settings)
        head = "LMHeadModel" if family == "GPT2" else "ForCausalLM"
        model = getattr(transformers, family + head)(config).eval()
        shapes = {}
        with torch.no_grad():
            for name, value in model.named_parameters():
                shapes[name] = list(value.shape)
                value.copy_(torch.from_numpy(formula(name, shapes[name])))
            logits = model(torch.from_numpy(tokens()[None])).logits[0, -KEPT:]
        kept[case] = {
            "config": json.loads(config.to_json_string()),
            "shapes": shapes,
            "logits": [[round(float(v), 6) for v in row] for row in logits],
        }
    PATH.write_text(json.dumps(kept, separators=(",", ":"), sort_keys=True) + "\n", "utf-8")


if __name__ == "__main__":
    main()
