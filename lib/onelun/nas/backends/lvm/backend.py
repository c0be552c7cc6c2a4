"""The backend `lvm`: thin volumes in a thin pool of LVM, cloned by thin snapshots.

An LV is named after its volume's UUID and everything else about it is a tag. So publishing, trashing and recording are
one `lvchange` each, which is one atomic commit of LVM's metadata; a device's path stays while it is exported, whatever
becomes of the volume; and no name of a volume can be one that LVM reserves (`snapshot...`, `pvmove...`, `..._tdata`). A
replacement is told by the new volume in the very commit that shows it (`onelun.replaces`), and listings follow that;
`open` makes the replaced one say it too. Only a revert takes two renames (see snapshots.py).

No volume is active unless it is exported: all have the activation-skip flag, so a boot or `vgchange -ay` passes them over. Other
LVs of the volume group are never touched.

Every command of LVM reads the metadata of the whole volume group. Listings are shared between those who ask at once.
What LVM is told with --errorwhenfull, and whether dmeventd enlarges a pool, is the operator's choice.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from onelun.errors import Busy, NotFound, OnelunError, Rejected
from onelun.model import Attributes, Capacity, Extent, Owner, Snapshot, Usage, Volume, Wipe
from onelun.nas.backends import rules
from onelun.nas.backends.base import PLAIN, Backend, Change, Progress
from onelun.nas.backends.lvm.adopting import LvmAdopting
from onelun.nas.backends.lvm.changes import LvmChanges
from onelun.nas.backends.lvm.check import look
from onelun.nas.backends.lvm.discarding import Discarding
from onelun.nas.backends.lvm.listing import volume_lv
from onelun.nas.backends.lvm.moment import Moments
from onelun.nas.backends.lvm.snapshots import LvmSnapshots
from onelun.nas.backends.lvm.thinpool import ThinPool
from onelun.nas.backends.lvm.usage import LvmUsage
from onelun.nas.backends.lvm.volumes import LvmVolumes

_Result = TypeVar("_Result")


class LvmBackend(Backend):
    """The volumes in the thin pool `thin_pool` of the volume group `vg`; udev is given `udev_s` to show a device."""

    def __init__(self, pool: str, vg: str, thin_pool: str, *, udev_s: float = 10.0) -> None:
        self.pool = pool
        self._pool = ThinPool(pool, vg, thin_pool, udev_s=udev_s)
        self._volumes = LvmVolumes(self._pool)
        self._snapshots = LvmSnapshots(self._pool, self._volumes)
        self._moments = Moments(self._pool)
        self._usage = LvmUsage(self._pool, self._moments)
        self._changes = LvmChanges(self._pool, self._moments)
        self._adopting = LvmAdopting(self._pool)
        self._discarding = Discarding(self._pool, self._volumes)

    async def check(self, agent: str, cloud: str | None) -> list[str]:
        """See the base."""
        try:
            found = await look(self._pool, agent, cloud)
        except OnelunError as error:
            return [str(error)]
        return [*map(str, found.refusals), *found.warnings]

    async def open(self, agent: str, cloud: str | None) -> None:
        """See the base. The thin pool is activated; what an interruption left half done is ended.

        Raises Rejected, too, for a thin pool that does not zero its blocks, and where LVM's tools are not all installed.
        """

        async def step() -> None:
            found = await look(self._pool, agent, cloud)
            for refusal in found.refusals:
                raise refusal
            assert found.geometry is not None
            assert found.listing is not None
            listing = found.listing
            status = found.status or await self._pool.status()
            if status.wrong is not None:
                raise Rejected(f"pool {self.pool} cannot be written: its thin pool {self._pool.path} {status.wrong}")
            if listing.pool.owner is None:
                await self._pool.change(listing, owner=agent)
            self._pool.opened(agent, found.geometry)
            if status.held:
                await self._moments.release(status.name)
            await self._volumes.resume(listing)
            if await self._snapshots.finish(listing):
                listing = await self._pool.listing()
            await self._volumes.finish(listing)

        await self._alone(step)

    async def take(self, agent: str) -> None:
        """See the base."""

        async def step() -> None:
            await self._pool.change(await self._pool.listing(), owner=agent)

        await self._alone(step)

    async def serial(self) -> int:
        """See the base."""
        return (await self._pool.listing()).pool.serial

    async def set_serial(self, serial: int) -> None:
        """See the base."""

        async def step() -> None:
            await self._pool.change(await self._pool.owned(), serial=serial)

        await self._alone(step)

    async def capacity(self) -> Capacity:
        """See the base. Nothing is free above 75 % of the pool's metadata: nothing new is made then."""
        return await self._pool.capacity()

    def rounded(self, size_bytes: int) -> int:
        """The next whole number of the volume group's extents."""
        return self._pool.rounded(size_bytes)

    async def volumes(self) -> list[Volume]:
        """See the base. What looks like ours in the volume group and is not is named in the log, once."""
        return [entry.volume for entry in (await self._pool.listing()).volumes.values()]

    async def find(self, name: str) -> Volume | None:
        """See the base."""
        entry = (await self._pool.listing()).visible(name)
        return entry.volume if entry is not None else None

    async def find_uuid(self, uuid: str) -> Volume | None:
        """See the base."""
        entry = (await self._pool.listing()).volumes.get(uuid)
        return entry.volume if entry is not None else None

    async def accept(self, attributes: Attributes) -> None:
        """See the base. A thin pool sets nothing aside, and writes zeros into each block before it gives it away."""
        rules.check_only_zfs(self.pool, "lvm", attributes)
        if attributes.thick:
            reason = (
                "a thin pool gives blocks when they are written; leave it out, or use a pool of the kind zfs or file"
            )
            raise rules.refused(self.pool, "lvm", "PROVISIONING", "thick", reason)
        if attributes.wipe is Wipe.DISCARD:
            await self._discarding.check()
        if attributes.wipe is Wipe.ZERO:
            reason = (
                "its thin pool zeroes each block that it gives to a volume, so nobody reads it; use none or discard"
            )
            raise rules.refused(self.pool, "lvm", "WIPE", "zero", reason)

    async def create(
        self, name: str, uuid: str, size_bytes: int, owner: Owner, attributes: Attributes = PLAIN
    ) -> Volume:
        """See the base. OutOfSpace is said of more than the pool has in all, and while its data or metadata is near full."""
        rules.check_new(name, uuid, size_bytes)
        size = self.rounded(size_bytes)
        return await self._alone(lambda: self._volumes.create(name, uuid, size, owner, attributes))

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
        """See the base. Never copies."""
        rules.check_new(name, uuid, size_bytes)
        size = self.rounded(size_bytes)
        return await self._alone(
            lambda: self._volumes.clone(origin, name, uuid, size, owner, progress, snapshot, attributes)
        )

    async def publish(self, uuid: str, *, replace: str | None = None) -> Volume:
        """See the base."""
        # Outside the lock: in a pool that is full it may take long, and others must not wait for it.
        await self._pool.devices.flush(volume_lv(uuid))
        return await self._alone(lambda: self._volumes.publish(uuid, replace))

    async def record(self, name: str, uuid: str, change: Change, *, idle: bool = False) -> Volume:
        """See the base. One command ends the last attachment and deactivates: most of its time goes before it does either."""
        if idle and self._pool.devices.ready(volume_lv(uuid)):
            with contextlib.suppress(OnelunError):
                await self._pool.devices.flush(volume_lv(uuid))
                return await self._alone(lambda: self._volumes.record(name, uuid, change, idle=True))
            # Whichever of the two it did: what was recorded is not recorded again, and `deactivate` says what is wrong.
        return await self._alone(lambda: self._volumes.record(name, uuid, change))

    async def grow(self, volume: Volume, size_bytes: int) -> Volume:
        """See the base. An active and open one grows too."""
        rules.check_size(size_bytes)
        size = self.rounded(size_bytes)
        return await self._alone(lambda: self._volumes.grow(volume, size))

    async def trash(self, volume: Volume) -> None:
        """See the base."""
        await self._alone(lambda: self._volumes.trash(volume))

    async def destroy(self, volume: Volume) -> None:
        """See the base."""
        await self._discarding.volume(volume.uuid)
        await self._alone(lambda: self._volumes.destroy(volume))

    async def purge(self, older_than: float) -> int:
        """See the base. One that is still open is left to the next time."""
        discarded = await self._discarding.overdue(older_than)
        return await self._alone(lambda: self._volumes.purge(older_than, discarded))

    async def snapshot(self, volume: Volume, name: str) -> Snapshot:
        """See the base. Of a new one `used_bytes` is 0; `snapshots` measures it."""
        rules.check_snapshot(name)
        return await self._alone(lambda: self._snapshots.make(volume, name))

    async def snapshots(self, volume: Volume) -> list[Snapshot]:
        """See the base. What each alone holds is told by a walk through the pool's metadata: seconds for some TiB."""
        return await self._usage.snapshots(volume)

    async def revert(self, volume: Volume, name: str) -> Volume:
        """See the base."""
        return await self._alone(lambda: self._snapshots.revert(volume, name))

    async def delete_snapshot(self, volume: Volume, name: str) -> None:
        """See the base."""
        await self._alone(lambda: self._snapshots.remove(volume, name))

    async def changed(self, volume: Volume, since: str, until: str) -> list[Extent]:
        """See the base. The pool's metadata tells it in whole chunks: seconds for some TiB. No data is read."""
        return await self._changes.changed(volume, since, until)

    def device(self, volume: Volume) -> str:
        """Its path, which never changes."""
        return self._pool.devices.path(volume_lv(volume.uuid))

    async def activate(self, volume: Volume) -> str:
        """See the base."""
        lv = volume_lv(volume.uuid)
        if self._pool.devices.ready(lv):
            return self._pool.devices.path(lv)
        try:
            await self._volumes.activate(lv)
        except NotFound:
            raise rules.no_volume(volume) from None
        return await self._pool.devices.wait(lv)

    async def deactivate(self, volume: Volume) -> None:
        """See the base."""
        lv = volume_lv(volume.uuid)
        # Inactive ones are told without LVM, which would lock the volume group.
        if self._pool.devices.ready(lv):
            await self._pool.devices.flush(lv)
            with contextlib.suppress(Busy, NotFound):
                await self._alone(lambda: self._volumes.deactivate(lv))

    async def usage(self, volume: Volume) -> int:
        """See the base. Blocks that clones share are counted for each of them; a walk through the pool's metadata tells it."""
        return await self._usage.of(volume)

    async def usages(self) -> dict[str, Usage]:
        """See the base. One walk through the pool's metadata tells all of it."""
        return await self._usage.all()

    async def foreign(self, name: str) -> bool:
        """See the base."""
        return await self._adopting.foreign(name)

    async def adopt(self, found: str, name: str, uuid: str, owner: Owner) -> Volume:
        """See the base. It is a thin LV of the pool; a thick one would have to be copied."""
        rules.check_foreign(self.pool, found, name, uuid)
        return await self._alone(lambda: self._adopting.adopt(found, name, uuid, owner))

    async def release(self, volume: Volume) -> str:
        """See the base. The LV is called as the volume was."""
        return await self._alone(lambda: self._adopting.release(volume))

    async def _alone(self, step: Callable[[], Coroutine[Any, Any, _Result]]) -> _Result:
        return await self._pool.lvm.alone(step)
