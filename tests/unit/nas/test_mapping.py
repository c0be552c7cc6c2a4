"""Mapping volumes to hosts, and taking them back."""

import asyncio

import pytest

from onelun.errors import Busy, Cancelled, CommandFailed, Conflict, NoReply, NotFound, OutOfSpace, Rejected, Unreachable
from onelun.model import Kind, Owner
from onelun.rpc.message import CreateZvol, FindPlacements, ListZvols, MapZvol, RemoveDisk, SetZvol, UnmapZvol

from .conftest import CLOUD, MIB

PATH = "/var/lib/one/datastores/0/3/disk.0"
IMAGE = Owner(kind=Kind.IMAGE, cloud=CLOUD, image_id=1)
DISK = Owner(kind=Kind.DISK, cloud=CLOUD, image_id=1, vm_id=3, disk_id=0)
DISK_1 = Owner(kind=Kind.DISK, cloud=CLOUD, image_id=1, vm_id=3, disk_id=1)


async def _image(nas, name="one-1", owner=IMAGE):
    return await nas.ask(CreateZvol(zvol=name, zpool="tank", size_bytes=MIB, owner=owner))


def _map(name="one-1", host="node1", **more):
    facts = {"cloud": CLOUD, "vm": 3, "disk": 0, "path": PATH, **more}
    return MapZvol(zvol=name, remotehost=host, zpool="tank", **facts)


def _unmap(name="one-1", host="node1", **more):
    return UnmapZvol(zvol=name, remotehost=host, zpool="tank", cloud=CLOUD, vm=3, disk=0, path=PATH, **more)


async def test_the_seeds_map_makes_a_missing_volume_and_connects_it(nas):
    reply = await nas.ask(MapZvol(zvol="vm-1", remotehost="node1", size="1"))

    assert reply.bdev == "/dev/loop1"
    assert reply.size_bytes == 1 << 30
    assert list(nas.nodes["node1"].connected) == list(await nas.exporter.exports())


async def test_mapping_again_gives_the_same_attachment(nas):
    await _image(nas)
    first = await nas.ask(_map())

    again = await nas.ask(_map())

    assert again == first
    assert len(await nas.exporter.exports()) == 1


async def test_a_missing_volume_without_a_size_is_not_found(nas):
    with pytest.raises(NotFound, match="no volume ghost"):
        await nas.ask(MapZvol(zvol="ghost", remotehost="node1"))


@pytest.mark.parametrize("size", ["0", "-1", "much", "nan", "inf", 2**60])
async def test_a_size_that_is_none_is_rejected_and_nothing_is_made(nas, size):
    with pytest.raises(Rejected):
        await nas.ask(MapZvol(zvol="v", remotehost="node1", size=size))

    assert await nas.backend.volumes() == []


async def test_a_size_above_what_the_pool_can_promise_is_refused(nas):
    with pytest.raises(OutOfSpace, match="pool tank has"):
        await nas.ask(MapZvol(zvol="v", remotehost="node1", size=1 << 19))

    assert await nas.backend.volumes() == []


async def test_a_second_host_is_refused_while_the_first_has_the_volume(nas):
    await _image(nas)
    await nas.ask(_map())

    with pytest.raises(Conflict, match="mapped to node1"):
        await nas.ask(_map(host="node2"))

    assert nas.nodes["node2"].connected == {}


async def test_vms_on_two_hosts_write_to_a_shareable_image_until_each_ends(nas):
    await _image(nas)
    other = PATH.replace("/3/", "/4/")
    await nas.ask(_map(shareable=True))
    with pytest.raises(Conflict, match="is mapped to node1"):
        await nas.ask(_map(host="node2", vm=4, path=other))
    await nas.ask(_map(host="node2", vm=4, path=other, shareable=True))
    both = len(await nas.exporter.exports())

    remove = RemoveDisk(zvol="one-1", zpool="tank", cloud=CLOUD, vm=3, disk=0, path=PATH, remotehost="node1")
    for _ in range(2):
        await nas.ask(remove)
    left = dict(nas.nodes["node1"].connected), len(nas.nodes["node2"].connected)
    for _ in range(2):
        await nas.ask(UnmapZvol(zvol="one-1", zpool="tank", remotehost="node2", cloud=CLOUD, vm=4, disk=0, path=other))

    assert both == 2
    assert left == ({}, 1)
    assert await nas.exporter.exports() == {}


