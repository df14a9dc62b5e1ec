"""Reader of Hugging Face directories: config.json, safetensors in one or several files, tokenizer.json.

Read are the Llama family (Llama, Mistral, Qwen2) and the GPT-2 family, whose matrices are stored as (inputs, outputs).
"""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgehmn.checkpoint.model import Checkpoint, Config
from edgehmn.checkpoint.safetensors_file import read_header
from edgehmn.checkpoint.settings import Settings, checked, context, read_settings
from edgehmn.checkpoint.stored import Stored, Tensors, tie_if_equal
from edgehmn.checkpoint.tokenizer import plain_tokenizer
from edgehmn.checkpoint.trans_hmn import member
from edgehmn.errors import InvalidFileError, UnsupportedError
from edgehmn.files import read_text

INDEX = "model.safetensors.index.json"
GELU_TANH = ("gelu_new", "gelu_pytorch_tanh", "gelu_fast")
LLAMA_NAMES = {
    "attn_norm": "input_layernorm",
    "q": "self_attn.q_proj",
    "k": "self_attn.k_proj",
    "v": "self_attn.v_proj",
    "o": "self_attn.o_proj",
    "mlp_norm": "post_attention_layernorm",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
}
GPT2_NAMES = {"attn_norm": "ln_1", "o": "attn.c_proj", "mlp_norm": "ln_2", "up": "mlp.c_fc", "down": "mlp.c_proj"}


def read_hugging_face(folder: Path, settings: Settings, n_ctx: int | None) -> Checkpoint:
    """settings: of its config.json. n_ctx: positions of the window. Raises as read_checkpoint."""
    kind = settings.values.get("model_type")
    families = {"llama": _llama, "mistral": _llama, "qwen2": _llama, "gpt2": _gpt2}
    if not isinstance(kind, str) or kind not in families:
        raise UnsupportedError(
            f"{settings.where}: model_type {str(kind)[:80]!r} is not supported; this version reads 'trans-hmn', "
            f"{', '.join(map(repr, families))}"
        )
    if settings.values.get("quantization_config") is not None:
        raise UnsupportedError(f"{settings.where}: the weights are quantised; give the model in F32, F16 or BF16")
    vocab_size = settings.size("vocab_size")
    tokenizer_json, start = _tokenizer(folder, vocab_size)
    tensors = _open_tensors(folder)
    config, found = families[kind](settings, tensors, n_ctx, start)
    values = tensors.gather(config, found)
    return Checkpoint(replace(config, tied_head=tie_if_equal(config.tied_head, values)), values, tokenizer_json)


# ---- The Llama family


