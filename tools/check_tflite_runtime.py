"""Run exported TFLite encoders in tflite-runtime 2.14, and compare what they give with LiteRT.

    python tools/check_tflite_runtime.py [--no-install] [ENCODER.tflite ...]

tflite-runtime, which ended in 2023, needs NumPy 1 and Python 3.9 to 3.11, so it gets an environment of its own in
build/tflite-runtime, which is made where it is missing; with --no-install that is exit code 10. Without an encoder, the
reference model is exported and run.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
PLACE = ROOT / "build" / "tflite-runtime"
PACKAGES = ("tflite-runtime==2.14.0", "numpy<2")
PYTHONS = ("python3.11", "python3.10", "python3.9", "python3")
STEPS = 40
MAX_DIFFERENCE = 2e-3  # root of the mean square, of that of the hidden vectors: runtimes round in different places
MISSING = 10

# What runs in that environment: the encoder class itself, whose every import but NumPy is of this package.
CHILD = """
import sys
sys.path.insert(0, sys.argv[1])
sys.modules["ai_edge_litert.interpreter"] = None
import numpy as np
from edgehmn.runtime.tflite import TfliteEncoder
from edgehmn.runtime.window import WindowedEncoder
encoder = WindowedEncoder(TfliteEncoder(sys.argv[2]))
np.save(sys.argv[3], np.stack([encoder.step(int(token)) for token in np.load(sys.argv[4])]))
"""


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare tflite-runtime 2.14 with LiteRT.")
    parser.add_argument("encoders", nargs="*", type=Path)
    parser.add_argument("--no-install", action="store_true", help="fail where the environment is not made yet")
    arguments = parser.parse_args()
    python = PLACE / "bin" / "python"
    if not (PLACE / "ready").exists():
        if arguments.no_install:
            print(f"no environment with tflite-runtime: python tools/{Path(__file__).name} makes it", file=sys.stderr)
            return MISSING
        if not install(python):
            print("no Python 3.9 to 3.11 here that installs tflite-runtime 2.14", file=sys.stderr)
            return MISSING
    with tempfile.TemporaryDirectory() as folder:
        encoders = arguments.encoders or [export_reference(Path(folder))]
        return max(compare(python, encoder, Path(folder)) for encoder in encoders)


def install(python: Path) -> bool:
    for candidate in PYTHONS:
        if not shutil.which(candidate):
            continue
        shutil.rmtree(PLACE, ignore_errors=True)
        if subprocess.run([candidate, "-m", "venv", PLACE]).returncode:
            continue
        command = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--only-binary", ":all:"]
        if subprocess.run([*command, *PACKAGES], capture_output=True).returncode == 0:
            (PLACE / "ready").touch()
            return True
    return False


def export_reference(folder: Path) -> Path:
    from edgehmn.calibrate import calibrate, calibration_ids
    from edgehmn.checkpoint import REFERENCE, read_checkpoint
    from edgehmn.export.tflite import export_encoder

    checkpoint = read_checkpoint(REFERENCE)
    ids = calibration_ids(checkpoint)
    export_encoder(checkpoint, ids, calibrate(checkpoint, ids).hidden_frac, folder / "reference.tflite")
    return folder / "reference.tflite"


def compare(python: Path, encoder: Path, folder: Path) -> int:
    import edgehmn
    from edgehmn.runtime.tflite import TfliteEncoder
    from edgehmn.runtime.window import WindowedEncoder

    here = WindowedEncoder(TfliteEncoder(encoder))
    ids = np.random.default_rng(0).integers(0, here.vocab_size, STEPS)
    expected = np.stack([here.step(int(token)) for token in ids]).astype(np.float64)
    package = folder / "package"  # nothing but the package: beside it may lie a NumPy that is too new
    package.mkdir(exist_ok=True)
    (package / "edgehmn").unlink(missing_ok=True)
    (package / "edgehmn").symlink_to(Path(edgehmn.__file__).resolve().parent)
    np.save(folder / "ids.npy", ids)
    command = [python, "-c", CHILD, package, encoder.resolve(), folder / "out.npy", folder / "ids.npy"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    if done.returncode:
        print(f"{encoder}: {done.stderr.strip()[-2000:]}", file=sys.stderr)
        return 1
    error = np.load(folder / "out.npy") - expected
    difference = float(np.sqrt(np.mean(np.square(error)) / np.mean(np.square(expected))))
    print(f"{encoder.name}: {STEPS} steps in tflite-runtime 2.14, relative difference to LiteRT {difference:.1e}")
    return int(not difference < MAX_DIFFERENCE)


if __name__ == "__main__":
    sys.exit(main())
