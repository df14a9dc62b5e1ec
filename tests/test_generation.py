"""What a token of a GGUF file costs by the runtimes of others."""

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgehmn.errors import InvalidFileError, UnsupportedError, UsageError
from edgehmn.estimate import estimate, fitted
from edgehmn.generation import PARAMETERS, board_of, predict, token_seconds
from edgehmn.targets.schema import load_target, target_names
from edgehmn.workload import workload_of
from tests.command_line import Result

WIDTH, VOCABULARY, LAYERS = 64, 96, 2


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def gguf(path: Path, *, own_head: bool, experts: tuple[int, int] | None = None) -> Path:
    """A file of Q8_0 matrices: 34 bytes for 32 weights. experts: used, and in all."""
    sizes = {"block_count": LAYERS, "embedding_length": WIDTH, "attention.head_count": 4, "attention.head_count_kv": 2}
    if experts:
        sizes |= {"expert_used_count": experts[0], "expert_count": experts[1]}
    pairs = text("general.architecture") + struct.pack("<I", 8) + text("llama")
    for key, value in sizes.items():
        pairs += text(f"llama.{key}") + struct.pack("<II", 4, value)
    shapes = {"token_embd.weight": (VOCABULARY, WIDTH), "output_norm.weight": (WIDTH,)}
    shapes |= {f"blk.{i}.attn_q.weight": (WIDTH, WIDTH) for i in range(LAYERS)}
    shapes |= {"blk.0.ffn_up_exps.weight": (experts[1], WIDTH, WIDTH)} if experts else {}
    shapes |= {"output.weight": (VOCABULARY, WIDTH)} if own_head else {}
    table, at = b"", 0
    for name, shape in shapes.items():
        table += text(name) + struct.pack("<I", len(shape)) + b"".join(struct.pack("<Q", n) for n in shape[::-1])
        table += struct.pack("<IQ", 8, at)
        at += -(-int(np.prod(shape)) // 32 * 34 // 32) * 32
    head = b"GGUF" + struct.pack("<IQQ", 3, len(shapes), 1 + len(sizes)) + pairs + table
    path.write_bytes(head + bytes(-len(head) % 32) + bytes(at))
    return path


@pytest.mark.parametrize("own_head", [False, True])
def test_an_embedding_beside_a_head_is_not_read(tmp_path: Path, own_head: bool) -> None:
    w = workload_of(gguf(tmp_path / "x.gguf", own_head=own_head))
    weights = LAYERS * WIDTH**2 + VOCABULARY * WIDTH
    assert w.macs == weights and w.weight_bytes == weights * 34 // 32
    assert w.ram_bytes == 2 * 2 * 2048 * LAYERS * WIDTH // 2, "two of four heads have keys and values"
    assert w.generated and not w.own and w.per == "token"


@pytest.mark.parametrize(("experts", "read"), [((2, 8), 2), ((9, 8), 8)])
def test_only_experts_that_are_used_are_read(tmp_path: Path, experts: tuple[int, int], read: int) -> None:
    """A count that cannot be is not believed."""
    plain = workload_of(gguf(tmp_path / "x.gguf", own_head=True))
    mixed = workload_of(gguf(tmp_path / "y.gguf", own_head=True, experts=experts))
    assert mixed.macs - plain.macs == read * WIDTH**2
    assert mixed.weight_bytes - plain.weight_bytes == read * WIDTH**2 * 34 // 32
    assert mixed.flash_bytes - plain.flash_bytes > 7 * WIDTH**2, "all are stored"


def test_damaged_files(tmp_path: Path) -> None:
    data = gguf(tmp_path / "x.gguf", own_head=True).read_bytes()
    path = tmp_path / "y.gguf"
    for end in range(4, len(data), max(1, len(data) // 60)):
        path.write_bytes(data[:end])
        with pytest.raises(InvalidFileError):
            workload_of(path)


@pytest.mark.parametrize("name", target_names())
def test_every_target_gives_an_interval_or_says_why_not(tmp_path: Path, name: str) -> None:
    w, target = workload_of(gguf(tmp_path / "x.gguf", own_head=True)), load_target(name)
    if board_of(target) is None:
        with pytest.raises(UnsupportedError, match="peak_bandwidth"):
            estimate(w, target)
        return
    e = estimate(w, target)
    for q in (e.seconds, e.joules):
        assert 0 < q.low < q.value < q.high
    assert sum(layer.seconds for layer in e.layers) == pytest.approx(e.seconds.value)
    assert e.tier in ("same core and runtime", "core class") and e.seconds_learned is None


def test_runtimes(tmp_path: Path) -> None:
    w = workload_of(gguf(tmp_path / "x.gguf", own_head=True))
    pi, gpu = load_target("raspberry-pi-5"), load_target("jetson-orin-nano-gpu")
    assert estimate(w, pi, "ollama").seconds.value > estimate(w, pi).seconds.value
    assert estimate(w, gpu, "MLC").runtime == "MLC"
    for target, runtime in ((pi, "MLC"), (gpu, "toaster")):
        with pytest.raises(UsageError, match="known are"):
            estimate(w, target, runtime)


def test_the_slower_of_memory_and_unpacking_counts() -> None:
    log = dict.fromkeys(PARAMETERS, 0.0)
    pi4, pi5 = (board_of(load_target(f"raspberry-pi-{n}")) for n in ("4b", "5"))
    assert pi4 is not None and pi5 is not None and pi4.unpack and not pi5.unpack, "an A76 has dot products"
    assert set(token_seconds(1e9, pi4, "llama.cpp", log)) == {"cpu unpack", "cpu fixed"}
    assert set(token_seconds(1e9, pi4, "llama.cpp", log | {"cpu unpack": -9.0})) == {"cpu memory", "cpu fixed"}


def test_an_unknown_processor_is_less_certain() -> None:
    fit = fitted()["decode"]
    boards = [board_of(load_target(name)) for name in ("jetson-orin-nano-gpu", "jetson-agx-orin-gpu")]
    known, unknown = (predict(1e9, b, "llama.cpp", fit).deviation for b in boards if b is not None)
    assert known < unknown


def test_command(tmp_path: Path, run_cli: Callable[..., Result]) -> None:
    path = gguf(tmp_path / "x.gguf", own_head=False)
    done = run_cli("profile", path, "--target", "raspberry-pi-5", "--runtime-profile", "Ollama", "--json")
    t = done.result["targets"][0]
    assert t["latency_ms_per_token"] > 0 and t["runtime"] == "Ollama" and "latency_ms_per_learned_token" not in t
    assert run_cli("profile", path, "--target", "stm32l4r5").code == UnsupportedError.exit_code
    assert run_cli("profile", path, "--measured").code == UsageError.exit_code, "nothing here runs such a file"
