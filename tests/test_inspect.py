"""What inspection says of every kind of file, and of what an attacker makes of one."""

import json
import os
import random
import struct
import subprocess
import threading
import tracemalloc
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from shutil import which
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from edgehmn.banks import join
from edgehmn.core import CoreModel, Image
from edgehmn.device.boards import Board, boards
from edgehmn.errors import EdgeHMNError, InvalidFileError
from edgehmn.inspection import gguf, inspect, onnx, tflite
from edgehmn.inspection.source import BLOCK, Source, opened
from tests.command_line import edgehmn
from tests.models import GPT2, TINY, tiny_image

KINDS = ("image", "delta", "banks", "onnx", "tflite", "gguf", "safetensors", "llama2.c", "llama2.c 2", "elf", "flash")
STRING, UINT32, ARRAY = 8, 4, 9


# ---- Files of other programs, made by hand


def gguf_text(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def gguf_file(pairs: list[bytes], tensors: list[tuple[str, tuple[int, ...], int, bytes]], version: int = 3) -> bytes:
    """tensors: name, shape (rows first), type, data, which is put at multiples of 32."""
    out = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(pairs)) + b"".join(pairs)
    data = b""
    for name, shape, kind, content in tensors:
        out += gguf_text(name) + struct.pack(f"<I{len(shape)}Q", len(shape), *shape[::-1])
        out += struct.pack("<IQ", kind, len(data))
        data += content + bytes(-len(content) % 32)
    return out + bytes(-len(out) % 32) + data


def gguf_pair(key: str, value: int | str | list[str]) -> bytes:
    if isinstance(value, int):
        return gguf_text(key) + struct.pack("<II", UINT32, value)
    if isinstance(value, str):
        return gguf_text(key) + struct.pack("<I", STRING) + gguf_text(value)
    head = struct.pack("<IIQ", ARRAY, STRING, len(value))
    return gguf_text(key) + head + b"".join(map(gguf_text, value))


def small_gguf() -> bytes:
    pairs = [
        gguf_pair("general.architecture", "llama"),
        gguf_pair("general.name", "A name — öä"),
        gguf_pair("llama.block_count", 2),
        gguf_pair("llama.embedding_length", 64),
        gguf_pair("tokenizer.ggml.model", "gpt2"),
        gguf_pair("tokenizer.ggml.tokens", ["a", "b", "c d"]),
    ]
    tensors = [
        ("token_embd.weight", (3, 64), 8, bytes(3 * 2 * 34)),
        ("output.weight", (3, 64), 0, bytes(4 * 3 * 64)),
        ("blk.0.attn_q.weight", (64, 256), 12, bytes(64 * 144)),
    ]
    return gguf_file(pairs, tensors)


