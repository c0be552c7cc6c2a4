"""What every backend refuses, whatever its storage is."""

from __future__ import annotations

import re
import time

from onelun.errors import Conflict, NotFound, OutOfSpace, Rejected
from onelun.model import Attributes, Capacity, Kind, Owner, State, Volume
from onelun.naming import checked_name, checked_uuid

# A LUN is read and written in blocks of 512 bytes; the rest of a volume that is none would be out of reach.
BLOCK_BYTES = 512
# What an operator's own tools call volumes; no path, and nothing that a tool takes for an option.
_FOREIGN = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.:-]{0,126}[A-Za-z0-9])?")
# design.md says it of data: above this, what is promised may soon not be kept.
_HIGH_WATER = 0.85


def check_new(name: str, uuid: str, size_bytes: int) -> None:
    """Raises Rejected for a volume that cannot be."""
    checked_name(name, "volume name")
    if checked_uuid(uuid) != uuid:
        raise Rejected(f"{uuid} is not the canonical form of a UUID")
    check_size(size_bytes)


def check_size(size_bytes: int) -> None:
    """Raises Rejected for a size that is no positive multiple of a block."""
    if not isinstance(size_bytes, int) or size_bytes <= 0 or size_bytes % BLOCK_BYTES:
        raise Rejected(f"a volume cannot have {size_bytes} bytes: use a positive multiple of {BLOCK_BYTES}")


def check_room(pool: str, name: str, size_bytes: int, total_bytes: int) -> None:
    """Raises OutOfSpace for a volume that is larger than the whole pool: its promise could not be kept even alone."""
    if size_bytes > total_bytes:
        raise OutOfSpace(
            f"{name} cannot have {size_bytes} bytes: pool {pool} has {total_bytes} in all",
            pool=pool,
            needed_bytes=size_bytes,
            total_bytes=total_bytes,
        )


def refused(pool: str, kind: str, attribute: str, value: object, reason: str) -> Rejected:
    """What to raise for an attribute that a volume of that kind of pool cannot have, by its name without ONELUN_."""
    return Rejected(f"ONELUN_{attribute}={value} cannot be had in pool {pool} of the kind {kind}: {reason}", pool=pool)


def check_only_zfs(pool: str, kind: str, attributes: Attributes) -> None:
    """Raises Rejected for the attributes that only zvols have."""
    for name, value in (("VOLBLOCKSIZE", attributes.volblocksize_bytes), ("COMPRESSION", attributes.compression)):
        if value is not None:
            raise refused(pool, kind, name, value, "only a pool of the kind zfs can do that; leave it out")


def overdue(volume: Volume, trashed_at: float, older_than: float) -> bool:
    """Whether a volume in the trash is to be destroyed now: a VM's disk waits there for nothing but to be wiped."""
    return trashed_at < older_than or (volume.attributes.wiped and volume.owner.kind is not Kind.IMAGE)


def check_same(
    present: Volume, name: str, size_bytes: int, owner: Owner, origin: str | None, attributes: Attributes
) -> None:
    """Raises Conflict when the volume that has the UUID already is not the one that is asked for."""
    asked = (name, size_bytes, owner, origin, attributes)
    if (present.name, present.size_bytes, present.owner, present.origin, present.attributes) != asked:
        raise Conflict(f"UUID {present.uuid} is {present.name} in pool {present.pool} already, with other facts")
    if present.state not in (State.BUILDING, State.READY):
        raise Conflict(f"{present.name} with UUID {present.uuid} is being removed from pool {present.pool}")


def check_cloud(pool: str, serves: str | None, cloud: str | None) -> None:
    """Raises Conflict when the pool serves another cloud: ids of two clouds would meet in one name."""
    if serves is not None and cloud is not None and serves != cloud:
        raise Conflict(f"pool {pool} serves the cloud {serves}; give the cloud {cloud} a pool of its own")


def check_owner(pool: str, owner: str | None, agent: str) -> None:
    """Raises Conflict when another agent owns the pool."""
    if owner is not None and owner != agent:
        raise Conflict(
            f"pool {pool} belongs to the agent {owner}; when that one will never serve it again,"
            f" take it with: onelun nas take-pool {pool}",
            owner=owner,
        )


def check_grown(volume: Volume, size_bytes: int) -> None:
    """Raises Rejected for a size below the volume's."""
    check_size(size_bytes)
    if size_bytes < volume.size_bytes:
        raise Rejected(f"{volume.name} has {volume.size_bytes} bytes; it cannot be shrunk to {size_bytes}")


def check_origin(origin: Volume, present: Volume | None, size_bytes: int, *, of_bytes: int | None = None) -> None:
    """Raises NotFound when the origin is not there (any more), Conflict when it is not ready, Rejected for a smaller size.

    `of_bytes` is the size of the snapshot that is cloned, which may be less than the origin's of now.
    """
    if present is None or present.state is State.TRASH:
        raise NotFound(f"there is no volume {origin.name} with UUID {origin.uuid} in pool {origin.pool} to clone")
    if present.state is not State.READY:
        raise Conflict(f"{origin.name} in pool {origin.pool} is {present.state}: only a ready volume is cloned")
    needed = present.size_bytes if of_bytes is None else of_bytes
    if size_bytes < needed:
        raise Rejected(f"a clone of {origin.name} needs its {needed} bytes, {size_bytes} are too few")


