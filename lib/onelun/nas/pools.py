"""The pools of a NAS: which there are, where a volume is, and whether a pool may promise more."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping

from onelun.config import Limits
from onelun.errors import CommandFailed, Conflict, NotFound, OnelunError, OutOfSpace, Rejected
from onelun.model import Capacity, Snapshot, State, Volume
from onelun.naming import checked_name
from onelun.nas.backends.base import Backend
from onelun.nas.backends.rules import no_snapshot
from onelun.nas.maintenance import Maintenance

log = logging.getLogger(__name__)

_GIB = 1 << 30


class Pools:
    """The configured pools, each with its backend. A pool's name comes from the configuration, never from a message."""

    def __init__(
        self, backends: Mapping[str, Backend], default: str | None, limits: Limits, maintenance: Maintenance
    ) -> None:
        self._backends = dict(backends)
        self._default = default
        self._limits = limits
        self.maintenance = maintenance
        self._promised = dict.fromkeys(backends, 0)

    def __iter__(self) -> Iterator[Backend]:
        return iter(self._backends.values())

    def backend(self, pool: str) -> Backend:
        """The backend of a configured pool. Raises NotFound."""
        checked_name(pool, "name of a pool")
        if pool not in self._backends:
            raise NotFound(f"there is no pool {pool} here; there are: {', '.join(self._backends)}", pool=pool)
        return self._backends[pool]

    async def volumes_of(self, pools: Iterable[str]) -> dict[str, Volume]:
        """The volumes of these pools by UUID, in whichever state, each pool read once. Raises NotFound for an unknown pool."""
        chosen = [self.backend(pool) for pool in dict.fromkeys(pools)]
        return {volume.uuid: volume for backend in chosen for volume in await backend.volumes()}

    async def default(self) -> Backend:
        """The pool for a new volume of a caller that names none: the configured one, else the one with the most room.

        Of equals it is the first. One in maintenance is passed over, unless all are. Raises CommandFailed when none of several
        can be asked.
        """
        takers = [pool for pool in self._backends if self.maintenance.of(pool) is None] or list(self._backends)
        if self._default in takers:
            return self._backends[self._default]
        if len(takers) == 1:
            return self._backends[takers[0]]
        answers = await asyncio.gather(*(self._backends[pool].capacity() for pool in takers), return_exceptions=True)
        room: dict[str, int] = {}
        for pool, capacity in zip(takers, answers, strict=True):
            if isinstance(capacity, OnelunError):
                log.warning("default passed=%s reason=%s", pool, capacity)
            elif isinstance(capacity, BaseException):
                raise capacity
            else:
                room[pool] = self.room(pool, capacity)
        if not room:
            raise CommandFailed(f"none of the pools {', '.join(takers)} tells how much room it has")
        return self._backends[max(room, key=room.__getitem__)]

    async def locate(self, zvol: str, pool: str | None) -> tuple[Backend, Volume] | None:
        """The volume `zvol` of the named pool, or of whichever pool has it.

        Raises Rejected when several pools have one of that name.
        """
        checked_name(zvol, "volume name")
        candidates = [self.backend(pool)] if pool is not None else list(self)
        found = [(backend, volume) for backend in candidates if (volume := await backend.find(zvol)) is not None]
        if len(found) > 1:
            raise Rejected(f"{zvol} is in the pools {', '.join(b.pool for b, _ in found)}: name the zpool")
        return found[0] if found else None

    async def get(self, zvol: str, pool: str | None) -> tuple[Backend, Volume]:
        """Like `locate`, but raises NotFound when there is none."""
        found = await self.locate(zvol, pool)
        if found is None:
            where = f"pool {pool}" if pool else "any pool"
            raise NotFound(f"there is no volume {zvol} in {where}", zvol=zvol)
        return found

    @contextlib.asynccontextmanager
    async def promise(self, backend: Backend, size_bytes: int, *, full: bool = False) -> AsyncIterator[None]:
        """Admit a new volume, or growth, of `size_bytes`, and count it while the body makes it.

        A thin volume is admitted below the high-water mark when the pool is as large as it; one that is about to be
        written in full (`full`) needs its bytes free, beside what others are writing. Raises OutOfSpace.
        """
        capacity = await backend.capacity()
        room = self.room(backend.pool, capacity)
        needed = size_bytes if full else 0
        if size_bytes > capacity.total_bytes or room <= 0 or needed > room:
            raise OutOfSpace(
                f"pool {backend.pool} has {max(0, room) / _GIB:.1f} GiB free below its high-water mark, "
                f"{size_bytes / _GIB:.1f} GiB needed",
                pool=backend.pool,
                needed_bytes=size_bytes,
                free_bytes=max(0, room),
            )
        self._promised[backend.pool] += needed
        try:
            yield
        finally:
            self._promised[backend.pool] -= needed

    def room(self, pool: str, capacity: Capacity) -> int:
        """The bytes that new volumes may take below the high-water mark and beside the reserve."""
        keep = capacity.total_bytes * max(1.0 - self._limits.high_water, self._limits.reserve)
        return int(capacity.free_bytes - keep) - self._promised[pool]


def pinned(volume: Volume, uuid: str | None) -> Volume:
    """The volume, when it has the UUID that the caller means. Raises Conflict."""
    if uuid is not None and volume.uuid != uuid:
        raise Conflict(f"{volume.name} is another volume now (UUID {volume.uuid}, not {uuid})", uuid=volume.uuid)
    return volume


async def still(backend: Backend, meant: Volume) -> Volume:
    """The volume that was meant before its lock was waited for, as it is now. Raises NotFound unless it is ready."""
    volume = await backend.find(meant.name)
    if volume is None or volume.uuid != meant.uuid or volume.state is not State.READY:
        raise NotFound(f"volume {meant.name} has just been removed", zvol=meant.name)
    return volume


async def snapshot_of(backend: Backend, volume: Volume, name: str) -> Snapshot:
    """The volume's snapshot of that name. Raises NotFound."""
    for one in await backend.snapshots(volume):
        if one.name == name:
            return one
    raise no_snapshot(volume, name)


async def must_be_ours(backend: Backend, name: str) -> None:
    """Raise Conflict, saying what to do, when what has that name in the pool's place was never adopted."""
    if await backend.foreign(name):
        raise Conflict(
            f"{name} in pool {backend.pool} is no volume of onelun's: adopt it (onelun frontend adopt),"
            " or take its image out of OpenNebula alone (oneimage delete --force)"
        )
