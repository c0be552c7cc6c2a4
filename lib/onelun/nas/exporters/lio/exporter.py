"""The exporter `lio`: targets of LIO, the target service in the kernel.

Nothing here touches LIO itself: worker processes do (worker.py), because the kernel may wait for a session, or for a
device behind it, for as long as it likes. Changes are made one at a time, as rtslib wants it; only the ending of sessions,
which is where the kernel waits, has workers of its own, so that one volume whose storage hangs keeps no other waiting.
Targets are not saved anywhere: after a boot the agent makes them again from what it knows.
"""

from __future__ import annotations

import asyncio
import logging

from onelun.deadline import Deadline
from onelun.errors import Busy, Stalled
from onelun.model import Portal, Target
from onelun.nas.exporters import rules
from onelun.nas.exporters.base import Exported, Exporter
from onelun.nas.exporters.device import check_device
from onelun.nas.exporters.lio import check
from onelun.nas.exporters.lio.process import Workers
from onelun.nas.exporters.lio.worker import Grow, List, Make, Remove, Shut

log = logging.getLogger(__name__)

_FENCES_AT_ONCE = 4
# The machine has one LIO. Not /run/lock, where every user may make a file first.
_LOCKS = "/run/onelun-nas"


class LioExporter(Exporter):
    """The targets of the NAS `nas` in this machine's kernel, at `portal`.

    `fence_s` is how long unexport may take, `request_s` how long one change, each counted from its turn.
    """

    lun = 0

    def __init__(self, nas: str, portal: Portal, *, fence_s: float = 15.0, request_s: float = 10.0) -> None:
        self.portal = portal
        self.lock = f"{_LOCKS}/{nas}.lock"
        self._nas = nas
        self._fence_s = fence_s
        self._request_s = request_s
        self._changes = Workers(at_once=1)
        self._fences = Workers(at_once=_FENCES_AT_ONCE)

    async def check(self) -> list[str]:
        """See the base."""
        return await check.obstacles(self.portal)

    async def export(self, target: Target) -> None:
        """See the base."""
        rules.check_target(self._nas, target)
        await check.load()
        await asyncio.to_thread(check_device, target)
        answer = await self._changes.ask(Make(self._nas, self.portal, target), self._request_s)
        log.info("export target=%s made=%s", target.iqn, answer.made)

    async def grow(self, target: Target) -> None:
        """See the base."""
        rules.check_target(self._nas, target)
        await check.load()
        await asyncio.to_thread(check_device, target)
        await self._changes.ask(Grow(self._nas, target), self._request_s)

    async def unexport(self, iqn: str) -> None:
        """See the base."""
        rules.check_iqn(self._nas, iqn)
        await check.load()
        deadline = Deadline.after(self._fence_s)
        while True:
            try:
                # The worker's own limit comes first: it says what it waited for.
                await self._fences.ask(Shut(iqn, 0.9 * self._fence_s), self._fence_s)
                await self._changes.ask(Remove(self._nas, iqn), self._request_s)
            except Stalled as error:
                raise Stalled(f"LIO does not let go of the target {iqn}: {error}", iqn=iqn) from error
            except Busy as error:
                if deadline.over():
                    raise Stalled(f"LIO does not let go of the target {iqn}: {error}", iqn=iqn) from error
            else:
                log.info("unexport target=%s", iqn)
                return

    async def exports(self) -> dict[str, Exported]:
        """See the base."""
        await check.load()
        answer = await self._changes.ask(List(self._nas), self._request_s)
        return {found.iqn: found for found in answer.targets}

    async def close(self) -> None:
        """End the workers. They would end with this process anyway."""
        await self._changes.close()
        await self._fences.close()
