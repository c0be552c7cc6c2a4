"""A VM's disk that is restored: another volume takes its place, or nothing changes."""

import msgspec
import pytest

from onelun.errors import Busy, Conflict, NotFound, Unreachable
from onelun.model import Kind, Owner, State
from onelun.rpc.message import (
    AbortImport,
    CreateZvol,
    FinishImport,
    MapZvol,
    RemoveDisk,
    RestoreZvol,
    SetMaintenance,
    SnapshotZvol,
)

from .conftest import CLOUD, MIB

BUILDER = "iqn.2026-11.io.onelun.host:frontend"
DISK = Owner(kind=Kind.DISK, cloud=CLOUD, image_id=3, vm_id=7, disk_id=0)
IMAGE = Owner(kind=Kind.IMAGE, cloud=CLOUD, image_id=4, regtime=1)
PATH = "/var/lib/one/datastores/0/7/disk.0"


def _map(zvol="one-3-7-0", host="node1", vm=7):
    return MapZvol(zvol=zvol, zpool="tank", remotehost=host, cloud=CLOUD, vm=vm, disk=0, path=PATH)


def _begin(zvol="one-3-7-0", size=MIB, host="node1", vm=7):
    return RestoreZvol(
        zvol=zvol, zpool="tank", cloud=CLOUD, vm=vm, disk=0, size_bytes=size, initiator=BUILDER, remotehost=host
    )


@pytest.fixture
async def disk(nas):
    """The VM's disk on node1: its volume."""
    await nas.ask(CreateZvol(zvol="one-3-7-0", zpool="tank", size_bytes=2 * MIB, owner=DISK))
    await nas.ask(_map())
    return (await nas.volumes())["one-3-7-0"]


async def _restore(nas):
    begun = await nas.ask(_begin())
    await nas.ask(FinishImport(zpool="tank", uuid=begun.uuid))
    return begun


async def test_what_was_restored_takes_the_disk_s_place_and_the_old_one_goes_to_the_trash(nas, disk):
    begun = await _restore(nas)

    now = (await nas.volumes())["one-3-7-0"]
    assert (now.uuid, now.owner, now.size_bytes) == (begun.uuid, DISK, disk.size_bytes)
    assert [v.uuid for v in await nas.backend.volumes() if v.state is State.TRASH] == [disk.uuid]
    assert nas.nodes["node1"].connected == {}
    assert nas.nodes["node1"].links.keys() == {PATH}
    assert await nas.exporter.exports() == {}


async def test_the_host_gets_the_new_one_at_the_same_place(nas, disk):
    begun = await _restore(nas)

    mapped = await nas.ask(_map())

    assert mapped.uuid == begun.uuid
    assert [row.uuid for row in nas.catalogue.attachments()] == [begun.uuid]
    assert [(p.uuid, p.host) for p in nas.catalogue.placements()] == [(begun.uuid, "node1")]


async def test_a_disk_that_was_restored_and_not_mapped_again_is_still_removed_with_its_vm(nas, disk):
    await _restore(nas)

    removed = await nas.ask(RemoveDisk(zvol="one-3-7-0", zpool="tank", cloud=CLOUD, vm=7, disk=0, path=PATH))

    assert removed.destroyed
    assert await nas.volumes() == {}


async def test_restoring_twice_leaves_one(nas, disk):
    await _restore(nas)
    second = await _restore(nas)

    assert (await nas.volumes())["one-3-7-0"].uuid == second.uuid


async def test_a_disk_that_is_open_on_its_host_stays_as_it_is(nas, disk):
    begun = await nas.ask(_begin())
    nas.nodes["node1"].refuse = Busy("/dev/sdb is open")

    with pytest.raises(Busy, match=r"is in use on node1 .*open.*power its VM off first"):
        await nas.ask(FinishImport(zpool="tank", uuid=begun.uuid))
    nas.nodes["node1"].refuse = None
    await nas.ask(AbortImport(zpool="tank", uuid=begun.uuid))

    assert (await nas.volumes())["one-3-7-0"].uuid == disk.uuid
    assert [row.uuid for row in nas.catalogue.attachments()] == [disk.uuid]
    assert len(await nas.backend.volumes()) == 1


async def test_a_disk_that_went_with_its_vm_meanwhile_is_not_made_anew(nas, disk):
    begun = await nas.ask(_begin())
    await nas.ask(RemoveDisk(zvol="one-3-7-0", zpool="tank", cloud=CLOUD, vm=7, disk=0, path=PATH))

    with pytest.raises(NotFound, match="one-3-7-0 has just been removed"):
        await nas.ask(FinishImport(zpool="tank", uuid=begun.uuid))
    await nas.ask(AbortImport(zpool="tank", uuid=begun.uuid))

    assert await nas.backend.volumes() == []


async def test_an_image_that_got_a_snapshot_meanwhile_keeps_it(nas):
    await nas.ask(CreateZvol(zvol="one-4", zpool="tank", size_bytes=MIB, owner=IMAGE))
    begun = await nas.ask(_begin("one-4"))
    await nas.ask(SnapshotZvol(zvol="one-4", zpool="tank", cloud=CLOUD, snapshot="snap-0"))

    with pytest.raises(Conflict, match="snap-0"):
        await nas.ask(FinishImport(zpool="tank", uuid=begun.uuid))

    volume = (await nas.volumes())["one-4"]
    assert [one.name for one in await nas.backend.snapshots(volume)] == ["snap-0"]


