"""The connector on the kernel's initiator: open-iscsi by iscsiadm, one session of our own for each target.

Our sessions are those with our interface name (`onelun.NODE`), which the kernel shows with each session; it comes with
an initiator name of our own, so that neither /etc/iscsi/initiatorname.iscsi nor anybody else's sessions matter. What
was verified is noted in `run_dir`, which goes with a reboot as the sessions do; the truth about them is /sys.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from contextlib import AsyncExitStack
from typing import NamedTuple

from onelun.calls import Calls
from onelun.compute import devices
from onelun.compute.connectors.base import Connected, Connector, Export
from onelun.compute.connectors.iscsi import check
from onelun.compute.connectors.iscsi.admin import Iscsiadm
from onelun.compute.connectors.iscsi.disk import Disks, set_readonly, until, usable, waits
from onelun.compute.connectors.iscsi.knock import knock, numeric
from onelun.compute.connectors.iscsi.notes import Note, Notes
from onelun.compute.connectors.iscsi.records import Records, checked_target, iface_of
from onelun.compute.connectors.iscsi.sessions import RECOVERY_S, Sessions
from onelun.compute.connectors.iscsi.sysfs import Disk, Session, Sysfs
from onelun.compute.connectors.iscsi.waking import AFTER_S, Waking
from onelun.deadline import Deadline
from onelun.errors import Conflict, NotFound, OnelunError, Unreachable
from onelun.model import Portal

log = logging.getLogger(__name__)

_CONNECT_S = 15.0
# With what udev takes for a new disk; all ends within 30 s.
_SETTLED_S = 22.0
# Connections being made at one portal at a time; iscsid makes one after the other. Portals do not wait for each other.
_AT_ONCE = 4
# tgt's first disk is LUN 1 (LUN 0 is its controller), LIO's is LUN 0.
_LUNS = (1, 0)


class _New(NamedTuple):
    """A disk that was not there at `since`, in seconds of the monotonic clock, and what takes its session away again."""

    disk: Disk
    since: float
    undo: AsyncExitStack


class IscsiConnector(Connector):
    """See Connector. Needs root, iscsid, and the kernel's module iscsi_tcp. `database` is open-iscsi's directory.

    A session that stays down for `wake_s` although its target answers is woken when the connector is tended.
    """

    def __init__(self, run_dir: str, *, node: str, database: str = "/etc/iscsi", wake_s: float = AFTER_S) -> None:
        self._node = node
        self._sysfs = Sysfs()
        self._records = Records(database, iface_of(node))
        self._notes = Notes(run_dir)
        self._admin = Iscsiadm()
        calls = Calls()
        self._disks = Disks(self._sysfs, calls)
        self._turns: dict[Portal, asyncio.Semaphore] = {}
        self._sessions = Sessions(iface_of(node), self._sysfs, self._records, self._notes, self._admin, calls)
        self._waking = Waking(node, self._sysfs, after_s=wake_s)

    async def check(self) -> list[str]:
        """See Connector."""
        return await check.troubles(self._sysfs, self._records, self._notes)

    async def settle(self) -> None:
        """See Connector. Half-made is a session that nobody noted as verified, and a record without a session."""
        sessions = self._sessions.ours()
        self._records.clear_aside()
        for session in sessions:
            note = self._notes.get(session.iqn)
            if note is None or note.session != session.number:
                await self._settle(session)
        there = {session.iqn for session in sessions}
        for iqn in {*self._records.targets(), *self._notes.targets()} - there:
            with contextlib.suppress(OnelunError):
                self._records.remove(iqn)
                self._notes.remove(iqn)
                log.info("settle node=%s target=%s removed=record", self._node, iqn)

    async def connect(self, export: Export) -> str:
        """See Connector."""
        checked_target(export.iqn)
        try:
            async with self._turns.setdefault(export.portal, asyncio.Semaphore(_AT_ONCE)), asyncio.timeout(_CONNECT_S):
                begun = time.monotonic()
                device, new = await self._connect(export)
        except TimeoutError:
            raise Unreachable(f"{export.portal} did not answer within {_CONNECT_S:g} s", target=export.iqn) from None
        if new is not None:
            # Outside of the turn and its limit: a udev that is behind is no silent target, and holds up no other one.
            async with new.undo as undo:
                await self._disks.settle(new.disk, new.since, Deadline(begun + _SETTLED_S))
                undo.pop_all()
        return device

    async def grow(self, iqn: str, size_bytes: int) -> str:
        """See Connector. It grows under an open device too."""
        session, disk = self._connected(iqn)
        if session is None or disk is None:
            raise NotFound(f"{iqn} is not connected to this host", target=iqn)
        if disk.size_bytes != size_bytes:
            if not usable(session, disk):
                raise Unreachable(f"{disk.node} cannot grow now: the session to {iqn} is down", target=iqn)
            disk = await self._disks.rescan(session, disk)
        if disk.size_bytes != size_bytes:
            raise Conflict(f"{disk.node} has {disk.size_bytes} bytes, not {size_bytes}", target=iqn)
        return disk.node

    async def disconnect(self, iqn: str, *, force: bool = False) -> None:
        """See Connector. Forced, it ends in bounded time, and what waited to be written is dropped first."""
        checked_target(iqn)
        sessions = self._sessions.ours(iqn)
        if not force:
            for session in sessions:
                await self._sessions.flush(session)
        await self._sessions.clear(iqn, force=force)
        if sessions:
            log.info("disconnect node=%s target=%s force=%s", self._node, iqn, force)

    async def connections(self) -> list[Connected]:
        """See Connector.

        A disk whose session is recovering is of use while somebody has it open: it goes on when the NAS is back. One
        that nobody has open is not: it is connected anew.
        """
        found: dict[str, Connected] = {}
        for session in self._sessions.ours():
            if self._sessions.is_left(session):
                continue
            disk = self._sessions.disk(session)
            alive = usable(session, disk)
            if not alive and disk is not None and waits(session, disk):
                alive = bool(await devices.users(disk.node))
            if session.iqn not in found or alive:
                found[session.iqn] = Connected(session.iqn, disk.node if disk and disk.name else "", alive=alive)
        return list(found.values())

    async def tend(self) -> None:
        """See Connector. Sessions that iscsid cannot bring back are let go by the kernel, so that it can."""
        await self._waking.look(self._sessions.ours())

    def _connected(self, iqn: str) -> tuple[Session | None, Disk | None]:
        for session in self._sessions.ours(iqn):
            disk = self._sessions.disk(session)
            if disk is not None and disk.name:
                return session, disk
        return None, None

    async def _connect(self, export: Export) -> tuple[str, _New | None]:
        """The device, and its disk when that has only just appeared."""
        portal = await numeric(export.portal)
        for session in self._sessions.ours(export.iqn):
            if device := await self._healthy(session, export, portal):
                return device, None
        try:
            await knock(export, portal)
        except NotFound:
            for session in self._sessions.ours(export.iqn):
                await self._sessions.clear_unused(session)
            raise
        for session in self._sessions.ours(export.iqn):
            if not await self._sessions.clear_unused(session):
                return await self._awaited(session, export)
        async with AsyncExitStack() as undo:
            undo.push_async_callback(self._undo, export.iqn)
            await self._records.make(export, portal)
            await self._admin.login(export, portal)
            sessions = self._sessions.ours(export.iqn)
            if not sessions:
                raise Unreachable(f"the session to {export.iqn} ended as soon as it began", target=export.iqn)
            since = time.monotonic()
            disk = await self._disks.appear(sessions[-1], _luns(export))
            device = await self._verified(sessions[-1], disk, export)
            log.info("connect node=%s target=%s device=%s", self._node, export.iqn, device)
            return device, _New(disk, since, undo.pop_all())

    async def _healthy(self, session: Session, export: Export, portal: Portal) -> str | None:
        """The device of a session that is up and as `export` asks. Raises Conflict when it is another volume.

        It is asked twice before it counts as dead: a busy host may be late with a question, and to make the session anew
        takes the device from whoever is about to open it.
        """
        for _ in range(2):
            if not self._sessions.is_up(session.number):
                return None
            disk = self._sessions.disk(session, export.lun)
            if disk is None or not usable(session, disk) or not self._fits(session, export, portal):
                return None
            try:
                return await self._verified(session, disk, export)
            except Conflict:
                await self._sessions.clear_unused(session)
                raise
            except Unreachable as error:
                log.info("connect node=%s target=%s silent=%s", self._node, export.iqn, error)
        return None

    async def _awaited(self, session: Session, export: Export) -> tuple[str, _New | None]:
        """The device of a session that may be down now and stays, because somebody has a disk of it open."""
        if not await until(lambda: self._sessions.is_up(session.number), RECOVERY_S):
            raise Unreachable(
                f"the session to {export.iqn} is down, and its device stays because it is in use: it goes on when "
                f"{export.portal} is back",
                target=export.iqn,
            )
        disk = self._sessions.disk(session, export.lun)
        if disk is not None:
            return await self._verified(session, disk, export), None
        since = time.monotonic()
        disk = await self._disks.appear(session, _luns(export))
        # Its session is not taken away: it is in use.
        return await self._verified(session, disk, export), _New(disk, since, AsyncExitStack())

    async def _verified(self, session: Session, disk: Disk, export: Export) -> str:
        """The device, once it is known to be the volume and to have its size; noted as such."""
        identity = await self._disks.verify(disk, export)
        if disk.size_bytes != identity.size_bytes:
            disk = await self._disks.rescan(session, disk)
        if disk.size_bytes != identity.size_bytes:
            raise Conflict(
                f"{disk.node} has {disk.size_bytes} bytes, its target {export.iqn} {identity.size_bytes}",
                target=export.iqn,
            )
        await set_readonly(disk, readonly=export.readonly)
        self._notes.put(Note(session.iqn, session.number, disk.lun))
        return disk.node

    def _fits(self, session: Session, export: Export, portal: Portal) -> bool:
        """Whether the session was made as `export` asks. A new secret needs a new login."""
        return (session.address.lower(), session.port, session.initiator) == (
            portal.address.lower(),
            portal.port,
            export.initiator,
        ) and self._sysfs.account(session) == (export.user or "", export.secret or "")

    async def _undo(self, iqn: str) -> None:
        """A failure to clear away must not hide why the connection failed; `settle` and the next connect try again."""
        try:
            await self._sessions.clear(iqn, force=True)
        except OnelunError as error:
            log.warning("connect node=%s target=%s undo=%s", self._node, iqn, error)

    async def _settle(self, session: Session) -> None:
        try:
            removed = await self._sessions.clear_unused(session)
        except OnelunError as error:
            log.warning("settle node=%s target=%s error=%s", self._node, session.iqn, error)
            return
        log.info("settle node=%s target=%s session=%s removed=%s", self._node, session.iqn, session.number, removed)


def _luns(export: Export) -> tuple[int, ...]:
    return _LUNS if export.lun is None else (export.lun,)
