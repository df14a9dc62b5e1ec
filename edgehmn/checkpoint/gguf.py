"""Reader of GGUF files: a header of keys, a list of tensors, their values; the tokenizer is among the keys.

The header is read here, with every length checked against the size of the file before anything is allocated: the
`gguf` package maps the file and trusts it. It is needed only for tensors in the types that this module has no form for.
"""

import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from edgehmn.checkpoint.llama2c import halves_apart
from edgehmn.checkpoint.model import Checkpoint, Config, FloatArray
from edgehmn.checkpoint.settings import Settings, checked, context
from edgehmn.checkpoint.stored import FORMS, Bytes, Form, Stored, Tensors, load_values, tie_if_equal
from edgehmn.checkpoint.tokenizer import WHOLE_WORDS_FIRST, byte_level_bpe, read_tokenizer, scored_bpe
from edgehmn.errors import DependencyError, InvalidFileError, UnsupportedError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
ARCHITECTURES = ("llama", "qwen2", "gpt2")
STRING, ARRAY = 8, 9
SCALARS = {
    0: "<u1",
    1: "<i1",
    2: "<u2",
    3: "<i2",
    4: "<u4",
    5: "<i4",
    6: "<f4",
    7: "|b1",
    10: "<u8",
    11: "<i8",
    12: "<f8",
}
LISTS = ("tokenizer.ggml.tokens", "tokenizer.ggml.merges", "tokenizer.ggml.scores", "tokenizer.ggml.token_type")
MAX_TEXT = 1 << 24  # bytes of one string: a chat template has some thousand
UNKNOWN, CONTROL, USER_DEFINED = 2, 3, 4  # of tokenizer.ggml.token_type
LLAMA_NAMES = {
    "attn_norm": "attn_norm",
    "q": "attn_q",
    "k": "attn_k",
    "v": "attn_v",
    "o": "attn_output",
    "mlp_norm": "ffn_norm",
    "gate": "ffn_gate",
    "up": "ffn_up",
    "down": "ffn_down",
}


def read_gguf(path: Path, n_ctx: int | None) -> Checkpoint:
    """n_ctx: positions of the window. Raises as read_checkpoint."""
    settings, stored = _read_header(path)
    kind = settings.get("general.architecture", str)
    if kind not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise UnsupportedError(f"{path}: architecture {kind[:80]!r} is not supported; this version reads {known}")
    tensors = Tensors(path, stored)
    tokenizer_json, start = _tokenizer(settings)
    config, found = _gpt2(settings, tensors, n_ctx) if kind == "gpt2" else _llama(settings, tensors, n_ctx, kind)
    config = checked(replace(config, start_token=start), str(path))
    read_tokenizer(path, tokenizer_json, config.vocab_size)
    values = tensors.gather(config, found)
    return Checkpoint(replace(config, tied_head=tie_if_equal(config.tied_head, values)), values, tokenizer_json)


# ---- The header


@dataclass
class _Cursor:
    """A place in a file, which cannot be moved beyond its end."""

    path: Path
    file: BinaryIO
    left: int

    def take(self, n: int) -> bytes:
        if n > self.left:
            raise InvalidFileError(f"{self.path}: ends inside its header; it is truncated or damaged")
        self.left -= n
        data = self.file.read(n)
        if len(data) != n:
            raise InvalidFileError(f"{self.path}: ends inside its header; it is truncated or damaged")
        return data

    def number(self, code: str) -> Any:
        return struct.unpack("<" + code, self.take(struct.calcsize("<" + code)))[0]

    def text(self) -> str:
        n = self.number("Q")
        if n > MAX_TEXT:
            raise InvalidFileError(f"{self.path}: a text of {n} bytes in its header; it is damaged")
        try:
            return self.take(n).decode("utf-8")
        except UnicodeDecodeError as e:
            raise InvalidFileError(f"{self.path}: a text in its header is not UTF-8; it is damaged") from e

    def value(self, kind: int, keep: bool = True) -> Any:
        """A value of this type; arrays are read past unless they are to be kept."""
        if kind == STRING:
            return self.text()
        if kind in SCALARS:
            scalar = np.dtype(SCALARS[kind])
            return np.frombuffer(self.take(scalar.itemsize), scalar)[0].item()
        if kind != ARRAY:
            raise InvalidFileError(f"{self.path}: a value of type {kind} in its header; it is damaged")
        element, n = self.number("I"), self.number("Q")
        if element in SCALARS:
            scalar = np.dtype(SCALARS[element])
            data = np.frombuffer(self.take(n * scalar.itemsize), scalar)
            return data.tolist() if keep else None
        if element != STRING or n * 8 > self.left:
            raise InvalidFileError(f"{self.path}: an array of {n} values of type {element}; it is damaged")
        if keep:
            return [self.text() for _ in range(n)]
        for _ in range(n):
            self.take(min(self.number("Q"), self.left + 1))
        return None