async def test_readers_on_two_hosts_share_a_volume(nas):
    await _image(nas)

    await nas.ask(_map(readonly=True))
    await nas.ask(_map(host="node2", vm=4, readonly=True))

    assert len(await nas.exporter.exports()) == 2


async def test_a_host_that_nobody_serves_gets_nothing_and_leaves_nothing(nas):
    await _image(nas)

    with pytest.raises(Unreachable, match="node9"):
        await nas.ask(_map(host="node9"))

    assert await nas.exporter.exports() == {}
    assert nas.catalogue.attachments() == []
    assert (await nas.volumes())["one-1"].attachments == ()


async def test_a_host_that_refuses_leaves_no_target(nas):
    await _image(nas)
    nas.nodes["node1"].refuse = Conflict("the device is another volume")

    with pytest.raises(Conflict, match="another volume"):
        await nas.ask(_map())

    assert await nas.exporter.exports() == {}
    assert nas.catalogue.attachments() == []


async def test_a_host_that_falls_silent_keeps_its_target_and_the_volume_is_nobody_elses(nas):
    await _image(nas)
    nas.nodes["node1"].silent = True
    with pytest.raises(NoReply):
        await nas.ask(_map())

    with pytest.raises(Conflict, match="does not answer"):
        await nas.ask(_map(host="node2"))

    assert len(await nas.exporter.exports()) == 1
    assert [row.state for row in nas.catalogue.attachments()] == ["unknown"]


async def test_an_old_placement_on_a_host_keeps_another_volume_from_taking_its_place(nas):
    await _image(nas)
    await _image(nas, "one-2", Owner(kind=Kind.IMAGE, cloud=CLOUD, image_id=2))
    await nas.ask(_map())

    with pytest.raises(Conflict, match="is one-1 on node1 still"):
        await nas.ask(_map("one-2", "node2"))


async def test_another_clouds_volume_is_not_mapped(nas):
    await _image(nas)

    with pytest.raises(Conflict, match="another cloud"):
        await nas.ask(_map(cloud="00000000-0000-0000-0000-000000000000"))
    with pytest.raises(Conflict, match="another cloud"):
        await nas.ask(MapZvol(zvol="one-1", remotehost="node1"))


async def test_unmapping_ends_device_target_and_record(nas):
    await _image(nas)
    await nas.ask(_map())

    unmapped = await nas.ask(_unmap())

    assert (unmapped.absent, nas.nodes["node1"].connected) == (False, {})
    assert nas.nodes["node1"].links == {}
    assert await nas.exporter.exports() == {}
    assert (await nas.volumes())["one-1"].attachments == ()
    assert nas.catalogue.placements() == []


async def test_unmapping_what_is_not_mapped_or_absent_succeeds(nas):
    await _image(nas)

    for name in ("one-1", "ghost"):
        unmapped = await nas.ask(_unmap(name))
        assert (unmapped.debt, unmapped.absent) == (False, True)


async def test_a_later_attachment_has_another_epoch(nas):
    await _image(nas)
    first = await nas.ask(_map())
    await nas.ask(_unmap())

    second = await nas.ask(_map(host="node2"))

    assert second.epoch > first.epoch


async def test_the_target_goes_only_after_the_host_has_let_go(nas):
    await _image(nas)
    await nas.ask(_map())
    nas.nodes["node1"].refuse = Busy("the device is open")

    with pytest.raises(Busy):
        await nas.ask(_unmap())

    assert len(await nas.exporter.exports()) == 1
    assert [row.state for row in nas.catalogue.attachments()] == ["attached"]


async def test_an_absent_host_keeps_its_target_unless_forced(nas):
    await _image(nas)
    await nas.ask(_map())
    nas.nodes["node1"].present = False

    with pytest.raises(Unreachable, match="its target stays"):
        await nas.ask(_unmap())
    assert len(await nas.exporter.exports()) == 1
    forced = await nas.ask(_unmap(force=True))

    assert forced.debt is True
    assert await nas.exporter.exports() == {}
    assert [debt.host for debt in nas.catalogue.debts()] == ["node1"]


async def test_a_fenced_volume_goes_to_another_host_while_the_first_owes(nas):
    await _image(nas)
    await nas.ask(_map())
    nas.nodes["node1"].present = False
    await nas.ask(_unmap(force=True, keep_link=True))

    await nas.ask(_map(host="node2"))

    assert len(nas.nodes["node2"].connected) == 1


