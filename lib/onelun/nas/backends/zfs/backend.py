"""The backend `zfs`: one zvol per volume below a dataset, cloned by snapshot and clone.

Each change is one act of ZFS, or a row of acts that a repeat or `open` completes. A row is not broken off when its caller
is cancelled: no part of it takes long.
"""

from __future__ import annotations

from collections.abc import Mapping

from onelun.ending import to_its_end
from onelun.errors import NotFound
from onelun.model import Attributes, Capacity, Extent, Owner, Snapshot, State, Usage, Volume
from onelun.nas.backends import rules
from onelun.nas.backends.base import PLAIN, Backend, Change, Progress
from onelun.nas.backends.zfs.adopting import Adopting
from onelun.nas.backends.zfs.building import Builder, rounded
from onelun.nas.backends.zfs.command import Zfs
from onelun.nas.backends.zfs.device import Devices
from onelun.nas.backends.zfs.health import Health
from onelun.nas.backends.zfs.ownership import Ownership
from onelun.nas.backends.zfs.places import NEW, TRASH, is_name, is_uuid
from onelun.nas.backends.zfs.removal import Removal
from onelun.nas.backends.zfs.repair import Repair
from onelun.nas.backends.zfs.sending import Sending
from onelun.nas.backends.zfs.snapshots import Snapshots
from onelun.nas.backends.zfs.tree import Entry, Seen, Tree
from onelun.nas.backends.zfs.turns import Turns
from onelun.nas.backends.zfs.volumes import VISIBLE, Volumes

_PLACES = {State.BUILDING: NEW, State.TRASH: TRASH}


