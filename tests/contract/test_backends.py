"""One suite for every backend: what nas/backends/base.py promises."""

import asyncio
import os
import time
from functools import partial

import msgspec
import pytest
from tests.support.pools import (
    AGENT,
    CLOUD,
    DISK,
    IMAGE,
    MIB,
    OTHER_AGENT,
    OTHER_CLOUD,
    names,
    new,
    ready,
    silent,
)

from onelun.errors import Conflict, NotFound, OutOfSpace, Rejected
from onelun.model import Attachment, Kind, Owner, State, Volume

# The pool


async def test_a_new_pool_is_empty_and_has_serial_number_0(pool):
    assert await pool.backend.volumes() == []
    assert await pool.backend.serial() == 0


async def test_opening_a_pool_again_succeeds(pool):
    await pool.backend.open(AGENT, CLOUD)

    await pool.again().open(AGENT, CLOUD)


async def test_another_agent_cannot_open_the_pool(pool):
    with pytest.raises(Conflict, match=AGENT):
        await pool.again().open(OTHER_AGENT, CLOUD)


async def test_taking_the_pool_lets_the_new_agent_in_and_stops_the_old_one(medium):
    await medium.backend.open(AGENT, CLOUD)
    await medium.backend.take(OTHER_AGENT)

    with pytest.raises(Conflict):
        await medium.backend.create("one-1", new(), MIB, IMAGE)
    with pytest.raises(Conflict):
        await medium.backend.open(AGENT, CLOUD)

    taken = medium.again()
    await taken.open(OTHER_AGENT, CLOUD)
    await taken.create("one-1", new(), MIB, IMAGE)


async def test_a_pool_that_is_not_open_is_not_changed(medium):
    with pytest.raises(Rejected):
        await medium.backend.create("one-1", new(), MIB, IMAGE)


async def test_the_serial_number_is_kept(pool):
    await pool.backend.set_serial(7)

    assert await pool.again().serial() == 7


async def test_a_pool_serves_one_cloud(pool):
    await ready(pool, "one-1")

    with pytest.raises(Conflict):
        await pool.backend.create("one-2", new(), MIB, msgspec.structs.replace(IMAGE, cloud=OTHER_CLOUD))
    with pytest.raises(Conflict):
        await pool.again().open(AGENT, OTHER_CLOUD)
    await pool.again().open(AGENT, None)


async def test_volumes_of_no_cloud_go_into_any_pool(pool):
    await ready(pool, "one-1")

    plain = await ready(pool, "scratch", owner=Owner(kind=Kind.PLAIN))

    assert plain.owner.cloud is None


async def test_capacity_tells_what_writing_takes(pool):
    before = await pool.backend.capacity()
    volume = await ready(pool, "one-1", size=32 * MIB, content=os.urandom(16 * MIB))
    pool.settle()

    after = await pool.backend.capacity()

    assert 0 < before.free_bytes <= before.total_bytes
    assert 0 <= before.used_bytes <= before.total_bytes
    assert await pool.backend.usage(volume) >= 16 * MIB
    assert after.used_bytes >= before.used_bytes + 15 * MIB
    assert after.total_bytes == before.total_bytes


# Creating


async def test_a_created_volume_is_building_reads_as_zeros_and_has_no_name_yet(pool):
    uuid = new()

    volume = await pool.backend.create("one-1", uuid, 3 * MIB, IMAGE)

    assert (volume.pool, volume.name, volume.uuid) == ("tank", "one-1", uuid)
    assert (volume.state, volume.owner, volume.size_bytes) == (State.BUILDING, IMAGE, 3 * MIB)
    assert abs(volume.made_at - time.time()) < 60
    assert await pool.length(volume) == 3 * MIB
    assert await pool.read(volume, 0, 3 * MIB) == bytes(3 * MIB)
    assert await pool.backend.find("one-1") is None
    assert await pool.backend.find_uuid(uuid) == volume
    assert await pool.backend.volumes() == [volume]
    assert await pool.backend.usage(volume) < MIB


