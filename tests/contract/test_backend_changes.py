"""What changed between two snapshots, on every backend that can tell: what nas/backends/base.py promises of it.

A copy of the base's content to which the told ranges are applied must be the later snapshot's content, byte by byte.
"""

import asyncio
import itertools
import os

import pytest
from tests.support.pools import MIB, cloned, new, ready

from onelun.errors import Conflict, NotFound
from onelun.model import Extent
from onelun.nas.backends.base import MAX_EXTENTS

from .conftest import BACKENDS, named

SIZE = 8 * MIB
BLOCK = 64 << 10
TELLING = ("memory", "xfs", "btrfs", "zfs", "lvm")


@pytest.fixture(scope="module", params=[engine for engine in BACKENDS if engine.id in TELLING])
def place(request, tmp_path_factory):
    """The medium of an engine that can tell."""
    with named(request.param)(tmp_path_factory.mktemp("place")) as made:
        yield made


@pytest.fixture
async def volume(pool):
    """A volume that is full of data, with the snapshot `base` of that."""
    made = await ready(pool, "one-1", size=SIZE, content=os.urandom(SIZE))
    await pool.backend.snapshot(made, "base")
    return made


async def content(pool, volume, snapshot):
    """What the snapshot holds, as a clone of it is read."""
    size = next(s.size_bytes for s in await pool.backend.snapshots(volume) if s.name == snapshot)
    clone = await cloned(pool, volume, f"one-1-3-{new()[:8]}", size=size, snapshot=snapshot)
    try:
        return await pool.read(clone, 0, size)
    finally:
        await pool.backend.destroy(clone)


async def told(pool, volume, since="base", until="later"):
    """The changes, when they are what was promised of them in any case, and make the later content of the earlier one."""
    extents = await pool.backend.changed(volume, since, until)
    before, after = await content(pool, volume, since), await content(pool, volume, until)
    assert len(extents) <= MAX_EXTENTS
    assert all(extent.offset >= 0 and extent.length > 0 and extent.end <= len(after) for extent in extents)
    assert all(one.end <= other.offset for one, other in itertools.pairwise(extents))
    rebuilt = bytearray(before.ljust(len(after), b"\0")[: len(after)])
    for extent in extents:
        rebuilt[extent.offset : extent.end] = after[extent.offset : extent.end] if extent.data else bytes(extent.length)
    assert rebuilt == after
    return extents


def data_bytes(extents):
    return sum(extent.length for extent in extents if extent.data)


# What happened to it


async def test_an_untouched_volume_has_no_changes(pool, volume):
    await pool.backend.snapshot(volume, "later")

    assert data_bytes(await told(pool, volume)) == 0
    assert await pool.backend.changed(volume, "base", "base") == []


@pytest.mark.long
async def test_what_was_written_is_told_and_hardly_more(pool, volume):
    await pool.write(volume, MIB, os.urandom(BLOCK))
    await pool.write(volume, 5 * MIB + 512, os.urandom(512))
    await pool.backend.snapshot(volume, "later")

    extents = await told(pool, volume)

    assert BLOCK + 512 <= data_bytes(extents) <= 4 * BLOCK


@pytest.mark.long
async def test_the_same_content_written_again_may_be_told_and_is_right(pool, volume):
    await pool.write(volume, MIB, await pool.read(volume, MIB, BLOCK))
    await pool.backend.snapshot(volume, "later")

    assert data_bytes(await told(pool, volume)) <= 2 * BLOCK


@pytest.mark.long
async def test_zeros_that_were_written_are_there_after_the_changes_are_applied(pool, volume):
    await pool.write(volume, 2 * MIB, bytes(MIB))
    await pool.backend.snapshot(volume, "later")

    extents = await told(pool, volume)

    assert any(extent.offset <= 2 * MIB and extent.end >= 3 * MIB for extent in extents)


async def test_what_was_discarded_is_told_as_zeros_without_data(pool, volume):
    await pool.discard(volume, 2 * MIB, MIB)
    await pool.backend.snapshot(volume, "later")

    extents = await told(pool, volume)

    assert any(extent.offset <= 2 * MIB and extent.end >= 3 * MIB and not extent.data for extent in extents)
    assert data_bytes(extents) == 0


@pytest.mark.long
async def test_what_was_discarded_and_written_again_is_data(pool, volume):
    await pool.discard(volume, 2 * MIB, MIB)
    await pool.write(volume, 2 * MIB, os.urandom(BLOCK))
    await pool.backend.snapshot(volume, "later")

    assert BLOCK <= data_bytes(await told(pool, volume)) <= 2 * BLOCK