class ZfsBackend(Backend):
    """The volumes below `dataset`. `properties` are given to each new one; a device is waited for at most `udev_s`."""

    def __init__(
        self, pool: str, dataset: str, *, properties: Mapping[str, str] | None = None, udev_s: float = 10.0
    ) -> None:
        """Raises Rejected for properties that a volume cannot have."""
        self.pool = pool
        zfs = Zfs(pool, dataset)
        self._tree = Tree(zfs)
        self._devices = Devices(zfs, udev_s)
        self._owned = Ownership(zfs, self._tree)
        self._builder = Builder(zfs, self._tree, properties or {})
        removal = Removal(zfs, self._tree, self._devices)
        self._snapshots = Snapshots(zfs, self._tree, self._devices, removal, self._builder)
        self._sending = Sending(zfs, self._tree, self._snapshots)
        self._volumes = Volumes(zfs, self._tree, self._owned, self._builder, removal, self._snapshots)
        self._adopting = Adopting(zfs, self._tree, self._devices, self._owned)
        self._repair = Repair(zfs, self._tree, removal)
        self._health = Health(zfs, self._tree)
        self._repaired = False
        self._turns = Turns()

    async def check(self, agent: str, cloud: str | None) -> list[str]:
        """See the base."""
        return await self._health.check(agent, cloud)

    async def open(self, agent: str, cloud: str | None) -> None:
        """See the base. What an interruption left between two acts is ended here, when this object opens it first."""

        async def step() -> None:
            await self._owned.open(await self._health.usable(), agent, cloud)
            if not self._repaired:
                await self._repair.finish()
                self._repaired = True

        await to_its_end(step())

    async def take(self, agent: str) -> None:
        """See the base."""
        await self._owned.take(agent)

    async def serial(self) -> int:
        """See the base."""
        return await self._owned.serial()

    async def set_serial(self, serial: int) -> None:
        """See the base."""
        await self._owned.set_serial(serial)

    async def capacity(self) -> Capacity:
        """See the base. What others use of the zpool counts as not free; what thin volumes may still ask for does not."""
        return (await self._tree.look()).capacity()

    def rounded(self, size_bytes: int) -> int:
        """See the base: the next whole MiB."""
        return rounded(size_bytes)

    async def volumes(self) -> list[Volume]:
        """See the base. A dataset that says it is ours and cannot be read is named in the log, once."""
        return [entry.volume for entry in await self._tree.entries() if entry.volume is not None]

    async def find(self, name: str) -> Volume | None:
        """See the base."""
        if not is_name(name):
            return None
        async with self._turns.of(name):
            entry = (await self._tree.look(name)).visible(name)
        return entry.volume if entry is not None else None

    async def find_uuid(self, uuid: str) -> Volume | None:
        """See the base."""
        if not is_uuid(uuid):
            return None
        async with self._turns.of(self._tree.name_of(uuid)):
            entry = (await self._tree.seek(uuid)).by_uuid(uuid)
        return entry.volume if entry is not None else None

    async def accept(self, attributes: Attributes) -> None:
        """See the base. Blocks that are freed are discarded by the zpool, where it does that."""
        await self._builder.accept(attributes)

    async def create(
        self, name: str, uuid: str, size_bytes: int, owner: Owner, attributes: Attributes = PLAIN
    ) -> Volume:
        """See the base. Of a thin one OutOfSpace is only said when it has more than the pool has in all."""
        rules.check_new(name, uuid, size_bytes)
        return await to_its_end(self._volumes.create(name, uuid, size_bytes, owner, attributes))

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
        """See the base. Nothing is copied."""
        rules.check_new(name, uuid, size_bytes)
        volume = await to_its_end(self._volumes.clone(origin, name, uuid, size_bytes, owner, snapshot, attributes))
        progress(volume.size_bytes, volume.size_bytes)
        return volume

    async def publish(self, uuid: str, *, replace: str | None = None) -> Volume:
        """See the base."""
        name = self._tree.name_of(uuid)
        if name is None:
            known = await self.find_uuid(uuid)
            if known is None:
                raise NotFound(f"pool {self.pool} has no volume {uuid} to publish")
            name = known.name
        return await to_its_end(self._turns.within(name, self._volumes.publish(uuid, replace)))

    async def record(self, name: str, uuid: str, change: Change, *, idle: bool = False) -> Volume:
        """See the base."""
        return await to_its_end(self._turns.within(name, self._volumes.record(name, uuid, change)))

    async def grow(self, volume: Volume, size_bytes: int) -> Volume:
        """See the base."""
        return await to_its_end(self._volumes.grow(volume, size_bytes))

    async def trash(self, volume: Volume) -> None:
        """See the base."""
        await to_its_end(self._turns.within(volume.name, self._volumes.trash(volume)))

    async def destroy(self, volume: Volume) -> None:
        """See the base. While clones of it live its dataset stays, out of sight, with what they share of it."""
        await to_its_end(self._turns.within(volume.name, self._volumes.destroy(volume)))

    async def purge(self, older_than: float) -> int:
        """See the base. What waited for clones that are gone now is destroyed too."""
        destroyed = await self._volumes.purge(older_than)
        await self._repair.sweep()
        return destroyed

    async def snapshot(self, volume: Volume, name: str) -> Snapshot:
        """See the base."""
        rules.check_snapshot(name)
        return await to_its_end(self._snapshots.make(await self._ready(volume), name))

    async def snapshots(self, volume: Volume) -> list[Snapshot]:
        """See the base."""
        entry = await self._present(volume)
        return [kept.snapshot for kept in await self._snapshots.of(entry)]

    async def revert(self, volume: Volume, name: str) -> Volume:
        """See the base. What the volume held until now is given up, but for its snapshots."""

        async def step() -> Volume:
            return await self._snapshots.revert(await self._ready(volume), name)

        return await to_its_end(self._turns.within(volume.name, step()))

    async def delete_snapshot(self, volume: Volume, name: str) -> None:
        """See the base."""
        seen = await self._seek(volume)
        self._owned.check(seen)
        if (entry := seen.by_uuid(volume.uuid)) is not None:
            await to_its_end(self._snapshots.delete(entry, name))

    async def changed(self, volume: Volume, since: str, until: str) -> list[Extent]:
        """See the base. All that changed is read from the disks; a revert to what was before `since` makes it a Conflict."""
        return await self._sending.changed(await self._present(volume), since, until)

    def device(self, volume: Volume) -> str:
        """The path that udev makes for the zvol; publishing and trashing change it."""
        return self._devices.path(_leaf(volume))

    async def activate(self, volume: Volume) -> str:
        """See the base. The device itself is asked whether it is this volume's: udev may be late with the name."""
        return await self._devices.wait((await self._present(volume)).leaf)

    async def deactivate(self, volume: Volume) -> None:
        """See the base. A zvol's device is always there."""

    async def usage(self, volume: Volume) -> int:
        """See the base. Blocks that a clone shares with its origin are the origin's."""
        entry = await self._present(volume)
        pasts = (await self._tree.look(*entry.pasts)).entries.values() if entry.pasts else ()
        return sum(one.facts.number("used") for one in (entry, *pasts))

    async def usages(self) -> dict[str, Usage]:
        """See the base. Blocks that a clone shares with its origin are the origin's."""
        return await self._snapshots.usages()

    async def foreign(self, name: str) -> bool:
        """See the base."""
        return await self._adopting.foreign(name)

    async def adopt(self, found: str, name: str, uuid: str, owner: Owner) -> Volume:
        """See the base. It is a zvol right below the pool's dataset: `zfs rename` brings it there from elsewhere in the zpool."""
        rules.check_foreign(self.pool, found, name, uuid)
        return await to_its_end(self._turns.within(name, self._adopting.adopt(found, name, uuid, owner)))

    async def release(self, volume: Volume) -> str:
        """See the base. It keeps its name."""

        async def step() -> str:
            return await self._adopting.release(await self._ready(volume))

        return await to_its_end(self._turns.within(volume.name, step()))

    async def _present(self, volume: Volume) -> Entry:
        entry = (await self._seek(volume)).by_uuid(volume.uuid)
        if entry is None:
            raise rules.no_volume(volume)
        return entry

    async def _ready(self, volume: Volume) -> Entry:
        """The volume, when its snapshots may be worked with."""
        seen = await self._seek(volume)
        self._owned.check(seen)
        entry = seen.by_uuid(volume.uuid)
        rules.check_ready(volume, entry.volume if entry is not None else None)
        assert entry is not None
        return entry

    async def _seek(self, volume: Volume) -> Seen:
        return await self._tree.seek(volume.uuid, hints=(volume.name,))


def _leaf(volume: Volume) -> str:
    return volume.name if volume.state in VISIBLE else _PLACES[volume.state] + volume.uuid
