"""flash: firmware and model onto a board, read back and tested there."""

from dataclasses import asdict
from pathlib import Path

import click

from edgehmn.cli.checking import trust_option
from edgehmn.cli.output import Outcome, Session, command
from edgehmn.cli.types import Number


@command(
    "flash",
    "Write the firmware of --target and the model of the export OUT to the board that is connected, read it back, and "
    "run the export's vectors on it. What the board has learned stays.",
)
@click.argument("export", metavar="OUT", type=click.Path(path_type=Path))
@click.option("--target", required=True, help="A board; 'linux' for a Linux board that ssh reaches.")
@click.option("--via", help="How: stm32flash, pyocd, uf2, esptool, emulator; the board's usual way if not given.")
@click.option(
    "--port", help="Which: serial port, id of the probe, folder of the drive, USER@HOST, file of an emulated board."
)
@click.option("--line", help="Where the board answers afterwards, if that is another port.")
@click.option("--timeout", type=Number(1), help="Seconds for writing, or reading; by size if not given.")
@click.option("--dry-run", is_flag=True, help="Find the board and say what would be written, no more.")
@trust_option
def flash_command(
    session: Session, export: Path, target: str, via: str | None, port: str | None, line: str | None,
    timeout: float | None, dry_run: bool, trust: Path | None,
) -> Outcome:  # fmt: skip
    from edgehmn.device.flash.flashing import flash, prepare, programmer_for
    from edgehmn.exported import Export
    from edgehmn.signing import verify_export

    opened = Export.open(export)
    verify_export(opened, trust)
    programmer = programmer_for(target, via, timeout)
    if dry_run:
        place, parts = prepare(opened, target, programmer, port, session.note)
        sizes = [{"name": part.name, "address": part.address, "bytes": len(part.data)} for part in parts]
        would = "\n".join(f"{p['name']} at 0x{p['address']:x}, {p['bytes']:,} bytes" for p in sizes)
        result = {"board": target, "place": place.name, "written_bytes": 0, "verified": None, "self_test": None}
        return Outcome(result | {"would_write": sizes}, f"{place.name} ({place.what}) would get\n{would}")
    done = flash(opened, target, programmer, port=port, line=line, note=session.note)
    text = f"{done.board} at {done.place}: {done.written_bytes:,} bytes, {done.verified}; self-test {done.self_test}"
    return Outcome(asdict(done), text)
