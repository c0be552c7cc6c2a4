"""Discarding the blocks of a volume before it is removed: lvremove gives them back to the pool, and tells no disk.

The pool passes a discard on for the blocks that no other volume shares. It runs outside LVM's lock, since it may take long.
"""

from __future__ import annotations

import logging

from onelun import command
from onelun.errors import Busy, NotFound, OnelunError
from onelun.model import State, Wipe
from onelun.nas.backends import rules
from onelun.nas.backends.lvm.listing import Listing
from onelun.nas.backends.lvm.thinpool import ThinPool
from onelun.nas.backends.lvm.volumes import LvmVolumes

log = logging.getLogger(__name__)

_DISCARD_S = 3600.0
# What is done between two looks at whether the process is to end.
_STEP = "1GiB"


class Discarding:
    """Discards volumes of one thin pool."""

    def __init__(self, pool: ThinPool, volumes: LvmVolumes) -> None:
        self._pool = pool
        self._volumes = volumes

    async def check(self) -> None:
        """Raises Rejected when the pool passes no discards on to its disks."""
        rows = await self._pool.lvm.report("lvs", "kernel_discards", self._pool.path)
        if rows[0]["kernel_discards"] != "passdown":
            reason = (
                f"its thin pool passes no discards on: use none; where its disks take discards, deactivate its volumes"
                f" and itself, then run lvchange --discards passdown {self._pool.path}"
            )
            raise rules.refused(self._pool.pool, "lvm", "WIPE", "discard", reason)

    async def volume(self, uuid: str) -> None:
        """Discard the volume and its snapshots, if it is to be. Absent: nothing. Raises Busy while it is open."""
        found = await self._pool.owned()
        entry = found.volumes.get(uuid)
        if entry is not None and entry.volume.attributes.wipe is Wipe.DISCARD:
            await self._discard(found, uuid)

    async def overdue(self, older_than: float) -> set[str]:
        """Discard what is to be purged from the trash, and return the UUIDs of it; what cannot be discarded now stays."""
        found = await self._pool.owned()
        done = set()
        for uuid, entry in found.volumes.items():
            if entry.volume.state is not State.TRASH or entry.volume.attributes.wipe is not Wipe.DISCARD:
                continue
            if not rules.overdue(entry.volume, entry.facts.trashed_at or 0.0, older_than):
                continue
            try:
                await self._discard(found, uuid)
            except OnelunError as error:
                log.warning("purge pool=%s uuid=%s kept: %s", self._pool.pool, uuid, error)
            else:
                done.add(uuid)
        return done

    async def _discard(self, found: Listing, uuid: str) -> None:
        for lv in found.all_of(uuid):
            if await self._pool.devices.opened(lv):
                raise Busy(f"the volume {uuid} in pool {self._pool.pool} is open", pool=self._pool.pool)
            try:
                await self._volumes.activate(lv)
                path = await self._pool.devices.wait(lv)
                # Without --force it opens the device alone, so that nothing in use is discarded.
                await command.run("blkdiscard", "--step", _STEP, path, timeout_s=_DISCARD_S)
            except NotFound:
                continue
