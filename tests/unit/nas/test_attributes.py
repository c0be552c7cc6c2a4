"""Attributes in the hands of a NAS agent: what clones inherit, and volumes that are wiped when they go."""

import asyncio
import errno
import os
from types import SimpleNamespace

import pytest

from onelun.errors import CommandFailed, Conflict, NotFound, OutOfSpace, Rejected
from onelun.model import Attributes, Capacity, Kind, Owner, Provisioning, State, Wipe
from onelun.nas.backends.file import pool
from onelun.nas.backends.file.backend import FileBackend
from onelun.nas.backends.memory.backend import MemoryBackend
from onelun.rpc.message import (
    AbortImport,
    CloneZvol,
    CopyZvol,
    CreateZvol,
    DelZvol,
    FinishImport,
    ImportZvol,
    MapZvol,
    ReadZvol,
    RemoveDisk,
    ResizeZvol,
    SaveZvol,
)

from .conftest import CLOUD, MIB

PATH = "/var/lib/one/datastores/0/3/disk.0"
PLAIN = Attributes()
ZERO = Attributes(wipe=Wipe.ZERO)
DISCARD = Attributes(wipe=Wipe.DISCARD)
LZ4 = Attributes(compression="lz4")
INITIATOR = "iqn.2026-11.io.onelun.host:frontend"


def _image(image=1):
    return Owner(kind=Kind.IMAGE, cloud=CLOUD, image_id=image)


DISK = Owner(kind=Kind.DISK, cloud=CLOUD, image_id=1, vm_id=3, disk_id=0)
VOLATILE = Owner(kind=Kind.VOLATILE, cloud=CLOUD, vm_id=3, disk_id=1)


def _create(name, owner, attributes=PLAIN):
    return CreateZvol(zvol=name, zpool="tank", size_bytes=MIB, owner=owner, attributes=attributes)


def _clone(attributes=PLAIN):
    return CloneZvol(zvol="one-1-3-0", zpool="tank", origin="one-1", owner=DISK, attributes=attributes)


REMOVE = RemoveDisk(zvol="one-1-3-0", zpool="tank", cloud=CLOUD, vm=3, disk=0, path=PATH)


async def attributes_of(nas, name):
    return (await nas.volumes())[name].attributes


async def trashed(nas):
    return sorted(v.name for v in await nas.backend.volumes() if v.state is State.TRASH)


@pytest.mark.parametrize(
    ("image", "asked", "has"),
    [(ZERO, PLAIN, ZERO), (ZERO, DISCARD, DISCARD), (PLAIN, ZERO, ZERO), (ZERO, ZERO, ZERO)],
)
async def test_a_clone_has_what_is_asked_and_else_what_its_image_has(nas, image, asked, has):
    await nas.ask(_create("one-1", _image(), image))

    first = await nas.ask(_clone(asked))

    assert await attributes_of(nas, "one-1-3-0") == has
    assert await nas.ask(_clone(asked)) == first


async def test_a_disk_that_is_asked_for_with_other_attributes_is_made_anew(nas):
    await nas.ask(_create("one-1", _image()))
    before = await nas.ask(_clone())

    after = await nas.ask(_clone(ZERO))

    assert before.uuid != after.uuid
    assert await attributes_of(nas, "one-1-3-0") == ZERO


async def test_an_image_that_is_there_with_other_attributes_is_a_conflict(nas):
    await nas.ask(_create("one-1", _image()))

    with pytest.raises(Conflict, match="exists in pool tank"):
        await nas.ask(_create("one-1", _image(), ZERO))


async def test_a_clone_cannot_have_blocks_of_another_size(nas):
    await nas.ask(_create("one-1", _image()))

    with pytest.raises(
        Rejected, match="one-1-3-0 cannot have ONELUN_VOLBLOCKSIZE: a clone has the block size of one-1"
    ):
        await nas.ask(_clone(Attributes(volblocksize_bytes=65536)))


