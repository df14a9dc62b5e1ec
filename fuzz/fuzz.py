"""Fuzzing of all that reads bytes of others: python tools/run.py fuzz.fuzz COMMAND ... Needs the package installed,
clang with libFuzzer and, for `report`, llvm-cov (apt-get install clang llvm). See README.md beside this file."""

import argparse
import shutil
import sys
from pathlib import Path

from fuzz import campaign, corpus, report
from fuzz.programs import build
from fuzz.targets import TARGETS


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("build/fuzz"), help="keeps programs, inputs and counts")
    commands = parser.add_subparsers(dest="command", required=True)
    words = {
        "run": "the known inputs again, then new ones for some seconds",
        "campaign": "many executions, counted over any number of runs; can be stopped and begun again at any time",
        "corpus": "what a campaign found, as few inputs as have the same edges, into corpus/",
        "report": "lines covered, and the counts of campaigns, into results.json and README.md",
        "seeds": "models and seeds made anew (after a change of format)",
    }
    for name, help_text in words.items():
        command = commands.add_parser(name, help=help_text)
        command.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}; default: all")
        if name == "run":
            command.add_argument("--seconds", type=int, default=60, help="for each target")
        if name == "campaign":
            command.add_argument("--executions", type=float, default=50e6, help="of each target, all runs together")
            command.add_argument("--until", metavar="HH:MM", help="stop at this time of today, UTC")
    options = parser.parse_args()
    options.targets = options.targets or list(TARGETS)
    if unknown := set(options.targets) - TARGETS.keys():
        parser.error(f"no such target: {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
    return options


def main() -> int:
    options = arguments()
    if shutil.which("clang") is None:
        print("clang is missing; sudo apt-get install clang libclang-rt-14-dev llvm", file=sys.stderr)
        return 5
    folder = options.folder.resolve()
    if options.command == "seeds":
        from fuzz import seeds

        seeds.write_all()
    elif options.command == "run":
        build(folder, options.targets)
        for target in options.targets:
            corpus.unpack(target, folder)
            print(f"{target}: {campaign.run(target, folder, seconds=options.seconds).line()}", flush=True)
    elif options.command == "campaign":
        return campaign.campaign(folder, options.targets, int(options.executions), options.until)
    elif options.command == "corpus":
        for target in options.targets:
            print(f"{target}: {corpus.minimise(target, folder)} inputs in corpus/{target}.tar.xz")
    else:
        report.report(folder, options.targets)
    return 0


if __name__ == "__main__":
    sys.exit(main())
