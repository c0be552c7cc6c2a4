"""The real executables against a real frontend, whose NAS agents and hosts are in memory."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.fake_nas import Cloud
from tests.support.recorded import FRONT_END, HOSTS, Recorded

from onelun.config import Frontend as Settings
from onelun.config import Limits
from onelun.driver.api import Api
from onelun.driver.running import Context
from onelun.frontend.server import Frontend

CHECKOUT = Path(__file__).parents[2]
CLOUD = "3f0c5a4e-6f0f-4b62-9d39-2d1f6a1c7b11"
GIB = 1 << 30


class FrontEnd:
    """A machine with oned's scripts and the resident frontend."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.socket = directory / "run" / "frontend.sock"
        self.cloud = Cloud({"nas1": {"tank": 100 * GIB}, "nas2": {"tank": 100 * GIB}})
        self.datastores = directory / "datastores"
        self.datastores.mkdir()
        self.settings: dict[str, Any] = {}
        self.scripts = CHECKOUT
        self.api: Api | None = None
        self.finish_s = 4.0
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None

    def context(self, release: str | None) -> Context:
        settings: dict[str, Any] = {
            "cloud": CLOUD,
            "opennebula_version": release,
            "socket": str(self.socket),
            "nas": ("nas1", "nas2"),
            "names": (FRONT_END,),
            "hosts": dict(HOSTS),
            "owner": str(os.getuid()),
            "staging": str(self.directory),
        }
        return Context(
            Settings(**(settings | self.settings)), Limits(accept_s=1.0, finish_s=60.0), self.cloud, self.api
        )

    def start(self, release: str | None = "7.5") -> FrontEnd:
        """Start the frontend, and return when it listens."""
        ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(release, ready)), daemon=True)
        self._thread.start()
        assert ready.wait(60), "the frontend did not start"
        return self

    async def _serve(self, release: str | None, ready: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        frontend = Frontend(self.context(release), finish_s=self.finish_s)
        self._task = asyncio.ensure_future(frontend.serve())
        await frontend.ready.wait()
        ready.set()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    def stop(self) -> None:
        """Stop the frontend as SIGTERM does; a stopped one stays so."""
        if self._thread is None:
            return
        assert self._loop is not None
        assert self._task is not None
        self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join(60)
        assert not self._thread.is_alive(), "the frontend did not end within 60 s"
        self._thread = None

    def hang_next(self) -> None:
        """Have the NAS agents answer nothing until `release`."""
        self.cloud.hang = asyncio.Event()

    def release(self) -> None:
        """Have them answer again."""
        assert self._loop is not None
        assert self.cloud.hang is not None
        self._loop.call_soon_threadsafe(self.cloud.hang.set)

    def environment(self, **more: str) -> dict[str, str]:
        return {"PATH": os.environ["PATH"], "ONELUN_SOCKET": str(self.socket), **more}

    def begin(self, call: Recorded, **more: str) -> subprocess.Popen[bytes]:
        """Start a script; the caller waits for it."""
        return subprocess.Popen(
            [str(self.scripts / call.name.replace("/", "/onelun/")), *call.argv],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.environment(**more),
        )

    def run(self, call: Recorded, **more: str) -> tuple[str, str, int]:
        """Run a script to its end: stdout, stderr, status."""
        with self.begin(call, **more) as process:
            try:
                stdout, stderr = process.communicate(call.stdin, timeout=300)
            finally:
                process.kill()
        return stdout.decode(), stderr.decode(), process.returncode


@pytest.fixture
def front(tmp_path: Path) -> Iterator[FrontEnd]:
    machine = FrontEnd(tmp_path)
    try:
        yield machine
    finally:
        machine.stop()
