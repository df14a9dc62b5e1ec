"""Checkpoints on disk, as training programs and converters would leave them."""

import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors.numpy
import tokenizers

from edgehmn.checkpoint import Checkpoint, Config

Array = npt.NDArray[Any]


# ---- Our own directory


def write_checkpoint(checkpoint: Checkpoint, folder: Path) -> None:
    """Store a checkpoint of at least 256 tokens as a directory, with a tokenizer of bytes."""
    folder.mkdir()
    config = asdict(checkpoint.config) | {"model_type": "trans-hmn", "architecture": "llama"}
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    safetensors.numpy.save_file(checkpoint.tensors, folder / "model.safetensors")
    (folder / "tokenizer.json").write_text(byte_tokenizer(), "utf-8")


def byte_tokenizer() -> str:
    """The JSON of a tokenizer with one token per byte."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    model = tokenizers.models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[])
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    return str(tokenizer.to_str())


def letter_tokenizer(front: int = 0) -> str:
    """The JSON of a tokenizer of 28 tokens: letters, a space, and <s>, which it puts `front` times before a text."""
    vocab = {c: i for i, c in enumerate("abcdefghijklmnopqrstuvwxyz ")}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocab, merges=[]))
    tokenizer.add_special_tokens(["<s>"])
    if front:
        tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
            single="<s> " * front + "$A", special_tokens=[("<s>", 27)]
        )
    return str(tokenizer.to_str())


# ---- Safetensors, byte by byte


def bfloat16(values: Array) -> Array:
    """The upper halves of float32 values, cut off."""
    out: Array = (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    return out


def write_safetensors(path: Path, tensors: Mapping[str, tuple[str, Array]]) -> None:
    """Tensors as (type, values of that type); NumPy has no BF16, which is given as uint16."""
    at, header, data = 0, {}, b""
    for name, (kind, values) in tensors.items():
        raw = np.ascontiguousarray(values).tobytes()
        header[name] = {"dtype": kind, "shape": list(values.shape), "data_offsets": [at, at + len(raw)]}
        at, data = at + len(raw), data + raw
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


# ---- The order of the rows of q and k that GGUF and llama2.c have


def pairs_together(rows: Array, d_head: int) -> Array:
    """Rows of each head (i, i + half) side by side, as formats that turn neighbours have them."""
    out = np.empty_like(rows)
    for head in range(0, len(rows), d_head):
        for i in range(d_head // 2):
            out[head + 2 * i] = rows[head + i]
            out[head + 2 * i + 1] = rows[head + i + d_head // 2]
    return out


# ---- GGUF

F32, F16, Q4_0, Q4_1, Q8_0, BF16 = 0, 1, 2, 3, 8, 30
UINT32, FLOAT32, BOOL, STRING, ARRAY, INT32 = 4, 6, 7, 8, 9, 5
SIMPLE = {UINT32: "<I", FLOAT32: "<f", BOOL: "<?", INT32: "<i"}
Keys = dict[str, tuple[int, Any]]
LLAMA_GGUF = {
    "attn_norm.weight": "attn_norm.weight",
    "q": "attn_q.weight",
    "k": "attn_k.weight",
    "v": "attn_v.weight",
    "o": "attn_output.weight",
    "mlp_norm.weight": "ffn_norm.weight",
    "gate": "ffn_gate.weight",
    "up": "ffn_up.weight",
    "down": "ffn_down.weight",
}


def gguf_bytes(keys: Keys, tensors: Mapping[str, tuple[int, tuple[int, ...], bytes]], version: int = 3) -> bytes:
    """keys: (type, value), lists as (type of their elements, list); tensors: (type, shape, bytes)."""
    out = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(keys))
    for key, (kind, value) in keys.items():
        out += _text(key)
        if isinstance(value, list):
            out += struct.pack("<IIQ", ARRAY, kind, len(value)) + b"".join(_value(kind, v) for v in value)
        else:
            out += struct.pack("<I", kind) + _value(kind, value)
    data = b""
    for name, (kind, shape, raw) in tensors.items():
        out += _text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape[::-1], kind, len(data))
        data += raw + b"\0" * (-len(raw) % 32)
    return out + b"\0" * (-len(out) % 32) + data


def _text(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _value(kind: int, value: Any) -> bytes:
    return _text(value) if kind == STRING else struct.pack(SIMPLE[kind], value)


def gguf_keys(config: Config, kind: str = "llama") -> Keys:
    """What a converter writes of a model of this shape, with a tokenizer of `byte_pieces`."""
    sizes = {
        "block_count": config.n_layers,
        "context_length": config.n_ctx,
        "embedding_length": config.d_model,
        "feed_forward_length": config.d_hidden,
        "attention.head_count": config.n_heads,
        "attention.head_count_kv": config.n_kv_heads,
    }
    epsilon = "attention.layer_norm_epsilon" if kind == "gpt2" else "attention.layer_norm_rms_epsilon"
    pieces, scores = byte_pieces(config.vocab_size)
    return {
        "general.architecture": (STRING, kind),
        **{f"{kind}.{key}": (UINT32, value) for key, value in sizes.items()},
        f"{kind}.{epsilon}": (FLOAT32, config.norm_eps),
        f"{kind}.rope.freq_base": (FLOAT32, config.rope_theta),
        "tokenizer.ggml.model": (STRING, "llama"),
        "tokenizer.ggml.tokens": (STRING, [p.replace(" ", "▁") for p in pieces]),
        "tokenizer.ggml.scores": (FLOAT32, scores),
        "tokenizer.ggml.token_type": (INT32, [2, 3, 3] + [6] * 256 + [1] * (config.vocab_size - 259)),
    }


def float32(values: Array) -> tuple[int, tuple[int, ...], bytes]:
    return F32, values.shape, values.astype("<f4").tobytes()


def gguf_tensors(
    checkpoint: Checkpoint, store: Callable[[Array], tuple[int, tuple[int, ...], bytes]] = float32
) -> dict[str, tuple[int, tuple[int, ...], bytes]]:
    """The tensors of a Llama model, matrices in the form that `store` gives them."""
    c, t = checkpoint.config, checkpoint.tensors
    found = {"token_embd.weight": store(t["embed"]), "output_norm.weight": float32(t["final_norm.weight"])}
    if "head" in t:
        found["output.weight"] = store(t["head"])
    for i in range(c.n_layers):
        for ours, theirs in LLAMA_GGUF.items():
            values = t[f"layers.{i}.{ours}"]
            if ours in ("q", "k"):
                values = pairs_together(values, c.d_head)
            found[f"blk.{i}.{theirs}"] = store(values) if values.ndim == 2 else float32(values)
    return found


def gpt2_gguf_tensors(checkpoint: Checkpoint) -> dict[str, tuple[int, tuple[int, ...], bytes]]:
    t, names = checkpoint.tensors, {"attn_norm": "attn_norm", "o": "attn_output", "mlp_norm": "ffn_norm"}
    names |= {"up": "ffn_up", "down": "ffn_down"}
    found = {"token_embd.weight": t["embed"], "position_embd.weight": t["positions"]}
    found |= {f"output_norm.{part}": t[f"final_norm.{part}"] for part in ("weight", "bias")}
    for i in range(checkpoint.config.n_layers):
        ours = f"layers.{i}."
        for name, theirs in names.items():
            found[f"blk.{i}.{theirs}.weight"] = t[ours + name + ".weight" * name.endswith("norm")]
            found[f"blk.{i}.{theirs}.bias"] = t[f"{ours}{name}.bias"]
        found[f"blk.{i}.attn_qkv.weight"] = np.concatenate([t[ours + n] for n in "qkv"])
        found[f"blk.{i}.attn_qkv.bias"] = np.concatenate([t[f"{ours}{n}.bias"] for n in "qkv"])
    return {name: float32(values) for name, values in found.items()}


# ---- llama2.c


def byte_pieces(n: int) -> tuple[list[str], list[float]]:
    """Texts and scores of n >= 264 tokens: <unk>, BOS, EOS, the bytes, a space, letters, and words made of them."""
    pieces = ["<unk>", "\n<s>\n", "\n</s>\n", *(f"<0x{byte:02X}>" for byte in range(256))]
    words = [" ", "a", "b", "ab", " a", " ab", "aa", "aaa", "ba", "aba", "é", "b a"]
    words += [f"w{i}" for i in range(n)]
    pieces += words[: n - len(pieces)]
    return pieces, [0.0] * 259 + [-float(i) for i in range(n - 259)]


def write_llama2c_tokenizer(path: Path, vocab_size: int) -> None:
    pieces, scores = byte_pieces(vocab_size)
    out = struct.pack("<I", max(len(p.encode()) for p in pieces))
    for piece, score in zip(pieces, scores, strict=True):
        out += struct.pack("<fi", score, len(piece.encode())) + piece.encode()
    path.write_bytes(out)


def llama2c_bytes(checkpoint: Checkpoint, version: int, group: int = 4) -> bytes:
    """A Llama model with RMSNorms in one of the versions 0, 1 and 2."""
    c, t = checkpoint.config, dict(checkpoint.tensors)
    for i in range(c.n_layers):
        for name in ("q", "k"):
            t[f"layers.{i}.{name}"] = pairs_together(t[f"layers.{i}.{name}"], c.d_head)
    sizes = [c.d_model, c.d_hidden, c.n_layers, c.n_heads, c.n_kv_heads, c.vocab_size, c.n_ctx]
    every = {name: [t[f"layers.{i}.{name}"] for i in range(c.n_layers)] for name in LLAMA_GGUF}
    head = [] if c.tied_head else [t["head"]]
    if version == 0:
        sizes[5] *= 1 if c.tied_head else -1
        order = [t["embed"], *every["attn_norm.weight"], *every["q"], *every["k"], *every["v"], *every["o"]]
        order += [*every["mlp_norm.weight"], *every["gate"], *every["down"], *every["up"], t["final_norm.weight"]]
        order += [np.zeros((c.n_ctx, c.d_head)), *head]
        return struct.pack("<7i", *sizes) + b"".join(w.astype("<f4").tobytes() for w in order)
    start = struct.pack("<Ii7iBi", 0x616B3432, version, *sizes, c.tied_head, group if version == 2 else 0)
    norms = [*every["attn_norm.weight"], *every["mlp_norm.weight"], t["final_norm.weight"]]
    order = [t["embed"], *(w for name in ("q", "k", "v", "o", "gate", "down", "up") for w in every[name]), *head]
    store = _float_bytes if version == 1 else lambda w: _int8_bytes(w, group)
    return start.ljust(256, b"\0") + b"".join(map(_float_bytes, norms)) + b"".join(map(store, order))


def _float_bytes(w: Array) -> bytes:
    return bytes(w.astype("<f4").tobytes())


def _int8_bytes(w: Array, group: int) -> bytes:
    groups = w.reshape(-1, group)
    scale = np.abs(groups).max(1, keepdims=True) / 127
    return np.rint(groups / scale).astype(np.int8).tobytes() + scale.astype("<f4").tobytes()
