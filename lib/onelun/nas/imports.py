"""What the front-end itself writes or reads over iSCSI: a building volume, alive as long as its lease is renewed.

An import is written and published at its end; it may take the place of an image that no host ever had, or of a VM's disk that
is restored. What is read is a clone of the volume, of which nothing is left.
"""

from __future__ import annotations

import logging
import time
import uuid as uuids
from collections.abc import Awaitable, Callable

import msgspec

from onelun.config import Limits
from onelun.errors import Conflict, NotFound, OnelunError, Rejected
from onelun.model import Attachment, Attributes, Kind, Owner, State, Volume
from onelun.naming import Source, checked_initiator, checked_name, checked_uuid, target_account, target_iqn
from onelun.nas.backends.base import Backend
from onelun.nas.catalogue import Catalogue, ImportRow
from onelun.nas.destroying import destroy
from onelun.nas.epochs import Epochs
from onelun.nas.exporters.base import Exporter
from onelun.nas.locks import Locks
from onelun.nas.offers import Offers
from onelun.nas.ownership import describe, must_be_meant
from onelun.nas.pools import Pools
from onelun.nas.replacing import Replacing
from onelun.nas.volumes import Volumes, copying, lock_name
from onelun.rpc.job import Job
from onelun.rpc.message import (
    AbortImport,
    FinishImport,
    ImportAborted,
    ImportFinished,
    ImportRenewed,
    ImportZvol,
    ReadZvol,
    RenewImport,
    RestoreZvol,
    ZvolImporting,
    ZvolReadable,
    checked_size,
)

log = logging.getLogger(__name__)

# Begins the name of what is read, before a UUID; it is never published, and no volume of a cloud has so long a name.
_READ = "read-"


