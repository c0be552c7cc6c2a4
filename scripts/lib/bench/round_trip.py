"""What TLS costs: a request to an agent and its answer, over a broker with certificates and over one with passwords."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

from tests.support.broker import PrivateBroker

from onelun.config import Limits
from onelun.deadline import Deadline
from onelun.rpc.authority import Authority
from onelun.rpc.client import Client
from onelun.rpc.job import Job
from onelun.rpc.journal import Journal
from onelun.rpc.link import Link
from onelun.rpc.message import ListZvols, ZvolList
from onelun.rpc.server import Server
from onelun.rpc.setup import Broker, grants

LIMIT_S = 30.0


class RoundTrips(NamedTuple):
    """What requests and their answers took, in seconds, in the order in which they were asked in turn."""

    plain_s: list[float]
    tls_s: list[float]


def round_trips(rounds: int = 400) -> RoundTrips:
    """Measure both in turn, request by request, so that what else the machine does meets both alike."""
    with tempfile.TemporaryDirectory(prefix="onelun-bench-tls-") as directory:
        made = Path(directory)
        asyncio.run(Authority(directory).make(["frontend", "nas.nas1"], ["127.0.0.1"]))
        with PrivateBroker() as plain, PrivateBroker(tls=made) as tls:
            urls = plain.set_up(frontends=["frontend"], nas=["nas1"])
            asyncio.run(Broker(tls.rabbitmqctl_path, "/").set_up(grants(["frontend"], ["nas1"], []), {}))
            address = f"@{tls.host_port}/%2F?cafile={made}/ca.pem&certfile={made}/"
            safe = {user: f"amqps://{user}{address}{user}.pem" for user in urls}
            return asyncio.run(_measured(made, urls, safe, rounds))


async def _measured(directory: Path, plain: dict[str, str], tls: dict[str, str], rounds: int) -> RoundTrips:
    async with _asking(directory / "plain", plain) as by_password, _asking(directory / "tls", tls) as by_certificate:
        taken: tuple[list[float], list[float]] = ([], [])
        for turn in range(rounds + 20):
            for client, times in zip((by_password, by_certificate), taken, strict=True):
                began = time.perf_counter()
                await client.ask("nas1", ListZvols(), deadline=Deadline.after(LIMIT_S))
                # The first ones open channels and queues.
                if turn >= 20:
                    times.append(time.perf_counter() - began)
        return RoundTrips(*taken)


@contextlib.asynccontextmanager
async def _asking(journal: Path, urls: dict[str, str]) -> AsyncIterator[Client]:
    """A frontend's client, beside an agent that answers at once."""
    nas, frontend = Link(urls["nas.nas1"], name="nas1"), Link(urls["frontend"], name="frontend")
    kept, client = Journal(str(journal)), Client(frontend, Limits())
    server = Server(nas, "nas1", kept, {ListZvols: _nothing}, role="nas", limits=Limits())
    await nas.open()
    await frontend.open()
    serving = asyncio.create_task(server.serve())
    try:
        async with asyncio.timeout(LIMIT_S):
            await server.serving.wait()
        yield client
    finally:
        await client.close()
        serving.cancel()
        await asyncio.wait({serving})
        await kept.close()
        await frontend.close()
        await nas.close()


async def _nothing(request: ListZvols, job: Job) -> ZvolList:
    return ZvolList(body=[])