def _read_header(path: Path) -> tuple[Settings, dict[str, Stored]]:
    try:
        with path.open("rb") as f:
            cursor = _Cursor(path, f, os.fstat(f.fileno()).st_size)
            return _header(cursor)
    except OSError as e:
        raise InvalidFileError(f"{path}: cannot be read ({e.strerror})") from e


def _header(c: _Cursor) -> tuple[Settings, dict[str, Stored]]:
    size = c.left
    c.take(len(MAGIC))
    version = c.number("I")
    if version not in VERSIONS:
        raise UnsupportedError(f"{c.path}: version {version} of GGUF; versions 2 and 3, little-endian, are read")
    n_tensors, n_keys = c.number("Q"), c.number("Q")
    keys: dict[str, Any] = {}
    for _ in range(min(n_keys, c.left)):
        key = c.text()
        if key in keys:
            raise InvalidFileError(f"{c.path}: key '{key[:80]}' stands twice in its header")
        keys[key] = c.value(c.number("I"), key in LISTS)
    settings = Settings(str(c.path), keys)
    places: dict[str, tuple[tuple[int, ...], int, int]] = {}
    for _ in range(min(n_tensors, c.left)):
        name = c.text()
        n_dims = c.number("I")
        if name in places or not 1 <= n_dims <= 4:
            raise InvalidFileError(f"{c.path}: tensor '{name[:80]}' stands twice, or has {n_dims} dimensions")
        shape = tuple(c.number("Q") for _ in range(n_dims))[::-1]
        places[name] = shape, c.number("I"), c.number("Q")
    alignment = settings.size("general.alignment", 32)
    base = -(-(size - c.left) // alignment) * alignment
    for name, (_, _, offset) in places.items():
        if offset % alignment:
            raise InvalidFileError(f"{c.path}: tensor '{name}' begins at {offset}, no multiple of {alignment}")
    return settings, {name: _stored(c.path, name, s, kind, base + at) for name, (s, kind, at) in places.items()}


# ---- Tensors


def _halves(raw: Bytes) -> npt.NDArray[np.float32]:
    """The 16-bit floats that begin each block, (n, k)."""
    return raw.view("<f2").astype(np.float32)


def _nibbles(raw: Bytes) -> npt.NDArray[np.float32]:
    """(n, 16) bytes -> (n, 32): the low halves are the first sixteen values."""
    return np.concatenate([raw & 15, raw >> 4], axis=1).astype(np.float32)


def _q4_0(raw: Bytes) -> npt.NDArray[np.float32]:
    return (_nibbles(raw[:, 2:]) - 8) * _halves(np.ascontiguousarray(raw[:, :2]))


def _q4_1(raw: Bytes) -> npt.NDArray[np.float32]:
    scale = _halves(np.ascontiguousarray(raw[:, :4]))
    return _nibbles(raw[:, 4:]) * scale[:, :1] + scale[:, 1:]


def _q8_0(raw: Bytes) -> npt.NDArray[np.float32]:
    return raw[:, 2:].view(np.int8) * _halves(np.ascontiguousarray(raw[:, :2]))


TYPES = {
    0: FORMS["F32"],
    1: FORMS["F16"],
    2: Form(32, 18, _q4_0),
    3: Form(32, 20, _q4_1),
    8: Form(32, 34, _q8_0),
    30: FORMS["BF16"],
}


def _stored(path: Path, name: str, shape: tuple[int, ...], kind: int, offset: int) -> Stored:
    def load() -> FloatArray:
        form = TYPES.get(kind) or _form_of_package(path, name, kind)
        if shape[-1] % form.values:
            raise InvalidFileError(f"{path}: tensor '{name}' has rows of {shape[-1]}, no multiple of {form.values}")
        return load_values(path, name, offset, shape, form)

    return Stored(name, shape, load)


def _form_of_package(path: Path, name: str, kind: int) -> Form:
    """Of the types that the gguf package takes apart, K-quants among them."""
    try:
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
        from gguf.quants import dequantize
    except ImportError as e:
        raise DependencyError(
            f"{path}: tensor '{name}' has type {kind}, which the gguf package reads; pip install 'edgehmn[gguf]'"
        ) from e
    try:
        known = GGMLQuantizationType(kind)
        values, size = GGML_QUANT_SIZES[known]
        dequantize(np.zeros((1, size), np.uint8), known)
    except (ValueError, KeyError, NotImplementedError) as e:
        raise UnsupportedError(f"{path}: tensor '{name}' has type {kind}, which is not supported", tensor=name) from e
    return Form(values, size, lambda raw: dequantize(raw, known))


# ---- The families


def _sizes(s: Settings, tensors: Tensors, kind: str, n_ctx: int | None) -> dict[str, Any]:
    """What both families say in the same keys."""
    n_heads = s.size(f"{kind}.attention.head_count")
    trained = s.size(f"{kind}.context_length")
    embed = tensors["token_embd.weight"]
    return {
        "n_layers": s.size(f"{kind}.block_count"),
        "d_model": s.size(f"{kind}.embedding_length"),
        "d_hidden": s.size(f"{kind}.feed_forward_length"),
        "n_heads": n_heads,
        "n_kv_heads": s.size(f"{kind}.attention.head_count_kv", n_heads),
        "vocab_size": embed.shape[0],
        "n_ctx": context(s.where, min(trained, s.size(f"{kind}.attention.sliding_window", trained)), n_ctx),
        "tied_head": "output.weight" not in tensors,
        "window": "restart",
    }


def _llama(s: Settings, tensors: Tensors, n_ctx: int | None, kind: str) -> tuple[Config, dict[str, Stored]]:
    sizes = _sizes(s, tensors, kind, n_ctx)
    d_head = sizes["d_model"] // sizes["n_heads"]
    for key in ("rope.dimension_count", "attention.key_length", "attention.value_length"):
        s.only(f"{kind}.{key}", d_head)
    for key in ("expert_count", "expert_used_count"):
        s.only(f"{kind}.{key}", 0)
    config = Config(
        norm_eps=s.get(f"{kind}.attention.layer_norm_rms_epsilon", float),
        final_norm="rmsnorm",
        rope_theta=s.get(f"{kind}.rope.freq_base", float, 10000.0),
        rope_divisors=_divisors(s, tensors, kind, d_head),
        **sizes,
    )
    checked(config, s.where)
    found = _layers(tensors, LLAMA_NAMES, config.n_layers)
    if kind == "llama":  # whose files have the rows of q and k in the order of llama2.c
        for i in range(config.n_layers):
            for name in (f"layers.{i}.{m}{b}" for m in "qk" for b in ("", ".bias")):
                if name in found:
                    found[name] = halves_apart(found[name], config.d_head)
    return config, found


def _divisors(s: Settings, tensors: Tensors, kind: str, d_head: int) -> tuple[float, ...]:
    """What the frequencies are divided by: a tensor, a factor, or nothing."""
    if "rope_freqs.weight" in tensors:
        return tuple(map(float, tensors.read(tensors["rope_freqs.weight"], (d_head // 2,))))
    s.only(f"{kind}.rope.scaling.type", "none", "linear")
    factor = s.get(f"{kind}.rope.scaling.factor", float, s.get(f"{kind}.rope.scale_linear", float, 1.0))
    return (factor,) * (d_head // 2) if factor != 1 else ()


def _gpt2(s: Settings, tensors: Tensors, n_ctx: int | None) -> tuple[Config, dict[str, Stored]]:
    config = Config(
        norm_eps=s.get("gpt2.attention.layer_norm_epsilon", float),
        final_norm="layernorm",
        norm="layernorm",
        mlp="gelu",
        positions="learned",
        **_sizes(s, tensors, "gpt2", n_ctx),
    )
    checked(config, s.where)
    names = {ours: theirs for ours, theirs in LLAMA_NAMES.items() if ours not in ("q", "k", "v", "gate")}
    found = _layers(tensors, names, config.n_layers)
    found["positions"] = tensors["position_embd.weight"].rows(0, config.n_ctx)
    d = config.d_model
    for i in range(config.n_layers):
        for part in ("weight", "bias"):
            fused = tensors[f"blk.{i}.attn_qkv.{part}"]
            if fused.shape[0] != 3 * d:
                raise InvalidFileError(f"{tensors.where}: tensor '{fused.name}' has not the rows of q, k and v")
            for j, name in enumerate("qkv"):
                ours = f"layers.{i}.{name}" + ".bias" * (part == "bias")
                found[ours] = fused.rows(j * d, (j + 1) * d)
    return config, found


def _layers(tensors: Tensors, names: dict[str, str], n_layers: int) -> dict[str, Stored]:
    """Embedding, final norm, head, and what `names` says of each layer, with the biases that are there."""
    found = {"embed": tensors["token_embd.weight"], "final_norm.weight": tensors["output_norm.weight"]}
    for ours, theirs in (("final_norm.bias", "output_norm.bias"), ("head", "output.weight")):
        if theirs in tensors:
            found[ours] = tensors[theirs]
    for i in range(n_layers):
        for ours, theirs in names.items():
            full = f"layers.{i}.{ours}"
            found[full + ".weight" * ours.endswith("norm")] = tensors[f"blk.{i}.{theirs}.weight"]
            if f"blk.{i}.{theirs}.bias" in tensors:
                found[f"{full}.bias"] = tensors[f"blk.{i}.{theirs}.bias"]
    return found


# ---- The tokenizer


def _tokenizer(s: Settings) -> tuple[str, int]:
    """(JSON, the token that begins a text or -1): what llama.cpp makes of the same keys."""
    model = s.get("tokenizer.ggml.model", str)
    tokens = _strings(s, "tokenizer.ggml.tokens")
    types = s.get("tokenizer.ggml.token_type", list, [])
    if types and len(types) != len(tokens):
        raise InvalidFileError(f"{s.where}: has {len(tokens)} tokens but {len(types)} token types")
    special = [i for i, kind in enumerate(types) if kind in (CONTROL, USER_DEFINED)]
    pre = s.get("tokenizer.ggml.pre", str, "default")
    if model == "gpt2":
        merges = _strings(s, "tokenizer.ggml.merges")
        made = byte_level_bpe(tokens, merges, special, pre, s.where)
        add_bos = pre in WHOLE_WORDS_FIRST
    elif model == "llama":
        scores = s.get("tokenizer.ggml.scores", list)
        prefix = s.get("tokenizer.ggml.add_space_prefix", bool, True)
        unknown = s.get("tokenizer.ggml.unknown_token_id", int, 0)
        made = scored_bpe(tokens, scores, special, s.where, prefix=prefix, unknown=unknown)
        add_bos = True
    else:
        raise UnsupportedError(f"{s.where}: tokenizer '{model[:80]}' is not supported; 'gpt2' and 'llama' are")
    if not s.get("tokenizer.ggml.add_bos_token", bool, add_bos):
        return made, -1
    bos = s.get("tokenizer.ggml.bos_token_id", int, 1 if model == "llama" else None)
    if not 0 <= bos < len(tokens):
        raise InvalidFileError(f"{s.where}: bos_token_id {bos} is no token")
    return made, bos


def _strings(s: Settings, key: str) -> Sequence[str]:
    values = s.get(key, list)
    if not all(isinstance(v, str) for v in values):
        raise InvalidFileError(f"{s.where}: key '{key}' must be a list of texts")
    return values
