"""doctor: what this machine has, what each thing is for, and how to get what is missing."""

import importlib.util
from collections.abc import Iterator
from typing import Any

from edgehmn.cli.output import Outcome, Session, command

# Name -> what it is for, and what installs it.
MODULES = {
    "numpy": ("everything", "pip install numpy"),
    "onnx": ("export to ONNX", "pip install 'edgehmn[onnx]'"),
    "onnxruntime": ("--runtime onnx", "pip install 'edgehmn[onnx]'"),
    "gguf": ("exporting GGUF files", "pip install 'edgehmn[gguf]'"),
    "cryptography": ("signed exports", "pip install 'edgehmn[sign]'"),
    "ai_edge_litert": ("--runtime tflite", "pip install 'edgehmn[tflite]'"),
    "serial": ("boards on a serial line, real or emulated", "pip install 'edgehmn[device]'"),
    "cma": ("tune --method cma", "pip install 'edgehmn[tune]'"),
    "sacrebleu": ("eval p1", "pip install 'edgehmn[eval]'"),
    "matplotlib": ("plots of eval", "pip install 'edgehmn[report]'"),
}
PROGRAMS = {
    "arm-none-eabi-gcc": (
        "firmware of Cortex-M boards",
        "sudo apt-get install gcc-arm-none-eabi libnewlib-arm-none-eabi",
    ),
    "cmake": ("firmware and edgehmn-device", "sudo apt-get install cmake"),
    "ninja": ("firmware and edgehmn-device", "sudo apt-get install ninja-build"),
    "qemu-system-arm": ("emulated boards", "sudo apt-get install qemu-system-arm"),
    "cc": ("edgehmn-device for this machine", "sudo apt-get install gcc libc6-dev"),
    "aarch64-linux-gnu-gcc": (
        "edgehmn-device for 64-bit Raspberry Pi and Jetson",
        "sudo apt-get install gcc-aarch64-linux-gnu libc6-dev-arm64-cross",
    ),
    "arm-linux-gnueabihf-gcc": (
        "edgehmn-device for 32-bit Raspberry Pi",
        "sudo apt-get install gcc-arm-linux-gnueabihf libc6-dev-armhf-cross",
    ),
    "riscv64-linux-gnu-gcc": (
        "edgehmn-device for RISC-V Linux boards",
        "sudo apt-get install gcc-riscv64-linux-gnu libc6-dev-riscv64-cross",
    ),
    "ssh": ("flashing Linux boards", "sudo apt-get install openssh-client"),
    "stm32flash": ("flashing STM32 boards through their boot loader", "sudo apt-get install stm32flash"),
    "pyocd": ("flashing boards through a debug probe", "pip install pyocd"),
    "esptool": ("flashing ESP32 boards", "pip install esptool"),
    "clang": ("a second compiler for the C sources, and fuzzing them", "sudo apt-get install clang"),
}
UF2 = "UF2 drive"


@command("doctor", "Check what this machine has, and say what the rest is for and how to get it.")
def doctor_command(session: Session) -> Outcome:
    checks = [*_modules(), *_programs(), _uf2_drives()]
    lines = [f"{'ok ' if c['ok'] else '-- '} {c['name']:<24}{_said(c)}" for c in checks]
    missing = sum(not c["ok"] for c in checks)
    lines.append("everything is here" if not missing else f"{missing} missing; the lines above say how to get them")
    return Outcome({"checks": checks}, "\n".join(lines))


def _said(check: dict[str, Any]) -> str:
    return str(check["found"]) if check["ok"] else f"for {check['for']}: {check['fix']}"


def _modules() -> Iterator[dict[str, Any]]:
    for name, (purpose, fix) in MODULES.items():
        found = importlib.util.find_spec(name) is not None
        yield {"name": name, "ok": found, "found": "importable" if found else "", "for": purpose, "fix": fix}


def _programs() -> Iterator[dict[str, Any]]:
    from edgehmn.device.flash.programmer import find_program

    for name, (purpose, fix) in PROGRAMS.items():
        path = find_program(name)
        yield {"name": name, "ok": path is not None, "found": path or "", "for": purpose, "fix": fix}


def _uf2_drives() -> dict[str, Any]:
    """Nothing is missing where there is no drive: writing one needs no program."""
    from edgehmn.device.flash.uf2 import drives

    found = [f"{board} at {folder}" for folder, board in drives().items()]
    return {
        "name": UF2,
        "ok": True,
        "found": ", ".join(found) or "needs no program; none is mounted now (hold BOOTSEL while plugging the board in)",
        "for": "flashing RP2350 boards",
        "fix": "",
    }
