"""Volumes that exist already become images' volumes, and go again; rm removes only what is ours."""

import asyncio

import pytest

from onelun.errors import Conflict, NotFound, Rejected
from onelun.model import Kind, Owner
from onelun.rpc import message as m

CLOUD = "4f2c1f0e-7a55-4c58-9b5c-0c7f3a6f1a01"
OTHER_CLOUD = "5a3d2a1f-8b66-4d69-8c6d-1d8a4b7a2b12"
MIB = 1 << 20
PATH = "/var/lib/one/datastores/103/7/disk.0"
PLACED = {"cloud": CLOUD, "vm": 7, "disk": 0, "path": PATH}
ANY = Owner(kind=Kind.IMAGE, cloud=CLOUD)
REMOVE = m.DelZvol(zvol="legacy", zpool="tank", owner=Owner(kind=Kind.IMAGE, cloud=CLOUD, image_id=12, regtime=5))


def adopt(**fields):
    return m.AdoptZvol(**({"zvol": "legacy", "zpool": "tank", "owner": ANY} | fields))


def image(number):
    return Owner(kind=Kind.IMAGE, cloud=CLOUD, image_id=number)


@pytest.fixture
async def nas(begin, parts):
    parts.backend.put("legacy", b"x" * MIB)
    return await begin()


async def test_an_adopted_volume_is_an_image_from_then_on(nas, parts):
    adopted = await nas.ask(adopt())
    disk = Owner(kind=Kind.DISK, cloud=CLOUD, vm_id=8, disk_id=0)

    await nas.ask(m.CloneZvol(zvol="legacy-8-0", zpool="tank", origin="legacy", owner=disk))
    await nas.ask(m.MapZvol(zvol="legacy", zpool="tank", remotehost="node1", **PLACED))
    await nas.ask(m.UnmapZvol(zvol="legacy", zpool="tank", remotehost="node1", **PLACED))

    volume = (await nas.volumes())["legacy"]
    assert (adopted.zvol, adopted.uuid, adopted.size_bytes) == ("legacy", volume.uuid, MIB)
    assert parts.backend.read(volume, 0, MIB) == b"x" * MIB
    await nas.ask(REMOVE)
    assert list(await nas.volumes()) == ["legacy-8-0"]


async def test_adopting_again_is_the_same_and_may_name_the_image(nas):
    first = await nas.ask(adopt(name="mine"))
    assert await nas.ask(adopt(name="mine")) == first

    assert await nas.ask(adopt(name="mine", owner=image(13))) == first
    assert await nas.ask(adopt(name="mine")) == first

    assert (await nas.volumes())["mine"].owner == image(13)
    with pytest.raises(Conflict, match=r"mine is image 13, not image 12.*: it is not deleted"):
        await nas.ask(m.DelZvol(zvol="mine", zpool="tank", owner=REMOVE.owner))
    with pytest.raises(Conflict, match="mine in pool tank is a volume already, image 13"):
        await nas.ask(adopt(name="mine", owner=image(12)))


async def test_the_same_thing_is_not_adopted_under_two_names_at_the_same_time(nas, monkeypatch):
    adopting, at_once = nas.backend.adopt, []

    async def slow(found, name, *more):
        at_once.append(name)
        await asyncio.sleep(0)
        seen = list(at_once)
        at_once.remove(name)
        assert seen == [name]
        return await adopting(found, name, *more)

    monkeypatch.setattr(nas.backend, "adopt", slow)

    one, other = await asyncio.gather(
        nas.ask(adopt(name="first")), nas.ask(adopt(name="second")), return_exceptions=True
    )

    assert one.zvol == "first"
    assert isinstance(other, NotFound | Conflict)
    assert list(await nas.volumes()) == ["first"]


