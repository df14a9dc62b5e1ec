"""What tiles cost: energy, latency, share of converters, wear. Everything here is simulated, from a preset's parts."""

from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from edgehmn.targets.memristive.cells import WriteCounts
from edgehmn.targets.memristive.presets import Parts, Preset

DIGITAL_PJ_PER_MAC = 0.5  # int8 or int16, its memory included, 14 nm: estimate
DIGITAL_MACS_PER_NS = 64.0  # a unit of 64 lanes at 1 GHz beside the tiles: estimate
SECONDS_PER_YEAR = 365.25 * 86400
PARALLEL_CELLS = 128  # pairs of one word line that are written and verified together


@dataclass(frozen=True)
class Pass:
    """One product of a whole tile."""

    energy_pj: float
    adc_pj: float
    core_pj: float  # without the links of the chip around it
    latency_ns: float


def one_pass(parts: Parts, rows: int, columns: int, phases: int | None = None) -> Pass:
    """What a pass costs, whatever share of the tile is in use. phases: instead of those of the parts."""
    n = parts.phases if phases is None else phases
    adc = n * columns * parts.adc_pj
    core = adc + n * (rows * parts.dac_pj + parts.array_pj) + columns * parts.digital_pj
    return Pass(core + parts.link_pj, adc, core, parts.fixed_ns + n * parts.phase_ns)


@dataclass(frozen=True)
class TileUse:
    """What a run did on tiles. serial_passes: those that wait for one another; digital_macs: beside the tiles, which
    wait for them."""

    tokens: int
    learned: int
    passes: int
    serial_passes: int
    digital_macs: int
    digital_learning_macs: int
    writes: WriteCounts
    wear: npt.NDArray[np.uint32]  # pulses of every plastic cell

    def since(self, start: "TileUse") -> "TileUse":
        """What was done after `start`."""
        return TileUse(
            self.tokens - start.tokens, self.learned - start.learned, self.passes - start.passes,
            self.serial_passes - start.serial_passes, self.digital_macs - start.digital_macs,
            self.digital_learning_macs - start.digital_learning_macs, self.writes.since(start.writes),
            self.wear - start.wear,
        )  # fmt: skip


@dataclass(frozen=True)
class TileCost:
    """Simulated; `calibrated_to` says what pins the figures down. Per token: scoring and feeding; per learned token:
    that and learning. years: until the first cell, and one in a hundred, has had its pulses, at the stated use."""

    calibrated_to: str
    energy_nj_per_token: float
    energy_nj_per_learned_token: float
    latency_us_per_token: float
    latency_us_per_learned_token: float
    adc_share_of_energy: float
    plasticity_share_of_energy: float
    write_energy_nj_per_learned_token: float
    pulses_per_learned_token: float
    verify_reads_per_learned_token: float
    most_pulses_per_cell: int
    p99_pulses_per_cell: float
    years_to_first_worn_cell: float
    years_to_one_in_a_hundred: float
    tokens_per_day: float

    def as_dict(self) -> dict[str, str | int | float | None]:
        """For JSON: what is infinite is None."""
        return {k: None if v == float("inf") else v for k, v in asdict(self).items()}


def price(use: TileUse, preset: Preset, tokens_per_day: float = 20_000.0) -> TileCost:
    """Energy, latency and wear of a run."""
    one, cell, learned = one_pass(preset.parts, preset.rows, preset.columns), preset.cell, max(1, use.learned)
    tokens = max(1, use.tokens)
    forward = use.passes * one.energy_pj + use.digital_macs * DIGITAL_PJ_PER_MAC
    writing = use.writes.pulses * cell.pulse_pj + use.writes.verify_reads * cell.verify_pj
    learning = (writing + use.digital_learning_macs * DIGITAL_PJ_PER_MAC) / learned
    per_token = forward / tokens
    busy = (use.serial_passes * one.latency_ns + use.digital_macs / DIGITAL_MACS_PER_NS) / tokens
    learning_ns = use.digital_learning_macs / DIGITAL_MACS_PER_NS / learned
    rounds = (use.writes.pulses * cell.pulse_ns + use.writes.verify_reads * cell.verify_ns) / PARALLEL_CELLS / learned
    most, p99 = (float(use.wear.max()), float(np.percentile(use.wear, 99))) if use.wear.size else (0.0, 0.0)
    return TileCost(
        calibrated_to=f"simulated, calibrated to {preset.calibrated_to}",
        energy_nj_per_token=per_token / 1e3,
        energy_nj_per_learned_token=(per_token + (learning if use.learned else 0)) / 1e3,
        latency_us_per_token=busy / 1e3,
        latency_us_per_learned_token=(busy + (rounds + learning_ns if use.learned else 0)) / 1e3,
        adc_share_of_energy=use.passes * one.adc_pj / forward if forward else 0.0,
        plasticity_share_of_energy=learning / (per_token + learning) if use.learned else 0.0,
        write_energy_nj_per_learned_token=writing / learned / 1e3,
        pulses_per_learned_token=use.writes.pulses / learned,
        verify_reads_per_learned_token=use.writes.verify_reads / learned,
        most_pulses_per_cell=int(most),
        p99_pulses_per_cell=p99,
        years_to_first_worn_cell=_years(most, use.learned, cell.endurance, tokens_per_day),
        years_to_one_in_a_hundred=_years(p99, use.learned, cell.endurance, tokens_per_day),
        tokens_per_day=tokens_per_day,
    )


def _years(pulses: float, learned: int, endurance: float, tokens_per_day: float) -> float:
    """Until a cell that takes `pulses` in `learned` tokens has had `endurance`."""
    if pulses == 0 or learned == 0:
        return float("inf")
    return endurance / pulses * learned / tokens_per_day * 86400 / SECONDS_PER_YEAR
