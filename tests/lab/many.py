"""Attach and detach many volumes at once, over and over: many.py COUNT ROUNDS HOST... makes, maps, unmaps and deletes them.

Volume N goes to the hosts in turn, and each round to the next one. Prints one line a round with its seconds; the first
error ends it with status 1.
"""

from __future__ import annotations

import asyncio
import sys
import time

from onelun.config import load
from onelun.deadline import Deadline
from onelun.errors import OnelunError
from onelun.rpc.client import Client
from onelun.rpc.link import Link
from onelun.rpc.message import DelZvol, MapZvol, UnmapZvol

SIZE = 4 << 20


async def main(count: int, rounds: int, hosts: list[str]) -> None:
    config = load().config
    broker = config.broker
    link = Link(broker.url, name="many", exchange=broker.exchange, heartbeat_s=broker.heartbeat_s)
    client = Client(link, config.limits)

    async def ask(request):
        return await client.ask("nas1", request, deadline=Deadline.after(config.limits.finish_s))

    await link.open()
    try:
        for turn in range(rounds):
            names = {f"many-{number}": hosts[(number + turn) % len(hosts)] for number in range(count)}
            began = time.monotonic()
            await asyncio.gather(
                *(ask(MapZvol(zvol=name, remotehost=host, size_bytes=SIZE)) for name, host in names.items())
            )
            mapped = time.monotonic()
            await asyncio.gather(*(ask(UnmapZvol(zvol=name, remotehost=host)) for name, host in names.items()))
            print(
                f"round {turn + 1}: mapped in {mapped - began:.1f} s, unmapped in {time.monotonic() - mapped:.1f} s",
                flush=True,
            )
        await asyncio.gather(*(ask(DelZvol(zvol=f"many-{number}")) for number in range(count)))
    finally:
        await client.close()
        await link.close()


if __name__ == "__main__":
    try:
        asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]))
    except OnelunError as error:
        sys.exit(f"many: {error.sentence}")
