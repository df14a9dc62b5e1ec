"""The whole loop once: export, run on an emulated board, personalise there, save, power-cycle, still know it."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgehmn.checkpoint import REFERENCE, read_checkpoint
from edgehmn.core import CoreModel
from edgehmn.device.emulator import needs_of
from edgehmn.errors import EdgeHMNError
from edgehmn.evaluate import Progress, score_stream
from edgehmn.export.pipeline import ExportResult, Settings, export_model
from edgehmn.exported import Export
from edgehmn.learn import Personalisation, personalise
from edgehmn.planning import plan
from edgehmn.runtime.protocol import perplexity
from edgehmn.runtime.select import DEFAULT_BOARD, open_emulator
from edgehmn.states import save
from edgehmn.texts import EVALUATION, PERSONAL, shipped

HOST_TOKENS = 512
ProgressBar = Callable[[str, int], AbstractContextManager[Progress]]


@dataclass(frozen=True)
class Demonstration:
    """What each station of the loop measured."""

    export: ExportResult
    memory: dict[str, Any]
    host_tokens_per_s: float
    personalisation: Personalisation
    state: Path
    after_power_cycle: float

    @property
    def instructions_per_token(self) -> float:
        """Feeding and scoring one token on the emulated board."""
        return (self.personalisation.learning.step_instructions or 0) / self.personalisation.learning.steps

    @property
    def instructions_per_learned_token(self) -> float:
        """The same, and learning it."""
        learning = self.personalisation.learning
        return self.instructions_per_token + (learning.learn_instructions or 0) / learning.learned

    def as_dict(self) -> dict[str, Any]:
        p = self.personalisation
        return {
            "export": self.export.as_dict(),
            "plan": self.memory,
            "host": {"tokens_per_s": self.host_tokens_per_s},
            "emulator": {
                "instructions_per_token": self.instructions_per_token,
                "instructions_per_learned_token": self.instructions_per_learned_token,
            },
            "before": {"perplexity": p.before},
            "unigram_cache": {"perplexity": p.unigram_cache},
            "after": {"perplexity": p.after},
            "after_power_cycle": {"perplexity": self.after_power_cycle},
            "saved": str(self.state),
        }


def export_reference(folder: Path, report: Callable[[str], None]) -> ExportResult:
    return export_model(
        lambda: read_checkpoint(REFERENCE), folder, Settings(evaluation_text=shipped(EVALUATION)), report
    )


def host_speed(export: Export, ids: npt.NDArray[np.int32]) -> float:
    """Tokens per second on this host, without learning."""
    model = CoreModel(export.image, plastic=False)
    began = time.perf_counter()
    model.process(ids[:HOST_TOKENS], learn=False)
    return HOST_TOKENS / (time.perf_counter() - began)


def demonstrate(folder: Path, report: Callable[[str], None], progress_bar: ProgressBar) -> Demonstration:
    """Run the loop with the reference model in `folder`. Raises if what was learned did not survive."""
    needs_of(DEFAULT_BOARD)  # what is missing is said before all that needs nothing of it
    result = export_reference(folder, report)
    export = Export.open(folder)
    ids = export.encode(shipped(PERSONAL))
    second = ids[len(ids) // 2 :]
    speed = host_speed(export, ids)
    report("starting an emulated Cortex-M4 (QEMU mps2-an386) and personalising on it")
    with open_emulator(export.image) as board, progress_bar("on the board", len(ids) * 3 // 2) as progress:
        outcome = personalise(board, ids, progress=progress)
    state = save(str(folder.parent / "demo.ehmd"), outcome.delta)
    report("the emulator has ended; starting a new one and loading what was learned")
    with open_emulator(export.image) as board, progress_bar("on the new board", len(second)) as progress:
        board.load(state.read_bytes())
        again = perplexity(score_stream(board, second, learn=False, follow=True, progress=progress))
    if again != outcome.after:
        raise EdgeHMNError(f"perplexity after the power cycle is {again}, it was {outcome.after}")
    return Demonstration(result, plan(export.image), speed, outcome, state, again)
