"""The whole of a tuning: search the tuned halves of some texts, judge what was found on both halves."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgehmn.core import Image
from edgehmn.errors import UsageError
from edgehmn.evaluate import Progress, no_progress
from edgehmn.files import read_text, sha256
from edgehmn.image import with_rule
from edgehmn.plasticity import Rule
from edgehmn.rules import read_rule
from edgehmn.streams import HiddenStream
from edgehmn.tuning.evolution import cma_es
from edgehmn.tuning.objective import OnlineLoss
from edgehmn.tuning.parameters import Space
from edgehmn.tuning.random_search import random_search
from edgehmn.tuning.search import Coordinates, Found, Objective
from edgehmn.tuning.spsa import spsa

METHODS = ("spsa", "random_search", "cma")
META_RATE = 0.1  # first step of SPSA in every coordinate: a tenth of a strength
JUDGING_SEEDS = (2**31, 2**31 + 1)  # draws that no search has seen
CHARACTERS_PER_TOKEN = 16  # more than any text needs
FEWEST_TOKENS = 32


@dataclass(frozen=True)
class Text:
    """The beginning of a file: tokens that are tuned on, and as many after them that are held out."""

    name: str
    sha256: str
    tuned: npt.NDArray[np.int32]
    held_out: npt.NDArray[np.int32]

    def as_dict(self) -> dict[str, Any]:
        return {
            "file": self.name, "sha256": self.sha256, "tokens": len(self.tuned), "held_out_tokens": len(self.held_out),
        }  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """How to search. budget: evaluations of each method. meta_rates: first step of SPSA for eta_local and eta_global
    (the paper's dual meta-learning), all others take META_RATE. stability: see OnlineLoss."""

    methods: tuple[str, ...] = ("spsa", "random_search")
    budget: int = 60
    seed: int = 0
    meta_rates: tuple[float, float] = (META_RATE, META_RATE)
    stability: float = 0.0


@dataclass(frozen=True)
class Candidate:
    """A rule and its mean nats per token on the tuned and on the held-out halves, with draws new to all."""

    rule: Rule
    loss: float
    held_out: float

    def as_dict(self) -> dict[str, float]:
        return {"loss": self.loss, "held_out_loss": self.held_out}


@dataclass(frozen=True)
class Tuning:
    """What came of it. best: "start" or the method whose rule has the least loss on the tuned halves."""

    space: Space
    texts: tuple[Text, ...]
    settings: Settings
    start: Candidate
    found: dict[str, Candidate]
    losses: dict[str, tuple[float, ...]]  # of every evaluation, by method

    @property
    def best(self) -> str:
        candidates = {"start": self.start} | self.found
        return min(candidates, key=lambda name: candidates[name].loss)

    @property
    def chosen(self) -> Candidate:
        return ({"start": self.start} | self.found)[self.best]

    def as_dict(self) -> dict[str, Any]:
        """`random_search`, `spsa` and `cma` are there when they were run; what a method has not found is None."""
        return {
            "start": self.start.as_dict() | {"parameters": self.space.values(self.start.rule)},
            "best": {"method": self.best} | self.chosen.as_dict(),
            **{m: self.found[m].as_dict() if m in self.found else None for m in METHODS},
            "parameters": self.space.values(self.chosen.rule),
            "evaluations": {m: len(v) for m, v in self.losses.items()},
            "tuned_on": [t.as_dict() for t in self.texts],
            "seed": self.settings.seed,
            "meta_rates": dict(zip(("eta_local", "eta_global"), self.settings.meta_rates, strict=True)),
            "stability": self.settings.stability,
        }


def read_halves(path: Path, encode: Callable[[str], npt.NDArray[np.int32]], tokens: int) -> Text:
    """The first `tokens` of a UTF-8 file (or as many as it has), in halves. Raises UsageError if that is too little."""
    text = read_text(path)
    ids = encode(text[: CHARACTERS_PER_TOKEN * tokens])[:tokens]
    if len(ids) < FEWEST_TOKENS:
        raise UsageError(f"{path}: {len(ids)} tokens are too few to tune on; give at least {FEWEST_TOKENS}")
    half = len(ids) // 2
    return Text(path.name, sha256(text.encode()), ids[:half], ids[half : 2 * half])


def evaluations(settings: Settings) -> int:
    """How often a tuning evaluates: what `tune` tells its progress of."""
    return settings.budget * len(settings.methods) + 2 * len(JUDGING_SEEDS) * (1 + len(settings.methods))


def encode_texts(image: Image, texts: Sequence[Text], progress: Progress = no_progress) -> list[list[HiddenStream]]:
    """The tuned and the held-out half of every text, each from an empty context; progress counts tokens."""
    halves = ([t.tuned for t in texts], [t.held_out for t in texts])
    return [[HiddenStream.encode(image, ids, progress) for ids in half] for half in halves]


def tune(
    image: Image, space: Space, texts: Sequence[Text], streams: list[list[HiddenStream]], settings: Settings,
    progress: Progress = no_progress,
) -> Tuning:  # fmt: skip
    """Search `space` with every method of `settings`. streams: as encode_texts gives them; progress counts evaluations.

    Raises DependencyError where cma is asked for and missing.
    """
    data = image.bytes.tobytes()
    tuned, held_out = (OnlineLoss(lambda r: Image(with_rule(data, r)), s, settings.stability) for s in streams)

    def objective(at: Coordinates, seed: int) -> float:
        loss = tuned(space.rule_at(at), seed)
        progress(1)
        return loss

    def judge(rule: Rule) -> Candidate:
        losses = []
        for half in (tuned, held_out):
            losses.append([half(rule, seed) for seed in JUDGING_SEEDS])
            progress(len(JUDGING_SEEDS))
        return Candidate(read_rule(Image(with_rule(data, rule))), *np.mean(losses, axis=1).tolist())

    start = judge(space.rule)
    found, losses = {}, {}
    for method in settings.methods:
        result = _search(method, objective, space, settings)
        found[method], losses[method] = judge(space.rule_at(result.best)), result.losses
    return Tuning(space, tuple(texts), settings, start, found, losses)


def _search(method: str, objective: Objective, space: Space, settings: Settings) -> Found:
    if method == "random_search":
        return random_search(objective, space.box, settings.budget, settings.seed)
    if method == "cma":
        return cma_es(objective, space.box, settings.budget, settings.seed)
    rates = dict(zip(("eta_local", "eta_global"), settings.meta_rates, strict=True))
    first_step = np.array([rates.get(name, META_RATE) for name in space.names])
    return spsa(objective, space.box, settings.budget, settings.seed, first_step=first_step)
