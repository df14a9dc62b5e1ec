"""One session with a board on a serial line, or on anything that pyserial opens as one."""

import errno
import secrets
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from edgehmn.core import check, ffi, lib
from edgehmn.device import wire
from edgehmn.device.wire import DeviceCounts, Frame, Identity, StoredState
from edgehmn.errors import DependencyError, DeviceError, FlashError, LinkLostError, UsageError

POLL_S = 0.1  # how often a wait for bytes looks at the clock
FIRST_WAIT_S = 1.0  # for an answer before the request is repeated; each further try waits twice as long
SLOWEST_LINE = 1000.0  # bytes per second
UNIX, SOCKET = "unix://", "socket://"
WRITE_S = 10.0  # for a frame to leave this machine
TAKEN = (errno.EAGAIN, errno.EBUSY)  # what opening a serial port fails with that another program has locked
FREE_S = 2.0  # to wait for such a one: a look at a device takes less

_MEANING = {
    lib.EHMN_WIRE_E_COMMAND: "its firmware does not know this command; flash it with this edgehmn",
    lib.EHMN_WIRE_E_LENGTH: "its firmware expects another payload; flash it with this edgehmn",
    lib.EHMN_WIRE_E_NO_MODEL: "it holds no usable image; flash one",
    lib.EHMN_WIRE_E_NO_TOKENIZER: "its image has no tokenizer, so it takes tokens but no text; send tokens",
    lib.EHMN_WIRE_E_NO_FLASH: "it has no flash for what it learned; save that on this host",
}


class Link:
    """Requests to a board and their answers.

    A request is sent again until it is answered or the time is up; the board does it once however often it
    comes. Bytes that are no frame are skipped on both sides.
    """

    def __init__(self, url: str, *, baudrate: int = 115200, timeout_s: float = 60.0) -> None:
        """Open the line and identify the board. url: what pyserial's serial_for_url takes, such as /dev/ttyACM0
        or socket://127.0.0.1:5000, or unix://PATH. timeout_s: how long to wait for one answer, beside the work it
        takes.

        Raises DeviceError if the port is missing, not permitted, or nothing of edgehmn answers; UsageError for
        a malformed url; DependencyError without pyserial.
        """
        self.url, self._timeout_s = url, timeout_s
        self._receiver = wire.Receiver()
        self._sequence = secrets.randbits(32)
        self._line = _open(url, baudrate)
        try:
            self.identity = self._identify()
        except BaseException:
            self.close()
            raise

    def request(
        self,
        command: int,
        payload: bytes = b"",
        *,
        expect: int | None = 0,
        work_s: float = 0.0,
        subject: str | None = None,
    ) -> bytes:
        """Do a command (EHMN_WIRE_...) and return its answer's payload, of exactly `expect` bytes, or of any number.

        work_s: how long the board may compute, beside the session's timeout. subject: what the core's refusal is
        about, if not the board. Raises LinkLostError if the line or the session is lost, the error of
        `core.check` for a status of the core, and DeviceError for any other.
        """
        self._sequence = (self._sequence + 1) % 2**32
        try:
            answer = self._ask(command, payload, work_s)
        except OSError as e:  # pyserial's errors are OSErrors
            raise LinkLostError(f"{self.url}: the line was lost ({e}); connect it and start again") from e
        if answer is None:
            raise LinkLostError(f"{self.url}: no answer in {self._timeout_s + work_s:g} s; check board and cable")
        if answer.status == lib.EHMN_WIRE_E_SEQUENCE:
            raise LinkLostError(
                f"{self.url}: the board serves another program, or it started anew and what it had learned since it "
                "was last saved is gone; start again"
            )
        if answer.status in _MEANING:
            raise DeviceError(f"{self.url}: {_MEANING[answer.status]}", status=answer.status)
        if answer.status == lib.EHMN_STATE_E_FLASH:
            raise FlashError(f"{self.url}: its flash does not hold what was written to it; the state before is there")
        check(answer.status, subject or self.url)
        if expect is not None and len(answer.payload) != expect:
            raise DeviceError(f"{self.url}: answer of {len(answer.payload)} bytes instead of {expect}; flash it anew")
        return answer.payload

    def counts(self) -> DeviceCounts:
        """What the board has done since it started."""
        size = ffi.sizeof("ehmn_wire_counts")
        return DeviceCounts.from_payload(self.request(lib.EHMN_WIRE_COUNTS, expect=size))

    def stored(self) -> StoredState | None:
        """What the board keeps in its flash; None if it has none for that."""
        size = ffi.sizeof("ehmn_wire_state")
        state = StoredState.from_payload(self.request(lib.EHMN_WIRE_STATE, expect=size))
        return None if state.status == lib.EHMN_WIRE_E_NO_FLASH else state

    def restart(self) -> None:
        """Start the board anew and begin another session. Raises DeviceError if it does not come back."""
        with suppress(LinkLostError):  # if the answer was lost, its repetition asks a board that has restarted
            self.request(lib.EHMN_WIRE_RESTART)
        self._sequence = secrets.randbits(32)
        self.identity = self._identify()

    def close(self) -> None:
        """Give the port back. Closing twice is allowed."""
        self._line.close()

    def _identify(self) -> Identity:
        try:
            answer = self._ask(lib.EHMN_WIRE_IDENTIFY, b"", 0.0)
        except OSError as e:
            raise DeviceError(f"{self.url}: the line was lost ({e}); connect it and start again") from e
        if answer is None:
            raise DeviceError(
                f"{self.url}: nothing answered in {self._timeout_s:g} s; check that a board with edgehmn's "
                "firmware is there, at this baud rate, and that no other program talks to it"
            )
        if answer.version != lib.EHMN_WIRE_VERSION or answer.status != lib.EHMN_OK:
            raise DeviceError(
                f"{self.url}: the board speaks version {answer.version} of the protocol, this edgehmn "
                f"{lib.EHMN_WIRE_VERSION}; flash it with this edgehmn"
            )
        if len(answer.payload) != ffi.sizeof("ehmn_wire_identity"):
            raise DeviceError(f"{self.url}: the identity has {len(answer.payload)} bytes; flash the board anew")
        return Identity.from_payload(answer.payload)

    def _ask(self, command: int, payload: bytes, work_s: float) -> Frame | None:
        """Send the request of the present sequence until its answer comes; None when the time is up."""
        request = wire.encode(command, self._sequence, payload)
        wait_s = FIRST_WAIT_S + len(request) / SLOWEST_LINE
        deadline = time.monotonic() + self._timeout_s + work_s
        end_of_half_frame = b""
        while True:
            self._line.write(end_of_half_frame + request)
            answer = self._wait(command, min(deadline, time.monotonic() + wait_s))
            if answer is not None or time.monotonic() >= deadline:
                return answer
            end_of_half_frame = bytes(lib.EHMN_WIRE_MAX_FRAME)
            wait_s *= 2

    def _wait(self, command: int, until: float) -> Frame | None:
        while time.monotonic() < until:
            if answer := self._answer_in(command, self._line.read(self._receiver.missing)):
                return answer
        # Noise that looked like the header of a long frame may hold the answer: what is missing of it never comes.
        return self._answer_in(command, bytes(lib.EHMN_WIRE_MAX_FRAME))

    def _answer_in(self, command: int, data: bytes) -> Frame | None:
        for frame in self._receiver.feed(data):
            if (frame.command, frame.sequence) == (command | lib.EHMN_WIRE_ANSWER, self._sequence):
                return frame
        return None


