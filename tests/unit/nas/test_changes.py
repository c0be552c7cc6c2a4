"""What changed between two snapshots, by request."""

import asyncio
import uuid as uuids

import pytest

from onelun.errors import Cancelled, Conflict, NotFound, Rejected
from onelun.model import Kind, Owner
from onelun.rpc.message import CreateZvol, DelZvol, ListChanges, SnapshotZvol

from .conftest import CLOUD, MIB

IMAGE = Owner(kind=Kind.IMAGE, cloud=CLOUD, image_id=1, regtime=5)
BLOCK = 4096


@pytest.fixture
async def volume(nas):
    await nas.ask(CreateZvol(zvol="one-1", zpool="tank", size_bytes=MIB, owner=IMAGE))
    found = await nas.backend.find("one-1")
    nas.backend.write(found, 0, b"old" * BLOCK)
    await _take(nas, "backup-1")
    return found


async def _take(nas, name):
    await nas.ask(SnapshotZvol(zvol="one-1", zpool="tank", snapshot=name, cloud=CLOUD))


def _changes(since="backup-1", until="backup-2", **more):
    return ListChanges(zvol="one-1", zpool="tank", since=since, until=until, **({"cloud": CLOUD} | more))


async def test_what_was_written_and_discarded_is_told_with_the_size_of_the_later_one(nas, volume):
    nas.backend.write(volume, 64 * BLOCK, b"new")
    nas.backend.discard(volume, 0, BLOCK)
    await nas.backend.grow(volume, 2 * MIB)
    await _take(nas, "backup-2")
    await nas.backend.grow(volume, 4 * MIB)

    reply = await nas.ask(_changes(uuid=volume.uuid))

    assert (reply.uuid, reply.size_bytes) == (volume.uuid, 2 * MIB)
    assert reply.body == [(0, BLOCK, False), (64 * BLOCK, BLOCK, True)]


async def test_asking_again_tells_the_same(nas, volume):
    nas.backend.write(volume, 0, b"new")
    await _take(nas, "backup-2")

    assert await nas.ask(_changes()) == await nas.ask(_changes())


async def test_a_missing_volume_or_snapshot_is_not_found(nas, volume):
    for request in (_changes(), _changes(since="backup-0", until="backup-1")):
        with pytest.raises(NotFound):
            await nas.ask(request)
    with pytest.raises(NotFound):
        await nas.ask(ListChanges(zvol="one-2", zpool="tank", since="backup-1", until="backup-1", cloud=CLOUD))


@pytest.mark.parametrize("name", ["", "a/b", "a@b", "-x"])
async def test_a_name_that_is_none_is_rejected(nas, volume, name):
    for request in (_changes(since=name), _changes(until=name)):
        with pytest.raises(Rejected):
            await nas.ask(request)


async def test_another_volume_of_that_name_is_a_conflict(nas, volume):
    with pytest.raises(Conflict):
        await nas.ask(_changes(until="backup-1", uuid=str(uuids.uuid4())))


async def test_another_cloud_hears_nothing(nas, volume):
    for cloud in (None, str(uuids.uuid4())):
        with pytest.raises(Conflict):
            await nas.ask(_changes(until="backup-1", cloud=cloud))


async def test_the_removal_of_the_volume_ends_the_search(nas, volume, monkeypatch):
    began = asyncio.Event()

    async def long(*_):
        began.set()
        await asyncio.sleep(60)

    monkeypatch.setattr(nas.backend, "changed", long)
    asked = asyncio.create_task(nas.ask(_changes(until="backup-1")))
    await began.wait()

    await nas.ask(DelZvol(zvol="one-1", zpool="tank", owner=IMAGE))

    with pytest.raises(Cancelled):
        await asked
