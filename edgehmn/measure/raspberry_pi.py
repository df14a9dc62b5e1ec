"""Raspberry Pi 5: the rails of its power chip, and whether it was throttled."""

import re
import subprocess

from edgehmn.errors import DeviceError
from edgehmn.measure.sampling import Description, plausible

LINE = re.compile(r"^\s*(\S+)_([AV]) (?:current|volt)\((\d+)\)=(-?[\d.]+)([AV])\s*$")
UNMEASURED = ("EXT5V", "BATT")  # volts without amperes
NOW, EVER = 0xF, 0xF0000  # under-voltage, frequency capped, throttled, soft limit: now, and since it started


def parse_pmic(text: str) -> dict[str, float]:
    """Watts of each rail that has both volts and amperes in the output of `vcgencmd pmic_read_adc`."""
    values: dict[str, dict[str, float]] = {}
    for line in text.splitlines():
        match = LINE.match(line)
        if match and match[2] == match[5]:
            values.setdefault(match[1], {})[match[2]] = float(match[4])
    rails = {
        name: plausible(v["A"] * v["V"], name)
        for name, v in values.items()
        if {"A", "V"} <= v.keys() and name not in UNMEASURED
    }
    if not rails:
        raise DeviceError("vcgencmd pmic_read_adc: no rail with volts and amperes; only a Raspberry Pi 5 has them")
    if "VDD_CORE" not in rails:
        raise DeviceError("vcgencmd pmic_read_adc: the rail of the processor, VDD_CORE, is missing")
    return rails


def parse_throttled(text: str) -> int:
    """Bits of `vcgencmd get_throttled`."""
    match = re.fullmatch(r"\s*throttled=0x([0-9a-fA-F]+)\s*", text)
    if not match:
        raise DeviceError(f"vcgencmd get_throttled: cannot be read: {text!r:.60}")
    return int(match[1], 16)


def check_throttled(before: int, after: int) -> None:
    """Raises DeviceError if a run was slowed down: its figures say nothing about the board."""
    if (after & NOW) or (after & EVER & ~before):
        raise DeviceError(
            f"the Raspberry Pi was throttled or short of voltage during the run (0x{before:x}, then 0x{after:x}); "
            "cool it, or give it a stronger supply"
        )


def vcgencmd(*arguments: str) -> str:
    try:
        done = subprocess.run(["vcgencmd", *arguments], capture_output=True, text=True, timeout=10, check=True)
    except FileNotFoundError:
        raise DeviceError("no vcgencmd: this is no Raspberry Pi") from None
    except (subprocess.SubprocessError, OSError) as e:
        raise DeviceError(f"vcgencmd {' '.join(arguments)}: failed ({e})") from e
    return done.stdout


class Pmic:
    """The sum of the rails of a Raspberry Pi 5."""

    counts = False

    def __init__(self) -> None:
        rails = parse_pmic(vcgencmd("pmic_read_adc"))
        self.description = Description(
            "vcgencmd pmic_read_adc, a process for each reading", f"sum of {len(rails)} rails of the power chip",
            "what runs on 5 V (USB, fan, HATs) and the conversion losses: EXT5V has no current", 10.0,
        )  # fmt: skip

    def read(self) -> float:
        return sum(parse_pmic(vcgencmd("pmic_read_adc")).values())
