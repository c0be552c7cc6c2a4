"""Making, cloning, saving and deleting volumes."""

import asyncio

import pytest

from onelun.errors import Conflict, NotFound, OutOfSpace, Rejected
from onelun.model import Kind, Owner, State
from onelun.rpc.message import CloneZvol, CreateZvol, DelZvol, MapZvol, SaveZvol, UnmapZvol

from .conftest import CLOUD, MIB

PATH = "/var/lib/one/datastores/0/3/disk.0"


def _owner(image=1, **more):
    return Owner(kind=Kind.IMAGE, cloud=CLOUD, image_id=image, **more)


def _disk(vm=3, disk=0, image=1):
    return Owner(kind=Kind.DISK, cloud=CLOUD, image_id=image, vm_id=vm, disk_id=disk)


def _create(name="one-1", owner=None, size=MIB):
    return CreateZvol(zvol=name, zpool="tank", size_bytes=size, owner=owner or _owner())


def _clone(name="one-1-3-0", origin="one-1", owner=None, size=None):
    return CloneZvol(zvol=name, zpool="tank", origin=origin, owner=owner or _disk(), size_bytes=size)


def _map(name, host="node1", vm=3, disk=0):
    return MapZvol(zvol=name, zpool="tank", remotehost=host, cloud=CLOUD, vm=vm, disk=disk, path=PATH)


async def _write(nas, name, data):
    nas.backend.write((await nas.volumes())[name], 0, data)


async def _read(nas, name, length):
    return nas.backend.read((await nas.volumes())[name], 0, length)


async def test_creating_an_equal_volume_again_returns_the_one_there_is(nas):
    first = await nas.ask(_create())

    assert await nas.ask(_create()) == first


@pytest.mark.parametrize("other", [_create(size=2 * MIB), _create(owner=_owner(2)), _create(owner=_owner(regtime=9))])
async def test_creating_a_different_volume_of_a_name_is_a_conflict(nas, other):
    await nas.ask(_create())

    with pytest.raises(Conflict, match="exists in pool tank"):
        await nas.ask(other)


@pytest.mark.parametrize("name", ["../etc", "a/b", "a\nb", "A", "", ".hidden", "x" * 300, "snapshot1", "a..b", "-a"])
async def test_a_name_that_is_none_is_rejected(nas, name):
    with pytest.raises(Rejected, match="is no volume name"):
        await nas.ask(_create(name))

    assert await nas.backend.volumes() == []


@pytest.mark.parametrize("size", [0, -1, 1 << 60])
async def test_a_size_that_cannot_be_is_rejected(nas, size):
    with pytest.raises(Rejected):
        await nas.ask(_create(size=size))


async def test_a_pool_that_is_not_configured_is_not_found(nas):
    with pytest.raises(NotFound, match="no pool lake"):
        await nas.ask(CreateZvol(zvol="one-1", zpool="lake", size_bytes=MIB, owner=_owner()))


async def test_a_clone_has_the_content_and_goes_its_own_way(nas):
    await nas.ask(_create())
    await _write(nas, "one-1", b"golden")

    await nas.ask(_clone())
    await _write(nas, "one-1-3-0", b"edited")

    assert await _read(nas, "one-1", 6) == b"golden"
    assert await _read(nas, "one-1-3-0", 6) == b"edited"


async def test_a_clone_grows_to_the_size_asked_for(nas):
    await nas.ask(_create())

    reply = await nas.ask(_clone(size=3 * MIB))

    assert reply.size_bytes == 3 * MIB


async def test_cloning_again_before_any_host_had_it_returns_the_same(nas):
    await nas.ask(_create())
    first = await nas.ask(_clone())

    assert await nas.ask(_clone()) == first


async def test_a_disk_of_an_earlier_life_of_the_same_ids_is_made_anew(nas):
    await nas.ask(_create())
    first = await nas.ask(_clone())
    await nas.ask(_map("one-1-3-0"))
    await _write(nas, "one-1-3-0", b"old tenant")

    again = await nas.ask(_clone())

    assert again.uuid != first.uuid
    assert await _read(nas, "one-1-3-0", 10) == bytes(10)
    assert nas.nodes["node1"].connected == {}
    assert [v.state for v in await nas.backend.volumes()].count(State.TRASH) == 0


async def test_a_clone_never_takes_the_place_of_another_vms_disk(nas):
    await nas.ask(_create())
    await nas.ask(_create("one-1-3-0", _disk(vm=4)))

    with pytest.raises(Conflict, match="disk 0 of VM 4"):
        await nas.ask(_clone())


async def test_an_image_that_is_written_to_now_is_not_cloned(nas):
    await nas.ask(_create())
    await nas.ask(_map("one-1"))

    with pytest.raises(Conflict, match="mapped to node1 for writing"):
        await nas.ask(_clone(owner=_disk(vm=9), name="one-1-9-0"))


async def test_cloning_what_is_absent_is_not_found(nas):
    with pytest.raises(NotFound, match="no volume one-1"):
        await nas.ask(_clone())


async def test_a_failed_clone_leaves_nothing(nas, monkeypatch):
    await nas.ask(_create())

    async def full(*_, **__):
        raise OutOfSpace("the pool is full")

    monkeypatch.setattr(nas.backend, "publish", full)
    with pytest.raises(OutOfSpace):
        await nas.ask(_clone())

    assert [v.name for v in await nas.backend.volumes()] == ["one-1"]


async def test_two_hundred_clones_at_once_all_come_to_be(nas):
    await nas.ask(_create())

    await asyncio.gather(*(nas.ask(_clone(f"one-1-{vm}-0", owner=_disk(vm=vm))) for vm in range(200)))

    assert len(await nas.volumes()) == 201


