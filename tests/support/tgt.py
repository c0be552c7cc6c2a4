"""A tgtd of one's own: its control socket, log and pidfile in a directory, on given portals.

Used by tests and by scripts/sandbox, which starts it inside a host's namespaces by a command prefix. Starting it makes
no namespace, file or target outside the directory.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from onelun.errors import OnelunError
from onelun.nas.exporters.tgt.ipc import ControlSocket, Mode, Op
from onelun.nas.exporters.tgt.listing import parse_tids

_START_S = 60.0
_END_S = 5.0
# A killed process is gone when the kernel has let go of what it held.
_DEATH_S = 60.0
_LEAVE_S = 1.0


class PrivateTgtd:
    """One tgtd. `portals` are `ADDRESS:PORT`; `prefix` is put before the command, such as nsenter with its options."""

    def __init__(
        self, directory: str | Path, portals: Sequence[str], *, prefix: Sequence[str] = (), threads: int = 4
    ) -> None:
        self._directory = Path(directory)
        self._portals = list(portals)
        self._prefix = list(prefix)
        self._threads = threads

    @property
    def control_socket(self) -> str:
        """Where it listens for requests: tgtd appends its control port, 0, to TGT_IPC_SOCKET."""
        return str(self._directory / "tgtd.sock.0")

    @property
    def pidfile(self) -> Path:
        return self._directory / "tgtd.pid"

    @property
    def log(self) -> Path:
        return self._directory / "tgtd.log"

    def start(self) -> int:
        """Start it and wait until it answers; return its pid. Raises RuntimeError with its log when it does not."""
        self._directory.mkdir(parents=True, exist_ok=True)
        portals = [word for portal in self._portals for word in ("--iscsi", f"portal={portal}")]
        command = [*self._prefix, "tgtd", "-f", "-t", str(self._threads), *portals]
        environment = {**os.environ, "TGT_IPC_SOCKET": self.control_socket.removesuffix(".0"), "LC_ALL": "C"}
        with self.log.open("ab") as log:
            begins = log.tell()
            started = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        until = time.monotonic() + _START_S
        while not self._answers():
            if started.poll() is not None or time.monotonic() > until:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(started.pid, signal.SIGKILL)
                raise RuntimeError(f"tgtd does not start on {self._portals}: {self.log.read_text()[-2000:]}")
            time.sleep(0.01)
        # A tgtd that cannot listen on its portal says so in its log alone, and goes on without.
        said = self.log.read_bytes()[begins:].decode(errors="replace")
        if "failed to create/bind" in said or "unable to bind" in said:
            os.kill(self._peer(), signal.SIGKILL)
            raise RuntimeError(f"tgtd cannot listen on {self._portals}: {said[-2000:]}")
        # With a prefix the child may be nsenter's; the daemon itself is the one that listens.
        pid = self._peer()
        self.pidfile.write_text(f"{pid}\n")
        return pid

    @property
    def pid(self) -> int | None:
        """Its pid while it runs."""
        try:
            pid = int(self.pidfile.read_text())
            name = Path(f"/proc/{pid}/comm").read_text().strip()
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (OSError, ValueError):
            return None
        return pid if name == "tgtd" and state != "Z" else None

    def stop(self) -> None:
        """End it: delete the targets, ask it to go, kill it when it does not. Stopping a stopped one succeeds.

        It ignores SIGTERM while it has targets.
        """
        if self.pid is not None:
            # A thread of its own, since the caller may be inside a running loop.
            leaving = threading.Thread(target=lambda: asyncio.run(self._leave()))
            leaving.start()
            leaving.join()
            self._wait(_LEAVE_S)
        self.kill()

    def kill(self) -> None:
        """Kill it as it is, by its pid."""
        pid = self.pid
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            self._wait(_DEATH_S)
        with contextlib.suppress(ChildProcessError):
            if pid is not None:
                os.waitpid(pid, os.WNOHANG)
        for left in (self.pidfile, Path(self.control_socket), Path(self.control_socket + ".lock")):
            left.unlink(missing_ok=True)

    def _wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while self.pid is not None and time.monotonic() < until:
            time.sleep(0.005)

    async def _leave(self) -> None:
        control = ControlSocket(self.control_socket, timeout_s=2.0)
        with contextlib.suppress(OnelunError, TimeoutError):
            async with asyncio.timeout(_END_S):
                await self._delete_all(control)

    async def _delete_all(self, control: ControlSocket) -> None:
        for tid in parse_tids(await control.request(Mode.LLD, Op.SHOW)).values():
            with contextlib.suppress(OnelunError):
                await control.request(Mode.TARGET, Op.DELETE, tid=tid)
        await control.request(Mode.SYSTEM, Op.DELETE)

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as connection:
            try:
                connection.connect(self.control_socket)
            except OSError:
                return False
        return True

    def _peer(self) -> int:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(self.control_socket)
            return int.from_bytes(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[:4], "little")


def free_port(*, but: int = 0) -> int:
    """A port of 127.0.0.1 that nobody listens on now, and that no outgoing connection is given by the kernel meanwhile.

    It is another one than `but`, which somebody may be about to listen on.
    """
    while True:
        # Below net.ipv4.ip_local_port_range, whose default begins at 32768.
        port = random.randrange(20000, 32000)
        if port == but:
            continue
        with socket.socket() as one, contextlib.suppress(OSError):
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.bind(("127.0.0.1", port))
            return port
