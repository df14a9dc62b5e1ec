"""The ONNX encoder against the float model, and its file against damage."""

import hashlib
import json
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
from edgehmn.export.onnx import export_encoder, products
from edgehmn.export.onnx_builder import GraphBuilder
from edgehmn.model import FloatModel, log_softmax
from edgehmn.runtime.onnx import OnnxEncoder, OnnxInterface
from edgehmn.runtime.onnx_file import read_contents
from edgehmn.runtime.onnx_shapes import check_shapes
from tests.models import TINY, random_checkpoint, random_tokens

HIDDEN_FRAC = 10
SQNR_DB = 32  # 35 to 38 is measured; a wrong mask or phase, or products that saturate, give 15 at most
FOREIGN = onnx.parser.parse_model(
    '<ir_version: 6, opset_import: ["": 11]> g (float[1] x) => (float[1] y) { y = Abs(x) }'
)
FOREIGN.metadata_props.add(key="sha256", value="0" * 64)


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
    assert model.SerializeToString(deterministic=True) == tiny.read_bytes(), "as protobuf itself writes it"
    assert (tmp_path / "again.onnx").read_bytes() == tiny.read_bytes()
    assert [p.name for p in tmp_path.iterdir()] == ["again.onnx"]


def test_weights_and_products_are_int8(checkpoint: Checkpoint, tiny: Path, tmp_path: Path) -> None:
    graph = onnx.load(tiny).graph
    operators = [node.op_type for node in graph.node]
    assert operators.count("MatMulInteger") == 4 * TINY.n_layers
    assert operators.count("MatMul") == (3 + 4) * TINY.n_layers, "of the KV cache, and sums of two rows"
    arrays = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    offset = {name: a - 128.0 for name, a in arrays.items() if a.dtype == np.uint8 and a.ndim == 2}
    weights = offset | {"embed": arrays["embed"].astype(np.float64)}
    stored = [name for name in TINY.tensor_shapes() if name == "embed" or name.startswith("layers.")]
    matrices = [checkpoint.tensors[name] for name in stored if checkpoint.tensors[name].ndim == 2]
    assert sum(a.size for a in weights.values()) == sum(m.size for m in matrices)
    assert all(a.min() >= -127 and np.abs(a).max() == 127 for a in weights.values())
    assert all(a.size == max(a.shape, default=1) for a in arrays.values() if a.dtype == np.float32), "vectors"
    assert arrays["embed"].dtype == np.int8 and arrays["zero_point"] == 128
    int8 = tmp_path / "int8.onnx"
    export_encoder(checkpoint, HIDDEN_FRAC, int8, dict.fromkeys(products(TINY), "int8"))
    operators = [node.op_type for node in onnx.load(int8).graph.node]
    assert operators.count("MatMul") == 3 * TINY.n_layers and operators.count("MatMulInteger") == 4 * TINY.n_layers
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
    with pytest.raises(InvalidFileError, match="none that edgehmn writes"):
        OnnxEncoder(reseal(path, FOREIGN))


def set_metadata(key: str, value: str) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        next(entry for entry in model.metadata_props if entry.key == key).value = value

    return change


def set_interface(**values: Any) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        entry = next(entry for entry in model.metadata_props if entry.key == "interface")
        entry.value = json.dumps(json.loads(entry.value) | values)

    return change


def drop_metadata(model: Any) -> None:
    model.metadata_props.remove(next(entry for entry in model.metadata_props if entry.key == "interface"))


def drop_node(model: Any) -> None:
    del model.graph.node[7]


def unknown_operator(model: Any) -> None:
    model.graph.node[7].op_type = "Unheard"


def foreign_domain(model: Any) -> None:
    model.graph.node[7].domain = "com.microsoft"


def function(model: Any) -> None:
    model.functions.add(name="f")


def subgraph(model: Any) -> None:
    model.graph.node[7].attribute.add(name="body", type=onnx.AttributeProto.GRAPH).g.name = "g"


def sparse_weight(model: Any) -> None:
    model.graph.sparse_initializer.add()


def short_weight(model: Any) -> None:
    model.graph.initializer[0].raw_data = model.graph.initializer[0].raw_data[1:]


def text_weight(model: Any) -> None:
    model.graph.initializer[0].data_type = onnx.TensorProto.STRING


def huge_product(model: Any) -> None:
    """Two constants of four megabytes make a tensor of four terabytes."""
    for name, shape in (("tall", (1 << 20, 1)), ("wide", (1, 1 << 20))):
        model.graph.initializer.append(numpy_helper.from_array(np.ones(shape, np.float32), name))
    model.graph.node.append(onnx.helper.make_node("Mul", ["tall", "wide"], ["huge"]))
    model.graph.node[-1].ClearField("domain")


