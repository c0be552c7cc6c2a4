"""The compute agent's own round: connections that should have come back by themselves are helped along."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

from onelun.compute.connectors.base import Connector

log = logging.getLogger(__name__)

EVERY_S = 10.0


@contextlib.asynccontextmanager
async def tending(connector: Connector, *, every_s: float = EVERY_S) -> AsyncIterator[None]:
    """Tend the connector's connections while the body serves."""
    rounds = asyncio.create_task(_tend(connector, every_s), name="tending")
    try:
        yield
    finally:
        rounds.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await rounds


async def _tend(connector: Connector, every_s: float) -> None:
    while True:
        try:
            await connector.tend()
        except Exception:
            # Nothing of it is to end the agent; the next round meets it again.
            log.exception("tend failed")
        await asyncio.sleep(every_s)
