"""The requests about a volume's snapshots: take, list, go back to, flatten to, delete."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator

import msgspec

from onelun.errors import Conflict
from onelun.model import Snapshot, Volume
from onelun.naming import checked_name, is_snapshot_of_opennebula
from onelun.nas.attachments import Attachments
from onelun.nas.backends.base import Backend
from onelun.nas.catalogue import DETACHING, AttachmentRow, Catalogue
from onelun.nas.locks import Locks
from onelun.nas.ownership import must_be_meant
from onelun.nas.pools import Pools, snapshot_of, still
from onelun.nas.volumes import lock_name
from onelun.rpc.job import Job
from onelun.rpc.message import (
    DelSnapshot,
    FlattenZvol,
    ListSnapshots,
    OfVolume,
    RevertZvol,
    SnapshotDeleted,
    SnapshotList,
    SnapshotZvol,
    ZvolFlattened,
    ZvolReverted,
    ZvolSnapshotted,
)

log = logging.getLogger(__name__)

# By so much the clocks of a caller and of a NAS may differ before a fresh snapshot is taken for an old one.
_SKEW_S = 120.0
# Begins the mark of a volume that was flattened; with the snapshot's name behind it a repeat knows that it is done.
_FLATTENED = "flattened "


class Snapshots:
    """snapshot_zvol, list_snapshots, revert_zvol, flatten_zvol and del_snapshot."""

    def __init__(self, pools: Pools, locks: Locks, catalogue: Catalogue, attachments: Attachments) -> None:
        self._pools = pools
        self._locks = locks
        self._catalogue = catalogue
        self._attachments = attachments

    async def take(self, request: SnapshotZvol, job: Job) -> ZvolSnapshotted:
        """Keep the volume's content of now; whoever has it goes on."""
        name = checked_name(request.snapshot, "snapshot name")
        backend, meant = await self._meant(request)
        async with self._held(backend, meant) as volume:
            present = await _one(backend, volume, name)
            if present is not None and present.made_at < (request.not_before or 0.0) - _SKEW_S:
                log.warning("snapshot zvol=%s replaced=%s made_at=%.0f", volume.name, name, present.made_at)
                await backend.delete_snapshot(volume, name)
                present = None
            if present is None:
                async with self._pools.promise(backend, volume.size_bytes):
                    present = await backend.snapshot(volume, name)
                if (volume.filled_from or "").startswith(_FLATTENED):
                    await _mark(backend, volume, None)
        log.info("snapshot zvol=%s pool=%s name=%s", volume.name, volume.pool, name)
        return ZvolSnapshotted(uuid=volume.uuid, made_at=present.made_at, size_bytes=present.size_bytes)

    async def listed(self, request: ListSnapshots, job: Job) -> SnapshotList:
        """The volume's snapshots, the oldest first."""
        backend, volume = await self._meant(request)
        body = [
            {"snapshot": s.name, "made_at": s.made_at, "size_bytes": s.size_bytes, "used_bytes": s.used_bytes}
            for s in await backend.snapshots(volume)
        ]
        return SnapshotList(uuid=volume.uuid, body=body)

    async def revert(self, request: RevertZvol, job: Job) -> ZvolReverted:
        """Go back to a snapshot; the host that has the volume lets go of it meanwhile."""
        name = checked_name(request.snapshot, "snapshot name")
        backend, meant = await self._meant(request)
        async with self._held(backend, meant) as volume:
            # Before anything is disconnected for one that is not there.
            await snapshot_of(backend, volume, name)
            rows = self._rows(volume, request.remotehost)
            async with contextlib.AsyncExitStack() as apart:
                for row in rows:
                    await apart.enter_async_context(self._apart(backend, row, job))
                reverted = await backend.revert(volume, name)
        log.info("revert zvol=%s pool=%s to=%s size=%s", volume.name, volume.pool, name, reverted.size_bytes)
        return ZvolReverted(uuid=reverted.uuid, size_bytes=reverted.size_bytes)

    async def flatten(self, request: FlattenZvol, job: Job) -> ZvolFlattened:
        """Go back to a snapshot and delete all of OpenNebula's, that one last: while it is there a repeat goes on."""
        name = checked_name(request.snapshot, "snapshot name")
        backend, meant = await self._meant(request)
        async with self._held(backend, meant) as volume:
            self._rows(volume, None)
            if await _one(backend, volume, name) is None and volume.filled_from == _FLATTENED + name:
                return ZvolFlattened(uuid=volume.uuid, size_bytes=volume.size_bytes)
            await snapshot_of(backend, volume, name)
            volume = await backend.revert(volume, name)
            await _mark(backend, volume, _FLATTENED + name)
            kept = [s.name for s in await backend.snapshots(volume) if is_snapshot_of_opennebula(s.name)]
            for other in sorted({*kept, name}, key=lambda other: other == name):
                await backend.delete_snapshot(volume, other)
        log.info("flatten zvol=%s pool=%s to=%s dropped=%s", volume.name, volume.pool, name, len(kept))
        return ZvolFlattened(uuid=volume.uuid, size_bytes=volume.size_bytes)

    async def delete(self, request: DelSnapshot, job: Job) -> SnapshotDeleted:
        """Remove a snapshot; whoever has the volume goes on."""
        name = checked_name(request.snapshot, "snapshot name")
        found = await self._pools.locate(request.zvol, request.zpool)
        if found is None:
            return SnapshotDeleted()
        backend, volume = found
        must_be_meant(volume, request)
        async with self._locks.hold(lock_name(backend, volume.name)):
            await backend.delete_snapshot(volume, name)
        log.info("del-snapshot zvol=%s pool=%s name=%s", volume.name, volume.pool, name)
        return SnapshotDeleted()

    async def _meant(self, request: OfVolume) -> tuple[Backend, Volume]:
        backend, volume = await self._pools.get(request.zvol, request.zpool)
        must_be_meant(volume, request)
        return backend, volume

    @contextlib.asynccontextmanager
    async def _held(self, backend: Backend, meant: Volume) -> AsyncIterator[Volume]:
        """The volume, ready and nobody else's for the body; its removal ends the body's work."""
        async with self._locks.hold(lock_name(backend, meant.name), preemptible=True):
            yield await still(backend, meant)

    @contextlib.asynccontextmanager
    async def _apart(self, backend: Backend, row: AttachmentRow, job: Job) -> AsyncIterator[None]:
        """The host is without the volume for the body; what was on its way out before does not come back."""
        if row.state == DETACHING:
            await self._attachments.detach(
                backend, row, path=None, keep_link=True, force=False, deadline=job.deadline, of=job.id
            )
            yield
            return
        async with self._attachments.apart(backend, row, deadline=job.deadline, of=job.id):
            yield

    def _rows(self, volume: Volume, host: str | None) -> list[AttachmentRow]:
        """The attachment to `host`. Raises Conflict when another host has the volume: it may be writing to it."""
        rows = self._catalogue.attachments(uuid=volume.uuid)
        for row in rows:
            if row.host != host:
                raise Conflict(f"volume {volume.name} is mapped to {row.host}: unmap it there before it is reverted")
        return rows


async def _one(backend: Backend, volume: Volume, name: str) -> Snapshot | None:
    return next((s for s in await backend.snapshots(volume) if s.name == name), None)


async def _mark(backend: Backend, volume: Volume, mark: str | None) -> None:
    await backend.record(volume.name, volume.uuid, lambda now: msgspec.structs.replace(now, filled_from=mark))
