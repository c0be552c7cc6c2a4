"""Filesystems on new volumes, made by the real tools in files of a real pool."""

import asyncio
import os
import subprocess

import pytest
from tests.support.requires import requires

from onelun.errors import CommandFailed, Conflict, Rejected
from onelun.model import Filesystem, Kind, Owner, State
from onelun.nas.backends.file.backend import FileBackend
from onelun.nas.formatting import Formatting
from onelun.rpc.message import CreateZvol, MapZvol, decode_request, encode

from .conftest import CLOUD, MIB

IMAGE = Owner(kind=Kind.IMAGE, cloud=CLOUD, image_id=9, regtime=1)
VOLATILE = Owner(kind=Kind.VOLATILE, cloud=CLOUD, vm_id=7, disk_id=2)
CHECKS = {
    Filesystem.EXT2: ("e2fsck", "-fn"),
    Filesystem.EXT3: ("e2fsck", "-fn"),
    Filesystem.EXT4: ("e2fsck", "-fn"),
    Filesystem.XFS: ("xfs_repair", "-nf"),
    Filesystem.BTRFS: ("btrfs", "check"),
    Filesystem.VFAT: ("fsck.vfat", "-n"),
    Filesystem.NTFS: ("ntfsfix", "-n"),
    Filesystem.SWAP: ("swaplabel",),
}
SIZE = 400 * MIB


@pytest.fixture
async def nas(parts, begin, tmp_path):
    (tmp_path / "files").mkdir()
    parts.others["files"] = FileBackend("files", str(tmp_path / "files"))
    return await begin()


def create(filesystem, size=SIZE, name="one-9", owner=IMAGE):
    return CreateZvol(zvol=name, zpool="files", size_bytes=size, owner=owner, filesystem=filesystem)


def data(tmp_path, name="one-9"):
    return tmp_path / "files" / name / "data"


def type_of(path):
    """What blkid finds on it; it knows nothing of what is empty."""
    found = subprocess.run(["blkid", "-p", "-o", "value", "-s", "TYPE", str(path)], capture_output=True, text=True)
    return found.stdout.strip()


def check(filesystem, path):
    """The filesystem's own tool finds it sound."""
    subprocess.run([*CHECKS[filesystem], str(path)], check=True, capture_output=True)


@pytest.mark.parametrize("filesystem", Filesystem)
async def test_a_volume_is_formatted_as_asked_and_is_sound(nas, tmp_path, filesystem):
    requires("mkfs.vfat", "mkfs.ntfs", "mkfs.xfs", "mkfs.btrfs")

    made = await nas.ask(create(filesystem))
    again = await nas.ask(create(filesystem))

    path = data(tmp_path)
    assert again == made
    assert (type_of(path), path.stat().st_size) == (str(filesystem), SIZE)
    check(filesystem, path)
    assert path.stat().st_blocks * 512 < 80 * MIB, "a new volume stays thin"


async def test_without_a_filesystem_a_volume_stays_empty(nas, tmp_path):
    await nas.ask(create(None))

    assert type_of(data(tmp_path)) == ""
    assert data(tmp_path).stat().st_blocks == 0


async def test_what_is_too_small_leaves_nothing(nas, tmp_path):
    requires("mkfs.xfs")

    with pytest.raises(CommandFailed, match="one-9 cannot be formatted with xfs"):
        await nas.ask(create(Filesystem.XFS, size=MIB))

    assert await nas.agent._volumes._pools.backend("files").volumes() == []


async def test_a_missing_tool_is_named_with_its_package_before_anything_is_made(nas, tmp_path):
    nas.agent._volumes._formatting = Formatting("nas1", path=str(tmp_path))

    with pytest.raises(Rejected, match=r"nas1 has no mkfs\.ntfs, which makes ntfs: install the package ntfs-3g there"):
        await nas.ask(create(Filesystem.NTFS))

    assert os.listdir(tmp_path / "files") == [name for name in os.listdir(tmp_path / "files") if name.startswith(".")]


def test_what_is_missing_is_known_before_anybody_asks_for_it(tmp_path):
    for tool in ("mke2fs", "mkfs.xfs", "mkfs.vfat", "mkfs.ntfs", "mkswap"):
        (tmp_path / tool).touch(mode=0o755)
    some = Formatting("nas1", path=str(tmp_path)).lacking()
    (tmp_path / "mke2fs").unlink()
    (tmp_path / "mkfs.btrfs").touch(mode=0o755)
    without = Formatting("nas1", path=str(tmp_path)).lacking()

    assert some == [
        "without mkfs.btrfs no image can be made with btrfs: install the package btrfs-progs if you want such"
    ]
    assert without == [
        "without mke2fs no image can be made with ext2, ext3, ext4: install the package e2fsprogs if you want such"
    ]


async def test_a_cancelled_format_leaves_nothing(nas, monkeypatch):
    begun = asyncio.Event()

    async def endless(*_, **__):
        begun.set()
        await asyncio.sleep(60)

    monkeypatch.setattr(Formatting, "format", endless)
    task = asyncio.ensure_future(nas.ask(create(Filesystem.EXT4)))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert await nas.agent._volumes._pools.backend("files").volumes() == []


async def test_a_restart_in_the_middle_of_a_format_leaves_nothing(nas, begin):
    backend = nas.agent._volumes._pools.backend("files")
    await backend.create("one-9", "6b2f7a52-6a04-4e9b-9d0b-3a2f0c0a7a11", MIB, IMAGE)

    await begin()

    assert await backend.volumes() == []


def test_an_agent_that_does_not_know_the_condition_would_refuse_it():
    request = CreateZvol(
        zvol="one-9", zpool="tank", size_bytes=1, owner=IMAGE, filesystem=Filesystem.XFS, needs=("filesystem",)
    )

    assert decode_request(encode(request)) == request


async def test_a_volatile_disk_that_a_host_has_had_is_made_anew(nas, tmp_path):
    request = create(Filesystem.EXT4, 8 * MIB, "one-vm-7-2", VOLATILE)
    first = await nas.ask(request)
    again = await nas.ask(request)
    await nas.ask(
        MapZvol(zvol="one-vm-7-2", zpool="files", remotehost="node1", cloud=CLOUD, vm=7, disk=2, path="/d/0/7/disk.2")
    )

    second = await nas.ask(request)

    assert again == first
    assert second.uuid != first.uuid
    assert nas.nodes["node1"].connected == {}
    volumes = await nas.agent._volumes._pools.backend("files").volumes()
    assert [(v.uuid, v.state) for v in volumes] == [(second.uuid, State.READY)]
    assert type_of(data(tmp_path, "one-vm-7-2")) == "ext4"


async def test_a_volatile_disk_never_takes_the_name_of_another_vm_s(nas):
    await nas.ask(create(None, MIB, "one-vm-7-2", VOLATILE))
    other = Owner(kind=Kind.VOLATILE, cloud=CLOUD, vm_id=8, disk_id=2)

    with pytest.raises(Conflict, match="disk 2 of VM 7"):
        await nas.ask(create(None, MIB, "one-vm-7-2", other))
