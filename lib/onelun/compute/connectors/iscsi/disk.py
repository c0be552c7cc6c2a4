"""The disk of a session: found, asked who it is, grown, removed.

The kernel does each of these in the writer's own call, and waits uninterruptibly while the path is dead; so another
process writes (`calls.Calls`), within a limit.
"""

from __future__ import annotations

import asyncio
import logging
import os
import stat
from collections.abc import Callable, Sequence

from onelun import command
from onelun.calls import Calls
from onelun.compute.connectors.base import Export
from onelun.compute.connectors.iscsi import inquiry, writing
from onelun.compute.connectors.iscsi.sysfs import RECOVERING, UP, Disk, Session, Sysfs, device_number
from onelun.compute.connectors.login import Identity, compare
from onelun.deadline import Deadline
from onelun.errors import CommandFailed, NotFound, Stalled, Unreachable
from onelun.numbers import is_number, number_in

log = logging.getLogger(__name__)

_SCAN_S = 6.0
_NODE_S = 8.0
_ASK_S = 6.0
_POLL_S = 0.02
# States of a SCSI device (drivers/scsi/scsi_sysfs.c): usable, and waiting for its session to come back.
_USABLE = ("running",)
_WAITING = ("blocked", "created-blocked")
_UDEV = "/run/udev"


class Disks:
    """Works on the disks that `sysfs` shows."""

    def __init__(self, sysfs: Sysfs, calls: Calls) -> None:
        self._sysfs = sysfs
        self._calls = calls

    async def appear(self, session: Session, luns: Sequence[int]) -> Disk:
        """The first of the LUNs that is a disk, with its block device's node made. No other LUN appears.

        Raises NotFound when none is, Stalled when its node does not come, Unreachable when the target does not answer.
        """
        for lun in luns:
            await self._write(self._sysfs.scan_file(session), f"0 {session.target_id} {lun}", _SCAN_S)
            disk = self._sysfs.disk(session, lun)
            if disk is not None and disk.kind == 0:
                return await self._with_node(session, lun)
        numbers = " or ".join(map(str, luns))
        raise NotFound(f"target {session.iqn} has no disk as LUN {numbers}", target=session.iqn)

    async def verify(self, disk: Disk, export: Export) -> Identity:
        """What the disk says of itself now. Raises Conflict when `export` says otherwise, Unreachable without an answer."""
        identity = await self.identity(disk)
        compare(export, identity)
        return identity

    async def identity(self, disk: Disk) -> Identity:
        """Size and serial as the target tells them now, not as the kernel remembers them."""
        node = f"/dev/bsg/{disk.hctl}"
        try:
            told = await self._calls.make(
                inquiry.__file__, node, timeout_s=_ASK_S, called=f"the question to {disk.node}"
            )
        except CommandFailed as error:
            raise Unreachable(f"{disk.node} does not say who it is: its target does not answer") from error
        except OSError as error:
            reason = os.strerror(error.errno or 0)
            raise Unreachable(f"{disk.node} does not say who it is: {reason}", device=disk.node) from error
        size, _, serial = told.strip().partition(" ")
        return Identity(disk.lun, number_in(size, f"the size that {disk.node} tells"), serial)

    async def rescan(self, session: Session, disk: Disk) -> Disk:
        """Have the kernel take over the LUN's size, and return the disk as it is then."""
        await self._write(f"{disk.directory}/rescan", "1", _SCAN_S)
        again = self._sysfs.disk(session, disk.lun)
        if again is None:
            raise NotFound(f"{disk.node} went away while it was looked at", device=disk.node)
        return again

    async def remove(self, disk: Disk, limit_s: float) -> None:
        """Remove the device, and what waits in its queue with it: that never reaches the target. Absent: nothing.

        It needs no iscsid and no answer from the target, but for commands that the target is working on. Raises
        Unreachable when those do not end.
        """
        deadline = Deadline.after(limit_s)
        try:
            await self._write(f"{disk.directory}/delete", "1", limit_s)
        except Unreachable:
            if os.path.isdir(disk.directory):
                raise
        if not await until(lambda: not os.path.isdir(disk.directory), deadline.left_s()):
            raise Unreachable(f"{disk.node} did not go within {limit_s:g} s", device=disk.node)

    async def settle(self, disk: Disk, since: float, by: Deadline) -> None:
        """Wait until udev is through with the disk, which it had not yet seen at `since` (monotonic, in seconds).

        It sets owner and mode when it comes to the device, and would undo what is set before. Not by then: it is logged.
        """
        if not await until(lambda: _udev_has_seen(disk, since), by.left_s()):
            log.warning("connect device=%s udev=slow", disk.node)

    async def _with_node(self, session: Session, lun: int) -> Disk:
        def there() -> bool:
            disk = self._sysfs.disk(session, lun)
            return disk is not None and bool(disk.name) and _node_of(disk)

        if not await until(there, _NODE_S):
            raise Stalled(f"no device node appeared for LUN {lun} of {session.iqn} within {_NODE_S:g} s")
        disk = self._sysfs.disk(session, lun)
        assert disk is not None
        return disk

    async def _write(self, path: str, text: str, limit_s: float) -> None:
        """Write to a file of sysfs. Raises Unreachable when the kernel does not come back, or refuses."""
        try:
            await self._calls.make(writing.__file__, path, text, timeout_s=limit_s, called=f"a write to {path}")
        except CommandFailed as error:
            raise Unreachable(error.sentence, path=path) from error
        except OSError as error:
            raise Unreachable(f"the kernel refuses a write to {path}: {error.strerror}", path=path) from error


def usable(session: Session, disk: Disk | None) -> bool:
    """Whether the disk takes commands now."""
    return disk is not None and bool(disk.name) and session.state == UP and disk.state in _USABLE


def waits(session: Session, disk: Disk | None) -> bool:
    """Whether the disk holds its commands back until its session has come back."""
    known = disk is not None and bool(disk.name) and disk.state in (*_USABLE, *_WAITING)
    return known and session.state in (UP, RECOVERING)


async def set_readonly(disk: Disk, *, readonly: bool) -> None:
    """Let the block device take writes, or not."""
    if disk.readonly != readonly:
        await command.run("blockdev", "--setro" if readonly else "--setrw", disk.node, timeout_s=_ASK_S)


async def until(met: Callable[[], bool], within_s: float) -> bool:
    """Whether `met` comes true in that time."""
    deadline = Deadline.after(within_s)
    while not met():
        if deadline.over():
            return False
        await asyncio.sleep(_POLL_S)
    return True


def _node_of(disk: Disk) -> bool:
    try:
        status = os.stat(disk.node)
    except OSError:
        return False
    return stat.S_ISBLK(status.st_mode) and device_number(disk) == (os.major(status.st_rdev), os.minor(status.st_rdev))


def _udev_has_seen(disk: Disk, since: float) -> bool:
    """Whether udev is through with the device, which it had not yet seen at `since` (monotonic, in seconds).

    An earlier device of that number may have left its entry; `I:` is the time of the first event, in microseconds.
    """
    number = device_number(disk)
    if number is None or not os.path.exists(f"{_UDEV}/control"):
        return True
    try:
        with open(f"{_UDEV}/data/b{number[0]}:{number[1]}", encoding="utf-8", errors="replace") as file:
            seen = next((line[2:] for line in file if line.startswith("I:")), "")
    except OSError:
        return False
    return is_number(seen.strip()) and int(seen) >= since * 1e6
