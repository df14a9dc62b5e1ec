"""Sensors of energy: recorded samples of every documented format, and every way to read one wrongly."""

import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from edgehmn.errors import DependencyError, DeviceError, UsageError
from edgehmn.measure import raspberry_pi
from edgehmn.measure.choose import FORMS, OWN, find_meter, open_meter
from edgehmn.measure.host import energy_per_unit
from edgehmn.measure.jetson import Ina3221, Tegrastats, channels, parse_tegrastats, total
from edgehmn.measure.meters import Ina2xx, Ina219Bus, Joulescope, Nvml, Ppk2, mean_microamperes
from edgehmn.measure.rapl import Rapl
from edgehmn.measure.sampling import Description, Energy, counted, integrate, measure_energy, plausible
from tests.command_line import Result

NANO = (
    "RAM 331/3964MB (lfb 758x4MB) SWAP 0/1982MB (cached 0MB) IRAM 0/252kB(lfb 252kB) CPU [5%@102,0%@102,0%@102,0%@102] "
    "EMC_FREQ 3%@204 GR3D_FREQ 0%@76 APE 25 PLL@20.5C CPU@23.5C PMIC@100C GPU@22.5C AO@27.5C thermal@23C "
    "POM_5V_IN 933/933 POM_5V_GPU 0/0 POM_5V_CPU 84/105"
)
XAVIER = (
    "RAM 700/15827MB CPU [0%@1190,off] EMC_FREQ 0%@1331 GR3D_FREQ 0%@318 APE 150 NVENC 115 VIC_FREQ 601 "
    "GPU 1155/1155 CPU 385/385 SOC 2502/2502 CV 0/0 VDDRQ 192/192 SYS5V 2692/2692"
)
TX2 = (
    "RAM 800/7846MB GR3D_FREQ 99%@1300 VDD_IN 14025/14416 VDD_CPU 2209/2538 VDD_GPU 6854/6903 VDD_SOC 1371/1370 "
    "VDD_WIFI 19/19 VDD_DDR 2702/2702"
)
ORIN = "EMC_FREQ 13%@2133 GR3D_FREQ 61% VDD_IN 5336/4970 VDD_CPU_GPU_CV 2617/2336 VDD_SOC 1478/1318"
ORIN_UNITS = "thermal@41.7C VDD_IN 7421mW/8050mW VDD_CPU_GPU_CV 1000mW/1200mW"
ORIN_NOW = "thermal@41.7C VDD_IN 5765mW VDD_CPU_GPU_CV 1548mW VDD_SOC 1497mW"


AGX = (
    "GR3D_FREQ 0% cpu@45C VDD_GPU_SOC 3177mW/3177mW VDD_CPU_CV 794mW/794mW VIN_SYS_5V0 3625mW/3625mW NC 0mW/0mW "
    "VDDQ_VDD2_1V8AO 604mW/604mW NC 0mW/0mW"
)


@pytest.mark.parametrize(
    ("line", "name", "watts"),
    [
        (NANO, "POM_5V_IN", 0.933),
        (TX2, "VDD_IN", 14.025),
        (ORIN, "VDD_IN", 5.336),
        (ORIN_UNITS, "VDD_IN", 7.421),
        (ORIN_NOW, "VDD_IN", 5.765),
    ],
)
def test_tegrastats_takes_the_rail_that_holds_the_others(line: str, name: str, watts: float) -> None:
    """Sub-rails are inside the total: adding them would count them twice."""
    assert total(parse_tegrastats(line)) == (name, pytest.approx(watts))


@pytest.mark.parametrize(
    ("line", "rails", "watts"),
    [
        (XAVIER, {"GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"}, 6.926),
        (AGX, {"VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0", "VDDQ_VDD2_1V8AO"}, 8.2),
    ],
)
def test_tegrastats_without_a_total_adds_the_rails(line: str, rails: set[str], watts: float) -> None:
    found = parse_tegrastats(line)
    name, sum_of_rails = total(found)
    assert set(found) == rails and sum_of_rails == pytest.approx(watts) and name.startswith("sum of")


def program(folder: Path, text: str) -> str:
    """A program in the place of tegrastats."""
    path = folder / "tegrastats"
    path.write_text(f"#!/bin/sh\n{text}\n", "utf-8")
    path.chmod(0o755)
    return str(path)