def long_node(model: Any) -> None:
    model.graph.node[7].input.extend(["token"] * 10_000)


def many_dimensions(model: Any) -> None:
    model.graph.initializer[0].dims.extend([1] * 10)


def change_shape(model: Any) -> None:
    shape = next(t for t in model.graph.initializer if t.name == f"shape.{TINY.d_model}")
    shape.CopyFrom(numpy_helper.from_array(np.array([TINY.d_model + 1]), shape.name))


def circle(model: Any) -> None:
    model.graph.node[0].input[0] = model.graph.node[-1].output[0]


def wrong_axis(model: Any) -> None:
    node = next(node for node in model.graph.node if node.op_type == "Concat")
    node.attribute[0].i = -9


def empty_embedding(model: Any) -> None:
    """Only running the graph shows this one."""
    embed = next(t for t in model.graph.initializer if t.name == "embed")
    embed.CopyFrom(numpy_helper.from_array(np.zeros((0, TINY.d_model), np.int8), "embed"))


@pytest.mark.parametrize(
    "change",
    [
        set_metadata("format", "edgehmn-encoder-1"),
        set_metadata("interface", "["),
        set_metadata("interface", "[" * 60_000),
        set_metadata("interface", "[]"),
        set_interface(n_ctx=9),
        set_interface(n_layers="two"),
        set_interface(n_layers=True),
        set_interface(n_layers=10**9),
        set_interface(n_ctx=1 << 20),
        set_interface(hidden_frac=99),
        set_interface(rope_frequency=[float("nan")] * 3),
        set_interface(rope_frequency=[1.0]),
        set_interface(rope_frequency=[]),
        set_interface(window="hopping"),
        set_interface(window="restart", start_token=257),
        set_interface(start_token=3),
        drop_metadata,
        drop_node,
        unknown_operator,
        foreign_domain,
        function,
        subgraph,
        sparse_weight,
        short_weight,
        text_weight,
        huge_product,
        long_node,
        many_dimensions,
        change_shape,
        circle,
        wrong_axis,
        empty_embedding,
    ],
)
def test_hostile_file(tiny: Path, tmp_path: Path, change: Callable[[Any], None]) -> None:
    model = onnx.load(tiny)
    change(model)
    with pytest.raises(InvalidFileError, match=r"hostile\.onnx: .*export it"):
        OnnxEncoder(reseal(tmp_path / "hostile.onnx", model))


