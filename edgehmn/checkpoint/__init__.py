"""A trained model, as float tensors + configuration + tokenizer, whatever file it came from."""

from edgehmn.checkpoint.model import Checkpoint, Config
from edgehmn.checkpoint.read import REFERENCE, read_checkpoint

__all__ = ["REFERENCE", "Checkpoint", "Config", "read_checkpoint"]
