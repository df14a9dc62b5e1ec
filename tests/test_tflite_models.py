"""TFLite encoders of every kind of model that a Config describes: each follows the float model, in every interpreter.

LiteRT is always here, TFLM's interpreter where `tflite-micro` is installed. tflite-runtime 2.14 needs an environment of
its own: tools/check_tflite_runtime.py makes it, and the test of it says so where there is none.
"""

import functools
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from ai_edge_litert import interpreter as litert
from ai_edge_litert import schema_py_generated as schema

from edgehmn.calibrate import calibration_ids
from edgehmn.checkpoint import REFERENCE, Checkpoint, Config, read_checkpoint
from edgehmn.export.tflite import export_encoder
from edgehmn.export.tflite_float import measure_ranges
from edgehmn.model import FloatModel, log_softmax
from edgehmn.runtime.tflite import TfliteEncoder
from edgehmn.runtime.window import WindowedEncoder
from edgehmn.texts import EVALUATION, shipped
from tests.models import GPT2, TINY, random_checkpoint, random_tokens

ROOT = Path(__file__).resolve().parent.parent
HIDDEN_FRAC = 11
# 32 to 45 are measured, which int8 weights leave. An open mask, or RoPE one position off, gives 19 at most, and so do
# ranges of half the size; ranges that are a tenth too small give 22 to 42, so that not every model notices.
SQNR_DB = 30
BIASED = replace(TINY, n_heads=6, n_kv_heads=3, d_model=48, norm_eps=1e-6)  # heads of 8
MODELS: dict[str, Config] = {
    "llama": TINY,
    "llama with a start token": replace(TINY, window="restart", start_token=1, n_ctx=6),
    "llama with scaled RoPE": replace(TINY, rope_divisors=(1.0, 3.0, 8.0), rope_theta=500000.0),
    "llama with every bias": BIASED,
    "gpt-2": GPT2,
    "gpt-2 with a start token": replace(GPT2, start_token=256),
    "layer norm and RoPE": replace(TINY, norm="layernorm"),
    "GELU, one head of keys": replace(TINY, mlp="gelu", n_kv_heads=1),
    "positions learned, RMS norm, SwiGLU": replace(TINY, positions="learned", window="restart", n_ctx=4),
    "hidden 1376": replace(TINY, d_hidden=1376, n_layers=1),
    "window of 600": replace(TINY, n_ctx=600, n_layers=1),
}


def model(name: str) -> Checkpoint:
    config = MODELS[name]
    checkpoint = random_checkpoint(config, seed=len(name))
    rng = np.random.default_rng(1)
    if config is BIASED:
        for key, shape in config.bias_shapes().items():
            checkpoint.tensors[key] = rng.normal(size=shape).astype(np.float32)
    if name == "hidden 1376":  # rows whose products may leave 32 bits
        signs = rng.choice([-1.0, 1.0], config.layer_matrix_shapes()["down"])
        checkpoint.tensors["layers.0.down"] = (0.03 * signs).astype(np.float32)
    return checkpoint


