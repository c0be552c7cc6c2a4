"""The request that saves a VM's disk over an image when the VM has done with it, and what may be saved over."""

from __future__ import annotations

import msgspec

from onelun.errors import Conflict, NotFound, Rejected
from onelun.model import Kind, Volume
from onelun.naming import checked_name
from onelun.nas.attachments import Attachments
from onelun.nas.backends.base import Backend
from onelun.nas.catalogue import Catalogue
from onelun.nas.locks import Locks
from onelun.nas.ownership import describe, is_disk_of
from onelun.nas.placements import Placements
from onelun.nas.pools import Pools
from onelun.nas.volumes import Volumes, copying, lock_name
from onelun.rpc.job import Job
from onelun.rpc.message import SaveZvol, ZvolSaved


class Saving:
    """save_zvol."""

    def __init__(
        self,
        pools: Pools,
        locks: Locks,
        catalogue: Catalogue,
        attachments: Attachments,
        volumes: Volumes,
        placements: Placements,
    ) -> None:
        self._pools = pools
        self._locks = locks
        self._catalogue = catalogue
        self._attachments = attachments
        self._volumes = volumes
        self._placements = placements

    async def save(self, request: SaveZvol, job: Job) -> ZvolSaved:
        """Save a VM's disk over an image; the disk is destroyed when it is the VM's own."""
        backend = self._pools.backend(request.zpool)
        disk_name = checked_name(request.zvol, "volume name")
        target_name = checked_name(request.target, "volume name")
        if disk_name == target_name:
            raise Rejected(f"{disk_name} cannot be saved over itself")
        names = (lock_name(backend, disk_name), lock_name(backend, target_name))
        async with self._locks.hold(*names, preemptible=True):
            target = await saveable(self._catalogue, backend, target_name, request.cloud)
            disk = await backend.find(disk_name)
            mine = f"{request.cloud} {request.vm} {request.disk} "
            if disk is None:
                if target.filled_from is not None and target.filled_from.startswith(mine):
                    return ZvolSaved(uuid=target.uuid)
                raise NotFound(f"there is no volume {disk_name} in pool {backend.pool}", zvol=disk_name)
            if disk.owner.cloud != request.cloud:
                raise Conflict(f"{disk_name} is {describe(disk.owner)}, not of this cloud")
            for row in self._catalogue.attachments(uuid=disk.uuid):
                await self._attachments.detach(
                    backend, row, path=request.path, keep_link=False, force=False, deadline=job.deadline, of=job.id
                )
            target = await self._fill(backend, target, disk, mine + disk.uuid, job)
            self._placements.end(disk.uuid, request.path)
            if is_disk_of(disk, request.cloud, request.vm, request.disk):
                await self._volumes.remove(backend, await backend.find_uuid(disk.uuid) or disk)
        return ZvolSaved(uuid=target.uuid)

    async def _fill(self, backend: Backend, target: Volume, disk: Volume, mine: str, job: Job) -> Volume:
        if target.filled_from == mine:
            return target
        disk = await backend.find_uuid(disk.uuid) or disk
        size = max(disk.size_bytes, target.size_bytes)
        attributes = target.attributes.of_clone(disk.attributes)
        async with self._volumes.building(backend, size, attributes) as uuid:
            progress = copying(job, target.name)
            built = await backend.clone(disk, target.name, uuid, size, target.owner, progress, attributes=attributes)
            await backend.record(
                built.name, uuid, lambda now: msgspec.structs.replace(now, filled_from=mine, connected=True)
            )
            return await backend.publish(uuid, replace=target.uuid)


async def saveable(catalogue: Catalogue, backend: Backend, name: str, cloud: str) -> Volume:
    """The image to save a disk over. Raises NotFound, Conflict for what is no image of the cloud or is on a host."""
    target = await backend.find(name)
    if target is None:
        raise NotFound(f"there is no image {name} in pool {backend.pool} to save to", zvol=name)
    if target.owner.kind is not Kind.IMAGE or target.owner.cloud != cloud:
        raise Conflict(f"{name} is {describe(target.owner)}, not an image of this cloud")
    if rows := catalogue.attachments(uuid=target.uuid):
        raise Conflict(f"{name} is mapped to {rows[0].host}: it cannot be saved over")
    return target
