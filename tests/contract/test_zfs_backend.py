"""What the backend `zfs` does beyond what every backend does: clones that outlive their origin, and other people's datasets."""

import asyncio
import contextlib
import os
import signal
import sys
import time

import pytest
from tests.support.crashes_zfs import each_crash
from tests.support.pools import AGENT, CLOUD, DISK, IMAGE, MIB, OTHER_AGENT, cloned, names, new, ready, silent
from tests.support.pools_zfs import UDEV_S, Zfs, run
from tests.support.requires import guest

from onelun.errors import Busy, CommandFailed, Conflict, NotFound, OutOfSpace, Rejected, Stalled
from onelun.model import Attributes, Provisioning, State, Wipe
from onelun.nas.backends.zfs.backend import ZfsBackend

pytestmark = [guest("zfs"), pytest.mark.timeout(900)]

OLD, NEW = b"old " * 1024, b"new " * 1024


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    with Zfs(tmp_path_factory.mktemp("place")) as made:
        yield made


def nothing_left(pool):
    """No dataset and no snapshot is below the pool's."""
    return pool.leaves() == [] and pool.leaves("snapshot") == []


async def cleared(pool, backend):
    """Destroy every volume; nothing may be left of any."""
    for volume in await backend.volumes():
        await backend.destroy(volume)
    assert await backend.volumes() == []
    assert nothing_left(pool)


# Clones and their origin


@pytest.mark.long
async def test_fifty_clones_are_made_at_once_and_destroyed_at_once_and_take_their_destroyed_image_along(pool):
    image = await ready(pool, "one-1", content=OLD)

    clones = await asyncio.gather(*(cloned(pool, image, f"one-1-{vm}-0") for vm in range(50)))

    assert len(await names(pool, State.READY)) == 51
    assert len(pool.leaves("snapshot")) == 50
    assert await pool.read(clones[-1], 0, len(OLD)) == OLD
    await asyncio.gather(*(pool.backend.destroy(clone) for clone in clones[:25]))
    assert len(pool.leaves("snapshot")) == 25
    await pool.backend.destroy(image)
    assert len(await names(pool)) == 25
    await asyncio.gather(*(pool.backend.destroy(clone) for clone in clones[25:]))
    # Of two that go at the same moment each may have seen the other still there.
    await pool.backend.purge(0.0)
    assert nothing_left(pool)


async def test_a_trashed_image_with_clones_is_purged_at_once_and_freed_with_its_last_clone(pool):
    image = await ready(pool, "one-1", size=32 * MIB, content=os.urandom(16 * MIB))
    clone = await cloned(pool, image, "one-1-3-0")
    await pool.backend.trash(image)

    assert await pool.backend.purge(time.time() + 1) == 1

    assert await pool.backend.volumes() == [clone]
    assert await pool.backend.purge(time.time() + 1) == 0
    assert len(pool.leaves()) == 2
    await pool.backend.destroy(clone)
    assert nothing_left(pool)


async def test_a_destroyed_image_with_clones_gives_up_what_they_do_not_share(pool):
    image = await ready(pool, "one-1", size=32 * MIB, content=OLD)
    clone = await cloned(pool, image, "one-1-3-0")
    await pool.write(image, 0, os.urandom(24 * MIB))
    pool.settle()
    before = (await pool.backend.capacity()).used_bytes

    await pool.backend.destroy(image)

    for _ in range(100):
        pool.settle()
        if (await pool.backend.capacity()).used_bytes < before - 20 * MIB:
            break
        await asyncio.sleep(0.1)
    else:
        pytest.fail("the space did not come back in 10 s")
    assert await pool.read(clone, 0, len(OLD)) == OLD


async def test_a_chain_of_clones_goes_with_its_last_one(pool):
    volumes = [await ready(pool, "one-1", content=OLD)]
    for number in range(2, 6):
        volumes.append(await cloned(pool, volumes[-1], f"one-{number}"))

    for volume in volumes[:-1]:
        await pool.backend.destroy(volume)
    assert len(pool.leaves()) == 5

    await pool.backend.destroy(volumes[-1])
    assert nothing_left(pool)


