"""Snapshots on every backend: what nas/backends/base.py promises of them."""

import asyncio
import os
import time

import msgspec
import pytest
from tests.support.pools import DISK, IMAGE, MIB, OTHER_AGENT, cloned, names, new, ready, silent

from onelun.errors import Conflict, NotFound, Rejected
from onelun.model import Attachment, State

OLD, NEW = b"old " * 1024, b"new " * 1024


async def snapshots(pool, volume):
    return [snapshot.name for snapshot in await pool.backend.snapshots(volume)]


# Taking


async def test_a_snapshot_tells_its_name_its_moment_and_the_size_of_then(pool):
    volume = await ready(pool, "one-1", size=2 * MIB)

    snapshot = await pool.backend.snapshot(volume, "s1")

    assert (snapshot.name, snapshot.size_bytes) == ("s1", 2 * MIB)
    assert abs(snapshot.made_at - time.time()) < 60
    grown = await pool.backend.grow(volume, 4 * MIB)
    assert [(s.name, s.size_bytes) for s in await pool.backend.snapshots(grown)] == [("s1", 2 * MIB)]


async def test_a_volume_without_snapshots_has_an_empty_list(pool):
    volume = await ready(pool, "one-1")

    assert await pool.backend.snapshots(volume) == []


async def test_taking_a_snapshot_again_returns_the_one_there_is(pool):
    volume = await ready(pool, "one-1", content=OLD)
    first = await pool.backend.snapshot(volume, "s1")
    await pool.write(volume, 0, NEW)

    again = await pool.backend.snapshot(volume, "s1")

    assert (again.name, again.made_at, again.size_bytes) == (first.name, first.made_at, first.size_bytes)
    reverted = await pool.backend.revert(volume, "s1")
    assert await pool.read(reverted, 0, len(OLD)) == OLD


async def test_snapshots_are_listed_the_oldest_first(pool):
    volume = await ready(pool, "one-1")
    for name in ("z", "a", "m"):
        await pool.backend.snapshot(volume, name)
        await asyncio.sleep(1.1 if pool.whole_seconds else 0.01)

    assert await snapshots(pool, volume) == ["z", "a", "m"]


async def test_snapshots_are_known_to_the_next_agent(pool):
    volume = await ready(pool, "one-1")
    await pool.backend.snapshot(volume, "s1")

    assert [s.name for s in await pool.again().snapshots(volume)] == ["s1"]


async def test_a_snapshot_is_no_volume(pool):
    volume = await ready(pool, "one-1")

    await pool.backend.snapshot(volume, "s1")

    assert await pool.backend.volumes() == [volume]
    assert await pool.backend.find("s1") is None


async def test_snapshots_of_two_volumes_do_not_meet(pool):
    one = await ready(pool, "one-1", content=OLD)
    ten = await ready(pool, "one-10", content=NEW)
    await pool.backend.snapshot(one, "s1")
    await pool.backend.snapshot(ten, "s1")
    await pool.backend.delete_snapshot(one, "s1")

    assert await snapshots(pool, one) == []
    assert await snapshots(pool, ten) == ["s1"]


@pytest.mark.long
@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a@b", "A", "a b", "a" * 64, "-x", "snapshot0"])
async def test_a_name_that_is_none_is_refused_and_no_snapshot_is_made(pool, name):
    volume = await ready(pool, "one-1")

    with pytest.raises(Rejected):
        await pool.backend.snapshot(volume, name)

    assert await pool.backend.snapshots(volume) == []


async def test_a_snapshot_may_have_the_longest_name_and_be_of_the_longest_named_volume(pool):
    volume = await ready(pool, "v" * 63, content=OLD)

    await pool.backend.snapshot(volume, "s" * 63)

    assert await snapshots(pool, volume) == ["s" * 63]
    clone = await cloned(pool, volume, "c" * 63, snapshot="s" * 63)
    assert await pool.read(clone, 0, len(OLD)) == OLD