def test_tegrastats_as_a_meter(tmp_path: Path) -> None:
    meter = Tegrastats(program(tmp_path, f"while :; do echo '{ORIN}'; sleep 0.02; done"))
    energy = measure_energy(meter, lambda: time.sleep(0.2))
    meter.close()
    assert energy.watts == pytest.approx(5.336) and energy.samples >= 2
    assert meter.description.rail == "VDD_IN" and "carrier" in meter.description.leaves_out
    assert meter._process.poll() is not None, "it does not go on running"


def test_tegrastats_is_read_where_it_is_now(tmp_path: Path) -> None:
    """Lines that waited unread are old."""
    old, new = (ORIN.replace("5336", watts) for watts in ("1000", "9000"))
    text = f"echo '{old}'; sleep 0.2; for i in 1 2 3; do echo '{old}'; done; echo '{new}'; exec sleep 9"
    meter = Tegrastats(program(tmp_path, text))
    time.sleep(0.5)
    assert meter.read() == 9.0
    meter.close()


@pytest.mark.parametrize("text", ["exit 1", "echo 'RAM 331/3964MB APE 25'; exec sleep 9"])
def test_tegrastats_that_tells_no_power(tmp_path: Path, text: str) -> None:
    with pytest.raises(DeviceError, match="tegrastats"):
        Tegrastats(program(tmp_path, text))


def test_tegrastats_that_ends(tmp_path: Path) -> None:
    meter = Tegrastats(program(tmp_path, f"echo '{ORIN}'; sleep 0.2"))
    with pytest.raises(DeviceError, match="no line"):
        measure_energy(meter, lambda: time.sleep(0.4))
    meter.close()


def test_no_tegrastats(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="no Jetson"):
        Tegrastats(str(tmp_path / "none"))


@pytest.mark.parametrize("line", ["", "RAM 331/3964MB APE 25 NVENC 115 VIC_FREQ 601", "GR3D_FREQ 61% CPU@23.5C"])
def test_tegrastats_without_power_is_an_error(line: str) -> None:
    with pytest.raises(DeviceError):
        parse_tegrastats(line)


def test_frequencies_are_no_power() -> None:
    assert not {"APE", "NVENC", "VIC_FREQ", "RAM", "SWAP", "IRAM"} & set(parse_tegrastats(NANO + " " + XAVIER))


def hwmon(folder: Path, chip: str, number: int, rails: list[tuple[str, int, int]]) -> Path:
    """Files of an INA3221: label, millivolts and milliamperes of each channel."""
    place = folder / "ina3221" / chip / "hwmon" / f"hwmon{number}"
    place.mkdir(parents=True)
    for i, (label, millivolts, milliamperes) in enumerate(rails, 1):
        (place / f"in{i}_label").write_text(label + "\n")
        (place / f"in{i}_input").write_text(f"{millivolts}\n")
        (place / f"curr{i}_input").write_text(f"{milliamperes}\n")
    (place / "in7_label").write_text("sum of shunt voltages\n")
    (place / "in7_input").write_text("11\n")
    return folder


def test_hwmon_multiplies_volts_and_amperes(tmp_path: Path) -> None:
    """in1_input alone is a voltage: 5 V are not 5 W."""
    rails = [("VDD_IN", 4968, 1200), ("VDD_CPU_GPU_CV", 4968, 400), ("VDD_SOC", 4960, 300)]
    sensor = Ina3221(hwmon(tmp_path, "1-0040", 3, rails))
    assert sensor.read() == pytest.approx(4.968 * 1.2)
    assert sensor.description.rail == "VDD_IN" and "carrier" in sensor.description.leaves_out


def test_hwmon_number_may_move(tmp_path: Path) -> None:
    assert [c.label for c in channels(hwmon(tmp_path, "1-0040", 17, [("VDD_IN", 5000, 1)]))] == ["VDD_IN"]


def test_hwmon_skips_what_is_not_connected_and_the_sum_of_shunts(tmp_path: Path) -> None:
    sensor = Ina3221(hwmon(tmp_path, "1-0040", 0, [("VDD_GPU_SOC", 20000, 500), ("NC", 20000, 900)]))
    hwmon(tmp_path, "1-0041", 1, [("VIN_SYS_5V0", 5000, 1000)])
    assert sensor.read() == pytest.approx(10.0)
    both = Ina3221(tmp_path)
    assert both.read() == pytest.approx(15.0), "an AGX has two chips and no rail of the whole"
    assert "no rail of the whole" in both.description.leaves_out


