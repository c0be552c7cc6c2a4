"""Block devices of this host: who has one open, and its last writes made durable."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import stat
import sys
from collections.abc import Callable, Iterable

from onelun import command
from onelun.beneath import Owner
from onelun.calls import Calls
from onelun.compute import flush as program
from onelun.compute import looks, processes
from onelun.errors import Busy, CommandFailed

# A probe by udev or blkid has the device open for some milliseconds after it appears, and after each writer closed it.
_PROBED_S = (0.05, 0.1, 0.2, 0.4)
# On a busy host udev comes to it later, and takes longer.
_PROBED_LATE_S = (0.8, 1.6, 3.2)
_PROBERS = ("(udev-worker)", "systemd-udevd", "udevd", "blkid")


def give(device: str, owner: Owner, *, readonly: bool) -> None:
    """Let `owner` open the device, besides root. A device that is no block device is left as it is."""
    status = os.stat(device)
    if not stat.S_ISBLK(status.st_mode) or os.geteuid() != 0:
        return
    os.chown(device, owner.uid, owner.gid)
    os.chmod(device, 0o440 if readonly else 0o660)


async def flush(device: str, *, timeout_s: float, calls: Calls | None = None) -> None:
    """Write out what the kernel still holds for `device`, and have the NAS make it durable; by `calls` it takes less to begin.

    Raises Busy when the device is mounted, swapped on, or held by another device (open(2), O_EXCL); CommandFailed when the
    writes fail or take longer.
    """
    if calls is None:
        argv = (sys.executable, "-I", "-S", program.__file__, device)
        status = (await command.run(*argv, timeout_s=timeout_s, check=False)).status
    else:
        status = await _flushed(device, calls, timeout_s)
    if status == errno.EBUSY:
        raise Busy(
            f"{device} is in use: {'; '.join(_claims(_numbers(os.stat(device).st_rdev))) or 'something holds it'}",
            device=device,
        )
    if status != 0:
        reason = os.strerror(status) if status > 0 else f"signal {-status}"
        raise CommandFailed(f"cannot flush {device}: {reason}", device=device, status=status)


async def _flushed(device: str, calls: Calls, timeout_s: float) -> int:
    try:
        await calls.make(program.__file__, device, timeout_s=timeout_s, called=f"the flush of {device}")
    except OSError as error:
        return error.errno or errno.EIO
    return 0


async def refuse_if_open(device: str) -> None:
    """Raise Busy, naming who it is, while anybody on this host has `device` open."""
    for wait_s in (*_PROBED_S, *_PROBED_LATE_S, None):
        holders = await openers(device)
        if not holders:
            return
        using = [] if wait_s in _PROBED_S else await users(device)
        if using or wait_s is None:
            raise Busy(f"{device} is in use: {'; '.join(holders)}", device=device)
        await asyncio.sleep(wait_s)


async def openers(device: str) -> list[str]:
    """Who has `device` or a partition of it open: other devices, mounts, processes, as words for a person.

    Other processes need root.
    """
    return await _openers(device, lambda _: True)


async def users(device: str) -> list[str]:
    """The openers but for those that look at each new device for a moment: udev, and what its rules start."""
    return await _openers(device, _uses)


async def _openers(device: str, counts: Callable[[int], bool]) -> list[str]:
    try:
        status = os.stat(device)
    except OSError:
        return []
    if not stat.S_ISBLK(status.st_mode):
        return []
    numbers = _numbers(status.st_rdev)
    opened = await looks.opened()
    pids = filter(counts, sorted(set().union(*(opened.get(number, ()) for number in numbers))))
    return [*_claims(numbers), *(f"process {pid} ({_name(pid)})" for pid in pids)]


def _claims(numbers: Iterable[int]) -> list[str]:
    found = []
    mounted = looks.mounts()
    for number in sorted(numbers):
        major_minor = f"{os.major(number)}:{os.minor(number)}"
        holders: list[str] = []
        with contextlib.suppress(OSError):
            holders = sorted(os.listdir(f"/sys/dev/block/{major_minor}/holders"))
        found += [f"device {name} is built on it" for name in holders]
        found += [f"mounted on {fields[4]}" for fields in mounted if fields[2] == major_minor]
    return found


def _numbers(number: int) -> frozenset[int]:
    """The device and its partitions: the kernel of a host finds those of a VM's disk, as the VM does."""
    found = {number}
    place = f"/sys/dev/block/{os.major(number)}:{os.minor(number)}"
    with contextlib.suppress(OSError):
        for name in os.listdir(place):
            with contextlib.suppress(OSError, ValueError), open(f"{place}/{name}/dev", encoding="ascii") as file:
                major, _, minor = file.read().strip().partition(":")
                found.add(os.makedev(int(major), int(minor)))
    return frozenset(found)


def _uses(pid: int) -> bool:
    """Whether the process is there, and neither it nor one above it is a prober: udev's rules start scsi_id and others."""
    if processes.parent(pid) is None:
        return False
    above: int | None = pid
    while above:
        if _name(above) in _PROBERS:
            return False
        above = processes.parent(above)
    return True


def _name(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return "gone"
