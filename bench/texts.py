"""Texts that several measurements read, below the folder --data and in the standard library of this Python."""

import sysconfig
from pathlib import Path

from edgehmn.errors import UsageError
from edgehmn.files import read_text


def persona_chat(data: Path) -> str:
    """The first file of Persona-Chat's dialogues. Raises UsageError if there is none."""
    found = sorted((data / "persona-chat").glob("*.txt"))
    if not found:
        raise UsageError(f"{data / 'persona-chat'}: holds no .txt file; put the Persona-Chat dialogues there")
    return read_text(found[0])


def python_code(*names: str) -> str:
    """Modules of the standard library by their file names, one after the other."""
    library = Path(sysconfig.get_paths()["stdlib"])
    return "".join(read_text(library / name) for name in names)
