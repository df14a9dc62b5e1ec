"""The image as C source: a constant array that a firmware can link into its flash."""

from pathlib import Path

from edgehmn.core import lib

NAME = "edgehmn_model"
BYTES_PER_LINE = 32


def c_header(image: bytes) -> str:
    guard = f"{NAME.upper()}_H"
    return (
        f"#ifndef {guard}\n#define {guard}\n\n"
        f"/* An edgehmn image: pass it to ehmn_image_check and ehmn_open. */\n"
        f"#define {NAME.upper()}_BYTES {len(image)}u\n"
        f"extern const unsigned char {NAME}[{NAME.upper()}_BYTES];\n\n#endif\n"
    )


def c_source(image: bytes) -> str:
    lines = [",".join(map(str, image[i : i + BYTES_PER_LINE])) + "," for i in range(0, len(image), BYTES_PER_LINE)]
    opening = f"_Alignas({lib.EHMN_ALIGN}) const unsigned char {NAME}[{NAME.upper()}_BYTES] = {{\n"
    return f'#include "{NAME}.h"\n\n' + opening + "\n".join(lines) + "\n};\n"


def write_c_array(image: bytes, folder: Path) -> list[Path]:
    """Write edgehmn_model.h and edgehmn_model.c into `folder`; returns their paths."""
    header, source = folder / f"{NAME}.h", folder / f"{NAME}.c"
    header.write_text(c_header(image), "utf-8")
    source.write_text(c_source(image), "utf-8")
    return [header, source]
