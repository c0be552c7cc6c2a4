"""An agent in a process of its own, for tests that stop, kill and restart one.

`create_zvol` lasts until the file DIR/go exists; each request whose work begins is a line of DIR/done.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from onelun.config import Limits
from onelun.rpc.job import Job
from onelun.rpc.journal import Journal
from onelun.rpc.link import Link
from onelun.rpc.message import CreateZvol, MapZvol, ZvolCreated, ZvolMapped
from onelun.rpc.server import Server

ROOT = Path(__file__).resolve().parents[2]


class AgentProcess:
    """Starts and stops the agent; its journal and its files are in `directory`."""

    def __init__(self, url: str, node: str, directory: Path) -> None:
        self._url = url
        self._node = node
        self._process: subprocess.Popen[bytes] | None = None
        self.directory = directory

    @property
    def done(self) -> list[str]:
        """What work has begun."""
        try:
            return (self.directory / "done").read_text().split()
        except FileNotFoundError:
            return []

    def start(self) -> None:
        """Start it and wait until it serves, at most 90 s."""
        (self.directory / "serving").unlink(missing_ok=True)
        with open(self.directory / "log", "ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.agent_process", self._node, str(self.directory)],
                cwd=ROOT,
                env={"PYTHONPATH": f"{ROOT}/lib:{ROOT}", "PATH": os.environ["PATH"], "ONELUN_AMQP_URL": self._url},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        limit = time.monotonic() + 90
        while not (self.directory / "serving").exists():
            assert self._process.poll() is None, (self.directory / "log").read_text()
            assert time.monotonic() < limit, (self.directory / "log").read_text()
            time.sleep(0.02)

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """kill -9, as an agent's crash. Killing a dead one succeeds."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(60)
            self._process = None

    def terminate(self) -> int:
        """SIGTERM, and its status when it has ended."""
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(60)


async def serve(node: str, directory: Path) -> None:
    async def on_map(request: MapZvol, job: Job) -> ZvolMapped:
        note(request.zvol)
        return ZvolMapped(bdev="/dev/loop0", device="/dev/onelun/x", uuid="u", size_bytes=512, epoch=1)

    async def on_create(request: CreateZvol, job: Job) -> ZvolCreated:
        note(request.zvol)
        while not (directory / "go").exists():
            await asyncio.sleep(0.02)
        return ZvolCreated(uuid="u", size_bytes=request.size_bytes)

    def note(zvol: str) -> None:
        with open(directory / "done", "a") as done:
            done.write(f"{zvol}\n")

    link = Link(os.environ["ONELUN_AMQP_URL"], name=node, heartbeat_s=20)
    limits = Limits(accept_s=4.0, finish_s=60.0, progress_s=0.5, preempt_s=1.0)
    journal = Journal(str(directory / "journal"))
    server = Server(link, node, journal, {MapZvol: on_map, CreateZvol: on_create}, role="nas", limits=limits)
    await link.open()
    serving = asyncio.create_task(server.serve())
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, serving.cancel)
    waiting = asyncio.create_task(server.serving.wait())
    await asyncio.wait({serving, waiting}, return_when=asyncio.FIRST_COMPLETED)
    (directory / "serving").touch()
    try:
        await serving
    except asyncio.CancelledError:
        pass
    finally:
        waiting.cancel()
        await link.close()
        await journal.close()


if __name__ == "__main__":
    logging.basicConfig(level=logging.DEBUG)
    asyncio.run(serve(sys.argv[1], Path(sys.argv[2])))
