"""Requests of the front-end's own, without a script: on a sandbox, and on a lab's `front`."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from onelun.config import Config
from onelun.deadline import Deadline
from onelun.rpc.client import Client
from onelun.rpc.link import Link
from onelun.rpc.message import ListZvols, Reply, Request

LIMIT_S = 60.0
NAS = "nas1"
Ask = Callable[[Request], Awaitable[Reply]]


@contextlib.asynccontextmanager
async def asking(config: Config) -> AsyncIterator[Ask]:
    """What asks the NAS, as this configuration has it. Raises OnelunError."""
    broker = config.broker
    link = Link(broker.url, name="bench", exchange=broker.exchange, heartbeat_s=broker.heartbeat_s)
    client = Client(link, config.limits)

    async def ask(request: Request) -> Reply:
        return await client.ask(NAS, request, deadline=Deadline.after(LIMIT_S))

    await link.open()
    try:
        # The first request of a client also makes its queue.
        await ask(ListZvols(name="bench"))
        yield ask
    finally:
        await client.close()
        await link.close()
