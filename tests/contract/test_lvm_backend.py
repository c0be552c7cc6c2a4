"""What only LVM can do wrong: its extents, its full pools, its boots, other people's volumes, and commands cut off half-way."""

import asyncio
import contextlib
import mmap
import os
import time

import msgspec
import pytest
from tests.support.pools import AGENT, CLOUD, DISK, IMAGE, MIB, cloned, names, new, ready, silent
from tests.support.pools_lvm import Lvm, lvm, output
from tests.support.requires import guest

from onelun import command
from onelun.errors import Busy, CommandFailed, Conflict, NotFound, OutOfSpace, Rejected
from onelun.model import Attributes, Extent, State, Wipe
from onelun.nas.backends.lvm.backend import LvmBackend
from onelun.nas.backends.lvm.listing import snapshot_lv

pytestmark = guest("lvm")

OLD, NEW = b"old " * 1024, b"new " * 1024


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A volume group."""
    with Lvm(tmp_path_factory.mktemp("place")) as made:
        yield made


def lvs(pool):
    """The names of all LVs of the volume group, hidden ones left out."""
    return sorted(output("lvs", "--noheadings", "-o", "lv_name", pool.vg).split())


def active(pool):
    """The names of the LVs of ours that are active."""
    told = output("lvs", "--noheadings", "-o", "lv_name", pool.vg, "--select", "lv_active=active && pool_lv=pool")
    return sorted(told.split())


def tags_of(pool, lv):
    return set(output("lvs", "--noheadings", "-o", "lv_tags", f"{pool.vg}/{lv}").strip().split(","))


def lv_of(volume):
    return f"onelun-{volume.uuid}"


# Sizes


async def test_a_size_is_rounded_up_to_whole_extents_everywhere(pool):
    size = pool.backend.rounded(MIB + 512)
    uuid = new()

    built = await pool.backend.create("one-1", uuid, MIB + 512, IMAGE)
    volume = await pool.backend.publish(uuid)

    assert (size, pool.backend.rounded(size), built.size_bytes) == (2 * MIB, size, size)
    assert await pool.length(volume) == size
    assert await pool.backend.create("one-1", uuid, MIB + 512, IMAGE) == volume
    clone = await cloned(pool, volume, "one-1-3-0", size=2 * MIB + 512)
    assert await pool.backend.find("one-1-3-0") == clone
    assert clone.size_bytes == await pool.length(clone) == 3 * MIB
    assert (await pool.backend.grow(clone, 3 * MIB + 512)).size_bytes == 4 * MIB
    assert (await pool.backend.find("one-1-3-0")).size_bytes == 4 * MIB


async def test_a_pool_that_is_not_open_rounds_nothing(medium):
    with pytest.raises(Rejected, match="not open"):
        medium.backend.rounded(MIB)


# What is active


async def test_nothing_is_active_but_what_was_asked_for_and_a_boot_activates_nothing(pool):
    volume = await ready(pool, "one-1")
    clone = await cloned(pool, volume, "one-1-3-0")
    await pool.backend.snapshot(volume, "s1")
    assert active(pool) == []
    await pool.backend.activate(clone)
    assert active(pool) == [lv_of(clone)]
    await pool.backend.deactivate(clone)

    # As at a boot: the event, and what an operator may type.
    lvm("vgchange", "--activate", "ay", pool.vg)
    lvm("vgchange", "--activate", "y", pool.vg)

    assert active(pool) == []


async def test_an_inactive_thin_pool_is_activated_where_it_is_needed(pool):
    volume = await ready(pool, "one-1", content=OLD)
    lvm("vgchange", "--activate", "n", pool.vg)

    assert await pool.read(volume, 0, len(OLD)) == OLD
    lvm("vgchange", "--activate", "n", pool.vg)
    assert (await pool.again().capacity()).total_bytes > 0
    lvm("vgchange", "--activate", "n", pool.vg)
    await pool.backend.snapshot(volume, "s1")
    lvm("vgchange", "--activate", "n", pool.vg)
    assert len(await pool.backend.snapshots(volume)) == 1
    lvm("vgchange", "--activate", "n", pool.vg)
    assert await pool.again().check(AGENT, CLOUD) == []
    assert not os.path.exists(f"/dev/{pool.vg}/pool")


async def test_the_device_stays_where_it_is_whatever_becomes_of_the_volume(pool):
    uuid = new()
    built = await pool.backend.create("one-1", uuid, MIB, IMAGE)
    path = await pool.backend.activate(built)
    descriptor = os.open(path, os.O_RDWR)

    try:
        volume = await pool.backend.publish(uuid)
        grown = await pool.backend.grow(volume, 4 * MIB)
        os.pwrite(descriptor, NEW, 3 * MIB)
        os.fsync(descriptor)
        await pool.backend.trash(grown)

        assert os.lseek(descriptor, 0, os.SEEK_END) == 4 * MIB
        assert pool.backend.device(built) == pool.backend.device(grown) == path
    finally:
        os.close(descriptor)
    trashed = await pool.backend.find_uuid(uuid)
    assert await pool.read(trashed, 3 * MIB, len(NEW)) == NEW


async def test_an_open_volume_is_neither_destroyed_nor_reverted_and_keeps_its_snapshots(pool):
    volume = await ready(pool, "one-1", content=OLD)
    await pool.backend.snapshot(volume, "s1")
    descriptor = os.open(await pool.backend.activate(volume), os.O_RDONLY)

    try:
        for act in (pool.backend.destroy(volume), pool.backend.revert(volume, "s1")):
            with pytest.raises(Busy):
                await act
        await pool.backend.trash(volume)
        assert await pool.backend.purge(2**40) == 0
    finally:
        os.close(descriptor)

    trashed = await pool.backend.find_uuid(volume.uuid)
    assert [s.name for s in await pool.backend.snapshots(trashed)] == ["s1"]
    assert await pool.backend.purge(2**40) == 1
    assert lvs(pool) == ["pool"]


async def test_a_discard_gives_space_back_to_the_pool(pool):
    volume = await ready(pool, "one-1", size=16 * MIB, content=os.urandom(16 * MIB))
    before = (await pool.backend.capacity()).used_bytes

    output("blkdiscard", await pool.backend.activate(volume))

    assert (await pool.backend.capacity()).used_bytes < before - 15 * MIB
    assert await pool.backend.usage(volume) < MIB


# What is not ours


async def test_other_volumes_of_the_group_are_neither_listed_nor_touched(pool):
    lvm("lvcreate", "--size", "4m", "--name", "home", pool.vg)
    lvm("lvcreate", "--type", "thin", "-V", "4m", "--thinpool", "pool", "--name", f"onelun-{new()}", pool.vg)
    foreign = lvs(pool)
    try:
        await ready(pool, "home")
        volume = await pool.backend.find("home")
        await pool.backend.destroy(volume)
        await pool.again().open(AGENT, CLOUD)

        assert await pool.backend.volumes() == []
        assert lvs(pool) == foreign
    finally:
        lvm("lvremove", "--force", f"{pool.vg}/home")


async def test_an_operators_tags_stay(pool):
    volume = await ready(pool, "one-1")
    lvm("lvchange", "--addtag", "backup", "--addtag", "onelun.colour=red", f"{pool.vg}/{lv_of(volume)}")
    lvm("lvchange", "--addtag", "backup", f"{pool.vg}/pool")

    await pool.backend.record(volume.name, volume.uuid, lambda now: msgspec.structs.replace(now, last_epoch=7))
    await pool.backend.set_serial(7)
    await pool.backend.trash(volume)

    assert "backup" in tags_of(pool, "pool")
    assert {"backup", "onelun.colour=red", "onelun.last_epoch=7", "onelun.state=trash"} <= tags_of(pool, lv_of(volume))


# What is full


@contextlib.contextmanager
def metadata_filled(pool, until):
    """The pool's metadata taken up to that fraction, by thin devices that LVM knows nothing of."""
    device = f"{pool.vg.replace('-', '--')}-{pool.thin_pool}-tpool"
    made = []
    try:
        while metadata_used(device) < until:
            for _ in range(20):
                made.append(1_000_000 + len(made))
                output("dmsetup", "message", device, "0", f"create_thin {made[-1]}")
        yield
    finally:
        for number in made:
            output("dmsetup", "message", device, "0", f"delete {number}")


