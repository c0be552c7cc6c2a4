"""Pools in maintenance: nothing new is placed there, and what is there goes on working."""

import pytest

from onelun.errors import InMaintenance, Rejected
from onelun.model import Kind, Owner
from onelun.nas.backends.memory.backend import MemoryBackend
from onelun.nas.catalogue import Catalogue
from onelun.nas.maintenance import Maintenance
from onelun.rpc import message as m

CLOUD = "4f2c1f0e-7a55-4c58-9b5c-0c7f3a6f1a01"
MIB = 1 << 20
IMAGE = Owner(kind=Kind.IMAGE, cloud=CLOUD, image_id=1)
DISK = Owner(kind=Kind.DISK, cloud=CLOUD, vm_id=7, disk_id=0)
VOLATILE = Owner(kind=Kind.VOLATILE, cloud=CLOUD, vm_id=7, disk_id=1)
INITIATOR = "iqn.2026-11.io.onelun.host:frontend"
PLACED = {"cloud": CLOUD, "vm": 7, "disk": 0, "path": "/var/lib/one/datastores/103/7/disk.0"}
CLONE = m.CloneZvol(zvol="one-1-7-0", zpool="tank", origin="one-1", owner=DISK)

NEW = [
    m.CreateZvol(zvol="one-2", zpool="tank", size_bytes=MIB, owner=Owner(kind=Kind.IMAGE, cloud=CLOUD, image_id=2)),
    m.CreateZvol(zvol="one-vm-7-1", zpool="tank", size_bytes=MIB, owner=VOLATILE),
    m.CloneZvol(zvol="one-1-8-0", zpool="tank", origin="one-1", owner=Owner(Kind.DISK, CLOUD, vm_id=8, disk_id=0)),
    m.ImportZvol(zvol="one-3", zpool="tank", size_bytes=MIB, owner=IMAGE, initiator=INITIATOR),
    m.MapZvol(zvol="vol-1", zpool="tank", remotehost="node1", size_bytes=MIB),
    m.MapZvol(zvol="vol-1", remotehost="node1", size_bytes=MIB),
]


@pytest.fixture
async def nas(begin):
    """A NAS with an image and a VM's disk of it, and then in maintenance."""
    nas = await begin()
    await nas.ask(m.CreateZvol(zvol="one-1", zpool="tank", size_bytes=MIB, owner=IMAGE))
    await nas.ask(CLONE)
    await nas.ask(m.SetMaintenance(on=True, reason="new disks"))
    return nas


@pytest.mark.parametrize("request_", NEW, ids=lambda request: f"{m.name_of(type(request))}-{request.zvol}")
async def test_nothing_new_is_placed(nas, request_):
    with pytest.raises(
        InMaintenance, match=r"^pool tank is in maintenance \(new disks\): nothing new is placed there$"
    ):
        await nas.ask(request_)

    assert sorted(await nas.volumes()) == ["one-1", "one-1-7-0"]
    assert len(await nas.backend.volumes()) == 2
    assert nas.catalogue.imports() == []


async def test_what_is_there_goes_on_working(nas):
    assert await nas.ask(CLONE) == await nas.ask(CLONE)
    await nas.ask(m.MapZvol(zvol="one-1-7-0", remotehost="node1", **PLACED))
    of_disk = {"zvol": "one-1-7-0", "zpool": "tank", "cloud": CLOUD}
    await nas.ask(m.SnapshotZvol(**of_disk, snapshot="snap-0"))
    await nas.ask(m.RevertZvol(**of_disk, snapshot="snap-0", remotehost="node1"))
    await nas.ask(m.ResizeZvol(**of_disk, size_bytes=2 * MIB))
    await nas.ask(m.UnmapZvol(zvol="one-1-7-0", remotehost="node1", **PLACED))
    await nas.ask(m.ReadZvol(zvol="one-1", zpool="tank", cloud=CLOUD, initiator=INITIATOR))
    await nas.ask(m.RemoveDisk(zvol="one-1-7-0", zpool="tank", **PLACED))
    await nas.ask(m.DelZvol(zvol="one-1", zpool="tank", owner=IMAGE))

    assert await nas.volumes() == {}


async def test_a_disk_that_would_be_made_anew_stays_as_it_is(nas):
    await nas.ask(m.MapZvol(zvol="one-1-7-0", remotehost="node1", **PLACED))
    before = (await nas.volumes())["one-1-7-0"]

    with pytest.raises(InMaintenance):
        await nas.ask(CLONE)

    assert (await nas.volumes())["one-1-7-0"] == before
    assert len(nas.catalogue.attachments(uuid=before.uuid)) == 1


async def test_an_import_under_way_comes_to_its_end(begin):
    nas = await begin()
    begun = await nas.ask(NEW[3])
    await nas.ask(m.SetMaintenance(on=True))

    await nas.ask(m.FinishImport(zpool="tank", uuid=begun.uuid))

    assert list(await nas.volumes()) == ["one-3"]


async def test_such_a_pool_has_nothing_free_and_says_why(nas):
    told = await nas.ask(m.PoolCapacity(zpool="tank"))

    assert (told.free_bytes, told.maintenance) == (
        0,
        "pool tank is in maintenance (new disks): nothing new is placed there",
    )
    assert told.total_bytes > 0


async def test_it_lasts_over_a_restart_and_ends_when_it_is_ended(nas, begin):
    again = await begin()
    with pytest.raises(InMaintenance):
        await again.ask(NEW[0])

    assert (await again.ask(m.SetMaintenance(on=False, zpools=("tank",)))).zpools == {}

    await again.ask(NEW[0])
    assert (await again.ask(m.PoolCapacity(zpool="tank"))).maintenance is None


async def test_one_pool_of_several_and_the_others_take_its_place(begin, parts):
    parts.others = {"lake": MemoryBackend("lake", 10 * MIB), "pond": MemoryBackend("pond", 20 * MIB)}
    nas = await begin()
    assert (await nas.ask(m.SetMaintenance(on=True, zpools=("tank",)))).zpools == {"tank": ""}

    await nas.ask(NEW[-1])

    (one,) = (await nas.ask(m.ListZvols())).body
    assert one["zpool"] == "pond"
    assert (await nas.ask(m.SetMaintenance(on=True, reason="move"))).zpools == dict.fromkeys(
        ("tank", "lake", "pond"), "move"
    )


@pytest.mark.parametrize(
    ("request_", "sentence"),
    [
        (m.SetMaintenance(on=True, zpools=("tank", "sea")), "there is no pool sea here; there are: tank"),
        (m.SetMaintenance(on=True, zpools=("../tank",)), "is no name of a pool"),
        (m.SetMaintenance(on=True, reason="one\nline"), "a reason is one line"),
        (m.SetMaintenance(on=True, reason="x" * 201), "a reason is one line of at most 200 characters"),
    ],
)
async def test_what_cannot_be_is_refused_and_changes_nothing(begin, request_, sentence):
    nas = await begin()

    with pytest.raises(Rejected, match=sentence):
        await nas.ask(request_)

    assert (await nas.ask(m.PoolCapacity(zpool="tank"))).maintenance is None


async def test_what_is_written_beside_the_agent_counts_at_once(begin, parts):
    nas = await begin()
    beside = Catalogue(parts.state + "/catalogue.sqlite")
    try:
        Maintenance(beside, ["tank"]).change([], on=True)

        with pytest.raises(InMaintenance, match=r"^pool tank is in maintenance: nothing"):
            await nas.ask(NEW[0])
    finally:
        beside.close()
