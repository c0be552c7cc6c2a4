"""oned's snapshots against the storage's. There is no trash for snapshots, so that what differs is told and left to a person."""

from __future__ import annotations

from collections.abc import Iterator

from onelun.driver.reconcile.differences import Difference, Type
from onelun.driver.reconcile.users import BUSY, User, Users
from onelun.driver.reconcile.views import View
from onelun.model import Kind, State
from onelun.naming import Source, snapshot_id, snapshot_name
from onelun.rpc.message import StockVolume


def snapshots(view: View, everybody: Users) -> Iterator[Difference]:
    """Of volumes that oned has, in VMs and images that are in the middle of nothing."""
    for nas, stock in view.answered().items():
        for volume in stock.volumes:
            if volume.snapshots is None or volume.state != State.READY:
                continue
            users = everybody.of(nas, volume)
            known = None if any(user.where.how == BUSY for user in users) else _known(view, volume, users)
            if known is not None:
                source = Source(nas, volume.zpool, volume.zvol)
                there = {number for name in volume.snapshots if (number := snapshot_id(name)) is not None}
                yield from _differing(source, known, there, view.cloud)


def _known(view: View, volume: StockVolume, users: list[User]) -> set[int] | None:
    """The ids of the snapshots that oned has of it; None when oned does not have the volume."""
    found: set[int] = set()
    having = [user for user in users if user.has and user.vm is not None]
    for user in having:
        found |= {number for disk, number in (user.vm.snapshots if user.vm else ()) if disk == user.disk}
    if volume.owner.kind is not Kind.IMAGE:
        return found if having else None
    image = view.oned.images.get(volume.owner.image_id) if volume.owner.image_id is not None else None
    return found | set(image.snapshots) if image is not None else None


def _differing(source: Source, known: set[int], there: set[int], cloud: str) -> Iterator[Difference]:
    for number in sorted(there - known):
        asked = f"zvol={source.volume} zpool={source.pool} cloud={cloud} snapshot={snapshot_name(number)}"
        yield Difference(
            type=Type.ORPHAN_SNAPSHOT,
            what=f"{source}@{snapshot_name(number)}",
            why=f"oned has no snapshot {number} of it",
            todo=f"onelun ask {source.nas} del_snapshot {asked}",
        )
    for number in sorted(known - there):
        yield Difference(
            type=Type.MISSING_SNAPSHOT,
            what=f"{source}@{snapshot_name(number)}",
            why=f"oned has snapshot {number} of it, and the storage has none",
            todo="delete it in OpenNebula: nobody can go back to it",
        )
