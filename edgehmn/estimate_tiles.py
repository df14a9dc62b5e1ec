"""What a token costs on simulated memristive tiles, beside the estimates of boards.

Nothing is predicted by a formula: a short text is run on the tiles, its writes and passes are counted, and the parts of
the preset price them.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgehmn.errors import UnsupportedError
from edgehmn.exported import Export
from edgehmn.runtime.tile import EncoderUse, TileRuntime
from edgehmn.streams import LEARN, HiddenStream, Ids, play
from edgehmn.targets.memristive.energy import DIGITAL_MACS_PER_NS, TileCost, one_pass, price
from edgehmn.targets.memristive.mapping import TileSetup
from edgehmn.targets.memristive.presets import PRESETS, Preset
from edgehmn.texts import EVALUATION, shipped
from edgehmn.workload import Operation, Workload

KIND = "simulated tile"
SIMULATED_MACS = 8e8  # about as many are spent on the run that is counted
MOST_TOKENS, LEAST_TOKENS = 600, 32
SETTLING = 8  # tokens whose converters still find their range
CHARACTERS = 8  # more than a token has
# By how much a figure may be off, with 90 %: parts calibrated to one figure of HERMES predict its core within 25 %;
# what is summed from published or plausible parts has nothing to be checked against.
CALIBRATED_FACTOR, SUMMED_FACTOR = 1.25, 3.0
SHARED = {"q": 3, "k": 3, "v": 3, "gate": 2, "up": 2}  # matrices that one pass computes side by side


@dataclass(frozen=True)
class TileProfile:
    """One kind of tile. ms: of each operation of the workload."""

    preset: Preset
    setup: TileSetup
    tiles: int
    learns: bool
    counted: int  # tokens
    cost: TileCost
    ms: tuple[float, ...]

    @property
    def factor(self) -> float:
        calibrated = self.preset.calibrated_to.startswith("HERMES")
        return CALIBRATED_FACTOR if calibrated else SUMMED_FACTOR


def is_tile(name: str) -> bool:
    """Whether a target is a tile, with or without "tile-" before its name."""
    return name.removeprefix("tile-") in PRESETS


def tile_profile(
    folder: Path, workload: Workload, target: str, setup: TileSetup | None, learned_per_day: float
) -> TileProfile:
    """Of an export. Raises UnsupportedError for anything else, UsageError as TileSetup.of."""
    if not workload.own:
        raise UnsupportedError(f"{target}: tiles hold exports of edgehmn; profile the export folder, not a network")
    setup = setup or TileSetup()
    preset = setup.of(target)
    export = Export.open(folder)
    n = int(min(MOST_TOKENS, max(LEAST_TOKENS, SIMULATED_MACS / max(1, workload.macs))))
    ids = export.encode(shipped(EVALUATION)[: CHARACTERS * 2 * n])[: n + SETTLING]
    runtime = TileRuntime(export.image, preset, setup)
    runtime.encoded_by(_encoding(export, preset, setup, ids[: SETTLING + LEAST_TOKENS], workload))
    stream = HiddenStream.encode(export.image, ids)
    play(runtime, stream, 0, SETTLING, mode=LEARN)
    start = runtime.use()
    play(runtime, stream, SETTLING, mode=LEARN)
    cost = price(runtime.use().since(start), preset, max(learned_per_day, 1e-9))
    learns = runtime.counts().learned > 0
    ms = tuple(_ms(o, preset, setup) for o in workload.operations)
    return TileProfile(preset, setup, runtime.tiles, learns, len(ids) - SETTLING, cost, ms)


def _encoding(export: Export, preset: Preset, setup: TileSetup, ids: Ids, workload: Workload) -> EncoderUse:
    """What encoding a token takes: counted where it lies on tiles, else the multiply-accumulates of a token."""
    if setup.mapping == "adapters":
        return EncoderUse(0.0, float(sum(o.macs for o in workload.operations if o.name != "head")))
    runtime = TileRuntime(export.image, preset, TileSetup("encoder", setup.cell_bits))
    runtime.encode_stream(ids[:SETTLING])
    start = runtime.use()
    runtime.encode_stream(ids[SETTLING:])
    use = runtime.use().since(start)
    attention = sum(o.macs for o in workload.operations if o.kind == "attention")  # of a full window
    return EncoderUse(use.passes / use.tokens, float(attention))


def _ms(o: Operation, preset: Preset, setup: TileSetup) -> float:
    """Of one operation of the frozen model."""
    if o.kind != "fc" or setup.mapping == "adapters":
        return o.macs / DIGITAL_MACS_PER_NS * 1e-6
    one = one_pass(preset.parts, preset.rows, preset.columns)
    return one.latency_ns * preset.converters.input_slices / SHARED.get(_role(o.name), 1) * 1e-6


def _role(name: str) -> str:
    """q, k, v, ... of "layer 3 q" and "layer 3 q, again"."""
    return name.removesuffix(", again").rpartition(" ")[2]


def facts(name: str) -> dict[str, Any]:
    """What `targets` says of a tile."""
    preset = PRESETS[name.removeprefix("tile-")]
    return {
        "name": preset.name, "title": f"simulated memristive tiles, {preset.rows} x {preset.columns}", "kind": KIND,
        "known_from": f"simulated, calibrated to {preset.calibrated_to}", "hardware_run": False,
    }  # fmt: skip


def parameters(name: str) -> dict[str, Any]:
    """Everything that is known of a tile."""
    preset = PRESETS[name.removeprefix("tile-")]
    kinds = {"noise": preset.cell.noise, "law": preset.cell.update.law}
    return asdict(preset) | {key: type(value).__name__ for key, value in kinds.items()}
