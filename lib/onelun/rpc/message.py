"""Every request and reply, one schema each. docs/protocol.md is written from this file.

Requests keep the meaning that the seed's protocol gave them when they carry the seed's fields alone; everything else is
optional beside them. Unknown fields are ignored; an unknown word in `needs` is refused, so that an older agent never
drops a condition that the caller relies on.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import msgspec

from onelun.errors import ProtocolError, Rejected
from onelun.model import Owner

VERSION = 1
GIB = 1 << 30
# The words that `needs` may carry to an agent of this release.
CONDITIONS = frozenset({"owner", "uuid", "epoch", "identity", "readonly", "placement", "force"})


class Request(msgspec.Struct, kw_only=True, omit_defaults=True, tag_field="action", frozen=True):
    """What every request may carry: durations in seconds, counted by the agent from receipt."""

    v: int = VERSION
    needs: tuple[str, ...] = ()
    start_within: float | None = None
    finish_within: float | None = None


class Reply(msgspec.Struct, kw_only=True, tag_field="action", frozen=True):
    """What every successful reply carries."""

    status: Literal["success"] = "success"


# --- to a NAS: the seed's four ------------------------------------------------------------------------------------


class MapZvol(Request, tag="map_zvol"):
    """Offer a volume to one host and connect it there; a missing one is created when a size is given.

    `size` is GiB, a number or a string, as the seed has it; `size_bytes` wins over it. `path` is the `disk.N` that the
    host links to the device; with `cloud`, `vm` and `disk` it is the placement that `unmap_zvol` of the same names ends.
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


class ZvolMapped(Reply, tag="zvol_mapped"):
    """`bdev` is the block device on the host, `device` its lasting name there."""

    bdev: str
    device: str
    uuid: str
    size_bytes: int
    epoch: int


class UnmapZvol(Request, tag="unmap_zvol"):
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


class ZvolUnmapped(Reply, tag="zvol_unmapped"):
    """`debt` is true when the host could not confirm and still owes the clean-up."""

    debt: bool = False


class DelZvol(Request, tag="del_zvol"):
    """Erase a volume. An image of a cloud needs `owner` equal to the volume's own; it goes to the trash first.

    With the seed's field alone, what is attached, ambiguous between pools, or a cloud's image is refused.
    """

    zvol: str
    zpool: str | None = None
    uuid: str | None = None
    owner: Owner | None = None


class ZvolDeleted(Reply, tag="zvol_deleted"):
    """The volume is out of sight."""


class ListZvols(Request, tag="list_zvols"):
    """List volumes with their mappings: the one called `name`, or all."""

    name: str = ""
    zpool: str | None = None


class ZvolList(Reply, tag="zvol_list"):
    """`body` has one object a volume: zvol, zpool, uuid, size_bytes, state, kind, remotehost, iscsi_target, attachments."""

    body: list[dict[str, Any]]


# --- to a NAS: beside them ----------------------------------------------------------------------------------------


class CreateZvol(Request, tag="create_zvol"):
    """Make an empty volume of `size_bytes`. An equal one that exists is success; a different one is a conflict."""

    zvol: str
    zpool: str
    size_bytes: int
    owner: Owner


class ZvolCreated(Reply, tag="zvol_created"):
    """The volume is ready."""

    uuid: str
    size_bytes: int


class CloneZvol(Request, tag="clone_zvol"):
    """Make `zvol` with the content of the volume `origin` of the same pool, grown to `size_bytes` when that is more.

    A VM's disk of an earlier life of the same ids is made anew unless it is complete and was never connected.
    """

    zvol: str
    zpool: str
    origin: str
    owner: Owner
    size_bytes: int | None = None


class ZvolCloned(Reply, tag="zvol_cloned"):
    """The clone is ready."""

    uuid: str
    size_bytes: int


class ImportZvol(Request, tag="import_zvol"):
    """Begin an image: build a volume and export it to `initiator`, its builder, for as long as the lease is renewed."""

    zvol: str
    zpool: str
    size_bytes: int
    owner: Owner
    initiator: str


class ZvolImporting(Reply, tag="zvol_importing"):
    """Where to write the content, and with which account. An unrenewed lease ends the import and its volume."""

    uuid: str
    iqn: str
    address: str
    port: int
    user: str
    secret: str
    lease_s: float


class RenewImport(Request, tag="renew_import"):
    """Keep an import's lease. Raises not_found when the import has ended."""

    zpool: str
    uuid: str


class ImportRenewed(Reply, tag="import_renewed"):
    """The lease runs again from now."""

    lease_s: float


class FinishImport(Request, tag="finish_import"):
    """The content is complete: take the export back, make it durable, publish it. Repeating it succeeds."""

    zpool: str
    uuid: str


class ImportFinished(Reply, tag="import_finished"):
    """The volume is ready."""

    uuid: str
    size_bytes: int


