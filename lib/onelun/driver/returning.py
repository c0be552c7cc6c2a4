"""The action mvds: a disk goes back to its datastore, and in 3.4's words perhaps into another image of it."""

from __future__ import annotations

from onelun.driver.backups import forget_backups
from onelun.driver.disks import known, volume_of
from onelun.driver.location import Disk, parse_disk, parse_source_argument
from onelun.driver.places import place
from onelun.driver.rows import VolumeRow, rows_of
from onelun.driver.running import Run
from onelun.errors import Conflict, Rejected
from onelun.model import Kind
from onelun.naming import Source
from onelun.rpc.message import ListZvols, SaveZvol, UnmapZvol, ZvolList, ZvolSaved, ZvolUnmapped


async def mvds(run: Run) -> str:
    """Take a disk back to its datastore: only detach it when it is the image itself.

    Up to 3.4 a SOURCE that is not the disk's own means save-as: the disk's content is copied over that image, and the
    disk ends.
    """
    if len(run.arguments.rest) != 2:
        raise Rejected("the arguments should be: mvds HOST:DIR/disk.N SOURCE, then VM and datastore from 3.6 on")
    first, second = run.arguments.rest
    disk = parse_disk(first, run.config.datastores)
    target = parse_source_argument(second)
    agent = run.context.hosts.agent(disk.host)
    oned = await known(run, disk.vm_id)
    behind = await volume_of(run, disk, oned)
    if behind is None and not run.arguments.modern:
        behind = await _unplaced(run, target, disk)
    if behind is not None and behind != target:
        await _save(run, behind, target, disk, agent)
        return ""
    request = UnmapZvol(
        zvol=target.volume,
        zpool=target.pool,
        remotehost=agent,
        cloud=run.config.cloud,
        vm=disk.vm_id,
        disk=disk.disk_id,
        path=disk.path,
    )
    await run.ask(target.nas, request, ZvolUnmapped)
    if agent is None:
        await place(run, None).remove(disk.directory, disk.name)
    if run.arguments.modern:
        await forget_backups(run, target, disk)
    run.note(f"took {target} back from disk {disk.disk_id} on {disk.host}")
    return ""


async def _unplaced(run: Run, target: Source, disk: Disk) -> Source | None:
    """What 3.4's mvds means of a disk that no NAS has placed: a repeat, or a placement that was lost.

    The volumes themselves tell: while one exists that is named as this disk's own, its content is not saved yet.
    """
    listed = await run.ask(target.nas, ListZvols(zpool=target.pool), ZvolList)
    ending = f"-{disk.vm_id}-{disk.disk_id}"
    volumes = rows_of(target.nas, listed.body, VolumeRow)
    own = [row.zvol for row in volumes if row.kind == Kind.DISK and row.zvol.endswith(ending)]
    if len(own) > 1:
        raise Conflict(f"{' and '.join(sorted(own))} could both be disk {disk.disk_id} of VM {disk.vm_id}")
    return target._replace(volume=own[0]) if own else None


async def _save(run: Run, behind: Source, target: Source, disk: Disk, agent: str | None) -> None:
    if run.arguments.modern:
        raise Conflict(f"disk {disk.disk_id} of VM {disk.vm_id} is {behind}, not {target}: nothing was taken back")
    if (behind.nas, behind.pool) != (target.nas, target.pool):
        raise Rejected(f"saving {behind} to {target} would copy from pool to pool, which is not supported yet")
    request = SaveZvol(
        zvol=behind.volume,
        zpool=behind.pool,
        target=target.volume,
        cloud=run.config.cloud,
        vm=disk.vm_id,
        disk=disk.disk_id,
        path=disk.path,
        remotehost=agent,
    )
    await run.ask(target.nas, request, ZvolSaved)
    if agent is None:
        await place(run, None).remove(disk.directory, disk.name)
    run.note(f"saved disk {disk.disk_id} ({behind}) to {target}")
