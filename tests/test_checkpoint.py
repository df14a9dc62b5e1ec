"""The checkpoint reader: what it reads, and that whatever is wrong with a file is said in one sentence."""

import json
import math
import random
import struct
from collections.abc import Callable
from dataclasses import MISSING, asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgehmn.checkpoint import Checkpoint, Config, read_checkpoint
from edgehmn.errors import EdgeHMNError, InvalidFileError, UnsupportedError, UsageError
from tests.checkpoint_files import bfloat16, byte_tokenizer, write_checkpoint, write_safetensors
from tests.command_line import edgehmn, texts
from tests.models import GPT2, TINY, random_checkpoint

Folder = Path
Copy = Callable[[Path], Path]


@pytest.fixture
def folder(tiny_checkpoint: Path, copy_of: Copy) -> Folder:
    """A sound checkpoint directory, to be damaged."""
    return copy_of(tiny_checkpoint)


def edit_config(folder: Folder, **changes: Any) -> None:
    """Set keys; the value ... removes one."""
    path = folder / "config.json"
    config = json.loads(path.read_text("utf-8")) | changes
    path.write_text(json.dumps({k: v for k, v in config.items() if v is not ...}), "utf-8")


def edit_tensor(folder: Folder, name: str, change: Callable[[Any], Any]) -> None:
    """Change a tensor; None removes it."""
    path = folder / "model.safetensors"
    tensors = safetensors.numpy.load_file(path)
    tensors[name] = change(tensors[name].copy())
    safetensors.numpy.save_file({k: v for k, v in tensors.items() if v is not None}, path)


@pytest.mark.parametrize(
    "config",
    [
        TINY,
        replace(TINY, tied_head=False),
        replace(TINY, final_norm="rmsnorm"),
        replace(TINY, n_kv_heads=4),
        replace(TINY, window="restart", start_token=7, rope_divisors=(1.0, 2.5, 8.0)),
        GPT2,
        replace(GPT2, start_token=0, tied_head=False),
    ],
)
def test_what_was_stored_is_read(config: Config, tmp_path: Path) -> None:
    stored = random_checkpoint(config)
    write_checkpoint(stored, tmp_path / "checkpoint")
    read = read_checkpoint(tmp_path / "checkpoint")
    assert read.config == config and read.tensors.keys() == stored.tensors.keys()
    assert all((read.tensors[name] == stored.tensors[name]).all() for name in stored.tensors)
    assert read.head is read.tensors["embed" if config.tied_head else "head"]
    assert read.encode("aé").tolist() == read.tokenizer.encode("aé").ids and len(read.encode("aé")) == 3


def test_reference_is_a_name_unless_a_folder_has_it(
    reference: Checkpoint, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert reference.config.n_layers == 6
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reference").symlink_to(tiny_checkpoint)
    assert read_checkpoint("reference").config == TINY


def test_keys_that_have_a_default_may_be_missing(folder: Folder) -> None:
    optional = [f.name for f in fields(Config) if f.default is not MISSING]
    edit_config(folder, **dict.fromkeys(optional, ...), n_adapters=4)
    assert len(optional) > 5 and read_checkpoint(folder).config == TINY


def test_a_key_or_a_tensor_that_stands_twice(folder: Folder) -> None:
    path = folder / "config.json"
    sound = path.read_text("utf-8")
    path.write_text(sound.replace("{", '{"n_layers": 2, ', 1), "utf-8")
    with pytest.raises(InvalidFileError, match="'n_layers' stands twice"):
        read_checkpoint(folder)
    path.write_text(sound, "utf-8")
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes().replace(b'"layers.1.k"', b'"layers.0.k"'))
    with pytest.raises(InvalidFileError, match=r"'layers\.0\.k' stands twice"):
        read_checkpoint(folder)


def test_a_smaller_context(folder: Folder, tmp_path: Path) -> None:
    assert read_checkpoint(folder, n_ctx=4).config == replace(TINY, n_ctx=4)
    with pytest.raises(UsageError, match=r"4\.\.5"):
        read_checkpoint(folder, n_ctx=6)
    stored = random_checkpoint(GPT2)
    write_checkpoint(stored, tmp_path / "learned")
    read = read_checkpoint(tmp_path / "learned", n_ctx=4)
    np.testing.assert_array_equal(read.tensors["positions"], stored.tensors["positions"][:4])


