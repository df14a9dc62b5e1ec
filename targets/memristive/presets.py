"""Tiles of the literature. Conductances in uS, energies in pJ, times in ns; each preset says where it comes from.

Fields marked "estimate" in a source are plausible parts that no publication pins down.
"""

from dataclasses import dataclass, replace

from edgehmn.errors import no_such
from edgehmn.targets.memristive.noise import Hermes, NoiseModel, Pcm, Polynomial
from edgehmn.targets.memristive.steps import Constant, Exponential, SoftBounds, Update


@dataclass(frozen=True)
class Cell:
    """One device. offset: a weight is one cell, less a reference column half way that all share, instead of a pair.
    levels: that can be programmed, 0 for any conductance. stuck: share of cells that stay at g_min, and
    at g_max. verify_pulses: mean number of write-verify pulses. endurance: pulses that a cell bears."""

    g_max: float
    g_min: float
    noise: NoiseModel
    update: Update
    levels: int = 0
    stuck: tuple[float, float] = (0.0, 0.0)
    verify_pulses: float = 1.0
    most_verify_pulses: int = 30
    pulse_pj: float = 10.0
    pulse_ns: float = 100.0
    verify_pj: float = 5.0
    verify_ns: float = 100.0
    endurance: float = 1e6
    offset: bool = False
    compensated: bool = False  # drift: each array's mean is read and divided out in the digital part


@dataclass(frozen=True)
class Converters:
    """dac_bits, adc_bits: signed, 0 for none; input_slices: passes that one input is streamed in, each with
    dac_bits of magnitude if there are several. bound: largest output, in units of (largest input) (largest weight); 0:
    found as outputs come, so that none clips. noise: of an output before its conversion, in steps of the converter."""

    dac_bits: int = 0
    adc_bits: int = 0
    input_slices: int = 1
    bound: float = 0.0
    noise: float = 0.0


@dataclass(frozen=True)
class Parts:
    """What one pass of a whole tile costs, converters of unused columns included. phases: reads of one pass.
    fixed_*: once for each pass."""

    dac_pj: float  # for each row and phase
    adc_pj: float  # for each column and phase
    array_pj: float  # for each phase
    digital_pj: float  # for each column, fixed
    link_pj: float  # of the chip around the core, fixed
    phase_ns: float
    fixed_ns: float = 0.0
    phases: int = 1


@dataclass(frozen=True)
class Preset:
    """A kind of tile. slice_bits: magnitude of a weight that one cell holds, 0: all of it. wire_ohm: between cells."""

    name: str
    rows: int
    columns: int
    cell: Cell
    converters: Converters
    parts: Parts
    calibrated_to: str
    source: str
    slice_bits: int = 0
    wire_ohm: float = 0.0
    chip_tiles: int = 0  # of the published chip, 0: there is none


# Parts of the HERMES core. Calibrated: their sum is 13.4 nJ for one one-phase pass. Array: 65,536 pairs of 10 uS,
# 0.2 V, a quarter of 133 ns. Link: 512 bytes at 1 pJ. Drivers 1 pJ a row, digital 2 pJ a column. Converters: the rest.
HERMES_PARTS = Parts(
    dac_pj=1.0, adc_pj=43.9, array_pj=872.0, digital_pj=2.0, link_pj=512.0, phase_ns=129.0, fixed_ns=4.0
)
# A simulated tile without figures of its own: converters of ISAAC, 1.6 pJ for 8 bits, drivers and digital of HERMES.
GENERIC_PARTS = Parts(
    dac_pj=1.0, adc_pj=1.6, array_pj=300.0, digital_pj=2.0, link_pj=512.0, phase_ns=100.0, fixed_ns=4.0
)
UNCALIBRATED = "nothing: energy from parts"
IO_8 = Converters(dac_bits=8, adc_bits=8, noise=0.5)
ONE_STEP = Update(Constant(), 1 / 127)
PCM_STEPS = Update(  # aihwkit's PCM preset: pulses only raise a conductance, a RESET takes it back
    Exponential(-27.235, 0.0, 2.5, 0.0, -1.0, 0.0),
    0.01 / 2,
    highest=1.0,
    lowest=0.0,
    step_spread=0.2,
    bound_spread=(0.1, 0.0),
    cycle=0.6,
    one_sided=True,
)
RERAM_SB = Update(
    SoftBounds(),
    0.002,
    highest=1.25,
    lowest=-0.75,
    step_spread=0.3,
    bound_spread=(0.24, 0.4),
    cycle=3.75,
    write_noise=56.0,
)
RERAM_ES = Update(
    Exponential(-1.18445, -0.081404, 5.0, 5.0, -0.5, -0.5),
    0.00135,
    up_down=0.259,
    step_spread=0.2,
    bound_spread=(0.3, 0.3),
    cycle=5.0,
    write_noise=75.0,
)
RERAM_HFO2 = Update(
    SoftBounds(),
    0.4622,
    step_spread=0.7125,
    bound_spread=(0.43, 0.60),
    log_normal=True,
    cycle=0.217,
    write_noise=0.584,
)
RERAM_OM = Update(
    SoftBounds(),
    0.0949,
    step_spread=0.783,
    bound_spread=(0.35, 0.57),
    log_normal=True,
    cycle=0.416,
    write_noise=1.41,
)
# Written cells 2 % of the range, reads 1 % of it: estimates. The two-day fit of NeuRRAM stands in its own preset.
HFO2 = Cell(25.0, 1.0, Polynomial((0.5,), read_floor=0.25), RERAM_SB, verify_pulses=8.5, endurance=1e7)
BARE = replace(HFO2, noise=Polynomial(), update=ONE_STEP)
PCM = Cell(
    25.0, 0.0, Pcm(), PCM_STEPS, verify_pulses=8.5, pulse_pj=20.0, verify_ns=130.0, endurance=1e8, compensated=True
)
WAN = Polynomial((0.782, 20.274, -43.507, 37.062, -11.934), 40.0, read_floor=0.4)
LOW_WIRE_OHM = 0.35