async def test_a_disk_that_another_host_got_meanwhile_stays_on_both(nas, disk):
    begun = await nas.ask(_begin())
    await nas.ask(MapZvol(**msgspec.structs.asdict(_map(host="node2")) | {"beside": "node1"}))

    with pytest.raises(Conflict, match="one-3-7-0 is mapped to node1, node2"):
        await nas.ask(FinishImport(zpool="tank", uuid=begun.uuid))

    assert [row.host for row in nas.catalogue.attachments(uuid=disk.uuid)] == ["node1", "node2"]
    assert all(nas.nodes[name].connected for name in ("node1", "node2"))


async def test_a_volatile_disk_that_was_restored_is_no_empty_one(nas):
    volatile = Owner(kind=Kind.VOLATILE, cloud=CLOUD, vm_id=7, disk_id=0)
    asked = CreateZvol(zvol="one-vm-7-0", zpool="tank", size_bytes=MIB, owner=volatile)
    await nas.ask(asked)
    await nas.ask(_map("one-vm-7-0"))
    begun = await nas.ask(_begin("one-vm-7-0"))
    await nas.ask(FinishImport(zpool="tank", uuid=begun.uuid))

    assert (await nas.volumes())["one-vm-7-0"].connected
    assert (await nas.ask(asked)).uuid != begun.uuid


async def test_finishing_again_after_a_refusal_succeeds(nas, disk):
    begun = await nas.ask(_begin())
    nas.nodes["node1"].refuse = Busy("/dev/sdb is open")
    with pytest.raises(Busy):
        await nas.ask(FinishImport(zpool="tank", uuid=begun.uuid))
    nas.nodes["node1"].refuse = None

    await nas.ask(FinishImport(zpool="tank", uuid=begun.uuid))

    assert (await nas.volumes())["one-3-7-0"].uuid == begun.uuid


async def test_a_host_that_is_away_keeps_its_disk(nas, disk):
    begun = await nas.ask(_begin())
    nas.nodes["node1"].present = False

    with pytest.raises(Unreachable):
        await nas.ask(FinishImport(zpool="tank", uuid=begun.uuid))

    assert (await nas.volumes())["one-3-7-0"].uuid == disk.uuid


async def test_an_agent_that_restarts_goes_on_with_it(nas, begin, disk):
    begun = await nas.ask(_begin())
    nas = await begin()

    await nas.ask(FinishImport(zpool="tank", uuid=begun.uuid))

    assert (await nas.volumes())["one-3-7-0"].uuid == begun.uuid


@pytest.mark.parametrize("request_", [_begin(host="node2"), _begin(host=None)])
async def test_a_disk_that_another_host_has_is_refused_before_anything_is_written(nas, disk, request_):
    with pytest.raises(Conflict, match="is mapped to node1"):
        await nas.ask(request_)

    assert len(await nas.backend.volumes()) == 1


async def test_another_vm_s_disk_is_refused(nas, disk):
    with pytest.raises(Conflict, match="not disk 0 of VM 8"):
        await nas.ask(_begin(vm=8))


async def test_a_disk_is_restored_where_it_is_also_while_nothing_new_is_placed_there(nas, disk):
    await nas.ask(SetMaintenance(on=True))

    begun = await _restore(nas)

    assert (await nas.volumes())["one-3-7-0"].uuid == begun.uuid


async def test_a_disk_that_is_gone_is_not_found(nas):
    with pytest.raises(NotFound):
        await nas.ask(_begin())


async def test_a_larger_backup_makes_a_larger_disk(nas, disk):
    begun = await nas.ask(_begin(size=4 * MIB))

    finished = await nas.ask(FinishImport(zpool="tank", uuid=begun.uuid))

    assert finished.size_bytes == 4 * MIB


async def test_an_image_whose_snapshots_opennebula_lists_is_not_replaced(nas):
    await nas.ask(CreateZvol(zvol="one-4", zpool="tank", size_bytes=MIB, owner=IMAGE))
    await nas.ask(SnapshotZvol(zvol="one-4", zpool="tank", cloud=CLOUD, snapshot="snap-0"))

    with pytest.raises(Conflict, match="snap-0"):
        await nas.ask(_begin("one-4"))


async def test_an_image_with_snapshots_of_backups_alone_is_replaced(nas):
    await nas.ask(CreateZvol(zvol="one-4", zpool="tank", size_bytes=MIB, owner=IMAGE))
    await nas.ask(SnapshotZvol(zvol="one-4", zpool="tank", cloud=CLOUD, snapshot="backup-7-0"))
    begun = await nas.ask(_begin("one-4"))

    await nas.ask(FinishImport(zpool="tank", uuid=begun.uuid))

    now = (await nas.volumes())["one-4"]
    assert (now.uuid, now.owner) == (begun.uuid, IMAGE)
