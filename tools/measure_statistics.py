"""Put the statistics of the plastic head into a checkpoint, measured on text that it was trained on.

    python tools/measure_statistics.py CKPT TEXT...

The texts take equal shares; of each, excerpts at even distances are read. Learning on the device starts from these
statistics: where errors are common, where they are rare, and how the final norm's output is spread. Without them
`edgehmn export` measures them on its calibration text, which may be of another kind.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import safetensors.numpy

from edgehmn.calibrate import head_statistics
from edgehmn.checkpoint import read_checkpoint
from edgehmn.checkpoint.model import Checkpoint
from edgehmn.errors import EdgeHMNError
from edgehmn.files import read_text, write_bytes
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
    parser.add_argument("checkpoint", metavar="CKPT", type=Path, help="folder with model.safetensors, which is changed")
    parser.add_argument("texts", metavar="TEXT", nargs="+", type=Path)
    args = parser.parse_args()
    path = args.checkpoint / "model.safetensors"
    if not path.is_file():
        parser.error(f"{path}: no such file; give the folder of a checkpoint of our own")
    try:
        put_statistics(path, args.texts)
    except EdgeHMNError as e:
        print(f"{parser.prog}: {e}", file=sys.stderr)
        sys.exit(e.exit_code)


def put_statistics(path: Path, texts: list[Path]) -> None:
    """Into the weights at `path`, measured on the texts."""
    checkpoint = read_checkpoint(path.parent)
    model = FloatModel(checkpoint)
    ids = sample(checkpoint, [read_text(p) for p in texts])
    statistics = head_statistics(model, model.encode(ids, model.new_state()), ids)
    tensors = safetensors.numpy.load_file(path)
    names = checkpoint.config.statistics_shapes()
    tensors |= dict(zip(names, (vars(statistics)[name.split(".")[1]] for name in names), strict=True))
    write_bytes(path, safetensors.numpy.save(tensors))


if __name__ == "__main__":
    main()
