"""What validation finds: files that hold a thing twice, runtimes that differ, and the layer where it falls apart."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from shutil import which

import numpy as np
import pytest

from edgehmn import validation
from edgehmn.calibrate import calibrate
from edgehmn.checkpoint import Config, read_checkpoint
from edgehmn.contents import c_array_check, encoder_checks, image_checks
from edgehmn.core import CoreModel, Image
from edgehmn.device.emulator import QEMU, Emulator
from edgehmn.device.firmware import TOOLS
from edgehmn.export.c_array import INCLUDED
from edgehmn.exported import Export
from edgehmn.image import build_image
from edgehmn.layers import first_layers, layer_noise, snr
from edgehmn.model import FloatModel
from edgehmn.quantize import Precision, quantise
from edgehmn.runtime.device import DeviceRuntime
from tests.checkpoint_files import write_checkpoint
from tests.command_line import edgehmn
from tests.models import GPT2, TINY, random_checkpoint, random_tokens

Copy = Callable[[Path], Path]
DEEP = replace(TINY, n_layers=5)
QWEN = replace(TINY, n_layers=3, window="restart", start_token=3, n_ctx=7, tied_head=False)


def image_of(config: Config, depth: int, bits: Precision | None = None) -> bytes:
    """The image of the first layers, all of it calibrated by the whole model."""
    checkpoint = random_checkpoint(config)
    calibration = calibrate(checkpoint, random_tokens(512, config.vocab_size, 3))
    return build_image(quantise(replace(checkpoint, config=replace(config, n_layers=depth)), calibration, None, bits))


@pytest.mark.parametrize("bits", [None, Precision(weights=4)])
@pytest.mark.parametrize("config", [DEEP, replace(GPT2, n_layers=3), QWEN], ids=["llama", "gpt2", "untied"])
def test_a_cut_image_is_that_of_a_model_of_its_layers(config: Config, bits: Precision | None) -> None:
    whole, ids = Image(image_of(config, config.n_layers, bits)), random_tokens(40)
    for depth in range(1, config.n_layers + 1):
        cut, built = first_layers(whole, depth), Image(image_of(config, depth, bits))
        assert len(cut.bytes) == len(built.bytes) and cut.header.n_layers == depth
        models = [CoreModel(image, plastic=False) for image in (cut, built)]
        for token in ids.tolist():
            a, b = (model.encode(token) for model in models)
            assert np.array_equal(a, b)


@pytest.mark.parametrize("config", [DEEP, replace(GPT2, n_layers=3), QWEN], ids=["llama", "gpt2", "untied"])
def test_the_residual_after_each_layer(config: Config) -> None:
    """8-bit weights leave some 35 dB after each layer of a random model, and 4-bit weights far less, at every depth."""
    checkpoint, ids = random_checkpoint(config), random_tokens(60)
    noise = layer_noise(checkpoint, Image(image_of(config, config.n_layers)), ids)
    coarse = layer_noise(checkpoint, Image(image_of(config, config.n_layers, Precision(weights=4))), ids)
    assert [layer.depth for layer in noise] == list(range(1, config.n_layers + 1))
    assert all(25 < layer.snr < 60 and layer.worst_snr <= layer.snr for layer in noise), noise
    assert all(fine.snr > rough.snr + 10 for fine, rough in zip(noise, coarse, strict=True))


def test_the_layer_that_falls_apart_is_seen() -> None:
    """One layer's weights are not what the float model has."""
    sound = random_checkpoint(DEEP)
    broken = replace(sound, tensors=sound.tensors | {"layers.2.down": -sound.tensors["layers.2.down"]})
    noise = layer_noise(broken, Image(image_of(DEEP, 5)), random_tokens(30))
    found = [layer.snr for layer in noise]
    assert min(found[:2]) > 25 and max(found[2:]) < 15, found


def test_an_outlier_among_the_tokens_hides_nothing() -> None:
    """Each token's residual is read at a scale of its own."""
    checkpoint = random_checkpoint(TINY)
    checkpoint.tensors["embed"][7] *= 500
    image = Image(build_image(quantise(checkpoint, calibrate(checkpoint, random_tokens(512)))))
    ids = np.array([7, *[t for t in random_tokens(60).tolist() if t != 7]], np.int32)
    noise = layer_noise(checkpoint, image, ids)
    assert all(layer.worst_snr > 15 for layer in noise), noise


def test_a_deep_model_is_sampled() -> None:
    deep = replace(TINY, n_layers=40)
    noise = layer_noise(random_checkpoint(deep), Image(image_of(deep, 40)), random_tokens(4))
    depths = [layer.depth for layer in noise]
    assert len(depths) == 12 and depths[0] == 1 and depths[-1] == 40


