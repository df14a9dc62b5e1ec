"""Put the statistics of the plastic head into a checkpoint, measured on text that it was trained on.

    python tools/measure_statistics.py CKPT TEXT...

The texts take equal shares; of each, excerpts at even distances are read. Learning on the device starts from these
statistics: where errors are common, where they are rare, and how the final norm's output is spread. Without them
`edgehmn export` measures them on its calibration text, which may be of another kind.
"""

import argparse
from pathlib import Path

import numpy as np
import safetensors.numpy

from edgehmn.calibrate import head_statistics
from edgehmn.checkpoint import read_checkpoint
from edgehmn.checkpoint.model import Checkpoint
from edgehmn.files import read_text
from edgehmn.model import FloatModel

TOKENS = 16384
EXCERPT = 2048  # tokens; the text between two excerpts is joined as if it were not there
CHARACTERS = 6 * EXCERPT  # more than an excerpt can need


def sample(checkpoint: Checkpoint, texts: list[str]) -> np.ndarray:
    """TOKENS token ids, excerpt after excerpt."""
    each = TOKENS // EXCERPT // len(texts) + 1
    excerpts = []
    for text in texts:
        for i in range(each):
            start = int(len(text) * (i + 0.5) / each)
            excerpts.append(checkpoint.encode(text[start : start + CHARACTERS])[:EXCERPT])
    return np.concatenate(excerpts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("texts", metavar="TEXT", nargs="+", type=Path)
    args = parser.parse_args()
    checkpoint = read_checkpoint(args.checkpoint)
    model = FloatModel(checkpoint)
    ids = sample(checkpoint, [read_text(p) for p in args.texts])
    statistics = head_statistics(model, model.encode(ids, model.new_state()), ids)
    path = args.checkpoint / "model.safetensors"
    tensors = safetensors.numpy.load_file(path)
    names = checkpoint.config.statistics_shapes()
    tensors |= dict(zip(names, (vars(statistics)[name.split(".")[1]] for name in names), strict=True))
    safetensors.numpy.save_file(tensors, path)


if __name__ == "__main__":
    main()
