"""Snapshots of volumes by request: taken while a host has them, gone back to while none does."""

import time

import msgspec
import pytest

from onelun.errors import Busy, CommandFailed, Conflict, NoReply, NotFound, OutOfSpace, Rejected, Unreachable
from onelun.model import Kind, Owner
from onelun.nas.catalogue import ATTACHED, DETACHING, UNKNOWN
from onelun.rpc.message import (
    CloneZvol,
    CreateZvol,
    DelSnapshot,
    DelZvol,
    FlattenZvol,
    ListSnapshots,
    MapZvol,
    RemoveDisk,
    RevertZvol,
    SetZvol,
    SnapshotZvol,
    TearDown,
    UnmapZvol,
)

from .conftest import CLOUD, MIB

OTHER_CLOUD = "9a3f1f0e-7a55-4c58-9b5c-0c7f3a6f1a01"
IMAGE = Owner(kind=Kind.IMAGE, cloud=CLOUD, image_id=1, regtime=5)
DISK = Owner(kind=Kind.DISK, cloud=CLOUD, image_id=1, vm_id=7, disk_id=0)
PATH = "/var/lib/one/datastores/103/7/disk.1"


@pytest.fixture
async def volume(nas):
    await nas.ask(CreateZvol(zvol="one-1", zpool="tank", size_bytes=MIB, owner=IMAGE))
    return await nas.backend.find("one-1")


def _take(name="snap-0", **more):
    return SnapshotZvol(zvol="one-1", zpool="tank", snapshot=name, **({"cloud": CLOUD} | more))


def _revert(name="snap-0", **more):
    return RevertZvol(zvol="one-1", zpool="tank", snapshot=name, **({"cloud": CLOUD} | more))


def _flatten(name="snap-0"):
    return FlattenZvol(zvol="one-1", zpool="tank", snapshot=name, owner=IMAGE)


def _delete(name="snap-0", **more):
    return DelSnapshot(zvol="one-1", zpool="tank", snapshot=name, **({"cloud": CLOUD} | more))


def _map(host="node1"):
    return MapZvol(zvol="one-1", zpool="tank", remotehost=host, cloud=CLOUD, vm=7, disk=1, path=PATH)


async def _listed(nas):
    reply = await nas.ask(ListSnapshots(zvol="one-1", zpool="tank", cloud=CLOUD))
    return [row["snapshot"] for row in reply.body]


async def _content(nas, name="one-1", length=3):
    return nas.backend.read(await nas.backend.find(name), 0, length)


# Taking


async def test_a_snapshot_keeps_the_content_of_then_while_a_host_goes_on(nas, volume):
    await nas.ask(_map())
    nas.backend.write(volume, 0, b"old")

    taken = await nas.ask(_take())
    nas.backend.write(volume, 0, b"new")

    assert (taken.uuid, taken.size_bytes) == (volume.uuid, MIB)
    assert await _listed(nas) == ["snap-0"]
    assert not any(isinstance(request, TearDown) for request in nas.nodes["node1"].asked)


async def test_taking_one_again_keeps_the_first(nas, volume):
    nas.backend.write(volume, 0, b"old")
    first = await nas.ask(_take(not_before=time.time()))
    nas.backend.write(volume, 0, b"new")

    again = await nas.ask(_take(not_before=time.time()))

    assert again == first
    await nas.ask(_revert())
    assert await _content(nas) == b"old"


async def test_one_that_is_older_than_oned_s_own_is_another_s_and_made_anew(nas, volume):
    nas.backend.write(volume, 0, b"old")
    await nas.ask(_take())
    nas.backend.write(volume, 0, b"new")

    await nas.ask(_take(not_before=time.time() + 3600))

    await nas.ask(_revert())
    assert await _content(nas) == b"new"


async def test_a_pool_above_its_high_water_mark_takes_no_snapshots_but_goes_back_and_deletes(nas, volume, begin):
    await nas.ask(_take())
    nas = await begin(high_water=0.0)

    with pytest.raises(OutOfSpace):
        await nas.ask(_take("snap-1"))

    await nas.ask(_revert())
    await nas.ask(_delete())
    assert await _listed(nas) == []


