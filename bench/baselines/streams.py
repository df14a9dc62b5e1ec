"""The texts that baselines are tuned and judged on, with what the frozen float model makes of each.

The protocol is that of `edgehmn.evaluate`: a stream begins with an empty context, its first token scores
log(vocab_size), every token is scored before it is learned, and there is one pass. Parts of one text that serve
different ends are far apart. Nothing is tuned on the final streams.
"""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bench.texts import persona_chat, python_code
from edgehmn.checkpoint import Checkpoint
from edgehmn.checkpoint.model import FloatArray
from edgehmn.errors import UsageError
from edgehmn.evaluate import Perplexity, count_words
from edgehmn.files import read_text
from edgehmn.model import FloatModel, log_softmax

Ids = npt.NDArray[np.int32]
Losses = npt.NDArray[np.float64]  # (tokens,) nats of each token of a stream
TOKENS = 20_000  # of every stream but the final WikiText-2
FIRST = 100_000  # tokens of WikiText-2 test that the slow methods run on
WHOLE = "wikitext2-test"
CHARACTERS = 150_000  # that hold so many tokens, in every text used here
BLOCK = 1024  # tokens whose logits are held at a time

STATISTICS = ("plastic.mean", "plastic.inverse_deviation", "plastic.preconditioner")
TUNING_CODE = ("argparse.py", "ast.py", "asyncio/base_events.py", "bdb.py", "calendar.py")
FINAL_CODE = ("_pydecimal.py", "difflib.py", "doctest.py")


@dataclass(frozen=True)
class Stream:
    """A text as the frozen model sees it.

    ids: (n,) tokens; normed: (n, d_model), the final norm's output after each of them; log_p: (n - 1,), static
    log-probability of each token but the first.
    """

    name: str
    ids: Ids
    normed: FloatArray
    log_p: Losses
    words: int
    bytes: int

    def with_first(self, log_p: npt.NDArray[np.floating], vocab_size: int) -> Losses:
        """Nats of every token, from the log-probabilities (n - 1,) of all but the first."""
        return np.concatenate([[np.log(vocab_size)], -log_p]).astype(np.float64)

    def perplexity(self, losses: Losses) -> Perplexity:
        return Perplexity(float(losses.sum()), len(self.ids), self.words, self.bytes)


def tuning_ids(data: Path, checkpoint: Checkpoint) -> dict[str, Ids]:
    """Tokens of the four validation streams by name."""
    return {
        "wikitext2-valid": _part(checkpoint, "wikitext-2", read_text(data / "wikitext-2" / "valid.txt"), 0),
        "news-1000000": _part(checkpoint, "ag-news", read_text(data / "ag-news" / "test.txt"), 1_000_000),
        "persona-500000": _part(checkpoint, "persona-chat", persona_chat(data), 500_000),
        "code-tuning": checkpoint.encode(python_code(*TUNING_CODE))[:TOKENS],
    }


def final_ids(data: Path, checkpoint: Checkpoint) -> dict[str, Ids]:
    """Tokens of the streams that are reported: WikiText-2 test, its beginning and whole, and TOKENS of the others."""
    test = checkpoint.encode(read_text(data / "wikitext-2" / "test.txt"))
    each = -(-TOKENS // len(FINAL_CODE))
    code = np.concatenate([checkpoint.encode(python_code(name))[:each] for name in FINAL_CODE])
    return {
        f"{WHOLE}-{FIRST}": test[:FIRST],
        "news-0": _part(checkpoint, "ag-news", read_text(data / "ag-news" / "test.txt"), 0),
        "persona-0": _part(checkpoint, "persona-chat", persona_chat(data), 0),
        "code-final": code[:TOKENS],
        WHOLE: test,
    }


def training_ids(data: Path, checkpoint: Checkpoint, tokens: int) -> Ids:
    """The first `tokens` tokens of WikiText-2 train, which the model was trained on: statistics of gradients."""
    return checkpoint.encode(read_text(data / "wikitext-2" / "train.txt")[: 8 * tokens])[:tokens]


def prepare(name: str, ids: Ids, checkpoint: Checkpoint, scratch: Path | None = None) -> Stream:
    """Run the frozen encoder once over a stream; its outputs (n, d_model) are kept in `scratch`, if that is given."""
    model = FloatModel(checkpoint)
    encode: Callable[[], FloatArray] = lambda: model.final_norm(model.encode(ids, model.new_state()))  # noqa: E731
    normed = encode() if scratch is None else _kept(scratch, ids, checkpoint, encode)
    text = checkpoint.tokenizer.decode(ids.tolist()) if checkpoint.tokenizer_json else ""
    return Stream(name, ids, normed, static_log_p(model, normed, ids), count_words(text), len(text.encode()))


def static_log_p(model: FloatModel, normed: FloatArray, ids: Ids) -> Losses:
    """Log-probability (n - 1,) of each token but the first under the frozen model."""
    out = np.zeros(len(ids) - 1)
    for start in range(0, len(out), BLOCK):
        targets = ids[start + 1 : start + 1 + BLOCK]
        log_p = log_softmax(model.logits(normed[start : start + len(targets)]))
        out[start : start + BLOCK] = log_p[np.arange(len(targets)), targets]
    return out


def fingerprint(checkpoint: Checkpoint, names: Iterable[str] | None = None) -> str:
    """SHA-256 of the model's weights, or of the tensors named: results of another model are not continued."""
    digest = hashlib.sha256()
    for name in checkpoint.config.tensor_shapes() if names is None else names:
        digest.update(name.encode())
        if name in checkpoint.tensors:
            digest.update(checkpoint.tensors[name].tobytes())
    return digest.hexdigest()


def _kept(scratch: Path, ids: Ids, checkpoint: Checkpoint, encode: Callable[[], FloatArray]) -> FloatArray:
    key = hashlib.sha256(fingerprint(checkpoint).encode() + ids.tobytes()).hexdigest()[:16]
    path = scratch / f"normed-{key}.npy"
    if not path.exists():
        scratch.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".part.npy")
        np.save(partial, encode())
        partial.replace(path)
    out: FloatArray = np.load(path)
    return out


def _part(checkpoint: Checkpoint, name: str, text: str, start: int) -> Ids:
    ids = checkpoint.encode(text[start : start + CHARACTERS])[:TOKENS]
    if len(ids) < TOKENS:
        raise UsageError(f"{name}: {len(ids)} tokens from character {start} on; {TOKENS} are needed")
    return ids
