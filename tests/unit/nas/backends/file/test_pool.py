"""What only a pool of files can meet: foreign things in its directory, a full disk, a crash between two system calls."""

import asyncio
import errno
import json
import logging
import os
import stat
import threading
import uuid as uuids
from functools import partial

import msgspec
import pytest
from tests.support.crashes import each_crash
from tests.support.filesystems import mounted

from onelun.ending import to_its_end
from onelun.errors import CommandFailed, Conflict, NotFound, OutOfSpace, Rejected
from onelun.model import Kind, Owner, State
from onelun.nas.backends.file import backend as filebackend
from onelun.nas.backends.file import building as filebuilding
from onelun.nas.backends.file import names as filenames
from onelun.nas.backends.file import sidecar
from onelun.nas.backends.file.backend import FileBackend
from onelun.nas.backends.file.directory import PoolDirectory
from onelun.nas.backends.file.pool import FilePool

MIB = 1 << 20
AGENT = "0b6a4e0e-57a1-4d7c-9a64-4d9d5f1d7a10"
PLAIN = Owner(kind=Kind.PLAIN)


@pytest.fixture
def path(tmp_path):
    directory = tmp_path / "tank"
    directory.mkdir()
    return directory


@pytest.fixture
def pool(path):
    return opened(path)


def opened(path):
    directory = PoolDirectory("tank", str(path))
    directory.open(AGENT, None)
    pool = FilePool(directory)
    pool.finish()
    return pool


def new():
    return str(uuids.uuid4())


def later(volume):
    return msgspec.structs.replace(volume, last_epoch=9)


def ready(pool, name, content=b"", size=MIB):
    uuid = new()
    pool.building.create(name, uuid, size, PLAIN)
    (data,) = (
        os.path.join(pool._directory.path, d, "data") for d in os.listdir(pool._directory.path) if d.endswith(uuid)
    )
    with open(data, "r+b") as file:
        file.write(content)
    return pool.building.publish(uuid, None)


def clone(pool, origin, name, uuid, size=MIB):
    return pool.building.clone(origin, name, uuid, size, PLAIN, lambda done, total: None, threading.Event())


# Foreign things


def test_a_directory_without_readable_facts_is_named_once_and_left_alone(pool, path, caplog):
    (path / "one-7").mkdir()
    (path / "one-7" / "data").write_bytes(b"precious")
    (path / "one-8").mkdir()
    (path / "one-8" / "volume.json").write_text("{not json")

    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert pool.volumes() == []

    assert [record.getMessage().count("one-7") for record in caplog.records].count(1) == 1
    assert [record.getMessage().count("one-8") for record in caplog.records].count(1) == 1
    assert (path / "one-7" / "data").read_bytes() == b"precious"


def test_what_holds_a_name_and_is_no_volume_of_ours_keeps_it(pool, path):
    (path / "one-7").mkdir()
    (path / "one-7" / "data").write_bytes(b"precious")
    uuid = new()
    pool.building.create("one-7", uuid, MIB, PLAIN)

    with pytest.raises(Conflict, match="no volume of ours"):
        pool.building.publish(uuid, None)

    assert (path / "one-7" / "data").read_bytes() == b"precious"
    assert pool.find_uuid(uuid).state is State.BUILDING


def test_a_copy_of_a_volume_made_by_hand_is_not_ours(pool, path):
    volume = ready(pool, "one-7", b"content")
    os.system(f"cp -a {path}/one-7 {path}/one-8")

    assert pool.volumes() == [volume]
    pool.destroy(volume)

    assert pool.volumes() == []
    assert (path / "one-8" / "data").read_bytes()[:7] == b"content"


def test_lost_and_found_and_files_of_people_are_not_looked_at(pool, path, caplog):
    (path / "lost+found").mkdir()
    (path / "README").write_text("mine")
    (path / "notes").write_text("mine")

    assert pool.volumes() == []
    opened(path)

    assert (path / "README").read_text() == "mine"
    assert (path / "notes").read_text() == "mine"


def test_a_symbolic_link_to_a_directory_is_no_volume(pool, path, tmp_path):
    volume = ready(pool, "one-7", b"content")
    os.rename(path / "one-7", tmp_path / "outside")
    os.symlink(tmp_path / "outside", path / "one-7")

    assert pool.find("one-7") is None
    pool.destroy(volume)

    assert (tmp_path / "outside" / "data").exists()


