"""What NVML says of a real card: its counter of energy beside power that is sampled, at rest and under load.

    python tools/run.py bench.nvml

Needs a card of NVIDIA, nvidia-ml-py and, for the load, PyTorch. A load begins with the measurement, as a piece of work
that is to be measured does. The results land in bench/results/nvml.json.
"""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgehmn.errors import DependencyError
from edgehmn.measure.meters import Nvml
from edgehmn.measure.sampling import Energy, measure_energy

RESULTS = Path(__file__).resolve().parent / "results" / "nvml.json"
SECONDS = (0.5, 1.0, 3.0, 10.0)
REST_S = 4.0  # between two measurements
SIDE = 4096  # of the matrices


class Power(Nvml):
    """The same card as if it had no counter."""

    def _has_counter(self) -> bool:
        return False


def matrices() -> Callable[[float], None]:
    """Keeps the card busy for so many seconds."""
    try:
        import torch
    except ImportError as e:
        raise DependencyError("the load needs PyTorch: pip install torch") from e
    a = torch.randn(SIDE, SIDE, device="cuda", dtype=torch.bfloat16)

    def busy(seconds: float) -> None:
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            for _ in range(20):
                a @ a
            torch.cuda.synchronize()

    busy(0.2)  # the first product loads libraries
    return busy


def both(work: Callable[[], None]) -> tuple[Energy, Energy]:
    """The same work by the counter and by sampled power."""
    by_power: list[Energy] = []
    begin, end = threading.Barrier(2), threading.Event()

    def beside() -> None:
        begin.wait()
        by_power.append(measure_energy(Power(), end.wait))

    thread = threading.Thread(target=beside)
    thread.start()
    begin.wait()
    try:
        counted = measure_energy(Nvml(), work)
    finally:
        end.set()
        thread.join()
    return counted, by_power[0]


def smi() -> dict[str, str]:
    """What nvidia-smi, which is not ours, says of the card."""
    names = ("name", "driver_version", "power.draw", "power.draw.instant", "enforced.power.limit")
    asked = ["nvidia-smi", f"--query-gpu={','.join(names)}", "--format=csv,noheader,nounits", "--id=0"]
    said = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=30).stdout
    return dict(zip(names, (v.strip() for v in said.split(",")), strict=True))


def main() -> None:
    busy = matrices()
    loads: dict[str, Callable[[float], None]] = {"at rest": time.sleep, "under load": busy}
    rows: list[dict[str, Any]] = []
    time.sleep(REST_S)
    card = smi()
    for load, work in loads.items():
        for seconds in SECONDS:
            counted, sampled = both(lambda w=work, s=seconds: w(s))  # type: ignore[misc]
            rows.append(
                {
                    "load": load,
                    "seconds": seconds,
                    "watts by the counter": round(counted.watts, 2),
                    "watts by sampled power": round(sampled.watts, 2),
                    "samples": sampled.samples,
                }
            )
            print(rows[-1], flush=True)
            time.sleep(REST_S)
    result = {"card": card, "method": Nvml().description.method, "rows": rows}
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    sys.exit(main())
