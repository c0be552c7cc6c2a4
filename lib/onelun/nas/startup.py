"""What a NAS agent does before it serves: make storage, catalogue and targets agree again.

What a crash left half done shows in states, not in the journal of requests: a building volume without an import is
destroyed, a deleting one is deleted, an attachment is exported again under its epoch. When the catalogue is lost or older
than a pool, the start is cautious: nothing is destroyed and nothing unexported; what differs is reported.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping

import msgspec

from onelun.errors import OnelunError
from onelun.model import Attachment, State, Volume
from onelun.naming import target_iqn
from onelun.nas.backends.base import Backend
from onelun.nas.catalogue import ATTACHING, DETACHING, UNKNOWN, AttachmentRow, Catalogue, ImportRow
from onelun.nas.destroying import destroy
from onelun.nas.epochs import Epochs
from onelun.nas.exporters.base import Exporter
from onelun.nas.locks import Locks
from onelun.nas.offers import Offers
from onelun.nas.pools import Pools
from onelun.nas.volumes import lock_name

log = logging.getLogger(__name__)

# So many targets are made anew at once, so that those of a hundred volumes are back before their hosts' patience ends.
_AT_ONCE = 16


class Startup:
    """Settles pools, catalogue and targets once."""

    def __init__(
        self,
        agent: str,
        pools: Pools,
        locks: Locks,
        catalogue: Catalogue,
        epochs: Epochs,
        exporter: Exporter,
        offers: Offers,
    ) -> None:
        self._agent = agent
        self._pools = pools
        self._locks = locks
        self._catalogue = catalogue
        self._epochs = epochs
        self._exporter = exporter
        self._offers = offers
        self.cautious = False

    async def settle(self) -> None:
        """Do all of it; repeating it changes nothing more. Raises what a pool or the target daemon raises.

        Afterwards `cautious` tells whether the catalogue was lost or older than a pool.
        """
        for backend in self._pools:
            await backend.open(self._agent, None)
        older = await self._epochs.begin()
        found = [(backend, volume) for backend in self._pools for volume in await backend.volumes()]
        forgotten = self._forgotten(volume for _, volume in found)
        # One of this agent's last life has its serial number, and shows itself so: an attachment is written there first.
        cautious = self.cautious = older or bool(forgotten)
        if cautious:
            log.warning("start cautious=yes reason=the catalogue is lost or older than a pool: nothing is removed")
        for volume, attachment in forgotten:
            self._adopt(volume, attachment)
        left = self._left_over(found)
        gone = set() if cautious else {volume.uuid for _, volume in left}
        await self._rows({volume.uuid: volume for _, volume in found if volume.uuid not in gone}, cautious=cautious)
        # VMs wait for these, and nobody for what else there is to do.
        await self._targets()
        for backend, volume in left:
            await self._remove(backend, volume, cautious=cautious)

    def _left_over(self, found: list[tuple[Backend, Volume]]) -> list[tuple[Backend, Volume]]:
        """What was being built, or deleted, when the agent's last life ended."""
        importing = {row.uuid for row in self._catalogue.imports()}
        return [
            (backend, volume)
            for backend, volume in found
            if volume.state is State.DELETING or (volume.state is State.BUILDING and volume.uuid not in importing)
        ]

    async def _remove(self, backend: Backend, volume: Volume, *, cautious: bool) -> None:
        if cautious:
            log.warning("start left=%s pool=%s state=%s", volume.uuid, volume.pool, volume.state)
        else:
            log.info("start destroyed=%s pool=%s state=%s", volume.uuid, volume.pool, volume.state)
            await destroy(backend, volume)

    def _forgotten(self, volumes: Iterable[Volume]) -> list[tuple[Volume, Attachment]]:
        """The attachments that ready volumes know and the catalogue does not."""
        known = {(row.uuid, row.epoch) for row in self._catalogue.attachments()}
        ready = (volume for volume in volumes if volume.state is State.READY)
        return [
            (volume, one) for volume in ready for one in volume.attachments if (volume.uuid, one.epoch) not in known
        ]

    def _adopt(self, volume: Volume, attachment: Attachment) -> None:
        """The volume says that a host has it, the catalogue forgot: believe the volume."""
        log.warning("start adopted=%s host=%s epoch=%s", volume.name, attachment.host, attachment.epoch)
        self._catalogue.put(
            AttachmentRow(
                uuid=volume.uuid,
                host=attachment.host,
                pool=volume.pool,
                zvol=volume.name,
                iqn=target_iqn(self._offers.source(volume), attachment.epoch),
                epoch=attachment.epoch,
                initiator=attachment.initiator,
                readonly=attachment.readonly,
                state=UNKNOWN,
                beside=attachment.beside,
            )
        )

    async def _rows(self, volumes: Mapping[str, Volume], *, cautious: bool) -> None:
        """A row whose volume does not know it was cut off between two writes, or is yesterday's: it is not in force.

        Its target goes first, but for a cautious start, which leaves a target as it is. `volumes` are those that stay, by UUID.
        Raises NotFound when a row is of a pool that is not configured any more: what is there cannot be told.
        """
        rows, imports = self._catalogue.attachments(), self._catalogue.imports()
        for pool in {*(row.pool for row in rows), *(row.pool for row in imports)}:
            self._pools.backend(pool)
        for row in rows:
            volume = volumes.get(row.uuid)
            if volume is None or row.epoch not in {a.epoch for a in volume.attachments}:
                log.warning("start dropped=%s host=%s reason=its volume does not know it", row.iqn, row.host)
                if not cautious:
                    await self._exporter.unexport(row.iqn)
                self._catalogue.drop(row)
            elif row.state == ATTACHING:
                # Its request ends as interrupted, and is undone: the host lets go when it is told what is in force.
                self._catalogue.put(msgspec.structs.replace(row, state=DETACHING))
        self._catalogue.drop(*(import_ for import_ in imports if import_.uuid not in volumes))

    async def _targets(self) -> None:
        await self.end_unknown()
        # Also what is there: an agent that was killed may have left a target half-made.
        await self._export_all(set())

    async def end_unknown(self) -> list[str]:
        """End the targets that the catalogue does not know and nobody is logged in to; return them. None when cautious."""
        exports = await self._exporter.exports()
        # Read afterwards: a row is written before its target is made, and an epoch never comes back.
        wanted = {row.iqn for row in self._catalogue.attachments()} | {row.iqn for row in self._catalogue.imports()}
        ended = []
        for iqn, exported in exports.items():
            if iqn in wanted:
                continue
            if self.cautious or exported.sessions:
                log.warning("targets left=%s sessions=%s reason=not in the catalogue", iqn, len(exported.sessions))
            else:
                log.info("targets unexported=%s", iqn)
                await self._exporter.unexport(iqn)
                ended.append(iqn)
        return ended

    async def export_missing(self) -> int:
        """Export what is in force and has no target (tgtd restarted, the machine rebooted), or half of one; return how many."""
        exports = await self._exporter.exports()
        return await self._export_all({iqn for iqn, exported in exports.items() if exported.initiators})

    async def _export_all(self, present: set[str]) -> int:
        rows: list[AttachmentRow | ImportRow] = [*self._catalogue.attachments(), *self._catalogue.imports()]
        at_once = asyncio.Semaphore(_AT_ONCE)
        made = await asyncio.gather(*(self._export_in_turn(row, at_once) for row in rows if row.iqn not in present))
        return sum(made)

    async def _export_in_turn(self, row: AttachmentRow | ImportRow, at_once: asyncio.Semaphore) -> int:
        backend = self._pools.backend(row.pool)
        # A job may be detaching it just now: what it has fenced must not come back.
        async with at_once, self._locks.hold(lock_name(backend, row.zvol)):
            try:
                return await self._export(backend, row)
            except OnelunError as error:
                log.error("export failed=%s reason=%s", row.iqn, error)
                return 0

    async def _export(self, backend: Backend, row: AttachmentRow | ImportRow) -> int:
        volume = await backend.find_uuid(row.uuid)
        if volume is None:
            return 0
        if isinstance(row, ImportRow):
            if volume.state is not State.BUILDING or row not in self._catalogue.imports(uuid=row.uuid):
                return 0
        else:
            now = self._catalogue.attachments(iqn=row.iqn)
            if volume.state is not State.READY or all(current.state == DETACHING for current in now):
                return 0
        await self._exporter.export(await self._offers.target(backend, volume, row))
        log.info("exported=%s", row.iqn)
        return 1
