"""Commands in guests: the caller's side of tests/support/lab/guest/agent.py."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import socket
import struct
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.support.lab.place import AGENT_PORT, Lab, LabError

_HEADER = struct.Struct(">cI")
Show = Callable[[bytes, bytes], None]


@dataclass(frozen=True)
class Done:
    """How a command in a guest ended."""

    status: int
    stdout: bytes
    stderr: bytes


def answers(lab: Lab, host: str) -> bool:
    """Whether the guest's agent takes commands."""
    try:
        with socket.create_connection((lab.agent_address(host), AGENT_PORT), timeout=1):
            return True
    except OSError:
        return False


def call(lab: Lab, host: str, argv: Sequence[str], *, limit_s: float = 60, stdin: bytes = b"") -> Done:
    """Run `argv` on `host` and return how it ended. LabError when the guest does not answer or the time is over."""
    found: dict[bytes, bytearray] = {b"o": bytearray(), b"e": bytearray()}
    status = _talk(lab, host, argv, limit_s, lambda kind, data: found[kind].extend(data), stdin=stdin)
    return Done(status, bytes(found[b"o"]), bytes(found[b"e"]))


def check(lab: Lab, host: str, *argv: str, limit_s: float = 60, stdin: bytes = b"") -> str:
    """Run `argv` on `host` and return its stdout. LabError, with its words, when it fails."""
    done = call(lab, host, argv, limit_s=limit_s, stdin=stdin)
    if done.status:
        raise LabError(f"{' '.join(argv)} failed on {host}: {' '.join(done.stderr.decode(errors='replace').split())}")
    return done.stdout.decode(errors="replace")


def pass_through(lab: Lab, host: str, argv: Sequence[str], limit_s: float) -> int:
    """Run `argv` on `host` with our own stdin, stdout and stderr; returns its status."""

    def show(kind: bytes, data: bytes) -> None:
        stream = sys.stdout if kind == b"o" else sys.stderr
        stream.buffer.write(data)
        stream.buffer.flush()

    return _talk(lab, host, argv, limit_s, show, stdin=None)


def _talk(
    lab: Lab,
    host: str,
    argv: Sequence[str],
    limit_s: float,
    show: Show,
    *,
    stdin: bytes | None,
) -> int:
    """`stdin` None means our own."""
    end = time.monotonic() + limit_s
    connection = _connect(lab, host, min(10, limit_s))
    with connection, selectors.DefaultSelector() as ready:
        connection.sendall(json.dumps({"argv": list(argv), "cwd": "/checkout"}).encode() + b"\n")
        if stdin is None:
            _watch_stdin(ready, connection)
        else:
            connection.settimeout(limit_s)
            for piece in (stdin, b"") if stdin else (b"",):
                _type(connection, piece)
        ready.register(connection, selectors.EVENT_READ)
        answer = _Answer(show)
        while (left := end - time.monotonic()) > 0:
            for key, _ in ready.select(left):
                if key.fileobj is not connection:
                    if not _type(connection, os.read(0, 65536)):
                        ready.unregister(0)
                elif not (data := _received(connection)):
                    raise LabError(f"{host} went away during {argv[0]}")
                elif (status := answer.take(data)) is not None:
                    return status
    raise LabError(f"{argv[0]} did not end on {host} within {limit_s:g} s")


def _connect(lab: Lab, host: str, timeout_s: float) -> socket.socket:
    try:
        connection = socket.create_connection((lab.agent_address(host), AGENT_PORT), timeout=timeout_s)
    except OSError as error:
        raise LabError(f"{host} does not answer: {error.strerror or error}") from error
    # A guest whose power was cut does not hang up.
    for option, value in (("SO_KEEPALIVE", 1), ("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 4)):
        level = socket.SOL_SOCKET if option.startswith("SO_") else socket.IPPROTO_TCP
        connection.setsockopt(level, getattr(socket, option), value)
    return connection


def _received(connection: socket.socket) -> bytes:
    try:
        return connection.recv(1 << 20)
    except OSError:
        return b""


class _Answer:
    """What comes back, frame by frame."""

    def __init__(self, show: Show) -> None:
        self._show = show
        self._received = bytearray()

    def take(self, data: bytes) -> int | None:
        """More of it; returns the status once that has come."""
        self._received += data
        while len(self._received) >= _HEADER.size:
            kind, length = _HEADER.unpack_from(self._received)
            end = _HEADER.size + length
            if len(self._received) < end:
                return None
            frame = bytes(self._received[_HEADER.size : end])
            del self._received[:end]
            if kind == b"x":
                return int(frame)
            self._show(kind, frame)
        return None


def _type(connection: socket.socket, data: bytes) -> bool:
    """Give the command something to read; nothing is the end. Returns whether that was not the end."""
    connection.sendall(_HEADER.pack(b"i", len(data)) + data)
    return bool(data)


def _watch_stdin(ready: selectors.BaseSelector, connection: socket.socket) -> None:
    try:
        ready.register(0, selectors.EVENT_READ)
    except (OSError, ValueError):
        # A regular file or /dev/null cannot be waited for, and never makes us wait.
        with contextlib.suppress(OSError):
            while _type(connection, os.read(0, 65536)):
                pass
