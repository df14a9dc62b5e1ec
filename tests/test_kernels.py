"""Every table of kernels gives the bits of the reference: on random and extreme inputs of all sizes, without a byte
written that it was not given, over a stream that learns, and on the processors that an emulator has."""

import platform
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from shutil import which
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from bench.native import flags_of_files
from edgehmn.core import CoreModel, Image, ffi, lib
from edgehmn.quantize import Precision
from tests.models import random_tokens, tiny_image

GUARD = 64  # bytes on either side of everything that a kernel gets
KINDS = {"int8": "int8_t *", "uint8": "uint8_t *", "int16": "int16_t *", "int32": "int32_t *", "uint32": "uint32_t *"}


def tables() -> Iterator[Any]:
    index = 0
    while (table := lib.ehmn_kernel_table(index)) != ffi.NULL:
        yield table
        index += 1


REFERENCE, *OTHERS = tables()
others = pytest.mark.parametrize("table", OTHERS, ids=lambda table: ffi.string(table.name).decode())


class Guarded:
    """An array between guard bytes, at any alignment that its type allows."""

    def __init__(self, values: npt.NDArray[Any]) -> None:
        size, item = values.nbytes, values.dtype.itemsize
        self._bytes = np.full(size + 2 * GUARD + item, 0xA5, np.uint8)
        self._start = GUARD + item * (size % 2)
        self.values = self._bytes[self._start : self._start + size].view(values.dtype)
        self.values[:] = values
        self.pointer = ffi.cast(KINDS[values.dtype.name], ffi.from_buffer(self._bytes[self._start :]))

    def is_whole(self) -> bool:
        end = self._start + self.values.nbytes
        return bool((self._bytes[: self._start] == 0xA5).all() and (self._bytes[end:] == 0xA5).all())


def sizes() -> Iterator[tuple[int, int, int]]:
    """Rows, columns, bytes between rows: every number of columns up to 300, with all remainders of rows."""
    for cols in range(1, 301):
        yield 1 + cols % 9, cols, (cols * 7) % 5
    yield from ((300, 3, 0), (131, 128, 0), (131, 32, 96), (64, 344, 0), (2, 1030, 2), (7, 512, 0))


def extremes(rng: np.random.Generator, n: int, limit: int, dtype: Any) -> Iterator[npt.NDArray[Any]]:
    yield rng.integers(-limit, limit + 1, n, dtype=dtype)
    yield np.full(n, limit, dtype)
    yield np.full(n, -limit, dtype)


def same(call: Callable[[Any, Any], None], table: Any, out: npt.NDArray[Any], given: list[Guarded]) -> None:
    expected, got = Guarded(out), Guarded(out)
    call(REFERENCE, expected.pointer)
    call(table, got.pointer)
    assert np.array_equal(got.values, expected.values)
    assert all(array.is_whole() for array in (got, *given))


@others
@pytest.mark.parametrize("bits", [8, 16])
def test_products_of_a_matrix_and_a_vector(table: Any, bits: int) -> None:
    rng = np.random.default_rng(bits)
    dtype = np.dtype(f"int{bits}")
    for rows, cols, extra in sizes():
        stride = cols + extra
        for weights in extremes(rng, rows * stride, 127, np.int8):
            w, x = Guarded(weights[: (rows - 1) * stride + cols]), next(extremes(rng, cols, 2 ** (bits - 1) - 1, dtype))
            v = Guarded(x if weights[0] == weights[-1] else np.full(cols, -(2 ** (bits - 1)) + 1, dtype))

            def call(
                t: Any, acc: Any, w: Guarded = w, v: Guarded = v, s: tuple[int, ...] = (rows, cols, stride)
            ) -> None:
                getattr(t, f"matvec_s{bits}")(w.pointer, *s, v.pointer, acc)

            same(call, table, np.full(rows, 77, np.int32), [w, v])


