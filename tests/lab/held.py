"""Maps, unmaps or deletes many volumes at once, and repeats what fails, as oned's operator would.

    held.py map|unmap|delete COUNT HOST...       volume N is mapped to the hosts in turn; a missing one is made

Prints how long it took and what failed on the way, once a sentence. Fails when anything has not succeeded after LIMIT_S.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter

from onelun.config import load
from onelun.deadline import Deadline
from onelun.errors import OnelunError
from onelun.rpc.client import Client
from onelun.rpc.link import Link
from onelun.rpc.message import DelZvol, MapZvol, Request, UnmapZvol

SIZE = 4 << 20
LIMIT_S = 300.0


def requests(verb: str, count: int, hosts: list[str]) -> list[Request]:
    """What is asked of the NAS."""
    wanted: list[Request] = []
    for number in range(count):
        name, host = f"held-{number}", hosts[number % len(hosts)]
        match verb:
            case "map":
                wanted.append(MapZvol(zvol=name, remotehost=host, size_bytes=SIZE))
            case "unmap":
                wanted.append(UnmapZvol(zvol=name, remotehost=host))
            case "delete":
                wanted.append(DelZvol(zvol=name))
            case _:
                sys.exit(__doc__)
    return wanted


async def main(verb: str, count: int, hosts: list[str]) -> None:
    """Ask for all of it."""
    config = load().config
    broker = config.broker
    link = Link(broker.url, name="held", exchange=broker.exchange, heartbeat_s=broker.heartbeat_s)
    client = Client(link, config.limits)
    failed: Counter[str] = Counter()
    began = time.monotonic()

    async def insist(request: Request) -> None:
        while True:
            try:
                await client.ask("nas1", request, deadline=Deadline.after(config.limits.finish_s))
                return
            except OnelunError as error:
                failed[f"{error.code}: {error.sentence}"] += 1
                if time.monotonic() - began > LIMIT_S:
                    raise
            await asyncio.sleep(0.5)

    await link.open()
    try:
        await asyncio.gather(*map(insist, requests(verb, count, hosts)))
    finally:
        print(f"{verb} {count}: {time.monotonic() - began:.1f} s")
        for sentence, times in failed.items():
            print(f"  {times} times {sentence}")
        await client.close()
        await link.close()


if __name__ == "__main__":
    try:
        asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3:]))
    except OnelunError as error:
        sys.exit(f"held: {error.sentence}")