def metadata_used(device):
    used, _, total = output("dmsetup", "status", device).split()[4].partition("/")
    return int(used) / int(total)


@pytest.mark.long
async def test_a_pool_whose_metadata_is_near_full_takes_nothing_new_and_lets_all_go(place):
    with place.thin_pool("small", metadata_bytes=2 * MIB) as pool:
        await pool.backend.open(AGENT, CLOUD)
        volume = await ready(pool, "one-1", content=OLD)
        with metadata_filled(pool, 0.76):
            for act in (
                pool.backend.create("one-2", new(), MIB, IMAGE),
                pool.backend.clone(volume, "one-1-3-0", new(), MIB, DISK, silent),
                pool.backend.snapshot(volume, "s1"),
                pool.backend.grow(volume, 2 * MIB),
            ):
                with pytest.raises(OutOfSpace, match="--poolmetadatasize"):
                    await act
            assert (await pool.backend.capacity()).free_bytes == 0
            (said,) = await pool.backend.check(AGENT, CLOUD)
            assert "metadata" in said

            await pool.write(volume, 0, NEW)
            await pool.backend.record(volume.name, volume.uuid, lambda now: msgspec.structs.replace(now, last_epoch=9))
            await pool.backend.destroy(volume)

            assert await pool.backend.volumes() == []