@pytest.mark.long
async def test_what_is_written_behind_what_there_was_is_told_and_so_is_its_going(pool):
    volume = await ready(pool, "one-1", size=SIZE)
    await pool.write(volume, 0, os.urandom(MIB))
    await pool.backend.snapshot(volume, "base")
    await pool.write(volume, MIB, os.urandom(2 * BLOCK))
    await pool.backend.snapshot(volume, "later")
    await pool.discard(volume, MIB - BLOCK, 3 * BLOCK)
    await pool.backend.snapshot(volume, "last")

    assert data_bytes(await told(pool, volume)) == 2 * BLOCK
    assert data_bytes(await told(pool, volume, "later", "last")) == 0
    assert data_bytes(await told(pool, volume, "base", "last")) == 0


@pytest.mark.long
async def test_a_volume_that_grew_and_was_written_beyond_its_former_end(pool, volume):
    grown = await pool.backend.grow(volume, 2 * SIZE)
    await pool.write(grown, SIZE - 4096, os.urandom(8192))
    await pool.write(grown, 2 * SIZE - BLOCK, os.urandom(BLOCK))
    await pool.backend.snapshot(grown, "later")

    assert data_bytes(await told(pool, grown)) <= 4 * BLOCK


@pytest.mark.long
async def test_a_volume_that_only_grew_has_no_new_data(pool, volume):
    grown = await pool.backend.grow(volume, 2 * SIZE)
    await pool.backend.snapshot(grown, "later")

    assert data_bytes(await told(pool, grown)) == 0


@pytest.mark.long
async def test_an_empty_volume_that_was_written_and_emptied_again(pool):
    volume = await ready(pool, "one-1", size=SIZE)
    await pool.backend.snapshot(volume, "base")
    await pool.write(volume, 3 * MIB, os.urandom(MIB))
    await pool.backend.snapshot(volume, "later")
    await pool.discard(volume, 0, SIZE)
    await pool.backend.snapshot(volume, "last")

    assert MIB <= data_bytes(await told(pool, volume)) <= MIB + 2 * BLOCK
    assert data_bytes(await told(pool, volume, "later", "last")) == 0
    assert data_bytes(await told(pool, volume, "base", "last")) == 0


async def test_all_of_it_at_once_over_several_snapshots(pool, volume):
    for number in range(3):
        await pool.write(volume, number * MIB + 4096, os.urandom(3 * 4096))
        await pool.discard(volume, (3 + number) * MIB, 2 * BLOCK)
        await pool.write(volume, (6 * MIB) + number * BLOCK, bytes(BLOCK))
        volume = await pool.backend.grow(volume, volume.size_bytes + MIB)
        await pool.write(volume, volume.size_bytes - 4096, os.urandom(4096))
        await pool.backend.snapshot(volume, f"later-{number}")

    for since, until in (("base", "later-0"), ("later-0", "later-1"), ("later-1", "later-2"), ("base", "later-2")):
        assert data_bytes(await told(pool, volume, since, until)) < 3 * MIB


@pytest.mark.long
async def test_a_clone_tells_its_own_changes_from_a_snapshot_of_its_own(pool, volume):
    disk = await cloned(pool, volume, "one-1-3-0", snapshot="base")
    await pool.backend.snapshot(disk, "backup-1")
    await pool.write(disk, MIB, os.urandom(BLOCK))
    await pool.backend.snapshot(disk, "backup-2")

    assert BLOCK <= data_bytes(await told(pool, disk, "backup-1", "backup-2")) <= 2 * BLOCK


