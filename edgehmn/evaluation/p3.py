"""P3: what learning costs, beside predicting: operations, writes, memory, instructions, and energy by a model.

Plasticity is what a learned token has beyond one that is only predicted with what was learned: the sparse updates and
what decides on them. What adapters and memories add to a prediction is told apart: a device that has learned pays for
it whether it goes on learning or not.
"""

from dataclasses import replace
from typing import Any

from edgehmn.core import CoreModel, Image, ffi, lib
from edgehmn.errors import DependencyError
from edgehmn.evaluation.run import Run
from edgehmn.evaluation.store import digest_of
from edgehmn.image import with_rule
from edgehmn.planning import plan
from edgehmn.plasticity import Rule
from edgehmn.runtime.select import DEFAULT_BOARD, open_emulator
from edgehmn.streams import Ids
from edgehmn.texts import EVALUATION, shipped

TOKENS = 4_000  # counted on the host; as many are learned before, so that the memories are full
EMULATED = 300  # tokens, after as many
PROTOCOL = 1

# Nucleo-L4R5ZI, Cortex-M4F at 120 MHz: 29.20701 mJ in 704.2254 ms, measured by MLPerf Tiny v0.5 (image classification,
# closed division, reference submission, energy). One instruction is taken as one cycle, the least that it needs, so
# energies are lower bounds; their ratios do not depend on it.
BOARD = "Nucleo-L4R5ZI, Cortex-M4F at 120 MHz"
NANOJOULES_PER_CYCLE = 29.20701e6 / (704.2254e-3 * 120e6)
SOURCE = "MLPerf Tiny v0.5, closed/reference/results/Nucleo-L4R5ZI/ic/energy; one cycle per instruction"


def p3(run: Run) -> dict[str, Any]:
    """Counted on the text that ships with the package; no --data is needed. Instructions and energy are null where no
    board can be emulated."""
    text = shipped(EVALUATION)
    ids = run.export.encode(text)[: run.limit(TOKENS)]
    settings = {"plan": "p3", "protocol": PROTOCOL, "text": digest_of(text)}
    work = 4 * len(ids) * run.missing("p3", settings | {"tokens": len(ids)})
    with run.progress_bar("p3", work) as progress:

        def count(seed: int) -> dict[str, Any]:
            progress(4 * len(ids))
            return _count(run.export.image, ids, seed)

        host = run.per_seed("p3", settings | {"tokens": len(ids)}, count)
    macs = {k: sum(h["macs"][k] for h in host) / len(host) for k in host[0]["macs"]}
    out: dict[str, Any] = {
        "macs_per_token": macs,
        "macs_added_percent": 100 * (macs["learned"] / macs["static"] - 1),
        **{f"{part}_of_macs": share for part, share in shares(macs).items()},
        "writes_per_learned_token": sum(h["writes_per_learned_token"] for h in host) / len(host),
        "bytes": _bytes(run.export.image, run.options.banks),
        "seeds": [{"seed": i, **h} for i, h in enumerate(host)],
        "interval_95": None,  # counted: the same in every run
        "emulated": None,
        "energy_modelled": None,
    }
    few = ids[: 2 * min(EMULATED, len(ids) // 2)]
    of = settings | {"tokens": len(few), "board": DEFAULT_BOARD}
    try:
        emulated = run.store.part("p3-emulated", of, lambda: count_on_board(run.export.image, few))
    except DependencyError as e:
        run.note(f"p3: no instructions are counted: {e}")
        return out
    return out | {"emulated": emulated, "energy_modelled": _energy(emulated)}


def shares(cost: dict[str, float]) -> dict[str, float]:
    """Of the cost of a learned token, from those of a static, a predicted and a learned one."""
    return {
        "plasticity_share": 1 - cost["predicted"] / cost["learned"],
        "adapters_share": (cost["predicted"] - cost["static"]) / cost["learned"],
    }


def _count(image: Image, ids: Ids, seed: int) -> dict[str, Any]:
    """Per token, by the core's own counters: the frozen model, predicting with what was learned, and learning too."""
    static = CoreModel(image, plastic=False)
    static.process(ids, learn=False)
    model = CoreModel(image, seed=seed)
    model.process(ids, learn=True)
    start = model.counts()
    model.process(ids, learn=True)
    learned = model.counts()
    model.process(ids, learn=False)
    predicted = model.counts()
    n = len(ids)
    macs = (static.counts().macs, predicted.macs - learned.macs, learned.macs - start.macs)
    return {
        "macs": dict(zip(("static", "predicted", "learned"), (m / n for m in macs), strict=True)),
        "writes_per_learned_token": (learned.writes - start.writes) / max(1, learned.learned - start.learned),
    }


def _bytes(image: Image, banks: int) -> dict[str, int]:
    """What must be kept where: arenas in RAM, a delta for each saved state, banks wherever there is room."""
    sizes = plan(image)
    of_banks = ffi.new("uint32_t *")
    has_banks = banks > 1 and lib.ehmn_banks_bytes(image.pointer, banks, of_banks) == lib.EHMN_OK
    return {
        "arena_static": sizes["arena_static_bytes"],
        "arena_plastic": sizes["arena_bytes"],
        "arena_added": sizes["arena_bytes"] - sizes["arena_static_bytes"],
        "delta": sizes["delta_bytes"],
        f"banks_{banks}": int(of_banks[0]) if has_banks else 0,
    }


def frozen_image(image: Image) -> Image:
    """The same model with nothing plastic in its head: what a board runs that does not learn."""
    rule = replace(
        Rule(), rho_trace=(), row_slots=(0, 0), bias_step=0.0, ngram_slots=0, episodes=0, eta_scale=0.0,
        topic_limit=0.0, guard_limit=0.0,
    )  # fmt: skip
    return Image(with_rule(image.bytes.tobytes(), rule))


def count_on_board(image: Image, ids: Ids, board: str = DEFAULT_BOARD) -> dict[str, Any]:
    """Instructions per token on an emulated board, in the second half of `ids`."""
    static, _ = _instructions(frozen_image(image), ids, board, learn=False)
    predicted, learning = _instructions(image, ids, board, learn=True)
    learned = predicted + learning
    return {
        "board": board,
        "instructions_per_token": {"static": static, "predicted": predicted, "learned": learned},
        **shares({"static": static, "predicted": predicted, "learned": learned}),
    }


def _instructions(image: Image, ids: Ids, board: str, *, learn: bool) -> tuple[float, float]:
    """Per token: for scoring and feeding it, and for learning it."""
    half = len(ids) // 2
    with open_emulator(image, board) as runtime:
        runtime.process(ids[:half], learn=learn)
        start = runtime.counts()
        runtime.process(ids[half:], learn=learn)
        end = runtime.counts()
    n = end.steps - start.steps
    step = (end.step_instructions or 0) - (start.step_instructions or 0)
    learning = (end.learn_instructions or 0) - (start.learn_instructions or 0)
    return step / n, learning / n


def _energy(emulated: dict[str, Any]) -> dict[str, Any]:
    """Modelled, not measured: instructions times the energy of a cycle."""
    per_token = emulated["instructions_per_token"]
    return {
        "board": BOARD,
        "source": SOURCE,
        "nanojoules_per_instruction": NANOJOULES_PER_CYCLE,
        "millijoules_per_token": {k: v * NANOJOULES_PER_CYCLE * 1e-6 for k, v in per_token.items()},
        **shares(per_token),
    }