class Imports:
    """The requests of an import, and the end of those that nobody renews."""

    def __init__(
        self,
        pools: Pools,
        locks: Locks,
        catalogue: Catalogue,
        exporter: Exporter,
        offers: Offers,
        epochs: Epochs,
        limits: Limits,
        volumes: Volumes,
        replacing: Replacing,
    ) -> None:
        self._pools = pools
        self._locks = locks
        self._catalogue = catalogue
        self._exporter = exporter
        self._offers = offers
        self._epochs = epochs
        self._volumes = volumes
        self._replacing = replacing
        self._lease_s = limits.lease_s
        # On the monotonic clock; after a restart of the agent every import gets a whole lease.
        self._until: dict[str, float] = {}

    async def begin(self, request: ImportZvol, job: Job) -> ZvolImporting:
        """Build a volume and export it to its builder. An unfinished import of the same name ends."""
        backend = self._pools.backend(request.zpool)
        name = checked_name(request.zvol, "volume name")
        size = checked_size(request.size_bytes)
        initiator = checked_initiator(request.initiator)
        await backend.accept(request.attributes)
        async with self._locks.hold(lock_name(backend, name), preemptible=True):
            present = await backend.find(name)
            if present is not None and (present.owner != request.owner or present.connected):
                raise Conflict(f"{name} exists in pool {backend.pool} already, as {describe(present.owner)}")
            self._pools.maintenance.must_be_over(backend.pool)
            return await self._import(
                backend, name, size, request.owner, request.attributes, initiator, job, replaces=present
            )

    async def restore(self, request: RestoreZvol, job: Job) -> ZvolImporting:
        """Build what will replace a VM's disk, and export it to its builder. An unfinished one of the same name ends."""
        backend, meant = await self._pools.get(request.zvol, request.zpool)
        must_be_meant(meant, request)
        asked = checked_size(request.size_bytes)
        initiator = checked_initiator(request.initiator)
        async with self._locks.hold(lock_name(backend, meant.name), preemptible=True):
            disk = await backend.find(meant.name)
            if disk is None or disk.uuid != meant.uuid or disk.state is not State.READY:
                raise NotFound(f"volume {meant.name} has just been removed", zvol=meant.name)
            await self._replacing.check(backend, disk, request.remotehost)
            size = max(asked, disk.size_bytes)
            return await self._import(
                backend, disk.name, size, disk.owner, disk.attributes, initiator, job, replaces=disk
            )

    async def _import(
        self,
        backend: Backend,
        name: str,
        size: int,
        owner: Owner,
        attributes: Attributes,
        initiator: str,
        job: Job,
        *,
        replaces: Volume | None,
    ) -> ZvolImporting:
        for old in self._catalogue.imports(pool=backend.pool, zvol=name):
            await self._end(backend, old)
        async with self._pools.promise(backend, size, full=True):
            row = await self._row(backend, name, initiator, replaces=replaces.uuid if replaces else None)
            await self._offer(backend, row, job, lambda: backend.create(name, row.uuid, size, owner, attributes))
        portal = self._exporter.portal
        return ZvolImporting(
            uuid=row.uuid,
            iqn=row.iqn,
            address=portal.address,
            port=portal.port,
            user=target_account(row.iqn),
            secret=self._offers.secret_of(row.iqn),
            lease_s=self._lease_s,
            lun=self._exporter.lun,
        )

    async def read(self, request: ReadZvol, job: Job) -> ZvolReadable:
        """Clone the volume for its reader alone, and export the clone to it. Each time it is another clone."""
        backend = self._pools.backend(request.zpool)
        name = checked_name(request.zvol, "volume name")
        initiator = checked_initiator(request.initiator)
        row = await self._row(backend, f"{_READ}{uuids.uuid4()}", initiator, replaces=None)
        locks = self._locks.hold(lock_name(backend, row.zvol), shared=(lock_name(backend, name),), preemptible=True)
        async with locks:
            origin = await self._volumes.cloneable(backend, name, request.cloud, still=request.snapshot is not None)
            size = await _size(backend, origin, request.snapshot)
            # Of no kind that any other request means.
            owner = Owner(kind=Kind.PLAIN, cloud=request.cloud)
            # It is only read: no room is set aside for writing.
            attributes = Attributes(wipe=origin.attributes.wipe)
            async with self._pools.promise(backend, size):
                await self._offer(
                    backend,
                    row,
                    job,
                    lambda: backend.clone(
                        origin,
                        row.zvol,
                        row.uuid,
                        size,
                        owner,
                        copying(job, name),
                        snapshot=request.snapshot,
                        attributes=attributes,
                    ),
                )
        portal = self._exporter.portal
        return ZvolReadable(
            uuid=row.uuid,
            size_bytes=size,
            iqn=row.iqn,
            address=portal.address,
            port=portal.port,
            user=target_account(row.iqn),
            secret=self._offers.secret_of(row.iqn),
            lease_s=self._lease_s,
            lun=self._exporter.lun,
        )

    async def _offer(self, backend: Backend, row: ImportRow, job: Job, build: Callable[[], Awaitable[Volume]]) -> None:
        """Build a volume and export it to its builder; the lease begins when it is there. A failure leaves nothing."""
        self._catalogue.put(row)
        try:
            await build()
            mine = Attachment(host=job.caller or "builder", initiator=row.initiator, epoch=row.epoch)
            volume = await backend.record(
                row.zvol,
                row.uuid,
                lambda now: msgspec.structs.replace(now, attachments=(mine,), last_epoch=row.epoch),
            )
            await self._exporter.export(await self._offers.target(backend, volume, row))
        except BaseException:
            await self._end(backend, row)
            raise
        self._until[row.uuid] = time.monotonic() + self._lease_s

    async def renew(self, request: RenewImport, job: Job) -> ImportRenewed:
        """Keep an import's lease."""
        uuid = checked_uuid(request.uuid)
        if not self._catalogue.imports(uuid=uuid):
            raise NotFound("the import has ended: nobody renewed it in time, or it was begun anew", uuid=uuid)
        self._until[uuid] = time.monotonic() + self._lease_s
        return ImportRenewed(lease_s=self._lease_s)

    async def finish(self, request: FinishImport, job: Job) -> ImportFinished:
        """Fence the builder, then publish the volume; who has what it replaces lets go of that before."""
        backend = self._pools.backend(request.zpool)
        uuid = checked_uuid(request.uuid)
        row = next(iter(self._catalogue.imports(uuid=uuid)), None)
        volume = await backend.find_uuid(uuid)
        if volume is None or (row is None and volume.state is not State.READY):
            raise _ended(uuid)
        if volume.owner.kind is Kind.PLAIN and volume.name.startswith(_READ):
            raise Rejected(f"{uuid} is only read: it becomes no volume")
        async with self._locks.hold(lock_name(backend, volume.name)):
            if row is not None:
                await self._exporter.unexport(row.iqn)
                volume = await backend.find_uuid(uuid) or volume
                if volume.state is State.TRASH:
                    # It waits there to be wiped.
                    raise _ended(uuid)
                if volume.state is State.BUILDING:
                    await backend.deactivate(volume)
                    replaced = await self._replacing.leave(backend, volume, row.replaces, job) if row.replaces else None
                    # What takes the place of a disk that a host has had is as little an empty one as that was.
                    connected = replaced is not None and replaced.connected
                    await backend.record(
                        volume.name,
                        uuid,
                        lambda now: msgspec.structs.replace(now, attachments=(), connected=connected),
                    )
                    volume = await backend.publish(uuid, replace=row.replaces)
                if row.replaces is not None:
                    self._replacing.succeed(row.replaces, volume)
                self._catalogue.drop(row)
                self._until.pop(uuid, None)
        log.info("import finished=%s pool=%s uuid=%s size=%s", volume.name, volume.pool, uuid, volume.size_bytes)
        return ImportFinished(uuid=uuid, size_bytes=volume.size_bytes)

    async def abort(self, request: AbortImport, job: Job) -> ImportAborted:
        """End an import and destroy what it built."""
        backend = self._pools.backend(request.zpool)
        for row in self._catalogue.imports(uuid=checked_uuid(request.uuid)):
            async with self._locks.hold(lock_name(backend, row.zvol), preempts=True):
                await self._end(backend, row)
        return ImportAborted()

    async def end_overdue(self) -> None:
        """End every import whose lease is over; one that cannot be ended now keeps no other."""
        for row in self._catalogue.imports():
            until = self._until.setdefault(row.uuid, time.monotonic() + self._lease_s)
            if time.monotonic() > until:
                try:
                    await self._end_overdue(row)
                except OnelunError as error:
                    log.warning("import kept=%s pool=%s uuid=%s reason=%s", row.zvol, row.pool, row.uuid, error)

    async def _end_overdue(self, row: ImportRow) -> None:
        backend = self._pools.backend(row.pool)
        async with self._locks.hold(lock_name(backend, row.zvol)):
            if time.monotonic() > self._until.get(row.uuid, 0.0) and self._catalogue.imports(uuid=row.uuid):
                log.warning("import overdue=%s pool=%s uuid=%s", row.zvol, row.pool, row.uuid)
                await self._end(backend, row)

    async def _row(self, backend: Backend, name: str, initiator: str, *, replaces: str | None) -> ImportRow:
        epoch = await self._epochs.next()
        return ImportRow(
            uuid=str(uuids.uuid4()),
            pool=backend.pool,
            zvol=name,
            iqn=target_iqn(Source(self._offers.nas, backend.pool, name), epoch),
            epoch=epoch,
            initiator=initiator,
            replaces=replaces,
        )

    async def _end(self, backend: Backend, row: ImportRow) -> None:
        await self._exporter.unexport(row.iqn)
        volume = await backend.find_uuid(row.uuid)
        if volume is not None and volume.state is State.BUILDING:
            await destroy(backend, volume)
        self._catalogue.drop(row)
        self._until.pop(row.uuid, None)


def _ended(uuid: str) -> NotFound:
    return NotFound("the import has ended: nobody renewed it in time, or it was begun anew", uuid=uuid)


async def _size(backend: Backend, origin: Volume, snapshot: str | None) -> int:
    """The size of the volume, or of its snapshot. Raises NotFound without that one."""
    if snapshot is None:
        return origin.size_bytes
    for one in await backend.snapshots(origin):
        if one.name == snapshot:
            return one.size_bytes
    raise NotFound(f"{origin.name} in pool {origin.pool} has no snapshot {snapshot}", snapshot=snapshot)
