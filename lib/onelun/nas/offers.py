"""Offers: what the storage, the catalogue and the target daemon know of one attachment, and the order in which they learn it.

Made: the intent into the catalogue, then into the volume itself, then the target. Ended: the target is fenced, then the
volume forgets it, then the catalogue. No host is asked here. The caller holds the volume's lock.
"""

from __future__ import annotations

import contextlib
import logging
from functools import partial

import msgspec

from onelun.ending import to_its_end
from onelun.errors import Conflict, NotFound, OnelunError
from onelun.model import Attachment, Portal, State, Target, Volume
from onelun.naming import Source, target_account, target_iqn
from onelun.nas.backends.base import Backend
from onelun.nas.catalogue import ATTACHING, DETACHING, UNKNOWN, AttachmentRow, Catalogue, Debt, ImportRow
from onelun.nas.epochs import Epochs
from onelun.nas.exporters.base import Exporter
from onelun.nas.identity import Identity

log = logging.getLogger(__name__)

# Begins the host's name of an initiator without a compute agent; no agent's name has a colon.
WITHOUT_AGENT = "connector:"


class Offers:
    """The offers of one NAS."""

    def __init__(self, nas: str, identity: Identity, catalogue: Catalogue, exporter: Exporter, epochs: Epochs) -> None:
        self.nas = nas
        self._identity = identity
        self._catalogue = catalogue
        self._exporter = exporter
        self._epochs = epochs

    @property
    def portal(self) -> Portal:
        """Where the targets listen."""
        return self._exporter.portal

    @property
    def lun(self) -> int:
        """The number of every target's LUN."""
        return self._exporter.lun

    @property
    def grow_in_use(self) -> bool:
        """Whether a target grows under its sessions."""
        return self._exporter.grows_in_use

    async def in_use(self) -> set[str]:
        """The targets somebody is logged in to."""
        return {iqn for iqn, exported in (await self._exporter.exports()).items() if exported.sessions}

    def source(self, volume: Volume) -> Source:
        """What OpenNebula calls the volume."""
        return Source(self.nas, volume.pool, volume.name)

    def secret_of(self, iqn: str) -> str:
        """The CHAP secret of a target."""
        return self._identity.secret_of(iqn)

    def standing(self, volume: Volume, wanted: Attachment, *, shared: bool = False) -> AttachmentRow | None:
        """The attachment that the host of `wanted` has already, equal or not.

        Raises Conflict when the volume is not ready, and when another host has it, unless all only read, it is `shared`
        (OpenNebula says so of an image while nobody has it), or a migration runs between the two.
        """
        if volume.state is not State.READY:
            raise Conflict(f"volume {volume.name} is {volume.state}, not ready")
        own = None
        for row in self._catalogue.attachments(uuid=volume.uuid):
            if row.host == wanted.host:
                own = row
            elif not shared and not (wanted.readonly and row.readonly) and not _migrates(row, wanted):
                doubt = " (it does not answer)" if row.state == UNKNOWN else ""
                raise Conflict(f"volume {volume.name} is mapped to {row.host}{doubt}: unmap it there first")
        return own

    async def intend(self, volume: Volume, wanted: Attachment) -> AttachmentRow:
        """Write the intent of a new attachment into the catalogue, with the next epoch; that of `wanted` counts for nothing."""
        epoch = await self._epochs.next()
        row = AttachmentRow(
            uuid=volume.uuid,
            host=wanted.host,
            pool=volume.pool,
            zvol=volume.name,
            iqn=target_iqn(self.source(volume), epoch),
            epoch=epoch,
            initiator=wanted.initiator,
            readonly=wanted.readonly,
            state=ATTACHING,
            beside=wanted.beside,
        )
        self._catalogue.put(row)
        return row

    async def make(self, backend: Backend, volume: Volume, row: AttachmentRow) -> Target:
        """Make the target; before a new one the volume itself learns that the host may have it."""
        if row.state == ATTACHING:
            await self._write_down(backend, row)
        target = await self.target(backend, volume, row)
        await self._exporter.export(target)
        return target

    async def grow(self, backend: Backend, volume: Volume, row: AttachmentRow) -> None:
        """Let the target's LUN have the size that the volume has now. One that was lost on the way is made."""
        target = await self.target(backend, volume, row)
        try:
            await self._exporter.grow(target)
        except NotFound:
            await self._exporter.export(target)

    async def target(self, backend: Backend, volume: Volume, row: AttachmentRow | ImportRow) -> Target:
        """The target of an attachment, or of the builder of an import, with its device ready to be opened."""
        return Target(
            iqn=row.iqn,
            device=await backend.activate(volume),
            uuid=volume.uuid,
            size_bytes=volume.size_bytes,
            initiator=row.initiator,
            user=target_account(row.iqn),
            secret=self._identity.secret_of(row.iqn),
            readonly=isinstance(row, AttachmentRow) and row.readonly,
        )

    async def end(self, backend: Backend, row: AttachmentRow, *, owes: bool = False) -> None:
        """Fence the target, then take the attachment out of the volume and the catalogue. `owes`: the host has a debt then."""
        await self._exporter.unexport(row.iqn)
        with contextlib.suppress(NotFound):
            volume = await backend.record(row.zvol, row.uuid, partial(_without, row.epoch), idle=True)
            if not volume.attachments:
                await backend.deactivate(volume)
        debt = Debt(iqn=row.iqn, host=row.host, pool=row.pool, zvol=row.zvol, uuid=row.uuid, epoch=row.epoch)
        self._catalogue.change(drop=[row], put=[debt] if owes else [])

    async def suspend(self, backend: Backend, row: AttachmentRow) -> None:
        """Fence the target, while the attachment stays in force: `make` gives it back, and so does the agent's start."""
        await self._exporter.unexport(row.iqn)
        volume = await backend.find_uuid(row.uuid)
        if volume is not None:
            await backend.deactivate(volume)

    async def withdraw(self, backend: Backend, row: AttachmentRow) -> None:
        """End the offer, whatever its initiator does meanwhile; once begun it is finished, or left to the rounds."""
        row = msgspec.structs.replace(row, state=DETACHING)
        self._catalogue.put(row)
        await to_its_end(self.end(backend, row), wait_s=None)

    async def take_back(self, backend: Backend, row: AttachmentRow) -> None:
        """Nobody has got it: end it. What cannot be ended now is on its way out, and the rounds go on with it."""
        row = msgspec.structs.replace(row, state=DETACHING)
        self._catalogue.put(row)
        try:
            await self.end(backend, row)
        except OnelunError as error:
            log.warning("attach left=%s host=%s reason=%s", row.iqn, row.host, error)

    async def _write_down(self, backend: Backend, row: AttachmentRow) -> None:
        """Let the volume itself say that the host may have it, before there is a target."""
        mine = Attachment(row.host, row.initiator, row.epoch, readonly=row.readonly, beside=row.beside)
        await backend.record(row.zvol, row.uuid, partial(_with, mine))


def _with(mine: Attachment, volume: Volume) -> Volume:
    return msgspec.structs.replace(
        volume,
        attachments=(*_without(mine.epoch, volume).attachments, mine),
        connected=True,
        last_epoch=max(mine.epoch, volume.last_epoch),
    )


def _without(epoch: int, volume: Volume) -> Volume:
    return msgspec.structs.replace(volume, attachments=tuple(a for a in volume.attachments if a.epoch != epoch))


def is_without_agent(host: str) -> bool:
    """Whether that is the host of an initiator that logs in by itself: no compute agent is to be asked."""
    return host.startswith(WITHOUT_AGENT)


def same(row: AttachmentRow, wanted: Attachment) -> bool:
    """Whether the attachment in force is the wanted one."""
    return row.state != DETACHING and (row.readonly, row.initiator) == (wanted.readonly, wanted.initiator)


def _migrates(row: AttachmentRow, wanted: Attachment) -> bool:
    """Whether a migration runs between the two hosts: one names the other."""
    return row.host == wanted.beside or row.beside == wanted.host
