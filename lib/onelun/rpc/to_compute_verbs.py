"""How a compute node treats each request, and who may ask it. The order is that of docs/protocol.md."""

from __future__ import annotations

from onelun.rpc import to_compute, to_compute_backups
from onelun.rpc.schema import BY_ANYBODY, BY_FRONTEND, BY_NAS, Verb

VERBS: tuple[Verb, ...] = (
    Verb(to_compute.SetZvol, to_compute.ZvolAttached, "compute", BY_ANYBODY, bare=frozenset({"target", "nas"})),
    Verb(to_compute.GrowDev, to_compute.DevGrown, "compute", BY_NAS),
    Verb(to_compute.TearDown, to_compute.ZvolDetached, "compute", BY_ANYBODY, frees=True, bare=frozenset({"target"})),
    Verb(to_compute.ListDev, to_compute.DevList, "compute", BY_ANYBODY, journaled=False, bare=frozenset()),
    Verb(to_compute.SyncZvols, to_compute.ZvolsSynced, "compute", BY_NAS, frees=True),
    Verb(to_compute.FreezeGuest, to_compute.GuestFrozen, "compute", BY_FRONTEND, journaled=False),
    Verb(to_compute.ThawGuest, to_compute.GuestThawed, "compute", BY_FRONTEND, journaled=False),
    Verb(to_compute.ListDir, to_compute.DirList, "compute", BY_FRONTEND, journaled=False),
    Verb(to_compute.ReadFile, to_compute.FileRead, "compute", BY_FRONTEND, journaled=False),
    Verb(to_compute.PutEntry, to_compute.EntryPut, "compute", BY_FRONTEND, journaled=False),
    Verb(to_compute.RemoveEntry, to_compute.EntryRemoved, "compute", BY_FRONTEND, frees=True),
    Verb(to_compute.StoreFile, to_compute.FileStored, "compute", BY_FRONTEND, copies=True),
    Verb(to_compute.FetchFile, to_compute.FileFetched, "compute", BY_FRONTEND, copies=True),
    Verb(to_compute_backups.WriteBackup, to_compute_backups.BackupWritten, "compute", BY_FRONTEND, copies=True),
)