@pytest.mark.parametrize("location", ["/etc/passwd", "../secret", "beside.bin", "link.bin"])
def test_external_data_is_refused_unread(
    tiny: Path, tmp_path: Path, location: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where the file that is named exists and would fit; onnxruntime is not asked."""
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.chdir(tmp_path)
    model = onnx.load(tiny)
    weight = next(t for t in model.graph.initializer if t.name == "embed")
    (tmp_path / "beside.bin").write_bytes(weight.raw_data)
    (tmp_path / "link.bin").symlink_to("beside.bin")
    weight.ClearField("raw_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    weight.external_data.add(key="location", value=location)
    with pytest.raises(InvalidFileError, match="of its tensor is none that edgehmn writes"):
        OnnxEncoder(reseal(tmp_path / "hostile.onnx", model))


def test_reader_of_the_file_has_an_answer_to_everything(tiny: Path) -> None:
    """What is behind the seal, without it: no exception but the two that it documents."""
    whole, rng = tiny.read_bytes(), np.random.default_rng(0)
    inputs = {name: shape for name, (_, shape) in OnnxInterface.of(TINY, HIDDEN_FRAC).inputs().items()}
    places = rng.integers(len(whole), size=120)
    refused = 0
    for place in places.tolist():
        flipped = bytearray(whole)
        flipped[place] ^= 1 << int(rng.integers(8))
        for data in (bytes(flipped), whole[:place]):
            try:
                check_shapes(read_contents(data), inputs)
            except (ValueError, UnsupportedError):
                refused += 1
    assert refused > len(places), "every truncation, and many flips"


def test_flipped_bits_under_a_right_seal(tiny: Path, tmp_path: Path) -> None:
    """Whatever onnxruntime makes of it, the caller sees an encoder or a documented error."""
    outcomes = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        model = bytearray(tiny.read_bytes())
        model[rng.integers(len(model) - 64)] ^= 1 << int(rng.integers(8))
        try:
            OnnxEncoder(reseal(tmp_path / "flipped.onnx", bytes(model))).step(0)
            outcomes.append(None)
        except (InvalidFileError, UnsupportedError) as e:
            outcomes.append(type(e))
    assert set(outcomes) >= {None, InvalidFileError}


def test_another_version_of_onnx(tiny: Path, tmp_path: Path) -> None:
    newer_ir, newer_opset = onnx.load(tiny), onnx.load(tiny)
    newer_ir.ir_version = 99
    newer_opset.opset_import[0].version = 99
    for model in (newer_ir, newer_opset):
        with pytest.raises(UnsupportedError, match=r"newer\.onnx: .* 99.* reads 6 and 11"):
            OnnxEncoder(reseal(tmp_path / "newer.onnx", model))


def test_operator_without_a_kernel(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("[ONNXRuntimeError] : 9 : NOT_IMPLEMENTED : Could not find an implementation for Abs(11)")

    monkeypatch.setattr(onnxruntime, "InferenceSession", refuse)
    with pytest.raises(UnsupportedError, match=r"onnxruntime .* does not support .*upgrade"):
        OnnxEncoder(tiny)


def test_providers(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    assert OnnxEncoder(tiny).provider == OnnxEncoder(tiny, provider="cpu").provider == "cpu"
    with pytest.raises(UsageError, match="cpu, cuda, tensorrt"):
        OnnxEncoder(tiny, provider="npu")
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    for provider, name in (("cuda", "CUDA"), ("tensorrt", "Tensorrt")):
        with pytest.raises(DependencyError, match=f"has no {name}ExecutionProvider, only CPUExecutionProvider"):
            OnnxEncoder(tiny, provider=provider)


def test_a_provider_that_does_not_start(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """onnxruntime goes on silently with the next one, as it does where CUDA's libraries are missing."""
    import onnxruntime

    session = onnxruntime.InferenceSession

    def fall_back(data: bytes, options: Any, providers: list[str], **more: Any) -> Any:
        assert providers == ["CUDAExecutionProvider", "CPUExecutionProvider"]
        return session(data, options, providers[1:], **more)

    monkeypatch.setattr(
        onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    monkeypatch.setattr(onnxruntime, "InferenceSession", fall_back)
    with pytest.raises(DependencyError, match="could not start CUDAExecutionProvider"):
        OnnxEncoder(tiny, provider="cuda")


def test_missing_dependency(
    checkpoint: Checkpoint, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(DependencyError, match=r"edgehmn\[onnx\]"):
        OnnxEncoder(tiny)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(DependencyError, match=r"edgehmn\[onnx\]"):
        export_encoder(checkpoint, HIDDEN_FRAC, tmp_path / "e.onnx")


def test_too_large_for_a_file() -> None:
    """Found before anything is quantised."""

    def fill(_: npt.NDArray[Any]) -> None:
        raise AssertionError

    graph = GraphBuilder()
    graph.weight("w", (1 << 15, 1 << 15), np.int8, fill)
    with pytest.raises(UsageError, match=r"would have 107\d* bytes.*leave it out"):
        graph.serialise({}, {}, {})


def test_arguments_out_of_range(checkpoint: Checkpoint, tiny: Path, tmp_path: Path) -> None:
    encoder = OnnxEncoder(tiny)
    for token in (-1, TINY.vocab_size):
        with pytest.raises(UsageError, match=r"0\.\.256"):
            encoder.step(token)
    assert encoder.position == 0
    for activations in ({"layers.0.down": "int4"}, {"layers.9.down": "int8"}, {"down": "int8"}):
        with pytest.raises(UsageError, match=r"activations of .*down"):
            export_encoder(checkpoint, HIDDEN_FRAC, tmp_path / "e.onnx", activations)
    with pytest.raises(UsageError, match="hidden_frac"):
        export_encoder(checkpoint, 31, tmp_path / "e.onnx")
    (tmp_path / "folder").mkdir()
    with pytest.raises(CannotWriteError):
        export_encoder(checkpoint, HIDDEN_FRAC, tmp_path / "folder")
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize("frequency", [(), (1.0, 1 / 3)])
def test_interface_survives_its_metadata(tmp_path: Path, frequency: tuple[float, ...]) -> None:
    interface = OnnxInterface(6, 128, 128, 4, 128, 3072, -3, frequency, "restart", 7)
    assert OnnxInterface.from_dict(json.loads(json.dumps(interface.as_dict()))) == interface


def test_file_says_what_its_interface_is(checkpoint: Checkpoint, tiny: Path) -> None:
    interface = OnnxInterface.of(checkpoint.config, HIDDEN_FRAC)
    assert (
        OnnxEncoder(tiny).interface == interface == OnnxInterface.from_dict(read_contents(tiny.read_bytes()).interface)
    )


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
    assert rise < 0.005, "perplexity, of 600 tokens"
