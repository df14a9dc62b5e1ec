"""Build and run the harnesses: python tools/run.py fuzz.fuzz [TARGET...] --runs N | --seconds S. Needs clang with
libFuzzer, and the package installed."""

import argparse
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

HERE = Path(__file__).resolve().parent
NATIVE = HERE.parent / "native"
TARGETS = ("image", "delta", "wire", "state")
FLAGS = ("-std=c11", "-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-D_GNU_SOURCE")
NO_LINK = ("-fsanitize=fuzzer-no-link",)


def build(folder: Path) -> None:
    """The programs of all harnesses, with the sanitizers; the core is compiled once."""
    objects = folder / "objects"
    objects.mkdir(parents=True, exist_ok=True)
    include = [f"-I{NATIVE / 'include'}", f"-I{NATIVE / 'src'}", f"-I{HERE}"]
    core = sorted((NATIVE / "src").glob("*.c"))
    subprocess.run(["clang", *FLAGS, *NO_LINK, *include, "-c", *map(str, core)], check=True, cwd=objects)
    linked = [str(objects / f"{path.stem}.o") for path in core]
    for target in TARGETS:
        words = ["clang", *FLAGS, "-fsanitize=fuzzer", *include, str(HERE / f"fuzz_{target}.c"), *linked]
        subprocess.run([*words, "-o", str(folder / f"fuzz_{target}")], check=True)


def seeds(folder: Path) -> Path:
    """Tiny sound inputs of every kind, in a folder for each target; returns the image that harnesses use."""
    from edgehmn.core import CoreModel, Image, lib
    from edgehmn.device import wire
    from edgehmn.image import build_image
    from edgehmn.tokenizer import tokenizer_section
    from tests.checkpoint_files import byte_tokenizer
    from tests.models import GPT2, LEAST, LITTLE, quantised, random_checkpoint, random_tokens, tiny_image

    text = replace(LEAST, vocab_size=256)
    model = quantised(random_checkpoint(text), LITTLE)
    with_text = build_image(replace(model, tokenizer=tokenizer_section(byte_tokenizer(), 256)))
    small = replace(GPT2, n_layers=1, d_model=4, d_hidden=3, n_heads=2, n_kv_heads=1, vocab_size=5)
    images = {"least": tiny_image(LEAST, LITTLE, n_guard=2), "gpt2": tiny_image(small, LITTLE, n_guard=2)}
    for name, data in (images | {"text": with_text}).items():
        write(folder / "image" / name, data)
    core = CoreModel(Image(images["least"]))
    write(folder / "delta" / "fresh", core.save())
    core.process(random_tokens(40, LEAST.vocab_size), learn=True)
    write(folder / "delta" / "learned", core.save())
    words = wire.words
    session = [
        (lib.EHMN_WIRE_PROCESS, words(1, 1, 2, 3)), (lib.EHMN_WIRE_TEXT, words(1, 0) + b"abc d"),
        (lib.EHMN_WIRE_SAY, words(4, 256, 1)), (lib.EHMN_WIRE_GENERATE, words(2, 0)), (lib.EHMN_WIRE_COUNTS, b""),
        (lib.EHMN_WIRE_STORE, b""), (lib.EHMN_WIRE_STATE, b""), (lib.EHMN_WIRE_CONFIRM, b""),
        (lib.EHMN_WIRE_STORE, b""), (lib.EHMN_WIRE_ROLL_BACK, b""), (lib.EHMN_WIRE_SAVE, b""),
        (lib.EHMN_WIRE_READ, words(0, 64)), (lib.EHMN_WIRE_WRITE, words(0) + b"x" * 9),
        (lib.EHMN_WIRE_LOAD, words(64)), (lib.EHMN_WIRE_FORGET, bytes(8)), (lib.EHMN_WIRE_RESET, b""),
        (lib.EHMN_WIRE_WIPE, b""), (lib.EHMN_WIRE_RESTART, b""),
    ]  # fmt: skip
    frames = [wire.encode(lib.EHMN_WIRE_IDENTIFY, 7)]
    frames += [wire.encode(command, 8 + i, payload) for i, (command, payload) in enumerate(session)]
    write(folder / "wire" / "session", b"".join(frames))
    for i, frame in enumerate(frames):
        write(folder / "wire" / f"{i}", frames[0] + frame)
    write(folder / "state" / "blank", b"\xff" * 64)
    write(folder / "state" / "two", (b"EHMS" + bytes(148)) * 2)
    write(folder / "with-text", with_text)
    write(folder / "small", images["least"])
    return folder


def write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def fuzz(target: str, folder: Path, *, runs: int = -1, seconds: int = 0) -> str:
    """Run a harness on its seeds; returns what libFuzzer says. Raises CalledProcessError if it finds something."""
    program, corpus = folder / f"fuzz_{target}", folder / "corpus" / target
    corpus.mkdir(parents=True, exist_ok=True)
    image = folder / ("with-text" if target == "wire" else "small")
    known = [str(p) for p in (HERE / "corpus" / target, folder / target) if p.is_dir()]
    words = [str(program), str(corpus), *known, f"-runs={runs}", f"-max_total_time={seconds}", "-max_len=16384"]
    words += ["-timeout=20", "-rss_limit_mb=2048", "-print_final_stats=1", "-seed=1"]
    done = subprocess.run(words, env=os.environ | {"EHMN_FUZZ_IMAGE": str(image)}, cwd=folder, text=True,
                          capture_output=True)  # fmt: skip
    if done.returncode != 0:
        print(done.stderr[-6000:], file=sys.stderr)
    done.check_returncode()
    return done.stderr


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*", default=TARGETS)
    parser.add_argument("--runs", type=int, default=-1)
    parser.add_argument("--seconds", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=Path("build/fuzz"), help="keeps programs, seeds and corpus")
    options = parser.parse_args()
    if shutil.which("clang") is None:
        sys.exit("clang is missing; sudo apt-get install clang libclang-rt-14-dev")
    folder = options.folder.resolve()
    build(folder)
    seeds(folder)
    for target in options.targets:
        said = fuzz(target, folder, runs=options.runs, seconds=options.seconds)
        print(f"{target}: {[line for line in said.splitlines() if 'cov:' in line or 'number_of' in line][-2:]}")


if __name__ == "__main__":
    main()