@pytest.mark.parametrize(
    ("attributes", "named"),
    [(LZ4, "COMPRESSION=lz4"), (Attributes(provisioning=Provisioning.THICK), "PROVISIONING=thick")],
)
async def test_what_the_pool_cannot_give_is_refused_and_nothing_is_changed(nas, attributes, named):
    await nas.ask(_create("one-1", _image()))
    before = await nas.backend.volumes()

    for request in (
        _create("one-2", _image(2), attributes),
        _create("one-vm-3-1", VOLATILE, attributes),
        _clone(attributes),
        ImportZvol(
            zvol="one-2", zpool="tank", size_bytes=MIB, owner=_image(2), initiator=INITIATOR, attributes=attributes
        ),
    ):
        with pytest.raises(Rejected, match=f"ONELUN_{named} cannot be had in pool tank of the kind memory"):
            await nas.ask(request)

    assert await nas.backend.volumes() == before


async def test_what_is_saved_keeps_its_own_and_takes_the_rest_from_the_disk(nas):
    await nas.ask(_create("one-1", _image(), ZERO))
    await nas.ask(_create("one-2", _image(2)))
    await nas.ask(_create("one-3", _image(3), DISCARD))
    await nas.ask(_clone())

    copy = CopyZvol(zvol="one-1-3-0", zpool="tank", cloud=CLOUD, vm=3, disk=0, target="one-2")
    await nas.ask(copy)
    await nas.ask(SaveZvol(zvol="one-1-3-0", zpool="tank", target="one-3", cloud=CLOUD, vm=3, disk=0, path=PATH))

    assert await attributes_of(nas, "one-2") == ZERO
    assert await attributes_of(nas, "one-3") == DISCARD


async def test_a_disk_that_is_to_be_wiped_goes_by_way_of_the_trash_and_its_name_is_free(nas):
    await nas.ask(_create("one-1", _image(), ZERO))
    await nas.ask(_clone())
    await nas.ask(MapZvol(zvol="one-1-3-0", zpool="tank", remotehost="node1", cloud=CLOUD, vm=3, disk=0, path=PATH))

    removed = await nas.ask(REMOVE)
    again = await nas.ask(REMOVE)

    assert (removed.destroyed, again.destroyed) == (True, False)
    assert await trashed(nas) == ["one-1-3-0"]
    await nas.ask(_clone())
    assert await nas.backend.purge(0.0) == 1
    assert sorted(await nas.volumes()) == ["one-1", "one-1-3-0"]


async def test_a_disk_that_is_not_wiped_is_gone_at_once(nas):
    await nas.ask(_create("one-1", _image()))
    await nas.ask(_clone())

    await nas.ask(REMOVE)

    assert await trashed(nas) == []


async def test_a_disk_of_an_earlier_life_and_a_building_image_are_wiped_too(nas, begin):
    await nas.ask(_create("one-vm-3-1", VOLATILE, ZERO))
    await nas.ask(_create("one-vm-3-1", VOLATILE, DISCARD))
    assert await trashed(nas) == ["one-vm-3-1"]
    await nas.backend.create("one-9", "6b2f7a52-6a04-4e9b-9d0b-3a2f0c0a7a11", MIB, _image(9), ZERO)

    nas = await begin()

    assert await trashed(nas) == ["one-9", "one-vm-3-1"]


async def test_what_is_read_of_a_wiped_image_is_wiped_too(nas):
    await nas.ask(_create("one-1", _image(), ZERO))

    await nas.ask(ReadZvol(zvol="one-1", zpool="tank", cloud=CLOUD, initiator=INITIATOR))

    read = [v for v in await nas.backend.volumes() if v.state is State.BUILDING]
    assert [v.attributes for v in read] == [ZERO]


async def test_an_import_that_ended_is_not_finished_though_it_waits_in_the_trash_to_be_wiped(nas):
    begun = await nas.ask(
        ImportZvol(zvol="one-1", zpool="tank", size_bytes=MIB, owner=_image(), initiator=INITIATOR, attributes=ZERO)
    )
    built = await nas.backend.find_uuid(begun.uuid)

    # As it is when the agent was killed while it ended the import.
    await nas.backend.trash(built)

    with pytest.raises(NotFound, match="the import has ended"):
        await nas.ask(FinishImport(zpool="tank", uuid=begun.uuid))
    await nas.ask(AbortImport(zpool="tank", uuid=begun.uuid))
    assert await trashed(nas) == ["one-1"]


