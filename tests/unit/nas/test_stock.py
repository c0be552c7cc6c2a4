"""What a NAS tells of itself to be compared, how it settles with its hosts, and what it takes for nobody's."""

import asyncio
import os

import msgspec
import pytest

from onelun.errors import Busy, Conflict, Unreachable
from onelun.model import Kind, Owner, State, Target
from onelun.naming import Source, target_account, target_iqn
from onelun.nas.identity import Identity
from onelun.rpc import message as m

from .conftest import CLOUD, MIB

IMAGE = Owner(kind=Kind.IMAGE, cloud=CLOUD, image_id=1, regtime=7)
DISK = Owner(kind=Kind.DISK, cloud=CLOUD, image_id=1, vm_id=3, disk_id=0)
PLACED = {"cloud": CLOUD, "vm": 3, "disk": 0, "path": "/var/lib/one/datastores/0/3/disk.0"}
INITIATOR = "iqn.2026-11.io.onelun.host:frontend"
UUID = "7e1f3b8e-3c7e-4d46-9f0a-0b8de4b7a8f1"


@pytest.fixture
async def nas(begin):
    """A NAS with an image, and a clone of it on node1."""
    nas = await begin()
    await nas.ask(m.CreateZvol(zvol="one-1", zpool="tank", size_bytes=MIB, owner=IMAGE))
    await nas.ask(m.CloneZvol(zvol="one-1-3-0", zpool="tank", origin="one-1", owner=DISK))
    await nas.ask(m.MapZvol(zvol="one-1-3-0", zpool="tank", remotehost="node1", **PLACED))
    return nas


async def trash(nas, **changes):
    volume = (await nas.volumes())["one-1-3-0"]
    asked = {"zvol": "one-1-3-0", "zpool": "tank", "uuid": volume.uuid, "owner": DISK, "older_s": 0.0, **changes}
    return await nas.ask(m.TrashZvol(**asked))


async def unmapped(nas):
    await nas.ask(m.UnmapZvol(zvol="one-1-3-0", zpool="tank", remotehost="node1", cloud=CLOUD))


def unknown_target(parts, session=None):
    """A target that no attachment is behind, as a killed agent or another program leaves it."""
    iqn = target_iqn(Source("nas1", "tank", "one-1"), 77)
    secret = Identity(parts.state).secret_of(iqn)
    target = Target(iqn, "/memory/none", UUID, MIB, session or INITIATOR, target_account(iqn), secret)
    return target, secret


async def test_the_stock_is_everything_of_the_cloud(nas):
    await nas.ask(m.SnapshotZvol(zvol="one-1", zpool="tank", cloud=CLOUD, snapshot="snap-0"))
    await nas.ask(m.CreateZvol(zvol="plain", zpool="tank", size_bytes=MIB, owner=Owner(kind=Kind.PLAIN)))

    stock = await nas.ask(m.TakeStock(cloud=CLOUD))

    told = {volume.zvol: volume for volume in stock.volumes}
    assert {name: (v.owner, v.state, v.snapshots) for name, v in told.items()} == {
        "one-1": (IMAGE, "ready", ("snap-0",)),
        "one-1-3-0": (DISK, "ready", ()),
    }
    (row,) = stock.attachments
    assert (row.zvol, row.remotehost, row.state, row.cloud) == ("one-1-3-0", "node1", "attached", CLOUD)
    assert [(t.iscsi_target, t.leased) for t in stock.targets] == [(row.iscsi_target, False)]
    assert [(p.vm, p.disk, p.path, p.host) for p in stock.placements] == [(3, 0, PLACED["path"], "node1")]
    assert (stock.failed, stock.cautious) == ({}, False)


async def test_the_stock_of_another_cloud_has_none_of_its_volumes_but_all_targets(nas):
    stock = await nas.ask(m.TakeStock(cloud="00000000-0000-0000-0000-000000000001"))

    assert (stock.volumes, stock.placements) == ((), ())
    assert [(row.zvol, row.cloud) for row in stock.attachments] == [("one-1-3-0", CLOUD)]
    assert len(stock.targets) == 1


async def test_a_lease_is_told_as_one(nas):
    asked = m.ImportZvol(zvol="one-2", zpool="tank", size_bytes=MIB, owner=IMAGE, initiator=INITIATOR)
    begun = await nas.ask(asked)

    stock = await nas.ask(m.TakeStock(cloud=CLOUD))

    assert {target.iscsi_target: target.leased for target in stock.targets}[begun.iqn]
    assert "one-2" not in {volume.zvol for volume in stock.volumes}


async def test_a_pool_that_fails_is_named_and_keeps_no_other_from_being_told(nas, monkeypatch):
    async def usages():
        raise Unreachable("the pool is away")

    monkeypatch.setattr(nas.backend, "usages", usages)

    stock = await nas.ask(m.TakeStock(cloud=CLOUD))

    assert stock.failed == {"tank": "the pool is away"}
    assert {volume.zvol: volume.snapshots for volume in stock.volumes} == {"one-1": None, "one-1-3-0": None}


async def test_what_changes_while_the_stock_is_taken_is_left_out(nas, monkeypatch):
    usages = nas.backend.usages

    async def meanwhile():
        await unmapped(nas)
        await nas.ask(m.MapZvol(zvol="one-1", zpool="tank", remotehost="node2", cloud=CLOUD, readonly=True))
        return await usages()

    monkeypatch.setattr(nas.backend, "usages", meanwhile)

    stock = await nas.ask(m.TakeStock(cloud=CLOUD))

    assert (stock.attachments, stock.targets) == ((), ())


