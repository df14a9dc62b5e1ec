"""A million tokens learned without a stop: nothing may saturate, overflow or drift.

    python bench/endurance.py --data DIR [--tokens N]

Texts of eight kinds take turns, 4,000 tokens each, round after round (the encoder runs once over one round; learning
goes on through all). After every round: the loss online less that of the frozen model, weights and biases at their
limits, the gains, the guard's loss and the frozen model's. Results land in bench/results/endurance.json.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[1]))  # it was started as a script

from bench.texts import persona_chat, python_code
from edgehmn.checkpoint import REFERENCE, Checkpoint, read_checkpoint
from edgehmn.core import CoreModel, Image, ffi
from edgehmn.files import read_text
from edgehmn.image import image_of
from edgehmn.streams import HiddenStream, in_nats, open_head, play

RESULTS = Path(__file__).resolve().parent / "results" / "endurance.json"
TURN = 4_000  # tokens of one kind at a time
TURNS = 4  # of each kind in a round


def one_round(checkpoint: Checkpoint, data: Path) -> np.ndarray:
    """Tokens (n,) of a round."""
    files = sorted((data / "text-open").glob("*.txt"))
    kinds = [read_text(p) for p in files if p.stem.startswith(("gutenberg", "reviews", "masc", "us_speeches"))]
    kinds += [
        read_text(data / "wikitext-2" / "valid.txt"),
        read_text(data / "ag-news" / "test.txt"),
        persona_chat(data),
        python_code("argparse.py", "tarfile.py", "typing.py", "doctest.py"),
    ]
    ids = [checkpoint.encode(text[len(text) // 3 :][: 8 * TURN * TURNS])[: TURN * TURNS] for text in kinds]
    return np.concatenate([part[turn * TURN : (turn + 1) * TURN] for turn in range(TURNS) for part in ids])


def state(model: CoreModel) -> dict[str, Any]:
    """What the delta says: shares at the limits, gains, the guard."""
    header, image = model.image.header, model.image
    delta = model.save()
    h = ffi.cast("ehmn_delta *", ffi.from_buffer(delta))
    dense = int(header.n_dense) * int(header.d_model) ** 2
    rows = sum(header.rule.row_slots) * int(header.d_model)
    start = ffi.sizeof("ehmn_delta")
    weights = np.frombuffer(delta, np.int8, dense + rows, start)
    biases = np.frombuffer(delta, np.int16, image.vocab_size, start + -(-(dense + rows) // 4) * 4)
    excess = [model.guard_score(i) for i in range(header.n_guard)]
    frozen = ffi.cast("ehmn_guard *", image.pointer + header.guard_offset)
    return {
        "dense_at_limit": float(np.mean(np.abs(weights[:dense].astype(int)) == 127)),
        "rows_at_limit": float(np.mean(np.abs(weights[dense:].astype(int)) == 127)),
        "largest_bias_bits": float(np.abs(biases.astype(int)).max() / 4096),
        "scale": h.gains.scale / 65536,
        "guard_bits": float(np.mean(excess) / 65536),
        "guard_frozen_bits": float(np.mean([g.bits for g in frozen[0 : header.n_guard]]) / 65536),
        "rollbacks": model.counts().rollbacks,
        "writes_per_token": model.counts().writes_per_learned_token,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--tokens", type=int, default=1_000_000)
    args = parser.parse_args()
    checkpoint = read_checkpoint(REFERENCE)
    image = Image(image_of(checkpoint))
    stream = HiddenStream.encode(image, one_round(checkpoint, args.data))
    model, rounds = open_head(image), []
    static = in_nats(stream.static).mean()
    while model.counts().learned < args.tokens:
        online = in_nats(play(model, stream)).mean()
        rounds.append({"learned": model.counts().learned, "online_less_static": float(online - static)} | state(model))
        RESULTS.write_text(json.dumps({"image_id": image.id, "rounds": rounds}, indent=1) + "\n", "utf-8")
        print(rounds[-1], flush=True)


if __name__ == "__main__":
    main()
