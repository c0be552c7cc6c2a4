"""Running LVM's commands on one volume group: what they report, what they change, and what their errors mean.

LVM locks a volume group for each command and reads its whole metadata, so more commands at once would only wait for each
other: one changes and one reports at a time. A command that changes something is never killed when its caller is
cancelled: it could leave a device suspended, with all I/O of the pool behind it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Generic, TypeVar

import msgspec

from onelun import command
from onelun.ending import to_its_end
from onelun.errors import Busy, CommandFailed, NotFound, OnelunError, OutOfSpace, ProtocolError

_Result = TypeVar("_Result")

# What is not a copy is answered within 120 s; a killed LVM command is worse than a late one.
_REPORT_S = 60.0
_CHANGE_S = 100.0
# Backups of the metadata stay; the archive would keep a copy of it for each change, and there are many.
_SETTINGS = ("--config", "backup { archive = 0 }")
# Cinder retries LVM's commands when they die of SIGSEGV (status 139 in a shell), which they sometimes do.
_TRIES = 3
_SEGMENTATION_FAULT = -11

_NO_GROUP = re.compile(r'Volume group "[^"]*" not found')
_ABSENT = re.compile(r"Failed to find logical volume|not found in volume group|Existing logical volume .* not found")
_IN_USE = re.compile(r"\bin use\b|resource busy|is used by another device")
_FULL = re.compile(
    r"reached threshold|Insufficient free space|too large for circular buffer|insufficient suitable .* extents"
)


class Lvm:
    """LVM's commands on the volume group `vg`, for the pool `pool`."""

    def __init__(self, pool: str, vg: str, *, udev_s: float) -> None:
        self.pool = pool
        self.vg = vg
        self._udev_s = udev_s
        self._changing = asyncio.Lock()

    async def report(self, tool: str, columns: str, *names: str) -> list[dict[str, str]]:
        """The rows that `lvs` or `vgs` prints, each with all the columns, sizes in bytes.

        Raises as `change` does, and ProtocolError.
        """
        argv = (tool, "--reportformat", "json", "--units", "b", "--nosuffix", "-o", columns, *names)
        result = await _tried(lambda: command.run(*argv, timeout_s=_REPORT_S, check=False))
        if result.status != 0:
            raise self._meaning(tool, result)
        try:
            told = msgspec.json.decode(result.stdout, type=dict[str, list[dict[str, list[dict[str, str]]]]])
            rows = [row for report in told["report"] for rows in report.values() for row in rows]
        except (msgspec.DecodeError, KeyError) as error:
            raise ProtocolError(f"what {tool} printed is no report: {error}") from error
        for row in rows:
            if lacking := [column for column in columns.split(",") if column not in row]:
                raise ProtocolError(f"what {tool} printed has no {', '.join(lacking)}")
        return rows

    async def change(self, tool: str, *argv: str) -> None:
        """Run a command that changes the volume group; only inside `alone`.

        Raises NotFound, Busy, OutOfSpace as LVM's message means it, else CommandFailed.
        """
        result = await self._changed(tool, *argv)
        if result.status != 0 and _IN_USE.search(result.stderr):
            # udev and what it starts open a device for a moment after each change.
            await self.settle()
            result = await self._changed(tool, *argv)
        if result.status != 0:
            raise self._meaning(tool, result)

    async def settle(self, path: str | None = None) -> None:
        """Wait until udev has no events left, or `path` exists. Time over: nothing is raised."""
        until = [f"--exit-if-exists={path}"] if path is not None else []
        await command.run(
            "udevadm",
            "settle",
            f"--timeout={max(1, round(self._udev_s))}",
            *until,
            timeout_s=self._udev_s + 5.0,
            check=False,
        )

    async def alone(self, step: Callable[[], Coroutine[Any, Any, _Result]]) -> _Result:
        """Run a step as the only one that changes the volume group.

        Cancelled while it waits for its turn, it never begins; cancelled later, it ends first (see `to_its_end`).
        """
        await self._changing.acquire()
        running = asyncio.ensure_future(step())
        running.add_done_callback(lambda _: self._changing.release())
        return await to_its_end(running)

    async def _changed(self, tool: str, *argv: str) -> command.Result:
        return await _tried(lambda: command.run(tool, *_SETTINGS, "--yes", *argv, timeout_s=_CHANGE_S, check=False))

    def _meaning(self, tool: str, result: command.Result) -> OnelunError:
        said = result.failure(tool)
        if _NO_GROUP.search(result.stderr):
            # Not NotFound: whoever removes something would take it for gone.
            return CommandFailed(
                f"pool {self.pool} is gone: there is no volume group {self.vg}: see that its disks are there",
                command=tool,
                status=result.status,
            )
        if _IN_USE.search(result.stderr):
            return Busy(f"a volume of pool {self.pool} is in use: {said}", pool=self.pool)
        if _FULL.search(result.stderr):
            return OutOfSpace(f"pool {self.pool} has no room: {said}", pool=self.pool)
        if _ABSENT.search(result.stderr):
            return NotFound(f"pool {self.pool} has no such volume any more: {said}", pool=self.pool)
        return CommandFailed(f"pool {self.pool}: {said}", command=tool, status=result.status)


async def _tried(attempt: Callable[[], Awaitable[command.Result]]) -> command.Result:
    for left in reversed(range(_TRIES)):
        result = await attempt()
        if result.status != _SEGMENTATION_FAULT or not left:
            break
    return result


class Shared(Generic[_Result]):
    """A reading that callers share: each gets one that began after it asked, and only one runs at a time."""

    def __init__(self, read: Callable[[], Awaitable[_Result]]) -> None:
        self._read = read
        self._running: asyncio.Task[_Result] | None = None
        self._next: asyncio.Task[_Result] | None = None

    async def get(self) -> _Result:
        """The result of a reading that begins now or later. Raises what the reading raises."""
        if self._next is None:
            self._next = asyncio.create_task(self._after(self._running))
            # When every caller is cancelled nobody asks for its error.
            self._next.add_done_callback(lambda task: task.cancelled() or task.exception())
        return await asyncio.shield(self._next)

    async def _after(self, before: asyncio.Task[_Result] | None) -> _Result:
        if before is not None and not before.done():
            await asyncio.wait({before})
        self._running, self._next = self._next, None
        return await self._read()
