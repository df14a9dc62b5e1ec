"""The component for ESP-IDF: with a stand-in for its build system and drivers, and with itself where it is there."""

# ruff: noqa: F811  (fixtures of another file)

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from edgehmn.core import CoreModel, Image
from edgehmn.export.project import EXAMPLE
from edgehmn.runtime.device import DeviceRuntime
from tests.test_projects import PHRASE_IDS, STRICT, built, image, printed, project, properties, run, tool  # noqa: F401


def test_metadata_of_esp_idf(project: Callable[[str], Path]) -> None:
    said = yaml.safe_load((project("esp-idf") / "idf_component.yml").read_text())
    assert re.fullmatch(r"\d+\.\d+\.\d+", said["version"]) and said["license"] == "Apache-2.0"
    assert said["dependencies"] == {"idf": ">=5.0"}
    assert all((project("esp-idf") / example["path"] / "CMakeLists.txt").is_file() for example in said["examples"])
    for name in ("generate", "serve"):
        options = properties((project("esp-idf") / "examples" / name / "sdkconfig.defaults").read_text())
        assert int(options["CONFIG_ESP_MAIN_TASK_STACK_SIZE"]) >= 8192
        assert options["CONFIG_ESP_TASK_WDT_EN"] == "n", "tokens leave the idle task no time"


ESP_IDF = """\
function(idf_component_register)
  cmake_parse_arguments(it "" "" "SRCS;SRC_DIRS;INCLUDE_DIRS;REQUIRES" ${ARGN})
  get_filename_component(name ${CMAKE_CURRENT_SOURCE_DIR} NAME)
  set(files ${it_SRCS})
  foreach(folder ${it_SRC_DIRS})
    file(GLOB more ${CMAKE_CURRENT_SOURCE_DIR}/${folder}/*.c)
    list(APPEND files ${more})
  endforeach()
  add_library(${name} STATIC ${files})
  target_include_directories(${name} PUBLIC ${it_INCLUDE_DIRS})
  foreach(need ${it_REQUIRES})
    if(NOT TARGET ${need})
      add_library(${need} INTERFACE) # one of its own components
      target_include_directories(${need} INTERFACE $ENV{IDF_PATH}/components)
    endif()
  endforeach()
  target_link_libraries(${name} PUBLIC ${it_REQUIRES})
endfunction()
macro(project name)
  _project(${name} LANGUAGES C)
  foreach(folder ${EXTRA_COMPONENT_DIRS} ${CMAKE_CURRENT_LIST_DIR}/main)
    get_filename_component(component ${folder} NAME)
    get_filename_component(real ${folder} REALPATH)
    get_filename_component(component ${real} NAME)
    add_subdirectory(${real} ${CMAKE_BINARY_DIR}/${component})
  endforeach()
  file(WRITE ${CMAKE_BINARY_DIR}/start.c "void app_main(void); int main(void) { app_main(); return 0; }")
  file(GLOB components $ENV{IDF_PATH}/components/*.c)
  add_executable(program ${CMAKE_BINARY_DIR}/start.c ${components})
  target_include_directories(program PRIVATE $ENV{IDF_PATH}/components)
  target_link_libraries(program PRIVATE main)
endmacro()
"""


def test_the_component_runs_on_a_stand_in_for_esp_idf(
    project: Callable[[str], Path], printed: str, tmp_path: Path
) -> None:
    idf = stand_in_for_esp_idf(tmp_path)
    example = project("esp-idf") / "examples" / "generate"
    assert run(built(example, tmp_path / "build", IDF_PATH=str(idf)) / "program") == printed


def stand_in_for_esp_idf(folder: Path) -> Path:
    """Its build system, and of its drivers what the examples use."""
    drivers = Path(__file__).parent / "esp_idf"
    shutil.copytree(drivers, folder / "idf" / "components")
    place = folder / "idf" / "tools" / "cmake"
    place.mkdir(parents=True)
    (place / "project.cmake").write_text(ESP_IDF)
    return folder / "idf"


