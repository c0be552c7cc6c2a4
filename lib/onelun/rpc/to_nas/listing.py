"""Requests to a NAS that only ask. `list_zvols` is the seed's."""

from __future__ import annotations

from typing import Any

from onelun.rpc.schema import Reply, Request


class ListZvols(Request, tag="list_zvols", frozen=True):
    """List volumes with their mappings: the one called `name`, or all."""

    name: str = ""
    zpool: str | None = None


class ZvolList(Reply, tag="zvol_list", frozen=True):
    """`body` has one object a volume: zvol, zpool, uuid, size_bytes, state, kind, remotehost, iscsi_target, attachments."""

    body: list[dict[str, Any]]


class FindPlacements(Request, tag="find_placements", frozen=True):
    """Which volumes stand behind a VM's disks, by any of VM, disk and path."""

    cloud: str
    vm: int | None = None
    disk: int | None = None
    path: str | None = None


class PlacementList(Reply, tag="placement_list", frozen=True):
    """`body` has one object a placement: vm, disk, path, host, zpool, zvol, uuid, kind."""

    body: list[dict[str, Any]]


class ListDisks(Request, tag="list_disks", frozen=True):
    """What the disks of a cloud's VMs take of this NAS's pools: all of them at once. A pool that fails leaves the others."""

    cloud: str


class DiskList(Reply, tag="disk_list", frozen=True):
    """`body` has one object a disk: vm, disk, path, zpool, zvol, used_bytes, snapshots (name → bytes that it alone holds).

    `failed` says of each pool that could not tell why, in a sentence.
    """

    body: list[dict[str, Any]]
    failed: dict[str, str]


class PoolCapacity(Request, tag="pool_capacity", frozen=True):
    """What a pool can give."""

    zpool: str


class PoolCapacityIs(Reply, tag="pool_capacity_is", frozen=True):
    """Bytes; `free_bytes` is what a new volume may take below the high-water mark.

    It is 0 while the pool is in maintenance, and `maintenance` is the sentence that says so.
    """

    total_bytes: int
    used_bytes: int
    free_bytes: int
    maintenance: str | None = None


class SetMaintenance(Request, tag="set_maintenance", frozen=True):
    """Begin (`on`) or end the maintenance of pools, of all where none is named. It lasts over restarts of the agent.

    Nothing new is placed there: no image, no disk, no clone. What is there is attached, detached, grown, reverted, saved to,
    snapshotted and removed as ever. Repeating it succeeds; a `reason` replaces the one before.
    """

    on: bool
    zpools: tuple[str, ...] = ()
    reason: str = ""


class MaintenanceIs(Reply, tag="maintenance_is", frozen=True):
    """The pools that are in maintenance now, each with its reason."""

    zpools: dict[str, str]
