"""The compute agent: what each request means for this host."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
from typing import Any

from onelun import naming
from onelun.beneath import owner_of
from onelun.compute.attachments import Attachments
from onelun.compute.backups import Backups
from onelun.compute.checkpoints import Checkpoints
from onelun.compute.connectors.base import Connector
from onelun.compute.guests import FILESYSTEMS, WHOLE, Guests, notes_of
from onelun.compute.host import Host
from onelun.compute.names import Names
from onelun.compute.readiness import Readiness
from onelun.compute.wanted import checked_nas, checked_target, wanted, wanted_of
from onelun.config import Compute, Limits
from onelun.directory import Directory
from onelun.errors import Conflict, OnelunError, Rejected
from onelun.rpc.job import Handler, Job
from onelun.rpc.message import (
    BackupWritten,
    DevGrown,
    DevList,
    DirList,
    Entry,
    EntryPut,
    EntryRemoved,
    FetchFile,
    FileRead,
    FreezeGuest,
    GrowDev,
    GuestFrozen,
    GuestThawed,
    Held,
    ListDev,
    ListDir,
    PutEntry,
    ReadFile,
    RemoveEntry,
    SetZvol,
    StoreFile,
    SyncZvols,
    TearDown,
    ThawGuest,
    WriteBackup,
    ZvolAttached,
    ZvolDetached,
    ZvolsSynced,
    checked_size,
)

log = logging.getLogger(__name__)


class ComputeAgent:
    """Serves one host. Call `start` before the first request; `close` lets the next agent of the state directory start.

    Raises Rejected for a configuration that this machine cannot serve.
    """

    def __init__(self, config: Compute, limits: Limits, connector: Connector) -> None:
        self._config = config
        self._initiator = naming.checked_initiator(config.initiator)
        self._directory = Directory(config.datastores, config.owner)
        self._elsewhere = Directory(config.backups, config.owner, depth=1) if config.backups else None
        self._backups = Backups(self._initiator, owner_of(config.owner))
        self._names = Names(config.devices)
        self._host = Host(
            connector,
            Attachments(f"{run_dir(config)}/attachments"),
            self._names,
            self._directory,
            owner_of(config.owner),
        )
        self._checkpoints = Checkpoints(self._directory, self._host)
        self._guests = Guests(config.libvirt, notes_of(run_dir(config)))
        self.readiness = Readiness(f"{config.state}/nas.json")
        self._in_flight = asyncio.Semaphore(limits.per_host)
        self._lock: int | None = None

    def handlers(self) -> dict[type[Any], Handler]:
        """What is done for each request."""
        return {
            SetZvol: self.set_zvol,
            GrowDev: self.grow_dev,
            TearDown: self.tear_down,
            ListDev: self.list_dev,
            SyncZvols: self.sync_zvols,
            FreezeGuest: self.freeze_guest,
            ThawGuest: self.thaw_guest,
            ListDir: self.list_dir,
            ReadFile: self.read_file,
            PutEntry: self.put_entry,
            RemoveEntry: self.remove_entry,
            StoreFile: self._checkpoints.store,
            FetchFile: self._checkpoints.fetch,
            WriteBackup: self.write_backup,
        }

    async def start(self) -> None:
        """Keep what an earlier agent connected, and connect nothing: each NAS says what is in force.

        Raises Conflict while another agent has the state directory.
        """
        for directory in (self._config.state, run_dir(self._config)):
            os.makedirs(directory, mode=0o700, exist_ok=True)
        self._take_lock()
        await self._host.settle()
        self._guests.settle()

    async def release(self) -> None:
        """Let go of what must not outlast the agent: guests that are frozen."""
        await self._guests.release()

    def close(self) -> None:
        """Give the state directory back. Closing a closed one succeeds."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def set_zvol(self, request: SetZvol, job: Job) -> ZvolAttached:
        """Connect the target, name its device, and link to that. Repeating it gives the same device."""
        attached = await self._host.attach(wanted(request, self._initiator))
        self.readiness.holds(self._host.nases())
        return ZvolAttached(bdev=attached.device)

    async def grow_dev(self, request: GrowDev, job: Job) -> DevGrown:
        """Let the device see its LUN's new size."""
        target = checked_target(request.target)
        return DevGrown(bdev=await self._host.grow(target, checked_size(request.size_bytes)))

    async def tear_down(self, request: TearDown, job: Job) -> ZvolDetached:
        """Disconnect the target, or remove only its link."""
        target = checked_target(request.target)
        if not request.keep_device:
            await self._host.detach(target, link=request.link, keep_link=request.keep_link, force=request.force)
            self.readiness.holds(self._host.nases())
        elif request.link is not None and not request.keep_link:
            await self._host.unlink(target, request.link)
        return ZvolDetached()

    async def list_dev(self, request: ListDev, job: Job) -> DevList:
        """Every connected target; what is not known of one (an agent died before it wrote it down) is null."""
        return DevList(
            body=[
                {
                    "target": connected.iqn,
                    "bdev": connected.device,
                    "device": self._names.path(known.name) if known else None,
                    "uuid": known.uuid if known else None,
                    "nas": known.nas if known else None,
                    "alive": connected.alive,
                    "links": list(known.links) if known else [],
                }
                for connected, known in await self._host.attached()
            ]
        )

    async def sync_zvols(self, request: SyncZvols, job: Job) -> ZvolsSynced:
        """Attach what the NAS holds and drop the rest of that NAS. No target's failure stops the others."""
        nas = checked_nas(request.nas)
        failed: dict[str, str] = {}
        held = {one.target.lower(): one for one in request.held}
        before = await self._host.attached()
        alive = {connected.iqn for connected, known in before if connected.alive and known}
        # What the NAS has fenced can be flushed no more; what it has not may have writes that it still takes.
        fenced = {iqn.lower() for iqn in request.fenced}
        surplus = {
            connected.iqn: connected.alive and connected.iqn not in fenced
            for connected, known in before
            if connected.iqn not in held and (known.nas == nas if known else naming.is_target_of(nas, connected.iqn))
        }
        await asyncio.gather(*(self._drop(iqn, failed, job, force=not flushes) for iqn, flushes in surplus.items()))
        await asyncio.gather(*(self._hold(nas, one, failed, job) for one in held.values()))
        self.readiness.synced(nas)
        self.readiness.holds(self._host.nases())
        return ZvolsSynced(
            connected=tuple(iqn for iqn in held if iqn not in alive and iqn not in failed),
            dropped=tuple(iqn for iqn in surplus if iqn not in failed),
            failed=failed,
        )

    async def freeze_guest(self, request: FreezeGuest, job: Job) -> GuestFrozen:
        """Freeze a guest's filesystems, or pause it, for a short time."""
        way = WHOLE if request.pause else FILESYSTEMS
        return GuestFrozen(missing=await self._guests.freeze(request.domain, request.hold_s, way))

    async def thaw_guest(self, request: ThawGuest, job: Job) -> GuestThawed:
        """Thaw a guest that was frozen by request."""
        return GuestThawed(held=await self._guests.thaw(request.domain))

    async def list_dir(self, request: ListDir, job: Job) -> DirList:
        """What a VM's directory holds."""
        found = await asyncio.to_thread(self._below(request.path).entries, request.path)
        if found is None:
            return DirList(exists=False)
        entries = (Entry(name=o.name, kind=o.kind, mode=o.mode, size=o.size, target=o.target) for o in found)
        return DirList(exists=True, entries=tuple(entries))

    async def read_file(self, request: ReadFile, job: Job) -> FileRead:
        """One piece of a file."""
        directory = self._below(request.path)
        return FileRead(data=await asyncio.to_thread(directory.read, request.path, request.name, request.offset))

    async def put_entry(self, request: PutEntry, job: Job) -> EntryPut:
        """Make one entry. The entry `.` of kind `dir` is the directory itself."""
        await asyncio.to_thread(self._put, request)
        return EntryPut()

    async def remove_entry(self, request: RemoveEntry, job: Job) -> EntryRemoved:
        """Remove a VM's directory, or one entry of it; a backup that is being written there ends."""
        await self._backups.stop(f"{request.path}/{request.name or ''}")
        await asyncio.to_thread(self._below(request.path).remove, request.path, request.name)
        return EntryRemoved()

    async def write_backup(self, request: WriteBackup, job: Job) -> BackupWritten:
        """Write one file of a backup from a LUN that is offered to this host."""
        return await self._backups.write(self._below(request.path), request, job)

    def _below(self, path: str) -> Directory:
        """Whose the path is: the datastores', or those of backups that are kept elsewhere."""
        return self._elsewhere if self._elsewhere is not None and self._elsewhere.has(path) else self._directory

    def _put(self, request: PutEntry) -> None:
        entry, directory = request.entry, self._below(request.path)
        if entry.kind == "dir":
            name = None if entry.name in ("", ".") else entry.name
            directory.put_directory(request.path, name, entry.mode)
        elif entry.kind == "link":
            directory.put_link(request.path, entry.name, entry.target or "")
        else:
            size = request.offset + len(request.data)
            if request.last and entry.size not in (0, size):
                raise Rejected(f"{entry.name[:80]!r} ends at {size} bytes and should have {entry.size}")
            directory.put_piece(
                request.path, entry.name, request.data, offset=request.offset, last=request.last, mode=entry.mode
            )

    async def _hold(self, nas: str, one: Held, failed: dict[str, str], job: Job) -> None:
        async with self._in_flight:
            try:
                await self._host.attach(wanted_of(one, nas, self._initiator))
            except OnelunError as error:
                failed[one.target.lower()] = error.sentence
            job.progress(f"attached {one.target}")

    async def _drop(self, iqn: str, failed: dict[str, str], job: Job, *, force: bool) -> None:
        async with self._in_flight:
            try:
                await self._host.detach(iqn, force=force)
            except OnelunError as error:
                failed[iqn] = error.sentence
            job.progress(f"detached {iqn}")

    def _take_lock(self) -> None:
        path = f"{self._config.state}/lock"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise Conflict(
                f"another compute agent uses {self._config.state}: stop it, or give this one a `state` of its own"
            ) from None
        self._lock = descriptor


def run_dir(config: Compute) -> str:
    """Where the agent keeps what lasts as long as the devices do. The frontend may share the directory above."""
    return f"{config.run.rstrip('/')}/compute"
