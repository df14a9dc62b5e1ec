"""Run exported encoders in several versions of onnxruntime, each in an environment of its own.

    python tools/check_onnxruntime.py [VERSION ...]

Without arguments: the oldest and the newest that edgehmn supports, and some between. Needs a package index; the
environments are made in a temporary folder. Ends with 1 if a version that could be installed fails, and says which
could not be.
"""

import argparse
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

import numpy as np

import edgehmn
from edgehmn.export.onnx import export_encoder, products

ROOT = Path(__file__).resolve().parent.parent
VERSIONS = ("1.18.0", "1.19.2", "1.20.1", "1.22.1", "1.24.4", "1.28.0", "newest")
SQNR_DB = 34  # 37 to 38 is measured
HIDDEN_FRAC = 10
RUN = """
import sys
import numpy as np
import onnxruntime
from edgehmn.runtime.onnx import OnnxEncoder
from edgehmn.runtime.window import WindowedEncoder

case = np.load(sys.argv[2])
encoder = WindowedEncoder(OnnxEncoder(sys.argv[1]))
hidden = np.array([encoder.step(int(token)) for token in case["ids"]]) * 2.0 ** -encoder.hidden_frac
error = np.square(hidden - case["hidden"]).sum()
print(onnxruntime.__version__, np.__version__, 10 * np.log10(np.square(case["hidden"]).sum() / error))
"""


def main() -> int:
    parser = argparse.ArgumentParser(description="Run exported encoders in several versions of onnxruntime.")
    parser.add_argument("versions", nargs="*", default=VERSIONS)
    versions = parser.parse_args().versions
    failed = False
    with tempfile.TemporaryDirectory(prefix="edgehmn-onnxruntime-") as name:
        folder = Path(name)
        cases = export_cases(folder)
        (folder / "path").mkdir()
        (folder / "path" / "edgehmn").symlink_to(Path(edgehmn.__file__).parent)  # nothing else of this environment
        for version in versions:
            failed |= not check(version, folder, cases)
    return int(failed)


def export_cases(folder: Path) -> list[str]:
    """Tiny models of both families, NAME.onnx, and in NAME.npz what they should give."""
    sys.path.insert(0, str(ROOT))
    from tests.models import random_checkpoint, random_tokens
    from tests.test_onnx_families import MODELS, oracle, with_biases

    for name in ("llama", "gpt2", "sliding"):
        checkpoint = with_biases(random_checkpoint(MODELS[name]))
        kinds = {product: ("int8", "int16")[i % 2] for i, product in enumerate(products(checkpoint.config))}
        export_encoder(checkpoint, HIDDEN_FRAC, folder / f"{name}.onnx", kinds)
        ids = random_tokens(50)
        np.savez(folder / f"{name}.npz", ids=ids, hidden=oracle(checkpoint, ids))
    return ["llama", "gpt2", "sliding"]


def check(version: str, folder: Path, cases: list[str]) -> bool:
    """Whether the version gives what it should, or cannot be installed; prints which."""
    environment = folder / version
    venv.create(environment, with_pip=True)
    python = environment / "bin" / "python"
    wanted = ["onnxruntime"] if version == "newest" else [f"onnxruntime=={version}"]
    numpy = "numpy<2" if version.startswith("1.18.") else "numpy"  # 1.18 is built for NumPy 1
    installed = subprocess.run([python, "-m", "pip", "install", "-q", *wanted, numpy], capture_output=True, text=True)
    if installed.returncode:
        print(f"{version}: not run here: {installed.stderr.strip().splitlines()[-1]}")
        return True
    good = True
    for case in cases:
        command = [python, "-c", RUN, folder / f"{case}.onnx", folder / f"{case}.npz"]
        variables = {"PYTHONPATH": str(folder / "path"), "PATH": ""}
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=variables)
        sqnr = float(done.stdout.split()[-1]) if done.returncode == 0 else -np.inf
        said = done.stdout.strip() if done.returncode == 0 else done.stderr.strip()[-300:]
        print(f"{version} {case}: {'ok' if sqnr > SQNR_DB else 'FAILED'} (onnxruntime, numpy, dB: {said})", flush=True)
        good &= sqnr > SQNR_DB
    return good


if __name__ == "__main__":
    sys.exit(main())
