"""The C array and the ready projects: complete, the same twice, and compiled and run as their users would."""

import io
import json
import os
import re
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from edgehmn.calibrate import calibrate, calibration_ids
from edgehmn.checkpoint import read_checkpoint
from edgehmn.core import CoreModel, Image, lib
from edgehmn.errors import InvalidFileError
from edgehmn.export import c_array
from edgehmn.export.project import EXAMPLE, KINDS, TOP, project_files, project_zip, write_project
from edgehmn.image import build_image
from edgehmn.quantize import quantise
from edgehmn.tokenizer import DeviceTokenizer, tokenizer_section
from tests.checkpoint_files import byte_tokenizer
from tests.models import TINY, quantised, random_checkpoint, tiny_image

NATIVE = Path(__file__).resolve().parent.parent / "native"
STORIES = NATIVE.parent.parent / "shared" / "data" / "stories260K" / "stories260K.bin"
STRICT = ["-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow", "-Wundef", "-Werror"]
CORTEX_M = ["-mcpu=cortex-m4", "-mthumb"]
AARCH64 = ("-DCMAKE_SYSTEM_NAME=Linux", "-DCMAKE_SYSTEM_PROCESSOR=aarch64", "-DCMAKE_C_COMPILER=aarch64-linux-gnu-gcc")
SEED, ROUNDS, GENERATED = 1, 8, 24  # as in example.c
PHRASE = "My cat is called Plum. "
PHRASE_IDS = np.array([3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8], np.int32)


def tool(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"not built here: {name} is missing")
    return path


