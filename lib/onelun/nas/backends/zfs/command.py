"""The door to the tools `zfs`, `zpool` and `udevadm`: so many at once, each with a timeout, each failure as one of our errors.

The texts are those of OpenZFS 2.1 to 2.3 (lib/libzfs/libzfs_util.c, `libzfs_error_description`) in the locale C.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable

from onelun import command
from onelun.errors import Busy, CommandFailed, Conflict, NotFound, OnelunError, OutOfSpace, ProtocolError, Rejected

# A change waits for a transaction group; a pool of slow disks that is being scrubbed takes seconds for one.
_TIMEOUT_S = 60.0
_HEALTH_S = 5.0
# Each process holds the pool's configuration lock for a moment: more of them at once are not quicker.
_AT_ONCE = 8

_ABSENT = re.compile(r"cannot open '.*': (?:dataset does not exist|no such pool.*)")


class Missing(NotFound):
    """The dataset or snapshot is not there."""


class Present(Conflict):
    """The dataset or snapshot is there already."""


class Dependents(Busy):
    """Snapshots or clones hang on the dataset or snapshot."""


class Unrelated(Conflict):
    """The one snapshot is no ancestor of the other."""


class Zfs:
    """Runs the tools for the pool `pool`, which is the dataset `dataset` of a zpool."""

    def __init__(self, pool: str, dataset: str) -> None:
        self.pool = pool
        self.dataset = dataset
        self.zpool = dataset.partition("/")[0]
        self._turns = asyncio.Semaphore(_AT_ONCE)

    async def run(self, *argv: str) -> str:
        """Run `zfs` with these arguments; return what it printed. Raises one of our errors when it fails."""
        result = await self._run("zfs", *argv)
        if result.status != 0:
            raise self.failure("zfs", argv[0], result)
        return result.stdout

    async def read(self, *argv: str) -> str:
        """Run a `zfs` that lists several datasets; those that are not there are left out. Raises for anything else."""
        result = await self._run("zfs", *argv)
        if result.status != 0:
            others = [line for line in result.stderr.splitlines() if line.strip() and not _ABSENT.fullmatch(line)]
            if others or not result.stderr.strip():
                raise self.failure("zfs", argv[0], result._replace(stderr="\n".join(others)))
        return result.stdout

    async def zpool_facts(self, *columns: str) -> list[str]:
        """Columns of `zpool list` for the zpool. Raises Missing when it is not imported, ProtocolError."""
        result = await self._run("zpool", "list", "-Hp", "-o", ",".join(columns), self.zpool)
        if result.status != 0:
            raise self.failure("zpool", "list", result)
        facts = result.stdout.rstrip("\n").split("\t")
        if len(facts) != len(columns):
            raise ProtocolError(f"zpool list printed {result.stdout[:80]!r}, not {', '.join(columns)} of {self.zpool}")
        return facts

    def failure(self, tool: str, verb: str, result: command.Result) -> OnelunError:
        """The error that the tool's text means."""
        said = " ".join((result.stderr or result.stdout).split())
        for pattern, error in _MEANINGS:
            if re.search(pattern, said, re.IGNORECASE):
                return error(self, said)
        return CommandFailed(result.failure(f"{tool} {verb}"), command=tool, status=result.status)

    async def _run(self, tool: str, *argv: str) -> command.Result:
        async with self._turns:
            try:
                return await command.run(tool, *argv, timeout_s=_TIMEOUT_S, check=False)
            except CommandFailed as error:
                raise await self._explained(tool, error) from error

    async def _explained(self, tool: str, error: CommandFailed) -> CommandFailed:
        """Why a tool did not even end: it is not installed, or the zpool waits for its disks."""
        if "cannot run" in error.sentence:
            return CommandFailed(
                f"{tool} is not installed on this NAS: install the package zfsutils-linux", command=tool
            )
        try:
            shown = await command.run(
                "zpool", "list", "-Hp", "-o", "health", self.zpool, timeout_s=_HEALTH_S, check=False
            )
        except CommandFailed:
            return error
        if "SUSPENDED" in shown.stdout:
            return _suspended(self, "")
        return error


def _suspended(zfs: Zfs, said: str) -> CommandFailed:
    return CommandFailed(
        f"zpool {zfs.zpool} of pool {zfs.pool} is suspended, because it lost its disks:"
        f" bring them back, then run: zpool clear {zfs.zpool}",
        command="zfs",
    )


def _not_loaded(zfs: Zfs, said: str) -> CommandFailed:
    return CommandFailed(
        "the kernel module zfs is not loaded on this NAS: run modprobe zfs;"
        " when there is none for this kernel, install zfs-dkms and the kernel's headers",
        command="zfs",
    )


def _no_root(zfs: Zfs, said: str) -> CommandFailed:
    return CommandFailed("zfs may be used by root only: start the agent as root", command="zfs")


def _read_only(zfs: Zfs, said: str) -> Rejected:
    return Rejected(f"pool {zfs.pool} cannot be written: {said}")


def _full(zfs: Zfs, said: str) -> OutOfSpace:
    return OutOfSpace(f"pool {zfs.pool} is full: {said}", pool=zfs.pool)


def _kind(kind: type[OnelunError]) -> Callable[[Zfs, str], OnelunError]:
    return lambda zfs, said: kind(f"pool {zfs.pool}: {said}")


# The first that matches counts: a refusal because of snapshots also says "destroy the following datasets".
_MEANINGS: tuple[tuple[str, Callable[[Zfs, str], OnelunError]], ...] = (
    (
        r"modules are not loaded|/dev/zfs device is missing|cannot open /dev/zfs|cannot open.*/dev/zfs.*No such",
        _not_loaded,
    ),
    (r"must be run as root|permission denied", _no_root),
    (r"currently suspended", _suspended),
    (r"has children|has dependent clones|has snapshots|snapshot is cloned", _kind(Dependents)),
    (r"out of space|no space left|quota exceeded|greater than available space", _full),
    (r"pool is read-only|dataset is read-only|read-only file system", _read_only),
    (r"not an earlier snapshot from the same fs", _kind(Unrelated)),
    (r"is busy|resource busy", _kind(Busy)),
    (r"already exists", _kind(Present)),
    (r"does not exist|no such pool|no such dataset|could not find any snapshots", _kind(Missing)),
)
