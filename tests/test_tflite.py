"""The TFLite encoder: it follows the float model, its file is what it says, and a bad file is refused."""

import functools
import json
import sys
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from ai_edge_litert import interpreter as litert
from ai_edge_litert import schema_py_generated as schema

from edgehmn.calibrate import calibration_ids
from edgehmn.checkpoint import REFERENCE, Checkpoint, Config, read_checkpoint
from edgehmn.errors import CannotWriteError, DependencyError, InvalidFileError, UnsupportedError, UsageError
from edgehmn.export.tflite import export_encoder
from edgehmn.export.tflite_builder import BUFFER_ALIGNMENT, GraphBuilder
from edgehmn.model import FloatModel, log_softmax
from edgehmn.runtime.tflite import METADATA_NAME, Interface, TfliteEncoder, seal
from edgehmn.texts import EVALUATION, shipped

CONFIG = Config(
    n_layers=2,
    d_model=32,
    d_hidden=24,
    n_heads=4,
    n_kv_heads=2,
    vocab_size=50,
    n_ctx=8,
    rope_theta=10000.0,
    norm_eps=1e-5,
    final_norm="layernorm",
    tied_head=True,
)
HIDDEN_FRAC = 10
SQNR_DB = 33  # 38 is measured, which int8 weights leave; RoPE one position off gives 18 at most, an open mask 6


def random_checkpoint(config: Config) -> Checkpoint:
    rng = np.random.default_rng(7)
    tensors = {}
    for name, shape in config.tensor_shapes().items():
        if name.endswith("norm.weight"):
            tensor = rng.uniform(0.5, 1.5, shape)
        else:
            tensor = rng.normal(size=shape) * (1.0 if name == "embed" else shape[-1] ** -0.5)
        tensors[name] = tensor.astype(np.float32)
    return Checkpoint(config, tensors, "")


def random_ids(n: int, seed: int) -> npt.NDArray[np.int32]:
    return np.random.default_rng(seed).integers(0, CONFIG.vocab_size, n).astype(np.int32)


def run(encoder: TfliteEncoder, ids: npt.NDArray[np.int32]) -> npt.NDArray[np.int16]:
    return np.stack([encoder.step(int(token)) for token in ids])


