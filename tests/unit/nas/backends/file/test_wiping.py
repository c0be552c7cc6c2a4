"""Writing zeros over files: what is on the disk afterwards, seen through another name of the same file."""

import os
import threading
import uuid as uuids
from pathlib import Path

import pytest
from tests.support.filesystems import mounted

from onelun.errors import Cancelled, Rejected
from onelun.model import Attributes, Kind, Owner, Provisioning, Wipe
from onelun.nas.backends.file import directory, pool, wiping
from onelun.nas.backends.file.backend import FileBackend
from onelun.nas.backends.file.wiping import write_over, writes_in_place

AGENT = "0b6a4e0e-57a1-4d7c-9a64-4d9d5f1d7a10"
MIB = 1 << 20
DISK = Owner(kind=Kind.DISK, cloud="4f2c1f0e-7a55-4c58-9b5c-0c7f3a6f1a01", vm_id=3, disk_id=0)
SECRET = b"secret" * 1000


@pytest.fixture
async def backend(tmp_path):
    (tmp_path / "tank").mkdir()
    made = FileBackend("tank", str(tmp_path / "tank"))
    await made.open(AGENT, None)
    return made


async def filled(backend, name, wipe):
    """A volume with a snapshot, and other names for the files of both."""
    uuid = str(uuids.uuid4())
    built = await backend.create(name, uuid, 4 * MIB, DISK, Attributes(wipe=wipe))
    write(backend.device(built), SECRET)
    volume = await backend.publish(uuid)
    await backend.snapshot(volume, "s1")
    place = Path(backend.device(volume)).parent
    kept = [place.parent.parent / f"{name}-{number}" for number in (1, 2)]
    for file, other in zip(("data", "snapshot-s1.data"), kept, strict=True):
        os.link(place / file, other)
    return volume, kept


def write(path, text):
    with open(path, "r+b") as file:
        file.seek(MIB)
        file.write(text)


def content(path):
    with open(path, "rb") as file:
        return file.read()


@pytest.mark.parametrize(("wipe", "left"), [(Wipe.ZERO, False), (Wipe.NONE, True), (None, True)])
async def test_a_destroyed_volume_and_its_snapshots_are_written_over_when_that_is_asked(backend, wipe, left):
    volume, kept = await filled(backend, "one-1", wipe)

    await backend.destroy(volume)

    assert await backend.volumes() == []
    assert [SECRET in content(path) for path in kept] == [left, left]


async def test_a_wipe_that_is_cut_off_leaves_the_volume_in_the_trash_and_is_done_anew(backend, monkeypatch):
    volume, kept = await filled(backend, "one-1", Wipe.ZERO)
    await backend.trash(volume)

    def cut_off(file, stop):
        raise Cancelled("the agent ends")

    with monkeypatch.context() as patch:
        patch.setattr("onelun.nas.backends.file.pool.write_over", cut_off)
        with pytest.raises(Cancelled):
            await backend.purge(0.0)
    assert [found.uuid for found in await backend.volumes()] == [volume.uuid]

    assert await backend.purge(0.0) == 1
    assert not any(SECRET in content(path) for path in kept)


def test_writing_over_ends_at_the_next_piece_when_it_is_to_stop(tmp_path, monkeypatch):
    monkeypatch.setattr(wiping, "PIECE_BYTES", 4096)
    stop = threading.Event()
    written = []

    def pwrite(file, data, offset, real=os.pwrite):
        stop.set()
        written.append(offset)
        return real(file, data, offset)

    path = tmp_path / "data"
    path.write_bytes(SECRET * 10)
    monkeypatch.setattr(os, "pwrite", pwrite)
    with path.open("r+b") as file, pytest.raises(Cancelled):
        write_over(file.fileno(), stop)

    assert written == [0]


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_holes_and_blocks_that_a_reflink_shares_are_left_alone(kind, tmp_path):
    with mounted(kind, tmp_path) as place:
        path = place / "data"
        with path.open("wb") as file:
            file.seek(8 * MIB)
            file.write(SECRET)
            file.truncate(64 * MIB)
        os.sync()
        shares = os.system(f"cp --reflink=always {path} {place}/clone 2>/dev/null") == 0
        before = path.stat().st_blocks

        with path.open("r+b") as file:
            write_over(file.fileno(), threading.Event())

        os.sync()
        assert path.stat().st_blocks == before
        assert (SECRET in content(path)) is shares
        assert shares is (kind == "xfs")


@pytest.mark.parametrize(("kind", "in_place"), [("ext4", True), ("xfs", True), ("btrfs", False)])
def test_a_filesystem_that_writes_elsewhere_is_known(kind, in_place, tmp_path):
    with mounted(kind, tmp_path) as place:
        descriptor = os.open(place, os.O_RDONLY)
        try:
            assert writes_in_place(descriptor) is in_place
        finally:
            os.close(descriptor)


async def test_what_the_filesystem_cannot_do_is_said_with_its_path(backend, monkeypatch):
    def cannot(file, size_bytes):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(directory, "allocate", cannot)
    monkeypatch.setattr(directory, "writes_in_place", lambda descriptor: False)

    with pytest.raises(Rejected, match=r"ONELUN_PROVISIONING=thick .* /.*/tank cannot set blocks aside"):
        await backend.accept(Attributes(provisioning=Provisioning.THICK))
    with pytest.raises(Rejected, match=r"ONELUN_WIPE=zero .* /.*/tank writes to other blocks"):
        await backend.accept(Attributes(wipe=Wipe.ZERO))


async def test_a_volume_that_cannot_be_written_over_keeps_no_other_in_the_trash(backend, monkeypatch):
    for name in ("one-1", "one-2"):
        volume, _ = await filled(backend, name, Wipe.ZERO)
        await backend.trash(volume)
    failed = []

    def fail_once(file, stop):
        if not failed:
            failed.append(file)
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(pool, "write_over", fail_once)

    assert await backend.purge(0.0) == 1
    assert len(await backend.volumes()) == 1
