"""Which meter reads energy: the first of this machine's own that works, or the one that --meter names."""

import re
from collections.abc import Callable

from edgehmn.errors import DependencyError, DeviceError, UsageError
from edgehmn.measure.sampling import Sensor

Make = Callable[[str], Sensor]
# How --meter writes each; what is in brackets may be left out.
FORMS = {
    "ina3221": "ina3221", "tegrastats": "tegrastats", "pmic": "pmic", "rapl": "rapl", "ina2xx": "ina2xx[:HWMON]",
    "nvml": "nvml[:CARD]", "ina219": "ina219[:OHMS]", "ppk2": "ppk2:PORT@VOLTS", "joulescope": "joulescope",
}  # fmt: skip
OWN = ("ina3221", "tegrastats", "pmic", "rapl", "ina2xx")  # not nvml: the card is not what runs our models


def find_meter() -> tuple[Sensor | None, dict[str, str]]:
    """The first meter of this machine that works, and why each one before it does not."""
    missing: dict[str, str] = {}
    for name in OWN:
        try:
            return open_meter(name), missing
        except (DeviceError, DependencyError) as e:
            missing[name] = str(e)
    return None, missing


def check_meter(text: str) -> None:
    """Raises UsageError for what is not written as FORMS say; no meter is looked for."""
    name, _, where = text.partition(":")
    if name not in FORMS or (where and ":" not in FORMS[name]):
        raise UsageError(f"no meter '{text:.60}'; there are {', '.join(FORMS.values())}")
    if name == "nvml" and where and not re.fullmatch(r"\d{1,2}", where):
        raise UsageError(f"--meter nvml:CARD: '{where:.40}' is no number of a card")
    if name == "ina219":
        _number(where or "0.1", FORMS[name])
    if name == "ppk2":
        port, _, volts = where.partition("@")
        if not port or not volts:
            raise UsageError(f"--meter {FORMS[name]}: give its port and the volts of the board's supply")
        _number(volts, FORMS[name])


def open_meter(text: str) -> Sensor:
    """As FORMS write it. Raises what check_meter does, DeviceError and DependencyError as the meters do."""
    check_meter(text)
    name, _, where = text.partition(":")
    makers: dict[str, Make] = {
        "ina3221": _ina3221, "tegrastats": _tegrastats, "pmic": _pmic, "rapl": _rapl, "ina2xx": _ina2xx, "nvml": _nvml,
        "ina219": _ina219, "ppk2": _ppk2, "joulescope": _joulescope,
    }  # fmt: skip
    return makers[name](where)


def _number(text: str, form: str) -> float:
    if not re.fullmatch(r"\d{1,6}(\.\d{1,6})?", text) or float(text) == 0:
        raise UsageError(f"--meter {form}: '{text:.40}' is no number above 0")
    return float(text)


def _ina3221(_: str) -> Sensor:
    from edgehmn.measure.jetson import Ina3221

    return Ina3221()


def _tegrastats(_: str) -> Sensor:
    from edgehmn.measure.jetson import Tegrastats

    return Tegrastats()


def _pmic(_: str) -> Sensor:
    from edgehmn.measure.raspberry_pi import Pmic

    return Pmic()


def _rapl(_: str) -> Sensor:
    from edgehmn.measure.rapl import Rapl

    return Rapl()


def _ina2xx(where: str) -> Sensor:
    from edgehmn.measure.meters import Ina2xx

    return Ina2xx(only=where)


def _nvml(where: str) -> Sensor:
    from edgehmn.measure.meters import Nvml

    return Nvml(card=int(where or 0))


def _ina219(where: str) -> Sensor:
    from edgehmn.measure.meters import Ina219Bus

    return Ina219Bus(_number(where or "0.1", FORMS["ina219"]))


def _ppk2(where: str) -> Sensor:
    from edgehmn.measure.meters import Ppk2

    port, _, volts = where.partition("@")
    return Ppk2(port, _number(volts, FORMS["ppk2"]))


def _joulescope(_: str) -> Sensor:
    from edgehmn.measure.meters import Joulescope

    return Joulescope()