async def test_no_vm_disk_is_ever_made_the_origin_of_its_image(pool):
    image = await ready(pool, "one-1", content=OLD)
    disk = await cloned(pool, image, "one-1-3-0")
    await pool.backend.destroy(image)

    origin = run("zfs", "get", "-Hp", "-o", "value", "origin", f"{pool.dataset}/{disk.name}").strip()
    assert origin.startswith(f"{pool.dataset}/.gone-")


async def test_many_reverts_leave_no_dataset_that_has_no_snapshot(pool):
    volume = await ready(pool, "one-1", content=OLD)
    await pool.backend.snapshot(volume, "s1")
    for _ in range(4):
        await pool.write(volume, 0, NEW)
        volume = await pool.backend.revert(volume, "s1")

    assert len(pool.leaves()) == 2
    await pool.backend.destroy(volume)
    assert nothing_left(pool)


@pytest.mark.long
async def test_reverts_among_snapshots_of_several_lives_leave_nothing(pool):
    volume = await ready(pool, "one-1")
    for number in range(1, 4):
        await pool.write(volume, 0, bytes([number]) * 4096)
        await pool.backend.snapshot(volume, f"s{number}")
        volume = await pool.backend.revert(volume, "s1")
    for number in (2, 3, 1):
        volume = await pool.backend.revert(volume, f"s{number}")
        assert await pool.read(volume, 0, 4096) == bytes([number]) * 4096
    clone = await cloned(pool, volume, "one-1-3-0", snapshot="s3")

    await pool.backend.destroy(volume)
    assert await pool.read(clone, 0, 4096) == bytes([3]) * 4096
    await pool.backend.destroy(clone)

    await pool.backend.purge(0.0)
    assert nothing_left(pool)


async def test_a_deleted_snapshot_takes_what_a_revert_put_aside_along(pool):
    volume = await ready(pool, "one-1", content=OLD)
    await pool.backend.snapshot(volume, "s1")
    await pool.write(volume, 0, NEW)
    await pool.backend.snapshot(volume, "s2")
    volume = await pool.backend.revert(volume, "s1")
    volume = await pool.backend.revert(volume, "s2")
    await pool.backend.delete_snapshot(volume, "s1")

    await pool.backend.destroy(volume)

    assert nothing_left(pool)


# Devices


async def test_the_device_of_a_name_is_the_new_volumes_at_once(pool):
    volume = await ready(pool, "one-1", content=b"life 0")
    for number in range(1, 6):
        uuid = new()
        built = await pool.backend.create("one-1", uuid, MIB, IMAGE)
        await pool.write(built, 0, f"life {number}".encode())
        replaced, volume = volume, await pool.backend.publish(uuid, replace=volume.uuid)

        assert await pool.read(volume, 0, 6) == f"life {number}".encode()
        old = await pool.backend.find_uuid(replaced.uuid)
        assert await pool.read(old, 0, 6) == f"life {number - 1}".encode()


@contextlib.contextmanager
def udev_asleep():
    """Devices come and are renamed, and udev does nothing about it."""
    run("udevadm", "settle", "--timeout=60")
    run("udevadm", "control", "--stop-exec-queue")
    try:
        yield
    finally:
        run("udevadm", "control", "--start-exec-queue")


async def test_a_device_that_does_not_appear_is_waited_for_no_longer_than_said(pool):
    impatient = ZfsBackend("tank", pool.dataset, udev_s=1.0)
    with udev_asleep():
        volume = await ready(pool, "one-1")
        begun = time.monotonic()

        with pytest.raises(Stalled, match="udev"):
            await impatient.activate(volume)

        assert time.monotonic() - begun < 30
    await pool.backend.activate(volume)


