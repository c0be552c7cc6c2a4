"""Attachments: giving a volume to one host and taking it back, in the order that loses nothing.

Attach: the offer is made (offers.py), then the host connects. Detach: the host disconnects and says so, then the offer ends.
A host that does not answer keeps its target (state unknown) until it does, or until OpenNebula says that it is gone: then
the NAS fences and keeps a debt. The caller holds the volume's lock.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

import msgspec

from onelun.deadline import Deadline
from onelun.ending import to_its_end
from onelun.errors import Busy, CommandFailed, Conflict, NoReply, NotFound, OnelunError, Unreachable
from onelun.model import Attachment, Volume
from onelun.naming import Source, target_account
from onelun.nas.backends.base import Backend
from onelun.nas.catalogue import ATTACHED, ATTACHING, DETACHING, UNKNOWN, AttachmentRow, Catalogue
from onelun.nas.hosts import Hosts
from onelun.nas.offers import Offers, is_without_agent, same
from onelun.rpc.message import SetZvol, TearDown, ZvolAttached, ZvolDetached

log = logging.getLogger(__name__)

# How long undoing an attachment may take when its job is cancelled; then the state is unknown.
_UNDO_S = 4.0


class Attachments:
    """All attachments that one NAS gives to hosts with a compute agent."""

    def __init__(self, catalogue: Catalogue, offers: Offers, hosts: Hosts) -> None:
        self._catalogue = catalogue
        self._offers = offers
        self._hosts = hosts

    def source(self, volume: Volume) -> Source:
        """What OpenNebula calls the volume."""
        return self._offers.source(volume)

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
        beside: str | None = None,
        shared: bool = False,
    ) -> tuple[AttachmentRow, str]:
        """Give the volume to `host`, linked from `path`; return the attachment and the host's device. `of` is the job's id.

        Repeating it gives the same attachment. Raises Conflict when another host has the volume (unless all only read, or
        that one is `beside`, from which a migration runs, or it is `shared` by all), Unreachable when nobody serves the host,
        NoReply when its outcome is unknown; otherwise a failure leaves nothing.
        """
        async with self._hosts.turn(host):
            initiator = await self._hosts.initiator(host, deadline=deadline)
            wanted = Attachment(host=host, initiator=initiator, epoch=0, readonly=readonly, beside=beside)
            row = self._offers.standing(volume, wanted, shared=shared)
            await self._pay(volume, host, deadline=deadline, of=of)
            if row is not None and not same(row, wanted):
                await self._end_old(backend, row, deadline=deadline, of=of)
                row = None
            row = row or await self._offers.intend(volume, wanted)
            fresh = row.state == ATTACHING
            asking = False
            try:
                await self._offers.make(backend, volume, row)
                asking = True
                asked = self._set_zvol(volume, row, path)
                reply = await self._hosts.ask(host, asked, ZvolAttached, deadline=deadline, of=of, step="set_zvol")
            except OnelunError as error:
                if asking and isinstance(error, NoReply):
                    self._catalogue.put(_as(row, UNKNOWN))
                elif fresh:
                    await self._offers.take_back(backend, row)
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
        if is_without_agent(row.host):
            await self._offers.withdraw(backend, row)
            return False
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
            await to_its_end(self._offers.end(backend, row, owes=owes), wait_s=None)
            return owes

    @contextlib.asynccontextmanager
    async def apart(self, backend: Backend, row: AttachmentRow, *, deadline: Deadline, of: str) -> AsyncIterator[None]:
        """The host has no device of the volume during the body; then it gets it again, with its links, done or not.

        The attachment stays in force all the time, in doubt (decision 0011): whatever interrupts this, the rounds give the
        host what the volume has become. Raises Busy (the host has it open), CommandFailed, Unreachable and NoReply before
        the body, and what connecting it again raises.
        """
        if is_without_agent(row.host):
            raise Conflict(f"{row.zvol} is given to an initiator without an agent: terminate its connection first")
        async with self._hosts.turn(row.host):
            self._catalogue.put(_as(row, UNKNOWN))
            request = TearDown(target=row.iqn, keep_link=True)
            try:
                await self._hosts.ask(row.host, request, ZvolDetached, deadline=deadline, of=of, step="apart")
            except (Unreachable, NoReply) as error:
                raise _unconfirmed(row, error) from error
            except Busy as error:
                self._catalogue.put(row)
                raise Busy(
                    f"{row.zvol} is in use on {row.host} ({error.sentence}): power its VM off first", host=row.host
                ) from error
            await self._offers.suspend(backend, row)
            try:
                yield
            except OnelunError:
                with contextlib.suppress(OnelunError):
                    await self._again(backend, row, deadline=deadline, of=of)
                raise
            await self._again(backend, row, deadline=deadline, of=of)

    async def _again(self, backend: Backend, row: AttachmentRow, *, deadline: Deadline, of: str) -> None:
        """Make the target of an attachment in force again and connect its host, each placement with its link."""
        volume = await backend.find_uuid(row.uuid)
        if volume is None:
            raise NotFound(f"volume {row.zvol} has just been removed", zvol=row.zvol)
        await self._offers.make(backend, volume, row)
        await self.give_back(volume, row, deadline=deadline, of=of)

    async def give_back(self, volume: Volume, row: AttachmentRow, *, deadline: Deadline, of: str) -> None:
        """Connect the host of an attachment in force to its target, each placement with its link; the caller has its turn."""
        paths: list[str | None] = [p.path for p in self._catalogue.placements(uuid=row.uuid, host=row.host)]
        for path in paths or [None]:
            asked = self._set_zvol(volume, row, path)
            step = f"again {path} {volume.size_bytes}"
            await self._hosts.ask(row.host, asked, ZvolAttached, deadline=deadline, of=of, step=step)
        self._catalogue.put(_as(row, ATTACHED))

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

    async def _pay(self, volume: Volume, host: str, *, deadline: Deadline, of: str) -> None:
        """The host gives up what it still has of the volume from before a fence; nothing of that can be flushed."""
        for debt in self._catalogue.debts(uuid=volume.uuid, host=host):
            request = TearDown(target=debt.iqn, keep_link=True, force=True)
            await self._hosts.ask(host, request, ZvolDetached, deadline=deadline, of=of, step=f"pay e{debt.epoch}")
            self._catalogue.drop(debt)

    async def _end_old(self, backend: Backend, row: AttachmentRow, *, deadline: Deadline, of: str) -> None:
        request = TearDown(target=row.iqn, keep_link=True)
        await self._hosts.ask(row.host, request, ZvolDetached, deadline=deadline, of=of, step=f"end e{row.epoch}")
        await self._offers.end(backend, row)

    async def _abandon(self, backend: Backend, row: AttachmentRow) -> None:
        """The job was cancelled while the host may have been connecting: take it back, now or in a later round."""
        request = TearDown(target=row.iqn, keep_link=True)
        deadline = Deadline.after(_UNDO_S)
        try:
            undo = self._hosts.ask(row.host, request, ZvolDetached, deadline=deadline, of=row.iqn, step="abandon")
            await asyncio.shield(asyncio.ensure_future(undo))
            await to_its_end(self._offers.end(backend, row), wait_s=None)
        except (OnelunError, asyncio.CancelledError):
            self._catalogue.put(_as(row, DETACHING))

    def _set_zvol(self, volume: Volume, row: AttachmentRow, path: str | None) -> SetZvol:
        return SetZvol(
            target=row.iqn,
            nas=self._offers.nas,
            address=self._offers.portal.address,
            port=self._offers.portal.port,
            initiator=row.initiator,
            user=target_account(row.iqn),
            secret=self._offers.secret_of(row.iqn),
            zpool=volume.pool,
            zvol=volume.name,
            uuid=volume.uuid,
            size_bytes=volume.size_bytes,
            readonly=row.readonly,
            lun=self._offers.lun,
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
