"""What the backend `zfs` does with volumes, step by step. Callers see to it that steps on one volume come one by one."""

from __future__ import annotations

import contextlib
import logging
import time

import msgspec

from onelun.errors import Busy, Conflict, NotFound, OnelunError
from onelun.model import Attributes, Owner, State, Volume
from onelun.nas.backends import rules
from onelun.nas.backends.base import Change
from onelun.nas.backends.zfs.building import Builder, rounded
from onelun.nas.backends.zfs.command import Missing, Present, Zfs
from onelun.nas.backends.zfs.ownership import Ownership
from onelun.nas.backends.zfs.places import NEW, TRASH
from onelun.nas.backends.zfs.properties import setting, settings
from onelun.nas.backends.zfs.removal import Removal
from onelun.nas.backends.zfs.snapshots import Kept, Snapshots
from onelun.nas.backends.zfs.tree import Entry, Seen, Tree

log = logging.getLogger(__name__)

VISIBLE = (State.READY, State.DELETING)


class Volumes:
    """The volumes of one pool."""

    def __init__(
        self, zfs: Zfs, tree: Tree, owned: Ownership, builder: Builder, removal: Removal, snapshots: Snapshots
    ) -> None:
        self._zfs = zfs
        self._tree = tree
        self._owned = owned
        self._builder = builder
        self._removal = removal
        self._snapshots = snapshots

    async def create(self, name: str, uuid: str, size_bytes: int, owner: Owner, attributes: Attributes) -> Volume:
        """Build an empty one."""
        size = rounded(size_bytes)
        seen = await self._tree.seek(new=uuid)
        agent = self._owned.check(seen)
        if (present := seen.by_uuid(uuid)) is not None and present.volume is not None:
            rules.check_same(present.volume, name, size, owner, None, attributes)
            return present.volume
        rules.check_room(self._zfs.pool, name, size, seen.capacity().total_bytes)
        await self._make_way(seen, uuid)
        await self._owned.serve(seen, owner.cloud)
        volume = self._builder.volume(name, uuid, size, owner, attributes)
        await self._builder.empty(volume, agent)
        return volume

    async def clone(
        self,
        origin: Volume,
        name: str,
        uuid: str,
        size_bytes: int,
        owner: Owner,
        snapshot: str | None,
        attributes: Attributes,
    ) -> Volume:
        """Build one with the content of another, or of its snapshot."""
        size = rounded(size_bytes)
        seen = await self._tree.seek(origin.uuid, hints=(origin.name,), new=uuid)
        agent = self._owned.check(seen)
        present = seen.by_uuid(uuid)
        if present is not None and present.volume is not None and present.volume.state is not State.BUILDING:
            rules.check_same(present.volume, name, size, owner, origin.uuid, attributes)
            return present.volume
        source, kept = await self._source(seen, origin, size_bytes, snapshot)
        rules.check_room(self._zfs.pool, name, size, seen.capacity().total_bytes)
        await self._make_way(seen, uuid)
        await self._owned.serve(seen, owner.cloud)
        volume = self._builder.volume(name, uuid, size, owner, attributes, origin.uuid)
        of_bytes = kept.snapshot.size_bytes if kept is not None else source.facts.number("volsize")
        await self._builder.clone(volume, agent, source, kept.at if kept is not None else None, of_bytes)
        return volume

    async def publish(self, uuid: str, replace: str | None) -> Volume:
        """Show the building one under its name, in one rename; what has the name is renamed just before."""
        name = self._tree.name_of(uuid)
        seen = await self._tree.seek(uuid)
        self._owned.check(seen)
        entry = seen.by_uuid(uuid)
        if entry is None or entry.volume is None or entry.volume.state is State.TRASH:
            raise NotFound(f"pool {self._zfs.pool} has no volume {uuid} to publish")
        if entry.volume.state is not State.BUILDING:
            return entry.volume
        volume = msgspec.structs.replace(entry.volume, state=State.READY)
        if name != volume.name:
            seen = await self._tree.look(volume.name)
        holder = seen.visible(volume.name)
        rules.check_free(self._zfs.pool, volume.name, holder.volume if holder is not None else None, replace)
        # A change of a property returns when its transaction group is on disk, and everything written before with it.
        await self._set(entry.leaf, setting("state", State.READY), setting("replaces", holder and replace))
        if holder is None:
            await self._show(entry.leaf, volume.name)
        else:
            await self._replace(entry.leaf, holder)
        self._tree.remember(volume)
        return volume

    async def record(self, name: str, uuid: str, change: Change) -> Volume:
        """Change the facts that may change, in one act. The caller has its turn."""
        seen = await self._tree.seek(uuid, hints=(name,))
        self._owned.check(seen)
        entry = seen.by_uuid(uuid)
        if entry is None or entry.volume is None:
            raise rules.none_of(self._zfs.pool, name, uuid)
        facts = rules.recorded(entry.volume, change(entry.volume))
        if facts != entry.volume:
            await self._set(entry.leaf, *settings(facts))
        return facts

    async def grow(self, volume: Volume, size_bytes: int) -> Volume:
        """Make it longer; ZFS changes a volume's size in one act."""
        rules.check_size(size_bytes)
        seen = await self._owned_seek(volume)
        entry, present = self._present(seen, volume)
        rules.check_grown(present, size_bytes)
        size = rounded(size_bytes)
        rules.check_room(self._zfs.pool, present.name, size, seen.capacity().total_bytes)
        if size != present.size_bytes:
            await self._set(entry.leaf, f"volsize={size}")
        return msgspec.structs.replace(present, size_bytes=size)

    async def trash(self, volume: Volume) -> None:
        """Take it out of sight."""
        entry = (await self._owned_seek(volume)).by_uuid(volume.uuid)
        if entry is not None and entry.volume is not None and entry.volume.state is not State.TRASH:
            await self._to_trash(entry)

    async def destroy(self, volume: Volume) -> None:
        """Remove it."""
        entry = (await self._owned_seek(volume)).by_uuid(volume.uuid)
        if entry is not None:
            await self._removal.volume(entry)
            self._tree.forget(volume.uuid)

    async def purge(self, older_than: float) -> int:
        """Remove what is long enough in the trash. One that somebody has open waits for the next time."""
        self._owned.check(await self._tree.look())
        destroyed = 0
        for entry in await self._tree.entries():
            if entry.place.prefix != TRASH or entry.volume is None:
                continue
            if rules.overdue(entry.volume, entry.trashed_at, older_than):
                try:
                    await self._removal.volume(entry)
                except (Busy, Missing) as error:
                    log.warning("trash kept=%s pool=%s reason=%s", entry.volume.uuid, self._zfs.pool, error)
                    continue
                self._tree.forget(entry.volume.uuid)
                destroyed += 1
        return destroyed

    async def _owned_seek(self, volume: Volume) -> Seen:
        seen = await self._tree.seek(volume.uuid, hints=(volume.name,))
        self._owned.check(seen)
        return seen

    async def _source(
        self, seen: Seen, origin: Volume, size_bytes: int, snapshot: str | None
    ) -> tuple[Entry, Kept | None]:
        entry = seen.by_uuid(origin.uuid)
        present = entry.volume if entry is not None else None
        if snapshot is None or entry is None or present is None or present.state is not State.READY:
            rules.check_origin(origin, present, size_bytes)
            assert entry is not None
            return entry, None
        kept = await self._snapshots.one(entry, snapshot)
        if kept is None:
            raise rules.no_snapshot(origin, snapshot)
        rules.check_origin(origin, present, size_bytes, of_bytes=kept.snapshot.size_bytes)
        return entry, kept

    async def _make_way(self, seen: Seen, uuid: str) -> None:
        """Remove what an earlier attempt built under this UUID."""
        if NEW + uuid in seen.entries:
            await self._removal.drop(NEW + uuid)

    def _present(self, seen: Seen, volume: Volume) -> tuple[Entry, Volume]:
        entry = seen.by_uuid(volume.uuid)
        if entry is None or entry.volume is None:
            raise rules.no_volume(volume)
        return entry, entry.volume

    async def _set(self, leaf: str, *facts: str) -> None:
        await self._zfs.run("set", *facts, self._tree.path(leaf))

    async def _show(self, leaf: str, name: str) -> None:
        try:
            await self._zfs.run("rename", self._tree.path(leaf), self._tree.path(name))
        except Present:
            raise Conflict(
                f"{name} in pool {self._zfs.pool} is taken: zfs list {self._tree.path(name)} shows by what"
            ) from None

    async def _replace(self, leaf: str, holder: Entry) -> None:
        """Trash the holder and show the new one. The new one says that it replaces it, so that `open` can end this."""
        assert holder.volume is not None
        try:
            await self._to_trash(holder)
            await self._show(leaf, holder.leaf)
        except BaseException:
            with contextlib.suppress(OnelunError):
                await self._set(leaf, setting("replaces", None))
                trash = self._tree.path(TRASH + holder.volume.uuid)
                await self._zfs.run("rename", trash, self._tree.path(holder.leaf))
                await self._set(holder.leaf, setting("state", holder.volume.state), setting("trashed-at", None))
            raise

    async def _to_trash(self, entry: Entry) -> None:
        assert entry.volume is not None
        await self._set(entry.leaf, setting("state", State.TRASH), setting("trashed-at", repr(time.time())))
        await self._zfs.run("rename", self._tree.path(entry.leaf), self._tree.path(TRASH + entry.volume.uuid))