async def test_a_name_that_still_leads_to_the_volume_before_is_not_taken_for_the_new_ones(pool):
    old = await ready(pool, "one-1", content=OLD)
    built = await pool.backend.create("one-1", new(), MIB, IMAGE)
    await pool.write(built, 0, NEW)
    path = await pool.backend.activate(old)
    impatient = ZfsBackend("tank", pool.dataset, udev_s=1.0)
    with udev_asleep():
        volume = await pool.backend.publish(built.uuid, replace=old.uuid)
        assert os.path.exists(path)

        with pytest.raises(Stalled):
            await impatient.activate(volume)

    assert await pool.backend.activate(volume) == path
    assert await pool.read(volume, 0, len(NEW)) == NEW


async def test_an_open_volume_is_neither_destroyed_nor_reverted_and_who_has_it_is_named(pool):
    volume = await ready(pool, "one-1", content=OLD)
    path = await pool.backend.activate(volume)
    await pool.backend.snapshot(volume, "s1")
    descriptor = os.open(path, os.O_RDWR)
    try:
        for act in (pool.backend.destroy(volume), pool.backend.revert(volume, "s1")):
            with pytest.raises(Busy, match=str(os.getpid())):
                await act
        await pool.backend.delete_snapshot(volume, "s1")
        with pytest.raises(Busy, match=str(os.getpid())):
            await pool.backend.destroy(volume)
    finally:
        os.close(descriptor)

    assert await pool.backend.find("one-1") == volume
    await pool.backend.destroy(volume)
    assert nothing_left(pool)


async def test_an_open_image_with_clones_is_busy_and_stays_where_it_is(pool):
    image = await ready(pool, "one-1", content=OLD)
    clone = await cloned(pool, image, "one-1-3-0")
    descriptor = os.open(await pool.backend.activate(image), os.O_RDONLY)
    try:
        with pytest.raises(Busy, match="open"):
            await pool.backend.destroy(image)
        await pool.backend.trash(image)
        assert await pool.backend.purge(time.time() + 1) == 0
    finally:
        os.close(descriptor)

    assert (await pool.backend.find_uuid(image.uuid)).state is State.TRASH
    assert await pool.backend.purge(time.time() + 1) == 1
    assert await pool.read(clone, 0, len(OLD)) == OLD


async def test_partitions_in_a_guests_disk_are_not_looked_for(pool):
    assert run("zfs", "get", "-H", "-o", "value", "volmode", pool.dataset).strip() == "dev"


# Other people's datasets


async def test_what_is_not_ours_is_neither_listed_nor_changed(pool):
    foreign = {f"{pool.dataset}/one-7", f"{pool.dataset}/backup", f"{pool.dataset}/.new-x"}
    for name in foreign:
        run("zfs", "create", "-s", "-V", "1M", name)
    run("zfs", "create", f"{pool.dataset}/files")
    run("zfs", "snapshot", f"{pool.dataset}/one-7@clone:{new()}", f"{pool.dataset}/backup@daily")

    successor = pool.again()
    await successor.open(AGENT, CLOUD)
    assert await successor.volumes() == []
    assert await successor.find("one-7") is None
    built = await successor.create("one-7", new(), MIB, IMAGE)
    with pytest.raises(Conflict, match="one-7"):
        await successor.publish(built.uuid)
    await successor.destroy(built)
    await successor.purge(time.time() + 1)

    assert {f"{pool.dataset}/{leaf}" for leaf in pool.leaves()} == foreign
    assert len(pool.leaves("snapshot")) == 2


async def test_a_copied_volume_is_no_second_one(pool):
    volume = await ready(pool, "one-1", content=OLD)
    path = f"{pool.dataset}/one-1"
    run("zfs", "snapshot", f"{path}@backup")
    run("sh", "-c", f"zfs send -p {path}@backup | zfs recv {pool.dataset}/one-1-copy")

    successor = pool.again()
    await successor.open(AGENT, CLOUD)

    assert await successor.volumes() == [volume]
    assert await successor.find("one-1-copy") is None
    assert await successor.snapshots(volume) == []


