"""What travels between a stub and the frontend: frames of one letter, four bytes of length, and a payload.

The stub sends C (the call: version, id, attempt, action, arguments, separated by NUL), I (stdin, of actions that have
one) and G (go); later perhaps X (cancel). The frontend sends O (stdout), E (stderr) and S (status in decimal), and that
is the end. datastore/onelun/stub.py has the same in a few lines, since it may import nothing of this.
"""

from __future__ import annotations

import asyncio
import re

from onelun.driver.running import Call, Outcome
from onelun.errors import ProtocolError
from onelun.naming import checked_uuid

VERSION = b"1"
# A document of oned has some 10 kB; a VM with hundreds of snapshots stays far below this.
_LARGEST = 64 << 20
_ATTEMPT = re.compile(rb"[0-9]{1,9}")


def frame(kind: bytes, payload: bytes) -> bytes:
    """One frame."""
    return kind + len(payload).to_bytes(4, "big") + payload


def outcome_frames(outcome: Outcome) -> bytes:
    """The frames that end an action."""
    return frame(b"O", outcome.stdout) + frame(b"E", outcome.stderr) + frame(b"S", b"%d" % outcome.status)


async def read_frame(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """The next frame. Raises IncompleteReadError at the end of the stream, ProtocolError for an endless one."""
    head = await reader.readexactly(5)
    size = int.from_bytes(head[1:], "big")
    if size > _LARGEST:
        raise ProtocolError(f"a frame of {size} bytes is more than the {_LARGEST} that are read")
    return head[:1], await reader.readexactly(size)


async def read_call(reader: asyncio.StreamReader) -> Call:
    """The call that a stub begins with. Raises IncompleteReadError, ProtocolError, Rejected for an id that is no UUID."""
    call: Call | None = None
    while True:
        kind, payload = await read_frame(reader)
        if kind == b"C":
            call = _call(payload)
        elif kind == b"I" and call is not None:
            call = call._replace(stdin=payload)
        elif kind == b"G" and call is not None:
            return call
        else:
            raise ProtocolError(f"the frame {kind!r} has no place here")


def _call(payload: bytes) -> Call:
    version, *fields = payload.split(b"\0")
    if version != VERSION:
        raise ProtocolError(f"the stub speaks version {version[:10]!r}, and this frontend {VERSION!r}: restart it")
    if len(fields) < 3 or not _ATTEMPT.fullmatch(fields[1]):
        raise ProtocolError("the call has no id, attempt and action")
    action_id, attempt, name, *argv = (field.decode("utf-8", "surrogateescape") for field in fields)
    return Call(checked_uuid(action_id), name, tuple(argv), attempt=int(attempt))
