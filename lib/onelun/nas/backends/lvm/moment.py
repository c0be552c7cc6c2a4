"""One moment of a thin pool's metadata, held still for a tool that walks through it while the pool goes on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from onelun import command
from onelun.ending import to_its_end
from onelun.nas.backends.lvm.thinpool import ThinPool

_DMSETUP_S = 30.0


class Moments:
    """The moments of one pool, which shows one at a time."""

    def __init__(self, pool: ThinPool) -> None:
        self._pool = pool
        self._turn = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def one(self) -> AsyncIterator[str]:
        """The path of the pool's metadata, of which a tool with --metadata-snap sees one moment inside the body."""
        async with self._turn:
            name = (await self._pool.active()).name
            # One that an interruption left would be an old moment; to release none is an error that means nothing.
            await self._release(name)
            try:
                await command.run("dmsetup", "message", name, "0", "reserve_metadata_snap", timeout_s=_DMSETUP_S)
                yield f"/dev/mapper/{self._pool.devices.dm_name(self._pool.thin_pool)}_tmeta"
            finally:
                await to_its_end(self._release(name))

    async def release(self, name: str) -> None:
        """Let go of the moment that a process held which died; `name` is the thin pool's device. None held: nothing."""
        async with self._turn:
            await self._release(name)

    async def _release(self, name: str) -> None:
        await command.run("dmsetup", "message", name, "0", "release_metadata_snap", timeout_s=_DMSETUP_S, check=False)