async def test_somebody_elses_snapshots_go_with_their_volume(pool):
    volume = await ready(pool, "one-1", content=OLD)
    run("zfs", "snapshot", f"{pool.dataset}/one-1@autosnap_2026-11-21_hourly")

    await pool.backend.destroy(volume)

    assert nothing_left(pool)


async def test_a_pool_inside_a_pool_has_an_owner_and_a_cloud_of_its_own(pool):
    await ready(pool, "one-1")
    run("zfs", "create", f"{pool.dataset}/second")
    inner = ZfsBackend("second", f"{pool.dataset}/second", udev_s=UDEV_S)

    await inner.open(OTHER_AGENT, new())
    volume = await inner.create("one-1", new(), MIB, DISK.__class__(kind="plain"))

    assert await inner.volumes() == [volume]
    assert await names(pool) == ["one-1"]
    assert await inner.serial() == 0


async def test_a_dataset_renamed_by_hand_is_found_by_its_uuid_again(pool):
    volume = await ready(pool, "one-1")
    run("zfs", "rename", f"{pool.dataset}/one-1", f"{pool.dataset}/one-9")
    assert await pool.backend.find_uuid(volume.uuid) is None
    run("zfs", "set", "io.onelun:name=one-9", f"{pool.dataset}/one-9")

    assert (await pool.backend.find_uuid(volume.uuid)).name == "one-9"


# Trouble


async def test_a_pool_that_goes_away_has_no_volumes_that_are_absent(pool):
    volume = await ready(pool, "one-1")
    run("zfs", "rename", pool.dataset, pool.dataset + "-away")
    try:
        for asked in (pool.backend.find("one-1"), pool.backend.find_uuid(volume.uuid), pool.backend.volumes()):
            with pytest.raises(CommandFailed, match="not there"):
                await asked
        with pytest.raises(NotFound, match="zfs create"):
            await pool.again().open(AGENT, CLOUD)
    finally:
        run("zfs", "rename", pool.dataset + "-away", pool.dataset)


async def test_a_reserved_volume_that_does_not_fit_is_out_of_space(pool):
    run("zfs", "set", "quota=64M", pool.dataset)
    thick = ZfsBackend("tank", pool.dataset, properties={"refreservation": "auto"}, udev_s=UDEV_S)
    await thick.open(AGENT, CLOUD)
    await thick.create("one-1", new(), 40 * MIB, IMAGE)

    with pytest.raises(OutOfSpace) as caught:
        await thick.create("one-2", new(), 40 * MIB, IMAGE)

    assert caught.value.facts["pool"] == "tank"
    assert (await thick.capacity()).free_bytes < 24 * MIB
    assert len(await thick.volumes()) == 1


async def test_configured_properties_are_given_to_new_volumes_and_clones(pool):
    backend = ZfsBackend("tank", pool.dataset, properties={"volblocksize": "64K", "compression": "zstd"}, udev_s=UDEV_S)
    await backend.open(AGENT, CLOUD)
    volume = await backend.create("one-1", new(), MIB, IMAGE)
    volume = await backend.publish(volume.uuid)
    await backend.clone(volume, "one-2", uuid := new(), MIB, DISK, silent)
    await backend.publish(uuid)

    for name in ("one-1", "one-2"):
        told = run("zfs", "get", "-Hp", "-o", "value", "volblocksize,compression", f"{pool.dataset}/{name}").split()
        assert told == ["65536", "zstd"]


# Crashes: the process ends between any two acts


@pytest.mark.long
async def test_a_crash_while_creating_leaves_a_building_volume_or_nothing(pool, monkeypatch):
    async def prepare():
        return new()

    async def act(backend, uuid):
        await backend.create("one-7", uuid, MIB, IMAGE)

    async for backend, uuid in each_crash(pool, monkeypatch, prepare, act, acts=1):
        assert await backend.find("one-7") is None
        await act(backend, uuid)
        assert (await backend.publish(uuid)).state is State.READY
        await cleared(pool, backend)


