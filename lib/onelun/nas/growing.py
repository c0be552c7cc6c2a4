"""Growing a volume that hosts have: the storage first, then its targets, then the hosts' devices.

Not every target daemon lets a LUN grow under a session (tgtd does not). There the hosts let go first, which each does only
when nobody has the device open, and connect the same target again: its epoch stays in force all the while, so that a host
which is cut off in between is given it back by the agent's rounds.
"""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack

import msgspec

from onelun.deadline import Deadline
from onelun.errors import Busy, NotFound, OnelunError
from onelun.model import Volume
from onelun.nas.attachments import Attachments
from onelun.nas.backends.base import Backend
from onelun.nas.catalogue import DETACHING, UNKNOWN, AttachmentRow, Catalogue
from onelun.nas.hosts import Hosts
from onelun.nas.offers import Offers, is_without_agent
from onelun.rpc.message import DevGrown, GrowDev, TearDown, ZvolDetached

log = logging.getLogger(__name__)


class Growing:
    """Grows the volumes of one NAS."""

    def __init__(self, catalogue: Catalogue, offers: Offers, hosts: Hosts, attachments: Attachments) -> None:
        self._catalogue = catalogue
        self._attachments = attachments
        self._offers = offers
        self._hosts = hosts

    async def grow(self, backend: Backend, volume: Volume, size: int, *, deadline: Deadline, of: str) -> Volume:
        """Make the volume `size` bytes long for everybody who has it; `of` is the job's id. The caller holds its lock.

        A repeat goes on where the first one ended. Raises Busy, before anything is changed, when a host has it open and the
        target daemon cannot grow it then; Rejected for a smaller size; what the first host or target raises.
        """
        async with AsyncExitStack() as turns:
            for host in sorted({row.host for row in self._rows(volume) if not is_without_agent(row.host)}):
                await turns.enter_async_context(self._hosts.turn(host))
            rows = self._rows(volume)
            apart = await self._let_go(backend, volume, size, rows, deadline=deadline, of=of)
            try:
                grown = await backend.grow(volume, size)
            except OnelunError:
                await self._connect_all(volume, apart, deadline=deadline, of=f"{of} back")
                raise
            for row in rows:
                await self._offers.grow(backend, grown, row)
                if row in apart:
                    await self._attachments.give_back(grown, row, deadline=deadline, of=of)
                elif not is_without_agent(row.host):
                    await self._grow_device(grown, row, deadline=deadline, of=of)
            return grown

    def _rows(self, volume: Volume) -> list[AttachmentRow]:
        return [row for row in self._catalogue.attachments(uuid=volume.uuid) if row.state != DETACHING]

    async def _let_go(
        self, backend: Backend, volume: Volume, size: int, rows: list[AttachmentRow], *, deadline: Deadline, of: str
    ) -> list[AttachmentRow]:
        """Have the hosts let go for which the target cannot grow otherwise; return their attachments."""
        if self._offers.grow_in_use or not rows:
            return []
        apart: list[AttachmentRow] = []
        in_use = await self._offers.in_use()
        try:
            for row in rows:
                if row.iqn in in_use and not await self._shows(backend, volume, row, size):
                    await self._take_apart(volume, row, deadline=deadline, of=of)
                    apart.append(row)
        except OnelunError:
            await self._connect_all(volume, apart, deadline=deadline, of=f"{of} back")
            raise
        return apart

    async def _shows(self, backend: Backend, volume: Volume, row: AttachmentRow, size: int) -> bool:
        """Whether the volume has the size and its target shows it."""
        if volume.size_bytes != size:
            return False
        try:
            await self._offers.grow(backend, volume, row)
        except Busy:
            return False
        return True

    async def _take_apart(self, volume: Volume, row: AttachmentRow, *, deadline: Deadline, of: str) -> None:
        if is_without_agent(row.host):
            raise Busy(f"{volume.name} cannot grow while {row.initiator} is logged in: end that connection first")
        request = TearDown(target=row.iqn, keep_link=True)
        self._catalogue.put(msgspec.structs.replace(row, state=UNKNOWN))
        try:
            await self._hosts.ask(row.host, request, ZvolDetached, deadline=deadline, of=of, step="let go")
        except Busy as error:
            self._catalogue.put(row)
            raise Busy(
                f"{volume.name} is open on {row.host}, and the target daemon of {self._offers.nas} cannot grow it then:"
                " power the VM off and resize the disk while it is off",
                host=row.host,
            ) from error
        log.info("grow apart=%s host=%s", row.iqn, row.host)

    async def _connect_all(self, volume: Volume, rows: list[AttachmentRow], *, deadline: Deadline, of: str) -> None:
        """Give back what hosts let go of. One that cannot be given back now is left to the rounds."""
        for row in rows:
            try:
                await self._attachments.give_back(volume, row, deadline=deadline, of=of)
            except OnelunError as error:
                log.warning("grow left=%s host=%s reason=%s", row.iqn, row.host, error)

    async def _grow_device(self, volume: Volume, row: AttachmentRow, *, deadline: Deadline, of: str) -> None:
        asked = GrowDev(target=row.iqn, size_bytes=volume.size_bytes)
        step = f"grow {volume.size_bytes}"
        try:
            await self._hosts.ask(row.host, asked, DevGrown, deadline=deadline, of=of, step=step)
        except NotFound:
            # Growing it was interrupted when the host had let go of it.
            if row.state != UNKNOWN:
                raise
            await self._attachments.give_back(volume, row, deadline=deadline, of=of)
