"""The texts that ship with the package, beside the reference model."""

from importlib import resources

CALIBRATION = "calibration.txt"  # excerpts of public-domain books, plays and speeches
EVALUATION = "evaluation.txt"  # another such excerpt, about 5,000 tokens: perplexity of every export
PERSONAL = "personal.txt"  # a diary, written for this project: what the demonstration learns


def shipped(name: str) -> str:
    return resources.files("edgehmn").joinpath("reference", name).read_text("utf-8")