def test_iio_of_older_releases(tmp_path: Path) -> None:
    place = tmp_path / "ina3221x" / "6-0040" / "iio:device0"
    place.mkdir(parents=True)
    for i, (label, milliwatts) in enumerate([("POM_5V_IN", 2100), ("POM_5V_GPU", 40), ("POM_5V_CPU", 600)]):
        (place / f"rail_name_{i}").write_text(label)
        (place / f"in_voltage{i}_input").write_text("5000")
        (place / f"in_power{i}_input").write_text(str(milliwatts))
    assert Ina3221(tmp_path).read() == pytest.approx(2.1)


def test_no_jetson(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="no INA3221"):
        Ina3221(tmp_path)


def test_a_file_without_a_number(tmp_path: Path) -> None:
    sensor = Ina3221(hwmon(tmp_path, "1-0040", 0, [("VDD_IN", 5000, 100)]))
    next(tmp_path.rglob("curr1_input")).write_text("")
    with pytest.raises(DeviceError, match="no reading"):
        sensor.read()


PMIC = """\
 3V7_WL_SW_A current(0)=0.06538960A
    VDD_CORE_A current(7)=0.94657990A
   DDR_VDD2_A current(3)=0.00780744A
    3V7_WL_SW_V volt(8)=3.71580000V
    VDD_CORE_V volt(15)=0.72097620V
   DDR_VDD2_V volt(11)=1.10412000V
       EXT5V_V volt(24)=5.11478000V
        BATT_V volt(25)=0.01880340V
"""


def test_pmic_sums_rails_that_have_both() -> None:
    """EXT5V and BATT have no current: they are no power."""
    rails = raspberry_pi.parse_pmic(PMIC)
    assert set(rails) == {"3V7_WL_SW", "VDD_CORE", "DDR_VDD2"}
    assert rails["VDD_CORE"] == pytest.approx(0.94657990 * 0.72097620)


@pytest.mark.parametrize("text", ["", 'error=1 error_msg="Command not registered"', "EXT5V_V volt(24)=5.11478000V\n"])
def test_pmic_of_older_boards_is_unavailable(text: str) -> None:
    with pytest.raises(DeviceError, match="Raspberry Pi 5"):
        raspberry_pi.parse_pmic(text)


def test_pmic_without_the_processor() -> None:
    with pytest.raises(DeviceError, match="VDD_CORE"):
        raspberry_pi.parse_pmic("HDMI_A current(1)=0.02A\nHDMI_V volt(2)=4.9V\n")


def test_pmic_through_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raspberry_pi, "vcgencmd", lambda *_: PMIC)
    sensor = raspberry_pi.Pmic()
    assert sensor.read() == pytest.approx(sum(raspberry_pi.parse_pmic(PMIC).values()))
    assert "EXT5V" in sensor.description.leaves_out


def test_throttled() -> None:
    assert raspberry_pi.parse_throttled("throttled=0x50005\n") == 0x50005
    raspberry_pi.check_throttled(0x50000, 0x50000)  # it happened before the run
    for before, after in ((0, 0x50000), (0, 1), (0x80000, 0x80008)):
        with pytest.raises(DeviceError, match="throttled"):
            raspberry_pi.check_throttled(before, after)
    with pytest.raises(DeviceError):
        raspberry_pi.parse_throttled("")


def rapl(folder: Path, values: dict[str, int], wraps_at: int = 262_143_328_850) -> Path:
    zones = {"intel-rapl:0": "package-0", "intel-rapl:0:0": "core", "intel-rapl:0:1": "dram", "intel-rapl:1": "psys"}
    for zone, name in zones.items():
        place = folder / "intel-rapl" / zone
        place.mkdir(parents=True, exist_ok=True)
        (place / "name").write_text(name)
        (place / "energy_uj").write_text(str(values.get(name, 1)))
        (place / "max_energy_range_uj").write_text(str(wraps_at))
    return folder


