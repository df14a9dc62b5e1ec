"""doctor: what this machine has, and how to get what is missing."""

import importlib.util
import shutil
from typing import Any

from edgehmn.cli.output import Outcome, Session, command

MODULES = {
    "numpy": "pip install numpy",
    "onnx": "pip install 'edgehmn[onnx]'",
    "onnxruntime": "pip install 'edgehmn[onnx]'",
    "gguf": "pip install 'edgehmn[gguf]'",
    "cryptography": "pip install 'edgehmn[sign]'",
    "ai_edge_litert": "pip install 'edgehmn[tflite]'",
    "serial": "pip install 'edgehmn[device]'",
    "cma": "pip install 'edgehmn[tune]'",
    "sacrebleu": "pip install 'edgehmn[eval]'",
    "matplotlib": "pip install 'edgehmn[report]'",
}
PROGRAMS = {
    "arm-none-eabi-gcc": "apt-get install gcc-arm-none-eabi",
    "cmake": "apt-get install cmake",
    "qemu-system-arm": "apt-get install qemu-system-arm",
}


@command("doctor", "Check what this machine has, and say how to get what is missing.")
def doctor_command(session: Session) -> Outcome:
    checks: list[dict[str, Any]] = []
    for name, fix in MODULES.items():
        found = importlib.util.find_spec(name) is not None
        checks.append({"name": name, "ok": found, "found": "importable" if found else "", "fix": fix})
    for name, fix in PROGRAMS.items():
        path = shutil.which(name)
        checks.append({"name": name, "ok": path is not None, "found": path or "", "fix": fix})
    lines = [f"{'ok ' if c['ok'] else '-- '} {c['name']:<20}{c['found'] if c['ok'] else c['fix']}" for c in checks]
    missing = sum(not c["ok"] for c in checks)
    lines.append("everything is here" if not missing else f"{missing} missing; the lines above say how to get them")
    return Outcome({"checks": checks}, "\n".join(lines))