IDEAL = Preset(
    "ideal",
    256,
    256,
    replace(BARE, g_min=0.0, verify_pulses=1.0),
    Converters(),
    HERMES_PARTS,
    "HERMES one-phase (energy), nothing else",
    "no non-ideality: integer products are exact",
)
HERMES = Preset(
    "hermes",
    256,
    256,
    replace(PCM, g_max=20.7, noise=Hermes()),
    IO_8,
    replace(HERMES_PARTS, phases=4),
    "HERMES, four-phase",
    "nature s41928-023-01010-1; aihwkit HermesNoiseModel, two devices; pulses: aihwkit PCM; their energy: estimate",
    wire_ohm=LOW_WIRE_OHM,
    chip_tiles=64,
)
NEURRAM = Preset(
    "neurram",
    256,
    256,
    replace(HFO2, g_max=40.0, noise=WAN, verify_pulses=8.52),
    IO_8,
    GENERIC_PARTS,
    "NeuRRAM (conductances); energy from parts, not calibrated",
    "nature s41586-022-04992-8; aihwkit ReRamWan2022 after two days; pulses: ReRamSB; energies: estimate",
    wire_ohm=LOW_WIRE_OHM,
    chip_tiles=48,
)
ISAAC = Preset(
    "isaac",
    128,
    128,
    replace(BARE, g_max=500.0, g_min=0.5, levels=4, verify_pulses=4.0),
    Converters(dac_bits=1, adc_bits=9, input_slices=15),
    replace(GENERIC_PARTS, array_pj=30.0),
    "ISAAC's published parts",
    "ISCA 2016, as in CrossSim ISAAC.json and PUMA constants.py: 2 kOhm to 2 MOhm; one-bit inputs",
    slice_bits=2,
)
PRIME = Preset(
    "prime",
    256,
    256,
    replace(BARE, g_max=1000.0, g_min=50.0, levels=16, verify_pulses=4.0),
    Converters(dac_bits=3, adc_bits=6, input_slices=2),
    GENERIC_PARTS,
    UNCALIBRATED,
    "ISCA 2016, as in CrossSim PRIME.json: 1 to 20 kOhm",
    slice_bits=4,
)


def _array(name: str, cell: Cell, source: str) -> Preset:
    """An array of cells of the literature behind 8-bit converters."""
    return Preset(name, 256, 256, cell, IO_8, GENERIC_PARTS, UNCALIBRATED, source, wire_ohm=LOW_WIRE_OHM)


# Write-verify of an array whose every touch re-draws a weight with standard deviation write_noise x step, 0.27 and 0.13
# of half the range: until a draw lies within 2 % of the range, 8.5 and 4.3 pulses on average.
STUCK = (0.0025, 0.0025)
PRESETS = {
    p.name: p
    for p in (
        IDEAL,
        HERMES,
        NEURRAM,
        ISAAC,
        PRIME,
        replace(
            _array("pcm", PCM, "Nandakumar, ICECS 2019; aihwkit PCMLikeNoiseModel"),
            parts=HERMES_PARTS,
            calibrated_to="HERMES one-phase (energy)",
        ),
        _array(
            "reram-hfo2",
            replace(HFO2, update=RERAM_HFO2, stuck=STUCK),
            "IEDM 2022 array, aihwkit ReRamArrayHfO2; written 2 % of range (estimate); 0.5 % stuck",
        ),
        _array(
            "reram-om",
            replace(HFO2, update=RERAM_OM, stuck=STUCK, verify_pulses=4.3),
            "IEDM 2022 array, aihwkit ReRamArrayOM; written 2 % of range (estimate); 0.5 % stuck",
        ),
        _array("reram-es", replace(HFO2, update=RERAM_ES), "Gong et al. 2018, aihwkit ReRamES; written 2 % (estimate)"),
        _array("reram-sb", HFO2, "Gong et al. 2018, aihwkit ReRamSB; written 2 % (estimate)"),
    )
}


def preset(name: str) -> Preset:
    """By name, with or without "tile-" before it. Raises UsageError for one that is not known."""
    found = PRESETS.get(name.removeprefix("tile-"))
    if found is None:
        raise no_such("tile", name, PRESETS)
    return found