def test_rapl_counts_packages_only(tmp_path: Path) -> None:
    sensor = Rapl(rapl(tmp_path, {"package-0": 1_000_000, "core": 400_000}))
    rapl(tmp_path, {"package-0": 3_500_000, "core": 900_000})
    assert sensor.read() == pytest.approx(2.5) and sensor.description.rail == "package-0"


def test_rapl_wraps(tmp_path: Path) -> None:
    sensor = Rapl(rapl(tmp_path, {"package-0": 9_000_000}, wraps_at=10_000_000))
    rapl(tmp_path, {"package-0": 2_000_000}, wraps_at=10_000_000)
    assert sensor.read() == pytest.approx(3.0)
    rapl(tmp_path, {"package-0": 4_000_000}, wraps_at=10_000_000)
    assert sensor.read() == pytest.approx(5.0)


def test_rapl_beyond_its_range(tmp_path: Path) -> None:
    sensor = Rapl(rapl(tmp_path, {"package-0": 1}, wraps_at=10_000_000))
    rapl(tmp_path, {"package-0": 11_000_000}, wraps_at=10_000_000)
    with pytest.raises(DeviceError, match="range"):
        sensor.read()


def test_rapl_that_only_root_may_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rapl(tmp_path, {})
    read = Path.read_text

    def refuse(self: Path, *arguments: str) -> str:
        if self.name == "energy_uj":
            raise PermissionError(13, "Permission denied")
        return read(self, *arguments)

    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(DeviceError, match="sudo"):
        Rapl(tmp_path)


def test_no_rapl(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="no RAPL"):
        Rapl(tmp_path)


def test_nvml_that_does_not_support_power() -> None:
    def unsupported(_: object) -> int:
        raise RuntimeError("Not Supported")

    library = SimpleNamespace(
        nvmlInit=lambda: None, nvmlDeviceGetCount=lambda: 1, nvmlDeviceGetHandleByIndex=lambda i: i
    )
    with pytest.raises(DeviceError, match="Not Supported"):
        Nvml(SimpleNamespace(**vars(library), nvmlDeviceGetPowerUsage=unsupported))
    with pytest.raises(DeviceError, match="there are 1 cards"):
        Nvml(library, card=1)
    without_counter = Nvml(SimpleNamespace(**vars(library), nvmlDeviceGetPowerUsage=lambda _: 25_500))
    assert without_counter.read() == 25.5 and not without_counter.counts


def test_nvml_takes_the_counter_where_there_is_one() -> None:
    """Power on such cards is the mean of the last second: of a short piece of work it knows little."""
    millijoules = iter((0, 1_000, 2_500))
    card = Nvml(
        SimpleNamespace(
            nvmlInit=lambda: None,
            nvmlDeviceGetCount=lambda: 1,
            nvmlDeviceGetHandleByIndex=lambda i: i,
            nvmlDeviceGetTotalEnergyConsumption=lambda _: next(millijoules),
        )
    )
    assert card.counts and (card.read(), card.read()) == (1.0, 2.5)
    with pytest.raises(DeviceError, match="no reading"):
        card.read()


def test_ina2xx_gives_microwatts(tmp_path: Path) -> None:
    (tmp_path / "hwmon2").mkdir()
    (tmp_path / "hwmon2" / "name").write_text("ina226\n")
    (tmp_path / "hwmon2" / "power1_input").write_text("1250000\n")
    assert Ina2xx(tmp_path).read() == 1.25
    (tmp_path / "hwmon5").mkdir()
    (tmp_path / "hwmon5" / "name").write_text("ina219\n")
    with pytest.raises(DeviceError, match="ina2xx:hwmon2"):
        Ina2xx(tmp_path)
    assert Ina2xx(tmp_path, only="hwmon2").read() == 1.25
    (tmp_path / "hwmon5" / "name").write_text("nvme\n")
    (tmp_path / "hwmon2" / "power1_input").write_text("\n")
    with pytest.raises(DeviceError):
        Ina2xx(tmp_path).read()
    (tmp_path / "hwmon2" / "name").write_text("cpu_thermal\n")
    with pytest.raises(DeviceError, match="0 INA219"):
        Ina2xx(tmp_path)


def test_ina219_library_gives_milliwatts() -> None:
    chip = SimpleNamespace(configure=lambda: None, power=lambda: 480.0)
    assert Ina219Bus(library=SimpleNamespace(INA219=lambda _: chip)).read() == pytest.approx(0.48)


