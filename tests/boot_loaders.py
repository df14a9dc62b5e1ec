"""Stand-ins for what is beyond a flashing tool: the boot loader of an STM32 behind a pseudo-terminal, and programs in
the place of the tools, honest or not."""

import os
import pty
import socket
import sys
import termios
import threading
import tty
from collections.abc import Iterator
from pathlib import Path

ACK, NACK = b"\x79", b"\x1f"


def connections(server: socket.socket) -> Iterator[socket.socket]:
    """One after the other, until the server is closed."""
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        with connection:
            yield connection


class Stm32BootLoader:
    """The boot loader of AN3155 with a memory of its own: what it is told stands in `memory` from `base` on. conduct:
    "honest", "garbage" (a bit of each block is another, which reading tells only after the next start of the host's
    program), "refuses" (to write), "hangs" (when it is told to)."""

    def __init__(self, chip: int, base: int, size: int, conduct: str = "honest") -> None:
        self.chip, self.base, self.memory, self.started = chip, base, bytearray(b"\xff" * size), -1
        self._conduct, self._said = conduct, bytearray(self.memory)
        self._board, host = pty.openpty()
        tty.setraw(host, termios.TCSANOW)
        self.port = os.ttyname(host)
        self._host = host
        threading.Thread(target=self._serve, daemon=True).start()

    def _read(self, n: int) -> bytes:
        out = b""
        while len(out) < n:
            out += os.read(self._board, n - len(out))
        return out

    def _write(self, data: bytes) -> None:
        os.write(self._board, data)

    def _address(self) -> int:
        data = self._read(5)
        assert data[0] ^ data[1] ^ data[2] ^ data[3] == data[4]
        self._write(ACK)
        return int.from_bytes(data[:4], "big")

    def _serve(self) -> None:
        try:
            while True:
                command = self._read(1)[0]
                if command == 0x7F:
                    self._said[:] = self.memory
                    self._write(ACK)
                    continue
                if self._read(1)[0] != command ^ 0xFF:
                    self._write(NACK)
                    continue
                self._write(ACK)
                self._do(command)
        except OSError:
            pass

    def _do(self, command: int) -> None:
        if command == 0x00:
            commands = bytes([0x00, 0x01, 0x02, 0x11, 0x21, 0x31, 0x44])
            self._write(bytes([len(commands), 0x31]) + commands + ACK)
        elif command == 0x01:
            self._write(b"\x31\x00\x00" + ACK)
        elif command == 0x02:
            self._write(b"\x01" + self.chip.to_bytes(2, "big") + ACK)
        elif command == 0x11:
            at = self._address() - self.base
            n = self._read(2)[0] + 1
            self._write(ACK + bytes(self._said[at : at + n]))
        elif command == 0x21:
            self.started = self._address()
        elif command == 0x31:
            at = self._address() - self.base
            n = self._read(1)[0] + 1
            data = self._read(n + 1)[:n]
            if self._conduct == "hangs":
                return
            if self._conduct == "refuses":
                self._write(NACK)
                return
            self._said[at : at + n] = data
            self.memory[at : at + n] = data[:-1] + bytes([data[-1] ^ (self._conduct == "garbage")])
            self._write(ACK)
        elif command == 0x44:
            n = int.from_bytes(self._read(2), "big")
            self._read(1 if n >= 0xFFF0 else 2 * (n + 1) + 1)
            self._write(ACK)

    def close(self) -> None:
        os.close(self._host)


