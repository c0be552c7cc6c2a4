"""What the backend `lvm` does with volumes, step by step. What changes something runs inside `lvm.alone`."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection

import msgspec

from onelun.errors import Busy, NotFound, OnelunError
from onelun.model import Attributes, Owner, State, Volume, Wipe
from onelun.nas.backends import rules
from onelun.nas.backends.base import Change, Progress
from onelun.nas.backends.lvm.listing import Entry, Listing, volume_lv
from onelun.nas.backends.lvm.tags import Replacement, VolumeFacts, volume_tags
from onelun.nas.backends.lvm.thinpool import ThinPool

log = logging.getLogger(__name__)

# Such an LV stays inactive, at a boot too, until it is activated with --ignoreactivationskip.
INACTIVE = ("--setactivationskip", "y")
DEACTIVATED = ("--activate=n",)
# What making a thin LV takes: one that queues it for the pool, and one when the pool has made it (lib/metadata/thin_manip.c).
_COMMITS = 2


class LvmVolumes:
    """The volumes of a thin pool."""

    def __init__(self, pool: ThinPool) -> None:
        self._pool = pool
        self._lvm = pool.lvm
        self._devices = pool.devices
        self._awaited: set[str] = set()

    async def create(self, name: str, uuid: str, size_bytes: int, owner: Owner, attributes: Attributes) -> Volume:
        """Build an empty one, in one commit."""
        found = await self._pool.owned()
        present = found.volumes.get(uuid)
        if present is not None:
            rules.check_same(present.volume, name, size_bytes, owner, None, attributes)
            return present.volume
        volume = self._new(name, uuid, size_bytes, owner, None, attributes)
        tags = await self._admitted(found, volume)
        size = ("--virtualsize", f"{size_bytes}b", "--thinpool", self._pool.thin_pool)
        async with self._pool.making(volume_lv(uuid), size_bytes, tags, commits=_COMMITS):
            added = (f"--addtag={tag}" for tag in tags)
            await self._lvm.change(
                *("lvcreate", "--type=thin", "--activate=n", *INACTIVE, *size, *added),
                *("--name", volume_lv(uuid), self._pool.vg),
            )
        return volume

    async def clone(
        self,
        origin: Volume,
        name: str,
        uuid: str,
        size_bytes: int,
        owner: Owner,
        progress: Progress,
        snapshot: str | None,
        attributes: Attributes,
    ) -> Volume:
        """Build one as a thin snapshot of the origin, or of its snapshot. A larger one is enlarged by a second command."""
        found = await self._pool.owned()
        present = found.volumes.get(uuid)
        if present is not None and present.volume.state is not State.BUILDING:
            rules.check_same(present.volume, name, size_bytes, owner, origin.uuid, attributes)
            return present.volume
        source = found.volumes.get(origin.uuid)
        moment = None if snapshot is None else found.snapshot(origin.uuid, snapshot)
        if snapshot is not None and moment is None:
            raise rules.no_snapshot(origin, snapshot)
        of_bytes = None if moment is None else moment.facts.snapshot.size_bytes
        rules.check_origin(origin, None if source is None else source.volume, size_bytes, of_bytes=of_bytes)
        assert source is not None
        if present is not None:
            await self.remove(found, uuid)
        volume = self._new(name, uuid, size_bytes, owner, origin.uuid, attributes)
        tags = await self._admitted(found, volume)
        from_bytes = source.volume.size_bytes if of_bytes is None else of_bytes
        async with self._pool.making(volume_lv(uuid), from_bytes, tags, commits=_COMMITS):
            await self.derive(source.lv if moment is None else moment.lv, volume_lv(uuid), *tags)
        if size_bytes > from_bytes:
            await self._extend(volume_lv(uuid), size_bytes)
        progress(from_bytes, from_bytes)
        return volume

    async def publish(self, uuid: str, replace: str | None) -> Volume:
        """Show the building volume, which is flushed, under its name in one commit; tell what it replaces in the next."""
        found = await self._pool.owned()
        entry = found.volumes.get(uuid)
        if entry is None or entry.volume.state is State.TRASH:
            raise NotFound(f"pool {self._pool.pool} has no volume {uuid} to publish")
        if entry.volume.state is not State.BUILDING:
            return entry.volume
        holder = found.visible(entry.volume.name)
        rules.check_free(self._pool.pool, entry.volume.name, holder.volume if holder is not None else None, replace)
        ready = msgspec.structs.replace(entry.volume, state=State.READY)
        now = time.time()
        replaces = Replacement(holder.volume.uuid, now) if holder is not None else None
        await self._pool.write(entry, VolumeFacts(ready, replaces=replaces))
        if holder is not None:
            await self._put_away(holder, now)
        return ready

    async def record(self, name: str, uuid: str, change: Change, *, idle: bool = False) -> Volume:
        """Change the facts that may change; `idle`: then deactivate it, when no attachment is left. Raises Busy in that case."""
        entry = (await self._pool.owned()).volumes.get(uuid)
        if entry is None:
            raise rules.none_of(self._pool.pool, name, uuid)
        recorded = rules.recorded(entry.volume, change(entry.volume))
        # LVM commits the tags before it deactivates (lvchange_properties_cmd()), and warns that one may fail without the other.
        also = DEACTIVATED if idle and not recorded.attachments else ()
        await self._pool.write(entry, msgspec.structs.replace(entry.facts, volume=recorded), *also)
        return recorded

    async def grow(self, volume: Volume, size_bytes: int) -> Volume:
        """Make it longer, active or not."""
        entry = self._present(await self._pool.owned(), volume)
        rules.check_grown(entry.volume, size_bytes)
        if size_bytes > entry.volume.size_bytes:
            await self._pool.admit(entry.volume.name, size_bytes)
            await self._extend(entry.lv, size_bytes)
        return msgspec.structs.replace(entry.volume, size_bytes=size_bytes)

    async def trash(self, volume: Volume) -> None:
        """Put it into the trash."""
        entry = (await self._pool.owned()).volumes.get(volume.uuid)
        if entry is not None and entry.volume.state is not State.TRASH:
            await self._put_away(entry, time.time())

    async def destroy(self, volume: Volume) -> None:
        """Remove it with its snapshots."""
        await self.remove(await self._pool.owned(), volume.uuid)

    async def purge(self, older_than: float, discarded: Collection[str]) -> int:
        """Remove what is long enough in the trash, and discarded where that is asked; what is open waits for the next time."""
        found = await self._pool.owned()
        trash = [entry for entry in found.volumes.values() if entry.volume.state is State.TRASH]
        count = 0
        for entry in trash:
            if entry.volume.attributes.wipe is Wipe.DISCARD and entry.volume.uuid not in discarded:
                continue
            if not rules.overdue(entry.volume, entry.facts.trashed_at or 0.0, older_than):
                continue
            try:
                await self.remove(found, entry.volume.uuid)
                count += 1
            except Busy as error:
                log.warning("purge pool=%s uuid=%s kept: %s", self._pool.pool, entry.volume.uuid, error)
        return count

    async def activate(self, lv: str) -> None:
        """Make the device of it; takes its own turn. Raises NotFound.

        All that are awaited when a turn comes go into one command: after a boot there are many, and each command costs
        the same.
        """
        self._awaited.add(lv)
        try:
            await self._lvm.alone(lambda: self._activate(lv))
        finally:
            self._awaited.discard(lv)

    async def _activate(self, lv: str) -> None:
        if self._devices.ready(lv):
            return
        try:
            await self._make_devices(*sorted(self._awaited | {lv}))
        except OnelunError:
            if self._awaited <= {lv}:
                raise
            # It may be the fault of another.
            await self._make_devices(lv)

    async def _make_devices(self, *lvs: str) -> None:
        # --activate=y also resumes a volume that a killed command left suspended.
        paths = [f"{self._pool.vg}/{lv}" for lv in lvs]
        await self._lvm.change("lvchange", "--activate=y", "--ignoreactivationskip", *paths)

    async def deactivate(self, lv: str) -> None:
        """Take its device away. Raises NotFound, Busy."""
        await self._lvm.change("lvchange", "--activate=n", f"{self._pool.vg}/{lv}")

    async def derive(self, source: str, lv: str, *tags: str) -> None:
        """Make a thin snapshot of an LV, which shares its blocks. LVM suspends an active source, which writes its cache back."""
        added = (f"--addtag={tag}" for tag in tags)
        await self._lvm.change("lvcreate", "--snapshot", *INACTIVE, *added, "--name", lv, f"{self._pool.vg}/{source}")

    async def remove(self, found: Listing, uuid: str) -> None:
        """Remove all LVs of the volume, its data last. Raises Busy, and then all of it is there."""
        lvs = found.all_of(uuid)
        if len(lvs) > 1 and await self._devices.opened(lvs[-1]):
            raise Busy(f"the volume {uuid} in pool {self._pool.pool} is open", pool=self._pool.pool)
        if lvs:
            await self._lvm.change("lvremove", *(f"{self._pool.vg}/{lv}" for lv in lvs))

    async def resume(self, found: Listing) -> None:
        """Let I/O go on where a killed command has left a device suspended. LVM's lock is waited for: it may still run."""
        for lv in await self._devices.suspended([entry.lv for entry in found.volumes.values()]):
            log.warning("open pool=%s lv=%s was suspended", self._pool.pool, lv)
            await self._lvm.change("lvchange", "--refresh", f"{self._pool.vg}/{lv}")

    async def finish(self, found: Listing) -> None:
        """End what an interruption left half done: replaced volumes, and snapshots of volumes that are gone."""
        for entry in found.volumes.values():
            if entry.volume.state is State.TRASH and volume_tags(entry.facts) != entry.tags:
                await self._pool.write(entry, entry.facts)
        for uuid in set(found.snapshots) - set(found.volumes):
            await self.remove(found, uuid)

    def _new(
        self, name: str, uuid: str, size_bytes: int, owner: Owner, origin: str | None, attributes: Attributes
    ) -> Volume:
        return Volume(
            pool=self._pool.pool,
            name=name,
            uuid=uuid,
            size_bytes=size_bytes,
            state=State.BUILDING,
            owner=owner,
            origin=origin,
            made_at=time.time(),
            attributes=attributes,
        )

    async def _admitted(self, found: Listing, volume: Volume) -> list[str]:
        """The tags of a volume that the pool may take."""
        tags = sorted(volume_tags(VolumeFacts(volume)))
        await self._pool.admit(volume.name, volume.size_bytes)
        await self._pool.serve(found, volume.owner.cloud)
        return tags

    async def _extend(self, lv: str, size_bytes: int) -> None:
        await self._lvm.change("lvextend", "--size", f"{size_bytes}b", f"{self._pool.vg}/{lv}")

    async def _put_away(self, entry: Entry, at: float) -> None:
        trashed = msgspec.structs.replace(entry.volume, state=State.TRASH)
        await self._pool.write(entry, msgspec.structs.replace(entry.facts, volume=trashed, trashed_at=at))

    def _present(self, found: Listing, volume: Volume) -> Entry:
        entry = found.volumes.get(volume.uuid)
        if entry is None:
            raise rules.no_volume(volume)
        return entry
