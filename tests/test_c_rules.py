"""The rules of the C core: freestanding, no heap, no floating point, no state, and without a warning anywhere."""

import re
import subprocess
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from shutil import which

import pytest

NATIVE = Path(__file__).parent.parent / "native"
SOURCES = sorted((NATIVE / "src").glob("*.c"))
HEADERS = sorted([*(NATIVE / "src").glob("*.h"), *(NATIVE / "include").glob("*.h")])
INCLUDES = [f"-I{NATIVE / 'include'}", f"-I{NATIVE / 'src'}"]
WARNINGS = ["-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow", "-Wundef", "-Wcast-qual"]
WARNINGS += ["-Wnull-dereference", "-Wwrite-strings", "-Wstrict-prototypes", "-Wmissing-prototypes", "-Wvla", "-Werror"]
OF_GCC = ["-Wcast-align=strict", "-Wlogical-op", "-Wduplicated-cond", "-Wduplicated-branches", "-Wbad-function-cast"]
OF_CLANG = ["-Wcast-align", "-Wcomma", "-Wconditional-uninitialized", "-Wshift-sign-overflow", "-Wunreachable-code"]
OF_CLANG += ["-Wno-overlength-strings"]  # of assembler
FREESTANDING = ["-std=c11", "-O2", "-ffreestanding", "-fno-pie", *WARNINGS]
NEWLIB = Path("/usr/include/newlib")  # what clang does not find by itself
ARM_CLANG = ["--target=arm-none-eabi", "-mthumb", "-mfloat-abi=soft", f"-isystem{NEWLIB}"]
COMPILERS = {
    "x86-64, gcc": ["gcc", "-mgeneral-regs-only"],  # there is no register in which a float could be
    "x86-64, clang": ["clang", "-mgeneral-regs-only"],
    "aarch64": ["aarch64-linux-gnu-gcc", "-mgeneral-regs-only"],
    "cortex-m4": ["arm-none-eabi-gcc", "-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=soft"],
    "cortex-m3, clang": ["clang", *ARM_CLANG, "-mcpu=cortex-m3"],
    "cortex-m4, clang": ["clang", *ARM_CLANG, "-mcpu=cortex-m4"],
    "cortex-m55": ["arm-none-eabi-gcc", "-mcpu=cortex-m55", "-mthumb", "-mfloat-abi=soft"],
    "cortex-m55, vectors": ["arm-none-eabi-gcc", "-mcpu=cortex-m55+nofp", "-mthumb", "-mfloat-abi=hard"],
}
ALLOWED_HEADERS = {"stddef.h", "stdint.h", "string.h", "arm_mve.h", "arm_neon.h", "immintrin.h"}
FORBIDDEN = {
    "the heap": r"\b(?:malloc|calloc|realloc|free|alloca)\b",
    "floating point": r"\b(?:float|double)\b|\b\d+\.\d*|\b\d+[eE][-+]?\d",
    "stdio": r"\b(?:v?[fs]?n?printf|f?puts|putchar|fopen|fread|fwrite|FILE)\b",
    "libm": r"\b(?:exp2?|log2?|pow|sqrt|sin|cos|tanh|floor|ceil|l?round|l?rint|fabs)f?\s*\(",
    "an end of the process": r"\b(?:assert|abort|exit|setjmp|longjmp)\b",
}
LINE_LENGTH = 120
# Whose lines stay as they are: a fuzzing campaign counts executions of their very bytes.
COUNTED = {"tokenizer.c", "tokenizer_merge.c", "tokenizer_split.c", "mutate_image.c"}
MEMORY = {"memcpy", "memset", "memmove", "memcmp"}
LIBGCC_INTEGERS = {f"__aeabi_{name}" for name in ("ldivmod", "uldivmod", "idiv", "uidiv", "idivmod", "uidivmod")}
LIBGCC_INTEGERS |= {f"__aeabi_{name}" for name in ("lmul", "llsl", "llsr", "lasr")}
LIBGCC_INTEGERS |= {f"__aeabi_mem{name}{align}" for name in ("cpy", "move", "set", "clr") for align in ("", 4, 8)}


def test_there_is_something_to_look_at() -> None:
    assert {"encoder.c", "plasticity.c", "image.c"} <= {p.name for p in SOURCES} and len(HEADERS) >= 5