def test_the_component_serves_a_host_and_keeps_what_it_learned(
    project: Callable[[str], Path], image: bytes, tmp_path: Path
) -> None:
    idf = stand_in_for_esp_idf(tmp_path)
    program = built(project("esp-idf") / "examples" / "serve", tmp_path / "build", IDF_PATH=str(idf)) / "program"
    line, partition = tmp_path / "line", tmp_path / "learned"
    expected = CoreModel(Image(image))
    partition.write_bytes(b"\xff" * 0x40000)
    where = os.environ | {"STAND_IN_LINE": str(line), "STAND_IN_LEARNED": str(partition)}

    def start() -> tuple[subprocess.Popen[str], DeviceRuntime]:
        line.unlink(missing_ok=True)
        board = subprocess.Popen([str(program)], env=where, stdout=subprocess.PIPE, text=True)
        assert board.stdout is not None and board.stdout.readline() == "listening\n"
        return board, DeviceRuntime(f"unix://{line}")

    board, runtime = start()
    try:
        assert runtime.identity.board == "esp32s3"
        assert np.array_equal(runtime.process(PHRASE_IDS, learn=True), expected.process(PHRASE_IDS, learn=True))
        assert runtime.store().provisional
        runtime.close()
        board.kill()  # the power goes
        board.wait()
        board, runtime = start()
        assert runtime.save() == expected.save() and runtime.stored().sequence == 1
        runtime.close()
    finally:
        board.kill()
        board.communicate()


def test_the_partitions_of_an_esp32_have_room_for_the_model_that_ships(
    project: Callable[[str], Path], reference_image: bytes
) -> None:
    rows = (project("esp-idf") / "examples" / "serve" / "partitions.csv").read_text().splitlines()[1:]
    parts = {name: (int(at, 0), int(size, 0)) for name, _, _, at, size in (row.split(", ") for row in rows)}
    ends = [at + size for at, size in parts.values()]
    assert all(end <= at for end, (at, _) in zip(ends, [*parts.values()][1:], strict=False)) and ends[-1] <= 4 << 20
    assert all(at % 0x10000 == 0 for at, _ in (parts["factory"], parts["learned"]))
    assert parts["factory"][1] > len(reference_image) + (512 << 10)
    assert parts["learned"][1] // 2 > Image(reference_image).delta_bytes() + 1024


STRING_H = """\
#include <stddef.h>
void *memcpy(void *restrict, const void *restrict, size_t);
void *memmove(void *, const void *, size_t);
void *memset(void *, int, size_t);
int memcmp(const void *, const void *, size_t);
size_t strlen(const char *);
"""


def test_the_component_compiles_for_xtensa(project: Callable[[str], Path], tmp_path: Path) -> None:
    """Not for the LX7 of an ESP32-S3, whose compiler comes with ESP-IDF, but for its older relative."""
    compiler, folder = tool("xtensa-lx106-elf-gcc"), project("esp-idf")
    (tmp_path / "string.h").write_text(STRING_H)  # that compiler comes without a C library
    example = folder / EXAMPLE["esp-idf"]
    sources = [*folder.glob("src/*.c"), *folder.glob("src/core/*.c"), example / "example.c"]
    include = [f"-I{path}" for path in (tmp_path, folder / "src", example)]
    run(compiler, "-std=gnu11", "-O2", "-ffreestanding", *STRICT, *include, "-fsyntax-only", *sources)


def test_with_esp_idf(project: Callable[[str], Path], tmp_path: Path) -> None:
    if "IDF_PATH" not in os.environ:
        pytest.skip("not built here: no ESP-IDF (IDF_PATH is not set)")
    for name in ("generate", "serve"):
        example = project("esp-idf") / "examples" / name
        run(tool("idf.py"), "-C", example, "-B", tmp_path / name, "-DIDF_TARGET=esp32s3", "build")
