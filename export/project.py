"""Ready projects in C: the core's sources, the image and an example, as a library of a build system.

edgehmn/
  src/            what a program includes: edgehmn*.h, edgehmn.hpp for C++, edgehmn_model.h and .c
  src/core/       the core's own sources
  examples/ or samples/
  LICENSE, README.md, and the files of the build system
"""

import io
import re
import zipfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from edgehmn import __version__
from edgehmn.core import Image
from edgehmn.device.boards import sources
from edgehmn.errors import DependencyError
from edgehmn.export.c_array import IMAGE_FILE, MAX_ARRAY_BYTES, NAME, c_header, c_source

TEMPLATES = Path(__file__).resolve().parent / "templates"
TOP = "edgehmn"  # the one folder in a zip file; build systems take it for the library's name
EXAMPLE = {  # kind of project -> where the sources of its example lie
    "cmake": "examples/generate",
    "arduino": "examples/Generate",
    "esp-idf": "examples/generate/main",
    "zephyr": "samples/generate/src",
}
KINDS = tuple(EXAMPLE)
EARLIEST = (1980, 1, 1, 0, 0, 0)  # that a zip file can say; so equal projects are equal files


def project_files(kind: str, image: bytes) -> dict[str, bytes]:
    """The files of a project, `kind` one of KINDS, by their paths. Raises InvalidFileError for a bad image."""
    checked, native = Image(image), sources()
    files = _templates(TEMPLATES / "shared", "") | _templates(TEMPLATES / kind, "")
    files |= _templates(TEMPLATES / "example", EXAMPLE[kind] + "/")
    files |= {f"src/{path.name}": path.read_bytes() for path in native.glob("include/*.h")}
    files |= {f"src/core/{path.name}": path.read_bytes() for path in native.glob("src/*.[ch]")}
    files[f"src/{NAME}.h"] = c_header(checked).encode()
    files[f"src/{NAME}.c"] = c_source(checked).encode()
    if len(image) > MAX_ARRAY_BYTES:
        files[f"src/{IMAGE_FILE}"] = image
    files["LICENSE"] = _license().encode()
    return dict(sorted(files.items()))


def write_project(kind: str, image: bytes, folder: Path) -> None:
    """Write a project into `folder`, which is made if it is not there."""
    for name, data in project_files(kind, image).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def project_zip(kind: str, image: bytes) -> bytes:
    """A project as a zip file with the one folder TOP; the same bytes for the same image."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in project_files(kind, image).items():
            entry = zipfile.ZipInfo(f"{TOP}/{name}", EARLIEST)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.create_system = 3  # Unix, wherever it was written
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, data)
    return out.getvalue()


def _templates(folder: Path, prefix: str) -> dict[str, bytes]:
    """The files of a template folder; @VERSION@ in them becomes that of edgehmn."""
    version = re.match(r"\d+\.\d+\.\d+", __version__)
    number = version[0] if version else "0.0.0"
    return {
        prefix + path.relative_to(folder).as_posix(): path.read_text("utf-8").replace("@VERSION@", number).encode()
        for path in folder.rglob("*")
        if path.is_file()
    }


def _license() -> str:
    """The licence of the sources: in a checkout, or in what pip keeps of the package."""
    checkout = sources().parent / "LICENSE"
    if checkout.is_file():
        return checkout.read_text("utf-8")
    try:
        text = distribution("edgehmn").read_text("licenses/LICENSE")
    except PackageNotFoundError:
        text = None
    if text is None:
        raise DependencyError("LICENSE is missing from the installed package; pip install --force-reinstall edgehmn")
    return text