async def test_a_full_pool_takes_nothing_new_stops_no_reader_and_lets_all_go(pool):
    lvm("lvchange", "--errorwhenfull", "y", f"{pool.vg}/pool")
    kept = await ready(pool, "one-1", content=OLD)
    greedy = await ready(pool, "one-2", size=(await pool.backend.capacity()).total_bytes)
    path = await pool.backend.activate(greedy)

    with pytest.raises(OSError, match="No space left"):
        fill(path)

    with pytest.raises(OutOfSpace, match="lvextend --size"):
        await pool.backend.create("one-3", new(), MIB, IMAGE)
    with pytest.raises(OutOfSpace):
        await pool.backend.clone(kept, "one-1-3-0", new(), MIB, DISK, silent)
    assert await pool.read(kept, 0, len(OLD)) == OLD
    (said,) = await pool.backend.check(AGENT, CLOUD)
    assert "full" in said
    await pool.backend.destroy(greedy)
    assert (await pool.backend.capacity()).used_bytes < 8 * MIB
    await pool.write(await ready(pool, "one-3"), 0, NEW)


def fill(path):
    """Write all of a device, past the page cache, so that an error comes where it happens."""
    descriptor = os.open(path, os.O_WRONLY | os.O_DIRECT)
    try:
        with mmap.mmap(-1, MIB) as pages:
            pages.write(os.urandom(MIB))
            while os.write(descriptor, pages):
                pass
    finally:
        os.close(descriptor)


# What is missing


async def test_what_is_missing_is_one_sentence_beforehand_and_when_it_is_opened(medium):
    for backend, words in (
        (LvmBackend("tank", "no-such-group", "pool"), "no volume group no-such-group"),
        (LvmBackend("tank", medium.vg, "no-such-pool"), f"no thin pool {medium.vg}/no-such-pool"),
    ):
        (said,) = await backend.check(AGENT, CLOUD)
        with pytest.raises(NotFound) as caught:
            await backend.open(AGENT, CLOUD)

        assert words in said
        assert str(caught.value) == said


async def test_a_plain_volume_is_no_thin_pool(medium):
    lvm("lvcreate", "--size", "4m", "--name", "home", medium.vg)
    try:
        (said,) = await LvmBackend("tank", medium.vg, "home").check(AGENT, CLOUD)
    finally:
        lvm("lvremove", f"{medium.vg}/home")

    assert "no thin pool" in said


async def test_a_thin_pool_that_does_not_zero_is_not_opened(medium):
    with dict(medium.broken())["zero"], pytest.raises(Rejected, match="lvchange --zero y"):
        await medium.backend.open(AGENT, CLOUD)


@pytest.mark.parametrize("lacks", ["no thin pool", "no volume group"])
async def test_an_open_pool_that_went_is_no_empty_pool(pool, lacks):
    await ready(pool, "one-1")

    with dict(pool.broken())[lacks]:
        for act in (
            pool.backend.volumes(),
            pool.backend.find("one-1"),
            pool.backend.create("one-2", new(), MIB, IMAGE),
        ):
            with pytest.raises(CommandFailed, match="gone"):
                await act


# Many at once, and cut off


@pytest.mark.timeout(600)
@pytest.mark.long
async def test_fifty_clones_are_made_at_once(pool):
    origin = await ready(pool, "one-1", content=OLD)

    clones = await asyncio.gather(*(cloned(pool, origin, f"one-1-{number}-0") for number in range(50)))

    assert await names(pool, State.READY) == sorted(["one-1", *(f"one-1-{number}-0" for number in range(50))])
    assert await pool.read(clones[49], 0, len(OLD)) == OLD