def float_hidden(checkpoint: Checkpoint, ids: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
    model = FloatModel(checkpoint)
    return model.encode(ids, model.new_state())


def sqnr_db(expected: npt.NDArray[np.float32], mantissa: npt.NDArray[np.int16]) -> float:
    """Signal to quantisation noise, of hidden vectors."""
    error = mantissa * 2.0**-HIDDEN_FRAC - expected
    return float(10 * np.log10(np.mean(expected**2) / np.mean(error**2)))


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return random_checkpoint(CONFIG)


@pytest.fixture(scope="module")
def exported(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tflite") / "encoder.tflite"
    export_encoder(checkpoint, random_ids(500, seed=1), HIDDEN_FRAC, path)
    return path


@pytest.fixture(params=["xnnpack", "built-in kernels"])
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs a test with LiteRT's default delegate, and without one."""
    if request.param == "built-in kernels":
        resolver = litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        plain = functools.partial(litert.Interpreter, experimental_op_resolver_type=resolver)
        monkeypatch.setattr(litert, "Interpreter", plain)


@pytest.mark.usefixtures("kernels")
def test_hidden_follows_the_float_model_beyond_the_window(checkpoint: Checkpoint, exported: Path) -> None:
    encoder = TfliteEncoder(exported)
    for seed in (2, 3):
        ids = random_ids(5 * CONFIG.n_ctx, seed)
        encoder.reset()
        hidden = run(encoder, ids)
        assert hidden.dtype == np.int16
        assert hidden.shape == (len(ids), CONFIG.d_model)
        expected = float_hidden(checkpoint, ids)
        for part in (slice(0, CONFIG.n_ctx), slice(CONFIG.n_ctx, None)):
            assert sqnr_db(expected[part], hidden[part]) > SQNR_DB


@pytest.mark.usefixtures("kernels")
def test_hidden_depends_on_the_whole_window_and_on_nothing_before_it(exported: Path) -> None:
    """A position sees n_ctx - 1 before it in every layer, so n_layers * (n_ctx - 1) in all."""
    encoder = TfliteEncoder(exported)
    reach = CONFIG.n_layers * (CONFIG.n_ctx - 1)
    ids = random_ids(reach + 2, seed=4)
    last = {}
    for changed in (None, 0, 1):
        variant = ids.copy()
        if changed is not None:
            variant[changed] = (variant[changed] + 1) % CONFIG.vocab_size
        encoder.reset()
        last[changed] = run(encoder, variant)[-1]
    assert np.array_equal(last[0], last[None])
    assert not np.array_equal(last[1], last[None])


def test_reset_is_a_new_beginning(exported: Path) -> None:
    ids = random_ids(3 * CONFIG.n_ctx, seed=5)
    encoder = TfliteEncoder(exported)
    first = run(encoder, ids)
    encoder.reset()
    assert np.array_equal(run(encoder, ids), first)
    assert np.array_equal(run(TfliteEncoder(exported), ids), first)


def test_position_has_no_end(checkpoint: Checkpoint, exported: Path) -> None:
    """Only distances between positions matter, so a stream may be far from its beginning."""
    ids = random_ids(3 * CONFIG.n_ctx, seed=6)
    encoder = TfliteEncoder(exported)
    encoder.position = 1 << 40
    assert sqnr_db(float_hidden(checkpoint, ids), run(encoder, ids)) > SQNR_DB


@pytest.mark.parametrize("token", [-1, CONFIG.vocab_size, 1 << 40])
def test_token_outside_the_vocabulary(exported: Path, token: int) -> None:
    encoder = TfliteEncoder(exported)
    with pytest.raises(UsageError, match=f"token {token} is outside the vocabulary, 0..49"):
        encoder.step(token)
    ids = random_ids(CONFIG.n_ctx, seed=5)  # and the stream goes on as if nothing had been said
    assert np.array_equal(run(encoder, ids), run(TfliteEncoder(exported), ids))


def test_hidden_saturates(checkpoint: Checkpoint, tmp_path: Path) -> None:
    path = tmp_path / "encoder.tflite"
    export_encoder(checkpoint, random_ids(100, seed=1), 30, path)
    limits = np.iinfo(np.int16)
    assert set(np.unique(TfliteEncoder(path).step(1))) <= {limits.min, limits.max}


def test_hidden_of_small_numbers(checkpoint: Checkpoint, tmp_path: Path) -> None:
    path = tmp_path / "encoder.tflite"
    export_encoder(checkpoint, random_ids(100, seed=1), -15, path)
    assert not TfliteEncoder(path).step(1).any()


# --- the file ---


def test_export_is_deterministic(checkpoint: Checkpoint, exported: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.tflite"
    export_encoder(checkpoint, random_ids(500, seed=1), HIDDEN_FRAC, again)
    assert again.read_bytes() == exported.read_bytes()
    assert [p.name for p in tmp_path.iterdir()] == ["again.tflite"]


def test_weights_are_stored_as_int8(checkpoint: Checkpoint, exported: Path) -> None:
    c, data = CONFIG, exported.read_bytes()
    model = schema.ModelT.InitFromPackedBuf(data)
    matrices = []
    for tensor in model.subgraphs[0].tensors:
        content = model.buffers[tensor.buffer].data
        if tensor.type == schema.TensorType.INT8 and content is not None:
            matrices.append(content.view(np.int8))
    layer = 2 * c.d_model * (c.d_model + c.d_kv) + 3 * c.d_model * c.d_hidden
    assert sum(m.size for m in matrices) == c.vocab_size * c.d_model + c.n_layers * layer
    assert min(m.min() for m in matrices) == -127
    assert max(m.max() for m in matrices) == 127
    rest = len(data) - sum(m.size for m in matrices)
    assert rest < 40_000  # the graph itself and one float per row; in float32 the weights alone have 62 kB


def test_scales_of_rows(exported: Path) -> None:
    model = schema.ModelT.InitFromPackedBuf(exported.read_bytes())
    operators, tensors = model.subgraphs[0].operators, model.subgraphs[0].tensors
    codes = [model.operatorCodes[o.opcodeIndex].builtinCode for o in operators]
    weights = [
        tensors[o.inputs[1]]
        for o, code in zip(operators, codes, strict=True)
        if code == schema.BuiltinOperator.FULLY_CONNECTED
    ]
    assert len(weights[0].quantization.scale) == 1  # a row of the embedding, whose scale is an activation
    for weight in weights[1:]:
        assert len(weight.quantization.scale) == weight.shape[0]
        assert weight.quantization.quantizedDimension == 0 and not weight.quantization.zeroPoint.any()


def test_constants_are_aligned(exported: Path) -> None:
    model = schema.Model.GetRootAs(exported.read_bytes())
    buffers = [model.Buffers(i) for i in range(model.BuffersLength())]
    starts = [b._tab.Vector(b._tab.Offset(4)) for b in buffers if b.DataLength()]  # field 4 is `data`
    assert len(starts) > 20
    assert all(start % BUFFER_ALIGNMENT == 0 for start in starts)


def test_metadata_is_readable_json_in_the_model(exported: Path) -> None:
    model = schema.ModelT.InitFromPackedBuf(exported.read_bytes())
    (entry,) = model.metadata
    assert entry.name == METADATA_NAME.encode()
    metadata = json.loads(bytes(model.buffers[entry.buffer].data))
    expected = {"n_layers": 2, "n_ctx": 8, "d_model": 32, "vocab_size": 50, "hidden_frac": HIDDEN_FRAC}
    assert metadata.items() >= (expected | {"window": "sliding", "start_token": -1}).items()
    assert metadata["rope_frequency"] == [1.0, 0.1, 0.01, 0.001]


# --- refusals ---


def refused(path: Path, data: bytes | bytearray) -> str:
    path.write_bytes(data)
    with pytest.raises(InvalidFileError) as caught:
        TfliteEncoder(path)
    assert str(caught.value).startswith(f"{path}: ")
    return str(caught.value)


def test_truncated_file(exported: Path, tmp_path: Path) -> None:
    data = exported.read_bytes()
    for length in np.linspace(0, len(data) - 1, 200).astype(int):
        refused(tmp_path / "short.tflite", data[:length])
    refused(tmp_path / "long.tflite", data + b"\0")


def test_flipped_bit(exported: Path, tmp_path: Path) -> None:
    data = exported.read_bytes()
    rng = np.random.default_rng(8)
    metadata = range(data.index(b'{"format"'), data.index(b'"}', data.index(b"sha256")) + 2)
    positions = np.concatenate([rng.integers(0, len(data), 200), np.arange(8), metadata])
    for position in positions:
        flipped = bytearray(data)
        flipped[position] ^= 1 << rng.integers(8)
        refused(tmp_path / "flipped.tflite", bytes(flipped))


@pytest.mark.parametrize("data", [b"", b"TFL3", b"GGUF" + bytes(100), bytes(4) + b"TFL3" + bytes(100)])
def test_foreign_file(tmp_path: Path, data: bytes) -> None:
    refused(tmp_path / "foreign.tflite", data)


def test_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        TfliteEncoder(tmp_path / "missing.tflite")
    with pytest.raises(InvalidFileError, match="a folder; give a file"):
        TfliteEncoder(tmp_path)


def identity_model(metadata: dict[str, bytes]) -> bytearray:
    """A valid TFLite file that is no encoder."""
    graph = GraphBuilder()
    x = graph.input("x", np.float32, (1, 4))
    graph.output("y", graph.operator("ADD", [x, x], (1, 4), np.float32, None, schema.AddOptionsT()))
    return graph.serialise("a model of someone else", metadata)


def test_valid_tflite_file_that_is_not_ours(tmp_path: Path) -> None:
    data = identity_model({})
    litert.Interpreter(model_content=bytes(data)).allocate_tensors()
    assert "no encoder that this edgehmn exported" in refused(tmp_path / "other.tflite", data)


def test_metadata_that_does_not_fit_the_graph(exported: Path, tmp_path: Path) -> None:
    model = schema.ModelT.InitFromPackedBuf(exported.read_bytes())
    metadata = json.loads(bytes(model.buffers[model.metadata[0].buffer].data))
    interface = Interface.from_dict(metadata)
    data = seal(identity_model({METADATA_NAME: interface.to_metadata()}))
    assert "its tensors are not what its metadata says" in refused(tmp_path / "liar.tflite", data)


@pytest.mark.parametrize(
    ("entry", "bad"),
    [
        (b'"n_ctx": 8', b'"n_ctx": 1'),
        (b'"n_ctx": 8', b'"n_ctx": 8.0'),
        (b'"n_ctx": 8', b'"n_ctx": 1000000000000'),
        (b'"n_layers": 2', b'"n_layers": true'),
        (b'"n_layers": 2', b'"layers": 2'),
        (b'"d_head": 8', b'"d_head": -8'),
        (b'"hidden_frac": 10', b'"hidden_frac": 99'),
        (b'"n_layers": 2', b'"n_layers": 100000'),
        (b'"rope_frequency": [1.0, ', b'"rope_frequency": [NaN, '),
        (b'"rope_frequency": [1.0, ', b'"rope_frequency": ['),
        (b'"window": "sliding"', b'"window": "gliding"'),
        (b'"start_token": -1', b'"start_token": 3'),
    ],
)
def test_metadata_out_of_range(tmp_path: Path, entry: bytes, bad: bytes) -> None:
    interface = Interface.of(CONFIG, 10)
    metadata = interface.to_metadata()
    assert entry in metadata
    refused(tmp_path / "bad.tflite", seal(identity_model({METADATA_NAME: metadata.replace(entry, bad)})))


@pytest.mark.parametrize(
    ("export", "error"),
    [
        (lambda c, path: export_encoder(c, random_ids(9, 1), 31, path), UsageError),
        (lambda c, path: export_encoder(c, random_ids(0, 1), 10, path), UsageError),
        (lambda c, path: export_encoder(c, np.array([50], np.int32), 10, path), UsageError),
        (lambda c, path: export_encoder(c, random_ids(9, 1), 10, path), CannotWriteError),
    ],
)
def test_export_refuses(
    checkpoint: Checkpoint, tmp_path: Path, export: Callable[..., None], error: type[Exception]
) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(error):
        export(checkpoint, tmp_path / "folder")
    assert list(tmp_path.rglob("*")) == [tmp_path / "folder"]


def test_export_refuses_more_than_can_be_read(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgehmn.export.tflite.MAX_INPUT_BYTES", 1 << 16)
    with pytest.raises(UnsupportedError, match="larger than"):
        export_encoder(checkpoint, random_ids(100, seed=1), HIDDEN_FRAC, tmp_path / "out.tflite")
    assert not list(tmp_path.iterdir())


def test_export_refuses_what_overflows(tmp_path: Path) -> None:
    checkpoint = random_checkpoint(CONFIG)
    checkpoint.tensors["embed"] *= np.float32(1e20)
    with pytest.raises(InvalidFileError, match="overflow"):
        export_encoder(checkpoint, random_ids(100, seed=1), HIDDEN_FRAC, tmp_path / "out.tflite")
    assert not list(tmp_path.iterdir())


def test_export_refuses_a_window_of_one_position(tmp_path: Path) -> None:
    config = Config(**(CONFIG.__dict__ | {"n_ctx": 1}))
    with pytest.raises(UnsupportedError, match="at least 2 positions"):
        export_encoder(random_checkpoint(config), random_ids(9, 1), 10, tmp_path / "out.tflite")


def test_missing_interpreter(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    monkeypatch.setitem(sys.modules, "tflite_runtime.interpreter", None)
    with pytest.raises(DependencyError, match=r"pip install 'edgehmn\[tflite\]'"):
        TfliteEncoder(exported)


def test_missing_schema(checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "edgehmn.export.tflite_builder")
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    with pytest.raises(DependencyError, match=r"pip install 'edgehmn\[tflite\]'"):
        export_encoder(checkpoint, random_ids(9, 1), HIDDEN_FRAC, tmp_path / "out.tflite")


def test_second_interpreter_is_tried_where_the_first_cannot_be_made(
    exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As tflite_runtime under NumPy 2: it can be imported, and making an interpreter raises SystemError."""

    def broken(**_: object) -> None:
        raise SystemError("returned a result with an exception set")

    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", types.SimpleNamespace(Interpreter=broken))
    monkeypatch.setitem(sys.modules, "tflite_runtime.interpreter", litert)
    assert TfliteEncoder(exported).step(1).shape == (CONFIG.d_model,)


def test_window_that_is_full(tmp_path: Path) -> None:
    """The encoder knows one window; `WindowedEncoder` begins the next."""
    path = tmp_path / "encoder.tflite"
    config = Config(**(CONFIG.__dict__ | {"window": "restart"}))
    export_encoder(random_checkpoint(config), random_ids(100, seed=1), HIDDEN_FRAC, path)
    encoder = TfliteEncoder(path)
    run(encoder, random_ids(config.n_ctx, seed=2))
    with pytest.raises(UsageError, match="window is full"):
        encoder.step(1)
    encoder.reset()
    encoder.step(1)


# --- the reference model ---


def test_reference_perplexity_rises_by_less_than_half_a_per_cent(tmp_path: Path) -> None:
    checkpoint = read_checkpoint(REFERENCE)
    model = FloatModel(checkpoint)
    ids = checkpoint.encode(shipped(EVALUATION))[:601]
    expected = model.encode(ids[:-1], model.new_state())
    hidden_frac = int(np.floor(np.log2(32767 / (2 * np.abs(expected).max()))))
    path = tmp_path / "reference.tflite"
    export_encoder(checkpoint, calibration_ids(checkpoint), hidden_frac, path)
    hidden = run(TfliteEncoder(path), ids[:-1]) * np.float32(2.0**-hidden_frac)

    def loss(vectors: npt.NDArray[np.float32]) -> float:
        log_p = log_softmax(model.logits(model.final_norm(vectors)))
        return -float(log_p[np.arange(len(vectors)), ids[1:]].mean())

    assert abs(np.expm1(loss(hidden) - loss(expected))) < 0.005
