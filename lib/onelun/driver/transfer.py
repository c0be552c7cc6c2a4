"""The actions that give disks to a VM and end them: clone, ln, delete."""

from __future__ import annotations

import asyncio
import contextlib
import re

from onelun.driver import checkpoints
from onelun.driver.attributes import Where, needs_of, of_disk
from onelun.driver.backups import forget_backups
from onelun.driver.disks import Known, known, own_volume, volatile_disks, volumes_of
from onelun.driver.location import Directory, Disk, parse_disk, parse_location, parse_source_argument
from onelun.driver.places import place
from onelun.driver.rows import VolumeRow, rows_of
from onelun.driver.running import Run
from onelun.errors import NoReply, OnelunError, Rejected, Unreachable
from onelun.model import Kind, Owner
from onelun.naming import Source
from onelun.rpc.message import (
    CloneZvol,
    DiskRemoved,
    ListZvols,
    MapZvol,
    RemoveDisk,
    ZvolCloned,
    ZvolList,
    ZvolMapped,
)

MIB = 1 << 20
_CLEAN_UP_S = 10.0


async def clone(run: Run) -> str:
    """Clone an image for a VM's disk, grown to the disk's size, and link it as disk.N. A repeat finds what is there."""
    source, disk, size_mb = _given(run)
    agent = run.context.hosts.compute(disk.host)
    oned = await known(run, disk.vm_id)
    must_exist(oned, disk)
    attributes = of_disk(oned.disk(disk.disk_id), Where.CLONED)
    size = await _size(run, source, disk, oned, size_mb)
    own = own_volume(source, disk)
    owner = _disk_owner(run, source, disk)
    request = CloneZvol(
        zvol=own.volume,
        zpool=own.pool,
        origin=source.volume,
        owner=owner,
        size_bytes=size,
        attributes=attributes,
        needs=needs_of(attributes),
    )
    await run.ask(source.nas, request, ZvolCloned)
    await attach_new(run, own, disk, agent, readonly=readonly(oned, disk))
    run.note(f"cloned {source} to {own} for disk {disk.disk_id} on {disk.host}")
    return ""


async def ln(run: Run) -> str:
    """Link an image itself as a VM's disk: a persistent one, a CD-ROM."""
    source, disk, _ = _given(run)
    agent = run.context.hosts.compute(disk.host)
    oned = await known(run, disk.vm_id)
    must_exist(oned, disk)
    told = oned.disk(disk.disk_id)
    shareable = told is not None and told.shareable
    await attach(run, source, disk, agent, readonly=readonly(oned, disk), shareable=shareable)
    run.note(f"linked {source} as disk {disk.disk_id} on {disk.host}")
    return ""


async def delete(run: Run) -> str:
    """End a VM's disk, or its directory. An image is only detached; what is gone already is success."""
    if len(run.arguments.rest) != 1:
        raise Rejected("the arguments should be: delete HOST:PATH, then VM and datastore from 3.6 on")
    location = parse_location(run.arguments.rest[0], run.config.datastores)
    agent = run.context.hosts.agent(location.host)
    oned = await known(run, location.vm_id)
    if isinstance(location, Directory):
        for disk in [] if run.arguments.modern else await volatile_disks(run, location):
            await _end(run, disk, agent, oned)
        left = oned.left(location.host)
        await checkpoints.discard(run, location, agent, left=left)
        await _remove_entry(run, agent, location.path, None, left=left)
        return ""
    await _end(run, location, agent, oned)
    return ""


async def _end(run: Run, location: Disk, agent: str | None, oned: Known) -> None:
    sources = await volumes_of(run, location, oned)
    if not sources:
        run.note(f"nothing of onelun is behind disk {location.disk_id}")
        await _remove_entry(run, agent, location.directory, location.name, left=oned.left(location.host))
    for source in sources:
        request = _removal(run, source, location, agent, force=oned.left(location.host))
        removed = await run.ask(source.nas, request, DiskRemoved)
        what = "destroyed" if removed.destroyed else "detached"
        debt = f"; {location.host} did not answer and owes the clean-up" if removed.debt else ""
        run.note(f"{what} {source}{debt}")
        if run.arguments.modern and not removed.destroyed:
            await forget_backups(run, source, location)
    if sources and agent is None:
        await place(run, None).remove(location.directory, location.name)


async def attach_new(run: Run, own: Source, disk: Disk, agent: str, *, readonly: bool) -> None:
    """As attach, of a volume that was made for this disk: when it cannot be attached it goes again."""
    try:
        await attach(run, own, disk, agent, readonly=readonly)
    except (OnelunError, asyncio.CancelledError) as error:
        # What is unknown stays: the host may have it, and `delete` comes for it.
        if not isinstance(error, NoReply):
            await _undo(run, own, disk, agent)
        raise


