"""Guests that write out and freeze their filesystems for a snapshot, by their agent and libvirt, and always thaw again.

A guest is frozen for a short time that is told beforehand. Whoever asked thaws it; when nobody does, it is thawed when the
time is over, and by the next agent when this one is killed: a note tells which guests may be frozen.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import shutil
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from onelun import command
from onelun.ending import to_its_end
from onelun.errors import CommandFailed, Rejected

log = logging.getLogger(__name__)

# How libvirt names a guest; it becomes an argument of virsh and the name of a file.
_DOMAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
# virsh waits for an agent that does not answer for longer than a guest may stand still.
_VIRSH_S = 10.0
_LONGEST_S = 60.0
_TRIES = 5
_PAUSE_S = 2.0


class Guests:
    """The guests of one host. `libvirt` is the URI of its libvirt, `notes` a directory that goes with the machine's boot."""

    def __init__(self, libvirt: str, notes: str) -> None:
        self._libvirt = libvirt
        self._notes = Path(notes)
        self._held: dict[str, asyncio.Task[None]] = {}
        self._behind: set[asyncio.Task[object]] = set()

    def settle(self) -> None:
        """Begin to thaw what an agent that was killed may have left frozen."""
        left = [path.name for path in self._notes.glob("*") if _DOMAIN.fullmatch(path.name)]
        if left:
            self._begin(self._thaw_all(left))

    async def release(self) -> None:
        """Thaw every guest that is frozen: the agent ends. A guest that cannot be thawed now is left to the next agent."""
        await asyncio.gather(*(self.thaw(domain) for domain in list(self._held)))

    async def freeze(self, domain: str, hold_s: float) -> str | None:
        """Freeze the guest for at most `hold_s`; None when it is frozen, else why it is not. Raises Rejected for a bad name."""
        if not _DOMAIN.fullmatch(domain):
            raise Rejected(f"{domain[:80]!r} is no name of a guest")
        if domain in self._held:
            return f"{domain} is frozen for another snapshot just now"
        if shutil.which("virsh", path=command.SEARCH_PATH) is None:
            return "there is no virsh on its host"
        self._notes.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self._notes / domain).touch(mode=0o600)
        try:
            await self._virsh("domfsfreeze", domain)
        except CommandFailed as error:
            if "status" in error.facts:
                # Refused; but half of its filesystems may be frozen.
                await to_its_end(self._thaw(domain, tries=1))
                self._forget(domain)
            else:
                # Its agent may take it up later: what does not answer now is tried again behind the caller's back.
                self._begin(self._thaw(domain))
            return error.sentence
        except asyncio.CancelledError:
            await to_its_end(self._thaw(domain))
            raise
        self._held[domain] = asyncio.create_task(self._expire(domain, min(hold_s, _LONGEST_S)))
        return None

    async def thaw(self, domain: str) -> bool:
        """Thaw the guest; whether it was frozen until now. A guest that is not is left alone."""
        expiry = self._held.pop(domain, None)
        if expiry is None:
            return False
        expiry.cancel()
        return await to_its_end(self._thaw(domain))

    async def _expire(self, domain: str, hold_s: float) -> None:
        await asyncio.sleep(hold_s)
        self._held.pop(domain, None)
        log.warning("guest thawed=%s reason=nobody did within %g s", domain, hold_s)
        await self._thaw(domain)

    async def _thaw_all(self, domains: list[str]) -> None:
        for domain in domains:
            log.warning("guest thawed=%s reason=an earlier agent may have left it frozen", domain)
            await self._thaw(domain)

    async def _thaw(self, domain: str, *, tries: int = _TRIES) -> bool:
        """Thaw the guest. What cannot be thawed keeps its note, for the next agent."""
        for number in range(tries):
            if number:
                await asyncio.sleep(_PAUSE_S)
            try:
                await self._virsh("domfsthaw", domain)
            except CommandFailed as error:
                log.warning("guest=%s thaw=failed try=%s reason=%s", domain, number + 1, error)
            else:
                self._forget(domain)
                return True
        if tries > 1:
            log.error("guest=%s may be frozen still: run virsh domfsthaw %s", domain, domain)
        return False

    def _begin(self, work: Coroutine[Any, Any, object]) -> None:
        task = asyncio.create_task(work)
        self._behind.add(task)
        task.add_done_callback(self._behind.discard)

    def _forget(self, domain: str) -> None:
        (self._notes / domain).unlink(missing_ok=True)

    async def _virsh(self, verb: str, domain: str) -> None:
        await command.run("virsh", "-q", "-c", self._libvirt, verb, domain, timeout_s=_VIRSH_S)


def notes_of(run_dir: str) -> str:
    """Where the notes are, in the agent's run directory."""
    return os.path.join(run_dir, "frozen")
