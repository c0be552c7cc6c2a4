"""Snapshots of a pool of files, where only files can go wrong: crashes, foreign files, a copy under somebody's writes."""

import errno
import os
import threading

import msgspec
import pytest
from tests.support.crashes import each_crash
from tests.support.filesystems import mounted
from tests.support.pools import AGENT, MIB, new

from onelun.errors import Busy, Cancelled, CommandFailed, OutOfSpace, Rejected
from onelun.model import Kind, Owner
from onelun.nas.backends.file import sidecar
from onelun.nas.backends.file import snapshots as filesnapshots
from onelun.nas.backends.file.directory import PoolDirectory
from onelun.nas.backends.file.mounts import unmounted
from onelun.nas.backends.file.pool import FilePool

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


def later(volume):
    return msgspec.structs.replace(volume, last_epoch=9)


def ready(pool, content=b"", *, name="one-7", size=MIB):
    uuid = new()
    pool.building.create(name, uuid, size, PLAIN)
    write(pool, f".new-{uuid}", content)
    return pool.building.publish(uuid, None)


def write(pool, directory, content):
    with open(f"{pool._directory.path}/{directory}/data", "r+b") as file:
        file.write(content)


def read(pool, length=3, *, file="data"):
    with open(f"{pool._directory.path}/one-7/{file}", "rb") as data:
        return data.read(length)


def take(pool, volume, name, stop=None):
    return pool.snapshots.make(volume, name, stop or threading.Event())


def revert(pool, volume, name):
    return pool.snapshots.revert(volume, name, threading.Event())


def files(pool):
    return sorted(os.listdir(f"{pool._directory.path}/one-7"))


def names(pool, volume):
    return [snapshot.name for snapshot in pool.snapshots.listed(volume)]


def grown_since(pool):
    """A volume of 2 MiB with `new` in it, and its snapshot `s1` of when it had 1 MiB and `old`."""
    volume = ready(pool, b"old")
    take(pool, volume, "s1")
    grown = pool.grow(volume, 2 * MIB)
    write(pool, "one-7", b"new")
    return grown


# Crashes


def test_a_crash_while_taking_a_snapshot_leaves_a_whole_one_or_none(path, monkeypatch):
    for pool, volume in each_crash(
        path, monkeypatch, opened, lambda pool: ready(pool, b"old"), lambda pool, volume: take(pool, volume, "s1")
    ):
        assert files(pool) in (
            ["data", "volume.json"],
            ["data", "snapshot-s1.data", "snapshot-s1.json", "volume.json"],
        )
        write(pool, "one-7", b"new")
        taken = names(pool, volume)
        take(pool, volume, "s1")
        assert read(pool, file="snapshot-s1.data") == (b"old" if taken else b"new")
        gone(pool, volume)


def test_a_crash_while_reverting_leaves_the_volume_as_it_was_or_as_it_becomes(path, monkeypatch):
    seen = set()
    for pool, volume in each_crash(
        path, monkeypatch, opened, grown_since, lambda pool, volume: revert(pool, volume, "s1")
    ):
        now = pool.find("one-7")
        state = (now.size_bytes, os.path.getsize(f"{pool._directory.path}/one-7/data"), read(pool))
        assert state in ((2 * MIB, 2 * MIB, b"new"), (MIB, MIB, b"old"))
        seen.add(state)
        assert files(pool) == ["data", "snapshot-s1.data", "snapshot-s1.json", "volume.json"]
        assert revert(pool, volume, "s1").size_bytes == MIB
        assert read(pool) == b"old"
        gone(pool, volume)
    assert len(seen) == 2


def test_after_a_crash_while_reverting_no_step_meets_a_half_reverted_volume(path, monkeypatch):
    """Whatever comes first, also without the agent's start in between, as after an error of the disk."""
    steps = {
        "grow": lambda pool, volume: pool.grow(volume, 4 * MIB),
        "record": lambda pool, volume: pool.record("one-7", volume.uuid, later),
        "snapshot": lambda pool, volume: take(pool, volume, "s2"),
        "clone": lambda pool, volume: pool.building.clone(
            volume, "one-8", new(), 4 * MIB, PLAIN, lambda done, total: None, threading.Event()
        ),
        "activate": lambda pool, volume: pool.activate(volume),
        "trash": lambda pool, volume: pool.trash(volume),
    }
    for name, step in steps.items():
        (path / name).mkdir()
        for pool, volume in each_crash(
            path / name,
            monkeypatch,
            opened,
            grown_since,
            lambda pool, volume: revert(pool, volume, "s1"),
            reopened=unfinished,
        ):
            step(pool, volume)
            found = pool.find_uuid(volume.uuid)
            directory = "one-7" if name != "trash" else f".trash-{volume.uuid}"
            data = f"{pool._directory.path}/{directory}/data"
            assert os.path.getsize(data) == found.size_bytes, name
            with open(data, "rb") as file:
                content = file.read(3)
            wholes = {2 * MIB: (b"new",), MIB: (b"old",), 4 * MIB: (b"new", b"old")}
            assert content in wholes[found.size_bytes], name