def test_biases_are_optional(tmp_path: Path) -> None:
    stored = random_checkpoint(GPT2)
    del stored.tensors["layers.0.q.bias"]
    write_checkpoint(stored, tmp_path / "checkpoint")
    assert read_checkpoint(tmp_path / "checkpoint").tensors.keys() == stored.tensors.keys()


def test_float16_is_read_and_other_tensors_are_ignored(folder: Folder) -> None:
    edit_tensor(folder, "layers.0.q", lambda w: w.astype(np.float16))
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    safetensors.numpy.save_file(tensors | {"optimizer": np.zeros(3)}, folder / "model.safetensors")
    read = read_checkpoint(folder)
    assert read.tensors["layers.0.q"].dtype == np.float32 and "optimizer" not in read.tensors


CONTRADICTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "no layers": ({"n_layers": ...}, "n_layers"),
    "layers in words": ({"n_layers": "two"}, "n_layers"),
    "layers as truth": ({"n_layers": True}, "n_layers"),
    "half a layer": ({"n_layers": 1.5}, "n_layers"),
    "too few layers": ({"n_layers": 0}, "n_layers"),
    "negative layers": ({"n_layers": -1}, "n_layers"),
    "more layers than tensors": ({"n_layers": 3}, "layers.2."),
    "layers without end": ({"n_layers": 1 << 20}, "n_layers"),
    "a width beyond all machines": ({"d_model": 1 << 40}, "d_model"),
    "another width": ({"d_model": 32}, "(257, 32)"),
    "a width that heads do not divide": ({"n_heads": 5}, "n_heads 5"),
    "heads of an odd size": ({"d_model": 20}, "head size"),
    "key heads that do not divide": ({"n_kv_heads": 3}, "n_kv_heads 3"),
    "another vocabulary": ({"vocab_size": 300}, "(300, 24)"),
    "no tied head": ({"tied_head": False}, "'head'"),
    "a tied head in words": ({"tied_head": "yes"}, "tied_head"),
    "a base of one": ({"rope_theta": 1}, "rope_theta"),
    "a base that is no number": ({"rope_theta": math.nan}, "rope_theta"),
    "an infinite base": ({"rope_theta": math.inf}, "rope_theta"),
    "a base beyond floats": ({"rope_theta": 10**400}, "rope_theta"),
    "no epsilon": ({"norm_eps": 0}, "norm_eps"),
    "a negative epsilon": ({"norm_eps": -1e-5}, "norm_eps"),
    "a window of nothing": ({"n_ctx": 0}, "n_ctx"),
    "a norm in numbers": ({"final_norm": 3}, "final_norm"),
    "too few divisors": ({"rope_divisors": [1.0]}, "rope_divisors"),
    "a divisor of zero": ({"rope_divisors": [1.0, 0, 1.0]}, "rope_divisors"),
    "a divisor that is no number": ({"rope_divisors": [1.0, math.nan, 1.0]}, "rope_divisors"),
    "a divisor in words": ({"rope_divisors": [1.0, "two", 1.0]}, "rope_divisors"),
    "divisors in words": ({"rope_divisors": "two"}, "rope_divisors"),
    "divisors without RoPE": ({"positions": "learned", "window": "restart", "rope_divisors": [1.0]}, "rope_divisors"),
    "a start beyond the vocabulary": ({"window": "restart", "start_token": 257}, "start_token"),
    "a negative start": ({"window": "restart", "start_token": -2}, "start_token"),
    "a start in a sliding window": ({"start_token": 1}, "restart"),
    "learned positions in a sliding window": ({"positions": "learned"}, "restart"),
    "a window too small for a restart": ({"window": "restart", "n_ctx": 3}, "n_ctx"),
    "no positions": ({"positions": "learned", "window": "restart"}, "'positions'"),
}


@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_a_configuration_that_contradicts_itself_or_the_tensors(case: str, folder: Folder) -> None:
    changes, word = CONTRADICTIONS[case]
    edit_config(folder, **changes)
    with pytest.raises(InvalidFileError) as caught:
        read_checkpoint(folder)
    assert word in str(caught.value) and str(folder) in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"model_type": "mamba"},
        {"architecture": "mamba"},
        {"model_type": ...},
        {"final_norm": "batchnorm"},
        {"norm": "batchnorm"},
        {"mlp": "relu"},
        {"positions": "alibi"},
        {"window": "open"},
    ],
)
def test_what_this_version_does_not_run(changes: dict[str, Any], folder: Folder) -> None:
    edit_config(folder, **changes)
    with pytest.raises(UnsupportedError, match=r"config\.json"):
        read_checkpoint(folder)


