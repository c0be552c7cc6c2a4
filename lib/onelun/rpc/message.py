"""Every request and reply in one place: which there are, how each is treated, and how one is read from a body.

docs/protocol.md is written from the schemas. Unknown fields are ignored; an unknown word in `needs` is refused, so that
an older agent never drops a condition that the caller relies on.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import msgspec

from onelun.errors import ProtocolError, Rejected
from onelun.rpc.schema import Reply, Request
from onelun.rpc.to_compute import (
    DevGrown,
    DevList,
    DirList,
    Entry,
    EntryPut,
    EntryRemoved,
    FetchFile,
    FileFetched,
    FileRead,
    FileStored,
    FreezeGuest,
    GrowDev,
    GuestFrozen,
    GuestThawed,
    Held,
    ListDev,
    ListDir,
    PutEntry,
    ReadFile,
    RemoveEntry,
    SetZvol,
    StoreFile,
    SyncZvols,
    TearDown,
    ThawGuest,
    ZvolAttached,
    ZvolDetached,
    ZvolsSynced,
)
from onelun.rpc.to_compute_backups import BackupWritten, WriteBackup
from onelun.rpc.to_either import Cancel, Cancelling, Hello, HelloIs, Status, StatusIs
from onelun.rpc.to_nas.changes import ChangeList, ListChanges
from onelun.rpc.to_nas.connections import (
    ConnectionInitialized,
    ConnectionTerminated,
    InitializeConnection,
    TerminateConnection,
)
from onelun.rpc.to_nas.imports import (
    AbortImport,
    FinishImport,
    ImportAborted,
    ImportFinished,
    ImportRenewed,
    ImportZvol,
    ReadZvol,
    RenewImport,
    RestoreZvol,
    ZvolImporting,
    ZvolReadable,
)
from onelun.rpc.to_nas.listing import (
    DiskList,
    FindPlacements,
    ListDisks,
    ListZvols,
    MaintenanceIs,
    PlacementList,
    PoolCapacity,
    PoolCapacityIs,
    SetMaintenance,
    ZvolList,
)
from onelun.rpc.to_nas.mapping import DiskRemoved, MapZvol, RemoveDisk, UnmapZvol, ZvolMapped, ZvolUnmapped
from onelun.rpc.to_nas.reconciling import (
    Settle,
    Settled,
    StockAttachment,
    StockIs,
    StockPlacement,
    StockTarget,
    StockVolume,
    TakeStock,
    TrashZvol,
    ZvolTrashed,
)
from onelun.rpc.to_nas.snapshots import (
    CopyZvol,
    DelSnapshot,
    FlattenZvol,
    ListSnapshots,
    OfVolume,
    RevertZvol,
    SnapshotDeleted,
    SnapshotList,
    SnapshotZvol,
    ZvolCopied,
    ZvolFlattened,
    ZvolReverted,
    ZvolSnapshotted,
)
from onelun.rpc.to_nas.volumes import (
    AdoptZvol,
    CloneZvol,
    CreateZvol,
    DelZvol,
    ReleaseZvol,
    ResizeZvol,
    SaveZvol,
    ZvolAdopted,
    ZvolCloned,
    ZvolCreated,
    ZvolDeleted,
    ZvolReleased,
    ZvolResized,
    ZvolSaved,
)

GIB = 1 << 30
# A piece of a file takes 1.4 MB, a thousand attachments half a megabyte. The broker itself passes 128 MiB on (max_message_size).
LONGEST = 16 << 20
# The words that `needs` may carry to an agent of this release.
CONDITIONS = frozenset(
    {"owner", "filesystem", "uuid", "epoch", "identity", "readonly", "placement", "force", "stays", "attributes"}
)

__all__ = [
    "BY_NAME",
    "BY_REQUEST",
    "CONDITIONS",
    "GIB",
    "LONGEST",
    "VERBS",
    "AbortImport",
    "AdoptZvol",
    "BackupWritten",
    "Cancel",
    "Cancelling",
    "ChangeList",
    "CloneZvol",
    "ConnectionInitialized",
    "ConnectionTerminated",
    "CopyZvol",
    "CreateZvol",
    "DelSnapshot",
    "DelZvol",
    "DevGrown",
    "DevList",
    "DirList",
    "DiskList",
    "DiskRemoved",
    "Entry",
    "EntryPut",
    "EntryRemoved",
    "FetchFile",
    "FileFetched",
    "FileRead",
    "FileStored",
    "FindPlacements",
    "FinishImport",
    "FlattenZvol",
    "FreezeGuest",
    "GrowDev",
    "GuestFrozen",
    "GuestThawed",
    "Held",
    "Hello",
    "HelloIs",
    "ImportAborted",
    "ImportFinished",
    "ImportRenewed",
    "ImportZvol",
    "InitializeConnection",
    "Kind",
    "ListChanges",
    "ListDev",
    "ListDir",
    "ListDisks",
    "ListSnapshots",
    "ListZvols",
    "MaintenanceIs",
    "MapZvol",
    "OfVolume",
    "PlacementList",
    "PoolCapacity",
    "PoolCapacityIs",
    "PutEntry",
    "ReadFile",
    "ReadZvol",
    "ReleaseZvol",
    "RemoveDisk",
    "RemoveEntry",
    "RenewImport",
    "Reply",
    "Request",
    "ResizeZvol",
    "RestoreZvol",
    "RevertZvol",
    "SaveZvol",
    "SetMaintenance",
    "SetZvol",
    "Settle",
    "Settled",
    "SnapshotDeleted",
    "SnapshotList",
    "SnapshotZvol",
    "Status",
    "StatusIs",
    "StockAttachment",
    "StockIs",
    "StockPlacement",
    "StockTarget",
    "StockVolume",
    "StoreFile",
    "SyncZvols",
    "TakeStock",
    "TearDown",
    "TerminateConnection",
    "ThawGuest",
    "TrashZvol",
    "UnmapZvol",
    "Verb",
    "WriteBackup",
    "ZvolAdopted",
    "ZvolAttached",
    "ZvolCloned",
    "ZvolCopied",
    "ZvolCreated",
    "ZvolDeleted",
    "ZvolDetached",
    "ZvolFlattened",
    "ZvolImporting",
    "ZvolList",
    "ZvolMapped",
    "ZvolReadable",
    "ZvolReleased",
    "ZvolResized",
    "ZvolReverted",
    "ZvolSaved",
    "ZvolSnapshotted",
    "ZvolTrashed",
    "ZvolUnmapped",
    "ZvolsSynced",
    "checked_size",
    "decode_reply",
    "decode_request",
    "encode",
    "name_of",
    "size_bytes",
]


Kind = Literal["frontend", "nas", "compute", "unnamed"]
# Only frontends may publish under the name of a NAS, so there one without user_id is a frontend too.
_TO_NAS: tuple[Kind, ...] = ("frontend", "unnamed")
_BY_FRONTEND: tuple[Kind, ...] = ("frontend",)
_BY_NAS: tuple[Kind, ...] = ("nas",)
_BY_ANYBODY: tuple[Kind, ...] = ("frontend", "nas", "unnamed")


class Verb(NamedTuple):
    """How one request is treated. `journaled`: accepted durably, before work. `copies`: may last as long as a copy.

    `frees`: it ends something, and so has room in an agent that takes nothing else any more.
    `callers` are the kinds of callers that may ask it (callers.py); with `bare`, one without user_id may set these fields alone.
    """

    request: type[Request]
    reply: type[Reply]
    role: Literal["nas", "compute", "both"]
    callers: tuple[Kind, ...]
    journaled: bool = True
    copies: bool = False
    frees: bool = False
    bare: frozenset[str] | None = None


VERBS: tuple[Verb, ...] = (
    Verb(MapZvol, ZvolMapped, "nas", _TO_NAS),
    Verb(UnmapZvol, ZvolUnmapped, "nas", _TO_NAS, frees=True),
    Verb(ResizeZvol, ZvolResized, "nas", _TO_NAS),
    Verb(DelZvol, ZvolDeleted, "nas", _TO_NAS, frees=True),
    Verb(ListZvols, ZvolList, "nas", _TO_NAS, journaled=False),
    Verb(CreateZvol, ZvolCreated, "nas", _TO_NAS),
    Verb(CloneZvol, ZvolCloned, "nas", _TO_NAS, copies=True),
    Verb(ImportZvol, ZvolImporting, "nas", _TO_NAS),
    Verb(RestoreZvol, ZvolImporting, "nas", _TO_NAS),
    Verb(ReadZvol, ZvolReadable, "nas", _TO_NAS, copies=True),
    Verb(RenewImport, ImportRenewed, "nas", _TO_NAS, journaled=False),
    Verb(FinishImport, ImportFinished, "nas", _TO_NAS, frees=True),
    Verb(AbortImport, ImportAborted, "nas", _TO_NAS, frees=True),
    Verb(AdoptZvol, ZvolAdopted, "nas", _TO_NAS),
    Verb(ReleaseZvol, ZvolReleased, "nas", _TO_NAS),
    Verb(SaveZvol, ZvolSaved, "nas", _TO_NAS, copies=True),
    # Not every storage makes a snapshot, or goes back to one, without copying.
    Verb(SnapshotZvol, ZvolSnapshotted, "nas", _TO_NAS, copies=True),
    Verb(ListSnapshots, SnapshotList, "nas", _TO_NAS, journaled=False),
    # Some storages tell it by reading all that changed.
    Verb(ListChanges, ChangeList, "nas", _TO_NAS, copies=True),
    Verb(RevertZvol, ZvolReverted, "nas", _TO_NAS, copies=True),
    Verb(FlattenZvol, ZvolFlattened, "nas", _TO_NAS, copies=True),
    Verb(DelSnapshot, SnapshotDeleted, "nas", _TO_NAS, frees=True),
    Verb(CopyZvol, ZvolCopied, "nas", _TO_NAS, copies=True),
    Verb(RemoveDisk, DiskRemoved, "nas", _TO_NAS, frees=True),
    Verb(FindPlacements, PlacementList, "nas", _TO_NAS, journaled=False),
    Verb(ListDisks, DiskList, "nas", _TO_NAS, journaled=False),
    Verb(PoolCapacity, PoolCapacityIs, "nas", _TO_NAS, journaled=False),
    Verb(SetMaintenance, MaintenanceIs, "nas", _TO_NAS, frees=True),
    # Reading what a pool's snapshots are may take LVM long.
    Verb(TakeStock, StockIs, "nas", _TO_NAS, journaled=False),
    Verb(Settle, Settled, "nas", _TO_NAS, frees=True),
    Verb(TrashZvol, ZvolTrashed, "nas", _TO_NAS, frees=True),
    Verb(InitializeConnection, ConnectionInitialized, "nas", _TO_NAS),
    Verb(TerminateConnection, ConnectionTerminated, "nas", _TO_NAS, frees=True),
    Verb(SetZvol, ZvolAttached, "compute", _BY_ANYBODY, bare=frozenset({"target", "nas"})),
    Verb(GrowDev, DevGrown, "compute", _BY_NAS),
    Verb(TearDown, ZvolDetached, "compute", _BY_ANYBODY, frees=True, bare=frozenset({"target"})),
    Verb(ListDev, DevList, "compute", _BY_ANYBODY, journaled=False, bare=frozenset()),
    Verb(SyncZvols, ZvolsSynced, "compute", _BY_NAS, frees=True),
    Verb(FreezeGuest, GuestFrozen, "compute", _BY_FRONTEND, journaled=False),
    Verb(ThawGuest, GuestThawed, "compute", _BY_FRONTEND, journaled=False),
    Verb(ListDir, DirList, "compute", _BY_FRONTEND, journaled=False),
    Verb(ReadFile, FileRead, "compute", _BY_FRONTEND, journaled=False),
    Verb(PutEntry, EntryPut, "compute", _BY_FRONTEND, journaled=False),
    Verb(RemoveEntry, EntryRemoved, "compute", _BY_FRONTEND, frees=True),
    Verb(StoreFile, FileStored, "compute", _BY_FRONTEND, copies=True),
    Verb(FetchFile, FileFetched, "compute", _BY_FRONTEND, copies=True),
    Verb(WriteBackup, BackupWritten, "compute", _BY_FRONTEND, copies=True),
    Verb(Hello, HelloIs, "both", _BY_ANYBODY, journaled=False),
    Verb(Status, StatusIs, "both", _BY_ANYBODY, journaled=False),
    Verb(Cancel, Cancelling, "both", _BY_ANYBODY, journaled=False),
)


def name_of(message: type[Request] | type[Reply]) -> str:
    """The `action` of a message type."""
    return str(message.__struct_config__.tag)


BY_NAME: dict[str, Verb] = {name_of(verb.request): verb for verb in VERBS}
BY_REQUEST: dict[type[Request], Verb] = {verb.request: verb for verb in VERBS}


def decode_request(body: bytes) -> Request:
    """The request in `body`.

    Raises ProtocolError for what is larger than any request, is no JSON object, has no or an unknown `action`, lacks a field, has
    one of the wrong type or a whole number of more than 64 bits, or needs what this release does not know.
    """
    if len(body) > LONGEST:
        raise ProtocolError(f"the message has {len(body)} bytes: no request has more than {LONGEST}")
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
    if not _has_64_bits(document):
        raise ProtocolError(f"{action}: a number in it has more than 64 bits")
    try:
        request = msgspec.convert(document, verb.request)
    except msgspec.ValidationError as error:
        raise ProtocolError(f"{action}: {error}") from error
    if unknown := set(request.needs) - CONDITIONS:
        raise ProtocolError(f"{action} needs {', '.join(sorted(unknown))}, which this agent does not know: upgrade it")
    return request


def _has_64_bits(document: object) -> bool:
    """Whether each whole number in it fits where numbers are kept: SQLite, the kernel, other JSON readers."""
    left = [document]
    while left:
        match left.pop():
            case int(number) if not -(1 << 63) <= number < 1 << 63:
                return False
            case list(inner):
                left += inner
            case dict(fields):
                left += fields.values()
    return True


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
