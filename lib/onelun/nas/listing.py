"""The requests that only look."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from onelun.deadline import Deadline
from onelun.errors import OnelunError, Stalled
from onelun.model import State, Usage, Volume
from onelun.naming import checked_name
from onelun.nas.catalogue import Catalogue, Placement
from onelun.nas.ownership import is_disk_of
from onelun.nas.pools import Pools
from onelun.rpc.job import Job
from onelun.rpc.message import (
    DiskList,
    FindPlacements,
    ListDisks,
    ListZvols,
    PlacementList,
    PoolCapacity,
    PoolCapacityIs,
    ZvolList,
)

log = logging.getLogger(__name__)

_THERE = (State.READY, State.DELETING)

# What one pool may take to tell what its volumes take; who asks waits for all of them.
_USAGE_S = 20.0


class Listing:
    """list_zvols, find_placements, list_disks and pool_capacity."""

    def __init__(self, pools: Pools, catalogue: Catalogue) -> None:
        self._pools = pools
        self._catalogue = catalogue

    async def zvols(self, request: ListZvols, job: Job) -> ZvolList:
        """The volume called `name`, or all; not what is being built, nor the trash."""
        chosen = [self._pools.backend(request.zpool)] if request.zpool else list(self._pools)
        if request.name:
            checked_name(request.name, "volume name")
            volumes = [v for backend in chosen if (v := await backend.find(request.name)) is not None]
        else:
            volumes = [v for backend in chosen for v in await backend.volumes() if v.state is State.READY]
        return ZvolList(body=[self._zvol(volume) for volume in sorted(volumes, key=lambda v: (v.pool, v.name))])

    async def placements(self, request: FindPlacements, job: Job) -> PlacementList:
        """The placements of a cloud, by any of VM, disk and path, each with what its volume says of itself.

        Where a VM's disk has none (it was never mapped, or the catalogue was lost), the volume that says that it is that
        disk stands for it; also when its removal was cut off, which is to be repeated.
        """
        where: dict[str, str | int] = {"cloud": request.cloud}
        for column in ("vm", "disk", "path"):
            value = getattr(request, column)
            if value is not None:
                where[column] = value
        body = []
        for placed in self._catalogue.placements(**where):
            volume = await self._pools.backend(placed.pool).find_uuid(placed.uuid)
            body.append(
                {
                    "vm": placed.vm,
                    "disk": placed.disk,
                    "path": placed.path,
                    "host": placed.host,
                    "zpool": placed.pool,
                    "zvol": placed.zvol,
                    "uuid": placed.uuid,
                    "kind": volume.owner.kind if volume else None,
                }
            )
        if not body and request.vm is not None and request.disk is not None:
            body = [
                self._unplaced(volume, request)
                for backend in self._pools
                for volume in await backend.volumes()
                if volume.state in _THERE and is_disk_of(volume, request.cloud, request.vm, request.disk)
            ]
        return PlacementList(body=body)

    async def disks(self, request: ListDisks, job: Job) -> DiskList:
        """What each placed disk of a cloud takes. A pool that fails, or hangs, takes only its own disks with it."""
        # There may be thousands of disks, and others have work for the event loop too.
        pages: list[list[Placement]] = []
        for page in self._catalogue.placement_pages(request.cloud):
            pages.append(page)
            await asyncio.sleep(0)
        asked = list(dict.fromkeys(one.pool for page in pages for one in page))
        told = await asyncio.gather(*(self._usages(pool, job.deadline) for pool in asked), return_exceptions=True)
        used: dict[str, Usage] = {}
        failed: dict[str, str] = {}
        for pool, answer in zip(asked, told, strict=True):
            if isinstance(answer, OnelunError):
                log.warning("disks pool=%s failed=%s", pool, answer)
                failed[pool] = answer.sentence
            elif isinstance(answer, BaseException):
                raise answer
            else:
                used.update(answer)
        body: list[dict[str, Any]] = []
        for page in pages:
            body += (_disk(one, used[one.uuid]) for one in page if one.uuid in used)
            await asyncio.sleep(0)
        return DiskList(body=body, failed=failed)

    async def capacity(self, request: PoolCapacity, job: Job) -> PoolCapacityIs:
        """What a pool can give below its high-water mark: nothing while it is in maintenance."""
        backend = self._pools.backend(request.zpool)
        found = await backend.capacity()
        maintenance = self._pools.maintenance.of(backend.pool)
        room = max(0, self._pools.room(backend.pool, found)) if maintenance is None else 0
        return PoolCapacityIs(
            total_bytes=found.total_bytes, used_bytes=found.used_bytes, free_bytes=room, maintenance=maintenance
        )

    async def _usages(self, pool: str, deadline: Deadline) -> dict[str, Usage]:
        """What the pool's volumes take. Raises Stalled when it does not tell in time."""
        try:
            async with asyncio.timeout(deadline.earlier(_USAGE_S).left_s()):
                return await self._pools.backend(pool).usages()
        except TimeoutError:
            raise Stalled(f"pool {pool} did not tell what its volumes take within {_USAGE_S:g} s") from None

    def _unplaced(self, volume: Volume, request: FindPlacements) -> dict[str, Any]:
        rows = self._catalogue.attachments(uuid=volume.uuid)
        return {
            "vm": request.vm,
            "disk": request.disk,
            "path": request.path,
            "host": rows[0].host if rows else None,
            "zpool": volume.pool,
            "zvol": volume.name,
            "uuid": volume.uuid,
            "kind": volume.owner.kind,
        }

    def _zvol(self, volume: Volume) -> dict[str, Any]:
        rows = self._catalogue.attachments(uuid=volume.uuid)
        return {
            "zvol": volume.name,
            "zpool": volume.pool,
            "uuid": volume.uuid,
            "size_bytes": volume.size_bytes,
            "state": str(volume.state),
            "kind": str(volume.owner.kind),
            "remotehost": rows[0].host if rows else None,
            "iscsi_target": rows[0].iqn if rows else None,
            "attachments": [
                {"remotehost": row.host, "iscsi_target": row.iqn, "epoch": row.epoch, "state": row.state}
                for row in rows
            ],
        }


def _disk(placed: Placement, usage: Usage) -> dict[str, Any]:
    return {
        "vm": placed.vm,
        "disk": placed.disk,
        "path": placed.path,
        "zpool": placed.pool,
        "zvol": placed.zvol,
        "used_bytes": usage.used_bytes,
        "snapshots": usage.snapshots,
    }