@pytest.mark.parametrize("text", ["", "[]", "3", "{", "[" * 100_000, '{"n_layers": ' + "9" * 10_000 + "}", "\0"])
def test_a_configuration_that_is_none(text: str, folder: Folder) -> None:
    (folder / "config.json").write_text(text, "utf-8")
    with pytest.raises(InvalidFileError, match=r"config\.json"):
        read_checkpoint(folder)


TENSORS: dict[str, tuple[Callable[[Any], Any], type[EdgeHMNError], str]] = {
    "missing": (lambda w: None, InvalidFileError, "missing"),
    "NaN": (lambda w: np.where(w == w.flat[0], np.nan, w).astype(np.float32), InvalidFileError, "NaN"),
    "infinity": (lambda w: np.where(w == w.flat[-1], np.inf, w).astype(np.float32), InvalidFileError, "infinity"),
    "infinity in half": (lambda w: np.full(w.shape, -np.inf, np.float16), InvalidFileError, "infinity"),
    "transposed": (lambda w: np.ascontiguousarray(w.T), InvalidFileError, "shape (24, 12)"),
    "flat": (lambda w: w.ravel(), InvalidFileError, "shape (288,)"),
    "empty": (lambda w: np.zeros(0, np.float32), InvalidFileError, "shape (0,)"),
    "double": (lambda w: w.astype(np.float64), UnsupportedError, "F64"),
    "integers": (lambda w: w.astype(np.int8), UnsupportedError, "I8"),
}


@pytest.mark.parametrize("case", TENSORS)
def test_a_wrong_tensor_is_named(case: str, folder: Folder) -> None:
    change, error, word = TENSORS[case]
    edit_tensor(folder, "layers.1.k", change)
    with pytest.raises(error) as caught:
        read_checkpoint(folder)
    assert "'layers.1.k'" in str(caught.value) and word in str(caught.value)
    assert caught.value.detail == {"tensor": "layers.1.k"}


def test_bfloat16_is_read(folder: Folder) -> None:
    path = folder / "model.safetensors"
    tensors = safetensors.numpy.load_file(path)
    write_safetensors(path, {name: ("BF16", bfloat16(w)) for name, w in tensors.items()})
    read = read_checkpoint(folder).tensors
    for name, w in tensors.items():
        np.testing.assert_array_equal(read[name], (bfloat16(w).astype(np.uint32) << 16).view(np.float32))


def test_truncated_at_any_point(folder: Folder) -> None:
    path = folder / "model.safetensors"
    data = path.read_bytes()
    header = 8 + struct.unpack("<Q", data[:8])[0]
    for size in {*range(12), header - 1, header, header + 1, *range(12, len(data), len(data) // 97), len(data) - 1}:
        path.write_bytes(data[:size])
        with pytest.raises(InvalidFileError, match=r"model\.safetensors"):
            read_checkpoint(folder)


@pytest.mark.parametrize(
    "data",
    [
        b"garbage",
        b"\0" * 4096,
        b"\xff" * 8,
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 2) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        random.Random(3).randbytes(10_000),
    ],
)
def test_garbage_for_weights(data: bytes, folder: Folder) -> None:
    (folder / "model.safetensors").write_bytes(data)
    with pytest.raises(InvalidFileError, match=r"model\.safetensors"):
        read_checkpoint(folder)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)
@given(data=st.data())
def test_any_damage_is_an_error_of_ours_or_none(data: st.DataObject, folder: Folder) -> None:
    """Some bytes of some file are changed: the reader reads it or says what is wrong, and never fails otherwise."""
    path = folder / data.draw(st.sampled_from(["config.json", "model.safetensors", "tokenizer.json"]))
    sound = path.read_bytes()
    damaged = bytearray(sound)
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, min(len(damaged), 3000) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(damaged)
    try:
        read_checkpoint(folder)
    except (InvalidFileError, UnsupportedError) as e:
        assert str(folder) in str(e)
    finally:
        path.write_bytes(sound)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_each_file_is_needed(name: str, folder: Folder) -> None:
    (folder / name).unlink()
    with pytest.raises(InvalidFileError, match=f"{name}: missing"):
        read_checkpoint(folder)
    (folder / name).mkdir()
    with pytest.raises(InvalidFileError, match=f"{name}: missing"):
        read_checkpoint(folder)


