"""Sessions that iscsid cannot bring back by itself, and the one message to the kernel that lets it.

When the kernel itself sees an error on a connection that is being made anew (a NAS that is starting refuses the login
and closes), it marks the connection for its own cleaning up (drivers/scsi/scsi_transport_iscsi.c, iscsi_conn_error_event:
ISCSI_CLS_CONN_BIT_CLEANUP), and until somebody stops the connection (iscsi_if_stop_conn) it answers every bind with
ENOTCONN. iscsid before 2.1.9 does not stop it when a bind fails (usr/initiator.c, iscsi_login_eh; mended by open-iscsi's
commit 9f20745, "stop connection for recovery if error is not timeout"), but tries again for ever: its log says `can't
bind conn 1:0 to session 1, retcode -107`. The session stays down, and its VM's I/O waits, although the NAS is back.

So where the target answers and the session is still down after a while in which iscsid has tried several times, the
connection is stopped in iscsid's place.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import sys
import time
from collections.abc import Awaitable, Callable

from onelun import command
from onelun.compute.connectors.base import Export
from onelun.compute.connectors.iscsi import stop as program
from onelun.compute.connectors.iscsi.knock import knock
from onelun.compute.connectors.iscsi.sysfs import RECOVERING, Session, Sysfs
from onelun.errors import CommandFailed, OnelunError
from onelun.model import Portal

log = logging.getLogger(__name__)

AFTER_S = 20.0
"""How long a session stays down beside a target that answers before it is woken, and before it is woken again."""

_STOP_S = 6.0
# A NAS that is starting has other things to do than to answer all hosts' knocks at once.
_AT_ONCE = 4


class Waking:
    """Wakes sessions of `node`. `stop` (whether it was necessary) and `answers` are done outside; tests give others."""

    def __init__(
        self,
        node: str,
        sysfs: Sysfs,
        *,
        after_s: float = AFTER_S,
        stop: Callable[[Session], Awaitable[bool]] | None = None,
        answers: Callable[[Session], Awaitable[bool]] | None = None,
    ) -> None:
        self._node = node
        self._sysfs = sysfs
        self._after_s = after_s
        self._stop = stop or self._stop_connection
        self._answers = answers or self._target_answers
        self._at_once = asyncio.Semaphore(_AT_ONCE)
        # Since when each session has been down beside a target that answers, or when it was last woken (monotonic).
        self._since: dict[int, float] = {}

    async def look(self, sessions: list[Session]) -> None:
        """Wake those of `sessions` (all that are ours) that are due. Raises nothing."""
        down = {session.number: session for session in sessions if session.state == RECOVERING}
        self._since = {number: since for number, since in self._since.items() if number in down}
        await asyncio.gather(*map(self._look_at, down.values()))

    async def _look_at(self, session: Session) -> None:
        async with self._at_once:
            if not await self._answers(session):
                self._since.pop(session.number, None)
                return
            now = time.monotonic()
            if now - self._since.setdefault(session.number, now) < self._after_s:
                return
            self._since[session.number] = now
            facts = (self._node, session.iqn, session.number)
            try:
                woken = await self._stop(session)
            except OnelunError as error:
                log.warning("tend node=%s target=%s session=%s error=%s", *facts, error)
                return
            if woken:
                log.info("tend node=%s target=%s session=%s woken", *facts)

    async def _target_answers(self, session: Session) -> bool:
        """Whether the target is there and would let the session's initiator in."""
        if not session.address or session.port < 1:
            # It was read while the kernel took it away.
            return False
        user, secret = self._sysfs.account(session)
        portal = Portal(session.address, session.port)
        try:
            await knock(Export(session.iqn, portal, session.initiator, user or None, secret or None), portal)
        except OnelunError:
            return False
        return True

    async def _stop_connection(self, session: Session) -> bool:
        """Whether it was necessary: iscsid may be about to bring the session back by itself."""
        facts = (self._sysfs.tcp_handle(), str(session.number), session.iface)
        argv = (sys.executable, "-I", "-S", program.__file__, *facts)
        called = f"the stop of session {session.number}'s connection"
        result = await command.run(*argv, timeout_s=_STOP_S, called=called, check=False)
        if result.status == errno.EISCONN:
            return False
        if result.status != 0:
            reason = os.strerror(result.status) if result.status > 0 else f"signal {-result.status}"
            raise CommandFailed(f"the kernel does not stop the connection of session {session.number}: {reason}")
        return True
