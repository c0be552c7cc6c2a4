"""A disk is saved as an image while its VM goes on."""

import msgspec
import pytest

from onelun.errors import CommandFailed, Conflict, NotFound, Rejected
from onelun.model import Kind, Owner
from onelun.rpc.message import CloneZvol, CopyZvol, CreateZvol, MapZvol, RemoveDisk, SnapshotZvol

from .conftest import CLOUD, MIB

PATH = "/var/lib/one/datastores/103/7/disk.0"
DISK = Owner(kind=Kind.DISK, cloud=CLOUD, image_id=1, vm_id=7, disk_id=0)


def _image(image_id):
    return Owner(kind=Kind.IMAGE, cloud=CLOUD, image_id=image_id)


def _create(image_id, size=MIB):
    return CreateZvol(zvol=f"one-{image_id}", zpool="tank", size_bytes=size, owner=_image(image_id))


def _copy(snapshot=None, **more):
    words = {"zvol": "one-1-7-0", "zpool": "tank", "cloud": CLOUD, "vm": 7, "disk": 0, "target": "one-9"}
    return CopyZvol(**(words | more), snapshot=snapshot)


@pytest.fixture
async def disk(nas):
    """A VM's disk on node1, and the empty image 9."""
    await nas.ask(_create(1))
    await nas.ask(_create(9))
    await nas.ask(CloneZvol(zvol="one-1-7-0", zpool="tank", origin="one-1", owner=DISK))
    await nas.ask(MapZvol(zvol="one-1-7-0", zpool="tank", remotehost="node1", cloud=CLOUD, vm=7, disk=0, path=PATH))
    disk = await nas.backend.find("one-1-7-0")
    nas.backend.write(disk, 0, b"old")
    return disk


async def _content(nas, name="one-9"):
    return nas.backend.read(await nas.backend.find(name), 0, 3)


async def test_the_image_has_the_disk_s_content_and_the_disk_is_where_it_was(nas, disk):
    nas.nodes["node1"].asked.clear()

    copied = await nas.ask(_copy())
    nas.backend.write(disk, 0, b"new")

    image = await nas.backend.find("one-9")
    assert (copied.uuid, copied.size_bytes) == (image.uuid, MIB)
    assert image.owner == _image(9)
    assert await _content(nas) == b"old"
    assert await nas.backend.snapshots(disk) == []
    assert nas.nodes["node1"].asked == []
    assert len(nas.nodes["node1"].connected) == 1


async def test_the_image_has_the_content_of_a_snapshot(nas, disk):
    await nas.ask(SnapshotZvol(zvol="one-1-7-0", zpool="tank", cloud=CLOUD, snapshot="snap-0"))
    nas.backend.write(disk, 0, b"new")

    first = await nas.ask(_copy("snap-0"))
    again = await nas.ask(_copy("snap-0"))

    assert await _content(nas) == b"old"
    assert again == first
    assert [s.name for s in await nas.backend.snapshots(disk)] == ["snap-0"]


async def test_a_repeat_of_the_present_copies_the_present(nas, disk):
    await nas.ask(_copy())
    nas.backend.write(disk, 0, b"new")

    await nas.ask(_copy())

    assert await _content(nas) == b"new"


async def test_a_disk_that_has_grown_since_makes_the_image_as_large(nas, disk):
    await nas.backend.grow(disk, 2 * MIB)

    assert (await nas.ask(_copy())).size_bytes == 2 * MIB


async def test_a_larger_image_keeps_its_size(nas, disk):
    await nas.ask(_create(10, size=4 * MIB))

    assert (await nas.ask(_copy(target="one-10"))).size_bytes == 4 * MIB


async def test_the_saved_image_outlives_the_disk(nas, disk):
    await nas.ask(_copy())

    await nas.ask(RemoveDisk(zvol="one-1-7-0", zpool="tank", cloud=CLOUD, vm=7, disk=0, path=PATH))

    assert await _content(nas) == b"old"


