"""The runtimes beside which bench/speed.py puts the core: each runs tokens of a text and says how long one took."""

import contextlib
import json
import re
import struct
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgehmn.checkpoint import Checkpoint
from edgehmn.errors import DependencyError, UsageError
from edgehmn.export import onnx as export_onnx
from edgehmn.runtime.onnx import OnnxEncoder, OnnxInterface
from edgehmn.runtime.onnx_file import FORMAT

Ids = npt.NDArray[np.int32]
Subject = Callable[[Ids], float]  # microseconds per token
RUNQ = "git clone https://github.com/karpathy/llama2.c && cd llama2.c && make runfast && ls runq"


def timed(run: Callable[[Ids], Any]) -> Subject:
    def subject(ids: Ids) -> float:
        start = time.perf_counter()
        run(ids)
        return (time.perf_counter() - start) / len(ids) * 1e6

    return subject


class _FloatGraph(export_onnx._EncoderGraph):
    """The same encoder with float32 weights and products."""

    def _linear(self, x: str, product: str, factors: Mapping[str, float] | None = None) -> str:
        g = self.graph
        name = g.scope + product
        parts = [np.float32((factors or {}).get(p, 1.0)) * self.tensors[p] for p in self.products[name]]
        matrix = np.concatenate(parts).T.astype(np.float32)

        def fill(out: npt.NDArray[np.generic]) -> None:
            out[:] = matrix

        return g.node("MatMul", x, g.weight(product, matrix.shape, np.float32, fill))


def float_encoder(checkpoint: Checkpoint, hidden_frac: int, path: Path) -> OnnxEncoder:
    """The encoder of a model without biases in float32, for onnxruntime."""
    from edgehmn.export.onnx_builder import GraphBuilder

    interface = OnnxInterface.of(checkpoint.config, hidden_frac)
    graph = GraphBuilder()
    _FloatGraph(graph, checkpoint, dict.fromkeys(export_onnx.products(checkpoint.config), "int8")).build(hidden_frac)
    metadata = {"format": FORMAT, "interface": json.dumps(interface.as_dict(), sort_keys=True)}
    path.write_bytes(graph.serialise(interface.inputs(), interface.outputs(), metadata))
    return OnnxEncoder(path)


def runq(command: Path, checkpoint: Checkpoint, work: Path) -> Subject:
    """llama2.c's runq with the checkpoint's weights in its int8 format. It generates to the end of its window, so its
    mean context is half a window, and its final norm is an RMSNorm; the time is what it says itself."""
    if not command.is_file():
        raise UsageError(f"{command}: no such program; llama2.c's runq is made by: {RUNQ}")
    model, tokenizer = work / "runq.bin", work / "runq-tokenizer.bin"
    write_llama2c(checkpoint, model)
    words = (b"token%d" % i for i in range(checkpoint.config.vocab_size))
    tokenizer.write_bytes(
        struct.pack("<i", 16) + b"".join(struct.pack("<fi", -float(i), len(w)) + w for i, w in enumerate(words))
    )
    steps = str(checkpoint.config.n_ctx)
    seeds = iter(range(1, 10**6))

    def subject(ids: Ids) -> float:
        for _ in range(20):  # a generation ends early where it meets token 1
            words = [str(command), str(model), "-z", str(tokenizer), "-n", steps, "-t", "1", "-s", str(next(seeds))]
            done = subprocess.run(words, capture_output=True, text=True, errors="replace", check=True, timeout=300)
            rate = re.search(r"tok/s: ([\d.]+)", done.stderr)
            if rate and done.stdout.count("token") > checkpoint.config.n_ctx // 2:
                return 1e6 / float(rate[1])
        raise UsageError(f"{command}: gives no rate")

    return subject


def write_llama2c(checkpoint: Checkpoint, path: Path) -> None:
    """Version 2 of llama2.c's format: int8 in groups that share a scale."""
    c, tensors = checkpoint.config, checkpoint.tensors
    group = next(g for g in (64, 32, 16, 8, 4, 2, 1) if c.d_model % g == 0 and c.d_hidden % g == 0)
    sizes = (c.d_model, c.d_hidden, c.n_layers, c.n_heads, c.n_kv_heads, c.vocab_size, c.n_ctx)
    head = struct.pack("<Ii7iBi", 0x616B3432, 2, *sizes, c.tied_head, group)
    with path.open("wb") as f:
        f.write(head.ljust(256, b"\0"))
        for norm in ("attn_norm", "mlp_norm"):
            for i in range(c.n_layers):
                f.write(tensors[f"layers.{i}.{norm}.weight"].astype("<f4").tobytes())
        f.write(tensors["final_norm.weight"].astype("<f4").tobytes())
        names = [
            "embed",
            *(f"layers.{i}.{m}" for m in ("q", "k", "v", "o", "gate", "down", "up") for i in range(c.n_layers)),
        ]
        for name in [*names, *([] if c.tied_head else ["head"])]:
            groups = tensors[name].reshape(-1, group)
            scale = np.maximum(np.abs(groups).max(1, keepdims=True), 1e-12) / 127
            f.write(np.rint(groups / scale).astype(np.int8).tobytes() + scale.astype("<f4").tobytes())


def llama_cpp(gguf: Path, threads: int, n_ctx: int) -> Subject:
    """llama.cpp's decoding, through llama-cpp-python. Raises DependencyError where that is not installed."""
    try:
        from llama_cpp import Llama  # type: ignore[import-not-found,unused-ignore]
    except ImportError as e:
        raise DependencyError(f"llama-cpp-python is not there ({e}); pip install llama-cpp-python") from e
    with contextlib.redirect_stderr(None):
        model = Llama(str(gguf), n_ctx=n_ctx, n_threads=threads, n_threads_batch=threads, verbose=False)

    def run(ids: Ids) -> None:
        model.reset()
        for token in ids[: n_ctx - 1].tolist():
            model.eval([token])

    return timed(run)
