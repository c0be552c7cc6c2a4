"""Attachments: offering a volume to one host and taking it back, in the order that loses nothing.

Attach: the intent is written into the catalogue and the volume, then the target is made, then the host connects. Detach:
the host disconnects and says so, then the target is fenced, then the volume forgets it. A host that does not answer keeps
its target (state unknown) until it does, or until OpenNebula says that it is gone: then the NAS fences and keeps a debt.
The caller holds the volume's lock.
"""

from __future__ import annotations

import asyncio
import logging

import msgspec

from onelun.deadline import Deadline
from onelun.errors import CommandFailed, Conflict, NoReply, NotFound, OnelunError, Unreachable
from onelun.model import Attachment, State, Target, Volume
from onelun.naming import Source, target_account, target_iqn
from onelun.nas.backends.base import Backend
from onelun.nas.catalogue import ATTACHED, ATTACHING, DETACHING, UNKNOWN, AttachmentRow, Catalogue, Debt
from onelun.nas.epochs import Epochs
from onelun.nas.exporters.base import Exporter
from onelun.nas.hosts import Hosts
from onelun.nas.identity import Identity
from onelun.rpc.message import SetZvol, TearDown, ZvolAttached, ZvolDetached

log = logging.getLogger(__name__)

# How long undoing an attachment may take when its job is cancelled; then the state is unknown.
_UNDO_S = 4.0


