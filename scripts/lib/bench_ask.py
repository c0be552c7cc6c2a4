"""On a lab's `front`: attach and detach through onelun, timed from the request to its reply; JSON on stdout.

bench_ask.py round VOLUME HOST: `map` and `unmap` seconds. bench_ask.py map|unmap|delete VOLUME HOST: one of them, which
with `map` makes a volume of 256 MiB where there is none.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

from onelun.config import load
from onelun.deadline import Deadline
from onelun.errors import OnelunError
from onelun.rpc.client import Client
from onelun.rpc.link import Link
from onelun.rpc.message import DelZvol, ListZvols, MapZvol, UnmapZvol

SIZE = 256 << 20
LIMIT_S = 60.0


async def main(verb: str, zvol: str, host: str) -> dict[str, object]:
    """Ask, and return how long each request took in seconds, and the device's lasting name on the host."""
    config = load().config
    broker = config.broker
    link = Link(broker.url, name="bench", exchange=broker.exchange, heartbeat_s=broker.heartbeat_s)
    client = Client(link, config.limits)
    requests = {
        "map": MapZvol(zvol=zvol, remotehost=host, size_bytes=SIZE),
        "unmap": UnmapZvol(zvol=zvol, remotehost=host),
        "delete": DelZvol(zvol=zvol),
    }
    found: dict[str, object] = {}
    await link.open()
    try:
        # The first request of a client also makes its queue.
        await client.ask("nas1", ListZvols(), deadline=Deadline.after(LIMIT_S))
        for name in ("map", "unmap") if verb == "round" else (verb,):
            began = time.perf_counter()
            reply = await client.ask("nas1", requests[name], deadline=Deadline.after(LIMIT_S))
            found[name] = time.perf_counter() - began
            found["device"] = getattr(reply, "device", found.get("device"))
    finally:
        await client.close()
        await link.close()
    return found


if __name__ == "__main__":
    try:
        print(json.dumps(asyncio.run(main(*sys.argv[1:]))))
    except OnelunError as error:
        sys.exit(f"bench_ask: {error.sentence}")