async def test_only_a_ready_volume_has_snapshots_made(pool):
    building = await pool.backend.create("one-1", new(), MIB, DISK)
    with pytest.raises(Conflict):
        await pool.backend.snapshot(building, "s1")

    volume = await pool.backend.publish(building.uuid)
    deleting = await pool.backend.record(
        volume.name, volume.uuid, lambda now: msgspec.structs.replace(now, state=State.DELETING)
    )
    with pytest.raises(Conflict):
        await pool.backend.snapshot(deleting, "s1")

    await pool.backend.trash(deleting)
    with pytest.raises(NotFound):
        await pool.backend.snapshot(deleting, "s1")
    await pool.backend.destroy(deleting)
    for asked in (pool.backend.snapshot(volume, "s1"), pool.backend.snapshots(volume)):
        with pytest.raises(NotFound):
            await asked


async def test_a_snapshot_takes_no_space_where_blocks_are_shared(pool):
    volume = await ready(pool, "one-1", size=32 * MIB, content=os.urandom(32 * MIB))
    pool.settle()
    before = (await pool.backend.capacity()).used_bytes

    await pool.backend.snapshot(volume, "s1")

    pool.settle()
    taken = (await pool.backend.capacity()).used_bytes - before
    if pool.shares is not None:
        assert (taken < 4 * MIB) == pool.shares


async def test_a_snapshot_holds_what_the_volume_has_changed_since(pool):
    volume = await ready(pool, "one-1", size=16 * MIB, content=os.urandom(16 * MIB))
    taken = await pool.backend.snapshot(volume, "s1")
    await pool.write(volume, 0, os.urandom(16 * MIB))
    pool.settle()

    (kept,) = await pool.backend.snapshots(volume)

    if pool.shares is not None:
        assert (taken.used_bytes < MIB) == pool.shares
    assert 15 * MIB < kept.used_bytes < 20 * MIB
    assert await pool.backend.usage(volume) > 31 * MIB


async def test_what_all_visible_volumes_take_is_told_at_once(pool):
    volume = await ready(pool, "one-1", size=16 * MIB, content=os.urandom(8 * MIB))
    empty = await ready(pool, "one-2", size=16 * MIB)
    await pool.backend.create("one-3", new(), MIB, IMAGE)
    await pool.backend.trash(await ready(pool, "one-4"))
    await pool.backend.snapshot(volume, "s1")
    await pool.write(volume, 0, os.urandom(8 * MIB))
    await pool.backend.snapshot(volume, "s2")
    pool.settle()

    told = await pool.backend.usages()

    assert set(told) == {volume.uuid, empty.uuid}
    assert 8 * MIB <= told[volume.uuid].used_bytes < 9 * MIB
    assert told[empty.uuid].used_bytes < MIB
    assert told[empty.uuid].snapshots == {}
    assert told[volume.uuid].snapshots == {s.name: s.used_bytes for s in await pool.backend.snapshots(volume)}
    assert told[volume.uuid].snapshots["s1"] > 7 * MIB


async def test_another_agents_pool_has_no_snapshot_changed(pool):
    volume = await ready(pool, "one-1", content=OLD)
    await pool.backend.snapshot(volume, "s1")
    await pool.again().take(OTHER_AGENT)

    for act in (
        pool.backend.snapshot(volume, "s2"),
        pool.backend.revert(volume, "s1"),
        pool.backend.delete_snapshot(volume, "s1"),
    ):
        with pytest.raises(Conflict):
            await act

    assert await snapshots(pool, volume) == ["s1"]


# Reverting


async def test_reverting_brings_back_the_content_and_the_size_and_keeps_the_rest(pool):
    volume = await ready(pool, "one-1", content=OLD)
    await pool.backend.snapshot(volume, "s1")
    volume = await pool.backend.record(
        volume.name,
        volume.uuid,
        lambda now: msgspec.structs.replace(
            now, attachments=(Attachment("node1", "iqn.2026-11.x.y:node1", 7),), last_epoch=7
        ),
    )
    grown = await pool.backend.grow(volume, 4 * MIB)
    await pool.write(grown, 0, NEW)
    await pool.write(grown, 3 * MIB, NEW)

    reverted = await pool.backend.revert(grown, "s1")

    assert reverted == volume
    assert await pool.again().find("one-1") == volume
    assert await pool.length(reverted) == MIB
    assert await pool.read(reverted, 0, MIB) == OLD + bytes(MIB - len(OLD))


