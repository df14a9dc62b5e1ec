"""Fixed excerpts of texts: the same files give the same excerpts, spread evenly over all of them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgehmn.errors import InvalidFileError, UsageError
from edgehmn.files import read_text

LENGTH = 2000  # tokens
CHARACTERS = 16 * LENGTH  # more than an excerpt can need


def excerpts(
    data: tuple[Path, ...], encode: Callable[[str], npt.NDArray[np.int32]], count: int
) -> list[tuple[str, npt.NDArray[np.int32]]]:
    """About `count` excerpts of LENGTH tokens: every entry of `data` gives an equal share, each at evenly spaced
    places of its .txt and .py files in order of name. Files that are no UTF-8 or too short give none."""
    for entry in data:
        if not entry.exists():
            raise UsageError(f"{entry}: no such file or folder")
    out = []
    for number, entry in enumerate(data):
        share = count // len(data) + (number < count % len(data))
        files = sorted(_texts_below(entry)) if entry.is_dir() else [entry]
        texts = [(p, p.stat().st_size) for p in files if p.is_file() and p.stat().st_size >= 8 * LENGTH]
        total = sum(size for _, size in texts)
        for i in range(share):
            found = _excerpt(texts, int(total * (i + 0.5) / share), encode)
            if found is not None:
                out.append(found)
    return out


def _texts_below(folder: Path) -> list[Path]:
    """The texts of a folder; packages that were installed into a standard library are not part of it."""
    found = (p for p in folder.rglob("*") if p.suffix in (".txt", ".py"))
    return [p for p in found if "site-packages" not in p.relative_to(folder).parts]


def _excerpt(
    texts: list[tuple[Path, int]], at: int, encode: Callable[[str], npt.NDArray[np.int32]]
) -> tuple[str, npt.NDArray[np.int32]] | None:
    """The excerpt that begins with the first whole line after byte `at` of all texts, or earlier to fit."""
    for path, size in texts:
        if at >= size:
            at -= size
            continue
        try:
            text = read_text(path)
        except InvalidFileError:
            return None
        start = text.find("\n", max(0, min(at, len(text) - CHARACTERS // 2))) + 1
        ids = encode(text[start : start + CHARACTERS])[:LENGTH]
        return (f"{path.name}@{start}", ids) if len(ids) == LENGTH else None
    return None
