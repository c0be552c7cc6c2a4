"""Growing where the target daemon cannot grow what is in use: hosts let go for a moment, or nothing is changed."""

import pytest

from onelun.errors import Busy, CommandFailed, NotFound, OutOfSpace, Rejected
from onelun.model import Kind, Owner, Portal
from onelun.nas.exporters.memory import MemoryExporter
from onelun.rpc import message as m

from .conftest import CLOUD, MIB, Nodes

IMAGE = Owner(kind=Kind.IMAGE, cloud=CLOUD, image_id=1)
PATH = "/var/lib/one/datastores/0/7/disk.1"


class Killed(BaseException):
    """The agent is killed here."""


class LoggingIn(Nodes):
    """Nodes that really log in to the targets; `open` are the hosts where a VM has its disk open."""

    exporter = None
    open = frozenset()

    def _do(self, there, request):
        if isinstance(request, m.TearDown) and there.name in self.open and not request.force:
            raise Busy("/dev/loop1 is open")
        if isinstance(request, m.GrowDev) and request.target not in there.connected:
            raise NotFound(f"{request.target} is not connected to this host")
        reply = super()._do(there, request)
        if isinstance(request, m.SetZvol):
            self.exporter.log_in(request.target, there.initiator, request.secret)
        elif isinstance(request, m.TearDown) and not request.keep_device:
            self.exporter.log_out(request.target, there.initiator)
        return reply


@pytest.fixture
def nodes():
    return LoggingIn("node1", "node2")


@pytest.fixture
def parts(parts, nodes):
    parts.exporter = nodes.exporter = MemoryExporter("nas1", Portal("127.0.0.1"), grows_in_use=False)
    return parts


@pytest.fixture
async def nas(begin):
    nas = await begin()
    await nas.ask(m.CreateZvol(zvol="one-1", zpool="tank", size_bytes=MIB, owner=IMAGE))
    await nas.ask(m.MapZvol(zvol="one-1", remotehost="node1", cloud=CLOUD, vm=7, disk=1, path=PATH))
    return nas


def grow(size=4 * MIB, **more):
    return m.ResizeZvol(zvol="one-1", zpool="tank", size_bytes=size, **more)


def shown(nas):
    """The size that the one target shows, and the size with which the host connected it last."""
    ((iqn, kept),) = nas.exporter._kept.items()
    return kept.target.size_bytes, nas.nodes["node1"].connected[iqn].size_bytes


async def test_a_host_lets_go_and_connects_the_same_target_again(nas):
    (before,) = await nas.exporter.exports()

    reply = await nas.ask(grow())

    assert reply.size_bytes == 4 * MIB
    assert list(await nas.exporter.exports()) == [before]
    assert shown(nas) == (4 * MIB, 4 * MIB)
    assert nas.nodes["node1"].links == {PATH: before}
    assert [row.state for row in nas.catalogue.attachments()] == ["attached"]


async def test_a_repeat_disturbs_nobody(nas):
    await nas.ask(grow())
    nas.nodes["node1"].asked.clear()

    await nas.ask(grow())

    assert [type(r) for r in nas.nodes["node1"].asked if not isinstance(r, m.Hello)] == [m.GrowDev]


async def test_what_a_vm_has_open_stays_as_it_is(nas):
    nas.nodes.open = {"node1"}

    with pytest.raises(Busy, match=r"one-1 is open on node1.*power the VM off and resize the disk while it is off"):
        await nas.ask(grow())

    assert (await nas.backend.find("one-1")).size_bytes == MIB
    assert shown(nas) == (MIB, MIB)
    assert [row.state for row in nas.catalogue.attachments()] == ["attached"]


async def test_what_is_refused_by_the_pool_or_shrinks_disturbs_nobody(nas):
    nas.nodes["node1"].asked.clear()

    with pytest.raises(OutOfSpace):
        await nas.ask(grow(1 << 45))
    with pytest.raises(Rejected, match="cannot be shrunk"):
        await nas.ask(grow(MIB // 2))

    assert nas.nodes["node1"].asked == []


async def test_a_pool_that_fails_in_the_middle_gives_the_disk_back(nas, monkeypatch):
    async def fails(*_):
        raise CommandFailed("the pool is ill")

    monkeypatch.setattr(nas.backend, "grow", fails)
    with pytest.raises(CommandFailed, match="ill"):
        await nas.ask(grow())

    assert shown(nas) == (MIB, MIB)
    assert [row.state for row in nas.catalogue.attachments()] == ["attached"]


@pytest.mark.parametrize("target_is_gone", [False, True])
async def test_a_repeat_connects_what_an_interruption_left_apart(nas, monkeypatch, target_is_gone):
    real = MemoryExporter.grow

    async def dies(exporter, target):
        # tgtd makes a target that grows anew.
        if target_is_gone:
            await exporter.unexport(target.iqn)
        raise Killed

    monkeypatch.setattr(MemoryExporter, "grow", dies)
    with pytest.raises(Killed):
        await nas.ask(grow())
    assert nas.nodes["node1"].connected == {}
    monkeypatch.setattr(MemoryExporter, "grow", real)

    await nas.ask(grow())

    assert shown(nas) == (4 * MIB, 4 * MIB)
    assert [row.state for row in nas.catalogue.attachments()] == ["attached"]


async def test_the_rounds_give_back_what_an_interruption_left_apart(nas, begin, monkeypatch):
    real = MemoryExporter.grow

    async def dies(*_):
        raise Killed

    monkeypatch.setattr(MemoryExporter, "grow", dies)
    with pytest.raises(Killed):
        await nas.ask(grow())
    monkeypatch.setattr(MemoryExporter, "grow", real)
    nas = await begin()

    await nas.agent.rounds.sync("node1")

    (held,) = nas.nodes["node1"].connected.values()
    assert (held.size_bytes, held.links) == (4 * MIB, (PATH,))
    assert [row.state for row in nas.catalogue.attachments()] == ["attached"]


async def test_another_cloud_s_volume_is_not_grown(nas):
    with pytest.raises(Rejected, match="of another cloud"):
        await nas.ask(grow(cloud="00000000-0000-0000-0000-000000000001"))