async def test_a_reverted_volume_grows_in_zeros(pool):
    volume = await ready(pool, "one-1", content=OLD)
    await pool.backend.snapshot(volume, "s1")
    grown = await pool.backend.grow(volume, 4 * MIB)
    await pool.write(grown, 3 * MIB, NEW)
    reverted = await pool.backend.revert(grown, "s1")

    again = await pool.backend.grow(reverted, 4 * MIB)

    assert await pool.read(again, 0, 4 * MIB) == OLD + bytes(4 * MIB - len(OLD))


@pytest.mark.long
async def test_younger_and_older_snapshots_live_on_after_a_revert(pool):
    volume = await ready(pool, "one-1")
    for number in range(1, 4):
        await pool.write(volume, 0, bytes([number]) * 4096)
        await pool.backend.snapshot(volume, f"s{number}")
        await asyncio.sleep(1.1 if pool.whole_seconds else 0.01)

    volume = await pool.backend.revert(volume, "s2")

    assert await snapshots(pool, volume) == ["s1", "s2", "s3"]
    for number in (3, 1, 2, 3):
        volume = await pool.backend.revert(volume, f"s{number}")
        assert await pool.read(volume, 0, 4096) == bytes([number]) * 4096
    assert await snapshots(pool, volume) == ["s1", "s2", "s3"]
    assert await pool.backend.volumes() == [volume]


async def test_reverting_again_gives_the_content_again(pool):
    volume = await ready(pool, "one-1", content=OLD)
    await pool.backend.snapshot(volume, "s1")

    for _ in range(3):
        await pool.write(volume, 0, NEW)
        assert await pool.backend.revert(volume, "s1") == volume
        assert await pool.read(volume, 0, len(OLD)) == OLD


async def test_a_snapshot_taken_after_a_revert_has_the_content_written_since(pool):
    volume = await ready(pool, "one-1", content=OLD)
    await pool.backend.snapshot(volume, "s1")
    await pool.write(volume, 0, NEW)
    await pool.backend.revert(volume, "s1")
    await pool.write(volume, 4096, NEW)

    await pool.backend.snapshot(volume, "s2")

    await pool.backend.revert(volume, "s1")
    await pool.backend.revert(volume, "s2")
    assert await pool.read(volume, 0, 8192) == OLD + NEW


async def test_what_is_written_after_a_revert_does_not_reach_the_snapshot(pool):
    volume = await ready(pool, "one-1", content=OLD)
    await pool.backend.snapshot(volume, "s1")
    await pool.backend.revert(volume, "s1")

    await pool.write(volume, 0, NEW)

    await pool.backend.revert(volume, "s1")
    assert await pool.read(volume, 0, len(OLD)) == OLD


async def test_reverting_to_no_snapshot_is_not_found_and_changes_nothing(pool):
    volume = await ready(pool, "one-1", content=OLD)
    await pool.backend.snapshot(volume, "s1")

    for name in ("s2", "s", "s11", "../s1"):
        with pytest.raises(NotFound):
            await pool.backend.revert(volume, name)

    assert await pool.read(volume, 0, len(OLD)) == OLD
    await pool.backend.destroy(volume)
    with pytest.raises(NotFound):
        await pool.backend.revert(volume, "s1")


# Cloning


async def test_a_clone_of_a_snapshot_has_its_content_and_zeros_beyond_its_size(pool):
    content = os.urandom(2 * MIB)
    volume = await ready(pool, "one-1", size=2 * MIB, content=content)
    await pool.backend.snapshot(volume, "s1")
    grown = await pool.backend.grow(volume, 4 * MIB)
    await pool.write(grown, 0, NEW)
    await pool.write(grown, 3 * MIB, NEW)

    same = await cloned(pool, grown, "one-1-3-0", size=2 * MIB, snapshot="s1")
    larger = await cloned(pool, grown, "one-1-3-1", size=4 * MIB, snapshot="s1")

    assert (same.size_bytes, same.origin) == (2 * MIB, volume.uuid)
    assert await pool.read(same, 0, 2 * MIB) == content
    assert await pool.read(larger, 0, 4 * MIB) == content + bytes(2 * MIB)


