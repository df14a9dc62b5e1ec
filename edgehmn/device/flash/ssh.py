"""Linux boards, by ssh: edgehmn-device and the image go into a folder there, and are asked for their hashes."""

import contextlib
import hashlib
import random
import shlex
import subprocess
from collections.abc import Iterator, Sequence

from edgehmn.device.companion import Companion
from edgehmn.device.flash.parts import Part
from edgehmn.device.flash.programmer import Place, last_lines, program, run, time_for
from edgehmn.device.server import COMPILERS, build_server
from edgehmn.errors import DeviceError, FlashError

INSTALL_LINE = "sudo apt-get install openssh-client"
FOLDER = ".local/share/edgehmn"  # below the home there
SERVER, IMAGE, STATE = "edgehmn-device", "model.ehmn", "state"
# For a shell: a copy of the state without a name, which goes with the last process that has it open.
COPIED = "/proc/self/fd/3"
COPY = f"c={STATE}.$$ && {{ [ ! -e {STATE} ] || cp {STATE} $c || {{ rm -f $c; exit 1; }}; }} && exec 3<>$c && rm $c"
ASK_S = 30.0
START_S = 10.0
PORTS = range(20000, 60000)
TRIES = 5  # with other ports, where one was taken
TAKEN = b"Address already in use"  # by ssh of its end, by edgehmn-device of the other


class LinuxBoard:
    """Places are what ssh takes: user@host, or a name of its configuration. It must let us in without a question."""

    ready = "name it with --port USER@HOST"

    def __init__(self, limit_s: float | None = None, *, folder: str = FOLDER, aside: bool = False) -> None:
        """folder: of plain letters, below the home there. aside: what runs there works on a copy of what is stored,
        which is gone with it: its start is no trial of a provisional state."""
        self._folder, self._aside = folder, aside
        self._program = program("ssh", INSTALL_LINE)
        self._limit_s = limit_s
        self._machine = ""  # of the place that was asked last

    def places(self, port: str | None) -> list[Place]:
        if port is None:
            raise DeviceError(f"a Linux board is reached through ssh: {self.ready}")
        if port.startswith("-"):
            raise DeviceError(f"{port}: no name of a machine")
        self._machine = self.machine(port)
        return [Place(port, f"Linux, {self._machine}")]

    def machine(self, port: str) -> str:
        """What the machine calls its processor. Raises DeviceError if there is no server for it."""
        try:
            said = self._there(port, "uname -sm", ASK_S).decode("utf-8", "replace").split()
        except FlashError as e:
            raise DeviceError(f"{port}: cannot be reached without a question ({e})") from e
        if len(said) != 2 or said[0] != "Linux" or said[1] not in COMPILERS:
            raise DeviceError(f"{port}: is '{' '.join(said)}'; there is a server for Linux on {', '.join(COMPILERS)}")
        return said[1]

    def parts(self, place: Place, image: bytes) -> tuple[Part, ...]:
        return Part(SERVER, 0, build_server(self._machine or self.machine(place.name)).read_bytes()), Part(
            IMAGE, 0, image
        )

    def write(self, place: Place, parts: Sequence[Part]) -> None:
        """Each file under another name first, so that there is never half of one."""
        for part in parts:
            new, name = shlex.quote(f"{self._folder}/{part.name}.new"), shlex.quote(f"{self._folder}/{part.name}")
            mode = "755" if part.name == SERVER else "644"
            there = f"mkdir -p {self._folder} && cat > {new} && chmod {mode} {new} && sync && mv {new} {name}"
            self._there(place.name, there, time_for(len(part.data), self._limit_s), part.data)

    def read(self, place: Place, part: Part) -> bytes | None:
        """The part itself if the machine gives its hash: so little has to come back."""
        there = f"sha256sum {shlex.quote(f'{self._folder}/{part.name}')}"
        said = self._there(place.name, there, time_for(len(part.data), self._limit_s))
        return part.data if said.split()[:1] == [hashlib.sha256(part.data).hexdigest().encode()] else b""

    def remove(self, place: Place) -> None:
        """The folder, with all that is in it."""
        self._there(place.name, f"rm -rf {self._folder}", ASK_S)

    @contextlib.contextmanager
    def running(self, place: Place, line: str | None) -> Iterator[str | None]:
        """The server there for as long as it is needed, through a forwarded port."""
        for left in reversed(range(TRIES)):
            ssh, near = self._start(place)
            process = ssh.process
            assert process.stdout is not None and process.stderr is not None
            try:
                said = process.stdout.readline()
                if said.startswith(b"socket://"):
                    yield f"socket://127.0.0.1:{near}"
                    return
                process.kill()  # what it says besides ends then
                said += process.stdout.read() + b"\n" + process.stderr.read()
            finally:
                ssh.end(START_S)
            if TAKEN not in said or left == 0:
                raise FlashError(f"{place.name}: the server does not start: {last_lines(said)}")

    def _start(self, place: Place) -> tuple[Companion, int]:
        """The server by ssh, with ports of our choice, and the one here."""
        far, near = random.choice(PORTS), random.choice(PORTS)
        serve = f"exec ./{SERVER} {IMAGE} --listen {far} --state"
        there = f"cd {self._folder} && {serve} {STATE}"
        if self._aside:
            there = f"sh -c {shlex.quote(f'cd {self._folder} && {COPY} && {serve} {COPIED}')}"
        words = [*self._words(), "-L", f"127.0.0.1:{near}:127.0.0.1:{far}", "-tt", place.name, there]
        pipe = subprocess.PIPE
        return Companion(words, stdin=pipe, stdout=pipe, stderr=pipe), near

    def _words(self) -> list[str]:
        return [self._program, "-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-o", "ExitOnForwardFailure=yes"]

    def _there(self, port: str, command: str, timeout_s: float, stdin: bytes = b"") -> bytes:
        return run([*self._words(), port, command], timeout_s, stdin)
