"""Our sessions on this host: which they are, and their end.

A session of ours has our interface name, which the kernel shows with it; whose target it is does not matter.
"""

from __future__ import annotations

from collections.abc import Iterable

from onelun.calls import Calls
from onelun.compute import devices
from onelun.compute.connectors.iscsi.admin import Iscsiadm
from onelun.compute.connectors.iscsi.disk import Disks, until, usable
from onelun.compute.connectors.iscsi.notes import Note, Notes
from onelun.compute.connectors.iscsi.records import Records
from onelun.compute.connectors.iscsi.sysfs import UP, Disk, Session, Sysfs
from onelun.errors import Busy, CommandFailed, OnelunError
from onelun.model import Portal

# How long a session that lost its connection is awaited: iscsid tries again every few seconds.
RECOVERY_S = 8.0
_FLUSH_S = 30.0
_REMOVE_S = 4.0
# The kernel takes a session apart after it has been told to, and on a busy host later.
_GONE_S = 8.0


class Sessions:
    """The sessions with the interface name `iface`, with the records and notes that belong to them."""

    def __init__(self, iface: str, sysfs: Sysfs, records: Records, notes: Notes, admin: Iscsiadm, calls: Calls) -> None:
        self._iface = iface
        self._sysfs = sysfs
        self._records = records
        self._notes = notes
        self._admin = admin
        self._calls = calls
        self._disks = Disks(sysfs, calls)

    def ours(self, iqn: str | None = None) -> list[Session]:
        """Our sessions, of that target alone when it is given. IQNs are compared whole, in one case (RFC 3722)."""
        return [
            session
            for session in self._sysfs.sessions()
            if session.iface == self._iface and (iqn is None or session.iqn.lower() == iqn.lower())
        ]

    def disk(self, session: Session, lun: int | None = None) -> Disk | None:
        """Our LUN of the session: that one, or the noted one, or else its first disk."""
        note = self._note(session)
        if lun is not None:
            return self._sysfs.disk(session, lun)
        if note is not None:
            return None if note.lun is None else self._sysfs.disk(session, note.lun)
        return next((disk for disk in self._sysfs.disks(session) if disk.kind == 0), None)

    def is_left(self, session: Session) -> bool:
        """Whether we have done with it, and it is there only because somebody uses another LUN of it."""
        note = self._note(session)
        return note is not None and note.lun is None

    def is_up(self, number: int) -> bool:
        """Whether that session and all its disks take commands now."""
        session = next((one for one in self.ours() if one.number == number), None)
        if session is None or session.state != UP:
            return False
        return all(usable(session, disk) for disk in self._sysfs.disks(session) if disk.name)

    async def flush(self, session: Session) -> None:
        """Make durable what was written to our disk of the session. Raises Busy or CommandFailed."""
        disk = self.disk(session)
        if disk is None or not disk.name:
            return
        await devices.refuse_if_open(disk.node)
        # A flush that hangs holds the device, and is itself in the way of the next try; so it is not begun then.
        if not await until(lambda: self.is_up(session.number), RECOVERY_S):
            raise CommandFailed(f"cannot flush {disk.node}: the session to {session.iqn} is down", device=disk.node)
        await devices.flush(disk.node, timeout_s=_FLUSH_S, calls=self._calls)
        if holders := await devices.users(disk.node):
            raise Busy(f"{disk.node} is in use: {'; '.join(holders)}", device=disk.node)

    async def clear(self, iqn: str, *, force: bool) -> None:
        """Remove devices, sessions, record and note of the target, and look that they are gone. Absent: nothing.

        A session of which somebody uses another LUN stays, without ours. Forced, that counts for nothing, and each step is
        tried whatever became of the one before. Raises CommandFailed for what stays.
        """
        failures: list[str] = []
        for session in self.ours(iqn):
            try:
                if not force and await self._leave(session):
                    return
                await self._end(session, force=force)
            except OnelunError as error:
                if not force:
                    raise
                failures.append(error.sentence)
        self._records.remove(iqn)
        self._notes.remove(iqn)
        if left := self.ours(iqn):
            said = "; ".join(failures) or "it is still logged in"
            raise CommandFailed(f"session {left[0].number} of {iqn} does not end: {said}", target=iqn)

    async def clear_unused(self, session: Session) -> bool:
        """Remove the session, its record and note, unless somebody has one of its disks open; whether it is gone."""
        if await self._used(self._sysfs.disks(session)):
            return False
        await self._end(session, force=True)
        self._records.remove(session.iqn)
        self._notes.remove(session.iqn)
        return True

    async def _leave(self, session: Session) -> bool:
        """Whether other LUNs of the session are in use; then ours alone is removed."""
        ours = self.disk(session)
        others = [disk for disk in self._sysfs.disks(session) if disk != ours]
        if not await self._used(others):
            return False
        if ours is not None:
            await self._disks.remove(ours, _REMOVE_S)
        self._notes.put(Note(session.iqn, session.number, None))
        return True

    async def _used(self, disks: Iterable[Disk]) -> bool:
        for disk in disks:
            holders = await devices.users(disk.node) if disk.name else []
            if holders:
                return True
        return False

    def _note(self, session: Session) -> Note | None:
        note = self._notes.get(session.iqn)
        return note if note is not None and note.session == session.number else None

    async def _end(self, session: Session, *, force: bool) -> None:
        """Remove the session's disks, and log it out."""
        failure: OnelunError | None = None
        for disk in self._sysfs.disks(session):
            try:
                await self._disks.remove(disk, _REMOVE_S)
            except OnelunError as error:
                if not force:
                    raise
                failure = error
        portal = Portal(session.address, session.port)
        self._records.restore(session.iqn, portal, session.initiator)
        try:
            await self._admin.logout(session.iqn, portal)
        except OnelunError as error:
            # iscsid refuses to end a session that it is just ending, as for somebody who did not wait for it.
            failure = error
        if not await until(lambda: session.number not in {one.number for one in self.ours()}, _GONE_S):
            raise failure or CommandFailed(f"session {session.number} of {session.iqn} does not end")