@pytest.mark.long
async def test_a_clone_of_a_snapshot_smaller_than_it_is_refused(pool):
    volume = await ready(pool, "one-1", size=2 * MIB)
    await pool.backend.snapshot(volume, "s1")

    with pytest.raises(Rejected):
        await pool.backend.clone(volume, "one-1-3-0", new(), MIB, DISK, silent, snapshot="s1")

    assert await names(pool) == ["one-1"]


@pytest.mark.long
async def test_a_clone_of_no_snapshot_is_not_found_and_nothing_is_made(pool):
    volume = await ready(pool, "one-1")
    await pool.backend.snapshot(volume, "s1")

    for name in ("s2", "s", "../s1"):
        with pytest.raises(NotFound):
            await pool.backend.clone(volume, "one-1-3-0", new(), MIB, DISK, silent, snapshot=name)

    assert await names(pool) == ["one-1"]


async def test_a_clone_of_a_snapshot_again_returns_the_one_there_is(pool):
    volume = await ready(pool, "one-1", content=OLD)
    await pool.backend.snapshot(volume, "s1")
    clone = await cloned(pool, volume, "one-1-3-0", snapshot="s1")

    again = await pool.backend.clone(volume, "one-1-3-0", clone.uuid, MIB, DISK, silent, snapshot="s1")

    assert again == clone


async def test_a_clone_has_none_of_its_origins_snapshots(pool):
    volume = await ready(pool, "one-1")
    await pool.backend.snapshot(volume, "s1")

    whole = await cloned(pool, volume, "one-1-3-0")
    part = await cloned(pool, volume, "one-1-3-1", snapshot="s1")

    assert await snapshots(pool, whole) == []
    assert await snapshots(pool, part) == []


async def test_cloning_makes_no_snapshot_that_is_seen(pool):
    volume = await ready(pool, "one-1", content=OLD)

    await cloned(pool, volume, "one-1-3-0")

    assert await pool.backend.snapshots(volume) == []


# Deleting


async def test_deleting_a_snapshot_leaves_its_clones_and_what_was_reverted_to_it(pool):
    volume = await ready(pool, "one-1", content=OLD)
    await pool.backend.snapshot(volume, "s1")
    clone = await cloned(pool, volume, "one-1-3-0", snapshot="s1")
    await pool.write(volume, 0, NEW)
    await pool.backend.revert(volume, "s1")

    await pool.backend.delete_snapshot(volume, "s1")

    assert await snapshots(pool, volume) == []
    assert await pool.read(clone, 0, len(OLD)) == OLD
    assert await pool.read(volume, 0, len(OLD)) == OLD
    await pool.write(clone, 0, NEW)
    assert await pool.read(volume, 0, len(OLD)) == OLD


async def test_deleting_an_absent_snapshot_does_nothing(pool):
    volume = await ready(pool, "one-1")
    await pool.backend.snapshot(volume, "s1")
    await pool.backend.delete_snapshot(volume, "s2")
    await pool.backend.delete_snapshot(volume, "s1")

    await pool.backend.delete_snapshot(volume, "s1")

    assert await snapshots(pool, volume) == []
    await pool.backend.destroy(volume)
    await pool.backend.delete_snapshot(volume, "s1")


async def test_a_deleted_snapshots_name_is_free_for_another_moment(pool):
    volume = await ready(pool, "one-1", content=OLD)
    await pool.backend.snapshot(volume, "s1")
    clone = await cloned(pool, volume, "one-1-3-0", snapshot="s1")
    await pool.backend.delete_snapshot(volume, "s1")
    await pool.write(volume, 0, NEW)

    await pool.backend.snapshot(volume, "s1")

    await pool.write(volume, 0, OLD)
    await pool.backend.revert(volume, "s1")
    assert await pool.read(volume, 0, len(NEW)) == NEW
    assert await pool.read(clone, 0, len(OLD)) == OLD


