"""Whose a volume is, and what follows from it: nothing of one cloud is touched for another."""

from __future__ import annotations

import msgspec

from onelun.errors import Conflict
from onelun.model import Kind, Owner, Volume
from onelun.rpc.message import OfVolume


def is_disk_of(volume: Volume, cloud: str, vm: int, disk: int) -> bool:
    """Whether the volume says of itself that it is that VM's own disk."""
    owner = volume.owner
    return owner.kind in (Kind.DISK, Kind.VOLATILE) and (owner.cloud, owner.vm_id, owner.disk_id) == (cloud, vm, disk)


def describe(owner: Owner) -> str:
    """Whose a volume is, in words."""
    match owner.kind:
        case Kind.IMAGE:
            if owner.image_id is None:
                return "an image that was adopted"
            registered = f", registered at {owner.regtime}" if owner.regtime is not None else ""
            return f"image {owner.image_id}{registered}"
        case Kind.DISK | Kind.VOLATILE:
            return f"disk {owner.disk_id} of VM {owner.vm_id}"
        case Kind.CHECKPOINT:
            return f"the checkpoint of VM {owner.vm_id}"
        case _:
            return "a volume of no cloud"


def same_owner(one: Owner, other: Owner) -> bool:
    """Equal but for REGTIME, and of images also the id, which are compared only where both know them.

    What was adopted need not know its image, which says itself by its SOURCE that it is it.
    """
    if None in (one.regtime, other.regtime):
        one, other = (msgspec.structs.replace(owner, regtime=None) for owner in (one, other))
    if one.kind is other.kind is Kind.IMAGE and None in (one.image_id, other.image_id):
        one, other = (msgspec.structs.replace(owner, image_id=None, regtime=None) for owner in (one, other))
    return one == other


def must_be_deleted_by(volume: Volume, owner: Owner | None) -> None:
    """Raise Conflict unless `owner` may delete the volume: a cloud its own, a caller without one what is of no cloud."""
    if owner is None and volume.owner.cloud is None:
        return
    if owner is None:
        raise Conflict(f"{volume.name} is {describe(volume.owner)} of a cloud: only that cloud may delete it")
    if not same_owner(volume.owner, owner):
        raise Conflict(f"{volume.name} is {describe(volume.owner)}, not {describe(owner)}: it is not deleted")


def must_be_mapped_by(volume: Volume, cloud: str | None) -> None:
    """Raise Conflict unless the volume is of that cloud, or of none like the caller."""
    owner = volume.owner
    if cloud != owner.cloud:
        raise Conflict(
            f"{volume.name} is {describe(owner)}"
            + (" of another cloud" if owner.cloud else "; a cloud maps only what it made or adopted")
        )


def must_be_meant(volume: Volume, request: OfVolume) -> None:
    """Raise Conflict unless the volume is whose the request says: of that cloud, that image, or no other VM's disk."""
    must_be_mapped_by(volume, request.cloud if request.owner is None else request.owner.cloud)
    if request.owner is not None and not same_owner(volume.owner, request.owner):
        raise Conflict(f"{volume.name} is {describe(volume.owner)}, not {describe(request.owner)}: nothing was done")
    if request.vm is None or volume.owner.kind not in (Kind.DISK, Kind.VOLATILE):
        return
    if (volume.owner.vm_id, volume.owner.disk_id) != (request.vm, request.disk):
        raise Conflict(
            f"{volume.name} is {describe(volume.owner)}, not disk {request.disk} of VM {request.vm}: nothing was done"
        )