def test_signal_to_noise() -> None:
    x = np.ones(100, np.float32)
    assert snr(x, np.float32(1.1) * x) == pytest.approx(20, abs=0.01)
    assert snr(x, x) == pytest.approx(200) and snr(x, 0 * x) == pytest.approx(0)


def test_the_table(tiny_export: Path, tiny_checkpoint: Path, short_text: Path) -> None:
    options = ("--checkpoint", tiny_checkpoint, "--text", short_text, "--tokens", "100")
    result = edgehmn("validate", tiny_export, *options, "--json").result
    assert result["ok"] and result["base"] == "float" and result["tokens"] == 100
    rows = {row["name"]: row for row in result["runtimes"]}
    assert list(rows) == ["float", "host", "onnx", "tflite"] and rows["float"]["rise"] is None
    for name in ("host", "onnx", "tflite"):
        row = rows[name]
        assert abs(row["rise"]) < 1 and row["top1"] > 90 and 0 < row["logit_error"] < 1 and row["hidden_snr"] > 20, row
    assert [layer["depth"] for layer in result["layers"]] == [1, 2]
    text = edgehmn("validate", tiny_export, *options, "-q").out
    assert "% over float" in text and "residual after layer" in text and "not signed" in text


def test_without_a_checkpoint_the_host_is_the_base(tiny_export: Path) -> None:
    result = edgehmn("validate", tiny_export, "--runtime", "onnx", "--tokens", "40", "--json").result
    assert [row["name"] for row in result["runtimes"]] == ["host", "onnx"]
    assert result["base"] == "host" and result["layers"] == []


def test_perplexity_is_that_of_the_protocol(tiny_export: Path, tiny_checkpoint: Path, short_text: Path) -> None:
    """The same figures as by scores, to the rounding of logits."""
    options = ("--runtime", "host", "--checkpoint", tiny_checkpoint, "--text", short_text, "--tokens", "120", "--json")
    rows = {row["name"]: row["perplexity"] for row in edgehmn("validate", tiny_export, *options).result["runtimes"]}
    export, checkpoint = Export.open(tiny_export), read_checkpoint(tiny_checkpoint)
    ids = export.encode(short_text.read_text("utf-8"))[:120]
    scores = CoreModel(export.image).process(ids, learn=False)
    assert rows["host"] == pytest.approx(2 ** (scores / 65536).mean(), rel=1e-3)
    model = FloatModel(checkpoint)
    logits = model.logits(model.final_norm(model.encode(ids, model.new_state()))).astype(np.float64)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    nats = [np.log(TINY.vocab_size), *(-log_p[np.arange(119), ids[1:]])]
    assert rows["float"] == pytest.approx(np.exp(np.mean(nats)), rel=1e-4)


@pytest.mark.parametrize("rise, ok", [(0.9, True), (1.05, True), (1.3, False), (float("nan"), False)])
def test_the_limit_that_is_shown_is_the_one_that_was_kept(rise: float, ok: bool) -> None:
    """A short text proves a rise only beyond what chance may add, and the limit has that in it."""
    check = validation.gate(validation.Comparison("host", 50.0, rise, rise_error=0.1))
    assert (check.ok, check.figure <= check.limit) == (ok, ok)


def test_a_worse_float_model_fails_the_gate(tiny_export: Path, short_text: Path, tmp_path: Path) -> None:
    """The image is compared with a checkpoint of the same shape that predicts the text better."""
    better = random_checkpoint(TINY)
    better.tensors["embed"] *= 0.05  # nearly even predictions, which a random model does not reach
    write_checkpoint(better, tmp_path / "better")
    options = ("--runtime", "host", "--checkpoint", tmp_path / "better", "--text", short_text, "--json")
    done = edgehmn("validate", tiny_export, *options)
    detail = done.envelope["error"]["detail"]
    assert done.code == 3 and not detail["ok"]
    [gate] = [c for c in detail["checks"] if "perplexity" in c["name"]]
    assert not gate["ok"] and gate["figure"] > gate["limit"]


@pytest.mark.parametrize(
    "config", [replace(TINY, n_layers=1), replace(TINY, d_hidden=24), replace(TINY, tied_head=False)]
)
def test_a_checkpoint_of_another_shape_is_refused(config: Config, tiny_export: Path, tmp_path: Path) -> None:
    write_checkpoint(random_checkpoint(config), tmp_path / "other")
    done = edgehmn("validate", tiny_export, "--checkpoint", tmp_path / "other", "-q")
    assert done.code == 2 and "not what this was exported from" in done.err


