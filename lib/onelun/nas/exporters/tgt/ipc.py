"""The control socket of tgtd, spoken directly: tgtadm would show the CHAP secret on its argv, and costs a process per call.

The layout is that of `struct tgtadm_req` and `struct tgtadm_rsp` in usr/tgtadm.h of tgt 1.0.85, the numbers those of the enums
there and in usr/tgtadm_error.h. The daemon reads one request per connection, answers it and closes (usr/mgmt.c). It serves
only its own uid and gid, and closes without an answer on others.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
from enum import IntEnum

from onelun.deadline import Deadline
from onelun.errors import CommandFailed, ProtocolError, Stalled, Unreachable

# mode, op, lld[64], len, tid, sid, lun, cid, host_no, device_type, ac_dir, pack, force
_REQUEST = struct.Struct("=II64sIiQQIIIIII")
_RESPONSE = struct.Struct("=II")
# MAX_MGT_BUFSIZE in usr/mgmt.c.
_MOST_PARAMS = 8192
# The daemon's list grows by about 1.4 KiB a target.
_MOST_ANSWER = 64 << 20
# The daemon's accept queue is 32 long (usr/mgmt.c); a longer one of ours would be refused with EAGAIN.
_AT_ONCE = 8
_BACKLOG_FULL_S = 0.01


class Mode(IntEnum):
    """enum tgtadm_mode."""

    SYSTEM = 0
    TARGET = 1
    DEVICE = 2
    LLD = 4
    CONNECTION = 6
    ACCOUNT = 7


class Op(IntEnum):
    """enum tgtadm_op."""

    NEW = 0
    DELETE = 1
    SHOW = 2
    BIND = 3
    UNBIND = 4
    UPDATE = 5


class Code(IntEnum):
    """Those of enum tgtadm_errno that tell where things are."""

    NO_TARGET = 4
    NO_LUN = 5
    NO_SESSION = 6
    NO_CONNECTION = 7
    TARGET_EXIST = 9
    LUN_EXIST = 10
    ACL_EXIST = 12
    ACL_NOEXIST = 13
    USER_EXIST = 14
    NO_USER = 15
    INVALID_REQUEST = 17
    TARGET_ACTIVE = 19
    LUN_ACTIVE = 20


class Refused(CommandFailed):
    """tgtd answered with an error; `number` is its code."""

    def __init__(self, sentence: str, number: int) -> None:
        super().__init__(sentence, command="tgtd", status=number)
        self.number = number


class ControlSocket:
    """The control socket at `path`, which for tgtd's own default is /var/run/tgtd/socket.0."""

    def __init__(self, path: str, *, timeout_s: float = 10.0) -> None:
        self.path = path
        self._timeout_s = timeout_s
        self._turns = asyncio.Semaphore(_AT_ONCE)

    async def request(
        self,
        mode: Mode,
        op: Op,
        params: str = "",
        *,
        tid: int = -1,
        sid: int = 0,
        lun: int = 0,
        cid: int = 0,
    ) -> str:
        """Have the daemon do one thing, and return what it prints.

        Raises Unreachable when no daemon takes the request, Stalled when one took it and does not answer in time,
        Refused with the daemon's code.
        """
        # What the daemon parses ends in a NUL; tgtadm's concat_buf sends one too.
        payload = params.encode() + b"\0" if params else b""
        if len(payload) > _MOST_PARAMS or "\0" in params:
            raise CommandFailed("the parameters for tgtd are too long or hold a NUL", command="tgtd")
        length = _REQUEST.size + len(payload)
        header = _REQUEST.pack(mode, op, b"iscsi", length, tid, sid, lun, cid, 0, 0, 0, 0, 0)
        async with self._turns:
            number, text = await self._exchange(header + payload)
        if number:
            raise Refused(f"tgtd refuses '{mode.name.lower()} {op.name.lower()}': {_reason(number)}", number)
        return text

    async def _exchange(self, message: bytes) -> tuple[int, str]:
        deadline = Deadline.after(self._timeout_s)
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as connection:
            await self._connect(connection, deadline)
            try:
                async with asyncio.timeout(deadline.left_s()):
                    await loop.sock_sendall(connection, message)
                    number, length = _RESPONSE.unpack(await self._read(connection, _RESPONSE.size))
                    if not _RESPONSE.size <= length <= _MOST_ANSWER:
                        raise ProtocolError(f"what listens at {self.path} does not speak as tgtd does")
                    body = await self._read(connection, length - _RESPONSE.size)
            except TimeoutError:
                raise Stalled(
                    f"tgtd at {self.path} took a request and did not answer in {self._timeout_s:g} s"
                ) from None
            except OSError as error:
                raise self._closed() from error
        return number, body.rstrip(b"\0").decode(errors="replace")

    async def _connect(self, connection: socket.socket, deadline: Deadline) -> None:
        while True:
            try:
                connection.connect(self.path)
            except BlockingIOError:
                # unix(7): the backlog is full. Nothing is under way, unlike with TCP, so asyncio's own connect misleads.
                if deadline.over():
                    raise Unreachable(f"tgtd at {self.path} takes no requests: it hangs") from None
                await asyncio.sleep(_BACKLOG_FULL_S)
            except OSError as error:
                reason = "the path is too long" if error.errno is None else errno.errorcode.get(error.errno or 0)
                raise Unreachable(f"tgtd does not answer at {self.path} ({reason}): start it") from error
            else:
                return

    async def _read(self, connection: socket.socket, length: int) -> bytes:
        loop = asyncio.get_running_loop()
        pieces = bytearray()
        while len(pieces) < length:
            piece = await loop.sock_recv(connection, min(length - len(pieces), 1 << 18))
            if not piece:
                raise self._closed()
            pieces += piece
        return bytes(pieces)

    def _closed(self) -> Stalled:
        return Stalled(
            f"tgtd closed its control socket {self.path} without an answer: it ended, or it runs as another user than this agent"
        )


def _reason(number: int) -> str:
    try:
        return Code(number).name.lower().replace("_", " ")
    except ValueError:
        return f"its error {number}"