@functools.cache
def exported(name: str, folder: Path) -> Path:
    path = folder / f"{name}.tflite"
    export_encoder(model(name), random_tokens(500, seed=1), HIDDEN_FRAC, path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tflite")


def run(path: Path, ids: npt.NDArray[np.int32]) -> npt.NDArray[np.int16]:
    encoder = WindowedEncoder(TfliteEncoder(path))
    return np.stack([encoder.step(int(token)) for token in ids])


def sqnr_db(expected: npt.NDArray[np.floating], mantissas: npt.NDArray[np.int16]) -> float:
    error = mantissas * 2.0**-HIDDEN_FRAC - expected
    return float(10 * np.log10(np.mean(np.square(expected)) / np.mean(np.square(error))))


def check(name: str, folder: Path) -> None:
    ids = random_tokens(40, seed=2)
    float_model = FloatModel(model(name))
    expected = float_model.encode(ids, float_model.new_state())
    hidden = run(exported(name, folder), ids)
    for part in (slice(0, 4), slice(4, None)):
        assert sqnr_db(expected[part], hidden[part]) > SQNR_DB


# --- interpreters ---


@pytest.mark.parametrize("name", MODELS)
def test_follows_the_float_model(name: str, folder: Path) -> None:
    check(name, folder)


@pytest.mark.parametrize("name", MODELS)
def test_follows_the_float_model_with_built_in_kernels(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolver = litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    plain = functools.partial(litert.Interpreter, experimental_op_resolver_type=resolver)
    monkeypatch.setattr(litert, "Interpreter", plain)
    check(name, folder)


class TflmInterpreter:
    """TFLM's interpreter behind what TfliteEncoder uses of LiteRT's."""

    def __init__(self, model_content: bytes, num_threads: int) -> None:
        from tflite_micro.python.tflite_micro import runtime

        self._interpreter = runtime.Interpreter.from_bytes(model_content, arena_size=1 << 24)
        graph = schema.ModelT.InitFromPackedBuf(model_content).subgraphs[0]
        kinds = {schema.TensorType.INT16: np.int16, schema.TensorType.INT32: np.int32}
        self._inputs, self._outputs = (
            [{"name": graph.tensors[i].name.decode(), "index": int(i)} for i in indices]
            for indices in (graph.inputs, graph.outputs)
        )
        self._values: dict[int, npt.NDArray[Any]] = {}
        for tensor in (*self._inputs, *self._outputs):
            stored = graph.tensors[tensor["index"]]
            tensor |= {"dtype": kinds[stored.type], "shape": stored.shape}
            self._values[tensor["index"]] = np.zeros(stored.shape, kinds[stored.type])

    def allocate_tensors(self) -> None:
        pass

    def get_input_details(self) -> list[dict[str, Any]]:
        return self._inputs

    def get_output_details(self) -> list[dict[str, Any]]:
        return self._outputs

    def tensor(self, index: int) -> Callable[[], npt.NDArray[Any]]:
        return lambda: self._values[index]

    def invoke(self) -> None:
        for i, tensor in enumerate(self._inputs):
            self._interpreter.set_input(self._values[tensor["index"]], i)
        self._interpreter.invoke()
        for i, tensor in enumerate(self._outputs):
            self._values[tensor["index"]] = self._interpreter.get_output(i)


@pytest.fixture
def tflm(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    pytest.importorskip("tflite_micro", reason="not run here: tflite-micro, TFLM's interpreter, is not installed")
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", types.SimpleNamespace(Interpreter=TflmInterpreter))
    yield


@pytest.mark.usefixtures("tflm")
@pytest.mark.parametrize("name", MODELS)
def test_follows_the_float_model_in_tflm(name: str, folder: Path) -> None:
    check(name, folder)


@pytest.mark.usefixtures("tflm")
def test_reference_model_in_tflm(tmp_path: Path) -> None:
    checkpoint = read_checkpoint(REFERENCE)
    ids = checkpoint.encode(shipped(EVALUATION))[:301]
    export_encoder(checkpoint, calibration_ids(checkpoint), 4, tmp_path / "reference.tflite")
    hidden = run(tmp_path / "reference.tflite", ids[:-1]) * np.float32(2.0**-4)
    float_model = FloatModel(checkpoint)

    def loss(vectors: npt.NDArray[np.float32]) -> float:
        log_p = log_softmax(float_model.logits(float_model.final_norm(vectors)))
        return -float(log_p[np.arange(len(vectors)), ids[1:]].mean())

    assert abs(loss(hidden) - loss(float_model.encode(ids[:-1], float_model.new_state()))) < 0.005


def test_tflite_runtime_agrees_with_litert(folder: Path) -> None:
    names = ("llama with every bias", "gpt-2")
    command = [sys.executable, str(ROOT / "tools" / "check_tflite_runtime.py"), "--no-install"]
    done = subprocess.run([*command, *(exported(n, folder) for n in names)], capture_output=True, text=True)
    if done.returncode == 10:
        pytest.skip(f"not run here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("40 steps") == 2


# --- arithmetic ---


def operators(path: Path) -> dict[str, list[tuple[str, int]]]:
    """For each operator: (type of its first output, number of values in it), for each time that it occurs."""
    stored = schema.ModelT.InitFromPackedBuf(path.read_bytes())
    names = {v: k for k, v in vars(schema.BuiltinOperator).items() if isinstance(v, int)}
    types = {v: k for k, v in vars(schema.TensorType).items() if isinstance(v, int)}
    graph, out = stored.subgraphs[0], dict[str, list[tuple[str, int]]]()
    for operator in graph.operators:
        tensor = graph.tensors[operator.outputs[0]]
        name = names[stored.operatorCodes[operator.opcodeIndex].builtinCode]
        out.setdefault(name, []).append((types[tensor.type], int(np.prod(tensor.shape))))
    return out


@pytest.mark.parametrize("name", MODELS)
def test_nothing_but_scalars_is_float(name: str, folder: Path) -> None:
    config, found = MODELS[name], operators(exported(name, folder))
    float_sizes = {op: {n for kind, n in o if kind == "FLOAT32"} for op, o in found.items()}
    if config.n_ctx > 512:
        window = config.n_heads * config.n_ctx
        assert float_sizes.pop("SOFTMAX") == {window}
        assert float_sizes["DEQUANTIZE"] == {1, window}
        float_sizes["DEQUANTIZE"] = {1}
    assert {op for op, sizes in float_sizes.items() if sizes} == {"GATHER", "DEQUANTIZE", "ADD", "RSQRT"}
    assert set().union(*float_sizes.values()) == {1}


def test_sums_have_64_bits_where_32_could_overflow(folder: Path) -> None:
    stored = schema.ModelT.InitFromPackedBuf(exported("hidden 1376", folder).read_bytes())
    biases = [t for t in stored.subgraphs[0].tensors if t.type == schema.TensorType.INT64]
    assert [t.shape.tolist() for t in biases] == [[TINY.d_model]]  # of `down`
    assert not any(
        t.type == schema.TensorType.INT64
        for t in schema.ModelT.InitFromPackedBuf(exported("llama", folder).read_bytes()).subgraphs[0].tensors
    )


def test_ranges_do_not_depend_on_how_the_text_is_cut() -> None:
    """Windows are measured side by side; a text of one window more adds its values and changes no other."""
    checkpoint = model("llama")
    ids = random_tokens(60, seed=3)
    parts = [measure_ranges(checkpoint, ids[i : i + TINY.n_ctx]) for i in range(0, len(ids), TINY.n_ctx)]
    assert np.array_equal(np.max(parts, axis=0), measure_ranges(checkpoint, ids))


def test_row_and_norm_of_zeros(tmp_path: Path) -> None:
    """A dead channel, an embedding of zeros and a matrix of zeros are no division by zero."""
    checkpoint = random_checkpoint(TINY)
    checkpoint.tensors["layers.0.up"][3] = 0
    checkpoint.tensors["layers.0.o"][:] = 0
    checkpoint.tensors["layers.0.down"][:] = 0
    checkpoint.tensors["embed"][5] = 0
    path = tmp_path / "zeros.tflite"
    export_encoder(checkpoint, random_tokens(300, seed=1), HIDDEN_FRAC, path)
    ids = np.array([5, 5, 7, 5, 9], np.int32)
    float_model = FloatModel(checkpoint)
    expected = float_model.encode(ids, float_model.new_state())
    assert np.abs(run(path, ids) * 2.0**-HIDDEN_FRAC - expected).max() < 0.05
