"""A zvol's device node: when it is there, whose it is, and who has it open.

udev makes /dev/zvol/DATASET some time after the zvol, and moves it some time after a rename: until then the name may be
missing or lead to the zvol that had it before. So the device itself is asked for its dataset.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import time

from onelun import command
from onelun.errors import Busy, CommandFailed, Stalled
from onelun.nas.backends.zfs.command import Zfs

DEVICES = "/dev/zvol"
# include/sys/fs/zfs.h: BLKZNAME, _IOR(0x12, 125, char[256]).
_BLKZNAME = 0x8100127D
_LONGEST = 256
_POLL_S = 0.02
_TRIGGER_S = 10.0
# Who looks into every new or changed device for a moment.
_PASSING = ("(udev-worker)", "systemd-udevd", "udevd")


class Devices:
    """The nodes of one pool's zvols; each is waited for at most `limit_s`."""

    def __init__(self, zfs: Zfs, limit_s: float) -> None:
        self._zfs = zfs
        self.limit_s = limit_s

    def path(self, leaf: str) -> str:
        """The node of the dataset `leaf` below the pool's."""
        return f"{DEVICES}/{self._zfs.dataset}/{leaf}"

    async def wait(self, leaf: str) -> str:
        """The node, once it is there and leads to that very zvol. Raises Stalled when it does not in time."""
        path = self.path(leaf)
        end = time.monotonic() + self.limit_s
        nudge = time.monotonic() + self.limit_s / 2
        while not await asyncio.to_thread(_leads_to, path, f"{self._zfs.dataset}/{leaf}"):
            now = time.monotonic()
            if now > end:
                raise Stalled(
                    f"{path} did not appear within {self.limit_s:g} s: see whether udev runs, and its rule 60-zvol.rules"
                )
            if now > nudge:
                nudge = end + 1.0
                await _trigger()
            await asyncio.sleep(_POLL_S)
        return path

    async def check_closed(self, leaf: str, name: str) -> None:
        """Raises Busy, naming who, when somebody has the volume `name` open."""
        if who := await self.openers(leaf):
            raise Busy(f"{name} in pool {self._zfs.pool} is open: {', '.join(who)} has it", zvol=name)

    async def openers(self, leaf: str) -> list[str]:
        """Who has the zvol open, but for udev, in words."""
        path = self.path(leaf)
        if not await asyncio.to_thread(_leads_to, path, f"{self._zfs.dataset}/{leaf}"):
            return []
        return await asyncio.to_thread(_openers, os.path.realpath(path))


def _leads_to(path: str, dataset: str) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        answer = fcntl.ioctl(descriptor, _BLKZNAME, bytes(_LONGEST))
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return answer.partition(b"\0")[0] == os.fsencode(dataset)


def _openers(device: str) -> list[str]:
    found = [f"the process {name} ({pid})" for pid, name in _processes(device)]
    try:
        # Refused while a target, a mount or a device mapper claims it (open(2), O_EXCL without O_CREAT).
        os.close(os.open(device, os.O_RDONLY | os.O_EXCL | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError as error:
        if error.errno == errno.EBUSY:
            found.append("the kernel (a target, a mount or a device mapper)")
    return found


def _processes(device: str) -> list[tuple[int, str]]:
    """Who has the node open. Links are read, not followed: a file on a dead server must not hang us."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            for descriptor in os.listdir(f"/proc/{pid}/fd"):
                if os.readlink(f"/proc/{pid}/fd/{descriptor}") == device:
                    with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as comm:
                        name = comm.read().strip()
                    if name not in _PASSING:
                        found.append((int(pid), name))
                    break
    return found


async def _trigger() -> None:
    """Let udev look again at every zvol: it may have lost the event, or have read the name before the rename."""
    with contextlib.suppress(CommandFailed):
        await command.run(
            *("udevadm", "trigger", "--action=change", "--subsystem-match=block", "--sysname-match=zd*"),
            timeout_s=_TRIGGER_S,
        )