@others
def test_products_of_weights_of_four_bits(table: Any) -> None:
    rng = np.random.default_rng(4)
    for rows, cols, extra in sizes():
        stride = (cols + 1) // 2 + extra
        nibbles = rng.integers(-7, 8, (2, rows * stride)) & 15
        w = Guarded((nibbles[0] | nibbles[1] << 4).astype(np.uint8)[: (rows - 1) * stride + (cols + 1) // 2])
        for x in extremes(rng, cols, 32767, np.int16):
            v = Guarded(x)

            def call(
                t: Any, acc: Any, w: Guarded = w, v: Guarded = v, s: tuple[int, ...] = (rows, cols, stride)
            ) -> None:
                t.matvec_s4(w.pointer, *s, v.pointer, acc)

            same(call, table, np.full(rows, 77, np.int32), [w, v])


@others
@pytest.mark.parametrize("kind", ["s16", "s8", "s4"])
def test_products_of_a_matrix_and_several_vectors(table: Any, kind: str) -> None:
    many, bits = getattr(table, f"matmat_{kind}"), 4 if kind == "s4" else 8
    values_of, most = (np.int8, 127) if kind == "s8" else (np.int16, 32767)
    if many == ffi.NULL:
        pytest.skip("this table multiplies one vector after the other")
    rng = np.random.default_rng(11)
    for rows, cols, extra in sizes():
        n, stride = 1 + cols % 10, (cols if bits == 8 else (cols + 1) // 2) + extra
        x_stride, acc_stride = cols + cols % 3, rows + cols % 2
        nibbles = rng.integers(-7, 8, (2, rows * stride)) & 15
        packed = (nibbles[0] | nibbles[1] << 4).astype(np.uint8)
        for weights in [packed] if bits == 4 else extremes(rng, rows * stride, 127, np.int8):
            w = Guarded(weights[: (rows - 1) * stride + (cols if bits == 8 else (cols + 1) // 2)])
            for values in extremes(rng, (n - 1) * x_stride + cols, most, values_of):
                x = Guarded(values)

                def call(
                    t: Any,
                    acc: Any,
                    w: Guarded = w,
                    x: Guarded = x,
                    s: tuple[int, ...] = (rows, cols, stride),
                    v: tuple[int, ...] = (n, x_stride, acc_stride),
                ) -> None:
                    if t != REFERENCE:
                        many(ffi.cast("void *", w.pointer), *s, x.pointer, v[0], v[1], acc, v[2])
                        return
                    for k in range(v[0]):
                        getattr(t, f"matvec_{kind}")(w.pointer, *s, x.pointer + k * v[1], acc + k * v[2])

                same(call, table, np.full((n - 1) * acc_stride + rows, 77, np.int32), [w, x])


@others
def test_weighted_sums(table: Any) -> None:
    rng = np.random.default_rng(5)
    for rows, cols, extra in [*sizes(), *((r, 32, 96) for r in range(1, 140)), (512, 33, 1)]:
        stride = cols + extra
        for values in extremes(rng, rows * stride, 127, np.int8):
            w = Guarded(values[: (rows - 1) * stride + cols])
            weight = rng.integers(0, 2**15 + 1, rows, dtype=np.int32)
            f = Guarded(weight if values[0] != 127 else np.full(rows, 2**15, np.int32))

            def call(
                t: Any, acc: Any, w: Guarded = w, f: Guarded = f, s: tuple[int, ...] = (rows, cols, stride)
            ) -> None:
                t.weighted_sum(w.pointer, *s, f.pointer, acc)

            same(call, table, np.full(cols, 77, np.int32), [w, f])


@others
def test_weighted_sums_of_several_vectors(table: Any) -> None:
    if table.weighted_sums == ffi.NULL:
        pytest.skip("this table sums one vector after the other")
    rng = np.random.default_rng(12)
    for rows, cols, extra in [*sizes(), *((r, 32, 96) for r in range(1, 140)), (512, 33, 1), (512, 128, 0)]:
        n, stride = 1 + cols % 18, cols + extra
        weight_stride, acc_stride, add = rows + cols % 3, cols + cols % 2, cols % 4 == 1
        for values in extremes(rng, rows * stride, 127, np.int8):
            w = Guarded(values[: (rows - 1) * stride + cols])
            weight = rng.integers(0, 2**15 + 1, (n - 1) * weight_stride + rows, dtype=np.int32)
            f = Guarded(weight if values[0] != 127 else np.full_like(weight, 2**15))

            def call(
                t: Any,
                acc: Any,
                w: Guarded = w,
                f: Guarded = f,
                s: tuple[int, ...] = (rows, cols, stride),
                v: tuple[int, ...] = (n, weight_stride, acc_stride, add),
            ) -> None:
                if t != REFERENCE:
                    table.weighted_sums(w.pointer, *s, f.pointer, v[0], v[1], v[3], acc, v[2])
                    return
                one: Any = ffi.new("int32_t[]", s[1])
                for k in range(v[0]):
                    t.weighted_sum(w.pointer, *s, f.pointer + k * v[1], one)
                    for c in range(s[1]):
                        acc[k * v[2] + c] = one[c] + (acc[k * v[2] + c] if v[3] else 0)

            same(call, table, np.full((n - 1) * acc_stride + cols, 77, np.int32), [w, f])


@others
def test_scaling_rounds_and_saturates_by_the_one_rule(table: Any) -> None:
    rng, most = np.random.default_rng(6), 2**31 - 1
    for shift in [*range(-40, 66), 33, 34, 62]:
        for n in (1, 2, 3, 8, 19, 64):
            for a in extremes(rng, n, most, np.int32):
                v, f = Guarded(a), Guarded(rng.integers(-most, most + 1, n, dtype=np.int32))

                def call(t: Any, out: Any, v: Guarded = v, f: Guarded = f, s: tuple[int, int] = (n, shift)) -> None:
                    t.scale(v.pointer, f.pointer, *s, out)

                same(call, table, np.full(n, 77, np.int32), [v, f])
                same(lambda t, out, f=f, n=n, s=shift: t.scale(out, f.pointer, n, s, out), table, a, [f])


@others
def test_scaling_multiplies_by_a_step_first(table: Any) -> None:
    if table.scale_steps == ffi.NULL:
        pytest.skip("this table multiplies by a step in a pass of its own")
    rng = np.random.default_rng(12)
    for shift in [*range(-4, 66), 33, 34, 62]:
        for n, step in ((1, 1), (3, 2), (8, 259), (19, 258), (64, 77)):
            for a in extremes(rng, n, (2**31 - 1) // step, np.int32):
                f = Guarded(rng.integers(-(2**31) + 1, 2**31, n, dtype=np.int32))

                def call(t: Any, out: Any, f: Guarded = f, s: tuple[int, int, int] = (n, step, shift)) -> None:
                    if t != REFERENCE:
                        t.scale_steps(out, f.pointer, *s)
                        return
                    lib.ehmn_multiply_all(out, s[0], s[1])
                    t.scale(out, f.pointer, s[0], s[2], out)

                same(call, table, a, [f])


@others
def test_steps_of_a_row(table: Any) -> None:
    rng = np.random.default_rng(7)
    for n in [*range(1, 301), 512, 1024]:
        magnitude = rng.integers(0, 128, n) if n % 3 else np.full(n, 127)
        edge = Guarded(np.cumsum(magnitude).astype(np.uint32))
        sign = Guarded(rng.integers(-1, 1, n, dtype=np.int8))
        for rate in (0, 1, 2**20, int(rng.integers(0, 2**20))):
            at, flip = int(rng.integers(0, 2**24)), -(n % 2)
            weights = rng.integers(-127, 128, n, dtype=np.int8)

            def call(
                t: Any, w: Any, s: tuple[int, ...] = (flip, n, rate, at), e: Guarded = edge, g: Guarded = sign
            ) -> None:
                t.step_row(w, e.pointer, g.pointer, *s)

            same(call, table, weights, [edge, sign])


@others
def test_sums_of_exponentials(table: Any) -> None:
    rng = np.random.default_rng(8)
    for n in range(1, 129):
        for logits in (rng.integers(-9000, 9000, n, dtype=np.int16), np.full(n, -32767, np.int16)):
            given, results = Guarded(logits), []
            for t in (REFERENCE, table):
                results.append(t.exp_sum(given.pointer, n, 9000))
            assert results[0] == results[1] and given.is_whole()


@others
def test_weights_of_attention(table: Any) -> None:
    rng = np.random.default_rng(9)
    for n in range(1, 301):
        for limit in (300, 7000, 2**31 - 1):
            scores, sums = rng.integers(-limit, limit + 1, n, dtype=np.int32), []
            most = int(scores.max())
            same(lambda t, out, n=n, m=most, s=sums: s.append(t.soften(out, n, m)), table, scores, [])
            assert sums[-1] == sums[-2]


@others
@pytest.mark.parametrize("frac", [8, 13, 16])
def test_gates(table: Any, frac: int) -> None:
    rng = np.random.default_rng(10)
    for n in range(1, 301):
        for limit in (2**14, 2**20, 2**31 - 1):
            gate, up = Guarded(rng.integers(-limit, limit + 1, n, dtype=np.int32)), rng.integers(-limit, limit + 1, n)
            same(lambda t, out, g=gate, n=n: t.gate(g.pointer, out, n, frac), table, up.astype(np.int32), [gate])


@others
def test_logits_are_fitted_with_their_biases(table: Any) -> None:
    rng = np.random.default_rng(11)
    for n in range(1, 301):
        for limit in (200, 60_000, 2**31 - 1):
            v = Guarded(rng.integers(-limit, limit + 1, n, dtype=np.int32))
            b = Guarded(rng.integers(-32767, 32768, n, dtype=np.int16))
            for bias, gain in ((ffi.NULL, 0), (b.pointer, 2**20), (b.pointer, int(rng.integers(0, 2**20)))):
                largest: list[int] = []

                def call(
                    t: Any, out: Any, s: tuple[Any, ...] = (v.pointer, bias, gain, n, -100), m: list[int] = largest
                ) -> None:
                    m.append(t.fit(*s, out))

                same(call, table, np.full(n, 77, np.int16), [v, b])
                assert largest[0] == largest[1]


def keys_around(rng: np.random.Generator, key: npt.NDArray[np.uint32], n: int, flips: int) -> npt.NDArray[np.uint32]:
    """n keys, each with up to so many bits of `key` turned: many are as far, and many are equal."""
    bits = 32 * len(key)
    turned = np.zeros((n, bits), np.uint8)
    for row in turned:
        row[rng.integers(0, min(bits, 32), rng.integers(0, flips + 1))] = 1
    return np.packbits(turned, bitorder="little").view(np.uint32) ^ np.tile(key, n)


@others
def test_nearest_keys(table: Any) -> None:
    rng = np.random.default_rng(12)
    widths = [(words, n) for words in (1, 2, 3, 5, 8, 12, 16, 18, 33) for n in (0, 1, 5, 16, 17, 40)]
    for words, n in [*((4, n) for n in range(71)), (4, 300), *widths]:
        key = Guarded(rng.integers(0, 2**32, words, dtype=np.uint32))
        some = rng.integers(0, 2**32, n * words, dtype=np.uint32)
        near, falling = keys_around(rng, key.values, n, 3), np.tile(key.values, n)
        for i in range(n):  # each nearer than those before
            falling[i * words] ^= np.uint32((1 << max(0, 32 - i)) - 1)
        for values in (some, near, falling, np.tile(key.values, n), np.tile(~key.values, n)):
            keys = Guarded(values)

            def call(t: Any, out: Any, s: tuple[Any, ...] = (keys.pointer, n, key.pointer, words)) -> None:
                t.nearest(*s, out)

            same(call, table, np.full(16, 2**32 - 1, np.uint32), [keys, key])


def test_nearest_keys_of_the_reference() -> None:
    rng = np.random.default_rng(13)
    for n in (0, 3, 16, 200):
        key = rng.integers(0, 2**32, 4, dtype=np.uint32)
        keys = keys_around(rng, key, n, 9)
        found = Guarded(np.full(16, 2**32 - 1, np.uint32))
        REFERENCE.nearest(Guarded(keys).pointer, n, Guarded(key).pointer, 4, found.pointer)
        differ = np.unpackbits((keys.reshape(n, 4) ^ key).view(np.uint8).reshape(n, 16), axis=1).sum(axis=1)
        order = sorted((int(d), i) for i, d in enumerate(differ))[:16]
        assert [(int(f) >> 16, int(f) & 0xFFFF) for f in found.values[: len(order)]] == order
        assert (found.values[len(order) :] == 2**32 - 1).all()


@others
@pytest.mark.parametrize(
    "bits", [Precision(), Precision(inputs=8), Precision(weights=4)], ids=["16", "8", "weights of 4"]
)
def test_a_stream_that_learns(table: Any, bits: Precision) -> None:
    image = Image(tiny_image(bits=bits))
    ids = random_tokens(400)
    by_reference, by_table = CoreModel(image), CoreModel(image)
    lib.ehmn_use_kernels(by_reference._model, REFERENCE)
    lib.ehmn_use_kernels(by_table._model, table)
    assert np.array_equal(by_table.process(ids, learn=True), by_reference.process(ids, learn=True))
    assert by_table.save() == by_reference.save()


NATIVE = Path(__file__).parent.parent / "native"
SANITIZED = ["-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
SANITIZED_AARCH64 = ["env", "ASAN_OPTIONS=detect_leaks=0", "qemu-aarch64", "-L", "/usr/aarch64-linux-gnu"]
ON_AARCH64 = ("aarch64-linux-gnu-gcc", ["-O3", "-static"])
ARM32 = ["-O2", "-static", "-fno-pie", "-no-pie", "-mthumb", "-march=armv7-a+simd", "-mfloat-abi=hard"]
M55 = ["-O2", "-mcpu=cortex-m55", "-mthumb", "-mfloat-abi=hard", "--specs=rdimon.specs"]
M55 += ["-Wl,--section-start=.vectors=0", "-Wl,-Ttext-segment=0x8000"]
NEON = ("vectors_neon", "vectors_neon_plastic", "vectors_neon_reduce", "vectors_neon_steps")
VECTORS = ("fixed", "plastic_loops", "random", "tables", *NEON)
VECTORS += ("vectors", "vectors_mve", "vectors_plastic", "vectors_reduce")
ON_M55 = ["qemu-system-arm", "-M", "mps3-an547", "-net", "none", "-display", "none", "-semihosting", "-kernel"]
MACHINES = {  # compiler, its flags, what runs the program, tables that must be there
    "x86-64, sanitizers": ("gcc", SANITIZED, [], {"rows"}),
    "aarch64, sanitizers": ("aarch64-linux-gnu-gcc", SANITIZED, SANITIZED_AARCH64, {"neon", "dot", "mmla"}),
    "A53": (*ON_AARCH64, ["qemu-aarch64", "-cpu", "cortex-a53"], {"neon"}),
    "A76": (*ON_AARCH64, ["qemu-aarch64", "-cpu", "cortex-a76"], {"neon", "dot"}),
    "A710": (*ON_AARCH64, ["qemu-aarch64", "-cpu", "max"], {"neon", "dot", "mmla"}),
    "Arm with DSP": ("arm-linux-gnueabihf-gcc", ARM32, ["qemu-arm"], {"dsp"}),
    "Arm without DSP": ("arm-linux-gnueabihf-gcc", [*ARM32, "-U__ARM_FEATURE_DSP"], ["qemu-arm"], {"thumb"}),
    "Arm with MVE": ("arm-none-eabi-gcc", M55, ON_M55, {"mve"}),
    "riscv64": ("riscv64-linux-gnu-gcc", ["-O2", "-static"], ["qemu-riscv64"], {"rows"}),
}


@pytest.mark.parametrize("machine", MACHINES)
def test_tables_of_other_machines(machine: str, tmp_path: Path) -> None:
    compiler, flags, emulator, expected = MACHINES[machine]
    tools = ("cmake", compiler, *(e for e in emulator if e.startswith("qemu")))
    absent = [tool for tool in tools if which(tool) is None]
    if absent or (not emulator and platform.machine() != "x86_64"):
        pytest.skip(f"not run here: {', '.join(absent) or 'another processor'}")
    sources = [*sorted((NATIVE / "src").glob("kernels*.c")), *(NATIVE / "src" / f"{n}.c" for n in VECTORS)]
    sources += [Path(__file__).parent / f"compare_{n}.c" for n in ("kernels", "vectors", "plastic")]
    objects = []
    for source in sources:
        objects.append(str(tmp_path / f"{source.stem}.o"))
        own = [*flags, "-std=c11", f"-I{NATIVE / 'src'}", f"-I{NATIVE / 'include'}"]
        if source.stem.startswith("kernels"):  # vectors are the plain ones
            own += flags_of_files(compiler).get(source.stem, ())
        subprocess.run([compiler, *own, "-c", str(source), "-o", objects[-1]], check=True)
    program = tmp_path / "compare"
    subprocess.run([compiler, *flags, *objects, "-o", str(program)], check=True)
    done = subprocess.run([*emulator, str(program)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    tables = set(done.stdout.split())
    assert tables >= expected if machine.startswith("x86") else tables == expected


def test_the_best_table_is_the_last() -> None:
    assert lib.ehmn_best_kernels() == [REFERENCE, *OTHERS][-1]
