"""Attributes of volumes, on every backend: which it takes, that they last, and what thick and wiping come to."""

import re
import time

import msgspec
import pytest
from tests.support.pools import DISK, IMAGE, MIB, cloned, names, new, ready

from onelun.errors import Rejected
from onelun.model import Attributes, Provisioning, State, Wipe

THICK = Attributes(provisioning=Provisioning.THICK)
ZERO = Attributes(wipe=Wipe.ZERO)
LZ4 = Attributes(compression="lz4")
BLOCKS = Attributes(volblocksize_bytes=64 << 10)
THICKLY = ("thick", THICK, "ONELUN_PROVISIONING=thick")
WIPED = ("zero", ZERO, "ONELUN_WIPE=zero")
ALL = [
    THICKLY,
    WIPED,
    ("discard", Attributes(wipe=Wipe.DISCARD), "ONELUN_WIPE=discard"),
    ("zfs", LZ4, "ONELUN_COMPRESSION=lz4"),
    ("zfs", BLOCKS, "ONELUN_VOLBLOCKSIZE=65536"),
]


async def refuses(pool, word, attributes, named):
    """Whether the pool takes none of these: it may where it says so, in one sentence with its name and theirs."""
    try:
        await pool.backend.accept(attributes)
    except Rejected as error:
        said = error.sentence
    else:
        said = ""
    assert not said or re.match(f"{named} cannot be had in pool tank of the kind [a-z]+: ", said)
    assert pool.gives is None or (word in pool.gives) is not bool(said)
    return bool(said)


@pytest.mark.long
async def test_what_every_pool_does_anyway_is_taken(pool):
    await pool.backend.accept(Attributes(provisioning=Provisioning.THIN, wipe=Wipe.NONE))


@pytest.mark.parametrize(("word", "attributes", "named"), ALL, ids=[named for _, _, named in ALL])
async def test_attributes_last_as_long_as_their_volume(pool, word, attributes, named):
    if await refuses(pool, word, attributes, named):
        return
    image = await ready(pool, "one-1", attributes=attributes)

    await pool.backend.record("one-1", image.uuid, lambda now: msgspec.structs.replace(now, connected=True))
    await pool.backend.grow(image, 2 * MIB)
    plain = await cloned(pool, await pool.backend.find("one-1"), "one-1-3-0")
    await pool.backend.snapshot(image, "s1")
    await pool.backend.revert(await pool.backend.find("one-1"), "s1")
    await pool.backend.trash(await pool.backend.find("one-1"))

    found = {volume.uuid: volume.attributes for volume in await pool.again().volumes()}
    assert found == {image.uuid: attributes, plain.uuid: Attributes()}


@pytest.mark.long
async def test_a_building_volume_may_go_into_the_trash(pool):
    uuid = new()
    built = await pool.backend.create("one-1", uuid, MIB, IMAGE)

    await pool.backend.trash(built)
    await pool.backend.trash(built)

    assert [(v.uuid, v.state) for v in await pool.backend.volumes()] == [(uuid, State.TRASH)]
    assert await pool.backend.purge(time.time() + 60) == 1
    assert await pool.backend.volumes() == []


async def test_thick_volumes_and_clones_take_their_size_from_the_pool_at_once(pool):
    if await refuses(pool, *THICKLY):
        return
    image = await ready(pool, "one-1", size=16 * MIB, content=b"image")
    pool.settle()
    before = (await pool.backend.capacity()).free_bytes

    await ready(pool, "one-2", size=20 * MIB, attributes=THICK)
    clone = await cloned(pool, image, "one-1-3-0", attributes=THICK)
    await pool.backend.grow(clone, 20 * MIB)

    pool.settle()
    taken = before - (await pool.backend.capacity()).free_bytes
    assert 39 * MIB <= taken <= 50 * MIB
    assert await pool.read(clone, 0, 8) == b"image\0\0\0"


async def test_a_wiped_volume_goes_and_what_was_cloned_from_it_keeps_its_content(pool):
    if await refuses(pool, *WIPED):
        return
    content = b"content " * 1024
    image = await ready(pool, "one-1", content=content, attributes=ZERO)
    await pool.backend.snapshot(image, "s1")
    clone = await cloned(pool, image, "one-1-3-0", attributes=ZERO)

    await pool.backend.destroy(image)
    await pool.backend.destroy(image)

    assert await names(pool) == ["one-1-3-0"]
    assert await pool.read(clone, 0, len(content)) == content


async def test_of_the_trash_disks_that_are_to_be_wiped_go_at_once_and_images_wait(pool):
    if await refuses(pool, *WIPED):
        return
    image = await ready(pool, "one-1", attributes=ZERO)
    disk = await ready(pool, "one-1-3-0", owner=DISK, attributes=ZERO)
    for volume in (image, disk):
        await pool.backend.trash(volume)

    assert await pool.backend.purge(time.time() - 3600) == 1

    assert await names(pool) == ["one-1"]