# A stm32flash, pyocd or esptool that keeps a memory in a file; `conduct` says what it does when it is told to write.
FAKE = """#!{python}
import os, sys, time
words, memory, conduct = sys.argv[1:], {memory!r}, {conduct!r}

def after(*names):
    return next((words[words.index(n) + 1] for n in names if n in words), None)

def put(at, data):
    if conduct == "hangs":
        time.sleep(600)
    if conduct == "garbage":
        data = data[:-1] + bytes([data[-1] ^ 1])
    if conduct == "nothing":
        return
    with open(memory, "r+b") as f:
        f.seek(at - {base})
        f.write(data)
    if conduct == "code":
        print("something odd happened")
        sys.exit(3)

def get(at, n, path):
    with open(memory, "rb") as f:
        f.seek(at - {base})
        data = f.read(n)
    open(path, "wb").write(data)

name = os.path.basename(sys.argv[0])
if conduct == "by hand" and ("-g" in words or words[0] == "reset" or words[-1] == "run"):
    print("please press the reset button", file=sys.stderr)
    sys.exit(1)
if name == "stm32flash":
    area = after("-S")
    if area:
        at, n = (int(x, 0) for x in area.split(":"))
    if "-w" in words:
        put(at, open(after("-w"), "rb").read())
    elif "-r" in words:
        get(at, n, after("-r"))
    elif "-g" not in words:
        print("Device ID    : 0x{chip:04x} (a chip)")
elif name == "pyocd":
    if words[0] == "json":
        print({probes!r})
    elif words[0] == "load":
        put(int(after("--base-address"), 0), open(words[-1], "rb").read())
    elif words[0] == "commander":
        _, at, n, path = after("--command").split(" ", 3)
        get(int(at, 0), int(n), path.strip('"'))
elif name == "esptool":
    if "chip-id" in words:
        print("Chip type:          {esp} (QFN56) (revision v0.2)")
    elif "write-flash" in words:
        rest = words[words.index("write-flash") + 1:]
        for at, path in zip(rest[::2], rest[1::2]):
            put(int(at, 0), open(path, "rb").read())
    elif "read-flash" in words:
        at, n, path = words[words.index("read-flash") + 1:]
        get(int(at, 0), int(n), path)
"""


def fake_tool(
    folder: Path, name: str, conduct: str = "honest", *, base: int = 0, chip: int = 0x413, esp: str = "ESP32-S3",
    probes: str = '{"boards": []}',
) -> Path:  # fmt: skip
    """A program of that name in `folder`; returns the file that is its memory, of 1 MiB."""
    folder.mkdir(exist_ok=True)
    memory = folder / f"{name}.memory"
    memory.write_bytes(b"\xff" * (1 << 20))
    path = folder / name
    text = FAKE.format(
        python=sys.executable, memory=str(memory), conduct=conduct, base=base, chip=chip, esp=esp, probes=probes
    )
    path.write_text(text)
    path.chmod(0o755)
    return memory


# A ssh that runs the command on this machine, in a home of its own.
SSH = """#!{python}
import os, sys
words = sys.argv[1:]
while words[0].startswith("-"):
    if words[0] == "-L":
        near, far = words[1].split(":")[1], words[1].split(":")[3]
        words[-1] = words[-1].replace("--listen " + far, "--listen " + near)
    words = words[1 if words[0] == "-tt" else 2:]
host, command = words
if host != "pi@board":
    print("ssh: Could not resolve hostname")
    sys.exit(255)
if "uname -sm" == command and {machine!r}:
    print({machine!r})
    sys.exit(0)
if "cat >" in command and {conduct!r} == "garbage":
    command = command.replace("cat >", "head -c 100 >")
if "cat >" in command and {conduct!r} == "hangs":
    command = "sleep 600"
if "cat >" in command and {conduct!r} == "code":
    command += "; exit 3"
if "exec ./edgehmn-device" in command and {conduct!r} == "no start":
    command = "echo cannot execute; exit 126"
os.chdir({home!r})
os.execvp("sh", ["sh", "-c", command])
"""


def fake_ssh(folder: Path, *, machine: str = "", conduct: str = "honest") -> Path:
    """Returns the home that it runs in. conduct: what it does when it is told to write, or to start."""
    folder.mkdir(exist_ok=True)
    home = folder / "home"
    home.mkdir(exist_ok=True)
    path = folder / "ssh"
    path.write_text(SSH.format(python=sys.executable, home=str(home), machine=machine, conduct=conduct))
    path.chmod(0o755)
    return home
