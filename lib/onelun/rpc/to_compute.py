"""The requests to a compute node and their replies: the seed's three first, then what stands beside them."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from onelun.rpc.schema import NasName, Reply, Request, TargetName


class SetZvol(Request, tag="set_zvol", frozen=True):
    """Connect `target` of `nas` and return its device; link `link` to it.

    With the seed's two fields alone it connects a target that asks for no secret, on port 3260 of the host `nas`.
    """

    target: TargetName
    nas: NasName
    address: str | None = None
    port: int = 3260
    initiator: str | None = None
    user: str | None = None
    secret: str | None = None
    zpool: str | None = None
    zvol: str | None = None
    uuid: str | None = None
    size_bytes: int | None = None
    readonly: bool = False
    lun: int | None = None
    link: str | None = None


class ZvolAttached(Reply, tag="zvol_attached", frozen=True):
    """`bdev` is the device; its identity has been verified when the request told it."""

    bdev: str


class GrowDev(Request, tag="grow_dev", frozen=True):
    """See that the LUN of the connected `target` has become `size_bytes` long. Not connected: not_found."""

    target: TargetName
    size_bytes: int


class DevGrown(Reply, tag="dev_grown", frozen=True):
    """The device has the size."""

    bdev: str


class TearDown(Request, tag="tear_down", frozen=True):
    """Disconnect `target`. Not connected: success. `link` is removed with it, or alone when `keep_device`.

    An open device is refused (busy) unless `force`.
    """

    target: TargetName
    link: str | None = None
    keep_link: bool = False
    keep_device: bool = False
    force: bool = False


class ZvolDetached(Reply, tag="zvol_detached", frozen=True):
    """The device is gone from the host."""


class ListDev(Request, tag="list_dev", frozen=True):
    """List the connected targets."""


class DevList(Reply, tag="dev_list", frozen=True):
    """`body` has one object a target: target, bdev, device, uuid, nas, alive, links."""

    body: list[dict[str, Any]]


class Held(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One attachment in force, as a NAS tells it to a host that is back."""

    target: TargetName
    address: str
    port: int
    initiator: str
    user: str
    secret: str
    zpool: str
    zvol: str
    uuid: str
    size_bytes: int
    readonly: bool = False
    lun: int | None = None
    links: tuple[str, ...] = ()


class SyncZvols(Request, tag="sync_zvols", frozen=True):
    """Tell a host all attachments in force from `nas`: it connects those that are missing and drops every other of that NAS.

    `fenced` are targets that the NAS has ended without the host: they are dropped without a flush, even while open.
    """

    nas: NasName
    held: tuple[Held, ...]
    fenced: tuple[TargetName, ...] = ()


class ZvolsSynced(Reply, tag="zvols_synced", frozen=True):
    """`connected` and `dropped` are IQNs; `failed` maps IQNs to sentences."""

    connected: tuple[str, ...]
    dropped: tuple[str, ...]
    failed: dict[str, str]


class FreezeGuest(Request, tag="freeze_guest", frozen=True):
    """Have the guest `domain` write out and freeze its filesystems, by its agent. After `hold_s` the host thaws it itself.

    With `pause` the guest stands still as a whole instead, which needs no agent, and writes nothing out before.
    """

    domain: str
    hold_s: float
    pause: bool = False


class GuestFrozen(Reply, tag="guest_frozen", frozen=True):
    """`missing` says why the guest is not frozen; it is null when it is."""

    missing: str | None = None


class ThawGuest(Request, tag="thaw_guest", frozen=True):
    """Thaw a guest that was frozen by request. Any other is left alone."""

    domain: str


class GuestThawed(Reply, tag="guest_thawed", frozen=True):
    """`held` tells whether it stood still until now."""

    held: bool


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing in a VM's directory: `name` is relative to it. `target` is a link's text."""

    name: str
    kind: Literal["file", "link", "dir"]
    mode: int = 0o640
    size: int = 0
    target: str | None = None


class ListDir(Request, tag="list_dir", frozen=True):
    """What a VM's directory holds, recursively. An absent one is `exists` false."""

    path: str


class DirList(Reply, tag="dir_list", frozen=True):
    """The entries of a directory."""

    exists: bool
    entries: tuple[Entry, ...] = ()


class ReadFile(Request, tag="read_file", frozen=True):
    """One piece (at most 1 MiB) of a file of a VM's directory."""

    path: str
    name: str
    offset: int = 0


class FileRead(Reply, tag="file_read", frozen=True):
    """`data` is base64 on the wire; an empty piece is the end."""

    data: bytes


class PutEntry(Request, tag="put_entry", frozen=True):
    """Make one entry in a VM's directory, making the directory too. A file comes in pieces and appears with its `last`."""

    path: str
    entry: Entry
    offset: int = 0
    data: bytes = b""
    last: bool = True


class EntryPut(Reply, tag="entry_put", frozen=True):
    """It is there."""


class RemoveEntry(Request, tag="remove_entry", frozen=True):
    """Remove a VM's directory, or one entry of it. Absent: success."""

    path: str
    name: str | None = None


class EntryRemoved(Reply, tag="entry_removed", frozen=True):
    """It is gone."""


class StoreFile(Request, tag="store_file", frozen=True):
    """Copy a file of a VM's directory, `size_bytes` long, to the beginning of a volume that is connected here, durably."""

    path: str
    name: str
    nas: NasName
    zpool: str
    zvol: str
    uuid: str
    size_bytes: int


class FileStored(Reply, tag="file_stored", frozen=True):
    """The volume has the file's bytes."""


class FetchFile(Request, tag="fetch_file", frozen=True):
    """Make a file of a VM's directory, of the first `size_bytes` of a volume that is connected here. It appears whole."""

    path: str
    name: str
    nas: NasName
    zpool: str
    zvol: str
    uuid: str
    size_bytes: int
    mode: int = 0o600


class FileFetched(Reply, tag="file_fetched", frozen=True):
    """The file is there, durably."""