async def test_a_deleted_image_goes_to_the_trash(nas):
    await nas.ask(_create())

    await nas.ask(DelZvol(zvol="one-1", zpool="tank", owner=_owner()))

    assert await nas.volumes() == {}
    assert [v.state for v in await nas.backend.volumes()] == [State.TRASH]


async def test_deleting_an_absent_volume_succeeds(nas):
    await nas.ask(DelZvol(zvol="one-1", zpool="tank", owner=_owner()))


@pytest.mark.parametrize("owner", [None, _owner(2), _disk(), Owner(kind=Kind.IMAGE, cloud="other", image_id=1)])
async def test_only_its_cloud_deletes_an_image(nas, owner):
    await nas.ask(_create())

    with pytest.raises(Conflict):
        await nas.ask(DelZvol(zvol="one-1", owner=owner))

    assert list(await nas.volumes()) == ["one-1"]


async def test_an_image_registered_later_under_the_same_id_is_not_deleted(nas):
    await nas.ask(_create(owner=_owner(regtime=2)))

    with pytest.raises(Conflict):
        await nas.ask(DelZvol(zvol="one-1", owner=_owner(regtime=1)))


async def test_a_mapped_volume_is_not_deleted(nas):
    await nas.ask(_create())
    await nas.ask(_map("one-1"))

    with pytest.raises(Conflict, match="mapped to node1"):
        await nas.ask(DelZvol(zvol="one-1", zpool="tank", owner=_owner()))


async def test_the_seeds_delete_erases_a_volume_of_no_cloud(nas):
    await nas.ask(MapZvol(zvol="vm-1", remotehost="node1", size=1))
    await nas.ask(UnmapZvol(zvol="vm-1"))

    await nas.ask(DelZvol(zvol="vm-1"))

    assert await nas.backend.volumes() == []


async def test_a_delete_with_another_uuid_touches_nothing(nas):
    await nas.ask(_create())

    with pytest.raises(Conflict, match="another volume now"):
        await nas.ask(DelZvol(zvol="one-1", owner=_owner(), uuid="00000000-0000-0000-0000-000000000000"))

    assert list(await nas.volumes()) == ["one-1"]


def _save(**more):
    return SaveZvol(zvol="one-1-3-0", zpool="tank", target="one-2", cloud=CLOUD, vm=3, disk=0, path=PATH, **more)


async def _saved_scene(nas):
    await nas.ask(_create())
    await nas.ask(_create("one-2", _owner(2)))
    await nas.ask(_clone())
    await nas.ask(_map("one-1-3-0"))
    await _write(nas, "one-1-3-0", b"worth keeping")


async def test_saving_a_disk_fills_the_image_and_ends_the_disk(nas):
    await _saved_scene(nas)

    await nas.ask(_save())

    assert await _read(nas, "one-2", 13) == b"worth keeping"
    assert sorted(await nas.volumes()) == ["one-1", "one-2"]
    assert nas.nodes["node1"].connected == {}


async def test_saving_again_after_success_succeeds(nas):
    await _saved_scene(nas)
    first = await nas.ask(_save())

    assert await nas.ask(_save()) == first


async def test_saving_an_absent_disk_over_an_empty_image_is_not_found(nas):
    await nas.ask(_create("one-2", _owner(2)))

    with pytest.raises(NotFound, match="no volume one-1-3-0"):
        await nas.ask(_save())


async def test_saving_over_a_mapped_image_is_refused_and_the_disk_stays(nas):
    await _saved_scene(nas)
    await nas.ask(_map("one-2", "node2", vm=8))

    with pytest.raises(Conflict, match="cannot be saved over"):
        await nas.ask(_save())

    assert "one-1-3-0" in await nas.volumes()


async def test_a_cloud_does_not_delete_what_it_never_adopted(nas):
    await nas.ask(MapZvol(zvol="one-1", remotehost="node1", size=1))
    await nas.ask(UnmapZvol(zvol="one-1"))

    with pytest.raises(Conflict, match="a volume of no cloud"):
        await nas.ask(DelZvol(zvol="one-1", zpool="tank", owner=_owner()))

    assert list(await nas.volumes()) == ["one-1"]


def _checkpoint(vm=3):
    return Owner(kind=Kind.CHECKPOINT, cloud=CLOUD, vm_id=vm)


async def test_a_checkpoint_is_mapped_as_no_disk_of_its_vm_and_removed_by_its_owner(nas):
    name = "one-vm-3-checkpoint"
    await nas.ask(_create(name, _checkpoint()))
    await nas.ask(MapZvol(zvol=name, zpool="tank", remotehost="node1", cloud=CLOUD))

    for _ in range(2):
        await nas.ask(UnmapZvol(zvol=name, zpool="tank", cloud=CLOUD))
    with pytest.raises(Conflict, match="is the checkpoint of VM 3, not the checkpoint of VM 4"):
        await nas.ask(DelZvol(zvol=name, zpool="tank", owner=_checkpoint(4)))
    for _ in range(2):
        await nas.ask(DelZvol(zvol=name, zpool="tank", owner=_checkpoint()))

    assert await nas.backend.volumes() == []


@pytest.mark.parametrize("size", [MIB, 2 * MIB])
async def test_a_checkpoint_that_was_begun_before_is_made_anew_without_the_host_that_has_it(nas, size):
    name = "one-vm-3-checkpoint"
    first = await nas.ask(_create(name, _checkpoint()))
    await nas.ask(MapZvol(zvol=name, zpool="tank", remotehost="node1", cloud=CLOUD))
    await _write(nas, name, b"half")

    second = await nas.ask(_create(name, _checkpoint(), size=size))

    assert second.uuid != first.uuid
    assert (await nas.volumes())[name].attachments == ()
    assert await _read(nas, name, 4) == bytes(4)
