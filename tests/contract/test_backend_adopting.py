"""What every backend promises of volumes that exist already."""

import os
from pathlib import Path

import msgspec
import pytest
from tests.support.pools import AGENT, CLOUD, IMAGE, MIB, OTHER_CLOUD, names, new, ready

from onelun.errors import Busy, Conflict, NotFound, Rejected
from onelun.model import Kind, Owner, State

SIZE = 4 * MIB
ADOPTED = Owner(kind=Kind.IMAGE, cloud=CLOUD)


@pytest.fixture
def content():
    return os.urandom(SIZE)


@pytest.mark.parametrize("name", ["legacy", "one-7"])
async def test_what_exists_becomes_a_volume_and_keeps_its_content(pool, content, name):
    pool.put("legacy", content)
    uuid = new()

    volume = await pool.backend.adopt("legacy", name, uuid, ADOPTED)

    assert (volume.name, volume.uuid, volume.size_bytes, volume.state) == (name, uuid, SIZE, State.READY)
    assert (volume.owner, volume.connected, volume.filled_from) == (ADOPTED, True, "adopted legacy")
    assert await pool.backend.find(name) == volume
    assert await pool.backend.find_uuid(uuid) == volume
    assert await pool.backend.volumes() == [volume]
    assert await pool.read(volume, 0, SIZE) == content
    assert not await pool.backend.foreign("legacy")


async def test_an_adopted_volume_is_one_for_a_restarted_agent_too(pool, content):
    pool.put("Old_Disk.1", content)
    volume = await pool.backend.adopt("Old_Disk.1", "legacy", new(), ADOPTED)

    again = pool.again()
    await again.open(AGENT, CLOUD)

    found = await again.find("legacy") if pool.devices else volume
    assert found == volume


async def test_an_adopted_volume_grows_has_snapshots_is_cloned_and_removed(pool, content):
    pool.put("legacy", content)
    volume = await pool.backend.adopt("legacy", "legacy", new(), ADOPTED)

    await pool.backend.snapshot(volume, "snap-0")
    await pool.write(volume, 0, bytes(MIB))
    volume = await pool.backend.revert(volume, "snap-0")
    volume = await pool.backend.grow(volume, 2 * SIZE)
    uuid = new()
    await pool.backend.clone(volume, "clone", uuid, 2 * SIZE, ADOPTED, lambda done, total: None)
    clone = await pool.backend.publish(uuid)
    await pool.backend.trash(volume)

    assert await pool.read(clone, 0, SIZE) == content
    assert await names(pool, "ready") == ["clone"]
    assert await pool.backend.purge(10e9) == 1
    assert not await pool.backend.foreign("legacy")


@pytest.mark.long
async def test_what_is_not_there_is_not_found(pool):
    with pytest.raises(NotFound, match="there is no legacy to adopt"):
        await pool.backend.adopt("legacy", "legacy", new(), ADOPTED)


@pytest.mark.long
async def test_a_path_or_an_option_is_no_name(pool):
    for found in ("", "../legacy", "a/b", "-rf", ".new-x", "a..b", "a b", "x" * 200, "a@b", "a\nb"):
        with pytest.raises(Rejected, match="cannot be adopted"):
            await pool.backend.adopt(found, "legacy", new(), ADOPTED)

        assert not await pool.backend.foreign(found)


async def test_a_volume_is_not_adopted_once_more(pool, content):
    pool.put("legacy", content)
    volume = await pool.backend.adopt("legacy", "legacy", new(), ADOPTED)

    with pytest.raises(Conflict):
        await pool.backend.adopt("legacy", "legacy", new(), ADOPTED)
    with pytest.raises((Conflict, NotFound)):
        await pool.backend.adopt("legacy", "other", new(), ADOPTED)

    assert await pool.backend.volumes() == [volume]


@pytest.mark.long
async def test_a_name_that_is_taken_is_left_to_who_has_it(pool, content):
    there = await ready(pool, "one-1")
    pool.put("legacy", content)

    with pytest.raises(Conflict, match="one-1"):
        await pool.backend.adopt("legacy", "one-1", new(), ADOPTED)

    assert await pool.backend.volumes() == [there]
    assert await pool.backend.foreign("legacy")


@pytest.mark.long
async def test_another_cloud_adopts_nothing(pool, content):
    await ready(pool, "one-1", owner=IMAGE)
    pool.put("legacy", content)

    with pytest.raises(Conflict):
        await pool.backend.adopt("legacy", "legacy", new(), msgspec.structs.replace(ADOPTED, cloud=OTHER_CLOUD))

    assert await names(pool) == ["one-1"]
    assert await pool.backend.foreign("legacy")


async def test_what_is_open_is_busy_and_stays_as_it_is(pool, content):
    path = pool.put("legacy", content)
    if not pool.devices:
        return

    held = os.open(path, os.O_RDWR)
    try:
        with pytest.raises(Busy, match="open"):
            await pool.backend.adopt("legacy", "other", new(), ADOPTED)
    finally:
        os.close(held)

    assert await pool.backend.volumes() == []
    assert await pool.backend.foreign("legacy")
    assert Path(path).read_bytes() == content


async def test_what_is_foreign_is_known_and_a_volume_is_not(pool, content):
    await ready(pool, "one-1")
    pool.put("legacy", content)

    assert [await pool.backend.foreign(name) for name in ("legacy", "one-1", "nothing")] == [True, False, False]


async def test_a_released_volume_is_nobodys_and_can_be_adopted_again(pool, content):
    pool.put("legacy", content)
    volume = await pool.backend.adopt("legacy", "mine", new(), ADOPTED)

    left = await pool.backend.release(volume)

    assert await pool.backend.volumes() == []
    assert await pool.backend.foreign(left)
    with pytest.raises(NotFound):
        await pool.backend.release(volume)
    again = await pool.backend.adopt(left, "again", new(), ADOPTED)
    assert await pool.read(again, 0, SIZE) == content
    assert again.uuid != volume.uuid


@pytest.mark.long
async def test_an_image_that_was_made_here_is_released_too(pool):
    volume = await ready(pool, "one-1", content=b"x" * 4096)

    left = await pool.backend.release(volume)

    again = await pool.backend.adopt(left, "again", new(), ADOPTED)
    assert await pool.read(again, 0, 4096) == b"x" * 4096