class _UnixLine:
    """A Unix socket with the methods of a serial port that a Link calls."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.settimeout(WRITE_S)
            self._socket.connect(path)
        except BaseException:
            self._socket.close()
            raise

    def write(self, data: bytes) -> None:
        self._socket.settimeout(WRITE_S)
        self._socket.sendall(data)

    def read(self, size: int) -> bytes:
        self._socket.settimeout(POLL_S)
        try:
            data = self._socket.recv(size)
        except TimeoutError:
            return b""
        if not data:
            raise OSError("the other side hung up")
        return data

    def close(self) -> None:
        self._socket.close()


def _check_address(url: str) -> None:
    """pyserial takes any words behind socket:// for an address, and says of its own variables what is wrong with them.
    Raises UsageError."""
    try:
        parts = urlsplit(url)
        sound = bool(parts.hostname) and (parts.port or 0) > 0
    except ValueError:  # a port that is none
        sound = False
    if not sound:
        raise UsageError(f"{url}: no address; give socket://HOST:PORT, with a port from 1 to 65535")


def _when_free(open_port: Callable[[], Any]) -> Any:
    """Open a port, and wait a little where another program has it."""
    deadline = time.monotonic() + FREE_S
    while True:
        try:
            return open_port()
        except OSError as e:
            if e.errno not in TAKEN or time.monotonic() >= deadline:
                raise
        time.sleep(POLL_S)


def _open(url: str, baudrate: int) -> Any:
    if url.startswith(UNIX):
        try:
            return _UnixLine(url.removeprefix(UNIX))
        except OSError as e:
            raise DeviceError(f"{url}: cannot be opened ({e}); is edgehmn-device running there?") from e
    if url.startswith(SOCKET):
        _check_address(url)
    try:
        import serial
        from serial.tools import list_ports
    except ImportError as e:
        raise DependencyError(f"pyserial cannot be imported ({e}); pip install 'edgehmn[device]'") from e
    try:
        return _when_free(
            lambda: serial.serial_for_url(url, baudrate=baudrate, timeout=POLL_S, write_timeout=WRITE_S, exclusive=True)
        )
    except ValueError as e:
        raise UsageError(f"{url}: no port or URL that pyserial understands ({e})") from e
    except OSError as e:
        if e.errno in TAKEN:
            raise DeviceError(f"{url}: another program has it; end that one, or wait for its end") from e
        present = ", ".join(sorted(p.device for p in list_ports.comports())) or "none"
        raise DeviceError(f"{url}: cannot be opened ({e}); serial ports of this machine: {present}") from e
