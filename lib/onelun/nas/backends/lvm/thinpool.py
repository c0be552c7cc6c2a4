"""A thin pool: whose it is, which cloud it serves, what it holds, and how much more it can take."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Collection, Mapping

import msgspec

from onelun.calls import Calls
from onelun.errors import CommandFailed, OutOfSpace, ProtocolError, Rejected
from onelun.model import Capacity
from onelun.nas.backends import rules
from onelun.nas.backends.lvm.areas import Areas
from onelun.nas.backends.lvm.devices import Devices, PoolStatus
from onelun.nas.backends.lvm.listing import Entry, Listing, Reader, Row
from onelun.nas.backends.lvm.listings import Listings
from onelun.nas.backends.lvm.tags import VolumeFacts, pool_tags, volume_tags
from onelun.nas.backends.lvm.tool import Lvm
from onelun.numbers import number_in

# design.md, "Defaults". A pool without room for metadata fails as a whole, and repairing it takes it off line.
METADATA_HIGH_WATER = 0.75
# The rest is for those who write already: a pool that is full stops every writer.
_DATA_FULL = 0.98
# A count as old as this is as good as a new one: making what is admitted takes as long.
_COUNTED_S = 1.0


class Geometry(msgspec.Struct, frozen=True):
    """What sizes are multiples of: LVM's extent, and the pool's chunk, in bytes."""

    extent_bytes: int
    chunk_bytes: int


class ThinPool:
    """The thin pool `vg/thin_pool`. What says that it changes something runs inside `lvm.alone`."""

    def __init__(self, pool: str, vg: str, thin_pool: str, *, udev_s: float) -> None:
        self.pool = pool
        self.vg = vg
        self.thin_pool = thin_pool
        self.lvm = Lvm(pool, vg, udev_s=udev_s)
        calls = Calls()
        self.devices = Devices(self.lvm, calls, thin_pool, udev_s=udev_s)
        self._listings = Listings(self.lvm, Areas(self.lvm, calls), Reader(pool, vg, thin_pool))
        self._agent: str | None = None
        self._geometry: Geometry | None = None
        self._counted: tuple[PoolStatus, float] | None = None

    @property
    def path(self) -> str:
        """The thin pool as LVM's commands want it."""
        return f"{self.vg}/{self.thin_pool}"

    def opened(self, agent: str, geometry: Geometry) -> None:
        """From now on the pool is served, by that agent."""
        self._agent = agent
        self._geometry = geometry

    def rounded(self, size_bytes: int) -> int:
        """The next whole number of extents. Raises Rejected before the pool is open."""
        extent = self._known().extent_bytes
        return -(-size_bytes // extent) * extent

    async def listing(self) -> Listing:
        """What the pool holds now. Raises CommandFailed when it is gone, or not the one any more that was opened."""
        return self._there(await self._listings.now())

    async def numbered(self) -> Listing:
        """Like `listing`, with the number of each in the pool's metadata."""
        return self._there(await self._listings.numbered())

    async def listed(self, rows: list[dict[str, str]]) -> Listing:
        """What rows with all of COLUMNS tell of it. Raises as `listing` does."""
        return self._there(await self._listings.of(msgspec.convert(rows, list[Row])))

    def _there(self, found: Listing) -> Listing:
        if self._agent is not None and found.pool.owner is None:
            raise CommandFailed(
                f"pool {self.pool} is gone: {self.path} has lost its owner's tag, or is another thin pool"
            )
        return found

    async def owned(self) -> Listing:
        """Like `listing`, when the pool is the agent's. Raises Rejected, Conflict."""
        if self._agent is None:
            raise self._not_open()
        found = await self.listing()
        rules.check_owner(self.pool, found.pool.owner, self._agent)
        return found

    async def change(self, found: Listing, **changes: str | int) -> None:
        """Change the pool's own facts, in one commit."""
        facts = msgspec.structs.replace(found.pool, **changes)
        await self.retag(self.thin_pool, found.pool_tags, pool_tags(facts))

    async def serve(self, found: Listing, cloud: str | None) -> None:
        """Let the pool serve that cloud from now on. Raises Conflict when it serves another."""
        rules.check_cloud(self.pool, found.pool.cloud, cloud)
        if cloud is not None and found.pool.cloud is None:
            await self.change(found, cloud=cloud)

    async def write(self, entry: Entry, facts: VolumeFacts, *also: str) -> None:
        """Give the volume these facts, in one commit. See `retag`."""
        await self.retag(entry.lv, entry.tags, volume_tags(facts), *also)

    async def retag(self, lv: str, before: frozenset[str], after: frozenset[str], *also: str) -> None:
        """Change an LV's tags of ours, in one commit. The same ones: nothing. `also`: arguments that commit nothing more."""
        if before != after:
            gone, come = sorted(before - after), sorted(after - before)
            known = self._listings.known
            tags = (*(f"--deltag={tag}" for tag in gone), *(f"--addtag={tag}" for tag in come))
            await self.lvm.change("lvchange", *tags, *also, f"{self.vg}/{lv}")
            self._listings.tags_changed(known, lv, gone, come)

    @contextlib.asynccontextmanager
    async def making(self, lv: str, size_bytes: int, tags: Collection[str], *, commits: int) -> AsyncIterator[None]:
        """The body makes a thin LV of that size, with these tags, in so many commits; inside `lvm.alone`."""
        known = self._listings.known
        yield
        row = Row(lv_name=lv, lv_size=str(size_bytes), lv_tags=",".join(tags), pool_lv=self.thin_pool)
        self._listings.made(known, row, commits)

    async def status(self) -> PoolStatus:
        """What the kernel says of the pool, which is activated first where it is not. Raises CommandFailed.

        It may activate: only inside `alone`.
        """
        told = await self.devices.pool_status()
        if told is None:
            await self.lvm.change("lvchange", "--activate=y", self.path)
            told = await self.devices.pool_status()
        if told is None:
            raise CommandFailed(f"pool {self.pool}: the kernel does not show {self.path} after it was activated")
        return told

    async def active(self) -> PoolStatus:
        """Like `status`, from outside `alone`."""
        told = await self.devices.pool_status()
        return told if told is not None else await self.lvm.alone(self.status)

    async def capacity(self) -> Capacity:
        """What the pool can give: nothing more, once its metadata is near full."""
        told = await self.active()
        self._counted = (told, time.monotonic())
        return capacity_of(told, self._geometry or await self.geometry())

    async def geometry(self) -> Geometry:
        """The pool's sizes. Raises NotFound, ProtocolError."""
        rows = await self.lvm.report("lvs", "vg_extent_size,chunk_size", self.path)
        if not rows:
            raise ProtocolError(f"lvs printed nothing of {self.path}")
        return geometry_of(rows[0])

    async def admit(self, name: str, size_bytes: int) -> None:
        """Raises OutOfSpace when the pool should take nothing more, or never so much; CommandFailed when it is broken."""
        told = self._just_counted() or await self.status()
        if told.wrong is not None:
            raise CommandFailed(f"pool {self.pool} cannot be changed: {broken(self.path, told)}")
        rules.check_room(self.pool, name, size_bytes, capacity_of(told, self._known()).total_bytes)
        for what, used, limit, option in (
            ("metadata", fraction(told.metadata_used, told.metadata), METADATA_HIGH_WATER, "--poolmetadatasize"),
            ("space", fraction(told.data_used, told.data), _DATA_FULL, "--size"),
        ):
            if used > limit:
                raise OutOfSpace(
                    f"pool {self.pool} has no room for {name}: the {what} of its thin pool is {used:.0%} used,"
                    f" {limit:.0%} is the limit; enlarge it with: lvextend {option} +SIZE {self.path}",
                    pool=self.pool,
                    needed_bytes=size_bytes,
                )

    def _just_counted(self) -> PoolStatus | None:
        """What whoever wants room for a volume asked for a moment ago, once."""
        counted, self._counted = self._counted, None
        fresh = counted is not None and time.monotonic() - counted[1] < _COUNTED_S
        return counted[0] if counted is not None and fresh else None

    def _known(self) -> Geometry:
        if self._geometry is None:
            raise self._not_open()
        return self._geometry

    def _not_open(self) -> Rejected:
        return Rejected(f"pool {self.pool} is not open")


def geometry_of(row: Mapping[str, str]) -> Geometry:
    """The sizes that the thin pool's row tells. Raises ProtocolError for what is no size."""
    extent, chunk = (number_in(row[column], f"{column} of LVM") for column in ("vg_extent_size", "chunk_size"))
    if not extent or not chunk:
        raise ProtocolError(f"LVM tells of an extent of {extent} bytes and a chunk of {chunk}")
    return Geometry(extent, chunk)


def capacity_of(told: PoolStatus, geometry: Geometry) -> Capacity:
    """What a pool of that status can give."""
    closed = told.wrong is not None or fraction(told.metadata_used, told.metadata) > METADATA_HIGH_WATER
    return Capacity(
        total_bytes=told.data * geometry.chunk_bytes,
        used_bytes=told.data_used * geometry.chunk_bytes,
        free_bytes=0 if closed else (told.data - told.data_used) * geometry.chunk_bytes,
    )


def fraction(used: int, total: int) -> float:
    """How much of it is used; of nothing, all is."""
    return used / total if total else 1.0


def broken(path: str, told: PoolStatus) -> str:
    """What is wrong with a thin pool, and what to do."""
    return f"the thin pool {path} {told.wrong}: deactivate its volumes, then lvconvert --repair {path}"
