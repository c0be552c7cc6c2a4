"""The actions on snapshots: of a VM's disk (tm/snap_*) and of an image that no VM has (datastore/snap_*).

A snapshot's name on the storage comes from oned's id of it alone, so a persistent image and the disk of the VM that has it
mean the same snapshots.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from onelun.driver.disks import Known, known, volume_of
from onelun.driver.document import ActionData
from onelun.driver.freezing import frozen
from onelun.driver.location import Disk, parse_disk
from onelun.driver.running import Run
from onelun.errors import NotFound, Rejected
from onelun.model import Owner
from onelun.naming import Source, parse_source, snapshot_name
from onelun.rpc.message import (
    DelSnapshot,
    FlattenZvol,
    RevertZvol,
    SnapshotDeleted,
    SnapshotZvol,
    ZvolFlattened,
    ZvolReverted,
    ZvolSnapshotted,
)


async def snap_create(run: Run) -> str:
    """Take a snapshot of a VM's disk. A repeat finds the one there is."""
    disk, snapshot_id = _given(run)
    await _take(run, disk, snapshot_id, await known(run, disk.vm_id))
    return ""


async def snap_create_live(run: Run) -> str:
    """Take a snapshot of the disk of a running VM, whose guest is asked to freeze its filesystems for that moment.

    Where it cannot the snapshot is one moment of the disk all the same, as after a power cut, and the VM's log says so.
    """
    disk, snapshot_id = _given(run)
    agent = run.context.hosts.compute(disk.host)
    oned = await known(run, disk.vm_id)
    domain = oned.vm.deploy_id if oned.vm and oned.vm.deploy_id else f"one-{disk.vm_id}"
    async with frozen(run, agent, domain) as freeze:
        await _take(run, disk, snapshot_id, oned)
    if freeze.missing is None:
        run.note("the guest's filesystems were frozen: the snapshot is consistent")
    else:
        run.note(f"this snapshot is crash-consistent, since the guest was not frozen: {freeze.missing}")
    return ""


async def _take(run: Run, disk: Disk, snapshot_id: int, oned: Known) -> None:
    source = await existing_volume(run, disk, oned)
    taken = oned.vm.snapshots.get((disk.disk_id, snapshot_id)) if oned.vm else None
    request = SnapshotZvol(
        zvol=source.volume,
        zpool=source.pool,
        cloud=run.config.cloud,
        vm=disk.vm_id,
        disk=disk.disk_id,
        snapshot=snapshot_name(snapshot_id),
        not_before=float(taken) if taken is not None else None,
    )
    await run.ask(source.nas, request, ZvolSnapshotted)
    run.note(f"took snapshot {snapshot_id} of {source}")


async def snap_revert(run: Run) -> str:
    """Put a VM's disk back to a snapshot. The host that has it, where nothing may have it open, gets it anew."""
    disk, snapshot_id = _given(run)
    agent = run.context.hosts.agent(disk.host)
    source = await existing_volume(run, disk, await known(run, disk.vm_id))
    request = RevertZvol(
        zvol=source.volume,
        zpool=source.pool,
        cloud=run.config.cloud,
        vm=disk.vm_id,
        disk=disk.disk_id,
        snapshot=snapshot_name(snapshot_id),
        remotehost=agent,
    )
    reverted = await run.ask(source.nas, request, ZvolReverted)
    run.note(f"put {source} back to snapshot {snapshot_id}, {reverted.size_bytes} bytes")
    return ""


async def snap_delete(run: Run) -> str:
    """Delete a snapshot of a VM's disk. One that is gone, or whose disk is, is success."""
    disk, snapshot_id = _given(run)
    source = await volume_of(run, disk, await known(run, disk.vm_id))
    if source is None:
        run.note(f"nothing of onelun is behind disk {disk.disk_id}, so it has no snapshot {snapshot_id}")
        return ""
    request = DelSnapshot(
        zvol=source.volume,
        zpool=source.pool,
        cloud=run.config.cloud,
        vm=disk.vm_id,
        disk=disk.disk_id,
        snapshot=snapshot_name(snapshot_id),
    )
    await run.ask(source.nas, request, SnapshotDeleted)
    run.note(f"deleted snapshot {snapshot_id} of {source}")
    return ""


async def image_snap_delete(run: Run) -> str:
    """Delete a snapshot of an image. One that is gone is success."""
    source, owner, snapshot = _of_image(run)
    request = DelSnapshot(zvol=source.volume, zpool=source.pool, owner=owner, snapshot=snapshot)
    await run.ask(source.nas, request, SnapshotDeleted)
    run.note(f"deleted {snapshot} of {source}")
    return ""


async def image_snap_revert(run: Run) -> str:
    """Put an image that no host has back to a snapshot; all its snapshots stay."""
    source, owner, snapshot = _of_image(run)
    request = RevertZvol(zvol=source.volume, zpool=source.pool, owner=owner, snapshot=snapshot)
    await run.ask(source.nas, request, ZvolReverted)
    run.note(f"put {source} back to {snapshot}")
    return ""


async def image_snap_flatten(run: Run) -> str:
    """Put an image that no host has back to a snapshot and delete all its snapshots."""
    source, owner, snapshot = _of_image(run)
    request = FlattenZvol(zvol=source.volume, zpool=source.pool, owner=owner, snapshot=snapshot)
    await run.ask(source.nas, request, ZvolFlattened)
    run.note(f"flattened {source} to {snapshot}")
    return ""


async def existing_volume(run: Run, disk: Disk, oned: Known) -> Source:
    """The volume behind the disk. Raises NotFound when neither oned nor any NAS knows of one."""
    source = await volume_of(run, disk, oned)
    if source is None:
        raise NotFound(f"no volume of onelun is known behind disk {disk.disk_id} of VM {disk.vm_id}")
    return source


def snapshot_id_of(text: str) -> int:
    """The snapshot id, as oned passes it. Raises Rejected for what is no number from 0."""
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise Rejected(f"the snapshot is {text[:40]!r}, which is no id of oned's: it should be a number from 0")
    return int(text)


class _Given(NamedTuple):
    disk: Disk
    snapshot_id: int


def _given(run: Run) -> _Given:
    """Disk and snapshot. Raises Rejected; no release before 3.6 has snapshots, so the ids are always there."""
    rest, name = run.arguments.rest, run.call.name.rpartition("/")[2]
    if len(rest) != 2 or not run.arguments.modern:
        raise Rejected(f"the arguments should be: {name} HOST:DIR/disk.N SNAPSHOT VM DATASTORE")
    disk = parse_disk(rest[0], run.config.datastores)
    if run.arguments.vm_id != disk.vm_id:
        raise Rejected(f"the disk is in the directory of VM {disk.vm_id}, and the call is for VM {run.arguments.vm_id}")
    return _Given(disk, snapshot_id_of(rest[1]))


def _of_image(run: Run) -> tuple[Source, Owner, str]:
    """The image's volume, whose it must be, and the snapshot's name. Raises Rejected for a document without them."""
    image = ActionData(run.arguments.document or b"").image()
    if not image.source:
        raise Rejected("OpenNebula's document has no IMAGE/SOURCE, or an empty one: there is no volume with snapshots")
    if image.target_snapshot is None or image.target_snapshot < 0:
        raise Rejected("OpenNebula's document names no snapshot: IMAGE/TARGET_SNAPSHOT should be a number from 0")
    return parse_source(image.source), run.image_owner(image.id, image.regtime), snapshot_name(image.target_snapshot)
