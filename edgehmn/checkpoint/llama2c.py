"""Reader of llama2.c's .bin files, versions 0 (without a magic), 1 and 2 (int8), with their tokenizer.bin."""

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgehmn.checkpoint.model import Checkpoint, Config, FloatArray
from edgehmn.checkpoint.settings import MAX_DIMENSION, checked, context
from edgehmn.checkpoint.stored import FORMS, Form, Stored, Tensors, load_values, tie_if_equal
from edgehmn.checkpoint.tokenizer import SPACE, read_tokenizer, scored_bpe
from edgehmn.errors import InvalidFileError, UnsupportedError
from edgehmn.files import read_bytes

MAGIC = 0x616B3432
HEADER_BYTES = 42  # magic, version, sizes, flag, group size: all that is used of the header
LEGACY_BYTES = 28
DATA_AT = 256  # in versions 1 and 2
NORM_EPS, ROPE_THETA = 1e-5, 10000.0  # of every model that llama2.c runs
BOS = 1
FIRST_BYTE = 3  # token of byte 0
Order = list[tuple[str, bool]]  # names, and whether there is one for each layer

# Tensors in the order of the file.
LEGACY_ORDER: Order = [
    ("embed", False),
    *((name, True) for name in ("attn_norm.weight", "q", "k", "v", "o", "mlp_norm.weight", "gate", "down", "up")),
    ("final_norm.weight", False),
    ("rope", False),
    ("head", False),
]
FLOAT_ORDER: Order = [
    ("attn_norm.weight", True),
    ("mlp_norm.weight", True),
    ("final_norm.weight", False),
    ("embed", False),
    *((name, True) for name in ("q", "k", "v", "o", "gate", "down", "up")),
    ("head", False),
]
NORMS_IN_FRONT = 3  # of FLOAT_ORDER: float32 in version 2 too


@dataclass(frozen=True)
class Header:
    version: int
    d_model: int
    d_hidden: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    vocab_size: int
    n_ctx: int
    tied: bool
    group: int  # values that share a scale in version 2, else 0


def is_llama2c(start: bytes) -> bool:
    """Whether a file that begins so may be one: by its magic, or by seven sizes that a model can have."""
    if len(start) < LEGACY_BYTES:
        return False
    if struct.unpack_from("<I", start)[0] == MAGIC:
        return True
    sizes = struct.unpack_from("<7i", start)
    return all(0 < (abs(v) if i == 5 else v) <= MAX_DIMENSION for i, v in enumerate(sizes))


def read_llama2c(path: Path, n_ctx: int | None, tokenizer: Path | None) -> Checkpoint:
    """tokenizer: its tokenizer.bin; None: the one beside it that has as many tokens. Raises as read_checkpoint."""
    with path.open("rb") as f:
        header = _header(path, f.read(HEADER_BYTES))
    config = _config(path, header, n_ctx)
    tensors = Tensors(path, _stored(path, header, config))
    found = {name: tensors[name] for name in config.tensor_shapes()}
    for i in range(config.n_layers):
        for name in ("q", "k"):
            full = f"layers.{i}.{name}"
            found[full] = halves_apart(found[full], config.d_head)
    place, tokenizer_json = _tokenizer(path, tokenizer, config.vocab_size)
    read_tokenizer(place, tokenizer_json, config.vocab_size)
    values = tensors.gather(config, found)
    tied = tie_if_equal(config.tied_head, values)
    return Checkpoint(_config(path, header, n_ctx, tied), values, tokenizer_json)