def check_snapshot(name: str) -> None:
    """Raises Rejected for a snapshot that cannot be."""
    checked_name(name, "snapshot name")


def check_ready(volume: Volume, present: Volume | None) -> None:
    """Raises NotFound when the volume is not there (any more), Conflict when it is not ready: snapshots are of ready ones."""
    if present is None or present.state is State.TRASH:
        raise no_volume(volume)
    if present.state is not State.READY:
        raise Conflict(
            f"{present.name} in pool {present.pool} is {present.state}: only a ready volume has snapshots made"
        )


def no_volume(volume: Volume) -> NotFound:
    """What to raise when no volume has that UUID."""
    return none_of(volume.pool, volume.name, volume.uuid)


def none_of(pool: str, name: str, uuid: str) -> NotFound:
    """See `no_volume`."""
    return NotFound(f"there is no volume {name} with UUID {uuid} in pool {pool}")


def no_snapshot(volume: Volume, name: str) -> NotFound:
    """What to raise when the volume has no snapshot of that name."""
    return NotFound(f"{volume.name} in pool {volume.pool} has no snapshot {name}", snapshot=name)


def untold(volume: Volume, since: str, why: str) -> Conflict:
    """What to raise when the storage cannot tell what changed after the snapshot `since`; `why` completes "because ..."."""
    return Conflict(
        f"what changed in {volume.name} of pool {volume.pool} since its snapshot {since} cannot be told,"
        f" because {why}: a full backup is needed",
        snapshot=since,
    )


def near_full(pool: str, capacity: Capacity, remedy: str) -> list[str]:
    """The sentence about a pool above the high-water mark; `remedy` says how this kind of pool is enlarged."""
    used = 1.0 - capacity.free_bytes / capacity.total_bytes if capacity.total_bytes else 1.0
    if used <= _HIGH_WATER:
        return []
    free = capacity.free_bytes / (1 << 30)
    return [f"pool {pool} is {used:.0%} full, {free:.1f} GiB are free: delete images and their snapshots, or {remedy}"]


def check_free(pool: str, name: str, holder: Volume | None, replace: str | None) -> None:
    """Raises Conflict when the name is another volume's than the one that may be replaced."""
    if holder is not None and holder.uuid != replace:
        raise Conflict(f"{name} in pool {pool} is another volume, with UUID {holder.uuid}", uuid=holder.uuid)


def recorded(present: Volume, volume: Volume) -> Volume:
    """`volume` with what recording does not change taken from `present`; the state only says that it is to go."""
    return Volume(
        pool=present.pool,
        name=present.name,
        uuid=present.uuid,
        size_bytes=present.size_bytes,
        state=volume.state if present.state in _VISIBLE and volume.state in _VISIBLE else present.state,
        owner=volume.owner,
        origin=present.origin,
        filled_from=volume.filled_from,
        made_at=present.made_at,
        connected=volume.connected,
        last_epoch=volume.last_epoch,
        attachments=volume.attachments,
        attributes=present.attributes,
    )


_VISIBLE = (State.READY, State.DELETING)


def check_foreign(pool: str, found: str, name: str, uuid: str) -> None:
    """Raises Rejected for what cannot be adopted by its name."""
    if not _FOREIGN.fullmatch(found) or ".." in found:
        raise Rejected(f"{found[:80]!r} cannot be adopted: give its bare name in the place of pool {pool}")
    check_new(name, uuid, BLOCK_BYTES)


def is_foreign(name: str) -> bool:
    """Whether something that is nobody's may have that name."""
    return _FOREIGN.fullmatch(name) is not None and ".." not in name


def no_foreign(pool: str, found: str, where: str) -> NotFound:
    """What to raise when there is nothing of that name to adopt."""
    return NotFound(f"there is no {found} to adopt in the place of pool {pool}: {where}")


def ours_already(pool: str, found: str) -> Conflict:
    """What to raise when it is onelun's."""
    return Conflict(f"{found} in the place of pool {pool} is a volume of onelun's already")


def adopted(pool: str, found: str, name: str, uuid: str, size_bytes: int, owner: Owner) -> Volume:
    """The volume that it becomes. Raises Rejected for a size that no volume has."""
    if size_bytes <= 0 or size_bytes % BLOCK_BYTES:
        raise Rejected(
            f"{found} has {size_bytes} bytes, and a volume has a positive multiple of {BLOCK_BYTES}: enlarge it first"
        )
    return Volume(
        pool=pool,
        name=name,
        uuid=uuid,
        size_bytes=size_bytes,
        state=State.READY,
        owner=owner,
        filled_from=f"adopted {found}",
        made_at=time.time(),
        connected=True,
    )
