"""What the front-end itself writes over iSCSI: a building volume under a lease, which is published at its end.

It may take the place of an image that no host ever had, or of a VM's disk that is restored.
"""

from __future__ import annotations

import logging

import msgspec

from onelun.errors import Conflict, Rejected
from onelun.model import Attributes, Kind, Owner, State, Volume
from onelun.naming import checked_initiator, checked_name, checked_uuid
from onelun.nas.backends.base import Backend
from onelun.nas.catalogue import Catalogue
from onelun.nas.exporters.base import Exporter
from onelun.nas.leases import Leases, ended
from onelun.nas.locks import Locks
from onelun.nas.ownership import describe, must_be_meant
from onelun.nas.pools import Pools, still
from onelun.nas.reading import READ
from onelun.nas.replacing import Replacing
from onelun.nas.volumes import lock_name
from onelun.rpc.job import Job
from onelun.rpc.message import (
    FinishImport,
    ImportFinished,
    ImportZvol,
    RestoreZvol,
    ZvolImporting,
    checked_size,
)

log = logging.getLogger(__name__)


class Imports:
    """import_zvol, restore_zvol and finish_import."""

    def __init__(
        self,
        pools: Pools,
        locks: Locks,
        catalogue: Catalogue,
        exporter: Exporter,
        leases: Leases,
        replacing: Replacing,
    ) -> None:
        self._pools = pools
        self._locks = locks
        self._catalogue = catalogue
        self._exporter = exporter
        self._leases = leases
        self._replacing = replacing

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
            disk = await still(backend, meant)
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
            await self._leases.end(backend, old)
        async with self._pools.promise(backend, size, full=True):
            row = await self._leases.intend(backend, name, initiator, replaces=replaces.uuid if replaces else None)
            told = await self._leases.offer(
                backend, row, job, lambda: backend.create(name, row.uuid, size, owner, attributes)
            )
        return ZvolImporting(**told)

    async def finish(self, request: FinishImport, job: Job) -> ImportFinished:
        """Fence the builder, then publish the volume; who has what it replaces lets go of that before."""
        backend = self._pools.backend(request.zpool)
        uuid = checked_uuid(request.uuid)
        row = next(iter(self._catalogue.imports(uuid=uuid)), None)
        volume = await backend.find_uuid(uuid)
        if volume is None or (row is None and volume.state is not State.READY):
            raise ended(uuid)
        if volume.owner.kind is Kind.PLAIN and volume.name.startswith(READ):
            raise Rejected(f"{uuid} is only read: it becomes no volume")
        async with self._locks.hold(lock_name(backend, volume.name)):
            if row is not None:
                await self._exporter.unexport(row.iqn)
                volume = await backend.find_uuid(uuid) or volume
                if volume.state is State.TRASH:
                    # It waits there to be wiped.
                    raise ended(uuid)
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
                self._leases.forget(row)
        log.info("import finished=%s pool=%s uuid=%s size=%s", volume.name, volume.pool, uuid, volume.size_bytes)
        return ImportFinished(uuid=uuid, size_bytes=volume.size_bytes)