async def test_a_link_goes_alone_while_another_vm_on_the_host_needs_the_device(nas):
    await _image(nas)
    other = PATH.replace("/3/", "/4/")
    await nas.ask(_map(readonly=True))
    await nas.ask(_map(readonly=True, vm=4, path=other))

    await nas.ask(_unmap())

    assert list(nas.nodes["node1"].links) == [other]
    assert len(nas.nodes["node1"].connected) == 1


async def test_keeping_the_link_keeps_the_placement_without_a_host(nas):
    await _image(nas)
    await nas.ask(_map())

    await nas.ask(_unmap(keep_link=True))

    assert nas.nodes["node1"].links == {PATH: nas.nodes["node1"].asked[1].target}
    assert [p.host for p in nas.catalogue.placements()] == [None]


async def test_removing_a_vms_own_disk_destroys_it(nas):
    await _image(nas, "one-1-3-0", DISK)
    await nas.ask(_map("one-1-3-0"))

    reply = await nas.ask(RemoveDisk(zvol="one-1-3-0", zpool="tank", cloud=CLOUD, vm=3, disk=0, path=PATH))

    assert reply.destroyed is True
    assert await nas.volumes() == {}
    assert nas.nodes["node1"].connected == {}


async def test_removing_a_disk_that_is_an_image_only_detaches_it(nas):
    await _image(nas)
    await nas.ask(_map())

    reply = await nas.ask(RemoveDisk(zvol="one-1", zpool="tank", cloud=CLOUD, vm=3, disk=0, path=PATH))

    assert reply.destroyed is False
    assert list(await nas.volumes()) == ["one-1"]
    assert nas.nodes["node1"].connected == {}


@pytest.mark.parametrize(("vm", "disk", "cloud"), [(4, 0, CLOUD), (3, 1, CLOUD), (3, 0, "other")])
async def test_a_disk_of_another_vm_is_not_removed(nas, vm, disk, cloud):
    await _image(nas, "one-1-3-0", DISK)

    with pytest.raises(Conflict, match="it is not removed"):
        await nas.ask(RemoveDisk(zvol="one-1-3-0", zpool="tank", cloud=cloud, vm=vm, disk=disk, path=PATH))

    assert list(await nas.volumes()) == ["one-1-3-0"]


async def test_removing_an_absent_disk_succeeds(nas):
    reply = await nas.ask(RemoveDisk(zvol="one-9-3-0", zpool="tank", cloud=CLOUD, vm=3, disk=0, path=PATH))

    assert reply.destroyed is False


@pytest.mark.parametrize("mapped", [True, False])
async def test_a_removal_that_was_cut_off_is_found_again_and_finished(nas, monkeypatch, mapped):
    await _image(nas, "one-1-3-0", DISK)
    if mapped:
        await nas.ask(_map("one-1-3-0"))
    remove = RemoveDisk(zvol="one-1-3-0", zpool="tank", cloud=CLOUD, vm=3, disk=0, path=PATH)
    find = FindPlacements(cloud=CLOUD, vm=3, disk=0)

    async def cut_off(volume):
        raise Cancelled("the caller is gone")

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(nas.backend, "destroy", cut_off)
        with pytest.raises(Cancelled):
            await nas.ask(remove)
    left = (await nas.ask(find)).body
    reply = await nas.ask(remove)

    assert [row["zvol"] for row in left] == ["one-1-3-0"]
    assert reply.destroyed is True
    assert await nas.volumes() == {}
    assert (await nas.ask(find)).body == []


async def test_a_removal_that_was_cut_off_at_its_very_end_leaves_no_placement(nas, monkeypatch):
    await _image(nas, "one-1-3-0", DISK)
    await nas.ask(_map("one-1-3-0"))
    remove = RemoveDisk(zvol="one-1-3-0", zpool="tank", cloud=CLOUD, vm=3, disk=0, path=PATH)

    destroy = nas.backend.destroy

    async def cut_off(volume):
        await destroy(volume)
        raise Cancelled("the caller is gone")

    monkeypatch.setattr(nas.backend, "destroy", cut_off)
    with pytest.raises(Cancelled):
        await nas.ask(remove)
    reply = await nas.ask(remove)

    assert reply.destroyed is False
    assert nas.catalogue.placements() == []