async def attach(
    run: Run,
    source: Source,
    disk: Disk,
    agent: str,
    *,
    readonly: bool,
    shareable: bool = False,
    beside: str | None = None,
    within_s: float | None = None,
) -> None:
    """Connect the volume on the host and link disk.N to it; it is the VM's disk from now on.

    A `shareable` one may be other VMs' too, on other hosts. The host of the agent `beside` keeps it meanwhile: the VM is moving
    from there while it runs.
    """
    request = MapZvol(
        zvol=source.volume,
        zpool=source.pool,
        remotehost=agent,
        cloud=run.config.cloud,
        vm=disk.vm_id,
        disk=disk.disk_id,
        path=disk.path,
        readonly=readonly,
        beside=beside,
        shareable=shareable,
        needs=("readonly",) if readonly else (),
    )
    await run.ask(source.nas, request, ZvolMapped, within_s=within_s)


def _given(run: Run) -> tuple[Source, Disk, int | None]:
    """SOURCE, disk, and the size in MB that 3.4 may put behind them."""
    rest = run.arguments.rest
    size_mb = None
    if len(rest) == 3 and not run.arguments.modern:
        if not re.fullmatch(r"[0-9]{1,12}", rest[2]) or int(rest[2]) == 0:
            raise Rejected(f"SIZE is {rest[2][:40]!r}, which is no number of MB")
        size_mb = int(rest[2])
    elif len(rest) != 2:
        raise Rejected("the arguments should be: FE:SOURCE HOST:DIR/disk.N, then VM and datastore from 3.6 on")
    disk = parse_disk(rest[1], run.config.datastores)
    must_be_of(run, disk)
    return parse_source_argument(rest[0]), disk, size_mb


def must_be_of(run: Run, disk: Disk) -> None:
    """Raise Rejected when the disk is another VM's than the one that the call is for."""
    if run.arguments.vm_id not in (None, disk.vm_id):
        raise Rejected(f"the disk is in the directory of VM {disk.vm_id}, and the call is for VM {run.arguments.vm_id}")


def must_exist(oned: Known, disk: Disk) -> None:
    """Raise Rejected when oned says that there is no such VM."""
    if oned.asked and oned.vm is None:
        raise Rejected(f"oned has no VM {disk.vm_id}: nothing is attached for it")


def readonly(oned: Known, disk: Disk) -> bool:
    """Whether the VM may only read the disk."""
    told = oned.disk(disk.disk_id)
    return told is not None and told.readonly


async def _size(run: Run, source: Source, disk: Disk, oned: Known, size_mb: int | None) -> int | None:
    """The size to grow the clone to, in bytes; None when it keeps the image's own, which need not be whole MB."""
    told = oned.disk(disk.disk_id)
    if told is not None and told.size_mb is not None:
        return told.size_mb * MIB if told.size_mb > (told.original_size_mb or 0) else None
    if size_mb is None:
        return None
    listed = await run.ask(source.nas, ListZvols(name=source.volume, zpool=source.pool), ZvolList)
    volumes = rows_of(source.nas, listed.body, VolumeRow)
    image = volumes[0].size_bytes if volumes else 0
    return size_mb * MIB if size_mb > -(-image // MIB) else None


def _disk_owner(run: Run, source: Source, disk: Disk) -> Owner:
    image = re.fullmatch(r"one-([0-9]+)", source.volume)
    return Owner(
        kind=Kind.DISK,
        cloud=run.config.cloud,
        image_id=int(image[1]) if image else None,
        vm_id=disk.vm_id,
        disk_id=disk.disk_id,
    )


def _removal(run: Run, source: Source, disk: Disk, agent: str | None, *, force: bool) -> RemoveDisk:
    return RemoveDisk(
        zvol=source.volume,
        zpool=source.pool,
        cloud=run.config.cloud,
        vm=disk.vm_id,
        disk=disk.disk_id,
        path=disk.path,
        remotehost=agent,
        force=force,
    )


async def _undo(run: Run, own: Source, disk: Disk, agent: str) -> None:
    request = _removal(run, own, disk, agent, force=False)
    undo = asyncio.ensure_future(run.ask(own.nas, request, DiskRemoved, within_s=_CLEAN_UP_S))
    with contextlib.suppress(OnelunError):
        await asyncio.shield(undo)


async def _remove_entry(run: Run, agent: str | None, directory: str, name: str | None, *, left: bool) -> None:
    try:
        await place(run, agent).remove(directory, name)
    except Unreachable as error:
        if not left:
            raise
        # The VM is gone and so is its host: what is left there is a directory of links that lead nowhere.
        run.note(f"{directory} stays on a host that does not answer: {error.sentence}")
    run.note(f"removed {directory}" if name is None else f"removed {directory}/{name}")
