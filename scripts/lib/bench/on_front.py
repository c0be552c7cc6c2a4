"""On a lab's `front`: attach and detach through onelun, timed from the request to its reply; JSON on stdout.

on_front.py round VOLUME HOST: `map` and `unmap` seconds. on_front.py map|unmap|delete VOLUME HOST: one of them, which
with `map` makes a volume of 256 MiB where there is none. on_front.py image, clone VM: scripts, as oned runs them; an image of
256 MiB, and the `clone` of it for a VM on host01, attached, from exec to exit. It is deleted again, untimed.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time

from scripts.lib.bench.asking import asking
from scripts.lib.oned import Image, Oned, Outcome

from onelun.config import load
from onelun.errors import OnelunError
from onelun.rpc.message import DelZvol, MapZvol, UnmapZvol

SIZE_MB = 256
IMAGE = 1


async def request(verb: str, zvol: str, host: str) -> dict[str, object]:
    """Ask, and return how long each request took in seconds, and the device's lasting name on the host."""
    requests = {
        "map": MapZvol(zvol=zvol, remotehost=host, size_bytes=SIZE_MB << 20),
        "unmap": UnmapZvol(zvol=zvol, remotehost=host),
        "delete": DelZvol(zvol=zvol),
    }
    found: dict[str, object] = {}
    async with asking(load().config) as ask:
        for name in ("map", "unmap") if verb == "round" else (verb,):
            began = time.perf_counter()
            reply = await ask(requests[name])
            found[name] = time.perf_counter() - began
            found["device"] = getattr(reply, "device", found.get("device"))
    return found


def done(outcome: Outcome) -> float:
    """Its seconds, or the end with its words."""
    if outcome.status:
        sys.exit(f"on_front: {outcome.stderr.strip()}")
    return outcome.seconds


def script(verb: str, vm: str = "0") -> dict[str, object]:
    """Run it, and return its seconds."""
    datastores = os.environ["ONELUN_DATASTORES"]
    names = ("ONELUN_CONFIG", "ONELUN_SOCKET")
    oned = Oned("7.5", datastores, {name: os.environ[name] for name in names})
    if verb == "image":
        return {verb: done(oned.datastore("mkfs", Image(IMAGE, "bench", SIZE_MB)))}
    at = f"host01:{oned.directory(int(vm))}/disk.0"
    took = done(oned.transfer("clone", f"frontend:nas1/tank/one-{IMAGE}", at, vm=int(vm)))
    done(oned.transfer("delete", at, vm=int(vm)))
    return {verb: took}


def main(verb: str, *words: str) -> dict[str, object]:
    """The one or the other."""
    return script(verb, *words) if verb in ("image", "clone") else asyncio.run(request(verb, *words))


if __name__ == "__main__":
    try:
        print(json.dumps(main(*sys.argv[1:])))
    except OnelunError as error:
        sys.exit(f"on_front: {error.sentence}")