async def test_deleting_one_snapshot_leaves_the_others_whole(pool):
    volume = await ready(pool, "one-1")
    for number in range(1, 5):
        await pool.write(volume, 0, bytes([number]) * 4096)
        await pool.backend.snapshot(volume, f"s{number}")

    await pool.backend.delete_snapshot(volume, "s2")
    await pool.backend.revert(volume, "s1")
    await pool.backend.delete_snapshot(volume, "s1")

    for number in (3, 4):
        volume = await pool.backend.revert(volume, f"s{number}")
        assert await pool.read(volume, 0, 4096) == bytes([number]) * 4096


# Removing the volume


async def with_clones(pool):
    """A volume with two snapshots, and clones of one of them and of the volume."""
    volume = await ready(pool, "one-1", content=OLD)
    await pool.backend.snapshot(volume, "s1")
    await pool.backend.snapshot(volume, "s2")
    return volume, [
        await cloned(pool, volume, "one-1-3-0", snapshot="s1"),
        await cloned(pool, volume, "one-1-3-1"),
    ]


async def test_a_volume_is_destroyed_with_its_snapshots_and_its_clones_live_on(pool):
    volume, clones = await with_clones(pool)

    await pool.backend.destroy(volume)
    await pool.backend.destroy(volume)

    assert await pool.backend.find_uuid(volume.uuid) is None
    assert await names(pool) == ["one-1-3-0", "one-1-3-1"]
    for clone in clones:
        assert await pool.read(clone, 0, len(OLD)) == OLD
        await pool.write(clone, 0, NEW)
        await pool.backend.destroy(clone)
    assert await pool.backend.volumes() == []


async def test_a_volume_goes_through_the_trash_with_its_snapshots_and_its_clones_live_on(pool):
    volume, clones = await with_clones(pool)
    await pool.backend.trash(volume)
    trashed = await pool.backend.find_uuid(volume.uuid)
    assert await snapshots(pool, trashed) == ["s1", "s2"]

    assert await pool.backend.purge(time.time() + 1) == 1

    assert await names(pool) == ["one-1-3-0", "one-1-3-1"]
    assert await pool.again().find_uuid(volume.uuid) is None
    for clone in clones:
        assert await pool.read(clone, 0, len(OLD)) == OLD
        await pool.backend.destroy(clone)
    assert await pool.backend.purge(time.time() + 1) == 0


async def test_the_name_of_a_destroyed_volume_with_clones_is_free_and_has_no_snapshots(pool):
    volume, _ = await with_clones(pool)
    await pool.backend.destroy(volume)

    later = await ready(pool, "one-1")

    assert await pool.backend.snapshots(later) == []
    assert await pool.read(later, 0, 4096) == bytes(4096)
    await pool.backend.snapshot(later, "s1")
    assert await snapshots(pool, later) == ["s1"]


async def test_what_a_volume_and_its_snapshots_took_is_free_after_its_destruction(pool):
    pool.settle()
    before = (await pool.backend.capacity()).used_bytes
    volume = await ready(pool, "one-1", size=32 * MIB, content=os.urandom(24 * MIB))
    await pool.backend.snapshot(volume, "s1")
    await pool.write(volume, 0, os.urandom(24 * MIB))

    await pool.backend.destroy(volume)

    for _ in range(50):
        pool.settle()
        if pool.shares is None or (await pool.backend.capacity()).used_bytes < before + 4 * MIB:
            return
        await asyncio.sleep(0.1)
    pytest.fail("the space did not come back in 5 s")


async def test_a_clone_of_a_clone_outlives_both(pool):
    first = await ready(pool, "one-1", content=OLD)
    second = await cloned(pool, first, "one-2")
    await pool.backend.snapshot(second, "s1")
    third = await cloned(pool, second, "one-3", snapshot="s1")

    await pool.backend.destroy(first)
    await pool.backend.destroy(second)

    assert await pool.read(third, 0, len(OLD)) == OLD
    assert await pool.backend.volumes() == [third]


async def test_a_reverted_volume_with_clones_goes_and_leaves_nothing(pool):
    volume, clones = await with_clones(pool)
    await pool.backend.revert(volume, "s1")
    await pool.backend.revert(volume, "s2")
    later = await cloned(pool, volume, "one-1-3-2")

    for one in (volume, *clones, later):
        await pool.backend.destroy(one)

    assert await pool.again().volumes() == []