class Killed(BaseException):
    """The agent was killed."""


def killed_after(backend, commands):
    """Let the agent die before its next but so many changes of the volume group."""
    change = backend._pool.lvm.change
    left = iter(range(commands))

    async def change_or_die(*argv):
        if next(left, None) is None:
            raise Killed
        await change(*argv)

    backend._pool.lvm.change = change_or_die


async def survived(pool, act):
    """Kill an agent at each step of `act`, each time a new one, and give the backend that starts after it."""
    for commands in range(20):
        dying = pool.again()
        await dying.open(AGENT, CLOUD)
        killed_after(dying, commands)
        died = False
        try:
            await act(dying)
        except Killed:
            died = True
        yield died
        if not died:
            return
    pytest.fail("it has no end")


async def reopened(pool):
    successor = pool.again()
    await successor.open(AGENT, CLOUD)
    return successor


@pytest.mark.long
async def test_a_replacement_that_was_cut_off_is_whole_or_not_at_all(pool):
    old = await ready(pool, "one-1", content=OLD)
    built = await pool.backend.create("one-1", new(), MIB, IMAGE)
    await pool.write(built, 0, NEW)

    async for _ in survived(pool, lambda agent: agent.publish(built.uuid, replace=old.uuid)):
        before = await pool.again().find("one-1")
        after = await (await reopened(pool)).find("one-1")

        assert before == after
        assert await pool.read(after, 0, 4) == (b"new " if after.uuid == built.uuid else b"old ")
        replaced = await pool.backend.find_uuid(old.uuid)
        assert replaced.state is (State.TRASH if after.uuid == built.uuid else State.READY)

    assert after.uuid == built.uuid
    assert "onelun.state=trash" in tags_of(pool, lv_of(old))
    assert await pool.backend.purge(2**40) == 1


@pytest.mark.long
async def test_a_revert_that_was_cut_off_is_whole_or_not_at_all_and_leaves_nothing(pool):
    volume = await ready(pool, "one-1", content=OLD)
    await pool.backend.snapshot(volume, "s1")
    grown = await pool.backend.grow(volume, 2 * MIB)
    await pool.write(grown, 0, NEW)

    async for died in survived(pool, lambda agent: agent.revert(grown, "s1")):
        before = await pool.again().find("one-1")
        successor = await reopened(pool)
        after = await successor.find("one-1")

        assert before == after
        assert (await pool.read(after, 0, 4), after.size_bytes) in ((b"old ", MIB), (b"new ", 2 * MIB))
        assert [s.name for s in await successor.snapshots(after)] == ["s1"]
        assert len(lvs(pool)) == 3
        if died and after.size_bytes == MIB:
            await pool.write(await pool.backend.grow(after, 2 * MIB), 0, NEW)

    assert after.size_bytes == MIB


@pytest.mark.long
async def test_a_revert_that_was_cut_off_does_not_need_a_start_to_be_repeated(pool):
    volume = await ready(pool, "one-1", content=OLD)
    await pool.backend.snapshot(volume, "s1")
    for commands in range(4):
        await pool.write(volume, 0, NEW)
        dying = await reopened(pool)
        killed_after(dying, commands)
        with pytest.raises(Killed):
            await dying.revert(volume, "s1")

        assert await pool.backend.revert(volume, "s1") == volume

        assert await pool.read(volume, 0, len(OLD)) == OLD
        assert len(lvs(pool)) == 3


@pytest.mark.long
async def test_a_larger_clone_that_was_cut_off_is_building_or_not_there(pool):
    origin = await ready(pool, "one-1", content=OLD)
    uuid = new()

    async for died in survived(pool, lambda agent: agent.clone(origin, "one-1-3-0", uuid, 2 * MIB, DISK, silent)):
        left = await (await reopened(pool)).find_uuid(uuid)

        assert left is None or left.state is State.BUILDING
        assert died or left.size_bytes == 2 * MIB


@pytest.mark.long
async def test_a_destruction_that_was_cut_off_leaves_the_whole_volume_or_nothing(pool):
    volume = await ready(pool, "one-1")
    await pool.backend.snapshot(volume, "s1")

    async for died in survived(pool, lambda agent: agent.destroy(volume)):
        await reopened(pool)

        assert len(lvs(pool)) == (3 if died else 1)


