"""How a model lies on tiles and how its plastic weights are written; what cannot be is refused before it runs."""

from dataclasses import dataclass, replace

from edgehmn.errors import UsageError
from edgehmn.targets.memristive.presets import Preset, preset
from edgehmn.targets.memristive.writes import OPEN_LOOP, SCHEMES, THRESHOLDS

MAPPINGS = ("all", "encoder", "adapters")  # what lies on tiles; the head counts as part of the encoder
MAX_CELL_BITS = 7  # of a magnitude: the whole of an 8-bit weight


@dataclass(frozen=True)
class TileSetup:
    """cell_bits: of a weight's magnitude that one cell holds, 0: all of it, in an analog value; None: as the preset.
    writes: one of SCHEMES; threshold: in steps, None: that of the scheme. fill: plastic weights have copies where their
    tiles would stand empty, as frozen ones always do; each is written."""

    mapping: str = "all"
    cell_bits: int | None = None
    writes: str = "verify"
    threshold: float | None = None
    fill: bool = False

    def of(self, target: str | Preset) -> Preset:
        """The preset with these cells. Raises UsageError for names that are not known and for what does not go
        together."""
        chosen = preset(target) if isinstance(target, str) else target
        if self.mapping not in MAPPINGS:
            raise UsageError(f"no mapping is called '{self.mapping:.40}': there are {', '.join(MAPPINGS)}")
        if self.writes not in SCHEMES:
            raise UsageError(f"no write scheme is called '{self.writes:.40}': there are {', '.join(SCHEMES)}")
        if self.cell_bits is not None:
            chosen = _with_bits(chosen, self.cell_bits)
        if self.threshold is not None and self.writes not in THRESHOLDS:
            raise UsageError(f"--write-threshold goes with --writes {' or '.join(THRESHOLDS)}, not '{self.writes}'")
        if self.mapping != "encoder" and chosen.slice_bits and self.writes in OPEN_LOOP:
            raise UsageError(
                f"--writes {self.writes} sends pulses to analog cells, but a weight lies in slices of "
                f"{chosen.slice_bits} bits: use --writes verify or --cell-bits 0"
            )
        return chosen


def _with_bits(chosen: Preset, bits: int) -> Preset:
    """The preset with so many bits in a cell. Cells that can be set to few levels cannot hold more."""
    if not 0 <= bits <= MAX_CELL_BITS:
        raise UsageError(f"--cell-bits must lie in 0..{MAX_CELL_BITS}, not {bits}")
    levels = chosen.cell.levels
    if levels and (bits == 0 or 1 << bits > levels):
        raise UsageError(
            f"cells of '{chosen.name}' have {levels} levels, too few for "
            f"{f'{bits} bits' if bits else 'analog values'}: --cell-bits {levels.bit_length() - 1} or fewer"
        )
    cell = replace(chosen.cell, levels=1 << bits) if bits else chosen.cell
    return replace(chosen, cell=cell, slice_bits=bits)
