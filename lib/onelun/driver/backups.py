"""The actions of backups: a VM's disks as files on a host, from where OpenNebula's backup datastores take them.

All disks are snapshots of one moment. Each is read over iSCSI by the host's own agent, without a device, and written as
`disk.<id>.<increment>` beside `vm.xml`. The snapshot of an increment stays until a later backup shows that the next one has
arrived: up to 7.4 nobody says whether a backup did.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib

from onelun.driver.backup_call import Backup, Part, given
from onelun.driver.disks import volume_of
from onelun.driver.freezing import Freeze, frozen
from onelun.driver.location import Disk
from onelun.driver.places import place
from onelun.driver.reading import offered
from onelun.driver.rows import SnapshotRow, rows_of
from onelun.driver.running import Run
from onelun.driver.snapshots import existing_volume
from onelun.ending import to_its_end
from onelun.errors import Conflict, NotFound, OnelunError, ProtocolError, Rejected
from onelun.naming import Source, is_backup_of
from onelun.rpc.message import (
    BackupWritten,
    ChangeList,
    DelSnapshot,
    Entry,
    Hello,
    HelloIs,
    ListChanges,
    ListSnapshots,
    SnapshotDeleted,
    SnapshotList,
    SnapshotZvol,
    WriteBackup,
    ZvolSnapshotted,
)

_FOLDER = "backup"
# What FS_FREEZE may ask for, and what becomes of the guest then.
_STILL = {"AGENT": "frozen", "SUSPEND": "paused"}
_PIECE = 1 << 20
# A storage may write the time of a snapshot in fewer digits than it tells at first.
_SAME_S = 1e-3
_RESET = "take a full backup: onevm backup --reset"
Extents = tuple[tuple[int, int, bool], ...]


async def prebackup(run: Run) -> str:
    """Write the files of a backup of a VM that is off. A repeat begins anew; a failure leaves no files."""
    await _back_up(run, live=False)
    return ""


async def prebackup_live(run: Run) -> str:
    """As prebackup, of a running VM, which is frozen or paused for the moment of the snapshots when FS_FREEZE says so."""
    await _back_up(run, live=True)
    return ""


async def postbackup(run: Run) -> str:
    """Remove the files of a backup, and the snapshots that no later one needs. What is gone is success."""
    backup = given(run)
    try:
        await place(run, backup.agent).remove(backup.path, _FOLDER)
    finally:
        if backup.config.failed or not backup.config.incremental:
            for disk_id in backup.disk_ids:
                disk = backup.disk(disk_id)
                source = await volume_of(run, disk, backup.known)
                if source is not None:
                    await _drop(run, Part(disk, source), backup.snapshot)
    run.note(f"removed the files of the backup in {backup.path}/{_FOLDER}")
    return ""


async def forget_backups(run: Run, source: Source, disk: Disk) -> None:
    """Delete the snapshots of the VM's backups of an image that the VM has no more. It is no error that it cannot be done."""
    part = Part(disk, source)
    with contextlib.suppress(OnelunError):
        for name in await _snapshots(run, part):
            if is_backup_of(disk.vm_id, name):
                await _drop(run, part, name)


async def _back_up(run: Run, *, live: bool) -> None:
    backup = given(run)
    if backup.config.interactive:
        raise Rejected("BACKUP_CONFIG/INTERACTIVE is YES, which onelun does not support: set it to NO")
    hello = await run.ask(backup.agent, Hello(), HelloIs)
    if hello.initiator is None:
        raise ProtocolError(f"{backup.agent} does not say its initiator: it is no compute agent")
    oned = backup.known
    disks = [backup.disk(disk_id) for disk_id in backup.disk_ids]
    parts = [Part(disk, await existing_volume(run, disk, oned)) for disk in disks]
    superfluous = [await _superfluous(run, backup, part) for part in parts]
    where = place(run, backup.agent)
    await where.remove(backup.path, _FOLDER)
    try:
        for part in parts:
            await _drop(run, part, backup.snapshot)
        taken = await _take(run, backup, parts, live=live)
        changes = [await _changes(run, backup, part) for part in parts]
        await _write_document(run, backup)
        for part, extents in zip(parts, changes, strict=True):
            await _write(run, backup, part, extents, hello.initiator)
        for part, made_at in zip(parts, taken, strict=True):
            await _check_alone(run, backup, part, made_at)
    except BaseException:
        await to_its_end(_undo(run, backup, parts))
        raise
    for part, names in zip(parts, superfluous, strict=True):
        for name in names if backup.config.incremental else {*names, backup.snapshot}:
            await _drop(run, part, name)
    kind = "full backup" if backup.base is None else f"increment {backup.config.increment}"
    run.note(f"wrote a {kind} of {len(parts)} disks to {backup.path}/{_FOLDER}")


async def _superfluous(run: Run, backup: Backup, part: Part) -> set[str]:
    """The VM's snapshots of other backups, which nothing builds on. Raises Rejected when the one it builds on is missing."""
    names = set(await _snapshots(run, part))
    if backup.base is not None and backup.base not in names:
        raise Rejected(
            f"{part.source} has no snapshot {backup.base}, which increment {backup.config.increment} would build on: {_RESET}"
        )
    return {name for name in names if is_backup_of(backup.vm.id, name)} - {backup.base, backup.snapshot}