def code(path: Path) -> str:
    """A source without its comments and strings, its lines kept."""
    text = path.read_text("utf-8")

    def blank(match: re.Match[str]) -> str:
        return re.sub(r"[^\n]", " ", match[0]) if match[0].startswith(("/*", "//")) else '""'

    return re.sub(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"', blank, text, flags=re.S)


def found(pattern: str, path: Path) -> Iterator[str]:
    for number, line in enumerate(code(path).splitlines(), 1):
        if re.search(pattern, line):
            yield f"{path.name}:{number}: {line.strip()}"


@pytest.mark.parametrize("path", [*SOURCES, *HEADERS], ids=lambda path: path.name)
def test_nothing_forbidden_is_used(path: Path) -> None:
    assert {what: list(found(pattern, path)) for what, pattern in FORBIDDEN.items()} == {what: [] for what in FORBIDDEN}


@pytest.mark.parametrize("path", [*SOURCES, *HEADERS], ids=lambda path: path.name)
def test_only_freestanding_headers_are_included(path: Path) -> None:
    included = set(re.findall(r"#\s*include\s*<([^>]+)>", path.read_text("utf-8")))
    assert included <= ALLOWED_HEADERS


@pytest.mark.parametrize("path", [*SOURCES, *HEADERS], ids=lambda path: path.name)
def test_no_mutable_variable_outlives_a_call(path: Path) -> None:
    """Every `static` that is no function is const, and so is every variable at file scope."""
    mutable = [
        line for line in found(r"\bstatic\b", path) if not re.search(r"\bconst\b|\(|\binline\b|_Static_assert", line)
    ]
    assert not mutable


@pytest.mark.parametrize("folder", ["native", "tests", "fuzz"])
def test_lines_are_as_short_as_those_of_python(folder: str) -> None:
    paths = [path for path in sorted((NATIVE.parent / folder).rglob("*.[ch]")) if path.name not in COUNTED]
    long = [
        f"{path.relative_to(NATIVE.parent)}:{number}: {len(line)} characters"
        for path in paths
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if len(line) > LINE_LENGTH
    ]
    assert paths and not long, "\n".join(long)


def test_the_rules_see_code_and_not_comments(tmp_path: Path) -> None:
    source = tmp_path / "source.c"
    source.write_text('/* malloc(1) * 2.0 */ // float\nconst char *s = "double \\" free";\nint round = 1u + 0xE1;\n')
    test_nothing_forbidden_is_used(source)
    for broken in ("float x;", "x = malloc(3);", "x = 1.5;", "y = 1e-3;", "z = 2.f;", "printf(s);", "x = round(y);"):
        source.write_text(broken)
        with pytest.raises(AssertionError):
            test_nothing_forbidden_is_used(source)
    source.write_text("static int counter;\n")
    with pytest.raises(AssertionError):
        test_no_mutable_variable_outlives_a_call(source)


# ---- What compilers say


def tool(name: str) -> str:
    path = which(name)
    if path is None:
        pytest.skip(f"not run here: {name} is missing")
    return path


def compile_all(target: str, folder: Path) -> list[Path]:
    """Objects of all sources for a target, without a warning."""
    command, *flags = COMPILERS[target]
    if flags[: len(ARM_CLANG)] == ARM_CLANG and not NEWLIB.is_dir():
        pytest.skip(f"not run here: {NEWLIB} is missing")
    warnings = OF_CLANG if command == "clang" else OF_GCC
    done = subprocess.run(
        [tool(command), *flags, *FREESTANDING, *warnings, *INCLUDES, "-c", *map(str, SOURCES)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0 and not done.stderr, done.stderr
    return [folder / f"{source.stem}.o" for source in SOURCES]


def symbols(target: str, objects: list[Path]) -> dict[str, set[str]]:
    """Names by the letter that nm gives their kind."""
    command = COMPILERS[target][0]
    prefix = "arm-none-eabi-" if "cortex" in target else command.removesuffix("gcc") if command != "clang" else ""
    nm = tool(f"{prefix}nm")
    listing = subprocess.run([nm, *map(str, objects)], capture_output=True, text=True, check=True).stdout
    out: dict[str, set[str]] = {}
    for kind, name in re.findall(r"^[0-9a-f ]* ([a-zA-Z]) (\S+)$", listing, flags=re.M):
        out.setdefault(kind, set()).add(name)
    return out


@pytest.mark.parametrize("target", COMPILERS)
def test_compiles_without_a_warning_and_needs_nothing(target: str, tmp_path: Path) -> None:
    by_kind = symbols(target, compile_all(target, tmp_path))
    defined = by_kind["T"] | by_kind.get("R", set())
    assert {"ehmn_open", "ehmn_learn", "ehmn_kernels_ref"} <= defined
    allowed = MEMORY | (LIBGCC_INTEGERS if "cortex" in target else set())
    assert by_kind.get("U", set()) - defined <= allowed
    writable = set().union(*(by_kind.get(kind, set()) for kind in "dDbBcCsSgG"))
    assert not writable, "nothing is kept between calls"
    assert all(name.startswith("ehmn_") for name in defined), "one prefix for all that others could clash with"


def test_no_function_calls_itself(tmp_path: Path) -> None:
    """The call graph that gcc writes has no cycle, so the stack has a bound."""
    command = [tool("gcc"), "-std=c11", "-O0", "-fcallgraph-info", *INCLUDES, "-c", *map(str, SOURCES)]
    subprocess.run(command, cwd=tmp_path, check=True)
    edges = r'edge: \{ sourcename: "([^"]+)" targetname: "([^"]+)"'
    graph: dict[str, set[str]] = {}
    for info in tmp_path.glob("*.ci"):
        for caller, callee in re.findall(edges, info.read_text()):
            graph.setdefault(caller, set()).add(callee)
    assert "ehmn_encode" in graph["ehmn_step"] and len(graph) > 50
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as e:
        pytest.fail(f"recursion: {e.args[1]}")
