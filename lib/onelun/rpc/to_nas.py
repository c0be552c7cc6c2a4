"""The requests to a NAS and their replies: the seed's four first, then what stands beside them.

With the seed's fields alone the seed's requests keep their meaning; every other field is optional.
"""

from __future__ import annotations

from typing import Any

from onelun.model import Owner
from onelun.rpc.schema import Reply, Request


class MapZvol(Request, tag="map_zvol", frozen=True):
    """Offer a volume to one host and connect it there; a missing one is created when a size is given.

    `size` is GiB, a number or a string, as the seed has it; `size_bytes` wins over it. `path` is the `disk.N` that the
    host links to the device; with `cloud`, `vm` and `disk` it is the placement that `unmap_zvol` of the same names ends.
    `beside` is a host that keeps the volume meanwhile: a migration from it runs.
    """

    zvol: str
    remotehost: str
    size: int | float | str | None = None
    size_bytes: int | None = None
    zpool: str | None = None
    uuid: str | None = None
    cloud: str | None = None
    vm: int | None = None
    disk: int | None = None
    path: str | None = None
    readonly: bool = False
    beside: str | None = None


class ZvolMapped(Reply, tag="zvol_mapped", frozen=True):
    """`bdev` is the block device on the host, `device` its lasting name there."""

    bdev: str
    device: str
    uuid: str
    size_bytes: int
    epoch: int


class UnmapZvol(Request, tag="unmap_zvol", frozen=True):
    """End a mapping: the host disconnects, then the target goes. Not mapped: success.

    Without `remotehost` the one host is meant that has it. `path` ends that placement; the device stays while another
    placement on the host needs it. `keep_link` leaves `disk.N` as it is. `force` says that OpenNebula knows the host to be
    gone: the NAS fences and keeps a debt.
    """

    zvol: str
    zpool: str | None = None
    uuid: str | None = None
    remotehost: str | None = None
    cloud: str | None = None
    vm: int | None = None
    disk: int | None = None
    path: str | None = None
    keep_link: bool = False
    force: bool = False


class ZvolUnmapped(Reply, tag="zvol_unmapped", frozen=True):
    """`debt` is true when the host could not confirm and still owes the clean-up."""

    debt: bool = False


class ResizeZvol(Request, tag="resize_zvol", frozen=True):
    """Make a volume `size_bytes` long, on the hosts that have it too. That size already: success; smaller: refused."""

    zvol: str
    size_bytes: int
    zpool: str | None = None
    uuid: str | None = None


class ZvolResized(Reply, tag="zvol_resized", frozen=True):
    """The volume and its devices have the size."""

    uuid: str
    size_bytes: int


class DelZvol(Request, tag="del_zvol", frozen=True):
    """Erase a volume. An image of a cloud needs `owner` equal to the volume's own; it goes to the trash first.

    With the seed's field alone, what is attached, ambiguous between pools, or a cloud's image is refused.
    """

    zvol: str
    zpool: str | None = None
    uuid: str | None = None
    owner: Owner | None = None


class ZvolDeleted(Reply, tag="zvol_deleted", frozen=True):
    """The volume is out of sight."""


class ListZvols(Request, tag="list_zvols", frozen=True):
    """List volumes with their mappings: the one called `name`, or all."""

    name: str = ""
    zpool: str | None = None


class ZvolList(Reply, tag="zvol_list", frozen=True):
    """`body` has one object a volume: zvol, zpool, uuid, size_bytes, state, kind, remotehost, iscsi_target, attachments."""

    body: list[dict[str, Any]]


# Beside the seed's.


class CreateZvol(Request, tag="create_zvol", frozen=True):
    """Make an empty volume of `size_bytes`. An equal one that exists is success; a different one is a conflict."""

    zvol: str
    zpool: str
    size_bytes: int
    owner: Owner


class ZvolCreated(Reply, tag="zvol_created", frozen=True):
    """The volume is ready."""

    uuid: str
    size_bytes: int


class CloneZvol(Request, tag="clone_zvol", frozen=True):
    """Make `zvol` with the content of the volume `origin` of the same pool, grown to `size_bytes` when that is more.

    A VM's disk of an earlier life of the same ids is made anew unless it is complete and was never connected.
    """

    zvol: str
    zpool: str
    origin: str
    owner: Owner
    size_bytes: int | None = None


class ZvolCloned(Reply, tag="zvol_cloned", frozen=True):
    """The clone is ready."""

    uuid: str
    size_bytes: int


class ImportZvol(Request, tag="import_zvol", frozen=True):
    """Begin an image: build a volume and export it to `initiator`, its builder, for as long as the lease is renewed."""

    zvol: str
    zpool: str
    size_bytes: int
    owner: Owner
    initiator: str


