"""A Linux board behind a real sshd: one command for it as for any other runtime, and what it learned is there again."""

from collections.abc import Callable
from pathlib import Path

import pytest

from edgehmn.device.flash.ssh import FOLDER, IMAGE, SERVER, STATE
from edgehmn.errors import LinkLostError
from edgehmn.runtime.device import DeviceRuntime
from tests.command_line import Result
from tests.test_flash_peers import linux as linux
from tests.test_flash_peers import needs_sshd

Cli = Callable[..., Result]
THERE = ("--runtime", "device", "--host", "board")
PORT = ("--port", "ssh://board", "--json")


@needs_sshd
def test_it_learns_keeps_and_forgets(
    run_cli: Cli, tiny_export: Path, short_text: Path, linux: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = run_cli("run", tiny_export, "abc", *THERE)
    assert (done.code, "edgehmn flash OUT --target linux --port board" in done.err) == (7, True)
    assert run_cli("flash", tiny_export, "--target", "linux", "--port", "board").code == 0

    on_host = run_cli("personalise", tiny_export, short_text, "--json").result
    there = run_cli("personalise", tiny_export, short_text, *THERE, "--json").result
    assert there["delta_sha256"] == on_host["delta_sha256"]
    stored = run_cli("state", "stored", *PORT).result
    assert (stored["sequence"], stored["provisional"]) == (1, False)
    assert run_cli("state", "store", *PORT).result["provisional"], "the same once more, to be confirmed by hand"
    looks = run_cli("monitor", "--host", "board", "--every", "0.1", "--count", "2", "--json").result["looks"]
    stored = [*(each["stored"] for each in looks), *(run_cli("state", "stored", *PORT).result for _ in range(2))]
    assert [state["trials"] for state in stored] == [1] * 4, "a look is no start that counts: three of these end it"
    assert all(state["provisional"] for state in stored)
    assert {p.name for p in (linux / FOLDER).iterdir()} == {SERVER, IMAGE, STATE}
    run_cli("personalise", tiny_export, short_text, *THERE, "--json", "--save-state", "more")
    said = run_cli("run", tiny_export, "abc", "-n", "8", *THERE, "--json").result["text"]
    assert run_cli("run", tiny_export, "abc", "-n", "8", "--load-state", "more", "--json").result["text"] == said
    again = run_cli("state", "stored", *PORT).result
    assert (again["sequence"], again["provisional"]) == (3, False), "what was learned takes its place, running does not"
    assert run_cli("state", "wipe", *PORT).result["sequence"] == 0

    process, left = DeviceRuntime.process, [40]

    def cut(self: DeviceRuntime, *arguments: object, **mode: bool) -> object:
        left[0] -= 1
        if left[0] < 0:
            raise LinkLostError("the network is down")
        return process(self, *arguments, **mode)  # type: ignore[arg-type]

    monkeypatch.setattr(DeviceRuntime, "process", cut)
    left[0] = 2
    assert run_cli("personalise", tiny_export, short_text, *THERE).code == 12
    monkeypatch.setattr(DeviceRuntime, "process", process)
    assert run_cli("state", "stored", *PORT).result["sequence"] == 0, "half of a text is not stored"


def test_a_host_goes_with_the_device_runtime_alone(run_cli: Cli, tiny_export: Path) -> None:
    run = ("run", tiny_export, "abc")
    assert run_cli(*run, "--host", "board").code == 2
    assert run_cli(*run, "--runtime", "device").code == 2
    done = run_cli(*run, *THERE, "--port", "socket://127.0.0.1:9")
    assert (done.code, "give one of them" in done.err) == (2, True)
    assert run_cli(*run, "--runtime", "device", "--host", "-oProxyCommand=x").code == 7