@pytest.mark.parametrize("snapshot", [None, "s1"])
@pytest.mark.long
async def test_a_crash_while_cloning_leaves_a_building_volume_or_nothing(pool, monkeypatch, snapshot):
    async def prepare():
        origin = await ready(pool, "one-7", content=OLD)
        await pool.backend.snapshot(origin, "s1")
        return origin, new()

    async def act(backend, given):
        await backend.clone(given[0], "one-7-1-0", given[1], 2 * MIB, DISK, silent, snapshot=snapshot)

    async for backend, given in each_crash(pool, monkeypatch, prepare, act, acts=1 if snapshot else 3):
        assert await backend.find("one-7") == given[0]
        assert await backend.find("one-7-1-0") is None
        await act(backend, given)
        clone = await backend.publish(given[1])
        assert await pool.read(clone, 0, len(OLD)) == OLD
        await cleared(pool, backend)


@pytest.mark.long
async def test_a_crash_while_replacing_shows_the_old_or_the_new_volume_after_it(pool, monkeypatch):
    async def prepare():
        old = await ready(pool, "one-7", content=OLD)
        return old, await pool.backend.create("one-7", new(), MIB, IMAGE)

    async def act(backend, given):
        await backend.publish(given[1].uuid, replace=given[0].uuid)

    async for backend, (old, built) in each_crash(pool, monkeypatch, prepare, act, acts=4):
        seen = await backend.find("one-7")
        assert seen.uuid in (old.uuid, built.uuid)
        assert seen.state is State.READY
        kept = await backend.find_uuid(old.uuid)
        assert kept.state is (State.READY if seen.uuid == old.uuid else State.TRASH)
        assert len(await backend.volumes()) == 2
        await act(backend, (old, built))
        assert (await backend.find("one-7")).uuid == built.uuid
        assert await pool.read(await backend.find_uuid(old.uuid), 0, len(OLD)) == OLD
        await cleared(pool, backend)


async def test_an_old_intent_to_replace_does_not_publish_what_was_given_up(pool, monkeypatch):
    old = await ready(pool, "one-7", content=OLD)
    built = await pool.backend.create("one-7", new(), MIB, IMAGE)
    run("zfs", "set", f"io.onelun:replaces={old.uuid}", f"{pool.dataset}/.new-{built.uuid}")
    successor = pool.again()
    await successor.open(AGENT, CLOUD)
    await successor.trash(old)

    await pool.again().open(AGENT, CLOUD)

    assert await successor.find("one-7") is None
    assert (await successor.find_uuid(built.uuid)).state is State.BUILDING


@pytest.mark.long
async def test_a_crash_while_trashing_loses_nothing(pool, monkeypatch):
    async def prepare():
        return await ready(pool, "one-7", content=OLD)

    async def act(backend, volume):
        await backend.trash(volume)

    async for backend, volume in each_crash(pool, monkeypatch, prepare, act, acts=2):
        assert (await backend.find_uuid(volume.uuid)).state in (State.READY, State.TRASH)
        await act(backend, volume)
        assert await backend.purge(time.time() + 1) == 1
        assert nothing_left(pool)


@pytest.mark.long
async def test_a_crash_while_destroying_an_image_with_clones_leaves_them_whole(pool, monkeypatch):
    async def prepare():
        image = await ready(pool, "one-7", content=OLD)
        await pool.backend.snapshot(image, "s1")
        image = await pool.backend.revert(image, "s1")
        return image, await cloned(pool, image, "one-7-1-0"), await cloned(pool, image, "one-7-1-1", snapshot="s1")

    async def act(backend, given):
        await backend.destroy(given[0])

    async for backend, given in each_crash(pool, monkeypatch, prepare, act, acts=5):
        await act(backend, given)
        assert await names(pool) == ["one-7-1-0", "one-7-1-1"]
        for clone in given[1:]:
            assert await pool.read(clone, 0, len(OLD)) == OLD
            await backend.destroy(clone)
        await backend.purge(0.0)
        assert nothing_left(pool)