# Whose


@pytest.mark.parametrize(
    "whose",
    [
        {"cloud": OTHER_CLOUD},
        {"cloud": None},
        {"owner": msgspec.structs.replace(IMAGE, regtime=6)},
        {"owner": msgspec.structs.replace(IMAGE, image_id=2)},
        {"owner": msgspec.structs.replace(IMAGE, cloud=OTHER_CLOUD)},
    ],
)
async def test_another_s_volume_is_not_touched(nas, volume, whose):
    nas.backend.write(volume, 0, b"old")
    await nas.ask(_take())
    nas.backend.write(volume, 0, b"new")

    for request in (_take("snap-1", **whose), _revert(**whose), _delete(**whose)):
        with pytest.raises(Conflict):
            await nas.ask(request)

    assert await _listed(nas) == ["snap-0"]
    assert await _content(nas) == b"new"


async def test_another_vm_s_disk_is_not_touched(nas, volume):
    clone = CloneZvol(zvol="one-1-7-0", zpool="tank", origin="one-1", owner=DISK)
    await nas.ask(clone)
    request = SnapshotZvol(zvol="one-1-7-0", zpool="tank", snapshot="snap-0", cloud=CLOUD, vm=7, disk=0)

    with pytest.raises(Conflict, match="disk 0 of VM 7, not disk 0 of VM 8"):
        await nas.ask(msgspec.structs.replace(request, vm=8))

    await nas.ask(request)


@pytest.mark.parametrize("request_", [_take(), _revert(), _flatten()])
async def test_a_volume_that_is_not_there_has_no_snapshots(nas, request_):
    with pytest.raises(NotFound, match="no volume one-1"):
        await nas.ask(request_)


@pytest.mark.parametrize("name", ["", "a/b", "../x", "A", "snapshot"])
async def test_a_name_that_is_none_is_refused(nas, volume, name):
    for request in (_take(name), _revert(name), _flatten(name), _delete(name)):
        with pytest.raises(Rejected):
            await nas.ask(request)


# Going back


async def test_going_back_gives_content_and_size_and_keeps_younger_snapshots(nas, volume):
    nas.backend.write(volume, 0, b"old")
    await nas.ask(_take("snap-0"))
    volume = await nas.backend.grow(volume, 2 * MIB)
    nas.backend.write(volume, 0, b"new")
    await nas.ask(_take("snap-1"))

    older = await nas.ask(_revert("snap-0"))
    content = await _content(nas)
    younger = await nas.ask(_revert("snap-1"))

    assert (older.size_bytes, content) == (MIB, b"old")
    assert (younger.size_bytes, await _content(nas)) == (2 * MIB, b"new")
    assert await _listed(nas) == ["snap-0", "snap-1"]


async def test_a_host_that_has_the_volume_lets_go_before_and_gets_it_again_with_its_link(nas, volume):
    mapped = await nas.ask(_map())
    await nas.ask(_take())
    await nas.backend.grow(volume, 2 * MIB)
    node = nas.nodes["node1"]
    node.asked.clear()

    for _ in range(2):
        await nas.ask(_revert(remotehost="node1"))

    (row,) = nas.catalogue.attachments()
    assert [type(request) for request in node.asked] == [TearDown, SetZvol] * 2
    assert [request.size_bytes for request in node.asked if isinstance(request, SetZvol)] == [MIB] * 2
    assert all(request.keep_link for request in node.asked if isinstance(request, TearDown))
    assert (row.state, row.epoch) == (ATTACHED, mapped.epoch)
    assert node.links == {PATH: row.iqn}
    assert nas.exporter._kept[row.iqn].target.size_bytes == MIB


async def test_the_target_is_gone_while_the_content_changes(nas, volume, monkeypatch):
    await nas.ask(_map())
    await nas.ask(_take())
    seen = []
    revert = nas.backend.revert

    async def looked_at(*arguments):
        seen.append((dict(await nas.exporter.exports()), dict(nas.nodes["node1"].connected)))
        return await revert(*arguments)

    monkeypatch.setattr(nas.backend, "revert", looked_at)
    await nas.ask(_revert(remotehost="node1"))

    assert seen == [({}, {})]


