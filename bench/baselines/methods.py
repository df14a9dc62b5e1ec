"""The baselines by name: where the search for each begins, along which axes it goes, how it runs, what it costs."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.baselines import adapters, cache, dynamic, mixture, ngram
from bench.baselines.cost import Cost
from bench.baselines.network import Network
from bench.baselines.streams import Ids, Losses, Stream
from bench.baselines.tuning import Axes, Settings
from edgehmn.checkpoint import Checkpoint
from edgehmn.checkpoint.model import FloatArray

TRAINING_TOKENS = 65_536  # of the training text, for the RMS rule


@dataclass
class Workplace:
    """What methods share: the model, a folder for long intermediate results, and those already in memory."""

    checkpoint: Checkpoint
    scratch: Path
    training: Callable[[], Ids]  # the training text's first TRAINING_TOKENS tokens
    chosen: dict[str, Settings] = field(default_factory=dict)  # settings of the methods tuned so far
    memory: dict[str, Any] = field(default_factory=dict)

    def kept(self, make: Callable[[], Any], *key: Any) -> Any:
        """The result of `make`, in memory from the second time on."""
        name = repr(key)
        if name not in self.memory:
            self.memory[name] = make()
        return self.memory[name]

    def stored(self, make: Callable[[], dict[str, npt.NDArray[Any]]], *key: Any) -> dict[str, npt.NDArray[Any]]:
        """Arrays that `make` returns, from a file in the scratch folder from the second time on."""
        path = self.scratch / f"{key[0]}-{hashlib.sha256(repr(key).encode()).hexdigest()[:16]}.npz"
        if not path.exists():
            partial_ = path.with_suffix(".part.npz")
            np.savez(partial_, **make())  # type: ignore[arg-type]
            partial_.replace(path)
        with np.load(path) as arrays:
            return dict(arrays)


@dataclass(frozen=True)
class Method:
    """losses(workplace, streams, settings): nats of every token, [setting][stream]; complete(workplace, tuning
    streams, settings): settings with what is fitted rather than searched; cost(workplace, settings, a stream)."""

    losses: Callable[[Workplace, list[Stream], list[Settings]], list[list[Losses]]]
    cost: Callable[[Workplace, Settings, Stream], Cost]
    start: Settings
    axes: Axes
    complete: Callable[[Workplace, list[Stream], Settings], Settings] = lambda workplace, streams, settings: settings
    after: str | None = None  # a method whose choice `start` takes over
    statistics: bool = False  # of the head, which centre and scale its input, and precondition its error, are used
    slow: bool = False  # does not run on the whole of WikiText-2 test
    at_once: int = 1
    limit: int = 40


def static_losses(workplace: Workplace, streams: list[Stream], settings: list[Settings]) -> list[list[Losses]]:
    vocab = workplace.checkpoint.config.vocab_size
    return [[s.with_first(s.log_p, vocab) for s in streams] for _ in settings]


# Adapters: many settings and streams at once.


def adapter_losses(
    learner: Callable[..., adapters.Learner], workplace: Workplace, streams: list[Stream], settings: list[Settings]
) -> list[list[Losses]]:
    """Streams of one length run together; longer ones by themselves."""
    head = adapters.Head.of(workplace.checkpoint)
    out: list[list[Losses]] = [[np.zeros(0)] * len(streams) for _ in settings]
    for length in sorted({len(s.ids) for s in streams}):
        rows = [(i, j) for i in range(len(settings)) for j, s in enumerate(streams) if len(s.ids) == length]
        model = learner(head, [settings[i] for i, _ in rows])
        found = adapters.stream_losses(model, [streams[j].normed for _, j in rows], [streams[j].ids for _, j in rows])
        for (i, j), losses in zip(rows, found, strict=True):
            out[i][j] = losses
    return out


def adapter(form: str, learner: Callable[..., adapters.Learner], start: Settings, axes: Axes, **more: Any) -> Method:
    layers = more.pop("layers", 1)
    return Method(
        partial(adapter_losses, learner),
        lambda workplace, settings, stream: adapters.adapter_cost(workplace.checkpoint.config, form, layers),
        start,
        axes,
        statistics=True,
        at_once=more.pop("at_once", 8),
        **more,
    )


def stack(signal: str, layers: int, start: Settings, axes: Axes) -> Method:
    return adapter(signal, partial(adapters.Stack, layers=layers, signal=signal), start, axes, layers=layers)


# Dynamic evaluation.


def dynamic_run(kind: str, workplace: Workplace, stream: Stream, settings: Settings) -> dict[str, npt.NDArray[Any]]:
    """losses (n,) and normed (n - 1, d_model) of the adapting network."""
    network = Network(workplace.checkpoint)
    if kind == "lora":
        optimiser: dynamic.Optimiser = dynamic.LoRA(network, settings)
    else:
        rms = gradient_scale(workplace, settings["segment"]) if kind == "rms" else None
        optimiser = dynamic.Whole(network, settings, rms)
    losses, normed = dynamic.stream_losses(network, optimiser, stream.ids, settings["segment"])
    return {"losses": losses, "normed": normed}


def gradient_scale(workplace: Workplace, segment: int) -> FloatArray:
    """Root mean square gradients (parameters,) on the training text."""

    def make() -> dict[str, npt.NDArray[Any]]:
        return {"rms": dynamic.root_mean_square(workplace.checkpoint, workplace.training(), segment)}

    out: FloatArray = workplace.kept(
        lambda: workplace.stored(make, "rms", segment, TRAINING_TOKENS)["rms"], "rms", segment
    )
    return out


def dynamic_losses(
    kind: str, workplace: Workplace, streams: list[Stream], settings: list[Settings]
) -> list[list[Losses]]:
    return [[dynamic_run(kind, workplace, stream, s)["losses"] for stream in streams] for s in settings]


def dynamic_cost(kind: str, workplace: Workplace, settings: Settings, stream: Stream) -> Cost:
    c = workplace.checkpoint.config
    if kind == "lora":
        return dynamic.lora_cost(c, settings["segment"], settings["rank"])
    return dynamic.whole_cost(c, settings["segment"], kind == "rms", "clip" in settings)


def dynamic_method(kind: str, start: Settings, axes: Axes, limit: int, after: str | None = None) -> Method:
    losses, cost = partial(dynamic_losses, kind), partial(dynamic_cost, kind)
    return Method(losses, cost, start, axes, after=after, slow=True, limit=limit)


# Caches, mixed with the static model or with one that adapts.


@dataclass(frozen=True)
class Mixed:
    """A mixture of a model (static, or dynamic of a kind, tuned before under a name) with caches."""

    neural: bool
    ngram: bool
    model: tuple[str, str] | None = None  # kind and name

    def parts(self, workplace: Workplace, stream: Stream, s: Settings) -> mixture.Parts:
        log_p, normed = self._model(workplace, stream)
        components, bucket = [np.exp(log_p)], np.zeros(len(log_p), np.int64)
        if self.neural:
            components.append(self._neural(workplace, stream, normed, s))
        if self.ngram:
            counts = counted(workplace, stream, s["window"])
            vocab = workplace.checkpoint.config.vocab_size
            components.append(ngram.ngram_p(counts, s["discount"], s["concentration"], vocab))
            bucket = ngram.buckets(counts)
        return mixture.Parts(np.stack(components, 1), bucket)

    def _model(self, workplace: Workplace, stream: Stream) -> tuple[Losses, FloatArray]:
        if self.model is None:
            return stream.log_p, stream.normed[:-1]
        kind, name = self.model
        settings = workplace.chosen[name]

        def make() -> dict[str, npt.NDArray[Any]]:
            return workplace.stored(
                lambda: dynamic_run(kind, workplace, stream, settings), name, stream.name, json.dumps(settings)
            )

        run = workplace.kept(make, name, stream.name, json.dumps(settings))
        return -run["losses"][1:], run["normed"]

    def _neural(self, workplace: Workplace, stream: Stream, normed: FloatArray, s: Settings) -> mixture.Probabilities:
        t = workplace.checkpoint.tensors
        keys = cache.keys_of(normed, s["keys"], t["plastic.mean"], t["plastic.inverse_deviation"])
        key = ("cache", self.model, stream.name, s["keys"], s["theta"], s["states"])
        return np.asarray(workplace.kept(lambda: cache.cache_p(keys, stream.ids, s["theta"], s["states"]), *key))

    def complete(self, workplace: Workplace, streams: list[Stream], settings: Settings) -> Settings:
        """With the weights of the mixture, fitted to these streams."""
        parts = [self.parts(workplace, stream, settings) for stream in streams]
        weights = mixture.fit(parts, ngram.N_BUCKETS if self.ngram else 1)
        return settings | {"weights": [[float(f"{w:.5g}") for w in row] for row in weights]}

    def losses(self, workplace: Workplace, streams: list[Stream], settings: list[Settings]) -> list[list[Losses]]:
        vocab = workplace.checkpoint.config.vocab_size
        out = []
        for s in settings:
            weights = np.array(s["weights"])
            weights /= weights.sum(1, keepdims=True)
            parts = [self.parts(workplace, stream, s) for stream in streams]
            out.append(
                [
                    stream.with_first(mixture.log_p(p, weights, s["rate"]), vocab)
                    for stream, p in zip(streams, parts, strict=True)
                ]
            )
        return out

    def cost(self, workplace: Workplace, s: Settings, stream: Stream) -> Cost:
        c = workplace.checkpoint.config
        costs = [dynamic_cost(self.model[0], workplace, workplace.chosen[self.model[1]], stream)] if self.model else []
        if self.neural:
            costs.append(cache.cost(c, s["states"]))
        if self.ngram:
            costs.append(ngram.cost(counted(workplace, stream, s["window"])))
        return Cost(*(sum(getattr(x, name) for x in costs) for name in Cost.__dataclass_fields__))


def counted(workplace: Workplace, stream: Stream, window: int) -> ngram.Counts:
    counts: ngram.Counts = workplace.kept(lambda: ngram.count(stream.ids, window), "count", stream.name, window)
    return counts


NEURAL: Settings = {"keys": "standard", "theta": 14.0, "states": cache.STATES}
NGRAM: Settings = {"discount": 0.75, "concentration": 0.125, "window": 0}
NEURAL_AXES: Axes = {"theta": 1.5, "keys": ("normed", "standard")}
NGRAM_AXES: Axes = {"discount": (0.5, 0.75, 0.9), "concentration": 4.0}
WINDOWS = (2000, 5000, 10000, 0)


def mixed(
    neural: bool = False,
    ngram: bool = False,
    model: tuple[str, str] | None = None,
    after: str | None = None,
    rate: float = 0.0,
    fixed: Mapping[str, Any] | None = None,
    axes: Axes | None = None,
) -> Method:
    """A method that mixes: with weights fitted once, or (rate) following what each component proves worth."""
    m = Mixed(neural, ngram, model)
    start = (NEURAL if neural else {}) | (NGRAM if ngram else {}) | {"rate": rate} | dict(fixed or {})
    own: dict[str, Any] = dict(NEURAL_AXES if neural else {}) | dict(NGRAM_AXES if ngram else {})
    if ngram and "window" not in (fixed or {}):
        own["window"] = WINDOWS
    if rate:
        own["rate"] = 2.0
    return Method(m.losses, m.cost, start, own if axes is None else axes, m.complete, after, neural, bool(model))


ADAPTER_AXES: Axes = {"eta": 2.0, "decay": 4.0}
RMS, SGD = ("rms", "dynamic-rms"), ("sgd", "dynamic-sgd")

METHODS: dict[str, Method] = {
    "static": Method(static_losses, lambda workplace, settings, stream: Cost(0, 0), {}, {}),
    "neural-cache": mixed(neural=True),
    "neural-cache-following": mixed(neural=True, after="neural-cache", rate=0.04),
    "neural-cache-500": mixed(neural=True, fixed={"states": 500}),
    "ngram-cache": mixed(ngram=True),
    "ngram-cache-2000": mixed(ngram=True, fixed={"window": 2000}),
    "ngram-cache-following": mixed(ngram=True, after="ngram-cache", rate=0.04),
    "neural+ngram-cache": mixed(neural=True, ngram=True),
    "neural+ngram-cache-following": mixed(neural=True, ngram=True, after="neural+ngram-cache", rate=0.04),
    "backprop-adapter": adapter(
        "gained",
        adapters.GainedAdapter,
        {"eta": 1.5e-3, "decay": 2.5e-5, "eta_gain": 0.015, "eta_scale": 6e-4},
        {**ADAPTER_AXES, "eta_gain": 2.0, "eta_scale": 2.0},
        limit=18,
    ),
    "backprop-plain": stack("backprop", 1, {"eta": 1e-3, "decay": 1e-4, "initial": 0.0}, ADAPTER_AXES),
    "backprop-stack": stack("backprop", 4, {"eta": 5e-4, "decay": 1e-4, "initial": 0.0}, ADAPTER_AXES),
    "hebbian": stack(
        "hebbian",
        4,
        {"eta": 1e-4, "eta_global": 2.5e-5, "decay": 1e-3, "initial": 0.01},
        {"eta": 4.0, "eta_global": (2.5e-5, -2.5e-5, 1e-4, -1e-4, 4e-4, -4e-4, 0.0), "decay": 4.0, "initial": 2.0},
    ),
    "random-feedback": stack(
        "random",
        4,
        {"eta": 3e-5, "decay": 1e-4, "initial": 0.0},
        {"eta": 4.0, "decay": 4.0, "initial": (0.0, 0.01, 0.1)},
    ),
    "random-feedback-readout": adapter(
        "readout",
        adapters.Readout,
        {"eta": 1e-4, "eta_readout": 1e-3, "decay": 1e-4, "initial": 0.1},
        {"eta": 4.0, "eta_readout": 2.0, "decay": 4.0, "initial": 2.0},
        limit=70,
    ),
    "dynamic-head": adapter(
        "head", adapters.PlasticHead, {"eta": 1e-3, "decay": 1e-5}, {"eta": 2.0, "decay": 4.0}, at_once=4
    ),
    "dynamic-sgd": dynamic_method(
        "sgd", {"eta": 0.1, "decay": 1e-3, "segment": 16}, {"eta": 2.0, "decay": 4.0, "segment": (8, 16)}, 12
    ),
    "dynamic-sgd-clipped": dynamic_method("sgd", {"clip": 4.0}, {"eta": 2.0, "clip": 2.0}, 3, after="dynamic-sgd"),
    "dynamic-rms": dynamic_method(
        "rms",
        {"eta": 2e-4, "decay": 1e-4, "epsilon": 0.4, "segment": 16},
        {"eta": 2.0, "epsilon": 4.0, "decay": 4.0},
        6,
    ),
    "lora": dynamic_method(
        "lora", {"eta": 4.0, "decay": 1e-4, "rank": 4, "segment": 16}, {"eta": 2.0, "decay": 4.0}, 5
    ),
    "dynamic-sgd+neural-cache": mixed(neural=True, model=SGD),
    "dynamic-rms+neural-cache": mixed(neural=True, model=RMS),
    "dynamic-sgd+neural+ngram-cache": mixed(neural=True, ngram=True, model=SGD),
    "dynamic-sgd+neural+ngram-cache-following": mixed(
        neural=True, ngram=True, model=SGD, after="dynamic-sgd+neural+ngram-cache", rate=0.04
    ),
}
