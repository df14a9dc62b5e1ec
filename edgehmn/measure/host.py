"""`profile --measured`: a model timed on this machine, and the energy that its own sensors tell."""

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edgehmn.errors import DependencyError, DeviceError, UnsupportedError, UsageError
from edgehmn.measure.choose import find_meter, open_meter
from edgehmn.measure.sampling import Energy, Sensor, measure_energy
from edgehmn.runtime.native_log import native_log

REPEATS = 15
SECONDS = 10.0  # of a window of energy: sensors average over tens of milliseconds
TOKENS = 64
Work = Callable[[], object]


def measure(path: Path, meter: str | None = None, seconds: float | None = None) -> dict[str, Any]:
    """Milliseconds of a token or an inference, median and quartiles of repeats; joules beside idling, or why not.

    meter: as choose.FORMS writes it; None: the first of this machine's own that works. Raises as open_meter."""
    opened = open_meter(meter) if meter is not None else None
    works, per = _works(path)
    out: dict[str, Any] = {"per": per, "repeats": REPEATS, "clock": "wall time of this process"}
    for name, (work, n) in works.items():
        took = _times(work, n)
        quartiles = statistics.quantiles(took, n=4)
        out[f"{name}_ms"] = {"median": quartiles[1] * 1e3, "quartiles": [quartiles[0] * 1e3, quartiles[2] * 1e3]}
    sensor, missing = (opened, {}) if opened is not None else find_meter()
    if sensor is None:
        return out | {"energy": None, "energy_unavailable": missing}
    try:
        name, (work, n) = next(iter(works.items()))
        return out | {"energy": _energy(sensor, work, n, SECONDS if seconds is None else seconds) | {"of": name}}
    finally:
        close: Callable[[], None] | None = getattr(sensor, "close", None)
        if close is not None:
            close()


def _times(work: Work, n: int) -> list[float]:
    work()
    took = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        work()
        took.append((time.perf_counter() - start) / n)
    return took


def _energy(sensor: Sensor, work: Work, n: int, seconds: float) -> dict[str, Any]:
    """Joules of a unit of work in all, and above idling. Raises DeviceError where a reading cannot be, or a Raspberry
    Pi was throttled."""
    throttled = _throttled(sensor)
    idle = measure_energy(sensor, lambda: time.sleep(seconds))
    done = 0

    def repeat() -> None:
        nonlocal done
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            work()
            done += n

    busy = measure_energy(sensor, repeat)
    if throttled is not None:
        from edgehmn.measure.raspberry_pi import check_throttled

        check_throttled(throttled, _throttled(sensor) or 0)
    return energy_per_unit(idle, busy, done)


def energy_per_unit(idle: Energy, busy: Energy, units: int) -> dict[str, Any]:
    """Raises DeviceError for no units: their energy would be no number."""
    if units < 1:
        raise DeviceError("nothing was done while energy was measured")
    above = (busy.watts - idle.watts) * busy.seconds / units
    return {
        "mj": busy.joules / units * 1e3, "mj_above_idle": above * 1e3 if above > 0 else None,
        "idle_watts": idle.watts, "units": units, "sensor": busy.as_dict(),
    }  # fmt: skip


def _throttled(sensor: Sensor) -> int | None:
    from edgehmn.measure.raspberry_pi import Pmic, parse_throttled, vcgencmd

    return parse_throttled(vcgencmd("get_throttled")) if isinstance(sensor, Pmic) else None


def _works(path: Path) -> tuple[dict[str, tuple[Work, int]], str]:
    """What is timed, each with how many units it does."""
    if path.is_dir():
        return _export_works(path), "token"
    if path.suffix not in (".tflite", ".onnx"):
        raise UsageError(f"{path}: --measured runs an export, a .tflite or a .onnx")
    run = _tflite(path) if path.suffix == ".tflite" else _onnx(path)
    return {"inference": (run, 1)}, "inference"


def _export_works(path: Path) -> dict[str, tuple[Work, int]]:
    from edgehmn.core import CoreModel
    from edgehmn.exported import Export
    from edgehmn.measure.token_by_token import feed, stretches
    from edgehmn.texts import EVALUATION, shipped

    export = Export.open(path)
    ids = export.encode(shipped(EVALUATION))
    frozen, learning = CoreModel(export.image, plastic=False), CoreModel(export.image)
    feed(frozen, ids[: 3 * TOKENS], learn=False)
    feed(learning, ids[: 3 * TOKENS], learn=True)
    few = ids[:TOKENS]
    new = stretches(ids[3 * TOKENS :], TOKENS)
    return {
        "token": (lambda: feed(frozen, few, learn=False), len(few)),
        "learned_token": (lambda: feed(learning, next(new), learn=True), len(few)),
    }


def _tflite(path: Path) -> Work:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as e:
        raise DependencyError("ai-edge-litert is missing, which runs this file: pip install 'edgehmn[tflite]'") from e
    try:
        with native_log():
            interpreter = Interpreter(model_path=str(path), num_threads=1)
            interpreter.allocate_tensors()
        for detail in interpreter.get_input_details():
            interpreter.set_tensor(detail["index"], np.zeros(detail["shape"], detail["dtype"]))
    except (ValueError, RuntimeError) as e:
        raise UnsupportedError(f"{path}: cannot be run here ({str(e)[:160]})") from e
    return interpreter.invoke


def _onnx(path: Path) -> Work:
    try:
        with native_log():
            import onnxruntime
    except ImportError as e:
        raise DependencyError("onnxruntime is missing, which runs this file: pip install 'edgehmn[onnx]'") from e
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4  # what is wrong becomes an exception
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        feeds = {i.name: np.zeros(_shape(i.shape), _dtype(i.type)) for i in session.get_inputs()}
        session.run(None, feeds)
    except Exception as e:  # the runtime raises classes of its own
        raise UnsupportedError(f"{path}: cannot be run here ({str(e)[:160]})") from e
    return lambda: session.run(None, feeds)


def _shape(shape: list[Any]) -> list[int]:
    return [n if isinstance(n, int) and n > 0 else 1 for n in shape]


def _dtype(kind: str) -> Any:
    names = {"float": "float32", "double": "float64"}
    name = kind.removeprefix("tensor(").removesuffix(")")
    return np.dtype(names.get(name, name))


def measured_text(result: dict[str, Any]) -> str:
    lines = [f"measured on this machine, {result['repeats']} repeats, {result['clock']}"]
    for key, value in result.items():
        if key.endswith("_ms"):
            low, high = value["quartiles"]
            name = key.removesuffix("_ms").replace("_", " ")
            lines.append(f"  {name:<18} {value['median']:.4g} ms, quartiles {low:.4g} to {high:.4g}")
    energy = result["energy"]
    if energy is None:
        lines.append("  energy             unavailable")
        return "\n".join([*lines, *(f"    {name}: {why}" for name, why in result["energy_unavailable"].items())])
    s = energy["sensor"]
    above = (
        f"{energy['mj_above_idle']:.4g} mJ above idling" if energy["mj_above_idle"] is not None else "not above idling"
    )
    lines.append(f"  energy             {energy['mj']:.4g} mJ, {above} ({energy['of'].replace('_', ' ')})")
    lines.append(
        f"    {s['method']}; rail: {s['rail']}; {s['samples']} samples, {s['samples_per_s']:.3g} a second; "
        f"leaves out {s['leaves_out']}"
    )
    return "\n".join(lines)