def llama2c(version: int, group: int = 4, *, tied: bool = True) -> bytes:
    d, hidden, layers, heads, kv, vocab, ctx = 8, 12, 2, 2, 1, 20, 16
    norms = (2 * layers + 1) * d
    matrices = layers * (2 * d * d + 2 * d * d // heads * kv + 3 * d * hidden) + (1 if tied else 2) * vocab * d
    if version == 0:
        sizes = (d, hidden, layers, heads, kv, vocab if tied else -vocab, ctx)
        return struct.pack("<7i", *sizes) + bytes(4 * (norms + matrices + ctx * d // heads))
    head = struct.pack("<Ii7iBi", 0x616B3432, version, d, hidden, layers, heads, kv, vocab, ctx, tied, group)
    body = 4 * (norms + matrices) if version == 1 else 4 * norms + matrices + 4 * matrices // group
    return head + bytes(256 - len(head) + body)


def elf(content: bytes = b"", machine: int = 40) -> bytes:
    """A program for 32 bits with one loaded and one writable segment."""
    head = (
        b"\x7fELF\1\1\1" + bytes(9) + struct.pack("<HHIIIIIHHHHHH", 2, machine, 1, 0x101, 52, 0, 0, 52, 32, 2, 0, 0, 0)
    )
    segments = struct.pack("<8I", 1, 0, 0, 0, 1000, 1000, 5, 4) + struct.pack("<8I", 1, 0, 0, 0, 24, 200, 6, 4)
    return head + segments + content


@pytest.fixture(scope="module")
def files(tiny_export: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One file of every kind."""
    folder = tmp_path_factory.mktemp("kinds")
    image = (tiny_export / "model.ehmn").read_bytes()
    model = CoreModel(Image(image))
    delta = model.save()
    contents = {
        "image": image,
        "delta": delta,
        "banks": join([delta, delta]),
        "onnx": (tiny_export / "encoder.onnx").read_bytes(),
        "tflite": (tiny_export / "encoder.tflite").read_bytes(),
        "gguf": small_gguf(),
        "safetensors": safetensors.numpy.save({"a": np.zeros((2, 3), np.float32), "b": np.zeros(5, np.int8)}),
        "llama2.c": llama2c(0),
        "llama2.c 2": llama2c(2),
        "elf": elf(),
        "flash": struct.pack("<16I", 0x20002000, 0x105, *[0] * 14) + bytes(1000) + image,
    }
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    return {name: folder / name for name in contents}


# ---- What is said of each


def test_each_kind_is_known(files: dict[str, Path]) -> None:
    found = {name: inspect(path) for name, path in files.items()}
    assert [found[name]["kind"] for name in KINDS] == [
        "image", "delta", "banks", "onnx", "tflite", "gguf", "safetensors", "llama2.c", "llama2.c", "firmware",
        "firmware",
    ]  # fmt: skip
    for name, path in files.items():
        assert found[name]["size"] == path.stat().st_size and len(found[name]["sha256"]) == 64
        json.dumps(found[name], allow_nan=False)
    for name in ("image", "delta", "banks"):
        assert found[name]["image_id"] == found["image"]["image_id"]


@pytest.mark.parametrize("name", KINDS)
def test_text_and_json_of_each_kind(name: str, files: dict[str, Path]) -> None:
    text = edgehmn("inspect", files[name])
    assert text.code == 0 and text.out.startswith("kind ") and not text.err, text
    assert edgehmn("inspect", files[name], "--json").result["kind"] == text.out.split("\n")[0].split()[1]


def test_an_image_of_each_family(tmp_path: Path) -> None:
    for config, family in ((TINY, "llama"), (GPT2, "gpt2")):
        (tmp_path / "image").write_bytes(tiny_image(config))
        facts = inspect(tmp_path / "image")
        assert facts["architecture"] == family and facts["config"]["mlp"] == config.mlp
        assert facts["config"]["window"] == config.window and facts["config"]["start_token"] == -1


def test_a_gguf_file(files: dict[str, Path]) -> None:
    facts = inspect(files["gguf"])
    assert (facts["architecture"], facts["name"], facts["tokenizer"]) == ("llama", "A name — öä", "gpt2")
    assert facts["config"] == {"n_layers": 2, "d_model": 64, "vocab_size": 3, "tied_head": 0}
    assert facts["tensors"]["parameters"] == 2 * 3 * 64 + 64 * 256 and facts["tensors"]["Q4_K"] == 1


def test_gguf_types_are_those_of_its_library() -> None:
    constants = pytest.importorskip("gguf.constants")
    sizes = {int(kind): (kind.name, *size) for kind, size in constants.GGML_QUANT_SIZES.items()}
    assert {kind: sizes[kind] for kind in gguf.TYPES} == gguf.TYPES


def test_onnx_is_what_its_library_says(files: dict[str, Path]) -> None:
    library = pytest.importorskip("onnx")
    model, facts = library.load(files["onnx"]), inspect(files["onnx"])
    assert facts["tensors"]["count"] == len(model.graph.initializer)
    assert facts["tensors"]["bytes"] == sum(len(t.raw_data) for t in model.graph.initializer)
    assert sum(facts["operators"].values()) == len(model.graph.node)
    assert (
        facts["versions"]["ir_version"] == model.ir_version
        and facts["versions"]["opset"] == model.opset_import[0].version
    )
    assert list(facts["inputs"]) == [i.name for i in model.graph.input]
    assert facts["metadata"]["format"].startswith("edgehmn-encoder")


def test_onnx_types_are_those_of_its_library() -> None:
    library = pytest.importorskip("onnx")
    for number, (name, size) in onnx.TYPES.items():
        kind = library.helper.tensor_dtype_to_np_dtype(number)
        assert size in (kind.itemsize, 0) and (str(kind) == name or name in ("string", "bfloat16"))


def test_an_onnx_file_of_anybody(tmp_path: Path) -> None:
    """Values in fields of their own, symbolic sizes, other domains, data beside the file."""
    library = pytest.importorskip("onnx")
    helper = library.helper
    weights = helper.make_tensor("w", library.TensorProto.FLOAT, [2, 2], [1.0, 2.0, 3.0, 4.0])
    node = helper.make_node("Gemm", ["x", "w"], ["y"], domain="com.example")
    ends = [helper.make_tensor_value_info(name, library.TensorProto.FLOAT, ["batch", 2]) for name in "xy"]
    graph = helper.make_graph([node], "g", ends[:1], ends[1:], [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21), helper.make_opsetid("com.example", 3)])
    library.save(model, tmp_path / "model.onnx")
    facts = inspect(tmp_path / "model.onnx")
    assert facts["operators"] == {"com.example.Gemm": 1} and facts["inputs"] == {"x": "float32 (batch, 2)"}
    assert facts["versions"]["opset com.example"] == 3 and facts["tensors"]["bytes"] == 16
    for location, code in (("weights.bin", 0), ("../weights.bin", 4), ("/etc/passwd", 4), ("a\\..\\b", 4), ("c:x", 4)):
        weights.data_location = library.TensorProto.EXTERNAL
        del weights.external_data[:]
        weights.external_data.add(key="location", value=location)
        graph.initializer[0].CopyFrom(weights)
        model.graph.CopyFrom(graph)
        (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
        done = edgehmn("inspect", tmp_path / "model.onnx", "--json")
        assert done.code == code, (location, done)
        if code == 0:
            assert done.result["external_data"] == [location]


def test_tflite_is_what_its_library_says(files: dict[str, Path]) -> None:
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
    facts = inspect(files["tflite"])
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(files["tflite"].read_bytes(), 0))
    graph = model.subgraphs[0]
    constants = [t for t in graph.tensors if model.buffers[t.buffer].data is not None]
    assert facts["tensors"]["count"] == len(constants)
    assert facts["tensors"]["bytes"] == sum(len(model.buffers[t.buffer].data) for t in constants)
    assert sum(facts["operators"].values()) == len(graph.operators)
    assert list(facts["inputs"]) == [graph.tensors[i].name.decode() for i in graph.inputs]
    numbers = {number: name.lower() for name, number in vars(schema.TensorType).items() if isinstance(number, int)}
    assert [name for name, _ in tflite.TYPES] == [numbers[i] for i in range(len(tflite.TYPES))]


def test_tflite_without_its_library(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ai_edge_litert.schema_py_generated", None)
    assert all(name.startswith("builtin ") for name in inspect(files["tflite"])["operators"])


@pytest.mark.parametrize("version", [0, 1, 2])
@pytest.mark.parametrize("tied", [True, False])
def test_llama2c(version: int, tied: bool, tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(llama2c(version, tied=tied))
    facts = inspect(path)
    assert (facts["version"], facts["config"]["vocab_size"], facts["config"]["tied_head"]) == (version, 20, int(tied))
    path.write_bytes(llama2c(version, tied=tied) + b"\0\0\0\0")
    with pytest.raises(InvalidFileError, match="known are"):
        inspect(path)


def test_a_llama2c_tokenizer(tmp_path: Path) -> None:
    tokens = [b"<unk>", b" the", "日".encode(), b""]
    data = struct.pack("<I", 5) + b"".join(struct.pack("<fi", -i, len(t)) + t for i, t in enumerate(tokens))
    (tmp_path / "tokenizer.bin").write_bytes(data)
    assert inspect(tmp_path / "tokenizer.bin")["tokenizer"] == "llama2.c, 4 tokens"


def test_a_checkpoint_directory_of_each_kind(tiny_checkpoint: Path, tmp_path: Path) -> None:
    own = inspect(tiny_checkpoint)
    assert (own["kind"], own["format"], own["tokenizer"]) == ("checkpoint", "edgehmn", "BPE, 256 tokens")
    assert own["config"]["d_model"] == TINY.d_model and own["tensors"]["F32"] == len(TINY.tensor_shapes())
    config = {"model_type": "gpt2", "n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 16, "vocab_size": 5}
    (tmp_path / "config.json").write_text(json.dumps(config), "utf-8")
    for shard in ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"):
        safetensors.numpy.save_file({shard: np.zeros((3, 4), np.float16)}, tmp_path / shard)
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04")
    (tmp_path / "vocab.json").write_text("{}", "utf-8")
    facts = inspect(tmp_path)
    assert (facts["format"], facts["architecture"], facts["tokenizer"]) == ("Hugging Face", "gpt2", "BPE")
    assert (
        facts["config"]["n_layers"] == 1
        and facts["config"]["n_ctx"] == 16
        and facts["never_read"] == ["pytorch_model.bin"]
    )
    assert facts["tensors"] == {"count": 2, "parameters": 24, "bytes": 48, "F16": 2}


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": 1, "a": 2}', "[" * 100_000])
def test_a_damaged_config_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text, "utf-8")
    with pytest.raises(InvalidFileError, match=r"config\.json"):
        inspect(tmp_path)


def test_an_image_in_firmware_is_found(files: dict[str, Path], tmp_path: Path) -> None:
    """Wherever it lies, beside the magic alone and beside a damaged one."""
    image = files["image"].read_bytes()
    damaged = image[:100] + b"x" + image[101:]
    for offset in (0, 1, BLOCK - 2, BLOCK + 7, (1 << 20) - 2):
        (tmp_path / "elf").write_bytes(elf(bytes(offset) + b"EHMN" + damaged + b"EHMN" + image + image))
        found = inspect(tmp_path / "elf")["images"]
        start = len(elf()) + offset + 4 + len(damaged) + 4
        assert [i["offset"] for i in found] == [start, start + len(image)]
        assert {i["image_id"] for i in found} == {Image(image).id}


def test_a_program_is_no_firmware(tmp_path: Path) -> None:
    (tmp_path / "program").write_bytes(elf(machine=62))
    assert inspect(tmp_path / "program")["kind"] == "program"


@pytest.mark.skipif(which("arm-none-eabi-gcc") is None, reason="no cross compiler")
def test_our_own_firmware(tmp_path: Path) -> None:
    from edgehmn.device.firmware import build_firmware

    path = build_firmware("mps2-an386")
    facts = inspect(path)
    assert (facts["kind"], facts["machine"], facts["board"]) == ("firmware", "Arm", "mps2-an386")
    assert facts["images"] == [] and 1 << 14 < facts["config"]["flash_bytes"] < 1 << 17
    flash = tmp_path / "flash.bin"
    subprocess.run(["arm-none-eabi-objcopy", "-O", "binary", path, flash], check=True)
    facts = inspect(flash)
    assert (facts["machine"], facts["board"]) == ("Cortex-M", "mps2-an386")


@pytest.mark.parametrize("board", boards().values(), ids=lambda board: board.name)
def test_the_flash_contents_of_every_board(board: Board, tmp_path: Path) -> None:
    """As its memory map has them: where the stack begins, and the entry."""
    numbers = board.numbers
    stack, entry = numbers["BOARD_STACK_ADDRESS"] + numbers["BOARD_STACK_BYTES"], numbers["BOARD_FLASH_ADDRESS"] + 0x105
    flash = tmp_path / "flash.bin"
    flash.write_bytes(struct.pack("<2I", stack, entry) + bytes(500) + board.name.encode() + bytes(500))
    facts = inspect(flash)
    assert (facts["format"], facts["machine"], facts["board"]) == ("flash contents", "Cortex-M", board.name)
    flash.write_bytes(struct.pack("<2I", stack, stack | 1) + bytes(1000))
    with pytest.raises(InvalidFileError):  # nothing begins in its own stack
        inspect(flash)


def test_flash_that_begins_with_an_image(tiny_export: Path, tmp_path: Path) -> None:
    """As that of an emulated board; an image with a few bytes too many is a damaged image."""
    image, flash = (tiny_export / "model.ehmn").read_bytes(), tmp_path / "flash.bin"
    flash.write_bytes(image.ljust(1 << 20, b"\xff"))
    facts = inspect(flash)
    assert (facts["kind"], [i["offset"] for i in facts["images"]]) == ("firmware", [0])
    flash.write_bytes(image + bytes(4))
    with pytest.raises(InvalidFileError, match="E_SIZE"):
        inspect(flash)


def test_a_pipe(files: dict[str, Path], tmp_path: Path) -> None:
    pipe, data = tmp_path / "pipe", files["gguf"].read_bytes()
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(data,))
    writer.start()
    facts = inspect(pipe)
    writer.join()
    assert facts["kind"] == "gguf" and facts["size"] == len(data)


def test_what_is_nothing(tmp_path: Path) -> None:
    for name, data in {"empty": b"", "text": b"Some text.\n" * 50, "zeros": bytes(5000), "json": b'{"a": 1}'}.items():
        (tmp_path / name).write_bytes(data)
        done = edgehmn("inspect", tmp_path / name)
        assert (done.code, done.out) == (4, "") and "GGUF" in done.err and name in done.err, done
    (tmp_path / "folder").mkdir()
    assert edgehmn("inspect", tmp_path / "folder").code == 4 and edgehmn("inspect", tmp_path / "none").code == 2


def test_nothing_reaches_the_terminal_that_it_would_obey(tmp_path: Path) -> None:
    (tmp_path / "g").write_bytes(gguf_file([gguf_pair("general.name", "\x1b[2J\r\nred")], []))
    assert "\x1b" not in edgehmn("inspect", tmp_path / "g").out


# ---- Damaged and hostile files


def outcome(path: Path) -> str:
    """The kind, or the documented refusal."""
    try:
        return str(inspect(path)["kind"])
    except EdgeHMNError as e:
        assert str(path) in str(e), e
        return type(e).__name__


@pytest.mark.parametrize("name", KINDS)
def test_every_truncation_and_many_flips(name: str, files: dict[str, Path], tmp_path: Path) -> None:
    """150 truncations and 300 flips of each: a sentence or facts, never anything else."""
    data, path, rng = files[name].read_bytes(), tmp_path / "damaged", random.Random(name)
    kind = inspect(files[name])["kind"]
    seen: set[str] = set()
    for n in sorted(rng.sample(range(len(data)), min(150, len(data)))):
        path.write_bytes(data[:n])
        seen.add(outcome(path))
    if name not in ("elf", "flash"):  # which may end anywhere
        assert kind not in seen
    head = min(8 * len(data), 8 * 2000)  # where the structure is
    for _ in range(300):
        flipped, bit = bytearray(data), rng.randrange(head)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        seen.add(outcome(path))
    assert "InvalidFileError" in seen or name == "flash"
    if name in ("image", "delta", "banks"):
        assert seen <= {"InvalidFileError"}, seen


@pytest.mark.parametrize("seed", range(3))
def test_random_bytes_behind_every_magic(seed: int, tmp_path: Path) -> None:
    rng, path = random.Random(seed), tmp_path / "noise"
    magics = [b"GGUF\3\0\0\0", b"\0\0\0\0TFL3", b"\x10\0\0\0TFL3", b"\x7fELF\1\1", b"\x08\x06\x12", b"EHMN",
              b"EHMD", b"EHMB", struct.pack("<Q", 40) + b"{", struct.pack("<I", 0x616B3432), b"{"]  # fmt: skip
    for magic in magics:
        for _ in range(60):
            path.write_bytes(magic + rng.randbytes(rng.randrange(3000)))
            assert outcome(path) in ("InvalidFileError", "firmware", "program")


def peak(path: Path) -> int:
    tracemalloc.start()
    try:
        assert outcome(path) == "InvalidFileError"
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


HUGE = 1 << 62
HOSTILE: dict[str, Callable[[], bytes]] = {
    "GGUF tensors": lambda: b"GGUF" + struct.pack("<IQQ", 3, HUGE, 0),
    "GGUF keys": lambda: b"GGUF" + struct.pack("<IQQ", 3, 0, HUGE),
    "GGUF text": lambda: gguf_file([struct.pack("<Q", HUGE) + b"a"], []),
    "GGUF value": lambda: gguf_file([gguf_text("a") + struct.pack("<IQ", STRING, HUGE)], []),
    "GGUF array": lambda: gguf_file([gguf_text("a") + struct.pack("<IIQ", ARRAY, STRING, HUGE)], []),
    "GGUF numbers": lambda: gguf_file([gguf_text("a") + struct.pack("<IIQ", ARRAY, 10, HUGE)], []),
    "GGUF arrays of arrays": lambda: gguf_file([gguf_text("a") + struct.pack("<IIQ", ARRAY, ARRAY, 9)], []),
    "GGUF shape": lambda: gguf_file([], [("a", (HUGE, HUGE), 0, b"")]),
    "GGUF keys that repeat": lambda: gguf_file([gguf_pair("a", 1)] * 2, []),
    "GGUF names that repeat": lambda: gguf_file([], [("a", (8,), 0, bytes(32))] * 2),
    "GGUF alignment": lambda: gguf_file([gguf_pair("general.alignment", 0)], []),
    "GGUF version": lambda: gguf_file([], [], 99),
    "safetensors header": lambda: struct.pack("<Q", HUGE) + b"{}",
    "safetensors shape": lambda: st({"a": {"dtype": "F32", "shape": [HUGE, HUGE], "data_offsets": [0, 0]}}),
    "safetensors negative": lambda: st({"a": {"dtype": "U8", "shape": [-1, -1], "data_offsets": [0, 1]}}, b"x"),
    "safetensors offsets": lambda: st({"a": {"dtype": "U8", "shape": [1], "data_offsets": [HUGE, HUGE + 1]}}, b"x"),
    "safetensors hole": lambda: st({"a": {"dtype": "U8", "shape": [1], "data_offsets": [1, 2]}}, b"xy"),
    "safetensors overlap": lambda: st({n: {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]} for n in "ab"}, b"xy"),
    "safetensors twice": lambda: st_text('{"a": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}, "a": 1}'),
    "safetensors deep": lambda: st_text("{" + '"a":' + "[" * 50_000),
    "safetensors type": lambda: st({"a": {"dtype": "F99", "shape": [1], "data_offsets": [0, 1]}}, b"x"),
    "safetensors words": lambda: st({"a": "no", "__metadata__": 3}),
    "TFLite buffers": lambda: struct.pack("<I4sIIHHI", 16, b"TFL3", 0, 0, 4, 8, 8) + bytes(4) + b"\xff" * 8,
    "TFLite loop": lambda: struct.pack("<I4s", 0, b"TFL3") + bytes(100),
    "ONNX length": lambda: b"\x08\x06\x3a" + b"\xff" * 8 + b"\x01",
    "ONNX varint": lambda: b"\x08\x06\x12" + b"\xff" * 40,
    "ELF segments": lambda: elf()[:44] + b"\xff\xff" + elf()[46:],
    "ELF table": lambda: elf()[:28] + b"\xff\xff\xff\x7f" + elf()[32:],
}


def st_text(text: str, data: bytes = b"") -> bytes:
    return struct.pack("<Q", len(text)) + text.encode() + data


def st(header: dict[str, Any], data: bytes = b"") -> bytes:
    return st_text(json.dumps(header), data)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_in_little_memory(name: str, tmp_path: Path) -> None:
    path = tmp_path / "hostile"
    path.write_bytes(HOSTILE[name]())
    assert peak(path) < 1 << 21


def test_a_large_file_takes_little_memory(tmp_path: Path) -> None:
    """A GGUF file of 300 MB, most of it a hole."""
    path = tmp_path / "large"
    data = gguf_file([], [("a", (75_000_000,), 0, b"")])
    with path.open("wb") as f:
        f.write(data)
        f.truncate(len(data) + 300_000_000)
    tracemalloc.start()
    facts = inspect(path)
    assert facts["tensors"]["parameters"] == 75_000_000 and tracemalloc.get_traced_memory()[1] < 10 << 20
    tracemalloc.stop()


def test_a_source_reads_what_is_there(tmp_path: Path) -> None:
    data = random.Random(0).randbytes(3 * BLOCK + 17)
    (tmp_path / "f").write_bytes(data)
    rng = random.Random(1)
    with opened(tmp_path / "f") as source:
        for _ in range(300):
            at = rng.randrange(len(data))
            n = rng.choice([0, 1, 8, rng.randrange(len(data) - at + 1)])
            n = min(n, len(data) - at)
            assert source.read(at, n) == data[at : at + n]
        assert b"".join(piece for _, piece in source.pieces()) == data == source.everything(len(data))
        for at, n in ((len(data), 1), (-1, 1), (0, len(data) + 1), (1 << 70, 1)):
            with pytest.raises(InvalidFileError):
                source.read(at, n)


def test_a_file_that_shrinks_while_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(bytes(1000))
    with opened(tmp_path / "f") as source:
        (tmp_path / "f").write_bytes(b"")
        with pytest.raises(InvalidFileError, match="shorter"):
            source.read(0, 1000)


def test_pieces_overlap_so_that_nothing_lies_between_them() -> None:
    source = Source("x", -1, 5 << 20, bytes(5 << 20))
    starts = [(at, at + len(data)) for at, data in source.pieces(overlap=3)]
    assert starts[0][0] == 0 and starts[-1][1] == 5 << 20
    assert all(b[0] == a[1] - 3 for a, b in pairwise(starts))
