"""The requests by which volumes come that exist already, and go without being removed."""

from __future__ import annotations

import logging
import re
import uuid as uuids

import msgspec

from onelun.errors import Conflict, Rejected
from onelun.model import Kind, Owner, State, Volume
from onelun.naming import checked_name, image_volume
from onelun.nas.backends.base import Backend
from onelun.nas.catalogue import Catalogue
from onelun.nas.locks import Locks
from onelun.nas.ownership import describe, same_owner
from onelun.nas.placements import Placements
from onelun.nas.pools import Pools
from onelun.nas.volumes import lock_name
from onelun.rpc.job import Job
from onelun.rpc.message import AdoptZvol, ReleaseZvol, ZvolAdopted, ZvolReleased

log = logging.getLogger(__name__)

# The disks of VMs are called after their image, and a name has at most 63 characters.
_LONGEST = 40
# What OpenNebula's images and disks are called without us.
_GIVEN = re.compile(r"one-.*")


class Adopting:
    """adopt_zvol and release_zvol."""

    def __init__(self, pools: Pools, locks: Locks, catalogue: Catalogue, placements: Placements) -> None:
        self._pools = pools
        self._locks = locks
        self._catalogue = catalogue
        self._placements = placements

    async def adopt(self, request: AdoptZvol, job: Job) -> ZvolAdopted:
        """Make what lies in the pool's place an image's volume, or tell an adopted one whose it is."""
        backend = self._pools.backend(request.zpool)
        name = _checked(request.name or request.zvol, request.owner)
        # What is found is adopted once: two names that are given at the same time would each write its facts.
        async with self._locks.hold(lock_name(backend, name), lock_name(backend, request.zvol)):
            present = await backend.find(name)
            if present is None:
                volume = await backend.adopt(request.zvol, name, str(uuids.uuid4()), request.owner)
                log.info("adopt found=%s zvol=%s pool=%s uuid=%s", request.zvol, name, backend.pool, volume.uuid)
            else:
                volume = await self._again(backend, present, request)
        return ZvolAdopted(zvol=volume.name, uuid=volume.uuid, size_bytes=volume.size_bytes)

    async def release(self, request: ReleaseZvol, job: Job) -> ZvolReleased:
        """Let go of an image's volume with its data. Absent: nothing."""
        backend = self._pools.backend(request.zpool)
        name = checked_name(request.zvol, "volume name")
        async with self._locks.hold(lock_name(backend, name)):
            volume = await backend.find(name)
            if volume is None:
                return ZvolReleased(name=None)
            if volume.owner.kind is not Kind.IMAGE or volume.owner.cloud != request.cloud:
                raise Conflict(f"{name} is {describe(volume.owner)}, not an image of the cloud that asks")
            if rows := self._catalogue.attachments(uuid=volume.uuid):
                raise Conflict(f"volume {name} is mapped to {', '.join(row.host for row in rows)}: unmap it first")
            if kept := await backend.snapshots(volume):
                told = ", ".join(one.name for one in kept)
                raise Conflict(f"{name} has snapshots, which would be lost ({told}): delete them first")
            await backend.deactivate(volume)
            left = await backend.release(volume)
            self._placements.end(volume.uuid, None)
        log.info("release zvol=%s pool=%s uuid=%s left=%s", name, backend.pool, volume.uuid, left)
        return ZvolReleased(name=left)

    async def _again(self, backend: Backend, present: Volume, request: AdoptZvol) -> Volume:
        """The adopted volume, which may be told its image now. Raises Conflict for any other."""
        mine = same_owner(present.owner, request.owner)
        if not mine or not (present.filled_from or "").startswith("adopted ") or present.state is not State.READY:
            raise Conflict(f"{present.name} in pool {backend.pool} is a volume already, {describe(present.owner)}")
        owner = request.owner
        if owner.image_id is None or present.owner == owner:
            return present
        return await backend.record(present.name, present.uuid, lambda now: msgspec.structs.replace(now, owner=owner))


def _checked(name: str, owner: Owner) -> str:
    """The name of what is adopted. Raises Rejected for what cannot be, or is not to be, called so."""
    checked_name(name, "volume name; choose one for what you adopt")
    if owner.kind is not Kind.IMAGE or owner.cloud is None:
        raise Rejected("only an image of a cloud is adopted: the owner should say so")
    if len(name) > _LONGEST:
        raise Rejected(f"{name} is too long: at most {_LONGEST} characters leave room for the names of VMs' disks")
    if _GIVEN.fullmatch(name) and (owner.image_id is None or name != image_volume(owner.image_id)):
        raise Rejected(f"{name} is a name that a new image or disk may get: choose one that does not begin with one-")
    return name
