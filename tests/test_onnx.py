"""The ONNX encoder against the float model, and its file against damage."""

import hashlib
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import numpy_helper

from edgehmn.calibrate import calibration_ids
from edgehmn.checkpoint import REFERENCE, Checkpoint, read_checkpoint
from edgehmn.errors import (
    CannotWriteError,
    DependencyError,
    InvalidFileError,
    UnsupportedError,
    UsageError,
)
from edgehmn.export.onnx import export_encoder
from edgehmn.model import FloatModel, log_softmax
from edgehmn.runtime.onnx import Interface, OnnxEncoder
from tests.models import TINY, random_checkpoint, random_tokens

HIDDEN_FRAC = 10
SQNR_DB = 32  # 35 to 38 is measured; a wrong mask or phase, or products that saturate, give 15 at most
FOREIGN = onnx.parser.parse_model(
    '<ir_version: 7, opset_import: ["": 13]> g (float[1] x) => (float[1] y) { y = Neg(x) }'
)
NO_KERNEL = onnx.parser.parse_model(
    '<ir_version: 7, opset_import: ["": 13]> g (double[1] x) => (double[1] y) { y = Asinh(x) }'
)
for _model in (FOREIGN, NO_KERNEL):
    _model.metadata_props.add(key="sha256", value="0" * 64)


def encode(encoder: OnnxEncoder, ids: npt.NDArray[np.integer]) -> npt.NDArray[np.int16]:
    return np.array([encoder.step(int(token)) for token in ids])


def sqnr_db(reference: npt.NDArray[Any], hidden: npt.NDArray[np.int16], hidden_frac: int) -> float:
    error = reference - hidden * 2.0**-hidden_frac
    return float(10 * np.log10(np.sum(np.square(reference)) / np.sum(np.square(error))))


def reseal(path: Path, model: Any) -> Path:
    """Write a changed model whose last 64 bytes are right again: what an attacker, not an accident, can do."""
    data = model if isinstance(model, bytes) else model.SerializeToString()
    path.write_bytes(data[:-64] + hashlib.sha256(data[:-64]).hexdigest().encode())
    return path


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return random_checkpoint()