@pytest.mark.long
async def test_thousands_of_scattered_writes_are_few_ranges(pool):
    size = pool.places * 8192
    volume = await ready(pool, "one-1", size=-(-size // MIB) * MIB)
    await pool.backend.snapshot(volume, "base")
    await pool.write_at(volume, range(0, size, 8192), os.urandom(4096))
    await pool.backend.snapshot(volume, "later")

    extents = await told(pool, volume)

    assert data_bytes(extents) >= pool.places * 4096


# Going back


@pytest.mark.long
async def test_after_a_revert_to_the_base_the_changes_since_are_told(pool, volume):
    await pool.write(volume, MIB, os.urandom(BLOCK))
    await pool.backend.revert(volume, "base")
    await pool.write(volume, 4 * MIB, os.urandom(BLOCK))
    await pool.backend.snapshot(volume, "later")

    assert BLOCK <= data_bytes(await told(pool, volume)) <= 4 * BLOCK


async def test_after_a_revert_to_what_is_younger_than_the_base_the_changes_since_are_told(pool, volume):
    await pool.write(volume, MIB, os.urandom(BLOCK))
    await pool.backend.snapshot(volume, "younger")
    await pool.write(volume, 2 * MIB, os.urandom(BLOCK))
    await pool.backend.revert(volume, "younger")
    await pool.write(volume, 4 * MIB, os.urandom(BLOCK))
    await pool.backend.snapshot(volume, "later")

    assert data_bytes(await told(pool, volume)) <= 8 * BLOCK


async def test_after_a_revert_past_the_base_they_are_told_or_a_full_backup_is_asked_for(pool, volume):
    await pool.write(volume, MIB, os.urandom(BLOCK))
    await pool.backend.snapshot(volume, "undone")
    await pool.backend.revert(volume, "base")
    await pool.write(volume, 4 * MIB, os.urandom(BLOCK))
    await pool.backend.snapshot(volume, "later")

    if pool.tells_branches:
        await told(pool, volume, "undone", "later")
    else:
        with pytest.raises(Conflict, match="full backup is needed"):
            await pool.backend.changed(volume, "undone", "later")
    assert data_bytes(await told(pool, volume)) <= 4 * BLOCK


# What is not there


async def test_a_missing_snapshot_or_volume_is_not_found(pool, volume):
    for since, until in (("base", "none"), ("none", "base"), ("none", "none"), ("../base", "base"), ("bas", "base")):
        with pytest.raises(NotFound):
            await pool.backend.changed(volume, since, until)
    other = await ready(pool, "one-2")
    with pytest.raises(NotFound):
        await pool.backend.changed(other, "base", "base")
    await pool.backend.destroy(volume)
    with pytest.raises(NotFound):
        await pool.backend.changed(volume, "base", "base")


# Beside others


@pytest.mark.long
async def test_it_runs_beside_other_work_on_the_pool(pool, volume):
    others = [await ready(pool, f"one-{number}", content=os.urandom(MIB)) for number in (2, 3)]
    for each in others:
        await pool.backend.snapshot(each, "base")
        await pool.write(each, 0, os.urandom(4096))
        await pool.backend.snapshot(each, "later")
    await pool.write(volume, MIB, os.urandom(BLOCK))
    await pool.backend.snapshot(volume, "later")

    found, again, *_ = await asyncio.gather(
        *(pool.backend.changed(volume, "base", "later") for _ in range(2)),
        *(pool.backend.changed(each, "base", "later") for each in others),
        pool.backend.snapshots(volume),
        pool.backend.usage(others[0]),
        pool.backend.snapshot(others[0], "last"),
        cloned(pool, volume, "one-1-3-0", snapshot="later"),
        ready(pool, "one-4"),
    )

    assert found == again == await told(pool, volume)


async def test_who_gives_up_leaves_nothing_in_the_way(pool, volume):
    await pool.write(volume, 0, os.urandom(SIZE))
    await pool.backend.snapshot(volume, "later")
    for after_s in (0.0, 0.01, 0.05, 0.2):
        asked = asyncio.create_task(pool.backend.changed(volume, "base", "later"))
        await asyncio.sleep(after_s)
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)

    assert await pool.backend.changed(volume, "base", "later") == [Extent(0, SIZE, data=True)]
    for name in ("base", "later"):
        await pool.backend.delete_snapshot(volume, name)
    assert await pool.backend.snapshots(volume) == []
    await pool.backend.destroy(volume)


@pytest.mark.long
async def test_a_volume_may_be_destroyed_as_soon_as_the_search_was_given_up(pool, volume):
    await pool.write(volume, 0, os.urandom(SIZE))
    await pool.backend.snapshot(volume, "later")
    asked = asyncio.create_task(pool.backend.changed(volume, "base", "later"))
    await asyncio.sleep(0.1)

    asked.cancel()
    await asyncio.gather(asked, return_exceptions=True)
    await pool.backend.destroy(volume)

    assert await pool.backend.find_uuid(volume.uuid) is None


# Where it cannot be told


async def test_files_that_share_no_blocks_tell_nothing_and_a_full_backup_is_asked_for(tmp_path):
    with named("tests.support.pools_memory_file:Ext4")(tmp_path) as place, place.fresh() as pool:
        await pool.backend.open("0b6a4e0e-57a1-4d7c-9a64-4d9d5f1d7a10", None)
        volume = await ready(pool, "one-1")
        await pool.backend.snapshot(volume, "base")
        await pool.backend.snapshot(volume, "later")

        with pytest.raises(Conflict, match="full backup is needed"):
            await pool.backend.changed(volume, "base", "later")
        with pytest.raises(NotFound):
            await pool.backend.changed(volume, "base", "none")