def test_a_symbolic_link_in_place_of_the_data_is_not_followed(pool, path, tmp_path):
    volume = ready(pool, "one-7")
    (tmp_path / "outside").write_bytes(b"secret" * 100)
    os.unlink(path / "one-7" / "data")
    os.symlink(tmp_path / "outside", path / "one-7" / "data")

    with pytest.raises(CommandFailed):
        clone(pool, volume, "one-8", new())
    with pytest.raises(CommandFailed):
        pool.grow(volume, 2 * MIB)
    pool.destroy(volume)

    assert (tmp_path / "outside").read_bytes() == b"secret" * 100
    assert pool.volumes() == []


def test_a_named_pipe_in_place_of_the_data_does_not_hang(pool, path):
    volume = ready(pool, "one-7")
    os.unlink(path / "one-7" / "data")
    os.mkfifo(path / "one-7" / "data")

    with pytest.raises(Rejected, match="no regular file"):
        clone(pool, volume, "one-8", new())


def test_a_symbolic_link_in_place_of_the_facts_is_not_followed(pool, path, tmp_path):
    volume = ready(pool, "one-7")
    os.rename(path / "one-7" / "volume.json", tmp_path / "facts")
    os.symlink(tmp_path / "facts", path / "one-7" / "volume.json")

    assert pool.find_uuid(volume.uuid) is None


def test_a_file_of_somebody_else_in_a_volume_survives_its_destruction(pool, path):
    volume = ready(pool, "one-7")
    (path / "one-7" / "notes").write_text("mine")

    pool.destroy(volume)

    assert pool.find_uuid(volume.uuid) is None
    assert [left.read_text() for left in path.glob(".gone-*/notes")] == ["mine"]
    assert not list(path.glob(".gone-*/data"))


def test_a_damaged_file_of_the_pool_is_not_taken_for_a_new_pool(pool, path):
    (path / ".pool.json").write_text("")

    with pytest.raises(CommandFailed, match="restore"):
        opened(path)


# The pool's directory


def test_an_absent_pool_is_not_found(tmp_path):
    with pytest.raises(NotFound, match="no directory"):
        opened(tmp_path / "absent")
    (tmp_path / "file").write_text("")
    with pytest.raises(NotFound, match="no directory"):
        opened(tmp_path / "file")


def test_an_open_pool_that_goes_away_is_not_taken_for_one_without_volumes(pool, path):
    volume = ready(pool, "one-7")
    os.rename(path, str(path) + "-unmounted")

    def ask():
        for question in (pool.volumes, lambda: pool.find("one-7"), lambda: pool.find_uuid(volume.uuid)):
            with pytest.raises(CommandFailed, match="gone"):
                question()
        with pytest.raises(CommandFailed, match="gone"):
            pool.building.create("one-8", new(), MIB, PLAIN)

    ask()
    path.mkdir()
    ask()

    assert os.listdir(path) == []


def test_a_pool_may_be_named_by_a_symbolic_link(path, tmp_path):
    os.symlink(path, tmp_path / "link")

    ready(opened(tmp_path / "link"), "one-7")

    assert (path / "one-7" / "data").exists()


def test_only_the_agent_can_read_volumes(pool, path):
    os.umask(0)
    try:
        volume = ready(pool, "one-7", b"content")
        pool.trash(ready(pool, "one-8"))
    finally:
        os.umask(0o022)

    for directory, _, files in os.walk(path):
        assert directory == str(path) or stat.S_IMODE(os.stat(directory).st_mode) == 0o700
        for name in files:
            assert stat.S_IMODE(os.stat(os.path.join(directory, name)).st_mode) == 0o600
    assert volume.size_bytes == MIB


def test_a_read_only_pool_is_refused(tmp_path):
    with mounted("ext4", tmp_path) as place:
        os.system(f"mount -o remount,ro {place}")

        with pytest.raises(Rejected, match="writable"):
            opened(place)


def test_the_facts_are_json_that_a_person_can_read(pool, path):
    volume = ready(pool, "one-7")

    facts = json.loads((path / "one-7" / "volume.json").read_text())

    assert facts["volume"]["uuid"] == volume.uuid
    assert facts["volume"]["owner"] == {"kind": "plain"}
    assert json.loads((path / ".pool.json").read_text())["owner"] == AGENT


def test_facts_of_a_newer_release_are_read(pool, path):
    ready(pool, "one-7")
    facts = json.loads((path / "one-7" / "volume.json").read_text())
    facts["volume"]["colour"] = "blue"
    (path / "one-7" / "volume.json").write_text(json.dumps(facts))

    assert pool.find("one-7") is not None


# A full disk


