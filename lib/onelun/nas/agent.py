"""The NAS agent, put together: one per service name, holding its state directory by a lock for life."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

from onelun.config import Limits
from onelun.errors import Conflict, OnelunError
from onelun.nas.adopting import Adopting
from onelun.nas.attachments import Attachments
from onelun.nas.backends.base import Backend
from onelun.nas.catalogue import Catalogue
from onelun.nas.changes import Changes
from onelun.nas.connections import Connections
from onelun.nas.copies import Copies
from onelun.nas.epochs import Epochs
from onelun.nas.exporters.base import Exporter
from onelun.nas.formatting import Formatting
from onelun.nas.growing import Growing
from onelun.nas.hosts import Asker, Hosts
from onelun.nas.identity import Identity
from onelun.nas.imports import Imports
from onelun.nas.leases import Leases
from onelun.nas.listing import Listing
from onelun.nas.locks import Locks
from onelun.nas.maintenance import Maintenance
from onelun.nas.mapping import Mapping as ZvolMapping
from onelun.nas.offers import Offers
from onelun.nas.placements import Placements
from onelun.nas.pools import Pools
from onelun.nas.reading import Reading
from onelun.nas.replacing import Replacing
from onelun.nas.rounds import Rounds
from onelun.nas.saving import Saving
from onelun.nas.snapshots import Snapshots
from onelun.nas.startup import Startup
from onelun.nas.stock import Stock
from onelun.nas.volumes import Volumes
from onelun.rpc import message as m
from onelun.rpc.job import Job

CATALOGUE = "catalogue.sqlite"
"""The catalogue's file in the state directory."""

Handler = Callable[[Any, Job], Awaitable[m.Reply]]


class NasAgent:
    """All rooms of one NAS agent."""

    def __init__(
        self,
        name: str,
        state: str,
        backends: Mapping[str, Backend],
        exporter: Exporter,
        asker: Asker,
        limits: Limits,
        default_pool: str | None = None,
    ) -> None:
        """Open the state directory. Touches neither storage nor targets.

        Raises Conflict when another agent has it, or makes targets of this name here with a state of its own; OnelunError
        for a catalogue that is damaged.
        """
        with contextlib.ExitStack() as undo:
            _lock(os.path.join(state, "lock"), "one NAS agent a state directory", undo)
            # The broker, too, has one agent of a name, but it may be away when targets must come back.
            if exporter.lock is not None:
                _lock(exporter.lock, f"one NAS agent called {name} a target daemon: stop one, or rename it", undo)
            self.catalogue = _catalogue(os.path.join(state, CATALOGUE))
            undo.callback(self.catalogue.close)
            self._held = undo.pop_all()
        self._maintenance = Maintenance(self.catalogue, backends)
        pools = Pools(backends, default_pool, limits, self._maintenance)
        locks = Locks(preempt_s=limits.preempt_s)
        hosts = Hosts(asker, limits)
        epochs = Epochs(self.catalogue, list(pools))
        identity = Identity(state)
        offers = Offers(name, identity, self.catalogue, exporter, epochs)
        self.attachments = Attachments(self.catalogue, offers, hosts)
        placements = Placements(self.catalogue)
        growing = Growing(self.catalogue, offers, hosts, self.attachments)
        self._volumes = Volumes(pools, locks, self.catalogue, self.attachments, growing, Formatting(name), placements)
        self._adopting = Adopting(pools, locks, self.catalogue, placements)
        self._mapping = ZvolMapping(pools, locks, self.catalogue, self._volumes, self.attachments, placements)
        self._snapshots = Snapshots(pools, locks, self.catalogue, self.attachments)
        self._changes = Changes(pools, locks)
        self._copies = Copies(pools, locks, self.catalogue, self._volumes)
        self._saving = Saving(pools, locks, self.catalogue, self.attachments, self._volumes, placements)
        self._connections = Connections(pools, locks, self.catalogue, offers)
        replacing = Replacing(self.catalogue, self.attachments, placements)
        self._leases = Leases(pools, locks, self.catalogue, exporter, offers, epochs, limits)
        self._imports = Imports(pools, locks, self.catalogue, exporter, self._leases, replacing)
        self._reading = Reading(pools, locks, self._leases, self._volumes)
        self._listing = Listing(pools, self.catalogue)
        self._startup = Startup(identity.agent, pools, locks, self.catalogue, epochs, exporter, offers)
        self.rounds = Rounds(
            pools, locks, self.catalogue, offers, hosts, placements, self._leases, self._startup, limits
        )
        self._stock = Stock(pools, locks, self.catalogue, exporter, offers, placements, self._startup, self.rounds)

    def handlers(self) -> dict[type[m.Request], Handler]:
        """Which request goes to whom."""
        return {
            m.MapZvol: self._mapping.map,
            m.UnmapZvol: self._mapping.unmap,
            m.RemoveDisk: self._mapping.remove_disk,
            m.CreateZvol: self._volumes.create,
            m.CloneZvol: self._volumes.clone,
            m.ResizeZvol: self._volumes.resize,
            m.DelZvol: self._volumes.delete,
            m.AdoptZvol: self._adopting.adopt,
            m.ReleaseZvol: self._adopting.release,
            m.SaveZvol: self._saving.save,
            m.SnapshotZvol: self._snapshots.take,
            m.ListSnapshots: self._snapshots.listed,
            m.ListChanges: self._changes.listed,
            m.RevertZvol: self._snapshots.revert,
            m.FlattenZvol: self._snapshots.flatten,
            m.DelSnapshot: self._snapshots.delete,
            m.CopyZvol: self._copies.copy,
            m.ImportZvol: self._imports.begin,
            m.RestoreZvol: self._imports.restore,
            m.ReadZvol: self._reading.read,
            m.RenewImport: self._leases.renew,
            m.FinishImport: self._imports.finish,
            m.AbortImport: self._leases.abort,
            m.ListZvols: self._listing.zvols,
            m.FindPlacements: self._listing.placements,
            m.ListDisks: self._listing.disks,
            m.PoolCapacity: self._listing.capacity,
            m.SetMaintenance: self._maintenance.set,
            m.InitializeConnection: self._connections.initialize,
            m.TerminateConnection: self._connections.terminate,
            m.TakeStock: self._stock.take,
            m.Settle: self._stock.settle,
            m.TrashZvol: self._stock.trash,
        }

    async def start(self) -> None:
        """Make storage, catalogue and targets agree, before the first request is taken."""
        await self._startup.settle()
        await self._copies.tidy()

    @contextlib.asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Go the agent's own rounds while the body serves."""
        rounds = asyncio.create_task(self.rounds.run())
        try:
            yield
        finally:
            rounds.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await rounds

    def close(self) -> None:
        """Give the state directory and the name back."""
        self._held.close()


def _catalogue(path: str) -> Catalogue:
    try:
        return Catalogue(path)
    except sqlite3.Error as error:
        raise OnelunError(
            f"cannot use the catalogue {path} ({error}): if it is damaged, move it and its -wal and -shm files away,"
            " and it is made anew from the pools"
        ) from error


def _lock(path: str, rule: str, undo: contextlib.ExitStack) -> None:
    """Hold the lock of that file until `undo` lets go. Raises Conflict, which says the rule, when another agent does."""
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise OnelunError(f"cannot lock {path}: {error.strerror}") from error
    undo.callback(os.close, descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise Conflict(f"another agent holds {path}: {rule}") from None
