"""A real broker with the users of one frontend, two NAS and two compute nodes, and agents on it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.support.broker import PrivateBroker
from tests.support.requires import requires

from onelun.config import Limits
from onelun.deadline import Deadline
from onelun.errors import NotFound
from onelun.rpc.client import Client
from onelun.rpc.job import Job
from onelun.rpc.journal import Journal
from onelun.rpc.link import Link
from onelun.rpc.message import (
    CreateZvol,
    DelZvol,
    ListZvols,
    MapZvol,
    ZvolCreated,
    ZvolDeleted,
    ZvolList,
    ZvolMapped,
)
from onelun.rpc.server import Server

# Short enough for a test, long enough for a busy machine.
LIMITS = Limits(accept_s=4.0, finish_s=40.0, progress_s=0.2, preempt_s=1.0)
# For what is to be known at once: whoever waits for a limit instead waits for minutes.
PATIENT = Limits(accept_s=120.0, finish_s=240.0, progress_s=0.2, preempt_s=1.0)
AT_ONCE_S = 60.0


async def eventually(true: Callable[[], object], timeout_s: float = 60.0) -> None:
    """Wait until `true()` is, at most `timeout_s`."""
    async with asyncio.timeout(timeout_s):
        while not true():
            await asyncio.sleep(0.01)


@pytest.fixture(scope="session")
def broker() -> Iterator[PrivateBroker]:
    requires("rabbitmq-server")
    with PrivateBroker() as running:
        yield running


@pytest.fixture(scope="session")
def spare_broker() -> Iterator[PrivateBroker]:
    """A broker to be set up anew, stopped and starved: what the other tests must not share."""
    requires("rabbitmq-server")
    with PrivateBroker() as running:
        yield running


@pytest.fixture(scope="session")
def urls(broker: PrivateBroker) -> dict[str, str]:
    return broker.set_up(frontends=["frontend"], nas=["nas1", "nas2"], compute=["node1", "node2"])


@dataclass
class Nas:
    """A NAS that does as its test says; `done` lists the zvols whose work began, `undone` those that were cancelled.

    `spoken` has the moments in which work told how far it is.
    """

    done: list[str] = field(default_factory=list)
    undone: list[str] = field(default_factory=list)
    callers: list[str | None] = field(default_factory=list)
    listed: list[str | None] = field(default_factory=list)
    spoken: list[float] = field(default_factory=list)
    go: asyncio.Event = field(default_factory=asyncio.Event)

    async def on_map(self, request: MapZvol, job: Job) -> ZvolMapped:
        self.done.append(request.zvol)
        self.callers.append(job.caller)
        if request.zvol == "crash":
            raise ZeroDivisionError("secret detail")
        if request.zvol == "absent":
            raise NotFound("there is no zvol called absent", zvol="absent")
        return ZvolMapped(bdev="/dev/loop0", device="/dev/onelun/x", uuid="u", size_bytes=512, epoch=1)

    async def on_create(self, request: CreateZvol, job: Job) -> ZvolCreated:
        """Works until `go` is set, or is cancelled."""
        self.done.append(request.zvol)
        try:
            while not self.go.is_set():
                self.spoken.append(time.monotonic())
                job.progress("filling", 1, 4)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.05):
                        await self.go.wait()
        except asyncio.CancelledError:
            self.undone.append(request.zvol)
            raise
        return ZvolCreated(uuid="u", size_bytes=request.size_bytes)

    async def on_delete(self, request: DelZvol, job: Job) -> ZvolDeleted:
        """Cannot be stopped before `go` is set, like a process that hangs in the kernel."""
        self.done.append(request.zvol)
        while not self.go.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await self.go.wait()
        return ZvolDeleted()

    async def on_list(self, request: ListZvols, job: Job) -> ZvolList:
        self.listed.append(request.name)
        if request.name == "slow":
            await asyncio.sleep(60)
        if request.name == "leisurely":
            # Longer than a caller waits before it asks again.
            await asyncio.sleep(2.5 * LIMITS.accept_s)
        return ZvolList(body=[{"zvol": request.name}])

    @property
    def handlers(self) -> dict[type, Callable[..., Awaitable[object]]]:
        return {
            MapZvol: self.on_map,
            CreateZvol: self.on_create,
            DelZvol: self.on_delete,
            ListZvols: self.on_list,
        }


class Agents:
    """Starts agents and callers, and stops them all at the end."""

    def __init__(self, urls: dict[str, str], directory: Path) -> None:
        self._urls = urls
        self._directory = directory
        self._stack = contextlib.AsyncExitStack()
        self.links: list[Link] = []

    async def link(self, user: str, **how: object) -> Link:
        link = Link(self._urls[user], name=f"test {user}", **how)  # type: ignore[arg-type]
        await link.open()
        self._stack.push_async_callback(link.close)
        self.links.append(link)
        return link

    async def client(self, user: str = "frontend", limits: Limits = LIMITS) -> Client:
        return Client(await self.link(user), limits)

    async def agent(self, nas: Nas, name: str = "nas1", limits: Limits = LIMITS) -> Agent:
        agent = Agent(await self.link(f"nas.{name}", heartbeat_s=10), nas, name, self._directory, limits)
        self._stack.push_async_callback(agent.stop)
        await agent.start()
        return agent

    async def close(self) -> None:
        await self._stack.aclose()


class Agent:
    """One agent on a journal that outlives it."""

    def __init__(self, link: Link, nas: Nas, name: str, directory: Path, limits: Limits) -> None:
        self.link = link
        self.journal = Journal(str(directory / f"{name}.journal"))
        self.server = Server(link, name, self.journal, nas.handlers, role="nas", limits=limits)  # type: ignore[arg-type]
        self.task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self.task = asyncio.create_task(self.server.serve())
        waiting = asyncio.create_task(self.server.serving.wait())
        await asyncio.wait({self.task, waiting}, timeout=90, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if self.task.done():
            self.task.result()
        assert self.server.serving.is_set()

    async def stop(self) -> None:
        if self.task is not None:
            self.task.cancel()
            await asyncio.wait({self.task}, timeout=90)
            self.task = None
            await self.journal.close()


@pytest.fixture
async def agents(urls: dict[str, str], tmp_path: Path) -> AsyncIterator[Agents]:
    started = Agents(urls, tmp_path)
    try:
        yield started
    finally:
        async with asyncio.timeout(120):
            await started.close()


@pytest.fixture
def soon() -> Deadline:
    return Deadline.after(60)