def test_a_disk_full_half_way_through_a_copy_leaves_nothing(tmp_path):
    with mounted("ext4", tmp_path) as place:
        pool = opened(place)
        origin = ready(pool, "one-7", os.urandom(80 * MIB), size=128 * MIB)
        free = pool._directory.capacity().free_bytes
        (place / "filler").write_bytes(bytes(free - 40 * MIB))
        os.sync()

        with pytest.raises(OutOfSpace, match="full"):
            clone(pool, origin, "one-7-1-0", new(), 128 * MIB)

        assert pool.volumes() == [origin]
        assert sorted(os.listdir(place)) == [".pool.json", "filler", "lost+found", "one-7"]
        os.unlink(place / "filler")
        clone(pool, origin, "one-7-1-0", new(), 128 * MIB)


def test_facts_that_do_not_fit_leave_the_old_ones(pool, path, monkeypatch):
    volume = ready(pool, "one-7")

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(sidecar.os, "fsync", full)
    with pytest.raises(OutOfSpace):
        pool.record("one-7", volume.uuid, later)
    monkeypatch.undo()

    assert pool.find("one-7") == volume


# Crashes: the process ends between any two changes of the disk


def no_leftovers(pool):
    """After everything is destroyed, nothing but the pool's own facts is there."""
    for volume in pool.volumes():
        pool.destroy(volume)
    assert pool.volumes() == []
    assert os.listdir(pool._directory.path) == [".pool.json"]


def test_a_crash_while_creating_leaves_a_building_volume_or_nothing(path, monkeypatch):
    uuid = new()

    def act(pool, given):
        pool.building.create("one-7", uuid, MIB, PLAIN)

    for pool, _ in each_crash(path, monkeypatch, opened, lambda pool: None, act):
        assert pool.find("one-7") is None
        assert all(volume.state is State.BUILDING for volume in pool.volumes())
        pool.building.create("one-7", uuid, MIB, PLAIN)
        assert os.path.getsize(os.path.join(pool._directory.path, f".new-{uuid}", "data")) == MIB
        pool.building.publish(uuid, None)
        no_leftovers(pool)


def test_a_crash_while_cloning_leaves_a_building_volume_or_nothing(path, monkeypatch):
    uuid = new()

    def act(pool, origin):
        clone(pool, origin, "one-7-1-0", uuid, 2 * MIB)

    for pool, origin in each_crash(path, monkeypatch, opened, lambda pool: ready(pool, "one-7", b"content"), act):
        assert pool.find("one-7") == origin
        assert pool.find("one-7-1-0") is None
        act(pool, origin)
        made = pool.building.publish(uuid, None)
        with open(os.path.join(pool._directory.path, made.name, "data"), "rb") as data:
            assert data.read(7) == b"content"
        no_leftovers(pool)


def test_a_crash_while_publishing_shows_nothing_or_the_whole_volume(path, monkeypatch):
    def prepare(pool):
        return pool.building.create("one-7", new(), MIB, PLAIN)

    for pool, built in each_crash(
        path, monkeypatch, opened, prepare, lambda pool, built: pool.building.publish(built.uuid, None)
    ):
        seen = pool.find("one-7")
        assert seen is None or (seen.uuid == built.uuid and seen.state is State.READY)
        assert pool.find_uuid(built.uuid) is not None
        assert pool.building.publish(built.uuid, None).state is State.READY
        no_leftovers(pool)


def test_a_crash_while_replacing_shows_the_old_or_the_new_volume_always(path, monkeypatch):
    def prepare(pool):
        old = ready(pool, "one-7", b"old")
        return old, pool.building.create("one-7", new(), MIB, PLAIN)

    def act(pool, given):
        pool.building.publish(given[1].uuid, given[0].uuid)

    for pool, (old, built) in each_crash(path, monkeypatch, opened, prepare, act):
        seen = pool.find("one-7")
        assert seen.uuid in (old.uuid, built.uuid)
        assert seen.state is State.READY
        assert pool.find_uuid(old.uuid).state is (State.READY if seen.uuid == old.uuid else State.TRASH)
        assert len(pool.volumes()) == 2
        act(pool, (old, built))
        assert pool.find("one-7").uuid == built.uuid
        with open(os.path.join(pool._directory.path, f".trash-{old.uuid}", "data"), "rb") as data:
            assert data.read(3) == b"old"
        no_leftovers(pool)


def test_a_crash_while_trashing_loses_nothing(path, monkeypatch):
    for pool, volume in each_crash(
        path, monkeypatch, opened, lambda pool: ready(pool, "one-7"), lambda pool, volume: pool.trash(volume)
    ):
        assert pool.find_uuid(volume.uuid).state in (State.READY, State.TRASH)
        pool.trash(volume)
        assert pool.purge(2**40) == 1
        no_leftovers(pool)


