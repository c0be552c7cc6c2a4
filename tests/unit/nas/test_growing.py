"""Growing volumes, and a volume that two hosts have while a migration runs."""

import pytest

from onelun.errors import Conflict, NotFound, OutOfSpace, Rejected, Unreachable
from onelun.model import Kind, Owner
from onelun.rpc.message import CreateZvol, ListZvols, MapZvol, ResizeZvol, UnmapZvol

from .conftest import CLOUD, MIB

IMAGE = Owner(kind=Kind.IMAGE, cloud=CLOUD, image_id=1)


@pytest.fixture
async def volume(nas):
    return await nas.ask(CreateZvol(zvol="one-1", zpool="tank", size_bytes=MIB, owner=IMAGE))


def _map(host, **more):
    return MapZvol(zvol="one-1", remotehost=host, cloud=CLOUD, **more)


def _unmap(host):
    return UnmapZvol(zvol="one-1", remotehost=host, cloud=CLOUD)


async def test_a_volume_grows_with_its_target_and_its_host(nas, volume):
    await nas.ask(_map("node1"))

    reply = await nas.ask(ResizeZvol(zvol="one-1", size_bytes=4 * MIB))

    assert (reply.uuid, reply.size_bytes) == (volume.uuid, 4 * MIB)
    (iqn,) = await nas.exporter.exports()
    assert nas.nodes["node1"].grown == {iqn: 4 * MIB}
    assert nas.exporter._kept[iqn].target.size_bytes == 4 * MIB


async def test_a_repeat_goes_on_where_the_host_was_away(nas, volume):
    await nas.ask(_map("node1"))
    nas.nodes["node1"].present = False
    with pytest.raises(Unreachable):
        await nas.ask(ResizeZvol(zvol="one-1", size_bytes=4 * MIB))
    nas.nodes["node1"].present = True

    await nas.ask(ResizeZvol(zvol="one-1", size_bytes=4 * MIB))

    assert list(nas.nodes["node1"].grown.values()) == [4 * MIB]


async def test_a_volume_is_not_shrunk_and_not_grown_beyond_its_pool(nas, volume):
    with pytest.raises(Rejected, match="shrunk"):
        await nas.ask(ResizeZvol(zvol="one-1", size_bytes=MIB // 2))
    with pytest.raises(OutOfSpace):
        await nas.ask(ResizeZvol(zvol="one-1", size_bytes=1 << 45))

    assert (await nas.backend.find("one-1")).size_bytes == MIB


async def test_another_volume_of_the_name_is_not_grown(nas, volume):
    with pytest.raises(Conflict, match="another volume"):
        await nas.ask(ResizeZvol(zvol="one-1", size_bytes=2 * MIB, uuid="6b2f7a52-6a04-4e9b-9d0b-3a2f0c0a7a11"))
    with pytest.raises(NotFound):
        await nas.ask(ResizeZvol(zvol="one-2", size_bytes=2 * MIB))


async def test_two_hosts_have_a_volume_while_a_migration_runs(nas, volume):
    await nas.ask(_map("node1"))

    await nas.ask(_map("node2", beside="node1"))

    targets = [kept.target for kept in nas.exporter._kept.values()]
    assert len({target.iqn for target in targets}) == len({target.secret for target in targets}) == 2
    assert {target.initiator for target in targets} == {node.initiator for node in nas.nodes.by_name.values()}


async def test_without_a_migration_a_second_host_is_refused(nas, volume):
    await nas.ask(_map("node1"))

    with pytest.raises(Conflict, match="mapped to node1"):
        await nas.ask(_map("node2"))
    with pytest.raises(Conflict, match="mapped to node1"):
        await nas.ask(_map("node2", beside="node3"))


async def test_detaching_one_end_of_a_migration_leaves_the_other(nas, volume):
    await nas.ask(_map("node1"))
    await nas.ask(_map("node2", beside="node1"))
    kept = [iqn for iqn, one in nas.exporter._kept.items() if one.target.initiator.endswith("node2")]

    await nas.ask(_unmap("node1"))

    assert list(await nas.exporter.exports()) == kept == list(nas.nodes["node2"].connected)
    assert [a.host for a in (await nas.backend.find("one-1")).attachments] == ["node2"]


async def test_a_migration_that_failed_leaves_the_first_host(nas, volume):
    await nas.ask(_map("node1"))
    nas.nodes["node2"].refuse = Unreachable("no route")
    with pytest.raises(Unreachable):
        await nas.ask(_map("node2", beside="node1"))

    (one,) = (await nas.ask(ListZvols(name="one-1"))).body

    assert [a["remotehost"] for a in one["attachments"]] == ["node1"]
    assert len(await nas.exporter.exports()) == 1


async def test_a_running_migration_survives_the_agent_and_its_catalogue(nas, volume, begin, parts):
    await nas.ask(_map("node1"))
    await nas.ask(_map("node2", beside="node1"))
    for row in nas.catalogue.attachments():
        nas.catalogue.drop(row)

    nas = await begin()

    assert {row.host: row.beside for row in nas.catalogue.attachments()} == {"node1": None, "node2": "node1"}
    await nas.ask(_map("node1"))
