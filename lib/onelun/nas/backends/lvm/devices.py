"""The devices behind LVs: where they are, whether they are there and open, and what the kernel says of a thin pool."""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterable

import msgspec

from onelun import command
from onelun.calls import Calls
from onelun.errors import CommandFailed, Stalled
from onelun.nas.backends.lvm import durable
from onelun.nas.backends.lvm.tool import Lvm
from onelun.numbers import is_number

_DMSETUP_S = 30.0
# Writing back what is in the page cache; a thin pool that is full keeps it waiting for 60 s before it gives up.
_SYNC_S = 90.0
# Documentation/admin-guide/device-mapper/thin-provisioning.rst, "Status" of thin-pool; with errors it is one word.
_STATUS = re.compile(
    r"(?P<name>\S+): 0 [0-9]+ thin-pool "
    r"(?:(?P<word>Fail|Error)"
    r"|[0-9]+ (?P<metadata_used>[0-9]{1,18})/(?P<metadata>[0-9]{1,18})"
    r" (?P<data_used>[0-9]{1,18})/(?P<data>[0-9]{1,18}) (?P<held>\S+) (?P<rest>.*))"
)


class PoolStatus(msgspec.Struct, frozen=True):
    """How full a thin pool is, in blocks, and what is wrong with it, as words for a sentence.

    `name` is its device's; `held` says that a moment of its metadata is held for somebody who walks through it.
    """

    name: str
    metadata_used: int = 0
    metadata: int = 0
    data_used: int = 0
    data: int = 0
    wrong: str | None = None
    held: bool = False


class Devices:
    """The devices of one volume group."""

    def __init__(self, lvm: Lvm, calls: Calls, thin_pool: str, *, udev_s: float) -> None:
        self._lvm = lvm
        self._calls = calls
        self._thin_pool = thin_pool
        self._udev_s = udev_s

    def path(self, lv: str) -> str:
        """Where the LV's device is while it is active."""
        return f"/dev/{self._lvm.vg}/{lv}"

    def dm_name(self, lv: str) -> str:
        """The name of the LV's device in the kernel: `-` is doubled, so that the one between VG and LV is told apart."""
        return f"{self._lvm.vg.replace('-', '--')}-{lv.replace('-', '--')}"

    def ready(self, lv: str) -> bool:
        """Whether the path leads to the LV's own device, which answers. A link left over from another one does not count."""
        try:
            about = os.stat(self.path(lv))
            if not stat.S_ISBLK(about.st_mode):
                return False
            dm = f"/sys/dev/block/{os.major(about.st_rdev)}:{os.minor(about.st_rdev)}/dm"
            return _text(f"{dm}/name") == self.dm_name(lv) and _text(f"{dm}/suspended") == "0"
        except OSError:
            return False

    async def wait(self, lv: str) -> str:
        """The path, once udev has made it. Raises Stalled when it has not in time."""
        path = self.path(lv)
        if not self.ready(lv):
            await self._lvm.settle(path)
        if not self.ready(lv):
            raise Stalled(
                f"{path} did not appear within {self._udev_s:g} s after it was activated: see that udev runs",
                device=path,
            )
        return path

    async def opened(self, lv: str) -> bool | None:
        """Whether somebody has the device open; None when there is no device."""
        count = await self._open_count(lv)
        if count:
            # udev and what it starts open a device for a moment after each change.
            await self._lvm.settle()
            count = await self._open_count(lv)
        return None if count is None else count > 0

    async def _open_count(self, lv: str) -> int | None:
        columns = ("--columns", "--noheadings", "-o", "open")
        result = await command.run("dmsetup", "info", *columns, self.dm_name(lv), timeout_s=_DMSETUP_S, check=False)
        count = result.stdout.strip()
        return int(count) if result.status == 0 and is_number(count) else None

    async def suspended(self, lvs: Iterable[str]) -> list[str]:
        """Those of the LVs whose device is suspended, the thin pool's first: a killed command leaves them so."""
        columns = ("--columns", "--noheadings", "--separator", " ", "-o", "name,suspended")
        told = await command.run("dmsetup", "info", *columns, timeout_s=_DMSETUP_S)
        asleep = {line.split()[0] for line in told.stdout.splitlines() if line.endswith(" Suspended")}
        pool = {f"{self.dm_name(self._thin_pool)}{layer}" for layer in ("", "-tpool", "_tdata", "_tmeta")}
        found = [self._thin_pool] if pool & asleep else []
        return found + [lv for lv in lvs if self.dm_name(lv) in asleep]

    async def flush(self, lv: str) -> None:
        """Bring what was written to the volume to stable storage. An inactive one was flushed when it was deactivated."""
        path = self.path(lv)
        if self.ready(lv):
            try:
                await self._calls.make(durable.__file__, path, timeout_s=_SYNC_S, called=f"the flush of {path}")
            except OSError as error:
                raise CommandFailed(f"cannot flush {path}: {error.strerror}", device=path) from error

    async def pool_status(self) -> PoolStatus | None:
        """What the kernel says of the thin pool; None while it is not active."""
        told = await command.run("dmsetup", "status", "--target", "thin-pool", timeout_s=_DMSETUP_S)
        return read_status(told.stdout, self.dm_name(self._thin_pool))


def read_status(printed: str, name: str) -> PoolStatus | None:
    """The status of the thin pool of that name, of all that `dmsetup status` printed; None when it is not there."""
    found = {match["name"]: match for line in printed.splitlines() if (match := _STATUS.match(line))}
    # Once a volume was active, a layer of that name has taken the pool's place (lvmthin(7)).
    match = found.get(f"{name}-tpool") or found.get(name)
    return None if match is None else _status(match)


def _status(match: re.Match[str]) -> PoolStatus:
    if match["word"] is not None:
        return PoolStatus(match["name"], wrong="has failed")
    words = match["rest"].split()
    wrong = None
    if "needs_check" in words:
        wrong = "needs its metadata checked"
    elif "ro" in words:
        wrong = "is read-only"
    numbers = {key: int(match[key]) for key in ("metadata_used", "metadata", "data_used", "data")}
    return PoolStatus(match["name"], **numbers, wrong=wrong, held=match["held"] != "-")


def _text(path: str) -> str:
    with contextlib.closing(open(path)) as file:
        return file.read().strip()
