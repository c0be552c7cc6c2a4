"""Making and removing volumes: what is equal is returned, what is different is a conflict, the rest is made.

Every removal pins the UUID that it means when the request comes; a later volume of the same name is not touched.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid as uuids
from collections.abc import AsyncIterator

import msgspec

from onelun.errors import Conflict, NotFound, Rejected
from onelun.model import OF_A_VM, Attributes, Kind, Owner, State, Volume
from onelun.naming import checked_name
from onelun.nas.attachments import Attachments
from onelun.nas.backends.base import PLAIN, Backend, Progress
from onelun.nas.backends.rules import check_grown
from onelun.nas.catalogue import Catalogue
from onelun.nas.destroying import destroy
from onelun.nas.formatting import Formatting
from onelun.nas.growing import Growing
from onelun.nas.locks import Locks
from onelun.nas.ownership import describe, must_be_deleted_by, must_be_mapped_by, same_owner
from onelun.nas.placements import Placements
from onelun.nas.pools import Pools, must_be_ours, pinned, still
from onelun.rpc.job import Job
from onelun.rpc.message import (
    CloneZvol,
    CreateZvol,
    DelZvol,
    ResizeZvol,
    ZvolCloned,
    ZvolCreated,
    ZvolDeleted,
    ZvolResized,
    checked_size,
)

log = logging.getLogger(__name__)


class Volumes:
    """The requests that make, copy and remove volumes."""

    def __init__(
        self,
        pools: Pools,
        locks: Locks,
        catalogue: Catalogue,
        attachments: Attachments,
        growing: Growing,
        formatting: Formatting,
        placements: Placements,
    ) -> None:
        self._pools = pools
        self._locks = locks
        self._catalogue = catalogue
        self._attachments = attachments
        self._growing = growing
        self._formatting = formatting
        self._placements = placements

    async def create(self, request: CreateZvol, job: Job) -> ZvolCreated:
        """Make an empty volume."""
        backend = self._pools.backend(request.zpool)
        name = checked_name(request.zvol, "volume name")
        size = checked_size(request.size_bytes)
        if request.filesystem is not None:
            self._formatting.check(request.filesystem)
        await backend.accept(request.attributes)
        async with self._locks.hold(lock_name(backend, name), preemptible=True):
            present = await backend.find(name)
            if present is not None and request.owner.kind in (Kind.VOLATILE, Kind.CHECKPOINT):
                if _equal(present, backend.rounded(size), request.owner, request.attributes):
                    return ZvolCreated(uuid=present.uuid, size_bytes=present.size_bytes)
                self._pools.maintenance.must_be_over(backend.pool)
                await self._make_way(backend, present, request.owner, job)
                volume = await self._build(backend, request, size, job, replace=present.uuid)
                await destroy(backend, present)
            else:
                volume = self._the_same(backend, present, size, request.owner, request.attributes) or await self._build(
                    backend, request, size, job
                )
        return ZvolCreated(uuid=volume.uuid, size_bytes=volume.size_bytes)

    async def _build(
        self, backend: Backend, request: CreateZvol, size: int, job: Job, *, replace: str | None = None
    ) -> Volume:
        self._pools.maintenance.must_be_over(backend.pool)
        size = backend.rounded(size)
        async with self.building(backend, size, request.attributes) as uuid:
            volume = await backend.create(request.zvol, uuid, size, request.owner, request.attributes)
            if request.filesystem is not None:
                await self._formatting.format(backend, volume, request.filesystem, job)
            return await backend.publish(uuid, replace=replace)

    async def ensure(self, backend: Backend, name: str, size: int, owner: Owner) -> Volume:
        """The empty volume of that name, size and owner, made when there is none. The caller holds its lock.

        Raises Conflict when another one has the name, OutOfSpace, InMaintenance.
        """
        found = await backend.find(name)
        # Whoever maps a volume asks for no attributes: what it was made with is as good.
        present = self._the_same(backend, found, size, owner, found.attributes if found is not None else PLAIN)
        if present is not None:
            return present
        self._pools.maintenance.must_be_over(backend.pool)
        size = backend.rounded(size)
        async with self.building(backend, size) as uuid:
            await backend.create(name, uuid, size, owner)
            return await backend.publish(uuid)

    def _the_same(
        self, backend: Backend, present: Volume | None, size: int, owner: Owner, attributes: Attributes
    ) -> Volume | None:
        """The present volume when it is the asked one, None when there is none. Raises Conflict for another one."""
        if present is None or _equal(present, backend.rounded(size), owner, attributes):
            return present
        raise Conflict(
            f"{present.name} exists in pool {backend.pool} already, with {present.size_bytes} bytes, as {describe(present.owner)}"
        )

    async def clone(self, request: CloneZvol, job: Job) -> ZvolCloned:
        """Make a volume with another's content."""
        backend = self._pools.backend(request.zpool)
        name = checked_name(request.zvol, "volume name")
        origin_name = checked_name(request.origin, "volume name")
        if name == origin_name:
            raise Rejected(f"{name} cannot be a clone of itself")
        if request.attributes.volblocksize_bytes is not None:
            raise Rejected(f"{name} cannot have ONELUN_VOLBLOCKSIZE: a clone has the block size of {origin_name}")
        await backend.accept(request.attributes)
        async with self._locks.hold(
            lock_name(backend, name), shared=(lock_name(backend, origin_name),), preemptible=True
        ):
            origin = await self.cloneable(backend, origin_name, request.owner.cloud)
            size = backend.rounded(
                max(origin.size_bytes, checked_size(request.size_bytes) if request.size_bytes else 0)
            )
            attributes = request.attributes.of_clone(origin.attributes)
            present = await backend.find(name)
            if present is not None and _complete(present, origin, size, request.owner, attributes):
                return ZvolCloned(uuid=present.uuid, size_bytes=present.size_bytes)
            self._pools.maintenance.must_be_over(backend.pool)
            if present is not None:
                await self._make_way(backend, present, request.owner, job)
            async with self.building(backend, size, attributes) as uuid:
                progress = copying(job, name)
                await backend.clone(origin, name, uuid, size, request.owner, progress, attributes=attributes)
                volume = await backend.publish(uuid, replace=present.uuid if present else None)
            if present is not None:
                await destroy(backend, present)
        return ZvolCloned(uuid=volume.uuid, size_bytes=volume.size_bytes)

    async def resize(self, request: ResizeZvol, job: Job) -> ZvolResized:
        """Grow a volume, then let its targets and hosts see it. A repeat goes on where the first one ended."""
        backend, meant = await self._pools.get(request.zvol, request.zpool)
        pinned(meant, request.uuid)
        if request.cloud is not None:
            must_be_mapped_by(meant, request.cloud)
        size = checked_size(request.size_bytes)
        async with self._locks.hold(lock_name(backend, meant.name)):
            volume = await still(backend, meant)
            size = backend.rounded(size)
            check_grown(volume, size)
            # What is set aside at once needs to be free; else only the pool as a whole limits it.
            thick = volume.attributes.thick
            async with self._pools.promise(backend, size - volume.size_bytes if thick else size, full=thick):
                volume = await self._growing.grow(backend, volume, size, deadline=job.deadline, of=job.id)
        log.info("resize zvol=%s pool=%s size=%s", volume.name, volume.pool, volume.size_bytes)
        return ZvolResized(uuid=volume.uuid, size_bytes=volume.size_bytes)

    async def delete(self, request: DelZvol, job: Job) -> ZvolDeleted:
        """Erase a volume that nobody has."""
        found = await self._pools.locate(request.zvol, request.zpool)
        if found is None:
            if request.owner is not None and request.zpool is not None:
                await must_be_ours(self._pools.backend(request.zpool), request.zvol)
            return ZvolDeleted()
        backend, meant = found
        pinned(meant, request.uuid)
        must_be_deleted_by(meant, request.owner)
        async with self._locks.hold(lock_name(backend, meant.name), preempts=True):
            volume = await backend.find(meant.name)
            if volume is None or volume.uuid != meant.uuid:
                return ZvolDeleted()
            if rows := self._catalogue.attachments(uuid=volume.uuid):
                hosts = ", ".join(row.host for row in rows)
                raise Conflict(f"volume {volume.name} is mapped to {hosts}: unmap it first")
            self._placements.end(volume.uuid, None)
            await self.remove(backend, volume)
        return ZvolDeleted()

    async def remove(self, backend: Backend, volume: Volume) -> None:
        """Remove a volume that nobody has: an image by way of the trash, anything else at once, but for wiping it.

        The caller holds its lock.
        """
        if volume.owner.kind is Kind.IMAGE:
            await backend.trash(volume)
        else:
            await backend.record(
                volume.name, volume.uuid, lambda now: msgspec.structs.replace(now, state=State.DELETING)
            )
            await destroy(backend, volume)
        log.info("volume removed=%s pool=%s uuid=%s kind=%s", volume.name, volume.pool, volume.uuid, volume.owner.kind)

    async def cloneable(self, backend: Backend, name: str, cloud: str | None, *, still: bool = False) -> Volume:
        """The ready volume of that cloud, whose content nobody changes; `still`: what is cloned stays as it is anyway.

        Raises NotFound, Conflict.
        """
        origin = await backend.find(name)
        if origin is None:
            await must_be_ours(backend, name)
        if origin is None or origin.state is not State.READY:
            raise NotFound(f"there is no volume {name} in pool {backend.pool} to clone", zvol=name)
        if origin.owner.cloud != cloud:
            raise Conflict(f"{name} is {describe(origin.owner)}, not of the cloud that asks")
        writers = [row.host for row in self._catalogue.attachments(uuid=origin.uuid) if not row.readonly]
        if writers and not still:
            raise Conflict(f"{name} is mapped to {writers[0]} for writing: a clone of it now would be torn")
        return origin

    async def _make_way(self, backend: Backend, present: Volume, owner: Owner, job: Job) -> None:
        """A disk of an earlier life of the same ids is let go of by its hosts; anything else keeps its name."""
        if present.owner.kind not in OF_A_VM or not same_owner(present.owner, owner):
            raise Conflict(f"{present.name} exists in pool {backend.pool} already, as {describe(present.owner)}")
        for row in self._catalogue.attachments(uuid=present.uuid):
            await self._attachments.detach(
                backend, row, path=None, keep_link=True, force=False, deadline=job.deadline, of=job.id
            )
        self._placements.end(present.uuid, None)

    @contextlib.asynccontextmanager
    async def building(self, backend: Backend, size: int, attributes: Attributes = PLAIN) -> AsyncIterator[str]:
        """A fresh UUID to build a volume of `size` bytes under, and room for it: for all of them where it is to be thick.

        Whatever was built is destroyed when the body fails or is cancelled. Raises OutOfSpace.
        """
        uuid = str(uuids.uuid4())
        async with self._pools.promise(backend, size, full=attributes.thick):
            try:
                yield uuid
            except BaseException:
                await asyncio.shield(asyncio.ensure_future(self._discard(backend, uuid)))
                raise

    async def _discard(self, backend: Backend, uuid: str) -> None:
        volume = await backend.find_uuid(uuid)
        if volume is not None and volume.state is State.BUILDING:
            await destroy(backend, volume)


def lock_name(backend: Backend, zvol: str) -> str:
    """The name of a volume's lock."""
    return f"{backend.pool}/{zvol}"


def copying(job: Job, name: str) -> Progress:
    """The progress of a copy, told to the caller."""
    loop = asyncio.get_running_loop()

    def progress(done: int, total: int) -> None:
        loop.call_soon_threadsafe(job.progress, f"copying {name}", done, total)

    return progress


def _equal(present: Volume, size: int, owner: Owner, attributes: Attributes) -> bool:
    """Whether that is the empty volume that is asked for: complete, and never in anybody's hands."""
    fresh = (present.state, present.connected) == (State.READY, False)
    return fresh and (present.owner, present.size_bytes, present.attributes) == (owner, size, attributes)


def _complete(present: Volume, origin: Volume, size: int, owner: Owner, attributes: Attributes) -> bool:
    fresh = present.owner.kind is Kind.IMAGE or not present.connected
    equal = same_owner(present.owner, owner) and present.origin == origin.uuid and present.size_bytes == size
    return fresh and equal and present.attributes == attributes and present.state is State.READY