def run(*command: str | Path, **environment: str) -> str:
    """The standard output of a command that must succeed."""
    done = subprocess.run(
        command, capture_output=True, text=True, stdin=subprocess.DEVNULL, env=os.environ | environment, timeout=300
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout


def built(source: Path, build: Path, *options: str, **environment: str) -> Path:
    """The folder in which CMake has built a project without a warning."""
    flags = "" if any("arm-none-eabi" in o for o in options) else f"-DCMAKE_C_FLAGS={' '.join(STRICT)}"
    run(tool("cmake"), "-S", source, "-B", build, *filter(None, [flags, *options]), **environment)
    run(tool("cmake"), "--build", build, **environment)
    return build


@pytest.fixture(scope="module")
def image() -> bytes:
    """An image of a tiny model with a tokenizer: one token per byte."""
    section = tokenizer_section(byte_tokenizer(), TINY.vocab_size)
    return build_image(replace(quantised(random_checkpoint()), tokenizer=section))


@pytest.fixture(scope="module")
def project(image: bytes, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a project of that kind, in a path with a space and an accent."""
    root = tmp_path_factory.mktemp("projects") / "mes projets, é"

    def write(kind: str) -> Path:
        folder = root / kind / TOP
        if not folder.exists():
            write_project(kind, image, folder)
        return folder

    return write


def what_the_example_prints(image: bytes) -> str:
    """Computed by the core of this Python."""
    there = Image(image)
    model, tokenizer = CoreModel(there, seed=SEED), None
    ids = PHRASE_IDS % there.vocab_size
    if there.header.tokenizer_bytes:
        start = there.header.tokenizer_offset
        tokenizer = DeviceTokenizer(image[start : start + there.header.tokenizer_bytes], there.vocab_size)
        ids = tokenizer.encode(PHRASE)
    bits = [int(model.process(ids, learn=True).sum(dtype=np.uint64)) for _ in range(ROUNDS)]
    before, after = (b * 1000 // len(ids) >> lib.EHMN_SCORE_FRAC for b in (bits[0], bits[-1]))
    assert after < before
    tokens = model.generate(GENERATED, temperature=0.0)
    text = tokenizer.decode(tokens).decode() if tokenizer else ""
    numbers = "".join(f"{token} " for token in tokens)
    return f"millibits a token before learning {before}, after {after}\n{numbers}\n{text}\n"


@pytest.fixture(scope="module")
def printed(image: bytes) -> str:
    text = what_the_example_prints(image)
    assert PHRASE.strip() in text, "it has learned the phrase"
    return text


# ---- What is in them


@pytest.mark.parametrize("kind", KINDS)
def test_a_project_holds_the_core_as_it_is(kind: str, image: bytes) -> None:
    files = project_files(kind, image)
    for path in NATIVE.glob("src/*.[ch]"):
        assert files[f"src/core/{path.name}"] == path.read_bytes()
    for path in NATIVE.glob("include/*.h"):
        assert files[f"src/{path.name}"] == path.read_bytes()
    assert {"LICENSE", "README.md", "src/edgehmn.hpp", f"{EXAMPLE[kind]}/example.c"} <= set(files)
    assert b"Apache License" in files["LICENSE"]
    assert not [name for name, data in files.items() if b"@VERSION@" in data]
    assert all(re.fullmatch(r"[A-Za-z0-9_.\-/]+", name) and ".." not in name for name in files)
    assert {name for name in files if name.endswith((".pyc", "~", ".orig"))} == set()


@pytest.mark.parametrize("kind", KINDS)
def test_a_zip_file_is_the_same_twice_and_holds_one_folder(kind: str, image: bytes, tmp_path: Path) -> None:
    data = project_zip(kind, image)
    assert data == project_zip(kind, bytes(image))
    write_project(kind, image, tmp_path / TOP)
    written = {p.relative_to(tmp_path).as_posix(): p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()} == written
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_a_damaged_image_makes_no_project(image: bytes, tmp_path: Path) -> None:
    with pytest.raises(InvalidFileError):
        write_project("cmake", image[:-1], tmp_path / "project")
    with pytest.raises(InvalidFileError):
        c_array.write_c_array(image[:100] + b"\1" + image[101:], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_header_says_what_must_be_set_aside(image: bytes) -> None:
    there = Image(image)
    found = re.findall(r"^#define EDGEHMN_MODEL_(\w+) (\d+)u", c_array.c_header(there), re.M)
    assert {name: int(value) for name, value in found} == {
        "BYTES": len(image),
        "ARENA_BYTES": there.arena_bytes(plastic=True),
        "STATIC_ARENA_BYTES": there.arena_bytes(plastic=False),
        "DELTA_BYTES": there.delta_bytes(),
    }


def properties(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines())


def test_metadata_of_arduino_and_platformio(project: Callable[[str], Path]) -> None:
    folder = project("arduino")
    said = properties((folder / "library.properties").read_text())
    needed = ["name", "version", "author", "maintainer", "sentence", "paragraph", "category", "url", "architectures"]
    assert set(needed) <= set(said)
    assert re.fullmatch(r"\d+\.\d+\.\d+", said["version"])
    assert (folder / "src" / said["includes"]).is_file()
    assert said["category"] in {"Data Processing"}, "one of those that the Arduino library specification lists"
    library = json.loads((folder / "library.json").read_text())
    assert (library["name"], library["version"]) == (said["name"], said["version"]) and library[
        "license"
    ] == "Apache-2.0"
    assert all((folder / "src" / name).is_file() for name in library["headers"])
    for example in library["examples"]:
        assert all((folder / example["base"] / name).is_file() for name in example["files"])
    sketches = list(folder.glob("examples/*/*.ino"))
    assert sketches and all(path.stem == path.parent.name for path in sketches)


def test_metadata_of_zephyr(project: Callable[[str], Path]) -> None:
    folder = project("zephyr")
    said = yaml.safe_load((folder / "zephyr" / "module.yml").read_text())
    assert said["name"] == "edgehmn"
    assert (folder / said["build"]["cmake"] / "CMakeLists.txt").is_file()
    assert "config EDGEHMN\n" in (folder / said["build"]["kconfig"]).read_text()
    for samples in said["samples"]:
        for path in (folder / samples).glob("*/sample.yaml"):
            assert {"sample", "tests"} <= set(yaml.safe_load(path.read_text()))
            assert properties((path.parent / "prj.conf").read_text())["CONFIG_EDGEHMN"] == "y"


# ---- The CMake library, as it is


def test_the_cmake_library_runs_here(project: Callable[[str], Path], printed: str, tmp_path: Path) -> None:
    assert run(built(project("cmake"), tmp_path) / "generate") == printed


def test_the_cmake_library_runs_on_aarch64(project: Callable[[str], Path], printed: str, tmp_path: Path) -> None:
    tool("aarch64-linux-gnu-gcc")
    program = built(project("cmake"), tmp_path, *AARCH64, "-DCMAKE_EXE_LINKER_FLAGS=-static") / "generate"
    assert "aarch64" in run("aarch64-linux-gnu-objdump", "-f", program)
    if emulator := shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static"):
        assert run(emulator, program) == printed
    else:
        pytest.skip("built, not run here: qemu-aarch64 is missing (apt-get install qemu-user)")


def test_the_cmake_library_and_its_example_link_for_cortex_m(project: Callable[[str], Path], tmp_path: Path) -> None:
    compiler = tool("arm-none-eabi-gcc")
    options = [
        "-DCMAKE_SYSTEM_NAME=Generic",
        f"-DCMAKE_C_COMPILER={compiler}",
        "-DCMAKE_TRY_COMPILE_TARGET_TYPE=STATIC_LIBRARY",
    ]
    options += [f"-DCMAKE_C_FLAGS={' '.join(CORTEX_M + STRICT)}", "-DCMAKE_EXE_LINKER_FLAGS=--specs=rdimon.specs"]
    folder = built(project("cmake"), tmp_path, *options)
    [program] = folder.glob("generate*")
    symbols = run("arm-none-eabi-nm", program)
    [address] = re.findall(r"^([0-9a-f]+) R edgehmn_model$", symbols, re.M)
    assert int(address, 16) % lib.EHMN_ALIGN == 0


@pytest.mark.parametrize("vocab_size", [TINY.vocab_size, 7])
def test_without_a_tokenizer_it_runs_on_token_ids(vocab_size: int, tmp_path: Path) -> None:
    image = tiny_image(replace(TINY, vocab_size=vocab_size))
    write_project("cmake", image, tmp_path / TOP)
    assert run(built(tmp_path / TOP, tmp_path / "build") / "generate") == what_the_example_prints(image)


def test_a_cpp_program_takes_it_as_a_subdirectory(project: Callable[[str], Path], image: bytes, tmp_path: Path) -> None:
    tool("g++")
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.13)\nproject(product LANGUAGES C CXX)\n"
        f'add_subdirectory("{project("cmake")}" edgehmn)\n'
        "add_executable(product product.cpp)\ntarget_link_libraries(product PRIVATE edgehmn::edgehmn)\n"
    )
    (tmp_path / "product.cpp").write_text(
        "#include <edgehmn.hpp>\n#include <core/device.h>\n#include <cstdio>\nint main() {\n  uint32_t need = 0;\n"
        "  int32_t status = ehmn_image_check(edgehmn_model, EDGEHMN_MODEL_BYTES);\n"
        '  ehmn_arena_bytes(edgehmn_model, EHMN_PLASTIC, &need);\n  std::printf("%d %u", status, need);\n}\n'
    )
    strict_cpp = f"-DCMAKE_CXX_FLAGS={' '.join([*STRICT, '-Wpedantic', '-std=c++11'])}"
    folder = built(tmp_path, tmp_path / "build", strict_cpp)
    assert run(folder / "product") == f"0 {Image(image).arena_bytes(plastic=True)}"
    assert not (folder / "edgehmn" / "generate").exists(), "an example is no part of somebody else's build"


def test_a_large_image_is_included_and_not_an_array(
    image: bytes, printed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("c_array", "project"):
        monkeypatch.setattr(f"edgehmn.export.{module}.MAX_ARRAY_BYTES", len(image) - 1)
    write_project("cmake", image, tmp_path / TOP)
    assert (tmp_path / TOP / "src" / "edgehmn_model.c").stat().st_size < 1000
    assert (tmp_path / TOP / "src" / "model.ehmn").read_bytes() == image
    assert run(built(tmp_path / TOP, tmp_path / "build") / "generate") == printed
    if shutil.which("clang"):
        assert run(built(tmp_path / TOP, tmp_path / "clang", "-DCMAKE_C_COMPILER=clang") / "generate") == printed
    compiler = tool("arm-none-eabi-gcc")
    object_file = tmp_path / "model.o"
    include = f"-I{tmp_path / TOP / 'src'}"
    run(compiler, *CORTEX_M, *STRICT, include, "-c", tmp_path / TOP / "src" / "edgehmn_model.c", "-o", object_file)
    assert f"{len(image):08x} R edgehmn_model" in run("arm-none-eabi-nm", "-S", object_file)
    sections = run("arm-none-eabi-objdump", "-h", object_file)
    assert re.search(r"\.rodata\.edgehmn_model .* 2\*\*4\n.*READONLY, DATA", sections)


BARE_METAL = """\
#include "example.h"
#include "peripherals.h"
#include "startup.h"

#include <string.h>

static void say(const char *text)
{
    uart_write(text, (uint32_t)strlen(text));
}

static void say_number(uint32_t n)
{
    char digits[11] = {0};
    uint32_t at = sizeof digits - 1u;
    do {
        digits[--at] = (char)('0' + n % 10u);
        n /= 10u;
    } while (n != 0);
    say(digits + at);
}

size_t strlen(const char *text)
{
    size_t n = 0;
    while (text[n] != '\\0') {
        n++;
    }
    return n;
}

int main(void)
{
    static example_result result;
    peripherals_start();
    const char *failure = example_run(&result);
    if (failure != NULL) {
        say(failure);
    } else {
        say("millibits a token before learning ");
        say_number(result.before);
        say(", after ");
        say_number(result.after);
        say("\\n");
        for (uint32_t i = 0; i < EXAMPLE_GENERATED; i++) {
            say_number(result.tokens[i]);
            say(" ");
        }
        say("\\n");
        say(result.text);
        say("\\n");
    }
    uart_drain();
    return 0; /* the chip starts anew, which ends the emulation */
}
"""


def said_by_an_stm32f405(image: bytes, folder: Path) -> str:
    """What the example says on the line of an emulated chip: 768 KB of flash hold program and image, 124 KB of RAM
    whatever is not the stack."""
    compiler, qemu = tool("arm-none-eabi-gcc"), tool("qemu-system-arm")
    write_project("cmake", image, folder / TOP)
    port = NATIVE / "ports"
    board = (port / "qemu" / "netduinoplus2" / "board.h").read_text()
    board = re.sub(r"(BOARD_FLASH_BYTES) \w+", r"\1 0x000C0000", board)
    (folder / "board.h").write_text(re.sub(r"(BOARD_RAM_BYTES) \w+", r"\1 0x0001F000", board))
    (folder / "main.c").write_text(BARE_METAL)
    script = run(compiler, "-E", "-P", "-x", "c", f"-I{folder}", port / "cortex-m" / "link.ld.in")
    (folder / "link.ld").write_text(script)
    example = folder / TOP / "examples" / "generate"
    sources = [
        *folder.glob(f"{TOP}/src/*.c"),
        *folder.glob(f"{TOP}/src/core/*.c"),
        example / "example.c",
        folder / "main.c",
    ]
    sources += [port / "cortex-m" / "startup.c", port / "cortex-m" / "memory.c"]
    sources += [port / "stm32f4" / "peripherals.c", port / "stm32f4" / "clock_as_reset.c"]
    include = [f"-I{path}" for path in (folder / TOP / "src", example, folder, port / "cortex-m", port)]
    flags = [
        "-std=c11",
        "-O2",
        "-ffreestanding",
        "-fno-tree-loop-distribute-patterns",
        "-fdata-sections",
        "-ffunction-sections",
    ]
    link = ["-nostdlib", f"-T{folder / 'link.ld'}", "-Wl,--gc-sections", "-Wl,--fatal-warnings", "-lgcc"]
    run(compiler, *CORTEX_M, *flags, *STRICT, *include, *sources, *link, "-o", folder / "program.elf")
    machine = ["-M", "netduinoplus2", "-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot"]
    return run(qemu, *machine, "-kernel", folder / "program.elf")


def test_a_product_runs_on_an_emulated_stm32f405(image: bytes, printed: str, tmp_path: Path) -> None:
    """Text in, text out, all of it on the chip, in the memory that it has."""
    assert said_by_an_stm32f405(image, tmp_path) == printed


def test_a_trained_model_runs_on_an_emulated_stm32f405(tmp_path: Path) -> None:
    if not STORIES.is_file():
        pytest.skip(f"not run here: {STORIES} is not there; a tiny random model runs in the test before")
    checkpoint = read_checkpoint(STORIES, n_ctx=128)
    ids = calibration_ids(checkpoint)[:512]
    section = tokenizer_section(checkpoint.tokenizer_json, checkpoint.config.vocab_size)
    image = build_image(replace(quantise(checkpoint, calibrate(checkpoint, ids)), tokenizer=section))
    said = said_by_an_stm32f405(image, tmp_path)
    assert said == what_the_example_prints(image)
    assert "Plum" in said.splitlines()[-1], "it has learned the name"


# ---- The others: their sources with the plain compiler, and their own files with a stand-in for their build system


@pytest.mark.parametrize("kind", KINDS)
def test_the_sources_compile_for_cortex_m(kind: str, project: Callable[[str], Path], tmp_path: Path) -> None:
    compiler, folder = tool("arm-none-eabi-gcc"), project(kind)
    files = [*folder.glob("src/*.c"), *folder.glob("src/core/*.c"), folder / EXAMPLE[kind] / "example.c"]
    flags = ["-std=gnu11", "-Os", *CORTEX_M, *STRICT, f"-I{folder / 'src'}"]
    subprocess.run([compiler, *flags, "-c", *files], cwd=tmp_path, check=True)
    assert len(list(tmp_path.glob("*.o"))) == len(files)
    [at_16] = re.findall(r"\.rodata.* 2\*\*(\d)", run("arm-none-eabi-objdump", "-h", tmp_path / "edgehmn_model.o"))
    assert int(at_16) >= 4


ARDUINO_H = """\
#include <stdint.h>
#include <stdio.h>
struct Printer {
  void begin(long) {}
  operator bool() const { return true; }
  void print(const char *s) { fputs(s, stdout); }
  void print(char c) { putchar(c); }
  void print(uint32_t n) { printf("%lu", (unsigned long)n); }
  void println(uint32_t n) { print(n); putchar('\\n'); }
  void println(const char *s = "") { puts(s); }
};
extern Printer Serial;
void delay(unsigned long);
"""


def test_the_sketch_runs_on_a_stand_in_for_arduino(
    project: Callable[[str], Path], printed: str, tmp_path: Path
) -> None:
    compiler, folder = tool("g++"), project("arduino")
    (tmp_path / "Arduino.h").write_text(ARDUINO_H)
    (tmp_path / "main.cpp").write_text(
        '#include "Arduino.h"\nPrinter Serial;\nvoid delay(unsigned long) {}\nvoid setup();\nvoid loop();\n'
        "int main() { setup(); loop(); }\n"
    )
    sketch = folder / "examples" / "Generate"
    (tmp_path / "sketch.cpp").write_text('#include "Generate.ino"\n')
    include = [f"-I{path}" for path in (folder / "src", tmp_path, sketch)]
    sources = [*folder.glob("src/*.c"), *folder.glob("src/core/*.c"), sketch / "example.c"]
    subprocess.run([tool("gcc"), "-O2", *STRICT, *include, "-c", *sources], cwd=tmp_path, check=True)
    objects = [str(path) for path in tmp_path.glob("*.o")]
    cpp = ["-std=gnu++11", *STRICT, *include, "sketch.cpp", "main.cpp"]
    subprocess.run([compiler, *cpp, *objects, "-o", "program"], cwd=tmp_path, check=True)
    assert run(tmp_path / "program") == printed


ZEPHYR = """\
project(Zephyr-Kernel LANGUAGES C)
file(STRINGS ${CMAKE_SOURCE_DIR}/prj.conf settings)
foreach(setting ${settings})
  string(REGEX MATCH "^([A-Z_]+)=(.*)$" matched ${setting})
  set(${CMAKE_MATCH_1} ${CMAKE_MATCH_2})
endforeach()
file(WRITE ${CMAKE_BINARY_DIR}/include/zephyr/sys/printk.h "#include <stdio.h>\\n#define printk printf\\n")
add_library(zephyr_interface INTERFACE)
target_include_directories(zephyr_interface INTERFACE ${CMAKE_BINARY_DIR}/include)
macro(zephyr_include_directories)
  target_include_directories(zephyr_interface INTERFACE ${ARGN})
endmacro()
macro(zephyr_library_named name)
  set(ZEPHYR_CURRENT_LIBRARY ${name})
  add_library(${name} STATIC)
  target_link_libraries(${name} PRIVATE zephyr_interface)
  target_link_libraries(app PRIVATE ${name})
endmacro()
macro(zephyr_library_sources)
  target_sources(${ZEPHYR_CURRENT_LIBRARY} PRIVATE ${ARGN})
endmacro()
add_executable(app)
target_link_libraries(app PRIVATE zephyr_interface)
foreach(folder ${ZEPHYR_EXTRA_MODULES})
  get_filename_component(real ${folder} REALPATH)
  add_subdirectory(${real} ${CMAKE_BINARY_DIR}/module)
endforeach()
"""


def test_the_module_runs_on_a_stand_in_for_zephyr(project: Callable[[str], Path], printed: str, tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "ZephyrConfig.cmake").write_text(ZEPHYR)
    sample = project("zephyr") / "samples" / "generate"
    assert run(built(sample, tmp_path / "build", ZEPHYR_BASE=str(tmp_path / "base")) / "app") == printed


# ---- With their own SDK, where there is one


def test_with_arduino_cli(project: Callable[[str], Path], tmp_path: Path) -> None:
    arduino = tool("arduino-cli")
    cores = run(arduino, "core", "list")
    if "arduino:mbed_rp2040" not in cores:
        pytest.skip("not built here: arduino-cli has no core arduino:mbed_rp2040")
    folder = project("arduino")
    build = ["compile", "-b", "arduino:mbed_rp2040:pico", "--library", folder, "--build-path", tmp_path]
    run(arduino, *build, folder / "examples" / "Generate")


def test_with_zephyr(project: Callable[[str], Path], tmp_path: Path) -> None:
    if "ZEPHYR_BASE" not in os.environ:
        pytest.skip("not built here: no Zephyr (ZEPHYR_BASE is not set)")
    sample = project("zephyr") / "samples" / "generate"
    run(tool("west"), "build", "-b", "mps2/an386", "-d", tmp_path, sample)
