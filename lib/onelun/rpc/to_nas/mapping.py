"""Requests to a NAS about a volume and one host: the mapping, and its end. The first two are the seed's.

With the seed's fields alone they keep their meaning; every other field is optional.
"""

from __future__ import annotations

from onelun.rpc.schema import Reply, Request


class MapZvol(Request, tag="map_zvol", frozen=True):
    """Offer a volume to one host and connect it there; a missing one is created when a size is given.

    `size` is GiB, a number or a string, as the seed has it; `size_bytes` wins over it. `path` is the `disk.N` that the
    host links to the device; with `cloud`, `vm` and `disk` it is the placement that `unmap_zvol` of the same names ends.
    `beside` is a host that keeps the volume meanwhile: a migration from it runs. `shareable`: so may every other host, whose VMs
    write to it by turns of their own.
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
    shareable: bool = False


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
    gone: the NAS fences and keeps a debt. `stays` ends a migration: of its two hosts that one keeps the VM's disk. Without it
    a VM's disk leaves both.
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
    stays: str | None = None


class ZvolUnmapped(Reply, tag="zvol_unmapped", frozen=True):
    """`debt` is true when the host could not confirm and still owes the clean-up; `absent` when nothing was mapped any more."""

    debt: bool = False
    absent: bool = False


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
