"""Requests to a NAS by which a front-end itself writes or reads a volume, over a target of its own with a lease.

An image gets its content so: begun, written, finished. So does a VM's disk that is restored. Content is read so: offered,
read, aborted.
"""

from __future__ import annotations

from onelun.model import Attributes, Owner
from onelun.rpc.schema import Reply, Request
from onelun.rpc.to_nas.snapshots import OfVolume


class ImportZvol(Request, tag="import_zvol", frozen=True):
    """Begin an image: build a volume and export it to `initiator`, its builder, for as long as the lease is renewed."""

    zvol: str
    zpool: str
    size_bytes: int
    owner: Owner
    initiator: str
    attributes: Attributes = Attributes()


class RestoreZvol(OfVolume, tag="restore_zvol", kw_only=True, frozen=True):
    """Begin to replace a VM's disk: build a volume and export it to `initiator`, as for an import.

    It has `size_bytes`, or the disk's own size where that is more. `finish_import` takes the disk from `remotehost` (busy while
    it is open there) and puts the new volume in its place in one step; the old one goes to the trash with its snapshots. The
    caller maps the new one. A disk that any other host has is a conflict, and so is an image with snapshots of OpenNebula's.
    """

    size_bytes: int
    initiator: str
    remotehost: str | None = None


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


class ReadZvol(Request, tag="read_zvol", frozen=True):
    """Offer the content that a volume (or a snapshot of it) has now to `initiator`, for as long as the lease is renewed.

    It is a clone, thin where the storage can, and goes with `abort_import`; `renew_import` keeps it. A volume that a host may
    write to is a conflict, unless a snapshot is read.
    """

    zvol: str
    zpool: str
    cloud: str
    initiator: str
    snapshot: str | None = None


class ZvolReadable(Reply, tag="zvol_readable", frozen=True):
    """Where to read the content, and with which account."""

    uuid: str
    size_bytes: int
    iqn: str
    address: str
    port: int
    user: str
    secret: str
    lease_s: float
    lun: int = 1


class RenewImport(Request, tag="renew_import", frozen=True):
    """Keep the lease of an import, or of what is read. Raises not_found when it has ended."""

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
    """Drop an import and its volume, or what is read. An unknown one is success; a finished one is not touched."""

    zpool: str
    uuid: str


class ImportAborted(Reply, tag="import_aborted", frozen=True):
    """Nothing of it is left."""