def _llama(s: Settings, tensors: Tensors, n_ctx: int | None, start: int) -> tuple[Config, dict[str, Stored]]:
    d_model, n_heads = s.size("hidden_size"), s.size("num_attention_heads")
    if s.size("head_dim", max(1, d_model // n_heads)) * n_heads != d_model:
        raise UnsupportedError(f"{s.where}: head_dim is not hidden_size / num_attention_heads; other sizes do not run")
    s.only("hidden_act", "silu", "swish")
    s.only("partial_rotary_factor", 1, 1.0)
    theta, divisors = _rope(s, d_model // n_heads)
    tied = s.get("tie_word_embeddings", bool, False)
    config = Config(
        n_layers=s.size("num_hidden_layers"),
        d_model=d_model,
        d_hidden=s.size("intermediate_size"),
        n_heads=n_heads,
        n_kv_heads=s.size("num_key_value_heads", n_heads),
        vocab_size=s.size("vocab_size"),
        n_ctx=context(s.where, _trained_context(s), n_ctx),
        norm_eps=s.get("rms_norm_eps", float, 1e-6),
        final_norm="rmsnorm",
        tied_head=tied,
        rope_theta=theta,
        rope_divisors=divisors,
        window="restart",
        start_token=start,
    )
    checked(config, s.where)
    found = {"embed": tensors["model.embed_tokens.weight"], "final_norm.weight": tensors["model.norm.weight"]}
    for i in range(config.n_layers):
        for ours, theirs in LLAMA_NAMES.items():
            name = f"model.layers.{i}.{theirs}.weight"
            found[f"layers.{i}.{ours}" + ".weight" * ours.endswith("norm")] = tensors[name]
            bias = f"model.layers.{i}.{theirs}.bias"
            if _has_bias(s, ours):
                found[f"layers.{i}.{ours}.bias"] = tensors[bias]
            elif bias in tensors:
                raise InvalidFileError(f"{tensors.where}: has tensor '{bias}', of which config.json says nothing")
    return config, found | _head(tensors, config, "lm_head.weight", found["embed"])


def _trained_context(s: Settings) -> int:
    """Positions that the model was trained for; a window no longer than its sliding window never slides."""
    trained = s.size("max_position_embeddings", 2048)
    slides = s.get("use_sliding_window", bool, s.values.get("model_type") == "mistral")
    return min(trained, s.size("sliding_window", trained)) if slides else trained


def _has_bias(s: Settings, name: str) -> bool:
    if name in ("q", "k", "v", "o"):
        qwen2 = s.values.get("model_type") == "qwen2"
        return name != "o" if qwen2 else s.get("attention_bias", bool, False)
    return not name.endswith("norm") and s.get("mlp_bias", bool, False)


def _rope(s: Settings, d_head: int) -> tuple[float, tuple[float, ...]]:
    """(theta, divisors of the frequencies) of either spelling: rope_theta and rope_scaling, or rope_parameters."""
    new = s.part("rope_parameters")
    scaling = new or s.part("rope_scaling")
    if scaling and any(isinstance(value, dict) for value in scaling.values.values()):
        raise UnsupportedError(f"{scaling.where}: RoPE that is not the same in all layers is not supported")
    theta = (new or s).get("rope_theta", float, s.get("rope_theta", float, 10000.0))
    if scaling is None:
        return theta, ()
    kind = scaling.get("rope_type", str, scaling.get("type", str, "default"))
    if kind == "default":
        return theta, ()
    if kind not in ("linear", "llama3"):
        raise UnsupportedError(f"{s.where}: RoPE scaling {kind[:80]!r} is not supported; 'linear' and 'llama3' are")
    factor = _positive(scaling, "factor")
    if kind == "linear":
        return theta, (factor,) * (d_head // 2)
    return theta, _llama3_divisors(scaling, theta, factor, d_head)


def _llama3_divisors(scaling: Settings, theta: float, factor: float, d_head: int) -> tuple[float, ...]:
    """Waves that turn often within the original context stay, long ones are stretched by `factor`, and between the
    two the frequency goes over from one to the other."""
    low, high = _positive(scaling, "low_freq_factor"), _positive(scaling, "high_freq_factor")
    original = scaling.size("original_max_position_embeddings")
    if low >= high or not 1 < theta < math.inf:
        raise InvalidFileError(f"{scaling.where}: low_freq_factor must be below high_freq_factor, rope_theta above 1")
    divisors = []
    for i in range(d_head // 2):
        turns = original * theta ** (-2 * i / d_head) / (2 * math.pi)
        kept = min(max((turns - low) / (high - low), 0.0), 1.0)
        divisors.append(1 / (kept + (1 - kept) / factor))
    return tuple(divisors)


def _positive(s: Settings, key: str) -> float:
    value = s.get(key, float)
    if not 0 < value < math.inf:
        raise InvalidFileError(f"{s.where}: key '{key}' is {value}; it must be positive")
    return value


# ---- The GPT-2 family


def _gpt2(s: Settings, tensors: Tensors, n_ctx: int | None, start: int) -> tuple[Config, dict[str, Stored]]:
    s.only("activation_function", *GELU_TANH)
    s.only("scale_attn_weights", True)
    for key in ("scale_attn_by_inverse_layer_idx", "reorder_and_upcast_attn", "add_cross_attention"):
        s.only(key, False)
    d_model = s.size("n_embd")
    config = Config(
        n_layers=s.size("n_layer"),
        d_model=d_model,
        d_hidden=s.size("n_inner", 4 * d_model),
        n_heads=s.size("n_head"),
        n_kv_heads=s.size("n_head"),
        vocab_size=s.size("vocab_size"),
        n_ctx=context(s.where, s.size("n_positions", 1024), n_ctx),
        norm_eps=s.get("layer_norm_epsilon", float, 1e-5),
        final_norm="layernorm",
        tied_head=s.get("tie_word_embeddings", bool, True),
        norm="layernorm",
        mlp="gelu",
        positions="learned",
        window="restart",
        start_token=start,
    )
    checked(config, s.where)
    prefix = "transformer." if "transformer.wte.weight" in tensors else ""
    found = {
        "embed": tensors[f"{prefix}wte.weight"],
        "positions": tensors[f"{prefix}wpe.weight"].rows(0, config.n_ctx),
        "final_norm.weight": tensors[f"{prefix}ln_f.weight"],
        "final_norm.bias": tensors[f"{prefix}ln_f.bias"],
    }
    for i in range(config.n_layers):
        found |= _gpt2_layer(tensors, f"{prefix}h.{i}.", f"layers.{i}.", d_model)
    return config, found | _head(tensors, config, "lm_head.weight", found["embed"])


def _gpt2_layer(tensors: Tensors, theirs: str, ours: str, d: int) -> dict[str, Stored]:
    found = {}
    for name, stored_as in GPT2_NAMES.items():
        weight = tensors[f"{theirs}{stored_as}.weight"]
        norm = name.endswith("norm")
        found[f"{ours}{name}" + ".weight" * norm] = weight if norm else weight.transposed()
        found[f"{ours}{name}.bias"] = tensors[f"{theirs}{stored_as}.bias"]
    fused, bias = tensors[f"{theirs}attn.c_attn.weight"], tensors[f"{theirs}attn.c_attn.bias"]
    if fused.shape != (d, 3 * d) or bias.shape != (3 * d,):
        raise InvalidFileError(f"{tensors.where}: tensor '{fused.name}' or its bias has not the shape of q, k and v")
    for j, name in enumerate(("q", "k", "v")):
        found[f"{ours}{name}"] = fused.changed((d, d), _columns(j * d, (j + 1) * d))
        found[f"{ours}{name}.bias"] = bias.rows(j * d, (j + 1) * d)
    return found


def _columns(start: int, stop: int) -> Callable[[Any], Any]:
    return lambda w: w[:, start:stop].T


# ---- What both share


def _head(tensors: Tensors, config: Config, name: str, embed: Stored) -> dict[str, Stored]:
    """The head of its own, if the model has one. A tied one that is stored all the same must be the embedding."""
    if not config.tied_head:
        return {"head": tensors[name]}
    if name in tensors:
        shape = (config.vocab_size, config.d_model)
        if not (tensors.read(tensors[name], shape) == tensors.read(embed, shape)).all():
            raise InvalidFileError(
                f"{tensors.where}: tensor '{name}' is not the embedding, although tie_word_embeddings is true",
                tensor=name,
            )
    return {}


def _open_tensors(folder: Path) -> Tensors:
    """The tensors of model.safetensors, or of the files that its index names."""
    if not (folder / INDEX).is_file() or (folder / "model.safetensors").is_file():
        path = member(folder, "model.safetensors")
        return Tensors(path, read_header(path))
    index = read_settings(folder / INDEX)
    shards = index.get("weight_map", dict)
    headers = {name: read_header(_shard(folder, name)) for name in dict.fromkeys(map(str, shards.values()))}
    stored = {}
    for tensor, name in shards.items():
        if tensor not in headers[str(name)]:
            raise InvalidFileError(f"{folder / str(name)}: tensor '{tensor}' is missing, says {INDEX}", tensor=tensor)
        stored[tensor] = headers[str(name)][tensor]
    for name, header in headers.items():
        if not header.keys() <= {t for t, n in shards.items() if n == name}:
            raise InvalidFileError(f"{folder / name}: holds tensors that {INDEX} does not list, or lists elsewhere")
    return Tensors(folder / INDEX, stored)


def _shard(folder: Path, name: str) -> Path:
    """A file beside the index. Raises InvalidFileError for a name that leads elsewhere."""
    path = folder / name
    if name in ("", ".", "..") or "/" in name or "\\" in name or "\0" in name:
        raise InvalidFileError(f"{folder / INDEX}: names the file {name[:80]!r}; files must lie in the same folder")
    if path.resolve().parent != folder.resolve():
        raise InvalidFileError(f"{path}: is a link out of its folder; copy the checkpoint with the files themselves")
    return member(folder, name)


def _tokenizer(folder: Path, vocab_size: int) -> tuple[str, int]:
    """(JSON, start token or -1) of tokenizer.json. Whether a text begins with BOS, tokenizer_config.json may say."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise InvalidFileError(
            f"{path}: missing; the tokenizer is read from this file, which the transformers package writes "
            "(AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR))"
        )
    text, start = plain_tokenizer(path, read_text(path), vocab_size)
    if not (folder / "tokenizer_config.json").is_file():
        return text, start
    s = read_settings(folder / "tokenizer_config.json")
    if not s.get("add_bos_token", bool, start >= 0):
        return text, -1
    return text, start if start >= 0 else _bos(s, text)


def _bos(s: Settings, tokenizer_json: str) -> int:
    """The id of the token that tokenizer_config.json calls bos_token."""
    import tokenizers

    value = s.values.get("bos_token")
    name = value.get("content") if isinstance(value, dict) else value
    found = tokenizers.Tokenizer.from_str(tokenizer_json).token_to_id(name) if isinstance(name, str) else None
    if found is None:
        raise InvalidFileError(f"{s.where}: add_bos_token is true, but bos_token {str(name)[:80]!r} is no token")
    return int(found)
