"""A backend in memory, for tests and trials: real volumes with real bytes, gone with the object.

One object is one pool. Clones and snapshots share blocks with their origin until one side writes.
"""

from __future__ import annotations

import asyncio
import time

import msgspec

from onelun.errors import Conflict, NotFound, Rejected
from onelun.model import Attributes, Capacity, Extent, Owner, Snapshot, State, Usage, Volume
from onelun.nas.backends import rules
from onelun.nas.backends.base import PLAIN, Backend, Change, Progress
from onelun.nas.backends.changes import merged
from onelun.nas.backends.memory.blocks import bytes_of, changed, discarded, written
from onelun.nas.backends.memory.kept import Kept, Moment, Shelf


class MemoryBackend(Backend):
    """A pool of `total_bytes`."""

    def __init__(self, pool: str, total_bytes: int = 1 << 40) -> None:
        self.pool = pool
        self._shelf = Shelf(pool, total_bytes)
        self._owner: str | None = None
        self._cloud: str | None = None
        self._serial = 0
        self._agent: str | None = None

    async def check(self, agent: str, cloud: str | None) -> list[str]:
        """See the base."""
        found = []
        try:
            rules.check_owner(self.pool, self._owner, agent)
            rules.check_cloud(self.pool, self._cloud, cloud)
        except Conflict as error:
            found.append(str(error))
        return found + rules.near_full(self.pool, await self.capacity(), "make the pool with more bytes")

    async def open(self, agent: str, cloud: str | None) -> None:
        """See the base."""
        rules.check_owner(self.pool, self._owner, agent)
        rules.check_cloud(self.pool, self._cloud, cloud)
        self._owner = self._agent = agent

    async def take(self, agent: str) -> None:
        """See the base."""
        self._owner = agent

    async def serial(self) -> int:
        """See the base."""
        return self._serial

    async def set_serial(self, serial: int) -> None:
        """See the base."""
        self._check_owned()
        self._serial = serial

    async def capacity(self) -> Capacity:
        """See the base."""
        used, total = self._shelf.used_bytes(), self._shelf.total_bytes
        return Capacity(total_bytes=total, used_bytes=used, free_bytes=max(0, total - used))

    async def volumes(self) -> list[Volume]:
        """See the base."""
        return [kept.volume for kept in self._shelf.by_uuid.values()]

    async def find(self, name: str) -> Volume | None:
        """See the base."""
        kept = self._shelf.named(name)
        return kept.volume if kept is not None else None

    async def find_uuid(self, uuid: str) -> Volume | None:
        """See the base."""
        return self._shelf.by_uuid[uuid].volume if uuid in self._shelf.by_uuid else None

    async def accept(self, attributes: Attributes) -> None:
        """See the base. Memory that is given up is wiped by itself; none is set aside."""
        rules.check_only_zfs(self.pool, "memory", attributes)
        if attributes.thick:
            raise rules.refused(self.pool, "memory", "PROVISIONING", "thick", "blocks are taken when they are written")

    async def create(
        self, name: str, uuid: str, size_bytes: int, owner: Owner, attributes: Attributes = PLAIN
    ) -> Volume:
        """See the base."""
        rules.check_new(name, uuid, size_bytes)
        self._check_owned()
        if uuid in self._shelf.by_uuid:
            rules.check_same(self._shelf.by_uuid[uuid].volume, name, size_bytes, owner, None, attributes)
            return self._shelf.by_uuid[uuid].volume
        return self._build(name, uuid, size_bytes, owner, None, attributes)

    async def clone(
        self,
        origin: Volume,
        name: str,
        uuid: str,
        size_bytes: int,
        owner: Owner,
        progress: Progress,
        *,
        snapshot: str | None = None,
        attributes: Attributes = PLAIN,
    ) -> Volume:
        """See the base."""
        rules.check_new(name, uuid, size_bytes)
        self._check_owned()
        present = self._shelf.by_uuid.get(uuid)
        if present is not None and present.volume.state is not State.BUILDING:
            rules.check_same(present.volume, name, size_bytes, owner, origin.uuid, attributes)
            return present.volume
        source = self._shelf.by_uuid.get(origin.uuid)
        moment = source.moments.get(snapshot) if source is not None and snapshot is not None else None
        if snapshot is not None and moment is None:
            raise rules.no_snapshot(origin, snapshot)
        of_bytes = moment.snapshot.size_bytes if moment is not None else None
        rules.check_origin(origin, source.volume if source else None, size_bytes, of_bytes=of_bytes)
        assert source is not None
        content = moment.blocks if moment is not None else source.blocks
        volume = self._build(name, uuid, size_bytes, owner, origin.uuid, attributes)
        # Where a copy would take time a caller may be cancelled; so it may be here.
        await asyncio.sleep(0)
        self._shelf.by_uuid[uuid].blocks = dict(content)
        progress(of_bytes or source.volume.size_bytes, of_bytes or source.volume.size_bytes)
        return volume

    async def publish(self, uuid: str, *, replace: str | None = None) -> Volume:
        """See the base."""
        self._check_owned()
        kept = self._shelf.by_uuid.get(uuid)
        if kept is None or kept.volume.state is State.TRASH:
            raise NotFound(f"pool {self.pool} has no volume {uuid} to publish")
        if kept.volume.state is State.BUILDING:
            holder = self._shelf.named(kept.volume.name)
            rules.check_free(self.pool, kept.volume.name, holder.volume if holder is not None else None, replace)
            if holder is not None:
                holder.to_trash()
            kept.volume = msgspec.structs.replace(kept.volume, state=State.READY)
        return kept.volume

    async def record(self, name: str, uuid: str, change: Change, *, idle: bool = False) -> Volume:
        """See the base."""
        self._check_owned()
        kept = self._shelf.by_uuid.get(uuid)
        if kept is None:
            raise rules.none_of(self.pool, name, uuid)
        kept.volume = rules.recorded(kept.volume, change(kept.volume))
        return kept.volume

    async def grow(self, volume: Volume, size_bytes: int) -> Volume:
        """See the base."""
        self._check_owned()
        kept = self._shelf.present(volume)
        rules.check_grown(kept.volume, size_bytes)
        self._check_room(kept.volume.name, size_bytes)
        kept.volume = msgspec.structs.replace(kept.volume, size_bytes=size_bytes)
        return kept.volume

    async def trash(self, volume: Volume) -> None:
        """See the base."""
        self._check_owned()
        kept = self._shelf.by_uuid.get(volume.uuid)
        if kept is not None and kept.volume.state is not State.TRASH:
            kept.to_trash()

    async def destroy(self, volume: Volume) -> None:
        """See the base; nothing knows who reads it, so Busy is never raised."""
        self._check_owned()
        self._shelf.by_uuid.pop(volume.uuid, None)

    async def purge(self, older_than: float) -> int:
        """See the base."""
        self._check_owned()
        trash = [kept for kept in self._shelf.by_uuid.values() if kept.volume.state is State.TRASH]
        overdue = [kept.volume.uuid for kept in trash if rules.overdue(kept.volume, kept.trashed_at, older_than)]
        for uuid in overdue:
            del self._shelf.by_uuid[uuid]
        return len(overdue)

    async def snapshot(self, volume: Volume, name: str) -> Snapshot:
        """See the base."""
        rules.check_snapshot(name)
        self._check_owned()
        kept = self._shelf.ready(volume)
        if name not in kept.moments:
            snapshot = Snapshot(name=name, made_at=time.time(), size_bytes=kept.volume.size_bytes)
            kept.moments[name] = Moment(snapshot, dict(kept.blocks))
        return self._shelf.measured(kept.moments[name])

    async def snapshots(self, volume: Volume) -> list[Snapshot]:
        """See the base."""
        return [self._shelf.measured(moment) for moment in self._shelf.present(volume).moments.values()]

    async def revert(self, volume: Volume, name: str) -> Volume:
        """See the base; nothing knows who reads it, so Busy is never raised."""
        self._check_owned()
        kept = self._shelf.ready(volume)
        if name not in kept.moments:
            raise rules.no_snapshot(volume, name)
        moment = kept.moments[name]
        kept.blocks = dict(moment.blocks)
        kept.volume = msgspec.structs.replace(kept.volume, size_bytes=moment.snapshot.size_bytes)
        return kept.volume

    async def delete_snapshot(self, volume: Volume, name: str) -> None:
        """See the base."""
        self._check_owned()
        if volume.uuid in self._shelf.by_uuid:
            self._shelf.by_uuid[volume.uuid].moments.pop(name, None)

    async def changed(self, volume: Volume, since: str, until: str) -> list[Extent]:
        """See the base."""
        moments = self._shelf.present(volume).moments
        for name in (since, until):
            if name not in moments:
                raise rules.no_snapshot(volume, name)
        later = moments[until]
        return merged(changed(moments[since].blocks, later.blocks), later.snapshot.size_bytes)

    async def activate(self, volume: Volume) -> str:
        """See the base. There is nothing to make ready."""
        return self.device(self._shelf.present(volume).volume)

    async def deactivate(self, volume: Volume) -> None:
        """See the base."""

    def device(self, volume: Volume) -> str:
        """A path that nothing can open: the content is reached by `read` and `write`."""
        return f"/memory/{self.pool}/{volume.uuid}"

    async def usage(self, volume: Volume) -> int:
        """See the base."""
        return bytes_of(self._shelf.present(volume).layers())

    async def usages(self) -> dict[str, Usage]:
        """See the base."""
        return {
            uuid: Usage(
                bytes_of([kept.blocks]), {name: self._shelf.measured(m).used_bytes for name, m in kept.moments.items()}
            )
            for uuid, kept in self._shelf.by_uuid.items()
            if kept.visible()
        }

    async def foreign(self, name: str) -> bool:
        """See the base."""
        return name in self._shelf.foreign

    async def adopt(self, found: str, name: str, uuid: str, owner: Owner) -> Volume:
        """See the base; nothing knows who reads it, so Busy is never raised."""
        rules.check_foreign(self.pool, found, name, uuid)
        self._check_owned()
        if found not in self._shelf.foreign:
            if self._shelf.named(found) is not None:
                raise rules.ours_already(self.pool, found)
            raise rules.no_foreign(self.pool, found, "nothing was put there")
        holder = self._shelf.named(name)
        rules.check_free(self.pool, name, holder.volume if holder is not None else None, None)
        size, blocks = self._shelf.foreign[found]
        volume = rules.adopted(self.pool, found, name, uuid, size, owner)
        self._serve(owner.cloud)
        del self._shelf.foreign[found]
        self._shelf.by_uuid[uuid] = Kept(volume, blocks)
        return volume

    async def release(self, volume: Volume) -> str:
        """See the base."""
        self._check_owned()
        kept = self._shelf.ready(volume)
        self._shelf.foreign[kept.volume.name] = (kept.volume.size_bytes, kept.blocks)
        del self._shelf.by_uuid[volume.uuid]
        return kept.volume.name

    def put(self, name: str, content: bytes) -> None:
        """Put something into the pool's place that is nobody's, as an operator's own tools would."""
        self._shelf.foreign[name] = (len(content), written({}, 0, content))

    def read(self, volume: Volume, offset: int, length: int) -> bytes:
        """The content, as an initiator would read it."""
        return self._shelf.present(volume).read(offset, length)

    def write(self, volume: Volume, offset: int, content: bytes) -> None:
        """Write as an initiator would. Raises Rejected beyond the end, OutOfSpace when the pool is full."""
        self._shelf.write(self._shelf.present(volume), offset, content)

    def discard(self, volume: Volume, offset: int, length: int) -> None:
        """Discard the whole blocks of the range as an initiator would: they read as zeros."""
        kept = self._shelf.present(volume)
        kept.blocks = discarded(kept.blocks, offset, length)

    def _build(
        self, name: str, uuid: str, size_bytes: int, owner: Owner, origin: str | None, attributes: Attributes
    ) -> Volume:
        self._check_room(name, size_bytes)
        self._serve(owner.cloud)
        return self._shelf.build(name, uuid, size_bytes, owner, origin, attributes)

    def _serve(self, cloud: str | None) -> None:
        rules.check_cloud(self.pool, self._cloud, cloud)
        self._cloud = self._cloud or cloud

    def _check_room(self, name: str, size_bytes: int) -> None:
        rules.check_room(self.pool, name, size_bytes, self._shelf.total_bytes)

    def _check_owned(self) -> None:
        if self._agent is None:
            raise Rejected(f"pool {self.pool} is not open")
        rules.check_owner(self.pool, self._owner, self._agent)
