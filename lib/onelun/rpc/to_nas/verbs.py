"""How a NAS treats each request, and who may ask it. The order is that of docs/protocol.md."""

from __future__ import annotations

from onelun.rpc.schema import TO_NAS, Verb
from onelun.rpc.to_nas import changes, connections, imports, listing, mapping, reconciling, snapshots, volumes

VERBS: tuple[Verb, ...] = (
    Verb(mapping.MapZvol, mapping.ZvolMapped, "nas", TO_NAS),
    Verb(mapping.UnmapZvol, mapping.ZvolUnmapped, "nas", TO_NAS, frees=True),
    Verb(volumes.ResizeZvol, volumes.ZvolResized, "nas", TO_NAS),
    Verb(volumes.DelZvol, volumes.ZvolDeleted, "nas", TO_NAS, frees=True),
    Verb(listing.ListZvols, listing.ZvolList, "nas", TO_NAS, journaled=False),
    Verb(volumes.CreateZvol, volumes.ZvolCreated, "nas", TO_NAS),
    Verb(volumes.CloneZvol, volumes.ZvolCloned, "nas", TO_NAS, copies=True),
    Verb(imports.ImportZvol, imports.ZvolImporting, "nas", TO_NAS),
    Verb(imports.RestoreZvol, imports.ZvolImporting, "nas", TO_NAS),
    Verb(imports.ReadZvol, imports.ZvolReadable, "nas", TO_NAS, copies=True),
    Verb(imports.RenewImport, imports.ImportRenewed, "nas", TO_NAS, journaled=False),
    Verb(imports.FinishImport, imports.ImportFinished, "nas", TO_NAS, frees=True),
    Verb(imports.AbortImport, imports.ImportAborted, "nas", TO_NAS, frees=True),
    Verb(volumes.AdoptZvol, volumes.ZvolAdopted, "nas", TO_NAS),
    Verb(volumes.ReleaseZvol, volumes.ZvolReleased, "nas", TO_NAS),
    Verb(volumes.SaveZvol, volumes.ZvolSaved, "nas", TO_NAS, copies=True),
    # Not every storage makes a snapshot, or goes back to one, without copying.
    Verb(snapshots.SnapshotZvol, snapshots.ZvolSnapshotted, "nas", TO_NAS, copies=True),
    Verb(snapshots.ListSnapshots, snapshots.SnapshotList, "nas", TO_NAS, journaled=False),
    # Some storages tell it by reading all that changed.
    Verb(changes.ListChanges, changes.ChangeList, "nas", TO_NAS, copies=True),
    Verb(snapshots.RevertZvol, snapshots.ZvolReverted, "nas", TO_NAS, copies=True),
    Verb(snapshots.FlattenZvol, snapshots.ZvolFlattened, "nas", TO_NAS, copies=True),
    Verb(snapshots.DelSnapshot, snapshots.SnapshotDeleted, "nas", TO_NAS, frees=True),
    Verb(snapshots.CopyZvol, snapshots.ZvolCopied, "nas", TO_NAS, copies=True),
    Verb(mapping.RemoveDisk, mapping.DiskRemoved, "nas", TO_NAS, frees=True),
    Verb(listing.FindPlacements, listing.PlacementList, "nas", TO_NAS, journaled=False),
    Verb(listing.ListDisks, listing.DiskList, "nas", TO_NAS, journaled=False),
    Verb(listing.PoolCapacity, listing.PoolCapacityIs, "nas", TO_NAS, journaled=False),
    Verb(listing.SetMaintenance, listing.MaintenanceIs, "nas", TO_NAS, frees=True),
    # Reading what a pool's snapshots are may take LVM long.
    Verb(reconciling.TakeStock, reconciling.StockIs, "nas", TO_NAS, journaled=False),
    Verb(reconciling.Settle, reconciling.Settled, "nas", TO_NAS, frees=True),
    Verb(reconciling.TrashZvol, reconciling.ZvolTrashed, "nas", TO_NAS, frees=True),
    Verb(connections.InitializeConnection, connections.ConnectionInitialized, "nas", TO_NAS),
    Verb(connections.TerminateConnection, connections.ConnectionTerminated, "nas", TO_NAS, frees=True),
)