@pytest.mark.parametrize("form", [lambda s: s, lambda s: (s, [0])])
def test_ppk2_in_both_forms_of_its_library(form: object) -> None:
    assert callable(form)
    nothing = dict.fromkeys(("get_modifiers", "use_ampere_meter", "start_measuring"), lambda: None)
    switched: list[str] = []
    millivolts: list[int] = []
    meter = SimpleNamespace(
        **nothing,
        set_source_voltage=millivolts.append,
        toggle_DUT_power=switched.append,
        get_data=lambda: b"1",
        get_samples=lambda _: form([1000.0, 3000.0]),
    )
    assert Ppk2("/dev/null", 3.0, lambda _: meter).read() == pytest.approx(0.006)
    assert switched == ["ON"], "an ampere meter that is not switched on cuts the board off"
    assert millivolts == [3000], "the library does not measure before it knows the voltage"
    meter.get_data = lambda: b""
    with pytest.raises(DeviceError, match="no samples"):
        Ppk2("/dev/null", 3.0, lambda _: meter).read()


def test_microamperes_beyond_the_meter() -> None:
    with pytest.raises(DeviceError):
        mean_microamperes([5e6])


def test_joulescope() -> None:
    device = SimpleNamespace(open=lambda: None, read=lambda contiguous_duration: [(0.1, 3.0), (0.3, 3.0)])
    library = SimpleNamespace(scan_require_one=lambda config: device)
    assert Joulescope(library).read() == pytest.approx(0.6)
    nan = float("nan")
    device.read = lambda contiguous_duration: [(0.1, 3.0), (nan, nan), (0.3, 3.0)]
    assert Joulescope(library).read() == pytest.approx(0.6), "what it missed is not in the mean"
    device.read = lambda contiguous_duration: [(0.1, 3.0), (nan, nan), (nan, nan)]
    with pytest.raises(DeviceError, match="2 of 3 samples were lost"):
        Joulescope(library).read()
    device.read = lambda contiguous_duration: []
    with pytest.raises(DeviceError, match="no samples"):
        Joulescope(library).read()


def test_what_a_library_raises_is_no_reading() -> None:
    """A current beyond its range, a cable pulled out: classes that only the library has."""

    class DeviceRangeError(Exception):
        pass

    def fail(*_: object, **__: object) -> None:
        raise DeviceRangeError("Current out of range (overflow)")

    nothing = dict.fromkeys(("get_modifiers", "use_ampere_meter", "start_measuring", "configure", "open"), lambda: None)
    takes = dict.fromkeys(("set_source_voltage", "toggle_DUT_power"), lambda _: None)
    thing = SimpleNamespace(**nothing, **takes, power=fail, get_data=fail, read=fail)
    library = SimpleNamespace(INA219=lambda _: thing, scan_require_one=lambda config: thing)
    for meter in (Ina219Bus(library=library), Ppk2("/dev/null", 3.0, lambda _: thing), Joulescope(library)):
        with pytest.raises(DeviceError, match=r"no reading \(DeviceRangeError: Current"):
            meter.read()


