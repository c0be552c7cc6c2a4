"""When a host is ready for its VMs: each NAS that had something here has given it back.

An agent connects nothing by itself after a boot; a NAS that finds it back tells what is in force. Which ones to await is
kept in the state directory, because that is all that a reboot leaves. It is a hint for the order at boot and no truth: a
lost file makes the agent ready at once.
"""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path

import msgspec

log = logging.getLogger(__name__)


class Readiness:
    """The NASes that have attachments here, in the file `path`."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._known = self._read()
        self._awaited = set(self._known)
        self._settled = asyncio.Event()
        self._look()

    def holds(self, nases: set[str]) -> None:
        """Of these NASes something is attached now; after a reboot they are awaited."""
        known = nases | self._awaited
        if known != self._known:
            self._write(known)

    def synced(self, nas: str) -> None:
        """The NAS has told everything that is in force."""
        self._awaited.discard(nas)
        self._look()

    async def wait(self, within_s: float) -> frozenset[str]:
        """Wait until no NAS is awaited, or `within_s` seconds; return those that did not come."""
        try:
            async with asyncio.timeout(within_s):
                await self._settled.wait()
        except TimeoutError:
            log.warning("ready missing=%s after_s=%g", ",".join(sorted(self._awaited)), within_s)
        return frozenset(self._awaited)

    def _look(self) -> None:
        if not self._awaited:
            self._settled.set()

    def _read(self) -> set[str]:
        try:
            return set(msgspec.json.decode(self._path.read_bytes(), type=list[str]))
        except (FileNotFoundError, ValueError):
            return set()

    def _write(self, known: set[str]) -> None:
        self._known = known
        new = f"{self._path}.new"
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.encode(sorted(known)))
            file.flush()
            os.fsync(file.fileno())
        os.rename(new, self._path)
