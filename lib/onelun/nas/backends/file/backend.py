"""The backend `file`: one directory per volume in a directory of a local filesystem, sparse, cloned by reflink.

Whether a file of it is open somewhere cannot be known, so nothing here raises Busy: the agent ends every export before it
destroys a volume. Growing or destroying does not reach a target that is still there.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from onelun.ending import to_its_end
from onelun.model import Attributes, Capacity, Extent, Owner, Snapshot, State, Usage, Volume
from onelun.nas.backends import rules
from onelun.nas.backends.base import PLAIN, Backend, Change, Progress
from onelun.nas.backends.file.adopting import FileAdopting
from onelun.nas.backends.file.directory import PoolDirectory
from onelun.nas.backends.file.names import DATA_FILE, NEW, TRASH
from onelun.nas.backends.file.pool import FilePool

_Result = TypeVar("_Result")

# So many copies and steps at once. The threads are the pool's own: one that hangs starves nobody else.
_THREADS = 32


class FileBackend(Backend):
    """The volumes in the directory `path`."""

    def __init__(self, pool: str, path: str) -> None:
        self.pool = pool
        self._directory = PoolDirectory(pool, path)
        self._steps = FilePool(self._directory)
        self._adopting = FileAdopting(self._directory, self._steps.tree)
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix=f"pool-{pool}")

    async def check(self, agent: str, cloud: str | None) -> list[str]:
        """See the base. A filesystem that is in fstab and not mounted is named too: its empty directory would be a new pool."""
        return await self._run(lambda: self._directory.check(agent, cloud))

    async def open(self, agent: str, cloud: str | None) -> None:
        """See the base. What an interruption left half removed, or begun and empty, is removed here."""

        def step() -> None:
            self._directory.open(agent, cloud)
            self._steps.finish()
            self._adopting.finish()

        await self._run(step)

    async def take(self, agent: str) -> None:
        """See the base."""
        await self._run(lambda: self._directory.take(agent))

    async def serial(self) -> int:
        """See the base."""
        return await self._run(self._directory.serial)

    async def set_serial(self, serial: int) -> None:
        """See the base."""
        await self._run(lambda: self._directory.set_serial(serial))

    async def capacity(self) -> Capacity:
        """What the filesystem says; bytes that sparse volumes may still ask for are not taken off."""
        return await self._run(self._directory.capacity)

    async def volumes(self) -> list[Volume]:
        """See the base. What is in the pool and is no volume of ours is named in the log, once."""
        return await self._run(self._steps.volumes)

    async def find(self, name: str) -> Volume | None:
        """See the base."""
        return await self._run(lambda: self._steps.find(name))

    async def find_uuid(self, uuid: str) -> Volume | None:
        """See the base."""
        return await self._run(lambda: self._steps.find_uuid(uuid))

    async def accept(self, attributes: Attributes) -> None:
        """See the base. What is deleted is discarded by the filesystem, when and as it was mounted."""
        rules.check_only_zfs(self.pool, "file", attributes)
        await self._run(lambda: self._directory.accept(attributes))

    async def create(
        self, name: str, uuid: str, size_bytes: int, owner: Owner, attributes: Attributes = PLAIN
    ) -> Volume:
        """See the base. Of a thin one OutOfSpace is only said when it has more than the pool has in all."""
        rules.check_new(name, uuid, size_bytes)
        return await self._run(lambda: self._steps.building.create(name, uuid, size_bytes, owner, attributes))

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
        """See the base. Shares blocks on XFS (reflink=1) and btrfs, which is found out by trying; a thick one is a copy."""
        rules.check_new(name, uuid, size_bytes)
        stop = threading.Event()

        def step() -> Volume:
            return self._steps.building.clone(
                origin, name, uuid, size_bytes, owner, progress, stop, snapshot, attributes
            )

        return await self._run(step, stop)

    async def publish(self, uuid: str, *, replace: str | None = None) -> Volume:
        """See the base."""
        return await self._run(lambda: self._steps.building.publish(uuid, replace))

    async def record(self, name: str, uuid: str, change: Change, *, idle: bool = False) -> Volume:
        """See the base."""
        return await self._run(lambda: self._steps.record(name, uuid, change))

    async def grow(self, volume: Volume, size_bytes: int) -> Volume:
        """See the base."""
        return await self._run(lambda: self._steps.grow(volume, size_bytes))

    async def trash(self, volume: Volume) -> None:
        """See the base."""
        await self._run(lambda: self._steps.trash(volume))

    async def destroy(self, volume: Volume) -> None:
        """See the base; Busy is never raised, because who has a file open cannot be known."""
        stop = threading.Event()
        await self._run(lambda: self._steps.destroy(volume, stop), stop)

    async def purge(self, older_than: float) -> int:
        """See the base."""
        stop = threading.Event()
        return await self._run(lambda: self._steps.purge(older_than, stop), stop)

    async def snapshot(self, volume: Volume, name: str) -> Snapshot:
        """See the base. Where blocks are not shared it is a copy, and Busy when the data changed while it was made."""
        rules.check_snapshot(name)
        stop = threading.Event()
        return await self._run(lambda: self._steps.snapshots.make(volume, name, stop), stop)

    async def snapshots(self, volume: Volume) -> list[Snapshot]:
        """See the base."""
        return await self._run(lambda: self._steps.snapshots.listed(volume))

    async def revert(self, volume: Volume, name: str) -> Volume:
        """See the base; Busy is never raised, because who has a file open cannot be known."""
        stop = threading.Event()
        return await self._run(lambda: self._steps.snapshots.revert(volume, name, stop), stop)

    async def delete_snapshot(self, volume: Volume, name: str) -> None:
        """See the base."""
        await self._run(lambda: self._steps.snapshots.remove(volume, name))

    async def changed(self, volume: Volume, since: str, until: str) -> list[Extent]:
        """See the base. Told on XFS (reflink=1) and btrfs alone; of blocks that btrfs compresses, all count as changed."""
        stop = threading.Event()
        return await self._run(lambda: self._steps.changes.changed(volume, since, until, stop), stop)

    async def activate(self, volume: Volume) -> str:
        """See the base. There is no more to make ready than what a revert was cut off in."""
        return self.device(await self._run(lambda: self._steps.activate(volume)))

    async def deactivate(self, volume: Volume) -> None:
        """See the base. A file is there whether anybody needs it or not."""

    def device(self, volume: Volume) -> str:
        """The path of its data; publishing and trashing change it."""
        places = {State.BUILDING: NEW + volume.uuid, State.TRASH: TRASH + volume.uuid}
        return os.path.join(self._directory.path, places.get(volume.state, volume.name), DATA_FILE)

    async def usage(self, volume: Volume) -> int:
        """See the base. Blocks that clones share are counted for each of them."""
        return await self._run(lambda: self._steps.usage(volume))

    async def usages(self) -> dict[str, Usage]:
        """See the base. Blocks that clones share are counted for each of them."""
        return await self._run(self._steps.usages)

    async def foreign(self, name: str) -> bool:
        """See the base."""
        return await self._run(lambda: self._adopting.foreign(name))

    async def adopt(self, found: str, name: str, uuid: str, owner: Owner) -> Volume:
        """See the base. It is a file in the pool's directory, raw, and open nowhere."""
        rules.check_foreign(self.pool, found, name, uuid)
        return await self._run(lambda: self._adopting.adopt(found, name, uuid, owner))

    async def release(self, volume: Volume) -> str:
        """See the base. It is a file `NAME.raw` in the pool's directory then."""
        return await self._run(lambda: self._adopting.release(volume))

    async def _run(self, step: Callable[[], _Result], stop: threading.Event | None = None) -> _Result:
        """Run a step in a thread. Cancelled, it returns when the step has ended; one that can stop early is told to `stop`."""
        running = asyncio.get_running_loop().run_in_executor(self._threads, step)
        try:
            return await to_its_end(running, hurry=stop.set if stop is not None else None)
        finally:
            # What still waits for a thread when nobody waits for it never begins.
            running.cancel()
