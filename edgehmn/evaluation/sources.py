"""The texts of the evaluation plan, in the forms in which they are usually distributed."""

import csv
import io
import re
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgehmn.errors import InvalidFileError, UsageError
from edgehmn.files import read_text

# Data set -> folder below --data, and the names that its file goes by there.
FILES = {
    "wikitext-2 test": ("wikitext-2", ("test.txt", "wiki.test.tokens")),
    "wikitext-2 valid": ("wikitext-2", ("valid.txt", "wiki.valid.tokens")),
    "ag-news": ("ag-news", ("test.txt", "test.csv")),
    "persona-chat": ("persona-chat", ("*.txt",)),
    "books": ("text-open", ("gutenberg*.txt",)),
}
CODE_BYTES = range(4_000, 60_000)  # of a code file that is taken: no stubs, no tables
SIDES = ("them", "you")


@dataclass(frozen=True)
class Turn:
    side: str  # of SIDES
    text: str


Dialogue = tuple[Turn, ...]


@dataclass(frozen=True)
class Sources:
    """Where the texts lie. Methods raise UsageError with the path that was expected, InvalidFileError for a file that
    is not what it should be."""

    data: tuple[Path, ...]
    code_folder: Path | None = None

    def has(self, name: str) -> bool:
        return bool(self._found(name))

    def _found(self, name: str) -> list[Path]:
        folder, names = FILES[name]
        out: list[Path] = []
        for d in self.data:
            for place in (d / folder, *([d] if d.name == folder else [])):
                first = (found for pattern in names if (found := sorted(place.glob(pattern))))
                out += next(first, [])
        return out

    def _paths(self, name: str) -> list[Path]:
        found = self._found(name)
        if found:
            return found
        if not self.data:
            raise UsageError(f"no --data given: name the folder in which {'/'.join(expected(name))} lies")
        places = " or ".join(str(d.joinpath(*expected(name))) for d in self.data)
        raise UsageError(f"{places}: no such file ('edgehmn eval --help' says how to get it)")

    def wikitext(self, split: str) -> str:
        """WikiText-2, "test" or "valid"."""
        return read_text(self._paths(f"wikitext-2 {split}")[0])

    def test_text(self) -> tuple[str, str]:
        """Name and text of P0: WikiText-2 test, or the one file that is given instead, also as DIR/test.txt."""
        found = [path for d in self.data if (path := _test_file(d)) is not None]
        if len(found) > 1:
            raise UsageError(f"p0 reads one text and finds {' and '.join(map(str, found))}: give one --data")
        if not found and len(self.data) == 1 and not self.data[0].is_dir():
            raise UsageError(f"{self.data[0]}: no such file or folder")
        path = found[0] if found else self._paths("wikitext-2 test")[0]
        text = read_text(path)
        if not text.strip():
            raise UsageError(f"{path}: is empty; perplexity cannot be measured on it")
        return path.name, text

    def news(self) -> str:
        """Articles: a title, a description, an empty line."""
        path = self._paths("ag-news")[0]
        text = read_text(path)
        if path.suffix != ".csv":
            return text
        rows = list(csv.reader(io.StringIO(text)))
        if any(len(row) != 3 for row in rows):
            raise InvalidFileError(f"{path}: not AG News: each line has a class, a title and a description")
        return "".join(f"{title}\n{description}\n\n" for _, title, description in rows)

    def dialogues(self) -> list[Dialogue]:
        """The dialogues of Persona-Chat, without what describes the persons."""
        paths = self._paths("persona-chat")
        out = [d for path in paths for d in parse_dialogues(read_text(path))]
        if not out:
            raise InvalidFileError(f"{paths[0]}: no dialogue in it: lines 'them: ...' and 'you: ...', or ParlAI's form")
        return out

    def books(self) -> str:
        """A plain text, from its middle on, where no table of contents is."""
        text = read_text(self._paths("books")[0])
        return text[text.find("\n", len(text) // 2) + 1 :]

    def code(self, characters: int, share: int) -> str:
        """Python modules up to so many characters, if there are as many; shares 0 and 1 have no module in common."""
        folder = self.code_folder or Path(sysconfig.get_paths()["stdlib"])
        if not folder.is_dir():
            raise UsageError(f"{folder}: no such folder; --code names one with Python files")
        files = [p for p in sorted(folder.rglob("*.py")) if "site-packages" not in p.relative_to(folder).parts]
        chosen = [p for p in files if p.stat().st_size in CODE_BYTES][share::2]
        parts, size = [], 0
        for path in spread(chosen):
            try:
                parts.append(read_text(path))
            except InvalidFileError:
                continue  # a module in another encoding
            size += len(parts[-1])
            if size >= characters:
                break
        if not parts:
            raise UsageError(f"{folder}: has no Python modules of 4 to 60 KB in UTF-8; --code names a folder that has")
        return "".join(parts)


def _test_file(place: Path) -> Path | None:
    """What P0 reads, if `place` is it or has it."""
    if place.is_file() or place.name == FILES["ag-news"][0]:
        return place if place.is_file() else None
    folder, names = FILES["wikitext-2 test"]
    return next((p for at in (place / folder, place) for name in names if (p := at / name).is_file()), None)


def expected(name: str) -> tuple[str, str]:
    """Folder and file name under which a data set is looked for first."""
    folder, names = FILES[name]
    return folder, names[0]


def spread(items: Sequence[Path]) -> list[Path]:
    """All items, in an order in which every beginning is spread over the whole: 0, 1/2, 1/4, 3/4, 1/8, ..."""
    size = 1 << max(0, len(items) - 1).bit_length()
    bits = size.bit_length() - 1
    order = [int(f"{i:0{bits}b}"[::-1], 2) if bits else 0 for i in range(size)]
    return [items[i] for i in order if i < len(items)]


def parse_dialogues(text: str) -> list[Dialogue]:
    """Dialogues in blocks of lines 'them: ...' and 'you: ...', or in ParlAI's form: numbered lines of what one side
    says, a tab, and what the other answers. A persona line begins a dialogue and is left out."""
    out: list[list[Turn]] = [[]]
    for line in text.splitlines():
        numbered = re.match(r"(\d+) (.*)", line)
        rest = numbered.group(2) if numbered else line
        if not line.strip() or (numbered and numbered.group(1) == "1") or rest.startswith("persona:"):
            out.append([])
        if "persona:" in rest[:20]:
            continue
        if numbered and "\t" in rest:
            says = rest.split("\t")[:2]
            out[-1] += [Turn(side, words) for side, words in zip(SIDES, says, strict=True)]
        else:
            side, separator, words = rest.partition(": ")
            if separator and side in SIDES:
                out[-1].append(Turn(side, words.strip()))
    return [tuple(turns) for turns in out if turns]
