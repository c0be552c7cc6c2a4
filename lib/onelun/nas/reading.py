"""What the front-end or a host reads over iSCSI: a clone of a volume under a lease, of which nothing is left."""

from __future__ import annotations

import uuid as uuids

from onelun.model import Attributes, Kind, Owner
from onelun.naming import checked_initiator, checked_name
from onelun.nas.leases import Leases
from onelun.nas.locks import Locks
from onelun.nas.pools import Pools, snapshot_of
from onelun.nas.volumes import Volumes, copying, lock_name
from onelun.rpc.job import Job
from onelun.rpc.message import ReadZvol, ZvolReadable

READ = "read-"
"""Begins the name of what is read, before a UUID; it is never published, and no volume of a cloud has so long a name."""


class Reading:
    """read_zvol."""

    def __init__(self, pools: Pools, locks: Locks, leases: Leases, volumes: Volumes) -> None:
        self._pools = pools
        self._locks = locks
        self._leases = leases
        self._volumes = volumes

    async def read(self, request: ReadZvol, job: Job) -> ZvolReadable:
        """Clone the volume for its reader alone, and export the clone to it. Each time it is another clone."""
        backend = self._pools.backend(request.zpool)
        name = checked_name(request.zvol, "volume name")
        initiator = checked_initiator(request.initiator)
        row = await self._leases.intend(backend, f"{READ}{uuids.uuid4()}", initiator)
        locks = self._locks.hold(lock_name(backend, row.zvol), shared=(lock_name(backend, name),), preemptible=True)
        async with locks:
            origin = await self._volumes.cloneable(backend, name, request.cloud, still=request.snapshot is not None)
            of = origin if request.snapshot is None else await snapshot_of(backend, origin, request.snapshot)
            size = of.size_bytes
            # Of no kind that any other request means.
            owner = Owner(kind=Kind.PLAIN, cloud=request.cloud)
            # It is only read: no room is set aside for writing.
            attributes = Attributes(wipe=origin.attributes.wipe)
            async with self._pools.promise(backend, size):
                told = await self._leases.offer(
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
        return ZvolReadable(size_bytes=size, **told)
