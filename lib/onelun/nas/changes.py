"""The request for what changed between two snapshots of a volume."""

from __future__ import annotations

import logging

from onelun.naming import checked_name
from onelun.nas.locks import Locks
from onelun.nas.ownership import must_be_meant
from onelun.nas.pools import Pools, pinned, snapshot_of
from onelun.nas.volumes import lock_name
from onelun.rpc.job import Job
from onelun.rpc.message import ChangeList, ListChanges

log = logging.getLogger(__name__)


class Changes:
    """list_changes."""

    def __init__(self, pools: Pools, locks: Locks) -> None:
        self._pools = pools
        self._locks = locks

    async def listed(self, request: ListChanges, job: Job) -> ChangeList:
        """What may differ, as the storage tells it; the removal of the volume ends the search."""
        since = checked_name(request.since, "snapshot name")
        until = checked_name(request.until, "snapshot name")
        backend, meant = await self._pools.get(request.zvol, request.zpool)
        must_be_meant(pinned(meant, request.uuid), request)
        async with self._locks.hold(shared=(lock_name(backend, meant.name),), preemptible=True):
            extents = await backend.changed(meant, since, until)
            kept = await snapshot_of(backend, meant, until)
        changed = sum(extent.length for extent in extents if extent.data)
        log.info(
            "changes zvol=%s since=%s until=%s extents=%s bytes=%s", meant.name, since, until, len(extents), changed
        )
        body = [(extent.offset, extent.length, extent.data) for extent in extents]
        return ChangeList(uuid=meant.uuid, size_bytes=kept.size_bytes, body=body)