def test_a_text_too_short_is_refused(tiny_export: Path, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a", "utf-8")
    assert edgehmn("validate", tiny_export, "--text", tmp_path / "a", "-q").code == 2


# ---- Boards

absent = [tool for tool in (QEMU, *TOOLS) if which(tool) is None]
needs_a_board = pytest.mark.skipif(bool(absent), reason=f"not run here: {', '.join(absent)} missing")


@needs_a_board
def test_a_board_computes_what_the_host_does(tiny_export: Path) -> None:
    options = ("--runtime", "emulator", "--target", "mps2-an386", "--tokens", "40", "--json")
    result = edgehmn("validate", tiny_export, *options).result
    host, board = result["runtimes"]
    assert board["name"] == "emulator" and board["perplexity"] == pytest.approx(host["perplexity"], rel=1e-3)
    assert len(result["checks"]) == 5 and all(c["figure"] == 0 for c in result["checks"]) and board["top1"] is None


@needs_a_board
def test_a_device_keeps_what_it_has_learned(tiny_export: Path) -> None:
    """An emulated board in the place of a real one."""
    export = Export.open(tiny_export)
    with Emulator(export.image.bytes.tobytes()) as board:
        device = DeviceRuntime(board.url)
        device.process(random_tokens(50), learn=True)
        learned = device.save()
        device.close()
        done = edgehmn("validate", tiny_export, "--runtime", "device", "--port", board.url, "--tokens", "20", "-q")
        assert done.code == 0, done
        device = DeviceRuntime(board.url)
        assert device.save() == learned
        device.close()


@pytest.mark.parametrize("options", [("--port", "x"), ("--runtime", "device"), ("--target", "mps2-an386")])
def test_options_that_do_not_go_together(options: tuple[str, ...], tiny_export: Path) -> None:
    done = edgehmn("validate", tiny_export, *options)
    assert done.code == 2 and "goes with" in done.err


# ---- What the files hold


def test_what_was_exported_holds_nothing_twice(tiny_export: Path) -> None:
    export = Export.open(tiny_export)
    assert set(image_checks(export.image).values()) == {0} and c_array_check(export).popitem()[1] == 0
    for kind in ("onnx", "tflite"):
        assert len(encoder_checks(kind, export)) == 3 and set(encoder_checks(kind, export).values()) == {0}


def test_a_head_that_is_the_embedding_is_found_in_an_image() -> None:
    """Untied by its config, tied by its values: half the image is a copy."""
    checkpoint = random_checkpoint(replace(TINY, tied_head=False))
    checkpoint.tensors["head"] = checkpoint.tensors["embed"].copy()
    image = Image(build_image(quantise(checkpoint, calibrate(checkpoint, random_tokens(512)))))
    assert image_checks(image) == {"matrices stored twice": 1}


def test_float_weights_and_copies_are_found_in_onnx(tiny_export: Path, copy_of: Copy) -> None:
    onnx = pytest.importorskip("onnx")
    folder = copy_of(tiny_export)
    export, path = Export.open(folder), folder / "encoder.onnx"
    model = onnx.load(path)
    table = next(t for t in model.graph.initializer if t.dims == [TINY.vocab_size, TINY.d_model])
    copy = model.graph.initializer.add()
    copy.CopyFrom(table)
    copy.name = "head"
    wide = onnx.numpy_helper.from_array(np.random.default_rng(0).normal(size=(9, 9)).astype(np.float32), "floats")
    model.graph.initializer.append(wide)
    onnx.save(model, path)
    assert encoder_checks("onnx", export) == {
        "matrices of floats": 1, "matrices stored twice": 1, "heads beside the embedding": 1,
    }  # fmt: skip


def test_a_c_source_that_includes_the_image_is_sound(tiny_export: Path, copy_of: Copy) -> None:
    folder = copy_of(tiny_export)
    (folder / "edgehmn_model.c").write_text(INCLUDED, "utf-8")
    assert c_array_check(Export.open(tiny_export)) == c_array_check(replace(Export.open(tiny_export), folder=folder))


def test_another_c_array_is_found(tiny_export: Path, copy_of: Copy) -> None:
    folder = copy_of(tiny_export)
    path, export = folder / "edgehmn_model.c", Export.open(folder)
    text = path.read_text("utf-8")
    for changed in (
        text.replace("69,72,", "69,73,", 1),
        text.replace("= {\n", "= {\nx"),
        "",
        text.replace("69,", "", 1),
    ):
        path.write_text(changed, "utf-8")
        assert c_array_check(export).popitem()[1] == 1
