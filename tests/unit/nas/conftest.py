"""A NAS agent on in-memory pools and targets, with compute nodes that are plain objects."""

import asyncio
import uuid
from types import SimpleNamespace

import msgspec
import pytest

from onelun.config import Limits
from onelun.deadline import Deadline
from onelun.errors import CommandFailed, NoReply, Unreachable
from onelun.model import Portal
from onelun.nas.agent import NasAgent
from onelun.nas.backends.memory.backend import MemoryBackend
from onelun.nas.exporters.memory import MemoryExporter
from onelun.rpc import message as m

CLOUD = "4f2c1f0e-7a55-4c58-9b5c-0c7f3a6f1a01"
MIB = 1 << 20


class Node:
    """A compute node: what it is connected to, which links it has, and how it behaves.

    It answers nothing before `go_on`, where that is an event.
    """

    def __init__(self, name):
        self.name = name
        self.instance = str(uuid.uuid4())
        self.initiator = f"iqn.2026-11.io.onelun.host:{name}"
        self.connected = {}
        self.links = {}
        self.grown = {}
        self.present = True
        self.silent = False
        self.refuse = None
        self.dead = False
        self.go_on = None
        self.asked = []

    async def has_been_asked(self, kind):
        """Return when it has a request of that kind."""
        async with asyncio.timeout(60):
            while not any(isinstance(request, kind) for request in self.asked):
                await asyncio.sleep(0.001)


class Nodes:
    """Stands where rpc.client.Client stands: asks a node, and raises what a client raises."""

    def __init__(self, *names):
        self.by_name = {name: Node(name) for name in names}
        self.answered = {}

    def __getitem__(self, name):
        return self.by_name[name]

    async def ask(self, node, request, *, deadline, id=None):
        there = self.by_name.get(node)
        if there is None or not there.present:
            raise Unreachable(f"no agent called {node} is connected to the broker")
        there.asked.append(request)
        if isinstance(request, m.Hello):
            return m.HelloIs(node=node, role="compute", instance=there.instance, version="0", initiator=there.initiator)
        if there.go_on is not None:
            await there.go_on.wait()
        if there.silent:
            raise NoReply(f"{node} did not answer in time")
        if there.refuse is not None:
            raise there.refuse
        if id is None or id not in self.answered:
            self.answered[id] = self._do(there, request)
        return self.answered[id]

    def _do(self, there, request):
        match request:
            case m.SetZvol():
                there.connected[request.target] = request
                if request.link:
                    there.links[request.link] = request.target
                return m.ZvolAttached(bdev=f"/dev/loop{len(there.connected)}")
            case m.GrowDev():
                there.grown[request.target] = request.size_bytes
                return m.DevGrown(bdev="/dev/loop1")
            case m.TearDown() if there.dead and not request.force and not request.keep_device:
                raise CommandFailed("cannot flush the device")
            case m.TearDown():
                if not request.keep_device:
                    there.connected.pop(request.target, None)
                if request.link and not request.keep_link:
                    there.links.pop(request.link, None)
                return m.ZvolDetached()
            case m.ListDev():
                alive = not there.dead
                links = {iqn: [path for path, to in there.links.items() if to == iqn] for iqn in there.connected}
                return m.DevList(body=[{"target": i, "alive": alive, "links": links[i]} for i in there.connected])
            case m.SyncZvols():
                there.dead = False
                wanted = {held.target: held for held in request.held}
                dropped = tuple(iqn for iqn in there.connected if iqn not in wanted)
                made = tuple(iqn for iqn in wanted if iqn not in there.connected)
                there.connected = dict(wanted)
                return m.ZvolsSynced(connected=made, dropped=dropped, failed={})
        raise AssertionError(request)


@pytest.fixture
def nodes():
    return Nodes("node1", "node2")


@pytest.fixture
def parts(tmp_path, nodes):
    """What outlives the agent: storage, targets, nodes, state directory."""
    return SimpleNamespace(
        backend=MemoryBackend("tank"),
        others={},
        exporter=MemoryExporter("nas1", Portal("127.0.0.1")),
        nodes=nodes,
        state=str(tmp_path / "state"),
        limits=Limits(preempt_s=1.0, lease_s=60.0),
    )


@pytest.fixture
def begin(parts):
    """Start an agent on the parts; a second call stops the first, as a restart does."""
    running = []

    async def start(**limits):
        while running:
            running.pop().close()
        agent = NasAgent(
            "nas1",
            parts.state,
            {"tank": parts.backend, **parts.others},
            parts.exporter,
            parts.nodes,
            msgspec.structs.replace(parts.limits, **limits),
        )
        running.append(agent)
        await agent.start()
        return Nas(agent, parts)

    yield start
    for agent in running:
        agent.close()


class Nas:
    """Asks the agent's handlers as the server does."""

    def __init__(self, agent, parts):
        self.agent = agent
        self.catalogue = agent.catalogue
        self.backend = parts.backend
        self.exporter = parts.exporter
        self.nodes = parts.nodes

    async def ask(self, request, *, job_id=None, limit_s=20.0):
        job = SimpleNamespace(
            id=job_id or str(uuid.uuid4()),
            caller="frontend",
            deadline=Deadline.after(limit_s),
            progress=lambda *_: None,
        )
        return await self.agent.handlers()[type(request)](request, job)

    async def volumes(self):
        return {volume.name: volume for volume in await self.backend.volumes() if volume.state == "ready"}


@pytest.fixture
async def nas(begin):
    return await begin()
