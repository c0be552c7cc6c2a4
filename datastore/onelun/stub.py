"""What every action of onelun is to oned: it hands the call to the resident frontend and replays what that says.

oned starts one of these for every action, hundreds at once, so it costs about as much as the bare interpreter: Python 3.6
and C modules that the interpreter has built in, nothing else. docs/architecture.md tells the whole way of an action; the
frames are those of lib/onelun/frontend/framing.py.

Only when nobody listens at all does it run the action itself, by the installed interpreter (or with ONELUN_DIRECT=1, for
a person who debugs). Once a byte was sent it never does: the frontend may have acted on it. Then it asks again under the
same id, which never does the work twice.
"""

import _signal
import _socket
import posix
import sys
import time

SOCKET = "/run/onelun/frontend.sock"
# A little more than the frontend's own limits, so that it is the one to say what happened.
DEADLINE_S = 130.0
COPY_DEADLINE_S = 24 * 3600.0
COPIES = (
    "datastore/cp",
    "datastore/clone",
    "datastore/export",
    "datastore/snap_revert",
    "datastore/snap_flatten",
    "tm/clone",
    "tm/mv",
    "tm/mvds",
    "tm/cpds",
    "tm/snap_create",
    "tm/snap_create_live",
    "tm/snap_revert",
    "tm/prebackup",
    "tm/prebackup_live",
    "tm/restore",
)
# What else has a document on stdin; the first has it only with one argument, as datastore actions do.
MONITOR = "tm/monitor"
MIGRATIONS = ("tm/premigrate", "tm/postmigrate", "tm/failmigrate")
BACKUPS = ("tm/prebackup", "tm/prebackup_live", "tm/postbackup", "tm/postbackup_live")
# OpenNebula's backup_cancel ends what is called so and has the VM in its arguments (datastore/rsync/backup_cancel).
CANCELLED_AS = b"ruby"
# A frontend that was restarted is back long before; one that is not back by then is down.
ABSENCE_S = DEADLINE_S
CANCEL_S = 5.0
RECONNECT_S = 0.25
MAX_FRAME = 64 << 20
VERSION = 1

Link = _socket.socket
Outcome = "tuple[int, bytes, bytes]"  # status, stdout, stderr


class Stopped(BaseException):
    """SIGTERM or SIGINT came: oned gives the action up."""


class TrustError(Exception):
    """Whoever listens on the socket is not to be trusted."""


class LinkError(Exception):
    """The frontend went away in the middle of the action."""


def act(action: str) -> None:
    """Run the action named `action` ("tm/clone") with the script's arguments; never returns."""
    status = 1
    try:
        for number in (_signal.SIGTERM, _signal.SIGINT):
            _signal.signal(number, _stop)
        if action in BACKUPS[:2]:
            _be_called(CANCELLED_AS)
        status = _Action(action).run()
    except Stopped:
        say("the action was stopped")
    except TrustError as error:
        say(str(error))
    except Exception as error:  # noqa: BLE001 - a traceback on stderr is no message for oned
        say(f"cannot run {action}: {error}")
    # Python's own end closes nothing that the kernel does not, and costs a millisecond.
    posix._exit(status)  # noqa: SLF001 - it is what os._exit is, and importing os is what this file is about


def _be_called(name: bytes) -> None:
    try:
        descriptor = posix.open("/proc/self/comm", posix.O_WRONLY)
        write(descriptor, name)
        posix.close(descriptor)
    except OSError:
        pass  # it cannot be cancelled then, and works all the same


def _stop(number: int, frame: object) -> None:
    raise Stopped