async def test_settling_exports_what_is_missing_and_ends_what_nobody_knows(nas, parts):
    (iqn,) = await parts.exporter.exports()
    await parts.exporter.unexport(iqn)
    unknown, _ = unknown_target(parts)
    await parts.exporter.export(unknown)

    settled = await nas.ask(m.Settle())

    assert (settled.exported, settled.ended, settled.failed) == (1, (unknown.iqn,), {})
    assert list(await parts.exporter.exports()) == [iqn]
    assert await nas.ask(m.Settle()) == m.Settled(exported=0, ended=(), failed={})


async def test_settling_leaves_a_target_with_a_session_and_one_under_a_lease(nas, parts):
    unknown, secret = unknown_target(parts)
    await parts.exporter.export(unknown)
    parts.exporter.log_in(unknown.iqn, INITIATOR, secret)
    await nas.ask(m.ImportZvol(zvol="one-2", zpool="tank", size_bytes=MIB, owner=IMAGE, initiator=INITIATOR))
    before = await parts.exporter.exports()

    assert (await nas.ask(m.Settle())).ended == ()
    assert await parts.exporter.exports() == before


async def test_settling_tells_a_host_what_it_is_to_have(nas, nodes):
    (row,) = nas.catalogue.attachments()
    nodes["node1"].connected.clear()
    nodes["node2"].connected["iqn.2026-11.io.onelun.nas1:tank.one-9.e5"] = None

    settled = await nas.ask(m.Settle(remotehosts=("node1", "node2")))

    assert settled.failed == {}
    assert list(nodes["node1"].connected) == [row.iqn]
    assert nodes["node1"].connected[row.iqn].links == (PLACED["path"],)
    assert nodes["node2"].connected == {}


async def test_a_host_that_is_away_keeps_no_other_from_being_told(nas, nodes):
    nodes["node1"].connected.clear()
    nodes["node2"].present = False

    settled = await nas.ask(m.Settle(remotehosts=("node2", "node1")))

    assert list(settled.failed) == ["node2"]
    assert len(nodes["node1"].connected) == 1


async def test_what_nobody_has_goes_to_the_trash_with_its_placement(nas):
    await nas.ask(
        m.UnmapZvol(zvol="one-1-3-0", zpool="tank", remotehost="node1", keep_link=True, **PLACED),
    )

    assert (await trash(nas)).trashed

    (gone,) = [v for v in await nas.backend.volumes() if v.state is State.TRASH]
    assert gone.name == "one-1-3-0"
    assert nas.catalogue.placements() == []
    asked = m.TrashZvol(zvol="one-1-3-0", zpool="tank", uuid=gone.uuid, owner=DISK, older_s=0.0)
    assert not (await nas.ask(asked)).trashed


async def test_what_a_host_has_stays(nas):
    with pytest.raises(Conflict, match="one-1-3-0 is mapped to node1: it stays"):
        await trash(nas)


async def test_what_says_itself_that_a_host_has_it_stays(nas):
    (row,) = nas.catalogue.attachments()
    nas.catalogue.drop(row)

    with pytest.raises(Conflict, match="one-1-3-0 is mapped to node1: it stays"):
        await trash(nas)


async def test_what_is_exported_stays(nas, parts):
    (row,) = nas.catalogue.attachments()
    await unmapped(nas)
    secret = Identity(parts.state).secret_of(row.iqn)
    await parts.exporter.export(Target(row.iqn, "/memory/none", UUID, MIB, INITIATOR, target_account(row.iqn), secret))

    with pytest.raises(Conflict, match=f"one-1-3-0 is exported as {row.iqn}: it stays"):
        await trash(nas)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"owner": msgspec.structs.replace(DISK, vm_id=4)}, "is disk 0 of VM 3, not disk 0 of VM 4: it stays"),
        ({"older_s": 60.0}, "is made .* s ago, and 60 s are asked for: it stays"),
        ({"owner": Owner(kind=Kind.PLAIN)}, "would have to be a cloud's"),
    ],
    ids=["owner", "young", "plain"],
)
async def test_what_is_anothers_or_young_stays(nas, changes, said):
    await unmapped(nas)

    with pytest.raises(Conflict, match=said):
        await trash(nas, **changes)
    assert "one-1-3-0" in await nas.volumes()


async def test_a_later_volume_of_that_name_stays(nas):
    await unmapped(nas)

    assert not (await trash(nas, uuid="00000000-0000-0000-0000-000000000001")).trashed
    assert "one-1-3-0" in await nas.volumes()


async def test_what_somebody_works_on_stays(nas):
    await unmapped(nas)
    nas.nodes["node2"].go_on = asyncio.Event()
    mapping = asyncio.create_task(nas.ask(m.MapZvol(zvol="one-1-3-0", zpool="tank", remotehost="node2", cloud=CLOUD)))
    while not nas.nodes["node2"].asked:
        await asyncio.sleep(0)

    with pytest.raises(Busy, match="somebody works on one-1-3-0"):
        await trash(nas)
    nas.nodes["node2"].go_on.set()
    await mapping


async def test_an_agent_that_lost_its_catalogue_removes_nothing(nas, begin, parts):
    await unmapped(nas)
    os.unlink(os.path.join(parts.state, "catalogue.sqlite"))
    unknown, _ = unknown_target(parts)
    await parts.exporter.export(unknown)

    again = await begin()

    assert (await again.ask(m.TakeStock(cloud=CLOUD))).cautious
    with pytest.raises(Conflict, match="this NAS lost its catalogue"):
        await trash(again)
    assert (await again.ask(m.Settle())).ended == ()
    assert unknown.iqn in await parts.exporter.exports()