async def test_a_volume_that_was_made_here_is_not_adopted(nas):
    await nas.ask(m.CreateZvol(zvol="one-12", zpool="tank", size_bytes=MIB, owner=image(12)))

    with pytest.raises(Conflict, match="one-12 in pool tank is a volume already, image 12"):
        await nas.ask(adopt(name="one-12", owner=image(12)))


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"zvol": "Legacy_1"}, "is no volume name"),
        ({"name": "one-12"}, "one-12 is a name that a new image or disk may get"),
        ({"name": "one-12", "owner": image(13)}, "one-12 is a name that a new image or disk may get"),
        ({"name": "one-vm-1-0"}, "is a name that a new image or disk may get"),
        ({"name": "x" * 41}, "at most 40 characters leave room"),
        ({"owner": Owner(kind=Kind.DISK, cloud=CLOUD, vm_id=1, disk_id=0)}, "only an image of a cloud is adopted"),
        ({"owner": Owner(kind=Kind.IMAGE)}, "only an image of a cloud is adopted"),
        ({"zvol": "nothing"}, "there is no nothing to adopt"),
        ({"zpool": "lake"}, "there is no pool lake here"),
    ],
)
async def test_what_cannot_be_is_refused_and_changes_nothing(nas, fields, sentence):
    with pytest.raises(Rejected, match=sentence):
        await nas.ask(adopt(**fields))

    assert await nas.volumes() == {}
    assert await nas.backend.foreign("legacy")


async def test_what_was_not_adopted_is_neither_removed_nor_mapped_nor_cloned(nas):
    disk = Owner(kind=Kind.DISK, cloud=CLOUD, vm_id=8, disk_id=0)
    asked = (
        REMOVE,
        m.MapZvol(zvol="legacy", zpool="tank", remotehost="node1", **PLACED),
        m.CloneZvol(zvol="legacy-8-0", zpool="tank", origin="legacy", owner=disk),
    )
    for request in asked:
        with pytest.raises(
            Conflict, match=r"^legacy in pool tank is no volume of onelun's: adopt it \(onelun frontend"
        ):
            await nas.ask(request)

    assert await nas.backend.foreign("legacy")
    assert await nas.ask(m.DelZvol(zvol="nothing", zpool="tank", owner=REMOVE.owner)) == m.ZvolDeleted()


async def test_a_bad_size_is_refused(nas, parts):
    parts.backend.put("odd", b"x" * 1000)

    with pytest.raises(Rejected, match="odd has 1000 bytes, and a volume has a positive multiple of 512"):
        await nas.ask(adopt(zvol="odd"))

    assert await nas.backend.foreign("odd")


async def test_release_lets_go_of_the_data_and_may_be_repeated(nas):
    await nas.ask(adopt(name="mine"))
    release = m.ReleaseZvol(zvol="mine", zpool="tank", cloud=CLOUD)

    assert await nas.ask(release) == m.ZvolReleased(name="mine")
    assert await nas.ask(release) == m.ZvolReleased(name=None)

    assert await nas.backend.foreign("mine")
    assert await nas.volumes() == {}


async def test_what_a_host_has_or_has_snapshots_or_is_another_s_is_not_released(nas):
    await nas.ask(adopt(name="mine"))
    release = m.ReleaseZvol(zvol="mine", zpool="tank", cloud=CLOUD)
    with pytest.raises(Conflict, match="not an image of the cloud that asks"):
        await nas.ask(m.ReleaseZvol(zvol="mine", zpool="tank", cloud=OTHER_CLOUD))
    await nas.ask(m.MapZvol(zvol="mine", zpool="tank", remotehost="node1", **PLACED))
    with pytest.raises(Conflict, match="mine is mapped to node1: unmap it first"):
        await nas.ask(release)
    await nas.ask(m.UnmapZvol(zvol="mine", zpool="tank", remotehost="node1", **PLACED))
    await nas.ask(m.SnapshotZvol(zvol="mine", zpool="tank", cloud=CLOUD, snapshot="snap-0"))
    with pytest.raises(Conflict, match=r"mine has snapshots, which would be lost \(snap-0\): delete them first"):
        await nas.ask(release)

    assert list(await nas.volumes()) == ["mine"]


async def test_an_adopted_image_is_not_taken_for_an_empty_one(nas):
    await nas.ask(adopt(name="one-12", owner=image(12)))

    with pytest.raises(Conflict):
        await nas.ask(m.CreateZvol(zvol="one-12", zpool="tank", size_bytes=MIB, owner=image(12)))
    with pytest.raises(Conflict):
        await nas.ask(
            m.ImportZvol(zvol="one-12", zpool="tank", size_bytes=MIB, owner=image(12), initiator="iqn.2026-11.io.x:f")
        )


async def test_a_disk_that_has_no_volume_is_still_told_so(nas):
    with pytest.raises(NotFound, match="there is no volume nothing"):
        await nas.ask(m.MapZvol(zvol="nothing", zpool="tank", remotehost="node1", **PLACED))