async def test_an_import_has_the_attributes_that_it_was_begun_with(nas):
    request = ImportZvol(
        zvol="one-1", zpool="tank", size_bytes=MIB, owner=_image(), initiator=INITIATOR, attributes=ZERO
    )

    first = await nas.ask(request)
    second = await nas.ask(request)
    await nas.ask(FinishImport(zpool="tank", uuid=second.uuid))

    assert await attributes_of(nas, "one-1") == ZERO
    assert [v.uuid for v in await nas.backend.volumes() if v.state is State.TRASH] == [first.uuid]


@pytest.fixture
async def files(begin, parts, tmp_path, monkeypatch):
    """An agent with a pool `files` that says that it has 5 MiB below its high-water mark, whatever the machine has."""
    (tmp_path / "pool").mkdir()
    backend = parts.others["files"] = FileBackend("files", str(tmp_path / "pool"))
    nas = await begin()

    async def capacity():
        return Capacity(total_bytes=100 * MIB, used_bytes=80 * MIB, free_bytes=20 * MIB)

    monkeypatch.setattr(backend, "capacity", capacity)
    return SimpleNamespace(ask=nas.ask, backend=backend)


def _thick(size):
    thick = Attributes(provisioning=Provisioning.THICK)
    return CreateZvol(zvol="one-1", zpool="files", size_bytes=size, owner=_image(), attributes=thick)


async def test_a_thick_volume_needs_its_bytes_free(files):
    with pytest.raises(OutOfSpace, match="below its high-water mark"):
        await files.ask(_thick(6 * MIB))

    assert await files.backend.volumes() == []


async def test_a_thick_volume_grows_only_where_its_new_bytes_are_free(files):
    await files.ask(_thick(4 * MIB))
    (volume,) = await files.backend.volumes()

    with pytest.raises(OutOfSpace, match="below its high-water mark"):
        await files.ask(ResizeZvol(zvol="one-1", zpool="files", size_bytes=10 * MIB))
    grown = await files.ask(ResizeZvol(zvol="one-1", zpool="files", size_bytes=8 * MIB))

    assert await files.ask(ResizeZvol(zvol="one-1", zpool="files", size_bytes=8 * MIB)) == grown
    assert grown.size_bytes == 8 * MIB
    assert os.stat(files.backend.device(volume)).st_blocks * 512 >= 8 * MIB


async def test_a_thick_volume_that_finds_no_blocks_to_grow_is_as_it_was(files, monkeypatch):
    await files.ask(_thick(4 * MIB))
    (volume,) = await files.backend.volumes()

    def full(file, size_bytes):
        os.posix_fallocate(file, 0, size_bytes // 2)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pool, "allocate", full)
    with pytest.raises(OutOfSpace, match="pool files is full"):
        await files.ask(ResizeZvol(zvol="one-1", zpool="files", size_bytes=8 * MIB))

    assert os.stat(files.backend.device(volume)).st_size == 4 * MIB


async def test_a_pool_that_cannot_be_purged_keeps_no_other_from_it(begin, parts, monkeypatch):
    parts.others["other"] = MemoryBackend("other")
    nas = await begin()
    purged = []

    async def fail(older_than):
        raise CommandFailed("pool tank is gone")

    async def purge(older_than):
        purged.append(older_than)
        return 1

    monkeypatch.setattr(parts.backend, "purge", fail)
    monkeypatch.setattr(parts.others["other"], "purge", purge)

    await nas.agent.rounds._purge()

    assert len(purged) == 1


async def test_an_agent_that_wipes_for_long_still_looks_after_its_hosts(begin, parts, monkeypatch):
    nas = await begin(probe_s=0.01)
    wiping, looked = asyncio.Event(), asyncio.Event()

    async def purge(older_than):
        wiping.set()
        await asyncio.Event().wait()

    async def end_overdue():
        if wiping.is_set():
            looked.set()

    monkeypatch.setattr(parts.backend, "purge", purge)
    monkeypatch.setattr(nas.agent._leases, "end_overdue", end_overdue)
    running = asyncio.create_task(nas.agent.rounds.run())
    try:
        await asyncio.wait_for(looked.wait(), 60)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    assert (await nas.ask(DelZvol(zvol="nothing", zpool="tank"))).status == "success"