async def test_a_removal_of_a_disk_on_a_dead_host_fences_and_goes_on(nas):
    await _image(nas, "one-1-3-0", DISK)
    await nas.ask(_map("one-1-3-0"))
    nas.nodes["node1"].present = False

    reply = await nas.ask(RemoveDisk(zvol="one-1-3-0", zpool="tank", cloud=CLOUD, vm=3, disk=0, path=PATH, force=True))

    assert (reply.destroyed, reply.debt) == (True, True)
    assert await nas.exporter.exports() == {}


async def test_a_removal_ends_a_map_that_waits_for_its_host(nas):
    await _image(nas, "one-1-3-0", DISK)
    nas.nodes["node1"].go_on = asyncio.Event()
    mapping = asyncio.create_task(nas.ask(_map("one-1-3-0")))
    await nas.nodes["node1"].has_been_asked(SetZvol)
    nas.nodes["node1"].go_on = None

    await nas.ask(RemoveDisk(zvol="one-1-3-0", zpool="tank", cloud=CLOUD, vm=3, disk=0, path=PATH))

    with pytest.raises(Cancelled, match="removal came"):
        await mapping
    assert await nas.volumes() == {}
    assert await nas.exporter.exports() == {}
    assert nas.catalogue.attachments() == []


async def test_a_disk_that_cannot_be_flushed_goes_when_it_is_destroyed_and_stays_when_it_is_kept(nas):
    await _image(nas)
    await _image(nas, "one-1-3-1", DISK_1)
    await nas.ask(_map())
    await nas.ask(_map("one-1-3-1", disk=1))
    nas.nodes["node1"].dead = True

    with pytest.raises(CommandFailed, match="cannot flush"):
        await nas.ask(_unmap())
    removed = await nas.ask(RemoveDisk(zvol="one-1-3-1", zpool="tank", cloud=CLOUD, vm=3, disk=1, path=PATH))

    assert removed.destroyed is True
    assert [(row.zvol, row.state) for row in nas.catalogue.attachments()] == [("one-1", "unknown")]


async def test_the_list_tells_volumes_with_their_mappings(nas):
    await _image(nas)
    await _image(nas, "one-2", Owner(kind=Kind.IMAGE, cloud=CLOUD, image_id=2))
    await nas.ask(_map())

    everything = (await nas.ask(ListZvols())).body
    one = (await nas.ask(ListZvols(name="one-2"))).body

    assert [(z["zvol"], z["remotehost"]) for z in everything] == [("one-1", "node1"), ("one-2", None)]
    assert [z["zvol"] for z in one] == ["one-2"]
    assert (await nas.ask(ListZvols(name="ghost"))).body == []


async def test_taking_a_disk_back_from_the_wrong_host_takes_it_from_where_it_is(nas):
    await _image(nas)
    await nas.ask(_map())

    await nas.ask(_unmap(host="node2"))

    assert nas.nodes["node1"].connected == {}
    assert nas.catalogue.placements() == []
    assert nas.catalogue.attachments() == []


async def test_a_repeated_move_does_not_take_the_disk_from_where_it_has_arrived(nas):
    await _image(nas)
    await nas.ask(_map())
    await nas.ask(_unmap(keep_link=True))
    await nas.ask(_map(host="node2"))

    await nas.ask(_unmap(keep_link=True))

    assert [row.host for row in nas.catalogue.attachments()] == ["node2"]
    assert [p.host for p in nas.catalogue.placements()] == ["node2"]


async def test_taking_back_a_stopped_vms_disk_leaves_the_vm_that_has_the_image_now_alone(nas):
    await _image(nas)
    await nas.ask(_map())
    await nas.ask(_unmap(keep_link=True))
    await nas.ask(_map(vm=4, host="node2", path=PATH.replace("/3/", "/4/")))

    await nas.ask(_unmap(host=None))

    assert [row.host for row in nas.catalogue.attachments()] == ["node2"]
    assert [p.vm for p in nas.catalogue.placements()] == [4]


# Live migration


def _ends(nas):
    return {placement.host for placement in nas.catalogue.placements(vm=3)}


async def _hosts(nas, name="one-1"):
    (one,) = (await nas.ask(ListZvols(name=name))).body
    return sorted(attachment["remotehost"] for attachment in one["attachments"])