@pytest.fixture(scope="module")
def tiny(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "tiny.onnx"
    export_encoder(checkpoint, HIDDEN_FRAC, path)
    return path


@pytest.fixture(scope="module")
def ids() -> npt.NDArray[np.integer]:
    return random_tokens(8 * TINY.n_ctx)


def test_hidden_follows_the_float_model(checkpoint: Checkpoint, tiny: Path, ids: npt.NDArray[np.integer]) -> None:
    model = FloatModel(checkpoint)
    encoder = OnnxEncoder(tiny)
    assert (encoder.hidden_frac, encoder.d_model, encoder.vocab_size) == (HIDDEN_FRAC, TINY.d_model, 257)
    hidden = encode(encoder, ids)
    assert hidden.dtype == np.int16 and hidden.shape == (len(ids), TINY.d_model)
    assert sqnr_db(model.encode(ids, model.new_state()), hidden, HIDDEN_FRAC) > SQNR_DB
    encoder.reset()
    assert np.array_equal(encode(encoder, ids), hidden), "after a reset as if new"


@pytest.mark.parametrize("kv_heads", [1, 4])
def test_every_grouping_of_heads(tmp_path: Path, kv_heads: int, ids: npt.NDArray[np.integer]) -> None:
    checkpoint = random_checkpoint(replace(TINY, n_kv_heads=kv_heads))
    model = FloatModel(checkpoint)
    export_encoder(checkpoint, HIDDEN_FRAC, tmp_path / "e.onnx")
    hidden = encode(OnnxEncoder(tmp_path / "e.onnx"), ids)
    assert sqnr_db(model.encode(ids, model.new_state()), hidden, HIDDEN_FRAC) > SQNR_DB


@pytest.mark.parametrize("n_ctx", [1, 5])
def test_window_holds_exactly_n_ctx_positions(tmp_path: Path, n_ctx: int) -> None:
    """With one layer, the token n_ctx positions back leaves no trace, and the one after it does."""
    export_encoder(random_checkpoint(replace(TINY, n_layers=1, n_ctx=n_ctx)), HIDDEN_FRAC, tmp_path / "e.onnx")
    encoder = OnnxEncoder(tmp_path / "e.onnx")
    ids = np.arange(3 * n_ctx + 2)
    last = encode(encoder, ids)[-1]
    for back, is_seen in ((n_ctx - 1, True), (n_ctx, False)):
        changed = ids.copy()
        changed[-1 - back] = 256
        encoder.reset()
        assert np.array_equal(encode(encoder, changed)[-1], last) != is_seen


@pytest.mark.parametrize("start", [100_000, 10**9 + 3])
def test_position_does_not_drift(checkpoint: Checkpoint, tiny: Path, ids: npt.NDArray[np.integer], start: int) -> None:
    """RoPE is relative: a stream that starts at a far position gives what one from zero gives."""
    model = FloatModel(checkpoint)
    from_zero = model.encode(ids, model.new_state())
    encoder = OnnxEncoder(tiny)
    encoder.position = start
    assert sqnr_db(from_zero, encode(encoder, ids), HIDDEN_FRAC) > SQNR_DB


def test_graph_rounds_half_to_even_and_saturates(tmp_path: Path) -> None:
    """Layers that add nothing leave the embedding, here of whole numbers, which int8 holds exactly."""
    checkpoint = random_checkpoint()
    for name in ("layers.0.o", "layers.0.down", "layers.1.o", "layers.1.down"):
        checkpoint.tensors[name][:] = 0
    row = np.arange(TINY.d_model) * 11 - 127
    row[-1] = 127
    checkpoint.tensors["embed"][3] = row
    for hidden_frac in (-1, -2, 9):
        export_encoder(checkpoint, hidden_frac, tmp_path / "e.onnx")
        expected = np.clip(np.rint(row * 2.0**hidden_frac), -32768, 32767)
        assert np.array_equal(OnnxEncoder(tmp_path / "e.onnx").step(3), expected)


def test_file_is_a_low_version_checked_and_deterministic(checkpoint: Checkpoint, tiny: Path, tmp_path: Path) -> None:
    model = onnx.load(tiny)
    onnx.checker.check_model(model, full_check=True)
    assert (model.ir_version, [(o.domain, o.version) for o in model.opset_import]) == (6, [("", 11)])
    export_encoder(checkpoint, HIDDEN_FRAC, tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == tiny.read_bytes()
    assert [p.name for p in tmp_path.iterdir()] == ["again.onnx"]


def test_weights_and_products_are_int8(checkpoint: Checkpoint, tiny: Path) -> None:
    graph = onnx.load(tiny).graph
    operators = [node.op_type for node in graph.node]
    assert operators.count("MatMulInteger") == 4 * TINY.n_layers
    assert operators.count("MatMul") == 3 * TINY.n_layers, "float products are those of the KV cache"
    arrays = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    weights = {name: a for name, a in arrays.items() if a.dtype == np.int8}
    stored = [name for name in TINY.tensor_shapes() if name == "embed" or name.startswith("layers.")]
    matrices = [checkpoint.tensors[name] for name in stored if checkpoint.tensors[name].ndim == 2]
    assert sum(a.size for a in weights.values()) == sum(m.size for m in matrices)
    assert all(a.min() >= -127 and np.abs(a).max() == 127 for a in weights.values())
    assert all(a.size == max(a.shape, default=1) for a in arrays.values() if a.dtype == np.float32), "vectors"
    down = weights["layers.0.down"] * arrays["layers.0.down.scale"]
    error = np.abs(down.T - checkpoint.tensors["layers.0.down"])
    assert (error <= 0.501 * arrays["layers.0.down.scale"][:, None]).all()


def test_damaged_file(tiny: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    whole = tiny.read_bytes()
    damaged = [whole[:n] for n in (*range(0, len(whole), 211), len(whole) - 1)] + [whole + b"\0"]
    for place in range(0, len(whole), 127):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << place % 8
        damaged.append(bytes(flipped))
    for data in damaged:
        (tmp_path / "damaged.onnx").write_bytes(data)
        with pytest.raises(InvalidFileError, match=r"damaged\.onnx: damaged"):
            OnnxEncoder(tmp_path / "damaged.onnx")
    assert capfd.readouterr() == ("", "")


def test_foreign_file(tmp_path: Path) -> None:
    path = tmp_path / "foreign.onnx"
    onnx.save(FOREIGN, path)
    for not_ours in (path, tmp_path, Path(__file__)):
        with pytest.raises(InvalidFileError):
            OnnxEncoder(not_ours)
    with pytest.raises(UsageError, match="no such file"):
        OnnxEncoder(tmp_path / "missing.onnx")
    with pytest.raises(InvalidFileError, match="metadata"):
        OnnxEncoder(reseal(path, FOREIGN))


def set_metadata(key: str, value: str) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        next(entry for entry in model.metadata_props if entry.key == key).value = value

    return change


def drop_metadata(model: Any) -> None:
    model.metadata_props.remove(next(entry for entry in model.metadata_props if entry.key == "vocab_size"))


def drop_node(model: Any) -> None:
    del model.graph.node[7]


def unknown_operator(model: Any) -> None:
    model.graph.node[7].op_type = "Unheard"


def empty_embedding(model: Any) -> None:
    """Only running the graph shows this one."""
    embed = next(t for t in model.graph.initializer if t.name == "embed")
    embed.CopyFrom(numpy_helper.from_array(np.zeros((0, TINY.d_model), np.int8), "embed"))


@pytest.mark.parametrize(
    "change",
    [
        set_metadata("format", "edgehmn-encoder-0"),
        set_metadata("n_ctx", "9"),
        set_metadata("n_layers", "two"),
        set_metadata("n_layers", str(10**9)),
        set_metadata("n_ctx", str(1 << 20)),
        set_metadata("hidden_frac", "99"),
        set_metadata("rope_theta", "nan"),
        drop_metadata,
        drop_node,
        unknown_operator,
        empty_embedding,
    ],
)
def test_hostile_file(tiny: Path, tmp_path: Path, change: Callable[[Any], None]) -> None:
    model = onnx.load(tiny)
    change(model)
    with pytest.raises(InvalidFileError):
        OnnxEncoder(reseal(tmp_path / "hostile.onnx", model))


def test_flipped_bits_under_a_right_seal(tiny: Path, tmp_path: Path) -> None:
    """Whatever onnxruntime makes of it, the caller sees an encoder or a documented error."""
    outcomes = []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        model = bytearray(tiny.read_bytes())
        model[rng.integers(len(model) - 64)] ^= 1 << int(rng.integers(8))
        try:
            OnnxEncoder(reseal(tmp_path / "flipped.onnx", bytes(model))).step(0)
            outcomes.append(None)
        except (InvalidFileError, UnsupportedError) as e:
            outcomes.append(type(e))
    assert set(outcomes) >= {None, InvalidFileError}


def test_version_that_onnxruntime_refuses(tiny: Path, tmp_path: Path) -> None:
    newer_ir, newer_opset = onnx.load(tiny), onnx.load(tiny)
    newer_ir.ir_version = 99
    newer_opset.opset_import[0].version = 99
    for model in (newer_ir, newer_opset, NO_KERNEL):
        with pytest.raises(UnsupportedError, match=r"onnxruntime .* does not support"):
            OnnxEncoder(reseal(tmp_path / "newer.onnx", model))


def test_missing_dependency(
    checkpoint: Checkpoint, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(DependencyError, match=r"edgehmn\[onnx\]"):
        OnnxEncoder(tiny)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(DependencyError, match=r"edgehmn\[onnx\]"):
        export_encoder(checkpoint, HIDDEN_FRAC, tmp_path / "e.onnx")


def test_arguments_out_of_range(checkpoint: Checkpoint, tiny: Path, tmp_path: Path) -> None:
    encoder = OnnxEncoder(tiny)
    for token in (-1, TINY.vocab_size):
        with pytest.raises(UsageError, match=r"0\.\.256"):
            encoder.step(token)
    assert encoder.position == 0
    with pytest.raises(UsageError, match="hidden_frac"):
        export_encoder(checkpoint, 31, tmp_path / "e.onnx")
    (tmp_path / "folder").mkdir()
    with pytest.raises(CannotWriteError):
        export_encoder(checkpoint, HIDDEN_FRAC, tmp_path / "folder")
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_interface_survives_its_metadata() -> None:
    interface = Interface(6, 128, 128, 32, 128, 3072, -3, 1e6 / 3)
    assert Interface.from_metadata(interface.to_metadata()) == interface


def test_reference_model_keeps_its_perplexity(tmp_path: Path) -> None:
    checkpoint = read_checkpoint(REFERENCE)
    ids = calibration_ids(checkpoint)[:601]
    model = FloatModel(checkpoint)
    exact = model.encode(ids[:-1], model.new_state())
    hidden_frac = int(np.floor(np.log2(32767 / np.abs(exact).max())))
    export_encoder(checkpoint, hidden_frac, tmp_path / "e.onnx")
    hidden = encode(OnnxEncoder(tmp_path / "e.onnx"), ids[:-1])
    assert sqnr_db(exact, hidden, hidden_frac) > 30

    def loss(h: npt.NDArray[np.float32]) -> float:
        log_p = log_softmax(model.logits(model.final_norm(h)))
        return -float(log_p[np.arange(len(h)), ids[1:]].mean(dtype=np.float64))

    rise = np.exp(loss((hidden * 2.0**-hidden_frac).astype(np.float32)) - loss(exact)) - 1
    assert rise < 0.02, "perplexity, of 600 tokens"