async def test_what_a_killed_copy_left_is_tidied_by_the_next(nas, disk):
    await nas.backend.snapshot(disk, "copying")
    nas.backend.write(disk, 0, b"new")

    await nas.ask(_copy())

    assert await _content(nas) == b"new"
    assert await nas.backend.snapshots(disk) == []


async def test_what_a_killed_copy_left_is_tidied_by_the_next_agent(nas, disk, begin, monkeypatch):
    class Killed(BaseException):
        pass

    async def killed(*arguments, **words):
        monkeypatch.setattr(nas.backend, "delete_snapshot", killed)
        raise Killed

    monkeypatch.setattr(nas.backend, "clone", killed)
    with pytest.raises(Killed):
        await nas.ask(_copy())
    monkeypatch.undo()
    left = [s.name for s in await nas.backend.snapshots(disk)]

    nas = await begin()

    assert left == ["copying"]
    assert await nas.backend.snapshots(disk) == []
    await nas.ask(_copy())
    assert await _content(nas) == b"old"


async def test_a_failure_leaves_the_image_as_it_was(nas, disk, monkeypatch):
    before = await nas.backend.find("one-9")

    async def fail(*arguments, **words):
        raise CommandFailed("no")

    monkeypatch.setattr(nas.backend, "publish", fail)
    with pytest.raises(CommandFailed):
        await nas.ask(_copy())
    monkeypatch.undo()

    assert await nas.backend.find("one-9") == before
    assert await nas.backend.snapshots(disk) == []
    assert len(await nas.backend.volumes()) == 3


async def test_an_image_with_a_content_of_its_own_is_not_replaced(nas, disk):
    await nas.ask(CreateZvol(zvol="one-2", zpool="tank", size_bytes=MIB, owner=_image(2)))
    await nas.ask(_copy(zvol="one-2", vm=8, disk=1))
    with pytest.raises(Conflict, match="filled from another disk"):
        await nas.ask(_copy())

    await nas.ask(_create(10))
    await nas.ask(MapZvol(zvol="one-10", zpool="tank", remotehost="node2", cloud=CLOUD))
    with pytest.raises(Conflict, match="one-10 is mapped to node2"):
        await nas.ask(_copy(target="one-10"))


async def test_an_image_that_has_been_on_a_host_is_not_replaced(nas, disk):
    image = await nas.backend.find("one-9")
    await nas.backend.record("one-9", image.uuid, lambda now: msgspec.structs.replace(now, last_epoch=3))

    with pytest.raises(Conflict, match="has been on a host already"):
        await nas.ask(_copy())

    assert (await nas.backend.find("one-9")).uuid == image.uuid


@pytest.mark.parametrize(
    ("words", "error", "reason"),
    [
        ({"snapshot": "snap-3"}, NotFound, "has no snapshot snap-3"),
        ({"zvol": "one-77"}, NotFound, "no volume one-77"),
        ({"target": "one-77"}, NotFound, "no image one-77"),
        ({"target": "one-1-7-0"}, Rejected, "over itself"),
        ({"target": "../x"}, Rejected, "no volume name"),
        ({"vm": 8}, Conflict, "disk 0 of VM 7, not disk 0 of VM 8"),
        ({"cloud": "9a3f1f0e-7a55-4c58-9b5c-0c7f3a6f1a01"}, Conflict, "of another cloud"),
    ],
)
async def test_bad_input_changes_nothing(nas, disk, words, error, reason):
    before = await nas.backend.volumes()

    with pytest.raises(error, match=reason):
        await nas.ask(_copy(**words))

    assert await nas.backend.volumes() == before


async def test_a_disk_is_not_saved_over_another_vm_s_disk(nas, disk):
    await nas.ask(
        CloneZvol(
            zvol="one-1-8-0", zpool="tank", origin="one-1", owner=Owner(**{**msgspec.structs.asdict(DISK), "vm_id": 8})
        )
    )

    with pytest.raises(Conflict, match="not an image of this cloud"):
        await nas.ask(_copy(target="one-1-8-0"))
