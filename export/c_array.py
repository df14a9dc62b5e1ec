"""The image as C source: a constant array that a firmware can link into its flash."""

from pathlib import Path

from edgehmn.core import Image, lib

NAME = "edgehmn_model"
MACRO = NAME.upper()
BYTES_PER_LINE = 32
IMAGE_FILE = "model.ehmn"  # beside the source, where the source is too large to be an array
MAX_ARRAY_BYTES = 2 << 20  # compilers take a second and 120 MB for each megabyte of an array

INCLUDED = f"""\
#include "{NAME}.h"

/* The bytes of {IMAGE_FILE}, which must lie in a folder of the include path: as an array they would keep a compiler
 * busy for long. For the assemblers of GCC and Clang, and ELF. */
__asm__(".pushsection .rodata.{NAME},\\"a\\",%progbits\\n"
        ".balign {lib.EHMN_ALIGN}\\n"
        ".global {NAME}\\n"
        ".type {NAME}, %object\\n"
        "{NAME}:\\n"
        ".incbin \\"{IMAGE_FILE}\\"\\n"
        ".size {NAME}, . - {NAME}\\n"
        ".popsection\\n");
"""


def c_header(image: Image) -> str:
    """Declares the array, and the sizes of what a program must set aside for the model."""
    return f"""\
#ifndef {MACRO}_H
#define {MACRO}_H

/* An edgehmn image: pass it to ehmn_image_check and ehmn_open. It stays in flash. */
#define {MACRO}_BYTES {len(image.bytes)}u
#define {MACRO}_ARENA_BYTES {image.arena_bytes(plastic=True)}u /* for ehmn_open with EHMN_PLASTIC */
#define {MACRO}_STATIC_ARENA_BYTES {image.arena_bytes(plastic=False)}u /* with EHMN_STATIC */
#define {MACRO}_DELTA_BYTES {image.delta_bytes()}u /* for ehmn_delta_save */

#ifdef __cplusplus
extern "C" {{
#endif
extern const unsigned char {NAME}[{MACRO}_BYTES];
#ifdef __cplusplus
}}
#endif

#endif
"""


def c_source(image: Image) -> str:
    """Defines the array, aligned to EHMN_ALIGN; that of an image beyond MAX_ARRAY_BYTES includes IMAGE_FILE."""
    data = image.bytes.tobytes()
    if len(data) > MAX_ARRAY_BYTES:
        return INCLUDED
    lines = [",".join(map(str, data[i : i + BYTES_PER_LINE])) + "," for i in range(0, len(data), BYTES_PER_LINE)]
    opening = f"_Alignas({lib.EHMN_ALIGN}) const unsigned char {NAME}[{MACRO}_BYTES] = {{\n"
    return f'#include "{NAME}.h"\n\n' + opening + "\n".join(lines) + "\n};\n"


def write_c_array(image: bytes, folder: Path) -> list[Path]:
    """Write edgehmn_model.h and edgehmn_model.c into `folder`, where model.ehmn lies; returns their paths."""
    header, source = folder / f"{NAME}.h", folder / f"{NAME}.c"
    checked = Image(image)
    header.write_text(c_header(checked), "utf-8")
    source.write_text(c_source(checked), "utf-8")
    return [header, source]
