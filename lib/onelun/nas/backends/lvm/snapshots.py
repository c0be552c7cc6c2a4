"""Snapshots of volumes in a thin pool: thin snapshots that are never activated.

A revert makes `onelun-UUID.new` of the snapshot, with the volume's facts, and swaps it for the volume by two renames. The
names tell how far it came: with `.new` and the volume there it had not begun; without the volume, `.new` is the volume;
with `.was` beside the volume it is done. A listing reads them so, and `finish` does what is left.
"""

from __future__ import annotations

import time

import msgspec

from onelun.errors import Busy
from onelun.model import Snapshot, Volume
from onelun.nas.backends import rules
from onelun.nas.backends.lvm.listing import NEW, WAS, Entry, Listing, snapshot_lv, volume_lv
from onelun.nas.backends.lvm.tags import SnapshotFacts, snapshot_tags
from onelun.nas.backends.lvm.thinpool import ThinPool
from onelun.nas.backends.lvm.volumes import LvmVolumes


class LvmSnapshots:
    """The snapshots of a pool's volumes. What changes something runs inside `lvm.alone`."""

    def __init__(self, pool: ThinPool, volumes: LvmVolumes) -> None:
        self._pool = pool
        self._volumes = volumes

    async def make(self, volume: Volume, name: str) -> Snapshot:
        """Keep the volume's content of now, in one commit."""
        found = await self._pool.owned()
        entry = self._ready(found, volume)
        kept = found.snapshot(volume.uuid, name)
        if kept is not None:
            return kept.facts.snapshot
        await self._pool.admit(name, entry.volume.size_bytes)
        snapshot = Snapshot(name=name, made_at=time.time(), size_bytes=entry.volume.size_bytes)
        tags = snapshot_tags(SnapshotFacts(of=volume.uuid, snapshot=snapshot))
        await self._volumes.derive(entry.lv, snapshot_lv(volume.uuid, name), *sorted(tags))
        return snapshot

    async def revert(self, volume: Volume, name: str) -> Volume:
        """Let a thin snapshot of the snapshot take the volume's place."""
        found = await self._pool.owned()
        entry = self._ready(found, volume)
        kept = found.snapshot(volume.uuid, name)
        if kept is None:
            raise rules.no_snapshot(volume, name)
        if await self._settled(found, volume.uuid):
            found = await self._pool.owned()
            entry = self._ready(found, volume)
        lv = entry.lv
        opened = await self._pool.devices.opened(lv)
        if opened:
            raise Busy(f"{volume.name} in pool {self._pool.pool} is open: detach it before it is reverted")
        await self._volumes.derive(kept.lv, lv + NEW, *sorted(entry.tags))
        try:
            if opened is not None:
                await self._volumes.deactivate(lv)
        except Busy:
            await self._pool.lvm.change("lvremove", f"{self._pool.vg}/{lv}{NEW}")
            raise
        await self._rename(lv, lv + WAS)
        await self._rename(lv + NEW, lv)
        if opened is not None:
            await self._volumes.activate(lv)
        await self._pool.lvm.change("lvremove", f"{self._pool.vg}/{lv}{WAS}")
        return msgspec.structs.replace(entry.volume, size_bytes=kept.facts.snapshot.size_bytes)

    async def remove(self, volume: Volume, name: str) -> None:
        """Remove it."""
        kept = (await self._pool.owned()).snapshot(volume.uuid, name)
        if kept is not None:
            await self._pool.lvm.change("lvremove", f"{self._pool.vg}/{kept.lv}")

    async def finish(self, found: Listing) -> bool:
        """End every revert that was interrupted; whether there was one."""
        for uuid in found.beside:
            await self._settled(found, uuid)
        return bool(found.beside)

    async def _settled(self, found: Listing, uuid: str) -> bool:
        """End the volume's revert that was interrupted, when there is one; whether there was."""
        lv, beside = volume_lv(uuid), found.beside.get(uuid, [])
        # The entry's LV is the first that is there: the volume's own, else `.new`, else `.was`.
        inplace = found.volumes[uuid].lv
        if inplace != lv:
            await self._rename(inplace, lv)
        for left in beside:
            if left != inplace:
                await self._pool.lvm.change("lvremove", f"{self._pool.vg}/{left}")
        return bool(beside)

    def _ready(self, found: Listing, volume: Volume) -> Entry:
        entry = found.volumes.get(volume.uuid)
        rules.check_ready(volume, None if entry is None else entry.volume)
        assert entry is not None
        return entry

    async def _rename(self, lv: str, to: str) -> None:
        await self._pool.lvm.change("lvrename", self._pool.vg, lv, to)
