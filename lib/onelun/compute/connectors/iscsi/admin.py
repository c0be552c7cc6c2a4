"""iscsiadm, and what its statuses mean (open-iscsi 2.1, include/iscsi_err.h)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time

from onelun import command
from onelun.compute.connectors.base import Export
from onelun.ending import to_its_end
from onelun.errors import CommandFailed, NotFound, OnelunError, Rejected, Unreachable
from onelun.model import Portal

log = logging.getLogger(__name__)

_OK, _SESSION_NOT_FOUND, _IDBM, _TIMEOUT, _PDU_TIMEOUT, _NO_TRANSPORT = 0, 2, 6, 8, 11, 12
_EXISTS, _NO_DAEMON_ANSWER, _FATAL_LOGIN, _NO_DAEMON, _NO_OBJECTS, _UNAUTHORIZED = 15, 18, 19, 20, 21, 24
_ABSENT = (_SESSION_NOT_FOUND, _NO_OBJECTS)
# Longer than a login that iscsid itself gives up (login_timeout, twice), so that no login goes on behind our back.
_LOGIN_S = 12.0
_LOGOUT_S = 8.0
_RETRIES_S = (0.1, 0.3, 0.8, 2.0)
# iscsid ends one session after the other.
_AT_ONCE = 6
# How open-iscsi locks its database (usr/idbm.c): whoever links this has it. No work on it takes a second.
_LOCK = "/run/lock/iscsi/lock.write"
_LOCK_STALE_S = 10.0
# Where iscsid, or systemd for it, listens (usr/mgmt_ipc.h).
_DAEMON = "\0ISCSIADM_ABSTRACT_NAMESPACE"


class Iscsiadm:
    """Logs in and out. No secret passes here: iscsid reads the node records."""

    def __init__(self, *, lock: str = _LOCK) -> None:
        self._lock = lock
        self._logouts = asyncio.Semaphore(_AT_ONCE)

    async def login(self, export: Export, portal: Portal) -> None:
        """Log in by the record of the target at `portal`. Logged in already: nothing.

        Cancelled, it waits for the end of the login, which iscsid would finish in any case. Raises Rejected (account or
        secret), NotFound (no record), Unreachable (no answer in time), CommandFailed (iscsid, iscsi_tcp missing).
        """
        login = self._run(*_record(export.iqn, portal), "--login", timeout_s=_LOGIN_S)
        result = await to_its_end(login, wait_s=None)
        if result.status not in (_OK, _EXISTS):
            raise _failure(export, portal, result)

    async def logout(self, iqn: str, portal: Portal) -> None:
        """End the session that the record of the target at `portal` stands for. Absent: nothing. Raises CommandFailed.

        By its number, iscsiadm would end it only with a file of our interface, and with that file every discovery on this
        host would bind others' targets to our interface too.
        """
        async with self._logouts:
            result = await self._run(*_record(iqn, portal), "--logout", timeout_s=_LOGOUT_S)
        if result.status not in (_OK, *_ABSENT):
            raise CommandFailed(_no_daemon(result.status) or result.failure("iscsiadm"), status=result.status)

    async def _run(self, *args: str, timeout_s: float) -> command.Result:
        for wait_s in (*_RETRIES_S, None):
            self._break_lock()
            try:
                result = await command.run("iscsiadm", *args, timeout_s=timeout_s, check=False)
            except CommandFailed as error:
                if "did not end" not in error.sentence:
                    raise
                raise CommandFailed(f"iscsid does not answer: {error.sentence}") from error
            # Its database was locked, or changed under it: others use it too.
            if result.status != _IDBM or wait_s is None:
                break
            await asyncio.sleep(wait_s)
        return result

    def _break_lock(self) -> None:
        """Remove the lock that a killed iscsiadm left, on which every other waits 30 s and then gives up."""
        with contextlib.suppress(FileNotFoundError):
            age_s = time.time() - os.stat(self._lock).st_ctime
            if age_s > _LOCK_STALE_S:
                os.unlink(self._lock)
                log.warning("iscsiadm lock=%s age_s=%.0f removed=true", self._lock, age_s)


def _record(iqn: str, portal: Portal) -> tuple[str, ...]:
    return ("-m", "node", "-T", iqn, "-p", str(portal))


def daemon_answers() -> bool:
    """Whether iscsid is there, or systemd listens for it."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(1.0)
        try:
            connection.connect(_DAEMON)
        except OSError:
            return False
    return True


def _failure(export: Export, portal: Portal, result: command.Result) -> OnelunError:
    facts = {"target": export.iqn, "portal": str(portal)}
    if result.status == _UNAUTHORIZED:
        how = "the account or its secret is wrong" if export.user else "it asks for an account, and none was given"
        return Rejected(
            f"{portal} refuses the login of the initiator {export.initiator} to {export.iqn}: {how}", **facts
        )
    if result.status in (_TIMEOUT, _PDU_TIMEOUT, _FATAL_LOGIN):
        return Unreachable(f"the login to {export.iqn} at {portal} did not end in time", **facts)
    if result.status == _NO_OBJECTS:
        return NotFound(f"somebody removed the record of {export.iqn} while it was used", **facts)
    if sentence := _no_daemon(result.status):
        return CommandFailed(sentence, **facts)
    return CommandFailed(f"the login to {export.iqn} at {portal} failed: {result.failure('iscsiadm')}", **facts)


def _no_daemon(status: int) -> str | None:
    if status in (_NO_DAEMON, _NO_DAEMON_ANSWER):
        return "iscsid is not running: systemctl enable --now iscsid.socket"
    if status == _NO_TRANSPORT:
        return "the kernel module iscsi_tcp is not loaded: modprobe iscsi_tcp"
    return None