def unfinished(path):
    """The pool, opened without what a start finishes."""
    directory = PoolDirectory("tank", str(path))
    directory.open(AGENT, None)
    return FilePool(directory)


def test_a_crash_while_deleting_a_snapshot_leaves_a_whole_one_or_none(path, monkeypatch):
    for pool, volume in each_crash(
        path, monkeypatch, opened, grown_since, lambda pool, volume: pool.snapshots.remove(volume, "s1")
    ):
        if names(pool, volume):
            assert revert(pool, volume, "s1").size_bytes == MIB
            assert read(pool) == b"old"
        pool.snapshots.remove(volume, "s1")
        assert files(pool) == ["data", "volume.json"]
        gone(pool, volume)


def test_a_crash_while_destroying_a_volume_with_snapshots_leaves_all_or_nothing(path, monkeypatch):
    for pool, volume in each_crash(path, monkeypatch, opened, grown_since, lambda pool, volume: pool.destroy(volume)):
        if pool.find_uuid(volume.uuid) is not None:
            assert read(pool) == b"new"
            assert names(pool, volume) == ["s1"]
        gone(pool, volume)


def gone(pool, volume):
    pool.destroy(volume)
    assert pool.volumes() == []
    assert os.listdir(pool._directory.path) == [".pool.json"]


# Errors of the disk


@pytest.mark.parametrize("call", ["rename", "fsync"])
def test_a_revert_that_failed_is_not_done_at_the_next_start(pool, path, monkeypatch, call):
    volume = grown_since(pool)
    real = getattr(os, call)

    def broken(*args, **kwargs):
        if call == "fsync" or args[1] == "data":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(*args, **kwargs)

    monkeypatch.setattr(filesnapshots.os, call, broken)
    with pytest.raises(CommandFailed):
        revert(pool, volume, "s1")
    monkeypatch.undo()

    again = opened(path)
    assert again.find("one-7") == volume
    assert read(again) == b"new"
    assert files(again) == ["data", "snapshot-s1.data", "snapshot-s1.json", "volume.json"]


def test_a_snapshot_whose_facts_do_not_fit_leaves_nothing(pool, monkeypatch):
    volume = ready(pool)

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(sidecar.os, "rename", full)
    with pytest.raises(OutOfSpace):
        take(pool, volume, "s1")
    monkeypatch.undo()

    assert names(pool, volume) == []
    assert files(pool) == ["data", "volume.json"]


def test_a_disk_full_half_way_through_a_copied_snapshot_leaves_nothing(tmp_path):
    with mounted("ext4", tmp_path) as place:
        pool = opened(place)
        volume = ready(pool, os.urandom(60 * MIB), size=64 * MIB)
        filler = pool._directory.capacity().free_bytes - 30 * MIB
        (place / "filler").write_bytes(bytes(filler))

        with pytest.raises(OutOfSpace):
            take(pool, volume, "s1")

        assert files(pool) == ["data", "volume.json"]
        (place / "filler").unlink()
        assert take(pool, volume, "s1").used_bytes >= 60 * MIB


# Writers


def test_a_copied_snapshot_under_somebodys_writes_is_busy_and_leaves_nothing(tmp_path, monkeypatch):
    with mounted("ext4", tmp_path) as place:
        pool = opened(place)
        volume = ready(pool, os.urandom(40 * MIB), size=40 * MIB)

        copy = filesnapshots.copy_sparse

        def copy_and_write(*args):
            copy(*args)
            write(pool, "one-7", os.urandom(4096))

        with monkeypatch.context() as patched:
            patched.setattr(filesnapshots, "copy_sparse", copy_and_write)
            with pytest.raises(Busy, match="VM is off"):
                take(pool, volume, "s1")

        assert names(pool, volume) == []
        assert files(pool) == ["data", "volume.json"]
        assert take(pool, volume, "s1").name == "s1"