class ZvolImporting(Reply, tag="zvol_importing", frozen=True):
    """Where to write the content, and with which account. An unrenewed lease ends the import and its volume."""

    uuid: str
    iqn: str
    address: str
    port: int
    user: str
    secret: str
    lease_s: float
    lun: int = 1


class RenewImport(Request, tag="renew_import", frozen=True):
    """Keep an import's lease. Raises not_found when the import has ended."""

    zpool: str
    uuid: str


class ImportRenewed(Reply, tag="import_renewed", frozen=True):
    """The lease runs again from now."""

    lease_s: float


class FinishImport(Request, tag="finish_import", frozen=True):
    """The content is complete: take the export back, make it durable, publish it. Repeating it succeeds."""

    zpool: str
    uuid: str


class ImportFinished(Reply, tag="import_finished", frozen=True):
    """The volume is ready."""

    uuid: str
    size_bytes: int


class AbortImport(Request, tag="abort_import", frozen=True):
    """Drop an import and its volume. An unknown one is success; a finished one is not touched."""

    zpool: str
    uuid: str


class ImportAborted(Reply, tag="import_aborted", frozen=True):
    """Nothing of it is left."""


class SaveZvol(Request, tag="save_zvol", frozen=True):
    """Save a VM's disk over an image (3.4's save-as): detach it, copy it over `target`, then destroy the disk.

    An image is only copied, never destroyed. Repeated after success, it succeeds.
    """

    zvol: str
    zpool: str
    target: str
    cloud: str
    vm: int
    disk: int
    path: str
    remotehost: str | None = None


class ZvolSaved(Reply, tag="zvol_saved", frozen=True):
    """The image has the disk's content."""

    uuid: str


class RemoveDisk(Request, tag="remove_disk", frozen=True):
    """End a VM's disk: detach it and, when the volume says that it is this VM's own disk, destroy it.

    An image (persistent, CD-ROM) is only detached. An absent volume is success.
    """

    zvol: str
    zpool: str
    cloud: str
    vm: int
    disk: int
    path: str
    remotehost: str | None = None
    force: bool = False


class DiskRemoved(Reply, tag="disk_removed", frozen=True):
    """`destroyed` tells whether a volume went; `debt` as in zvol_unmapped."""

    destroyed: bool
    debt: bool = False


class FindPlacements(Request, tag="find_placements", frozen=True):
    """Which volumes stand behind a VM's disks, by any of VM, disk and path."""

    cloud: str
    vm: int | None = None
    disk: int | None = None
    path: str | None = None


class PlacementList(Reply, tag="placement_list", frozen=True):
    """`body` has one object a placement: vm, disk, path, host, zpool, zvol, uuid, kind."""

    body: list[dict[str, Any]]


class PoolCapacity(Request, tag="pool_capacity", frozen=True):
    """What a pool can give."""

    zpool: str


class PoolCapacityIs(Reply, tag="pool_capacity_is", frozen=True):
    """Bytes; `free_bytes` is what a new volume may take below the high-water mark."""

    total_bytes: int
    used_bytes: int
    free_bytes: int


# For an initiator without a compute agent, as the drivers of OpenStack have it.


class InitializeConnection(Request, tag="initialize_connection", frozen=True):
    """Offer a volume to the initiator that `connector` describes: `initiator`, and if known `host` and `ip`.

    It is an attachment like any other, of the host `connector:<initiator>`; no compute agent is asked, and the caller logs
    in by itself. Repeating it gives the same answer.
    """

    zvol: str
    connector: dict[str, Any]
    zpool: str | None = None
    uuid: str | None = None
    readonly: bool = False


class ConnectionInitialized(Reply, tag="connection_initialized", frozen=True):
    """How to log in: `driver_volume_type` is iscsi, and `data` tells the rest.

    It has target_discovered (false), target_iqn, target_portal (address:port), target_lun, volume_id, auth_method (CHAP),
    auth_username, auth_password, access_mode (rw or ro), encrypted (false) and qos_specs (null).
    """

    driver_volume_type: str
    data: dict[str, Any]


class TerminateConnection(Request, tag="terminate_connection", frozen=True):
    """Revoke what initialize_connection gave: every session of that initiator ends, and it cannot log in again.

    The caller has flushed and logged out before. Not offered to it: success.
    """

    zvol: str
    connector: dict[str, Any]
    zpool: str | None = None
    uuid: str | None = None


class ConnectionTerminated(Reply, tag="connection_terminated", frozen=True):
    """The initiator has the volume no more."""
