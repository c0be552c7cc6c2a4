"""Guests that stand still for a snapshot, by libvirt, and always go on again.

One that has an agent writes out and freezes its filesystems; any other can be paused, so that it writes nothing meanwhile.
It does so for a short time that is told beforehand. Whoever asked thaws it; when nobody does, it is thawed when the time is
over, and by the next agent when this one is killed: a note tells which guests may be frozen or paused.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import shutil
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, NamedTuple

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


class Way(NamedTuple):
    """The verbs of virsh by which a guest stands still and goes on."""

    hold: str
    go_on: str


FILESYSTEMS = Way("domfsfreeze", "domfsthaw")
# The guest as a whole; it needs no agent, and does not write out what it has in memory.
WHOLE = Way("suspend", "resume")
_RUNNING, _PAUSED = "running", "paused"


class Guests:
    """The guests of one host. `libvirt` is the URI of its libvirt, `notes` a directory that goes with the machine's boot."""

    def __init__(self, libvirt: str, notes: str) -> None:
        self._libvirt = libvirt
        self._notes = Path(notes)
        self._held: dict[str, tuple[Way, asyncio.Task[None]]] = {}
        self._behind: set[asyncio.Task[object]] = set()

    def settle(self) -> None:
        """Begin to thaw what an agent that was killed may have left frozen."""
        left = [path.name for path in self._notes.glob("*") if _DOMAIN.fullmatch(path.name)]
        if left:
            self._begin(self._thaw_all(left))

    async def release(self) -> None:
        """Thaw every guest that is frozen: the agent ends. A guest that cannot be thawed now is left to the next agent."""
        await asyncio.gather(*(self.thaw(domain) for domain in list(self._held)))

    async def freeze(self, domain: str, hold_s: float, way: Way = FILESYSTEMS) -> str | None:
        """Freeze the guest for at most `hold_s`; None when it is frozen, else why it is not. Raises Rejected for a bad name.

        A guest that somebody else has paused is left alone, and that is the reason then.
        """
        if not _DOMAIN.fullmatch(domain):
            raise Rejected(f"{domain[:80]!r} is no name of a guest")
        if domain in self._held:
            return f"{domain} is frozen for another snapshot just now"
        if shutil.which("virsh", path=command.SEARCH_PATH) is None:
            return "there is no virsh on its host"
        try:
            if way is WHOLE and (state := await self._state(domain)) != _RUNNING:
                return f"it is {state}"
        except CommandFailed as error:
            return error.sentence
        self._remember(domain, way)
        try:
            await self._virsh(way.hold, domain)
        except CommandFailed as error:
            if "status" in error.facts:
                # Refused; but half of its filesystems may be frozen.
                await to_its_end(self._thaw(domain, way, tries=1))
                self._forget(domain)
            else:
                # Its agent may take it up later: what does not answer now is tried again behind the caller's back.
                self._begin(self._thaw(domain, way))
            return error.sentence
        except asyncio.CancelledError:
            await to_its_end(self._thaw(domain, way))
            raise
        self._held[domain] = way, asyncio.create_task(self._expire(domain, way, min(hold_s, _LONGEST_S)))
        return None

    async def thaw(self, domain: str) -> bool:
        """Thaw the guest; whether it was frozen until now. A guest that is not is left alone."""
        way, expiry = self._held.pop(domain, (None, None))
        if way is None or expiry is None:
            return False
        expiry.cancel()
        return await to_its_end(self._thaw(domain, way))

    async def _state(self, domain: str) -> str:
        """As libvirt calls it."""
        return (await self._virsh("domstate", domain)).stdout.strip()

    async def _expire(self, domain: str, way: Way, hold_s: float) -> None:
        await asyncio.sleep(hold_s)
        self._held.pop(domain, None)
        log.warning("guest thawed=%s reason=nobody did within %g s", domain, hold_s)
        await self._thaw(domain, way)

    async def _thaw_all(self, domains: list[str]) -> None:
        for domain in domains:
            log.warning("guest thawed=%s reason=an earlier agent may have left it frozen", domain)
            await self._thaw(domain, self._noted(domain))

    async def _thaw(self, domain: str, way: Way, *, tries: int = _TRIES) -> bool:
        """Thaw the guest. What cannot be thawed keeps its note, for the next agent."""
        for number in range(tries):
            if number:
                await asyncio.sleep(_PAUSE_S)
            try:
                if way is not WHOLE or await self._state(domain) == _PAUSED:
                    await self._virsh(way.go_on, domain)
            except CommandFailed as error:
                log.warning("guest=%s thaw=failed try=%s reason=%s", domain, number + 1, error)
            else:
                self._forget(domain)
                return True
        if tries > 1:
            log.error("guest=%s may be frozen still: run virsh %s %s", domain, way.go_on, domain)
        return False

    def _begin(self, work: Coroutine[Any, Any, object]) -> None:
        task = asyncio.create_task(work)
        self._behind.add(task)
        task.add_done_callback(self._behind.discard)

    def _remember(self, domain: str, way: Way) -> None:
        self._notes.mkdir(mode=0o700, parents=True, exist_ok=True)
        note = self._notes / domain
        note.write_text(way.go_on, encoding="ascii")
        note.chmod(0o600)

    def _noted(self, domain: str) -> Way:
        """How it was held; an empty note is of a time when there was one way."""
        return WHOLE if (self._notes / domain).read_text(encoding="ascii") == WHOLE.go_on else FILESYSTEMS

    def _forget(self, domain: str) -> None:
        (self._notes / domain).unlink(missing_ok=True)

    async def _virsh(self, verb: str, domain: str) -> command.Result:
        return await command.run("virsh", "-q", "-c", self._libvirt, verb, domain, timeout_s=_VIRSH_S)


def notes_of(run_dir: str) -> str:
    """Where the notes are, in the agent's run directory."""
    return os.path.join(run_dir, "frozen")