class AbortImport(Request, tag="abort_import"):
    """Drop an import and its volume. An unknown one is success; a finished one is not touched."""

    zpool: str
    uuid: str


class ImportAborted(Reply, tag="import_aborted"):
    """Nothing of it is left."""


class SaveZvol(Request, tag="save_zvol"):
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


class ZvolSaved(Reply, tag="zvol_saved"):
    """The image has the disk's content."""

    uuid: str


class RemoveDisk(Request, tag="remove_disk"):
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


class DiskRemoved(Reply, tag="disk_removed"):
    """`destroyed` tells whether a volume went; `debt` as in zvol_unmapped."""

    destroyed: bool
    debt: bool = False


class FindPlacements(Request, tag="find_placements"):
    """Which volumes stand behind a VM's disks, by any of VM, disk and path."""

    cloud: str
    vm: int | None = None
    disk: int | None = None
    path: str | None = None


class PlacementList(Reply, tag="placement_list"):
    """`body` has one object a placement: vm, disk, path, host, zpool, zvol, uuid, kind."""

    body: list[dict[str, Any]]


class PoolCapacity(Request, tag="pool_capacity"):
    """What a pool can give."""

    zpool: str


class PoolCapacityIs(Reply, tag="pool_capacity_is"):
    """Bytes; `free_bytes` is what a new volume may take below the high-water mark."""

    total_bytes: int
    used_bytes: int
    free_bytes: int


# --- to a compute node --------------------------------------------------------------------------------------------


class SetZvol(Request, tag="set_zvol"):
    """Connect `target` of `nas` and return its device; link `link` to it.

    With the seed's two fields alone it connects a target that asks for no secret, on port 3260 of the host `nas`.
    """

    target: str
    nas: str
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
    link: str | None = None


class ZvolAttached(Reply, tag="zvol_attached"):
    """`bdev` is the device; its identity has been verified when the request told it."""

    bdev: str


class TearDown(Request, tag="tear_down"):
    """Disconnect `target`. Not connected: success. `link` is removed with it, or alone when `keep_device`.

    An open device is refused (busy) unless `force`.
    """

    target: str
    link: str | None = None
    keep_link: bool = False
    keep_device: bool = False
    force: bool = False


class ZvolDetached(Reply, tag="zvol_detached"):
    """The device is gone from the host."""


class ListDev(Request, tag="list_dev"):
    """List the connected targets."""


class DevList(Reply, tag="dev_list"):
    """`body` has one object a target: target, bdev, device, uuid, nas, alive, links."""

    body: list[dict[str, Any]]