async def test_a_device_that_is_open_is_left_alone(nas, volume):
    await nas.ask(_map())
    await nas.ask(_take())
    nas.backend.write(volume, 0, b"new")
    nas.nodes["node1"].refuse = Busy("the device is open")

    with pytest.raises(Busy):
        await nas.ask(_revert(remotehost="node1"))

    (row,) = nas.catalogue.attachments()
    assert row.state == ATTACHED
    assert await _content(nas) == b"new"
    assert list(nas.nodes["node1"].connected) == [row.iqn] == list(await nas.exporter.exports())


@pytest.mark.parametrize("host", [None, "node2"])
async def test_what_another_host_has_is_not_reverted(nas, volume, host):
    await nas.ask(_map())
    await nas.ask(_take())
    nas.backend.write(volume, 0, b"new")

    with pytest.raises(Conflict, match="mapped to node1: unmap it there"):
        await nas.ask(_revert(remotehost=host))

    assert await _content(nas) == b"new"


@pytest.mark.parametrize(("trouble", "error"), [("present", Unreachable), ("silent", NoReply), ("dead", CommandFailed)])
async def test_a_host_that_does_not_let_go_stops_it_and_has_the_disk_when_it_is_back(nas, volume, trouble, error):
    await nas.ask(_map())
    await nas.ask(_take())
    nas.backend.write(volume, 0, b"new")
    node = nas.nodes["node1"]
    setattr(node, trouble, trouble != "present")

    with pytest.raises(error):
        await nas.ask(_revert(remotehost="node1"))

    assert await _content(nas) == b"new"
    assert [row.state for row in nas.catalogue.attachments()] == [UNKNOWN]
    setattr(node, trouble, trouble == "present")
    await nas.agent.rounds.sync("node1")
    assert [row.state for row in nas.catalogue.attachments()] == [ATTACHED]
    assert len(node.connected) == 1


async def test_a_failure_of_the_storage_leaves_the_host_connected(nas, volume, monkeypatch):
    await nas.ask(_map())
    await nas.ask(_take())

    async def fail(*arguments):
        raise CommandFailed("the disk is broken")

    monkeypatch.setattr(nas.backend, "revert", fail)
    with pytest.raises(CommandFailed, match="broken"):
        await nas.ask(_revert(remotehost="node1"))

    (row,) = nas.catalogue.attachments()
    assert row.state == ATTACHED
    assert nas.nodes["node1"].links == {PATH: row.iqn}


async def test_an_agent_that_is_killed_in_the_middle_gives_the_host_its_disk_back(nas, volume, begin, monkeypatch):
    await nas.ask(_map())
    await nas.ask(_take())

    class Killed(BaseException):
        pass

    async def killed(*arguments):
        raise Killed

    monkeypatch.setattr(nas.backend, "revert", killed)
    with pytest.raises(Killed):
        await nas.ask(_revert(remotehost="node1"))
    monkeypatch.undo()
    assert nas.nodes["node1"].connected == {}

    nas = await begin()
    await nas.agent.rounds.sync("node1")

    (row,) = nas.catalogue.attachments()
    assert row.state == ATTACHED
    assert list(nas.nodes["node1"].connected) == [row.iqn] == list(await nas.exporter.exports())
    (held,) = nas.nodes["node1"].connected.values()
    assert held.links == (PATH,)


async def test_what_was_on_its_way_out_does_not_come_back(nas, volume):
    await nas.ask(_map())
    await nas.ask(_take())
    (row,) = nas.catalogue.attachments()
    nas.catalogue.put(msgspec.structs.replace(row, state=DETACHING))

    await nas.ask(_revert(remotehost="node1"))

    assert nas.catalogue.attachments() == []
    assert nas.nodes["node1"].connected == {}


async def test_a_snapshot_that_is_not_there_disconnects_nobody(nas, volume):
    await nas.ask(_map())
    nas.nodes["node1"].asked.clear()

    with pytest.raises(NotFound, match="one-1 in pool tank has no snapshot snap-9"):
        await nas.ask(_revert("snap-9", remotehost="node1"))

    assert nas.nodes["node1"].asked == []