async def _snapshots(run: Run, part: Part) -> dict[str, float]:
    """The volume's snapshots, and when each was made."""
    listed = await run.ask(part.source.nas, part.request(run, ListSnapshots), SnapshotList)
    return {row.snapshot: row.made_at for row in rows_of(part.source.nas, listed.body, SnapshotRow)}


async def _take(run: Run, backup: Backup, parts: list[Part], *, live: bool) -> list[float]:
    """Take the snapshots of all disks, of a guest that stands still where that is asked for; when each was made."""
    freeze = None
    async with contextlib.AsyncExitStack() as stack:
        if live and backup.config.freeze in _STILL:
            host, domain = (
                run.context.hosts.compute(backup.directory.host),
                backup.vm.deploy_id or f"one-{backup.vm.id}",
            )
            holding = frozen(run, host, domain, pause=backup.config.freeze == "SUSPEND")
            freeze = await stack.enter_async_context(holding)
        # All of them are waited for: one that comes after the undoing would stay.
        taken = await asyncio.gather(*(_take_one(run, backup, part) for part in parts), return_exceptions=True)
    for one in taken:
        if isinstance(one, BaseException):
            raise one
    if live:
        _say(run, backup, freeze)
    return [made_at for made_at in taken if isinstance(made_at, float)]


def _say(run: Run, backup: Backup, freeze: Freeze | None) -> None:
    how = backup.config.freeze
    if freeze is None:
        run.note(f"this backup is crash-consistent, disk by disk: FS_FREEZE is {how}, not {' or '.join(_STILL)}")
    elif freeze.missing is not None:
        run.note(
            f"this backup is crash-consistent, disk by disk, since the guest was not {_STILL[how]}: {freeze.missing}"
        )
    elif how == "AGENT":
        run.note("the guest's filesystems were frozen: the backup is consistent")
    else:
        run.note("the guest was paused: the backup is of one moment of all its disks, as after a power cut")


async def _take_one(run: Run, backup: Backup, part: Part) -> float:
    request = part.request(run, SnapshotZvol, snapshot=backup.snapshot)
    return (await run.ask(part.source.nas, request, ZvolSnapshotted, anew=True)).made_at


async def _check_alone(run: Run, backup: Backup, part: Part, made_at: float) -> None:
    """Raise Conflict when the snapshot is another one by now: the file may be of both."""
    found = (await _snapshots(run, part)).get(backup.snapshot)
    if found is None or abs(found - made_at) > _SAME_S:
        raise Conflict(f"another backup of VM {backup.vm.id} took {backup.snapshot} of {part.source} meanwhile")


async def _changes(run: Run, backup: Backup, part: Part) -> Extents | None:
    """What an increment has to hold; None for a full backup."""
    if backup.base is None:
        return None
    request = part.request(run, ListChanges, since=backup.base, until=backup.snapshot)
    try:
        return tuple((await run.ask(part.source.nas, request, ChangeList, anew=True)).body)
    except (Conflict, NotFound) as error:
        raise Rejected(f"{error.sentence}; {_RESET}") from error


async def _write_document(run: Run, backup: Backup) -> None:
    """Write vm.xml, in base64, from which OpenNebula makes a template when the backup is restored as a new VM."""
    text = base64.encodebytes(run.arguments.document or b"")
    where, entry = place(run, backup.agent), Entry(name=f"{_FOLDER}/vm.xml", kind="file")
    for offset in range(0, len(text), _PIECE):
        last = offset + _PIECE >= len(text)
        await where.put(backup.path, entry, offset=offset, data=text[offset : offset + _PIECE], last=last)


async def _write(run: Run, backup: Backup, part: Part, extents: Extents | None, initiator: str) -> None:
    async with offered(run, part.source, snapshot=backup.snapshot, initiator=initiator) as leased, leased.kept(run):
        told = leased.offered
        request = WriteBackup(
            path=backup.path,
            name=f"{_FOLDER}/disk.{part.disk.disk_id}.{backup.config.increment}",
            target=told.iqn,
            address=told.address,
            port=told.port,
            user=told.user,
            secret=told.secret,
            lun=told.lun,
            size_bytes=told.size_bytes,
            extents=extents,
        )
        written = await run.ask(backup.agent, request, BackupWritten)
    run.note(f"wrote disk {part.disk.disk_id}, {part.source}: {written.size_bytes} bytes")


async def _undo(run: Run, backup: Backup, parts: list[Part]) -> None:
    """Remove the files, and the snapshots, which a repeat takes anew. What cannot be removed now, postbackup removes."""
    with contextlib.suppress(OnelunError):
        await place(run, backup.agent).remove(backup.path, _FOLDER)
    for part in parts:
        with contextlib.suppress(OnelunError):
            await _drop(run, part, backup.snapshot)


async def _drop(run: Run, part: Part, name: str) -> None:
    # Anew, as everything that goes with a snapshot: what was done for an earlier one of that name is of no use.
    request = part.request(run, DelSnapshot, snapshot=name)
    await run.ask(part.source.nas, request, SnapshotDeleted, anew=True)