class Held(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One attachment in force, as a NAS tells it to a host that is back."""

    target: str
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
    links: tuple[str, ...] = ()


class SyncZvols(Request, tag="sync_zvols"):
    """Tell a host all attachments in force from `nas`: it connects those that are missing and drops every other of that NAS."""

    nas: str
    held: tuple[Held, ...]


class ZvolsSynced(Reply, tag="zvols_synced"):
    """`connected` and `dropped` are IQNs; `failed` maps IQNs to sentences."""

    connected: tuple[str, ...]
    dropped: tuple[str, ...]
    failed: dict[str, str]


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing in a VM's directory: `name` is relative to it. `target` is a link's text."""

    name: str
    kind: Literal["file", "link", "dir"]
    mode: int = 0o640
    size: int = 0
    target: str | None = None


class ListDir(Request, tag="list_dir"):
    """What a VM's directory holds, recursively. An absent one is `exists` false."""

    path: str


class DirList(Reply, tag="dir_list"):
    """The entries of a directory."""

    exists: bool
    entries: tuple[Entry, ...] = ()


class ReadFile(Request, tag="read_file"):
    """One piece (at most 1 MiB) of a file of a VM's directory."""

    path: str
    name: str
    offset: int = 0


class FileRead(Reply, tag="file_read"):
    """`data` is base64 on the wire; an empty piece is the end."""

    data: bytes


class PutEntry(Request, tag="put_entry"):
    """Make one entry in a VM's directory, making the directory too. A file comes in pieces and appears with its `last`."""

    path: str
    entry: Entry
    offset: int = 0
    data: bytes = b""
    last: bool = True


class EntryPut(Reply, tag="entry_put"):
    """It is there."""


class RemoveEntry(Request, tag="remove_entry"):
    """Remove a VM's directory, or one entry of it. Absent: success."""

    path: str
    name: str | None = None


class EntryRemoved(Reply, tag="entry_removed"):
    """It is gone."""


# --- to either ----------------------------------------------------------------------------------------------------


class Hello(Request, tag="hello"):
    """Who are you?"""


class HelloIs(Reply, tag="hello_is"):
    """`instance` changes with every start of the agent; `initiator` is a compute node's iSCSI name."""

    node: str
    role: str
    instance: str
    version: str
    initiator: str | None = None


class Status(Request, tag="status"):
    """What became of the request `id`? A running one answers to this caller from now on; an unknown one can never start later."""

    id: str


class StatusIs(Reply, tag="status_is"):
    """`reply` is the final reply of a request that is `done`."""

    state: Literal["running", "done", "unknown"]
    reply: dict[str, Any] | None = None


class Cancel(Request, tag="cancel"):
    """End the work of request `id`; its own final reply tells the outcome. Unknown, or done already: success."""

    id: str


class Cancelling(Reply, tag="cancelling"):
    """The work has been told to end."""


class Verb(NamedTuple):
    """How one request is treated. `journaled`: accepted durably, before work. `copies`: may last as long as a copy."""

    request: type[Request]
    reply: type[Reply]
    role: Literal["nas", "compute", "both"]
    journaled: bool = True
    copies: bool = False


VERBS: tuple[Verb, ...] = (
    Verb(MapZvol, ZvolMapped, "nas"),
    Verb(UnmapZvol, ZvolUnmapped, "nas"),
    Verb(DelZvol, ZvolDeleted, "nas"),
    Verb(ListZvols, ZvolList, "nas", journaled=False),
    Verb(CreateZvol, ZvolCreated, "nas"),
    Verb(CloneZvol, ZvolCloned, "nas", copies=True),
    Verb(ImportZvol, ZvolImporting, "nas"),
    Verb(RenewImport, ImportRenewed, "nas", journaled=False),
    Verb(FinishImport, ImportFinished, "nas"),
    Verb(AbortImport, ImportAborted, "nas"),
    Verb(SaveZvol, ZvolSaved, "nas", copies=True),
    Verb(RemoveDisk, DiskRemoved, "nas"),
    Verb(FindPlacements, PlacementList, "nas", journaled=False),
    Verb(PoolCapacity, PoolCapacityIs, "nas", journaled=False),
    Verb(SetZvol, ZvolAttached, "compute"),
    Verb(TearDown, ZvolDetached, "compute"),
    Verb(ListDev, DevList, "compute", journaled=False),
    Verb(SyncZvols, ZvolsSynced, "compute"),
    Verb(ListDir, DirList, "compute", journaled=False),
    Verb(ReadFile, FileRead, "compute", journaled=False),
    Verb(PutEntry, EntryPut, "compute", journaled=False),
    Verb(RemoveEntry, EntryRemoved, "compute"),
    Verb(Hello, HelloIs, "both", journaled=False),
    Verb(Status, StatusIs, "both", journaled=False),
    Verb(Cancel, Cancelling, "both", journaled=False),
)


def name_of(message: type[Request] | type[Reply]) -> str:
    """The `action` of a message type."""
    return str(message.__struct_config__.tag)


BY_NAME: dict[str, Verb] = {name_of(verb.request): verb for verb in VERBS}
BY_REQUEST: dict[type[Request], Verb] = {verb.request: verb for verb in VERBS}


def decode_request(body: bytes) -> Request:
    """The request in `body`.

    Raises ProtocolError for what is no JSON object, has no or an unknown `action`, lacks a field, has one of the wrong type, or
    needs what this release does not know.
    """
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"the message is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise ProtocolError("the message is no JSON object")
    action = document.get("action")
    if not isinstance(action, str):
        raise ProtocolError("the message has no action")
    verb = BY_NAME.get(action)
    if verb is None:
        raise ProtocolError(f"action_unsupported: {action[:60]!r} is no action of this agent")
    try:
        request = msgspec.convert(document, verb.request)
    except msgspec.ValidationError as error:
        raise ProtocolError(f"{action}: {error}") from error
    if unknown := set(request.needs) - CONDITIONS:
        raise ProtocolError(f"{action} needs {', '.join(sorted(unknown))}, which this agent does not know: upgrade it")
    return request


def encode(message: Request | Reply) -> bytes:
    """The message as JSON. `bytes` become base64."""
    return msgspec.json.encode(message)


def decode_reply(document: dict[str, Any], kind: type[Reply]) -> Reply:
    """The successful reply in `document`. Raises ProtocolError when it is another one or malformed."""
    try:
        return msgspec.convert(document, kind)
    except msgspec.ValidationError as error:
        raise ProtocolError(f"the reply to a request is not a {name_of(kind)}: {error}") from error


def size_bytes(request: MapZvol) -> int | None:
    """The size that a map_zvol asks for, in bytes; None when it names none. Raises Rejected when it is no size."""
    if request.size_bytes is not None:
        size = request.size_bytes
    elif request.size is None:
        return None
    else:
        try:
            size = int(float(request.size) * GIB)
        except (ValueError, OverflowError):
            raise Rejected(f"size {str(request.size)[:40]!r} is no number of GiB") from None
    return checked_size(size)


def checked_size(size: int) -> int:
    """`size` rounded up to whole sectors; Rejected unless it is 1 byte to 1 PiB."""
    if not 0 < size <= 1 << 50:
        raise Rejected(f"a volume of {size} bytes cannot be: the size must be between 1 byte and 1 PiB")
    return -(-size // 512) * 512
