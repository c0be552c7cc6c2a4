"""The request that copies a disk over an image: OpenNebula's save-as, of a VM that may be running."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import AsyncIterator

import msgspec

from onelun.ending import to_its_end
from onelun.errors import Conflict, OnelunError, Rejected
from onelun.model import Volume
from onelun.naming import checked_name
from onelun.nas.backends.base import Backend
from onelun.nas.catalogue import Catalogue
from onelun.nas.locks import Locks
from onelun.nas.ownership import must_be_meant
from onelun.nas.pools import Pools, snapshot_of, still
from onelun.nas.saving import saveable
from onelun.nas.volumes import Volumes, copying, lock_name
from onelun.rpc.job import Job
from onelun.rpc.message import CopyZvol, ZvolCopied

log = logging.getLogger(__name__)

# The snapshot that a copy of a disk in use is made from. It is nobody else's, since the copy holds the disk's lock: one
# that is found was left by a copy that was killed.
_MOMENT = "copying"
# The catalogue's list of the disks (pool, UUID) that may have one.
_NOTED = "copying"


class Copies:
    """copy_zvol."""

    def __init__(self, pools: Pools, locks: Locks, catalogue: Catalogue, volumes: Volumes) -> None:
        self._pools = pools
        self._locks = locks
        self._catalogue = catalogue
        self._volumes = volumes

    async def copy(self, request: CopyZvol, job: Job) -> ZvolCopied:
        """Fill the image from the disk, or from a snapshot of it, in one step: it has its old content or all of the new."""
        backend, meant = await self._pools.get(request.zvol, request.zpool)
        must_be_meant(meant, request)
        target_name = checked_name(request.target, "volume name")
        if target_name == meant.name:
            raise Rejected(f"{meant.name} cannot be saved over itself")
        if request.cloud is None:
            raise Rejected("a disk is saved over an image of a cloud: the request names none")
        names = (lock_name(backend, meant.name), lock_name(backend, target_name))
        async with self._locks.hold(*names, preemptible=True):
            disk = await still(backend, meant)
            target = await saveable(self._catalogue, backend, target_name, request.cloud)
            source = f"{request.cloud} {request.vm} {request.disk} {disk.uuid} "
            mark = source + (request.snapshot or f"at {job.id}")
            if target.filled_from != mark:
                _must_be_fresh(target, source)
                target = await self._fill(backend, target, disk, request.snapshot, mark, job)
        log.info("copy zvol=%s snapshot=%s target=%s pool=%s", disk.name, request.snapshot, target.name, backend.pool)
        return ZvolCopied(uuid=target.uuid, size_bytes=target.size_bytes)

    async def tidy(self) -> None:
        """Remove what copies left that were killed; for the agent's start. What cannot be removed now waits for the next."""
        for pool, uuid in self._noted():
            try:
                backend = self._pools.backend(pool)
                disk = await backend.find_uuid(uuid)
                if disk is not None:
                    await backend.delete_snapshot(disk, _MOMENT)
            except OnelunError as error:
                log.warning("tidy pool=%s uuid=%s failed=%s", pool, uuid, error)
            else:
                self._note(pool, uuid, present=False)

    async def _fill(
        self, backend: Backend, target: Volume, disk: Volume, snapshot: str | None, mark: str, job: Job
    ) -> Volume:
        async with self._moment(backend, disk, snapshot) as (name, size_bytes):
            size = backend.rounded(max(size_bytes, target.size_bytes))
            attributes = target.attributes.of_clone(disk.attributes)
            async with self._volumes.building(backend, size, attributes) as uuid:
                progress = copying(job, target.name)
                built = await backend.clone(
                    disk, target.name, uuid, size, target.owner, progress, snapshot=name, attributes=attributes
                )
                # Not as fresh as one that mkfs made: a repeat of that must not take it for its own.
                await backend.record(
                    built.name, uuid, lambda now: msgspec.structs.replace(now, filled_from=mark, connected=True)
                )
                return await backend.publish(uuid, replace=target.uuid)

    @contextlib.asynccontextmanager
    async def _moment(
        self, backend: Backend, disk: Volume, snapshot: str | None
    ) -> AsyncIterator[tuple[str | None, int]]:
        """What to clone, and its size: the snapshot; the disk itself while nobody writes to it; else a moment of it."""
        if snapshot is not None:
            name = checked_name(snapshot, "snapshot name")
            yield name, (await snapshot_of(backend, disk, name)).size_bytes
            return
        await backend.delete_snapshot(disk, _MOMENT)
        if all(row.readonly for row in self._catalogue.attachments(uuid=disk.uuid)):
            yield None, disk.size_bytes
            return
        self._note(disk.pool, disk.uuid, present=True)
        try:
            async with self._pools.promise(backend, disk.size_bytes):
                moment = await backend.snapshot(disk, _MOMENT)
            yield _MOMENT, moment.size_bytes
        finally:
            await to_its_end(self._forget(backend, disk))

    async def _forget(self, backend: Backend, disk: Volume) -> None:
        await backend.delete_snapshot(disk, _MOMENT)
        self._note(disk.pool, disk.uuid, present=False)

    def _noted(self) -> list[tuple[str, str]]:
        try:
            return msgspec.json.decode(self._catalogue.meta(_NOTED) or "[]", type=list[tuple[str, str]])
        except ValueError as error:
            log.warning("copies noted=unreadable reason=%s", error)
            return []

    def _note(self, pool: str, uuid: str, *, present: bool) -> None:
        others = [noted for noted in self._noted() if noted != (pool, uuid)]
        self._catalogue.set_meta(_NOTED, json.dumps([*others, (pool, uuid)] if present else others))


def _must_be_fresh(target: Volume, source: str) -> None:
    """Raise Conflict for an image that may have another content than an earlier copy of the same disk."""
    if target.last_epoch > 0:
        raise Conflict(f"{target.name} has been on a host already: its content is not replaced")
    if target.filled_from is not None and not target.filled_from.startswith(source):
        raise Conflict(f"{target.name} has been filled from another disk already: its content is not replaced")