def halves_apart(stored: Stored, d_head: int) -> Stored:
    """Rows of a query or key matrix (or its bias) that RoPE turns as pairs (2i, 2i + 1), ordered for (i, i + half)."""

    def reorder(w: FloatArray) -> FloatArray:
        return w.reshape(-1, d_head // 2, 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)

    return stored.changed(stored.shape, reorder)


def _header(path: Path, raw: bytes) -> Header:
    if len(raw) < HEADER_BYTES:
        raise InvalidFileError(f"{path}: ends inside its header; it is truncated")
    if struct.unpack_from("<I", raw)[0] != MAGIC:
        sizes = list(struct.unpack_from("<7i", raw))
        tied, sizes[5] = sizes[5] > 0, abs(sizes[5])
        return Header(0, *_in_file_order(sizes), tied, 0)
    version = struct.unpack_from("<i", raw, 4)[0]
    if version not in (1, 2):
        raise UnsupportedError(f"{path}: version {version} of llama2.c's format; 0, 1 and 2 are read")
    sizes = list(struct.unpack_from("<7i", raw, 8))
    group = struct.unpack_from("<i", raw, 37)[0] if version == 2 else 0
    if group < (version == 2) or raw[36] > 1:
        raise InvalidFileError(f"{path}: its header has a group size of {group} and a flag of {raw[36]}")
    return Header(version, *_in_file_order(sizes), raw[36] == 1, group)


def _in_file_order(sizes: list[int]) -> tuple[int, int, int, int, int, int, int]:
    d_model, d_hidden, n_layers, n_heads, n_kv_heads, vocab_size, n_ctx = sizes
    return d_model, d_hidden, n_layers, n_heads, n_kv_heads, vocab_size, n_ctx


def _config(path: Path, h: Header, n_ctx: int | None, tied: bool | None = None) -> Config:
    config = Config(
        n_layers=h.n_layers,
        d_model=h.d_model,
        d_hidden=h.d_hidden,
        n_heads=h.n_heads,
        n_kv_heads=h.n_kv_heads,
        vocab_size=h.vocab_size,
        n_ctx=h.n_ctx if h.n_ctx < 1 else context(str(path), h.n_ctx, n_ctx),
        norm_eps=NORM_EPS,
        final_norm="rmsnorm",
        tied_head=h.tied if tied is None else tied,
        rope_theta=ROPE_THETA,
        window="restart",
        start_token=BOS,
    )
    return checked(config, str(path))


def _stored(path: Path, h: Header, c: Config) -> dict[str, Stored]:
    """Where every tensor lies. Raises InvalidFileError if the file has not exactly the size that its header says."""
    at = LEGACY_BYTES if h.version == 0 else DATA_AT
    found = {}
    for name, shape, group in _layout(h, c):
        n = math.prod(shape)
        if group and n % group:
            raise InvalidFileError(f"{path}: tensor '{name}' is no multiple of the group size {group}")
        found[name] = _tensor(path, name, shape, group, at)
        at += n + n // group * 4 if group else 4 * n
    size = path.stat().st_size
    if size != at:
        raise InvalidFileError(f"{path}: has {size} bytes, a model of its header {at}; truncated, or no llama2.c file")
    return found


def _layout(h: Header, c: Config) -> Iterator[tuple[str, tuple[int, ...], int]]:
    """(name, shape, values that share a scale, or 0 for float32) of all tensors in the order of the file."""
    shapes = c.tensor_shapes() | {"rope": (h.n_ctx, c.d_head)}
    for i, (name, layered) in enumerate(LEGACY_ORDER if h.version == 0 else FLOAT_ORDER):
        for full in [f"layers.{k}.{name}" for k in range(c.n_layers)] if layered else [name]:
            if full in shapes:
                yield full, shapes[full], h.group if h.version == 2 and i >= NORMS_IN_FRONT else 0


def _tensor(path: Path, name: str, shape: tuple[int, ...], group: int, at: int) -> Stored:
    if not group:
        return Stored(name, shape, lambda: load_values(path, name, at, shape, FORMS["F32"]))
    n = math.prod(shape)

    def load() -> FloatArray:  # all values of a tensor, then all its scales
        values = load_values(path, name, at, (n // group, group), Form(1, 1, lambda raw: raw.view(np.int8)))
        with np.errstate(all="ignore"):  # what overflows is found afterwards
            values *= load_values(path, name, at + n, (n // group, 1), FORMS["F32"])
        return values.reshape(shape)

    return Stored(name, shape, load)


# ---- The tokenizer: for each token its score, the length of its text, and the text


def _tokenizer(path: Path, given: Path | None, vocab_size: int) -> tuple[Path, str]:
    """The tokenizer of as many tokens: the one that is given, else one beside the model."""
    if given is not None:
        return given, tokenizer_json(given, vocab_size)
    names = [f"tok{vocab_size}.bin", "tokenizer.bin", f"{path.stem}_tokenizer.bin", f"{path.stem}.tokenizer.bin"]
    others = sorted(p.name for p in path.parent.glob("tok*.bin") if p != path)
    beside = [path.parent / name for name in dict.fromkeys(names + others)]
    why = "none is there"
    for place in beside:
        if place.is_file() and place != path:
            try:
                return place, tokenizer_json(place, vocab_size)
            except InvalidFileError as e:
                why = str(e)
    raise InvalidFileError(
        f"{path}: no tokenizer of {vocab_size} tokens beside it, as {names[0]} or {names[1]} ({why}); give one with "
        "--tokenizer"
    )


def tokenizer_json(path: Path, vocab_size: int) -> str:
    """The JSON of a tokenizer that encodes as llama2.c does with this file, without the token that begins a text.

    The one character that is read otherwise is U+2581, a space to SentencePiece, of which these files are made.
    """
    pieces, scores = _pieces(path, read_bytes(path), vocab_size)
    if len(pieces) < FIRST_BYTE + 256 or any(pieces[FIRST_BYTE + b] != f"<0x{b:02X}>" for b in range(256)):
        raise InvalidFileError(f"{path}: tokens {FIRST_BYTE} to {FIRST_BYTE + 255} are not those of the 256 bytes")
    if " " not in pieces:
        raise InvalidFileError(f"{path}: has no token for a space, with which every text begins")
    return scored_bpe([piece.replace(" ", SPACE) for piece in pieces], scores, (), str(path))


def _pieces(path: Path, data: bytes, vocab_size: int) -> tuple[list[str], list[float]]:
    unfit = InvalidFileError(f"{path}: is not a llama2.c tokenizer of {vocab_size} tokens")
    pieces: list[str] = []
    scores: list[float] = []
    at = 4  # the length of the longest token is not needed
    try:
        for _ in range(vocab_size):
            score, length = struct.unpack_from("<fi", data, at)
            at += 8 + length
            if length < 0 or at > len(data) or not math.isfinite(score):
                raise unfit
            pieces.append(data[at - length : at].decode("utf-8"))
            scores.append(score)
    except (struct.error, UnicodeDecodeError):
        raise unfit from None
    if at != len(data):
        raise unfit
    return pieces, scores
