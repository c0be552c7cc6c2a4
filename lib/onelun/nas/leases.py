"""LUNs that are there for one initiator alone, as long as somebody renews their lease: what is imported, and what is read.

Behind each is a building volume, which nobody else sees. When its lease ends, it goes with its target.
"""

from __future__ import annotations

import logging
import time
import uuid as uuids
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from onelun.config import Limits
from onelun.errors import NotFound, OnelunError
from onelun.model import Attachment, State, Volume
from onelun.naming import Source, checked_uuid, target_account, target_iqn
from onelun.nas.backends.base import Backend
from onelun.nas.catalogue import Catalogue, ImportRow
from onelun.nas.destroying import destroy
from onelun.nas.epochs import Epochs
from onelun.nas.exporters.base import Exporter
from onelun.nas.locks import Locks
from onelun.nas.offers import Offers
from onelun.nas.pools import Pools
from onelun.nas.volumes import lock_name
from onelun.rpc.job import Job
from onelun.rpc.message import AbortImport, ImportAborted, ImportRenewed, RenewImport

log = logging.getLogger(__name__)


class Leases:
    """The requests renew_import and abort_import, and the end of what nobody renews."""

    def __init__(
        self,
        pools: Pools,
        locks: Locks,
        catalogue: Catalogue,
        exporter: Exporter,
        offers: Offers,
        epochs: Epochs,
        limits: Limits,
    ) -> None:
        self._pools = pools
        self._locks = locks
        self._catalogue = catalogue
        self._exporter = exporter
        self._offers = offers
        self._epochs = epochs
        self._lease_s = limits.lease_s
        # On the monotonic clock; after a restart of the agent every one gets a whole lease.
        self._until: dict[str, float] = {}

    async def intend(self, backend: Backend, name: str, initiator: str, *, replaces: str | None = None) -> ImportRow:
        """The row of one that is about to be offered, under a UUID and an epoch of its own; nothing is written yet."""
        epoch = await self._epochs.next()
        return ImportRow(
            uuid=str(uuids.uuid4()),
            pool=backend.pool,
            zvol=name,
            iqn=target_iqn(Source(self._offers.nas, backend.pool, name), epoch),
            epoch=epoch,
            initiator=initiator,
            replaces=replaces,
        )

    async def offer(
        self, backend: Backend, row: ImportRow, job: Job, build: Callable[[], Awaitable[Volume]]
    ) -> dict[str, Any]:
        """Have the volume built and export it to its initiator; where that finds it and for how long, as replies tell it.

        The lease begins when it is there. A failure leaves nothing. The caller holds the name's lock.
        """
        self._catalogue.put(row)
        try:
            await build()
            mine = Attachment(host=job.caller or "builder", initiator=row.initiator, epoch=row.epoch)
            volume = await backend.record(
                row.zvol,
                row.uuid,
                lambda now: msgspec.structs.replace(now, attachments=(mine,), last_epoch=row.epoch),
            )
            await self._exporter.export(await self._offers.target(backend, volume, row))
        except BaseException:
            await self.end(backend, row)
            raise
        self._until[row.uuid] = time.monotonic() + self._lease_s
        portal = self._exporter.portal
        return {
            "uuid": row.uuid,
            "iqn": row.iqn,
            "address": portal.address,
            "port": portal.port,
            "user": target_account(row.iqn),
            "secret": self._offers.secret_of(row.iqn),
            "lease_s": self._lease_s,
            "lun": self._exporter.lun,
        }

    async def renew(self, request: RenewImport, job: Job) -> ImportRenewed:
        """Keep a lease."""
        uuid = checked_uuid(request.uuid)
        if not self._catalogue.imports(uuid=uuid):
            raise ended(uuid)
        self._until[uuid] = time.monotonic() + self._lease_s
        return ImportRenewed(lease_s=self._lease_s)

    async def abort(self, request: AbortImport, job: Job) -> ImportAborted:
        """End one and destroy what was built for it."""
        backend = self._pools.backend(request.zpool)
        for row in self._catalogue.imports(uuid=checked_uuid(request.uuid)):
            async with self._locks.hold(lock_name(backend, row.zvol), preempts=True):
                await self.end(backend, row)
        return ImportAborted()

    async def end_overdue(self) -> None:
        """End every one whose lease is over; one that cannot be ended now keeps no other."""
        for row in self._catalogue.imports():
            until = self._until.setdefault(row.uuid, time.monotonic() + self._lease_s)
            if time.monotonic() > until:
                try:
                    await self._end_overdue(row)
                except OnelunError as error:
                    log.warning("import kept=%s pool=%s uuid=%s reason=%s", row.zvol, row.pool, row.uuid, error)

    async def end(self, backend: Backend, row: ImportRow) -> None:
        """Fence its initiator, and destroy the volume unless it was published. The caller holds the name's lock."""
        await self._exporter.unexport(row.iqn)
        volume = await backend.find_uuid(row.uuid)
        if volume is not None and volume.state is State.BUILDING:
            await destroy(backend, volume)
        self.forget(row)

    def forget(self, row: ImportRow) -> None:
        """Its end is done."""
        self._catalogue.drop(row)
        self._until.pop(row.uuid, None)

    async def _end_overdue(self, row: ImportRow) -> None:
        backend = self._pools.backend(row.pool)
        async with self._locks.hold(lock_name(backend, row.zvol)):
            if time.monotonic() > self._until.get(row.uuid, 0.0) and self._catalogue.imports(uuid=row.uuid):
                log.warning("import overdue=%s pool=%s uuid=%s", row.zvol, row.pool, row.uuid)
                await self.end(backend, row)


def ended(uuid: str) -> NotFound:
    """What to raise for one that has ended."""
    return NotFound("the import has ended: nobody renewed it in time, or it was begun anew", uuid=uuid)