@pytest.mark.long
async def test_what_a_killed_command_left_suspended_goes_on_at_the_next_start(pool):
    volume = await ready(pool, "one-1", content=OLD)
    await pool.backend.activate(volume)
    # In the order in which LVM does it: a volume above a suspended pool would wait for it.
    for device in (lv_of(volume).replace("-", "--"), "pool-tpool"):
        output("dmsetup", "suspend", f"{pool.vg.replace('-', '--')}-{device}")

    await reopened(pool)

    assert "Suspended" not in output("dmsetup", "info", "--columns", "--noheadings", "-o", "suspended")
    assert await pool.read(volume, 0, len(OLD)) == OLD


async def test_what_is_gone_from_an_adopted_volume_with_an_external_origin_is_not_taken_for_zeros(pool):
    lvm("lvcreate", "--size", "8m", "--name", "outer", pool.vg)
    output("sh", "-c", f"yes onelun | dd of=/dev/{pool.vg}/outer bs=64k count=1 iflag=fullblock conv=fsync,notrunc")
    lvm("lvchange", "--activate", "n", f"{pool.vg}/outer")
    lvm("lvchange", "--permission", "r", f"{pool.vg}/outer")
    try:
        lvm("lvcreate", "--type", "thin", "--thinpool", pool.thin_pool, "--name", "foreign", f"{pool.vg}/outer")
        volume = await pool.backend.adopt("foreign", "legacy", new(), DISK)
        await pool.write(volume, 0, NEW)
        await pool.backend.snapshot(volume, "a")
        await pool.discard(volume, 0, 64 << 10)
        await pool.backend.snapshot(volume, "b")

        extents = await pool.backend.changed(volume, "a", "b")

        assert extents
        assert all(extent.data for extent in extents)
        await pool.backend.destroy(volume)
    finally:
        lvm("lvremove", "--force", f"{pool.vg}/outer")


def held(pool):
    """Whether the pool holds a moment of its metadata, as the kernel tells it."""
    words = output("dmsetup", "status", f"{dm_name(pool)}-tpool").split()
    return words[words.index("thin-pool") + 4] != "-"


def dm_name(pool):
    return f"{pool.vg.replace('-', '--')}-{pool.thin_pool}"


def numbers(pool, lv):
    """The number of that thin LV in the pool's metadata."""
    return output("lvs", "--noheadings", "-o", "thin_id", f"{pool.vg}/{lv}").split()


async def with_changes(pool):
    """A volume with the snapshots a and b, and a chunk written between them."""
    volume = await ready(pool, "one-1", content=OLD)
    await pool.backend.snapshot(volume, "a")
    await pool.write(volume, 0, NEW)
    await pool.backend.snapshot(volume, "b")
    return volume


async def test_a_moment_of_the_metadata_that_a_killed_agent_held_is_let_go_at_the_next_start(pool):
    await with_changes(pool)
    output("dmsetup", "message", f"{dm_name(pool)}-tpool", "0", "reserve_metadata_snap")
    assert held(pool)

    await reopened(pool)

    assert not held(pool)


async def test_an_old_moment_of_the_metadata_is_not_what_changes_are_read_from(pool):
    output("dmsetup", "message", f"{dm_name(pool)}-tpool", "0", "reserve_metadata_snap")
    volume = await with_changes(pool)

    assert await pool.backend.changed(volume, "a", "b") == [Extent(0, 64 << 10, data=True)]
    assert not held(pool)


async def test_the_moment_of_the_metadata_is_let_go_when_its_reader_fails_or_gives_up(pool, monkeypatch):
    volume = await with_changes(pool)
    run = command.run

    async def failing(*argv, **more):
        if argv[0] == "thin_delta":
            assert held(pool)
            argv = ("sh", "-c", "exit 1") if failure == "fails" else ("sleep", "60")
        return await run(*argv, **more)

    monkeypatch.setattr(command, "run", failing)
    failure = "fails"
    with pytest.raises(CommandFailed):
        await pool.backend.changed(volume, "a", "b")
    assert not held(pool)

    failure = "hangs"
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(pool.backend.changed(volume, "a", "b"), 5.0)
    assert not held(pool)


