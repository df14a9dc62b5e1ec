"""`edgehmn validate`: an export is opened as a stranger would. It must compute what was recorded, hold what it should
and nothing twice, and every runtime must stay near the float model."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from edgehmn.checkpoint.model import Checkpoint, FloatArray
from edgehmn.conformance import Vectors, read_vectors
from edgehmn.contents import c_array_check, encoder_checks, image_checks
from edgehmn.core import CoreModel, Image
from edgehmn.errors import UsageError
from edgehmn.exported import Export, open_encoder
from edgehmn.layers import LayerNoise, layer_noise, snr
from edgehmn.model import LOG2_E, FloatModel, log_softmax
from edgehmn.runtime.protocol import SCORE_FRAC, Runtime
from edgehmn.runtime.window import WindowedEncoder

if TYPE_CHECKING:
    from edgehmn.targets.memristive.mapping import TileSetup

ENCODERS = ("onnx", "tflite")
BOARDS = ("emulator", "device")
LIMIT = {"host": 1.0, "onnx": 1.0, "tflite": 2.0}  # rise of token perplexity over what is compared with, %
DEVIATIONS = 2.0  # standard errors by which a rise must be beyond its limit: a short text proves no more
BLOCK = 32  # tokens whose predictions are in memory
LAYER_TOKENS = 128  # of the text, for the residual after each layer


@dataclass(frozen=True)
class Check:
    """One thing that was measured, and what it may be."""

    name: str
    ok: bool
    figure: float
    limit: float

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Comparison:
    """A runtime over the text. rise: of token perplexity over the base, %, and its standard error; top1: positions, %,
    with the same most probable token as the base; logit_error: the largest difference of a log probability, nat;
    hidden_snr: of the hidden vectors, dB. None: not known (a board gives scores alone), or this is the base."""

    name: str
    perplexity: float
    rise: float | None = None
    rise_error: float | None = None
    top1: float | None = None
    logit_error: float | None = None
    hidden_snr: float | None = None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Report:
    """Everything that was found. base: what the runtimes are compared with, "float" or "host"."""

    checks: list[Check]
    base: str
    tokens: int
    runtimes: list[Comparison]
    layers: list[LayerNoise]

    @property
    def ok(self) -> bool:
        return all(check.ok for check in self.checks)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        lists = {
            "checks": [c.as_dict() for c in self.checks],
            "runtimes": [r.as_dict() for r in self.runtimes],
            "layers": [layer.as_dict() for layer in self.layers],
        }
        return {"ok": self.ok, "base": self.base, "tokens": self.tokens} | lists


def validate(
    export: Export,
    runtimes: tuple[str, ...],
    checkpoint: Checkpoint | None,
    text: str,
    n_tokens: int,
    note: Callable[[str], None],
    target: str | None = None,
    port: str | None = None,
    tiles: "TileSetup | None" = None,
) -> Report:
    """Look at the files, and run each runtime (all that the export has, if none is named) over the same text.

    checkpoint: what the export was made of; without it the host's image is what the others are compared with. Integer
    runtimes must agree bit for bit with what was recorded; a device keeps what it has learned. target, port, tiles: see
    open_runtime. Raises UsageError for a text of fewer than two tokens, and for a checkpoint of another shape.
    """
    vectors = read_vectors(export.folder / "vectors.safetensors", export.image)
    model = None if checkpoint is None else matching(checkpoint, export.image)
    present = tuple(k for k in ENCODERS if (export.folder / f"encoder.{k}").exists())
    chosen = tuple(dict.fromkeys(runtimes)) or ("host", *present)
    ids = export.encode(text)[:n_tokens]
    if len(ids) < 2:
        raise UsageError(f"the text has {len(ids)} tokens; two are needed, some hundred are better")
    checks = _file_checks(export, chosen)
    if "host" in chosen:
        note("recorded vectors on host")
        checks += _host_checks(export.image, vectors)
    note(f"comparing over {len(ids)} tokens")
    compared = _compare(export, [k for k in chosen if k not in BOARDS], model, ids, target, tiles)
    for kind in (k for k in chosen if k in BOARDS):
        note(f"recorded vectors and the same text on {kind}")
        where = {"emulator": {"target": target}, "device": {"port": port}}[kind]
        with _board(export, kind, where) as runtime:
            checks += integer_checks(kind, runtime, vectors)
            row, check = _on_board(kind, runtime, export.image, ids, compared[0])
        compared.append(row)
        checks.append(check)
    checks += [gate(c) for c in compared if c.rise is not None and c.name in LIMIT]
    layers = []
    if model is not None and "host" in chosen:
        note("layer by layer")
        layers = layer_noise(model, export.image, ids[:LAYER_TOKENS])
    return Report(checks, compared[0].name, len(ids), compared, layers)


def matching(checkpoint: Checkpoint, image: Image) -> Checkpoint:
    """The checkpoint with the window of the image. Raises UsageError if the image cannot have been made of it."""
    c, h = checkpoint.config, image.header
    names = ("n_layers", "d_model", "d_hidden", "n_heads", "n_kv_heads", "vocab_size")
    differing = [name for name in names if getattr(c, name) != getattr(h, name)]
    if c.tied_head != bool(h.tied_head):
        differing.append("tied_head")
    if c.n_ctx < h.n_ctx:
        differing.append("n_ctx")
    if differing:
        raise UsageError(f"--checkpoint: not what this was exported from: {', '.join(differing)} differ")
    return replace(checkpoint, config=replace(c, n_ctx=int(h.n_ctx)))


def _file_checks(export: Export, chosen: tuple[str, ...]) -> list[Check]:
    """What the files hold: each figure is a number of things that should not be."""
    found: dict[str, int] = {}
    if "host" in chosen:
        found |= {f"host: {name}": n for name, n in (image_checks(export.image) | c_array_check(export)).items()}
    for kind in ENCODERS:
        if kind in chosen:
            found |= {f"{kind}: {name}": n for name, n in encoder_checks(kind, export).items()}
    return [Check(name, n == 0, n, 0) for name, n in found.items()]


def _host_checks(image: Image, vectors: Vectors) -> list[Check]:
    encoder = CoreModel(image, plastic=False)
    hidden = np.stack([encoder.encode(token) for token in vectors["tokens"].tolist()])
    differing = int((hidden != vectors["hidden"]).sum())
    check = Check("host: differing hidden values", differing == 0, differing, 0)
    return [check, *integer_checks("host", CoreModel(image), vectors)]


@contextmanager
def _board(export: Export, kind: str, where: dict[str, str | None]) -> Iterator[Runtime]:
    """A board with the model of the export. What a device had learned is there again afterwards."""
    from edgehmn.runtime.select import open_runtime

    with open_runtime(export, runtime=kind, **where) as runtime:  # type: ignore[arg-type]
        kept = runtime.save() if kind == "device" else None
        try:
            yield runtime
        finally:
            if kept is not None:
                runtime.load(kept)
                runtime.reset()


def integer_checks(name: str, runtime: Runtime, vectors: Vectors) -> list[Check]:
    """Scores without and with learning, the delta, and scores by it while its gains follow must equal the recorded
    ones."""
    tokens = vectors["tokens"].astype(np.int32)
    runtime.reset()
    runtime.forget(0)
    static = runtime.process(tokens, learn=False)
    runtime.reset()
    learning = runtime.process(tokens, learn=True)
    delta = np.frombuffer(runtime.save(), np.uint8)
    runtime.reset()
    following = runtime.process(tokens, learn=False, follow=True)
    differing = {
        "static scores": int((static != vectors["static"]).sum()),
        "learning scores": int((learning != vectors["learning"]).sum()),
        "delta bytes": int((delta != vectors["delta"]).sum()),
        "following scores": int((following != vectors["following"]).sum()),
    }
    return [Check(f"{name}: differing {what}", n == 0, n, 0) for what, n in differing.items()]


# ---- The same text on every runtime


class _Predictor(Protocol):
    def block(self, ids: npt.NDArray[np.int32]) -> tuple[FloatArray, FloatArray]:
        """Feed tokens (n,): log probabilities (n, vocab_size) of what comes next, nat, and hidden vectors (n, d)."""


class _Float:
    def __init__(self, checkpoint: Checkpoint) -> None:
        self.model = FloatModel(checkpoint)
        self.state = self.model.new_state()

    def block(self, ids: npt.NDArray[np.int32]) -> tuple[FloatArray, FloatArray]:
        hidden = self.model.encode(ids, self.state)
        return log_softmax(self.model.logits(self.model.final_norm(hidden))), hidden


class _Integer:
    """The core, alone or behind an exported encoder."""

    def __init__(self, image: Image, encoder: WindowedEncoder | None = None) -> None:
        self.core = CoreModel(image, plastic=False)
        self.encode = self.core.encode if encoder is None else encoder.step
        self.step = np.float32(2.0 ** -int(image.header.hidden_frac))

    def block(self, ids: npt.NDArray[np.int32]) -> tuple[FloatArray, FloatArray]:
        log_p, hidden = [], []
        for token in ids.tolist():
            vector = self.encode(token)
            self.core.head(token, vector)
            logits = self.core.logits()
            assert logits is not None, "there are some after every step"
            log_p.append(log_softmax(logits.astype(np.float32) / np.float32(256 * LOG2_E)))
            hidden.append(vector * self.step)
        return np.stack(log_p), np.stack(hidden)


class _Tile(_Integer):
    """The core with the matrices of its encoder and head on simulated memristive tiles."""

    def __init__(self, image: Image, target: str | None, setup: "TileSetup | None") -> None:
        from edgehmn.runtime.select import DEFAULT_TILE
        from edgehmn.runtime.tile import TileRuntime
        from edgehmn.targets.memristive.mapping import TileSetup

        super().__init__(image)
        setup = replace(setup or TileSetup(), mapping="encoder")  # nothing is learned
        self.tiles = TileRuntime(image, target or DEFAULT_TILE, setup)
        self.core = self.tiles.core
        self.encode = self.core.encode


class _Tally:
    """What becomes a Comparison, block by block."""

    def __init__(self, name: str, vocab_size: int) -> None:
        self.name = name
        self.nats = [float(np.log(vocab_size))]  # of each token; nothing predicts the first
        self.same, self.worst, self.signal, self.noise = 0, 0.0, 0.0, 0.0

    def add(
        self,
        targets: npt.NDArray[np.int32],
        own: tuple[FloatArray, FloatArray],
        base: tuple[FloatArray, FloatArray],
    ) -> None:
        """Predictions and hidden vectors of a block. targets: the tokens that came, one fewer where the text ends."""
        (log_p, hidden), (base_p, base_hidden) = own, base
        self.nats += (-log_p[np.arange(len(targets)), targets]).astype(float).tolist()
        self.same += int((log_p.argmax(-1) == base_p.argmax(-1)).sum())
        self.worst = max(self.worst, float(np.abs(log_p - base_p).max()))
        self.signal += float(np.square(base_hidden, dtype=np.float64).sum())
        self.noise += float(np.square(base_hidden - hidden, dtype=np.float64).sum())

    def comparison(self, base: "_Tally") -> Comparison:
        n = len(self.nats)
        perplexity = float(np.exp(np.mean(self.nats)))
        if base is self:
            return Comparison(self.name, perplexity)
        rise, error = _rise(np.array(self.nats), np.array(base.nats))
        noise = snr(np.sqrt([self.signal]), np.sqrt([self.signal]) - np.sqrt([self.noise]))
        return Comparison(self.name, perplexity, rise, error, 100 * self.same / n, self.worst, noise)


def _compare(
    export: Export, kinds: list[str], model: Checkpoint | None, ids: npt.NDArray[np.int32], target: str | None,
    tiles: "TileSetup | None",
) -> list[Comparison]:  # fmt: skip
    """The base first, then the others. All take the text in the same blocks, so that few predictions are in memory."""
    predictors: dict[str, _Predictor] = {"host": _Integer(export.image)} if model is None else {"float": _Float(model)}
    for kind in kinds:
        if kind == "tile":
            predictors[kind] = _Tile(export.image, target, tiles)
        elif kind not in predictors:
            encoder = None if kind == "host" else WindowedEncoder(open_encoder(kind, export.folder))
            predictors[kind] = _Integer(export.image, encoder)
    tallies = [_Tally(name, export.image.vocab_size) for name in predictors]
    for start in range(0, len(ids), BLOCK):
        targets = ids[start + 1 : start + 1 + BLOCK]
        results = _blocks(predictors, ids[start : start + BLOCK])
        base = next(results)
        tallies[0].add(targets, base, base)
        for tally, own in zip(tallies[1:], results, strict=True):
            tally.add(targets, own, base)
    return [tally.comparison(tallies[0]) for tally in tallies]


def _blocks(predictors: dict[str, _Predictor], ids: npt.NDArray[np.int32]) -> Iterator[tuple[FloatArray, FloatArray]]:
    with np.errstate(all="ignore"):  # what overflows fails the gate
        for predictor in predictors.values():
            yield predictor.block(ids)


def _rise(own: npt.NDArray[np.float64], base: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Rise of perplexity in %, and its standard error, of nats of the same tokens."""
    differences = own - base
    mean, error = float(differences.mean()), float(differences.std() / np.sqrt(len(differences)))
    return 100 * float(np.expm1(mean)), 100 * error


def gate(c: Comparison) -> Check:
    """Whether perplexity rises by no more than LIMIT over the base. c: with a rise."""
    assert c.rise is not None and c.rise_error is not None
    limit = LIMIT[c.name] + DEVIATIONS * c.rise_error  # with what chance may add on so short a text
    ok = bool(c.rise <= limit)  # false for NaN
    return Check(f"{c.name}: rise of perplexity, %", ok, c.rise, limit)


def _on_board(
    kind: str, runtime: Runtime, image: Image, ids: npt.NDArray[np.int32], base: Comparison
) -> tuple[Comparison, Check]:
    """The text on a board, which gives scores: they must be those of this host."""
    runtime.reset()
    runtime.forget(0)
    scores = runtime.process(ids, learn=False)
    differing = int((scores != CoreModel(image).process(ids, learn=False)).sum())
    perplexity = float(np.exp((scores / (1 << SCORE_FRAC) / LOG2_E).mean()))
    row = Comparison(kind, perplexity, 100 * (perplexity / base.perplexity - 1))
    return row, Check(f"{kind}: scores of the text that differ", differing == 0, differing, 0)
