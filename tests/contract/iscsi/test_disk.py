"""The disk of a session: found, used, read-only, asked who it is, grown."""

from __future__ import annotations

import asyncio
import os
import struct
from pathlib import Path

import msgspec
import pytest
from tests.support.blocks import content, leftovers, read, run, write
from tests.support.iscsi import MIB, Lab
from tests.support.iscsi_connecting import comes, open_up
from tests.support.iscsi_open import (
    OpenIscsiLab,
)
from tests.support.requires import guest

from onelun.compute.connectors.iscsi.connector import IscsiConnector
from onelun.errors import Busy, Conflict, NotFound

pytestmark = guest("iscsi")


async def test_a_partitioned_volume_is_the_disk_and_its_partitions_count_as_use(
    iscsi: OpenIscsiLab, node1: IscsiConnector
) -> None:
    export = iscsi.offer("one-1", "node1")
    table = bytearray(512)
    table[446:462] = struct.pack("<B3sB3sII", 0, b"", 0x83, b"", 2048, 8192)
    table[510:] = b"\x55\xaa"
    Path(iscsi.backing(export)).write_bytes(table + bytes(16 * MIB - 512))

    device = await node1.connect(export)

    partition = f"{device}1"
    await comes(lambda: os.path.exists(partition))
    descriptor = os.open(partition, os.O_RDONLY)
    with pytest.raises(Busy, match="in use"):
        await node1.disconnect(export.iqn)
    os.close(descriptor)
    await node1.disconnect(export.iqn)
    assert not os.path.exists(partition)


async def test_a_mounted_device_is_busy(iscsi: OpenIscsiLab, node1: IscsiConnector) -> None:
    export = iscsi.offer("one-1", "node1")
    device = await node1.connect(export)
    run("mkfs.ext4", "-q", device)
    place = f"{iscsi.directory}/mounted"
    os.mkdir(place)
    run("mount", device, place)

    try:
        with pytest.raises(Busy, match=f"mounted on {place}"):
            await node1.disconnect(export.iqn)
    finally:
        run("umount", place)

    await node1.disconnect(export.iqn)
    assert leftovers(iscsi) == []


async def test_a_readonly_export_takes_no_write(iscsi: OpenIscsiLab, node1: IscsiConnector) -> None:
    device = await node1.connect(iscsi.offer("one-1", "node1", readonly=True))

    with pytest.raises(OSError, match=r"not permitted|Read-only"):
        write(device, b"x" * 4096)

    assert len(read(device, 4096)) == 4096


async def test_a_readonly_export_of_a_target_that_would_take_writes_takes_none(
    iscsi: OpenIscsiLab, node1: IscsiConnector
) -> None:
    device = await node1.connect(msgspec.structs.replace(iscsi.offer("one-1", "node1"), readonly=True))

    with pytest.raises(OSError, match=r"not permitted|Read-only"):
        write(device, b"x" * 4096)


async def test_udev_is_through_with_a_device_that_connect_returns(iscsi: OpenIscsiLab, node1: IscsiConnector) -> None:
    device = await node1.connect(iscsi.offer("one-1", "node1"))
    os.chown(device, 1234, 1235)

    await asyncio.sleep(1)

    assert (os.stat(device).st_uid, os.stat(device).st_gid) == (1234, 1235)


async def test_a_udev_that_is_behind_is_waited_for(iscsi: OpenIscsiLab, node1: IscsiConnector) -> None:
    run("udevadm", "control", "--stop-exec-queue")
    try:
        connecting = asyncio.create_task(node1.connect(iscsi.offer("one-1", "node1")))
        # Longer than a udev that works takes; there is more time than that.
        await asyncio.sleep(8)
        assert not connecting.done()
    finally:
        run("udevadm", "control", "--start-exec-queue")
    device = await connecting
    os.chown(device, 1234, 1235)

    run("udevadm", "settle", "--timeout=60")

    assert (os.stat(device).st_uid, os.stat(device).st_gid) == (1234, 1235)


async def test_a_connection_that_is_given_up_while_udev_is_behind_leaves_nothing(
    iscsi: OpenIscsiLab, node1: IscsiConnector
) -> None:
    run("udevadm", "control", "--stop-exec-queue")
    try:
        connecting = asyncio.create_task(node1.connect(iscsi.offer("one-1", "node1")))
        await asyncio.sleep(8)
        connecting.cancel()
        await asyncio.wait([connecting])
    finally:
        run("udevadm", "control", "--start-exec-queue")

    assert connecting.cancelled()
    assert leftovers(iscsi) == []


async def test_the_identity_is_the_targets_of_now_and_not_the_kernels_of_then(
    iscsi: OpenIscsiLab, node1: IscsiConnector
) -> None:
    """What a LUN is may change under a session that stays; the kernel does not look again by itself."""
    export = iscsi.offer("one-1", "node1")
    _, descriptor = await open_up(node1, export)
    iscsi.rename(export, "11111111-1111-1111-1111-111111111111")

    with pytest.raises(Conflict, match="11111111"):
        await node1.connect(export)

    assert len(os.pread(descriptor, 512, 0)) == 512
    os.close(descriptor)


@pytest.mark.guest("lio")
async def test_a_device_grows_while_it_is_open(lio: Lab) -> None:
    node1 = lio.connector("node1")
    export = lio.offer("one-1", "node1")
    device = await node1.connect(export)
    descriptor = os.open(device, os.O_RDWR)
    lio.grow(export, 32 * MIB)
    assert os.lseek(descriptor, 0, os.SEEK_END) == 16 * MIB

    assert await node1.grow(export.iqn, 32 * MIB) == device
    assert await node1.grow(export.iqn, 32 * MIB) == device

    assert os.pwrite(descriptor, b"g" * 4096, 32 * MIB - 4096) == 4096
    os.fsync(descriptor)
    os.close(descriptor)
    assert content(lio.backing(export))[-4096:] == b"g" * 4096


@pytest.mark.guest("lio")
async def test_a_device_grows_to_no_other_size_than_its_luns(lio: Lab) -> None:
    node1 = lio.connector("node1")
    export = lio.offer("one-1", "node1")
    await node1.connect(export)

    with pytest.raises(Conflict, match=str(16 * MIB)):
        await node1.grow(export.iqn, 32 * MIB)
    with pytest.raises(NotFound):
        await node1.grow("iqn.2026-11.io.onelun.nas1:tank.one-10.e1", 32 * MIB)


@pytest.mark.guest("lio")
async def test_connecting_again_takes_over_a_size_that_has_grown(lio: Lab) -> None:
    node1 = lio.connector("node1")
    export = lio.offer("one-1", "node1")
    device = await node1.connect(export)
    lio.grow(export, 32 * MIB)

    assert await node1.connect(msgspec.structs.replace(export, size_bytes=32 * MIB)) == device

    assert len(read(device, 4096, 32 * MIB - 4096)) == 4096


@pytest.mark.guest("lio")
async def test_the_lun_is_the_one_that_is_asked_for_or_the_one_there_is(lio: Lab) -> None:
    node1 = lio.connector("node1")
    export = lio.offer("one-1", "node1")

    with pytest.raises(NotFound, match="LUN 1"):
        await node1.connect(msgspec.structs.replace(export, lun=1))
    assert leftovers(lio) == []
    device = await node1.connect(msgspec.structs.replace(export, lun=0))
    assert await node1.connect(export) == device