class Attachments:
    """All attachments that one NAS gives."""

    def __init__(
        self, nas: str, identity: Identity, catalogue: Catalogue, exporter: Exporter, hosts: Hosts, epochs: Epochs
    ) -> None:
        self._nas = nas
        self._identity = identity
        self._catalogue = catalogue
        self._exporter = exporter
        self._hosts = hosts
        self._epochs = epochs

    def source(self, volume: Volume) -> Source:
        """What OpenNebula calls the volume."""
        return Source(self._nas, volume.pool, volume.name)

    async def attach(
        self,
        backend: Backend,
        volume: Volume,
        host: str,
        *,
        path: str | None,
        readonly: bool,
        deadline: Deadline,
        of: str,
    ) -> tuple[AttachmentRow, str]:
        """Give the volume to `host`, linked from `path`; return the attachment and the host's device. `of` is the job's id.

        Repeating it gives the same attachment. Raises Conflict when another host has the volume (unless all only read),
        Unreachable when nobody serves the host, NoReply when its outcome is unknown; otherwise a failure leaves nothing.
        """
        async with self._hosts.turn(host):
            row = await self._intend(backend, volume, host, readonly=readonly, deadline=deadline, of=of)
            fresh = row.state == ATTACHING
            asking = False
            try:
                if fresh:
                    await self._write_down(backend, row)
                await self._exporter.export(self.target(backend, volume, row))
                asking = True
                asked = self._set_zvol(volume, row, path)
                reply = await self._hosts.ask(host, asked, ZvolAttached, deadline=deadline, of=of, step="set_zvol")
            except OnelunError as error:
                if asking and isinstance(error, NoReply):
                    self._catalogue.put(_as(row, UNKNOWN))
                elif fresh:
                    await self._take_back(backend, row)
                raise
            except asyncio.CancelledError:
                if fresh:
                    await self._abandon(backend, row)
                raise
            row = _as(row, ATTACHED)
            self._catalogue.put(row)
            return row, reply.bdev

    async def detach(
        self,
        backend: Backend,
        row: AttachmentRow,
        *,
        path: str | None,
        keep_link: bool,
        force: bool,
        deadline: Deadline,
        of: str,
        discard: bool = False,
    ) -> bool:
        """End the attachment; return whether the host still owes the clean-up.

        `path` is the placement that ends; while others on the host need the device only its link goes. Without a path all
        of them end. `force` fences a host that does not answer; it, and `discard` (the content is about to be destroyed),
        let go of what cannot be flushed. Raises Busy (the host has it open), CommandFailed (it cannot flush), Unreachable
        and NoReply; the target then stays.
        """
        async with self._hosts.turn(row.host):
            placed = self._catalogue.placements(uuid=row.uuid, host=row.host)
            others = [] if path is None else [p for p in placed if p.path != path]
            request = TearDown(target=row.iqn, link=path, keep_link=keep_link, keep_device=bool(others))
            if others:
                await self._hosts.ask(row.host, request, ZvolDetached, deadline=deadline, of=of, step="unlink")
                return False
            before = row.state
            # An attachment that is on its way out stays so, whatever its host says or does not say.
            doubt = DETACHING if before == DETACHING else UNKNOWN
            row = _as(row, DETACHING)
            self._catalogue.put(row)
            owes = False
            try:
                await self._tear_down(row, request, lossy=force or discard, deadline=deadline, of=of)
            except CommandFailed:
                # A dead device is connected anew by the next sync with the host; then its last writes can be flushed.
                self._catalogue.put(_as(row, UNKNOWN))
                raise
            except (Unreachable, NoReply) as error:
                if not force:
                    self._catalogue.put(_as(row, doubt))
                    raise _unconfirmed(row, error) from error
                log.warning("detach fenced=%s host=%s reason=%s", row.iqn, row.host, error)
                owes = True
            except OnelunError:
                self._catalogue.put(_as(row, before))
                raise
            except asyncio.CancelledError:
                self._catalogue.put(_as(row, doubt))
                raise
            await asyncio.shield(self._forget(backend, row, owes=owes))
            return owes

    def target(self, backend: Backend, volume: Volume, row: AttachmentRow) -> Target:
        """The target of an attachment."""
        return Target(
            iqn=row.iqn,
            device=backend.device(volume),
            uuid=volume.uuid,
            size_bytes=volume.size_bytes,
            initiator=row.initiator,
            user=target_account(row.iqn),
            secret=self._identity.secret_of(row.iqn),
            readonly=row.readonly,
        )

    async def finish_detaching(self, backend: Backend, row: AttachmentRow) -> None:
        """Fence and forget an attachment whose host is known to have let go, or owes it already."""
        await self._forget(backend, row)

    async def _intend(
        self, backend: Backend, volume: Volume, host: str, *, readonly: bool, deadline: Deadline, of: str
    ) -> AttachmentRow:
        if volume.state is not State.READY:
            raise Conflict(f"volume {volume.name} is {volume.state}, not ready")
        initiator = await self._hosts.initiator(host, deadline=deadline)
        for row in self._catalogue.attachments(uuid=volume.uuid):
            if row.host != host:
                if not (readonly and row.readonly):
                    doubt = " (it does not answer)" if row.state == UNKNOWN else ""
                    raise Conflict(f"volume {volume.name} is mapped to {row.host}{doubt}: unmap it there first")
            elif row.state == DETACHING or row.readonly != readonly or row.initiator != initiator:
                await self._end_old(backend, row, deadline=deadline, of=of)
            else:
                return row
        epoch = await self._epochs.next()
        row = AttachmentRow(
            uuid=volume.uuid,
            host=host,
            pool=volume.pool,
            zvol=volume.name,
            iqn=target_iqn(self.source(volume), epoch),
            epoch=epoch,
            initiator=initiator,
            readonly=readonly,
            state=ATTACHING,
        )
        self._catalogue.put(row)
        return row

    async def _write_down(self, backend: Backend, row: AttachmentRow) -> None:
        """Let the volume itself say that the host may have it, before there is a target."""
        volume = await backend.find_uuid(row.uuid)
        if volume is None:
            raise NotFound(f"volume {row.zvol} has just been removed", zvol=row.zvol)
        mine = Attachment(host=row.host, initiator=row.initiator, epoch=row.epoch, readonly=row.readonly)
        changed = msgspec.structs.replace(
            volume,
            attachments=(*volume.attachments, mine),
            connected=True,
            last_epoch=max(row.epoch, volume.last_epoch),
        )
        await backend.record(changed)

    async def _take_back(self, backend: Backend, row: AttachmentRow) -> None:
        """The host has not got it: undo the rest. What cannot be undone now is on its way out, and the rounds go on with it."""
        row = _as(row, DETACHING)
        self._catalogue.put(row)
        try:
            await self._forget(backend, row)
        except OnelunError as error:
            log.warning("attach left=%s host=%s reason=%s", row.iqn, row.host, error)

    async def _tear_down(
        self, row: AttachmentRow, request: TearDown, *, lossy: bool, deadline: Deadline, of: str
    ) -> None:
        try:
            await self._hosts.ask(row.host, request, ZvolDetached, deadline=deadline, of=of, step="tear_down")
        except CommandFailed as error:
            if not lossy:
                raise
            log.warning("detach unflushed=%s host=%s reason=%s", row.iqn, row.host, error)
            request = msgspec.structs.replace(request, force=True)
            await self._hosts.ask(row.host, request, ZvolDetached, deadline=deadline, of=of, step="force")

    async def _end_old(self, backend: Backend, row: AttachmentRow, *, deadline: Deadline, of: str) -> None:
        request = TearDown(target=row.iqn, keep_link=True)
        await self._hosts.ask(row.host, request, ZvolDetached, deadline=deadline, of=of, step=f"end e{row.epoch}")
        await self._forget(backend, row)

    async def _abandon(self, backend: Backend, row: AttachmentRow) -> None:
        """The job was cancelled while the host may have been connecting: take it back, now or in a later round."""
        request = TearDown(target=row.iqn, keep_link=True)
        deadline = Deadline.after(_UNDO_S)
        try:
            undo = self._hosts.ask(row.host, request, ZvolDetached, deadline=deadline, of=row.iqn, step="abandon")
            await asyncio.shield(asyncio.ensure_future(undo))
            await asyncio.shield(asyncio.ensure_future(self._forget(backend, row)))
        except (OnelunError, asyncio.CancelledError):
            self._catalogue.put(_as(row, DETACHING))

    async def _forget(self, backend: Backend, row: AttachmentRow, *, owes: bool = False) -> None:
        """Fence the target, then take the attachment out of the volume and the catalogue."""
        await self._exporter.unexport(row.iqn)
        volume = await backend.find_uuid(row.uuid)
        if volume is not None:
            kept = tuple(a for a in volume.attachments if a.epoch != row.epoch)
            if kept != volume.attachments:
                await backend.record(msgspec.structs.replace(volume, attachments=kept))
        debt = Debt(iqn=row.iqn, host=row.host, pool=row.pool, zvol=row.zvol, uuid=row.uuid, epoch=row.epoch)
        self._catalogue.change(drop=[row], put=[debt] if owes else [])

    def _set_zvol(self, volume: Volume, row: AttachmentRow, path: str | None) -> SetZvol:
        return SetZvol(
            target=row.iqn,
            nas=self._nas,
            address=self._exporter.portal.address,
            port=self._exporter.portal.port,
            initiator=row.initiator,
            user=target_account(row.iqn),
            secret=self._identity.secret_of(row.iqn),
            zpool=volume.pool,
            zvol=volume.name,
            uuid=volume.uuid,
            size_bytes=volume.size_bytes,
            readonly=row.readonly,
            link=path,
            needs=("identity", "readonly"),
        )


def _as(row: AttachmentRow, state: str) -> AttachmentRow:
    return msgspec.structs.replace(row, state=state)


def _unconfirmed(row: AttachmentRow, error: OnelunError) -> OnelunError:
    sentence = (
        f"{row.host} did not confirm that it let go of {row.zvol}, so its target stays ({error.sentence}); "
        f"repeat when {row.host} is back, or force it when the host is known to be off"
    )
    return type(error)(sentence, host=row.host)
