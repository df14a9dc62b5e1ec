"""targets and profile: which boards are known, and what a token costs there."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgehmn.cli.output import Outcome, Session, command, table
from edgehmn.cli.tiles import tile_options
from edgehmn.cli.types import Number
from edgehmn.errors import InvalidFileError, UsageError

if TYPE_CHECKING:
    from edgehmn.targets.schema import Target

LEARNED_PER_DAY = 1_000
WRITERS = ("html", "csv", "markdown")


@command("targets", "List the boards and tiles whose costs can be estimated, and what each is known from.")
@click.option(
    "--target", "names", multiple=True, help="Only this one, with all that is known; or a profile of your own."
)
def targets_command(session: Session, names: tuple[str, ...]) -> Outcome:
    from dataclasses import asdict

    from edgehmn.device.boards import boards
    from edgehmn.estimate_tiles import facts as tile_facts
    from edgehmn.estimate_tiles import parameters
    from edgehmn.targets.memristive.presets import PRESETS
    from edgehmn.targets.schema import target_names

    loaded, tiles = _targets(names or [*target_names(), *PRESETS])
    facts: list[dict[str, Any]] = []
    for t in loaded:
        fact: dict[str, Any] = {
            "name": t.name, "title": t.title, "kind": t.kind, "known_from": t.known_from,
            "hardware_run": t.measured is not None,
        }  # fmt: skip
        if names:
            fact["profile"] = {k: v for k, v in asdict(t).items() if k not in ("path", "name", "title", "kind")}
        facts.append(fact)
    facts += [tile_facts(name) | ({"profile": parameters(name)} if names else {}) for name in tiles]
    if names:
        from edgehmn.cli.checking import facts_text

        shown = [t.path.read_text("utf-8").rstrip() for t in loaded]
        text = "\n\n".join([*shown, *(facts_text(parameters(name)) for name in tiles)])
    else:
        text = table([(f["name"], f["kind"], f["known_from"]) for f in facts], ("target", "kind", "known from"), left=3)
    firmware = [{"name": b.name, "status": b.status} for b in ([] if names else boards().values())]
    if firmware:
        text += "\n\n" + table(
            [(f["name"], f["status"]) for f in firmware], ("board with firmware", "how it was tried"), left=2
        )
    return Outcome({"targets": facts, "boards": firmware}, text)


@command(
    "profile",
    "Estimate time, energy and memory of X, an export, a .tflite, .onnx or .gguf, on --target, layer by layer.",
)
@click.argument("subjects", metavar="X...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--target",
    "names",
    multiple=True,
    help="A board, a memristive tile (hermes, ...), or a profile of your own (FILE.toml); several times, or a,b.",
)
@click.option("--runtime-profile", help="Runtime of a .tflite, .onnx or .gguf that the estimate is for.")
@click.option("--clock-hz", type=Number(min=1), help="Clock of the core of one --target, instead of its profile's.")
@click.option("--html", type=click.Path(path_type=Path), help="Write one self-contained page.")
@click.option("--csv", type=click.Path(path_type=Path), help="Write totals and layers as CSV.")
@click.option("--markdown", type=click.Path(path_type=Path), help="Write tables as Markdown.")
@click.option("--per-day", type=Number(min=0), default=10_000, show_default=True, help="Tokens, or inferences.")
@click.option(
    "--learned-per-day", type=Number(min=0), help=f"Of those, learned; by default {LEARNED_PER_DAY:,} at most."
)
@tile_options()
@click.option("--battery-wh", type=Number(min=1e-6), default=10.8, show_default=True, help="Of the cell.")
@click.option("--measured", is_flag=True, help="Time X here, and read the energy meters of this machine.")
@click.option("--meter", help="What --measured reads energy from: ppk2:PORT@VOLTS, joulescope, tegrastats, ...")
@click.option(
    "--anchor", is_flag=True, help="Measure this machine for ten seconds, and write its profile to X, a .toml file."
)
@click.option("--host", help="USER@NAME: --anchor measures there, by ssh.")
@click.option("--port", help="Board, as a pyserial URL: --anchor measures there the model that it was flashed with.")
@click.option("--export", type=click.Path(path_type=Path), help="OUT, that model.")
def profile_command(session: Session, subjects: tuple[Path, ...], names: tuple[str, ...], **options: Any) -> Outcome:
    from edgehmn.files import check_place, check_replaceable
    from edgehmn.report.html import BEGIN as HTML_BEGIN
    from edgehmn.report.text import CSV_BEGIN, MARKDOWN_BEGIN, overview

    if options["learned_per_day"] is None:
        options["learned_per_day"] = min(LEARNED_PER_DAY, options["per_day"])
    if options["learned_per_day"] > options["per_day"]:
        raise UsageError("--learned-per-day is a part of --per-day, and cannot be more")
    alone = [key for key in ("anchor", "measured", *WRITERS) if options[key]]
    if len(subjects) > 1 and alone:
        raise UsageError(f"--{alone[0]} takes one X; run it for each")
    if options["anchor"]:
        return _anchor(session, subjects[0], names, options)
    if options["meter"] is not None and not options["measured"]:
        raise UsageError("--meter is what --measured reads; give --measured too")
    if options["meter"] is not None:
        from edgehmn.measure.choose import check_meter

        check_meter(options["meter"])
    if any(options[key] is not None for key in ("host", "port", "export")):
        raise UsageError("--host, --port and --export are for --anchor; give it too")
    wanted = [name for given in names for name in given.split(",") if name]
    if not wanted and not options["measured"]:
        raise UsageError("give --target NAME, one or several, or --measured; 'edgehmn targets' lists them")
    targets, tiles = _targets(wanted)
    if options["clock_hz"] is not None:
        from edgehmn.targets.clock import at_clock

        if len(targets) != 1 or tiles:
            raise UsageError("--clock-hz is of one board; give it as the only --target")
        targets = [at_clock(targets[0], round(options["clock_hz"]))]
    if options["tiles"] is not None and not tiles:
        raise UsageError("--mapping, --cell-bits, --writes and --write-threshold are about tiles; give one as --target")
    for form, begin in zip(WRITERS, (HTML_BEGIN, CSV_BEGIN, MARKDOWN_BEGIN), strict=True):
        if options[form] is not None:
            check_place(options[form])
            check_replaceable(options[form], f"profile in {form.upper()}", begin.encode())
    done = [_profile(session, subject, targets, tiles, options) for subject in subjects]
    if len(done) == 1:
        return Outcome(*done[0])
    results = [result for result, _ in done]
    return Outcome({"profiles": results}, "\n\n".join([*(text for _, text in done), overview(results)]))


def _targets(names: Sequence[str]) -> tuple[list["Target"], list[str]]:
    """Boards, and names of tiles, each once. Raises UsageError for a name that is neither, InvalidFileError."""
    from edgehmn.estimate_tiles import is_tile
    from edgehmn.targets.memristive.presets import PRESETS
    from edgehmn.targets.schema import load_target

    once = list(dict.fromkeys(names))
    return [load_target(name, PRESETS) for name in once if not is_tile(name)], [name for name in once if is_tile(name)]


def _profile(
    session: Session, subject: Path, targets: list["Target"], tiles: list[str], options: dict[str, Any]
) -> tuple[dict[str, Any], str]:
    """Result and text of one X."""
    from edgehmn.estimate import estimate
    from edgehmn.estimate_tiles import tile_profile
    from edgehmn.report import Use, profile_result
    from edgehmn.report.html import as_html
    from edgehmn.report.text import as_csv, as_markdown, as_text
    from edgehmn.report.tiles import add_tiles
    from edgehmn.workload import workload_of

    session.note(f"counting what {subject} does")
    workload = workload_of(subject)
    estimates = [estimate(workload, t, options["runtime_profile"]) for t in targets]
    use = Use(options["per_day"], options["learned_per_day"], options["battery_wh"])
    result = profile_result(workload, estimates, use)
    if tiles:
        session.note("simulating tiles")
        add_tiles(
            result,
            workload,
            [tile_profile(subject, workload, name, options["tiles"], use.learned_per_day) for name in tiles],
            use,
        )
    text = as_text(result)
    if options["measured"]:
        from edgehmn.measure.host import measure, measured_text

        session.note("measuring")
        result["measured"] = measure(subject, options["meter"])
        text += "\n\n" + measured_text(result["measured"])
    forms = {"html": as_html, "csv": as_csv, "markdown": as_markdown}
    for form in WRITERS:
        if options[form] is not None:
            _write(options[form], forms[form](result))
            session.note(f"wrote {options[form]}")
    return result, text


def _write(path: Path, text: str) -> None:
    from edgehmn.files import write_bytes

    write_bytes(path, text.encode())


def _anchor(session: Session, profile: Path, names: tuple[str, ...], options: dict[str, Any]) -> Outcome:
    """--target, if given, is the board whose memory and power the profile takes over."""
    from edgehmn.files import check_place
    from edgehmn.measure.anchor import anchor_host, anchor_remote
    from edgehmn.targets.schema import read_target

    host, port, export = (options[key] for key in ("host", "port", "export"))
    if options["clock_hz"] is not None:
        raise UsageError("--clock-hz is of an estimate; --anchor measures at the clock that there is")
    if (port is None) != (export is None) or (port and (host or not names)):
        raise UsageError("a board on a line is measured with --port, --export and --target, and without --host")

    if profile.suffix != ".toml":
        raise UsageError(f"{profile}: --anchor writes a profile; name it NAME.toml")
    if len(names) > 1:
        raise UsageError("--anchor takes one --target: the board that is measured")
    if profile.is_file():
        try:
            read_target(profile, but_measured=True)
        except InvalidFileError as e:
            raise UsageError(f"{profile}: exists and is no profile ({e}); choose another name, or remove it") from e
    check_place(profile)
    base = names[0] if names else "host"
    if _targets([base])[1]:
        raise UsageError(f"{base} is a simulated tile, which cannot be measured; give a board with --anchor")
    session.note(f"measuring {port or host or 'this machine'}, some ten seconds")
    if port:
        from edgehmn.measure.anchor_device import anchor_board

        facts = anchor_board(port, export, profile, base)
    else:
        facts = anchor_remote(host, profile, base, session.note) if host else anchor_host(profile, session.note, base)
    text = f"{profile}: {_speeds(facts)}\nuse it: edgehmn profile OUT --target {profile}"
    return Outcome({"profile": str(profile), "measured": facts}, text)


def _speeds(measured: dict[str, Any]) -> str:
    """Of computing, and of each level of memory behind the nearest."""
    parts = []
    if per_mac := measured["seconds_per_mac"]:
        parts.append(f"{1e-6 / per_mac:,.0f} million multiply-accumulates a second")
    for beyond, seconds in zip(measured["beyond_bytes"], measured["seconds_per_byte"], strict=True):
        parts.append(f"weights of models of more than {beyond / 1e6:.3g} MB at {1e-9 / seconds:.3g} GB/s")
    return "; ".join(parts) or "measured"