@pytest.mark.long
async def test_a_crash_while_reverting_gives_the_old_or_the_new_content_and_all_snapshots(pool, monkeypatch):
    async def prepare():
        volume = await ready(pool, "one-7", content=OLD)
        await pool.backend.snapshot(volume, "s1")
        await pool.write(volume, 0, NEW)
        await pool.backend.snapshot(volume, "s2")
        return volume

    async def act(backend, volume):
        await backend.revert(volume, "s1")

    async for backend, volume in each_crash(pool, monkeypatch, prepare, act, acts=4):
        assert await backend.find("one-7") == volume
        assert await pool.read(volume, 0, len(OLD)) in (OLD, NEW)
        assert [snapshot.name for snapshot in await backend.snapshots(volume)] == ["s1", "s2"]
        await act(backend, volume)
        assert await pool.read(volume, 0, len(OLD)) == OLD
        await backend.revert(volume, "s2")
        assert await pool.read(volume, 0, len(OLD)) == NEW
        await cleared(pool, backend)


@pytest.mark.long
async def test_a_crash_while_deleting_a_snapshot_leaves_its_clone_and_its_name_free(pool, monkeypatch):
    async def prepare():
        volume = await ready(pool, "one-7", content=OLD)
        await pool.backend.snapshot(volume, "s1")
        return volume, await cloned(pool, volume, "one-7-1-0", snapshot="s1")

    async def act(backend, given):
        await backend.delete_snapshot(given[0], "s1")

    async for backend, given in each_crash(pool, monkeypatch, prepare, act, acts=3):
        await act(backend, given)
        assert await backend.snapshots(given[0]) == []
        await backend.snapshot(given[0], "s1")
        assert await pool.read(given[1], 0, len(OLD)) == OLD
        await cleared(pool, backend)