async def test_creating_again_with_equal_facts_returns_the_one_there_is(pool):
    uuid = new()
    first = await pool.backend.create("one-1", uuid, MIB, IMAGE)
    await pool.write(first, 0, b"kept")

    assert await pool.backend.create("one-1", uuid, MIB, IMAGE) == first
    assert await pool.read(first, 0, 4) == b"kept"

    published = await pool.backend.publish(uuid)
    assert await pool.backend.create("one-1", uuid, MIB, IMAGE) == published


@pytest.mark.parametrize(
    ("name", "size", "owner"), [("one-2", MIB, IMAGE), ("one-1", 2 * MIB, IMAGE), ("one-1", MIB, DISK)]
)
async def test_creating_a_uuid_again_with_other_facts_is_a_conflict(pool, name, size, owner):
    uuid = new()
    first = await pool.backend.create("one-1", uuid, MIB, IMAGE)

    with pytest.raises(Conflict):
        await pool.backend.create(name, uuid, size, owner)

    assert await pool.backend.volumes() == [first]


@pytest.mark.long
@pytest.mark.parametrize("size", [0, -512, 513, 1 << 80])
async def test_a_size_that_cannot_be_is_refused_and_nothing_is_made(pool, size):
    with pytest.raises((Rejected, OutOfSpace)):
        await pool.backend.create("one-1", new(), size, IMAGE)

    assert await pool.backend.volumes() == []