def test_a_crash_while_destroying_leaves_the_whole_volume_or_none(path, monkeypatch):
    for pool, volume in each_crash(
        path,
        monkeypatch,
        opened,
        lambda pool: ready(pool, "one-7", b"content"),
        lambda pool, volume: pool.destroy(volume),
    ):
        seen = pool.find_uuid(volume.uuid)
        if seen is not None:
            with open(os.path.join(pool._directory.path, "one-7", "data"), "rb") as data:
                assert data.read(7) == b"content"
        pool.destroy(volume)
        no_leftovers(pool)


def test_a_crash_while_growing_gives_one_of_both_sizes_to_data_and_facts_alike(path, monkeypatch):
    for pool, volume in each_crash(
        path, monkeypatch, opened, lambda pool: ready(pool, "one-7"), lambda pool, volume: pool.grow(volume, 2 * MIB)
    ):
        seen = pool.find("one-7")
        assert seen.size_bytes in (MIB, 2 * MIB)
        assert os.path.getsize(os.path.join(pool._directory.path, "one-7", "data")) == seen.size_bytes
        assert pool.grow(volume, 2 * MIB).size_bytes == 2 * MIB
        no_leftovers(pool)


def test_a_crash_while_recording_gives_the_old_or_the_new_facts(path, monkeypatch):
    def act(pool, volume):
        pool.record("one-7", volume.uuid, later)

    for pool, volume in each_crash(path, monkeypatch, opened, lambda pool: ready(pool, "one-7"), act):
        assert pool.find("one-7").last_epoch in (0, 9)
        act(pool, volume)
        assert pool.find("one-7").last_epoch == 9
        no_leftovers(pool)


# Cancelling


async def test_a_cancelled_step_goes_on_behind_nobody(path, monkeypatch):
    backend = FileBackend("tank", str(path))
    await backend.open(AGENT, None)
    built = await backend.create("one-7", new(), MIB, PLAIN)
    entered = threading.Event()
    go_on = threading.Event()
    show = filebuilding.rename_new

    def slowly(*args, **kwargs):
        entered.set()
        go_on.wait(60)
        show(*args, **kwargs)

    monkeypatch.setattr(filebuilding, "rename_new", slowly)
    publishing = asyncio.create_task(backend.publish(built.uuid))
    await asyncio.to_thread(entered.wait, 60)
    publishing.cancel()
    await asyncio.sleep(0.1)
    assert not publishing.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await publishing

    assert (await backend.find("one-7")).state is State.READY


async def test_a_step_that_no_thread_has_begun_when_its_caller_is_gone_never_begins(path, monkeypatch):
    monkeypatch.setattr(filebackend, "to_its_end", partial(to_its_end, wait_s=0.05))
    backend = FileBackend("tank", str(path))
    await backend.open(AGENT, None)
    built = await backend.create("one-7", new(), MIB, PLAIN)
    go_on = threading.Event()
    for _ in range(backend._threads._max_workers):
        backend._threads.submit(go_on.wait, 10)

    publishing = asyncio.create_task(backend.publish(built.uuid))
    await asyncio.sleep(0)
    publishing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await publishing
    go_on.set()
    await asyncio.to_thread(backend._threads.shutdown)

    assert (await FileBackend("tank", str(path)).find_uuid(built.uuid)).state is State.BUILDING


def test_only_names_of_ours_are_taken_for_volumes(pool, path):
    for name in (f"{filenames.TRASH}x", f"{filenames.NEW}x", f"{filenames.GONE}x", ".snapshot"):
        (path / name).mkdir()
        (path / name / "data").write_bytes(b"precious")

    opened(path)

    assert pool.volumes() == []
    assert len(list(path.glob(".*/data"))) == 4


def test_a_replaced_volume_goes_to_the_trash_also_when_the_disk_fails_right_after(pool, path, monkeypatch):
    old, uuid = ready(pool, "one-7"), new()
    pool.building.create("one-7", uuid, MIB, PLAIN)
    fsync = os.fsync

    def failing(file):
        # From the exchange on the name has the new volume.
        if os.stat(path / "one-7" / "data").st_ino == new_inode and os.path.samestat(os.fstat(file), os.stat(path)):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        fsync(file)

    new_inode = os.stat(path / f".new-{uuid}" / "data").st_ino
    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(CommandFailed):
        pool.building.publish(uuid, old.uuid)

    assert sorted(name for name in os.listdir(path) if name.startswith((".new-", ".trash-"))) == [f".trash-{old.uuid}"]