# Flattening


async def test_flattening_goes_back_and_drops_opennebula_s_snapshots(nas, volume):
    nas.backend.write(volume, 0, b"old")
    for name in ("snap-0", "snap-1"):
        await nas.ask(_take(name))
        nas.backend.write(volume, 0, b"new")
    await nas.backend.snapshot(volume, "backup-1")

    for _ in range(2):
        await nas.ask(_flatten("snap-0"))

    assert await _content(nas) == b"old"
    assert await _listed(nas) == ["backup-1"]


async def test_flattening_goes_on_where_it_was_cut_off(nas, volume, monkeypatch):
    nas.backend.write(volume, 0, b"old")
    for name in ("snap-0", "snap-1"):
        await nas.ask(_take(name))
    nas.backend.write(volume, 0, b"new")

    async def fail(*arguments):
        raise CommandFailed("no")

    monkeypatch.setattr(nas.backend, "delete_snapshot", fail)
    with pytest.raises(CommandFailed):
        await nas.ask(_flatten("snap-0"))
    monkeypatch.undo()
    await nas.ask(_flatten("snap-0"))

    assert await _content(nas) == b"old"
    assert await _listed(nas) == []


async def test_a_snapshot_that_was_lost_is_not_taken_for_flattened(nas, volume):
    await nas.ask(_take("snap-0"))
    await nas.ask(_flatten("snap-0"))
    await nas.ask(_take("snap-0"))
    await nas.backend.delete_snapshot(volume, "snap-0")

    for name in ("snap-0", "snap-1"):
        with pytest.raises(NotFound):
            await nas.ask(_flatten(name))


async def test_an_image_that_a_host_has_is_not_flattened(nas, volume):
    await nas.ask(_take())
    await nas.ask(_map())

    with pytest.raises(Conflict, match="mapped to node1"):
        await nas.ask(_flatten())

    assert await _listed(nas) == ["snap-0"]


# Deleting


async def test_deleting_a_snapshot_while_a_host_has_the_volume_and_again(nas, volume):
    await nas.ask(_take("snap-0"))
    await nas.ask(_take("snap-1"))
    await nas.ask(_map())

    for _ in range(2):
        await nas.ask(_delete("snap-0"))

    assert await _listed(nas) == ["snap-1"]
    assert len(nas.nodes["node1"].connected) == 1


async def test_deleting_a_snapshot_of_nothing_is_done(nas):
    await nas.ask(_delete())


async def test_an_image_and_a_disk_with_snapshots_can_be_removed(nas, volume):
    await nas.ask(CloneZvol(zvol="one-1-7-0", zpool="tank", origin="one-1", owner=DISK))
    await nas.ask(_take())
    await nas.ask(SnapshotZvol(zvol="one-1-7-0", zpool="tank", snapshot="snap-0", cloud=CLOUD, vm=7, disk=0))

    await nas.ask(RemoveDisk(zvol="one-1-7-0", zpool="tank", cloud=CLOUD, vm=7, disk=0, path=PATH))
    await nas.ask(DelZvol(zvol="one-1", zpool="tank", owner=IMAGE))
    await nas.backend.purge(time.time() + 1)

    assert await nas.backend.volumes() == []


async def test_snapshots_outlive_a_vm_that_had_the_image(nas, volume):
    await nas.ask(_map())
    await nas.ask(_take())

    await nas.ask(UnmapZvol(zvol="one-1", zpool="tank", cloud=CLOUD, vm=7, disk=1, path=PATH))

    assert await _listed(nas) == ["snap-0"]


async def test_every_disk_on_the_host_that_is_the_volume_gets_its_link_again(nas, volume):
    other = PATH.replace("/7/", "/8/")
    await nas.ask(_map())
    await nas.ask(MapZvol(zvol="one-1", zpool="tank", remotehost="node1", cloud=CLOUD, vm=8, disk=1, path=other))
    await nas.ask(_take())
    nas.nodes["node1"].links.clear()

    await nas.ask(_revert(remotehost="node1"))

    (row,) = nas.catalogue.attachments()
    assert nas.nodes["node1"].links == {PATH: row.iqn, other: row.iqn}
