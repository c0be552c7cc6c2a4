"""Which processes have block devices open, by a look at all open files of this host; one look serves all who ask meanwhile.

A look costs some 10 us a file, and the hosts of many VMs have tens of thousands: asked for one disk after the other, the
disks of a host that is emptied would wait for each other's.
"""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Iterator, Mapping
from weakref import WeakKeyDictionary

# To look at an open file of these may ask a server that does not answer.
_REMOTE = ("nfs", "cifs", "smb", "ceph", "fuse", "9p", "gluster", "afs")
Opened = Mapping[int, frozenset[int]]


class Looks:
    """The look that goes on now, and the one that begins when it has ended."""

    def __init__(self) -> None:
        self._now: asyncio.Task[Opened] | None = None
        self._next: asyncio.Task[Opened] | None = None

    async def opened(self) -> Opened:
        """The pids by device number, as a look that began after this call has found them."""
        if self._next is None:
            self._next = asyncio.create_task(self._look(self._now))
        # Whoever gives up takes it from nobody else.
        return await asyncio.shield(self._next)

    async def _look(self, before: asyncio.Task[Opened] | None) -> Opened:
        if before is not None:
            await asyncio.wait([before])
        self._now, self._next = self._next, None
        return await asyncio.to_thread(look)


_of_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, Looks] = WeakKeyDictionary()


async def opened() -> Opened:
    """Looks.opened, shared by all who ask on this event loop. Processes of other users need root."""
    return await _of_loop.setdefault(asyncio.get_running_loop(), Looks()).opened()


def look() -> Opened:
    """The pids that have block devices open, by the devices' numbers."""
    remote = tuple(
        fields[4].rstrip("/") + "/" for fields in mounts() if fields[fields.index("-") + 1].startswith(_REMOTE)
    )
    found: dict[int, set[int]] = {}
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        for number in _devices_of(pid, remote):
            found.setdefault(number, set()).add(int(pid))
    return {number: frozenset(pids) for number, pids in found.items()}


def mounts() -> list[list[str]]:
    """The lines of proc(5) mountinfo: the third field is the device, the fifth the place."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        return [line.split() for line in file]


def _devices_of(pid: str, remote: tuple[str, ...]) -> Iterator[int]:
    try:
        descriptors = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return
    for descriptor in descriptors:
        path = f"/proc/{pid}/fd/{descriptor}"
        try:
            text = os.readlink(path)
            # A device in another mount namespace (libvirt gives QEMU a /dev of its own) shows under any path.
            if not text.startswith("/") or text.startswith(remote):
                continue
            status = os.stat(path)
        except OSError:
            continue
        if stat.S_ISBLK(status.st_mode):
            yield status.st_rdev