class _Action:
    """One action, from its call to its end."""

    def __init__(self, action: str) -> None:
        self.action = action
        self.arguments = sys.argv[1:]
        self.id = _random_uuid()
        self.path = posix.environ.get(b"ONELUN_SOCKET", SOCKET.encode()) or SOCKET.encode()
        self.parent = posix.getppid()
        limit = COPY_DEADLINE_S if action in COPIES else DEADLINE_S
        self.deadline = time.monotonic() + limit
        self.stdin = None
        self.attempt = 0
        self.called = False

    def run(self) -> int:
        """The status to end with; what the frontend said is on stdout and stderr then."""
        if posix.environ.get(b"ONELUN_DIRECT") == b"1":
            return self._direct("ONELUN_DIRECT is 1")
        try:
            link = self._connect()
        except OSError as error:
            return self._direct(f"{shown(self.path)}: {error.strerror}")
        self.stdin = self._read_stdin()
        status, stdout, stderr = self._outcome(link)
        write(1, stdout)
        write(2, stderr)
        return status

    def _direct(self, why: str) -> int:
        import direct

        return direct.become(self.action, self.arguments, self.deadline, why)

    def _outcome(self, link: "Link | None") -> "Outcome":
        """What the frontend says; it is asked again under the same id when it goes away and comes back."""
        while link is not None:
            try:
                return self._ask(link)
            except (LinkError, OSError):
                self.attempt += 1
                link = self._connect_again()
        return _failed("onelun-frontend went away during the action and did not come back; the outcome is unknown")

    def _connect(self) -> "Link":
        link = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        link.settimeout(max(0.1, self._left()))
        link.connect(self.path)
        credentials = link.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12)
        peer, own = int.from_bytes(credentials[4:8], sys.byteorder), posix.getuid()
        if own not in (0, peer):
            raise TrustError(f"{shown(self.path)} is served by user {peer}, not by {own}: nothing was sent")
        return link

    def _connect_again(self) -> "Link | None":
        """A new connection, or None when the frontend stays away, the deadline is over, or the one who asked is gone."""
        end = min(self.deadline, time.monotonic() + ABSENCE_S)
        while time.monotonic() < end and posix.getppid() == self.parent:
            try:
                return self._connect()
            except OSError:
                time.sleep(RECONNECT_S)
        return None

    def _ask(self, link: "Link") -> "Outcome":
        self.called = False
        try:
            link.settimeout(max(0.1, self._left()))
            link.sendall(self._call())
            self.called = True
            return self._hear(link)
        except _socket.timeout:
            return _failed("onelun-frontend did not answer in time; the action's outcome is unknown")
        except Stopped:
            return self._cancel(link)

    def _call(self) -> bytes:
        fields = [b"%d" % VERSION, self.id.encode(), b"%d" % self.attempt, self.action.encode()]
        encoding = sys.getfilesystemencoding()
        fields += [argument.encode(encoding, "surrogateescape") for argument in self.arguments]
        frames = _frame(b"C", b"\0".join(fields))
        if self.stdin is not None:
            frames += _frame(b"I", self.stdin)
        return frames + _frame(b"G", b"")

    def _hear(self, link: "Link") -> "Outcome":
        """Status, stdout and stderr. Raises LinkError when the connection ends before the status."""
        said = {b"O": b"", b"E": b""}
        while True:
            kind, payload = _read_frame(link)
            if kind in said:
                said[kind] += payload
            elif kind == b"S":
                return int(payload), said[b"O"], said[b"E"]

    def _cancel(self, link: "Link") -> "Outcome":
        """Tell the frontend that nobody wants the action any more, and give it a moment to undo."""
        for number in (_signal.SIGTERM, _signal.SIGINT):
            _signal.signal(number, _signal.SIG_IGN)
        if self.called:
            try:
                link.settimeout(CANCEL_S)
                link.sendall(_frame(b"X", b""))
                status, stdout, stderr = self._hear(link)
                return status or 1, stdout, stderr
            except (LinkError, OSError):
                pass
        return _failed("the action was stopped")

    def _read_stdin(self) -> "bytes | None":
        """The document on stdin, of the actions that get one there (datastore actions with one argument, migrations, backups)."""
        alone = len(self.arguments) == 1 and (self.action.startswith("datastore/") or self.action == MONITOR)
        if not alone and self.action not in MIGRATIONS + BACKUPS:
            return None
        data = b""
        try:
            if posix.isatty(0):
                return data
            while len(data) < MAX_FRAME:
                piece = posix.read(0, 1 << 16)
                if not piece:
                    break
                data += piece
        except OSError:
            pass  # stdin is closed: the same as empty
        return data

    def _left(self) -> float:
        return self.deadline - time.monotonic()


def _frame(kind: bytes, payload: bytes) -> bytes:
    return kind + len(payload).to_bytes(4, "big") + payload


def _read_frame(link: "Link") -> "tuple[bytes, bytes]":
    head = _read_exactly(link, 5)
    size = int.from_bytes(head[1:], "big")
    if size > MAX_FRAME:
        raise LinkError
    return head[:1], _read_exactly(link, size)


def _read_exactly(link: "Link", size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = link.recv(size - len(data))
        if not piece:
            raise LinkError
        data += piece
    return data


def _failed(sentence: str) -> "Outcome":
    return 1, b"", _line(sentence)


def _line(sentence: str) -> bytes:
    """One plain line, which every release takes for the message."""
    return (f"onelun: {' '.join(sentence.split())}\n").encode("utf-8", "replace")


def say(sentence: str) -> None:
    """Write one plain line to stderr."""
    try:  # noqa: SIM105 - importing contextlib would double what the stub costs
        write(2, _line(sentence))
    except OSError:
        pass


def write(descriptor: int, data: bytes) -> None:
    """Write all of `data`."""
    while data:
        data = data[posix.write(descriptor, data) :]


def shown(path: bytes) -> str:
    """A path of bytes, for a person."""
    return path.decode("utf-8", "replace")


def _random_uuid() -> str:
    digits = posix.urandom(16).hex()
    variant = "89ab"[int(digits[16], 16) & 3]
    parts = (digits[:8], digits[8:12], "4" + digits[13:16], variant + digits[17:20], digits[20:])
    return "-".join(parts)