_KILLED = """
import asyncio, sys
from onelun.model import Kind, Owner
from onelun.nas.backends.zfs.backend import ZfsBackend
import uuid

async def main(dataset, agent, cloud, origin):
    backend = ZfsBackend("tank", dataset)
    await backend.open(agent, cloud)
    origin = await backend.find_uuid(origin)
    owner = Owner(kind=Kind.DISK, cloud=cloud)

    async def life(number):
        while True:
            made = str(uuid.uuid4())
            await backend.clone(origin, f"one-1-{number}-0", made, origin.size_bytes, owner, lambda *_: None)
            volume = await backend.publish(made)
            await backend.snapshot(volume, "s1")
            await backend.revert(volume, "s1")
            await backend.trash(volume)
            await backend.destroy(volume)

    print("begun", flush=True)
    await asyncio.gather(*(life(number) for number in range(8)))

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.long
async def test_an_agent_killed_in_the_middle_of_many_steps_leaves_nothing_that_is_not_cleared_away(pool):
    origin = await ready(pool, "one-1", content=OLD)
    for seconds in (3.0, 5.5):
        agent = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", _KILLED, pool.dataset, AGENT, CLOUD, origin.uuid),
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        try:
            assert await asyncio.wait_for(agent.stdout.readline(), 120) == b"begun\n"
            await asyncio.sleep(seconds)
        finally:
            os.killpg(agent.pid, signal.SIGKILL)
            await agent.wait()

        successor = pool.again()
        await successor.open(AGENT, CLOUD)
        assert await successor.find("one-1") == origin
        for volume in await successor.volumes():
            if volume.uuid != origin.uuid:
                await successor.destroy(volume)
        await successor.purge(0.0)
        assert pool.leaves() == ["one-1"]
        assert pool.leaves("snapshot") == []
    assert await pool.read(origin, 0, len(OLD)) == OLD


async def test_a_reverted_volume_of_a_pool_that_reserves_has_its_size_reserved(pool):
    backend = ZfsBackend("tank", pool.dataset, properties={"refreservation": "auto"}, udev_s=UDEV_S)
    await backend.open(AGENT, CLOUD)
    built = await backend.create("one-1", new(), 8 * MIB, IMAGE)
    volume = await backend.publish(built.uuid)
    await backend.snapshot(volume, "s1")

    await backend.revert(volume, "s1")

    told = run("zfs", "get", "-Hp", "-t", "volume", "-d", "1", "-o", "name,value", "refreservation", pool.dataset)
    reserved = {line.split()[0].rpartition("/")[2]: int(line.split()[1]) for line in told.splitlines()}
    assert reserved.pop("one-1") >= 8 * MIB
    assert list(reserved.values()) == [0]
    await backend.destroy(volume)
    assert nothing_left(pool)


# Attributes


def told_of(pool, name):
    """What ZFS says of how the volume of that name is kept."""
    columns = ("volblocksize", "compression", "refreservation")
    path = f"{pool.dataset}/{name}"
    values = run("zfs", "get", "-Hp", "-o", "value", ",".join(columns), path).split()
    return dict(zip(columns, values, strict=True))


async def test_the_attributes_of_a_volume_win_over_its_pool_s_properties(pool):
    backend = ZfsBackend("tank", pool.dataset, properties={"volblocksize": "32K", "compression": "gzip"}, udev_s=UDEV_S)
    await backend.open(AGENT, CLOUD)
    thick = Attributes(volblocksize_bytes=64 << 10, compression="lz4", provisioning=Provisioning.THICK)
    volumes = {}
    for name, attributes in (("one-1", thick), ("one-2", Attributes())):
        built = await backend.create(name, new(), 8 * MIB, IMAGE, attributes)
        volumes[name] = await backend.publish(built.uuid)

    off = Attributes(volblocksize_bytes=64 << 10, compression="off", provisioning=Provisioning.THIN)
    uuid = new()
    await backend.clone(volumes["one-1"], "one-1-3-0", uuid, 8 * MIB, DISK, silent, attributes=off)
    await backend.publish(uuid)
    await backend.snapshot(volumes["one-1"], "s1")
    await backend.revert(volumes["one-1"], "s1")
    await backend.grow(await backend.find("one-1"), 16 * MIB)

    told = {name: told_of(pool, name) for name in ("one-1", "one-2", "one-1-3-0")}
    assert int(told["one-1"].pop("refreservation")) >= 16 * MIB
    assert told["one-1"] == {"volblocksize": "65536", "compression": "lz4"}
    assert told["one-2"] == {"volblocksize": "32768", "compression": "gzip", "refreservation": "0"}
    assert told["one-1-3-0"] == {"volblocksize": "65536", "compression": "off", "refreservation": "0"}
    await cleared(pool, backend)


async def test_a_volume_of_a_pool_that_reserves_may_be_thin(pool):
    backend = ZfsBackend("tank", pool.dataset, properties={"refreservation": "auto"}, udev_s=UDEV_S)
    await backend.open(AGENT, CLOUD)

    await backend.create("one-1", new(), 8 * MIB, IMAGE, Attributes(provisioning=Provisioning.THIN))

    (leaf,) = pool.leaves()
    assert told_of(pool, leaf)["refreservation"] == "0"


async def test_discarding_is_the_zpool_s_to_do(pool):
    discard = Attributes(wipe=Wipe.DISCARD)
    with pytest.raises(Rejected, match=rf"ONELUN_WIPE=discard .* run zpool set autotrim=on {pool.zpool}, or use none"):
        await pool.backend.accept(discard)

    run("zpool", "set", "autotrim=on", pool.zpool)
    try:
        await pool.backend.accept(discard)
        image = await ready(pool, "one-1", attributes=discard)
        await pool.backend.trash(image)
        assert await pool.backend.purge(time.time() + 60) == 1
    finally:
        run("zpool", "set", "autotrim=off", pool.zpool)
    assert nothing_left(pool)
