"""build and emulate: firmware, and emulated boards that run it."""

from pathlib import Path

import click

from edgehmn.cli.checking import trust_option
from edgehmn.cli.output import Outcome, Session, command

DEFAULT_BOARD = "mps2-an386"
ELF = b"\x7fELF"


@command("build", "Compile the generic firmware of --target; it holds no model.")
@click.option("--target", default=DEFAULT_BOARD, show_default=True, help="A board.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Copy the ELF file to here.")
def build_command(session: Session, target: str, output: Path | None) -> Outcome:
    from edgehmn.device.boards import find_board
    from edgehmn.device.firmware import build_firmware, room_of
    from edgehmn.files import check_place, check_replaceable, read_bytes, sha256, write_bytes

    board = find_board(target)
    if output is not None:
        check_place(output)
        check_replaceable(output, "firmware", ELF)
    session.note(f"building the firmware of {target}")
    elf = build_firmware(target)
    data = read_bytes(elf)
    if output is not None:
        write_bytes(output, data)
        elf = output
    room = room_of(board, data)
    result = {"board": target, "status": board.status, "path": str(elf), "bytes": len(data), "sha256": sha256(data)}
    left = ", ".join(
        f"{what} {used:,} of {there:,} bytes, {there - used:,} left"
        for what, used, there in (
            ("flash", room["flash_bytes"], room["flash_room"]),
            ("RAM", room["ram_bytes"], room["ram_room"]),
        )
    )
    return Outcome(result | room, f"{elf}  {len(data):,} bytes\n{board.name} ({board.status}): {left}")


@command("emulate", "Start an emulated board with the model of the export OUT, and keep it running until Ctrl-C.")
@click.argument("export", metavar="OUT", type=click.Path(path_type=Path))
@click.option("--target", default=DEFAULT_BOARD, show_default=True, help="A board.")
@click.option("--flash", type=click.Path(path_type=Path), help="File that keeps what the board stores.")
@trust_option
def emulate_command(session: Session, export: Path, target: str, flash: Path | None, trust: Path | None) -> Outcome:
    from edgehmn.device.emulator import Emulator
    from edgehmn.exported import Export
    from edgehmn.signing import verify_export

    opened = Export.open(export)
    verify_export(opened, trust)
    emulator = Emulator(opened.image.bytes.tobytes(), board=target, flash=flash)

    def hold() -> None:
        with emulator:
            while (failure := emulator.failure()) is None:
                pass
        raise failure

    text = f"{target} is running until Ctrl-C; talk to it with: --runtime device --port {emulator.url}"
    return Outcome({"board": target, "port": emulator.url}, text, then=hold)
