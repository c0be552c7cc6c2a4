"""LUNs of a NAS that are there for one reader or writer alone, for as long as the front-end renews the lease."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Generic, TypeVar

import msgspec

from onelun.driver.running import Run
from onelun.errors import NoReply, Unreachable
from onelun.lun import Lun
from onelun.rpc.message import ImportRenewed, RenewImport, ZvolImporting, ZvolReadable

_Offered = TypeVar("_Offered", ZvolImporting, ZvolReadable)


class Leased(msgspec.Struct, Generic[_Offered], frozen=True):
    """One LUN of the NAS `nas`, in its pool `pool`, as the reply that offered it tells it."""

    nas: str
    pool: str
    offered: _Offered
    initiator: str

    @property
    def lun(self) -> Lun:
        """How it is opened."""
        told = self.offered
        return Lun(told.iqn, told.address, told.port, told.user, told.secret, told.lun, self.initiator)

    async def check_portal(self) -> None:
        """Try the port first. Raises Unreachable."""
        if (reason := await self.lun.out_of_reach()) is not None:
            portal = f"{self.offered.address}:{self.offered.port}"
            raise Unreachable(f"the front-end cannot reach the iSCSI portal {portal} of {self.nas}: {reason}")

    @contextlib.asynccontextmanager
    async def kept(self, run: Run) -> AsyncIterator[None]:
        """Renew the lease while the body runs; end the body with an error when it is lost."""
        try:
            async with asyncio.TaskGroup() as tasks:
                renewing = tasks.create_task(self._renew(run))
                yield
                renewing.cancel()
        except ExceptionGroup as group:
            # The group holds the body's error, or that of the renewing which ended the body.
            raise group.exceptions[0] from None

    async def _renew(self, run: Run) -> None:
        failed_s = 0.0
        lease_s = self.offered.lease_s
        pause_s = lease_s / 3
        while True:
            await asyncio.sleep(pause_s)
            request = RenewImport(zpool=self.pool, uuid=self.offered.uuid)
            try:
                await run.ask(self.nas, request, ImportRenewed, within_s=pause_s)
                failed_s = 0.0
            except (Unreachable, NoReply):
                # A broker or an agent that restarts is back before the lease is over.
                failed_s += pause_s
                if failed_s >= lease_s:
                    raise