async def test_a_volume_larger_than_the_pool_is_out_of_space_and_nothing_is_made(pool):
    total = (await pool.backend.capacity()).total_bytes

    with pytest.raises(OutOfSpace) as caught:
        await pool.backend.create("one-1", new(), (total // 512 + 1) * 512, IMAGE)

    assert caught.value.facts["pool"] == "tank"
    assert await pool.backend.volumes() == []


@pytest.mark.long
@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../x", "One-1", "one_1", "a\nb", "a" * 64, ".new-x", "one 1"])
async def test_a_name_that_is_none_is_refused_and_nothing_is_made(pool, name):
    with pytest.raises(Rejected):
        await pool.backend.create(name, new(), MIB, IMAGE)

    assert await pool.backend.find(name) is None
    assert await pool.backend.volumes() == []


@pytest.mark.long
@pytest.mark.parametrize("uuid", ["", "../../etc", "x", "0B6A4E0E-57A1-4D7C-9A64-4D9D5F1D7A10"])
async def test_a_uuid_that_is_none_is_refused_and_finds_nothing(pool, uuid):
    with pytest.raises(Rejected):
        await pool.backend.create("one-1", uuid, MIB, IMAGE)

    assert await pool.backend.find_uuid(uuid) is None
    assert await pool.backend.volumes() == []


async def test_a_size_is_rounded_up_to_what_the_pool_gives(pool):
    uuid = new()
    size = pool.backend.rounded(MIB + 512)

    volume = await pool.backend.create("one-1", uuid, MIB + 512, IMAGE)

    assert MIB + 512 <= size < 16 * MIB
    assert pool.backend.rounded(size) == size
    assert pool.backend.rounded(MIB) == MIB
    assert volume.size_bytes == await pool.length(volume) == size
    assert await pool.backend.create("one-1", uuid, MIB + 512, IMAGE) == volume


# Publishing


async def test_publishing_shows_the_volume_ready_under_its_name(pool):
    uuid = new()
    built = await pool.backend.create("one-1", uuid, MIB, IMAGE)
    await pool.write(built, 4096, b"content")

    volume = await pool.backend.publish(uuid)

    assert volume == msgspec.structs.replace(built, state=State.READY)
    assert await pool.backend.find("one-1") == volume
    assert await pool.backend.find_uuid(uuid) == volume
    assert await pool.read(volume, 4096, 7) == b"content"
    assert await pool.again().find("one-1") == volume


async def test_publishing_again_returns_the_ready_volume(pool):
    volume = await ready(pool, "one-1")

    assert await pool.backend.publish(volume.uuid) == volume


async def test_publishing_what_is_not_there_is_not_found(pool):
    with pytest.raises(NotFound):
        await pool.backend.publish(new())


async def test_publishing_under_a_taken_name_is_a_conflict_and_changes_nothing(pool):
    present = await ready(pool, "one-1", content=b"old")
    built = await pool.backend.create("one-1", new(), MIB, IMAGE)

    with pytest.raises(Conflict):
        await pool.backend.publish(built.uuid)
    with pytest.raises(Conflict):
        await pool.backend.publish(built.uuid, replace=new())

    assert await pool.backend.find("one-1") == present
    assert await pool.backend.find_uuid(built.uuid) == built
    assert await pool.read(present, 0, 3) == b"old"


async def test_publishing_with_replace_puts_the_old_volume_into_the_trash(pool):
    old = await ready(pool, "one-1", content=b"old")
    built = await pool.backend.create("one-1", new(), MIB, IMAGE)
    await pool.write(built, 0, b"new")

    volume = await pool.backend.publish(built.uuid, replace=old.uuid)

    assert await pool.backend.find("one-1") == volume
    assert await pool.read(volume, 0, 3) == b"new"
    trashed = await pool.backend.find_uuid(old.uuid)
    assert trashed.state is State.TRASH
    assert await pool.read(trashed, 0, 3) == b"old"
    assert await pool.backend.publish(built.uuid, replace=old.uuid) == volume


async def test_replacing_a_volume_that_is_gone_publishes_all_the_same(pool):
    built = await pool.backend.create("one-1", new(), MIB, IMAGE)

    volume = await pool.backend.publish(built.uuid, replace=new())

    assert await pool.backend.find("one-1") == volume


async def test_of_two_published_under_one_name_at_once_one_wins(pool):
    built = [await pool.backend.create("one-1", new(), MIB, IMAGE) for _ in range(8)]

    outcomes = await asyncio.gather(*(pool.backend.publish(one.uuid) for one in built), return_exceptions=True)

    won = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
    assert len(won) == 1
    assert all(isinstance(outcome, Conflict) for outcome in outcomes if outcome is not won[0])
    assert await pool.backend.find("one-1") == won[0]
    assert len(await names(pool, State.BUILDING)) == 7


@pytest.mark.long
async def test_many_volumes_are_made_at_once(pool):
    made = await asyncio.gather(*(ready(pool, f"one-{number}") for number in range(pool.many)))

    assert len({volume.uuid for volume in made}) == pool.many
    assert await names(pool, State.READY) == sorted(f"one-{number}" for number in range(pool.many))
    assert (await pool.backend.find("one-1")).uuid != (await pool.backend.find("one-10")).uuid


# Cloning


async def test_a_clone_has_the_content_and_zeros_beyond_it(pool):
    content = os.urandom(3 * MIB)
    origin = await ready(pool, "one-1", size=4 * MIB, content=content)
    uuid = new()

    built = await pool.backend.clone(origin, "one-1-3-0", uuid, 8 * MIB, DISK, silent)
    clone = await pool.backend.publish(uuid)

    assert built.state is State.BUILDING
    assert (clone.origin, clone.owner, clone.size_bytes) == (origin.uuid, DISK, 8 * MIB)
    assert (clone.connected, clone.attachments, clone.last_epoch) == (False, (), 0)
    assert await pool.length(clone) == 8 * MIB
    assert await pool.read(clone, 0, 8 * MIB) == content + bytes(5 * MIB)


async def test_a_clone_and_its_origin_go_ways_of_their_own(pool):
    origin = await ready(pool, "one-1", content=b"common" * 1000)
    uuid = new()
    await pool.backend.clone(origin, "one-1-3-0", uuid, MIB, DISK, silent)
    clone = await pool.backend.publish(uuid)

    await pool.write(clone, 0, b"clone!")
    await pool.write(origin, 6, b"origin")

    assert await pool.read(clone, 0, 18) == b"clone!commoncommon"
    assert await pool.read(origin, 0, 18) == b"commonorigincommon"
    await pool.backend.destroy(origin)
    assert await pool.read(clone, 0, 18) == b"clone!commoncommon"


async def test_a_clone_keeps_the_holes(pool):
    origin = await ready(pool, "one-1", size=64 * MIB)
    for start in (0, 20 * MIB, 63 * MIB):
        await pool.write(origin, start, os.urandom(MIB))
    uuid = new()

    await pool.backend.clone(origin, "one-1-3-0", uuid, 64 * MIB, DISK, silent)
    clone = await pool.backend.publish(uuid)

    assert await pool.backend.usage(clone) < 8 * MIB
    assert await pool.read(clone, 0, 64 * MIB) == await pool.read(origin, 0, 64 * MIB)


async def test_a_clone_takes_no_space_where_the_filesystem_shares_blocks(pool):
    origin = await ready(pool, "one-1", size=32 * MIB, content=os.urandom(32 * MIB))
    pool.settle()
    before = (await pool.backend.capacity()).used_bytes
    uuid = new()

    clone = await pool.backend.clone(origin, "one-1-3-0", uuid, 32 * MIB, DISK, silent)
    pool.settle()

    assert await pool.read(clone, 0, 32 * MIB) == await pool.read(origin, 0, 32 * MIB)
    taken = (await pool.backend.capacity()).used_bytes - before
    if pool.shares is not None:
        assert (taken < 4 * MIB) == pool.shares


async def test_a_clone_tells_its_progress_up_to_the_end(pool):
    origin = await ready(pool, "one-1", size=32 * MIB, content=os.urandom(20 * MIB))
    told = []

    await pool.backend.clone(origin, "one-1-3-0", new(), 32 * MIB, DISK, lambda *both: told.append(both))

    assert told[-1] == (32 * MIB, 32 * MIB)
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    if pool.shares is False:
        assert len(told) >= 3


async def test_cloning_the_same_uuid_again_starts_anew(pool):
    origin = await ready(pool, "one-1", content=b"origin")
    uuid = new()
    first = await pool.backend.clone(origin, "one-1-3-0", uuid, MIB, DISK, silent)
    await pool.write(first, 0, b"broken")

    again = await pool.backend.clone(origin, "one-1-3-0", uuid, MIB, DISK, silent)

    assert await pool.read(again, 0, 6) == b"origin"
    published = await pool.backend.publish(uuid)
    assert await pool.backend.clone(origin, "one-1-3-0", uuid, MIB, DISK, silent) == published


async def test_a_clone_smaller_than_its_origin_is_refused(pool):
    origin = await ready(pool, "one-1", size=2 * MIB)

    with pytest.raises(Rejected):
        await pool.backend.clone(origin, "one-1-3-0", new(), MIB, DISK, silent)

    assert await names(pool) == ["one-1"]


async def test_only_a_ready_volume_is_cloned(pool):
    building = await pool.backend.create("one-1", new(), MIB, IMAGE)
    with pytest.raises(Conflict):
        await pool.backend.clone(building, "one-1-3-0", new(), MIB, DISK, silent)

    volume = await pool.backend.publish(building.uuid)
    deleting = await pool.backend.record(
        volume.name, volume.uuid, lambda now: msgspec.structs.replace(now, state=State.DELETING)
    )
    with pytest.raises(Conflict):
        await pool.backend.clone(deleting, "one-1-3-0", new(), MIB, DISK, silent)

    await pool.backend.trash(deleting)
    with pytest.raises(NotFound):
        await pool.backend.clone(deleting, "one-1-3-0", new(), MIB, DISK, silent)
    await pool.backend.destroy(deleting)
    with pytest.raises(NotFound):
        await pool.backend.clone(deleting, "one-1-3-0", new(), MIB, DISK, silent)

    assert await pool.backend.volumes() == []


async def test_a_clone_of_a_later_volume_of_the_same_name_is_not_made(pool):
    meant = await ready(pool, "one-1")
    await pool.backend.destroy(meant)
    await ready(pool, "one-1")

    with pytest.raises(NotFound):
        await pool.backend.clone(meant, "one-1-3-0", new(), MIB, DISK, silent)


async def test_a_cancelled_clone_leaves_at_most_a_building_volume(pool):
    origin = await ready(pool, "one-1", size=64 * MIB, content=os.urandom(48 * MIB))
    uuid = new()
    begun = asyncio.Event()
    loop = asyncio.get_running_loop()

    def slowly(done, total):
        loop.call_soon_threadsafe(begun.set)
        time.sleep(0.05)

    cloning = asyncio.create_task(pool.backend.clone(origin, "one-1-3-0", uuid, 64 * MIB, DISK, slowly))
    await asyncio.wait_for(begun.wait(), 60)
    cloning.cancel()
    await asyncio.wait([cloning], timeout=60)

    assert cloning.done()
    assert await pool.backend.find("one-1-3-0") is None
    left = await pool.backend.find_uuid(uuid)
    assert left is None or left.state is State.BUILDING
    if left is not None:
        await pool.backend.destroy(left)
    assert await names(pool) == ["one-1"]


# Facts


async def test_recorded_facts_are_kept_and_identity_is_not_changed(pool):
    volume = await ready(pool, "one-1")
    facts = msgspec.structs.replace(
        volume,
        attachments=(Attachment(host="node1", initiator="iqn.2026-11.x.y:node1", epoch=100007, readonly=True),),
        connected=True,
        last_epoch=100007,
        filled_from=f"{CLOUD} 3 0 {new()}",
        owner=msgspec.structs.replace(IMAGE, regtime=1700000001),
    )

    recorded = await pool.backend.record(
        facts.name, facts.uuid, lambda _: msgspec.structs.replace(facts, name="one-9", size_bytes=1, made_at=0.0)
    )

    assert recorded == facts
    assert await pool.backend.find("one-1") == facts
    assert await pool.again().find("one-1") == facts
    assert await pool.backend.find("one-9") is None


async def test_facts_that_several_change_at_once_are_all_kept(pool):
    volume = await ready(pool, "one-1")

    def attach(epoch: int, now: Volume) -> Volume:
        mine = Attachment(host=f"node{epoch}", initiator=f"iqn.2026-11.x.y:node{epoch}", epoch=epoch)
        return msgspec.structs.replace(now, attachments=(*now.attachments, mine))

    await asyncio.gather(*(pool.backend.record("one-1", volume.uuid, partial(attach, epoch)) for epoch in range(1, 6)))

    found = await pool.again().find("one-1")
    assert sorted(attachment.epoch for attachment in found.attachments) == [1, 2, 3, 4, 5]


async def test_a_volume_that_is_to_go_is_visible_and_says_so(pool):
    volume = await ready(pool, "one-1")

    await pool.backend.record(volume.name, volume.uuid, lambda now: msgspec.structs.replace(now, state=State.DELETING))

    assert (await pool.again().find("one-1")).state is State.DELETING


async def test_recording_does_not_publish_a_building_volume(pool):
    built = await pool.backend.create("one-1", new(), MIB, IMAGE)

    recorded = await pool.backend.record(
        built.name, built.uuid, lambda now: msgspec.structs.replace(now, state=State.READY, last_epoch=4)
    )

    assert (recorded.state, recorded.last_epoch) == (State.BUILDING, 4)
    assert await pool.backend.find("one-1") is None
    assert (await pool.backend.publish(built.uuid)).last_epoch == 4


async def test_recording_an_absent_volume_is_not_found(pool):
    volume = await ready(pool, "one-1")
    await pool.backend.destroy(volume)
    await ready(pool, "one-1")

    with pytest.raises(NotFound):
        await pool.backend.record(volume.name, volume.uuid, lambda now: now)


# Growing


async def test_a_grown_volume_keeps_its_content_and_ends_in_zeros(pool):
    content = os.urandom(MIB)
    volume = await ready(pool, "one-1", content=content)

    grown = await pool.backend.grow(volume, 3 * MIB)

    assert grown.size_bytes == 3 * MIB
    assert await pool.length(grown) == 3 * MIB
    assert await pool.read(grown, 0, 3 * MIB) == content + bytes(2 * MIB)
    assert await pool.again().find("one-1") == grown
    assert await pool.backend.grow(grown, 3 * MIB) == grown


async def test_a_volume_is_not_shrunk(pool):
    volume = await ready(pool, "one-1", size=2 * MIB)

    for size in (MIB, 0, 2 * MIB + 1):
        with pytest.raises(Rejected):
            await pool.backend.grow(volume, size)

    assert await pool.backend.find("one-1") == volume


async def test_growing_beyond_the_pool_is_out_of_space_and_changes_nothing(pool):
    volume = await ready(pool, "one-1")
    total = (await pool.backend.capacity()).total_bytes

    with pytest.raises(OutOfSpace):
        await pool.backend.grow(volume, (total // 512 + 1) * 512)

    assert await pool.backend.find("one-1") == volume
    assert await pool.length(volume) == MIB


async def test_growing_an_absent_volume_is_not_found(pool):
    volume = await ready(pool, "one-1")
    await pool.backend.destroy(volume)

    with pytest.raises(NotFound):
        await pool.backend.grow(volume, 2 * MIB)


# Removing


async def test_a_trashed_volume_is_out_of_sight_and_keeps_its_data(pool):
    volume = await ready(pool, "one-1", content=b"data")

    await pool.backend.trash(volume)

    assert await pool.backend.find("one-1") is None
    trashed = await pool.backend.find_uuid(volume.uuid)
    assert trashed == msgspec.structs.replace(volume, state=State.TRASH)
    assert await pool.read(trashed, 0, 4) == b"data"
    assert await pool.again().volumes() == [trashed]


async def test_trashing_again_or_what_is_absent_does_nothing(pool):
    volume = await ready(pool, "one-1")
    await pool.backend.trash(volume)
    await pool.backend.trash(volume)
    await pool.backend.destroy(volume)
    await pool.backend.trash(volume)

    assert await pool.backend.volumes() == []


async def test_a_later_volume_of_the_name_is_neither_trashed_nor_destroyed(pool):
    meant = await ready(pool, "one-1")
    await pool.backend.trash(meant)
    later = await ready(pool, "one-1")

    await pool.backend.trash(meant)
    await pool.backend.destroy(meant)

    assert await pool.backend.volumes() == [later]


async def test_purging_destroys_what_was_trashed_before_the_moment(pool):
    first = await ready(pool, "one-1")
    await pool.backend.trash(first)
    moment = time.time()
    await asyncio.sleep(0.01)
    second = await ready(pool, "one-2")
    await pool.backend.trash(second)
    third = await ready(pool, "one-3")

    assert await pool.backend.purge(moment) == 1
    assert await names(pool) == ["one-2", "one-3"]
    assert await pool.backend.purge(moment) == 0
    assert await pool.again().find("one-3") == third


async def test_a_replaced_volume_counts_as_trashed_when_it_was_replaced(pool):
    old = await ready(pool, "one-1")
    moment = time.time()
    await asyncio.sleep(0.01)
    built = await pool.backend.create("one-1", new(), MIB, IMAGE)
    await pool.backend.publish(built.uuid, replace=old.uuid)

    assert await pool.backend.purge(moment) == 0
    assert await pool.backend.purge(time.time() + 1) == 1


@pytest.mark.parametrize("state", [State.BUILDING, State.READY, State.DELETING, State.TRASH])
async def test_a_volume_is_destroyed_whatever_its_state(pool, state):
    volume = await pool.backend.create("one-1", new(), MIB, IMAGE)
    await pool.write(volume, 0, os.urandom(MIB))
    if state is not State.BUILDING:
        volume = await pool.backend.publish(volume.uuid)
    if state is State.DELETING:
        volume = await pool.backend.record(
            volume.name, volume.uuid, lambda now: msgspec.structs.replace(now, state=state)
        )
    if state is State.TRASH:
        await pool.backend.trash(volume)

    await pool.backend.destroy(volume)
    await pool.backend.destroy(volume)

    assert await pool.backend.volumes() == []
    assert await pool.again().find_uuid(volume.uuid) is None


async def test_a_name_is_free_again_after_its_volume_is_destroyed(pool):
    first = await ready(pool, "one-1", content=b"secret")
    await pool.backend.destroy(first)

    second = await ready(pool, "one-1")

    assert second.uuid != first.uuid
    assert await pool.read(second, 0, 6) == bytes(6)
