"""What the front-end reads: a clone of a volume for one reader, of which nothing is left."""

import pytest

from onelun.errors import CommandFailed, Conflict, NotFound, Rejected
from onelun.model import Kind, Owner, State
from onelun.rpc.message import AbortImport, CreateZvol, DelZvol, FinishImport, ListZvols, MapZvol, ReadZvol, RenewImport

from .conftest import CLOUD, MIB

READER = "iqn.2026-11.io.onelun.host:frontend"
OWNER = Owner(kind=Kind.IMAGE, cloud=CLOUD, image_id=3, regtime=1)


def read(**more):
    return ReadZvol(**({"zvol": "one-3", "zpool": "tank", "cloud": CLOUD, "initiator": READER} | more))


@pytest.fixture
async def volume(nas):
    await nas.ask(CreateZvol(zvol="one-3", zpool="tank", size_bytes=MIB, owner=OWNER))
    return (await nas.volumes())["one-3"]


def content(nas, uuid):
    volume = nas.backend._shelf.by_uuid[uuid].volume
    return nas.backend.read(volume, 0, 16)


async def test_a_reader_gets_the_content_as_it_was(nas, volume):
    nas.backend.write(volume, 0, b"as it was before")

    offered = await nas.ask(read())
    nas.backend.write(volume, 0, b"what came later ")

    assert content(nas, offered.uuid) == b"as it was before"
    assert offered.size_bytes == MIB
    assert (await nas.exporter.exports())[offered.iqn].initiators == (READER,)


async def test_readers_do_not_disturb_each_other_nor_show_in_a_list(nas, volume):
    one, other = await nas.ask(read()), await nas.ask(read())

    await nas.ask(AbortImport(zpool="tank", uuid=one.uuid))

    assert list(await nas.exporter.exports()) == [other.iqn]
    assert [entry["zvol"] for entry in (await nas.ask(ListZvols())).body] == ["one-3"]


async def test_nothing_is_left_when_a_reader_is_done(nas, volume):
    offered = await nas.ask(read())

    for _ in range(2):
        await nas.ask(AbortImport(zpool="tank", uuid=offered.uuid))

    assert await nas.exporter.exports() == {}
    assert [v.name for v in await nas.backend.volumes()] == ["one-3"]
    assert nas.catalogue.imports() == []


async def test_what_is_read_never_becomes_a_volume(nas, volume):
    offered = await nas.ask(read())

    with pytest.raises(Rejected, match="is only read"):
        await nas.ask(FinishImport(zpool="tank", uuid=offered.uuid))

    assert list(await nas.volumes()) == ["one-3"]
    assert list(await nas.exporter.exports()) == [offered.iqn]


async def test_what_cannot_be_ended_now_keeps_no_other(begin, monkeypatch):
    nas = await begin(lease_s=0.0)
    await nas.ask(CreateZvol(zvol="one-3", zpool="tank", size_bytes=MIB, owner=OWNER))
    first, second = [await nas.ask(read()) for _ in range(2)]
    unexport = nas.exporter.unexport

    async def fail(iqn):
        if iqn == first.iqn:
            raise CommandFailed("the target does not go")
        await unexport(iqn)

    monkeypatch.setattr(nas.exporter, "unexport", fail)

    await nas.agent._leases.end_overdue()

    assert [row.uuid for row in nas.catalogue.imports()] == [first.uuid]
    assert list(await nas.exporter.exports()) == [first.iqn]
    assert second.uuid not in [v.uuid for v in await nas.backend.volumes()]


async def test_what_nobody_renews_ends(begin):
    nas = await begin(lease_s=0.0)
    await nas.ask(CreateZvol(zvol="one-3", zpool="tank", size_bytes=MIB, owner=OWNER))
    offered = await nas.ask(read())

    await nas.agent._leases.end_overdue()

    assert [v.name for v in await nas.backend.volumes()] == ["one-3"]
    with pytest.raises(NotFound):
        await nas.ask(RenewImport(zpool="tank", uuid=offered.uuid))


async def test_a_reader_goes_on_after_the_agent_s_restart(nas, volume, begin):
    offered = await nas.ask(read())

    nas = await begin()
    await nas.ask(RenewImport(zpool="tank", uuid=offered.uuid))

    assert list(await nas.exporter.exports()) == [offered.iqn]


async def test_a_volume_that_is_read_can_be_removed(nas, volume):
    offered = await nas.ask(read())

    await nas.ask(DelZvol(zvol="one-3", zpool="tank", owner=OWNER))

    assert content(nas, offered.uuid) == bytes(16)


async def test_what_a_host_writes_to_is_not_read_but_its_snapshot_is(nas, volume):
    nas.backend.write(volume, 0, b"as it was before")
    await nas.backend.snapshot(volume, "s0")
    await nas.ask(MapZvol(zvol="one-3", remotehost="node1", cloud=CLOUD))
    nas.backend.write(volume, 0, b"what came later ")

    with pytest.raises(Conflict, match="mapped to node1 for writing"):
        await nas.ask(read())
    offered = await nas.ask(read(snapshot="s0"))

    assert content(nas, offered.uuid) == b"as it was before"


async def test_a_snapshot_has_the_size_that_it_had(nas, volume):
    await nas.backend.snapshot(volume, "s0")
    await nas.backend.grow(volume, 2 * MIB)

    assert (await nas.ask(read(snapshot="s0"))).size_bytes == MIB
    assert (await nas.ask(read())).size_bytes == 2 * MIB


@pytest.mark.parametrize(
    ("asked", "error", "reason"),
    [
        ({"zvol": "one-9"}, NotFound, "no volume one-9"),
        ({"zpool": "none"}, NotFound, "no pool none"),
        ({"snapshot": "s9"}, NotFound, "no snapshot s9"),
        ({"cloud": "00000000-0000-0000-0000-000000000001"}, Conflict, "not of the cloud that asks"),
        ({"initiator": "x; reboot"}, Rejected, "no iSCSI initiator name"),
        ({"zvol": "../one-3"}, Rejected, "no volume name"),
    ],
)
async def test_what_cannot_be_read_leaves_nothing(nas, volume, asked, error, reason):
    with pytest.raises(error, match=reason):
        await nas.ask(read(**asked))

    assert [v.state for v in await nas.backend.volumes()] == [State.READY]
    assert await nas.exporter.exports() == {}
