"""One evaluation: of what, on which texts, how thoroughly, and where finished parts are kept."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgehmn.evaluate import Progress
from edgehmn.evaluation.sources import Sources
from edgehmn.evaluation.store import Store
from edgehmn.exported import Export

if TYPE_CHECKING:
    from edgehmn.targets.memristive.setup import TileSetup

ProgressBar = Callable[[str, int], AbstractContextManager[Progress]]


@dataclass(frozen=True)
class Options:
    """seeds: how many, from 0 on. tokens: at most so many of each text, None for all that the plan asks for. banks: of
    P2, beside one. bleu: people of P1 whose turns are continued. runtime to jobs: of P0; target: a tile;
    jobs: seeds of a tile at once."""

    seeds: int = 3
    tokens: int | None = None
    banks: int = 4
    bleu: int = 50
    runtime: str = "host"
    static_only: bool = False
    float_checkpoint: str | None = None
    target: str | None = None
    tiles: "TileSetup | None" = None
    jobs: int = 1


@dataclass(frozen=True)
class Run:
    """What every part of the plan is given."""

    export: Export
    sources: Sources
    options: Options
    store: Store
    progress_bar: ProgressBar
    note: Callable[[str], None]

    def limit(self, tokens: int) -> int:
        """A number of tokens of the plan, or what a short run makes of it."""
        return tokens if self.options.tokens is None else min(tokens, self.options.tokens)

    def per_seed(
        self, name: str, settings: dict[str, Any], compute: Callable[[int], dict[str, Any]]
    ) -> list[dict[str, Any]]:
        """The part of each seed."""

        def part(seed: int) -> dict[str, Any]:
            return self.store.part(f"{name}-{seed}", settings | {"seed": seed}, lambda: compute(seed))

        return [part(seed) for seed in range(self.options.seeds)]

    def missing(self, name: str, settings: dict[str, Any]) -> int:
        """How many parts `per_seed` would have to compute."""
        return sum(not self.store.has(f"{name}-{i}", settings | {"seed": i}) for i in range(self.options.seeds))
