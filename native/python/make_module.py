"""Generate the C source of edgehmn._core: what cffi is told is made from the headers themselves.

python make_module.py OUT.c HEADER...
"""

import re
import sys
from pathlib import Path

import cffi


def declarations(header: str) -> str:
    """The part of a header that cffi reads: constants, types and prototypes.

    Constants become `#define NAME ...`: their values come from the compiler.
    """
    text = re.sub(r"/\*.*?\*/", "", header, flags=re.S)
    text = re.sub(r"^#ifdef __cplusplus$.*?^#(?:else|endif)$", "", text, flags=re.S | re.M)
    text = re.sub(r"^EHMN_ASSERT\(.*?\);", "", text, flags=re.S | re.M)
    lines = []
    for line in text.splitlines():
        constant = re.match(r"#define (\w+) +\S", line)
        if constant:
            lines.append(f"#define {constant[1]} ...")
        elif not line.lstrip().startswith("#"):
            lines.append(line)
    return "\n".join(lines)


def main() -> None:
    target, *headers = map(Path, sys.argv[1:])
    ffi = cffi.FFI()
    ffi.cdef("\n".join(declarations(h.read_text("utf-8")) for h in headers))
    includes = [line for h in headers for line in h.read_text("utf-8").splitlines() if line.startswith("#include")]
    public = [f'#include "{h.name}"' for h in headers if h.name != "internals.h"]
    ffi.set_source("edgehmn._core", "\n".join(public + includes))
    ffi.emit_c_code(str(target))


if __name__ == "__main__":
    main()
