"""In a throw-away guest with one empty disk: thin clones by a backend, and by hand; in_guest_clones.py zfs|lvm.

Prints the seconds of each round as JSON: `1 GiB` and `1 TiB`, cloned and published by the backend, and `by hand` for 1 GiB;
and `about`, the kernel and the engine.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
import uuid

from onelun.errors import OnelunError
from onelun.model import Owner
from onelun.nas.backends.base import Backend
from onelun.nas.backends.lvm.backend import LvmBackend
from onelun.nas.backends.zfs.backend import ZfsBackend

GIB, ROUNDS, LIMIT_S = 1 << 30, 7, 120
SIZES = {"1 GiB": GIB, "1 TiB": 1024 * GIB}
DISK = os.environ.get("ONELUN_LAB_DISKS", "").split()
MAKE = {
    "lvm": (
        "vgcreate -q bench {}",
        "lvcreate -q -y --type thin-pool -c 512k -L 2T --poolmetadatasize 256M -n thin bench",
        "lvcreate -q -y -V 1G -T bench/thin -n by-hand",
    ),
    "zfs": (
        "zpool create -f -O mountpoint=none bench {}",
        "zfs create bench/onelun",
        "zfs create -s -V 1G bench/by-hand",
    ),
}
BY_HAND = {
    "lvm": ("lvcreate -q -s -kn -n by-hand-{} bench/by-hand",),
    "zfs": ("zfs snapshot bench/by-hand@{}", "zfs clone bench/by-hand@{} bench/by-hand-{}"),
}


VERSION = {"lvm": "lvm version", "zfs": "zfs version"}


def run(words: str) -> str:
    """The stdout of a command without spaces in its words; or end with what it says."""
    done = subprocess.run(words.split(), capture_output=True, text=True, timeout=LIMIT_S, check=False)
    if done.returncode:
        sys.exit(f"{words}: {done.stderr.strip()}")
    return done.stdout


async def made(backend: Backend, name: str, size_bytes: int) -> None:
    """An image with some data at its start."""
    volume = await backend.create(name, str(uuid.uuid4()), size_bytes, Owner("image"))
    device = await backend.activate(volume)
    run(f"dd if=/dev/urandom of={device} bs=1M count=32 oflag=direct conv=fsync,notrunc")
    await backend.deactivate(volume)
    await backend.publish(volume.uuid)


async def cloned(backend: Backend, origin: str, name: str) -> float:
    """The seconds until the clone is visible."""
    volume = await backend.find(origin)
    assert volume is not None
    began = time.perf_counter()
    clone = await backend.clone(volume, name, str(uuid.uuid4()), volume.size_bytes, Owner("disk"), lambda *_: None)
    await backend.publish(clone.uuid)
    return time.perf_counter() - began


async def main(engine: str) -> dict[str, object]:
    """All of it, in turn."""
    for words in MAKE[engine]:
        run(words.format(*DISK))
    backend: Backend = LvmBackend("tank", "bench", "thin") if engine == "lvm" else ZfsBackend("tank", "bench/onelun")
    await backend.open(str(uuid.uuid4()), None)
    for name, size_bytes in SIZES.items():
        await made(backend, name.replace(" ", "-").lower(), size_bytes)
    times: dict[str, list[float]] = {name: [] for name in (*SIZES, "by hand")}
    for number in range(ROUNDS + 1):
        # Each is the first as often: udev is still busy with the one before.
        for name in SIZES if number % 2 else reversed(SIZES):
            origin = name.replace(" ", "-").lower()
            times[name].append(await cloned(backend, origin, f"{origin}-{number}"))
        began = time.perf_counter()
        for words in BY_HAND[engine]:
            run(words.format(number, number))
        times["by hand"].append(time.perf_counter() - began)
    version = run(VERSION[engine]).split("\n")[0].split(":")[-1].strip()
    about = f"a guest with Linux {os.uname().release}, {engine} {version.removeprefix('zfs-')}"
    # The first round fills caches.
    return {"about": about, **{name: taken[1:] for name, taken in times.items()}}


if __name__ == "__main__":
    try:
        print(json.dumps(asyncio.run(main(sys.argv[1]))))
    except OnelunError as error:
        sys.exit(f"in_guest_clones: {error.sentence}")
