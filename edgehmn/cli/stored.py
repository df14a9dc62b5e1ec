"""state store, confirm, rollback, wipe: what a device keeps in its own flash."""

from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from edgehmn.cli.output import Outcome, Session, command

if TYPE_CHECKING:
    from edgehmn.device.wire import StoredState

ACTIONS = {
    "store": ("store", "Let the device at --port put what it has learned into its flash; it is provisional."),
    "confirm": ("confirm", "Keep the provisional state in the flash of the device at --port for good."),
    "rollback": ("roll_back", "Drop the provisional state of the device at --port; the confirmed one is loaded."),
    "wipe": ("wipe", "Erase all that the device at --port has learned, memory and flash, and look that it is gone."),
    "stored": ("stored", "Say what the device at --port keeps in its flash."),
}


def stored_result(state: "StoredState") -> dict[str, Any]:
    return asdict(state) | {"provisional": state.provisional, "applied": state.applied}


def stored_text(state: "StoredState") -> str:
    if state.sequence == 0:
        return "nothing is stored"
    how = "provisional" if state.provisional else "confirmed"
    kept = "" if state.applied else f"; it was learned with image {state.image_id[:16]} and is not in use"
    return f"state {state.sequence}, {how}, {state.size:,} bytes{kept}"


def stored_commands() -> list[click.Command]:
    return [_command(name, method, text) for name, (method, text) in ACTIONS.items()]


def _command(name: str, method: str, text: str) -> click.Command:
    def run(session: Session, port: str) -> Outcome:
        from contextlib import closing

        from edgehmn.runtime.device import DeviceRuntime
        from edgehmn.runtime.over_ssh import reached

        with reached(port, aside=name == "stored") as url, closing(DeviceRuntime(url)) as device:
            act: Callable[[], Any] = getattr(device, method)
            state = act()
        return Outcome(stored_result(state), stored_text(state))

    option = click.option("--port", required=True, help="Device, as a pyserial URL, unix://PATH or ssh://USER@NAME.")
    return command(name, text)(option(run))
