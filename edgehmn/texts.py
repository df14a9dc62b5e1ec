"""The texts that ship with the package, beside the reference model."""

from pathlib import Path

# importlib.resources.files would do in a wheel, but not in an editable install, where the package has several roots.
FOLDER = Path(__file__).resolve().parent / "reference"

CALIBRATION = "calibration.txt"  # excerpts of public-domain books, plays and speeches
EVALUATION = "evaluation.txt"  # another such excerpt, about 5,000 tokens: perplexity of every export
PERSONAL = "personal.txt"  # a diary, written for this project: what the demonstration learns


def shipped(name: str) -> str:
    return (FOLDER / name).read_text("utf-8")