def byte_tokenizer_that_adds() -> str:
    template = [{"SpecialToken": {"id": "!", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    first = {"id": "!", "ids": [0], "tokens": ["!"]}
    processor = {"type": "TemplateProcessing", "single": template, "pair": template, "special_tokens": {"!": first}}
    return json.dumps(json.loads(byte_tokenizer()) | {"post_processor": processor})


def test_a_tokenizer_that_does_not_serve(folder: Folder) -> None:
    path = folder / "tokenizer.json"
    tokenizer = json.loads(byte_tokenizer())
    tokenizer["model"]["vocab"]["!"] = 257
    words = json.loads(byte_tokenizer()) | {"model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "?"}}
    cutting = json.loads(byte_tokenizer()) | {
        "truncation": {"max_length": 9, "stride": 0, "strategy": "LongestFirst", "direction": "Right"}
    }
    adding = byte_tokenizer_that_adds()
    cases = [(json.dumps(tokenizer), "token 257"), (json.dumps(words), "UNK"), (json.dumps(cutting), "'truncation'")]
    cases.append((adding, "'post_processor'"))
    for text, word in (*cases, ("{}", "tokenizers"), ("", "tokenizers")):
        path.write_text(text, "utf-8")
        with pytest.raises(InvalidFileError, match=word):
            read_checkpoint(folder)


EXTREMES: dict[str, Callable[[Any], Any]] = {
    "all zero": np.zeros_like,
    "all equal": np.ones_like,
    "one enormous": lambda w: np.where(w == w.flat[0], np.float32(3e38), w),
    "all enormous": lambda w: np.full_like(w, 3e38),
    "all tiny": lambda w: np.full_like(w, 1e-40),
}


@pytest.mark.parametrize("case", EXTREMES)
@pytest.mark.parametrize(
    "tensor", ["embed", "layers.0.q", "layers.1.down", "final_norm.weight", *TINY.statistics_shapes()]
)
def test_finite_weights_that_make_no_model(
    case: str, tensor: str, folder: Folder, short_text: Path, tmp_path: Path
) -> None:
    """They are exported or refused for what they do; never with a fault of our own, nor half an export."""
    path = folder / "model.safetensors"
    if tensor in TINY.statistics_shapes():
        statistics = {name: np.ones(shape, np.float32) for name, shape in TINY.statistics_shapes().items()}
        safetensors.numpy.save_file(safetensors.numpy.load_file(path) | statistics, path)
    edit_tensor(folder, tensor, EXTREMES[case])
    done = edgehmn("export", folder, "-o", tmp_path / "place" / "out", *texts(short_text), "-q")
    assert done.code in (0, 3, 4), done
    assert done.code == 0 or done.err.count("\n") == 1, done
    assert len(list((tmp_path / "place").iterdir())) == (done.code == 0)


def test_config_knows_its_tensors(reference: Checkpoint) -> None:
    shapes = reference.config.tensor_shapes() | reference.config.statistics_shapes()
    assert {name: w.shape for name, w in reference.tensors.items()} == shapes
    assert asdict(reference.config)["tied_head"] is True


def test_statistics_are_read_whole_or_refused(folder: Folder) -> None:
    path = folder / "model.safetensors"
    tensors = safetensors.numpy.load_file(path)
    assert not read_checkpoint(folder).tensors.keys() & TINY.statistics_shapes().keys()
    statistics = {name: np.ones(shape, np.float32) for name, shape in TINY.statistics_shapes().items()}
    safetensors.numpy.save_file(tensors | statistics, path)
    assert read_checkpoint(folder).tensors.keys() == tensors.keys() | statistics.keys()
    del statistics["plastic.mean"]
    safetensors.numpy.save_file(tensors | statistics, path)
    with pytest.raises(InvalidFileError, match=r"'plastic\.mean' is missing"):
        read_checkpoint(folder)