def test_a_shared_snapshot_under_somebodys_writes_is_of_one_moment(tmp_path):
    with mounted("xfs", tmp_path) as place:
        pool = opened(place)
        volume = ready(pool, size=8 * MIB)
        ended = threading.Event()

        def writing():
            # Each turn writes its number at the beginning, then at the end: a moment never has a younger end than beginning.
            with open(f"{place}/one-7/data", "r+b", buffering=0) as data:
                turn = 0
                while not ended.is_set():
                    turn += 1
                    for offset in (0, 8 * MIB - 4096):
                        data.seek(offset)
                        data.write(turn.to_bytes(8, "big"))

        writer = threading.Thread(target=writing)
        writer.start()
        try:
            for number in range(20):
                take(pool, volume, f"s{number}")
        finally:
            ended.set()
            writer.join()

        for number in range(20):
            with open(f"{place}/one-7/snapshot-s{number}.data", "rb") as data:
                first = int.from_bytes(data.read(8), "big")
                data.seek(8 * MIB - 4096)
                assert 0 <= first - int.from_bytes(data.read(8), "big") <= 1


def test_a_cancelled_snapshot_leaves_nothing(tmp_path):
    with mounted("ext4", tmp_path) as place:
        pool = opened(place)
        volume = ready(pool, os.urandom(30 * MIB), size=32 * MIB)
        stop = threading.Event()
        stop.set()

        with pytest.raises(Cancelled):
            take(pool, volume, "s1", stop)

        assert files(pool) == ["data", "volume.json"]


# Foreign things


def test_a_person_reads_the_facts_of_a_snapshot(pool, path):
    volume = ready(pool)
    take(pool, volume, "s1")

    text = (path / "one-7" / "snapshot-s1.json").read_text()

    assert '"name": "s1"' in text
    assert f'"size_bytes": {MIB}' in text


def test_names_that_look_like_our_own_files_are_names(pool):
    volume = ready(pool, b"old")
    for name in ("a.json", "a", "a.data", "a.json.new", "data"):
        take(pool, volume, name)

    assert sorted(names(pool, volume)) == ["a", "a.data", "a.json", "a.json.new", "data"]
    opened(pool._directory.path)
    assert len(names(pool, volume)) == 5
    for name in ("a.json", "a", "a.data", "a.json.new"):
        pool.snapshots.remove(volume, name)
    assert names(pool, volume) == ["data"]
    gone(pool, volume)


def test_files_of_people_beside_the_data_stay(pool, path):
    volume = ready(pool)
    for name in ("revert-notes", "snapshot.txt", "snapshots"):
        (path / "one-7" / name).write_text("mine")

    opened(path)
    pool.destroy(volume)

    assert sorted(left.name for left in path.glob(".gone-*/*")) == ["revert-notes", "snapshot.txt", "snapshots"]


def test_a_symbolic_link_in_place_of_a_snapshot_is_not_followed(pool, path, tmp_path):
    volume = ready(pool, b"old")
    take(pool, volume, "s1")
    (tmp_path / "outside").write_bytes(b"secret" * 100)
    os.unlink(path / "one-7" / "snapshot-s1.data")
    os.symlink(tmp_path / "outside", path / "one-7" / "snapshot-s1.data")

    for step in (
        lambda: revert(pool, volume, "s1"),
        lambda: pool.snapshots.listed(volume),
        lambda: pool.building.clone(volume, "x", new(), MIB, PLAIN, lambda done, total: None, threading.Event(), "s1"),
    ):
        with pytest.raises((CommandFailed, Rejected)):
            step()

    assert read(pool) == b"old"


# Mounts


def test_a_filesystem_that_is_in_fstab_and_not_mounted_is_told(tmp_path):
    table = tmp_path / "fstab"
    table.write_text(
        "# /srv/comment none\n/dev/sdb1 / ext4 defaults 0 1\nUUID=x none swap sw\n"
        f"/dev/sdc1 {tmp_path}/with\\040blank xfs defaults 0 2\n/dev/sdd1 {tmp_path}/tan xfs defaults 0 2\n\n"
    )

    def lacks(path):
        return unmounted(str(path), fstab=str(table))

    assert lacks(tmp_path / "with blank" / "pool") == f"{tmp_path}/with blank"
    assert lacks(tmp_path / "with blank") == f"{tmp_path}/with blank"
    assert lacks(tmp_path / "tank") is None
    assert lacks("/") is None
    assert unmounted(str(tmp_path), fstab=str(tmp_path / "absent")) is None


def test_a_mounted_filesystem_of_fstab_is_no_obstacle(tmp_path):
    with mounted("ext4", tmp_path) as place:
        table = tmp_path / "fstab"
        table.write_text(f"/dev/sdb1 {place} ext4 defaults 0 1\n")

        assert unmounted(str(place / "pool"), fstab=str(table)) is None
