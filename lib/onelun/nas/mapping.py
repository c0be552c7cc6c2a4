"""The requests that map volumes to hosts, and end mappings."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

from onelun.errors import Conflict, NoReply, NotFound, OnelunError, Rejected
from onelun.model import Kind, Owner, Volume
from onelun.naming import checked_name, checked_uuid
from onelun.nas.attachments import Attachments
from onelun.nas.backends.base import Backend
from onelun.nas.catalogue import DETACHING, AttachmentRow, Catalogue, Placement
from onelun.nas.locks import Locks
from onelun.nas.ownership import describe, is_disk_of, must_be_mapped_by
from onelun.nas.placements import Placements
from onelun.nas.pools import Pools, must_be_ours, pinned
from onelun.nas.volumes import Volumes, lock_name
from onelun.rpc.job import Job
from onelun.rpc.message import DiskRemoved, MapZvol, RemoveDisk, UnmapZvol, ZvolMapped, ZvolUnmapped, size_bytes

log = logging.getLogger(__name__)


class Mapping:
    """map_zvol, unmap_zvol and remove_disk."""

    def __init__(
        self,
        pools: Pools,
        locks: Locks,
        catalogue: Catalogue,
        volumes: Volumes,
        attachments: Attachments,
        placements: Placements,
    ) -> None:
        self._pools = pools
        self._locks = locks
        self._catalogue = catalogue
        self._volumes = volumes
        self._attachments = attachments
        self._placements = placements

    async def map(self, request: MapZvol, job: Job) -> ZvolMapped:
        """Give a volume to a host; make it first when there is none and a size is given."""
        name = checked_name(request.zvol, "volume name")
        host = checked_name(request.remotehost, "name of a host")
        size = size_bytes(request)
        placed = _placed(request)
        found = await self._pools.locate(name, request.zpool)
        if found is None and (size is None or request.cloud is not None):
            if request.cloud is not None and request.zpool is not None:
                await must_be_ours(self._pools.backend(request.zpool), name)
            where = f"pool {request.zpool}" if request.zpool else "any pool"
            sizeless = "" if request.cloud is not None else ", and no size to make one of"
            raise NotFound(f"there is no volume {name} in {where}{sizeless}", zvol=name)
        backend = found[0] if found else await self._backend(request.zpool)
        async with self._locks.hold(lock_name(backend, name), preemptible=True):
            volume = await backend.find(name)
            if volume is None:
                if size is None:
                    raise NotFound(f"volume {name} has just been removed", zvol=name)
                volume = await self._volumes.ensure(backend, name, size, Owner(kind=Kind.PLAIN))
            pinned(volume, request.uuid)
            must_be_mapped_by(volume, request.cloud)
            if placed is not None:
                await self._leave_other_volume(placed, volume)
                if not (request.shareable or request.readonly):
                    self._placements.must_not_be_moving(volume, placed[:3], host)
                await self._end_failed_migrations(backend, volume, request, job)
            with self._placing(volume, placed, host):
                row, bdev = await self._attachments.attach(
                    backend,
                    volume,
                    host,
                    path=request.path,
                    readonly=request.readonly,
                    deadline=job.deadline,
                    of=job.id,
                    beside=request.beside,
                    shared=request.shareable,
                )
        log.info("map zvol=%s host=%s epoch=%s bdev=%s", name, host, row.epoch, bdev)
        device = self._attachments.source(volume).device
        return ZvolMapped(bdev=bdev, device=device, uuid=volume.uuid, size_bytes=volume.size_bytes, epoch=row.epoch)

    async def unmap(self, request: UnmapZvol, job: Job) -> ZvolUnmapped:
        """End a volume's mapping to a host."""
        found = await self._pools.locate(request.zvol, request.zpool)
        if found is None:
            return ZvolUnmapped(absent=True)
        backend, meant = found
        if request.uuid is not None and meant.uuid != checked_uuid(request.uuid):
            return ZvolUnmapped(absent=True)
        must_be_mapped_by(meant, request.cloud)
        async with self._locks.hold(lock_name(backend, meant.name), preempts=True):
            placed = self._placed(meant, request)
            row = self._row_of(meant, request, placed)
            if request.stays is not None:
                # Before the other host is asked: wherever this ends, the VM is where it is.
                self._placements.move(placed, checked_name(request.stays, "name of a host"))
            owes = False
            for ending in self._ending(row, request):
                owes |= await self._attachments.detach(
                    backend,
                    ending,
                    path=request.path,
                    keep_link=request.keep_link,
                    force=request.force,
                    deadline=job.deadline,
                    of=job.id,
                )
            if request.stays is None and request.keep_link:
                if row is not None:
                    self._placements.leave_host(meant.uuid, row.host, request.path)
            elif request.stays is None:
                self._catalogue.drop(*placed)
        log.info("unmap zvol=%s host=%s debt=%s", meant.name, row.host if row else None, owes)
        return ZvolUnmapped(debt=owes, absent=row is None)

    async def remove_disk(self, request: RemoveDisk, job: Job) -> DiskRemoved:
        """End a VM's disk: detach it, and destroy it when both the placement's VM and the volume itself say it is that VM's."""
        backend = self._pools.backend(request.zpool)
        meant = await backend.find(checked_name(request.zvol, "volume name"))
        if meant is None:
            # Whoever removed it before may have ended with that.
            self._placements.end_absent(backend.pool, request.zvol, request.cloud, request.vm, request.disk)
            return DiskRemoved(destroyed=False)
        own = is_disk_of(meant, request.cloud, request.vm, request.disk)
        if not own and (meant.owner.kind is not Kind.IMAGE or meant.owner.cloud != request.cloud):
            raise Conflict(
                f"{meant.name} is {describe(meant.owner)}, not disk {request.disk} of VM {request.vm}: it is not removed"
            )
        async with self._locks.hold(lock_name(backend, meant.name), preempts=True):
            owes = False
            for row in self._rows_of_disk(meant, request, own=own):
                owes |= await self._attachments.detach(
                    backend,
                    row,
                    path=request.path,
                    keep_link=False,
                    force=request.force,
                    discard=own,
                    deadline=job.deadline,
                    of=job.id,
                )
            volume = await backend.find(meant.name)
            destroyed = own and volume is not None and volume.uuid == meant.uuid
            if destroyed and volume is not None:
                await self._volumes.remove(backend, volume)
            # Last: by it the next `delete` finds a volume that is still there.
            self._placements.end(meant.uuid, request.path)
        return DiskRemoved(destroyed=destroyed, debt=owes)

    @contextlib.contextmanager
    def _placing(self, volume: Volume, placed: tuple[str, int, int, str] | None, host: str) -> Iterator[None]:
        """Write the placement before the body attaches, so that `delete` finds what a silent host may have.

        It is undone when the body has attached nothing.
        """
        if placed is None:
            yield
            return
        cloud, vm, disk, path = placed
        before = self._catalogue.placements(cloud=cloud, vm=vm, disk=disk)
        self._placements.put(volume, cloud=cloud, vm=vm, disk=disk, path=path, host=host)
        try:
            yield
        except OnelunError as error:
            rows = self._catalogue.attachments(uuid=volume.uuid, host=host)
            if isinstance(error, NoReply) and any(row.state != DETACHING for row in rows):
                raise
            self._catalogue.change(drop=self._catalogue.placements(cloud=cloud, vm=vm, disk=disk), put=before)
            raise

    def _placed(self, volume: Volume, request: UnmapZvol) -> list[Placement]:
        """The placements that the request means: that of the VM's disk; all of the volume when it names no VM."""
        if request.cloud is None or request.vm is None or request.disk is None:
            return self._catalogue.placements(uuid=volume.uuid)
        return self._catalogue.placements(uuid=volume.uuid, cloud=request.cloud, vm=request.vm, disk=request.disk)

    def _row_of(self, volume: Volume, request: UnmapZvol, placed: list[Placement]) -> AttachmentRow | None:
        """The attachment that the request means.

        A VM's disk that is taken back leaves the host where it is placed; one that moves on leaves the host that is named,
        and no other: a repeat may come when it has arrived.
        """
        if request.vm is None:
            return self._row(volume, request.remotehost)
        named = request.keep_link or request.stays is not None or not placed
        host = request.remotehost if named else placed[0].host
        return self._row(volume, host) if host is not None else None

    def _ending(self, row: AttachmentRow | None, request: UnmapZvol) -> list[AttachmentRow]:
        """The attachments that end with `row`: a VM's disk leaves the other end of a migration too, if nobody ended that."""
        if row is None or request.vm is None or request.stays is not None:
            return [row] if row is not None else []
        return [row, *self._migrating(row)]

    def _migrating(self, row: AttachmentRow) -> list[AttachmentRow]:
        """The other ends of migrations of that attachment, which are of one disk: the later one names the earlier."""
        rows = [other for other in self._catalogue.attachments(uuid=row.uuid) if other.host != row.host]
        pairs = [(other, *sorted((row, other), key=lambda end: end.epoch)) for other in rows]
        return [other for other, earlier, later in pairs if later.beside == earlier.host]

    async def _end_failed_migrations(self, backend: Backend, volume: Volume, request: MapZvol, job: Job) -> None:
        """The VM sets out again from where it is: no other host that it was to go to from there has it."""
        for row in self._catalogue.attachments(uuid=volume.uuid) if request.beside is not None else []:
            elsewhere = row.host not in (request.remotehost, request.beside)
            if elsewhere and row.beside == request.beside and not (row.readonly and request.readonly):
                log.info("map zvol=%s host=%s ends=%s", volume.name, request.remotehost, row.host)
                await self._attachments.detach(
                    backend,
                    row,
                    path=request.path,
                    keep_link=True,
                    force=True,
                    deadline=job.deadline,
                    of=job.id,
                )

    def _rows_of_disk(self, volume: Volume, request: RemoveDisk, *, own: bool) -> list[AttachmentRow]:
        """A VM's own disk leaves every host; an image only the host where this VM had it."""
        rows = self._catalogue.attachments(uuid=volume.uuid)
        if own:
            return rows
        placed = self._catalogue.placements(uuid=volume.uuid, cloud=request.cloud, vm=request.vm, disk=request.disk)
        hosts = {p.host for p in placed} or {request.remotehost}
        ending = [row for row in rows if row.host in hosts]
        return ending + [other for row in ending for other in self._migrating(row) if other not in ending]

    def _row(self, volume: Volume, host: str | None) -> AttachmentRow | None:
        rows = self._catalogue.attachments(uuid=volume.uuid)
        if host is not None:
            rows = [row for row in rows if row.host == checked_name(host, "name of a host")]
        if len(rows) > 1:
            hosts = ", ".join(row.host for row in rows)
            raise Rejected(f"volume {volume.name} is mapped to {hosts}: name the remotehost")
        return rows[0] if rows else None

    async def _leave_other_volume(self, placed: tuple[str, int, int, str], volume: Volume) -> None:
        """A disk of a VM is one volume: what stood there before must have left its host."""
        cloud, vm, disk, _ = placed
        for old in self._catalogue.placements(cloud=cloud, vm=vm, disk=disk):
            if old.uuid != volume.uuid and old.host is not None:
                raise Conflict(
                    f"disk {disk} of VM {vm} is {old.zvol} on {old.host} still: unmap that before {volume.name} takes its place"
                )

    async def _backend(self, pool: str | None) -> Backend:
        return self._pools.backend(pool) if pool is not None else await self._pools.default()


def _placed(request: MapZvol) -> tuple[str, int, int, str] | None:
    """The placement that the request makes. Raises Rejected when it names only a part of one."""
    parts = (request.cloud, request.vm, request.disk, request.path)
    if request.vm is None and request.disk is None:
        return None
    cloud, vm, disk, path = parts
    if cloud is None or vm is None or disk is None or path is None:
        raise Rejected("a placement needs all of cloud, vm, disk and path")
    if vm < 0 or disk < 0:
        raise Rejected("vm and disk are numbers from 0")
    return cloud, vm, disk, path
