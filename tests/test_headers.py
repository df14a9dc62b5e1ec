"""The headers that a program includes: each alone, in C and in C++, and a program in C++ that runs with the core."""

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from edgehmn.core import CoreModel, Image
from tests.models import tiny_image

NATIVE = Path(__file__).resolve().parent.parent / "native"
INCLUDES = [f"-I{NATIVE / folder}" for folder in ("include", "ports/linux", "src")]
HEADERS = [path.name for path in sorted((NATIVE / "include").glob("*.h"))] + ["threads.h", "device.h"]
STRICT = ["-Wall", "-Wextra", "-Wpedantic", "-Wundef", "-Werror"]
LANGUAGES = {  # how each is called, and what its file ends in
    "C11": (["-std=c11", "-Wstrict-prototypes"], "c"),
    "C++11": (["-std=c++11"], "cpp"),  # what the toolchains of Arduino boards speak
    "C++17": (["-std=c++17", "-Wold-style-cast"], "cpp"),
}
COMPILERS = {"c": ["gcc", "clang", "arm-none-eabi-gcc"], "cpp": ["g++", "clang++", "arm-none-eabi-g++"]}
SEED, TOKENS = 3, [1, 5, 2, 5, 1, 5]
PROGRAM = """\
#include "edgehmn.h"
#include "edgehmn_state.h"
#include "edgehmn_tokenizer.h"
#include "edgehmn_wire.h"

#include <cstddef>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <vector>

int main(int, char **argv)
{
    std::ifstream file(argv[1], std::ios::binary);
    const std::vector<char> image((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    std::uint32_t need = 0;
    int32_t status = ehmn_image_check(image.data(), static_cast<std::uint32_t>(image.size()));
    status |= ehmn_arena_bytes(image.data(), EHMN_PLASTIC, &need);
    std::vector<std::max_align_t> arena(need / sizeof(std::max_align_t) + 1);
    ehmn_model *model = nullptr;
    status |= ehmn_open(image.data(), arena.data(), need, EHMN_PLASTIC, SEED, &model);
    for (const std::uint32_t token : {TOKENS}) {
        std::uint32_t bits = 0;
        status |= ehmn_score(model, token, &bits) | ehmn_learn(model, token) | ehmn_step(model, token);
        std::printf("%u ", bits);
    }
    ehmn_wire_receiver receiver = {};
    std::printf("%d %d %s", status, ehmn_wire_take(&receiver, 0), ehmn_status_name(EHMN_E_STATE));
}
"""


def tool(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"not run here: {name} is missing")
    return path


def compiled(compiler: str, language: str, text: str, folder: Path) -> str:
    """What a compiler says against a source."""
    flags, ending = LANGUAGES[language]
    source = folder / f"source.{ending}"
    source.write_text(text)
    command = [tool(compiler), *flags, *STRICT, *INCLUDES, "-c", str(source), "-o", str(folder / "source.o")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode == 0) == (not done.stderr), done.stderr
    return done.stderr


@pytest.mark.parametrize(
    ("language", "compiler"),
    [(language, compiler) for language, (_, ending) in LANGUAGES.items() for compiler in COMPILERS[ending]],
)
def test_each_header_stands_alone_in_c_and_cpp(language: str, compiler: str, tmp_path: Path) -> None:
    assert {"edgehmn.h", "edgehmn_image.h", "edgehmn_wire.h"} <= set(HEADERS)
    for header in HEADERS:
        assert compiled(compiler, language, f'#include "{header}"\n#include "{header}"\n', tmp_path) == "", header


@pytest.mark.parametrize("compiler", ["g++", "clang++"])
def test_cpp_holds_the_layout_of_what_is_stored_too(compiler: str, tmp_path: Path) -> None:
    """Whoever includes a header where structures are packed otherwise is told, instead of reading other fields."""
    moved = '#pragma pack(push, 1)\n#include "edgehmn_image.h"\nstruct odd { char c; int i; };\n#pragma pack(pop)\n'
    assert compiled(compiler, "C++17", moved, tmp_path) == "", "every field lies at a multiple of its size"
    wrong = moved + 'EHMN_ASSERT(sizeof(struct odd) == 8, "odd");\n'
    assert re.search(r"assert.*odd", compiled(compiler, "C++17", wrong, tmp_path))


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (["arm-none-eabi-gcc", "-mbig-endian"], "little-endian"),
        (["clang", "--target=msp430", "-ffreestanding"], "int of 32 bits"),
    ],
)
def test_a_machine_that_would_read_other_numbers_is_refused(command: list[str], says: str) -> None:
    code = '#include "edgehmn.h"\n'
    options = ["-x", "c", "-std=c11", "-fsyntax-only", *INCLUDES, "-"]
    done = subprocess.run([tool(command[0]), *command[1:], *options], input=code, capture_output=True, text=True)
    assert done.returncode != 0 and says in done.stderr


@pytest.mark.parametrize(("c", "cpp"), [("gcc", "g++"), ("clang", "clang++")])
def test_a_program_in_cpp_runs_with_the_core(c: str, cpp: str, tmp_path: Path) -> None:
    image = tiny_image()
    (tmp_path / "model.ehmn").write_bytes(image)
    text = PROGRAM.replace("SEED", str(SEED)).replace("TOKENS", ", ".join(f"{token}u" for token in TOKENS))
    assert compiled(cpp, "C++17", text, tmp_path) == ""
    for command in (["-S", str(NATIVE), "-B", str(tmp_path), f"-DCMAKE_C_COMPILER={tool(c)}"], ["--build", tmp_path]):
        done = subprocess.run([tool("cmake"), *map(str, command)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    program = tmp_path / "program"
    subprocess.run([cpp, tmp_path / "source.o", tmp_path / "libedgehmn_core.a", "-o", program], check=True)
    said = subprocess.run([program, tmp_path / "model.ehmn"], capture_output=True, text=True, check=True).stdout
    bits = CoreModel(Image(image), seed=SEED).process(np.array(TOKENS, np.int32), learn=True)
    assert said == "".join(f"{n} " for n in bits) + "0 0 E_STATE"
