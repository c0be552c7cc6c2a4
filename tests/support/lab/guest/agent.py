"""Runs commands in a guest for whoever connects over the lab's own cable. Standard library alone: it starts on the bare root.

One connection is one command. The caller sends a line of JSON (argv, env, cwd), then frames of what it types; it is sent
frames of output and, last, the status. A frame is a letter, a length of four bytes, and the bytes: `i` stdin (empty: its
end), `o` stdout, `e` stderr, `x` the status in decimal. When the caller goes away, the command's group is killed.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading

_HEADER = struct.Struct(">cI")


class Call:
    """One command of one caller."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._stream = connection.makefile("rb")
        self._sending = threading.Lock()

    def serve(self) -> None:
        """Run the command to its end."""
        with self._connection:
            line = self._stream.readline()
            if not line:
                return
            wanted = json.loads(line)
            try:
                process = subprocess.Popen(
                    wanted["argv"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    env={**os.environ, **wanted.get("env", {})},
                    cwd=wanted.get("cwd", "/"),
                    start_new_session=True,
                )
            except OSError as error:
                self._send(b"e", f"{wanted['argv'][0]}: {error.strerror}\n".encode())
                self._send(b"x", b"127")
                return
            self._run(process)

    def _run(self, process: subprocess.Popen[bytes]) -> None:
        outputs = {
            threading.Thread(target=self._pass_on, args=(kind, pipe), daemon=True): pipe
            for kind, pipe in ((b"o", process.stdout), (b"e", process.stderr))
        }
        for thread in (*outputs, threading.Thread(target=self._feed, args=(process,), daemon=True)):
            thread.start()
        status = process.wait()
        for thread, pipe in outputs.items():
            # A daemon that the command left behind may hold its pipe open; the command itself is over, and its words are told.
            thread.join(1)
            while thread.is_alive() and (self._sending.locked() or unread(pipe)):
                thread.join(1)
        self._send(b"x", str(status if status >= 0 else 128 - status).encode())

    def _pass_on(self, kind: bytes, pipe: object) -> None:
        while data := os.read(pipe.fileno(), 65536):  # type: ignore[attr-defined]
            self._send(kind, data)

    def _feed(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        while len(header := self._stream.read(_HEADER.size)) == _HEADER.size:
            _, length = _HEADER.unpack(header)
            data = self._stream.read(length)
            with contextlib.suppress(OSError, ValueError):
                if data:
                    process.stdin.write(data)
                    process.stdin.flush()
                else:
                    process.stdin.close()
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

    def _send(self, kind: bytes, data: bytes) -> None:
        with self._sending, contextlib.suppress(OSError):
            self._connection.sendall(_HEADER.pack(kind, len(data)) + data)


def unread(pipe: object) -> int:
    """How many bytes are in the pipe."""
    return struct.unpack("i", fcntl.ioctl(pipe.fileno(), termios.FIONREAD, bytes(4)))[0]  # type: ignore[attr-defined,no-any-return]


def main(address: str, port: int) -> None:
    """Serve for ever."""
    with socket.create_server((address, port), backlog=64) as listener:
        while True:
            connection, _ = listener.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=Call(connection).serve, daemon=True).start()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