@pytest.mark.parametrize("make", [Ina219Bus, Joulescope, lambda: Ppk2("/dev/null", 3.0), Nvml])
def test_a_missing_library_names_its_package(make: object, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr("importlib.import_module", missing)
    assert callable(make)
    with pytest.raises(DependencyError, match="pip install"):
        make()


# Samples to joules


def test_trapezoids() -> None:
    assert integrate([(0, 1.0), (1, 3.0), (2, 3.0)], "x") == pytest.approx(5.0)


@pytest.mark.parametrize(
    "samples", [[], [(0, 1.0)], [(0, 0.0), (1, 0.0)], [(1, 1.0), (1, 1.0)], [(0, -1.0), (1, 1.0)], [(0, 1.0), (1, 5e6)]]
)
def test_no_samples_or_impossible_ones_are_never_zero(samples: list[tuple[float, float]]) -> None:
    with pytest.raises(DeviceError):
        integrate(samples, "x")


def test_counters_wrap() -> None:
    assert counted([(0, 8.0), (1, 9.5), (2, 1.0)], 10.0, "x") == pytest.approx(3.0)
    for samples in ([(0, 1.0)], [(0, 1.0), (1, 1.0)], [(0, 1.0), (1, 12.0)]):
        with pytest.raises(DeviceError):
            counted(samples, 10.0, "x")


def test_milliwatts_taken_for_watts() -> None:
    with pytest.raises(DeviceError, match="milliwatts"):
        plausible(13_900, "VDD_IN")
    with pytest.raises(DeviceError):
        plausible(float("nan"), "VDD_IN")


class Steady:
    """Two watts, always."""

    description = Description("test", "rail", "nothing", 200.0)
    counts = False

    def read(self) -> float:
        return 2.0


def test_energy_is_read_beside_the_work() -> None:
    energy = measure_energy(Steady(), lambda: time.sleep(0.05))
    assert energy.watts == pytest.approx(2.0) and energy.samples >= 2


def test_a_reading_that_fails_is_not_lost() -> None:
    class Broken(Steady):
        def read(self) -> float:
            raise DeviceError("gone")

    with pytest.raises(DeviceError, match="gone"):
        measure_energy(Broken(), lambda: None)


def test_energy_of_a_unit_is_apart_from_idling() -> None:
    idle, busy = (Energy(watts * 10, 10.0, 100, Steady.description) for watts in (2.0, 5.0))
    result = energy_per_unit(idle, busy, 1000)
    assert result["mj"] == pytest.approx(50) and result["mj_above_idle"] == pytest.approx(30)
    assert energy_per_unit(busy, idle, 10)["mj_above_idle"] is None, "less than idling is no energy"
    with pytest.raises(DeviceError):
        energy_per_unit(idle, busy, 0)


def test_this_machine_has_a_meter_or_says_why_not() -> None:
    sensor, missing = find_meter()
    assert sensor is not None or set(missing) == set(OWN)
    print("not run here: energy of this machine:", missing) if sensor is None else print(sensor.description)


@pytest.mark.parametrize(
    "text",
    ["toaster", "", "pmic:1", "ppk2", "ppk2:/dev/ttyACM0", "ppk2:/dev/ttyACM0@0", "ppk2:/dev/ttyACM0@3,3", "ina219:x",
     "nvml:first"],
)  # fmt: skip
def test_a_meter_that_there_is_not(text: str) -> None:
    with pytest.raises(UsageError):
        open_meter(text)


def test_every_meter_can_be_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """None of these is here: each says so in its own words, and nothing is taken for a reading."""
    monkeypatch.setenv("PATH", str(tmp_path))
    texts = {"ppk2": "ppk2:/dev/null@3.3", "ina219": "ina219:0.02", "nvml": "nvml:1", "ina2xx": "ina2xx:hwmon99"}
    for name in FORMS:
        if name != "rapl":
            with pytest.raises((DeviceError, DependencyError)):
                open_meter(texts.get(name, name))


def test_meter_from_the_command_line(
    tiny_export: Path, tmp_path: Path, run_cli: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rail, rate, method and what it leaves out are printed."""
    monkeypatch.setattr("edgehmn.measure.host.SECONDS", 0.3)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    program(tmp_path, f"while :; do echo '{ORIN}'; sleep 0.02; done")
    done = run_cli("profile", tiny_export, "--measured", "--meter", "tegrastats")
    assert done.code == 0 and "rail: VDD_IN" in done.out and "leaves out the carrier" in done.out, done
    assert "counting" in done.err
    assert "tegrastats, a line every" in done.out and "a second" in done.out
    energy = run_cli("profile", tiny_export, "--measured", "--meter", "tegrastats", "--json").result["measured"][
        "energy"
    ]
    assert energy["sensor"]["watts"] == pytest.approx(5.336) and energy["idle_watts"] == pytest.approx(5.336)
    program(tmp_path, f"echo '{ORIN}'")
    assert run_cli("profile", tiny_export, "--measured", "--meter", "tegrastats").code == DeviceError.exit_code
    for wrong in ("toaster", "ppk2:/dev/ttyACM0", "ina219:none", "nvml:first"):
        done = run_cli("profile", tiny_export, "--measured", "--meter", wrong)
        assert done.code == UsageError.exit_code and "counting" not in done.err, "it is said at once"
    assert run_cli("profile", tiny_export, "--target", "rp2350", "--meter", "rapl").code == UsageError.exit_code