@pytest.mark.parametrize(("left", "stays"), [("node1", "node2"), ("node2", "node1")])
async def test_the_end_of_a_migration_leaves_the_disk_where_it_stays(nas, left, stays):
    await _image(nas)
    await nas.ask(_map())
    await nas.ask(_map(host="node2", beside="node1"))

    for _ in range(2):
        await nas.ask(_unmap(host=left, stays=stays, keep_link=True, force=True))

    assert (await _hosts(nas), _ends(nas)) == ([stays], {stays})
    assert (len(nas.nodes[left].connected), len(nas.nodes[stays].connected)) == (0, 1)
    await nas.ask(_unmap(host=stays))
    assert (await _hosts(nas), nas.catalogue.placements(vm=3)) == ([], [])


async def test_a_host_that_is_gone_when_a_migration_ends_is_fenced(nas):
    await _image(nas)
    await nas.ask(_map())
    await nas.ask(_map(host="node2", beside="node1"))
    nas.nodes["node1"].present = False

    reply = await nas.ask(_unmap(host="node1", stays="node2", keep_link=True, force=True))

    assert reply.debt
    assert await _hosts(nas) == ["node2"]
    assert [target.target.initiator[-5:] for target in nas.exporter._kept.values()] == ["node2"]


@pytest.mark.parametrize("host", ["node1", "node2"])
@pytest.mark.parametrize("keep_link", [True, False])
async def test_a_disk_that_is_taken_back_leaves_both_ends_of_a_migration_that_nobody_ended(nas, host, keep_link):
    await _image(nas)
    await nas.ask(_map())
    await nas.ask(_map(host="node2", beside="node1"))

    for _ in range(2):
        await nas.ask(_unmap(host=host, keep_link=keep_link))

    assert await _hosts(nas) == []
    assert await nas.exporter.exports() == {}


async def test_an_image_s_disk_is_removed_from_both_ends_of_a_migration(nas):
    await _image(nas)
    await nas.ask(_map())
    await nas.ask(_map(host="node2", beside="node1"))

    removed = await nas.ask(
        RemoveDisk(zvol="one-1", zpool="tank", cloud=CLOUD, vm=3, disk=0, path=PATH, remotehost="node1")
    )

    assert (removed.destroyed, await _hosts(nas)) == (False, [])


async def test_a_migration_that_nobody_ended_is_in_nobody_s_way_when_the_vm_sets_out_for_another_host(nas):
    nas.nodes.by_name["node3"] = type(nas.nodes["node1"])("node3")
    await _image(nas)
    await nas.ask(_map())
    await nas.ask(_map(host="node2", beside="node1"))

    await nas.ask(_map(host="node3", beside="node1"))

    assert (await _hosts(nas), _ends(nas)) == (["node1", "node3"], {"node3"})
    assert nas.nodes["node2"].connected == {}


@pytest.mark.parametrize("host", ["node1", "node2"])
async def test_while_a_migration_is_not_ended_no_other_vm_gets_the_volume_on_either_host(nas, host):
    await _image(nas)
    await nas.ask(_map())
    await nas.ask(_map(host="node2", beside="node1"))
    other = {"vm": 4, "path": "/var/lib/one/datastores/0/4/disk.0"}

    with pytest.raises(Conflict, match="disk 0 of VM 3, whose migration never ended"):
        await nas.ask(_map(host=host, **other))

    # The VM itself may be asked for again, and when the migration has ended the volume is its host's as before.
    await nas.ask(_map(host="node2", beside="node1"))
    await nas.ask(_unmap(host="node1", stays="node2", keep_link=True, force=True))
    await nas.ask(_unmap(host="node2"))
    await nas.ask(_map(host=host, **other))
    assert await _hosts(nas) == [host]


async def test_a_host_of_another_vm_keeps_the_image_that_both_only_read(nas):
    await _image(nas)
    other = "/var/lib/one/datastores/0/4/disk.0"
    await nas.ask(_map(readonly=True))
    await nas.ask(_map(host="node2", beside="node1", readonly=True))
    await nas.ask(_map(host="node2", vm=4, path=other, readonly=True))

    await nas.ask(_unmap(host="node2", stays="node1", keep_link=True, force=True))

    assert (await _hosts(nas), _ends(nas)) == (["node1", "node2"], {"node1"})
