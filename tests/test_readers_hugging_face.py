"""Hugging Face directories: the logits of their own library, and what is refused."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from edgehmn.checkpoint import Checkpoint, read_checkpoint
from edgehmn.errors import EdgeHMNError, InvalidFileError, UnsupportedError, UsageError
from edgehmn.model import FloatModel
from tests.checkpoint_files import bfloat16, letter_tokenizer, write_safetensors
from tests.golden_hugging_face import KEPT, PATH, formula, tokens

GOLDEN: dict[str, Any] = json.loads(PATH.read_text("utf-8"))
Tensors = dict[str, Any]


def write(folder: Path, case: str, **changes: Any) -> Tensors:
    """A directory as the transformers package saves it; keys of the configuration set, or removed by `...`."""
    folder.mkdir(exist_ok=True)
    config = GOLDEN[case]["config"] | changes
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not ...}), "utf-8")
    (folder / "tokenizer.json").write_text(letter_tokenizer(), "utf-8")
    tensors = {name: formula(name, shape) for name, shape in GOLDEN[case]["shapes"].items()}
    safetensors.numpy.save_file(tensors, folder / "model.safetensors")
    return tensors


def logits(checkpoint: Checkpoint) -> Any:
    model = FloatModel(checkpoint)
    return model.logits(model.final_norm(model.encode(tokens(), model.new_state())))[-KEPT:]


@pytest.mark.parametrize("case", GOLDEN)
def test_logits_are_those_of_transformers(case: str, tmp_path: Path) -> None:
    write(tmp_path, case)
    read = read_checkpoint(tmp_path)
    np.testing.assert_allclose(logits(read), GOLDEN[case]["logits"], rtol=0, atol=1e-5)
    assert read.config.window == "restart" and read.config.start_token == -1
    assert read.config.n_ctx == (20 if case == "mistral" else 32)  # a sliding window that never slides
    assert read.encode("ab").tolist() == [0, 1]


@pytest.mark.parametrize(
    "case, old",
    [
        ("llama, RoPE linear", {"rope_theta": 1000.0, "rope_scaling": {"type": "linear", "factor": 4.0}}),
        (
            "llama, RoPE of Llama 3",
            {"rope_theta": 500.0, "rope_scaling": GOLDEN["llama, RoPE of Llama 3"]["config"]["rope_parameters"]},
        ),
        ("llama", {"rope_scaling": None, "head_dim": None, "num_key_value_heads": 2}),
        ("qwen2", {"rope_theta": 10000.0, "layer_types": ..., "use_sliding_window": ..., "sliding_window": 4}),
        ("gpt2", {"n_inner": ..., "tie_word_embeddings": ..., "activation_function": ...}),
    ],
)
def test_older_spellings(case: str, old: dict[str, Any], tmp_path: Path) -> None:
    write(tmp_path, case, **({"rope_parameters": ...} | old))
    np.testing.assert_allclose(logits(read_checkpoint(tmp_path)), GOLDEN[case]["logits"], rtol=0, atol=1e-5)


def test_names_without_a_prefix(tmp_path: Path) -> None:
    tensors = write(tmp_path, "gpt2")
    bare = {name.removeprefix("transformer."): values for name, values in tensors.items()}
    masks = {"h.0.attn.bias": np.ones((1, 1, 32, 32), np.float32)}  # of old files, not a weight
    safetensors.numpy.save_file(bare | masks, tmp_path / "model.safetensors")
    np.testing.assert_allclose(logits(read_checkpoint(tmp_path)), GOLDEN["gpt2"]["logits"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["F16", "BF16"])
def test_half_precision(kind: str, tmp_path: Path) -> None:
    tensors = write(tmp_path, "llama")
    halves = {n: (w.astype(np.float16) if kind == "F16" else bfloat16(w)) for n, w in tensors.items()}
    write_safetensors(tmp_path / "model.safetensors", {n: (kind, w) for n, w in halves.items()})
    read = read_checkpoint(tmp_path).tensors["layers.1.k"]
    stored = halves["model.layers.1.self_attn.k_proj.weight"]
    expected = stored if kind == "F16" else (stored.astype(np.uint32) << 16).view(np.float32)
    np.testing.assert_array_equal(read, expected.astype(np.float32))


def shard(folder: Path, names: tuple[str, str] = ("a.safetensors", "b.safetensors")) -> dict[str, str]:
    """Store the tensors in two files, with an index."""
    path = folder / "model.safetensors"
    tensors = safetensors.numpy.load_file(path)
    path.unlink()
    of = {name: names[i % 2] for i, name in enumerate(sorted(tensors))}
    for file in names:
        safetensors.numpy.save_file({n: w for n, w in tensors.items() if of[n] == file}, folder / Path(file).name)
    write_index(folder, of)
    return of


def write_index(folder: Path, of: Any) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": of}), "utf-8")


def test_shards(tmp_path: Path) -> None:
    write(tmp_path, "llama")
    shard(tmp_path)
    np.testing.assert_allclose(logits(read_checkpoint(tmp_path)), GOLDEN["llama"]["logits"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["../a.safetensors", "/etc/passwd", "..", "", "x/../a.safetensors", "a\\b", "a\0b"])
def test_shards_that_lead_out_of_the_folder(name: str, tmp_path: Path) -> None:
    write(tmp_path, "llama")
    of = shard(tmp_path)
    write_index(tmp_path, dict.fromkeys(of, name))
    with pytest.raises(InvalidFileError, match="same folder"):
        read_checkpoint(tmp_path)


def test_shards_that_are_links_out_of_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    write(folder, "llama")
    shard(folder)
    (folder / "a.safetensors").rename(tmp_path / "a.safetensors")
    with pytest.raises(InvalidFileError, match=r"a\.safetensors: missing"):
        read_checkpoint(folder)
    (folder / "a.safetensors").symlink_to(tmp_path / "a.safetensors")
    with pytest.raises(InvalidFileError, match="link out of its folder"):
        read_checkpoint(folder)


def test_an_index_that_does_not_fit(tmp_path: Path) -> None:
    write(tmp_path, "llama")
    of = shard(tmp_path)
    moved = next(iter(of))
    for wrong in (of | {"more": "a.safetensors"}, {k: v for k, v in of.items() if k != moved}, [], {moved: 3}):
        write_index(tmp_path, wrong)
        with pytest.raises(InvalidFileError):
            read_checkpoint(tmp_path)


def test_tied_heads(tmp_path: Path) -> None:
    """One that is stored all the same must be the embedding; one that is equal is kept once."""
    tensors = write(tmp_path, "llama", tie_word_embeddings=True)
    with pytest.raises(InvalidFileError, match=r"'lm_head\.weight' is not the embedding"):
        read_checkpoint(tmp_path)
    write(tmp_path, "llama")
    tied = tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"]}
    safetensors.numpy.save_file(tied, tmp_path / "model.safetensors")
    read = read_checkpoint(tmp_path)
    assert read.config.tied_head and "head" not in read.tensors
    write(tmp_path, "llama", tie_word_embeddings=True)
    safetensors.numpy.save_file(tied, tmp_path / "model.safetensors")
    assert read_checkpoint(tmp_path).config == read.config
    del tied["lm_head.weight"]
    write(tmp_path, "llama")
    safetensors.numpy.save_file(tied, tmp_path / "model.safetensors")
    with pytest.raises(InvalidFileError, match=r"'lm_head\.weight' is missing"):
        read_checkpoint(tmp_path)


def test_biases_that_the_configuration_does_not_know(tmp_path: Path) -> None:
    write(tmp_path, "llama with biases, tied", mlp_bias=False)
    with pytest.raises(InvalidFileError, match=r"_proj\.bias'"):
        read_checkpoint(tmp_path)
    write(tmp_path, "llama", attention_bias=True)
    with pytest.raises(InvalidFileError, match=r"_proj\.bias' is missing"):
        read_checkpoint(tmp_path)


UNSUPPORTED: list[tuple[str, dict[str, Any], str]] = [
    ("llama", {"model_type": "mamba"}, "mamba"),
    ("llama", {"model_type": 3}, "model_type"),
    ("llama", {"hidden_act": "gelu"}, "hidden_act"),
    ("llama", {"head_dim": 8}, "head_dim"),
    ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
    ("llama", {"rope_parameters": {"rope_type": "yarn", "factor": 2.0}}, "yarn"),
    ("llama", {"rope_parameters": ..., "rope_scaling": {"type": "dynamic", "factor": 2.0}}, "dynamic"),
    ("llama", {"quantization_config": {"bits": 4}}, "quantised"),
    ("gpt2", {"activation_function": "gelu"}, "activation_function"),
    ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "inverse_layer"),
]
INVALID: list[tuple[str, dict[str, Any], str]] = [
    ("llama", {"hidden_size": ...}, "hidden_size"),
    ("llama", {"hidden_size": -24}, "hidden_size"),
    ("llama", {"hidden_size": 1 << 60}, "hidden_size"),
    ("llama", {"num_attention_heads": 0}, "num_attention_heads"),
    ("llama", {"num_attention_heads": 8, "head_dim": None}, "head size"),
    ("llama", {"num_key_value_heads": 3}, "n_kv_heads"),
    ("llama", {"num_hidden_layers": 1 << 19}, "n_layers"),
    ("llama", {"num_hidden_layers": 3}, "layers.2."),
    ("llama", {"vocab_size": 41}, "(40, 24)"),
    ("llama", {"vocab_size": 20}, "token 27"),
    ("llama", {"intermediate_size": 12}, "(11, 24)"),
    ("llama", {"rms_norm_eps": "small"}, "rms_norm_eps"),
    ("llama", {"rope_parameters": {"rope_theta": 0.5}}, "rope_theta"),
    ("llama", {"rope_parameters": {"rope_type": "linear", "factor": 0}}, "factor"),
    ("llama", {"rope_parameters": {"rope_type": "linear"}}, "factor"),
    ("llama", {"rope_parameters": 3}, "rope_parameters"),
    ("llama, RoPE of Llama 3", {"rope_parameters": {"rope_type": "llama3", "factor": 2.0}}, "low_freq_factor"),
    ("gpt2", {"n_positions": 64}, "(64, 24)"),
    ("gpt2", {"n_embd": 30}, "c_attn"),
    ("gpt2", {"tie_word_embeddings": False}, "lm_head"),
]


@pytest.mark.parametrize(
    "case, changes, word, error",
    [(*c, UnsupportedError) for c in UNSUPPORTED] + [(*c, InvalidFileError) for c in INVALID],
)
def test_configurations_that_are_refused(
    case: str, changes: dict[str, Any], word: str, error: type[EdgeHMNError], tmp_path: Path
) -> None:
    write(tmp_path, case, **changes)
    with pytest.raises(error) as caught:
        read_checkpoint(tmp_path)
    assert word in str(caught.value), caught.value
    assert str(tmp_path) in str(caught.value)


def test_a_key_that_stands_twice(tmp_path: Path) -> None:
    write(tmp_path, "llama")
    path = tmp_path / "config.json"
    path.write_text(path.read_text("utf-8").replace("{", '{"vocab_size": 40, ', 1), "utf-8")
    with pytest.raises(InvalidFileError, match="'vocab_size' stands twice"):
        read_checkpoint(tmp_path)


CHANGES: dict[str, tuple[Callable[[Any], Any], str]] = {
    "missing": (lambda w: None, "missing"),
    "NaN": (lambda w: w * np.float32(np.nan), "NaN"),
    "a column": (lambda w: w.reshape(-1, 1), "shape"),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(
    "case, name",
    [
        ("llama", "model.layers.1.self_attn.k_proj.weight"),
        ("gpt2", "transformer.h.1.attn.c_attn.weight"),
        ("gpt2", "transformer.h.0.mlp.c_fc.bias"),
        ("gpt2", "transformer.wpe.weight"),
    ],
)
def test_a_wrong_tensor_is_named(change: str, case: str, name: str, tmp_path: Path) -> None:
    tensors, (make, word) = write(tmp_path, case), CHANGES[change]
    tensors[name] = make(tensors[name])
    safetensors.numpy.save_file({k: v for k, v in tensors.items() if v is not None}, tmp_path / "model.safetensors")
    with pytest.raises(InvalidFileError, match=word) as caught:
        read_checkpoint(tmp_path)
    assert f"'{name}'" in str(caught.value)


# ---- The context


def test_the_context_is_what_is_asked(tmp_path: Path) -> None:
    for case in ("llama", "gpt2"):
        write(tmp_path, case)
        whole, part = read_checkpoint(tmp_path), read_checkpoint(tmp_path, n_ctx=20)
        assert part.config == replace(whole.config, n_ctx=20)
        np.testing.assert_array_equal(logits(part), logits(whole))  # of eighteen tokens
        for n_ctx in (3, 33):
            with pytest.raises(UsageError, match=r"4\.\.32"):
                read_checkpoint(tmp_path, n_ctx=n_ctx)
    write(tmp_path, "llama", max_position_embeddings=4096)
    assert read_checkpoint(tmp_path).config.n_ctx == 512 and read_checkpoint(tmp_path, n_ctx=4096).config.n_ctx == 4096


# ---- The token that begins a text


@pytest.mark.parametrize(
    "front, settings, start",
    [
        (0, None, -1),
        (1, None, 27),
        (1, {"add_bos_token": False, "bos_token": "<s>"}, -1),
        (0, {"add_bos_token": True, "bos_token": "<s>"}, 27),
        (0, {"add_bos_token": True, "bos_token": {"content": "<s>"}}, 27),
        (1, {"bos_token": "<s>"}, 27),
        (0, {"add_bos_token": False, "bos_token": None}, -1),
    ],
)
def test_what_begins_a_text(front: int, settings: dict[str, Any] | None, start: int, tmp_path: Path) -> None:
    write(tmp_path, "llama")
    (tmp_path / "tokenizer.json").write_text(letter_tokenizer(front), "utf-8")
    if settings is not None:
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings), "utf-8")
    read = read_checkpoint(tmp_path)
    assert read.config.start_token == start
    assert read.encode("ab").tolist() == [0, 1] and read.encode("").tolist() == []
    assert read.tokenizer.encode("a<s>b").ids == [0, 27, 1]


def test_tokenizers_that_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "llama")
    path = tmp_path / "tokenizer.json"
    path.write_text(letter_tokenizer(2), "utf-8")
    with pytest.raises(UnsupportedError, match="2 tokens in front"):
        read_checkpoint(tmp_path)
    path.write_text(letter_tokenizer(), "utf-8")
    settings = tmp_path / "tokenizer_config.json"
    for text, word in (('{"add_bos_token": true, "bos_token": "?"}', "bos_token"), ('{"add_bos_token": 3}', "bool")):
        settings.write_text(text, "utf-8")
        with pytest.raises(InvalidFileError, match=word):
            read_checkpoint(tmp_path)
    settings.unlink()
    path.unlink()
    with pytest.raises(InvalidFileError, match="save_pretrained"):
        read_checkpoint(tmp_path)


def test_a_tokenizer_that_cuts_texts_is_read_without_that(tmp_path: Path) -> None:
    write(tmp_path, "llama")
    cut = {"max_length": 1, "stride": 0, "strategy": "LongestFirst", "direction": "Right"}
    whole = json.loads(letter_tokenizer(1)) | {"truncation": cut}
    (tmp_path / "tokenizer.json").write_text(json.dumps(whole), "utf-8")
    read = read_checkpoint(tmp_path)
    assert read.encode("abc").tolist() == [0, 1, 2] and read.config.start_token == 27