@pytest.mark.parametrize("again", [True, False])
async def test_changes_are_never_those_of_what_was_given_a_snapshots_number(pool, monkeypatch, again):
    volume = await with_changes(pool)
    run, (number,) = command.run, numbers(pool, snapshot_lv(volume.uuid, "b"))
    swapped = []

    async def swapping(*argv, **more):
        if "reserve_metadata_snap" in argv and not swapped:
            swapped.append(argv)
            lvm("lvremove", f"{pool.vg}/{snapshot_lv(volume.uuid, 'b')}")
            lvm("lvcreate", "--virtualsize", "8m", "--thinpool", pool.thin_pool, "--name", "other", pool.vg)
            if again:
                await pool.backend.snapshot(volume, "b")
        return await run(*argv, **more)

    monkeypatch.setattr(command, "run", swapping)

    if again:
        assert await pool.backend.changed(volume, "a", "b") == [Extent(0, 64 << 10, data=True)]
    else:
        with pytest.raises(NotFound):
            await pool.backend.changed(volume, "a", "b")

    assert swapped
    assert numbers(pool, "other") == [number]
    lvm("lvremove", f"{pool.vg}/other")


async def test_snapshots_of_a_volume_that_is_gone_go_at_the_next_start(pool):
    volume = await ready(pool, "one-1")
    await pool.backend.snapshot(volume, "s1")
    lvm("lvremove", f"{pool.vg}/{lv_of(volume)}")

    await reopened(pool)

    assert lvs(pool) == ["pool"]


async def test_a_cancelled_change_ends_before_its_caller_and_none_begins_after(pool):
    volume = await ready(pool, "one-1")
    first = asyncio.create_task(pool.backend.snapshot(volume, "s1"))
    second = asyncio.create_task(pool.backend.snapshot(volume, "s2"))
    while not pool.backend._pool.lvm._changing.locked():
        await asyncio.sleep(0)

    second.cancel()
    first.cancel()
    await asyncio.wait([first, second], timeout=60)

    assert first.cancelled()
    assert second.cancelled()
    assert [s.name for s in await pool.again().snapshots(volume)] == ["s1"]


async def test_a_conflict_is_found_under_the_same_lock_that_makes_the_volume(pool):
    uuid = new()

    outcomes = await asyncio.gather(
        pool.backend.create("one-1", uuid, MIB, IMAGE),
        pool.backend.create("one-2", uuid, MIB, IMAGE),
        return_exceptions=True,
    )

    assert outcomes[0].name == "one-1"
    assert isinstance(outcomes[1], Conflict)


# Attributes


def disk_blocks(place):
    """The bytes that the disk below the volume group really has."""
    os.sync()
    return (place.directory / "disk").stat().st_blocks * 512


async def test_a_destroyed_volume_is_discarded_down_to_the_disk_but_for_what_its_clones_share(pool, place):
    discard = Attributes(wipe=Wipe.DISCARD)
    await pool.backend.accept(discard)
    image = await ready(pool, "one-1", size=32 * MIB, content=os.urandom(8 * MIB), attributes=discard)
    await pool.backend.snapshot(image, "s1")
    clone = await cloned(pool, image, "one-1-3-0", attributes=discard)
    kept = await pool.read(clone, 0, 8 * MIB)
    await pool.write(image, 8 * MIB, os.urandom(16 * MIB))
    full = disk_blocks(place)

    await pool.backend.destroy(image)

    assert 15 * MIB <= full - disk_blocks(place) <= 18 * MIB
    assert await pool.read(clone, 0, 8 * MIB) == kept
    await pool.backend.trash(clone)
    assert await pool.backend.purge(0.0) == 1
    assert full - disk_blocks(place) >= 23 * MIB
    assert lvs(pool) == ["pool"]


async def test_what_is_open_is_not_discarded(pool):
    image = await ready(pool, "one-1", content=OLD, attributes=Attributes(wipe=Wipe.DISCARD))
    path = await pool.backend.activate(image)
    holder = os.open(path, os.O_RDONLY)
    try:
        with pytest.raises(Busy):
            await pool.backend.destroy(image)
        await pool.backend.trash(image)
        assert await pool.backend.purge(time.time() + 60) == 0
    finally:
        os.close(holder)

    assert await pool.read(image, 0, len(OLD)) == OLD
    assert await pool.backend.purge(time.time() + 60) == 1


async def test_a_pool_that_passes_no_discards_on_refuses_them(pool):
    with (
        pool._without_discards(),
        pytest.raises(Rejected, match=r"ONELUN_WIPE=discard .* passes no discards on: use none"),
    ):
        await pool.backend.accept(Attributes(wipe=Wipe.DISCARD))
