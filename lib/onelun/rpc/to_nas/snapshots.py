"""Requests to a NAS about a volume's snapshots, and to copy a disk over an image.

Whose the volume is, is checked by `cloud`, and where they are given by `owner` (an image, with its REGTIME) or by `vm` and
`disk` (a VM's own disk). A caller without a cloud may ask about volumes of no cloud.
"""

from __future__ import annotations

from typing import Any

from onelun.model import Owner
from onelun.rpc.schema import Reply, Request


class OfVolume(Request, kw_only=True, frozen=True):
    """What all of them name."""

    zvol: str
    zpool: str | None = None
    cloud: str | None = None
    owner: Owner | None = None
    vm: int | None = None
    disk: int | None = None


class SnapshotZvol(OfVolume, tag="snapshot_zvol", kw_only=True, frozen=True):
    """Keep a volume's content of now as the snapshot `snapshot`. There already: that one stays, and it is success.

    Except that one made before `not_before` (seconds since the epoch, by the caller's clock) is another one of that name,
    which its owner has forgotten: it is made anew. What a host has not written out yet is not in a snapshot.
    """

    snapshot: str
    not_before: float | None = None


class ZvolSnapshotted(Reply, tag="zvol_snapshotted", frozen=True):
    """The snapshot is there; `size_bytes` is the volume's size then."""

    uuid: str
    made_at: float
    size_bytes: int


class ListSnapshots(OfVolume, tag="list_snapshots", kw_only=True, frozen=True):
    """List a volume's snapshots, the oldest first."""


class SnapshotList(Reply, tag="snapshot_list", frozen=True):
    """`body` has one object a snapshot: snapshot, made_at, size_bytes, used_bytes."""

    uuid: str
    body: list[dict[str, Any]]


class RevertZvol(OfVolume, tag="revert_zvol", kw_only=True, frozen=True):
    """Give a volume the content and the size of a snapshot; all snapshots stay.

    A volume that `remotehost` has is disconnected there before and connected again afterwards, so that nothing of what it
    held lasts in a cache; a device that is open there is busy. What another host has is refused. Repeating it succeeds.
    """

    snapshot: str
    remotehost: str | None = None


class ZvolReverted(Reply, tag="zvol_reverted", frozen=True):
    """The volume has the snapshot's content and size."""

    uuid: str
    size_bytes: int


class FlattenZvol(OfVolume, tag="flatten_zvol", kw_only=True, frozen=True):
    """Revert a volume that no host has to a snapshot and delete all its snapshots (`snap-N`). Repeating it succeeds."""

    snapshot: str


class ZvolFlattened(Reply, tag="zvol_flattened", frozen=True):
    """The volume has the snapshot's content and size, and no snapshots."""

    uuid: str
    size_bytes: int


class DelSnapshot(OfVolume, tag="del_snapshot", kw_only=True, frozen=True):
    """Delete a snapshot. It, or the volume, absent: success. What was cloned from it lives on."""

    snapshot: str


class SnapshotDeleted(Reply, tag="snapshot_deleted", frozen=True):
    """The snapshot is gone."""


class CopyZvol(OfVolume, tag="copy_zvol", kw_only=True, frozen=True):
    """Copy a disk's content over the image `target` of the same pool (save-as): that of now, or that of `snapshot`.

    The disk stays as it is, with its hosts; while one may write to it, the copy is of one moment. An image that was ever
    given to a host, or that was filled from something else, is refused. Repeated, it succeeds.
    """

    target: str
    snapshot: str | None = None


class ZvolCopied(Reply, tag="zvol_copied", frozen=True):
    """The image has the disk's content."""

    uuid: str
    size_bytes: int
